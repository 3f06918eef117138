//! `vzlist`: what containers there are and what they are doing.
//!
//! It looks only at configurations, run directories and cgroups, never at a container's files: a root or private area that hangs must
//! not hang the list. Of a configuration only the keys that the chosen fields need are read; most uses ask a thousand files for three.

mod args;
mod facts;
mod field;
mod fnmatch;
mod json;
mod table;

use std::ffi::OsString;
use std::io::Write;

pub use args::{Args, command};
pub use facts::{DiskUsage, Facts, Status};
pub use field::{Cell, Field};

use crate::config::{Node, node};

/// What a run of `vzlist` leaves: the lines for both outputs, and its exit code (0 or 1).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// The list.
    pub stdout: String,
    /// What went wrong, a line each.
    pub stderr: Vec<String>,
    /// 0, or 1.
    pub exit: u8,
}

impl Outcome {
    fn failed(message: impl Into<String>) -> Self {
        Self { stderr: vec![message.into()], exit: 1, ..Self::default() }
    }
}

/// The program: `argv` begins with its own name. Returns the exit code.
#[must_use]
pub fn main(argv: Vec<OsString>) -> u8 {
    let outcome = run(&argv.iter().skip(1).map(|a| a.to_string_lossy().into_owned()).collect::<Vec<_>>());
    for line in &outcome.stderr {
        eprintln!("{line}");
    }
    match std::io::stdout().lock().write_all(outcome.stdout.as_bytes()) {
        Ok(()) => outcome.exit,
        // `vzlist | head` has what it wanted.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => outcome.exit,
        Err(e) => {
            eprintln!("vzlist: write(stdout): {e}");
            1
        }
    }
}

/// Runs `vzlist` with its arguments, its own name not among them.
#[must_use]
pub fn run(argv: &[String]) -> Outcome {
    let args = match Args::parse(argv) {
        Ok(args) => args,
        Err(outcome) => return outcome,
    };
    if args.list_fields {
        return Outcome { stdout: field::listing(), ..Outcome::default() };
    }
    if !rustix::process::geteuid().is_root() {
        return Outcome::failed("This program can only be run under root.");
    }
    match Node::open(node::config_dir(args.config_dir.as_deref())) {
        Ok(node) => list(&node, &args),
        Err(e) => {
            let cause = std::error::Error::source(&e).map(ToString::to_string);
            let stderr = std::iter::once(e.to_string()).chain(cause).map(|line| plain(&line)).collect();
            Outcome { stderr, exit: 1, ..Outcome::default() }
        }
    }
}

fn list(node: &Node, args: &Args) -> Outcome {
    let ids = match facts::resolve(node, &args.containers) {
        Ok(ids) => ids,
        Err(unknown) => return Outcome::failed(format!("CT ID {} is invalid.", plain(&unknown))),
    };
    let wanted = args.wanted();
    let (mut rows, complaints) = match facts::collect(node, &wanted, args.scope(&ids)) {
        Ok(collected) => collected,
        Err(e) => return Outcome::failed(e.to_string()),
    };
    rows.retain(|row| args.matches(row));
    let rows = sorted(rows, &args.sort, args.descending);
    let stderr = complaints.iter().map(|c| plain(c)).collect();
    let exit = u8::from(rows.is_empty() && !args.containers.is_empty());
    if args.json {
        return Outcome { stdout: json::render(&args.fields, &rows), stderr, exit };
    }
    if rows.is_empty() {
        let stderr = [stderr, vec!["Container(s) not found".to_owned()]].concat();
        return Outcome { stderr, exit, ..Outcome::default() };
    }
    Outcome { stdout: table::render(&args.fields, &rows, args.header, args.trim), stderr, exit }
}

/// Of equal ones the lower number comes first, whichever way the field is sorted.
fn sorted(rows: Vec<Facts>, by: &Field, descending: bool) -> Vec<Facts> {
    let mut keyed: Vec<(Cell, Facts)> = rows.into_iter().map(|row| (by.cell(&row), row)).collect();
    keyed.sort_by(|(a, row_a), (b, row_b)| {
        let by_field = if descending { b.compare(a) } else { a.compare(b) };
        by_field.then_with(|| row_a.ctid.cmp(&row_b.ctid))
    });
    keyed.into_iter().map(|(_, row)| row).collect()
}

/// A character that does something to a terminal instead of being seen: controls (C0, C1, DEL), and those that turn or hide text.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// Text as a terminal may have it. Most values were checked when they were set; a file edited by hand, or by another program, was not.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if is_unseen(c) { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests;
