//! Project ids of private areas, on a file system that has project quota: `VZ_TEST_PRJQUOTA_DIR` names a directory on it.
#![expect(clippy::unwrap_used, reason = "a test that fails here has failed")]

use std::fs;
use std::num::NonZeroU32;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use quota::owned::{self, Ids};
use quota::project::{Error, Project, Support, support};
use quota::{EffectiveLimits, Limit, SoftHard};
use rustix::fs::{CWD, FileType, Mode};
use tempfile::TempDir;

/// A directory for areas; `None`, and said so, where there is no project quota.
fn parent(test: &str) -> Option<TempDir> {
    let Some(root) = std::env::var_os("VZ_TEST_PRJQUOTA_DIR") else {
        eprintln!("skipped: {test}: VZ_TEST_PRJQUOTA_DIR names no directory with project quota");
        return None;
    };
    assert_eq!(support(Path::new(&root)).unwrap(), Support::Available);
    Some(tempfile::tempdir_in(root).unwrap())
}

fn area(parent: &TempDir, name: &str) -> PathBuf {
    let area = parent.path().join(name);
    fs::create_dir_all(area.join("deep/er")).unwrap();
    fs::write(area.join("deep/file"), vec![1; 64 * 1024]).unwrap();
    symlink("/etc/passwd", area.join("link")).unwrap();
    rustix::fs::mknodat(CWD, area.join("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    area
}

fn ids(first: u32, last: u32) -> Ids {
    Ids::new(first, last).unwrap()
}

#[test]
fn areas_get_ids_of_their_own_and_keep_them() {
    let Some(parent) = parent("areas_get_ids_of_their_own_and_keep_them") else { return };
    let areas: Vec<PathBuf> = (0..8).map(|n| area(&parent, &n.to_string())).collect();
    let ids = ids(1_900_000_000, 1_900_000_007);
    let mut given: Vec<NonZeroU32> = areas.iter().map(|area| owned::own(area, ids).unwrap().id()).collect();
    let again: Vec<NonZeroU32> = areas.iter().map(|area| owned::own(area, ids).unwrap().id()).collect();
    assert_eq!(given, again);
    given.sort_unstable();
    assert_eq!(
        given.iter().map(|id| id.get()).collect::<Vec<_>>(),
        (1_900_000_000..=1_900_000_007).collect::<Vec<_>>()
    );
    let ninth = area(&parent, "9");
    assert!(matches!(owned::own(&ninth, ids), Err(Error::NoFreeId { .. })));
    assert!(owned::of(&ninth).unwrap().is_none());
}

#[test]
fn areas_made_at_once_share_no_id() {
    let Some(parent) = parent("areas_made_at_once_share_no_id") else { return };
    let areas: Vec<PathBuf> = (0..16).map(|n| area(&parent, &n.to_string())).collect();
    let ids = ids(1_900_000_100, 1_900_000_199);
    let mut given: Vec<NonZeroU32> = std::thread::scope(|scope| {
        let started: Vec<_> =
            areas.iter().map(|area| scope.spawn(move || owned::own(area, ids).unwrap().id())).collect();
        started.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    given.sort_unstable();
    given.dedup();
    assert_eq!(given.len(), areas.len());
}

#[test]
fn the_id_moves_with_the_directory_and_a_copy_begins_without_one() {
    let Some(parent) = parent("the_id_moves_with_the_directory") else { return };
    let first = area(&parent, "101");
    let ids = ids(1_900_000_200, 1_900_000_299);
    let id = owned::own(&first, ids).unwrap().id();
    let second = parent.path().join("102");
    fs::rename(&first, &second).unwrap();
    assert_eq!(owned::of(&second).unwrap().unwrap().id(), id);
    let copied = std::process::Command::new("cp").arg("-a").args([&second, &first]).status().unwrap();
    assert!(copied.success());
    assert!(owned::of(&first).unwrap().is_none());
    assert_ne!(owned::own(&first, ids).unwrap().id(), id);
}

#[test]
fn one_whose_tree_was_given_an_id_before_keeps_it() {
    let Some(parent) = parent("one_whose_tree_was_given_an_id_before_keeps_it") else { return };
    let area = area(&parent, "101");
    Project::open(&area, NonZeroU32::new(101).unwrap()).unwrap().assign().unwrap();
    assert_eq!(owned::own(&area, ids(1_900_000_300, 1_900_000_399)).unwrap().id().get(), 101);
}

#[test]
fn an_inherited_id_is_not_its_own() {
    let Some(parent) = parent("an_inherited_id_is_not_its_own") else { return };
    let id = NonZeroU32::new(1_900_000_401).unwrap();
    Project::open(parent.path(), id).unwrap().assign().unwrap();
    let area = area(&parent, "101");
    assert!(owned::of(&area).unwrap().is_none());
    assert_ne!(owned::own(&area, ids(1_900_000_400, 1_900_000_499)).unwrap().id(), id);
}

#[test]
fn a_freed_id_has_no_limits_and_one_in_use_keeps_them() {
    let Some(parent) = parent("a_freed_id_has_no_limits_and_one_in_use_keeps_them") else { return };
    let area = area(&parent, "101");
    let project = owned::own(&area, ids(1_900_000_500, 1_900_000_500)).unwrap();
    let both = |n| SoftHard { soft: Limit::Of(n), hard: Limit::Of(n) };
    project.set_limits(&EffectiveLimits { space_kib: both(1024), inodes: both(50), grace_s: None }).unwrap();
    let id = project.id();
    drop(project);
    assert!(!owned::release(parent.path(), id).unwrap());
    let beside = Project::open(parent.path(), id).unwrap();
    assert_eq!(beside.status().unwrap().inodes, both(50));
    fs::remove_dir_all(&area).unwrap();
    assert!(owned::release(parent.path(), id).unwrap());
    assert_eq!(beside.status().unwrap().inodes, SoftHard::UNLIMITED);
    assert_eq!(owned::prospective(parent.path(), ids(1_900_000_500, 1_900_000_500)).unwrap(), id);
}
