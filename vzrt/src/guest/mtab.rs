//! `/etc/mtab`, by which tools find the file systems that have quotas.

use rustix::fs::FileType;

use super::error::Error;
use super::root::{Mounts, Root};

/// What it has long been a link to, everywhere.
const MOUNTS: &str = "/proc/mounts";

/// Makes `/etc/mtab` what the kernel says is mounted, for a container whose users have quotas: `quota` and `repquota` of distributions of OpenVZ's days look there, and a
/// file of the machine that the template was made on names none of the container's file systems. (The original's `set_ugid_quota.sh` did the same.)
///
/// A link stays as it is.
///
/// # Errors
/// Something is there that is neither a file nor a link, or it can't be replaced.
pub fn set_mtab(root: &Root) -> Result<(), Error> {
    let etc = root.directory("/etc", Mounts::Refuse)?;
    match etc.stat("mtab")?.map(|stat| FileType::from_raw_mode(stat.st_mode)) {
        Some(FileType::Symlink) => Ok(()),
        Some(FileType::RegularFile) | None => etc.link("mtab", MOUNTS),
        // Says what is there instead.
        Some(_) => etc.read("mtab").map(drop),
    }
}
