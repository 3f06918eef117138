//! The command line of `vzquota`, and the options that have nothing to do here.

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::tools::{config_dir, json_switch};

pub(in crate::tools) fn command() -> Command {
    let limited = |name, about| of(name, about).args(limits());
    Command::new("vzquota")
        .about("Disk quota of containers whose private areas are directories")
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .args([
            Arg::new("batch").short('b').action(ArgAction::SetTrue).help("Of stat and show: print numbers alone"),
            Arg::new("quiet").short('q').action(ArgAction::SetTrue).help("Print no messages"),
            Arg::new("verbose").short('v').action(ArgAction::SetTrue).help("Tell which options had nothing to do"),
            config_dir().global(true),
        ])
        .subcommands([
            limited("init", "Make the private area a project of its own").args(path()).args(second_level()),
            of("drop", "Take the limits away, of a container that is not mounted"),
            limited("on", "Put limits in force: those given, and else those of the configuration")
                .args(path())
                .args(second_level()),
            of("off", "Take the limits away"),
            limited("setlimit", "Change limits that are in force").args(second_level()),
            limited("setlimit2", "Limits of a user or group inside")
                .args([number("uid", 'u', "User"), number("gid", 'g', "Group")]),
            of("reload2", "Read the limits of users and groups again"),
            shown("stat", "Print usage and limits, of quota that is on"),
            shown("show", "Print usage and limits, on or off"),
        ])
}

/// A command for one container, with the options that all of them have.
fn of(name: &'static str, about: &'static str) -> Command {
    Command::new(name).about(about).args([
        Arg::new("id").value_name("CTID").required(true).value_parser(value_parser!(u32)).help("The container"),
        Arg::new("quota-file")
            .short('c')
            .long("quota-file")
            .value_name("FILE")
            .help("OpenVZ's quota file; there is none"),
        Arg::new("force").short('f').long("force").action(ArgAction::SetTrue).help("Of drop: a mounted container too"),
        Arg::new("relative").short('R').action(ArgAction::SetTrue).help("Of OpenVZ's; nothing to do here"),
    ])
}

fn shown(name: &'static str, about: &'static str) -> Command {
    of(name, about)
        .args([Arg::new("ugid").short('t').action(ArgAction::SetTrue).help("Users and groups too"), json_switch()])
}

fn number(id: &'static str, short: char, help: &'static str) -> Arg {
    Arg::new(id).short(short).long(id).value_name("N").value_parser(value_parser!(u64)).help(help)
}

fn path() -> [Arg; 1] {
    [Arg::new("path").short('p').long("path").value_name("DIR").help("The private area, as the configuration has it")]
}

/// What OpenVZ kept of users and groups in the quota file, and the configuration has here.
fn second_level() -> [Arg; 2] {
    [
        Arg::new("sub-quotas")
            .short('s')
            .long("sub-quotas")
            .value_name("0|1")
            .value_parser(["0", "1"])
            .help("Count what is mounted below too; nothing to do here"),
        number("ugid-limit", 'u', "How many users and groups may have limits; that is --quotaugidlimit of vzctl"),
    ]
}

fn limits() -> [Arg; 6] {
    let time = |id, short, help| Arg::new(id).short(short).long(id).value_name("TIME").value_parser(seconds).help(help);
    [
        number("block-softlimit", 'b', "Soft limit of space, in KiB"),
        number("block-hardlimit", 'B', "Hard limit of space, in KiB"),
        number("inode-softlimit", 'i', "Soft limit of inodes"),
        number("inode-hardlimit", 'I', "Hard limit of inodes"),
        time(
            "block-exptime",
            'e',
            "How long the soft limit of space may be exceeded: dd:hh:mm:ss, or a number with h, d, w, m or y",
        ),
        time("inode-exptime", 'n', "The same of inodes"),
    ]
}

/// The options of this command line that have nothing to do, and why: what `-v` prints.
pub(super) fn idle(verb: &str, own: &ArgMatches) -> Vec<String> {
    // Not every command has every option.
    let given = |id: &str| {
        matches!(own.try_contains_id(id), Ok(true))
            && own.value_source(id) == Some(clap::parser::ValueSource::CommandLine)
    };
    let limited = ["block-softlimit", "block-hardlimit", "inode-softlimit", "inode-hardlimit"].into_iter().any(given);
    let timed = given("block-exptime") || given("inode-exptime");
    let told = [
        (given("quota-file"), "-c: there is no quota file: the kernel keeps limits and usage with the file system"),
        (given("force") && verb != "drop", "-f: no quota is ever dirty: there is nothing to force"),
        (given("relative"), "-R: usage is what the kernel counts"),
        (
            given("sub-quotas"),
            "-s: what is mounted below the private area is another file system, and has its own limits",
        ),
        (given("ugid-limit"), "-u: how many users and groups may have limits is set by `vzctl set --quotaugidlimit`"),
        (
            verb == "init" && (limited || timed),
            "limits of init: they are put in force by `on`, which takes the same options",
        ),
    ];
    told.into_iter().filter(|(is, _)| *is).map(|(_, why)| why.to_owned()).collect()
}

/// A time: `dd:hh:mm:ss` or fewer parts from the right, seconds, or a number with a unit.
fn seconds(text: &str) -> Result<u64, String> {
    let bad = || format!("`{text}` is not dd:hh:mm:ss, nor a number with h, d, w, m or y");
    let whole = |part: &str| {
        if part.bytes().all(|b| b.is_ascii_digit()) { part.parse::<u64>().ok() } else { None }
    };
    if let Some((at, unit)) = text.char_indices().next_back().filter(|(_, c)| c.is_ascii_alphabetic()) {
        let many = match unit {
            'h' => 3600,
            'd' => 86_400,
            'w' => 7 * 86_400,
            'm' => 30 * 86_400,
            'y' => 365 * 86_400,
            _ => return Err(bad()),
        };
        return whole(&text[..at]).and_then(|n| n.checked_mul(many)).ok_or_else(bad);
    }
    let parts: Option<Vec<u64>> = text.split(':').map(whole).collect();
    let parts = parts.filter(|parts| parts.len() <= 4).ok_or_else(bad)?;
    let each = [1, 60, 3600, 86_400];
    parts.iter().rev().zip(each).try_fold(0u64, |sum, (n, s)| sum.checked_add(n.checked_mul(s)?)).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    #[test]
    fn times_are_parts_or_a_number_with_a_unit() {
        for (text, expected) in [
            ("5", 5),
            ("01:00", 60),
            ("01:02:03:04", 93_784),
            ("3h", 10_800),
            ("1d", 86_400),
            ("2w", 1_209_600),
            ("1y", 31_536_000),
        ] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for bad in ["", ":", "1:2:3:4:5", "h", "-1", "3x", "1.5h", "99999999999999999999"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_option_of_openvz_is_taken_and_those_without_work_are_told() {
        command().debug_assert();
        let idle = |line: &str| {
            let matches = command().try_get_matches_from(line.split(' ')).unwrap();
            let (verb, own) = matches.subcommand().unwrap();
            idle(verb, own).iter().map(|why| why.split(':').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let all = "-p /vz/private/101 -c /var/vzquota/quota.101 -R -f -s 1 -u 200 -b 1 -B 2 -i 3 -I 4 -e 3d -n 5d";
        assert_eq!(idle(&format!("vzquota -v init 101 {all}")), ["-c", "-f", "-R", "-s", "-u", "limits of init"]);
        assert_eq!(idle(&format!("vzquota -v on 101 {all}")), ["-c", "-f", "-R", "-s", "-u"]);
        assert!(idle("vzquota drop 101 -f").is_empty());
        assert!(idle("vzquota setlimit2 101 -u 1000 -B 5").is_empty());
        assert!(idle("vzquota on 101 -b 1 -e 1d").is_empty());
        assert!(command().try_get_matches_from("vzquota on 101 -s 2".split(' ')).is_err());
    }
}
