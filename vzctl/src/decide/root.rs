//! Where a container's files are and what bounds them.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use quota::image::Size;
use quota::project::{self, Support};
use vzrt::plan::{Disk, IdRange, Layers, RootPlan};

use crate::config::Node;
use crate::config::values::{ImageMode, Layout};
use crate::subject::Subject;
use crate::{Exit, Failure};

/// The image of a private area that is bounded by one.
const IMAGE: &str = "root.img";

/// The image that is a private area, where OpenVZ had it.
const PLOOP_IMAGE: &str = "root.hdd/root.hds";

/// The root of a container.
///
/// # Errors
/// Whether the host can bound directories could not be found out.
pub fn root(node: &Node, container: &Subject, ids: IdRange) -> Result<RootPlan, Failure> {
    let private = container.ve_private.clone();
    let layers = match &container.settings.tree {
        _ if is_ploop(container) => Layers::InImage,
        Some(tree) => {
            let tree = templates::Store::open(&node.global.template_dir)
                .tree_by_id(&tree.to_string())
                .map_err(|e| Failure::from_error(Exit::NoSuchTemplate, &e))?;
            Layers::OverTree(tree.path)
        }
        None => Layers::Whole,
    };
    Ok(RootPlan {
        mountpoint: container.ve_root.clone(),
        disk: disk(node, container, &private)?,
        layers,
        private,
        ids,
        options: container.settings.mount_opts.clone(),
        user_quota: container.settings.user_quota(),
    })
}

/// Whether the container's private area is one image. A configuration that does not say so is older than layouts, and of a directory.
#[must_use]
pub fn is_ploop(container: &Subject) -> bool {
    matches!(container.own.layout(), Layout::Ploop(_))
}

/// Whether its image has taken all its space from the host, and keeps it.
#[must_use]
pub fn is_preallocated(container: &Subject) -> bool {
    matches!(container.own.layout(), Layout::Ploop(ImageMode::Plain | ImageMode::Raw))
}

/// Whether the container's private area is to be bounded at all.
#[must_use]
pub fn wants_quota(node: &Node, container: &Subject) -> bool {
    node.global.disk_quota && container.settings.diskquota != Some(false)
}

/// The project that a container's private area is, where the host has project quota: its number.
#[must_use]
pub fn project_id(container: &Subject) -> Option<NonZeroU32> {
    NonZeroU32::new(container.ctid.get())
}

fn disk(node: &Node, container: &Subject, private: &Path) -> Result<Disk, Failure> {
    let hard = container.settings.disk_limits().effective().space_kib.hard;
    if is_ploop(container) {
        let size = match hard {
            quota::Limit::Of(kib) => Some(Size::Image(kib.saturating_mul(1024))),
            quota::Limit::Unlimited => None,
        };
        return Ok(Disk::Image {
            file: ploop_image(private),
            size,
            keeps_space: is_preallocated(container),
            fsck: true,
        });
    }
    let image = private.join(IMAGE);
    // Only an area over a template tree can have an image in it: there the private directory is ours. A whole tree is the container's own,
    // and a file of that name in it is nothing but a file.
    if container.settings.tree.is_some() && image.is_file() {
        let size = match hard {
            quota::Limit::Of(kib) => Some(Size::Usable(kib)),
            quota::Limit::Unlimited => None,
        };
        return Ok(Disk::Image { file: image, size, keeps_space: false, fsck: true });
    }
    let limits = container.settings.disk_limits();
    match (wants_quota(node, container), support(private)?, project_id(container)) {
        (true, Support::Available, Some(id)) => Ok(Disk::Project { id, limits }),
        _ => Ok(Disk::Unbounded),
    }
}

/// Whether a new private area below `parent` has to be an image: the host wants quota and has none for directories, or the users inside are
/// to have quotas of their own, for which the container needs a file system of its own.
///
/// # Errors
/// The file system could not be asked.
pub fn is_bounded_by_image(node: &Node, container: &Subject, parent: &Path) -> Result<bool, Failure> {
    Ok(wants_quota(node, container)
        && (container.settings.user_quota().is_some() || support(parent)? != Support::Available))
}

/// The image file of a private area of the ploop layout.
#[must_use]
pub fn ploop_image(private: &Path) -> PathBuf {
    private.join(PLOOP_IMAGE)
}

/// The image file of a private area that is bounded by one.
#[must_use]
pub fn image_file(private: &Path) -> PathBuf {
    private.join(IMAGE)
}

fn support(path: &Path) -> Result<Support, Failure> {
    let there = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    project::support(there).map_err(|e| {
        Failure::because(Exit::QuotaOn, format!("Unable to find out about disk quota on {}", there.display()), &e)
    })
}

pub(super) fn describe(root: &RootPlan) -> String {
    let layers = match &root.layers {
        Layers::Whole => format!("all of {}", root.private.display()),
        Layers::OverTree(tree) => format!("{} over {}", root.private.display(), tree.display()),
        Layers::InImage => "ploop".to_owned(),
    };
    let disk = match &root.disk {
        Disk::Unbounded => "unbounded".to_owned(),
        Disk::Project { id, limits } => {
            format!("project quota {id}, {} KiB, {} inodes", limits.space_kib, limits.inodes)
        }
        Disk::Image { file, .. } => format!("image {}", file.display()),
    };
    format!("{layers}; {disk}")
}
