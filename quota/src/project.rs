//! Project quota: a limit on a directory tree of an ext4 or xfs file system that many containers share.
//!
//! Every inode below the directory carries the container's project id; new ones inherit it. Only the host's root can change that: inside
//! a user namespace the kernel refuses other ids. The limit binds everybody without `CAP_SYS_RESOURCE` on the host; overlayfs drops that
//! capability for what it writes to its upper layer, so a container on an overlay is bound too.
//!
//! Sources: quotactl(2), ioctl_xfs_fsgetxattr(2), and the kernel's `fs/quota/quota.c`, whose plain commands (`Q_SETQUOTA` and others)
//! serve xfs as well as ext4. `quotactl_fd` is of Linux 5.14.

use std::num::NonZeroU32;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::call::{CallError, Called};
use crate::limits::{EffectiveLimits, Limit, SoftHard};
use crate::sys::{self, Dqblk, Dqinfo};
use crate::tree;
use crate::users::Grace;

pub(crate) const EXT4_MAGIC: i128 = 0xEF53;
const XFS_MAGIC: i128 = 0x5846_5342;

/// New inodes in the directory get its project id, and subdirectories this flag.
pub(crate) const FS_XFLAG_PROJINHERIT: u32 = 0x200;

/// The kernel counts bytes in a signed 64-bit number: a limit from here on is none.
const SPACE_END_KIB: u64 = 1 << 53;

/// Failures of this module.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A directory was moved by somebody else while its tree was given a project id.
    #[error("the tree below {} changed while it was given a project id", .0.display())]
    TreeChanged(PathBuf),
    /// Every id that may be given is used.
    #[error("each project id from {first} to {last} is used on this file system already")]
    NoFreeId {
        /// The first one.
        first: u32,
        /// The last one.
        last: u32,
    },
}

/// Whether directories of a file system can be limited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Support {
    /// Project quota is on and enforced.
    Available,
    /// It is not.
    Missing {
        /// Why, and what to do about it.
        reason: Missing,
    },
}

/// Why there is no project quota.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// Neither ext4 nor xfs.
    #[error("only ext4 and xfs have project quota, and this is file system type {magic:#x}")]
    FileSystem {
        /// `f_type` of statfs(2).
        magic: u64,
    },
    /// No quota on the file system, or none in the kernel.
    #[error(
        "no quota is on: needs a kernel with quotactl_fd (5.14) and CONFIG_QFMT_V2 or CONFIG_XFS_QUOTA, on ext4 `tune2fs -O project,quota`, \
         and the mount option prjquota"
    )]
    Off,
    /// Some quota is on, but not that of projects.
    #[error("project quota is off: mount with the option prjquota")]
    NotProject,
    /// Usage is counted, limits are not enforced.
    #[error(
        "project quota only counts and does not limit: it was turned off, and `quotaon -P` on the mount point turns it on"
    )]
    NotEnforced,
}

/// Whether the file system of a directory can limit its containers.
///
/// # Errors
/// [`Error::Call`], such as for a directory that is not there, or without `CAP_SYS_ADMIN`.
pub fn support(directory: &Path) -> Result<Support, Error> {
    let fd = open_directory(directory)?;
    let missing = |reason| Ok(Support::Missing { reason });
    let magic = magic(&fd, directory)?;
    if magic != EXT4_MAGIC && magic != XFS_MAGIC {
        return missing(Missing::FileSystem { magic: magic as u64 });
    }
    match sys::quota_flags(fd.as_fd()) {
        Ok(flags) if flags & sys::FS_QUOTA_PDQ_ENFD != 0 => Ok(Support::Available),
        Ok(flags) if flags & sys::FS_QUOTA_PDQ_ACCT != 0 => missing(Missing::NotEnforced),
        Ok(_) => missing(Missing::NotProject),
        Err(Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP) => missing(Missing::Off),
        Err(errno) => Err(errno).called(|| format!("quotactl_fd({}, Q_XGETQSTATV, PRJQUOTA)", directory.display()))?,
    }
}

/// What a project uses and may use; or a user, or a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Space used, in KiB, rounded up.
    pub space_used_kib: u64,
    /// Inodes used.
    pub inodes_used: u64,
    /// Limits of space, in KiB.
    pub space_kib: SoftHard,
    /// Limits of inodes.
    pub inodes: SoftHard,
    /// When the soft limit of space becomes the hard one, in seconds since 1970; `None` while it is not exceeded.
    pub space_grace_ends_s: Option<u64>,
    /// The same of inodes.
    pub inodes_grace_ends_s: Option<u64>,
}

impl Status {
    /// Whether there is any limit.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.space_kib != SoftHard::UNLIMITED || self.inodes != SoftHard::UNLIMITED
    }
}

/// A directory and the project that it is, or is to be.
#[derive(Debug)]
pub struct Project {
    directory: OwnedFd,
    path: PathBuf,
    id: NonZeroU32,
}

impl Project {
    /// The project `id` on the file system of `directory`. Nothing is changed. The id 0 belongs to all that has no project.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn open(directory: &Path, id: NonZeroU32) -> Result<Project, Error> {
        Ok(Project { directory: open_directory(directory)?, path: directory.to_owned(), id })
    }

    pub(crate) fn with(directory: OwnedFd, path: &Path, id: NonZeroU32) -> Project {
        Project { directory, path: path.to_owned(), id }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> NonZeroU32 {
        self.id
    }

    /// Gives the directory, and all that is in it, the project id, to be inherited by what is made there later.
    ///
    /// To be called before the container starts: what is moved about meanwhile could be missed. Other file systems mounted in the tree
    /// are left out. Symbolic links, devices, sockets and pipes that exist already cannot be opened without effects: where the kernel and the
    /// file system have file_setattr(2) for them (Linux 6.17, xfs) they are given the id too, elsewhere each counts as one inode less.
    ///
    /// What makes new files inherit comes last to the directory itself: it says that the tree is done ([`crate::owned`]).
    ///
    /// # Errors
    /// [`Error::Call`]; [`Error::TreeChanged`].
    pub fn assign(&self) -> Result<(), Error> {
        tree::assign(&self.directory, &self.path, self.id.get())
    }

    /// Gives the id to the directory alone.
    pub(crate) fn mark_root(&self) -> Result<(), Error> {
        tree::mark_unfinished(&self.directory, &self.path, self.id.get())
    }

    /// Sets the limits, at once for all that is running.
    ///
    /// A grace time is the kernel's for *all* projects of the file system: when these limits have one, it becomes everybody's
    /// (see [`Project::set_grace`]).
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn set_limits(&self, limits: &EffectiveLimits) -> Result<(), Error> {
        if let Some(grace_s) = limits.grace_s {
            self.set_grace(Grace { space_s: grace_s, inodes_s: grace_s })?;
        }
        self.set(record(limits))
    }

    /// Takes the limits away. The inodes keep the id, and the kernel keeps counting.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn clear_limits(&self) -> Result<(), Error> {
        let none = EffectiveLimits { space_kib: SoftHard::UNLIMITED, inodes: SoftHard::UNLIMITED, grace_s: None };
        self.set(record(&none))
    }

    /// Usage and limits.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn status(&self) -> Result<Status, Error> {
        match sys::project_quota(self.directory.as_fd(), self.id.get()) {
            Ok(record) => Ok(status(&record)),
            // xfs has no record of a project that never had an inode or a limit.
            Err(Errno::NOENT) => Ok(status(&Dqblk::default())),
            Err(errno) => Err(errno).called(|| self.call("Q_GETQUOTA"))?,
        }
    }

    /// The grace times of all projects of this file system.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn grace(&self) -> Result<Grace, Error> {
        let info = sys::project_info(self.directory.as_fd()).called(|| self.call("Q_GETINFO"))?;
        Ok(Grace { space_s: info.space_grace_s, inodes_s: info.inodes_grace_s })
    }

    /// Sets them: the kernel has one time for space and one for inodes, for *all* projects of a file system.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn set_grace(&self, grace: Grace) -> Result<(), Error> {
        let info = Dqinfo {
            space_grace_s: grace.space_s,
            inodes_grace_s: grace.inodes_s,
            valid: sys::IIF_BGRACE | sys::IIF_IGRACE,
            ..Dqinfo::default()
        };
        sys::set_project_info(self.directory.as_fd(), info).called(|| self.call("Q_SETINFO"))?;
        Ok(())
    }

    fn set(&self, record: Dqblk) -> Result<(), Error> {
        sys::set_project_quota(self.directory.as_fd(), self.id.get(), record).called(|| self.call("Q_SETQUOTA"))?;
        Ok(())
    }

    fn call(&self, command: &str) -> String {
        format!("quotactl_fd({}, {command}, PRJQUOTA, {})", self.path.display(), self.id)
    }
}

/// The type of a file system, as statfs(2) has it.
pub(crate) fn magic(directory: &OwnedFd, path: &Path) -> Result<i128, CallError> {
    let stat = rustix::fs::fstatfs(directory).called(|| format!("fstatfs({})", path.display()))?;
    // The type of `f_type` differs between architectures; only its 32 low bits mean something.
    Ok(i128::from(stat.f_type) & 0xFFFF_FFFF)
}

pub(crate) fn open_directory(path: &Path) -> Result<OwnedFd, CallError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).called(|| format!("open({}, O_DIRECTORY|O_NOFOLLOW)", path.display()))
}

fn record(limits: &EffectiveLimits) -> Dqblk {
    Dqblk {
        space_hard_kib: to_kernel(limits.space_kib.hard, SPACE_END_KIB),
        space_soft_kib: to_kernel(limits.space_kib.soft, SPACE_END_KIB),
        inodes_hard: to_kernel(limits.inodes.hard, i64::MAX as u64),
        inodes_soft: to_kernel(limits.inodes.soft, i64::MAX as u64),
        valid: sys::QIF_BLIMITS | sys::QIF_ILIMITS,
        ..Dqblk::default()
    }
}

/// The kernel spells "no limit" 0, so that a limit of 0 becomes the least there is.
fn to_kernel(limit: Limit, end: u64) -> u64 {
    match limit {
        Limit::Of(amount) if amount < end => amount.max(1),
        Limit::Of(_) | Limit::Unlimited => 0,
    }
}

pub(crate) fn status(record: &Dqblk) -> Status {
    let limit = |amount| if amount == 0 { Limit::Unlimited } else { Limit::Of(amount) };
    Status {
        space_used_kib: record.space_used_bytes.div_ceil(1024),
        inodes_used: record.inodes_used,
        space_kib: SoftHard { soft: limit(record.space_soft_kib), hard: limit(record.space_hard_kib) },
        inodes: SoftHard { soft: limit(record.inodes_soft), hard: limit(record.inodes_hard) },
        space_grace_ends_s: (record.space_grace_ends != 0).then_some(record.space_grace_ends),
        inodes_grace_ends_s: (record.inodes_grace_ends != 0).then_some(record.inodes_grace_ends),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that fails here has failed")]
mod tests {
    use super::*;

    #[test]
    fn no_limit_is_zero_and_zero_is_the_least_limit() {
        let limits = EffectiveLimits {
            space_kib: SoftHard { soft: Limit::Of(0), hard: Limit::Unlimited },
            inodes: SoftHard { soft: Limit::Of(7), hard: Limit::Of(9) },
            grace_s: None,
        };
        let record = record(&limits);
        assert_eq!((record.space_soft_kib, record.space_hard_kib), (1, 0));
        assert_eq!((record.inodes_soft, record.inodes_hard), (7, 9));
        assert_eq!(status(&record).inodes, limits.inodes);
        assert_eq!(status(&record).space_kib.hard, Limit::Unlimited);
        assert!(status(&record).is_limited() && !status(&Dqblk::default()).is_limited());
    }

    #[test]
    fn a_limit_beyond_what_the_kernel_counts_does_not_wrap_around_to_a_small_one() {
        assert_eq!(to_kernel(Limit::Of(1 << 54 | 1), SPACE_END_KIB), 0);
        assert_eq!(to_kernel(Limit::Of((1 << 53) - 1), SPACE_END_KIB), (1 << 53) - 1);
    }

    #[test]
    fn a_file_system_of_another_kind_is_named() {
        let reason = Missing::FileSystem { magic: 0x9fa0 };
        assert_eq!(support(Path::new("/proc")).unwrap(), Support::Missing { reason });
    }
}
