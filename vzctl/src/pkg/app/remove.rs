//! Removing, and undoing what an install that failed or was killed has left: the same sequence, from the record alone.

use std::collections::BTreeSet;

use super::guest::Guest;
use super::record::{Record, State};
use super::{Fail, fail, install};
use crate::command::Context;
use crate::pkg::exit::PkgExit;

/// Refuses what is not there, or what others require.
pub(super) fn decide(record: &Record, names: &[String]) -> Result<(), Fail> {
    for name in names {
        if record.get(name).is_none() {
            return Err(fail(PkgExit::NotInstalled, format!("Application template {name} is not installed")));
        }
        let needed: Vec<&str> = record.needed_by(name).into_iter().filter(|n| !names.iter().any(|o| o == n)).collect();
        if !needed.is_empty() {
            let what = format!("Application template {name} is required by {}", needed.join(", "));
            return Err(fail(PkgExit::HasApps, what));
        }
    }
    Ok(())
}

/// Removes them: those that require others first.
pub(super) fn remove(context: &Context, guest: &Guest, record: &mut Record, names: &[String]) -> Result<(), Fail> {
    let order: Vec<String> = record.apps.iter().rev().map(|a| a.name.clone()).filter(|n| names.contains(n)).collect();
    for name in order {
        tracing::info!("Removing application template {name}");
        undo(context, guest, record, &name)?;
        tracing::info!("Application template {name} was removed");
    }
    Ok(())
}

/// What a killed command has left is cleared away before anything else is done.
pub(super) fn settle(context: &Context, guest: &Guest, record: &mut Record) -> Result<(), Fail> {
    let left: Vec<String> =
        record.apps.iter().rev().filter(|a| a.state != State::Installed).map(|a| a.name.clone()).collect();
    for name in left {
        tracing::warn!("Warning: {name} was being installed or removed when that was interrupted: it is removed");
        undo(context, guest, record, &name)?;
    }
    Ok(())
}

/// Takes one away. Each step takes the absence of its object for success: it may be the second attempt.
pub(super) fn undo(context: &Context, guest: &Guest, record: &mut Record, name: &str) -> Result<(), Fail> {
    let Some(app) = record.get(name).cloned() else { return Ok(()) };
    let was_whole = app.state == State::Installed;
    if was_whole {
        // It may say no; from then on there is no way back.
        guest.run_all(&app.pre_remove)?;
        let mut removing = app.clone();
        removing.state = State::Removing;
        record.put(&removing);
        record.save(&context.node, context.ctid)?;
    }
    guest.hold_services(false)?;
    guest.forget_debs()?;
    stop(guest, &app.services);
    for file in app.files.iter().rev() {
        if guest.take_back(&file.path, &file.digest, file.replaces)? {
            tracing::warn!("Warning: {} was changed and is kept as {}.vz-saved", file.path, file.path);
        }
    }
    guest.remove_directories(&app.directories)?;
    let came: BTreeSet<String> = app.packages.keys().cloned().collect();
    let installed = guest.packages()?;
    let going = installed.removable(&came);
    guest.purge(&going)?;
    if guest.runs && !app.services.is_empty() {
        guest.systemctl("daemon-reload", &[])?;
    }
    if app.commands_run {
        for argv in &app.post_remove {
            // The rest goes all the same: what it was to take away may not be there.
            if let Err((_, failure)) = guest.run_all([argv]) {
                tracing::warn!("Warning: {failure}");
            }
        }
    }
    let staying: BTreeSet<String> = came.into_iter().filter(|c| installed.has(c) && !going.contains(c)).collect();
    if !staying.is_empty() {
        tracing::info!("Kept, for others need them: {}", staying.iter().cloned().collect::<Vec<_>>().join(", "));
    }
    record.hand_on(name, &staying);
    record.apps.retain(|a| a.name != name);
    record.save(&context.node, context.ctid)?;
    install::save_names(context, record)
}

/// A unit that is not there needs no stopping; one of a package is stopped again by the package.
fn stop(guest: &Guest, units: &[String]) {
    if units.is_empty() {
        return;
    }
    let stopped = if guest.runs { guest.systemctl("stop", units) } else { Ok(()) };
    if let Err((_, failure)) = stopped.and_then(|()| guest.systemctl("disable", units)) {
        tracing::debug!("{failure}");
    }
}
