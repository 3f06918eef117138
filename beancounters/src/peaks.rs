//! The highest marks of what the kernel keeps none for. Whoever looks at such a counter raises its mark: it is as high as the highest that
//! anybody has seen, and what came and went between two looks is not in it.
//!
//! A file of one number for each of [`Resource::LIVE`], in the machine's order of bytes, mapped by all who look: of two at a time neither
//! loses, and a mark never falls.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::Resource;
use crate::sys::Shared;

const BYTES: usize = Resource::LIVE.len() * size_of::<AtomicU64>();

/// The marks of one container.
pub struct Peaks(Shared<AtomicU64>);

impl std::fmt::Debug for Peaks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Peaks")
    }
}

impl Peaks {
    /// Makes the file, with all marks at zero, for its owner alone.
    ///
    /// # Errors
    /// It can't be written.
    pub fn create(path: &Path) -> io::Result<()> {
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?.write_all(&[0; BYTES])
    }

    /// Those in the file; `None` if there is none, or it is not one of ours.
    ///
    /// # Errors
    /// It is there and can't be used.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = match File::options().read(true).write(true).open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        if file.metadata()?.len() != BYTES as u64 {
            return Ok(None);
        }
        Shared::map(file.as_fd(), Resource::LIVE.len()).map(|marks| Some(Self(marks)))
    }

    /// Raises a mark to what is held now, if that is more. Returns the mark; of a resource that has none it is what is held.
    pub fn raise(&self, resource: Resource, held: u64) -> u64 {
        self.0.get(resource as usize).map_or(held, |mark| mark.fetch_max(held, Relaxed).max(held))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that fails here has failed")]
mod tests {
    use super::*;

    #[test]
    fn a_mark_rises_for_all_who_look_and_never_falls() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("peaks");
        assert!(Peaks::open(&path).unwrap().is_none());
        Peaks::create(&path).unwrap();
        let (one, other) = (Peaks::open(&path).unwrap().unwrap(), Peaks::open(&path).unwrap().unwrap());
        assert_eq!(one.raise(Resource::Numflock, 5), 5);
        assert_eq!(other.raise(Resource::Numflock, 3), 5);
        assert_eq!(other.raise(Resource::Swappages, 9), 9);
        assert_eq!(one.raise(Resource::Swappages, 0), 9);
        assert_eq!(one.raise(Resource::Avnumproc, 7), 7);
        assert_eq!(one.raise(Resource::Kmemsize, 0), 0);
        drop(one);
        assert_eq!(Peaks::open(&path).unwrap().unwrap().raise(Resource::Numflock, 0), 5);
    }

    #[test]
    fn a_file_that_is_cut_short_is_not_mapped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("peaks");
        std::fs::write(&path, [0; BYTES - 1]).unwrap();
        assert!(Peaks::open(&path).unwrap().is_none());
    }
}
