//! The pseudo terminals of a container.

use std::io;
use std::path::PathBuf;

use rustix::fs::{CWD, Dir, Mode, OFlags, ResolveFlags, fstatfs, openat, openat2};
use rustix::io::Errno;

use crate::read::ReadError;

/// `DEVPTS_SUPER_MAGIC` of linux/magic.h.
const DEVPTS: u64 = 0x1cd1;

/// How many terminals are in the `/dev/pts` of the process `pid`. `None`: it has none, or what is there is not the kernel's.
///
/// The container may put anything there: nothing is followed, and only a devpts is looked into.
///
/// # Errors
/// It is there and can't be read.
pub(crate) fn terminals(pid: u32) -> Result<Option<u64>, ReadError> {
    let path = PathBuf::from(format!("/proc/{pid}/root/dev/pts"));
    let failed = |e: Errno| ReadError::Read { path: path.clone(), source: io::Error::from(e) };
    let directory = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = match openat(CWD, format!("/proc/{pid}/root"), OFlags::PATH | directory, Mode::empty()) {
        Err(Errno::NOENT | Errno::SRCH) => return Ok(None),
        root => root.map_err(failed)?,
    };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let pts = match openat2(&root, "dev/pts", OFlags::RDONLY | directory, Mode::empty(), resolve) {
        Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::XDEV | Errno::AGAIN) => return Ok(None),
        pts => pts.map_err(failed)?,
    };
    if fstatfs(&pts).map_err(failed)?.f_type.unsigned_abs() != DEVPTS {
        return Ok(None);
    }
    let mut count = 0;
    for entry in Dir::read_from(&pts).map_err(failed)? {
        let name = entry.map_err(failed)?;
        count += u64::from(name.file_name().to_bytes().iter().all(u8::is_ascii_digit));
    }
    Ok(Some(count))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that fails here has failed")]
mod tests {
    use super::*;

    #[test]
    fn the_terminals_of_this_machine_are_counted_and_a_process_that_is_gone_has_none() {
        let entries = std::fs::read_dir("/dev/pts").map(|entries| entries.flatten().collect::<Vec<_>>());
        if let Ok(entries) = entries {
            let count = entries.iter().filter(|e| e.file_name() != "ptmx").count() as u64;
            // Others open and close terminals meanwhile.
            let counted = terminals(std::process::id()).unwrap();
            assert!(counted.is_some_and(|n| n.abs_diff(count) < 5), "{counted:?} {count}");
        }
        assert_eq!(terminals(u32::try_from(i32::MAX).unwrap()).unwrap(), None);
    }
}
