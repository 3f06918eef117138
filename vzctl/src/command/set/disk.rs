//! `--diskspace` and `--diskinodes`: the bound of a private area.

use quota::Limit;
use quota::image::{self, Fit, Grown, Size};

use crate::command::area;
use crate::config::Node;
use crate::config::request::SetRequest;
use crate::config::settings::Change;
use crate::failure::chain;
use crate::subject::Subject;
use crate::{Exit, Failure, decide};

/// What the reference refuses to do with an image, running or not.
pub(super) fn check(container: &Subject, request: &SetRequest, mounted: bool) -> Result<(), Failure> {
    if request.offline_resize && mounted {
        return Err(Failure::new(Exit::InvalidValue, "Unable to resize the image: the container is mounted")
            .hint("--offline-resize is for a stopped container; without it an image is resized while it is mounted."));
    }
    let has = |is: fn(&Change) -> bool| request.changes.iter().any(is);
    if !decide::is_ploop(container) {
        return Ok(());
    }
    if has(|c| matches!(c, Change::DiskSpace(_))) && !request.save {
        return Err(Failure::new(Exit::InvalidSyntax, "Error: unable to set diskspace of an image without --save"));
    }
    if has(|c| matches!(c, Change::DiskInodes(_))) {
        tracing::warn!("Warning: the number of inodes of an image goes with its size, diskinodes does not change it");
    }
    Ok(())
}

/// Whether the private area is an image that is going to be larger.
pub(super) fn grows_an_image(before: &Subject, after: &Subject) -> bool {
    let hard = |container: &Subject| container.settings.disk_limits().effective().space_kib.hard;
    hard(after) > hard(before) && decide::image_of(after).is_some()
}

/// The size of the image that a container is: a smaller one by a balloon, or with `--offline-resize` in earnest.
fn resize_ploop(container: &Subject, request: &SetRequest) -> Result<(), Failure> {
    let bytes = area::image_bytes(container)?;
    let file = decide::ploop_image(&container.ve_private);
    let kib = bytes / 1024;
    if !file.exists() {
        return Err(Failure::new(Exit::NoImage, format!("Container image {} does not exist", file.display())));
    }
    let fail = |e: &image::Error| {
        let failure = Failure::because(Exit::Resize, "Unable to resize the image", e);
        match e {
            image::Error::Full { .. } => failure.hint("Delete files inside first."),
            _ => failure,
        }
    };
    let fitted = if request.offline_resize {
        let length = std::fs::metadata(&file).map_err(|e| Failure::from_error(Exit::Resize, &e))?.len();
        if bytes < length {
            image::shrink(&file, bytes).map(|()| Fit::Inflated)
        } else {
            image::fit(&file, Size::Image(bytes))
        }
    } else {
        image::fit(&file, Size::Image(bytes))
    };
    match fitted {
        Ok(Fit::Unchanged) => Ok(()),
        Ok(_) => {
            tracing::info!("The image has {kib} KiB now");
            Ok(())
        }
        // It is saved, and what is saved is made true by the next start.
        Err(e @ image::Error::NeedsCapSysResource(_)) => {
            tracing::warn!("Warning: the image grows at the next start: {}", chain(&e));
            Ok(())
        }
        Err(e) => Err(fail(&e)),
    }
}

/// Brings the bound of the private area in line with the configuration.
pub(super) fn resize(node: &Node, before: &Subject, container: &Subject, request: &SetRequest) -> Result<(), Failure> {
    let limits = container.settings.disk_limits().effective();
    if decide::is_ploop(container) {
        return resize_ploop(container, request);
    }
    let saved = request.save;
    let fail =
        |e: &(dyn std::error::Error + 'static)| Failure::because(Exit::QuotaSet, "Unable to set the disk limits", e);
    if let Some(file) = decide::image_of(container) {
        let Limit::Of(space_kib) = limits.space_kib.hard else {
            return Err(Failure::new(Exit::QuotaSet, "Unable to set the disk limits").why(
                "this host has no quota for directories, so the private area is an image, and an image has a size",
            ));
        };
        let size = Size::Usable(space_kib);
        // An image is made a little larger than its limit: one whose limit stays has no balloon for that.
        let fitted = if limits.space_kib.hard == before.settings.disk_limits().effective().space_kib.hard {
            image::grow(&file, size).map(|grown| if grown == Grown::Unchanged { Fit::Unchanged } else { Fit::Grown })
        } else {
            image::fit(&file, size)
        };
        return match fitted {
            Ok(Fit::Unchanged) => Ok(()),
            Ok(_) => {
                tracing::info!("The private area has {space_kib} KiB now");
                Ok(())
            }
            Err(e @ image::Error::Full { .. }) => Err(fail(&e).hint("Delete files inside first.")),
            // What is saved is made true by the next start.
            Err(e @ image::Error::NeedsCapSysResource(_)) if saved => {
                tracing::warn!("Warning: the private area grows at the next start: {}", chain(&e));
                Ok(())
            }
            Err(e @ image::Error::NeedsCapSysResource(_)) => {
                Err(fail(&e).hint("With --save it grows at the next start."))
            }
            Err(e) => Err(fail(&e)),
        };
    }
    if !decide::wants_quota(node, container) {
        return Ok(());
    }
    if !decide::is_bounded_by_project(node, container)? {
        tracing::warn!("Warning: this host has no quota for directories; the private area stays unbounded");
        return Ok(());
    }
    match quota::owned::of(&container.ve_private).map_err(|e| fail(&e))? {
        Some(project) => {
            project.set_limits(&limits).map_err(|e| fail(&e))?;
            warn_of_use(&project.status().map_err(|e| fail(&e))?);
            Ok(())
        }
        // One that was not started since it was brought here: its start gives it an id, and the limits.
        None => Ok(()),
    }
}

/// Where users and groups can't have the limits that were just allowed them.
pub(super) fn warn_of_users(before: &Subject, after: &Subject) {
    let wanted = before.settings.user_quota().is_none() && after.settings.user_quota().is_some();
    if wanted && after.ve_private.is_dir() && decide::image_of(after).is_none() {
        tracing::warn!(
            "Warning: no quotas of users and groups inside: the private area is a directory, and they need a file system of the container's own; \
             `vzctl convert {} --layout ploop` makes it one",
            after.ctid
        );
    }
}

/// A limit below what is used is in force: the container can only delete.
fn warn_of_use(status: &quota::project::Status) {
    for (what, used, hard) in
        [("KiB", status.space_used_kib, status.space_kib.hard), ("inodes", status.inodes_used, status.inodes.hard)]
    {
        if Limit::Of(used) > hard {
            tracing::warn!("Warning: the container uses {used} {what} and may have {hard}: it can only delete");
        }
    }
}
