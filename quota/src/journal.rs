//! Whether a file system keeps its counts through a power cut: with a journal, and a disk that is told when to write what it has cached.
//!
//! ext4 can do without either. What it has counted for a project, or given to an image, is then right again only when `e2fsck` has gone through all
//! files. xfs always has both.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};

use crate::call::{CallError, Called};
use crate::project::{EXT4_MAGIC, magic, open_directory};

/// Why a power cut may leave the counts wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Volatile {
    /// The feature `has_journal`.
    #[error("this ext4 has no journal: unmounted, `tune2fs -O has_journal` gives it one")]
    NoJournal,
    /// The mount option.
    #[error("this ext4 does not have its disk write what it has cached: mount without nobarrier")]
    NoBarrier,
}

/// Failures of this module.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// What the kernel tells about a file system could not be read.
    #[error("{}", path.display())]
    Read {
        /// Below `/sys` or `/proc`.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Why the counts of the file system of a directory may not outlive a power cut; `None` where they do, or where nothing is known of it.
///
/// # Errors
/// [`Error::Call`], such as for a directory that is not there; [`Error::Read`].
pub fn volatile(directory: &Path) -> Result<Option<Volatile>, Error> {
    let fd = open_directory(directory)?;
    if magic(&fd, directory)? != EXT4_MAGIC {
        return Ok(None);
    }
    let device = rustix::fs::fstat(&fd).called(|| format!("fstat({})", directory.display()))?.st_dev;
    // The kernel's name of the device is that of its directory in sysfs.
    let path = PathBuf::from(format!("/sys/dev/block/{}:{}", major(device), minor(device)));
    let device = std::fs::read_link(&path).map_err(|source| Error::Read { path, source })?;
    let path = Path::new("/proc/fs/ext4").join(device.file_name().unwrap_or_default()).join("options");
    let options = std::fs::read_to_string(&path).map_err(|source| Error::Read { path, source })?;
    Ok(of_options(&options))
}

/// From `/proc/fs/ext4/DEVICE/options`, which has all that are in force, one on a line: that of data only where there is a journal
/// (`fs/ext4/super.c`, `_ext4_show_options`).
fn of_options(options: &str) -> Option<Volatile> {
    if !options.lines().any(|option| option.starts_with("data=")) {
        return Some(Volatile::NoJournal);
    }
    options.lines().any(|option| option == "nobarrier").then_some(Volatile::NoBarrier)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_journal_or_barriers_counts_are_lost_with_the_power() {
        assert_eq!(of_options("rw\nbarrier\nprjquota\ndata=ordered\n"), None);
        assert_eq!(of_options("rw\nnobarrier\ndata=writeback\n"), Some(Volatile::NoBarrier));
        assert_eq!(of_options("rw\nbarrier\nprjquota\n"), Some(Volatile::NoJournal));
    }
}
