//! Where this host has its cgroups.

use std::fmt;
use std::path::{Path, PathBuf};

use procfs::FromBufRead;
use procfs::process::{MountInfo, MountInfos};

use super::file;
use super::{CtCgroup, Entry, Error};
use crate::Ctid;

/// The controllers a container needs. Devices are filtered by BPF and freezing is `cgroup.freeze`, both on the cgroup2 tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Controller {
    /// Weight and bandwidth.
    Cpu,
    /// CPU time per CPU; exists on v1 only (v2 counts in `cpu.stat` without a controller).
    Cpuacct,
    /// CPUs and memory nodes.
    Cpuset,
    /// Memory and swap.
    Memory,
    /// Number of tasks.
    Pids,
    /// Block I/O, `blkio` on v1.
    Io,
}

impl Controller {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Cpu, Self::Cpuacct, Self::Cpuset, Self::Memory, Self::Pids, Self::Io];

    /// The name among the mount options of v1.
    pub(super) fn v1_name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Cpuset => "cpuset",
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Io => "blkio",
        }
    }

    /// The name in `cgroup.controllers`.
    pub(super) fn v2_name(self) -> Option<&'static str> {
        match self {
            Self::Cpu => Some("cpu"),
            Self::Cpuacct => None,
            Self::Cpuset => Some("cpuset"),
            Self::Memory => Some("memory"),
            Self::Pids => Some("pids"),
            Self::Io => Some("io"),
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.v2_name().unwrap_or("cpuacct"))
    }
}

/// The directory in which a controller's files of one container are, and which version's files they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The directory.
    pub dir: PathBuf,
    /// Whether the files are cgroup v2's.
    pub v2: bool,
}

/// One mounted v1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) top: PathBuf,
    /// Empty for systemd's own (`name=systemd`). A container enters that one too: left in the session or the service of whoever started
    /// it, it would be killed with that.
    pub(super) controllers: Vec<Controller>,
}

/// The cgroup file systems of this host, found once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub(super) unified: PathBuf,
    /// What the cgroup2 tree can enable.
    pub(super) unified_controllers: Vec<Controller>,
    pub(super) v1: Vec<Hierarchy>,
}

impl Host {
    /// Finds the cgroups of the machine whose root directory is `root` (`/`; a test hands in a tree with a `proc/self/mountinfo`).
    ///
    /// On a unified host this is one statfs and one small file. Else mountinfo is read, which grows with the number of containers.
    ///
    /// # Errors
    /// When there is no cgroup2 tree, or what is needed of `/proc` and of that tree cannot be read.
    pub fn detect(root: &Path) -> Result<Self, Error> {
        let usual = root.join("sys/fs/cgroup");
        if rustix::fs::statfs(&usual).is_ok_and(|fs| fs.f_type == libc::CGROUP2_SUPER_MAGIC) {
            return Self::with(usual, Vec::new());
        }
        let path = root.join("proc/self/mountinfo");
        let mounts = parse(&file::read(&path)?).map_err(|source| Error::Mountinfo { path, source })?;
        let (unified, mut v1) = choose(&mounts).ok_or(Error::NoCgroup2)?;
        let inside = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
        for hierarchy in &mut v1 {
            hierarchy.top = inside(&hierarchy.top);
        }
        Self::with(inside(&unified), v1)
    }

    fn with(unified: PathBuf, v1: Vec<Hierarchy>) -> Result<Self, Error> {
        let listed = file::read(&unified.join("cgroup.controllers"))?;
        let unified_controllers = Controller::ALL
            .into_iter()
            .filter(|c| c.v2_name().is_some_and(|name| listed.split_whitespace().any(|l| l == name)))
            .collect();
        Ok(Self { unified, unified_controllers, v1 })
    }

    /// The cgroups of a container, which need not exist. `name` is the parent of all containers' cgroups of this installation.
    #[must_use]
    pub fn container(&self, name: &str, ctid: Ctid) -> CtCgroup {
        CtCgroup::new(self.clone(), name, &ctid.to_string())
    }

    /// The way into the cgroup of the monitors of an installation, beside those of its containers. It is made on demand and stays, with the
    /// weight of one container for all of them.
    ///
    /// # Errors
    /// It can't be made, or a file of it not be opened.
    pub(crate) fn monitors(&self, name: &str) -> Result<Entry, Error> {
        let cgroup = CtCgroup::new(self.clone(), name, "monitors");
        if !cgroup.exists() {
            cgroup.ensure()?;
        }
        cgroup.entry()
    }

    /// Whether any controller is a v1 hierarchy.
    #[must_use]
    pub fn is_hybrid(&self) -> bool {
        self.v1.iter().any(|h| !h.controllers.is_empty())
    }

    /// The top of the hierarchy that has `controller`. v1 first: a controller is never in both, but `cgroup.controllers` of a cgroup2
    /// tree is the cheaper thing to be wrong about.
    pub(super) fn top(&self, controller: Controller) -> Option<Place> {
        if let Some(h) = self.v1.iter().find(|h| h.controllers.contains(&controller)) {
            return Some(Place { dir: h.top.clone(), v2: false });
        }
        self.unified_controllers.contains(&controller).then(|| Place { dir: self.unified.clone(), v2: true })
    }
}

/// Only lines of cgroups are parsed: there are a few, among several for each container.
fn parse(mountinfo: &str) -> Result<Vec<MountInfo>, procfs::ProcError> {
    let lines: String = mountinfo.lines().filter(|l| l.contains(" - cgroup")).flat_map(|l| [l, "\n"]).collect();
    MountInfos::from_buf_read(lines.as_bytes()).map(|m| m.0)
}

/// The cgroup2 tree and the v1 hierarchies in use. Of several mounts of one hierarchy the first with its true root counts: others are
/// parts of it shown to somebody, such as a container's own.
fn choose(mounts: &[MountInfo]) -> Option<(PathBuf, Vec<Hierarchy>)> {
    let best = |wanted: &dyn Fn(&MountInfo) -> bool| {
        let of_it = || mounts.iter().filter(|m| wanted(m));
        of_it().find(|m| m.root == "/").or_else(|| of_it().next())
    };
    let unified = best(&|m| m.fs_type == "cgroup2")?.mount_point.clone();
    let mut v1: Vec<Hierarchy> = Vec::new();
    for controller in Controller::ALL {
        let Some(mount) = best(&|m| m.fs_type == "cgroup" && m.super_options.contains_key(controller.v1_name())) else {
            continue;
        };
        // cpu and cpuacct are often one hierarchy.
        match v1.iter_mut().find(|h| h.top == mount.mount_point) {
            Some(h) => h.controllers.push(controller),
            None => v1.push(Hierarchy { top: mount.mount_point.clone(), controllers: vec![controller] }),
        }
    }
    let systemd = |m: &MountInfo| m.super_options.get("name").is_some_and(|n| n.as_deref() == Some("systemd"));
    v1.extend(best(&systemd).map(|m| Hierarchy { top: m.mount_point.clone(), controllers: Vec::new() }));
    Some((unified, v1))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use std::fs;

    use super::*;

    fn hosts(text: &str) -> Option<(PathBuf, Vec<Hierarchy>)> {
        choose(&parse(text).unwrap())
    }

    #[test]
    fn finds_v1_hierarchies_wherever_they_are_and_cgroup2_beside_them() {
        let (unified, v1) = hosts(
            "24 1 0:22 / /proc rw shared:5 - proc proc rw\n\
             30 24 0:26 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n\
             31 24 0:27 / /sys/fs/cgroup/systemd rw shared:10 - cgroup cgroup rw,xattr,name=systemd\n\
             32 24 0:28 / /sys/fs/cgroup/cpu,cpuacct rw shared:11 - cgroup cgroup rw,cpu,cpuacct\n\
             33 24 0:29 / /cg/mem rw shared:12 - cgroup cgroup rw,memory\n\
             34 24 0:30 / /sys/fs/cgroup/freezer rw shared:13 - cgroup cgroup rw,freezer\n",
        )
        .unwrap();
        assert_eq!(unified, Path::new("/sys/fs/cgroup/unified"));
        let got: Vec<_> = v1.iter().map(|h| (h.top.to_str().unwrap(), h.controllers.as_slice())).collect();
        let want: [(&str, &[Controller]); 3] = [
            ("/sys/fs/cgroup/cpu,cpuacct", &[Controller::Cpu, Controller::Cpuacct]),
            ("/cg/mem", &[Controller::Memory]),
            ("/sys/fs/cgroup/systemd", &[]),
        ];
        assert_eq!(got, want);
    }

    #[test]
    fn prefers_the_mount_with_the_true_root_over_a_part_shown_to_someone() {
        let (unified, v1) = hosts(
            "40 24 0:26 /vz/101 /vz/root/101/sys/fs/cgroup rw - cgroup2 cgroup2 rw\n\
             41 24 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
             42 24 0:29 /x /jail/pids rw - cgroup cgroup rw,pids\n\
             43 24 0:29 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n",
        )
        .unwrap();
        assert_eq!(unified, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(v1[0].top, Path::new("/sys/fs/cgroup/pids"));
    }

    #[test]
    fn a_host_without_cgroup2_is_refused_by_name() {
        assert_eq!(hosts("33 24 0:29 / /cg/mem rw - cgroup cgroup rw,memory\n"), None);
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc/self")).unwrap();
        fs::write(root.path().join("proc/self/mountinfo"), "24 1 0:22 / /proc rw - proc proc rw\n").unwrap();
        assert!(matches!(Host::detect(root.path()), Err(Error::NoCgroup2)));
    }

    #[test]
    fn a_controller_is_looked_up_where_the_host_has_it() {
        let root = tempfile::tempdir().unwrap();
        let path = |p: &str| root.path().join(p);
        fs::create_dir_all(path("proc/self")).unwrap();
        fs::create_dir_all(path("cg2")).unwrap();
        fs::write(path("cg2/cgroup.controllers"), "cpuset cpu hugetlb pids\n").unwrap();
        fs::write(
            path("proc/self/mountinfo"),
            "41 24 0:26 / /cg2 rw - cgroup2 cgroup2 rw\n33 24 0:29 / /mem rw - cgroup cgroup rw,memory\n",
        )
        .unwrap();
        let host = Host::detect(root.path()).unwrap();
        assert_eq!(host.top(Controller::Memory), Some(Place { dir: path("mem"), v2: false }));
        assert_eq!(host.top(Controller::Pids), Some(Place { dir: path("cg2"), v2: true }));
        assert_eq!(host.top(Controller::Io), None);
        assert_eq!(host.top(Controller::Cpuacct), None);
        assert!(host.is_hybrid());
    }
}
