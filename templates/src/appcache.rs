//! Application layers: what an installation has changed, stored once, and laid below the private areas of containers on the same tree.
//!
//! ```text
//! cache/.layers/nginx@0123…/        the layer, in overlay's format, 0755; never changed once it has this name
//! cache/.layers/nginx@0123….json    which applications it has, on which tree it lies, and what whoever made it wants to know again
//! cache/.layers/.hold               locked by who picks a layer for a container, and by who removes one
//! ```
//!
//! The record is written first and removed last: a layer without one is nobody's, and the next layer of its name takes its place.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::difference::Written;
use crate::layers::read_record;
use crate::name::TemplateName;
use crate::store::{Store, StoreError, names_in, remove_tree, split_id, sync_dir};

/// Digits of a digest in the name of a layer, as in that of a tree.
const ID_DIGITS: usize = 16;

/// A layer of applications.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppLayer {
    /// `NAME@DIGEST`; of several applications their names with `+` between them.
    pub id: String,
    /// The applications, in the order they were installed.
    pub apps: Vec<String>,
    /// The tree it lies on, and no other: files that it does not have are that tree's.
    pub tree: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// What was installed, in the words of whoever did it; of a layer that was captured, nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installed: Option<serde_json::Value>,
}

/// See [`Store::hold_app_layers`].
#[derive(Debug)]
pub struct Hold {
    _file: fs::File,
}

impl Store {
    /// Puts a layer that was written to `directory`, on the same file system, among the others. One of the same content that is there already is
    /// left as it is.
    ///
    /// # Errors
    /// A file operation.
    pub fn add_app_layer(
        &self,
        apps: &[TemplateName],
        tree: &str,
        directory: &Path,
        written: &Written,
        installed: Option<serde_json::Value>,
    ) -> Result<AppLayer, StoreError> {
        let apps: Vec<String> = apps.iter().map(ToString::to_string).collect();
        // The same files over another tree are another layer.
        let digest = format!("{:x}", Sha256::digest(format!("{tree}\n{}", written.sha256)));
        let id = format!("{}@{}", apps.join("+"), &digest[..ID_DIGITS]);
        let name = split_id(&id).ok_or_else(|| StoreError::NoLayer { id: id.clone(), layers: self.layers_dir() })?;
        let _lock = self.lock(&name)?;
        let layers = self.layers_dir();
        self.make_layers_dir()?;
        let layer = AppLayer { id: id.clone(), apps, tree: tree.to_owned(), bytes: written.bytes, installed };
        self.write_app_record(&layer)?;
        let path = layers.join(&id);
        if !path.try_exists()? {
            fs::set_permissions(directory, PermissionsExt::from_mode(0o755))?;
            let synced = rustix::fs::syncfs(fs::File::open(directory)?);
            synced.map_err(|e| StoreError::Call { call: "syncfs", path: directory.to_owned(), source: e.into() })?;
            fs::rename(directory, &path)?;
            sync_dir(&layers)?;
        }
        Ok(layer)
    }

    fn write_app_record(&self, layer: &AppLayer) -> Result<(), StoreError> {
        let (new, path) = (self.layers_dir().join(format!("{}.new", layer.id)), self.app_record(&layer.id));
        let mut file = fs::File::create(&new)?;
        file.write_all(&serde_json::to_vec(layer).map_err(io::Error::from)?)?;
        file.sync_all()?;
        fs::rename(new, path)?;
        Ok(())
    }

    fn app_record(&self, id: &str) -> PathBuf {
        self.layers_dir().join(format!("{id}.json"))
    }

    /// All layers of applications, sorted.
    ///
    /// # Errors
    /// The directory, or a record, cannot be read.
    pub fn app_layers(&self) -> Result<Vec<AppLayer>, StoreError> {
        let mut layers = Vec::new();
        for file in names_in(&self.layers_dir())? {
            let id = file.to_str().and_then(|file| file.strip_suffix(".json")).filter(|id| split_id(id).is_some());
            let Some(id) = id else { continue };
            // A record without its layer is of a removal or an addition under way.
            if self.layers_dir().join(id).is_dir()
                && let Some(layer) = read_record::<AppLayer>(&self.app_record(id))?
            {
                layers.push(layer);
            }
        }
        layers.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(layers)
    }

    /// The layers with just these applications, in any order, on this tree.
    ///
    /// # Errors
    /// As [`Store::app_layers`].
    pub fn app_layers_for(&self, tree: &str, apps: &[&str]) -> Result<Vec<AppLayer>, StoreError> {
        let wanted: BTreeSet<&str> = apps.iter().copied().collect();
        let mut layers = self.app_layers()?;
        layers.retain(|l| l.tree == tree && l.apps.iter().map(String::as_str).collect::<BTreeSet<_>>() == wanted);
        Ok(layers)
    }

    /// Keeps all layers of applications where they are: from before one is picked until the configuration of its container names it. Any number
    /// of commands may hold them. The kernel gives it back when its holder dies.
    ///
    /// # Errors
    /// The lock file.
    pub fn hold_app_layers(&self) -> Result<Hold, StoreError> {
        self.hold(FlockOperation::LockShared)
    }

    fn hold(&self, how: FlockOperation) -> Result<Hold, StoreError> {
        self.make_layers_dir()?;
        let path = self.layers_dir().join(".hold");
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path)?;
        rustix::fs::flock(&file, how).map_err(|e| StoreError::Call { call: "flock", path, source: e.into() })?;
        Ok(Hold { _file: file })
    }

    fn make_layers_dir(&self) -> Result<(), StoreError> {
        let layers = self.layers_dir();
        match std::fs::DirBuilder::new().mode(0o700).create(&layers) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                Err(StoreError::Call { call: "mkdir", path: layers, source: e })
            }
            _ => Ok(fs::set_permissions(&layers, PermissionsExt::from_mode(0o700))?),
        }
    }

    /// Removes a layer, or nothing if it is `in_use`, which is asked while nobody holds the layers.
    ///
    /// # Errors
    /// It is not there, is in use, or could not be removed.
    pub fn remove_app_layer(&self, id: &str, in_use: &dyn Fn(&str) -> bool) -> Result<(), StoreError> {
        let path = self.layer_by_id(id)?;
        let missing = || StoreError::NoLayer { id: id.to_owned(), layers: self.layers_dir() };
        let name = split_id(id).ok_or_else(missing)?;
        let _lock = self.lock(&name)?;
        let _all = self.hold(FlockOperation::LockExclusive)?;
        if in_use(id) {
            return Err(StoreError::InUse { name: name.to_string(), trees: vec![id.to_owned()] });
        }
        // Renamed first: a layer of this name is whole or not there.
        let going = self.layers_dir().join(format!(".{name}.going"));
        remove_tree(&going)?;
        fs::rename(&path, &going)?;
        remove_tree(&going)?;
        Ok(fs::remove_file(self.app_record(id))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(sha256: &str) -> Written {
        Written { entries: 1, bytes: 7, sha256: sha256.repeat(64) }
    }

    #[test]
    fn a_layer_is_found_by_tree_and_applications_and_is_stored_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path());
        let apps: Vec<TemplateName> = ["web", "db"].iter().map(|name| name.parse().unwrap()).collect();
        let add = |tree: &str, sha256: &str| {
            let new = dir.path().join("new");
            fs::create_dir_all(new.join("etc")).unwrap();
            store.add_app_layer(&apps, tree, &new, &written(sha256), None).unwrap()
        };
        assert_eq!(store.app_layers().unwrap(), []);
        let first = add("os@0123456789abcdef", "a");
        assert!(first.id.starts_with("web+db@"), "{}", first.id);
        assert!(store.layer_by_id(&first.id).unwrap().join("etc").is_dir());
        assert!(!dir.path().join("new").exists(), "it was moved, not copied");
        assert_eq!(add("os@0123456789abcdef", "a"), first);
        let other = add("os@ffffffffffffffff", "a");
        assert_ne!(other.id, first.id);
        assert_eq!(store.app_layers().unwrap().len(), 2);
        assert_eq!(store.app_layers_for("os@0123456789abcdef", &["db", "web"]).unwrap(), std::slice::from_ref(&first));
        assert_eq!(store.app_layers_for("os@0123456789abcdef", &["web"]).unwrap(), []);
        assert!(matches!(store.remove_app_layer(&first.id, &|id| id == first.id), Err(StoreError::InUse { .. })));
        store.remove_app_layer(&first.id, &|_| false).unwrap();
        assert_eq!(store.app_layers().unwrap(), [other]);
        let holds = [store.hold_app_layers().unwrap(), store.hold_app_layers().unwrap()];
        let exclusive = || {
            rustix::fs::flock(
                fs::File::open(store.layers_dir().join(".hold")).unwrap(),
                FlockOperation::NonBlockingLockExclusive,
            )
        };
        assert_eq!(exclusive(), Err(rustix::io::Errno::WOULDBLOCK), "nothing is removed while somebody holds them");
        drop(holds);
        exclusive().unwrap();
        assert!(matches!(store.remove_app_layer("../x", &|_| false), Err(StoreError::NoLayer { .. })));
    }
}
