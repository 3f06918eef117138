//! Quotas of users and groups on real images. Needs root of the host, and a kernel that has them.
#![expect(clippy::unwrap_used, reason = "a test that fails here has failed")]

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use quota::image::{self, Loop, Options, Size};
use quota::quotactl::{Call, Kind, LARGEST_BYTES};
use quota::users::{self, Grace, Prepared, Users};
use quota::{Limit, SoftHard};
use rustix::thread::CapabilitySet;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
const SOMEBODY: u32 = 1000;

struct Area {
    directory: TempDir,
    device: Loop,
    mount: OwnedFd,
}

impl Area {
    fn new(test: &str) -> Option<Area> {
        let reason = if !rustix::process::geteuid().is_root() {
            "needs root".to_owned()
        } else if File::open("/dev/loop-control").is_err() {
            "needs /dev/loop-control".to_owned()
        } else {
            match users::support().unwrap() {
                Ok(()) => return Some(Area::made()),
                Err(missing) => missing.to_string(),
            }
        };
        eprintln!("skipped: {test}: {reason}");
        None
    }

    fn made() -> Area {
        // The limit is not for processes with this capability.
        let mut sets = rustix::thread::capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::SYS_RESOURCE);
        rustix::thread::set_capabilities(None, sets).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ct.img");
        image::create(&file, Size::Image(64 * MIB), 1000).unwrap();
        assert!(!users::has(&file).unwrap());
        assert_eq!(users::add(&file).unwrap(), Prepared::Changed);
        Area::mounted(directory)
    }

    fn mounted(directory: TempDir) -> Area {
        let device = image::attach(&directory.path().join("ct.img")).unwrap();
        let mount = image::mount_with(&device, Options { limits_users: true, ..Options::default() }).unwrap();
        Area { directory, device, mount }
    }

    fn users(&self) -> Users {
        Users::on(self.device.number())
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new("/proc/self/fd").join(self.mount.as_raw_fd().to_string()).join(name)
    }

    /// A file of somebody's; how many bytes of `bytes` went into it.
    fn write(&self, name: &str, owner: u32, bytes: u64) -> u64 {
        let mut file = File::create(self.path(name)).unwrap();
        std::os::unix::fs::fchown(&file, Some(owner), Some(owner)).unwrap();
        let block = [1; 4096];
        for written in 0..bytes.div_ceil(4096) {
            match file.write_all(&block) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::QuotaExceeded => return written * 4096,
                Err(e) => panic!("{e}"),
            }
        }
        bytes
    }
}

fn hard(kib: u64) -> SoftHard {
    SoftHard { soft: Limit::Unlimited, hard: Limit::Of(kib) }
}

#[test]
fn a_users_limit_holds_to_the_block_and_is_nobody_elses() {
    let Some(area) = Area::new("a_users_limit_holds_to_the_block_and_is_nobody_elses") else { return };
    let users = area.users();
    users.set_limits(Kind::User, SOMEBODY, hard(1024), SoftHard::UNLIMITED).unwrap();
    assert_eq!(area.write("his", SOMEBODY, 4 * MIB), MIB);
    assert_eq!(users.status(Kind::User, SOMEBODY).unwrap().space_used_kib, 1024);
    assert_eq!(area.write("hers", SOMEBODY + 1, 4 * MIB), 4 * MIB);
    users.set_limits(Kind::User, SOMEBODY, hard(2048), SoftHard::UNLIMITED).unwrap();
    assert_eq!(area.write("his too", SOMEBODY, 4 * MIB), MIB);
    // Groups have limits of their own.
    users.set_limits(Kind::Group, SOMEBODY + 1, hard(4096), SoftHard::UNLIMITED).unwrap();
    assert_eq!(area.write("hers too", SOMEBODY + 1, MIB), 0);
}

#[test]
fn limits_and_grace_times_are_in_the_image() {
    let Some(area) = Area::new("limits_and_grace_times_are_in_the_image") else { return };
    let users = area.users();
    let inodes = SoftHard { soft: Limit::Of(5), hard: Limit::Of(7) };
    users.set_limits(Kind::User, SOMEBODY, SoftHard::UNLIMITED, inodes).unwrap();
    users.set_grace(Kind::User, Grace { space_s: 60, inodes_s: 120 }).unwrap();
    assert_eq!(users.limited(Kind::User, 10).unwrap(), 1);
    let Area { directory, device, mount } = area;
    drop((device, mount));
    let again = Area::mounted(directory);
    let users = again.users();
    assert_eq!(users.status(Kind::User, SOMEBODY).unwrap().inodes, inodes);
    assert_eq!(users.grace(Kind::User).unwrap(), Grace { space_s: 60, inodes_s: 120 });
    let (id, found) = users.next(Kind::User, 1).unwrap().unwrap();
    assert_eq!((id, found.inodes), (SOMEBODY, inodes));
    assert_eq!(users.next(Kind::User, SOMEBODY + 1).unwrap(), None);
}

#[test]
fn what_was_there_before_is_counted_and_what_is_taken_away_is_gone() {
    let Some(area) = Area::new("what_was_there_before_is_counted_and_what_is_taken_away_is_gone") else { return };
    area.write("his", SOMEBODY, MIB);
    let file = area.directory.path().join("ct.img");
    assert_eq!(users::take_away(&file).unwrap(), Prepared::Unchanged, "it is mounted");
    let Area { directory, device, mount } = area;
    drop((device, mount));
    assert_eq!(users::take_away(&file).unwrap(), Prepared::Changed);
    assert!(!users::has(&file).unwrap());
    assert_eq!(users::add(&file).unwrap(), Prepared::Changed);
    let again = Area::mounted(directory);
    assert_eq!(again.users().status(Kind::User, SOMEBODY).unwrap().space_used_kib, 1024);
}

#[test]
fn limits_outlive_a_host_that_can_not_keep_them() {
    let Some(area) = Area::new("limits_outlive_a_host_that_can_not_keep_them") else { return };
    let inodes = SoftHard { soft: Limit::Of(50), hard: Limit::Of(70) };
    area.users().set_limits(Kind::User, SOMEBODY, hard(2048), inodes).unwrap();
    area.users().set_limits(Kind::Group, 7, hard(4096), SoftHard::UNLIMITED).unwrap();
    let Area { directory, device, mount } = area;
    drop((device, mount));
    let file = directory.path().join("ct.img");
    assert_eq!(users::take_away(&file).unwrap(), Prepared::Changed);
    assert_eq!(users::add(&file).unwrap(), Prepared::Changed);
    let again = Area::mounted(directory);
    assert!(!again.users().status(Kind::User, SOMEBODY).unwrap().is_limited());
    users::restore(&file, &again.users()).unwrap();
    let his = again.users().status(Kind::User, SOMEBODY).unwrap();
    assert_eq!((his.space_kib, his.inodes), (hard(2048), inodes));
    assert_eq!(again.users().status(Kind::Group, 7).unwrap().space_kib, hard(4096));
    // Once: what is changed from now on is not undone by the next start.
    again.users().set_limits(Kind::Group, 7, SoftHard::UNLIMITED, SoftHard::UNLIMITED).unwrap();
    users::restore(&file, &again.users()).unwrap();
    assert!(!again.users().status(Kind::Group, 7).unwrap().is_limited());
}

#[test]
fn any_call_is_passed_on_and_answered() {
    let Some(area) = Area::new("any_call_is_passed_on_and_answered") else { return };
    // Every command there is and some that are not, with all that a structure can be filled with at once.
    for number in (0x80_0001..0x80_000C).chain(0x5800..0x580C) {
        for byte in [0, 0xFF] {
            for kind in [0, 1] {
                let call = Call::parse(number << 8 | kind).unwrap();
                if call.check(false).is_ok() {
                    let _any = area.users().pass_on(&call, SOMEBODY, &mut [byte; LARGEST_BYTES]);
                }
            }
        }
    }
    let mut structure = [0; LARGEST_BYTES];
    area.users().pass_on(&Call::parse(0x80_0007 << 8).unwrap(), 0, &mut structure).unwrap();
    assert!(u64::from_ne_bytes(structure[40..48].try_into().unwrap()) > 0, "root has an inode");
}
