//! `--cpumask` and `--nodemask` beside the processors and memory nodes that this host has.
//!
//! What is not there is refused when it is set, for it is a mistake. What is configured and has gone since (a processor taken offline, a
//! configuration from a larger host) keeps no container from starting: it is told, and the rest is used; if nothing is left, all, which is also what
//! cgroup v2 does when the last processor of a cpuset goes (Documentation/admin-guide/cgroup-v2.rst, cpuset.cpus.effective).

use std::path::Path;

use crate::config::settings::{Change, Settings};
use crate::config::values::Mask;
use crate::{Exit, Failure};

/// Where the kernel tells what there is.
const CPUS: &str = "/sys/devices/system/cpu/online";
const NODES: &str = "/sys/devices/system/node";

/// What there is, as ranges.
struct Present {
    cpus: Mask,
    /// A kernel without NUMA has the one.
    nodes: Mask,
}

impl Present {
    fn on_this_host() -> Result<Self, Failure> {
        let nodes = Path::new(NODES).join("has_memory");
        let nodes = if nodes.exists() { list(&nodes)? } else { Mask::Only(vec![(0, 0)]) };
        Ok(Self { cpus: list(Path::new(CPUS))?, nodes })
    }
}

fn list(path: &Path) -> Result<Mask, Failure> {
    let fail = |e: &(dyn std::error::Error + 'static)| {
        Failure::because(Exit::SetCpu, format!("Unable to read {}", path.display()), e)
    };
    let text = std::fs::read_to_string(path).map_err(|e| fail(&e))?;
    Mask::parse(text.trim()).map_err(|e| fail(&e))
}

/// The part of a mask that is, or is not, in another.
fn part(mask: &Mask, of: &Mask, there: bool) -> Mask {
    let (Mask::Only(mask), Mask::Only(of)) = (mask, of) else { return Mask::Only(Vec::new()) };
    let is_in = |number: &u32| of.iter().any(|(first, last)| (first..=last).contains(&number));
    let numbers = mask.iter().flat_map(|(first, last)| *first..=*last).filter(|number| is_in(number) == there);
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some(range) if range.1 + 1 == number => range.1 = number,
            _ => ranges.push((number, number)),
        }
    }
    Mask::Only(ranges)
}

fn is_empty(mask: &Mask) -> bool {
    matches!(mask, Mask::Only(ranges) if ranges.is_empty())
}

/// What of these changes names processors or memory nodes that are not there.
///
/// # Errors
/// Some do, or the kernel does not tell.
pub fn refuse_absent(changes: &[Change]) -> Result<(), Failure> {
    for change in changes {
        let (mask, option, what) = match change {
            Change::CpuMask(mask) => (mask, "cpumask", "CPU"),
            Change::NodeMask(mask) => (mask, "nodemask", "memory node"),
            _ => continue,
        };
        let present = Present::on_this_host()?;
        let there = if option == "cpumask" { present.cpus } else { present.nodes };
        let absent = part(mask, &there, false);
        if !is_empty(&absent) {
            return Err(Failure::new(
                Exit::SetCpu,
                format!("Unable to set {option} {mask}: there is no {what} {absent}"),
            )
            .hint(format!("This host has {there}.")));
        }
    }
    Ok(())
}

/// The masks of a configuration as lists for the kernel, of processors and of memory nodes, of what is there; empty is all, `None` is not said.
///
/// # Errors
/// The kernel does not tell what there is.
pub(super) fn usable(settings: &Settings) -> Result<(Option<String>, Option<String>), Failure> {
    if settings.cpumask.is_none() && settings.nodemask.is_none() {
        return Ok((None, None));
    }
    let present = Present::on_this_host()?;
    let text = |mask: &Mask, there: &Mask| match mask {
        Mask::All | Mask::Auto => String::new(),
        only => part(only, there, true).to_string(),
    };
    let cpus = match (&settings.cpumask, &settings.nodemask) {
        (Some(Mask::Auto), Some(nodes @ Mask::Only(_))) => {
            Some(text(&near(&part(nodes, &present.nodes, true))?, &present.cpus))
        }
        (mask, _) => mask.as_ref().map(|mask| text(mask, &present.cpus)),
    };
    Ok((cpus, settings.nodemask.as_ref().map(|mask| text(mask, &present.nodes))))
}

/// The processors of these memory nodes.
fn near(nodes: &Mask) -> Result<Mask, Failure> {
    let Mask::Only(ranges) = nodes else { return Ok(Mask::All) };
    let mut lists = Vec::new();
    for node in ranges.iter().flat_map(|(first, last)| *first..=*last) {
        let path = Path::new(NODES).join(format!("node{node}/cpulist"));
        // A node of memory alone has an empty list; a kernel without NUMA has no such file, and all are of its one node.
        let text = if path.exists() {
            std::fs::read_to_string(&path)
                .map_err(|e| Failure::because(Exit::SetCpu, format!("Unable to read {}", path.display()), &e))?
        } else {
            return Ok(Mask::All);
        };
        lists.extend(Some(text.trim().to_owned()).filter(|text| !text.is_empty()));
    }
    if lists.is_empty() {
        return Ok(Mask::All);
    }
    Mask::parse(&lists.join(",")).map_err(|e| Failure::from_error(Exit::SetCpu, &e))
}

/// What of the masks of a configuration is not there any more, for a container that is about to start.
///
/// # Errors
/// The kernel does not tell what there is.
pub fn gone(settings: &Settings) -> Result<Vec<String>, Failure> {
    if settings.cpumask.is_none() && settings.nodemask.is_none() {
        return Ok(Vec::new());
    }
    let present = Present::on_this_host()?;
    let masks = [
        ("cpumask", "CPU", &settings.cpumask, present.cpus),
        ("nodemask", "memory node", &settings.nodemask, present.nodes),
    ];
    let tell = |(option, what, mask, there): (&str, &str, &Option<Mask>, Mask)| {
        let mask = mask.as_ref()?;
        let absent = part(mask, &there, false);
        let rest = part(mask, &there, true);
        let used = if is_empty(&rest) { "all".to_owned() } else { rest.to_string() };
        (!is_empty(&absent))
            .then(|| format!("{option} {mask}: there is no {what} {absent} any more; {used} of {there} are used"))
    };
    Ok(masks.into_iter().filter_map(tell).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(text: &str) -> Mask {
        Mask::parse(text).unwrap()
    }

    #[test]
    fn what_is_there_and_what_is_not_are_told_apart() {
        let there = mask("0-3,8-9");
        assert_eq!(part(&mask("2-8"), &there, true).to_string(), "2-3,8");
        assert_eq!(part(&mask("2-8"), &there, false).to_string(), "4-7");
        assert!(is_empty(&part(&mask("0,9"), &there, false)));
        assert!(is_empty(&part(&mask("20"), &there, true)));
        assert!(is_empty(&part(&Mask::All, &there, false)), "all is never too much");
    }

    #[test]
    fn what_is_not_on_this_host_is_refused_when_set_and_left_out_of_what_is_configured() {
        let too_much = Change::CpuMask(mask("0,8000"));
        let refused = refuse_absent(&[too_much]).unwrap_err();
        assert_eq!((refused.exit, refused.what.ends_with("there is no CPU 8000")), (Exit::SetCpu, true), "{refused}");
        let settings = |text| Settings { cpumask: Some(mask(text)), ..Settings::default() };
        assert_eq!(usable(&settings("0,8000")).unwrap(), (Some("0".into()), None));
        assert_eq!(usable(&settings("8000")).unwrap().0.as_deref(), Some(""), "nothing is left: all");
        assert!(gone(&settings("0,8000")).unwrap()[0].contains("there is no CPU 8000 any more; 0 of "));
        assert!(gone(&settings("0")).unwrap().is_empty());
    }

    #[test]
    fn auto_is_the_processors_of_the_memory_nodes_and_all_is_said() {
        let settings = Settings { cpumask: Some(Mask::Auto), nodemask: Some(mask("0")), ..Settings::default() };
        let (cpus, nodes) = usable(&settings).unwrap();
        assert!(cpus.is_some_and(|cpus| cpus.is_empty() || cpus.starts_with('0')));
        assert_eq!(nodes.as_deref(), Some("0"));
        let all = Settings { cpumask: Some(Mask::All), ..Settings::default() };
        assert_eq!(usable(&all).unwrap().0.as_deref(), Some(""), "takes an earlier mask away");
    }
}
