//! What this kernel can do for containers, found out by doing it: rows for `vzctl check`.

use std::os::fd::AsFd;

use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};

use crate::error::{Call, Failed};
use crate::plan::IdRange;
use crate::view::fuse::Connection;
use crate::{idmap, sys};

/// One ability of the kernel.
#[derive(Debug)]
pub struct Probe {
    /// Its name.
    pub feature: &'static str,
    /// What needs it.
    pub needed_by: &'static str,
    /// What happens without.
    pub without: &'static str,
    /// Whether no container runs without it.
    pub essential: bool,
    /// Whether it is there, or how its absence showed.
    pub result: Result<(), Failed>,
}

/// Tries everything a start needs of the kernel, in children and on objects that vanish.
#[must_use]
pub fn probe() -> Vec<Probe> {
    let essential = |feature, needed_by, result| Probe {
        feature,
        needed_by,
        without: "no container starts",
        essential: true,
        result,
    };
    let mut rows: Vec<Probe> = [
        ("user namespaces", CloneFlags::CLONE_NEWUSER),
        ("pid namespaces", CloneFlags::CLONE_NEWPID),
        ("mount namespaces", CloneFlags::CLONE_NEWNS),
        ("ipc namespaces", CloneFlags::CLONE_NEWIPC),
        ("uts namespaces", CloneFlags::CLONE_NEWUTS),
        ("cgroup namespaces", CloneFlags::CLONE_NEWCGROUP),
    ]
    .into_iter()
    .map(|(name, flag)| essential(name, "every container", unshares(flag)))
    .collect();
    rows.push(Probe {
        feature: "time namespaces",
        needed_by: "uptime inside",
        without: "a container shows the host's uptime",
        essential: false,
        result: unshares(CloneFlags::from_bits_retain(libc::CLONE_NEWTIME)),
    });
    rows.push(essential("idmapped mounts", "ids on disk that are the container's own", idmapped_mount()));
    rows.push(essential("overlay", "containers that share a template", file_system("overlay")));
    rows.push(essential("seccomp", "the system call filter", seccomp_action("errno")));
    rows.push(Probe {
        feature: "FUSE",
        needed_by: "/proc files that tell of the container",
        without: "free, top, uptime inside show the host's numbers",
        essential: false,
        result: Connection::new().map(drop),
    });
    rows.push(Probe {
        feature: "seccomp notification",
        needed_by: "sysinfo(2) and sched_getaffinity(2) that tell of the container",
        without: "nproc inside shows the host's CPUs",
        essential: false,
        result: seccomp_action("user_notif"),
    });
    rows.push(Probe {
        feature: "quota of users on ext4",
        needed_by: "--quotaugidlimit: limits that a container's root sets for its users",
        without: "only the container as a whole is bounded",
        essential: false,
        result: match quota::users::support() {
            Ok(there) => there.map_err(|missing| Failed::new("mount(ext4, usrquota)", missing.to_string())),
            Err(e) => Err(Failed::new("mount(ext4, usrquota)", crate::launch::chain(&e))),
        },
    });
    rows.push(Probe {
        feature: "CAP_SYS_RESOURCE",
        needed_by: "--diskspace of a running container on an image, raising hard limits",
        without: "an image grows at the next start; RLIMIT_NOFILE stays at the host's",
        essential: false,
        result: match caps::has_cap(None, caps::CapSet::Permitted, caps::Capability::CAP_SYS_RESOURCE) {
            Ok(true) => Ok(()),
            _ => Err(Failed::new("capget()", "this host's root does not have it")),
        },
    });
    rows
}

/// Whether a process may leave a namespace of this kind.
fn unshares(flag: CloneFlags) -> Result<(), Failed> {
    let Some(child) = sys::clone3(&sys::Clone::default()).call(|| "clone3()")? else {
        sys::exit_now(unshare(flag).map_or_else(|e| e as i32, |()| 0));
    };
    match waitpid(child.pid, None).call(|| "waitpid()")? {
        WaitStatus::Exited(_, 0) => Ok(()),
        WaitStatus::Exited(_, errno) => {
            Err(std::io::Error::from_raw_os_error(errno)).call(|| format!("unshare({:#x})", flag.bits()))
        }
        other => Err(Failed::new("unshare()", format!("{other:?}"))),
    }
}

fn idmapped_mount() -> Result<(), Failed> {
    use rustix::mount::{OpenTreeFlags, open_tree};
    let shift = idmap::mapping(IdRange { uid: 1 << 30, gid: 1 << 30, count: 65536 })?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(rustix::fs::CWD, "/", flags).call(|| "open_tree(/)")?;
    sys::mount_setattr_idmap(tree.as_fd(), shift.as_fd(), 0).call(|| "mount_setattr(/, MOUNT_ATTR_IDMAP)")
}

fn file_system(kind: &str) -> Result<(), Failed> {
    rustix::mount::fsopen(kind, rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC).map(drop).call(|| format!("fsopen({kind})"))
}

fn seccomp_action(wanted: &str) -> Result<(), Failed> {
    let path = "/proc/sys/kernel/seccomp/actions_avail";
    let actions = std::fs::read_to_string(path).call(|| format!("read({path})"))?;
    let there = actions.split_whitespace().any(|action| action == wanted);
    if there { Ok(()) } else { Err(Failed::new(path, format!("no action {wanted}"))) }
}
