//! Freezing, killing, emptying and removing a container's cgroups.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};

use super::file;
use super::{CtCgroup, Error};

impl CtCgroup {
    /// Stops every process of the container where it is, and waits until all have stopped. They cannot notice, except by the time.
    ///
    /// # Errors
    /// [`Error::Timeout`] when one of them stays in a system call that cannot be interrupted; the container is then still freezing:
    /// call [`CtCgroup::thaw`].
    pub fn freeze(&self, timeout: Duration) -> Result<(), Error> {
        file::write(&self.unified.join("cgroup.freeze"), "1")?;
        self.wait_for("frozen 1", timeout)
    }

    /// Lets a frozen container go on.
    ///
    /// # Errors
    /// When the kernel refuses, or has not thawed it in time.
    pub fn thaw(&self, timeout: Duration) -> Result<(), Error> {
        file::write(&self.unified.join("cgroup.freeze"), "0")?;
        self.wait_for("frozen 0", timeout)
    }

    /// Sends SIGKILL to every process of the container, whatever cgroups it has made, fork bombs and frozen ones included. Returns at once:
    /// see [`CtCgroup::wait_empty`].
    ///
    /// A cgroup that was killed is of no more use: [`CtCgroup::remove`] it and create it anew. The fix of a race (kernel 6.14 and the
    /// stable kernels since February 2025, `cgroup_css_set_fork`) counts kills per cgroup, compares the count of the *parent process's* cgroup with that of
    /// the one a child is born into by `CLONE_INTO_CGROUP`, and kills the child if they differ: so each one born here from now on.
    ///
    /// # Errors
    /// When the cgroup does not exist, or processes remain that cannot be signalled.
    pub fn kill(&self) -> Result<(), Error> {
        match file::write(&self.unified.join("cgroup.kill"), "1") {
            // Kernels before 5.14 have no such file.
            Err(e) if e.errno() == Some(Errno::NOENT) && self.exists() => self.kill_each(),
            other => other,
        }
    }

    /// Frozen first, so that none forks away and no pid is used again between reading and signalling; a frozen process still dies.
    pub(super) fn kill_each(&self) -> Result<(), Error> {
        file::write(&self.unified.join("cgroup.freeze"), "1")?;
        // A task inside vfork or uninterruptible sleep is seen once it stops; what has forked before that is in the list read after.
        let waited = self.wait_for("frozen 1", Duration::from_secs(5));
        let killed = self.pids().and_then(|pids| {
            pids.into_iter().try_for_each(|pid| match rustix::process::kill_process(pid, Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => Ok(()),
                Err(e) => Err(Error::Call { call: "kill", path: self.unified.clone(), source: e.into() }),
            })
        });
        file::write(&self.unified.join("cgroup.freeze"), "0")?;
        killed.and(waited)
    }

    /// Waits until no live process is left. A zombie is not alive, so this does not depend on anyone reaping. Absent counts as empty.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub fn wait_empty(&self, timeout: Duration) -> Result<(), Error> {
        match self.wait_for("populated 0", timeout) {
            Err(e) if e.is_gone() => Ok(()),
            other => other,
        }
    }

    /// Whether a live process is left.
    ///
    /// # Errors
    /// When the cgroup cannot be read; absent counts as empty.
    pub fn is_populated(&self) -> Result<bool, Error> {
        match self.wait_for("populated 0", Duration::ZERO) {
            Err(e) if e.is_gone() => Ok(false),
            Err(Error::Timeout { .. }) => Ok(true),
            other => other.map(|()| false),
        }
    }

    /// Waits for a line of `cgroup.events`; the kernel wakes a poll on each change of that file.
    fn wait_for(&self, condition: &'static str, timeout: Duration) -> Result<(), Error> {
        let path = self.unified.join("cgroup.events");
        let mut events = File::open(&path).map_err(Error::call("open", &path))?;
        let deadline = Instant::now() + timeout;
        loop {
            let mut text = String::new();
            events.rewind().and_then(|()| events.read_to_string(&mut text)).map_err(Error::call("read", &path))?;
            if text.lines().any(|line| line == condition) {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Timeout { path, condition, after: timeout });
            }
            let left = Timespec::try_from(left).ok();
            match rustix::event::poll(&mut [PollFd::new(&events, PollFlags::PRI)], left.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(Error::call("poll", &path)(e)),
            }
        }
    }

    /// The container's processes as the host numbers them, in no order. Those that begin or end meanwhile may or may not be among them.
    ///
    /// # Errors
    /// When the cgroup does not exist or cannot be read.
    pub fn pids(&self) -> Result<Vec<Pid>, Error> {
        let mut pids = Vec::new();
        collect(&self.unified, &mut pids)?;
        pids.sort_unstable_by_key(|pid| pid.as_raw_nonzero());
        pids.dedup();
        Ok(pids)
    }

    /// Removes the container's cgroups from all hierarchies with whatever it made inside, cgroup2 last. Fine when some or all are gone.
    ///
    /// Waits up to `timeout` for processes that are on their way out; live ones make it fail, see [`CtCgroup::kill`].
    ///
    /// # Errors
    /// EBUSY when processes remain.
    pub fn remove(&self, timeout: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + timeout;
        self.wait_empty(timeout)?;
        for dir in self.v1_dirs() {
            remove_tree(&dir, deadline.saturating_duration_since(Instant::now()))?;
        }
        remove_tree(&self.unified, deadline.saturating_duration_since(Instant::now()))
    }
}

/// Adds the processes of a cgroup and of those below. Below the first, a cgroup may vanish at any time: that is no error.
fn collect(dir: &Path, pids: &mut Vec<Pid>) -> Result<(), Error> {
    let procs = match file::read(&dir.join("cgroup.procs")) {
        // A threaded cgroup lists threads only; any of them stands for its process.
        Err(e) if e.errno() == Some(Errno::OPNOTSUPP) => file::read(&dir.join("cgroup.threads"))?,
        other => other?,
    };
    pids.extend(procs.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)));
    for child in file::children(dir)? {
        match collect(&child, pids) {
            Err(e) if e.is_gone() => {}
            other => other?,
        }
    }
    Ok(())
}

/// rmdir of a cgroup and all below it, retried until `patience` is over while the kernel says EBUSY (exiting processes; on v1 there is
/// no event to wait for). Descriptors all the way: a link or a rename in the tree leads nowhere.
pub(super) fn remove_tree(dir: &Path, patience: Duration) -> Result<(), Error> {
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Err(Error::call("rmdir", dir)(Errno::INVAL));
    };
    let parent = match rustix::fs::openat(CWD, parent, DIR_FLAGS, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other.map_err(Error::call("open", parent))?,
    };
    let deadline = Instant::now() + patience;
    let mut pause = Duration::from_micros(200);
    loop {
        match remove_at(&parent, Path::new(name)) {
            Ok(()) => return Ok(()),
            Err(Errno::BUSY) if Instant::now() < deadline => {}
            Err(e) => return Err(Error::call("rmdir", dir)(e)),
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

const DIR_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Depth is bounded by `cgroup.max.depth`, so recursion is too.
fn remove_at(parent: &OwnedFd, name: &Path) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::BUSY) => {}
        Err(e) => return Err(e),
    }
    let dir = match rustix::fs::openat(parent, name, DIR_FLAGS, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    for entry in Dir::read_from(dir.as_fd())? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type() == FileType::Directory && name != c"." && name != c".." {
            use std::os::unix::ffi::OsStrExt as _;
            remove_at(&dir, Path::new(std::ffi::OsStr::from_bytes(name.to_bytes())))?;
        }
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}
