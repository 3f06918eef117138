//! What can go wrong with a container's cgroups, and what this host merely lacks.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Controller;

/// A failure. A failed system call shows as the call with its arguments; the reason is the source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Without a cgroup2 tree there is no freezing, no killing as a whole and no delegation.
    #[error("no cgroup2 file system is mounted (mount one at /sys/fs/cgroup, or at /sys/fs/cgroup/unified beside v1)")]
    NoCgroup2,
    /// The list of mounts could not be understood.
    #[error("parse {path:?}")]
    Mountinfo {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: procfs::ProcError,
    },
    /// The container's cgroup is there already: it runs, or a start before did not clean up.
    #[error("cgroup {path:?} exists already")]
    Exists {
        /// The first directory found.
        path: PathBuf,
    },
    /// A call on a path failed.
    #[error("{call}({path:?})")]
    Call {
        /// The system call.
        call: &'static str,
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A control file refused a value.
    #[error("write({path:?}, {value:?})")]
    Write {
        /// The control file.
        path: PathBuf,
        /// The value refused.
        value: String,
        /// Why.
        source: io::Error,
    },
    /// A control file held something else than the kernel's documentation promises.
    #[error("{path:?} holds {text:?}")]
    Format {
        /// The control file.
        path: PathBuf,
        /// What it held.
        text: String,
    },
    /// cgroups-rs failed in a way that is not a failed write.
    #[error("set a limit in {dir:?}")]
    Controller {
        /// The cgroup.
        dir: PathBuf,
        /// What the crate said.
        source: cgroups_rs::fs::error::Error,
    },
    /// A value that means nothing on any host.
    #[error("{what} cannot be {value}")]
    Value {
        /// The resource, as the OCI runtime specification names it.
        what: &'static str,
        /// The value given.
        value: String,
    },
    /// The container uses more memory than the new limit and the kernel could not reclaim the difference.
    #[error("memory limit {limit} is below what is in use ({used}) and cannot be reclaimed")]
    InUse {
        /// The limit asked for, bytes.
        limit: u64,
        /// In use after reclaim, bytes.
        used: u64,
    },
    /// bpf(2) failed.
    #[error("bpf({command})")]
    Bpf {
        /// The command.
        command: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A condition did not come true in time.
    #[error("{path:?}: still not {condition:?} after {after:?}")]
    Timeout {
        /// The file watched.
        path: PathBuf,
        /// The line waited for.
        condition: &'static str,
        /// How long.
        after: Duration,
    },
    /// A step failed, and taking back the steps before it failed as well: `undo` says what was left behind.
    #[error("{undo} while taking back after a failure")]
    Undo {
        /// The failure.
        #[source]
        first: Box<Error>,
        /// What could not be taken back.
        undo: Box<Error>,
    },
}

impl Error {
    /// For `map_err`: a failed call on `path`.
    pub(super) fn call<E: Into<io::Error>>(call: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |e| Self::Call { call, path: path.to_owned(), source: e.into() }
    }

    /// Whether the cgroup is not there any more: before it was opened, or since (ENODEV).
    pub(super) fn is_gone(&self) -> bool {
        matches!(self.errno(), Some(rustix::io::Errno::NOENT | rustix::io::Errno::NODEV))
    }

    /// The error number behind this, when there is one.
    #[must_use]
    pub fn errno(&self) -> Option<rustix::io::Errno> {
        match self {
            Self::Call { source, .. } | Self::Write { source, .. } | Self::Bpf { source, .. } => {
                rustix::io::Errno::from_io_error(source)
            }
            Self::Undo { first, .. } => first.errno(),
            _ => None,
        }
    }
}

/// Something asked for that this host cannot give. Collected and handed to the caller, who tells the operator; the rest is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    /// What was asked for.
    pub what: What,
    /// Why it cannot be had.
    pub why: Why,
}

/// A limit, or another duty of the cgroup module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A whole controller, while making the cgroup.
    Controller(Controller),
    /// `memory.limit`.
    MemoryLimit,
    /// `memory.swap`.
    SwapLimit,
    /// `memory.reservation`.
    MemoryReservation,
    /// `memory.swappiness`.
    Swappiness,
    /// `cpu.shares`.
    CpuShares,
    /// `cpu.quota` and `cpu.period`.
    CpuQuota,
    /// `cpu.cpus` and `cpu.mems`.
    CpuSet,
    /// `pids.limit`.
    PidsLimit,
    /// `blockIO.weight`, for all devices or one.
    IoWeight,
    /// `blockIO.throttle*`.
    IoThrottle,
    /// `devices`.
    Devices,
    /// A file of the `unified` map, or a part of the OCI resources with no use in a container of this kind.
    Named(String),
}

/// Why something cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The kernel has no such controller mounted or enabled.
    NoController(Controller),
    /// The controller is there, its file is not: the kernel was built or booted without that part of it.
    NoFile(PathBuf),
    /// The kernel refused with this error number, which says that it has no such thing.
    Refused(rustix::io::Errno),
    /// No use is made of it here, on any host.
    NotManaged,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not supported by this host: {}", self.what, self.why)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Controller(c) => return write!(f, "controller {c}"),
            Self::Named(name) => name,
            Self::MemoryLimit => "memory limit",
            Self::SwapLimit => "swap limit",
            Self::MemoryReservation => "memory reservation",
            Self::Swappiness => "swappiness",
            Self::CpuShares => "CPU weight",
            Self::CpuQuota => "CPU limit",
            Self::CpuSet => "CPU and node affinity",
            Self::PidsLimit => "limit of processes",
            Self::IoWeight => "I/O priority",
            Self::IoThrottle => "I/O limit",
            Self::Devices => "device filter",
        })
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoController(c) => write!(f, "the kernel has no {c} controller"),
            Self::NoFile(path) => write!(f, "there is no {}", path.display()),
            Self::Refused(errno) => write!(f, "{errno}"),
            Self::NotManaged => f.write_str("not managed by cgroups here"),
        }
    }
}
