//! `vzpkg`: OS templates, and application templates in containers.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use templates::{Store, TemplateName};

use crate::config::{Node, node};
use crate::{Failure, logging};

pub(crate) mod app;
mod appcache;
mod capture;
mod exit;
mod os;
mod temporary;

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
    // Talk would stand between the reader and the JSON.
    let quiet = matches.get_flag("quiet")
        || matches.subcommand().is_some_and(|(verb, m)| verb == "capture" && m.get_flag("json"));
    logging::init("vzpkg", if quiet { logging::Talk::Quiet } else { logging::Talk::Normal });
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
        .about("OS templates, and application templates in containers")
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
            Arg::new("wait-lock")
                .long("wait-lock")
                .value_name("SEC")
                .value_parser(value_parser!(u64).range(0..=86_400))
                .global(true)
                .help("Wait this long for another command on the same container to finish"),
            Arg::new("config-dir")
                .long("config-dir")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .global(true)
                .help("Where vz.conf is [default: /etc/vz, or VZ_CONFDIR]"),
        ])
        .subcommands([
            Command::new("create")
                .about("Make something")
                .subcommand_required(true)
                .subcommand(
                    os::create_command("cache", "Make the cache of an OS template, to create containers from")
                        .arg(name()),
                )
                .subcommand(appcache::create_definition()),
            app::with_names(Command::new("update").about("Bring the packages of a container up to date"))
                .subcommand(
                    os::create_command("cache", "Make a new version of an OS template; containers stay on theirs")
                        .arg(name()),
                )
                .subcommand(appcache::update_definition()),
            app::with_names(Command::new("remove").about("Remove application templates from a container"))
                .subcommand(
                    Command::new("cache")
                        .about("Remove the cache of an OS template that no container is on")
                        .arg(name()),
                )
                .subcommand(appcache::remove_definition()),
            capture::definition(),
            app::with_list_args(Command::new("list"))
                .about("List OS templates, those that are here and those that can be made; or application templates")
                .arg(Arg::new("json").short('j').long("json").action(ArgAction::SetTrue).help("As JSON"))
                .subcommand(appcache::list_definition()),
        ])
        .subcommands(app::commands())
}

type PkgOutcome = Result<(), (PkgExit, Failure)>;

fn run(matches: &ArgMatches) -> PkgOutcome {
    let fail = |exit: PkgExit, what: String| (exit, Failure::new(crate::Exit::System, what));
    if !nix::unistd::geteuid().is_root() {
        return Err(fail(PkgExit::NotRoot, "vzpkg can only be used by root".into()));
    }
    // Whoever runs us may have blocked signals for itself; this command can be ended by them.
    nix::sys::signal::SigSet::empty()
        .thread_set_mask()
        .map_err(|e| fail(PkgExit::System, format!("sigprocmask(): {e}")))?;
    let dir = node::config_dir(matches.get_one::<PathBuf>("config-dir").map(PathBuf::as_path));
    let node = Node::open(dir).map_err(|e| (PkgExit::System, Failure::from_error(e.exit(), &e)))?;
    logging::to_file(node.global.log_file.as_deref(), None);
    let store = Store::open(&node.global.template_dir);
    match matches.subcommand() {
        Some(("create", m)) if m.subcommand_name() == Some("appcache") => appcache::create(&node, &store, inner(m)),
        Some(("update", m)) if m.subcommand_name() == Some("appcache") => appcache::update(&node, &store, inner(m)),
        Some(("remove", m)) if m.subcommand_name() == Some("appcache") => appcache::remove(&node, &store, inner(m)),
        Some(("list", m)) if m.subcommand_name() == Some("appcache") => appcache::list(&node, &store, inner(m)),
        Some((verb, m)) if app::is_of_apps(verb, m) => app::run(node, verb, m),
        Some(("create", m)) => os::create(&store, cache(m)),
        Some(("update", m)) => os::update(&node, &store, cache(m)),
        Some(("info", m)) => os::info(&node, &store, m.get_one("name").map_or("", String::as_str), m.get_flag("json")),
        Some(("remove", m)) => os::remove(&node, &store, named(m)),
        Some(("capture", m)) => capture::run(&node, &store, m),
        Some(("list", m)) => os::list(&store, m.get_flag("json")),
        _ => Err(fail(PkgExit::BadParameter, "No such command".into())),
    }
}

/// Where application templates are, each `NAME.toml`.
fn apps_dir(node: &Node) -> PathBuf {
    node.global.template_dir.join("recipes/apps")
}

fn inner(matches: &ArgMatches) -> &ArgMatches {
    matches.subcommand().expect("clap requires what it is about").1
}

/// How many there are of something.
fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// The arguments of `… cache`.
fn cache(matches: &ArgMatches) -> &ArgMatches {
    matches.subcommand().map_or(matches, |(_, cache)| cache)
}

fn named(matches: &ArgMatches) -> &TemplateName {
    inner(matches).get_one("name").expect("clap requires a name")
}
