//! `vzctl destroy`.

use std::path::Path;
use std::time::{Duration, Instant};

use vzrt::Condition;

use super::{Context, failed, system};
use crate::config::names;
use crate::failure::Outcome;
use crate::{Exit, Failure};

pub(super) fn run(context: &Context) -> Outcome {
    let container = context.container()?;
    let _lock = context.lock("destroying")?;
    // Half a container is worth less than none: once begun, the removal is finished.
    let _interrupt = context.interrupt()?;
    match vzrt::settle(&context.run_dir(), &context.cgroups()?).map_err(|e| failed(&e))? {
        Condition::Running(_) => {
            return Err(Failure::new(Exit::Running, "Container is currently running. Stop it first."));
        }
        Condition::Mounted(_) => {
            return Err(Failure::new(Exit::Mounted, "Container is currently mounted (umount first)"));
        }
        Condition::Stopped => {}
    }
    vzrt::reboot::call_off(&context.run_dir()).map_err(|e| system(&e))?;
    if vzrt::rootfs::is_mounted(&container.ve_root).map_err(|e| system(&e))? {
        return Err(Failure::new(Exit::Mounted, "Container is currently mounted (umount first)"));
    }
    tracing::info!("Destroying container private area: {}", container.ve_private.display());
    remove_private(&container.ve_private)?;
    let dump = context.node.dump_file(context.ctid);
    if dump.exists() {
        std::fs::remove_file(&dump).map_err(|e| system(&e))?;
    }
    // Only an empty directory goes; what else is there was not put there by us.
    if let Err(e) = std::fs::remove_dir(&container.ve_root)
        && e.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!("rmdir({}): {e}", container.ve_root.display());
    }
    if let Some(name) = &container.settings.name {
        names::release(&context.node, context.ctid, name).map_err(|e| Failure::from_error(e.exit(), &e))?;
    }
    vzrt::console::forget(&context.run_dir()).map_err(|e| system(&e))?;
    put_aside(context)?;
    tracing::info!("Container private area was destroyed");
    Ok(Exit::Success)
}

/// The private area under a name of its own first: from then on it is no container's, and a removal that is interrupted is finished by the
/// next `destroy` or `create` beside it.
fn remove_private(private: &Path) -> Result<(), Failure> {
    let cannot = |e: &dyn std::error::Error| Failure {
        exit: Exit::DeletePrivateArea,
        what: format!("Unable to delete the private area {}", private.display()),
        why: Some(e.to_string()),
        hint: None,
    };
    let Some(parent) = private.parent() else { return Ok(()) };
    sweep(parent)?;
    match std::fs::symlink_metadata(private) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(cannot(&e)),
        Ok(meta) if !meta.is_dir() => {
            return Err(Failure::new(
                Exit::DeletePrivateArea,
                format!("The private area {} is not a directory", private.display()),
            ));
        }
        Ok(_) => {}
    }
    let doomed = parent.join(format!("{DOOMED}{}", std::process::id()));
    std::fs::rename(private, &doomed).map_err(|e| cannot(&e))?;
    remove_area(&doomed).map_err(|e| {
        Failure::new(Exit::DeletePrivateArea, format!("Unable to delete the private area {}", private.display()))
            .why(e.to_string())
    })
}

/// Removes an area that is no container's any more, and then makes its project id free.
pub(super) fn remove_area(area: &Path) -> Result<(), Failure> {
    // Nothing of it may be open while its files are counted out.
    let project = quota::owned::of(area).map_err(|e| system(&e))?.map(|project| project.id());
    vzrt::remove::remove_tree(area).map_err(|e| system(&e).why(e.one_line()))?;
    let (Some(id), Some(beside)) = (project, area.parent()) else { return Ok(()) };
    let deadline = Instant::now() + COUNTED_OUT;
    // xfs counts out what was removed a little later.
    loop {
        match quota::owned::release(beside, id) {
            Ok(true) => return Ok(()),
            Ok(false) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            Ok(false) => {
                tracing::warn!(
                    "Warning: files of project {id} are left (somebody has them open, or it is not this container's alone): it keeps its limits"
                );
                return Ok(());
            }
            // Quota has been turned off, or was never on: then nothing holds the id.
            Err(e) => {
                tracing::debug!("project {id} is not made free: {}", crate::failure::chain(&e));
                return Ok(());
            }
        }
    }
}

/// How long a file system may take to count out removed files.
const COUNTED_OUT: Duration = Duration::from_secs(1);

/// What the names of private areas on their way out begin with.
const DOOMED: &str = ".vz-removing-";

/// Finishes removals that were interrupted: those whose process is gone.
pub(super) fn sweep(parent: &Path) -> Result<(), Failure> {
    let Ok(entries) = std::fs::read_dir(parent) else { return Ok(()) };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|n| n.strip_prefix(DOOMED)).and_then(|p| p.parse::<i32>().ok()) else {
            continue;
        };
        if vzrt::state::start_ticks(pid).is_none() {
            remove_area(&entry.path())?;
        }
    }
    Ok(())
}

/// The configuration and the container's own scripts become `*.destroyed`, as a way back for a mistake.
fn put_aside(context: &Context) -> Result<(), Failure> {
    let conf_dir = context.node.conf_dir();
    for suffix in ["conf", "apps", "premount", "mount", "start", "stop", "umount", "postumount"] {
        let file = conf_dir.join(format!("{}.{suffix}", context.ctid));
        match std::fs::rename(&file, file.with_extension(format!("{suffix}.destroyed"))) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::from_error(Exit::SaveConfig, &e).why(format!("rename({})", file.display())));
            }
            _ => {}
        }
    }
    Ok(())
}
