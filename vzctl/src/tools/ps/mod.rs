//! `vzps`: ps(1) of the host with the container of each process, or of one container.
//!
//! What `ps` prints is never read for who a process is: a command line is its owner's to choose, and can look like another row. `ps` is asked
//! twice. Once for the numbers of the chosen processes and nothing else; their cgroups say which containers they are in. And then for each container, for
//! the rows of exactly its processes: whatever is in them, they are all of that container.

mod words;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::process::Command as Process;

use clap::{Arg, ArgMatches, Command};
use vzrt::Ctid;

use self::words::Words;
use super::pid::container_of_process;
use super::{Outcome, Report, Trouble, config_dir, node};
use crate::config::{Node, names};
use crate::list::plain;

pub(super) const CODES: &[(&str, &str)] =
    &[("0", "Processes were shown."), ("1", "There are none, or something failed; standard error says what.")];

/// Numbers in one word for execve(2), which takes 128 KiB.
const PIDS_AT_ONCE: usize = 10_000;

/// Digits of a container's number, and a blank.
const CTID_WIDTH: usize = 10;

pub(super) fn command() -> Command {
    Command::new("vzps").about("Show processes with the containers they are in").args([
        Arg::new("container")
            .short('E')
            .long("ctid")
            .value_name("CTID")
            .help("Only processes of this container, by number or name; 0 is the host"),
        config_dir(),
        Arg::new("options")
            .value_name("OPTION")
            .num_args(0..)
            .trailing_var_arg(true)
            .allow_hyphen_values(true)
            .help("Options of ps(1)"),
    ])
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let node = node::open(matches)?;
    let mut options: Vec<String> = matches.get_many::<String>("options").into_iter().flatten().cloned().collect();
    let container = match take_container(&mut options).map_err(Trouble::new)? {
        Some(word) => Some(word),
        None => matches.get_one::<String>("container").cloned(),
    };
    let only = container.map(|word| wanted(&node, &word)).transpose()?;
    let mut words = Words::of(&options).map_err(|word| {
        Trouble::new(format!("{}: vzps knows no such option of ps, or its value is missing", plain(&word)))
    })?;
    if only.is_some() && words.selection.is_empty() {
        words.selection.push("-e".to_owned());
    }
    words.format.extend(width(&words));
    let mut groups: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for pid in selected(&words.selection)? {
        // One that has ended meanwhile is in none.
        let Some(container) = container_of_process(pid, &node.global.cgroup)? else { continue };
        let ctid = container.map_or(0, Ctid::get);
        if only.is_none_or(|only| only == ctid) {
            groups.entry(ctid).or_default().push(pid);
        }
    }
    let mut text = if words.headless { String::new() } else { header(&words.format)? };
    let titles = text.len();
    for (ctid, pids) in &groups {
        for pids in pids.chunks(PIDS_AT_ONCE) {
            text += &prefixed(&rows(&words.format, pids)?, &ctid.to_string());
        }
    }
    let exit = u8::from(text.len() == titles);
    Ok(Report { exit, ..Report::of(text) })
}

/// `-E 101`, `-E101`, which may stand anywhere among the options of `ps`.
fn take_container(options: &mut Vec<String>) -> Result<Option<String>, String> {
    let Some(at) = options.iter().position(|word| word.starts_with("-E")) else { return Ok(None) };
    match options.remove(at).split_off(2) {
        value if !value.is_empty() => Ok(Some(value)),
        _ if at < options.len() => Ok(Some(options.remove(at))),
        _ => Err("-E: the number of a container is missing".to_owned()),
    }
}

fn wanted(node: &Node, word: &str) -> Result<u32, Trouble> {
    if word == "0" {
        return Ok(0);
    }
    names::resolve(node, word).map(Ctid::get).map_err(|e| Trouble::new(e.to_string()))
}

/// `ps` writes to us and would not know how wide a terminal is.
fn width(words: &Words) -> Vec<String> {
    let stdout = std::io::stdout();
    match rustix::termios::tcgetwinsize(&stdout) {
        Ok(size) if !words.wide && stdout.is_terminal() && usize::from(size.ws_col) > CTID_WIDTH + 20 => {
            vec!["--cols".to_owned(), (usize::from(size.ws_col) - CTID_WIDTH - 1).to_string()]
        }
        _ => Vec::new(),
    }
}

/// What a run of `ps` printed, whatever it ended with: it ends with 1 when there is no such process any more.
fn ps(arguments: &[&str]) -> Result<String, Trouble> {
    let mut command = Process::new("ps");
    // They change what options mean.
    for variable in ["PS_PERSONALITY", "CMD_ENV", "I_WANT_A_BROKEN_PS", "POSIXLY_CORRECT", "UNIX95", "_XPG"] {
        command.env_remove(variable);
    }
    let output = command
        .args(arguments)
        .output()
        .map_err(|e| Trouble::new(format!("execve(ps): {e} (Debian has it in procps)")))?;
    match String::from_utf8_lossy(&output.stderr).lines().find(|line| !line.trim().is_empty()) {
        Some(complaint) if !output.status.success() => Err(Trouble::new(format!("ps: {complaint}"))),
        _ => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
    }
}

fn with<'a>(words: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    words.iter().map(String::as_str).chain(more.iter().copied()).collect()
}

fn selected(selection: &[String]) -> Result<Vec<u32>, Trouble> {
    let text = ps(&with(selection, &["-o", "pid="]))?;
    text.split_whitespace()
        .map(|word| word.parse().map_err(|_| Trouble::new(format!("ps: {} is no process number", plain(word)))))
        .collect()
}

fn rows(format: &[String], pids: &[u32]) -> Result<String, Trouble> {
    let list = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    ps(&with(format, &["--no-headers", "-p", &list]))
}

/// The line of titles, if a format has one: what it prints of this process beyond the rows.
fn header(format: &[String]) -> Result<String, Trouble> {
    let me = std::process::id().to_string();
    let all = ps(&with(format, &["-p", &me]))?;
    let has_titles = all.lines().count() > rows(format, &[std::process::id()])?.lines().count();
    let titles = all.lines().next().filter(|_| has_titles);
    Ok(titles.map(|titles| prefixed(titles, "CTID")).unwrap_or_default())
}

/// Each line behind this word, as a terminal may have it.
fn prefixed(text: &str, word: &str) -> String {
    text.lines().map(|line| format!("{word:>CTID_WIDTH$} {}\n", plain(line))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn the_container_may_stand_anywhere() {
        for line in [&["aux", "-E", "101"][..], &["-E101", "aux"], &["-E", "101", "aux"]] {
            let mut words = strings(line);
            assert_eq!(take_container(&mut words), Ok(Some("101".to_owned())));
            assert_eq!(words, ["aux"]);
        }
        assert_eq!(take_container(&mut strings(&["-ef"])), Ok(None));
        assert!(take_container(&mut strings(&["-E"])).is_err());
    }

    #[test]
    fn options_of_ps_are_no_options_of_ours() {
        let matches = command().try_get_matches_from(["vzps", "-E", "101", "-ef", "--sort", "-rss"]).unwrap();
        assert_eq!(matches.get_one::<String>("container").unwrap(), "101");
        let options: Vec<&String> = matches.get_many::<String>("options").unwrap().collect();
        assert_eq!(options, ["-ef", "--sort", "-rss"]);
    }

    #[test]
    fn whatever_is_in_a_line_it_is_behind_its_containers_number() {
        assert_eq!(prefixed("1 sh\n0 \u{1b}[2J\n", "101"), "       101 1 sh\n       101 0 ?[2J\n");
        assert_eq!(prefixed("", "101"), "");
    }
}
