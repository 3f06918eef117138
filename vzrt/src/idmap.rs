//! A user namespace that exists only as a mapping, for idmapped mounts.

use std::os::fd::OwnedFd;

use nix::sys::wait::waitpid;
use rustix::process::{Signal, pidfd_send_signal};

use crate::error::{Call, Failed};
use crate::plan::IdRange;
use crate::sys;

/// Writes the id maps of a process that has just made its user namespace. Called by the host's root: that is what allows a range of more
/// than one id, and groups to be set inside.
///
/// # Errors
/// The failed write; `EPERM` where a map was written already.
pub fn write_maps(pid: i32, ids: IdRange) -> Result<(), Failed> {
    for (file, base) in [("uid_map", ids.uid), ("gid_map", ids.gid)] {
        let (path, line) = (format!("/proc/{pid}/{file}"), format!("0 {base} {}\n", ids.count));
        std::fs::write(&path, &line).call(|| format!("write({path}, \"{}\")", line.trim()))?;
    }
    Ok(())
}

/// A handle on a user namespace with this mapping and no process in it.
///
/// # Errors
/// The failed call.
pub fn mapping(ids: IdRange) -> Result<OwnedFd, Failed> {
    let parent = nix::unistd::getpid();
    let Some(child) = sys::clone3(&sys::Clone { namespaces: libc::CLONE_NEWUSER as u64, ..sys::Clone::default() })
        .call(|| "clone3(CLONE_NEWUSER)")?
    else {
        // The namespace lives as long as someone does in it or a handle on it is open; this process waits to be killed. With the command that
        // was killed before it could do so it goes too, and it keeps nothing of it: a lock it had would be held for ever.
        sys::close_all();
        let dies_with_it = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
        if dies_with_it.is_err() || nix::unistd::getppid() != parent {
            sys::exit_now(1);
        }
        loop {
            nix::unistd::pause();
        }
    };
    let made = write_maps(child.pid.as_raw(), ids).and_then(|()| {
        let path = format!("/proc/{}/ns/user", child.pid);
        std::fs::File::open(&path).map(OwnedFd::from).call(|| format!("open({path})"))
    });
    pidfd_send_signal(&child.pidfd, Signal::KILL).call(|| "pidfd_send_signal(KILL)")?;
    waitpid(child.pid, None).call(|| "waitpid")?;
    made
}
