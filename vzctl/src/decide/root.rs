//! Where a container's files are and what bounds them.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use quota::image::Size;
use quota::owned;
use quota::project::{self, Project, Support};
use quota::{DiskLimits, SoftHard};
use vzrt::plan::{Disk, IdRange, Layers, RootPlan};

use crate::config::Node;
use crate::config::values::{ImageMode, Layout, TemplateTree};
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
        Some(tree) => Layers::OverTree(trees(node, tree, &container.settings.layers)?),
        None if container.settings.layers.is_empty() => Layers::Whole,
        None => return Err(Failure::new(Exit::InvalidConfig, "VZ_LAYERS is set, and no VZ_TREE for them to lie on")),
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

/// What lies below a private area, the uppermost first: application layers, and the trees of its template.
///
/// # Errors
/// One of them is not there.
pub fn trees(node: &Node, tree: &TemplateTree, applications: &[TemplateTree]) -> Result<Vec<PathBuf>, Failure> {
    let store = templates::Store::open(&node.global.template_dir);
    let missing = |e: templates::StoreError| Failure::from_error(Exit::NoSuchTemplate, &e);
    let mut trees = Vec::with_capacity(applications.len() + 1);
    for layer in applications.iter().rev() {
        trees.push(store.layer_by_id(&layer.to_string()).map_err(missing)?);
    }
    trees.extend(store.tree_by_id(&tree.to_string()).map_err(missing)?.layers);
    Ok(trees)
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

/// Sees to it that a private area is a project of its own, where it is to be one: `None` where it is not.
///
/// # Errors
/// 61: it can't be made one.
pub fn own_project(node: &Node, container: &Subject) -> Result<Option<Project>, Failure> {
    let private = &container.ve_private;
    if !private.is_dir() || image_of(container).is_some() || !wants_quota(node, container) {
        return Ok(None);
    }
    match support(private)? {
        Support::Available => own_area(node, private).map(Some),
        Support::Missing { reason } => {
            // It was bounded once: a container that runs unbounded is better than one that does not run, but not in silence.
            if let Ok(Some(_)) = owned::of(private) {
                tracing::warn!("Warning: the disk limits are not in force: {reason}");
            }
            Ok(None)
        }
    }
}

/// The same of a directory that is to become one.
///
/// # Errors
/// As [`own_project`].
pub fn own_area(node: &Node, area: &Path) -> Result<Project, Failure> {
    owned::own(area, node.global.project_ids).map_err(|e| {
        let what = format!("Unable to give {} a project id of its own", area.display());
        Failure::because(Exit::QuotaInit, what, &e)
    })
}

/// Whether project quota is what bounds the private area.
///
/// # Errors
/// The file system could not be asked.
pub fn is_bounded_by_project(node: &Node, container: &Subject) -> Result<bool, Failure> {
    let private = &container.ve_private;
    Ok(image_of(container).is_none() && wants_quota(node, container) && support(private)? == Support::Available)
}

/// The limits of space and inodes that the kernel holds a project to, where they are not those of the configuration: others were set, or quota was
/// turned off. `None` where they are. The project is asked for through the directory above the private area: what is in there is the container's.
///
/// # Errors
/// The file system could not be asked.
pub fn other_limits(
    private: &Path,
    id: NonZeroU32,
    configured: &DiskLimits,
) -> Result<Option<(SoftHard, SoftHard)>, project::Error> {
    let above = private.parent().unwrap_or(Path::new("/"));
    let configured = configured.effective();
    let wanted = (configured.space_kib, configured.inodes);
    let has = match project::support(above)? {
        Support::Missing { .. } => (SoftHard::UNLIMITED, SoftHard::UNLIMITED),
        Support::Available => {
            let status = Project::open(above, id)?.status()?;
            (status.space_kib, status.inodes)
        }
    };
    Ok((has != wanted).then_some(has))
}

/// The image that the private area is: of the ploop layout, or to bound one of the simfs layout. Of the latter only an area over a template tree
/// can have one in it: there the private directory is ours. A whole tree is the container's own, and a file of that name in it is nothing but a
/// file.
#[must_use]
pub fn image_of(container: &Subject) -> Option<PathBuf> {
    let private = &container.ve_private;
    if is_ploop(container) {
        return Some(ploop_image(private));
    }
    Some(image_file(private)).filter(|file| container.settings.tree.is_some() && file.is_file())
}

fn disk(node: &Node, container: &Subject, private: &Path) -> Result<Disk, Failure> {
    let limits = container.settings.disk_limits();
    if let Some(file) = image_of(container) {
        let size = match limits.effective().space_kib.hard {
            quota::Limit::Of(kib) if is_ploop(container) => Some(Size::Image(kib.saturating_mul(1024))),
            quota::Limit::Of(kib) => Some(Size::Usable(kib)),
            quota::Limit::Unlimited => None,
        };
        return Ok(Disk::Image { file, size, keeps_space: is_preallocated(container), fsck: true });
    }
    if !private.is_dir() || !is_bounded_by_project(node, container)? {
        return Ok(Disk::Unbounded);
    }
    let failed = |e: &project::Error| {
        Failure::because(Exit::QuotaOn, format!("Unable to find out the project of {}", private.display()), e)
    };
    let id = match owned::of(private).map_err(|e| failed(&e))? {
        Some(project) => project.id(),
        // A plan that is only looked at.
        None => owned::prospective(private, node.global.project_ids).map_err(|e| failed(&e))?,
    };
    Ok(Disk::Project { id, limits })
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
        Layers::OverTree(trees) => {
            let trees: Vec<_> = trees.iter().map(|tree| tree.display().to_string()).collect();
            format!("{} over {}", root.private.display(), trees.join(" over "))
        }
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
