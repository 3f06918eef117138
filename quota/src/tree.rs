//! Giving a tree that somebody else filled to a project.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::call::Called;
use crate::project::{Error, FS_XFLAG_PROJINHERIT};
use crate::sys;

/// A directory that has been entered, and those of its subdirectories that have not.
struct Level {
    inode: u64,
    pending: Vec<CString>,
}

/// Gives every directory and regular file below `root`, and `root` itself, the project.
///
/// The tree is a container's: as deep as it likes to make it. So there is one open directory at a time, and no recursion.
pub(crate) fn assign(root: &OwnedFd, path: &Path, project_id: u32) -> Result<(), Error> {
    mark_unfinished(root, path, project_id)?;
    let mut current = reopen(root.as_fd(), path)?;
    let mut levels = vec![enter(current.as_fd(), path, project_id, 0)?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.pending.pop() {
            if let Some(directory) = open_entry(current.as_fd(), &name, OFlags::DIRECTORY, path)? {
                current = directory;
                levels.push(enter(current.as_fd(), path, project_id, FS_XFLAG_PROJINHERIT)?);
            }
            continue;
        }
        levels.pop();
        if let Some(parent) = levels.last() {
            current = rustix::fs::openat(&current, "..", DIRECTORY, Mode::empty())
                .called(|| format!("openat({}, ..)", path.display()))?;
            if inode(current.as_fd(), path)? != parent.inode {
                return Err(Error::TreeChanged(path.to_owned()));
            }
        }
    }
    mark(root.as_fd(), path, project_id, FS_XFLAG_PROJINHERIT)
}

/// Gives the project to `root` alone, and takes away what would say that its tree has it.
pub(crate) fn mark_unfinished(root: &OwnedFd, path: &Path, project_id: u32) -> Result<(), Error> {
    set(root.as_fd(), path, |attributes| {
        attributes.xflags &= !FS_XFLAG_PROJINHERIT;
        attributes.project_id = project_id;
    })
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// Marks a directory and its files. The directory comes first: what is made in it from now on inherits, with the flag for that.
fn enter(directory: BorrowedFd<'_>, path: &Path, project_id: u32, xflags: u32) -> Result<Level, Error> {
    mark(directory, path, project_id, xflags)?;
    let mut pending = Vec::new();
    let listing = Dir::read_from(directory).called(|| format!("open({}, O_DIRECTORY)", path.display()))?;
    for entry in listing {
        let entry = entry.called(|| format!("getdents64(below {})", path.display()))?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
                    .called(|| format!("fstatat(below {}, {name:?})", path.display()))?;
                FileType::from_raw_mode(stat.st_mode)
            }
            known => known,
        };
        match kind {
            FileType::Directory => pending.push(name.to_owned()),
            FileType::RegularFile => {
                // Should it have become a pipe or a device meanwhile, O_NONBLOCK and O_NOCTTY make the opening harmless.
                if let Some(file) = open_entry(directory, name, OFlags::NONBLOCK | OFlags::NOCTTY, path)? {
                    mark(file.as_fd(), path, project_id, 0)?;
                }
            }
            _ => match sys::set_project_of_entry(directory, name, project_id) {
                // An older kernel or filter, another file system, or the entry has gone.
                Ok(()) | Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::NOTTY | Errno::PERM | Errno::NOENT) => {}
                Err(errno) => Err(errno).called(|| format!("file_setattr(below {}, {name:?})", path.display()))?,
            },
        }
    }
    Ok(Level { inode: inode(directory, path)?, pending })
}

/// Opens a directory entry; `None` when it is on another file system, gone, or not what it was.
fn open_entry(
    directory: BorrowedFd<'_>,
    name: &std::ffi::CStr,
    flags: OFlags,
    path: &Path,
) -> Result<Option<OwnedFd>, Error> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | flags;
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    match rustix::fs::openat2(directory, name, flags, Mode::empty(), resolve) {
        Ok(entry) => Ok(Some(entry)),
        Err(Errno::XDEV | Errno::LOOP | Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno).called(|| format!("openat2(below {}, {name:?})", path.display()))?,
    }
}

fn mark(inode: BorrowedFd<'_>, path: &Path, project_id: u32, xflags: u32) -> Result<(), Error> {
    set(inode, path, |attributes| {
        attributes.xflags |= xflags;
        attributes.project_id = project_id;
    })
}

fn set(inode: BorrowedFd<'_>, path: &Path, change: impl FnOnce(&mut sys::FsXattr)) -> Result<(), Error> {
    let before = sys::fsxattr(inode).called(|| format!("ioctl(below {}, FS_IOC_FSGETXATTR)", path.display()))?;
    let mut after = before;
    change(&mut after);
    if after != before {
        sys::set_fsxattr(inode, after)
            .called(|| format!("ioctl(below {}, FS_IOC_FSSETXATTR, project {})", path.display(), after.project_id))?;
    }
    Ok(())
}

fn inode(directory: BorrowedFd<'_>, path: &Path) -> Result<u64, Error> {
    Ok(rustix::fs::fstat(directory).called(|| format!("fstat(below {})", path.display()))?.st_ino)
}

fn reopen(directory: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Error> {
    Ok(rustix::fs::openat(directory, ".", DIRECTORY, Mode::empty())
        .called(|| format!("openat({}, .)", path.display()))?)
}
