//! What `vzubc` saw the last time, for `--relative` and `--incremental`.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use beancounters::Resource;
use beancounters::parse::Block;
use serde::{Deserialize, Serialize};

/// Counts by container and name of the resource.
type Counts = BTreeMap<u32, BTreeMap<String, u64>>;

/// The file `last.json` of the directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saved {
    #[serde(default)]
    failcnt: Counts,
    #[serde(default)]
    held: Counts,
}

impl Saved {
    const FILE: &str = "last.json";

    /// What was saved in this directory; nothing where nothing was.
    ///
    /// # Errors
    /// It is there and can't be read.
    pub(super) fn read(directory: &Path) -> io::Result<Self> {
        match fs_err::read(directory.join(Self::FILE)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| {
                io::Error::new(io::ErrorKind::InvalidData, format!("{}/{}: {e}", directory.display(), Self::FILE))
            }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(e),
        }
    }

    /// Saves it, replacing what was there as a whole.
    ///
    /// # Errors
    /// The failed call.
    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        fs_err::create_dir_all(directory)?;
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        serde_json::to_writer(&mut file, self)?;
        file.persist(directory.join(Self::FILE)).map(drop).map_err(|e| e.error)
    }

    pub(super) fn failcnt(&self, id: u32, resource: Resource) -> u64 {
        count(&self.failcnt, id, resource)
    }

    pub(super) fn held(&self, id: u32, resource: Resource) -> u64 {
        count(&self.held, id, resource)
    }

    /// The failures of these containers are the ones that are known from now on.
    pub(super) fn keep_failures(&mut self, blocks: &[Block]) {
        self.failcnt.extend(blocks.iter().map(|block| (block.id, counts(block, |counter| counter.failcnt))));
    }

    /// And what they hold.
    pub(super) fn keep_held(&mut self, blocks: &[Block]) {
        self.held.extend(blocks.iter().map(|block| (block.id, counts(block, |counter| counter.held))));
    }

    pub(super) fn forget_failures(&mut self) {
        self.failcnt.clear();
    }

    pub(super) fn forget_held(&mut self) {
        self.held.clear();
    }
}

fn count(counts: &Counts, id: u32, resource: Resource) -> u64 {
    counts.get(&id).and_then(|counts| counts.get(resource.name())).copied().unwrap_or(0)
}

fn counts(block: &Block, of: fn(&beancounters::Counter) -> u64) -> BTreeMap<String, u64> {
    block.rows.iter().map(|(resource, counter)| (resource.name().to_owned(), of(counter))).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that fails here has failed")]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_there_the_next_time() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        assert_eq!(Saved::read(&store).unwrap(), Saved::default());
        let counter = beancounters::Counter { held: 5, maxheld: 6, barrier: 7, limit: 8, failcnt: 9 };
        let block = Block { id: 101, rows: vec![(Resource::Numproc, counter)] };
        let mut saved = Saved::default();
        saved.keep_failures(std::slice::from_ref(&block));
        saved.keep_held(&[block]);
        saved.write(&store).unwrap();
        let read = Saved::read(&store).unwrap();
        assert_eq!((read.failcnt(101, Resource::Numproc), read.held(101, Resource::Numproc)), (9, 5));
        assert_eq!(read.failcnt(102, Resource::Numproc), 0);
        fs_err::write(store.join(Saved::FILE), "{").unwrap();
        assert!(Saved::read(&store).unwrap_err().to_string().contains("last.json"));
    }
}
