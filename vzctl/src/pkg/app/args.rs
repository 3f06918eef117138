//! The command lines.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use templates::TemplateName;

fn ctid() -> Arg {
    Arg::new("ctid").value_name("CTID|NAME").required(true).help("Number or name of the container")
}

fn names(value: &'static str, help: &'static str) -> Arg {
    Arg::new("name").value_name(value).num_args(1..).help(help)
}

fn json() -> Arg {
    Arg::new("json").short('j').long("json").action(ArgAction::SetTrue).help("As JSON")
}

/// The commands on application templates and packages, but for `update`, `remove` and `list`, which have other meanings too.
pub(in crate::pkg) fn commands() -> [Command; 6] {
    [
        Command::new("install")
            .about("Install application templates into a container, running or not")
            .arg(ctid())
            .arg(names("APP[:PARAMETER=VALUE]", "Which, with the values of their parameters").required(true)),
        Command::new("status").about("List the packages of a container that are out of date").arg(ctid()).arg(json()),
        Command::new("localinstall")
            .about("Install packages that are files of this host into a container")
            .arg(ctid())
            .arg(
                Arg::new("file")
                    .value_name("FILE.deb")
                    .num_args(1..)
                    .required(true)
                    .value_parser(value_parser!(PathBuf)),
            ),
        Command::new("info")
            .about("Print what is known of an OS template, or of an application template")
            .arg(Arg::new("app").long("app").action(ArgAction::SetTrue).help("NAME is an application template"))
            .arg(Arg::new("name").value_name("NAME").required(true).help("Which"))
            .arg(json()),
        Command::new("fetch")
            .about("Fetch packages that containers of an OS template will need, before they do")
            .arg(
                Arg::new("ostemplate")
                    .value_name("OSTEMPLATE")
                    .required(true)
                    .value_parser(value_parser!(TemplateName)),
            )
            .arg(names("APP", "For these application templates; without any, what of the OS template is out of date")),
        Command::new("clean").about("Remove packages that were fetched for containers"),
    ]
}

/// `list` of applications: in a container, or those there are.
pub(in crate::pkg) fn with_list_args(command: Command) -> Command {
    command.args([
        Arg::new("ctid").value_name("CTID|NAME").help("The application templates of this container"),
        Arg::new("apps").long("apps").action(ArgAction::SetTrue).help("The application templates there are"),
        Arg::new("os")
            .long("os")
            .action(ArgAction::SetTrue)
            .conflicts_with_all(["apps", "ctid"])
            .help("OS templates, which is the default"),
    ])
}

/// `remove CTID APP…`, beside `remove cache`; and so of `update`.
pub(in crate::pkg) fn with_names(command: Command) -> Command {
    command
        .subcommand_required(false)
        .args_conflicts_with_subcommands(true)
        .arg(ctid())
        .arg(names("APP", "Application templates; for `update`, only the packages that came with them"))
}

/// Whether a command line is about applications.
pub(in crate::pkg) fn is_of_apps(verb: &str, matches: &ArgMatches) -> bool {
    match verb {
        "install" | "status" | "localinstall" | "fetch" | "clean" => true,
        "info" => matches.get_flag("app"),
        "update" | "remove" => matches.subcommand().is_none(),
        "list" => matches.contains_id("ctid") || matches.get_flag("apps"),
        _ => false,
    }
}
