//! Quotas of users and groups: the second level, inside an area that is a file system of its own.
//!
//! They are ext4's own (the `quota` feature: usage and limits in hidden files, kept by the journal, so there is nothing to check after a
//! crash), and enforced by the kernel. On disk an area's files have the numbers their owners have inside, so the numbers need no translation.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use crate::call::{CallError, Called};
use crate::image::{self, Error};
use crate::loopdev::Image;
use crate::project::{Status, status};
use crate::quotactl::{Call, Kind, LARGEST_BYTES};
use crate::sys::{self, Dqblk, Dqinfo};

use crate::{Limit, SoftHard};

mod kept;

/// How long to wait for the kernel to let go of an image that nobody uses any more.
const LETTING_GO: Duration = Duration::from_secs(1);

/// The quotas of users and groups of one mounted file system.
#[derive(Debug, Clone)]
pub struct Users {
    device: CString,
}

/// How long soft limits may stay exceeded, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grace {
    /// Those of space.
    pub space_s: u64,
    /// Those of inodes.
    pub inodes_s: u64,
}

impl Users {
    /// Those of the file system that is mounted from `/dev/loopN`. The device is named and not held, so that it can go when it is unmounted.
    #[must_use]
    pub fn on(loop_number: u32) -> Users {
        Users { device: CString::new(format!("/dev/loop{loop_number}")).unwrap_or_default() }
    }

    /// Passes on a call that somebody else has made, with a structure of his in the first bytes of `structure`, which has what the kernel
    /// wrote afterwards. Nothing is checked here.
    ///
    /// # Errors
    /// The kernel's.
    pub fn pass_on(&self, call: &Call, id: u32, structure: &mut [u8; LARGEST_BYTES]) -> Result<(), Errno> {
        sys::quotactl_of_device(&self.device, call.word(), id, structure)
    }

    /// What a user or group uses and may use.
    ///
    /// # Errors
    /// [`CallError`]; `ESRCH` when such quotas are not on.
    pub fn status(&self, kind: Kind, id: u32) -> Result<Status, CallError> {
        let record = sys::user_quota(&self.device, kind.number(), id).called(|| self.call("Q_GETQUOTA", kind, id))?;
        Ok(status(&record))
    }

    /// Sets limits, at once; a limit of 0 is none, as in setquota(8).
    ///
    /// # Errors
    /// [`CallError`].
    pub fn set_limits(&self, kind: Kind, id: u32, space_kib: SoftHard, inodes: SoftHard) -> Result<(), CallError> {
        let amount = |limit| if let Limit::Of(amount) = limit { amount } else { 0 };
        let record = Dqblk {
            space_hard_kib: amount(space_kib.hard),
            space_soft_kib: amount(space_kib.soft),
            inodes_hard: amount(inodes.hard),
            inodes_soft: amount(inodes.soft),
            valid: sys::QIF_BLIMITS | sys::QIF_ILIMITS,
            ..Dqblk::default()
        };
        sys::set_user_quota(&self.device, kind.number(), id, record).called(|| self.call("Q_SETQUOTA", kind, id))
    }

    /// The first user or group from `id` on that uses something or has a limit; `None` when there is no more.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn next(&self, kind: Kind, id: u32) -> Result<Option<(u32, Status)>, CallError> {
        match sys::next_user_quota(&self.device, kind.number(), id) {
            Ok((id, record)) => Ok(Some((id, status(&record)))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno).called(|| self.call("Q_GETNEXTQUOTA", kind, id)),
        }
    }

    /// How many have limits; no more than `most` are looked for.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn limited(&self, kind: Kind, most: u64) -> Result<u64, CallError> {
        let (mut limited, mut from) = (0, 0);
        while limited < most
            && let Some((id, status)) = self.next(kind, from)?
        {
            limited += u64::from(status.is_limited());
            let Some(after) = id.checked_add(1) else { break };
            from = after;
        }
        Ok(limited)
    }

    /// The grace times.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn grace(&self, kind: Kind) -> Result<Grace, CallError> {
        let info = sys::user_info(&self.device, kind.number()).called(|| self.call("Q_GETINFO", kind, 0))?;
        Ok(Grace { space_s: info.space_grace_s, inodes_s: info.inodes_grace_s })
    }

    /// Sets the grace times.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn set_grace(&self, kind: Kind, grace: Grace) -> Result<(), CallError> {
        let info = Dqinfo {
            space_grace_s: grace.space_s,
            inodes_grace_s: grace.inodes_s,
            valid: sys::IIF_BGRACE | sys::IIF_IGRACE,
            ..Dqinfo::default()
        };
        sys::set_user_info(&self.device, kind.number(), info).called(|| self.call("Q_SETINFO", kind, 0))
    }

    fn call(&self, command: &str, kind: Kind, id: u32) -> String {
        format!("quotactl({command}, {kind:?}, {}, {id})", self.device.to_string_lossy())
    }
}

/// Why the kernel of this host has no quotas of users and groups on ext4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// `CONFIG_QUOTA`.
    #[error("the kernel was built without disk quota (CONFIG_QUOTA)")]
    Quota,
    /// `CONFIG_QFMT_V2`.
    #[error("the kernel was built without the quota format of ext4 (CONFIG_QFMT_V2)")]
    Format,
}

/// Whether this host's kernel has them. It tells only by mounting such a file system: one of 1 MiB is made in memory, which takes some 20 ms.
///
/// # Errors
/// The file system could not be made.
pub fn support() -> Result<Result<(), Missing>, Error> {
    if !Path::new("/proc/sys/fs/quota").exists() {
        return Ok(Err(Missing::Quota));
    }
    Ok(if image::can_mount_with_quota()? { Ok(()) } else { Err(Missing::Format) })
}

/// What was done to have the quotas of an image as they are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prepared {
    /// They were so, or the image is mounted and can't be changed.
    Unchanged,
    /// They are now. When they were added, what the files use was counted, once.
    Changed,
}

/// Gives an image that nobody uses quotas of users and groups.
///
/// # Errors
/// [`Error::Program`] from `tune2fs`; [`Error::NotExt4`]; [`Error::Call`].
pub fn add(file: &Path) -> Result<Prepared, Error> {
    change(file, true, &["-O", "quota", "-Q", "usrquota,grpquota"])
}

/// Takes them away: a kernel that has none does not mount such an image. The limits are written down beside the image, for [`restore`].
///
/// # Errors
/// As [`add`]; what kept the limits from being written, and then nothing is taken away.
pub fn take_away(file: &Path) -> Result<Prepared, Error> {
    change(file, false, &["-O", "^quota"])
}

/// Sets the limits again that [`take_away`] wrote down, in the mounted file system of an image. Where there are none written down, nothing is
/// done.
///
/// # Errors
/// [`CallError`]; what was written can't be read.
pub fn restore(file: &Path, users: &Users) -> Result<(), Error> {
    for (kind, id, space_kib, inodes) in kept::read(file)? {
        users.set_limits(kind, id, space_kib, inodes)?;
    }
    kept::forget(file)
}

/// Whether an image has them.
///
/// # Errors
/// [`Error::NotExt4`]; [`Error::Call`].
pub fn has(file: &Path) -> Result<bool, Error> {
    image::has_quota(&Image::open(file)?)
}

fn change(file: &Path, wanted: bool, arguments: &[&str]) -> Result<Prepared, Error> {
    let image = Image::open_locked(file)?;
    if image::has_quota(&image)? == wanted || image.still_attached(LETTING_GO)?.is_some() {
        return Ok(Prepared::Unchanged);
    }
    image::replay_journal(&image)?;
    if !wanted {
        kept::write(file)?;
    }
    let mut tune2fs = image::program("tune2fs");
    tune2fs.args(arguments).arg(file);
    match image::run("tune2fs", &mut tune2fs)? {
        (status, _) if status.success() => Ok(Prepared::Changed),
        (status, stderr) => Err(Error::Program { program: "tune2fs", path: PathBuf::from(file), status, stderr }),
    }
}
