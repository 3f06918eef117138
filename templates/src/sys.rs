//! The system calls that no safe wrapper covers.
#![expect(unsafe_code, reason = "fork(2), _exit(2), close_range(2) and mount_setattr(2) have no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::unistd::{ForkResult, Pid};

/// What stopped a fork.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    /// A forked child of a threaded process may find any lock (the allocator's for one) held for ever.
    #[error(
        "this process has {threads} threads; templates are unpacked in a forked child, which needs a process with one"
    )]
    Threaded {
        /// As counted by `/proc/self/status`.
        threads: u32,
    },
    /// `/proc/self/status` could not be read or had no `Threads:` line.
    #[error("read /proc/self/status")]
    Status(#[source] io::Error),
    /// The call itself.
    #[error("fork()")]
    Fork(#[source] nix::Error),
}

/// `fork(2)` of a process that has exactly one thread; anything else is refused.
pub(crate) fn fork_single_threaded() -> Result<ForkResult, ForkError> {
    let threads = threads().map_err(ForkError::Status)?;
    if threads != 1 {
        return Err(ForkError::Threaded { threads });
    }
    // SAFETY: there is one thread, as just counted, so no lock can be held by a thread that the child does not have.
    unsafe { nix::unistd::fork() }.map_err(ForkError::Fork)
}

fn threads() -> io::Result<u32> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("Threads:"));
    line.and_then(|n| n.trim().parse().ok()).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Leaves a forked child without running the parent's exit handlers or flushing its buffers a second time.
pub(crate) fn exit_child(code: i32) -> ! {
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Closes every descriptor from `first` on. Only for a forked child that will touch none of them again, not even by
/// dropping their owners: it leaves by [`exit_child`].
pub(crate) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: closes descriptors and touches no memory; the caller is a child that never uses their owners again.
    match unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes the detached mount `mount` show ids through `userns`, and free of setuid, device files and executables
/// (`mount_setattr(2)`, Linux 5.12).
pub(crate) fn idmap(mount: &OwnedFd, userns: &OwnedFd) -> io::Result<()> {
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP
            | libc::MOUNT_ATTR_NOSUID
            | libc::MOUNT_ATTR_NODEV
            | libc::MOUNT_ATTR_NOEXEC
            | libc::MOUNT_ATTR_NOSYMFOLLOW,
        attr_clr: 0,
        // The copy of a mount is its peer, and a host that runs systemd shares all its mounts: pivot_root(2) refuses a shared new root.
        propagation: libc::MS_PRIVATE,
        userns_fd: userns.as_raw_fd() as u64,
    };
    // SAFETY: `attr` is a live mount_attr of the size given, and the path is a NUL-terminated constant.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A forked child: killed and reaped when dropped, unless it was reaped before.
pub(crate) struct Child {
    pid: Option<Pid>,
}

impl Child {
    pub(crate) fn new(pid: Pid) -> Self {
        Self { pid: Some(pid) }
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> nix::Result<nix::sys::wait::WaitStatus> {
        let pid = self.pid.take().expect("wait() consumes the child, so the pid is still there");
        wait_for(pid)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(pid) = self.pid.take() {
            // An unreaped child keeps its pid, so this cannot hit another process; it may already be a zombie.
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            let _ = wait_for(pid);
        }
    }
}

fn wait_for(pid: Pid) -> nix::Result<nix::sys::wait::WaitStatus> {
    loop {
        match nix::sys::wait::waitpid(pid, None) {
            Err(nix::Error::EINTR) => {}
            done => return done,
        }
    }
}
