//! An ext4 file system in a file, as a container's private area: the size of the image is the limit.
//!
//! The file is sparse: what the container has not written costs the host nothing. It has no blocks reserved for root, so that root inside
//! the container has no more than everybody, and the number of inodes is the container's.

use std::cmp::Ordering;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use rustix::thread::CapabilitySet;

pub use crate::balloon::{Compacted, Fit, ROOT, compact, fit, hold_again, hold_to, shrink, trim};
use crate::call::{CallError, Called};
pub use crate::copy::{copy, preallocate};
use crate::geometry;
pub use crate::geometry::{BLOCK_BYTES, Size};
use crate::loopdev::Image;
pub use crate::loopdev::Loop;
use crate::superblock::Superblock;
use crate::sys;

/// Below this there is no room for a journal, and without one a crash of the host would cost the container its files.
pub const MIN_SIZE_BYTES: u64 = 16 << 20;

/// Above this ext4, as the host's file system, cannot hold the file.
pub const MAX_SIZE_BYTES: u64 = (1 << 44) - BLOCK_BYTES;

/// Features by name, so that an image does not depend on the host's `/etc/mke2fs.conf`, and mounts on every kernel since 4.18.
/// Without `quota` and `project`: a kernel without a quota format refuses to mount them.
const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,\
                        dir_nlink,extra_isize,metadata_csum";

/// Inodes of a new file system that root inside a container cannot use: the ten reserved ones and `lost+found`.
const OWN_INODES: u64 = 11;

/// Failures of this module.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A system call on a file system context failed, and the kernel gave its reason.
    #[error("{call}: {log}")]
    Mount {
        /// The call.
        call: String,
        /// What the file system said.
        log: String,
        /// The kernel's answer.
        #[source]
        errno: Errno,
    },
    /// A program could not be started.
    #[error("starting {program}")]
    Start {
        /// Its name.
        program: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program failed.
    #[error("{program} of {} ended with {status}: {stderr}", path.display())]
    Program {
        /// Its name.
        program: &'static str,
        /// The image it worked on.
        path: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        stderr: String,
    },
    /// The size asked for is below [`MIN_SIZE_BYTES`].
    #[error("an image of {size_bytes} bytes is too small: at least {MIN_SIZE_BYTES} are needed")]
    TooSmall {
        /// The size asked for.
        size_bytes: u64,
    },
    /// The size asked for is above [`MAX_SIZE_BYTES`].
    #[error("an image for {asked_bytes} bytes is too large: {MAX_SIZE_BYTES} are the most")]
    TooLarge {
        /// The size asked for, `unlimited` being a very large one.
        asked_bytes: u64,
    },
    /// The limits of users of an image could not be written down beside it, or not be read.
    #[error("the limits of users and groups in {}", path.display())]
    Kept {
        /// The text.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no ext4 in the file.
    #[error("{} has no ext4 file system", .0.display())]
    NotExt4(PathBuf),
    /// The file system was not made by [`create`].
    #[error("{} has blocks of {block_size} bytes, not {BLOCK_BYTES}", path.display())]
    NotOurs {
        /// The image.
        path: PathBuf,
        /// Its block size.
        block_size: u64,
    },
    /// The image is larger than the size asked for; ext4 cannot shrink while mounted, and files may lie in the part to be cut.
    #[error("{} has {current_bytes} bytes and cannot shrink to {asked_bytes}", path.display())]
    Shrink {
        /// The image.
        path: PathBuf,
        /// Its size.
        current_bytes: u64,
        /// The size asked for.
        asked_bytes: u64,
    },
    /// Files take more than the limit asked for leaves.
    #[error("{} has more in it than {asked_bytes} bytes leave room for", path.display())]
    Full {
        /// The image.
        path: PathBuf,
        /// The limit asked for.
        asked_bytes: u64,
    },
    /// The kernel grows a mounted ext4 only for a caller with `CAP_SYS_RESOURCE` (`ext4_resize_begin`).
    #[error("{} is mounted, and growing it then needs CAP_SYS_RESOURCE, which this process lacks; grow it unmounted", .0.display())]
    NeedsCapSysResource(PathBuf),
    /// The image is attached to a loop device, and so may be mounted.
    #[error("{} is in use by /dev/loop{number}", path.display())]
    InUse {
        /// The image.
        path: PathBuf,
        /// Number of the loop device.
        number: u32,
    },
}

/// Makes an image for at least `inodes` files. Where ext4 cannot have as many, it gets as
/// many as it has blocks, which is the most that can be of use: a file that is not empty takes one.
///
/// The image appears under `path` complete and synced, or not at all: until then it is a file without a name, which a crash of any kind
/// removes. An existing `path` is `EEXIST` from linkat(2). The directory needs a file system with `O_TMPFILE` (ext4, xfs, btrfs, tmpfs).
///
/// # Errors
/// [`Error::TooSmall`], [`Error::TooLarge`], [`Error::Call`], [`Error::Start`], and [`Error::Program`] from `mkfs.ext4`, also when the disk is full.
pub fn create(path: &Path, size: Size, inodes: u64) -> Result<(), Error> {
    refuse_too_large(size)?;
    let inodes = inodes.saturating_add(OWN_INODES).min(u64::from(u32::MAX));
    let blocks = size.blocks(inodes);
    let size_bytes = blocks.saturating_mul(BLOCK_BYTES);
    if size_bytes < MIN_SIZE_BYTES {
        return Err(Error::TooSmall { size_bytes });
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let directory_fd = rustix::fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .called(|| format!("open({}, O_DIRECTORY)", directory.display()))?;
    // Only root of the host may open it: who can lock an image can hold up the container's start.
    let file = rustix::fs::openat(
        &directory_fd,
        ".",
        OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC,
        Mode::RUSR | Mode::WUSR,
    )
    .called(|| format!("open({}, O_TMPFILE)", directory.display()))?;
    rustix::fs::ftruncate(&file, size_bytes).called(|| format!("ftruncate({}, {size_bytes})", path.display()))?;
    let stdin = rustix::io::fcntl_dupfd_cloexec(&file, 0).called(|| "fcntl(F_DUPFD_CLOEXEC)".to_owned())?;
    make_file_system(stdin, path, blocks, inodes.min(blocks))?;
    rustix::fs::fsync(&file).called(|| format!("fsync({})", path.display()))?;
    rustix::fs::linkat(CWD, format!("/proc/self/fd/{}", file.as_raw_fd()), CWD, path, AtFlags::SYMLINK_FOLLOW)
        .called(|| format!("linkat(O_TMPFILE, {})", path.display()))?;
    rustix::fs::fsync(&directory_fd).called(|| format!("fsync({})", directory.display()))?;
    Ok(())
}

/// Runs mkfs.ext4 on a file without a name, which it gets as its standard input.
fn make_file_system(file: OwnedFd, path: &Path, blocks: u64, inodes: u64) -> Result<(), Error> {
    let mut mkfs = program("mkfs.ext4");
    mkfs.args(["-q", "-F", "-b", &BLOCK_BYTES.to_string(), "-I", "256", "-m", "0", "-e", "remount-ro"])
        .args(["-N", &inodes.to_string(), "-J", &format!("size={}", geometry::journal_mib(blocks)), "-O", FEATURES])
        .args(["-E", "lazy_itable_init=1,lazy_journal_init=1", "/proc/self/fd/0", &blocks.to_string()]);
    let (status, stderr) = run("mkfs.ext4", mkfs.stdin(file))?;
    if status.success() {
        Ok(())
    } else {
        Err(Error::Program { program: "mkfs.ext4", path: path.to_owned(), status, stderr })
    }
}

/// Attaches an image to a loop device, with direct I/O where its file system can, so that the host does not cache its data twice. An
/// image that is attached already keeps its device (see [`Loop::is_reused`]): two devices of one image would destroy the file system.
///
/// # Errors
/// [`Error::Call`].
pub fn attach(path: &Path) -> Result<Loop, Error> {
    Ok(Image::open_locked(path)?.attach()?)
}

/// The loop device of an image, when it is attached: the container runs, or is mounted. Waits for nobody.
///
/// # Errors
/// [`Error::Call`].
pub fn attached(path: &Path) -> Result<Option<Loop>, Error> {
    Ok(Image::open(path)?.find()?)
}

/// Waits until an image is attached no more, for who has just let go of the last mount of it: the file has all of it then.
///
/// # Errors
/// [`Error::Call`]: `EBUSY` where somebody else has it.
pub fn wait_until_detached(path: &Path) -> Result<(), Error> {
    Ok(Image::open(path)?.wait_until_detached()?)
}

/// What becomes of space that files of an image do not need any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Freed {
    /// The host has it back a moment after the deletion is in the journal. It costs nothing that could be measured: the kernel does it beside
    /// (Linux 5.15), and a loop device makes holes of it.
    #[default]
    Discarded,
    /// The image keeps it, as one does that took all its space at once.
    Kept,
}

/// Mounts an attached image, detached from every mount namespace; dropping the descriptor unmounts it unless it was moved or cloned.
///
/// Device nodes in it never work (`nodev`), whoever made them: a container's devices are on a file system of ours. Set-user-id does:
/// the image may be the container's root.
///
/// # Errors
/// [`Error::Call`]; [`Error::Mount`] with the kernel's words.
pub fn mount(device: &Loop) -> Result<OwnedFd, Error> {
    mount_with(device, Options::default())
}

/// What may be chosen at a mount. Of a file system that is mounted already the first mount has chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// What becomes of the space of deleted files.
    pub freed: Freed,
    /// Whether the quotas of users and groups that [`crate::users::add`] gave the image are in force. If not, they are only counted.
    pub limits_users: bool,
}

/// The same with a choice.
///
/// # Errors
/// As [`mount`]; [`Error::Mount`] on a kernel without quotas of users where such are to be in force (see [`crate::users::support`]).
pub fn mount_with(device: &Loop, options: Options) -> Result<OwnedFd, Error> {
    let source = device.path();
    let context = rustix::mount::fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC).called(|| "fsopen(ext4)".to_owned())?;
    let explain = |errno, call: String| match kernel_log(context.as_fd()) {
        log if log.is_empty() => Error::Call(CallError { call, errno }),
        log => Error::Mount { call, log, errno },
    };
    rustix::mount::fsconfig_set_string(&context, "source", &source)
        .map_err(|errno| explain(errno, format!("fsconfig(ext4, source={source})")))?;
    let flags = [
        (options.freed == Freed::Discarded).then_some("discard"),
        options.limits_users.then_some("usrquota"),
        options.limits_users.then_some("grpquota"),
    ];
    for flag in flags.into_iter().flatten() {
        rustix::mount::fsconfig_set_flag(&context, flag)
            .map_err(|errno| explain(errno, format!("fsconfig(ext4, {flag})")))?;
    }
    // A second mount of the device shares the first one's file system, which is what makes a reused device safe.
    rustix::mount::fsconfig_create(&context)
        .map_err(|errno| explain(errno, format!("fsconfig(ext4, source={source}, FSCONFIG_CMD_CREATE)")))?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NODEV)
        .map_err(|errno| explain(errno, format!("fsmount(ext4, source={source}, nodev)")))
}

/// Drains what the kernel has to say about a file system context: lines such as `e ext4: ...`.
fn kernel_log(context: BorrowedFd<'_>) -> String {
    let mut lines = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(length) = rustix::io::read(context, &mut buffer) {
        lines.push(String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned());
    }
    lines.join("; ")
}

/// How an image was grown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grown {
    /// It had the size already.
    Unchanged,
    /// While in use: who uses it sees the space at once.
    Online,
    /// While nobody used it.
    Offline,
}

/// Grows an image, online when it is in use; the number of inodes grows in proportion.
///
/// [`Size::Usable`] below what there is changes nothing and is no error, as the files may have a little more than was asked for.
///
/// Safe to repeat: a failure may leave the file longer than its file system, which costs nothing as the file is sparse, and harms nothing.
///
/// # Errors
/// [`Error::Shrink`]; [`Error::TooLarge`]; [`Error::NeedsCapSysResource`] for an image in use; [`Error::NotExt4`]; [`Error::Call`]; [`Error::Mount`];
/// [`Error::Program`].
pub fn grow(path: &Path, size: Size) -> Result<Grown, Error> {
    grow_image(&Image::open_locked(path)?, size)
}

/// What the files of an image have, mounted or not, in KiB: the image without journal and tables.
///
/// # Errors
/// [`Error::NotExt4`]; [`Error::Call`].
pub fn usable_kib(path: &Path) -> Result<u64, Error> {
    let image = Image::open_locked(path)?;
    let attached = image.find()?;
    let layout = superblock(&image, attached.as_ref().map_or(image.file.as_fd(), Loop::as_fd))?.layout;
    Ok(files_bytes(&layout) / 1024)
}

/// How large the file system of an attached image is.
pub(crate) fn size_bytes(device: &Loop) -> Result<u64, Error> {
    Ok(layout(device)?.blocks.saturating_mul(BLOCK_BYTES))
}

/// What its files have.
pub(crate) fn usable_bytes(device: &Loop) -> Result<u64, Error> {
    Ok(files_bytes(&layout(device)?))
}

fn files_bytes(layout: &geometry::Layout) -> u64 {
    layout.blocks.saturating_sub(layout.overhead_blocks).saturating_mul(BLOCK_BYTES)
}

fn layout(device: &Loop) -> Result<geometry::Layout, Error> {
    let path = || PathBuf::from(device.path());
    let superblock = Superblock::read(device)
        .called(|| format!("pread({})", device.path()))?
        .ok_or_else(|| Error::NotExt4(path()))?;
    if superblock.block_size != BLOCK_BYTES {
        return Err(Error::NotOurs { path: path(), block_size: superblock.block_size });
    }
    Ok(superblock.layout)
}

/// See [`grow`].
pub(crate) fn grow_image(image: &Image<'_>, size: Size) -> Result<Grown, Error> {
    refuse_too_large(size)?;
    let path = image.path;
    let attached = image.find()?;
    // Of an image in use the superblock is read through the device, whose page cache is the kernel's own copy: the one in the file lacks
    // what is in the journal only.
    let superblock = superblock(image, attached.as_ref().map_or(image.file.as_fd(), Loop::as_fd))?;
    if superblock.block_size != BLOCK_BYTES {
        return Err(Error::NotOurs { path: path.to_owned(), block_size: superblock.block_size });
    }
    let (current, blocks) = (superblock.layout.blocks, size.blocks_grown(&superblock.layout));
    let size_bytes = blocks.saturating_mul(BLOCK_BYTES);
    match blocks.cmp(&current) {
        Ordering::Less => {
            let current_bytes = current.saturating_mul(BLOCK_BYTES);
            return Err(Error::Shrink { path: path.to_owned(), current_bytes, asked_bytes: size_bytes });
        }
        Ordering::Equal => return Ok(Grown::Unchanged),
        Ordering::Greater => {}
    }
    let may_resize_mounted = rustix::thread::capabilities(None)
        .called(|| "capget()".to_owned())?
        .effective
        .contains(CapabilitySet::SYS_RESOURCE);
    match (attached, may_resize_mounted) {
        (Some(_), false) => Err(Error::NeedsCapSysResource(path.to_owned())),
        (None, false) => grow_by_program(image, size_bytes).map(|()| Grown::Offline),
        // Mounting an idle image takes milliseconds; resize2fs would have it checked in full first.
        (attached, true) => {
            let how = if attached.is_some() { Grown::Online } else { Grown::Offline };
            extend(image, size_bytes)?;
            let device = attached.map_or_else(|| image.attach(), Ok)?;
            grow_mounted(&device, blocks).map(|()| how)
        }
    }
}

fn refuse_too_large(size: Size) -> Result<(), Error> {
    let asked_bytes = match size {
        Size::Image(bytes) => bytes,
        Size::Usable(kib) => kib.saturating_mul(1024),
    };
    if asked_bytes > MAX_SIZE_BYTES { Err(Error::TooLarge { asked_bytes }) } else { Ok(()) }
}

/// The kernel's own growing, through a mount of ours: of a file system in use it is one more mount of the same.
fn grow_mounted(device: &Loop, blocks: u64) -> Result<(), Error> {
    device.update_capacity()?;
    let mount = mount(device)?;
    // fsmount(2) gives a descriptor without access (O_PATH), and ioctls want one.
    let root = rustix::fs::openat(&mount, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .called(|| format!("openat({}, .)", device.path()))?;
    sys::ext4_resize(&root, blocks).called(|| format!("ioctl({}, EXT4_IOC_RESIZE_FS, {blocks})", device.path()))?;
    Ok(())
}

fn grow_by_program(image: &Image<'_>, size_bytes: u64) -> Result<(), Error> {
    extend(image, size_bytes)?;
    resize_by_program(image, size_bytes)
}

/// Grows or shrinks the file system of an image that is not attached.
pub(crate) fn resize_by_program(image: &Image<'_>, size_bytes: u64) -> Result<(), Error> {
    // resize2fs insists on a full check since the last mount.
    check(image, Check::Always)?;
    let mut resize = program("resize2fs");
    resize.arg(image.path).arg(format!("{}K", size_bytes / 1024));
    let (status, stderr) = run("resize2fs", &mut resize)?;
    if status.success() {
        Ok(())
    } else {
        Err(Error::Program { program: "resize2fs", path: image.path.to_owned(), status, stderr })
    }
}

fn extend(image: &Image<'_>, size_bytes: u64) -> Result<(), CallError> {
    let call = |name: &str| format!("{name}({}, {size_bytes})", image.path.display());
    let length = rustix::fs::fstat(&image.file).called(|| call("fstat"))?.st_size as u64;
    if length < size_bytes {
        rustix::fs::ftruncate(&image.file, size_bytes).called(|| call("ftruncate"))?;
    }
    Ok(())
}

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsck {
    /// The superblock tells of no errors: nothing was run.
    NotNeeded,
    /// Checked in full, nothing wrong.
    Clean,
    /// Errors were found and corrected.
    Corrected,
}

/// Checks an image with `e2fsck -p` when its superblock tells of errors. One that was merely not unmounted needs no check: mounting it
/// replays the journal.
///
/// # Errors
/// [`Error::InUse`]; [`Error::Program`] when errors are left that a person has to decide about; [`Error::NotExt4`]; [`Error::Call`].
pub fn fsck(path: &Path) -> Result<Fsck, Error> {
    let image = Image::open_locked(path)?;
    if let Some(device) = image.find()? {
        return Err(Error::InUse { path: path.to_owned(), number: device.number() });
    }
    check(&image, Check::OnErrors)
}

/// When to run e2fsck.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Check {
    OnErrors,
    Always,
}

fn check(image: &Image<'_>, when: Check) -> Result<Fsck, Error> {
    if when == Check::OnErrors && !superblock(image, image.file.as_fd())?.has_errors {
        return Ok(Fsck::NotNeeded);
    }
    let mut e2fsck = program("e2fsck");
    e2fsck.args(["-p", "-f"]).arg(image.path);
    let (status, stderr) = run("e2fsck", &mut e2fsck)?;
    // e2fsck(8): a bit mask. 1: errors corrected; 2: and the system should be rebooted, which is meant for a mounted root.
    match status.code() {
        Some(0) => Ok(Fsck::Clean),
        Some(1..=3) => Ok(Fsck::Corrected),
        _ => Err(Error::Program { program: "e2fsck", path: image.path.to_owned(), status, stderr }),
    }
}

/// How much of a mounted file system is used, as df(1) shows it inside the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Space used, in KiB.
    pub space_used_kib: u64,
    /// Space for files in all, in KiB: the image without journal and tables.
    pub space_total_kib: u64,
    /// Inodes used.
    pub inodes_used: u64,
    /// Inodes in all.
    pub inodes_total: u64,
}

/// Usage of the file system that `fd` lies on, such as the descriptor that [`mount`] gave.
///
/// # Errors
/// [`Error::Call`].
pub fn usage(fd: impl AsFd) -> Result<Usage, Error> {
    let stat = rustix::fs::fstatvfs(fd).called(|| "fstatvfs(image)".to_owned())?;
    let kib = |blocks: u64| (u128::from(blocks) * u128::from(stat.f_frsize) / 1024).try_into().unwrap_or(u64::MAX);
    Ok(Usage {
        space_used_kib: kib(stat.f_blocks.saturating_sub(stat.f_bfree)),
        space_total_kib: kib(stat.f_blocks),
        inodes_used: stat.f_files.saturating_sub(stat.f_ffree),
        inodes_total: stat.f_files,
    })
}

/// Whether an image keeps quotas of users and groups.
pub(crate) fn has_quota(image: &Image<'_>) -> Result<bool, Error> {
    Ok(superblock(image, image.file.as_fd())?.has_quota)
}

/// For programs that refuse an image whose journal has not been replayed.
pub(crate) fn replay_journal(image: &Image<'_>) -> Result<(), Error> {
    if superblock(image, image.file.as_fd())?.needs_recovery {
        check(image, Check::Always)?;
    }
    Ok(())
}

/// Whether a file system that has quotas of users and groups can be mounted: a small one in memory, for a moment.
pub(crate) fn can_mount_with_quota() -> Result<bool, Error> {
    let memory = rustix::fs::memfd_create("quota", rustix::fs::MemfdFlags::CLOEXEC)
        .called(|| "memfd_create(quota)".to_owned())?;
    let size_bytes: u64 = 1 << 20;
    rustix::fs::ftruncate(&memory, size_bytes).called(|| format!("ftruncate(memfd, {size_bytes})"))?;
    let stdin = rustix::io::fcntl_dupfd_cloexec(&memory, 0).called(|| "fcntl(F_DUPFD_CLOEXEC)".to_owned())?;
    let mut mkfs = program("mkfs.ext4");
    mkfs.args(["-q", "-F", "-b", &BLOCK_BYTES.to_string(), "-O", "none,extent,quota", "/proc/self/fd/0"]);
    let (status, stderr) = run("mkfs.ext4", mkfs.stdin(stdin))?;
    if !status.success() {
        return Err(Error::Program { program: "mkfs.ext4", path: PathBuf::from("memory"), status, stderr });
    }
    let path = PathBuf::from(format!("/proc/self/fd/{}", memory.as_raw_fd()));
    let device = Image::of(memory, &path)?.attach()?;
    Ok(mount_with(&device, Options { limits_users: true, ..Options::default() }).is_ok())
}

fn superblock(image: &Image<'_>, source: BorrowedFd<'_>) -> Result<Superblock, Error> {
    Superblock::read(source)
        .called(|| format!("pread({})", image.path.display()))?
        .ok_or_else(|| Error::NotExt4(image.path.to_owned()))
}

/// A program of e2fsprogs in an environment that is not our caller's: cron has no `/usr/sbin` in its path, and mke2fs listens to variables.
pub(crate) fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
    command.stdin(Stdio::null());
    command
}

/// Runs to the end; returns how it ended and what it had to say.
pub(crate) fn run(program: &'static str, command: &mut Command) -> Result<(ExitStatus, String), Error> {
    let failed = |source| Error::Start { program, source };
    let output = command.output().map_err(failed)?;
    let words = String::from_utf8_lossy(&[output.stderr, output.stdout].concat()).trim().replace('\n', "; ");
    Ok((output.status, words))
}
