//! Images on real loop devices. Needs root of the host.
#![expect(clippy::unwrap_used, reason = "a test that fails here has failed")]

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use quota::image::{self, Error, Fsck, Grown, Loop, Size};
use quota::journal::{Volatile, volatile};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

/// Whether this process may use loop devices; says why not.
fn can_run(test: &str) -> bool {
    let reason = if !rustix::process::geteuid().is_root() {
        "needs root"
    } else if File::open("/dev/loop-control").is_err() {
        "needs /dev/loop-control"
    } else {
        return true;
    };
    eprintln!("skipped: {test}: {reason}");
    false
}

fn has_cap_sys_resource() -> bool {
    let sets = rustix::thread::capabilities(None).unwrap();
    sets.effective.contains(rustix::thread::CapabilitySet::SYS_RESOURCE)
}

struct Mounted {
    _directory: TempDir,
    image: PathBuf,
    device: Loop,
    mount: OwnedFd,
}

impl Mounted {
    fn new(size: Size, inodes: u64) -> Mounted {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("ct.img");
        image::create(&image, size, inodes).unwrap();
        let device = image::attach(&image).unwrap();
        let mount = image::mount(&device).unwrap();
        Mounted { _directory: directory, image, device, mount }
    }

    /// A path into the mount that only this process can use.
    fn path(&self, name: &str) -> PathBuf {
        Path::new("/proc/self/fd").join(self.mount.as_raw_fd().to_string()).join(name)
    }
}

/// Whether the image is attached once all users are gone; the kernel detaches in the last close, at times a moment later.
fn wait_until_detached(image: &Path) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while image::attached(image).unwrap().is_some() {
        assert!(Instant::now() < deadline, "{} stays attached", image.display());
        std::thread::yield_now();
    }
}

#[test]
fn a_full_image_refuses_with_enospc_and_takes_no_more_of_the_host_than_its_size() {
    if !can_run("a_full_image_refuses_with_enospc") {
        return;
    }
    let ct = Mounted::new(Size::Image(32 * MIB), 1000);
    let mut file = File::create(ct.path("fill")).unwrap();
    let block = vec![1; 1 << 20];
    let error = (0..64).find_map(|_| file.write_all(&block).err()).expect("64 MiB do not fit 32");
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    file.sync_all().unwrap();
    let usage = image::usage(&ct.mount).unwrap();
    assert!(
        usage.space_total_kib - usage.space_used_kib < 1024,
        "root of a container has no blocks reserved: {usage:?}"
    );
    let host = std::fs::metadata(&ct.image).unwrap();
    assert_eq!(host.len(), 32 * MIB);
    // What the image takes of the host is its blocks, and at most some of the host's own to find them.
    assert!(host.blocks() * 512 <= 33 * MIB, "{} blocks", host.blocks());
}

#[test]
fn an_image_keeps_its_counts_through_a_power_cut_and_an_ext4_without_journal_does_not() {
    if !can_run("an_image_keeps_its_counts_through_a_power_cut_and_an_ext4_without_journal_does_not") {
        return;
    }
    let ours = Mounted::new(Size::Image(32 * MIB), 100);
    assert_eq!(volatile(&ours.path(".")).unwrap(), None);
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("other.img");
    let made = Command::new("mkfs.ext4")
        .args(["-q", "-b", "4096", "-O", "^has_journal"])
        .arg(&image)
        .arg("32M")
        .status()
        .unwrap();
    assert!(made.success());
    let mount = image::mount(&image::attach(&image).unwrap()).unwrap();
    let top = PathBuf::from(format!("/proc/self/fd/{}/.", mount.as_raw_fd()));
    assert_eq!(volatile(&top).unwrap(), Some(Volatile::NoJournal));
}

#[test]
fn inodes_run_out_at_the_limit() {
    if !can_run("inodes_run_out_at_the_limit") {
        return;
    }
    let ct = Mounted::new(Size::Image(32 * MIB), 500);
    let made = (0..10_000).take_while(|number| File::create(ct.path(&number.to_string())).is_ok()).count();
    // mke2fs fills the last block of inodes: sixteen of 256 bytes.
    assert!((500..516).contains(&made), "{made} files");
    let error = File::create(ct.path("one more")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    let usage = image::usage(&ct.mount).unwrap();
    assert_eq!(usage.inodes_used, usage.inodes_total);
}

#[test]
fn more_inodes_than_ext4_can_have_are_as_many_as_it_can() {
    if !can_run("more_inodes_than_ext4_can_have") {
        return;
    }
    let ct = Mounted::new(Size::Image(64 * MIB), u64::MAX);
    assert_eq!(image::usage(&ct.mount).unwrap().inodes_total, 64 * MIB / image::BLOCK_BYTES);
}

#[test]
fn an_image_is_never_attached_twice() {
    if !can_run("an_image_is_never_attached_twice") {
        return;
    }
    let ct = Mounted::new(Size::Image(32 * MIB), 1000);
    let linked = ct.image.with_file_name("another name");
    std::fs::hard_link(&ct.image, &linked).unwrap();
    for path in [&ct.image, &linked] {
        let again = image::attach(path).unwrap();
        assert_eq!(again.number(), ct.device.number());
        assert!(again.is_reused());
    }
    assert!(!ct.device.is_reused());
}

#[test]
fn an_image_that_somebody_else_attached_keeps_that_device() {
    if !can_run("an_image_that_somebody_else_attached") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("ct.img");
    image::create(&image, Size::Image(16 * MIB), 100).unwrap();
    assert!(image::attached(&image).unwrap().is_none());
    for read_only in [false, true] {
        let mut losetup = std::process::Command::new("/sbin/losetup");
        if read_only {
            losetup.arg("-r");
        }
        let output = losetup.args(["--show", "-f"]).arg(&image).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let device = String::from_utf8(output.stdout).unwrap();
        let attached = image::attach(&image).unwrap();
        assert!(attached.is_reused());
        assert_eq!(attached.path(), device.trim());
        drop(attached);
        let detached = std::process::Command::new("/sbin/losetup").args(["-d", device.trim()]).status().unwrap();
        assert!(detached.success());
        wait_until_detached(&image);
    }
}

#[test]
fn attaching_from_many_threads_gives_one_device_for_each_image() {
    if !can_run("attaching_from_many_threads") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let images: Vec<PathBuf> = (0..4).map(|number| directory.path().join(format!("{number}.img"))).collect();
    for image in &images {
        image::create(image, Size::Image(16 * MIB), 100).unwrap();
    }
    let attached: Vec<(usize, Loop)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|thread| {
                let image = &images[thread % 4];
                scope.spawn(move || (thread % 4, image::attach(image).unwrap()))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (image, device) in &attached {
        for (other_image, other) in &attached {
            assert_eq!(image == other_image, device.number() == other.number());
        }
    }
    assert_eq!(attached.iter().filter(|(_, device)| !device.is_reused()).count(), 4);
}

#[test]
fn the_device_is_gone_with_its_last_user_and_files_survive() {
    if !can_run("the_device_is_gone_with_its_last_user") {
        return;
    }
    let ct = Mounted::new(Size::Image(32 * MIB), 1000);
    std::fs::write(ct.path("kept"), "by the image").unwrap();
    drop(ct.device);
    assert!(image::attached(&ct.image).unwrap().is_some(), "the mount keeps the device");
    drop(ct.mount);
    wait_until_detached(&ct.image);

    let device = image::attach(&ct.image).unwrap();
    let mount = image::mount(&device).unwrap();
    let kept = format!("/proc/self/fd/{}/kept", mount.as_raw_fd());
    assert_eq!(std::fs::read_to_string(kept).unwrap(), "by the image");
}

#[test]
fn the_host_does_not_cache_what_the_container_caches() {
    if !can_run("the_host_does_not_cache") {
        return;
    }
    let ct = Mounted::new(Size::Image(32 * MIB), 1000);
    let direct = std::fs::read_to_string(format!("/sys/block/loop{}/loop/dio", ct.device.number())).unwrap();
    assert_eq!(direct.trim(), "1");
}

#[test]
fn device_nodes_in_an_image_do_not_work() {
    if !can_run("device_nodes_in_an_image_do_not_work") {
        return;
    }
    let ct = Mounted::new(Size::Image(32 * MIB), 1000);
    let null = rustix::fs::makedev(1, 3);
    let (kind, mode) = (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::from_raw_mode(0o666));
    rustix::fs::mknodat(rustix::fs::CWD, ct.path("null"), kind, mode, null).unwrap();
    let error = File::open(ct.path("null")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
}

#[test]
fn growing_online_is_seen_by_statfs() {
    if !can_run("growing_online_is_seen_by_statfs") {
        return;
    }
    let ct = Mounted::new(Size::Image(32 * MIB), 1000);
    let before = image::usage(&ct.mount).unwrap();
    let grown = image::grow(&ct.image, Size::Image(300 * MIB));
    if !has_cap_sys_resource() {
        assert!(matches!(grown, Err(Error::NeedsCapSysResource(_))), "{grown:?}");
        assert_eq!(std::fs::metadata(&ct.image).unwrap().len(), 32 * MIB, "refused before anything changed");
        eprintln!("skipped: growing_online_is_seen_by_statfs: needs CAP_SYS_RESOURCE");
        return;
    }
    assert_eq!(grown.unwrap(), Grown::Online);
    let after = image::usage(&ct.mount).unwrap();
    assert!(after.space_total_kib > before.space_total_kib + 200 * 1024, "{before:?} {after:?}");
    assert!(after.inodes_total > before.inodes_total);
    assert_eq!(image::grow(&ct.image, Size::Image(300 * MIB)).unwrap(), Grown::Unchanged);
    assert!(matches!(image::grow(&ct.image, Size::Image(299 * MIB)), Err(Error::Shrink { .. })));
}

#[test]
fn growing_an_idle_image_keeps_its_files() {
    if !can_run("growing_an_idle_image_keeps_its_files") {
        return;
    }
    let ct = Mounted::new(Size::Image(32 * MIB), 1000);
    std::fs::write(ct.path("kept"), "over growth").unwrap();
    let before = image::usage(&ct.mount).unwrap();
    drop((ct.mount, ct.device));
    wait_until_detached(&ct.image);

    assert_eq!(image::grow(&ct.image, Size::Image(300 * MIB)).unwrap(), Grown::Offline);
    wait_until_detached(&ct.image);
    assert_eq!(image::grow(&ct.image, Size::Image(300 * MIB)).unwrap(), Grown::Unchanged);

    let device = image::attach(&ct.image).unwrap();
    let mount = image::mount(&device).unwrap();
    let after = image::usage(&mount).unwrap();
    assert!(after.space_total_kib > before.space_total_kib + 200 * 1024, "{before:?} {after:?}");
    assert_eq!(std::fs::read_to_string(format!("/proc/self/fd/{}/kept", mount.as_raw_fd())).unwrap(), "over growth");
}

#[test]
fn shrinking_is_refused() {
    if !can_run("shrinking_is_refused") {
        return;
    }
    let ct = Mounted::new(Size::Image(32 * MIB), 1000);
    let refused = image::grow(&ct.image, Size::Image(31 * MIB)).unwrap_err();
    assert!(matches!(refused, Error::Shrink { current_bytes: 33_554_432, asked_bytes: 32_505_856, .. }), "{refused}");
    assert_eq!(std::fs::metadata(&ct.image).unwrap().len(), 32 * MIB);
}

#[test]
fn creating_never_replaces_an_image_and_leaves_it_as_it_is() {
    if !can_run("creating_never_replaces_an_image") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("ct.img");
    std::fs::write(&image, "somebody's").unwrap();
    let error = image::create(&image, Size::Image(32 * MIB), 1000).unwrap_err();
    assert!(matches!(&error, Error::Call(call) if call.errno == rustix::io::Errno::EXIST), "{error}");
    assert_eq!(std::fs::read_to_string(&image).unwrap(), "somebody's");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_full_disk_while_creating_leaves_no_file() {
    if !can_run("a_full_disk_while_creating_leaves_no_file") {
        return;
    }
    // Mounted nowhere: it is gone with its descriptor.
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    rustix::mount::fsconfig_set_string(&context, "size", "256k").unwrap();
    rustix::mount::fsconfig_create(&context).unwrap();
    let disk = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
    let directory = PathBuf::from(format!("/proc/self/fd/{}/", disk.as_raw_fd()));
    let error = image::create(&directory.join("ct.img"), Size::Image(2048 * MIB), 100_000).unwrap_err();
    assert!(matches!(error, Error::Program { program: "mkfs.ext4", .. }), "{error}");
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
    assert_eq!(rustix::fs::fstatvfs(&disk).map(|stat| stat.f_blocks - stat.f_bfree).unwrap(), 0, "space is given back");
}

#[test]
fn a_size_without_room_for_a_journal_is_refused() {
    let error = image::create(Path::new("/nonexistent/ct.img"), Size::Image(15 * MIB), 100).unwrap_err();
    assert!(matches!(error, Error::TooSmall { size_bytes: 15_728_640 }), "{error}");
}

#[test]
fn a_size_without_end_is_refused_at_once() {
    for size in [Size::Image(u64::MAX), Size::Usable(u64::MAX), Size::Usable(1 << 35)] {
        let error = image::create(Path::new("/nonexistent/ct.img"), size, 100).unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    }
}

#[test]
fn an_image_is_checked_only_when_its_superblock_tells_of_errors() {
    if !can_run("an_image_is_checked_only_when_its_superblock_tells_of_errors") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("ct.img");
    image::create(&image, Size::Image(32 * MIB), 1000).unwrap();
    assert_eq!(image::fsck(&image).unwrap(), Fsck::NotNeeded);

    let debugfs = std::process::Command::new("/usr/sbin/debugfs")
        .args(["-w", "-R", "set_super_value state 2"])
        .arg(&image)
        .output()
        .unwrap();
    assert!(debugfs.status.success(), "{debugfs:?}");
    assert!(matches!(image::fsck(&image).unwrap(), Fsck::Clean | Fsck::Corrected));
    assert_eq!(image::fsck(&image).unwrap(), Fsck::NotNeeded, "the check cleared the mark");

    let device = image::attach(&image).unwrap();
    let error = image::fsck(&image).unwrap_err();
    assert!(matches!(error, Error::InUse { number, .. } if number == device.number()), "{error}");
}

#[test]
fn what_is_no_image_is_refused_by_name() {
    if !can_run("what_is_no_image_is_refused_by_name") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("ct.img");
    File::create(&image).unwrap().set_len(32 * MIB).unwrap();
    assert!(matches!(image::grow(&image, Size::Image(64 * MIB)), Err(Error::NotExt4(_))));
    let device = image::attach(&image).unwrap();
    let error = image::mount(&device).unwrap_err();
    assert!(error.to_string().contains("source=/dev/loop"), "{error}");

    let link = directory.path().join("link.img");
    std::os::unix::fs::symlink(&image, &link).unwrap();
    let error = image::attach(&link).unwrap_err();
    assert!(matches!(&error, Error::Call(call) if call.errno == rustix::io::Errno::LOOP), "{error}");
}

#[test]
fn files_have_the_space_that_was_asked_for_and_hardly_more() {
    if !can_run("files_have_the_space_that_was_asked_for") {
        return;
    }
    // 886044 KiB with so many inodes end in a group that has no room for its own tables.
    let sizes = [
        (20 << 10, 1000),
        (200 << 10, 40_000),
        (886_044, 59_764),
        (1_153_433, 72_090),
        (2_306_867, 144_179),
        (20 << 20, 200_000),
        (300 << 20, 1_000_000),
    ];
    for (asked_kib, inodes) in sizes {
        let ct = Mounted::new(Size::Usable(asked_kib), inodes);
        let usage = image::usage(&ct.mount).unwrap();
        assert!((asked_kib..=asked_kib * 101 / 100 + 1024).contains(&usage.space_total_kib), "{asked_kib}: {usage:?}");
        assert!(usage.inodes_total - usage.inodes_used >= inodes, "{inodes}: {usage:?}");
    }
}

#[test]
fn an_image_grown_by_the_space_of_its_files_has_it() {
    if !can_run("an_image_grown_by_the_space_of_its_files_has_it") {
        return;
    }
    let ct = Mounted::new(Size::Usable(100 << 10), 20_000);
    let (image, _directory) = (ct.image, ct._directory);
    drop((ct.mount, ct.device));
    for mib in [101, 500, 3000, 12_000] {
        wait_until_detached(&image);
        assert_eq!(image::grow(&image, Size::Usable(mib << 10)).unwrap(), Grown::Offline);
        wait_until_detached(&image);
        assert_eq!(image::grow(&image, Size::Usable(mib << 10)).unwrap(), Grown::Unchanged);
        let device = image::attach(&image).unwrap();
        let mount = image::mount(&device).unwrap();
        let kib = image::usage(&mount).unwrap().space_total_kib;
        assert!((mib << 10..=(mib << 10) * 102 / 100 + 4096).contains(&kib), "asked {} KiB, got {kib}", mib << 10);
    }
}
