//! Private areas of the ploop layout, and copies of whole trees: what `create` and `convert` fill a new area with.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use quota::Limit;
use quota::image::{self, BLOCK_BYTES, Size};
use rustix::fs::{CWD, Mode, OFlags};
use templates::{Store, StoreError};
use vzrt::rootfs;

use crate::config::Node;
use crate::config::values::TemplateTree;
use crate::decide;
use crate::subject::Subject;
use crate::{Exit, Failure};

/// What mke2fs gives an inode to.
const BYTES_PER_INODE: u64 = 16 << 10;
/// What ext4 has in a group of 4 KiB blocks.
const GROUP_BYTES: u64 = 128 << 20;
/// Containers with less than this have no use for a template's image: it is this large itself.
const SMALLEST_TEMPLATE_BYTES: u64 = 1 << 30;

/// Why an area could not be made.
#[derive(Debug, thiserror::Error)]
pub(in crate::command) enum AreaError {
    /// The template.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The image.
    #[error(transparent)]
    Image(#[from] image::Error),
    /// The layers of the template.
    #[error(transparent)]
    Layers(#[from] rootfs::RootError),
    /// A directory or file.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// cp(1) failed.
    #[error("cp ended with {status}: {said}")]
    Copy {
        /// How it ended.
        status: ExitStatus,
        /// The first line of what it said.
        said: String,
    },
}

impl AreaError {
    /// With the code of what failed, or that of a full disk.
    pub(super) fn failure(&self, exit: Exit, what: String) -> Failure {
        let full = match self {
            Self::Copy { said, .. } => {
                ["No space left on device", "Disk quota exceeded"].iter().any(|full| said.contains(full))
            }
            _ => crate::failure::is_disk_full(self),
        };
        Failure::because(if full { Exit::NoDiskSpace } else { exit }, what, self)
    }
}

/// The size of a container's image, in bytes.
///
/// # Errors
/// It has no limit: an image has a size.
pub(super) fn image_bytes(container: &Subject) -> Result<u64, Failure> {
    match container.settings.disk_limits().effective().space_kib.hard {
        Limit::Of(kib) => Ok(kib.saturating_mul(1024)),
        Limit::Unlimited => Err(Failure::new(Exit::NoDiskspace, "DISKSPACE is not set, and an image has a size")
            .hint("`--diskspace 10G` sets it.")),
    }
}

/// Makes the image of a container from its template, below `area`.
///
/// The copying of files is done once for a template: its image is kept beside its tree, and copied as one file, without its holes. As it can
/// only grow, and inodes only with it, there is one image for each power of two of inodes in a group.
pub(super) fn make_from_template(
    node: &Node,
    tree: &TemplateTree,
    container: &Subject,
    area: &Path,
) -> Result<(), Failure> {
    let store = Store::open(&node.global.template_dir);
    let applications = &container.settings.layers;
    let trees = decide::trees(node, tree, applications)?;
    let bytes = image_bytes(container)?;
    let inodes = inodes(container, bytes);
    let file = decide::ploop_image(area);
    let go = || -> Result<(), AreaError> {
        make_directory(&file)?;
        // What an application adds is in no image of the template.
        let template =
            if applications.is_empty() { template_image(&store, &tree.to_string(), bytes, inodes)? } else { None };
        match template {
            Some(template) => {
                image::copy(&template, &file)?;
                image::grow(&file, Size::Image(bytes))?;
            }
            None => {
                image::create(&file, Size::Image(bytes), inodes)?;
                fill(&file, &rootfs::stacked(&trees)?)?;
            }
        }
        finish(&file, container)
    };
    go().map_err(|e| e.failure(Exit::CreateImage, format!("Unable to create the image {}", file.display())))
}

/// Makes the image of a container from any tree, below `area`.
pub(super) fn make_from_tree(container: &Subject, bytes: u64, area: &Path, tree: &OwnedFd) -> Result<(), AreaError> {
    let file = decide::ploop_image(area);
    make_directory(&file)?;
    image::create(&file, Size::Image(bytes), inodes(container, bytes))?;
    fill(&file, tree)?;
    finish(&file, container)
}

fn make_directory(file: &Path) -> Result<(), AreaError> {
    let directory = file.parent().unwrap_or(file);
    rustix::fs::mkdir(directory, Mode::RWXU).map_err(|e| named("mkdir", directory, e.into()))?;
    Ok(())
}

/// What is left to do with an image that is filled: its space taken, where it is to be taken at once.
fn finish(file: &Path, container: &Subject) -> Result<(), AreaError> {
    image::wait_until_detached(file)?;
    if decide::is_preallocated(container) {
        image::preallocate(file)?;
    }
    Ok(())
}

/// How many inodes an image gets: those of `DISKINODES`, or as many as mke2fs would make.
fn inodes(container: &Subject, bytes: u64) -> u64 {
    match container.settings.disk_limits().effective().inodes.hard {
        Limit::Of(count) => count,
        Limit::Unlimited => bytes / BYTES_PER_INODE,
    }
}

/// The image of a template, made now if no container has needed it before; `None` where it would not fit such a container.
fn template_image(store: &Store, tree: &str, bytes: u64, inodes: u64) -> Result<Option<PathBuf>, AreaError> {
    if bytes < SMALLEST_TEMPLATE_BYTES {
        return Ok(None);
    }
    let per_group = inodes.div_ceil(bytes.div_ceil(GROUP_BYTES)).next_power_of_two();
    // ext4 has one inode for each block at most, and below this a tree would not fit anyway.
    if !(1024..=GROUP_BYTES / BLOCK_BYTES).contains(&per_group) {
        return Ok(None);
    }
    let made = store.made_of(tree, &format!("{per_group}.img"), |tree, file| -> Result<bool, AreaError> {
        let merged = rootfs::stacked(&tree.layers)?;
        let held = measure(Path::new(&format!("/proc/self/fd/{}", merged.as_raw_fd())))?;
        let size = SMALLEST_TEMPLATE_BYTES.max((held.bytes.saturating_mul(3) / 2).next_power_of_two());
        let inodes = size / GROUP_BYTES * per_group;
        if inodes < held.files {
            return Ok(false);
        }
        image::create(file, Size::Image(size), inodes)?;
        fill(file, &merged)?;
        image::wait_until_detached(file)?;
        Ok(true)
    })?;
    let Some(image) = made else { return Ok(None) };
    let size = image.metadata().map_err(|e| named("stat", &image, e))?.len();
    Ok((size <= bytes).then_some(image))
}

/// How much there is in a tree of ours, depth first; a template's depth is bounded.
struct Held {
    bytes: u64,
    files: u64,
}

fn measure(directory: &Path) -> Result<Held, AreaError> {
    use std::os::unix::fs::MetadataExt;
    let mut held = Held { bytes: 0, files: 0 };
    for entry in std::fs::read_dir(directory).map_err(|e| named("opendir", directory, e))? {
        let entry = entry.map_err(|e| named("readdir", directory, e))?;
        let meta = entry.metadata().map_err(|e| named("stat", &entry.path(), e))?;
        held.bytes += meta.blocks() * 512;
        held.files += 1;
        if meta.is_dir() {
            let below = measure(&entry.path())?;
            held.bytes += below.bytes;
            held.files += below.files;
        }
    }
    Ok(held)
}

/// Copies a tree into the root of an image, and syncs it.
pub(super) fn fill(file: &Path, tree: &OwnedFd) -> Result<(), AreaError> {
    let mount = image::mount(&image::attach(file)?)?;
    let top = hold_at(&mount, ".")?;
    rustix::fs::mkdirat(&top, image::ROOT, Mode::from_raw_mode(0o755)).map_err(|e| named("mkdir", file, e.into()))?;
    copy_tree(tree, hold_at(&top, image::ROOT)?)?;
    rustix::fs::syncfs(&top).map_err(|e| named("syncfs", file, e.into()))?;
    Ok(())
}

/// Copies what is in one directory into another as it is: owners, modes, times, extended attributes (file capabilities and ACLs are such),
/// hard links, device nodes and holes.
pub(super) fn copy_tree(from: impl AsFd, to: impl AsFd) -> Result<(), AreaError> {
    copy(["-T".into(), through(&from, ".").into(), through(&to, ".").into()])
}

/// Copies entries of one directory into another in the same way. None of them may be there.
pub(super) fn copy_entries(from: impl AsFd, names: &[OsString], to: impl AsFd) -> Result<(), AreaError> {
    let sources = names.iter().map(|name| {
        let mut path = OsString::from(through(&from, ""));
        path.push(name);
        path
    });
    copy(["-t".into(), through(&to, ".").into()].into_iter().chain(sources))
}

/// cp reaches all through our descriptors, so that it ends when we are killed, and never writes to what has become somebody else's.
fn through(directory: &impl AsFd, name: &str) -> String {
    format!("/proc/{}/fd/{}/{name}", std::process::id(), directory.as_fd().as_raw_fd())
}

fn copy(args: impl IntoIterator<Item = OsString>) -> Result<(), AreaError> {
    let output = Command::new("cp")
        .env_clear()
        .envs([("PATH", "/usr/bin:/bin"), ("LC_ALL", "C")])
        .args(["-dR", "--preserve=mode,ownership,timestamps,links,xattr"])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| named("starting", Path::new("cp"), e))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    // It names files, and the container has chosen their names.
    let said = said.lines().next().unwrap_or_default().escape_debug().to_string();
    Err(AreaError::Copy { status: output.status, said })
}

/// Holds a directory of the host's.
pub(super) fn hold(path: &Path) -> Result<OwnedFd, AreaError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|e| named("open", path, e.into()))?)
}

/// Holds a directory below one that is held.
pub(super) fn hold_at(at: impl AsFd, name: impl rustix::path::Arg + Copy) -> Result<OwnedFd, AreaError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let shown = name.to_string_lossy().into_owned();
    Ok(rustix::fs::openat(at, name, flags, Mode::empty()).map_err(|e| named("open", Path::new(&shown), e.into()))?)
}

/// An error of a call that does not say which file it was about.
pub(super) fn named(call: &str, path: &Path, e: std::io::Error) -> std::io::Error {
    std::io::Error::new(e.kind(), format!("{call}({}): {e}", path.display()))
}
