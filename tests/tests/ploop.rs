//! Containers whose private area is one image.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use tests::containers::node_with;
use tests::node::Node;
use tests::wait::wait_until;

const MIB: u64 = 1 << 20;

/// A node with container 101 of the busybox template in an image of a GiB.
fn ploop(test: &str) -> Option<Node> {
    let node = node_with(test, "busybox")?;
    node.done(["create", "101", "--ostemplate", "busybox", "--layout", "ploop", "--diskspace", "1G"]);
    Some(node)
}

fn image(node: &Node) -> PathBuf {
    node.path("private/101/root.hdd/root.hds")
}

/// Whether this process has `CAP_SYS_RESOURCE`: without it an image grows at the next start.
fn may_resize_mounted() -> bool {
    let sets = rustix::thread::capabilities(None).expect("capabilities");
    sets.effective.contains(rustix::thread::CapabilitySet::SYS_RESOURCE)
}

/// What an image takes of the host.
fn taken_bytes(node: &Node) -> u64 {
    image(node).metadata().expect("an image").blocks() * 512
}

/// KiB of a column of df(1) for the root inside.
fn df(node: &Node, column: u32) -> u64 {
    node.inside(&format!("df -k / | tail -n 1 | awk '{{print ${column}}}'")).parse().expect("a number")
}

#[test]
fn a_container_of_the_ploop_layout_lives_in_an_image_of_its_own() {
    let Some(node) = ploop("a_container_of_the_ploop_layout_lives_in_an_image_of_its_own") else { return };
    assert_eq!(node.configured(101, "VE_LAYOUT").as_deref(), Some("ploop"));
    assert_eq!(node.configured(101, "VE_TREE"), None);
    assert_eq!(node.vzlist(["-aHo", "layout", "101"]).ok().stdout.trim(), "ploop");
    let only: Vec<_> =
        std::fs::read_dir(node.path("private/101")).expect("there").flatten().map(|e| e.file_name()).collect();
    assert_eq!(only, ["root.hdd"]);
    let meta = image(&node).metadata().expect("an image");
    assert_eq!((meta.len(), meta.mode() & 0o777), (1024 * MIB, 0o600));
    assert!(taken_bytes(&node) < 200 * MIB, "sparse: {}", taken_bytes(&node));
    node.done(["start", "101"]);
    let mounts = node.inside("cat /proc/mounts");
    let root = mounts.lines().find(|line| line.split(' ').nth(1) == Some("/")).expect("a root");
    assert!(root.starts_with("/dev/loop") && root.contains(" / ext4 rw"), "{root}");
    let device = root.trim_start_matches("/dev/").split(' ').next().expect("a device");
    let direct = std::fs::read_to_string(format!("/sys/block/{device}/loop/dio")).expect("a loop device");
    assert_eq!(direct.trim(), "1", "the host does not cache it a second time");
    assert_eq!(node.inside("stat -c %u:%g:%a /"), "0:0:755");
    assert_eq!(
        node.inside("ls -A / | grep -c -e lost+found -e balloon || true"),
        "0",
        "its root is below the image's top"
    );
    node.inside("echo kept > /root/file; ln /root/file /root/link; mkfifo /root/fifo");
    node.done(["stop", "101", "--fast"]);
    node.done(["mount", "101"]);
    assert_eq!(std::fs::read_to_string(node.path("root/101/root/file")).expect("mounted"), "kept\n");
    let usage = node.vzlist(["-aHo", "diskspace", "101"]).ok().stdout;
    assert!(usage.trim().parse::<u64>().is_ok_and(|kib| kib > 0), "{usage:?}");
    node.done(["umount", "101"]);
    node.done(["start", "101"]);
    assert_eq!(node.inside("cat /root/link"), "kept");
    node.done(["restart", "101", "--fast"]);
    assert_eq!(node.inside("cat /root/file"), "kept");
    node.done(["stop", "101", "--fast"]);
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn files_in_an_image_have_the_containers_ids_and_those_of_the_template() {
    let Some(node) = ploop("files_in_an_image_have_the_containers_ids_and_those_of_the_template") else { return };
    node.done(["start", "101"]);
    node.inside("touch /root/mine; chown 1000:1001 /root/mine");
    assert_eq!(node.inside("stat -c %u:%g /root/mine /bin/busybox"), "1000:1001\n0:0");
    let base: u32 = node.configured(101, "LOCAL_UID").expect("a range").parse().expect("a number");
    let init = node.process(101, "init");
    let seen = std::fs::metadata(format!("/proc/{init}/root/root/mine")).expect("there");
    assert_eq!(seen.uid(), base + 1000, "shifted by its mount");
}

#[test]
fn the_limit_of_an_image_is_its_size() {
    let Some(node) = ploop("the_limit_of_an_image_is_its_size") else { return };
    node.done(["start", "101"]);
    let full = node.vzctl(["exec2", "101", "dd if=/dev/zero of=/big bs=1M count=1100 2>&1"]);
    assert!(full.code != 0 && full.stdout.contains("No space left"), "{full:?}");
    assert!(taken_bytes(&node) <= 1025 * MIB, "{}", taken_bytes(&node));
}

#[test]
fn vz_conf_chooses_the_layout_and_an_image_needs_a_size() {
    let Some(node) = node_with("vz_conf_chooses_the_layout_and_an_image_needs_a_size", "busybox") else { return };
    node.configure("VE_LAYOUT=ploop");
    node.done(["create", "101", "--diskspace", "64M", "--diskinodes", "4000"]);
    assert_eq!(image(&node).metadata().expect("an image").len(), 64 * MIB);
    node.done(["start", "101"]);
    let inodes: u64 = node.inside("df -i / | tail -n 1 | awk '{print $2}'").parse().expect("a number");
    assert!((4000..4100).contains(&inodes), "{inodes}");
    node.done(["stop", "101", "--fast"]);
    node.done(["destroy", "101"]);
    node.vzctl(["create", "101", "--diskspace", "unlimited"]).fails_with(63);
    node.done(["create", "101", "--layout", "simfs"]);
    assert_eq!(node.configured(101, "VE_LAYOUT").as_deref(), Some("simfs"));
    node.done(["destroy", "101"]);
    // A private area that is full before it is filled.
    node.vzctl(["create", "101", "--diskspace", "1M"]).fails_with(151);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn a_plain_image_takes_its_space_at_once() {
    let Some(node) = node_with("a_plain_image_takes_its_space_at_once", "busybox") else { return };
    node.done(["create", "101", "--layout", "ploop:plain", "--diskspace", "64M"]);
    assert_eq!(node.configured(101, "VE_LAYOUT").as_deref(), Some("ploop:plain"));
    assert!(taken_bytes(&node) >= 64 * MIB, "{}", taken_bytes(&node));
    node.done(["start", "101"]);
    node.inside("dd if=/dev/zero of=/big bs=1M count=16 2>/dev/null && rm /big && sync");
    node.done(["stop", "101", "--fast"]);
    assert!(taken_bytes(&node) >= 64 * MIB, "what it had is not given back: {}", taken_bytes(&node));
}

#[test]
fn containers_of_one_template_share_one_copying_of_its_files() {
    let Some(node) = node_with("containers_of_one_template_share_one_copying_of_its_files", "busybox") else { return };
    // Inodes in proportion: 8192 in a group of 128 MiB.
    let create = |ctid, space, inodes| {
        let layout = ["--layout", "ploop", "--diskspace", space, "--diskinodes", inodes];
        node.done(["create", ctid, "--ostemplate", "busybox"].into_iter().chain(layout));
    };
    let template = || {
        let trees = tests::containers::templates().join("cache/.trees");
        let entries = std::fs::read_dir(trees).expect("trees").flatten();
        let images = entries.filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.starts_with("busybox@") && name.ends_with(".8192.img")
        });
        images.map(|entry| entry.metadata().expect("there").ino()).collect::<Vec<_>>()
    };
    create("101", "1G", "65536");
    let before = template();
    assert!(!before.is_empty());
    create("102", "3G", "196608");
    assert_eq!(template(), before);
    node.done(["start", "102"]);
    let inside = node.done(["exec2", "102", "df -k / | tail -n 1 | awk '{print $2}'"]);
    assert!(inside.trim().parse::<u64>().is_ok_and(|kib| kib > 2_700_000), "grown to its size: {inside}");
}

#[test]
fn an_image_grows_and_shrinks_while_the_container_runs() {
    let Some(node) = ploop("an_image_grows_and_shrinks_while_the_container_runs") else { return };
    node.done(["start", "101"]);
    let (total, free) = (df(&node, 2), df(&node, 4));
    node.done(["set", "101", "--diskspace", "2G", "--save"]);
    if !may_resize_mounted() {
        node.done(["restart", "101", "--fast"]);
    }
    assert!(df(&node, 2) > total + 900 * 1024, "{} KiB", df(&node, 2));
    let taken = taken_bytes(&node);
    node.done(["set", "101", "--diskspace", "512M", "--save"]);
    assert!(df(&node, 4) <= free - 512 * 1024 + 32 * 1024, "{} KiB free, {free} before", df(&node, 4));
    assert!(
        taken_bytes(&node) <= taken + MIB,
        "a balloon takes nothing of the host: {} after {taken}",
        taken_bytes(&node)
    );
    let used = node.vzlist(["-Ho", "diskspace", "101"]).ok().stdout;
    assert!(used.trim().parse::<u64>().is_ok_and(|kib| kib < 128 * 1024), "the balloon is not the container's: {used}");
    let full = node.vzctl(["exec2", "101", "dd if=/dev/zero of=/big bs=1M count=600 2>&1"]);
    assert!(full.stdout.contains("No space left"), "{full:?}");
    // Smaller than what is in it: refused, and as it was.
    let refused = node.vzctl(["set", "101", "--diskspace", "128M", "--save"]);
    refused.fails_with(154);
    assert_eq!(node.configured(101, "DISKSPACE").as_deref(), Some("524288:524288"));
    node.inside("rm /big; sync");
    // The limit holds over a start, and a larger one is made true whether it runs or not.
    node.done(["restart", "101", "--fast"]);
    assert!(df(&node, 4) <= free - 512 * 1024 + 32 * 1024);
    node.done(["set", "101", "--diskspace", "1G", "--save"]);
    // Less by the tables of the GiB that the file system has and the limit takes away.
    assert!(df(&node, 4) + 64 * 1024 >= free, "{} KiB free, {free} before", df(&node, 4));
    node.done(["stop", "101", "--fast"]);
    node.done(["set", "101", "--diskspace", "3G", "--save"]);
    assert_eq!(image(&node).metadata().expect("an image").len(), 3 * 1024 * MIB);
    node.vzctl(["set", "101", "--diskspace", "3G"]).fails_with(20);
}

#[test]
fn a_stopped_containers_image_is_made_shorter_in_earnest() {
    let Some(node) = ploop("a_stopped_containers_image_is_made_shorter_in_earnest") else { return };
    node.done(["set", "101", "--diskspace", "512M", "--save"]);
    assert_eq!(image(&node).metadata().expect("an image").len(), 1024 * MIB, "by a balloon");
    node.done(["set", "101", "--diskspace", "256M", "--offline-resize", "--save"]);
    assert_eq!(image(&node).metadata().expect("an image").len(), 256 * MIB);
    node.done(["start", "101"]);
    assert!(df(&node, 2) < 256 * 1024);
    node.inside("echo works > /file");
    node.vzctl(["set", "101", "--diskspace", "128M", "--offline-resize", "--save"]).fails_with(21);
}

#[test]
fn what_is_deleted_inside_is_given_back_to_the_host() {
    let Some(node) = ploop("what_is_deleted_inside_is_given_back_to_the_host") else { return };
    node.done(["start", "101"]);
    let before = taken_bytes(&node);
    node.inside("dd if=/dev/urandom of=/big bs=1M count=64 2>/dev/null && sync");
    assert!(taken_bytes(&node) > before + 60 * MIB);
    node.inside("rm /big && sync");
    let given = wait_until(Duration::from_secs(30), || taken_bytes(&node) < before + 8 * MIB);
    assert!(given, "{} after {before}", taken_bytes(&node));
    node.done(["compact", "101"]);
}

#[test]
fn compact_gives_back_what_was_not_given_back_at_once() {
    let Some(node) = ploop("compact_gives_back_what_was_not_given_back_at_once") else { return };
    let before = taken_bytes(&node);
    let place = node.path("place");
    std::fs::create_dir(&place).expect("made");
    let sh =
        |line: String| assert!(std::process::Command::new("sh").args(["-ec", &line]).status().expect("sh").success());
    let (image_path, place) = (image(&node).display().to_string(), place.display().to_string());
    sh(format!(
        "mount -o loop,nodiscard {image_path} {place}; dd if=/dev/urandom of={place}/big bs=1M count=64 status=none; sync {place}/big; \
         rm {place}/big; umount {place}"
    ));
    assert!(taken_bytes(&node) > before + 60 * MIB);
    let said = node.done(["compact", "101"]);
    assert!(said.contains("MiB were given back"), "{said:?}");
    assert!(taken_bytes(&node) < before + 8 * MIB, "{} after {before}", taken_bytes(&node));
    node.done(["create", "102", "--ostemplate", "busybox", "--layout", "ploop:raw", "--diskspace", "32M"]);
    node.vzctl(["compact", "102"]).fails_with(166);
}

#[test]
fn an_image_that_is_missing_short_or_no_file_system_is_refused_and_the_host_is_as_it_was() {
    let test = "an_image_that_is_missing_short_or_no_file_system_is_refused_and_the_host_is_as_it_was";
    let Some(node) = ploop(test) else { return };
    let whole = node.path("whole");
    let back = || {
        let _ = std::fs::remove_file(image(&node));
        std::fs::rename(&whole, image(&node)).expect("renamed");
    };
    std::fs::rename(image(&node), &whole).expect("renamed");
    node.vzctl(["start", "101"]).fails_with(150);
    node.vzctl(["set", "101", "--diskspace", "2G", "--save"]).fails_with(150);
    std::fs::write(image(&node), vec![0u8; 1 << 20]).expect("written");
    let refused = node.vzctl(["start", "101"]);
    refused.fails_with(152);
    assert_eq!(node.status(101), "CTID 101 exist unmounted down");
    back();
    // The end is cut off: the file system is longer than its device.
    std::fs::File::options().write(true).open(image(&node)).expect("opened").set_len(100 * MIB).expect("cut");
    node.vzctl(["mount", "101"]).fails_with(152);
    assert_eq!(node.status(101), "CTID 101 exist unmounted down");
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn an_image_that_is_deleted_while_it_is_mounted_goes_on_until_the_stop() {
    let Some(node) = ploop("an_image_that_is_deleted_while_it_is_mounted_goes_on_until_the_stop") else { return };
    node.done(["start", "101"]);
    std::fs::remove_file(image(&node)).expect("removed");
    assert_eq!(node.inside("echo x > /file && cat /file"), "x");
    node.vzctl(["compact", "101"]).fails_with(150);
    node.done(["stop", "101", "--fast"]);
    node.vzctl(["start", "101"]).fails_with(150);
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn an_image_that_is_cut_off_while_it_is_mounted_can_be_stopped_and_harms_nobody_else() {
    let test = "an_image_that_is_cut_off_while_it_is_mounted_can_be_stopped_and_harms_nobody_else";
    let Some(node) = ploop(test) else { return };
    node.done(["create", "102", "--ostemplate", "busybox", "--layout", "ploop", "--diskspace", "64M"]);
    node.done(["start", "102"]);
    node.done(["start", "101"]);
    std::fs::File::options().write(true).open(image(&node)).expect("opened").set_len(MIB).expect("cut");
    // Whatever it is told, it is told something.
    node.vzctl(["exec2", "101", "dd if=/dev/zero of=/big bs=1M count=64; sync; ls -lR / >/dev/null"]);
    assert_eq!(node.done(["exec2", "102", "echo works > /file; sync; cat /file"]), "works\n");
    node.done(["stop", "101", "--fast"]);
    assert_eq!(node.status(101), "CTID 101 exist unmounted down");
    node.vzctl(["start", "101"]).fails_with(152);
    node.done(["stop", "102", "--fast"]);
    for ctid in ["101", "102"] {
        node.done(["destroy", ctid]);
    }
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn a_file_system_that_found_errors_is_mended_and_one_that_is_beyond_it_is_refused() {
    let Some(node) = ploop("a_file_system_that_found_errors_is_mended_and_one_that_is_beyond_it_is_refused") else {
        return;
    };
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().write(true).open(image(&node)).expect("opened");
    // s_state of the superblock: errors were found.
    file.write_all_at(&[2, 0], 1024 + 0x3A).expect("written");
    // The checksum over the superblock is wrong then, and e2fsck puts both right.
    let started = node.vzctl(["start", "101"]);
    assert!(started.code == 0 || started.code == 152, "{started:?}");
    if started.code == 0 {
        assert_eq!(node.inside("echo works"), "works");
        node.done(["stop", "101", "--fast"]);
    }
    // Superblock, descriptors, bitmaps, inodes.
    file.write_all_at(&vec![0xFF; 16 << 20], 4096).expect("written");
    node.vzctl(["start", "101"]).fails_with(152);
    assert_eq!(node.status(101), "CTID 101 exist unmounted down");
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn an_image_that_somebody_else_has_mounted_is_not_attached_a_second_time() {
    let Some(node) = ploop("an_image_that_somebody_else_has_mounted_is_not_attached_a_second_time") else { return };
    let place = node.path("place");
    std::fs::create_dir(&place).expect("made");
    let mount = std::process::Command::new("mount").args(["-o", "loop"]).args([image(&node), place.clone()]).status();
    assert!(mount.expect("mount").success());
    node.done(["start", "101"]);
    node.inside("echo seen > /file");
    assert_eq!(std::fs::read_to_string(place.join("fs/file")).expect("one file system"), "seen\n");
    node.done(["stop", "101", "--fast"]);
    node.vzctl(["set", "101", "--diskspace", "512M", "--offline-resize", "--save"]).fails_with(154);
    let umount = std::process::Command::new("umount").arg(&place).status();
    assert!(umount.expect("umount").success());
    std::fs::remove_dir(&place).expect("removed");
    node.done(["start", "101"]);
    assert_eq!(node.inside("cat /file"), "seen");
}
