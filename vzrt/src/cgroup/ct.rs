//! The cgroups of one container: making them, and where they are.

use std::fs;
use std::io;
use std::os::unix::fs::lchown;
use std::path::{Path, PathBuf};
use std::time::Duration;

use beancounters::read::{CgroupVersion, Sources};
use rustix::io::Errno;

use super::file;
use super::{Controller, Error, Host, Place, Unsupported, What, Why};

/// What the container's root gets of its own cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delegation {
    /// The container's root, as the host numbers users.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// How many cgroups it may make. A cgroup costs the host tens of KiB, dying ones included.
    pub max_descendants: u32,
    /// How deep. Every hook that walks towards the root pays for depth.
    pub max_depth: u32,
}

impl Delegation {
    /// To this user, with room for a large systemd (a busy server has 100 to 300 cgroups, 5 deep).
    #[must_use]
    pub fn to(uid: u32, gid: u32) -> Self {
        Self { uid, gid, max_descendants: 2048, max_depth: 24 }
    }
}

/// Of `/sys/kernel/cgroup/delegate` only what moves processes and structures the tree. `memory.oom.group` (kill the container as one on
/// its own limit) stays the provider's decision, and `memory.reclaim` would let the container make the host work. The limits beside them
/// belong to host root, which is the whole wall between the container and its own limits.
const DELEGATED: [&str; 3] = ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control"];

/// The cgroups of one container in all hierarchies in use. A handle: they need not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CtCgroup {
    pub(super) host: Host,
    pub(super) parent: String,
    leaf: String,
    pub(super) unified: PathBuf,
}

impl CtCgroup {
    pub(super) fn new(host: Host, parent: &str, leaf: &str) -> Self {
        let unified = host.unified.join(parent).join(leaf);
        Self { host, parent: parent.to_owned(), leaf: leaf.to_owned(), unified }
    }

    /// Makes the cgroup in every hierarchy, without limits, delegated. Parents are made on demand and stay.
    ///
    /// Of what is not ours only `cgroup.subtree_control` of the cgroup2 root is touched, and only to add controllers. (systemd cannot take
    /// them away again: the kernel refuses while our parent hands them on.)
    ///
    /// Returns the controllers that could not be enabled, which is not fatal.
    ///
    /// # Errors
    /// [`Error::Exists`] when any of it exists. On any error nothing made here is left.
    pub fn create(&self, to: &Delegation) -> Result<Vec<Unsupported>, Error> {
        for top in self.tops() {
            file::ensure_dir(&top.join(&self.parent))?;
        }
        let unsupported = self.enable_controllers()?;
        let mut made: Vec<PathBuf> = Vec::new();
        // cgroup2 first: that directory is the claim on the container, and the last to go.
        let done = self.dirs().try_for_each(|dir| create_dir(&dir).map(|()| made.push(dir)));
        match done.and_then(|()| self.fill_cpuset()).and_then(|()| self.delegate(to)) {
            Ok(()) => Ok(unsupported),
            Err(first) => Err(undo(first, &made)),
        }
    }

    /// Makes the cgroup in every hierarchy where it is not, without limits and of nobody but the host's root. The cgroup2 directory comes last:
    /// where that is, all are.
    pub(super) fn ensure(&self) -> Result<(), Error> {
        for top in self.tops() {
            file::ensure_dir(&top.join(&self.parent))?;
        }
        self.v1_dirs().try_for_each(|dir| file::ensure_dir(&dir))?;
        self.fill_cpuset()?;
        file::ensure_dir(&self.unified)
    }

    /// Whether the container has a cgroup2 directory, which is the first thing made and the last removed.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.unified.is_dir()
    }

    /// The container's directories, cgroup2 first.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.dirs().collect()
    }

    /// Where its beancounters are counted; those of its network and terminals only once `init` has been put in.
    #[must_use]
    pub fn sources(&self) -> Sources {
        let (memory, pids) = (self.place(Controller::Memory), self.place(Controller::Pids));
        // The files of pids are the same in both versions, so memory's is the one that matters.
        let v2 = memory.as_ref().or(pids.as_ref()).is_none_or(|place| place.v2);
        let version = if v2 { CgroupVersion::V2 } else { CgroupVersion::V1 };
        let processes = Some(self.unified.clone());
        Sources {
            memory: memory.map(|p| p.dir),
            pids: pids.map(|p| p.dir),
            version,
            processes,
            init: None,
            peaks: None,
        }
    }

    /// The container's cgroup2 directory, where BPF programs are attached.
    #[must_use]
    pub fn cgroup2(&self) -> &Path {
        &self.unified
    }

    /// The container's directory for one controller, and what its files are called. `None` on a host without that controller.
    #[must_use]
    pub fn place(&self, controller: Controller) -> Option<Place> {
        self.host.top(controller).map(|top| Place { dir: self.below(&top.dir), v2: top.v2 })
    }

    /// Its directories in v1 hierarchies.
    pub(super) fn v1_dirs(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.host.v1.iter().map(|h| self.below(&h.top))
    }

    fn below(&self, top: &Path) -> PathBuf {
        top.join(&self.parent).join(&self.leaf)
    }

    fn tops(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.host.unified).chain(self.host.v1.iter().map(|h| &h.top))
    }

    fn dirs(&self) -> impl Iterator<Item = PathBuf> + '_ {
        std::iter::once(self.unified.clone()).chain(self.v1_dirs())
    }

    /// A v1 cpuset is born without CPUs and memory nodes, and refuses tasks (ENOSPC) until it has both: the container starts with all of
    /// the host's. The parent is given them anew each time: CPUs plugged in since do not come by themselves.
    fn fill_cpuset(&self) -> Result<(), Error> {
        let Some(top) = self.host.top(Controller::Cpuset).filter(|p| !p.v2) else { return Ok(()) };
        for which in ["cpus", "mems"] {
            let all = file::read(&top.dir.join(format!("cpuset.effective_{which}")))?;
            for dir in [top.dir.join(&self.parent), self.below(&top.dir)] {
                file::write(&dir.join(format!("cpuset.{which}")), all.trim_end())?;
            }
        }
        Ok(())
    }

    /// Hands the cgroup2 controllers down to the container's directory. One write each: the kernel takes a list as a whole or not at all.
    fn enable_controllers(&self) -> Result<Vec<Unsupported>, Error> {
        let mut wanted = self.host.unified_controllers.clone();
        let mut unsupported = Vec::new();
        for dir in [self.host.unified.clone(), self.host.unified.join(&self.parent)] {
            if wanted.is_empty() {
                break;
            }
            let path = dir.join("cgroup.subtree_control");
            let enabled = file::read(&path)?;
            wanted.retain(|&controller| match enable(&path, &enabled, controller) {
                Ok(()) => true,
                Err(errno) => {
                    unsupported.push(Unsupported { what: What::Controller(controller), why: Why::Refused(errno) });
                    false
                }
            });
        }
        Ok(unsupported)
    }

    /// Bounds first, then ownership: from then on the container could make cgroups.
    fn delegate(&self, to: &Delegation) -> Result<(), Error> {
        file::write(&self.unified.join("cgroup.max.descendants"), &to.max_descendants.to_string())?;
        file::write(&self.unified.join("cgroup.max.depth"), &to.max_depth.to_string())?;
        let own = |path: &Path| lchown(path, Some(to.uid), Some(to.gid)).map_err(Error::call("lchown", path));
        for name in DELEGATED {
            own(&self.unified.join(name))?;
        }
        own(&self.unified)
    }
}

fn enable(path: &Path, enabled: &str, controller: Controller) -> Result<(), Errno> {
    match controller.v2_name() {
        Some(name) if !enabled.split_whitespace().any(|e| e == name) => {
            file::write(path, &format!("+{name}")).map_err(|e| e.errno().unwrap_or(Errno::IO))
        }
        _ => Ok(()),
    }
}

fn create_dir(dir: &Path) -> Result<(), Error> {
    match fs::create_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(Error::Exists { path: dir.to_owned() }),
        other => other.map_err(Error::call("mkdir", dir)),
    }
}

/// Removes what a failed creation had made: no task can be in it yet.
fn undo(first: Error, made: &[PathBuf]) -> Error {
    match made.iter().rev().try_for_each(|dir| super::life::remove_tree(dir, Duration::ZERO)) {
        Ok(()) => first,
        Err(undo) => Error::Undo { first: Box::new(first), undo: Box::new(undo) },
    }
}
