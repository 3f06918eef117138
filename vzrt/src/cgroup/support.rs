//! What this host's cgroups can do: rows for `vzctl check`.

use std::path::Path;
use std::time::Duration;

use super::{Controller, CtCgroup, Delegation, Error, Host, default_rules, devices, sys};

/// One ability of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// Its name.
    pub feature: String,
    /// What needs it, in the words of `vzctl set` where there is one.
    pub needed_by: &'static str,
    /// Whether it is there: where, or why not.
    pub available: Result<String, String>,
    /// What happens without.
    pub without: &'static str,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Support {
    /// One per row.
    pub facts: Vec<Fact>,
}

impl Host {
    /// Finds out by doing: makes cgroups as for a container, below `name`, looks, and removes them.
    ///
    /// # Errors
    /// When not even that works, which is as good as no cgroups at all.
    pub fn support(&self, name: &str) -> Result<Support, Error> {
        let probe = CtCgroup::new(self.clone(), name, &format!("check-{}", std::process::id()));
        probe.create(&Delegation::to(0, 0))?;
        let facts = facts(&probe);
        probe.remove(Duration::from_secs(1))?;
        Ok(Support { facts })
    }
}

fn facts(probe: &CtCgroup) -> Vec<Fact> {
    let mut facts: Vec<Fact> = Controller::ALL.into_iter().filter_map(|c| controller(probe, c)).collect();
    let unified = |file: &str| probe.unified.join(file);
    facts.push(fact("swap accounting", "--swap, --swappages", swap(probe), "swap is not limited"));
    facts.push(fact(
        "cgroup.freeze",
        "suspend, checkpoint",
        there(&unified("cgroup.freeze")),
        "containers cannot be suspended",
    ));
    facts.push(fact(
        "cgroup.kill",
        "stop --fast",
        there(&unified("cgroup.kill")),
        "processes are killed one by one, frozen meanwhile",
    ));
    facts.push(fact(
        "device filter (BPF)",
        "--devices, --devnodes",
        bpf(),
        "only the user namespace keeps devices away",
    ));
    facts
}

fn fact(feature: &str, needed_by: &'static str, available: Result<String, String>, without: &'static str) -> Fact {
    Fact { feature: feature.to_owned(), needed_by, available, without }
}

/// `cpuacct` is part of `cpu.stat` on v2 and no row there.
fn controller(probe: &CtCgroup, controller: Controller) -> Option<Fact> {
    let (needed_by, without) = match controller {
        Controller::Cpu => ("--cpuunits, --cpulimit, --cpus", "CPU is not shared by weight nor limited"),
        Controller::Cpuacct if !probe.host.is_hybrid() => return None,
        Controller::Cpuacct => ("/proc/stat of containers", "CPU time is not known per CPU"),
        Controller::Cpuset => ("--cpumask, --nodemask", "containers run on any CPU"),
        Controller::Memory => ("--ram, --physpages", "memory is not limited"),
        Controller::Pids => ("--numproc", "a fork bomb takes the host"),
        Controller::Io => ("--ioprio, --iolimit, --iopslimit", "block I/O is not limited"),
    };
    let available = match probe.place(controller) {
        None => Err("not mounted as v1, not in cgroup.controllers of the cgroup2 tree".to_owned()),
        Some(place) => {
            let version = if place.v2 { "v2" } else { "v1" };
            // Listed is not enabled: a v2 controller is there when its files are.
            let file = marker(controller, place.v2);
            there(&place.dir.join(file)).map(|_| version.to_owned())
        }
    };
    Some(fact(&format!("controller {controller}"), needed_by, available, without))
}

/// A file every cgroup with the controller has.
fn marker(controller: Controller, v2: bool) -> &'static str {
    match (controller, v2) {
        (Controller::Cpu, true) => "cpu.weight",
        (Controller::Cpu, false) => "cpu.shares",
        (Controller::Cpuacct, _) => "cpuacct.usage",
        (Controller::Cpuset, _) => "cpuset.cpus",
        (Controller::Memory, true) => "memory.max",
        (Controller::Memory, false) => "memory.limit_in_bytes",
        (Controller::Pids, _) => "pids.max",
        (Controller::Io, true) => "io.max",
        (Controller::Io, false) => "blkio.throttle.read_bps_device",
    }
}

fn there(path: &Path) -> Result<String, String> {
    if path.exists() { Ok("yes".to_owned()) } else { Err(format!("there is no {}", name(path))) }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn swap(probe: &CtCgroup) -> Result<String, String> {
    let place = probe.place(Controller::Memory).ok_or("there is no memory controller")?;
    there(&place.dir.join(if place.v2 { "memory.swap.max" } else { "memory.memsw.limit_in_bytes" }))
}

fn bpf() -> Result<String, String> {
    let why = |e: Error| match std::error::Error::source(&e) {
        Some(source) => format!("{e}: {source}"),
        None => e.to_string(),
    };
    devices::compile(&default_rules(false))
        .and_then(|program| sys::load(&program))
        .map(|_| "yes".to_owned())
        .map_err(why)
}
