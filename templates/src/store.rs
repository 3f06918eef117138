//! The template area of a host: `template/cache` with its archives and the trees unpacked from them.
//!
//! ```text
//! cache/debian-12-x86_64.tar.zst          an archive; whatever OpenVZ made works as it is
//! cache/.trees/                           0700: users of the host cannot run the setuid files below
//! cache/.trees/debian-12-x86_64@91f0…/    a tree: 0755, never changed once it has this name
//! cache/.trees/debian-12-x86_64@91f0….8192.img   the same tree as an image, of which containers get copies
//! cache/.trees/debian-12-x86_64@91f0….layers   what lies below it, if it was made from an image of several layers
//! cache/.trees/debian-12-x86_64.stamp     which archive (size, time, inode) gave which tree
//! cache/.trees/debian-12-x86_64.lock      held by who unpacks, builds or removes this template
//! ```
//!
//! A changed archive has another digest, so another tree; containers keep the tree they were created on.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::name::TemplateName;
use crate::progress::{Progress, Stage};
use crate::unpack::{self, Counts, Format, Limits, UnpackError};

/// Extensions of caches. Of several archives of one name the newest counts; of equally old ones the first here.
const EXTENSIONS: [&str; 6] = ["tar.zst", "tar.xz", "tar.gz", "tar.bz2", "tar", IMAGE];
/// Extension of what stands in the cache for a template made from an image.
pub(crate) const IMAGE: &str = "oci.json";
/// Of the SHA-256 in the name of a tree, in hexadecimal digits.
pub(crate) const ID_DIGITS: usize = 16;

/// What failed in the template area.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No archive of this name.
    #[error("no cache of template {name} in {}", cache.display())]
    NotFound {
        /// The template.
        name: String,
        /// Where it was looked for.
        cache: PathBuf,
    },
    /// The tree a container was created on is gone.
    #[error("no tree {id} in {}", trees.display())]
    NoTree {
        /// The tree.
        id: String,
        /// Where it was looked for.
        trees: PathBuf,
    },
    /// A layer of a container's, or of a tree, is gone.
    #[error("no layer {id} in {}", layers.display())]
    NoLayer {
        /// The layer.
        id: String,
        /// Where it was looked for.
        layers: PathBuf,
    },
    /// What lies below a tree can't be told.
    #[error("{} is damaged: {reason}", path.display())]
    Record {
        /// The file that says it.
        path: PathBuf,
        /// In the words of its reader.
        reason: String,
    },
    /// Overlay would show a directory where the image has a link.
    #[error("a layer of the image has files below {path}, which is a link in a layer below: such images are not taken")]
    ThroughLink {
        /// In the image.
        path: String,
    },
    /// The user that an image's program is to run as.
    #[error(
        "the image is to run as {name:?}, which is neither in its etc/passwd or etc/group nor a number up to 65535"
    )]
    NoUser {
        /// User or group.
        name: String,
    },
    /// The archive is a link, a directory or a device.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// The archive.
        path: PathBuf,
    },
    /// Containers run from it.
    #[error("template {name} is in use: {}", trees.join(", "))]
    InUse {
        /// The template.
        name: String,
        /// Its trees that are.
        trees: Vec<String>,
    },
    /// The archive could not be unpacked.
    #[error("template {name} from {}", archive.display())]
    Unpack {
        /// The template.
        name: String,
        /// Its archive.
        archive: PathBuf,
        /// Why.
        #[source]
        source: UnpackError,
    },
    /// A file operation; the error names call and path.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A call on an open file.
    #[error("{call}({})", path.display())]
    Call {
        /// Its name.
        call: &'static str,
        /// The file.
        path: PathBuf,
        /// Its error.
        #[source]
        source: io::Error,
    },
}

/// A template area, below one directory (TEMPLATE of `vz.conf`).
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    limits: Limits,
}

/// An archive in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// Of the template.
    pub name: TemplateName,
    /// Of the file.
    pub path: PathBuf,
    stamp: FileStamp,
}

impl Archive {
    /// Size of the file in bytes.
    pub fn size(&self) -> u64 {
        self.stamp.size
    }

    /// Seconds since 1970.
    pub fn mtime(&self) -> i64 {
        self.stamp.mtime_sec
    }
}

/// An unpacked template: the lower layer of containers. Never written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Root directories, the uppermost first, each in overlay's format. One, unless it was made from an image of several layers.
    pub layers: Vec<PathBuf>,
    /// `<name>@<digits of the archive's SHA-256>`; stays valid for [`Store::tree_by_id`] as long as the tree exists.
    pub id: String,
    /// What the archive held, if this call unpacked it.
    pub unpacked: Option<Counts>,
}

/// A row of [`Store::list`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Of the template.
    pub name: TemplateName,
    /// Its archive; `None` if only trees of it are left.
    pub archive: Option<Archive>,
    /// Ids of its trees, sorted.
    pub trees: Vec<String>,
}

/// What tells an archive from a changed one without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct FileStamp {
    size: u64,
    mtime_sec: i64,
    mtime_nsec: i64,
    inode: u64,
}

impl FileStamp {
    fn of(metadata: &std::fs::Metadata) -> Self {
        let (mtime_sec, mtime_nsec) = (metadata.mtime(), metadata.mtime_nsec());
        Self { size: metadata.len(), mtime_sec, mtime_nsec, inode: metadata.ino() }
    }
}

#[derive(Serialize, Deserialize)]
struct Stamp {
    archive: FileStamp,
    tree: String,
}

impl Store {
    /// Nothing is read or made yet.
    pub fn open(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), limits: Limits::default() }
    }

    /// Other bounds for archives than the default ones.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Directory of the archives.
    pub fn cache_dir(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// Directory of the administrator's own recipes, `<name>.toml`.
    pub fn recipes_dir(&self) -> PathBuf {
        self.root.join("recipes")
    }

    pub(crate) fn trees_dir(&self) -> PathBuf {
        self.root.join("cache/.trees")
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    pub(crate) fn beside(&self, name: &TemplateName, suffix: &str) -> PathBuf {
        self.trees_dir().join(format!("{name}.{suffix}"))
    }

    /// The newest archive of `name`.
    pub fn find(&self, name: &TemplateName) -> Result<Archive, StoreError> {
        let mut newest: Option<Archive> = None;
        for path in self.archive_paths(name) {
            let metadata = match fs::symlink_metadata(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                result => result?,
            };
            let stamp = FileStamp::of(&metadata);
            let age = |s: &FileStamp| (s.mtime_sec, s.mtime_nsec);
            if newest.as_ref().is_none_or(|n| age(&stamp) > age(&n.stamp)) {
                newest = Some(Archive { name: name.clone(), path, stamp });
            }
        }
        newest.ok_or_else(|| StoreError::NotFound { name: name.to_string(), cache: self.cache_dir() })
    }

    fn archive_paths(&self, name: &TemplateName) -> impl Iterator<Item = PathBuf> {
        let cache = self.cache_dir();
        EXTENSIONS.iter().map(move |extension| cache.join(format!("{name}.{extension}")))
    }

    /// The tree of `archive`, unpacked by this call unless one before did. On an unchanged archive it costs three
    /// system calls; else the process must have one thread only, for a child is forked.
    pub fn tree(&self, archive: &Archive, progress: &mut dyn Progress) -> Result<Tree, StoreError> {
        if is_image(&archive.path) {
            return self.tree_of_image(&archive.path);
        }
        // A symbolic link is followed here, once: the stamp is that of the file it leads to.
        let current = FileStamp::of(&fs::metadata(&archive.path)?);
        if let Some(tree) = self.warm(&archive.name, current) {
            return Ok(tree);
        }
        let lock = self.lock(&archive.name)?;
        // Another process may have unpacked it while this one waited.
        match self.warm(&archive.name, current) {
            Some(tree) => Ok(tree),
            None => self.unpack(archive, &lock, progress),
        }
    }

    fn warm(&self, name: &TemplateName, current: FileStamp) -> Option<Tree> {
        let text = fs::read(self.beside(name, "stamp")).ok()?;
        // A damaged stamp is no stamp: unpacking again is always right.
        let stamp: Stamp = serde_json::from_slice(&text).ok()?;
        (stamp.archive == current).then_some(())?;
        self.tree_by_id(&stamp.tree).ok()
    }

    /// The tree that a container was created on.
    pub fn tree_by_id(&self, id: &str) -> Result<Tree, StoreError> {
        let trees = self.trees_dir();
        let missing = || StoreError::NoTree { id: id.escape_debug().to_string(), trees: trees.clone() };
        // From a configuration file, so checked as a name before it becomes part of a path.
        split_id(id).ok_or_else(missing)?;
        let path = trees.join(id);
        match fs::symlink_metadata(&path) {
            Ok(m) if m.is_dir() => {
                Ok(Tree { layers: self.with_layers_below(id, path)?, id: id.to_owned(), unpacked: None })
            }
            Ok(_) => Err(missing()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(missing()),
            Err(e) => Err(e.into()),
        }
    }

    fn unpack(&self, archive: &Archive, _lock: &Lock, progress: &mut dyn Progress) -> Result<Tree, StoreError> {
        let mut file =
            fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&archive.path)?.into_file();
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(StoreError::NotAFile { path: archive.path.clone() });
        }
        let new = self.beside(&archive.name, "new");
        // Left by an unpacker that was killed; under the lock nobody else's.
        remove_tree(&new)?;
        let made = self.unpack_to(&mut file, metadata.len(), archive, &new, progress);
        if made.is_err() {
            // The first error is the one to tell; what cannot be removed now is removed by the next call.
            let _ = remove_tree(&new);
        }
        let (tree, counts) = made?;
        let stamp = Stamp { archive: FileStamp::of(&metadata), tree: tree.id.clone() };
        self.write_stamp(&archive.name, &stamp)?;
        Ok(Tree { unpacked: Some(counts), ..tree })
    }

    fn unpack_to(
        &self,
        file: &mut std::fs::File,
        size: u64,
        archive: &Archive,
        new: &Path,
        progress: &mut dyn Progress,
    ) -> Result<(Tree, Counts), StoreError> {
        fs::create_dir(new)?;
        fs::set_permissions(new, PermissionsExt::from_mode(0o755))?;
        let target = fs::File::open(new)?;
        progress.stage(Stage::Unpack, Some(size));
        let unpacked =
            unpack::unpack(file, target.as_fd(), Format::Archive, &self.limits, progress).map_err(|source| {
                StoreError::Unpack { name: archive.name.to_string(), archive: archive.path.clone(), source }
            })?;
        progress.stage(Stage::Sync, None);
        let synced = rustix::fs::syncfs(&target);
        synced.map_err(|e| StoreError::Call { call: "syncfs", path: new.to_owned(), source: e.into() })?;
        let id = format!("{}@{}", archive.name, &unpacked.sha256[..ID_DIGITS]);
        let path = self.trees_dir().join(&id);
        // The same archive, touched or copied: its tree is there, perhaps in use, and the same.
        if path.exists() {
            remove_tree(new)?;
        } else {
            fs::rename(new, &path)?;
            sync_dir(&self.trees_dir())?;
        }
        Ok((Tree { layers: vec![path], id, unpacked: None }, unpacked.counts))
    }

    fn write_stamp(&self, name: &TemplateName, stamp: &Stamp) -> Result<(), StoreError> {
        let new = self.beside(name, "stamp-new");
        let text = serde_json::to_vec(stamp).map_err(io::Error::from)?;
        let mut file = fs::File::create(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(new, self.beside(name, "stamp"))?;
        Ok(sync_dir(&self.trees_dir())?)
    }

    /// Every template that has an archive or a tree, sorted by name. Files that are no templates are passed over.
    pub fn list(&self) -> Result<Vec<Template>, StoreError> {
        let mut found = std::collections::BTreeMap::<TemplateName, Vec<String>>::new();
        for file in names_in(&self.cache_dir())? {
            let Some(file) = file.to_str() else { continue };
            let base = EXTENSIONS.iter().find_map(|e| file.strip_suffix(e)?.strip_suffix('.'));
            // A leading dot marks a file in the making; the parser would strip it.
            if let Some(name) = base.filter(|b| !b.starts_with('.')).and_then(|b| b.parse().ok()) {
                found.entry(name).or_default();
            }
        }
        for id in names_in(&self.trees_dir())? {
            if let Some((id, name)) = id.to_str().and_then(|id| Some((id, split_id(id)?))) {
                found.entry(name).or_default().push(id.to_owned());
            }
        }
        let row = |(name, mut trees): (TemplateName, Vec<String>)| {
            trees.sort();
            let archive = match self.find(&name) {
                Ok(archive) => Some(archive),
                Err(StoreError::NotFound { .. }) => None,
                Err(e) => return Err(e),
            };
            Ok(Template { name, archive, trees })
        };
        found.into_iter().map(row).collect()
    }

    /// Removes the archives and the trees of `name`, or nothing if a tree is `in_use`. Whoever creates containers must
    /// hold off creating one meanwhile, or `in_use` cannot know.
    pub fn remove(&self, name: &TemplateName, in_use: &dyn Fn(&str) -> bool) -> Result<(), StoreError> {
        let _lock = self.lock(name)?;
        let trees = self.trees_of(name)?;
        let archives: Vec<_> = self.archive_paths(name).filter(|p| p.symlink_metadata().is_ok()).collect();
        if trees.is_empty() && archives.is_empty() {
            return Err(StoreError::NotFound { name: name.to_string(), cache: self.cache_dir() });
        }
        let used: Vec<_> = trees.iter().filter(|id| in_use(id)).cloned().collect();
        if !used.is_empty() {
            return Err(StoreError::InUse { name: name.to_string(), trees: used });
        }
        remove_file(&self.beside(name, "stamp"))?;
        for path in archives {
            remove_file(&path)?;
        }
        remove_file(&self.lock_file(name))?;
        trees.iter().try_for_each(|id| self.remove_one(name, id))
    }

    /// Removes trees that are neither `in_use` nor that of the current archive; returns their ids.
    pub fn prune(&self, name: &TemplateName, in_use: &dyn Fn(&str) -> bool) -> Result<Vec<String>, StoreError> {
        let _lock = self.lock(name)?;
        let tree =
            |a: Archive| if is_image(&a.path) { self.tree_of_image(&a.path).ok() } else { self.warm(name, a.stamp) };
        let current = self.find(name).ok().and_then(tree).map(|t| t.id);
        let mut trees = self.trees_of(name)?;
        trees.retain(|id| Some(id) != current.as_ref() && !in_use(id));
        trees.iter().try_for_each(|id| self.remove_one(name, id))?;
        Ok(trees)
    }

    fn trees_of(&self, name: &TemplateName) -> Result<Vec<String>, StoreError> {
        let ids = names_in(&self.trees_dir())?.into_iter().filter_map(|id| id.into_string().ok());
        Ok(ids.filter(|id| split_id(id).as_ref() == Some(name)).collect())
    }

    /// Renamed first: a tree of this name is whole or not there, whenever the removal is interrupted.
    fn remove_one(&self, name: &TemplateName, id: &str) -> Result<(), StoreError> {
        let going = self.beside(name, "new");
        remove_tree(&going)?;
        fs::rename(self.trees_dir().join(id), &going)?;
        // Only now what tells of it: a tree without its layers below would be another.
        let made = format!("{id}.");
        for file in names_in(&self.trees_dir())? {
            if file.to_str().is_some_and(|file| file.starts_with(&made)) {
                remove_file(&self.trees_dir().join(file))?;
            }
        }
        Ok(remove_tree(&going)?)
    }

    /// Excludes others who unpack, build or remove `name`. The kernel releases it when its holder dies.
    pub(crate) fn lock(&self, name: &TemplateName) -> Result<Lock, StoreError> {
        fs::create_dir_all(self.cache_dir())?;
        let trees = self.trees_dir();
        match std::fs::DirBuilder::new().mode(0o700).create(&trees) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(StoreError::Call { call: "mkdir", path: trees, source: e });
            }
            _ => fs::set_permissions(&trees, PermissionsExt::from_mode(0o700))?,
        }
        let path = self.beside(name, "lock");
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path)?;
        let locked = rustix::fs::flock(&file, FlockOperation::LockExclusive);
        locked.map_err(|e| StoreError::Call { call: "flock", path, source: e.into() })?;
        Ok(Lock { _file: file })
    }

    /// Where a cache is built: below the 0700 directory, one per template, under its lock.
    pub(crate) fn build_dir(&self, name: &TemplateName, _lock: &Lock) -> Result<PathBuf, StoreError> {
        let path = self.beside(name, "build");
        remove_tree(&path)?;
        fs::create_dir(&path)?;
        Ok(path)
    }

    /// Puts a finished archive in its place; being the newest, it counts.
    pub(crate) fn publish(
        &self,
        name: &TemplateName,
        finished: &Path,
        extension: &str,
        _lock: &Lock,
    ) -> Result<Archive, StoreError> {
        let path = self.cache_dir().join(format!("{name}.{extension}"));
        fs::File::open(finished)?.sync_all()?;
        fs::rename(finished, &path)?;
        sync_dir(&self.cache_dir())?;
        self.find(name)
    }
}

/// See [`Store::lock`].
pub(crate) struct Lock {
    _file: fs::File,
}

pub(crate) fn is_image(path: &Path) -> bool {
    path.to_str().is_some_and(|p| p.ends_with(IMAGE))
}

/// The template of a well-formed tree id.
pub(crate) fn split_id(id: &str) -> Option<TemplateName> {
    let (name, digits) = id.split_once('@')?;
    let well_formed = digits.len() == ID_DIGITS && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !well_formed || name.starts_with('.') {
        return None;
    }
    name.parse().ok()
}

pub(crate) fn names_in(dir: &Path) -> io::Result<Vec<OsString>> {
    match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.map(|e| Ok(e?.file_name())).collect(),
    }
}

/// Without following links; the depth of a tree is bounded ([`unpack::member`]), so descriptors suffice.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(s: &str) -> TemplateName {
        s.parse().unwrap()
    }

    #[test]
    fn the_newest_archive_of_a_name_is_found_whatever_its_format() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path());
        assert!(matches!(store.find(&name("a")), Err(StoreError::NotFound { .. })));
        fs::create_dir(store.cache_dir()).unwrap();
        for (file, age_seconds) in [("a.tar.zst", 100), ("a.tar.gz", 50), ("a.tar", 200), ("ab.tar.xz", 1)] {
            let file = std::fs::File::create(store.cache_dir().join(file)).unwrap();
            file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(age_seconds)).unwrap();
        }
        assert!(store.find(&name("a")).unwrap().path.ends_with("a.tar.gz"));
        let listed: Vec<_> = store.list().unwrap().into_iter().map(|t| t.name.to_string()).collect();
        assert_eq!(listed, ["a", "ab"]);
    }

    #[test]
    fn tree_ids_from_configuration_files_cannot_leave_the_directory() {
        let store = Store::open("/nonexistent");
        for id in ["", "..", "../x@0123456789abcdef", "a@../../etc", "a@0123456789ABCDEF", ".a@0123456789abcdef", "a"] {
            assert!(matches!(store.tree_by_id(id), Err(StoreError::NoTree { .. })), "{id:?}");
        }
        assert_eq!(split_id("a-1@0123456789abcdef"), Some(name("a-1")));
    }
}
