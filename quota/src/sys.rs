//! The ioctls and the system calls that no safe wrapper has: loop devices, growing ext4, project ids, quotas by file descriptor and by device.
//!
//! Layouts and numbers are those of the kernel's `uapi/linux/{loop,fs,quota,dqblk_xfs}.h` and `fs/ext4/ext4.h`.
#![expect(
    unsafe_code,
    reason = "ioctl(2), quotactl(2) and quotactl_fd(2) take pointers; each structure here is written out beside its call"
)]

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::io::Errno;
use rustix::ioctl::{self, Getter, NoArg, Opcode, Setter, Updater, opcode};

use crate::quotactl::{LARGEST_BYTES, QUOTAON};

pub(crate) const LO_FLAGS_AUTOCLEAR: u32 = 4;
pub(crate) const LO_FLAGS_DIRECT_IO: u32 = 16;

const LOOP_SET_CAPACITY: Opcode = 0x4C07;
const LOOP_GET_STATUS64: Opcode = 0x4C05;
const LOOP_CONFIGURE: Opcode = 0x4C0A;
const LOOP_CTL_GET_FREE: Opcode = 0x4C82;
const EXT4_IOC_RESIZE_FS: Opcode = opcode::write::<u64>(b'f', 16);
const FITRIM: Opcode = opcode::read_write::<TrimRange>(b'X', 121);
const FS_IOC_FSGETXATTR: Opcode = opcode::read::<FsXattr>(b'X', 31);
const FS_IOC_FSSETXATTR: Opcode = opcode::write::<FsXattr>(b'X', 32);

/// `struct fstrim_range`, in bytes.
#[repr(C)]
struct TrimRange {
    start: u64,
    length: u64,
    shortest: u64,
}

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct LoopInfo {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    pub(crate) flags: u32,
    pub(crate) file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

impl LoopInfo {
    pub(crate) fn new(flags: u32, file_name: [u8; 64]) -> LoopInfo {
        LoopInfo {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags,
            file_name,
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        }
    }
}

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// `struct fsxattr`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct FsXattr {
    pub(crate) xflags: u32,
    extent_size: u32,
    extents: u32,
    pub(crate) project_id: u32,
    cow_extent_size: u32,
    padding: [u8; 8],
}

/// `struct if_dqblk`: space limits in KiB, space used in bytes, 0 for no limit.
#[repr(C)]
#[derive(Default, Clone, Copy)]
pub(crate) struct Dqblk {
    pub(crate) space_hard_kib: u64,
    pub(crate) space_soft_kib: u64,
    pub(crate) space_used_bytes: u64,
    pub(crate) inodes_hard: u64,
    pub(crate) inodes_soft: u64,
    pub(crate) inodes_used: u64,
    pub(crate) space_grace_ends: u64,
    pub(crate) inodes_grace_ends: u64,
    pub(crate) valid: u32,
}

/// `struct if_nextdqblk`: the id is where [`Dqblk`] ends with padding.
#[repr(C)]
#[derive(Default, Clone, Copy)]
struct NextDqblk {
    record: [u64; 8],
    valid: u32,
    id: u32,
}

/// `struct file_attr` of Linux 6.17.
#[repr(C)]
#[derive(Default, Clone, Copy, PartialEq, Eq)]
struct FileAttr {
    xflags: u64,
    extent_size: u32,
    extents: u32,
    project_id: u32,
    cow_extent_size: u32,
}

/// `struct if_dqinfo`.
#[repr(C)]
#[derive(Default, Clone, Copy)]
pub(crate) struct Dqinfo {
    pub(crate) space_grace_s: u64,
    pub(crate) inodes_grace_s: u64,
    pub(crate) flags: u32,
    pub(crate) valid: u32,
}

/// `struct fs_qfilestatv`.
#[repr(C)]
#[derive(Default, Clone, Copy)]
struct QuotaFileState {
    inode: u64,
    blocks: u64,
    extents: u32,
    padding: u32,
}

/// `struct fs_quota_statv`.
#[repr(C)]
#[derive(Default, Clone, Copy)]
struct QuotaState {
    version: i8,
    padding1: u8,
    flags: u16,
    in_core: u32,
    files: [QuotaFileState; 3],
    time_limits: [i32; 3],
    warn_limits: [u16; 3],
    padding3: u16,
    padding4: u32,
    padding2: [u64; 7],
}

const _: () = {
    assert!(size_of::<LoopInfo>() == 232);
    assert!(size_of::<LoopConfig>() == 304);
    assert!(size_of::<FsXattr>() == 28);
    assert!(size_of::<Dqblk>() == 72);
    assert!(size_of::<NextDqblk>() == 72);
    assert!(size_of::<FileAttr>() == 24);
    assert!(size_of::<Dqinfo>() == 24);
    assert!(size_of::<QuotaState>() == 160);
};

pub(crate) const QIF_BLIMITS: u32 = 1;
pub(crate) const QIF_ILIMITS: u32 = 4;
pub(crate) const IIF_BGRACE: u32 = 1;
pub(crate) const IIF_IGRACE: u32 = 2;
pub(crate) const FS_QUOTA_PDQ_ACCT: u16 = 1 << 4;
pub(crate) const FS_QUOTA_PDQ_ENFD: u16 = 1 << 5;

const PRJQUOTA: u32 = 2;
const Q_GETINFO: u32 = 0x80_0005;
const Q_SETINFO: u32 = 0x80_0006;
const Q_GETQUOTA: u32 = 0x80_0007;
const Q_SETQUOTA: u32 = 0x80_0008;
const Q_GETNEXTQUOTA: u32 = 0x80_0009;
const Q_XGETQSTATV: u32 = ((b'X' as u32) << 8) + 8;
const FS_QSTATV_VERSION1: i8 = 1;

/// Takes the number of a loop device that nobody uses yet; another process may take it first.
pub(crate) fn loop_ctl_get_free(control: impl AsFd) -> Result<u32, Errno> {
    /// The answer is what the ioctl returns.
    struct GetFree;
    // SAFETY: LOOP_CTL_GET_FREE neither reads nor writes memory of ours; its pointer argument is ignored, and null here.
    unsafe impl ioctl::Ioctl for GetFree {
        type Output = u32;
        const IS_MUTATING: bool = false;
        fn opcode(&self) -> Opcode {
            LOOP_CTL_GET_FREE
        }
        fn as_ptr(&mut self) -> *mut std::ffi::c_void {
            std::ptr::null_mut()
        }
        unsafe fn output_from_ptr(
            number: ioctl::IoctlOutput,
            _: *mut std::ffi::c_void,
        ) -> rustix::io::Result<Self::Output> {
            u32::try_from(number).map_err(|_| Errno::INVAL)
        }
    }
    // SAFETY: see the implementation above.
    unsafe { ioctl::ioctl(control, GetFree) }
}

/// Attaches `backing` to a free loop device in one step (Linux 5.8).
pub(crate) fn loop_configure(
    device: impl AsFd,
    backing: BorrowedFd<'_>,
    block_size: u32,
    info: LoopInfo,
) -> Result<(), Errno> {
    let fd = backing.as_raw_fd() as u32;
    let config = LoopConfig { fd, block_size, info, reserved: [0; 8] };
    // SAFETY: the kernel reads one `struct loop_config`, which LoopConfig is, and keeps no pointer into it.
    unsafe { ioctl::ioctl(device, Setter::<LOOP_CONFIGURE, LoopConfig>::new(config)) }
}

/// What a loop device is attached to; `ENXIO` when to nothing.
pub(crate) fn loop_status(device: impl AsFd) -> Result<LoopInfo, Errno> {
    // SAFETY: the kernel fills one `struct loop_info64`, which LoopInfo is; every bit pattern of it is valid.
    unsafe { ioctl::ioctl(device, Getter::<LOOP_GET_STATUS64, LoopInfo>::new()) }
}

/// Makes a loop device as long as its file is now.
pub(crate) fn loop_set_capacity(device: impl AsFd) -> Result<(), Errno> {
    // SAFETY: LOOP_SET_CAPACITY takes no argument.
    unsafe { ioctl::ioctl(device, NoArg::<LOOP_SET_CAPACITY>::new()) }
}

/// Whether nobody but the caller has the file open, through whatever name, descriptor, mapping or loop device: only then does the kernel
/// give a write lease (fcntl(2)), which goes back at once. `None` where the file system has no leases.
pub(crate) fn is_open_only_here(file: BorrowedFd<'_>) -> Option<bool> {
    /// Missing from the `libc` crate.
    const F_SETSIG: i32 = 10;
    let fcntl = |command: i32, argument: i32| {
        // SAFETY: the three commands take a number and touch no memory of ours.
        let result = unsafe { libc::fcntl(file.as_raw_fd(), command, argument) };
        if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().raw_os_error()) }
    };
    // Who opens the file in between gets us a signal; SIGIO would end this process, SIGURG is ignored unless asked for.
    fcntl(F_SETSIG, libc::SIGURG).ok()?;
    match fcntl(libc::F_SETLEASE, libc::F_WRLCK) {
        Ok(()) => fcntl(libc::F_SETLEASE, libc::F_UNLCK).ok().map(|()| true),
        Err(Some(libc::EAGAIN)) => Some(false),
        Err(_) => None,
    }
}

/// Grows the mounted ext4 that `directory` lies on to so many of its blocks.
pub(crate) fn ext4_resize(directory: impl AsFd, blocks: u64) -> Result<(), Errno> {
    // SAFETY: the kernel reads one u64.
    unsafe { ioctl::ioctl(directory, Setter::<EXT4_IOC_RESIZE_FS, u64>::new(blocks)) }
}

/// Discards all that is free on the mounted file system that `directory` lies on (`FITRIM`, linux/fs.h).
pub(crate) fn trim(directory: impl AsFd) -> Result<(), Errno> {
    let mut range = TrimRange { start: 0, length: u64::MAX, shortest: 0 };
    // SAFETY: the kernel reads and writes one `struct fstrim_range`, which TrimRange is.
    unsafe { ioctl::ioctl(directory, Updater::<FITRIM, TrimRange>::new(&mut range)) }
}

/// Project id and extended flags of an inode.
pub(crate) fn fsxattr(inode: impl AsFd) -> Result<FsXattr, Errno> {
    // SAFETY: the kernel fills one `struct fsxattr`, which FsXattr is; every bit pattern of it is valid.
    unsafe { ioctl::ioctl(inode, Getter::<FS_IOC_FSGETXATTR, FsXattr>::new()) }
}

/// Sets what [`fsxattr`] got.
pub(crate) fn set_fsxattr(inode: impl AsFd, attributes: FsXattr) -> Result<(), Errno> {
    // SAFETY: the kernel reads one `struct fsxattr`, which FsXattr is.
    unsafe { ioctl::ioctl(inode, Setter::<FS_IOC_FSSETXATTR, FsXattr>::new(attributes)) }
}

/// `FS_QUOTA_*` flags of the file system that `fd` lies on. `ENOSYS` when no quota is on.
pub(crate) fn quota_flags(fd: BorrowedFd<'_>) -> Result<u16, Errno> {
    let mut state = QuotaState { version: FS_QSTATV_VERSION1, ..QuotaState::default() };
    // SAFETY: Q_XGETQSTATV reads the version and fills one `struct fs_quota_statv` of it, which QuotaState is.
    unsafe { quotactl(fd, Q_XGETQSTATV, 0, &mut state) }?;
    Ok(state.flags)
}

/// Usage and limits of a project.
pub(crate) fn project_quota(fd: BorrowedFd<'_>, project_id: u32) -> Result<Dqblk, Errno> {
    let mut record = Dqblk::default();
    // SAFETY: Q_GETQUOTA fills one `struct if_dqblk`, which Dqblk is.
    unsafe { quotactl(fd, Q_GETQUOTA, project_id, &mut record) }?;
    Ok(record)
}

/// Gives a directory entry, which is no link that would be followed, the project. Linux 6.17, whose numbers of these calls are the same
/// on all architectures.
pub(crate) fn set_project_of_entry(directory: BorrowedFd<'_>, name: &CStr, project_id: u32) -> Result<(), Errno> {
    const FILE_GETATTR: libc::c_long = 468;
    const FILE_SETATTR: libc::c_long = 469;
    let mut attributes = FileAttr::default();
    let call = |number: libc::c_long, attributes: &mut FileAttr| {
        // SAFETY: both take a directory, a C string, a `struct file_attr` with its size, and flags; FileAttr is that structure, live and
        // exclusive for the call.
        let result = unsafe {
            libc::syscall(
                number,
                directory.as_raw_fd(),
                name.as_ptr(),
                std::ptr::from_mut(attributes),
                size_of::<FileAttr>(),
                libc::AT_SYMLINK_NOFOLLOW,
            )
        };
        answered(result)
    };
    call(FILE_GETATTR, &mut attributes)?;
    if attributes.project_id != project_id {
        attributes.project_id = project_id;
        call(FILE_SETATTR, &mut attributes)?;
    }
    Ok(())
}

/// Sets what `record.valid` names.
pub(crate) fn set_project_quota(fd: BorrowedFd<'_>, project_id: u32, mut record: Dqblk) -> Result<(), Errno> {
    // SAFETY: Q_SETQUOTA reads one `struct if_dqblk`, which Dqblk is.
    unsafe { quotactl(fd, Q_SETQUOTA, project_id, &mut record) }
}

/// The grace times of all projects of the file system.
pub(crate) fn project_info(fd: BorrowedFd<'_>) -> Result<Dqinfo, Errno> {
    let mut info = Dqinfo::default();
    // SAFETY: Q_GETINFO fills one `struct if_dqinfo`, which Dqinfo is.
    unsafe { quotactl(fd, Q_GETINFO, 0, &mut info) }?;
    Ok(info)
}

/// Sets what `info.valid` names.
pub(crate) fn set_project_info(fd: BorrowedFd<'_>, mut info: Dqinfo) -> Result<(), Errno> {
    // SAFETY: Q_SETINFO reads one `struct if_dqinfo`, which Dqinfo is.
    unsafe { quotactl(fd, Q_SETINFO, 0, &mut info) }
}

/// quotactl_fd(2), Linux 5.14: any descriptor on the file system names it, so no block device has to be found by path.
///
/// # Safety
/// `T` must be the structure that `command` reads or fills.
unsafe fn quotactl<T>(fd: BorrowedFd<'_>, command: u32, id: u32, argument: &mut T) -> Result<(), Errno> {
    let command = (command << 8) | PRJQUOTA;
    // SAFETY: the caller vouches for the type behind the pointer, which is live and exclusive for the call.
    let result =
        unsafe { libc::syscall(libc::SYS_quotactl_fd, fd.as_raw_fd(), command, id, std::ptr::from_mut(argument)) };
    answered(result)
}

fn answered(result: libc::c_long) -> Result<(), Errno> {
    if result == 0 {
        Ok(())
    } else {
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL))
    }
}

/// quotactl(2) on the file system of a block device, with a structure of whatever kind: `structure` has room for the largest.
pub(crate) fn quotactl_of_device(
    device: &CStr,
    word: u32,
    id: u32,
    structure: &mut [u8; LARGEST_BYTES],
) -> Result<(), Errno> {
    // The one command that reads a path wants one, and does not look at it where quotas are in hidden files.
    let argument = if word >> 8 == QUOTAON { c".".as_ptr().cast_mut().cast() } else { structure.as_mut_ptr() };
    // SAFETY: no command reads or fills more than `structure` has (quotactl::LARGEST_BYTES), and Q_QUOTAON reads a string.
    unsafe { quotactl_raw(device, word, id, argument) }
}

/// Usage and limits of a user (0) or group (1).
pub(crate) fn user_quota(device: &CStr, kind: u32, id: u32) -> Result<Dqblk, Errno> {
    let mut record = Dqblk::default();
    // SAFETY: Q_GETQUOTA fills one `struct if_dqblk`, which Dqblk is.
    unsafe { quotactl_raw(device, Q_GETQUOTA << 8 | kind, id, (&raw mut record).cast()) }?;
    Ok(record)
}

/// The next one from `id` on.
pub(crate) fn next_user_quota(device: &CStr, kind: u32, id: u32) -> Result<(u32, Dqblk), Errno> {
    let mut next = NextDqblk::default();
    // SAFETY: Q_GETNEXTQUOTA fills one `struct if_nextdqblk`, which NextDqblk is.
    unsafe { quotactl_raw(device, Q_GETNEXTQUOTA << 8 | kind, id, (&raw mut next).cast()) }?;
    let [
        space_hard_kib,
        space_soft_kib,
        space_used_bytes,
        inodes_hard,
        inodes_soft,
        inodes_used,
        space_grace_ends,
        inodes_grace_ends,
    ] = next.record;
    let record = Dqblk {
        space_hard_kib,
        space_soft_kib,
        space_used_bytes,
        inodes_hard,
        inodes_soft,
        inodes_used,
        space_grace_ends,
        inodes_grace_ends,
        valid: next.valid,
    };
    Ok((next.id, record))
}

/// Sets what `record.valid` names.
pub(crate) fn set_user_quota(device: &CStr, kind: u32, id: u32, mut record: Dqblk) -> Result<(), Errno> {
    // SAFETY: Q_SETQUOTA reads one `struct if_dqblk`, which Dqblk is.
    unsafe { quotactl_raw(device, Q_SETQUOTA << 8 | kind, id, (&raw mut record).cast()) }
}

/// The grace times of users or groups.
pub(crate) fn user_info(device: &CStr, kind: u32) -> Result<Dqinfo, Errno> {
    let mut info = Dqinfo::default();
    // SAFETY: Q_GETINFO fills one `struct if_dqinfo`, which Dqinfo is.
    unsafe { quotactl_raw(device, Q_GETINFO << 8 | kind, 0, (&raw mut info).cast()) }?;
    Ok(info)
}

/// Sets what `info.valid` names.
pub(crate) fn set_user_info(device: &CStr, kind: u32, mut info: Dqinfo) -> Result<(), Errno> {
    // SAFETY: Q_SETINFO reads one `struct if_dqinfo`, which Dqinfo is.
    unsafe { quotactl_raw(device, Q_SETINFO << 8 | kind, 0, (&raw mut info).cast()) }
}

/// quotactl(2). A device names the file system that is mounted from it without a mount of it having to be held open.
///
/// # Safety
/// `argument` must be what the command in `word` reads or fills.
unsafe fn quotactl_raw(device: &CStr, word: u32, id: u32, argument: *mut u8) -> Result<(), Errno> {
    // SAFETY: the caller vouches for `argument`; `device` is a string that outlives the call.
    answered(unsafe { libc::syscall(libc::SYS_quotactl, word, device.as_ptr(), id, argument) })
}
