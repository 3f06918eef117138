//! The mounts of the plan, made through descriptors: every target is opened from a handle of the root, following no link.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{Mount, Spec};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat2};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::error::{Call, Failed};
use crate::sys;

/// Makes all mounts of the plan below `root`, in their order.
pub(super) fn mount_all(root: BorrowedFd, spec: &Spec) -> Result<(), Failed> {
    for mount in spec.mounts().iter().flatten() {
        let target = target_dir(root, mount.destination())?;
        let made = new_file_system(mount)?;
        attach(&made, target.as_fd(), mount.destination())?;
    }
    Ok(())
}

/// Puts a detached mount on what a descriptor names.
pub(super) fn attach(mount: &OwnedFd, target: BorrowedFd, name: &Path) -> Result<(), Failed> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags).call(|| format!("move_mount({})", name.display()))
}

/// Puts a detached mount on a directory of the host's, in this namespace.
pub(super) fn attach_at(mount: &OwnedFd, path: &str) -> Result<(), Failed> {
    move_mount(mount, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).call(|| format!("move_mount({path})"))
}

/// A new file system of the kind the plan says, detached.
pub(super) fn new_file_system(mount: &Mount) -> Result<OwnedFd, Failed> {
    let kind = match mount.typ().as_deref() {
        Some("cgroup") => "cgroup2",
        Some(kind) => kind,
        None => return Err(Failed::new(format!("mount {}", mount.destination().display()), "the plan names no type")),
    };
    let mut attributes = MountAttrFlags::empty();
    let fs = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).call(|| format!("fsopen({kind})"))?;
    for option in mount.options().iter().flatten() {
        match option.as_str() {
            "nosuid" => attributes |= MountAttrFlags::MOUNT_ATTR_NOSUID,
            "nodev" => attributes |= MountAttrFlags::MOUNT_ATTR_NODEV,
            "noexec" => attributes |= MountAttrFlags::MOUNT_ATTR_NOEXEC,
            "relatime" => attributes |= MountAttrFlags::MOUNT_ATTR_RELATIME,
            "noatime" => attributes |= MountAttrFlags::MOUNT_ATTR_NOATIME,
            "ro" => attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY,
            "rw" => {}
            other => match other.split_once('=') {
                Some((key, value)) => {
                    fsconfig_set_string(fs.as_fd(), key, value).call(|| format!("fsconfig({kind}, {other})"))?
                }
                None => fsconfig_set_flag(fs.as_fd(), other).call(|| format!("fsconfig({kind}, {other})"))?,
            },
        }
    }
    fsconfig_create(fs.as_fd()).call(|| format!("fsconfig({kind}, create)"))?;
    fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).call(|| format!("fsmount({kind})"))
}

/// The directory a mount goes on, made if it is missing. A symbolic link anywhere in its path is refused: it would be the container choosing
/// where the runtime mounts (CVE-2025-31133, CVE-2019-19921 and their kin).
pub(super) fn target_dir(root: BorrowedFd, destination: &Path) -> Result<OwnedFd, Failed> {
    let relative = relative(destination);
    let open = || {
        openat2(
            root,
            relative,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        )
    };
    let refused = |e: rustix::io::Errno| match e {
        rustix::io::Errno::LOOP => Failed::new(
            format!("open({} in the container)", destination.display()),
            "it is, or lies behind, a symbolic link, which a mount point must not be",
        ),
        e => Failed { call: format!("open({} in the container)", destination.display()), source: e.into() },
    };
    match open() {
        Err(rustix::io::Errno::NOENT) => {
            let parent = match relative.parent().filter(|p| !p.as_os_str().is_empty()) {
                Some(p) => target_dir(root, p)?,
                None => target_dir(root, Path::new("."))?,
            };
            let name = relative.file_name().unwrap_or(relative.as_os_str());
            mkdirat(&parent, name, Mode::from_raw_mode(0o755))
                .call(|| format!("mkdir({} in the container)", destination.display()))?;
            open().map_err(refused)
        }
        r => r.map_err(refused),
    }
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// Hides and write-protects what the plan lists. Runs after the pivot: `/` is the container's root and `/proc`, `/sys` are our mounts.
///
/// These are a second wall against reading, not a first: the container's root may unmount them, and then finds files that belong to the
/// host's root, which it is not. (Locking them would need a mount tree made by a more privileged namespace, and would forbid every later
/// mount of proc inside, which systemd and nested containers need.)
pub(super) fn mask(spec: &Spec) -> Result<(), Failed> {
    let Some(linux) = spec.linux() else { return Ok(()) };
    for path in linux.masked_paths().iter().flatten() {
        mask_one(path)?;
    }
    for path in linux.readonly_paths().iter().flatten() {
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
        match open_tree(CWD, path.as_str(), flags) {
            Err(rustix::io::Errno::NOENT) => {}
            Err(e) => return Err(e).call(|| format!("open_tree({path})")),
            Ok(tree) => {
                sys::mount_set_flags(tree.as_fd(), libc::MOUNT_ATTR_RDONLY)
                    .call(|| format!("mount_setattr({path}, ro)"))?;
                move_mount(&tree, "", CWD, path.as_str(), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
                    .call(|| format!("move_mount({path})"))?;
            }
        }
    }
    Ok(())
}

fn mask_one(path: &str) -> Result<(), Failed> {
    let Ok(meta) = std::fs::symlink_metadata(path) else { return Ok(()) };
    let over = if meta.is_dir() {
        let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).call(|| "fsopen(tmpfs)")?;
        fsconfig_set_string(fs.as_fd(), "size", "0").call(|| "fsconfig(size=0)")?;
        fsconfig_create(fs.as_fd()).call(|| "fsconfig(tmpfs, create)")?;
        let all =
            MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, all).call(|| "fsmount(tmpfs)")?
    } else {
        // Our own /dev/null, which is the host's by our bind a moment ago; nothing of the container's has run yet.
        open_tree(CWD, "/dev/null", OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
            .call(|| "open_tree(/dev/null)")?
    };
    move_mount(&over, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).call(|| format!("move_mount({path})"))
}
