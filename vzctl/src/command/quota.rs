//! `vzctl quotaon`, `quotaoff` and `quotainit`: the limits of a private area that is a directory, and its project id.

use ::quota::project::Support;
use vzrt::Condition;

use super::{Context, failed};
use crate::failure::Outcome;
use crate::subject::Subject;
use crate::{Exit, Failure, decide};

/// Puts the limits of the configuration in force, now.
pub(super) fn on(context: &Context) -> Outcome {
    let container = bounded(context, Exit::QuotaOn)?;
    let _lock = context.lock("turning quota on")?;
    let limits = container.settings.disk_limits().effective();
    let project = decide::own_project(&context.node, &container)?;
    project
        .map_or(Ok(()), |project| project.set_limits(&limits))
        .map_err(|e| Failure::because(Exit::QuotaOn, "Unable to turn quota on", &e))?;
    tracing::info!("Quota is on");
    Ok(Exit::Success)
}

/// Takes the limits away until the next `quotaon`, `mount` or `start`, of a running container too.
pub(super) fn off(context: &Context) -> Outcome {
    let container = bounded(context, Exit::QuotaOff)?;
    let _lock = context.lock("turning quota off")?;
    let cannot = |e: &::quota::project::Error| Failure::because(Exit::QuotaOff, "Unable to turn quota off", e);
    match ::quota::owned::of(&container.ve_private).map_err(|e| cannot(&e))? {
        Some(project) => project.clear_limits().map_err(|e| cannot(&e))?,
        None => {
            return Err(Failure::new(Exit::QuotaOff, "Quota is not initialized: the private area has no project id"));
        }
    }
    tracing::info!("Quota is off");
    Ok(Exit::Success)
}

/// Gives the private area a new project id and goes through the tree for it: what was not counted is counted from then on.
pub(super) fn init(context: &Context) -> Outcome {
    let container = bounded(context, Exit::QuotaInit)?;
    let _lock = context.lock("setting quota up")?;
    let _interrupt = context.interrupt()?;
    unused(context)?;
    let private = &container.ve_private;
    let cannot = |e: &::quota::project::Error| Failure::because(Exit::QuotaInit, "Unable to set quota up", e);
    let before = ::quota::owned::of(private).map_err(|e| cannot(&e))?.map(|project| project.id());
    ::quota::owned::renew(private, context.node.global.project_ids).map_err(|e| cannot(&e))?;
    if let Some(id) = before {
        ::quota::owned::release(private, id).map_err(|e| cannot(&e))?;
    }
    tracing::info!("Quota was initialized");
    Ok(Exit::Success)
}

/// The container, whose private area must be there and be bounded by project quota.
fn bounded(context: &Context, exit: Exit) -> Result<Subject, Failure> {
    let container = context.container()?;
    if !container.ve_private.is_dir() {
        let what = format!("Container private area {} does not exist", container.ve_private.display());
        return Err(Failure::new(Exit::NoPrivateArea, what));
    }
    if !decide::is_bounded_by_project(&context.node, &container)? {
        // Turned off by hand, most likely: an area that was bounded before has a project.
        let there = ::quota::project::support(&container.ve_private);
        if let (Ok(Some(_)), Ok(Support::Missing { reason })) = (::quota::owned::of(&container.ve_private), there) {
            return Err(Failure::because(exit, "The private area has no project quota", &reason));
        }
        return Err(Failure::new(exit, "The private area has no project quota")
            .why("it is an image, DISK_QUOTA is no, or the file system has none")
            .hint("`vzctl check` tells what this host has."));
    }
    Ok(container)
}

/// Neither running nor mounted.
fn unused(context: &Context) -> Result<(), Failure> {
    match vzrt::settle(&context.run_dir(), &context.cgroups()?).map_err(|e| failed(&e))? {
        Condition::Stopped => Ok(()),
        Condition::Running(_) | Condition::Mounted(_) => {
            Err(Failure::new(Exit::QuotaInit, "The container uses its quota").hint("Stop or unmount it first."))
        }
    }
}
