//! `vzcfgscale`: a configuration with everything in it larger or smaller.

use std::path::PathBuf;

use beancounters::scale;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use quota::limits::{Limit, SoftHard};

use super::file::{Access, File};
use super::node::Memory;
use super::{Outcome, Report, Trouble, switch};
use crate::config::values::CpuLimit;
use crate::config::{Document, Settings};

pub(super) const CODES: &[(&str, &str)] = &[
    ("0", "Done."),
    ("1", "The command line is wrong, or a file cannot be read or written."),
    ("2", "With -v: the outcome has an error or a warning."),
];

/// What is one container's own, and not of a sample.
const OWN_KEYS: &str = "HOSTNAME IP_ADDRESS ONBOOT BOOTORDER DISABLED NAME DESCRIPTION NAMESERVER SEARCHDOMAIN NETIF NETDEV PCI VE_ROOT \
    VE_PRIVATE VEID LOCAL_UID LOCAL_GID VZ_TREE VZ_LAYERS";

/// The least and the most `CPUUNITS`.
const CPUUNITS: std::ops::RangeInclusive<u64> = 8..=500_000;

pub(super) fn command() -> Command {
    let factor = |id: &'static str, short, help: &'static str| {
        Arg::new(id).short(short).long(id).value_name("FACTOR").value_parser(coefficient).help(help)
    };
    Command::new("vzcfgscale").about("Print a configuration with its parameters multiplied").args([
        Arg::new("output")
            .short('o')
            .long("output")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help("Write it to this file"),
        factor("all", 'a', "For all that follow"),
        factor("cpu", 'c', "CPU weight and limit"),
        factor("disk", 'd', "Disk space and inodes"),
        factor("ubc", 'u', "Beancounters"),
        factor("net", 'n', "Network rates"),
        switch("validate", 'v', "Check the outcome as vzcfgvalidate does"),
        Arg::new("remove")
            .short('r')
            .long("remove")
            .action(ArgAction::SetTrue)
            .help("Leave out what is one container's own: host name, addresses, name servers, paths"),
        Arg::new("file").value_name("FILE").required(true).value_parser(value_parser!(PathBuf)).help("A configuration"),
    ])
}

/// A factor that makes sense of a size.
fn coefficient(text: &str) -> Result<f64, String> {
    let factor = text.parse::<f64>().ok().filter(|factor| factor.is_finite() && *factor > 0.0);
    factor.ok_or_else(|| "a factor is a number above 0".to_owned())
}

/// How much of what there will be for one that there is.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Factors {
    cpu: f64,
    disk: f64,
    ubc: f64,
    net: f64,
}

impl Factors {
    /// A factor of its own counts more than the one for all.
    fn of(matches: &ArgMatches) -> Self {
        let factor = |id| matches.get_one::<f64>(id).copied();
        let or_all = |id| factor(id).or_else(|| factor("all")).unwrap_or(1.0);
        Self { cpu: or_all("cpu"), disk: or_all("disk"), ubc: or_all("ubc"), net: or_all("net") }
    }
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let path = matches.get_one::<PathBuf>("file").cloned().unwrap_or_default();
    let mut file = File::open(&path, Access::Read, &[])?;
    scale_file(&mut file, &Factors::of(matches))?;
    if matches.get_flag("remove") {
        OWN_KEYS.split_whitespace().for_each(|key| file.document.remove(key));
    }
    let mut report = Report::default();
    if matches.get_flag("validate") {
        let bounds = &file.settings.bounds;
        let rules = beancounters::rules::rules_for(bounds);
        for finding in beancounters::rules::check(rules, bounds, &Memory::read()?.for_rules()) {
            report.stderr.push_str(&format!("{finding}\n"));
            if finding.severity >= beancounters::rules::Severity::Warning {
                report.exit = 2;
            }
        }
    }
    match matches.get_one::<PathBuf>("output") {
        Some(output) => file.document.save(output).map_err(|e| Trouble::from_error(&e))?,
        None => report.stdout = file.document.to_bytes(),
    }
    Ok(report)
}

fn scale_file(file: &mut File, factors: &Factors) -> Result<(), Trouble> {
    let scaled = scaled(&file.settings, factors);
    file.change(scaled)?;
    // An unknown key to `start`, and known to old configurations: DEVICE:CLASS:KBITS…
    if let Some(rates) = file.document.get("RATE").map(|rates| scaled_rates(rates, factors.net)) {
        set(&mut file.document, "RATE", &rates)?;
    }
    Ok(())
}

fn set(document: &mut Document, key: &str, value: &str) -> Result<(), Trouble> {
    document.set(key, value).map_err(|e| Trouble::new(format!("{key}: {e}")))
}

fn scaled(settings: &Settings, factors: &Factors) -> Settings {
    let disk = |limits: SoftHard| {
        let times = |limit| match limit {
            Limit::Of(count) => Limit::Of(scale::count(count, factors.disk)),
            Limit::Unlimited => Limit::Unlimited,
        };
        SoftHard { soft: times(limits.soft), hard: times(limits.hard) }
    };
    let units = |units| scale::count(units, factors.cpu).clamp(*CPUUNITS.start(), *CPUUNITS.end());
    Settings {
        bounds: settings.bounds.iter().map(|bound| scale::bound(bound, factors.ubc)).collect(),
        cpuunits: settings.cpuunits.map(units),
        cpulimit: settings.cpulimit.map(|limit| match limit {
            CpuLimit::Percent(percent) => CpuLimit::Percent(scale::count(percent, factors.cpu)),
            CpuLimit::Mhz(mhz) => CpuLimit::Mhz(scale::count(mhz, factors.cpu)),
        }),
        diskspace_kib: settings.diskspace_kib.map(disk),
        diskinodes: settings.diskinodes.map(disk),
        ..settings.clone()
    }
}

/// `eth0:1:512 eth1:1:256` with its last numbers multiplied; a word of another form as it is.
fn scaled_rates(rates: &str, factor: f64) -> String {
    let word = |word: &str| match word.rsplit_once(':').map(|(front, rate)| (front, rate.parse::<u64>())) {
        Some((front, Ok(rate))) => format!("{front}:{}", scale::count(rate, factor)),
        _ => word.to_owned(),
    };
    rates.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# a comment\nKMEMSIZE=\"100:200\"\nPHYSPAGES=\"0:unlimited\"\nUNKNOWN=\"1:2\"\nHOSTNAME=\"web\"\n\
        CPUUNITS=\"1000\"\nDISKSPACE=\"1G:1.1G\"\nRATE=\"eth0:1:512 odd\"\n";

    fn scaled(text: &str, factors: Factors) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.conf");
        fs_err::write(&path, text).unwrap();
        let mut file = File::open(&path, Access::Read, &[]).unwrap();
        scale_file(&mut file, &factors).unwrap();
        String::from_utf8(file.document.to_bytes()).unwrap()
    }

    #[test]
    fn each_kind_of_parameter_has_its_factor() {
        assert_eq!(
            scaled(TEXT, Factors { cpu: 0.5, disk: 2.0, ubc: 1.5, net: 3.0 }),
            "# a comment\nKMEMSIZE=\"150:300\"\nPHYSPAGES=\"0:unlimited\"\nUNKNOWN=\"1:2\"\nHOSTNAME=\"web\"\n\
             CPUUNITS=\"500\"\nDISKSPACE=\"2097152:2306866\"\nRATE=\"eth0:1:1536 odd\"\n"
        );
    }

    #[test]
    fn times_one_changes_not_a_byte() {
        assert_eq!(scaled(TEXT, Factors { cpu: 1.0, disk: 1.0, ubc: 1.0, net: 1.0 }), TEXT);
    }

    #[test]
    fn a_factor_of_its_own_counts_more_than_that_for_all() {
        let factors =
            |words: &str| Factors::of(&command().try_get_matches_from(words.split(' ').chain(["x.conf"])).unwrap());
        assert_eq!(factors("vzcfgscale -a 2 -d 3"), Factors { cpu: 2.0, disk: 3.0, ubc: 2.0, net: 2.0 });
        assert_eq!(factors("vzcfgscale -c .5"), Factors { cpu: 0.5, disk: 1.0, ubc: 1.0, net: 1.0 });
        for bad in ["0", "-1", "x", "inf", "NaN"] {
            assert!(command().try_get_matches_from(["vzcfgscale", "-a", bad, "x.conf"]).is_err(), "{bad}");
        }
    }

    #[test]
    fn cpu_weights_stay_in_their_range() {
        let text = scaled("CPUUNITS=\"10\"\n", Factors { cpu: 0.1, disk: 1.0, ubc: 1.0, net: 1.0 });
        assert_eq!(text, "CPUUNITS=\"8\"\n");
    }
}
