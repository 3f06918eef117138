//! Layers: directories in overlay's format that lie below a tree or over one, each stored once for all that have it.
//!
//! ```text
//! cache/.layers/                          0700, as the trees
//! cache/.layers/sha256-6c3c62…/           a layer of an OCI image, named by the digest of its blob
//! cache/.layers/nginx@0123…/              an application layer, put over the tree of a container (VZ_LAYERS)
//! ```

use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::name::TemplateName;
use crate::oci::{Pointer, Run};
use crate::store::{Archive, ID_DIGITS, Store, StoreError, Tree, is_image, names_in, split_id};

/// What lies below a tree's own directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Below {
    /// Names of layers, the uppermost first.
    pub(crate) layers: Vec<String>,
    /// What the image that it was made from wants to be run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) run: Option<Run>,
}

impl Store {
    /// Directory of the layers.
    pub fn layers_dir(&self) -> PathBuf {
        self.cache_dir().join(".layers")
    }

    /// The root directory of a layer: of an application (`NAME@DIGEST`), or of an OCI image (`sha256-DIGEST`).
    ///
    /// # Errors
    /// [`StoreError::NoLayer`]: it is not there, or `id` is no such name.
    pub fn layer_by_id(&self, id: &str) -> Result<PathBuf, StoreError> {
        let layers = self.layers_dir();
        let missing = || StoreError::NoLayer { id: id.escape_debug().to_string(), layers: layers.clone() };
        // From a configuration file, so checked as a name before it becomes part of a path.
        if split_id(id).is_none() && !is_blob(id) {
            return Err(missing());
        }
        let path = layers.join(id);
        match fs::symlink_metadata(&path) {
            Ok(m) if m.is_dir() => Ok(path),
            Ok(_) => Err(missing()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(missing()),
            Err(e) => Err(e.into()),
        }
    }

    /// A tree's own directory, and those of the layers below it.
    pub(crate) fn with_layers_below(&self, id: &str, own: PathBuf) -> Result<Vec<PathBuf>, StoreError> {
        let mut layers = vec![own];
        for layer in self.below(id)?.layers {
            layers.push(self.layer_by_id(&layer)?);
        }
        Ok(layers)
    }

    /// What is recorded to lie below a tree; of a tree made from an archive, nothing.
    pub(crate) fn below(&self, id: &str) -> Result<Below, StoreError> {
        read_record(&self.below_file(id)).map(Option::unwrap_or_default)
    }

    /// What the image that a tree was made from wants to be run; `None` of other trees.
    ///
    /// # Errors
    /// [`StoreError::Record`].
    pub fn run_of(&self, id: &str) -> Result<Option<Run>, StoreError> {
        split_id(id).map_or(Ok(None), |_| Ok(self.below(id)?.run))
    }

    /// What image a template was made from; `None` of one that is an archive.
    ///
    /// # Errors
    /// [`StoreError::Record`].
    pub fn image_of(&self, archive: &Archive) -> Result<Option<Pointer>, StoreError> {
        if is_image(&archive.path) { read_record(&archive.path) } else { Ok(None) }
    }

    /// The tree that what stands in the cache for an image names.
    pub(crate) fn tree_of_image(&self, path: &Path) -> Result<Tree, StoreError> {
        let gone = || StoreError::Record { path: path.to_owned(), reason: String::from("it names no tree") };
        let pointer: Pointer = read_record(path)?.ok_or_else(gone)?;
        self.tree_by_id(&pointer.tree)
    }

    /// The id of a tree that is made from these.
    pub(crate) fn tree_id(name: &TemplateName, parts: &[&[u8]]) -> String {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        format!("{name}@{}", &format!("{:x}", hash.finalize())[..ID_DIGITS])
    }

    /// The ids of all trees.
    pub(crate) fn tree_ids(&self) -> Result<Vec<String>, StoreError> {
        let ids = names_in(&self.trees_dir())?.into_iter().filter_map(|id| id.into_string().ok());
        Ok(ids.filter(|id| split_id(id).is_some()).collect())
    }

    pub(crate) fn below_file(&self, id: &str) -> PathBuf {
        self.trees_dir().join(format!("{id}.layers"))
    }
}

/// A record of ours, `None` where there is none.
pub(crate) fn read_record<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, StoreError> {
    let text = match fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text?,
    };
    let parsed = serde_json::from_slice(&text);
    parsed.map(Some).map_err(|e| StoreError::Record { path: path.to_owned(), reason: e.to_string() })
}

/// Whether this is the name of an image's layer.
pub(crate) fn is_blob(id: &str) -> bool {
    let digits = id.strip_prefix("sha256-");
    digits.is_some_and(|d| d.len() == 64 && d.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOB: &str = "sha256-6c3c624b58dbbcd3c0dd82b4c53f04194d1247c6eebdaab7c610cf7d66709b3b";

    #[test]
    fn a_layer_is_found_by_its_name_and_no_name_leads_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path());
        fs::create_dir_all(store.layers_dir().join(BLOB)).unwrap();
        fs::create_dir_all(store.layers_dir().join("nginx@0123456789abcdef")).unwrap();
        for id in [BLOB, "nginx@0123456789abcdef"] {
            assert_eq!(store.layer_by_id(id).unwrap(), store.layers_dir().join(id));
        }
        for id in ["", "..", "../.layers", "sha256-", &BLOB.to_uppercase(), "a@0123456789abcdef", "sha256-../../x"] {
            assert!(matches!(store.layer_by_id(id), Err(StoreError::NoLayer { .. })), "{id:?}");
        }
    }

    #[test]
    fn a_tree_has_the_layers_of_its_record_below_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path());
        let id = "a@0123456789abcdef";
        fs::create_dir_all(store.trees_dir().join(id)).unwrap();
        let own = store.trees_dir().join(id);
        assert_eq!(store.tree_by_id(id).unwrap().layers, std::slice::from_ref(&own));
        let record = serde_json::to_vec(&Below { layers: vec![BLOB.to_owned()], run: None }).unwrap();
        fs::write(store.below_file(id), record).unwrap();
        assert!(matches!(store.tree_by_id(id), Err(StoreError::NoLayer { .. })), "it is not there yet");
        fs::create_dir_all(store.layers_dir().join(BLOB)).unwrap();
        assert_eq!(store.tree_by_id(id).unwrap().layers, [own, store.layers_dir().join(BLOB)]);
        fs::write(store.below_file(id), "{").unwrap();
        assert!(matches!(store.tree_by_id(id), Err(StoreError::Record { .. })));
    }
}
