//! Putting the files of a [`super::fuse`] file system over those of a container.
//!
//! The container is shown the files of `/proc` and `/sys` one by one, never their directory. Each is a mount of its own, which the container's
//! root may take away: it then sees the machine's numbers, which are no secret, only useless. Its beancounters are a directory, and one mount.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::{CWD, Mode, OFlags, RawDir, ResolveFlags, fstatfs, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};

use super::File;
use super::tree::{BEANCOUNTERS, MOUNTS, name_of};
use crate::error::{Call, Failed};
use crate::{rootfs, sys};

/// Covered for a moment, as kernels before 6.15 clone a file's mount only out of a mount that is attached somewhere.
const PLACE: &str = "/proc";

/// Puts the files in place in a mount namespace where nothing of the container's has run yet, by the process that is going to be its init.
/// `/proc/mounts` is one of them only where it `tells_of_quotas`; it lies over a link, which is then a file.
///
/// # Errors
/// The failed call.
pub(crate) fn at_start(files: &OwnedFd, tells_of_quotas: bool) -> Result<(), Failed> {
    let clones = clones(files, tells_of_quotas)?;
    unmount(PLACE, UnmountFlags::DETACH).call(|| format!("umount({PLACE})"))?;
    put(&clones)
}

/// Puts the files in place in a container that runs, where those of its dead monitor lie. Called by a process that has joined the container,
/// given the pidfd of its init.
///
/// # Errors
/// The failed call.
pub(crate) fn again(files: &OwnedFd, init: BorrowedFd, tells_of_quotas: bool) -> Result<(), Failed> {
    // What is covered is covered in a copy of the namespace that nobody else sees.
    unshare(CloneFlags::CLONE_NEWNS).call(|| "unshare(CLONE_NEWNS)")?;
    sys::make_all_private().call(|| "mount_setattr(/, private, recursive)")?;
    let clones = clones(files, tells_of_quotas)?;
    setns(init, CloneFlags::CLONE_NEWNS).call(|| "setns(the container's mounts)")?;
    put(&clones)
}

/// A piece of the file system on its way into a container: where it goes, from the container's root, and its mount.
type Piece = (&'static str, OwnedFd);

fn clones(files: &OwnedFd, tells_of_quotas: bool) -> Result<Vec<Piece>, Failed> {
    move_mount(files, "", CWD, PLACE, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .call(|| format!("move_mount(fuse, {PLACE})"))?;
    look_up_all(files)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let clone = |(name, path): (String, &'static str)| {
        open_tree(files, name.as_str(), flags).call(|| format!("open_tree(fuse, {name})")).map(|mount| (path, mount))
    };
    let files = File::ALL.into_iter().map(|file| (name_of(file), file.path()));
    let others = [Some(BEANCOUNTERS), tells_of_quotas.then_some(MOUNTS)].into_iter().flatten();
    files.chain(others.map(|(name, path)| (name.to_owned(), path))).map(clone).collect()
}

/// Has the kernel learn all names in one question, whose answer it keeps: each would be a question of its own, and two switches between
/// processes.
fn look_up_all(files: &OwnedFd) -> Result<(), Failed> {
    let call = || "getdents(fuse)";
    let directory =
        openat(files, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).call(call)?;
    // One call: a second one would only learn that there is no more.
    let mut buffer = [MaybeUninit::uninit(); 8192];
    RawDir::new(directory, &mut buffer).next().transpose().call(call).map(drop)
}

fn put(clones: &[Piece]) -> Result<(), Failed> {
    let root = rootfs::hold_dir(CWD, "/")?;
    clones.iter().try_for_each(|(path, clone)| put_one(root.as_fd(), path, clone))
}

/// A container in which the place is not there (a kernel without pressure, a `/proc` or a `/run` that its root has taken apart) does without.
fn put_one(root: BorrowedFd, path: &str, clone: &OwnedFd) -> Result<(), Failed> {
    let Some(mut target) = target(root, path)? else { return Ok(()) };
    match fstatfs(&target) {
        // FUSE that nobody answers for any more: ours, of a monitor that was killed.
        Err(Errno::NOTCONN) => {
            let whole = format!("/{path}");
            let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
            unmount(whole.as_str(), flags).call(|| format!("umount({whole} in the container)"))?;
            match self::target(root, path)? {
                Some(below) => target = below,
                None => return Ok(()),
            }
        }
        // FUSE that lives is the container's own doing: it shows itself something else.
        Ok(fs) if fs.f_type == libc::FUSE_SUPER_MAGIC => return Ok(()),
        Ok(_) => {}
        Err(e) => return Err(e).call(|| format!("statfs(/{path} in the container)")),
    }
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(clone, "", &target, "", flags).call(|| format!("move_mount(/{path} in the container)"))
}

fn target(root: BorrowedFd, path: &str) -> Result<Option<OwnedFd>, Failed> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat2(root, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS) {
        Ok(target) => Ok(Some(target)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(e) => Err(e).call(|| format!("open(/{path} in the container)")),
    }
}
