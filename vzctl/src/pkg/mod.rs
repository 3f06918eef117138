//! `vzpkg`: OS templates.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use templates::{Progress, Stage, Store, TemplateName};

use crate::config::container::Container;
use crate::config::{Node, node};
use crate::{Failure, logging, terminal_progress};

mod exit;

use exit::PkgExit;

/// Runs a command line; the process's exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    let matches = match definition().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(e) => {
            let _ = e.print();
            return if e.use_stderr() { PkgExit::BadParameter as u8 } else { 0 };
        }
    };
    logging::init("vzpkg", if matches.get_flag("quiet") { logging::Talk::Quiet } else { logging::Talk::Normal });
    match run(&matches) {
        Ok(()) => 0,
        Err((exit, failure)) => {
            failure.tell();
            exit as u8
        }
    }
}

/// The whole command line.
#[must_use]
pub fn definition() -> Command {
    let name = || Arg::new("name").value_name("OSTEMPLATE").required(true).value_parser(value_parser!(TemplateName));
    Command::new("vzpkg")
        .about("Makes and lists OS templates")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .args([
            Arg::new("quiet")
                .short('q')
                .long("quiet")
                .action(ArgAction::SetTrue)
                .global(true)
                .help("Print no messages"),
            Arg::new("config-dir")
                .long("config-dir")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .global(true)
                .help("Where vz.conf is [default: /etc/vz, or VZ_CONFDIR]"),
        ])
        .subcommands([
            Command::new("create").about("Make something").subcommand_required(true).subcommand(
                Command::new("cache").about("Make the cache of an OS template, to create containers from").arg(name()),
            ),
            Command::new("remove").about("Remove something").subcommand_required(true).subcommand(
                Command::new("cache").about("Remove the cache of an OS template that no container is on").arg(name()),
            ),
            Command::new("list")
                .about("List OS templates: those that are here, and those that can be made")
                .arg(Arg::new("json").short('j').long("json").action(ArgAction::SetTrue).help("As JSON")),
        ])
}

type PkgOutcome = Result<(), (PkgExit, Failure)>;

fn run(matches: &ArgMatches) -> PkgOutcome {
    let fail = |exit: PkgExit, what: String| (exit, Failure::new(crate::Exit::System, what));
    if !nix::unistd::geteuid().is_root() {
        return Err(fail(PkgExit::NotRoot, "vzpkg can only be used by root".into()));
    }
    let dir = node::config_dir(matches.get_one::<PathBuf>("config-dir").map(PathBuf::as_path));
    let node = Node::open(dir).map_err(|e| (PkgExit::System, Failure::from_error(e.exit(), &e)))?;
    logging::to_file(node.global.log_file.as_deref(), None);
    let store = Store::open(&node.global.template_dir);
    match matches.subcommand() {
        Some(("create", m)) => create(&store, named(m)),
        Some(("remove", m)) => remove(&node, &store, named(m)),
        Some(("list", m)) => list(&store, m.get_flag("json")),
        _ => Err(fail(PkgExit::BadParameter, "No such command".into())),
    }
}

fn named(matches: &ArgMatches) -> &TemplateName {
    matches.subcommand().and_then(|(_, m)| m.get_one("name")).expect("clap requires a name")
}

fn create(store: &Store, name: &TemplateName) -> PkgOutcome {
    tracing::info!("Creating the cache of {name}");
    let mut lines = Lines;
    let mut bar = terminal_progress(name.as_str());
    let progress: &mut dyn Progress = bar.as_mut().map_or(&mut lines, |bar| bar);
    let (archive, tree) = store.create_cache(name, progress).map_err(|e| {
        (exit::of_cache(&e), Failure::because(crate::Exit::System, format!("The cache of {name} was not made"), &e))
    })?;
    drop(bar);
    tracing::info!("{} ({} MiB) is ready, its tree is {}", archive.path.display(), archive.size() >> 20, tree.id);
    Ok(())
}

/// Progress where nobody watches a terminal: one line a stage.
struct Lines;

impl Progress for Lines {
    fn stage(&mut self, stage: Stage, _: Option<u64>) {
        tracing::info!("  {}", stage.describe());
    }
    fn advance(&mut self, _: u64) {}
    fn message(&mut self, line: &str) {
        tracing::debug!("{line}");
    }
}

fn remove(node: &Node, store: &Store, name: &TemplateName) -> PkgOutcome {
    // A container whose configuration can't be read may be on the tree: then nothing is removed.
    let mut used = Vec::new();
    let unreadable = |e: &(dyn std::error::Error + 'static)| {
        (PkgExit::System, Failure::because(crate::Exit::System, "Unable to tell which templates are in use", e))
    };
    for ctid in node.containers().map_err(|e| unreadable(&e))? {
        let conf = Container::load(node, ctid).map_err(|e| unreadable(&e))?;
        used.extend(conf.own.tree.map(|t| t.to_string()));
    }
    store.remove(name, &|id| used.iter().any(|u| u == id)).map_err(|e| {
        (exit::of_store(&e), Failure::because(crate::Exit::System, format!("The cache of {name} was not removed"), &e))
    })?;
    tracing::info!("The cache of {name} was removed");
    Ok(())
}

fn list(store: &Store, json: bool) -> PkgOutcome {
    let system = |e: &(dyn std::error::Error + 'static)| (PkgExit::System, Failure::from_error(crate::Exit::System, e));
    let here = store.list().map_err(|e| system(&e))?;
    let missing = templates::Recipe::builtin().filter(|r| !here.iter().any(|t| t.name.as_str() == *r));
    let mut out = std::io::stdout().lock();
    let text = if json {
        let rows: Vec<_> = here
            .iter()
            .map(|t| {
                let archive = t.archive.as_ref();
                serde_json::json!({
                    "name": t.name.as_str(), "cached": archive.is_some(), "bytes": archive.map(templates::Archive::size),
                    "mtime": archive.map(templates::Archive::mtime), "trees": t.trees,
                })
            })
            .chain(missing.map(|r| serde_json::json!({"name": r, "cached": false, "bytes": null, "mtime": null, "trees": []})))
            .collect();
        serde_json::to_string_pretty(&rows).map_err(|e| system(&e))?
    } else {
        let line = |t: &templates::Template| match &t.archive {
            Some(a) => format!("{:<32} {:>6} MiB", t.name.as_str(), a.size() >> 20),
            None => format!("{:<32} only trees that containers are on", t.name.as_str()),
        };
        let lines: Vec<String> = here
            .iter()
            .map(line)
            .chain(missing.map(|r| format!("{r:<32} can be made: vzpkg create cache {r}")))
            .collect();
        lines.join("\n")
    };
    writeln!(out, "{text}").map_err(|e| system(&e))
}
