//! `vzpid`: which container a process is in.
//!
//! OpenVZ's kernel said so in `/proc/PID/status` (`envID`, `VPid`). Here the cgroup of the process says it, which a container cannot change,
//! and `NSpid` the number it has inside.

use std::io::Read;

use clap::{Arg, ArgMatches, Command};
use serde_json::json;
use vzrt::Ctid;

use super::node;
use super::{Outcome, Report, Trouble, config_dir, json, json_switch};
use crate::list::plain;

pub(super) fn command() -> Command {
    Command::new("vzpid").about("Show which container processes are in").args([
        Arg::new("ctpid")
            .short('p')
            .long("ctpid")
            .action(clap::ArgAction::SetTrue)
            .help("Show their numbers inside the container too"),
        json_switch(),
        config_dir(),
        Arg::new("pids")
            .value_name("PID")
            .num_args(1..)
            .required(true)
            .help("Process numbers of the host; - reads them from standard input"),
    ])
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let cgroup = node::open(matches)?.global.cgroup;
    let mut found = Vec::new();
    for pid in pids(matches.get_many::<String>("pids").into_iter().flatten())? {
        found.extend(Process::look(pid, &cgroup)?);
    }
    if matches.get_flag("json") {
        return json(&found.iter().map(Process::json).collect::<Vec<_>>());
    }
    Ok(Report::of(table(&found, matches.get_flag("ctpid"))))
}

/// The numbers on the command line, and in place of `-` those on standard input.
fn pids<'a>(words: impl Iterator<Item = &'a String>) -> Result<Vec<u32>, Trouble> {
    let mut pids = Vec::new();
    for word in words {
        if word == "-" {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map_err(|e| Trouble::new(format!("read(stdin): {e}")))?;
            for word in text.split_whitespace() {
                pids.push(number(word)?);
            }
        } else {
            pids.push(number(word)?);
        }
    }
    Ok(pids)
}

fn number(word: &str) -> Result<u32, Trouble> {
    let digits = word.bytes().all(|b| b.is_ascii_digit());
    word.parse()
        .ok()
        .filter(|pid| digits && *pid > 0)
        .ok_or_else(|| Trouble::new(format!("Invalid process ID: {word}")))
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    pid: u32,
    /// `None` on the host.
    ctid: Option<Ctid>,
    /// Its number in the container; of a process of the host the same as outside. `None` for one that came into the container's cgroup and
    /// not into its process table.
    inside: Option<u32>,
    name: String,
}

impl Process {
    /// `None` for a process that is not there, or ends meanwhile.
    fn look(pid: u32, cgroup: &str) -> Result<Option<Self>, Trouble> {
        let (Some(status), Some(cgroups)) = (read(pid, "status")?, read(pid, "cgroup")?) else { return Ok(None) };
        Ok(Some(Self::from_texts(pid, &status, &cgroups, cgroup)))
    }

    fn from_texts(pid: u32, status: &str, cgroups: &str, cgroup: &str) -> Self {
        let field =
            |key: &str| status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim);
        let ctid = container_of(cgroups, cgroup);
        // The host's number, the container's, and that of a container inside the container, if any.
        let numbers = field("NSpid").unwrap_or_default().split_whitespace();
        let inside = match ctid {
            Some(_) => numbers.skip(1).find_map(|number| number.parse().ok()),
            None => Some(pid),
        };
        Self { pid, ctid, inside, name: plain(field("Name").unwrap_or_default()) }
    }

    fn json(&self) -> serde_json::Value {
        json!({"pid": self.pid, "ctpid": self.inside, "ctid": self.ctid.map_or(0, Ctid::get), "name": self.name})
    }
}

/// The container of a process, `Some(None)` for the host's; `None` for a process that is not there.
///
/// # Errors
/// Its file can't be read.
pub(super) fn container_of_process(pid: u32, parent: &str) -> Result<Option<Option<Ctid>>, Trouble> {
    Ok(read(pid, "cgroup")?.map(|cgroups| container_of(&cgroups, parent)))
}

/// A file of a process; `None` when the process is not there, or ends meanwhile.
fn read(pid: u32, file: &str) -> Result<Option<String>, Trouble> {
    match fs_err::read(format!("/proc/{pid}/{file}")) {
        Ok(text) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(None),
        Err(e) => Err(Trouble::from_error(&e)),
    }
}

/// The container that a `/proc/PID/cgroup` tells of: that of the cgroup2 tree, where every container has one below `parent`.
fn container_of(cgroups: &str, parent: &str) -> Option<Ctid> {
    let path = cgroups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let below = path.strip_prefix(parent.trim_matches('/'))?.strip_prefix('/')?;
    below.split('/').next()?.parse().ok()
}

fn table(processes: &[Process], with_inside: bool) -> String {
    let mut out = String::from(if with_inside { "Pid\tCT/Pid\tCTID\tName\n" } else { "Pid\tCTID\tName\n" });
    for Process { pid, ctid, inside, name } in processes {
        let ctid = ctid.map_or(0, Ctid::get);
        let inside = inside.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        out.push_str(&match with_inside {
            true => format!("{pid}\t{inside}\t{ctid}\t{name}\n"),
            false => format!("{pid}\t{ctid}\t{name}\n"),
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSIDE: &str = "Name:\tsleep\nUmask:\t0022\nPid:\t4242\nNSpid:\t4242\t17\t3\n";

    #[test]
    fn a_process_is_of_the_container_whose_cgroup_it_is_in() {
        let ctid = |cgroups: &str| container_of(cgroups, "vz").map(Ctid::get);
        assert_eq!(ctid("5:cpu:/x\n0::/vz/101\n"), Some(101));
        assert_eq!(
            ctid("0::/vz/101/system.slice/vz/102\n"),
            Some(101),
            "what root inside made below counts for nothing"
        );
        for host in
            ["0::/\n", "0::/vz/monitors\n", "0::/vzx/101\n", "0::/user/vz/101\n", "5:cpu:/vz/101\n", "0::/vz\n", ""]
        {
            assert_eq!(ctid(host), None, "{host}");
        }
        assert_eq!(container_of("0::/a/b/7\n", "/a/b").map(Ctid::get), Some(7));
    }

    #[test]
    fn the_table_has_the_number_inside_where_it_is_asked_for() {
        let processes = [
            Process::from_texts(4242, INSIDE, "0::/vz/101/x\n", "vz"),
            Process::from_texts(1, "Name:\tsys\u{1b}temd\nNSpid:\t1\n", "0::/init.scope\n", "vz"),
            Process::from_texts(7, "Name:\tvzctl\nNSpid:\t7\n", "0::/vz/101\n", "vz"),
        ];
        assert_eq!(table(&processes, false), "Pid\tCTID\tName\n4242\t101\tsleep\n1\t0\tsys?temd\n7\t101\tvzctl\n");
        assert_eq!(
            table(&processes, true),
            "Pid\tCT/Pid\tCTID\tName\n4242\t17\t101\tsleep\n1\t1\t0\tsys?temd\n7\t-\t101\tvzctl\n"
        );
        assert_eq!(processes[0].json().to_string(), r#"{"pid":4242,"ctpid":17,"ctid":101,"name":"sleep"}"#);
    }

    #[test]
    fn our_own_process_is_found_and_one_that_is_not_there_is_not() {
        let me = Process::look(std::process::id(), "no-such-cgroup").unwrap().unwrap();
        assert_eq!((me.ctid, me.inside), (None, Some(std::process::id())));
        assert_eq!(Process::look(u32::MAX, "vz").unwrap(), None);
    }

    #[test]
    fn only_numbers_are_processes() {
        for bad in ["0", "-1", "+1", "x", "", "99999999999"] {
            assert_eq!(number(bad), Err(Trouble::new(format!("Invalid process ID: {bad}"))));
        }
        assert_eq!(number("42"), Ok(42));
    }
}
