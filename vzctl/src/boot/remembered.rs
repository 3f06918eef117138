//! The containers that ran when the host went down: a file for each in `VZREBOOTDIR`, on a disk that outlives the boot.

use std::path::Path;

use vzrt::Ctid;

use crate::{Exit, Failure};

/// Those that ran.
///
/// # Errors
/// The directory can't be read; one that is not there means none.
pub(crate) fn list(dir: &Path) -> Result<Vec<Ctid>, Failure> {
    let entries = match fs_err::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|e| failed(&e))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        found.extend(entry.map_err(|e| failed(&e))?.file_name().to_str().and_then(|name| name.parse::<Ctid>().ok()));
    }
    Ok(found)
}

/// Remembers these too, and sees them on disk: the host is about to go down.
///
/// # Errors
/// The failed call.
pub(crate) fn add(dir: &Path, ctids: impl IntoIterator<Item = Ctid>) -> Result<(), Failure> {
    let write = || {
        fs_err::create_dir_all(dir)?;
        for ctid in ctids {
            fs_err::File::create(dir.join(ctid.to_string()))?;
        }
        fs_err::File::open(dir)?.sync_all()
    };
    write().map_err(|e: std::io::Error| failed(&e))
}

/// Forgets one: it was started, or need not be.
///
/// # Errors
/// The failed call.
pub(crate) fn forget(dir: &Path, ctid: Ctid) -> Result<(), Failure> {
    match fs_err::remove_file(dir.join(ctid.to_string())) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed(&e)),
        _ => Ok(()),
    }
}

fn failed(e: &std::io::Error) -> Failure {
    Failure::because(Exit::System, "Unable to keep which containers ran (VZREBOOTDIR)", e)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that fails here has failed")]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_what_was_added_and_not_forgotten() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("lib/vzreboot");
        let ct = |n: u32| n.to_string().parse::<Ctid>().unwrap();
        assert_eq!(list(&dir).unwrap(), []);
        add(&dir, [ct(101), ct(103)]).unwrap();
        add(&dir, [ct(101)]).unwrap();
        fs_err::write(dir.join("README"), "").unwrap();
        forget(&dir, ct(103)).unwrap();
        forget(&dir, ct(109)).unwrap();
        assert_eq!(list(&dir).unwrap(), [ct(101)]);
    }
}
