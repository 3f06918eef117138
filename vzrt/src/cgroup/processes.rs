//! What is bounded for each of a container's processes by itself, while they run.

use std::io;
use std::path::PathBuf;

use beancounters::read::processes;
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::{CtCgroup, Error};

impl CtCgroup {
    /// Gives the container's processes another adjustment of their badness (proc_pid_oom_score_adj(5)); those to come inherit it. One that
    /// has an adjustment of its own choice keeps it.
    ///
    /// # Errors
    /// The list of processes can't be read, or the kernel refuses: only a root with `CAP_SYS_RESOURCE` may make a process safer than it was.
    pub fn readjust_oom_score(&self, from: i32, to: i32) -> Result<(), Error> {
        for pid in self.processes()? {
            let path = PathBuf::from(format!("/proc/{pid}/oom_score_adj"));
            let changed = std::fs::read_to_string(&path).and_then(|now| {
                if now.trim().parse() == Ok(from) { std::fs::write(&path, to.to_string()) } else { Ok(()) }
            });
            match changed {
                // It has ended meanwhile.
                Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {}
                changed => changed.map_err(|source| Error::Write { path, value: to.to_string(), source })?,
            }
        }
        Ok(())
    }

    /// Gives the container's processes another limit of locked memory, in bytes (`None`: without end); those to come inherit it. What is locked
    /// beyond it stays locked.
    ///
    /// # Errors
    /// The list of processes can't be read, or the kernel refuses: only a root with `CAP_SYS_RESOURCE` may limit other users' processes.
    pub fn limit_locked_memory(&self, bytes: Option<u64>) -> Result<(), Error> {
        let limit = || Rlimit { current: bytes, maximum: bytes };
        let as_pid = |pid: u32| i32::try_from(pid).ok().and_then(Pid::from_raw);
        for pid in self.processes()?.into_iter().filter_map(as_pid) {
            match prlimit(Some(pid), Resource::Memlock, limit()) {
                Err(Errno::SRCH) => {}
                done => drop(done.map_err(io::Error::from).map_err(Error::call("prlimit", self.cgroup2()))?),
            }
        }
        Ok(())
    }

    fn processes(&self) -> Result<std::collections::BTreeSet<u32>, Error> {
        let list = self.cgroup2().join("cgroup.procs");
        processes(self.cgroup2()).map_err(io::Error::other).map_err(Error::call("read", &list))
    }
}
