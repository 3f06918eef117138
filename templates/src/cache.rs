//! Making a cache from a recipe: first files, then what the recipe changes, then one archive.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fs_err as fs;

use crate::busybox::{self, BusyboxError};
use crate::debian::{self, DebianError, Locked};
use crate::given;
use crate::layers::read_record;
use crate::name::TemplateName;
use crate::oci::OciError;
use crate::progress::{Progress, Stage};
use crate::recipe::{self, Bootstrap, Recipe, RecipeError};
use crate::rootdir::{RootDir, RootDirError};
use crate::store::{Archive, Store, StoreError, Tree, remove_tree};
use crate::unpack::UnpackError;
use crate::unpack::member::shown;

/// Good enough: higher levels take several times longer for a tenth less.
const ZSTD_LEVEL: i32 = 3;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What failed while a cache was made.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// There is no such recipe, or it is wrong.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// In the template area.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The first files of busybox.
    #[error(transparent)]
    Busybox(#[from] BusyboxError),
    /// The first files of Debian.
    #[error(transparent)]
    Debian(#[from] DebianError),
    /// A file of the recipe.
    #[error(transparent)]
    RootDir(#[from] RootDirError),
    /// An image.
    #[error(transparent)]
    Oci(#[from] OciError),
    /// What a template is made from could not be unpacked.
    #[error("unpack {}", path.display())]
    Unpack {
        /// The archive, or the layer of an image.
        path: PathBuf,
        /// Why.
        #[source]
        source: UnpackError,
    },
    /// What a template is made from is not what the recipe says.
    #[error("{} has the SHA-256 {found}, and the recipe says {wanted}", path.display())]
    Hash {
        /// The archive.
        path: PathBuf,
        /// In hexadecimal.
        wanted: String,
        /// In hexadecimal.
        found: String,
    },
    /// There is no system in it.
    #[error("{} holds no system: no /etc, /bin, /usr or /sbin in {root:?}", path.display())]
    NoSystem {
        /// The archive or directory.
        path: PathBuf,
        /// Where it was looked for.
        root: String,
    },
    /// A command of the recipe could not be run.
    #[error("run {argv:?} in the template")]
    Run {
        /// Of the recipe.
        argv: Vec<String>,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `cp(1)` failed.
    #[error("{argv:?} failed ({status}): {stderr}")]
    Copy {
        /// What was copied.
        argv: Vec<String>,
        /// Of the process.
        status: String,
        /// The first thing that it said.
        stderr: String,
    },
    /// A command of the recipe failed.
    #[error("{argv:?} in the template failed ({status}): {stderr}")]
    Command {
        /// Of the recipe.
        argv: Vec<String>,
        /// Of the process.
        status: String,
        /// What it said.
        stderr: String,
    },
    /// Nothing says what went in before.
    #[error("there is no {}: `vzpkg create cache` without --locked writes it", path.display())]
    NoLockFile {
        /// Where it would be.
        path: PathBuf,
    },
    /// `tar(1)` failed.
    #[error("tar failed ({status}): {stderr}")]
    Tar {
        /// Of the process.
        status: String,
        /// What it said.
        stderr: String,
    },
    /// A file operation; the error names call and path.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Store {
    /// Makes the cache of `name` from its recipe, and its tree. An archive that is there is replaced; containers on its
    /// tree keep that. On an error nothing is changed. The process must have one thread, as for [`Store::tree`].
    pub fn create_cache(
        &self,
        name: &TemplateName,
        progress: &mut dyn Progress,
    ) -> Result<(Archive, Tree), CacheError> {
        let recipe = Recipe::load(name, &self.recipes_dir())?;
        self.create_cache_by(&recipe, name, progress)
    }

    /// The same by a recipe that is no file.
    pub fn create_cache_by(
        &self,
        recipe: &Recipe,
        name: &TemplateName,
        progress: &mut dyn Progress,
    ) -> Result<(Archive, Tree), CacheError> {
        self.create(recipe, None, name, progress)
    }

    /// The same with exactly the packages of the lock file that is beside the cache.
    pub fn create_cache_locked(
        &self,
        name: &TemplateName,
        progress: &mut dyn Progress,
    ) -> Result<(Archive, Tree), CacheError> {
        let recipe = Recipe::load(name, &self.recipes_dir())?;
        let path = self.lock_file(name);
        let locked = read_record(&path)?.ok_or(CacheError::NoLockFile { path })?;
        self.create(&recipe, Some(&locked), name, progress)
    }

    pub(crate) fn lock_file(&self, name: &TemplateName) -> PathBuf {
        self.cache_dir().join(format!("{name}.lock.json"))
    }

    fn create(
        &self,
        recipe: &Recipe,
        wanted: Option<&Locked>,
        name: &TemplateName,
        progress: &mut dyn Progress,
    ) -> Result<(Archive, Tree), CacheError> {
        let archive = {
            let lock = self.lock(name)?;
            if let Bootstrap::Oci(image) = &recipe.bootstrap {
                return self.import_image(recipe, (&image.source, &image.wanted()), name, &lock, progress);
            }
            let build = self.build_dir(name, &lock)?;
            let built = self.build_archive(recipe, wanted, &build, progress);
            let published = built.and_then(|(file, locked)| {
                let archive = self.publish(name, &file, "tar.zst", &lock)?;
                match locked {
                    Some(locked) => {
                        fs::write(self.lock_file(name), serde_json::to_vec_pretty(&locked).map_err(io::Error::from)?)?;
                    }
                    None => crate::store::remove_file(&self.lock_file(name))?,
                }
                Ok(archive)
            });
            // The first error is the one to tell; what is left here is removed by the next call.
            let removed = remove_tree(&build);
            let archive = published?;
            removed?;
            archive
        };
        let tree = self.tree(&archive, progress)?;
        Ok((archive, tree))
    }

    /// Works in the empty directory `build` and returns the archive in it.
    fn build_archive(
        &self,
        recipe: &Recipe,
        wanted: Option<&Locked>,
        build: &Path,
        progress: &mut dyn Progress,
    ) -> Result<(PathBuf, Option<Locked>), CacheError> {
        let mut locked = None;
        let mut root = build.join("root");
        fs::create_dir(&root)?;
        progress.stage(Stage::Bootstrap, None);
        match &recipe.bootstrap {
            Bootstrap::Busybox {} => busybox::bootstrap(&root)?,
            Bootstrap::Mmdebstrap(packages) => {
                locked = Some(debian::bootstrap(packages, wanted, &root, build, progress)?)
            }
            Bootstrap::Archive(archive) => {
                root = given::unpack(archive, &root, &recipe.limits(&self.limits()), progress)?;
            }
            Bootstrap::Directory(directory) => given::copy(&directory.source, &root)?,
            Bootstrap::Oci(_) => unreachable!("an image becomes layers, not an archive"),
        }
        progress.stage(Stage::Customize, None);
        customize(recipe, &root)?;
        let file = build.join("archive");
        progress.stage(Stage::Pack, None);
        pack(&root, &file, locked.as_ref().map(|l| l.epoch), progress)?;
        Ok((file, locked))
    }
}

pub(crate) fn customize(recipe: &Recipe, root: &Path) -> Result<(), CacheError> {
    let dir = RootDir::open(root)?;
    for path in &recipe.remove {
        dir.remove(path)?;
    }
    for directory in &recipe.directories {
        dir.directory(&directory.path, directory.mode)?;
    }
    for file in &recipe.files {
        dir.write(&file.path, file.mode, file.content.as_bytes())?;
    }
    for link in &recipe.links {
        dir.link(&link.path, &link.target)?;
    }
    for unit in &recipe.services.mask {
        dir.link(&format!("/etc/systemd/system/{unit}"), "/dev/null")?;
    }
    for (verb, units) in [("enable", &recipe.services.enable), ("disable", &recipe.services.disable)] {
        if !units.is_empty() {
            let argv = ["systemctl", verb, "--"].into_iter().chain(units.iter().map(String::as_str));
            run_inside(root, &recipe::Command { argv: argv.map(String::from).collect() })?;
        }
    }
    recipe.commands.iter().try_for_each(|command| run_inside(root, command))
}

/// By chroot(8): this runs as the host's root, on packages and commands that the administrator chose.
fn run_inside(root: &Path, command: &recipe::Command) -> Result<(), CacheError> {
    let argv = &command.argv;
    let mut chroot = Command::new("chroot");
    chroot.arg("--").arg(root).args(argv).env_clear().env("PATH", PATH).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    let output = chroot.output().map_err(|source| CacheError::Run { argv: argv.clone(), source })?;
    if !output.status.success() {
        let (status, stderr) = (output.status.to_string(), shown(output.stderr.trim_ascii()));
        return Err(CacheError::Command { argv: argv.clone(), status, stderr });
    }
    Ok(())
}

/// `tar(1)` reads the tree while this compresses what it writes, each on a CPU.
pub(crate) fn pack(
    root: &Path,
    file: &Path,
    epoch: Option<u64>,
    progress: &mut dyn Progress,
) -> Result<(), CacheError> {
    let mut command = Command::new("tar");
    command.args(["--create", "--format=posix", "--numeric-owner", "--sort=name"]);
    // Holes are where zeros are, not where a file system has left them out; later versions name such files after tar's process.
    command.args(["--sparse", "--sparse-version=0.0", "--hole-detection=raw"]);
    // system.* would be ACLs of the host's directories inherited on the way; file capabilities are security.*.
    command.args(["--xattrs", "--xattrs-include=security.capability", "--xattrs-include=user.*"]);
    // Not the times of reading, nor tar's process id: the same tree packs to the same bytes.
    command.arg("--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime");
    if let Some(epoch) = epoch {
        command.arg(format!("--mtime=@{epoch}")).arg("--clamp-mtime");
    }
    command.arg("--directory").arg(root).arg(".");
    command.env_clear().env("PATH", PATH).env("LC_ALL", "C.UTF-8");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut tar = command.spawn()?;
    let mut stream = tar.stdout.take().expect("stdout was asked for as a pipe");
    let mut encoder = zstd::stream::write::Encoder::new(fs::File::create(file)?, ZSTD_LEVEL)?;
    encoder.include_checksum(true)?;
    let mut buffer = vec![0; 256 << 10];
    let copied = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break Ok(()),
            Ok(n) => {
                if let Err(e) = encoder.write_all(&buffer[..n]) {
                    break Err(e);
                }
                progress.advance(n as u64);
            }
            Err(e) => break Err(e),
        }
    };
    // Closing the pipe ends a tar that is still writing, so that waiting for it ends too.
    drop(stream);
    let output = tar.wait_with_output()?;
    copied?;
    if !output.status.success() {
        return Err(CacheError::Tar { status: output.status.to_string(), stderr: shown(output.stderr.trim_ascii()) });
    }
    Ok(encoder.finish().map(drop)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn the_same_tree_packs_to_the_same_bytes_wherever_its_holes_are() {
        let dir = tempfile::tempdir().unwrap();
        let packed: Vec<Vec<u8>> = [true, false]
            .map(|is_one_hole| {
                let (tree, file) =
                    (dir.path().join(format!("{is_one_hole}")), dir.path().join(format!("{is_one_hole}.tar")));
                fs::create_dir(&tree).unwrap();
                let sparse = std::fs::File::create(tree.join("sparse")).unwrap();
                if !is_one_hole {
                    sparse.write_all_at(&[0; 1 << 16], 1 << 16).unwrap();
                }
                sparse.write_all_at(b"end", (1 << 20) - 3).unwrap();
                fs::write(tree.join("plain"), "text").unwrap();
                pack(&tree, &file, Some(1), &mut crate::Silent).unwrap();
                fs::read(file).unwrap()
            })
            .to_vec();
        assert_eq!(packed[0], packed[1]);
        assert!(packed[0].len() < 4096);
    }
}
