//! Project quota on a file system that has it: `VZ_TEST_PRJQUOTA_DIR` names a directory on an ext4 or xfs mounted with `prjquota`.
//!
//! The limit is not for processes with `CAP_SYS_RESOURCE`, so each test puts that down first, in its own thread.
#![expect(clippy::unwrap_used, reason = "a test that fails here has failed")]

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::num::NonZeroU32;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use quota::project::{Project, Support, support};
use quota::users::Grace;
use quota::{EffectiveLimits, Limit, SoftHard};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use rustix::thread::CapabilitySet;
use tempfile::TempDir;

/// A directory with a project id of its own; the limits are taken away at the end.
struct Area {
    directory: TempDir,
    project: Project,
}

impl Area {
    fn new(test: &str, id: u32) -> Option<Area> {
        let Some(root) = std::env::var_os("VZ_TEST_PRJQUOTA_DIR") else {
            eprintln!("skipped: {test}: VZ_TEST_PRJQUOTA_DIR names no directory with project quota");
            return None;
        };
        assert_eq!(support(Path::new(&root)).unwrap(), Support::Available);
        let mut sets = rustix::thread::capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::SYS_RESOURCE);
        rustix::thread::set_capabilities(None, sets).unwrap();
        let directory = tempfile::tempdir_in(root).unwrap();
        let project = Project::open(directory.path(), NonZeroU32::new(id).unwrap()).unwrap();
        Some(Area { directory, project })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        self.project.clear_limits().unwrap();
    }
}

fn both(limit: u64) -> SoftHard {
    SoftHard { soft: Limit::Of(limit), hard: Limit::Of(limit) }
}

fn limits(space_kib: u64, inodes: u64) -> EffectiveLimits {
    EffectiveLimits { space_kib: both(space_kib), inodes: both(inodes), grace_s: None }
}

/// Grace times are of the whole file system: whoever sets them is alone with them.
static GRACE: Mutex<()> = Mutex::new(());

fn alone_with_grace() -> MutexGuard<'static, ()> {
    GRACE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes until it is refused; returns the KiB written and the refusal.
fn fill(path: &Path, at_most_kib: u64) -> (u64, std::io::Error) {
    let mut file = File::create(path).unwrap();
    let block = [1; 16 * 1024];
    for written in 0..at_most_kib / 16 {
        if let Err(error) = file.write_all(&block) {
            return (written * 16, error);
        }
    }
    panic!("{at_most_kib} KiB were written and not refused");
}

#[test]
fn space_runs_out_at_the_limit_and_only_there() {
    let Some(area) = Area::new("space_runs_out_at_the_limit", 7001) else { return };
    area.project.assign().unwrap();
    area.project.set_limits(&limits(4096, 1000)).unwrap();
    fs::create_dir(area.path("deep")).unwrap();
    let (written, error) = fill(&area.path("deep/fill"), 16 * 1024);
    assert!(matches!(error.kind(), ErrorKind::QuotaExceeded | ErrorKind::StorageFull), "{error}");
    assert!((3900..=4096).contains(&written), "{written} KiB");
    let status = area.project.status().unwrap();
    assert!((3900..=4096).contains(&status.space_used_kib), "{status:?}");
    assert_eq!((status.space_kib, status.inodes), (both(4096), both(1000)));

    let outside = tempfile::tempfile_in(area.directory.path().parent().unwrap()).unwrap();
    (&outside).write_all(&[1; 65536]).unwrap();
    outside.sync_all().unwrap();
}

#[test]
fn inodes_run_out_at_the_limit() {
    let Some(area) = Area::new("inodes_run_out_at_the_limit", 7002) else { return };
    area.project.assign().unwrap();
    area.project.set_limits(&limits(1 << 20, 50)).unwrap();
    let made = (0..1000).take_while(|number| File::create(area.path(&number.to_string())).is_ok()).count();
    assert_eq!(made, 49, "the directory itself is one");
    assert_eq!(area.project.status().unwrap().inodes_used, 50);
}

#[test]
fn a_raised_limit_helps_at_once() {
    let Some(area) = Area::new("a_raised_limit_helps_at_once", 7003) else { return };
    area.project.assign().unwrap();
    area.project.set_limits(&limits(1024, 100)).unwrap();
    let (first, _) = fill(&area.path("fill"), 8192);
    area.project.set_limits(&limits(3072, 100)).unwrap();
    let (second, _) = fill(&area.path("more"), 8192);
    assert!(first <= 1024 && second > 1900, "{first} {second}");
    area.project.clear_limits().unwrap();
    fs::write(area.path("free"), vec![1; 4 << 20]).unwrap();
}

#[test]
fn what_was_there_before_is_counted_and_links_are_not_followed() {
    let Some(area) = Area::new("what_was_there_before_is_counted", 7004) else { return };
    let outside = tempfile::tempdir_in(area.directory.path().parent().unwrap()).unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, vec![1; 1 << 20]).unwrap();
    fs::create_dir_all(area.path("a/b/c")).unwrap();
    fs::create_dir_all(area.path("a/d")).unwrap();
    for name in ["top", "a/one", "a/b/c/two", "a/d/three"] {
        fs::write(area.path(name), vec![1; 256 * 1024]).unwrap();
    }
    std::os::unix::fs::symlink(&victim, area.path("a/file")).unwrap();
    std::os::unix::fs::symlink(outside.path(), area.path("a/directory")).unwrap();
    area.project.assign().unwrap();
    // Delayed allocation is charged when it is reserved, other accounting when it is written.
    rustix::fs::syncfs(File::open(area.directory.path()).unwrap()).unwrap();
    let status = area.project.status().unwrap();
    assert_eq!(status.inodes_used, 5 + 4, "directories and files: {status:?}");
    assert!((1024..1100).contains(&status.space_used_kib), "{status:?}");
}

#[test]
fn a_tree_of_any_depth_is_assigned() {
    let Some(area) = Area::new("a_tree_of_any_depth_is_assigned", 7005) else { return };
    let mut directory = File::open(area.directory.path()).unwrap();
    for _ in 0..3000 {
        rustix::fs::mkdirat(&directory, "d", rustix::fs::Mode::RWXU).unwrap();
        let flags = rustix::fs::OFlags::DIRECTORY;
        directory = rustix::fs::openat(&directory, "d", flags, rustix::fs::Mode::empty()).unwrap().into();
    }
    area.project.assign().unwrap();
    assert_eq!(area.project.status().unwrap().inodes_used, 3001);
}

#[test]
fn df_inside_shows_the_limit() {
    let Some(area) = Area::new("df_inside_shows_the_limit", 7006) else { return };
    area.project.assign().unwrap();
    area.project.set_limits(&limits(8192, 100)).unwrap();
    let stat = rustix::fs::statvfs(area.directory.path()).unwrap();
    assert_eq!((stat.f_blocks * stat.f_frsize / 1024, stat.f_files), (8192, 100));
}

#[test]
fn a_soft_limit_may_be_exceeded_for_the_grace_time() {
    let Some(area) = Area::new("a_soft_limit_may_be_exceeded", 7007) else { return };
    let _alone = alone_with_grace();
    area.project.assign().unwrap();
    let space_kib = SoftHard { soft: Limit::Of(1024), hard: Limit::Of(2048) };
    area.project.set_limits(&EffectiveLimits { space_kib, inodes: both(100), grace_s: Some(86_400) }).unwrap();
    assert_eq!(area.project.grace().unwrap(), Grace { space_s: 86_400, inodes_s: 86_400 });
    assert_eq!(area.project.status().unwrap().space_grace_ends_s, None);
    let (written, _) = fill(&area.path("fill"), 8192);
    assert!(written > 1024, "{written} KiB");
    let ends_s = area.project.status().unwrap().space_grace_ends_s.expect("the time runs");
    let now_s = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!((now_s + 86_000..=now_s + 86_400).contains(&ends_s), "{ends_s} at {now_s}");
}

#[test]
fn space_and_inodes_have_a_grace_time_each() {
    let Some(area) = Area::new("space_and_inodes_have_a_grace_time_each", 7012) else { return };
    let _alone = alone_with_grace();
    area.project.assign().unwrap();
    let two = Grace { space_s: 86_400, inodes_s: 3600 };
    area.project.set_grace(two).unwrap();
    assert_eq!(area.project.grace().unwrap(), two);
    let inodes = SoftHard { soft: Limit::Of(2), hard: Limit::Of(100) };
    let space_kib = SoftHard { soft: Limit::Of(8), hard: Limit::Of(8192) };
    area.project.set_limits(&EffectiveLimits { space_kib, inodes, grace_s: None }).unwrap();
    for name in ["a", "b", "c"] {
        fs::write(area.path(name), [1; 64 * 1024]).unwrap();
    }
    let status = area.project.status().unwrap();
    let (space, inodes) = (status.space_grace_ends_s.unwrap(), status.inodes_grace_ends_s.unwrap());
    assert!((82_000..=82_900).contains(&(space - inodes)), "{space} and {inodes}");
}

#[test]
fn a_project_that_nobody_used_has_nothing() {
    let Some(area) = Area::new("a_project_that_nobody_used", 7008) else { return };
    let status = area.project.status().unwrap();
    assert_eq!((status.space_used_kib, status.inodes_used), (0, 0));
    assert_eq!((status.space_kib, status.inodes), (SoftHard::UNLIMITED, SoftHard::UNLIMITED));
}

/// A container writes through an overlay that the host's root mounted, with all capabilities.
#[test]
fn the_limit_binds_what_is_written_through_an_overlay() {
    let Some(area) = Area::new("the_limit_binds_what_is_written_through_an_overlay", 7009) else { return };
    let mut sets = rustix::thread::capabilities(None).unwrap();
    if !sets.permitted.contains(CapabilitySet::SYS_RESOURCE) {
        eprintln!(
            "skipped: the_limit_binds_what_is_written_through_an_overlay: needs CAP_SYS_RESOURCE to show that it does not help"
        );
        return;
    }
    sets.effective.insert(CapabilitySet::SYS_RESOURCE);
    rustix::thread::set_capabilities(None, sets).unwrap();
    area.project.assign().unwrap();
    for name in ["lower", "upper", "work"] {
        fs::create_dir(area.path(name)).unwrap();
    }
    area.project.set_limits(&limits(4096, 1000)).unwrap();
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    for (key, name) in [("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work")] {
        rustix::mount::fsconfig_set_string(&context, key, area.path(name)).unwrap();
    }
    rustix::mount::fsconfig_create(&context).unwrap();
    let root = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
    let stat = rustix::fs::fstatvfs(&root).unwrap();
    assert_eq!(stat.f_blocks * stat.f_frsize / 1024, 4096, "df inside a container shows its limit");
    let fill_it = PathBuf::from(format!("/proc/self/fd/{}/fill", root.as_raw_fd()));
    let (written, error) = fill(&fill_it, 16 * 1024);
    assert!(written <= 4096, "{written} KiB");
    assert!(matches!(error.kind(), ErrorKind::QuotaExceeded | ErrorKind::StorageFull), "{error}");
}
