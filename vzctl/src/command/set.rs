//! `vzctl set`: changes a container's parameters, in its configuration and, where it runs, at once.

mod disk;
mod live;

use vzrt::{Condition, Inside};

use super::{Context, create, exec, failed, start};
use crate::config::container::{Container, ContainerError};
use crate::config::document::Document;
use crate::config::names;
use crate::config::params;
use crate::config::request::{SetMode, SetRequest};
use crate::config::settings::Change;
use crate::failure::{Outcome, chain};
use crate::subject::Subject;
use crate::{Exit, Failure, decide};

pub(super) fn run(context: &Context) -> Outcome {
    let mut request =
        SetRequest::from_matches(&context.request.matches).map_err(|e| Failure::from_error(e.exit(), &e))?;
    if request.changes.iter().any(|change| matches!(change, Change::UserPassword { .. })) {
        // Every user of the host may see the command lines of all processes.
        vzrt::title(&format!("vzctl set {}", context.ctid));
    }
    configured(context, &request)?;
    let _lock = context.lock("setting")?;
    // Read under the lock: who held it may have changed it.
    let before = configured(context, &request)?;
    add_samples(context, &before, &mut request)?;
    if request.is_empty() {
        return Err(Failure::new(Exit::InvalidSyntax, "No parameters to set").hint("`vzctl set --help` lists them."));
    }
    request.check_masks(&before.settings).map_err(|e| Failure::from_error(e.exit(), &e))?;
    decide::refuse_absent(&request.changes)?;
    // What is in force and what is saved must not part: once begun, the change is finished.
    let _interrupt = context.interrupt()?;
    let host = context.cgroups()?;
    let condition = vzrt::settle(&context.run_dir(), &host).map_err(|e| failed(&e))?;
    let after = before.with(&context.node, &request.changes).map_err(conf_failure)?;
    let running = matches!(condition, Condition::Running(_));
    if before.settings.memguarantee != after.settings.memguarantee {
        decide::fits(&context.node, &after)?;
    }
    let restart = put_in_force(context, &request, &before, &after, condition, &host)?;
    warn_of_no_effect(&request);
    save(context, &request, &before, &after, running)?;
    if restart {
        return start::restart_locked(context, after, &host);
    }
    Ok(Exit::Success)
}

/// Puts the changes into force, and sees to it that what is saved is never less than what is: an image that has grown stays so. What it is to have
/// is saved first, and made true by the next start should the power go in between.
fn put_in_force(
    context: &Context,
    request: &SetRequest,
    before: &Subject,
    after: &Subject,
    condition: Condition,
    host: &vzrt::cgroup::Host,
) -> Result<bool, Failure> {
    // A name is not in the file before it is claimed.
    let first = request.save && before.settings.name == after.settings.name && disk::grows_an_image(before, after);
    if first {
        after.own.save(&context.node).map_err(conf_failure)?;
    }
    apply(context, request, before, after, condition, host).inspect_err(|_| {
        if first && let Err(e) = before.own.save(&context.node) {
            tracing::error!("Error: the configuration has what was not applied: {}", chain(&e));
        }
        if request.save {
            tracing::error!("Error: failed to apply some parameters, not saving configuration file!");
        }
    })
}

/// The container's configuration; with `--save --force` one that is not there yet is empty.
fn configured(context: &Context, request: &SetRequest) -> Result<Subject, Failure> {
    match Subject::load(&context.node, context.ctid) {
        Err(ContainerError::Missing(_)) if request.save && request.force => {
            Ok(Subject::new(&context.node, Container::from_document(context.ctid, Document::default())))
        }
        Err(_) => context.container(),
        Ok(subject) => Ok(subject),
    }
}

/// `--applyconfig`: every parameter of a sample, before those of the command line. `--applyconfig_map name`: the name that is in the
/// container's own file becomes one that commands know.
fn add_samples(context: &Context, before: &Subject, request: &mut SetRequest) -> Result<(), Failure> {
    if let Some(name) = &request.applyconfig {
        let document = create::sample(&context.node, name).map_err(|mut f| {
            f.exit = Exit::ApplyConfig;
            f
        })?;
        let mut changes = Vec::new();
        for param in params::all() {
            let Some(value) = document.get_any(param.keys).filter(|v| !v.is_empty()) else { continue };
            let change = param.load(value);
            let change = change.map_err(|e| Failure::new(Exit::ApplyConfig, format!("Sample config {name}: {e}")))?;
            // What the private area is, no configuration changes: `vzctl convert` does.
            if !matches!(change, Change::Layout(_) | Change::Tree(_)) {
                changes.push(change);
            }
        }
        changes.append(&mut request.changes);
        request.changes = changes;
    }
    match request.applyconfig_map.as_deref() {
        None => Ok(()),
        Some("name") => {
            request.changes.extend(before.own.own.name.clone().map(|n| Change::Name(Some(n))));
            Ok(())
        }
        Some(other) => Err(Failure::new(Exit::InvalidSyntax, format!("Bad parameter for --applyconfig_map: {other}"))
            .hint("The only group is: name")),
    }
}

/// Puts the changes into force. True when the container has to be restarted for them.
fn apply(
    context: &Context,
    request: &SetRequest,
    before: &Subject,
    after: &Subject,
    condition: Condition,
    host: &vzrt::cgroup::Host,
) -> Result<bool, Failure> {
    disk::check(before, request, !matches!(condition, Condition::Stopped))?;
    disk::warn_of_users(before, after);
    let Condition::Running(running) = condition else {
        if request.reset_ub {
            return Err(Failure::new(Exit::NotRunning, "Container is not running"));
        }
        apply_stopped(context, request, before, after, condition, host)?;
        return Ok(false);
    };
    if let Some(option) = request.need_stopped.first() {
        return Err(Failure::new(Exit::Running, format!("Unable to set {option} on a running container")));
    }
    let late = &request.need_restart;
    for option in late {
        tracing::warn!("Unable to set {option} on a running container");
    }
    match request.setmode {
        Some(SetMode::Restart) if !late.is_empty() => return Ok(true),
        Some(SetMode::Ignore) if !late.is_empty() => return Err(Failure::new(Exit::Running, "")),
        None if !late.is_empty() => {
            // Two messages: one message is one line, whoever chose its text.
            tracing::warn!("WARNING: Some of the parameters could not be applied to a running container.");
            tracing::warn!("\tPlease consider using --setmode option");
        }
        _ => {}
    }
    let plan = context.run_dir().plan().map_err(|e| super::system(&e))?;
    let plan = plan.ok_or_else(|| Failure::new(Exit::NotRunning, "Container is not running"))?;
    let live = live::Live { context, request, before, after, running: &running, plan, host };
    live.apply()?;
    Ok(false)
}

/// What changes of a container that does not run besides its file: the size of its image, and passwords, for which it gets an idle init for
/// a moment.
fn apply_stopped(
    context: &Context,
    request: &SetRequest,
    before: &Subject,
    after: &Subject,
    condition: Condition,
    host: &vzrt::cgroup::Host,
) -> Result<(), Failure> {
    if request.save && before.settings.disk_limits() != after.settings.disk_limits() {
        disk::resize(&context.node, before, after, request)?;
    }
    let passwords = live::password_edits(request)?;
    if passwords.is_empty() {
        return Ok(());
    }
    if let Condition::Mounted(journal) = condition {
        vzrt::unmount(&context.run_dir(), &journal).map_err(|e| failed(&e))?;
    }
    let subject = decide::prepare(&context.node, before.clone())?;
    let plan = decide::plan(&context.node, &subject)?;
    let work = |inside: &Inside| passwords.iter().try_for_each(|p| live::set_password(inside, p));
    vzrt::with_idle_init(&plan, host, None, work).map_err(|e| failed(&e))?
}

/// Parameters that OpenVZ's kernel or tools gave a meaning and nothing here does yet: kept for the configuration's sake, and said so.
fn warn_of_no_effect(request: &SetRequest) {
    let name = |change: &Change| match change {
        Change::AddNetif(_) | Change::EditNetif(_) => Some("netif"),
        Change::AddNetdev(_) => Some("netdev"),
        Change::AddPci(_) => Some("pci"),
        Change::Meminfo(_) => Some("meminfo"),
        Change::Iptables(_) => Some("iptables"),
        Change::Netfilter(_) => Some("netfilter"),
        _ => None,
    };
    for name in request.changes.iter().filter_map(name) {
        tracing::warn!("Warning: {name} is kept in the configuration but has no effect yet");
    }
    let features = request.changes.iter().filter_map(|change| match change {
        Change::Features(switches) => Some(switches),
        _ => None,
    });
    for (feature, _) in features.flatten().filter(|(feature, _)| !feature.is_door()) {
        tracing::warn!("Warning: feature {} is kept in the configuration but has no effect yet", feature.name());
    }
}

/// Names and the file.
fn save(
    context: &Context,
    request: &SetRequest,
    before: &Subject,
    after: &Subject,
    running: bool,
) -> Result<(), Failure> {
    let only_password =
        !request.changes.is_empty() && request.changes.iter().all(|c| matches!(c, Change::UserPassword { .. }));
    if !request.save {
        if !only_password && !request.reset_ub {
            let lost = if running { " and will be lost after CT restart" } else { "" };
            tracing::warn!("WARNING: Settings were not saved to config{lost} (use --save flag)");
        }
        return Ok(());
    }
    let node = &context.node;
    let name_failure = |e: names::NameError| Failure::from_error(e.exit(), &e);
    let renamed = request.changes.iter().any(|c| matches!(c, Change::Name(_)));
    let (old, new) = (before.settings.name.as_deref(), after.settings.name.as_deref());
    let claim = match new {
        Some(new) if renamed => Some(names::claim(node, context.ctid, new).map_err(name_failure)?),
        _ => None,
    };
    after.own.save(node).map_err(conf_failure)?;
    match (claim, old) {
        (Some(claim), old) => claim.keep(old.filter(|o| Some(*o) != new)).map_err(name_failure)?,
        (None, Some(old)) if renamed => names::release(node, context.ctid, old).map_err(name_failure)?,
        _ => {}
    }
    if let (true, Some(name)) = (renamed, new) {
        tracing::info!("Name {name} assigned");
    }
    tracing::info!("CT configuration saved to {}", node.container_conf(context.ctid).display());
    Ok(())
}

fn conf_failure(e: ContainerError) -> Failure {
    Failure::from_error(e.exit(), &e)
}

/// An edit inside that failed.
fn edit_failure(exit: Exit, what: &str, e: &vzrt::InsideError) -> Failure {
    let mut failure = exec::told(e);
    failure.exit = exit;
    failure.what = what.to_owned();
    failure
}
