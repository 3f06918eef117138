//! The disks of private areas: given the scheduler that `vz.conf` says, and told of where they do not do what a container is to have.

use std::path::Path;

use vzrt::cgroup::Host;
use vzrt::cgroup::weights::{ORDINARY_IO_WEIGHT, ioprio_to_weight};
use vzrt::disks::{self, Choice, Disks, Module, Weigher};

use super::check::Row;
use crate::config::Node;
use crate::failure::chain;
use crate::subject::Subject;
use crate::{Exit, Failure, decide};

/// Sees to it that weights and limits of this container mean what they say, and warns where they can't. Does nothing for one that has neither while
/// schedulers are the administrator's.
///
/// # Errors
/// A disk can't be found, or refuses.
pub(super) fn set_up(node: &Node, container: &Subject, host: &Host) -> Result<(), Failure> {
    let settings = &container.settings;
    let weight = settings.ioprio.and_then(|priority| ioprio_to_weight(u8::try_from(priority).ok()?));
    let is_weighed = weight.is_some_and(|weight| weight != ORDINARY_IO_WEIGHT);
    let is_limited = [settings.iolimit_bytes_s, settings.iopslimit].into_iter().flatten().any(|rate| rate > 0);
    let choice = node.global.io_scheduler;
    if !is_weighed && !is_limited && choice == Choice::Keep {
        return Ok(());
    }
    let private = &container.ve_private;
    let found = match decide::disks(private) {
        Ok(found) => found,
        Err(failure) if is_limited => return Err(failure),
        Err(failure) => {
            if is_weighed {
                tracing::warn!("Warning: I/O priority has no effect: {failure}");
            }
            return Ok(());
        }
    };
    choose(node, &found, host)?;
    if is_weighed {
        for (disk, by) in weighers(host, &found)? {
            if let Weigher::Nobody { scheduler, .. } = by {
                tracing::warn!(
                    "Warning: I/O priority has no effect on {disk}: its scheduler is {scheduler}; IO_SCHEDULER=auto in vz.conf gives it one with weights"
                );
            }
        }
    }
    if is_limited && found.limited.len() > 1 {
        let names = disks::names(&found.limited);
        tracing::warn!(
            "Warning: {} lies on several devices: the I/O limit holds for each of {names}",
            private.display()
        );
    }
    Ok(())
}

/// Does with the disks what `vz.conf` says. What runs already is weighed for a scheduler that is new.
fn choose(node: &Node, found: &Disks, host: &Host) -> Result<(), Failure> {
    let module = if node.global.modules_disabled { Module::Loaded } else { Module::MayLoad };
    let changed = disks::set_up(host, &found.ordered, node.global.io_scheduler, module)
        .map_err(|e| Failure::because(Exit::SetIo, "Unable to set the I/O scheduler (IO_SCHEDULER in vz.conf)", &e))?;
    for set in &changed {
        tracing::info!("I/O of {} is divided by {}", set.disk, set.by);
    }
    if changed.is_empty() {
        return Ok(());
    }
    host.weigh_io(&node.global.cgroup)
        .map_err(|e| Failure::because(Exit::SetIo, "Unable to set the I/O weights of running containers", &e))
}

fn weighers<'a>(host: &Host, found: &'a Disks) -> Result<Vec<(&'a str, Weigher)>, Failure> {
    let of = |disk: &'a disks::Device| Ok((disk.name.as_str(), Weigher::of(host, disk)?));
    let all: Result<_, disks::Error> = found.ordered.iter().map(of).collect();
    all.map_err(|e| Failure::because(Exit::SetIo, "Unable to find out about the I/O scheduler", &e))
}

/// Rows of `vzctl check`: who divides the disks, where limits are put, and whether buffered writes are anybody's.
///
/// # Errors
/// The kernel does not tell what a disk has.
pub(super) fn rows(node: &Node, host: &Host) -> Result<Vec<Row>, Failure> {
    let private = Path::new(&node.global.ve_private);
    let private = private.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let row = |feature: &str, found: Result<String, String>, needed_by: &str, without: &str| Row {
        feature: feature.into(),
        available: found.is_ok(),
        found: found.unwrap_or_else(|why| why),
        needed_by: needed_by.into(),
        without: without.into(),
        essential: false,
    };
    let (weights, limits) = match Disks::below(private) {
        Err(e) => (Err(chain(&e)), Err(chain(&e))),
        Ok(found) => (weights(&weighers(host, &found)?), Ok(limits(&found))),
    };
    let writes = if host.writes_back_in_its_name() {
        Ok("memory and io are on cgroup v2".to_owned())
    } else {
        Err("memory and blkio are not one cgroup v2 tree".to_owned())
    };
    Ok(vec![
        row("I/O weights", weights, "--ioprio", "all containers weigh the same"),
        row("I/O limits", limits, "--iolimit, --iopslimit", "block I/O is not limited"),
        row(
            "I/O of buffered writes",
            writes,
            "--ioprio, --iolimit, --iopslimit",
            "what goes through the page cache is written in nobody's name: not weighed, not limited",
        ),
    ])
}

/// All disks have to be divided: what one does not divide holds up the others too.
fn weights(disks: &[(&str, Weigher)]) -> Result<String, String> {
    let tell = |(disk, by): &(&str, Weigher)| match by {
        Weigher::Nobody { scheduler, offered } => {
            let others: Vec<_> = offered.iter().filter(|name| *name != scheduler).map(String::as_str).collect();
            format!("{disk} has {scheduler}, and could have {}", others.join(", "))
        }
        by => format!("{disk} ({by})"),
    };
    let told = disks.iter().map(tell).collect::<Vec<_>>().join("; ");
    let divided = disks.iter().all(|(_, by)| !matches!(by, Weigher::Nobody { .. }));
    if divided { Ok(told) } else { Err(format!("{told}; IO_SCHEDULER in vz.conf sets one")) }
}

fn limits(found: &Disks) -> String {
    let names = disks::names(&found.limited);
    match (found.limited.len(), found.limited == found.ordered) {
        (1, true) => format!("on {names}"),
        (1, false) => format!("on {names}, for all of {} together", disks::names(&found.ordered)),
        _ => format!("on each of {names}"),
    }
}

#[cfg(test)]
mod tests {
    use vzrt::disks::Device;

    use super::*;

    fn device(name: &str) -> Device {
        Device { name: name.into(), major: 8, minor: 0 }
    }

    #[test]
    fn where_a_limit_holds_is_told_for_one_disk_a_volume_and_a_file_system_over_several() {
        let on = |limited: &[&str], ordered: &[&str]| {
            let all = |names: &[&str]| names.iter().map(|name| device(name)).collect();
            limits(&Disks { limited: all(limited), ordered: all(ordered) })
        };
        assert_eq!(on(&["sda"], &["sda"]), "on sda");
        assert_eq!(on(&["dm-0"], &["sda", "sdb"]), "on dm-0, for all of sda, sdb together");
        assert_eq!(on(&["sda", "sdb"], &["sda", "sdb"]), "on each of sda, sdb");
    }

    #[test]
    fn one_disk_without_weights_is_told_with_what_it_could_have() {
        let deadline = Weigher::Nobody { scheduler: "none".into(), offered: vec!["none".into(), "bfq".into()] };
        assert_eq!(weights(&[("sda", Weigher::Bfq), ("sdb", Weigher::IoCost)]).unwrap(), "sda (bfq); sdb (io.cost)");
        let why = weights(&[("sda", Weigher::Bfq), ("sdb", deadline)]).unwrap_err();
        assert_eq!(why, "sda (bfq); sdb has none, and could have bfq; IO_SCHEDULER in vz.conf sets one");
    }
}
