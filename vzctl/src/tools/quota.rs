//! `vzquota`: disk quota by OpenVZ's own command. The quota id is the container's number.

mod line;
mod ugid;

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use ::quota::project::Project;
use ::quota::users::Grace;
use ::quota::{EffectiveLimits, Limit, SoftHard, image, owned};
use clap::ArgMatches;
use rustix::fs::{Mode, OFlags};
use serde::Serialize;
use vzrt::Ctid;

pub(super) use self::line::command;
use self::ugid::Ugids;
use super::{Outcome, Report, json, node};
use crate::config::Node;
use crate::decide;
use crate::failure::chain;
use crate::subject::Subject;

pub(super) const CODES: &[(&str, &str)] = &[
    ("0", "Done."),
    ("1", "A system call failed."),
    ("2", "The command line is wrong."),
    ("5", "Quota is on already."),
    ("6", "Quota is off."),
    ("7", "Another command holds the container's lock."),
    ("9", "Quota of users and groups is off."),
    ("11", "There is no such container, or its private area has no project id."),
    ("12", "The configuration can't be read, or is for no project quota."),
];

/// As a number, `unlimited` is this (`LONG_MAX` of a 64-bit host).
const UNLIMITED: u64 = i64::MAX as u64;

/// A message and the code to end with.
struct Refusal(u8, String);

impl Refusal {
    fn call(error: &(dyn std::error::Error + 'static)) -> Self {
        Self(1, chain(error))
    }
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let quiet = matches.get_flag("quiet");
    match work(matches) {
        Ok(Ok(report)) => Ok(Report { stderr: told(matches), ..report }),
        Ok(Err(trouble)) => Err(trouble),
        Err(Refusal(exit, why)) => {
            let stderr = if quiet { String::new() } else { format!("vzquota: {}\n", crate::list::plain(&why)) };
            Ok(Report { stderr, exit, ..Report::default() })
        }
    }
}

/// With `-v`, which options had nothing to do.
fn told(matches: &ArgMatches) -> String {
    let Some((verb, own)) = matches.subcommand().filter(|_| matches.get_flag("verbose")) else { return String::new() };
    line::idle(verb, own).iter().map(|why| format!("vzquota: {why}\n")).collect()
}

fn work(matches: &ArgMatches) -> Result<Outcome, Refusal> {
    let Some((verb, own)) = matches.subcommand() else { return Err(Refusal(2, "no command".into())) };
    if let Err(trouble) = node::require_root() {
        return Ok(Err(trouble));
    }
    let node = match node::open(matches) {
        Ok(node) => node,
        Err(trouble) => return Ok(Err(trouble)),
    };
    let id = own.get_one::<u32>("id").copied().unwrap_or(0);
    let ctid = Ctid::try_from(id).map_err(|_| Refusal(2, format!("{id} is no container's number")))?;
    let container = Subject::load(&node, ctid).map_err(|e| match e.exit() {
        crate::Exit::NoContainerConfig => Refusal(11, format!("there is no container {ctid}")),
        _ => Refusal(12, chain(&e)),
    })?;
    if matches!(verb, "setlimit2" | "reload2") {
        let ugids = Ugids::of(&container)?.ok_or_else(|| Refusal(9, "second-level quota is off".into()))?;
        // What the kernel has is all there is: there is nothing to load again.
        if verb == "setlimit2" {
            ugids.set(own)?;
        }
        return Ok(Ok(Report::default()));
    }
    if matches!(verb, "stat" | "show") {
        let mut table =
            if decide::image_of(&container).is_some() { of_image(&container)? } else { of_project(&container, verb)? };
        if own.get_flag("ugid") {
            let limit = container.settings.user_quota().map_or(0, std::num::NonZeroU32::get);
            let report = Ugids::of(&container)?.map(|ugids| ugids.report()).transpose()?;
            table.ugid = Some(report.unwrap_or_else(|| ugid::Report::off(limit)));
        }
        // As a script has to be told that the numbers of the second level are none.
        let inactive = table.ugid.as_ref().is_some_and(|report| !report.is_on());
        let told = if own.get_flag("json") {
            json(&table)
        } else if matches.get_flag("batch") {
            Ok(Report::of(table.batch()))
        } else {
            Ok(Report::of(table.text(now_s())))
        };
        return Ok(told.map(|report| Report { exit: if inactive { 9 } else { report.exit }, ..report }));
    }
    change(&node, &container, verb, own)?;
    Ok(Ok(Report::default()))
}

fn change(node: &Node, container: &Subject, verb: &str, own: &ArgMatches) -> Result<(), Refusal> {
    is_private_area(container, own)?;
    if !decide::is_bounded_by_project(node, container).map_err(|e| Refusal(1, e.to_string()))? {
        return Err(Refusal(12, "the private area is not bounded by project quota".into()));
    }
    // What else changes a container waits, or makes us wait.
    let _lock = vzrt::lock::Lock::take(&node.lock_file(container.ctid), "vzquota", std::time::Duration::ZERO)
        .map_err(|e| Refusal(7, chain(&e)))?;
    let configured = || asked(container.settings.disk_limits().effective(), own);
    if verb == "init" {
        // What `on` would refuse is not taken here.
        configured()?;
        decide::own_project(node, container).map_err(|e| Refusal(1, e.to_string()))?;
        return Ok(());
    }
    let project = project(container)?;
    let status = project.status().map_err(|e| Refusal::call(&e))?;
    // Quota that limits nothing is off.
    let on = status.is_limited();
    let mounted = || vzrt::rootfs::is_mounted(&container.ve_root).map_err(|e| Refusal(1, e.one_line()));
    let done = match verb {
        "on" if on => return Err(Refusal(5, "quota is on already".into())),
        "on" => configured()?.put_in_force(&project),
        "setlimit" | "off" if !on => return Err(Refusal(6, "quota is off".into())),
        "setlimit" => {
            let now = EffectiveLimits { space_kib: status.space_kib, inodes: status.inodes, grace_s: None };
            asked(now, own)?.put_in_force(&project)
        }
        "drop" if !own.get_flag("force") && mounted()? => {
            return Err(Refusal(5, "the container is mounted".into()));
        }
        _ => project.clear_limits(),
    };
    done.map_err(|e| Refusal::call(&e))
}

/// What `-p` says is what the configuration says.
fn is_private_area(container: &Subject, own: &ArgMatches) -> Result<(), Refusal> {
    let given = own.try_get_one::<String>("path").ok().flatten();
    let real = |path: &std::path::Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    match given {
        Some(path) if real(path.as_ref()) != real(&container.ve_private) => {
            let private = container.ve_private.display();
            Err(Refusal(
                2,
                format!("{path} is not the private area of container {}: that is {private}", container.ctid),
            ))
        }
        _ => Ok(()),
    }
}

fn project(container: &Subject) -> Result<Project, Refusal> {
    let found = owned::of(&container.ve_private).map_err(|e| Refusal::call(&e))?;
    found.ok_or_else(|| Refusal(11, format!("{} has no project id", container.ve_private.display())))
}

/// The limits with what the command line changes in them.
#[derive(Debug)]
struct Asked {
    limits: EffectiveLimits,
    /// The grace times of all projects of the file system, where they are given.
    space_s: Option<u64>,
    inodes_s: Option<u64>,
}

impl Asked {
    fn put_in_force(&self, project: &Project) -> Result<(), ::quota::project::Error> {
        project.set_limits(&self.limits)?;
        if self.space_s.or(self.inodes_s).is_some() {
            let now = project.grace()?;
            let (space_s, inodes_s) = (self.space_s.unwrap_or(now.space_s), self.inodes_s.unwrap_or(now.inodes_s));
            project.set_grace(Grace { space_s, inodes_s })?;
        }
        Ok(())
    }
}

fn asked(now: EffectiveLimits, own: &ArgMatches) -> Result<Asked, Refusal> {
    // `off` and `drop` have none of them.
    let option = |name: &str| own.try_get_one::<u64>(name).ok().flatten().copied();
    let limit = |name: &str, now: Limit| match option(name) {
        Some(n) if n < UNLIMITED => Limit::Of(n),
        Some(_) => Limit::Unlimited,
        None => now,
    };
    let both = |what: &str, now: SoftHard| {
        let soft = limit(&format!("{what}-softlimit"), now.soft);
        let hard = limit(&format!("{what}-hardlimit"), now.hard);
        if soft > hard {
            return Err(Refusal(2, format!("the soft limit {soft} is above the hard limit {hard}")));
        }
        Ok(SoftHard { soft, hard })
    };
    let limits = EffectiveLimits {
        space_kib: both("block", now.space_kib)?,
        inodes: both("inode", now.inodes)?,
        grace_s: now.grace_s,
    };
    Ok(Asked { limits, space_s: option("block-exptime"), inodes_s: option("inode-exptime") })
}

/// A row of the table.
#[derive(Debug, Serialize)]
struct Row {
    usage: u64,
    #[serde(rename = "softlimit")]
    soft: Limit,
    #[serde(rename = "hardlimit")]
    hard: Limit,
    /// How long the soft limit may be exceeded, in seconds; unknown for an image, which has none.
    grace_s: Option<u64>,
    /// When that ends, in seconds since 1970.
    expires_s: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Table {
    ctid: u32,
    blocks_kib: Row,
    inodes: Row,
    /// With `-t`.
    #[serde(skip_serializing_if = "Option::is_none")]
    ugid: Option<ugid::Report>,
}

fn of_project(container: &Subject, verb: &str) -> Result<Table, Refusal> {
    let project = project(container)?;
    let status = project.status().map_err(|e| Refusal::call(&e))?;
    if verb == "stat" && !status.is_limited() {
        return Err(Refusal(6, "quota is off".into()));
    }
    let grace = project.grace().map_err(|e| Refusal::call(&e))?;
    let row = |usage, limits: SoftHard, grace_s, expires_s| {
        let SoftHard { soft, hard } = limits;
        Row { usage, soft, hard, grace_s: Some(grace_s), expires_s }
    };
    Ok(Table {
        ctid: container.ctid.get(),
        blocks_kib: row(status.space_used_kib, status.space_kib, grace.space_s, status.space_grace_ends_s),
        inodes: row(status.inodes_used, status.inodes, grace.inodes_s, status.inodes_grace_ends_s),
        ugid: None,
    })
}

/// An image is its own limit. What is in it is known while it is mounted.
fn of_image(container: &Subject) -> Result<Table, Refusal> {
    let root: &PathBuf = &container.ve_root;
    if !vzrt::rootfs::is_mounted(root).map_err(|e| Refusal(1, e.one_line()))? {
        return Err(Refusal(6, "the private area is an image that is not mounted".into()));
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::open(root, flags, Mode::empty())
        .map_err(|e| Refusal(1, format!("open({}): {e}", root.display())))?;
    let usage = image::usage(&fd).map_err(|e| Refusal::call(&e))?;
    let row =
        |usage, total| Row { usage, soft: Limit::Of(total), hard: Limit::Of(total), grace_s: None, expires_s: None };
    Ok(Table {
        ctid: container.ctid.get(),
        blocks_kib: row(usage.space_used_kib, usage.space_total_kib),
        inodes: row(usage.inodes_used, usage.inodes_total),
        ugid: None,
    })
}

impl Table {
    fn text(&self, now_s: u64) -> String {
        let head =
            format!("{:>11} {:>14}  {:>14} {:>14} {:>8}\n", "resource", "usage", "softlimit", "hardlimit", "grace");
        let row = |name: &str, row: &Row| {
            let over = Limit::Of(row.usage) > row.soft || Limit::Of(row.usage) > row.hard;
            let left = row.expires_s.filter(|_| over).map(|ends| left(ends.saturating_sub(now_s))).unwrap_or_default();
            let (soft, hard) = (plain(row.soft), plain(row.hard));
            format!("{name:>11} {:>14}{} {soft:>14} {hard:>14} {left:>8}\n", row.usage, if over { '*' } else { ' ' })
        };
        let ugid = self.ugid.as_ref().map(ugid::Report::text).unwrap_or_default();
        head + &row("1k-blocks", &self.blocks_kib) + &row("inodes", &self.inodes) + &ugid
    }

    fn batch(&self) -> String {
        let line = |row: &Row| {
            let (soft, hard) = (plain(row.soft), plain(row.hard));
            let (grace, ends) = (row.grace_s.unwrap_or(0), row.expires_s.unwrap_or(0));
            format!("{:>14} {soft:>14} {hard:>14} {grace:>14} {ends:>14}\n", row.usage)
        };
        line(&self.blocks_kib) + &line(&self.inodes)
    }
}

fn plain(limit: Limit) -> u64 {
    match limit {
        Limit::Of(n) => n,
        Limit::Unlimited => UNLIMITED,
    }
}

/// The two largest units of what is left of a time; `none` when it is over.
fn left(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours) {
        _ if seconds == 0 => "none".into(),
        (0, 0) => format!("{minutes}m {}s", seconds % 60),
        (0, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(usage: u64, soft: u64, hard: u64, expires_s: Option<u64>) -> Row {
        Row { usage, soft: Limit::Of(soft), hard: Limit::Of(hard), grace_s: Some(604_800), expires_s }
    }

    #[test]
    fn the_tables_are_those_of_openvz() {
        let mut table = Table {
            ctid: 101,
            blocks_kib: row(1_100_000, 1_048_576, 1_153_434, Some(1000 + 6 * 86_400 + 23 * 3600)),
            inodes: row(8123, 100_000, 110_000, None),
            ugid: None,
        };
        assert_eq!(
            table.text(1000),
            "   resource          usage       softlimit      hardlimit    grace\n  \
             1k-blocks        1100000*        1048576        1153434   6d 23h\n     \
             inodes           8123          100000         110000         \n"
        );
        assert_eq!(
            table.batch(),
            "       1100000        1048576        1153434         604800         602200\n          \
             8123         100000         110000         604800              0\n"
        );
        table.inodes.hard = Limit::Unlimited;
        assert!(table.batch().contains(" 9223372036854775807 "));
    }

    #[test]
    fn what_is_left_of_a_time_has_two_units() {
        assert_eq!([left(0), left(61), left(3661), left(90_000)], ["none", "1m 1s", "1h 1m", "1d 1h"]);
    }

    #[test]
    fn what_is_not_given_stays_and_a_soft_limit_stays_below_the_hard_one() {
        let own = |line: &str| {
            let matches = command().try_get_matches_from(line.split(' ')).unwrap();
            matches.subcommand().unwrap().1.clone()
        };
        let now = EffectiveLimits { space_kib: SoftHard::UNLIMITED, inodes: SoftHard::UNLIMITED, grace_s: None };
        let set = asked(now, &own("vzquota setlimit 101 -b 10 -B 20 -e 1d")).ok().unwrap();
        assert_eq!((set.limits.space_kib.soft, set.limits.space_kib.hard), (Limit::Of(10), Limit::Of(20)));
        assert_eq!((set.space_s, set.inodes_s), (Some(86_400), None));
        assert_eq!(set.limits.inodes, SoftHard::UNLIMITED);
        assert_eq!(asked(now, &own("vzquota setlimit 101 -b 20 -B 10")).err().map(|r| r.0), Some(2));
    }
}
