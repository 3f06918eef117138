//! `vzctl convert`: a stopped container's private area becomes another kind of area.
//!
//! The new area is made beside the old one, and synced. Then the two directories change places in one step, and the configuration, saved, says
//! that it is done. Until then the old area is all there: [`settle`], which every command calls under the container's lock, puts it back. From
//! then on the old area is litter, and `settle` removes it. `state` tells which of the two directories is the new one.

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use quota::image;
use rustix::fs::{AtFlags, CWD, FileType, Mode, RenameFlags, XattrFlags};
use serde::{Deserialize, Serialize};
use vzrt::{Condition, Interrupt, rootfs};

use super::area::{self, AreaError};
use super::{Context, create, failed, interrupted, system};
use crate::config::Node;
use crate::config::settings::Change;
use crate::config::values::{ImageMode, Layout, TemplateTree};
use crate::failure::Outcome;
use crate::subject::Subject;
use crate::{Exit, Failure, decide};

pub(super) fn run(context: &Context) -> Outcome {
    let asked = context.request.matches.get_one::<String>("layout").map(|word| Layout::parse(word)).transpose();
    let asked = asked.map_err(|e| Failure::new(Exit::InvalidValue, format!("Bad parameter for --layout: {e}")))?;
    let wanted = asked.unwrap_or(Layout::Ploop(ImageMode::Expanded));
    context.container()?;
    let _lock = context.lock("converting")?;
    let container = context.container()?;
    let interrupt = context.interrupt()?;
    match vzrt::settle(&context.run_dir(), &context.cgroups()?).map_err(|e| failed(&e))? {
        Condition::Running(_) => return Err(Failure::new(Exit::Running, "Container is running -- stop it first")),
        Condition::Mounted(_) => {
            return Err(Failure::new(Exit::Mounted, "Container is currently mounted (umount first)"));
        }
        Condition::Stopped => {}
    }
    let now = container.own.layout();
    if now == wanted {
        tracing::info!("Container is of the layout {} already", wanted.stored());
        return Ok(Exit::Success);
    }
    let container = decide::prepare(&context.node, container)?;
    tracing::info!("Converting the private area from {} to {}", now.stored(), wanted.stored());
    match (now, wanted) {
        (Layout::Ploop(_), Layout::Ploop(_)) => change_mode(&context.node, &container, wanted)?,
        _ => change_layout(context, &container, wanted, &interrupt)?,
    }
    tracing::info!("Container was converted");
    Ok(Exit::Success)
}

/// An image that is to take all its space now, or may give back what it does not need.
fn change_mode(node: &Node, container: &Subject, wanted: Layout) -> Result<(), Failure> {
    let target = with(node, container, &[Change::Layout(wanted)])?;
    if decide::is_preallocated(&target) {
        let file = decide::ploop_image(&container.ve_private);
        image::preallocate(&file).map_err(|e| cannot(&e.into()))?;
    }
    save(node, &target)
}

fn change_layout(context: &Context, container: &Subject, wanted: Layout, interrupt: &Interrupt) -> Result<(), Failure> {
    let node = &context.node;
    let place = Place::of(container)?;
    match std::fs::symlink_metadata(&place.private) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => {
            let path = place.private.display();
            return Err(Failure::new(Exit::Convert, format!("The private area {path} is not a directory")));
        }
        Err(_) => {
            let path = place.private.display();
            return Err(Failure::new(Exit::NoPrivateArea, format!("Container private area {path} does not exist")));
        }
    }
    let target = make(node, container, wanted, &place).and_then(|target| {
        interrupt.check().map_err(interrupted)?;
        Ok(target)
    });
    let switched = target.and_then(|target| {
        place.exchange(wanted).map_err(|e| cannot(&e))?;
        save(node, &target)
    });
    // Whatever has happened: what is in force now stays, and the other goes.
    let settled = settle(context);
    switched?;
    settled
}

/// Makes the new area, as it will be; what its configuration will be.
fn make(node: &Node, container: &Subject, wanted: Layout, place: &Place) -> Result<Subject, Failure> {
    if let (Layout::Ploop(_), Some(tree)) = (wanted, &container.settings.tree) {
        decide::refuse_without_init(node, &tree.to_string())?;
    }
    let bases = decide::ids(container)?;
    let source =
        vzrt::rootfs::merged(&decide::root(node, container, bases)?).map_err(|e| failed(&vzrt::VerbError::Root(e)))?;
    let area = place.area();
    vzrt::rootfs::make_private(&place.directory).map_err(|e| system(&e))?;
    vzrt::rootfs::make_private(&area).map_err(|e| system(&e))?;
    let target = with(node, container, &[Change::Layout(wanted), Change::Tree(None), Change::Layers(Vec::new())])?;
    let target = match wanted {
        Layout::Ploop(_) => {
            let bytes = area::image_bytes(&target)?;
            area::make_from_tree(&target, bytes, &area, &source).map_err(|e| cannot(&e))?;
            target
        }
        Layout::Simfs => make_simfs(node, target, &area, &source)?,
    };
    sync(&area).map_err(|e| cannot(&e))?;
    Ok(target)
}

/// An area of the simfs layout with all the files in it: a directory, or where that would have no bound an image over the template's tree.
fn make_simfs(node: &Node, target: Subject, area: &Path, source: &OwnedFd) -> Result<Subject, Failure> {
    let bounding = |e: create::Bounding| match e {
        create::Bounding::Failure(failure) => failure,
        create::Bounding::Image(e) => cannot(&e.into()),
    };
    let bounded = target.settings.disk_limits().effective().space_kib.hard != quota::Limit::Unlimited;
    if bounded && decide::is_bounded_by_image(node, &target, area)? {
        let tree = create::tree(node, &create::template_name(node, &target)?)?;
        create::bound(node, &target, area).map_err(bounding)?;
        fill_upper(node, &tree, &decide::image_file(area), source).map_err(|e| cannot(&e))?;
        return with(node, &target, &[Change::Tree(Some(tree))]);
    }
    create::bound(node, &target, area).map_err(bounding)?;
    area::hold(area).and_then(|to| area::copy_tree(source, to)).map_err(|e| cannot(&e))?;
    Ok(target)
}

/// Fills the upper layer of an overlay with a whole tree, so that nothing of the layer below shows: its directories are opaque, and what only
/// the layer below has is whited out (kernel, `Documentation/filesystems/overlayfs.rst`). Overlay merges the two top directories always, so it
/// is done for what is in them.
fn fill_upper(node: &Node, tree: &TemplateTree, file: &Path, source: &OwnedFd) -> Result<(), AreaError> {
    area::fill(file, source)?;
    let store = templates::Store::open(&node.global.template_dir);
    let lower = rootfs::stacked(&store.tree_by_id(&tree.to_string())?.layers)?;
    let lower = area::hold_at(&lower, ".")?;
    let mount = image::mount(&image::attach(file)?)?;
    let upper = area::hold_at(&mount, image::ROOT)?;
    let call = |call: &str, name: &std::ffi::CStr, e: rustix::io::Errno| {
        area::named(call, Path::new(&*name.to_string_lossy()), e.into())
    };
    for entry in rustix::fs::Dir::read_from(&upper).map_err(|e| call("opendir", c".", e))? {
        let entry = entry.map_err(|e| call("readdir", c".", e))?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = rustix::fs::statat(&upper, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| call("stat", name, e))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let directory = area::hold_at(&upper, name)?;
            rustix::fs::fsetxattr(&directory, "trusted.overlay.opaque", b"y", XattrFlags::empty())
                .map_err(|e| call("setxattr(trusted.overlay.opaque)", name, e))?;
        }
    }
    for entry in rustix::fs::Dir::read_from(&lower).map_err(|e| call("opendir", c"template", e))? {
        let entry = entry.map_err(|e| call("readdir", c"template", e))?;
        // Of `.` and `..` too, mknod says that they are there.
        match rustix::fs::mknodat(&upper, entry.file_name(), FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => Err(call("mknod", entry.file_name(), e))?,
        }
    }
    rustix::fs::syncfs(&upper).map_err(|e| call("syncfs", c".", e))?;
    Ok(())
}

/// Clears up after a conversion, finished or killed: the area that the configuration tells of is in its place, and the other one is removed.
/// To be called under the container's lock.
///
/// # Errors
/// What could not be cleared up.
pub(super) fn settle(context: &Context) -> Result<(), Failure> {
    // Without a configuration there is no container, and nothing to put right.
    let Ok(container) = Subject::load(&context.node, context.ctid) else { return Ok(()) };
    let place = Place::of(&container)?;
    match std::fs::symlink_metadata(&place.directory) {
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => return Ok(()),
        other => other.map_err(|e| system(&e))?,
    };
    if let Some(state) = place.state().map_err(|e| cannot(&e))? {
        let is_saved = state.ploop == decide::is_ploop(&container);
        let is_new = std::fs::symlink_metadata(&place.private).is_ok_and(|meta| meta.ino() == state.new_inode);
        if !is_saved && is_new {
            place.swap().map_err(|e| cannot(&e))?;
        }
    }
    vzrt::remove::remove_tree(&place.directory).map_err(|e| system(&e))
}

/// Where a conversion works: beside the private area, and named by its container.
struct Place {
    private: PathBuf,
    directory: PathBuf,
}

/// What has to be known of a conversion that was killed.
#[derive(Serialize, Deserialize)]
struct State {
    /// The inode of the new area's directory, wherever it is now.
    new_inode: u64,
    /// Whether that is of the ploop layout.
    ploop: bool,
}

impl Place {
    fn of(container: &Subject) -> Result<Self, Failure> {
        let private = container.ve_private.clone();
        let parent = private.parent().ok_or_else(|| {
            Failure::new(Exit::InvalidConfig, format!("The private area {} is no place for files", private.display()))
        })?;
        let directory = parent.join(format!(".vz-converting-{}", container.ctid));
        Ok(Self { private, directory })
    }

    fn area(&self) -> PathBuf {
        self.directory.join("area")
    }

    fn state(&self) -> Result<Option<State>, AreaError> {
        let path = self.directory.join("state");
        match std::fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            // Written under another name and renamed, so it is whole.
            text => Ok(Some(
                serde_json::from_slice(&text.map_err(|e| area::named("read", &path, e))?)
                    .map_err(|e| area::named("read", &path, e.into()))?,
            )),
        }
    }

    /// The old area out, the new one in. Neither is ever not there.
    fn exchange(&self, wanted: Layout) -> Result<(), AreaError> {
        let (area, new, path) = (self.area(), self.directory.join("state.new"), self.directory.join("state"));
        let meta = std::fs::symlink_metadata(&area).map_err(|e| area::named("stat", &area, e))?;
        let state = State { new_inode: meta.ino(), ploop: matches!(wanted, Layout::Ploop(_)) };
        let text = serde_json::to_vec(&state).map_err(|e| area::named("write", &path, e.into()))?;
        std::fs::write(&new, text).map_err(|e| area::named("write", &new, e))?;
        sync_file(&new)?;
        std::fs::rename(&new, &path).map_err(|e| area::named("rename", &new, e))?;
        sync_file(&self.directory)?;
        self.swap()
    }

    fn swap(&self) -> Result<(), AreaError> {
        let area = self.area();
        rustix::fs::renameat_with(CWD, &area, CWD, &self.private, RenameFlags::EXCHANGE)
            .map_err(|e| area::named("renameat2(RENAME_EXCHANGE)", &area, e.into()))?;
        sync_file(&self.directory)?;
        sync_file(self.private.parent().unwrap_or(Path::new("/")))
    }
}

fn sync(area: &Path) -> Result<(), AreaError> {
    rustix::fs::syncfs(area::hold(area)?).map_err(|e| area::named("syncfs", area, e.into()))?;
    Ok(())
}

fn sync_file(path: &Path) -> Result<(), AreaError> {
    std::fs::File::open(path).and_then(|file| file.sync_all()).map_err(|e| area::named("fsync", path, e))?;
    Ok(())
}

fn with(node: &Node, container: &Subject, changes: &[Change]) -> Result<Subject, Failure> {
    container.with(node, changes).map_err(|e| Failure::from_error(e.exit(), &e))
}

fn save(node: &Node, container: &Subject) -> Result<(), Failure> {
    container.own.save(node).map_err(|e| Failure::from_error(e.exit(), &e))
}

fn cannot(e: &AreaError) -> Failure {
    e.failure(Exit::Convert, "Unable to convert the private area".to_owned())
}
