//! An image becomes a tree of the store: each layer unpacked once, whatever images have it, and a directory of the tree's own on top.

use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::fs::{FlockOperation, Mode, OFlags, ResolveFlags, XattrFlags};
use serde::{Deserialize, Serialize};

use super::{Image, LayerBlob, Layout, OciError, Run, Wanted};
use crate::cache::{CacheError, customize};
use crate::layers::{Below, read_record};
use crate::merged::{self, Merged};
use crate::name::TemplateName;
use crate::progress::{Progress, Stage};
use crate::recipe::{Bootstrap, Bounds, Recipe};
use crate::rootdir::RootDir;
use crate::store::{Archive, IMAGE, Lock, Store, StoreError, Tree, remove_tree, sync_dir};
use crate::unpack::{self, Format, LayerMarks, UnpackError};

/// What stands in the cache for a template made from an image: which tree it is, and exactly what went in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    /// Its tree.
    pub tree: String,
    /// Where the image was, for people.
    pub source: PathBuf,
    /// `sha256:…` of its manifest.
    pub manifest: String,
    /// Those of its layers, the lowest first.
    pub layers: Vec<String>,
}

/// Held while layers come and go: one that nothing refers to yet is not removed meanwhile.
pub(crate) struct LayersLock {
    _file: fs::File,
}

impl Store {
    pub(crate) fn lock_layers(&self) -> Result<LayersLock, StoreError> {
        let dir = self.layers_dir();
        fs::create_dir_all(self.cache_dir())?;
        match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(StoreError::Call { call: "mkdir", path: dir, source: e });
            }
            _ => fs::set_permissions(&dir, PermissionsExt::from_mode(0o700))?,
        }
        let path = dir.join(".lock");
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
        let locked = rustix::fs::flock(&file, FlockOperation::LockExclusive);
        locked.map_err(|e| StoreError::Call { call: "flock", path, source: e.into() })?;
        Ok(LayersLock { _file: file })
    }

    /// Makes the tree of an image, and what stands for it in the cache. On an error nothing is changed but that layers may be there already.
    pub(crate) fn import_image(
        &self,
        recipe: &Recipe,
        source: (&Path, &Wanted),
        name: &TemplateName,
        lock: &Lock,
        progress: &mut dyn Progress,
    ) -> Result<(Archive, Tree), CacheError> {
        let (path, wanted) = source;
        let build = self.build_dir(name, lock)?;
        let made = self.import_into(recipe, path, wanted, name, &build, lock, progress);
        // The first error is the one to tell; what is left here is removed by the next call.
        let removed = remove_tree(&build);
        let made = made?;
        removed?;
        Ok(made)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one step of import_image, apart from it so that both ways out clear up"
    )]
    fn import_into(
        &self,
        recipe: &Recipe,
        path: &Path,
        wanted: &Wanted,
        name: &TemplateName,
        build: &Path,
        lock: &Lock,
        progress: &mut dyn Progress,
    ) -> Result<(Archive, Tree), CacheError> {
        let layout = self.layout(path, build, progress)?;
        let mut image = layout.read(wanted)?;
        let _layers = self.lock_layers()?;
        for layer in &image.layers {
            self.have_layer(&layout, layer, build, recipe, progress)?;
        }
        // Overlay takes no directory twice. Whatever the lower of two equal layers shows or hides, the upper does too.
        let mut below: Vec<String> = Vec::new();
        for id in image.layers.iter().rev().map(layer_id) {
            if !below.contains(&id) {
                below.push(id);
            }
        }
        if let Some(at) = below.iter().position(|id| self.marks(id).is_ok_and(|m| m.opaque.contains(&Vec::new()))) {
            below.truncate(at + 1);
        }
        progress.stage(Stage::Customize, None);
        let own = build.join("own");
        self.make_own(recipe, &below, &own, build, &mut image.run)?;
        let record = Below { layers: below, run: Some(image.run.clone()) };
        let tree = self.put_tree(name, &record, recipe, &own)?;
        progress.stage(Stage::Sync, None);
        let archive = self.point_to(name, &tree, path, &image, build, lock)?;
        Ok((archive, tree))
    }

    /// The directory of the image; an archive is unpacked for it, by the same hands as a template's.
    fn layout(&self, path: &Path, build: &Path, progress: &mut dyn Progress) -> Result<Layout, CacheError> {
        if fs::metadata(path)?.is_dir() {
            return Ok(Layout::open(path)?);
        }
        let mut file = fs::File::open(path)?.into_file();
        let target = build.join("image");
        fs::create_dir(&target)?;
        progress.stage(Stage::Bootstrap, Some(file.metadata()?.len()));
        let to = fs::File::open(&target)?;
        unpack::unpack(&mut file, to.as_fd(), Format::Archive, &self.limits(), progress)
            .map_err(|source| CacheError::Unpack { path: path.to_owned(), source })?;
        Ok(Layout::open(&target)?)
    }

    /// Unpacks a layer that is not there. It gets its name when its digest is right and all of it is on the disk.
    fn have_layer(
        &self,
        layout: &Layout,
        layer: &LayerBlob,
        build: &Path,
        recipe: &Recipe,
        progress: &mut dyn Progress,
    ) -> Result<(), CacheError> {
        let id = layer_id(layer);
        if self.layer_by_id(&id).is_ok() {
            return Ok(());
        }
        let mut file = layout.file(&layer.file)?;
        let new = build.join("layer");
        remove_tree(&new)?;
        fs::create_dir(&new)?;
        fs::set_permissions(&new, PermissionsExt::from_mode(0o755))?;
        let target = fs::File::open(&new)?;
        progress.stage(Stage::Unpack, Some(file.metadata()?.len()));
        let unpacked =
            unpack::unpack(&mut file, target.as_fd(), Format::Layer, &recipe.limits(&self.limits()), progress)
                .map_err(|source: UnpackError| CacheError::Unpack { path: PathBuf::from(&layer.file), source })?;
        if unpacked.sha256 != layer.sha256 {
            let (file, wanted, found) = (layer.file.clone(), layer.sha256.clone(), unpacked.sha256);
            return Err(OciError::Digest { file, wanted, found }.into());
        }
        set_opaque(&target, &unpacked.marks)?;
        let marks = self.marks_file(&id);
        fs::write(&marks, serde_json::to_vec(&unpacked.marks).map_err(std::io::Error::from)?)?;
        let synced = rustix::fs::syncfs(&target);
        synced.map_err(|e| StoreError::Call { call: "syncfs", path: new.clone(), source: e.into() })?;
        fs::rename(&new, self.layers_dir().join(&id))?;
        Ok(sync_dir(&self.layers_dir())?)
    }

    /// Fills the directory that is the tree's own: what the recipe changes, the attributes of directories that upper layers have only because
    /// something lies in them, and the directory the image's program starts in.
    fn make_own(
        &self,
        recipe: &Recipe,
        below: &[String],
        own: &Path,
        build: &Path,
        run: &mut Run,
    ) -> Result<(), CacheError> {
        fs::create_dir(own)?;
        fs::set_permissions(own, PermissionsExt::from_mode(0o755))?;
        let mut layers = Vec::new();
        for id in below {
            layers.push((self.layer_by_id(id)?, self.marks(id)?));
        }
        let paths: Vec<PathBuf> = layers.iter().map(|(path, _)| path.clone()).collect();
        let root = Merged::mount(&paths, own, &build.join("work"))?;
        merged::restore_directories(&root, &layers)?;
        run.ids = merged::ids_of(&root, &run.user)?;
        customize(recipe, &root.path())?;
        run.has_init = root.has_program(&["sbin/init", "etc/init", "bin/init"])?;
        if run.has_init {
            return Ok(());
        }
        if run.args.is_empty() {
            return Err(OciError::NothingToRun.into());
        }
        // As docker and podman do.
        Ok(RootDir::open(&root.path())?.make_missing(&run.dir)?)
    }

    fn put_tree(&self, name: &TemplateName, record: &Below, recipe: &Recipe, own: &Path) -> Result<Tree, CacheError> {
        let text = serde_json::to_vec(record).map_err(std::io::Error::from)?;
        // Wherever the image was: of the recipe, what it changes.
        let changes = Recipe { bootstrap: Bootstrap::Busybox {}, limits: Bounds::default(), ..recipe.clone() };
        let id = Self::tree_id(name, &[&text, format!("{changes:?}").as_bytes()]);
        let path = self.trees_dir().join(&id);
        // The same image and the same recipe: its tree is there, perhaps in use.
        if !path.exists() {
            fs::write(self.below_file(&id), text)?;
            let synced = rustix::fs::syncfs(fs::File::open(own)?);
            synced.map_err(|e| StoreError::Call { call: "syncfs", path: own.to_owned(), source: e.into() })?;
            fs::rename(own, &path)?;
            sync_dir(&self.trees_dir())?;
        }
        Ok(self.tree_by_id(&id)?)
    }

    fn point_to(
        &self,
        name: &TemplateName,
        tree: &Tree,
        source: &Path,
        image: &Image,
        build: &Path,
        lock: &Lock,
    ) -> Result<Archive, CacheError> {
        let pointer = Pointer {
            tree: tree.id.clone(),
            source: source.to_owned(),
            manifest: format!("sha256:{}", image.sha256),
            layers: image.layers.iter().map(|l| format!("sha256:{}", l.sha256)).collect(),
        };
        let file = build.join("pointer");
        fs::write(&file, serde_json::to_vec_pretty(&pointer).map_err(std::io::Error::from)?)?;
        Ok(self.publish(name, &file, IMAGE, lock)?)
    }

    fn marks_file(&self, id: &str) -> PathBuf {
        self.layers_dir().join(format!("{id}.marks"))
    }

    fn marks(&self, id: &str) -> Result<LayerMarks, StoreError> {
        Ok(read_record(&self.marks_file(id))?.unwrap_or_default())
    }

    /// Removes the layers of images that no tree has; returns their names.
    ///
    /// # Errors
    /// What a tree has can't be read: then nothing is removed.
    pub fn prune_layers(&self) -> Result<Vec<String>, StoreError> {
        let _lock = self.lock_layers()?;
        let mut used = std::collections::BTreeSet::new();
        for id in self.tree_ids()? {
            used.extend(self.below(&id)?.layers);
        }
        let mut removed = Vec::new();
        for entry in fs::read_dir(self.layers_dir())? {
            let Ok(id) = entry?.file_name().into_string() else { continue };
            if crate::layers::is_blob(&id) && !used.contains(&id) {
                // Renamed first: a layer of its name is whole or not there.
                let going = self.layers_dir().join(".going");
                remove_tree(&going)?;
                fs::rename(self.layers_dir().join(&id), &going)?;
                remove_tree(&going)?;
                crate::store::remove_file(&self.marks_file(&id))?;
                removed.push(id);
            }
        }
        Ok(removed)
    }
}

fn layer_id(layer: &LayerBlob) -> String {
    format!("sha256-{}", layer.sha256)
}

/// The child that unpacked the layer may not set `trusted` attributes, and what it says is not believed further than that it names directories
/// below the layer's root.
fn set_opaque(root: &fs::File, marks: &LayerMarks) -> Result<(), CacheError> {
    let inside =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for path in marks.opaque.iter().filter(|p| !p.is_empty()) {
        let shown = || PathBuf::from(unpack::member::shown(path));
        let directory = rustix::fs::openat2(root, path.as_slice(), flags, Mode::empty(), inside)
            .map_err(|e| StoreError::Call { call: "openat2", path: shown(), source: e.into() })?;
        rustix::fs::fsetxattr(&directory, "trusted.overlay.opaque", b"y", XattrFlags::empty()).map_err(|e| {
            StoreError::Call { call: "fsetxattr(trusted.overlay.opaque)", path: shown(), source: e.into() }
        })?;
    }
    Ok(())
}
