//! The root of a container: what `vzctl mount` mounts on `VE_ROOT`.
//!
//! Files on disk carry the container's own ids, unshifted; idmapped mounts shift them. Every layer is a *detached* mount (it has no place in
//! any directory), so the only thing that shows on the host, and the only thing to undo, is the mount on `VE_ROOT`: the layers, and the
//! loop device under an image, go with it.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use caps::{CapSet, Capability};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree, unmount as umount2,
};

use crate::channel::{Channel, Message};
use crate::error::{Call, Failed};
use crate::idmap;
use crate::plan::{Disk, IdRange, Layers, RootPlan};
use crate::sys;

/// How many trees may lie below a private area. Their descriptors, joined by colons, are one value of fsconfig(2), which ends at 255 bytes;
/// descriptors of three digits fit.
pub const MAX_LAYERS: usize = 60;

/// Why a root was not mounted or unmounted.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// `VE_PRIVATE` is not there.
    #[error("Container private area {0} does not exist")]
    NoPrivate(String),
    /// The image that the private area is, is not there.
    #[error("Container image {0} does not exist")]
    NoImage(String),
    /// The shared tree the private area sits on is not there.
    #[error("The template tree {0} is not there")]
    NoTree(String),
    /// More of them than an overlay is given here.
    #[error("The root has {count} layers, and at most {MAX_LAYERS} can be mounted over each other")]
    TooManyLayers {
        /// How many.
        count: usize,
    },
    /// `VE_ROOT` can't be made.
    #[error("Unable to create the mount point {0}")]
    MountPoint(String, #[source] Failed),
    /// Something on the host still uses files below `VE_ROOT`.
    #[error("{0} is busy")]
    Busy(String),
    /// The image or project quota.
    #[error("Unable to set up the disk of the private area")]
    Disk(#[from] DiskError),
    /// A call failed.
    #[error("{what}")]
    Failed {
        /// What was being done.
        what: &'static str,
        /// The call.
        #[source]
        source: Failed,
    },
}

/// What the disk of a private area met.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Of an image.
    #[error(transparent)]
    Image(#[from] quota::image::Error),
    /// Of project quota.
    #[error(transparent)]
    Project(#[from] quota::project::Error),
}

trait Doing<T> {
    fn doing(self, what: &'static str) -> Result<T, RootError>;
}

impl<T> Doing<T> for Result<T, Failed> {
    fn doing(self, what: &'static str) -> Result<T, RootError> {
        self.map_err(|source| RootError::Failed { what, source })
    }
}

/// The mounted root once more, detached: for the container's own mount namespace. With what `CTID.mount` has bound below it.
///
/// Private: on a host whose mounts are shared (every one that systemd booted) the copy would be a peer of `VE_ROOT`, each mount made inside
/// would show on the host and keep `VE_ROOT` busy, and pivot_root(2) would refuse.
pub(crate) fn clone_mounted(mountpoint: &Path) -> Result<OwnedFd, Failed> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let root = open_tree(CWD, mountpoint, flags).call(|| format!("open_tree({})", mountpoint.display()))?;
    sys::make_private(root.as_fd()).call(|| format!("mount_setattr({}, private, recursive)", mountpoint.display()))?;
    Ok(root)
}

/// Whether something is mounted on `path`. One statx(2) (`STATX_ATTR_MOUNT_ROOT`, Linux 5.8), no table is read.
///
/// # Errors
/// The path can't be looked at.
pub fn is_mounted(path: &Path) -> Result<bool, Failed> {
    match rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, StatxFlags::TYPE) {
        Ok(st) => Ok(StatxAttributes::from_bits_retain(st.stx_attributes.bits()).contains(StatxAttributes::MOUNT_ROOT)),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(e) => Err(e).call(|| format!("statx({})", path.display())),
    }
}

/// Mounts the root on `VE_ROOT`.
///
/// # Errors
/// Then nothing is mounted, and no loop device is left.
pub fn mount(plan: &RootPlan) -> Result<(), RootError> {
    if !plan.private.is_dir() {
        return Err(RootError::NoPrivate(plan.private.display().to_string()));
    }
    make_mountpoint(&plan.mountpoint)?;
    let shift = idmap::mapping(plan.ids).doing("the id mapping of the container")?;
    let area = private_area(plan)?;
    let root = match &plan.layers {
        Layers::Whole => {
            shifted(&area, shift.as_fd(), 0, &plan.private)?;
            area
        }
        Layers::OverTree(trees) => {
            shifted(&area, shift.as_fd(), 0, &plan.private)?;
            overlay(plan, trees, &area, Some(shift.as_fd()))?
        }
        Layers::InImage => {
            let root = root_in_image(plan, &area)?;
            shifted(&root, shift.as_fd(), u64::from(attributes(&plan.options).bits()), &plan.private)?;
            root
        }
    };
    move_mount(&root, "", CWD, &plan.mountpoint, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .call(|| format!("move_mount({})", plan.mountpoint.display()))
        .doing("mounting the root")
}

/// What a container finds as its root, for reading: detached, with the ids that its files have inside.
///
/// # Errors
/// As [`mount`].
pub fn merged(plan: &RootPlan) -> Result<OwnedFd, RootError> {
    let area = private_area(plan)?;
    let root = match &plan.layers {
        Layers::Whole => area,
        Layers::InImage => root_in_image(plan, &area)?,
        Layers::OverTree(trees) => match rustix::fs::statat(&area, quota::image::ROOT, AtFlags::SYMLINK_NOFOLLOW) {
            Err(rustix::io::Errno::NOENT) => below(trees, None)?,
            _ => below(trees, Some((&area, &plan.private)))?,
        },
    };
    readable(&root, &plan.private)?;
    Ok(root)
}

/// What several trees over each other hold (the uppermost first), for reading: detached, with the ids on disk.
///
/// # Errors
/// A tree is not there, there are too many, or a call failed.
pub fn stacked(trees: &[PathBuf]) -> Result<OwnedFd, RootError> {
    let root = below(trees, None)?;
    readable(&root, trees.first().map_or(Path::new(""), PathBuf::as_path))?;
    Ok(root)
}

/// What a container will find as its root, for writing before its first start: detached, with the ids that its files have inside, and within
/// the limits of its disk, which for an overlay hold for the host's root too.
///
/// # Errors
/// As [`mount`].
pub fn writable(plan: &RootPlan) -> Result<OwnedFd, RootError> {
    let area = private_area(plan)?;
    match &plan.layers {
        Layers::Whole => Ok(area),
        Layers::InImage => root_in_image(plan, &area),
        Layers::OverTree(trees) => overlay(plan, trees, &area, None),
    }
}

fn readable(root: &OwnedFd, what: &Path) -> Result<(), RootError> {
    sys::mount_set_flags(root.as_fd(), libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NODEV)
        .call(|| format!("mount_setattr({}, MOUNT_ATTR_RDONLY)", what.display()))
        .doing("mounting the root to read it")
}

/// Trees over each other, and what a private area has over them. All of them below and nothing on top: an overlay that can't write.
fn below(trees: &[PathBuf], area: Option<(&OwnedFd, &Path)>) -> Result<OwnedFd, RootError> {
    let mut lowers = templates(trees)?;
    if area.is_none() && lowers.len() == 1 {
        return Ok(lowers.remove(0));
    }
    let mut layers: Vec<_> = lowers.iter().zip(trees).map(|(fd, tree)| (fd, tree.as_path())).collect();
    layers.extend(area);
    attached(&layers, || {
        let upper = area.map(|(area, _)| format!("{}/{}", area.as_raw_fd(), quota::image::ROOT));
        let lowerdir = joined(upper, &lowers);
        new_overlay(&[("lowerdir", &lowerdir), ("redirect_dir", "follow")], &[])
    })
    .doing("mounting the overlay")
}

/// A value for `lowerdir`: paths below [`DESCRIPTORS`].
fn joined(first: Option<String>, lowers: &[OwnedFd]) -> String {
    let numbers = lowers.iter().map(|fd| fd.as_raw_fd().to_string());
    first.into_iter().chain(numbers).collect::<Vec<_>>().join(":")
}

/// Unmounts `VE_ROOT`. What is not mounted is not an error.
///
/// # Errors
/// [`RootError::Busy`] where a process of the host has files open or its working directory there.
pub fn unmount(mountpoint: &Path) -> Result<(), RootError> {
    match umount2(mountpoint, UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        Err(rustix::io::Errno::BUSY) => Err(RootError::Busy(mountpoint.display().to_string())),
        Err(e) => Err(e).call(|| format!("umount({})", mountpoint.display())).doing("unmounting the root"),
    }
}

/// `VE_ROOT` and its parent: closed to every user of the host, whose way to a container's set-user-id files this would be.
fn make_mountpoint(path: &Path) -> Result<(), RootError> {
    let go = || {
        if let Some(parent) = path.parent().filter(|p| !p.exists()) {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        match std::fs::DirBuilder::new().mode(0o700).create(path) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(e),
            _ if path.symlink_metadata()?.is_dir() => Ok(()),
            _ => Err(std::io::Error::from(std::io::ErrorKind::NotADirectory)),
        }
    };
    go().call(|| format!("mkdir({})", path.display())).map_err(|e| RootError::MountPoint(path.display().to_string(), e))
}

/// The private area as a detached mount, with ids as on disk.
fn private_area(plan: &RootPlan) -> Result<OwnedFd, RootError> {
    if plan.user_quota.is_some() && !matches!(plan.disk, Disk::Image { .. }) {
        tracing::warn!(
            "Warning: no quotas of users and groups inside: the private area is a directory, and they need an image (vzctl convert)"
        );
    }
    let area = match &plan.disk {
        Disk::Image { file, size, keeps_space, fsck } => {
            if !file.exists() {
                return Err(RootError::NoImage(file.display().to_string()));
            }
            if *fsck {
                check_image(file)?;
            }
            // For who could not grow it while it was mounted (that takes CAP_SYS_RESOURCE) and saved the size for now. A smaller size was
            // refused when it was set, or is there as a balloon.
            match size.map(|size| quota::image::grow(file, size)) {
                None | Some(Ok(_) | Err(quota::image::Error::Shrink { .. })) => {}
                Some(Err(e)) => return Err(DiskError::from(e).into()),
            }
            let limits_users = plan.user_quota.is_some() && have_user_quota(file)?;
            let freed = if *keeps_space { quota::image::Freed::Kept } else { quota::image::Freed::Discarded };
            let options = quota::image::Options { freed, limits_users };
            let (device, area) = mount_image(file, options)?;
            let held = size.map(|size| match size {
                quota::image::Size::Image(_) => quota::image::hold_to(&device, &area, size),
                quota::image::Size::Usable(_) => quota::image::hold_again(&device, &area, size),
            });
            match held {
                // Who has made the limit smaller behind our back gets a container that starts.
                Some(Err(e @ quota::image::Error::Full { .. })) => tracing::warn!("Warning: {e}"),
                held => drop(held.transpose().map_err(DiskError::from)?),
            }
            area
        }
        Disk::Project { id, limits } => {
            let project = quota::project::Project::open(&plan.private, *id).map_err(DiskError::from)?;
            project.set_limits(&limits.effective()).map_err(DiskError::from)?;
            clone_tree(&plan.private)?
        }
        Disk::Unbounded => clone_tree(&plan.private)?,
    };
    Ok(area)
}

/// Attaches and mounts an image. One with quotas of users and groups, on a host whose kernel has none: the limits are written down beside it, and
/// set again on a host that can.
fn mount_image(file: &Path, options: quota::image::Options) -> Result<(quota::image::Loop, OwnedFd), DiskError> {
    use quota::{image, users};
    let device = image::attach(file)?;
    match image::mount_with(&device, options) {
        Ok(area) => {
            if options.limits_users {
                users::restore(file, &users::Users::on(device.number()))?;
            }
            Ok((device, area))
        }
        Err(e @ image::Error::Mount { .. } | e @ image::Error::Call(_)) if users::has(file)? => {
            let Err(missing) = users::support()? else { return Err(e.into()) };
            tracing::warn!("Warning: no quotas of users and groups inside: {missing}");
            drop(device);
            users::take_away(file)?;
            let device = image::attach(file)?;
            let area = image::mount_with(&device, image::Options { limits_users: false, ..options })?;
            Ok((device, area))
        }
        Err(e) => Err(e.into()),
    }
}

/// Sees to it that an image has quotas of users and groups. Where the kernel has none, the container does without.
fn have_user_quota(file: &Path) -> Result<bool, DiskError> {
    use quota::users;
    if users::has(file)? {
        return Ok(true);
    }
    if let Err(missing) = users::support()? {
        tracing::warn!("Warning: no quotas of users and groups inside: {missing}");
        return Ok(false);
    }
    users::add(file)?;
    Ok(true)
}

/// The directory of an image that is a root, detached. The rest of the image is out of its reach.
fn root_in_image(plan: &RootPlan, area: &OwnedFd) -> Result<OwnedFd, RootError> {
    attached(&[(area, &plan.private)], || {
        open_tree(
            area,
            quota::image::ROOT,
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW,
        )
        .call(|| format!("open_tree({}, {})", plan.private.display(), quota::image::ROOT))
    })
    .doing("taking hold of the root in the image")
}

/// Looks at the superblock, and runs e2fsck only where that tells of errors.
fn check_image(file: &Path) -> Result<(), RootError> {
    use quota::image::{Error, Fsck, fsck};
    match fsck(file) {
        Ok(Fsck::Corrected) => {
            tracing::warn!("Warning: errors in the file system of {} were corrected", file.display())
        }
        // Still mounted from before: it is going to be mounted once more, not anew.
        Ok(_) | Err(Error::InUse { .. }) => {}
        Err(e) => return Err(DiskError::from(e).into()),
    }
    Ok(())
}

fn clone_tree(path: &Path) -> Result<OwnedFd, RootError> {
    open_tree(
        CWD,
        path,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW,
    )
    .call(|| format!("open_tree({})", path.display()))
    .doing("taking hold of the private area")
}

/// Device files below a container's root mean nothing: its `/dev` is a file system of its own.
fn shifted(mount: &OwnedFd, shift: BorrowedFd, extra: u64, what: &Path) -> Result<(), RootError> {
    sys::mount_setattr_idmap(mount.as_fd(), shift, libc::MOUNT_ATTR_NODEV | extra)
        .call(|| format!("mount_setattr({}, MOUNT_ATTR_IDMAP)", what.display()))
        .doing("shifting ids")
}

/// The overlay of the private area over the shared trees, detached; without a shift with the ids on disk.
fn overlay(
    plan: &RootPlan,
    trees: &[PathBuf],
    area: &OwnedFd,
    shift: Option<BorrowedFd>,
) -> Result<OwnedFd, RootError> {
    let lowers = templates(trees)?;
    for (lower, tree) in lowers.iter().zip(trees) {
        match shift {
            Some(shift) => shifted(lower, shift, libc::MOUNT_ATTR_RDONLY, tree)?,
            None => readable(lower, tree)?,
        }
    }
    // Overlay works with the credentials of whoever mounts it. Its work directory must be made with ids the layers can express, so the
    // mounter's file ids are those of the container's root; and CAP_SYS_RESOURCE must not be among its capabilities, or the kernel would
    // let every write of the container pass the project quota and the blocks reserved for root.
    let ids = if shift.is_some() { plan.ids } else { IdRange { uid: 0, gid: 0, ..plan.ids } };
    let _mounter = FileIds::of(ids).doing("becoming the owner of the layers")?;
    make_layer_dir(area, "fs")?;
    make_layer_dir(area, "work")?;
    let area_fd = area.as_raw_fd();
    let mut attach: Vec<_> = lowers.iter().zip(trees).map(|(fd, tree)| (fd, tree.as_path())).collect();
    attach.push((area, &plan.private));
    attached(&attach, || {
        let layers = [
            ("lowerdir", joined(None, &lowers)),
            ("upperdir", format!("{area_fd}/fs")),
            ("workdir", format!("{area_fd}/work")),
            // Renaming a directory that came from the template works as on any file system, and does not copy it.
            ("redirect_dir", "on".to_owned()),
            // Inode numbers stay the same over a copy-up, for programs that keep them (tar, backup, find -xdev).
            ("xino", "auto".to_owned()),
        ];
        new_overlay(&layers.each_ref().map(|(key, value)| (*key, value.as_str())), &plan.options)
    })
    .doing("mounting the overlay")
}

/// The shared trees, each detached.
fn templates(trees: &[PathBuf]) -> Result<Vec<OwnedFd>, RootError> {
    if trees.len() > MAX_LAYERS {
        return Err(RootError::TooManyLayers { count: trees.len() });
    }
    trees.iter().map(|tree| template(tree)).collect()
}

fn template(tree: &Path) -> Result<OwnedFd, RootError> {
    match open_tree(CWD, tree, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC) {
        Err(rustix::io::Errno::NOENT) => Err(RootError::NoTree(tree.display().to_string())),
        r => r.call(|| format!("open_tree({})", tree.display())).doing("taking hold of the template"),
    }
}

/// Where the paths of layers begin: a value of fsconfig(2) has 255 bytes, and `/proc/self/fd/` before each would be fourteen of them.
const DESCRIPTORS: &str = "/proc/self/fd";

/// The working directory of the process until it is dropped.
struct WorkingIn(OwnedFd);

impl WorkingIn {
    fn at(path: &str) -> Result<Self, Failed> {
        let before = hold_dir(CWD, ".")?;
        rustix::process::chdir(path).call(|| format!("chdir({path})"))?;
        Ok(Self(before))
    }
}

impl Drop for WorkingIn {
    fn drop(&mut self) {
        if let Err(e) = rustix::process::fchdir(&self.0).call(|| "fchdir(the directory before)") {
            tracing::warn!("{}", e.one_line());
        }
    }
}

/// An overlay, detached. Paths of layers begin at [`DESCRIPTORS`].
fn new_overlay(parameters: &[(&str, &str)], options: &[String]) -> Result<OwnedFd, Failed> {
    // Read when they are set since Linux 6.5, before that when the file system is created.
    let _here = WorkingIn::at(DESCRIPTORS)?;
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).call(|| "fsopen(overlay)")?;
    for (key, value) in [("source", "vz")].iter().chain(parameters) {
        fsconfig_set_string(fs.as_fd(), *key, *value).call(|| format!("fsconfig({key}={value})"))?;
    }
    fsconfig_create(fs.as_fd()).call(|| format!("fsconfig(overlay, create: {})", last_words(fs.as_fd())))?;
    fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes(options)).call(|| "fsmount(overlay)")
}

/// A mount made of detached ones. Before Linux 6.15 overlay (`clone_private_mount`) and open_tree(2) take only what is mounted somewhere in
/// the caller's mount namespace and answer `EINVAL`. Then a child has them mounted for a moment, in a namespace that nobody else sees and
/// that goes with it.
fn attached(layers: &[(&OwnedFd, &Path)], make: impl Fn() -> Result<OwnedFd, Failed>) -> Result<OwnedFd, Failed> {
    match make() {
        Err(e) if e.source.raw_os_error() == Some(libc::EINVAL) => {}
        made => return made,
    }
    let (ours, theirs) = Channel::pair()?;
    let request = sys::Clone { namespaces: libc::CLONE_NEWNS as u64, ..sys::Clone::default() };
    let Some(child) = sys::clone3(&request).call(|| "clone3(CLONE_NEWNS)")? else {
        let go = || {
            sys::make_all_private().call(|| "mount_setattr(/, private, recursive)")?;
            for (layer, place) in layers {
                move_mount(layer, "", CWD, *place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
                    .call(|| format!("move_mount({})", place.display()))?;
            }
            theirs.send(&Message::Ready, Some(make()?.as_fd()))
        };
        let told = go().or_else(|e: Failed| theirs.send(&Message::Failed(e.into()), None));
        sys::exit_now(i32::from(told.is_err()));
    };
    drop(theirs);
    let said = ours.receive();
    nix::sys::wait::waitpid(child.pid, None).call(|| "waitpid()")?;
    match said? {
        Some((Message::Ready, Some(made))) => Ok(made),
        Some((Message::Failed(trouble), _)) => Err(Failed::new("mounting from attached layers", trouble.to_string())),
        _ => Err(Failed::new("mounting from attached layers", "the process that mounts it died")),
    }
}

/// What a file system said of its refusal, as the new mount API gives it (fsopen(2): messages are read from the descriptor).
fn last_words(fs: BorrowedFd) -> String {
    let mut buf = [0u8; 512];
    match rustix::io::read(fs, &mut buf) {
        Ok(n) => String::from_utf8_lossy(&buf[..n]).trim().to_owned(),
        Err(_) => "no message".to_owned(),
    }
}

fn attributes(options: &[String]) -> MountAttrFlags {
    let mut attr = MountAttrFlags::MOUNT_ATTR_NODEV;
    for option in options {
        match option.as_str() {
            "ro" => attr |= MountAttrFlags::MOUNT_ATTR_RDONLY,
            "noatime" => attr |= MountAttrFlags::MOUNT_ATTR_NOATIME,
            "nosuid" => attr |= MountAttrFlags::MOUNT_ATTR_NOSUID,
            "noexec" => attr |= MountAttrFlags::MOUNT_ATTR_NOEXEC,
            _ => tracing::warn!("MOUNT_OPTS: {option} means nothing here"),
        }
    }
    attr
}

/// `fs` and `work` in the private area, owned by the container's root (through the idmapped mount, with the caller's file ids set).
fn make_layer_dir(area: &OwnedFd, name: &str) -> Result<(), RootError> {
    match rustix::fs::mkdirat(area, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(e) => Err(e).call(|| format!("mkdirat(private area, {name})")).doing("making the layers"),
    }
}

/// Takes the file ids of a container's root, and gives them back when dropped.
pub(crate) struct FileIds;

impl FileIds {
    pub(crate) fn of(ids: IdRange) -> Result<Self, Failed> {
        nix::unistd::setfsgid(ids.gid.into());
        nix::unistd::setfsuid(ids.uid.into());
        let guard = Self;
        // Leaving fsuid 0 takes the file capabilities away; here they are wanted.
        effective(|c| *c != Capability::CAP_SYS_RESOURCE)?;
        Ok(guard)
    }
}

impl Drop for FileIds {
    fn drop(&mut self) {
        nix::unistd::setfsuid(0.into());
        nix::unistd::setfsgid(0.into());
        if let Err(e) = effective(|_| true) {
            tracing::warn!("{}", e.one_line());
        }
    }
}

/// Makes effective what is permitted and wanted.
pub(crate) fn effective(wanted: impl Fn(&Capability) -> bool) -> Result<(), Failed> {
    let go = || {
        let permitted = caps::read(None, CapSet::Permitted)?;
        caps::set(None, CapSet::Effective, &permitted.into_iter().filter(|c| wanted(c)).collect())
    };
    go().map_err(|e| Failed::new("capset(effective)", e.to_string()))
}

/// Makes a new private area's directory: `/vz/private` and what is below are closed to the host's users (its set-user-id programs are the
/// container's, and its secrets too).
///
/// # Errors
/// The failed call.
pub fn make_private(path: &Path) -> Result<(), Failed> {
    let go = || {
        if let Some(parent) = path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        std::fs::DirBuilder::new().mode(0o700).create(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
    };
    go().call(|| format!("mkdir({})", path.display()))
}

/// Opens a directory to hold it, following no link in the last component.
pub(crate) fn hold_dir(dir: impl AsFd, path: impl AsRef<OsStr>) -> Result<OwnedFd, Failed> {
    let path = path.as_ref();
    rustix::fs::openat(dir, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .call(|| format!("open({})", path.to_string_lossy()))
}
