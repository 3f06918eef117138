//! The system calls that neither nix nor rustix gives in a safe form. The only unsafe code of the runtime's core.
#![expect(unsafe_code, reason = "raw system calls; each block says why it is sound")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::unistd::Pid;

/// The constant of linux/sched.h; the one of the libc crate has a type too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What clone3(2) should make. Namespaces by flag; the child shares no memory.
#[derive(Debug, Default)]
pub(crate) struct Clone<'a> {
    /// `CLONE_NEW…` flags.
    pub(crate) namespaces: u64,
    /// Directory of the cgroup2 group the child is born in (Linux 5.7).
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    /// Both have one table of descriptors: what either opens or closes, the other has or has not. The table lives as long as one of them.
    pub(crate) shared_descriptors: bool,
}

/// What the parent gets.
#[derive(Debug)]
pub(crate) struct Cloned {
    /// The child's process id here.
    pub(crate) pid: Pid,
    /// Its pidfd: the only handle that can't come to mean another process.
    pub(crate) pidfd: OwnedFd,
}

/// clone3(2) (Linux 5.3) as a fork. `None` in the child.
///
/// # Errors
/// The kernel's; `EDEADLK` with more than one thread, as a lock held by another thread would stay locked in the child for ever.
pub(crate) fn clone3(request: &Clone) -> io::Result<Option<Cloned>> {
    single_threaded()?;
    let cgroup = request.cgroup.map(|fd| fd.as_raw_fd());
    let files = if request.shared_descriptors { libc::CLONE_FILES as u64 } else { 0 };
    // SAFETY: one thread only (checked).
    unsafe { clone3_unchecked(request.namespaces | files, cgroup, libc::SIGCHLD as u64) }
}

/// clone3(2) of a sibling: a further child of the caller's parent (`CLONE_PARENT`), where the caller's `setns` says. `None` in the sibling.
///
/// For a process that [`clone3`] has made, and that has one thread because of that: its `/proc` may be a container's by now, which is not to
/// be asked.
///
/// # Errors
/// The kernel's.
pub(crate) fn clone_sibling() -> io::Result<Option<Cloned>> {
    // SAFETY: one thread only: nothing of this program starts another after a clone.
    unsafe { clone3_unchecked(libc::CLONE_PARENT as u64, None, 0) }
}

/// # Safety
/// The caller has one thread only, so that locks and allocator are consistent in the child.
unsafe fn clone3_unchecked(flags: u64, cgroup: Option<RawFd>, exit_signal: u64) -> io::Result<Option<Cloned>> {
    let mut pidfd: RawFd = -1;
    let mut args = libc::clone_args {
        flags: flags | libc::CLONE_PIDFD as u64,
        pidfd: std::ptr::from_mut(&mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    if let Some(fd) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = fd as u64;
    }
    // SAFETY: args is a valid clone_args of the size given; no stack and no CLONE_VM, so the child runs on a copy of this memory like
    // after fork; one thread only (the caller's promise), so that copy is consistent.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, std::ptr::from_mut(&mut args), size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => {
            // SAFETY: the kernel has just written a new descriptor there, which nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            let pid = Pid::from_raw(i32::try_from(pid).map_err(io::Error::other)?);
            Ok(Some(Cloned { pid, pidfd }))
        }
    }
}

fn single_threaded() -> io::Result<()> {
    // /proc/self/task has one entry per thread; its link count is 2 + threads.
    let links = std::os::unix::fs::MetadataExt::nlink(&std::fs::metadata("/proc/self/task")?);
    if links == 3 { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EDEADLK)) }
}

/// mount_setattr(2) (Linux 5.12) giving a detached mount the id mapping of a user namespace, and the attributes in `set`.
///
/// # Errors
/// The kernel's: `EINVAL` where the file system has no idmapped mounts.
pub(crate) fn mount_setattr_idmap(mount: BorrowedFd, userns: BorrowedFd, set: u64) -> io::Result<()> {
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP | set,
        attr_clr: 0,
        propagation: 0,
        userns_fd: userns.as_raw_fd() as u64,
    };
    mount_setattr(mount, 0, &attr)
}

/// mount_setattr(2) (Linux 5.12): sets attributes of one mount.
///
/// # Errors
/// The kernel's.
pub(crate) fn mount_set_flags(mount: BorrowedFd, set: u64) -> io::Result<()> {
    let attr = libc::mount_attr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    mount_setattr(mount, 0, &attr)
}

/// mount_setattr(2) (Linux 5.12): clears attributes of one mount.
///
/// # Errors
/// The kernel's.
pub(crate) fn mount_clear_flags(mount: BorrowedFd, clear: u64) -> io::Result<()> {
    let attr = libc::mount_attr { attr_set: 0, attr_clr: clear, propagation: 0, userns_fd: 0 };
    mount_setattr(mount, 0, &attr)
}

/// Makes every mount below the root private, so that nothing done here reaches the host and nothing of the host comes in.
///
/// # Errors
/// The kernel's.
pub(crate) fn make_all_private() -> io::Result<()> {
    propagate(root()?.as_fd(), libc::MS_PRIVATE)
}

/// Makes every mount below the root shared: a mount namespace made from this one gets what is mounted here later.
///
/// # Errors
/// The kernel's.
pub(crate) fn make_all_shared() -> io::Result<()> {
    propagate(root()?.as_fd(), libc::MS_SHARED)
}

/// Makes a mount and every mount below it private.
///
/// # Errors
/// The kernel's.
pub(crate) fn make_private(mount: BorrowedFd) -> io::Result<()> {
    propagate(mount, libc::MS_PRIVATE)
}

fn root() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/", rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty())?)
}

fn propagate(mount: BorrowedFd, propagation: u64) -> io::Result<()> {
    let attr = libc::mount_attr { attr_set: 0, attr_clr: 0, propagation, userns_fd: 0 };
    mount_setattr(mount, libc::AT_RECURSIVE, &attr)
}

fn mount_setattr(mount: BorrowedFd, flags: i32, attr: &libc::mount_attr) -> io::Result<()> {
    // SAFETY: an empty C string, and a mount_attr of the size given, both outliving the call.
    let r = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | flags,
            std::ptr::from_ref(attr),
            size_of::<libc::mount_attr>(),
        )
    };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Marks every descriptor above standard error close-on-exec (close_range(2), Linux 5.11): whatever was inherited, nothing of the host's
/// goes along into a container.
///
/// # Errors
/// The kernel's.
pub(crate) fn cloexec_all_above_stderr() -> io::Result<()> {
    // SAFETY: touches descriptor flags only; no descriptor is closed, so no owner is left with a dangling one.
    let r = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Closes every descriptor above standard error but one, for a process that is about to become a program of a container.
///
/// Close-on-exec is not enough there: the kernel closes such descriptors *after* it has given the process its new memory, which belongs to the
/// container's user namespace, and in between the container's root may look at them in `/proc/PID/fd` (begin_new_exec, fs/exec.c).
///
/// What has been closed still has owners in this process; they must only be dropped by its end. Writing to one fails with EBADF.
///
/// # Errors
/// The kernel's.
pub(crate) fn close_above_stderr_but(keep: Option<BorrowedFd>) -> io::Result<()> {
    let keep = keep.map(|fd| fd.as_raw_fd().unsigned_abs()).filter(|fd| *fd > 2);
    let ranges = match keep {
        None => vec![(3, u32::MAX)],
        Some(fd) => vec![(3, fd - 1), (fd + 1, u32::MAX)],
    };
    for (first, last) in ranges.into_iter().filter(|(first, last)| first <= last) {
        // SAFETY: the owners of what is closed here are neither used nor dropped any more, whatever is opened under their numbers afterwards: the
        // process becomes another program, or ends by `exit_now`.
        if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Closes every descriptor, the standard ones included (close_range(2), Linux 5.9): for a process that only waits for its end.
pub(crate) fn close_all() {
    // SAFETY: called where the process uses no descriptor any more and runs no destructor (it waits to be killed).
    unsafe { libc::syscall(libc::SYS_close_range, 0u32, u32::MAX, 0) };
}

/// Closes the descriptors above standard error that came with the process from whoever ran the command: ours are all close-on-exec, so
/// those without the flag are not ours. For a process that outlives the command: a lock or a pipe of the caller's must not.
///
/// # Errors
/// `/proc/self/fd` can't be read.
pub(crate) fn close_inherited() -> io::Result<()> {
    for fd in descriptors()?.into_iter().filter(|&fd| fd > libc::STDERR_FILENO) {
        // SAFETY: F_GETFD reads a flag.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } == 0 {
            // SAFETY: without FD_CLOEXEC, so no object of this program owns it.
            unsafe { libc::close(fd) };
        }
    }
    Ok(())
}

/// The numbers of all open descriptors.
///
/// # Errors
/// `/proc/self/fd` can't be read.
pub(crate) fn descriptors() -> io::Result<Vec<RawFd>> {
    let names = std::fs::read_dir("/proc/self/fd")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let all: Vec<RawFd> = names.collect();
    // That of the directory just read is closed by now.
    // SAFETY: F_GETFD reads a flag.
    Ok(all.into_iter().filter(|&fd| unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0).collect())
}

/// Descriptors at which system calls of containers ask (seccomp listeners). Of those a process that shared our table has left, the kernel
/// gives no second.
///
/// # Errors
/// `/proc/self/fd` can't be read.
pub(crate) fn listeners() -> io::Result<Vec<RawFd>> {
    let is_listener = |fd: &RawFd| {
        let link = std::fs::read_link(format!("/proc/self/fd/{fd}"));
        link.is_ok_and(|link| link.as_os_str() == "anon_inode:seccomp notify")
    };
    Ok(descriptors()?.into_iter().filter(is_listener).collect())
}

/// Connections that were accepted at a socket of this name.
///
/// # Errors
/// `/proc/self/fd` can't be read.
fn accepted_at(name: &str) -> io::Result<Vec<RawFd>> {
    use rustix::net::{SocketAddrUnix, getsockname, sockopt::socket_acceptconn};
    let is_one = |fd: &RawFd| {
        // SAFETY: open a moment ago, and this process, which has one thread, closes nothing meanwhile.
        let fd = unsafe { BorrowedFd::borrow_raw(*fd) };
        let address = getsockname(fd).ok().and_then(|address| SocketAddrUnix::try_from(address).ok());
        let path = address.as_ref().and_then(SocketAddrUnix::path_bytes);
        path.is_some_and(|path| path.ends_with(name.as_bytes())) && socket_acceptconn(fd) == Ok(false)
    };
    Ok(descriptors()?.into_iter().filter(is_one).collect())
}

/// What a process that served, and shared our table, has left in it: the listeners, and those who have come in at the socket `door`.
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) listeners: Vec<OwnedFd>,
    pub(crate) visits: Vec<OwnedFd>,
}

/// Takes up what is left, for the one process that serves.
///
/// # Errors
/// `/proc/self/fd` can't be read.
pub(crate) fn take_what_is_left(door: &str) -> io::Result<Left> {
    // SAFETY: they are in the table for whoever serves, and nobody else has an object for one.
    let take = |fds: Vec<RawFd>| fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect();
    Ok(Left { listeners: take(listeners()?), visits: take(accepted_at(door)?) })
}

/// Lets descriptors be there after execve(2).
///
/// # Errors
/// One of them is not open.
pub(crate) fn keep_over_exec(fds: &[RawFd]) -> io::Result<()> {
    fds.iter().try_for_each(|&fd| set_descriptor_flags(fd, 0))
}

/// Takes up a descriptor that came with the process, by the number its former program gave; it is close-on-exec from now on.
///
/// # Errors
/// It is not open.
pub(crate) fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    set_descriptor_flags(fd, libc::FD_CLOEXEC)?;
    // SAFETY: open (the call before has said so), and no object of this program, which has just begun, owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn set_descriptor_flags(fd: RawFd, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: F_SETFD sets a flag.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, flags) } == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Closes what a process that shared our table has opened, and died: all descriptors but these, and what [`take_what_is_left`] takes.
///
/// # Errors
/// `/proc/self/fd` can't be read.
pub(crate) fn close_all_but(keep: &[RawFd], door: &str) -> io::Result<()> {
    let left = [listeners()?, accepted_at(door)?].concat();
    for fd in descriptors()?.into_iter().filter(|fd| !keep.contains(fd) && !left.contains(fd)) {
        // SAFETY: the caller holds no object for a descriptor that is not in `keep`.
        unsafe { libc::close(fd) };
    }
    Ok(())
}

/// Ends the process at once, running no destructor: for a forked child, whose copies of the parent's objects must not be cleaned up twice.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit never returns and runs nothing.
    unsafe { libc::_exit(code) }
}

/// Makes the terminal behind `fd` the controlling one of the calling session leader.
///
/// # Errors
/// The kernel's.
pub(crate) fn set_controlling_terminal(fd: BorrowedFd) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes an integer; no memory is touched.
    let r = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSCTTY, 0) };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Hangs up the terminal behind `fd`: every descriptor of it reads an end and writes EIO from now on, and the session that it controls gets
/// SIGHUP. Takes CAP_SYS_ADMIN of the host.
///
/// # Errors
/// The kernel's.
pub(crate) fn hang_up(fd: BorrowedFd) -> io::Result<()> {
    // SAFETY: TIOCVHANGUP has no argument; no memory is touched.
    let r = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCVHANGUP) };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets every signal back to its default and unblocks all: a program inside must not inherit what the command line chose for itself.
///
/// # Errors
/// The kernel's, from sigprocmask.
pub(crate) fn reset_signals() -> io::Result<()> {
    for n in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL installs no handler. The refusals for KILL, STOP and libc's own signals are harmless.
        unsafe { libc::signal(n, libc::SIG_DFL) };
    }
    nix::sys::signal::SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// Sends real-time signal SIGRTMIN+`offset` to the process behind a pidfd: signals that have no name in rustix.
///
/// # Errors
/// The kernel's.
pub(crate) fn send_realtime(pidfd: impl std::os::fd::AsFd, offset: i32) -> io::Result<()> {
    send_number(pidfd, libc::SIGRTMIN() + offset)
}

/// Sends a signal by its number to the process behind a pidfd.
///
/// # Errors
/// The kernel's.
pub(crate) fn send_number(pidfd: impl std::os::fd::AsFd, signal: i32) -> io::Result<()> {
    // SAFETY: a null siginfo is allowed (pidfd_send_signal(2)); no other pointer.
    let r = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes the container's own session keyring in place of the one inherited, which holds the keys of whoever ran the command: who has a
/// keyring as its session's has every key in it, whatever their owner.
///
/// All of a container's commands share one, by its name, for every keyring counts against the 200 keys of its user.
///
/// # Errors
/// The kernel's: `EDQUOT` where the container has used up its keys.
pub(crate) fn join_session_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    const SETPERM: libc::c_long = 5;
    const SESSION: libc::c_long = -3;
    // All to who possesses it; its user may view, read, search (by which the next command finds it) and link.
    const PERMISSIONS: libc::c_long = 0x3f1b_0000;
    let name = c"_ses.vz";
    // SAFETY: the name ends with NUL and lives through the call.
    let joined = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) };
    if joined < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: numbers only.
    let set = unsafe { libc::syscall(libc::SYS_keyctl, SETPERM, SESSION, PERMISSIONS) };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has the kernel bury children as they die, orphans of a pid namespace's first process included: nobody waits for them.
pub(crate) fn ignore_dead_children() {
    // SAFETY: SIG_IGN installs no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}
