//! Removing, and undoing what an install that failed or was killed has left: the same sequence, from the record alone.

use std::collections::BTreeSet;

use super::guest::Guest;
use super::record::{Record, State};
use super::{Fail, captured, fail, install};
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
    let Some(mut app) = record.get(name).cloned() else { return Ok(()) };
    if app.state == State::Installed {
        captured::refuse_needed(guest, &app)?;
        // It may say no; from then on there is no way back.
        guest.run_all(&app.pre_remove)?;
        app.state = State::Removing;
        record.put(&app);
        record.bequeath(name);
        record.save(&context.node, context.ctid)?;
        app = record.get(name).cloned().unwrap_or(app);
    }
    guest.hold_services(false)?;
    guest.forget_debs()?;
    if guest.runs {
        tell(guest, "stop", &app.services);
    }
    // The links that enable units of a captured one are among its files; those of scripts in init.d would be turned around, not removed, as long
    // as the scripts are there.
    if app.captured.is_none() {
        tell(guest, "disable", &app.services);
    }
    for path in captured::undo(guest, &app)? {
        tracing::warn!("Warning: {path} was changed and is kept as {path}.vz-saved");
    }
    if app.captured.is_some() {
        tell(guest, "disable", &app.services);
    }
    let own = |name: &&String| app.captured.as_ref().is_none_or(|part| !part.versions.contains_key(*name));
    let came: BTreeSet<String> = app.packages.keys().filter(own).cloned().collect();
    let staying = purge(guest, &came)?;
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
    if !staying.is_empty() {
        tracing::info!("Kept, for others need them: {}", staying.iter().cloned().collect::<Vec<_>>().join(", "));
    }
    record.hand_on(name, &staying);
    record.apps.retain(|a| a.name != name);
    record.save(&context.node, context.ctid)?;
    install::save_names(context, record)
}

/// Takes packages away that came with an application, but for those that others need: these.
fn purge(guest: &Guest, came: &BTreeSet<String>) -> Result<BTreeSet<String>, Fail> {
    if came.is_empty() {
        return Ok(BTreeSet::new());
    }
    let installed = guest.packages()?;
    let going = installed.removable(came);
    guest.purge(&going, false)?;
    Ok(came.iter().filter(|c| installed.has(c) && !going.contains(*c)).cloned().collect())
}

/// A unit that is not there needs neither; one of a package is stopped again by the package.
fn tell(guest: &Guest, verb: &str, units: &[String]) {
    if units.is_empty() {
        return;
    }
    if let Err((_, failure)) = guest.systemctl(verb, units) {
        tracing::debug!("{failure}");
    }
}
