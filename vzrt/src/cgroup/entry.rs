//! How a process gets into a container's cgroups.
//!
//! Writing a pid into a v1 `cgroup.procs` takes `cgroup_threadgroup_rwsem` for writing, which waits for an RCU grace period: about 15 ms,
//! for each hierarchy. Two ways do without: being born in a cgroup2 directory (`clone3` with `CLONE_INTO_CGROUP`, kernel 5.7), and, on v1,
//! a thread that writes `0` to `tasks`: moving only itself, it needs no lock over its thread group (`cgroup_procs_write_start`), and takes
//! 10 µs. The kernel checks the rights of whoever *opened* the file, so the host's root opens and the child, whatever it has become,
//! writes.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::file;
use super::{CtCgroup, Error};

/// Open files that lead into a container's cgroups; all close on exec.
///
/// Use: `clone3` with `CLONE_INTO_CGROUP` and [`Entry::cgroup2`], with `CAP_DAC_OVERRIDE` in effect (the kernel checks the caller's right to
/// write `cgroup.procs` of the common ancestor), then [`Entry::enter_self`] as the child's first act, as whatever user.
#[derive(Debug)]
#[must_use]
pub struct Entry {
    dir: OwnedFd,
    tasks: Vec<OwnedFd>,
}

/// The child could not enter one of the v1 hierarchies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write(tasks of v1 hierarchy {hierarchy}, \"0\")")]
pub struct EnterError {
    /// Which, counted as in [`CtCgroup::paths`] after the cgroup2 directory.
    pub hierarchy: usize,
    /// Why. ENOSPC: a cpuset without CPUs or memory nodes; EAGAIN never (pids counts moved tasks beyond its limit).
    #[source]
    pub errno: Errno,
}

impl Entry {
    /// The directory for `clone3`'s `cgroup` field (`O_PATH`).
    #[must_use]
    pub fn cgroup2(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Moves the calling **thread** into the v1 hierarchies; call it in the child, while that has one thread. Only write(2): no memory is
    /// allocated and no lock taken, so it is safe right after a fork or clone. Does nothing on a unified host.
    ///
    /// # Errors
    /// The first hierarchy that refuses.
    pub fn enter_self(&self) -> Result<(), EnterError> {
        for (hierarchy, tasks) in self.tasks.iter().enumerate() {
            rustix::io::write(tasks, b"0").map_err(|errno| EnterError { hierarchy, errno })?;
        }
        Ok(())
    }
}

/// The names tried for the directory of exec'd processes.
const EXEC_LEAVES: [&str; 4] = ["vz.exec", "vz.exec1", "vz.exec2", "vz.exec3"];

impl CtCgroup {
    /// The way in for the container's init: into the directory that is to be its cgroup namespace's root, which is where systemd wants to
    /// find itself (it then moves to a leaf of its own and enables controllers).
    ///
    /// # Errors
    /// When the cgroup does not exist.
    pub fn entry(&self) -> Result<Entry, Error> {
        Ok(Entry { dir: open_dir(&self.unified)?, tasks: self.open_tasks()? })
    }

    /// The way in for a process started in a running container (`exec`, `enter`): a leaf below the container's root, under the same limits
    /// and inside its cgroup namespace.
    ///
    /// The root itself will not do on cgroup2: once the container's systemd has enabled controllers the kernel refuses processes there
    /// (EBUSY), and a process sitting there earlier would make systemd's own enabling fail. The leaf and its files belong to *host* root,
    /// so the container cannot freeze it or set its limits to trap the next exec. It can rmdir it when empty (then it is made anew) and
    /// move processes out into its own tree, as logind does.
    ///
    /// When `clone3` fails with ENODEV the container removed the leaf in between: ask again.
    ///
    /// # Errors
    /// When the cgroup does not exist, or the container has taken all names of leaves for itself.
    pub fn exec_entry(&self) -> Result<Entry, Error> {
        let mut taken = self.unified.clone();
        for name in EXEC_LEAVES {
            taken = self.unified.join(name);
            self.make_leaf(&taken)?;
            let dir = open_dir(&taken)?;
            let stat = rustix::fs::fstat(&dir).map_err(Error::call("fstat", &taken))?;
            // The container cannot give a directory of its own to a user outside its user namespace.
            if stat.st_uid != rustix::process::geteuid().as_raw() {
                continue;
            }
            // With threaded cgroups beside it the leaf is invalid; then the root is a thread root, which takes processes.
            let kind = file::read(&taken.join("cgroup.type"))?;
            let dir = if kind.trim_end() == "domain" { dir } else { open_dir(&self.unified)? };
            return Ok(Entry { dir, tasks: self.open_tasks()? });
        }
        Err(Error::Exists { path: taken })
    }

    /// mkdir of a leaf, also when the container has used up the number of cgroups it may have: that number is lifted for the moment, not
    /// for good, so it cannot be ratcheted up.
    fn make_leaf(&self, leaf: &Path) -> Result<(), Error> {
        match file::ensure_dir(leaf) {
            Err(e) if e.errno() == Some(Errno::AGAIN) => {
                let bound = self.unified.join("cgroup.max.descendants");
                let usual = file::read(&bound)?;
                file::write(&bound, "max")?;
                let made = file::ensure_dir(leaf);
                file::write(&bound, usual.trim_end())?;
                made
            }
            other => other,
        }
    }

    fn open_tasks(&self) -> Result<Vec<OwnedFd>, Error> {
        let open = |path: &Path| -> io::Result<OwnedFd> { Ok(OpenOptions::new().write(true).open(path)?.into()) };
        self.v1_dirs()
            .map(|dir| dir.join("tasks"))
            .map(|path| open(&path).map_err(Error::call("open", &path)))
            .collect()
    }
}

pub(super) fn open_dir(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(Error::call("open", path))
}
