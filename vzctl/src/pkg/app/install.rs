//! Installing: decided on the host from templates and the container's list of packages, then done in one straight sequence.

use std::collections::BTreeSet;

use templates::app::{self, AppFile, AppTemplate, Request, Shelf, Values, fill};
use templates::pm::{Deb, Pm, PmError};
use templates::{Progress, TemplateName};

use super::guest::{Guest, link_digest};
use super::record::{App, Part, Record, State, Written};
use super::{Fail, because, captured, fail, remove};
use crate::command::Context;
use crate::config::settings::Change;
use crate::pkg::exit::{self, PkgExit};

/// What is to be installed, in order, with the values of its parameters.
pub(super) struct Wanted(pub(super) Vec<(AppTemplate, Values)>);

/// Decides it from words alone: nothing has been looked at inside.
pub(super) fn decide(shelf: &Shelf, record: &Record, requests: &[Request]) -> Result<Wanted, Fail> {
    for request in requests {
        if record.get(request.name.as_str()).is_some_and(|a| a.state == State::Installed) {
            return Err(fail(
                PkgExit::AlreadyInstalled,
                format!("Application template {} is installed already", request.name),
            ));
        }
    }
    let names: Vec<TemplateName> = requests.iter().map(|r| r.name.clone()).collect();
    let order = shelf.order(&names, &record.installed()).map_err(|e| {
        let exit = exit::of_order(&e);
        because(exit, "Application templates can't be installed", &e)
    })?;
    app::refuse_conflicts(&order, [])
        .map_err(|e| because(PkgExit::Unavailable, "Application templates can't be installed", &e))?;
    for new in &order {
        let against = |a: &&App| new.conflicts.contains(&a.name) || a.conflicts.contains(&new.name);
        if let Some(other) = record.apps.iter().find(against) {
            return Err(fail(
                PkgExit::Unavailable,
                format!("{} cannot be in one container with {}", new.name, other.name),
            ));
        }
    }
    let none = Values::new();
    let with_values = order.into_iter().map(|app| {
        let given = requests.iter().find(|r| r.name.as_str() == app.name).map_or(&none, |r| &r.given);
        let values = app.values(given).map_err(|e| because(PkgExit::BadParameter, "Bad parameter", &e))?;
        Ok((app, values))
    });
    with_values.collect::<Result<_, Fail>>().map(Wanted)
}

/// Installs them. One that fails is undone; those before it stay.
pub(super) fn install(context: &Context, guest: &Guest, record: &mut Record, wanted: &Wanted) -> Result<(), Fail> {
    for (template, values) in &wanted.0 {
        tracing::info!("Installing application template {} {}", template.name, template.version);
        let mut app = begin(template, values);
        if let Err(failure) = one(context, guest, record, template, &mut app) {
            // The first error is the one to tell; what its undoing met is told before it.
            if record.get(&app.name).is_some()
                && let Err((_, undoing)) = remove::undo(context, guest, record, &app.name)
            {
                undoing.tell();
            }
            return Err(failure);
        }
        tracing::info!("Application template {} was installed", template.name);
    }
    Ok(())
}

fn begin(template: &AppTemplate, values: &Values) -> App {
    let argvs = |commands: &[templates::recipe::Command]| -> Vec<Vec<String>> {
        commands.iter().map(|c| c.argv.iter().map(|a| fill(a, values)).collect()).collect()
    };
    App {
        name: template.name.clone(),
        version: template.version.clone(),
        state: State::Installing,
        parameters: values.clone(),
        requires: template.requires.clone(),
        conflicts: template.conflicts.clone(),
        packages: std::collections::BTreeMap::new(),
        files: Vec::new(),
        directories: Vec::new(),
        services: template.services.enable.clone(),
        commands_run: false,
        pre_remove: argvs(&template.commands.pre_remove),
        post_remove: argvs(&template.commands.post_remove),
        captured: template.captured.is_some().then(Part::default),
    }
}

fn one(
    context: &Context,
    guest: &Guest,
    record: &mut Record,
    template: &AppTemplate,
    app: &mut App,
) -> Result<(), Fail> {
    let values = app.parameters.clone();
    let argvs = |commands: &[templates::recipe::Command]| -> Vec<Vec<String>> {
        commands.iter().map(|c| c.argv.iter().map(|a| fill(a, &values)).collect()).collect()
    };
    let plan = packages(context, guest, template)?;
    app.packages = plan.iter().filter(|d| d.replaces.is_none()).map(|d| (d.name.clone(), d.version.clone())).collect();
    let mut survey = captured::survey(context, guest, template)?;
    if let Some(survey) = &mut survey {
        captured::decide(record, app, survey)?;
    }
    let mut save = |app: &App| {
        record.put(app);
        record.save(&context.node, context.ctid)
    };
    save(app)?;
    if survey.is_none() || !plan.is_empty() {
        guest.hold_services(true)?;
    }
    guest.run_all(&argvs(&template.commands.pre_install))?;
    write(guest, template, app, true, &mut save)?;
    let asked: BTreeSet<&str> = template.systems.iter().flat_map(|s| &s.packages).map(String::as_str).collect();
    let automatic: Vec<&str> = app.packages.keys().map(String::as_str).filter(|p| !asked.contains(p)).collect();
    guest.install(&plan, &automatic)?;
    if let Some(survey) = survey {
        captured::lay(guest, app, survey)?;
    }
    write(guest, template, app, false, &mut save)?;
    app.commands_run = true;
    save(app)?;
    guest.run_all(&argvs(&template.commands.post_install))?;
    guest.hold_services(false)?;
    start(guest, template)?;
    match &template.check {
        Some(check) if guest.runs => guest.check(&app.name, check, &values)?,
        Some(_) => tracing::info!("{} was not asked whether it works: the container does not run", app.name),
        None => {}
    }
    app.state = State::Installed;
    save(app)?;
    save_names(context, record)
}

/// Finds and fetches the packages.
fn packages(context: &Context, guest: &Guest, template: &AppTemplate) -> Result<Vec<Deb>, Fail> {
    if template.captured.is_none() {
        super::with_packages(context, guest)?;
    }
    let system = guest.system()?;
    let Some(needs) = template.for_system(&system) else {
        let shown = |id: &str, release: &str| format!("{id} {release}").trim_end().to_owned();
        let ours = template.systems.iter().map(|s| shown(&s.family, &s.releases.join(" or "))).collect::<Vec<_>>();
        let (name, ours) = (&template.name, ours.join(", "));
        let theirs = shown(&system.id, &system.release);
        let what = format!("Application template {name} is for {ours}; CT {} is {theirs}", context.ctid);
        let (exit, failure) = fail(PkgExit::Unavailable, what);
        let hint = "A [[for]] of your own in the template lets it in: then you vouch for its files there.";
        return Err((exit, if template.captured.is_some() { failure.hint(hint) } else { failure }));
    };
    if needs.packages.is_empty() {
        // No mirror is asked for nothing.
        return Ok(Vec::new());
    }
    let (pm, _) = super::pm(context, guest)?;
    let installed = guest.packages()?;
    let cannot = |e: PmError| because(exit::of_pm(&e), format!("The packages of {} can't be had", template.name), &e);
    with_progress(guest, |progress| {
        let plan = pm.plan(&installed, &needs.packages, progress).map_err(cannot)?;
        if !plan.is_empty() {
            tracing::info!("Fetching {} packages", plan.len());
        }
        pm.fetch(&installed, &plan, progress).map_err(cannot)?;
        Ok(plan)
    })
}

/// The terminal's bar, or nobody.
pub(super) fn with_progress<T>(guest: &Guest, work: impl FnOnce(&mut dyn Progress) -> T) -> T {
    let mut bar = guest.bar.borrow_mut();
    let mut silent = templates::Silent;
    work(bar.as_mut().map_or(&mut silent as &mut dyn Progress, |bar| bar))
}

/// Writes the files of a template, early or late ones. What will be written is in the record before.
fn write(
    guest: &Guest,
    template: &AppTemplate,
    app: &mut App,
    early: bool,
    save: &mut dyn FnMut(&App) -> Result<(), Fail>,
) -> Result<(), Fail> {
    let files: Vec<(&AppFile, String)> =
        template.files.iter().filter(|f| f.early == early).map(|f| (f, fill(&f.content, &app.parameters))).collect();
    let links: Vec<_> = template.links.iter().filter(|_| !early).collect();
    let digests = files.iter().map(|(f, text)| (f.path.clone(), app::digest(text.as_bytes())));
    let digests: Vec<_> = digests.chain(links.iter().map(|l| (l.path.clone(), link_digest(&l.target)))).collect();
    if digests.is_empty() {
        return Ok(());
    }
    let paths: Vec<String> = digests.iter().map(|(path, _)| path.clone()).collect();
    for ((path, digest), seen) in digests.into_iter().zip(guest.look(&paths)?) {
        let replaces = seen.is_there && seen.digest.as_ref() != Some(&digest);
        app.files.push(Written { path, digest, size: None, replaces });
        app.directories.extend(seen.missing.into_iter().filter(|d| !app.directories.contains(d)).collect::<Vec<_>>());
    }
    save(app)?;
    let replaces = |path: &str| app.files.iter().any(|w| w.path == path && w.replaces);
    for (file, text) in &files {
        guest.write(&file.path, file.mode, text.as_bytes(), replaces(&file.path))?;
    }
    links.iter().try_for_each(|link| guest.link(&link.path, &link.target, replaces(&link.path)))
}

fn start(guest: &Guest, template: &AppTemplate) -> Result<(), Fail> {
    let (enable, disable) = (&template.services.enable, &template.services.disable);
    if guest.runs && (!enable.is_empty() || !disable.is_empty()) {
        guest.systemctl("daemon-reload", &[])?;
    }
    if !disable.is_empty() {
        guest.systemctl("disable", disable)?;
        if guest.runs {
            guest.systemctl("stop", disable)?;
        }
    }
    if !enable.is_empty() {
        guest.systemctl("enable", enable)?;
        if guest.runs {
            guest.systemctl("restart", enable)?;
        }
    }
    Ok(())
}

/// `TEMPLATES=` of the configuration: OpenVZ's tools look there.
pub(super) fn save_names(context: &Context, record: &Record) -> Result<(), Fail> {
    let container = context.container().map_err(|f| (PkgExit::Vzctl, f))?;
    let conf =
        |e: crate::config::container::ContainerError| because(PkgExit::System, "The configuration was not saved", &e);
    let changed = container.with(&context.node, &[Change::Templates(record.installed())]).map_err(conf)?;
    changed.own.save(&context.node).map_err(conf)
}

/// What of the container is out of date.
pub(super) fn upgrades(pm: &Pm, guest: &Guest) -> Result<Vec<Deb>, Fail> {
    let installed = guest.packages()?;
    let cannot = |e: PmError| because(exit::of_pm(&e), "Unable to tell what is out of date", &e);
    with_progress(guest, |progress| pm.upgrades(&installed, progress).map_err(cannot))
}

/// Brings packages of the container up to date.
pub(super) fn update(pm: &Pm, guest: &Guest, plan: &Vec<Deb>) -> Result<(), Fail> {
    let installed = guest.packages()?;
    let cannot = |e: PmError| because(exit::of_pm(&e), "Packages can't be had", &e);
    with_progress(guest, |progress| pm.fetch(&installed, plan, progress).map_err(cannot))?;
    let new: Vec<&str> = plan.iter().filter(|d| d.replaces.is_none()).map(|d| d.name.as_str()).collect();
    guest.install(plan, &new)
}
