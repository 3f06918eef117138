//! `vzcfgvalidate`: whether the bounds in a configuration go together, and mending them.

use std::io::{BufRead, Write};
use std::path::PathBuf;

use beancounters::Bound;
use beancounters::rules::{self, Finding, Host, Severity};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use quota::limits::{self, ParseError};
use serde_json::json;

use super::file::{Access, File};
use super::node::{self, Memory};
use super::{Outcome, Report, Trouble, config_dir, json_switch, said_yes, yes_or_no};

pub(super) const CODES: &[(&str, &str)] = &[
    ("0", "The configuration is good; recommendations are no failure."),
    ("1", "The command line is wrong, or the file cannot be read or written."),
    ("2", "An error or a warning is left."),
];

/// The code for a configuration that has errors or warnings left.
const INVALID: u8 = 2;

/// The keys of disk limits, which are checked as bounds are: the soft one is not above the hard one.
const DISK_KEYS: [&str; 2] = ["DISKSPACE", "DISKINODES"];

pub(super) fn command() -> Command {
    let flag = |id: &'static str, short, help: &'static str| {
        Arg::new(id).short(short).long(id).action(ArgAction::SetTrue).help(help)
    };
    Command::new("vzcfgvalidate").about("Check that the bounds in a configuration go together").args([
        flag("repair", 'r', "Mend what is wrong"),
        flag("interactive", 'i', "Ask before each change").conflicts_with_all(["repair", "json"]),
        yes_or_no("vswap", 'v', "By the rules of VSwap, or not; without it as the configuration is"),
        json_switch(),
        config_dir(),
        Arg::new("file")
            .value_name("FILE")
            .required(true)
            .value_parser(value_parser!(PathBuf))
            .help("CTID.conf, or a sample"),
    ])
}

/// What becomes of a change that would mend something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// It is not made.
    Check,
    /// It is made.
    Repair,
    /// Somebody says.
    Ask,
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let mode = match (matches.get_flag("repair"), matches.get_flag("interactive")) {
        (true, _) => Mode::Repair,
        (_, true) => Mode::Ask,
        _ => Mode::Check,
    };
    let node = node::open(matches)?;
    let path = matches.get_one::<PathBuf>("file").cloned().unwrap_or_default();
    let access = if mode == Mode::Check { Access::Read } else { Access::Write };
    let mut file = File::open(&path, access, &DISK_KEYS)?;
    let disk_quota = file.settings.diskquota.or(node.global.defaults.diskquota).unwrap_or(node.global.disk_quota);
    let disk = if disk_quota { crossed_disk_limits(&file)? } else { Vec::new() };
    let mut bounds = node.global.defaults.bounds.clone();
    bounds.extend(file.settings.bounds.iter());
    let simple = said_yes(matches, "vswap").unwrap_or_else(|| beancounters::vswap::is_vswap(&bounds));
    let rules = if simple { rules::VSWAP } else { rules::CLASSIC };
    let host = Memory::read()?.for_rules();
    let told =
        validate(rules, &mut bounds, &host, mode, &mut |finding, fix| ask(&finding.to_string(), &fix.to_string()))?;
    let disk: Vec<Told> = disk.into_iter().map(|limit| limit.told(mode)).collect::<Result<_, _>>()?;
    let mut report = report(&told, &disk);
    if matches.get_flag("json") {
        let all: Vec<_> = told.iter().chain(&disk).map(Told::json).collect();
        report = Report { exit: report.exit, ..super::json(&all)? };
    }
    write_back(&mut file, &told, &disk)?;
    Ok(report)
}

/// A finding that was told, and what was done about it.
#[derive(Debug, Clone, PartialEq)]
struct Told {
    severity: Severity,
    parameter: &'static str,
    line: String,
    /// Whether somebody who was asked has read it already.
    seen: bool,
    /// The new value, where it was taken.
    set_to: Option<String>,
    bound: Option<Bound>,
}

impl Told {
    fn json(&self) -> serde_json::Value {
        json!({
            "severity": self.severity, "parameter": self.parameter, "message": self.line, "set_to": self.set_to,
        })
    }
}

/// Tells every rule that is broken, and what each change breaks or mends further on, until there is nothing new to tell.
fn validate(
    rules: &[rules::Rule],
    bounds: &mut beancounters::Set,
    host: &Host,
    mode: Mode,
    ask: &mut dyn FnMut(&Finding, Bound) -> Result<bool, Trouble>,
) -> Result<Vec<Told>, Trouble> {
    let mut told: Vec<Told> = Vec::new();
    loop {
        let left = rules::check(rules, bounds, host);
        // What was told and left as it is would be found again.
        let new = left.iter().find(|finding| {
            let line = finding.to_string();
            !told.iter().any(|earlier| earlier.set_to.is_none() && earlier.line == line)
        });
        let Some(finding) = new else { return Ok(told) };
        let seen = mode == Mode::Ask && finding.fix.is_some();
        let taken = match (finding.fix, mode) {
            (None, _) | (_, Mode::Check) => None,
            (Some(fix), Mode::Repair) => Some(fix),
            (Some(fix), Mode::Ask) => ask(finding, fix)?.then_some(fix),
        };
        told.push(Told {
            severity: finding.severity,
            parameter: finding.resource.name(),
            line: finding.to_string(),
            seen,
            set_to: taken.map(shown),
            bound: taken,
        });
        bounds.extend(taken);
    }
}

/// A bound as V4 told it: one number where barrier and limit have to be the same.
fn shown(bound: Bound) -> String {
    let equal = rules::CLASSIC
        .iter()
        .any(|rule| rule.resource == bound.resource() && matches!(rule.demand, rules::Demand::BarrierIsLimit));
    if equal { bound.barrier().to_string() } else { bound.to_string() }
}

/// The lines of all findings, and how it ends.
fn report(told: &[Told], disk: &[Told]) -> Report {
    let mut report = Report::default();
    for Told { severity, line, seen, set_to, .. } in told.iter().chain(disk) {
        if !seen {
            report.stderr.push_str(&format!("{line}\n"));
        }
        match set_to {
            Some(value) => report.stdout.extend(format!("set to {value}\n").bytes()),
            None if *severity >= Severity::Warning => report.exit = INVALID,
            None => {}
        }
    }
    if report.exit == 0 {
        report.stderr.push_str("Validation completed: success\n");
    }
    report
}

/// Asks on the terminal; anything but yes is no.
fn ask(line: &str, fix: &str) -> Result<bool, Trouble> {
    let failed = |e: std::io::Error| Trouble::new(format!("Unable to ask: {e}"));
    eprintln!("{line}");
    print!("set to {fix}? [y/n] ");
    std::io::stdout().flush().map_err(failed)?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// A disk limit whose soft part is above its hard one.
struct Crossed {
    key: &'static str,
    soft: limits::Limit,
    hard: limits::Limit,
}

impl Crossed {
    fn told(&self, mode: Mode) -> Result<Told, Trouble> {
        let parameter = if self.key == DISK_KEYS[0] { "diskspace" } else { "diskinodes" };
        let (soft, hard) = (self.soft, self.hard);
        let line = format!("Error: barrier should be <= limit for {parameter} (currently, {soft}:{hard})");
        let value = format!("{soft}:{soft}");
        let taken = match mode {
            Mode::Check => false,
            Mode::Repair => true,
            Mode::Ask => ask(&line, &value)?,
        };
        Ok(Told {
            severity: Severity::Error,
            parameter,
            line,
            seen: mode == Mode::Ask,
            set_to: taken.then_some(value),
            bound: None,
        })
    }
}

/// Disk limits are refused where they are read; here they are what is looked for. Other faults of theirs are still faults.
fn crossed_disk_limits(file: &File) -> Result<Vec<Crossed>, Trouble> {
    let mut crossed = Vec::new();
    for key in DISK_KEYS {
        let Some(text) = file.document.get(key).filter(|text| !text.is_empty()) else { continue };
        let read = if key == DISK_KEYS[0] { limits::parse_space_kib(text) } else { limits::parse_inodes(text) };
        match read {
            Ok(_) => {}
            Err(ParseError::SoftAboveHard { soft, hard }) => crossed.push(Crossed { key, soft, hard }),
            Err(e) => return Err(Trouble::new(format!("{key}={text}: {e}"))),
        }
    }
    Ok(crossed)
}

fn write_back(file: &mut File, told: &[Told], disk: &[Told]) -> Result<(), Trouble> {
    let bounds: Vec<Bound> = told.iter().filter_map(|told| told.bound).collect();
    let disk: Vec<(&str, &String)> =
        disk.iter().filter_map(|told| Some((told.parameter, told.set_to.as_ref()?))).collect();
    if bounds.is_empty() && disk.is_empty() {
        return Ok(());
    }
    let mut settings = file.settings.clone();
    settings.bounds.extend(bounds);
    file.change(settings)?;
    for (parameter, value) in disk {
        let key = parameter.to_uppercase();
        file.document.set(&key, value).map_err(|e| Trouble::new(format!("{key}: {e}")))?;
    }
    file.save()
}

#[cfg(test)]
mod tests {
    use super::*;
    use beancounters::{Resource, Set};

    const HOST: Host = Host { ram_pages: 4 << 20, swap_pages: 4 << 20 };

    fn sample(name: &str) -> File {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("etc/conf/ve-{name}.conf-sample"));
        File::open(&path, Access::Read, &DISK_KEYS).unwrap()
    }

    fn told(bounds: &mut Set, mode: Mode, answers: &[bool]) -> Vec<Told> {
        let rules = rules::rules_for(bounds);
        let mut answers = answers.iter();
        validate(rules, bounds, &HOST, mode, &mut |_, _| Ok(*answers.next().unwrap())).unwrap()
    }

    #[test]
    fn every_sample_that_is_shipped_is_good_on_a_host_that_is_large_enough() {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("etc/conf");
        let mut seen = 0;
        for entry in fs_err::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "conf-sample") {
                let file = File::open(&path, Access::Read, &DISK_KEYS).unwrap();
                let mut bounds = file.settings.bounds.clone();
                assert_eq!(told(&mut bounds, Mode::Check, &[]), [], "{}", path.display());
                assert!(crossed_disk_limits(&file).unwrap().is_empty());
                seen += 1;
            }
        }
        assert_eq!(seen, 8);
    }

    #[test]
    fn a_host_without_swap_cannot_give_any() {
        let bounds = sample("vswap-512m").settings.bounds;
        let host = Host { swap_pages: 0, ..HOST };
        let lines: Vec<String> = rules::check(rules::VSWAP, &bounds, &host).iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["Warning: swappages.lim should be <= 0 (currently, 262144)"]);
    }

    fn broken() -> Set {
        let mut bounds = sample("basic").settings.bounds;
        bounds.insert(Bound::new(Resource::Numproc, 100, 240));
        bounds.insert(Bound::new(Resource::Dcachesize, 1000, 2000));
        bounds.insert(Bound::new(Resource::Dgramrcvbuf, 40_000, 40_000));
        bounds
    }

    #[test]
    fn what_is_found_is_said_on_stderr_and_fails() {
        let all = told(&mut broken(), Mode::Check, &[]);
        let report = report(&all, &[]);
        assert_eq!(
            report.stderr,
            "Error: barrier should be equal to limit for numproc (currently, 100:240)\n\
             Warning: dcachesize.lim should be > 3575808 (currently, 2000)\n\
             Recommendation: dgramrcvbuf.bar should be > 132096 (currently, 40000)\n"
        );
        assert_eq!((report.stdout.as_slice(), report.exit), (&[][..], 2));
    }

    #[test]
    fn repairing_says_each_value_and_ends_well() {
        let mut bounds = broken();
        let all = told(&mut bounds, Mode::Repair, &[]);
        let report = report(&all, &[]);
        assert_eq!(report.stdout, b"set to 240\nset to 1000:3575808\nset to 132096:132096\n");
        assert!(report.stderr.ends_with("\nValidation completed: success\n"), "{}", report.stderr);
        assert_eq!(report.exit, 0);
        assert_eq!(told(&mut bounds, Mode::Check, &[]), []);
    }

    #[test]
    fn what_was_declined_is_not_asked_again() {
        let mut bounds = broken();
        let all = told(&mut bounds, Mode::Ask, &[false, true, false]);
        let taken: Vec<Option<&str>> = all.iter().map(|told| told.set_to.as_deref()).collect();
        assert_eq!(taken, [None, Some("1000:3575808"), None]);
        assert_eq!(report(&all, &[]).exit, 2, "the error is left");
    }

    #[test]
    fn a_recommendation_is_no_failure() {
        let mut bounds = sample("basic").settings.bounds;
        bounds.insert(Bound::new(Resource::Dgramrcvbuf, 40_000, 40_000));
        let report = report(&told(&mut bounds, Mode::Check, &[]), &[]);
        assert_eq!(report.exit, 0);
        assert!(report.stderr.starts_with("Recommendation: ") && report.stderr.ends_with("success\n"));
    }

    #[test]
    fn comments_order_and_unknown_keys_survive_a_repair() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("101.conf");
        let before = "# mine\nFOO=\"bar\"\nDISKSPACE=\"2G:1G\"\nNUMPTY=\"16:20\" # why\nLAST='x'\n";
        fs_err::write(&path, before).unwrap();
        let mut file = File::open(&path, Access::Write, &DISK_KEYS).unwrap();
        let mut bounds = file.settings.bounds.clone();
        let all = told(&mut bounds, Mode::Repair, &[]);
        let disk: Vec<Told> =
            crossed_disk_limits(&file).unwrap().iter().map(|limit| limit.told(Mode::Repair).unwrap()).collect();
        assert_eq!(disk[0].line, "Error: barrier should be <= limit for diskspace (currently, 2097152:1048576)");
        write_back(&mut file, &all, &disk).unwrap();
        let after = fs_err::read_to_string(&path).unwrap();
        assert_eq!(after, "# mine\nFOO=\"bar\"\nDISKSPACE=\"2097152:2097152\"\nNUMPTY=\"20:20\"\nLAST='x'\n");
    }
}
