//! `vzcpucheck`: the CPU weights of running containers beside the power of the node.

use clap::{ArgMatches, Command};
use serde_json::json;

use super::node;
use super::{Outcome, Report, Trouble, config_dir, json, json_switch, switch};
use crate::config::{Container, Node};

pub(super) const CODES: &[(&str, &str)] =
    &[("0", "Done."), ("1", "A file could not be read."), ("2", "The command line is wrong.")];

pub(super) fn command() -> Command {
    Command::new("vzcpucheck").about("Compare the CPU weights of containers with the power of the node").args([
        switch("verbose", 'v', "Show each container"),
        json_switch(),
        config_dir(),
    ])
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    node::require_root()?;
    let node = node::open(matches)?;
    let cpuinfo = fs_err::read_to_string("/proc/cpuinfo").map_err(|e| Trouble::from_error(&e))?;
    let check = Check { units: units(&node)?, power: power(&cpuinfo) };
    if matches.get_flag("json") {
        return json(&check.json());
    }
    Ok(Report::of(check.text(matches.get_flag("verbose"))))
}

/// The host itself, number 0, and each running container with the units it was given; those of its configuration, if nobody gave it any.
fn units(node: &Node) -> Result<Vec<(u32, u64)>, Trouble> {
    let cgroups = node::cgroups()?;
    let mut units = vec![(0, node.global.host_cpuunits)];
    for state in node::running(node)? {
        let in_force = cgroups.container(&state.cgroup, state.ctid).cpuunits();
        let weight = match in_force {
            Ok(Some(weight)) => weight,
            // It has stopped meanwhile.
            Err(_) if node::state(node, state.ctid)?.is_none() => continue,
            Err(e) => return Err(Trouble::from_error(&e)),
            Ok(None) => {
                let container = Container::load(node, state.ctid).map_err(|e| Trouble::from_error(&e))?;
                let settings = container.effective(&node.global);
                crate::decide::cpu_share(&settings, &node.global).units
            }
        };
        units.push((state.ctid.get(), weight));
    }
    Ok(units)
}

/// 25 units for each bogomips, as V4 has it. `None` where the kernel tells none.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
fn power(cpuinfo: &str) -> Option<u64> {
    let value = |line: &str| {
        let (key, value) = line.split_once(':')?;
        if key.trim().eq_ignore_ascii_case("bogomips") { value.trim().parse::<f64>().ok() } else { None }
    };
    cpuinfo.lines().filter_map(value).reduce(|a, b| a + b).map(|sum| (sum * 25.0) as u64)
}

struct Check {
    /// Number and cpuunits.
    units: Vec<(u32, u64)>,
    power: Option<u64>,
}

impl Check {
    fn utilization(&self) -> u64 {
        self.units.iter().map(|(_, units)| *units).fold(0, u64::saturating_add)
    }

    fn is_overcommitted(&self) -> Option<bool> {
        self.power.map(|power| self.utilization() > power)
    }

    fn text(&self, verbose: bool) -> String {
        let mut out = String::new();
        if verbose {
            out.push_str(&format!("VEID\t\tCPUUNITS\n{}\n", "-".repeat(25)));
            out.extend(self.units.iter().map(|(ctid, units)| format!("{ctid}\t\t{units}\n")));
        }
        let power = self.power.map_or_else(|| "n/a".to_owned(), |power| power.to_string());
        out.push_str(&format!("Current CPU utilization: {}\nPower of the node: {power}\n", self.utilization()));
        if self.is_overcommitted() == Some(true) {
            out.push_str("Warning: hardware node is overcommitted\n");
        }
        out
    }

    fn json(&self) -> serde_json::Value {
        let units = self.units.iter().map(|(ctid, units)| json!({"ctid": ctid, "cpuunits": units}));
        json!({
            "containers": units.collect::<Vec<_>>(),
            "utilization": self.utilization(), "power": self.power, "overcommitted": self.is_overcommitted(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_power_of_a_node_is_25_for_each_bogomips() {
        assert_eq!(
            power("processor\t: 0\nbogomips\t: 5192.27\n\nprocessor\t: 1\nbogomips\t: 5192.27\n"),
            Some(259_613)
        );
        assert_eq!(power("processor\t: 0\nBogoMIPS\t: 50.01\n"), Some(1250), "as ARM spells it");
        assert_eq!(power("processor\t: 0\n"), None);
    }

    #[test]
    fn it_says_when_there_is_more_weight_than_power() {
        let mut check = Check { units: vec![(0, 1000), (101, 1000), (102, 250)], power: Some(2250) };
        assert_eq!(check.text(false), "Current CPU utilization: 2250\nPower of the node: 2250\n");
        check.power = Some(2249);
        assert_eq!(
            check.text(true),
            "VEID\t\tCPUUNITS\n-------------------------\n0\t\t1000\n101\t\t1000\n102\t\t250\n\
             Current CPU utilization: 2250\nPower of the node: 2249\nWarning: hardware node is overcommitted\n"
        );
        check.power = None;
        assert_eq!(check.text(false), "Current CPU utilization: 2250\nPower of the node: n/a\n");
    }
}
