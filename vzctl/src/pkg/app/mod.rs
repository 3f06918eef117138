//! Application templates in containers: `install`, `remove`, `update`, `status`, `list CTID`, `info`, `localinstall`, `clean`.

mod args;
mod captured;
mod fetch;
mod guest;
mod install;
mod layer;
mod record;
mod remove;
mod show;

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::Duration;

use clap::ArgMatches;
use templates::TemplateName;
use templates::app::{Request, Shelf, System};
use templates::pm::{Deb, Pm};
use vzrt::{Condition, Inside};

use self::guest::Guest;
use self::record::Record;
use super::exit::{self, PkgExit};
use crate::command::{self, Context};
use crate::config::{Node, names};
use crate::{Exit, Failure, decide, terminal_progress};

pub(super) use layer::{Baked, Stack, find as find_layer};
pub(crate) use layer::{at_create as layer_at_create, forget};

pub(super) use args::{commands, is_of_apps, with_list_args, with_names};

/// How a command of `vzpkg` fails.
pub(super) type Fail = (PkgExit, Failure);

fn fail(exit: PkgExit, what: impl Into<String>) -> Fail {
    (exit, Failure::new(Exit::System, what))
}

fn because(exit: PkgExit, what: impl Into<String>, error: &(dyn std::error::Error + 'static)) -> Fail {
    (exit, Failure::because(Exit::System, what, error))
}

/// Runs one of the commands of [`commands`].
pub(super) fn run(node: Node, verb: &str, matches: &ArgMatches) -> Result<(), Fail> {
    let shelf = shelf(&node);
    match verb {
        "info" => return show::info(&shelf, matches),
        "clean" => return clean(&node),
        "fetch" => {
            let os = matches.get_one::<TemplateName>("ostemplate").expect("clap requires it");
            return fetch::run(&node, &shelf, os, &requests(&strings(matches, "name"))?);
        }
        "list" if !matches.contains_id("ctid") => return show::templates(&shelf, matches.get_flag("json")),
        _ => {}
    }
    let who = matches.get_one::<String>("ctid").map_or("", String::as_str);
    let wait_lock = Duration::from_secs(matches.get_one::<u64>("wait-lock").copied().unwrap_or(0));
    let context = context(node, who, wait_lock)?;
    if verb == "list" {
        return show::installed(&Record::load(&context.node, context.ctid)?, matches.get_flag("json"));
    }
    let names: Vec<String> = strings(matches, "name");
    let _lock = context.lock("packages").map_err(|f| (PkgExit::CannotLock, f))?;
    let mut record = Record::load(&context.node, context.ctid)?;
    match verb {
        "install" => {
            let requests = requests(&names)?;
            // Before the container is touched: most mistakes are in the words.
            install::decide(&shelf, &record, &requests)?;
            within(&context, &mut record, |guest, record| {
                let wanted = install::decide(&shelf, record, &requests)?;
                install::install(&context, guest, record, &wanted)
            })
        }
        "remove" if names.is_empty() => {
            Err(fail(PkgExit::BadParameter, "Which application templates? `vzpkg list CTID` tells which there are"))
        }
        "remove" => {
            remove::decide(&record, &names)?;
            within(&context, &mut record, |guest, record| {
                // One that was half there has gone by itself.
                let left: Vec<String> = names.iter().filter(|n| record.get(n).is_some()).cloned().collect();
                remove::remove(&context, guest, record, &left)
            })
        }
        "update" => within(&context, &mut record, |guest, record| update(&context, guest, record, &names)),
        "status" => within(&context, &mut record, |guest, _| {
            let (pm, _) = pm(&context, guest)?;
            show::outdated(&install::upgrades(&pm, guest)?, matches.get_flag("json"))
        }),
        "localinstall" => within(&context, &mut record, |guest, _| local(&context, guest, matches)),
        other => Err(fail(PkgExit::BadParameter, format!("No such command: {other}"))),
    }
}

fn strings(matches: &ArgMatches, id: &str) -> Vec<String> {
    matches.try_get_many::<String>(id).ok().flatten().into_iter().flatten().cloned().collect()
}

/// Where application templates are looked for on a node.
fn shelf(node: &Node) -> Shelf {
    Shelf::new(node.global.template_dir.join("recipes/apps"))
}

/// The requests in the words of a command line; each may be a list with commas.
fn requests(words: &[String]) -> Result<Vec<Request>, Fail> {
    let parse =
        |w: &str| w.parse().map_err(|e| because(PkgExit::BadParameter, format!("Bad application template {w}"), &e));
    words.iter().flat_map(|w| w.split(',')).filter(|w| !w.is_empty()).map(parse).collect()
}

/// A command on a container, as `vzctl`'s are.
fn context(node: Node, who: &str, wait_lock: Duration) -> Result<Context, Fail> {
    let mut request =
        crate::cli::parse(["vzctl", "status", who].map(Into::into)).map_err(|f| (PkgExit::BadParameter, f))?;
    request.wait_lock = wait_lock;
    let ctid =
        names::resolve(&node, who).map_err(|e| because(PkgExit::NoContainer, format!("No container {who}"), &e))?;
    let context = Context { node, ctid, request };
    context.container().map_err(|f| (PkgExit::NoContainer, f))?;
    Ok(context)
}

/// For `vzctl create`, which holds the container's lock: refuses what cannot be before anything is made.
pub(crate) fn check_at_create(node: &Node, words: &[String]) -> Result<(), Failure> {
    let decided = requests(words).and_then(|requests| install::decide(&shelf(node), &Record::default(), &requests));
    decided.map(drop).map_err(|(_, mut failure)| {
        failure.exit = Exit::NoSuchTemplate;
        failure
    })
}

/// For `vzctl create`: installs into the new container.
pub(crate) fn install_at_create(context: &Context, words: &[String]) -> Result<(), Failure> {
    requests(words).and_then(|requests| install_all(context, &requests)).map_err(|(_, failure)| failure)
}

/// The application templates of a container and their parameters, for a root that has none of them yet.
pub(crate) struct Applications(Vec<Request>);

impl Applications {
    /// Those that are installed whole.
    ///
    /// # Errors
    /// The record can't be read, or one of them can't be installed any more.
    pub(crate) fn of(context: &Context) -> Result<Self, Failure> {
        let go = || {
            let record = Record::load(&context.node, context.ctid)?;
            let whole = record.apps.into_iter().filter(|app| app.state == record::State::Installed);
            let request = |app: record::App| {
                let name =
                    app.name.parse().map_err(|e| because(PkgExit::BadParameter, "Bad application template", &e))?;
                Ok(Request { name, given: app.parameters })
            };
            let requests = whole.map(request).collect::<Result<Vec<_>, Fail>>()?;
            install::decide(&shelf(&context.node), &Record::default(), &requests)?;
            Ok(Self(requests))
        };
        go().map_err(|(_, failure)| failure)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Installs them; the caller holds the container's lock.
    ///
    /// # Errors
    /// One of them was not installed, nor those after it.
    pub(crate) fn install(&self, context: &Context) -> Result<(), Failure> {
        install_all(context, &self.0).map_err(|(_, failure)| failure)
    }
}

fn install_all(context: &Context, requests: &[Request]) -> Result<(), Fail> {
    let mut record = Record::load(&context.node, context.ctid)?;
    within(context, &mut record, |guest, record| {
        let wanted = install::decide(&shelf(&context.node), record, requests)?;
        install::install(context, guest, record, &wanted)
    })
}

/// Does something in a container. One that does not run gets an idle init for as long as it takes, and no network; it is then as it was.
fn within<T>(
    context: &Context,
    record: &mut Record,
    work: impl FnOnce(&Guest, &mut Record) -> Result<T, Fail>,
) -> Result<T, Fail> {
    let vzctl = |f: Failure| (PkgExit::Vzctl, f);
    let host = context.cgroups().map_err(vzctl)?;
    let go = |inside: &Inside, runs: bool| {
        let bar = RefCell::new(terminal_progress(&format!("CT {}", context.ctid)));
        if let Some(bar) = bar.borrow_mut().as_mut() {
            templates::Progress::stage(bar, templates::Stage::Bootstrap, None);
        }
        let guest = Guest { inside, runs, bar };
        remove::settle(context, &guest, record)?;
        work(&guest, record)
    };
    let condition = vzrt::settle(&context.run_dir(), &host).map_err(|e| vzctl(command::failed(&e)))?;
    if let Condition::Running(running) = condition {
        let plan = context.run_dir().plan().map_err(|e| vzctl(command::system(&e)))?;
        let plan = plan.ok_or_else(|| fail(PkgExit::NotRunning, "Container is not running"))?;
        return go(&Inside::new(&running, &plan, &host), true);
    }
    if let Condition::Mounted(journal) = &condition {
        vzrt::unmount(&context.run_dir(), journal).map_err(|e| vzctl(command::failed(&e)))?;
    }
    let container = context.container().map_err(vzctl)?;
    let prepared = decide::prepare(&context.node, container).map_err(vzctl)?;
    let plan = decide::plan(&context.node, &prepared).map_err(vzctl)?;
    vzrt::with_idle_init(&plan, &host, None, |inside| go(inside, false)).map_err(|e| vzctl(command::failed(&e)))?
}

/// Refuses a container whose packages nobody here knows.
fn with_packages(context: &Context, guest: &Guest) -> Result<(), Fail> {
    if guest.has("/usr/bin/dpkg")? && guest.has("/usr/bin/apt-get")? {
        return Ok(());
    }
    let name = context.container().map_err(|f| (PkgExit::Vzctl, f))?.settings.ostemplate.unwrap_or_default();
    let what = format!("CT {} ({name}) has no package manager: only those of Debian's kind are known", context.ctid);
    Err(fail(PkgExit::NotEz, what))
}

/// The packages for a container.
fn pm(context: &Context, guest: &Guest) -> Result<(Pm, System), Fail> {
    with_packages(context, guest)?;
    let system = guest.system()?;
    let arch = guest.arch()?;
    let pm = Pm::open(&context.node.global.template_dir, &system, &arch)
        .map_err(|e| because(exit::of_pm(&e), "Packages can't be had", &e))?;
    Ok((pm, system))
}

/// All packages, or those that came with some applications.
fn update(context: &Context, guest: &Guest, record: &mut Record, names: &[String]) -> Result<(), Fail> {
    if let Some(name) = names.iter().find(|n| record.get(n).is_none()) {
        return Err(fail(PkgExit::NotInstalled, format!("Application template {name} is not installed")));
    }
    let (pm, _) = pm(context, guest)?;
    let mut plan = install::upgrades(&pm, guest)?;
    if !names.is_empty() {
        let of_them = |d: &Deb| names.iter().filter_map(|n| record.get(n)).any(|a| a.packages.contains_key(&d.name));
        plan.retain(of_them);
    }
    if plan.is_empty() {
        tracing::info!("All packages are up to date");
        return Ok(());
    }
    install::update(&pm, guest, &plan)?;
    for app in &mut record.apps {
        for deb in &plan {
            if let Some(version) = app.packages.get_mut(&deb.name) {
                version.clone_from(&deb.version);
            }
        }
    }
    record.save(&context.node, context.ctid)?;
    tracing::info!("{} packages were updated", plan.len());
    Ok(())
}

/// Packages that are files of the host. What they need has to be there, or be among them.
fn local(context: &Context, guest: &Guest, matches: &ArgMatches) -> Result<(), Fail> {
    let files: Vec<PathBuf> = matches.get_many::<PathBuf>("file").into_iter().flatten().cloned().collect();
    let deb = |file: &PathBuf| {
        let name = file.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
        if !file.is_file() || !name.ends_with(".deb") || name.starts_with('-') {
            return Err(fail(
                PkgExit::FileNotFound,
                format!("{} is no package: a file NAME.deb is expected", file.display()),
            ));
        }
        Ok(Deb { name, version: String::new(), replaces: None, file: file.clone() })
    };
    let debs = files.iter().map(deb).collect::<Result<Vec<_>, _>>()?;
    with_packages(context, guest)?;
    guest.install(&debs, &[]).inspect_err(|_| {
        if let Err((_, failure)) = guest.forget_debs() {
            failure.tell();
        }
    })?;
    tracing::info!("{} packages were installed in CT {}", debs.len(), context.ctid);
    Ok(())
}

fn clean(node: &Node) -> Result<(), Fail> {
    let bytes = Pm::clean(&node.global.template_dir)
        .map_err(|e| because(PkgExit::System, "Packages that were fetched could not be removed", &e))?;
    tracing::info!("{} MiB of packages were removed", bytes >> 20);
    Ok(())
}
