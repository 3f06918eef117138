//! The small programs about what containers may take of a node: `vzcfgvalidate`, `vzcfgscale`, `vzsplit`, `vzcalc`, `vzmemcheck`,
//! `vzcpucheck`, `vzpid`, `vzps`, `vztop`, and `vzquota`.
//!
//! Each is a file: its command line, and a `run` that reads what it needs, lets [`beancounters`] compute, and returns the text. What they
//! print, and their codes, are those of vzctl 4.

mod calc;
mod cfgscale;
mod cfgvalidate;
mod cpucheck;
mod file;
mod memcheck;
mod node;
mod pid;
mod ps;
mod quota;
mod split;
mod top;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::failure::chain;

/// One of the programs.
pub struct Tool {
    /// Its name.
    pub name: &'static str,
    /// Its command line.
    pub definition: fn() -> Command,
    /// What it ends with, and what that means.
    pub codes: &'static [(&'static str, &'static str)],
    /// The code for a wrong command line.
    usage: u8,
    run: fn(&ArgMatches) -> Outcome,
}

/// What most of them end with.
const DONE_OR_NOT: &[(&str, &str)] = &[("0", "Done."), ("1", "It was not; standard error says why.")];

/// All of them.
pub const ALL: [Tool; 10] = [
    Tool {
        name: "vzcfgvalidate",
        definition: cfgvalidate::command,
        codes: cfgvalidate::CODES,
        usage: 1,
        run: cfgvalidate::run,
    },
    Tool { name: "vzcfgscale", definition: cfgscale::command, codes: cfgscale::CODES, usage: 1, run: cfgscale::run },
    Tool { name: "vzsplit", definition: split::command, codes: DONE_OR_NOT, usage: 1, run: split::run },
    Tool { name: "vzcalc", definition: calc::command, codes: DONE_OR_NOT, usage: 1, run: calc::run },
    Tool { name: "vzmemcheck", definition: memcheck::command, codes: DONE_OR_NOT, usage: 1, run: memcheck::run },
    Tool { name: "vzcpucheck", definition: cpucheck::command, codes: cpucheck::CODES, usage: 2, run: cpucheck::run },
    Tool { name: "vzpid", definition: pid::command, codes: DONE_OR_NOT, usage: 1, run: pid::run },
    Tool { name: "vzps", definition: ps::command, codes: ps::CODES, usage: 1, run: ps::run },
    Tool { name: "vztop", definition: top::command, codes: DONE_OR_NOT, usage: 1, run: top::run },
    Tool { name: "vzquota", definition: quota::command, codes: quota::CODES, usage: 2, run: quota::run },
];

/// What a run leaves: what is to be printed, and the exit code.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Report {
    /// Bytes: a configuration is printed as it was written.
    stdout: Vec<u8>,
    stderr: String,
    exit: u8,
}

impl Report {
    fn of(stdout: impl Into<Vec<u8>>) -> Self {
        Self { stdout: stdout.into(), ..Self::default() }
    }
}

/// Why nothing came of it: lines for standard error. The code is 1.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Trouble(Vec<String>);

impl Trouble {
    fn new(what: impl Into<String>) -> Self {
        Self(vec![what.into()])
    }

    /// The error, and below it the chain of what caused it.
    fn from_error(error: &(dyn std::error::Error + 'static)) -> Self {
        Self([Some(error.to_string()), error.source().map(chain)].into_iter().flatten().collect())
    }
}

type Outcome = Result<Report, Trouble>;

/// The program of this name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Tool> {
    ALL.iter().find(|tool| tool.name == name)
}

impl Tool {
    /// Runs it; `argv` begins with its name. Returns the exit code.
    #[must_use]
    pub fn main(&self, argv: Vec<OsString>) -> u8 {
        let words = std::iter::once(self.name.into()).chain(argv.into_iter().skip(1));
        let matches = match (self.definition)().try_get_matches_from(words) {
            Ok(matches) => matches,
            Err(e) => {
                // There is nobody to tell that nobody can be told.
                let _ = e.print();
                return if e.use_stderr() { self.usage } else { 0 };
            }
        };
        let report = (self.run)(&matches).unwrap_or_else(|Trouble(lines)| Report {
            stderr: lines.iter().map(|line| crate::list::plain(line) + "\n").collect(),
            exit: 1,
            ..Report::default()
        });
        eprint!("{}", report.stderr);
        match std::io::stdout().lock().write_all(&report.stdout) {
            Ok(()) => report.exit,
            // `vzmemcheck | head` has what it wanted.
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => report.exit,
            Err(e) => {
                eprintln!("{}: write(stdout): {e}", self.name);
                1
            }
        }
    }
}

fn switch(id: &'static str, short: char, help: &'static str) -> Arg {
    Arg::new(id).short(short).long(id).action(ArgAction::SetTrue).help(help)
}

fn yes_or_no(id: &'static str, short: char, help: &'static str) -> Arg {
    Arg::new(id).short(short).long(id).value_name("yes|no").value_parser(["yes", "no"]).help(help)
}

/// What [`yes_or_no`] was given, if it was.
fn said_yes(matches: &ArgMatches, id: &str) -> Option<bool> {
    matches.get_one::<String>(id).map(|word| word == "yes")
}

fn json_switch() -> Arg {
    Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print JSON")
}

fn config_dir() -> Arg {
    Arg::new("config-dir")
        .long("config-dir")
        .value_name("DIR")
        .value_parser(value_parser!(PathBuf))
        .help("Use this in place of /etc/vz")
}

/// Rows as JSON, a line break at the end.
fn json(rows: &impl serde::Serialize) -> Outcome {
    let text = serde_json::to_string_pretty(rows).map_err(|e| Trouble::from_error(&e))?;
    Ok(Report::of(text + "\n"))
}

/// A figure for JSON: two decimals as the tables have them, `null` where it is not known, and the word where nothing bounds it.
fn json_figure(figure: Option<f64>) -> serde_json::Value {
    match figure {
        Some(figure) if figure.is_infinite() => "unlimited".into(),
        Some(figure) => ((figure * 100.0).round() / 100.0).into(),
        None => serde_json::Value::Null,
    }
}
