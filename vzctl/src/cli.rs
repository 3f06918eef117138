//! The command line of `vzctl`, from one definition: parsing, help, man page and completions all come from [`definition`].

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::config::request;
use crate::logging::Talk;
use crate::{Exit, Failure};

/// What was asked for, in words only: nothing has been looked at.
#[derive(Debug)]
pub struct Request {
    /// How much to say.
    pub talk: Talk,
    /// Work without the container's lock: the caller holds it.
    pub skip_lock: bool,
    /// How long to wait for it.
    pub wait_lock: Duration,
    /// `--config-dir`.
    pub config_dir: Option<PathBuf>,
    /// `--json`, for the commands that print tables.
    pub json: bool,
    /// The command.
    pub verb: String,
    /// Its container: a number or a name. Empty for the commands that have none.
    pub who: String,
    /// The command's own options.
    pub matches: ArgMatches,
}

/// First line of `--help` and the whole of `--version`: scripts look for it.
pub const VERSION: &str = concat!("vzctl version ", env!("CARGO_PKG_VERSION"));

/// Parses a command line.
///
/// # Errors
/// With the exit code of the reference: 20 for what is not understood, 21 for a container that is missing. Help and version come back as
/// a failure with code 0 after they have been printed.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Request, Failure> {
    let args: Vec<OsString> = args.into_iter().collect();
    let mut definition = definition();
    let matches = definition.try_get_matches_from_mut(&args).map_err(|e| refuse(&e))?;
    let Some((verb, sub)) = matches.subcommand() else {
        return Err(usage());
    };
    let talk = match (sub.get_flag("quiet"), sub.get_count("verbose")) {
        (true, _) => Talk::Quiet,
        (_, 0) => Talk::Normal,
        _ => Talk::Verbose,
    };
    // Asked of the definition: matches of a release build do not know an argument that was not given from one that there is not.
    let is_about_one =
        definition.find_subcommand(verb).is_some_and(|c| c.get_arguments().any(|a| a.get_id() == "ctid"));
    let who = match sub.try_get_one::<String>("ctid") {
        Ok(Some(who)) => who.clone(),
        _ if is_about_one => return Err(Failure::new(Exit::InvalidValue, "CT ID missing")),
        _ => String::new(),
    };
    Ok(Request {
        talk,
        skip_lock: sub.get_flag("skiplock"),
        wait_lock: Duration::from_secs(sub.get_one::<u64>("wait-lock").copied().unwrap_or(0)),
        config_dir: sub.get_one::<PathBuf>("config-dir").cloned(),
        json: sub.try_get_one::<bool>("json").ok().flatten().copied().unwrap_or(false),
        verb: verb.to_owned(),
        who,
        matches: sub.clone(),
    })
}

/// The command line says nothing: how it is used, on standard error. No message: those are one line each.
fn usage() -> Failure {
    let _ = write!(std::io::stderr(), "{}", definition().render_help());
    Failure::new(Exit::InvalidSyntax, "")
}

fn refuse(error: &clap::Error) -> Failure {
    match error.kind() {
        ErrorKind::DisplayHelp => {
            let _ = error.print();
            Failure::new(Exit::Success, "")
        }
        ErrorKind::DisplayVersion => {
            let _ = writeln!(std::io::stdout(), "{VERSION}");
            Failure::new(Exit::Success, "")
        }
        ErrorKind::InvalidSubcommand => {
            let word =
                error.get(clap::error::ContextKind::InvalidSubcommand).map(ToString::to_string).unwrap_or_default();
            Failure::new(Exit::InvalidSyntax, format!("Bad command: {word}"))
                .hint("See `vzctl --help` for the commands there are.")
        }
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => usage(),
        _ => {
            let text = error.render().to_string();
            let mut lines = text.lines().map(|l| l.trim_start_matches("error: ")).filter(|l| !l.is_empty());
            let what = lines.next().unwrap_or("the command line is not understood").to_owned();
            let failure = Failure::new(Exit::InvalidSyntax, what);
            match lines.find(|l| l.trim_start().starts_with("tip:")) {
                Some(tip) => failure.hint(tip.trim().to_owned()),
                None => failure,
            }
        }
    }
}

/// The whole command line.
#[must_use]
pub fn definition() -> Command {
    Command::new("vzctl")
        .about("Manages containers: small servers that share one kernel")
        .before_help(VERSION)
        // Printed after the program's name: together the line that scripts look for.
        .version(concat!("version ", env!("CARGO_PKG_VERSION")))
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .max_term_width(120)
        .args(everywhere())
        .subcommands(verbs())
}

fn everywhere() -> [Arg; 5] {
    [
        flag("quiet", "Print no messages; the log file still has them").global(true),
        Arg::new("verbose").long("verbose").action(ArgAction::Count).global(true).help("Say more; may be repeated"),
        flag("skiplock", "Do not take the container's lock").global(true),
        seconds("wait-lock", "Wait this long for another command on the same container to finish").global(true),
        Arg::new("config-dir")
            .long("config-dir")
            .value_name("DIR")
            .value_parser(value_parser!(PathBuf))
            .global(true)
            .help("Where vz.conf is [default: /etc/vz, or VZ_CONFDIR]"),
    ]
}

fn verbs() -> Vec<Command> {
    vec![
        with_create_options(of_container("create", "Make a new container's configuration and private area")),
        of_container("destroy", "Remove a container with all its files").visible_alias("delete"),
        of_container("mount", "Mount a container's root, without starting it"),
        of_container("umount", "Unmount it"),
        with_start_options(of_container("start", "Start a container"))
            .arg(flag("dry-run", "Print what would be done, and do nothing"))
            .arg(flag("json", "With --dry-run: the plan as JSON"))
            .arg(
                Arg::new("quick-reboots")
                    .long("quick-reboots")
                    .value_name("N")
                    .value_parser(value_parser!(u32))
                    .hide(true)
                    .help("Of a monitor: the container reboots, and has done so N times in a row soon after its start"),
            ),
        with_stop_options(of_container("stop", "Stop a container")),
        with_start_options(with_stop_options(of_container("restart", "Stop a container if it runs, and start it"))),
        of_container("status", "Print what a container is doing").arg(flag("json", "As JSON")),
        of_container("set", "Change a container's parameters, while it runs or for its next start")
            .args(request::set_args()),
        of_container("compact", "Give the host back what is free in a container's image"),
        of_container("convert", "Turn a stopped container's private area into an image, or into a directory").arg(
            Arg::new("layout")
                .long("layout")
                .visible_aliases(["velayout", "ve_layout"])
                .value_name("simfs|ploop[:MODE]")
                .help("What it is to be [default: ploop]"),
        ),
        of_container("reinstall", "Give a stopped container a new root from its template; the old one is in /old")
            .args([
                Arg::new("ostemplate")
                    .long("ostemplate")
                    .value_name("NAME")
                    .help("Another template than it was made from"),
                flag("skipbackup", "Do not keep the old root"),
                flag("resetpwdb", "Begin with the template's users, groups and passwords"),
                flag("skipapps", "Do not install its application templates again"),
                Arg::new("keep")
                    .long("keep")
                    .value_name("PATH")
                    .action(ArgAction::Append)
                    .help("Have this file or directory of the old root in its place; may be repeated"),
            ]),
        of_container("enter", "A root shell in a container").arg(
            Arg::new("exec")
                .long("exec")
                .value_name("COMMAND")
                .num_args(1..)
                .allow_hyphen_values(true)
                .help("Run this instead"),
        ),
        of_container(
            "console",
            "Attach to a container's console, started or not; ESC . at the beginning of a line detaches",
        )
        .arg(
            Arg::new("ttynum")
                .value_name("TTYNUM")
                .value_parser(value_parser!(u32))
                .help("Which terminal [default: 1, the console; there is no other]"),
        )
        .arg(flag("log", "Print the last of what it has printed, and end")),
        of_container("exec", "Run a command line by the shell in a container; ends with 8 if it failed")
            .arg(words("command", "COMMAND")),
        of_container("exec2", "The same, ending with the command's own status").arg(words("command", "COMMAND")),
        of_container("exec3", "Run a program with its arguments in a container, by no shell")
            .arg(words("command", "COMMAND")),
        of_container("runscript", "Run a script of the host in a container, started or not")
            .arg(Arg::new("script").value_name("SCRIPT").value_parser(value_parser!(PathBuf))),
        of_container("quotaon", "Put a container's disk limits in force; of a private area that is a directory"),
        of_container("quotaoff", "Take them away, until the next quotaon, mount or start"),
        of_container("quotainit", "Give its private area a new project id, and count all that is in it"),
        Command::new("startall").about("Start every container that starts with the host, several at once"),
        Command::new("stopall").about("Stop every container before the host goes down, several at once"),
        Command::new("check")
            .about("Print what this host can do for containers, and what each missing thing costs")
            .arg(flag("json", "As JSON")),
    ]
}

fn of_container(name: &'static str, about: &'static str) -> Command {
    Command::new(name)
        .about(about)
        .arg(Arg::new("ctid").value_name("CTID|NAME").help("Number or name of the container"))
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

fn seconds(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("SEC").value_parser(value_parser!(u64).range(0..=86_400)).help(help)
}

/// Everything that follows, options of the program inside included. Not "required" for clap, so that a missing container is told first.
fn words(id: &'static str, value: &'static str) -> Arg {
    Arg::new(id).value_name(value).num_args(1..).trailing_var_arg(true).allow_hyphen_values(true)
}

fn with_create_options(command: Command) -> Command {
    command.args(request::create_args()).args([
        Arg::new("config")
            .long("config")
            .value_name("SAMPLE")
            .help("Sample configuration to begin with [default: CONFIGFILE of vz.conf]"),
        Arg::new("apptemplate")
            .long("apptemplate")
            .value_name("APP[:PARAMETER=VALUE][,APP…]")
            .action(ArgAction::Append)
            .help("Application templates to install"),
    ])
}

fn with_start_options(command: Command) -> Command {
    command.args([
        flag("wait", "Wait until the container has started all it starts by itself"),
        seconds("wait-timeout", "How long --wait waits [default: 300]"),
        flag("force", "Start it even if it is disabled"),
        flag("skip-fsck", "Do not check the file system of an image"),
        flag("skip-remount", "Keep the root as it is mounted"),
    ])
}

fn with_stop_options(command: Command) -> Command {
    command.args([
        flag("fast", "Kill it at once"),
        flag("skip-umount", "Leave its root mounted"),
        seconds("stop-timeout", "How long it may take to halt by itself before it is killed [default: 120]"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str) -> Exit {
        parse(line.split(' ').map(OsString::from)).unwrap_err().exit
    }

    #[test]
    fn the_definition_holds_together() {
        definition().debug_assert();
    }

    #[test]
    fn what_is_not_understood_ends_with_the_codes_of_the_reference() {
        assert_eq!(refused("vzctl"), Exit::InvalidSyntax);
        assert_eq!(refused("vzctl frobnicate 101"), Exit::InvalidSyntax);
        assert_eq!(refused("vzctl start"), Exit::InvalidValue);
        assert_eq!(refused("vzctl start 101 --frobnicate"), Exit::InvalidSyntax);
        assert_eq!(refused("vzctl set 101 -f"), Exit::InvalidSyntax);
    }

    #[test]
    fn flags_stand_before_the_command_or_after_the_container() {
        for line in ["vzctl --verbose stop 101", "vzctl stop 101 --verbose"] {
            let request = parse(line.split(' ').map(OsString::from)).unwrap();
            assert_eq!((request.talk, request.who.as_str()), (Talk::Verbose, "101"));
        }
    }

    #[test]
    fn what_follows_exec_is_the_programs_own() {
        let request = parse("vzctl exec 101 ls --verbose -la".split(' ').map(OsString::from)).unwrap();
        assert_eq!(request.talk, Talk::Normal);
        let words: Vec<&String> = request.matches.get_many("command").unwrap().collect();
        assert_eq!(words, ["ls", "--verbose", "-la"]);
    }
}
