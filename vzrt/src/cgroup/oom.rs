//! Which of a container's processes are killed when the whole host is out of memory.

use std::io;
use std::path::PathBuf;

use beancounters::read::processes;

use super::{CtCgroup, Error};

impl CtCgroup {
    /// Gives the container's processes another adjustment of their badness (proc_pid_oom_score_adj(5)); those to come inherit it. One that
    /// has an adjustment of its own choice keeps it.
    ///
    /// # Errors
    /// The list of processes can't be read, or the kernel refuses: only a root with `CAP_SYS_RESOURCE` may make a process safer than it was.
    pub fn readjust_oom_score(&self, from: i32, to: i32) -> Result<(), Error> {
        let list = self.cgroup2().join("cgroup.procs");
        let pids = processes(self.cgroup2()).map_err(io::Error::other).map_err(Error::call("read", &list))?;
        for pid in pids {
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
}
