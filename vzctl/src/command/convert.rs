//! `vzctl convert`: a stopped container's private area becomes another kind of area.
//!
//! The new area is made beside the old one and takes its place ([`exchange`]).

use std::os::fd::OwnedFd;
use std::path::Path;

use quota::image;
use rustix::fs::{AtFlags, FileType, Mode, XattrFlags};
use vzrt::{Interrupt, rootfs};

use super::area::{self, AreaError};
use super::exchange::{self, Place};
use super::{Context, create, failed, interrupted};
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
    exchange::refuse_in_use(context)?;
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
    let place = Place::make(container)?;
    let target = make(node, container, wanted, &place).and_then(|target| {
        interrupt.check().map_err(interrupted)?;
        Ok(target)
    });
    let switched = target.and_then(|target| {
        place.exchange(&target, false).map_err(|e| cannot(&e))?;
        save(node, &target)
    });
    // Whatever has happened: what is in force now stays, and the other goes.
    let settled = exchange::settle(context);
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
    let target = with(node, container, &[Change::Layout(wanted), Change::Tree(None), Change::Layers(Vec::new())])?;
    let target = match wanted {
        Layout::Ploop(_) => {
            let bytes = area::image_bytes(&target)?;
            area::make_from_tree(&target, bytes, &area, &source).map_err(|e| cannot(&e))?;
            target
        }
        Layout::Simfs => make_simfs(node, target, &area, &source)?,
    };
    exchange::sync(&area).map_err(|e| cannot(&e))?;
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

fn with(node: &Node, container: &Subject, changes: &[Change]) -> Result<Subject, Failure> {
    container.with(node, changes).map_err(|e| Failure::from_error(e.exit(), &e))
}

fn save(node: &Node, container: &Subject) -> Result<(), Failure> {
    container.own.save(node).map_err(|e| Failure::from_error(e.exit(), &e))
}

fn cannot(e: &AreaError) -> Failure {
    e.failure(Exit::Convert, "Unable to convert the private area".to_owned())
}
