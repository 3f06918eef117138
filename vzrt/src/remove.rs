//! Removing a tree that a container has filled: whatever its depth, names and links, nothing outside it is touched.
//!
//! Works on descriptors, follows no link, crosses no mount. Depth costs no descriptors and no stack: a directory met below is first moved up
//! to the top, so the walk is never more than two levels deep. (The usual recursion keeps one descriptor open for each level; ten thousand
//! nested directories, which a container makes in a second, would leave `destroy` out of descriptors.)

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, StatxFlags, openat2, renameat, statx, unlinkat,
};

use crate::error::{Call, Failed};

/// Removes a directory and all below it. One that is not there is removed already.
///
/// # Errors
/// The failed call; what was not removed yet is still there. `EXDEV` where something is mounted below: that is somebody else's.
pub fn remove_tree(path: &Path) -> Result<(), Failed> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    let top = match rustix::fs::open(path, flags, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        r => r.call(|| format!("open({})", path.display()))?,
    };
    let mut moved = 0u64;
    let mut pass = empty(&top, &top, &mut moved)?;
    while !pass.is_empty() {
        for name in std::mem::take(&mut pass) {
            let dir = open_below(&top, &name)?;
            let more = empty(&dir, &top, &mut moved)?;
            unlinkat(&top, name.as_slice(), AtFlags::REMOVEDIR).call(|| format!("rmdir({})", shown(&name)))?;
            pass.extend(more);
        }
    }
    unlinkat(CWD, path, AtFlags::REMOVEDIR).call(|| format!("rmdir({})", path.display()))
}

/// Removes what is no directory from `dir`, and moves the directories in it up to `top`. Gives the names they have there.
fn empty(dir: &OwnedFd, top: &OwnedFd, moved: &mut u64) -> Result<Vec<Vec<u8>>, Failed> {
    let same = std::ptr::eq(dir, top);
    let mut found = Vec::new();
    for entry in Dir::read_from(dir).call(|| "opendir()")? {
        let entry = entry.call(|| "getdents()")?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let is_dir = match entry.file_type() {
            FileType::Unknown => is_directory(dir, name)?,
            t => t == FileType::Directory,
        };
        if !is_dir {
            unlinkat(dir, name, AtFlags::empty()).call(|| format!("unlink({})", shown(name.to_bytes())))?;
        } else if same {
            found.push(name.to_bytes().to_vec());
        } else {
            // A name of ours that nothing at the top has: the container's files never get names like it there, for only we write there.
            let new = loop {
                *moved += 1;
                let new = format!(".vz-rm-{moved}").into_bytes();
                if rustix::fs::statat(top, new.as_slice(), AtFlags::SYMLINK_NOFOLLOW).is_err() {
                    break new;
                }
            };
            renameat(dir, name, top, new.as_slice()).call(|| format!("rename({})", shown(name.to_bytes())))?;
            found.push(new);
        }
    }
    Ok(found)
}

fn is_directory(dir: &OwnedFd, name: &std::ffi::CStr) -> Result<bool, Failed> {
    let st = statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE)
        .call(|| format!("statx({})", shown(name.to_bytes())))?;
    Ok(FileType::from_raw_mode(st.stx_mode.into()) == FileType::Directory)
}

fn open_below(top: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Failed> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    openat2(top, name, flags, Mode::empty(), resolve).call(|| format!("open({})", shown(name)))
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;
    use std::fs;

    #[test]
    fn links_in_the_tree_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let (canary, tree) = (dir.path().join("canary"), dir.path().join("tree"));
        fs::create_dir_all(canary.join("sub")).unwrap();
        fs::write(canary.join("sub/file"), "precious").unwrap();
        fs::create_dir_all(tree.join("a/b")).unwrap();
        for (at, to) in
            [("a/link", "../../canary"), ("abs", canary.to_str().unwrap()), ("a/b/dangling", "/nonexistent")]
        {
            std::os::unix::fs::symlink(to, tree.join(at)).unwrap();
        }
        fs::hard_link(canary.join("sub/file"), tree.join("hard")).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
        assert_eq!(fs::read_to_string(canary.join("sub/file")).unwrap(), "precious");
    }

    #[test]
    fn depth_costs_no_descriptors_and_odd_names_are_names() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut at = rustix::fs::open(&tree, OFlags::PATH, Mode::empty()).unwrap();
        for i in 0..5000 {
            let name: &[u8] = if i % 2 == 0 { b"d" } else { b"new\nline\xff" };
            rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o700)).unwrap();
            at = rustix::fs::openat(&at, name, OFlags::PATH, Mode::empty()).unwrap();
        }
        drop(at);
        fs::create_dir(tree.join(".vz-rm-1")).unwrap();
        fs::write(tree.join(".vz-rm-2"), "").unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn what_is_not_there_is_removed_already_and_a_link_is_not_a_tree() {
        let dir = tempfile::tempdir().unwrap();
        remove_tree(&dir.path().join("absent")).unwrap();
        fs::create_dir(dir.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
        remove_tree(&dir.path().join("link")).unwrap_err();
        assert!(dir.path().join("real").exists());
    }
}
