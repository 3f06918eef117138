//! ioctls of /dev/fuse and of seccomp listeners.
#![expect(unsafe_code, reason = "ioctls that take structures; each block says why it is sound")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `FUSE_DEV_IOC_CLONE`, `_IOR(229, 0, uint32_t)` of linux/fuse.h.
const FUSE_DEV_IOC_CLONE: libc::Ioctl = libc::_IOR::<i32>(229, 0);

/// Makes a newly opened `/dev/fuse` a further end of a connection.
///
/// # Errors
/// The kernel's.
pub(super) fn fuse_clone(new: BorrowedFd, connection: BorrowedFd) -> io::Result<()> {
    let number = connection.as_raw_fd();
    // SAFETY: the kernel reads four bytes, which outlive the call.
    let r = unsafe { libc::ioctl(new.as_raw_fd(), FUSE_DEV_IOC_CLONE, &raw const number) };
    if r == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A system call that waits for its answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) id: u64,
    /// The thread, as this process numbers threads.
    pub(super) thread: u32,
    pub(super) number: u32,
    pub(super) arch: u32,
    pub(super) args: [u64; 6],
}

/// Takes the next system call from a listener that has one.
///
/// # Errors
/// The kernel's; `ENOENT` when the caller was killed meanwhile.
pub(super) fn receive(listener: BorrowedFd) -> io::Result<Asked> {
    // SAFETY: all zeroes is a value of this structure of integers, and what the kernel demands to be given.
    let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one seccomp_notif, whose size is part of the ioctl's number.
    let r = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut asked) };
    if r == -1 {
        return Err(io::Error::last_os_error());
    }
    let data = asked.data;
    Ok(Asked { id: asked.id, thread: asked.pid, number: data.nr as u32, arch: data.arch, args: data.args })
}

/// Whether the system call still waits: then what was opened of its thread a moment ago is that thread's.
pub(super) fn still_waits(listener: BorrowedFd, id: u64) -> bool {
    // SAFETY: the kernel reads eight bytes, which outlive the call.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id) == 0 }
}

/// How a system call ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// The kernel does it after all.
    Proceed,
    /// It returns this.
    Return(i64),
    /// It fails with this error number.
    Fail(i32),
}

/// Ends a system call.
///
/// # Errors
/// The kernel's; `ENOENT` when the caller was killed meanwhile.
pub(super) fn respond(listener: BorrowedFd, id: u64, answer: Answer) -> io::Result<()> {
    let (val, error, flags) = match answer {
        Answer::Proceed => (0, 0, u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).unwrap_or(1)),
        Answer::Return(value) => (value, 0, 0),
        Answer::Fail(errno) => (0, -errno, 0),
    };
    let mut response = libc::seccomp_notif_resp { id, val, error, flags };
    // SAFETY: the kernel reads one seccomp_notif_resp, whose size is part of the ioctl's number.
    let r = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response) };
    if r == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
