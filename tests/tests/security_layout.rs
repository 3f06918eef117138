//! A container that is the whole of its private area, as one brought along from OpenVZ is: everything in that directory is the container's
//! to write, before, after and while the host works on it.

mod security_support;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use security_support::{Canary, arm, assert_nothing_left, attack_tool, bounded, create, inside, node};
use tests::node::{Node, Outcome};
use tests::skips::skip;
use tests::snapshot::Snapshot;

/// A node whose container 101 is a private area with all its files, and no disk quota.
fn whole(test: &str) -> Option<Node> {
    let node = node(test)?;
    // A template of its own: its tree is what the container is made of.
    node.configure(&format!("DISK_QUOTA=no\nTEMPLATE={}", node.path("template").display()));
    node.run("vzpkg", ["create", "cache", "busybox"]).ok();
    // Unpacks the template; and it has all it writes at a start.
    create(&node, 102);
    node.vzctl(["start", "102"]).ok();
    node.vzctl(["stop", "102", "--fast"]).ok();
    let trees = node.path("template/cache/.trees");
    let tree = std::fs::read_dir(trees).expect("trees").flatten().map(|e| e.path()).find(|p| p.join("bin").is_dir());
    let mut command = Command::new("cp");
    command.arg("-a").arg(tree.expect("the tree of busybox")).arg(node.path("private/101"));
    Outcome::of(command, security_support::PATIENCE).ok();
    std::fs::write(node.configuration(101), "OSTEMPLATE=\"busybox\"\nHOSTNAME=\"whole\"\n").expect("written");
    Some(node)
}

#[test]
fn what_a_container_writes_into_its_private_area_does_not_change_what_the_host_takes_it_for() {
    let test = "what_a_container_writes_into_its_private_area_does_not_change_what_the_host_takes_it_for";
    let Some(node) = whole(test) else { return };
    let canary = Canary::new();
    let other = node.path("private/102").display().to_string();
    let machine = Snapshot::take([canary.path(), Path::new(&other)]);
    node.vzctl(["start", "101"]).ok();
    let canary_path = canary.path().display();
    let plant = format!(
        "cd /; mkdir root.hdd; echo '<Parallels_disk_image><Image><File>{other}/root.img</File></Image></Parallels_disk_image>' \
         > root.hdd/DiskDescriptor.xml; ln -s {other}/root.img root.hdd/root.hdd; ln -s {canary_path} fs; ln -s {canary_path} work; \
         dd if=/dev/zero of=root.img bs=64k count=32 2>/dev/null; echo 2 > .ve.layout; ln -s {canary_path} VERSION; touch .vz-creating; \
         ln -s {canary_path} 101.tmp; ls -A / | sort"
    );
    let planted = inside(&node, 101, &plant).ok().stdout;
    bounded(&node, &["stop", "101", "--fast"]).ok();
    for words in [
        &["mount", "101"][..],
        &["umount", "101"],
        &["set", "101", "--userpasswd", "root:secret"],
        &["start", "101"],
        &["set", "101", "--diskspace", "1G:1G", "--hostname", "other", "--save"],
        &["restart", "101"],
    ] {
        bounded(&node, words).ok();
    }
    assert_eq!(inside(&node, 101, "ls -A / | sort").ok().stdout, planted, "all that was there is there");
    // Neither running nor stopped is it taken for one that was never finished.
    bounded(&node, &["create", "101"]).fails_with(44);
    bounded(&node, &["stop", "101", "--fast"]).ok();
    bounded(&node, &["create", "101"]).fails_with(44);
    assert!(node.path("private/101/bin/busybox").exists());
    bounded(&node, &["destroy", "101"]).ok();
    canary.assert_untouched("the layout of a private area");
    // Before 102 runs: what it writes itself lies there too, where a private area is a directory.
    assert_nothing_left(&node, &machine);
    bounded(&node, &["start", "102"]).ok();
    bounded(&node, &["stop", "102", "--fast"]).ok();
}

#[test]
fn a_private_area_that_is_a_link_is_refused_and_where_it_leads_is_left_alone() {
    let Some(node) = whole("a_private_area_that_is_a_link_is_refused_and_where_it_leads_is_left_alone") else { return };
    let machine = Snapshot::take([node.path("private/102")]);
    std::fs::rename(node.path("private/101"), node.path("aside")).expect("renamed");
    symlink("102", node.path("private/101")).expect("a link");
    for command in
        [&["start", "101"][..], &["mount", "101"], &["set", "101", "--userpasswd", "root:x"], &["destroy", "101"]]
    {
        let outcome = bounded(&node, command);
        assert!(outcome.code != 0 && !outcome.stderr.is_empty(), "{command:?}: {outcome:?}");
    }
    // Before 102 runs: what it writes itself lies there too, where a private area is a directory.
    assert_nothing_left(&node, &machine);
    bounded(&node, &["start", "102"]).ok();
    bounded(&node, &["stop", "102", "--fast"]).ok();
}

/// A process that is ended with the test.
struct Racer(Child);

impl Drop for Racer {
    fn drop(&mut self) {
        // It runs until it is killed; should it have ended by itself there is nothing to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Exchanges a directory of the private area for a link to `to` all the time.
fn race(tool: &Path, directory: &Path, to: &Path) -> Racer {
    let beside: PathBuf = format!("{}.link", directory.display()).into();
    symlink(to, &beside).expect("a link");
    let child = Command::new(tool).arg("exchange").arg(directory).arg(&beside).spawn();
    Racer(child.expect("the attacker's tool"))
}

/// The mounts of the host that are nobody's but the test's.
fn mounts(node: &Node, canary: &Canary) -> Vec<String> {
    let all = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let ours = [node.path("").display().to_string(), canary.path().display().to_string()];
    let points =
        all.lines().filter_map(|line| line.split(' ').nth(4)).filter(|p| ours.iter().any(|o| p.starts_with(o)));
    points.map(str::to_owned).collect()
}

#[test]
fn a_mount_point_that_turns_into_a_link_during_the_start_leads_no_mount_out_of_the_root() {
    let test = "a_mount_point_that_turns_into_a_link_during_the_start_leads_no_mount_out_of_the_root";
    let Some(node) = whole(test) else { return };
    let Some(tool) = attack_tool() else { return skip(test, "needs a C compiler (cc) and static libraries") };
    let canary = Canary::new();
    let outside = canary.path().to_owned();
    let before = mounts(&node, &canary);
    for directory in ["dev", "proc", "sys", "etc"] {
        for to in [outside.as_path(), Path::new("../../.."), Path::new("/proc/self/root")] {
            let racer = race(&tool, &node.path("private/101").join(directory), to);
            for _ in 0..12 {
                let start = bounded(&node, &["start", "101"]);
                canary.assert_untouched(directory);
                if start.code == 0 {
                    bounded(&node, &["stop", "101", "--fast"]).ok();
                }
                assert_eq!(mounts(&node, &canary), before, "{directory} to {}: {start:?}", to.display());
            }
            drop(racer);
            let beside = node.path("private/101").join(format!("{directory}.link"));
            if beside.is_symlink() {
                std::fs::remove_file(&beside).expect("there");
            } else {
                std::fs::remove_file(node.path("private/101").join(directory)).expect("there");
                std::fs::rename(&beside, node.path("private/101").join(directory)).expect("there");
            }
        }
    }
    bounded(&node, &["start", "101"]).ok();
}

#[test]
fn a_directory_of_dev_that_turns_into_a_link_leads_no_granted_device_out_of_the_root() {
    let test = "a_directory_of_dev_that_turns_into_a_link_leads_no_granted_device_out_of_the_root";
    let Some(node) = whole(test) else { return };
    if !Path::new("/dev/net/tun").exists() {
        return skip(test, "this host has no /dev/net/tun");
    }
    node.vzctl(["start", "101"]).ok();
    if !arm(test, &node, 101) {
        return;
    }
    let canary = Canary::new();
    let before = mounts(&node, &canary);
    let race = format!(
        "mkdir /dev/net; for to in {0} ../../../..{0} /proc/self/root{0} /proc/1/cwd /proc; do ln -s $to /dev/net.$$; \
         (/attack exchange /dev/net /dev/net.$$ & p=$!; sleep 1; kill $p); rm -f /dev/net.$$ /dev/net; mkdir -p /dev/net; done \
         > /dev/null 2>&1 &",
        canary.path().display()
    );
    inside(&node, 101, &race).ok();
    for _ in 0..40 {
        // Taken back without a trace in the plan: each time it is granted anew.
        bounded(&node, &["set", "101", "--devnodes", "net/tun:rw"]);
        canary.assert_untouched("a device granted");
        assert_eq!(mounts(&node, &canary), before);
    }
    assert!(!canary.path().join("tun").exists());
}

#[test]
fn what_an_image_has_below_proc_and_sys_does_not_redirect_what_a_start_writes_there() {
    let test = "what_an_image_has_below_proc_and_sys_does_not_redirect_what_a_start_writes_there";
    let Some(node) = whole(test) else { return };
    let canary = Canary::new();
    let file = canary.path().join("file");
    let private = node.path("private/101");
    let planted = [
        "proc/sys/kernel/hostname",
        "proc/self/oom_score_adj",
        "proc/self/uid_map",
        "proc/self/setgroups",
        "proc/thread-self/attr/exec",
        "proc/sysrq-trigger",
        "proc/keys",
        "sys/fs/cgroup/cgroup.procs",
        "sys/firmware",
        "dev/null",
        "dev/console",
    ];
    for path in planted {
        let path = private.join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        symlink(&file, path).expect("a link");
    }
    bounded(&node, &["start", "101"]).ok();
    bounded(&node, &["set", "101", "--hostname", "other", "--save"]).ok();
    let kinds =
        inside(&node, 101, "hostname; stat -f -c %T /proc /sys; stat -c %F /proc/keys /dev/null /dev/console").ok();
    let said: Vec<&str> = kinds.stdout.lines().collect();
    assert_eq!(said[0], "other");
    assert_eq!(said[3..], ["character special file"; 3], "the covers and devices are the real ones: {kinds:?}");
    assert!(!kinds.stdout.contains("link"), "{kinds:?}");
    bounded(&node, &["stop", "101", "--fast"]).ok();
    canary.assert_untouched("a start over a prepared /proc and /sys");
    assert!(planted.iter().all(|path| private.join(path).is_symlink()), "what lay there still lies there");
}
