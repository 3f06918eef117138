//! What is bounded for each of a container's processes by itself, while they run.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use beancounters::read::processes;
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::{CtCgroup, Error};

impl CtCgroup {
    /// Gives the container's processes another adjustment of their badness (proc_pid_oom_score_adj(5)); those to come inherit it. One that
    /// has made itself more likely to be killed than that keeps its choice. The adjustment there was is that of `init`, the first process.
    ///
    /// # Errors
    /// The list of processes can't be read, or the kernel refuses: only a root with `CAP_SYS_RESOURCE` may make a process safer than it was.
    pub fn readjust_oom_score(&self, init: i32, to: i32) -> Result<(), Error> {
        let Some(from) = oom_score_adj(u32::try_from(init).unwrap_or(0))? else { return Ok(()) };
        let mut seen = BTreeSet::new();
        // Once more for those that were forked meanwhile by one that had not got it yet.
        for _ in 0..2 {
            for pid in self.processes()?.into_iter().filter(|pid| seen.insert(*pid)) {
                match oom_score_adj(pid)? {
                    Some(now) if now != to && (now == from || now < to) => set_oom_score_adj(pid, to)?,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// How many bytes of memory and swap the largest of the container's processes has, as the kernel's killer counts: what it shares is its own.
    ///
    /// # Errors
    /// The list of processes or one of them can't be read.
    pub(crate) fn largest_process(&self) -> Result<u64, Error> {
        let mut largest = 0;
        for pid in self.processes()? {
            let path = PathBuf::from(format!("/proc/{pid}/status"));
            if let Some(status) = of_process(&path)? {
                largest = largest.max(size_bytes(&status));
            }
        }
        Ok(largest)
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

    fn processes(&self) -> Result<BTreeSet<u32>, Error> {
        let list = self.cgroup2().join("cgroup.procs");
        processes(self.cgroup2()).map_err(io::Error::other).map_err(Error::call("read", &list))
    }
}

/// A file of `/proc/PID`; `None`: the process has ended.
fn of_process(path: &Path) -> Result<Option<String>, Error> {
    // Bytes: a process is called what it likes.
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(e) if has_ended(&e) => Ok(None),
        Err(e) => Err(Error::call("read", path)(e)),
    }
}

fn has_ended(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

fn oom_score_adj(pid: u32) -> Result<Option<i32>, Error> {
    let text = of_process(&PathBuf::from(format!("/proc/{pid}/oom_score_adj")))?;
    Ok(text.and_then(|text| text.trim().parse().ok()))
}

fn set_oom_score_adj(pid: u32, to: i32) -> Result<(), Error> {
    let path = PathBuf::from(format!("/proc/{pid}/oom_score_adj"));
    match std::fs::write(&path, to.to_string()) {
        Err(source) if !has_ended(&source) => Err(Error::Write { path, value: to.to_string(), source }),
        _ => Ok(()),
    }
}

/// `VmRSS`, `VmSwap` and `VmPTE` of proc_pid_status(5).
fn size_bytes(status: &str) -> u64 {
    let of_memory = |line: &str| {
        let (key, value) = line.split_once(':')?;
        let kib = value.split_ascii_whitespace().next()?.parse::<u64>().ok()?;
        ["VmRSS", "VmSwap", "VmPTE"].contains(&key).then_some(kib.saturating_mul(1024))
    };
    status.lines().filter_map(of_memory).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::size_bytes;

    #[test]
    fn a_process_is_as_large_as_what_it_has_in_memory_and_swap_and_their_page_tables() {
        let status = "Name:\tVmRSS: 5 kB\nVmSize:\t  900 kB\nVmRSS:\t  100 kB\nRssAnon:\t  60 kB\nVmPTE:\t 4 kB\nVmSwap:\t  20 kB\n";
        assert_eq!(size_bytes(status), 124 << 10);
        assert_eq!(size_bytes("State:\tZ (zombie)\n"), 0);
    }
}
