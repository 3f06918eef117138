//! Files made of a tree, kept beside it.

use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::store::{Store, StoreError, Tree, remove_file, split_id, sync_dir};

impl Store {
    /// A file made of a tree, such as an image of it: `make` writes it under the name it is given, at the first call with this `kind`, and what
    /// it has written is what every later call finds. `None` where it says that there is none to be had.
    ///
    /// # Errors
    /// Those of `make`, and of the store.
    pub fn made_of<E: From<StoreError>>(
        &self,
        id: &str,
        kind: &str,
        make: impl FnOnce(&Tree, &Path) -> Result<bool, E>,
    ) -> Result<Option<PathBuf>, E> {
        let tree = self.tree_by_id(id)?;
        let path = self.trees_dir().join(format!("{id}.{kind}"));
        let name = split_id(id).ok_or_else(|| StoreError::NoTree { id: id.to_owned(), trees: self.trees_dir() })?;
        let there = || path.try_exists().map_err(StoreError::from);
        if there()? {
            return Ok(Some(path));
        }
        let _lock = self.lock(&name)?;
        // Another process may have made it while this one waited.
        if there()? {
            return Ok(Some(path));
        }
        let new = self.beside(&name, "made");
        // Left by one that was killed; under the lock nobody else's.
        remove_file(&new).map_err(StoreError::from)?;
        match make(&tree, &new) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(e) => {
                // The first error is the one to tell; what cannot be removed now is removed by the next call.
                let _ = remove_file(&new);
                return Err(e);
            }
        }
        let publish = || -> io::Result<()> {
            fs::File::open(&new)?.sync_all()?;
            fs::rename(&new, &path)?;
            sync_dir(&self.trees_dir())
        };
        publish().map_err(StoreError::from)?;
        Ok(Some(path))
    }
}
