//! One look at all running containers and at the host. Nothing here divides: what became of it between two looks is [`super::rate`]'s.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use procfs::{Current, CurrentSI, KernelStats, LoadAverage, Meminfo};
use vzrt::Ctid;
use vzrt::cgroup::{Activity, Host};
use vzrt::state::State;

use super::super::{Trouble, node};
use crate::config::{Container, Node};

/// One container at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample {
    /// Its first process, and when that began: a container that was restarted between two looks is another.
    pub(super) life: (i32, u64),
    pub(super) name: Option<String>,
    pub(super) activity: Activity,
    pub(super) network: Option<Network>,
}

/// What went over the container's `venet0`, as the container sees it: bytes since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Network {
    pub(super) in_bytes: u64,
    pub(super) out_bytes: u64,
}

/// The machine at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Machine {
    pub(super) load: [f32; 3],
    pub(super) cpus: usize,
    /// Of all CPUs together since boot: neither idle nor waiting for I/O.
    pub(super) busy: Duration,
    pub(super) memory_bytes: u64,
    pub(super) memory_used_bytes: u64,
    pub(super) swap_bytes: u64,
    pub(super) swap_used_bytes: u64,
}

/// All of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Look {
    pub(super) at: Instant,
    pub(super) machine: Machine,
    /// Weights of all running containers, those that are not shown too, and the host's own: `cpuunits`.
    pub(super) all_units: u64,
    pub(super) containers: BTreeMap<Ctid, Sample>,
}

/// What is remembered from one look to the next.
pub(super) struct Watcher<'a> {
    node: &'a Node,
    host: Host,
    /// Empty: all.
    only: BTreeSet<Ctid>,
    /// Names as configurations say them, asked for once in a container's life.
    names: BTreeMap<(i32, u64), Option<String>>,
}

impl<'a> Watcher<'a> {
    pub(super) fn new(node: &'a Node, only: BTreeSet<Ctid>) -> Result<Self, Trouble> {
        Ok(Self { node, host: node::cgroups()?, only, names: BTreeMap::new() })
    }

    /// Looks at what is running now.
    pub(super) fn look(&mut self) -> Result<Look, Trouble> {
        let (at, machine) = (Instant::now(), machine()?);
        let mut all_units = self.node.global.host_cpuunits;
        let mut containers = BTreeMap::new();
        for state in node::running(self.node)? {
            let cgroup = self.host.container(&state.cgroup, state.ctid);
            if !self.only.is_empty() && !self.only.contains(&state.ctid) {
                // Its share is wanted all the same. If it has just stopped it has none.
                all_units = all_units.saturating_add(cgroup.cpuunits().ok().flatten().unwrap_or(0));
                continue;
            }
            let activity = match cgroup.activity() {
                Ok(activity) => activity,
                // It has stopped meanwhile.
                Err(_) if node::state(self.node, state.ctid)?.is_none() => continue,
                Err(e) => return Err(Trouble::from_error(&e)),
            };
            all_units = all_units.saturating_add(activity.cpuunits.unwrap_or(0));
            let name = self.name(&state);
            let interface = format!("{}{}", self.node.global.interface_prefix, state.ctid);
            let life = (state.init_pid, state.init_start_ticks);
            containers.insert(state.ctid, Sample { life, name, activity, network: network(&interface) });
        }
        self.names.retain(|life, _| containers.values().any(|sample| sample.life == *life));
        Ok(Look { at, machine, all_units, containers })
    }

    /// A configuration that can't be read has no name to show: what is wrong with it is `vzlist`'s to say.
    fn name(&mut self, state: &State) -> Option<String> {
        let read = || Container::load(self.node, state.ctid).ok()?.effective(&self.node.global).name;
        self.names.entry((state.init_pid, state.init_start_ticks)).or_insert_with(read).clone()
    }
}

/// What the host's end received the container has sent. `None` for one without a network.
fn network(interface: &str) -> Option<Network> {
    let read = |file: &str| {
        std::fs::read_to_string(format!("/sys/class/net/{interface}/statistics/{file}")).ok()?.trim().parse().ok()
    };
    Some(Network { in_bytes: read("tx_bytes")?, out_bytes: read("rx_bytes")? })
}

fn machine() -> Result<Machine, Trouble> {
    let load = LoadAverage::current().map_err(|e| Trouble::from_error(&e))?;
    let memory = Meminfo::current().map_err(|e| Trouble::from_error(&e))?;
    let kernel = KernelStats::current().map_err(|e| Trouble::from_error(&e))?;
    let total = &kernel.total;
    // Guests' time is in user's already.
    let ticks = total.user + total.nice + total.system + total.irq.unwrap_or(0) + total.softirq.unwrap_or(0);
    let available = memory.mem_available.unwrap_or(memory.mem_free);
    Ok(Machine {
        load: [load.one, load.five, load.fifteen],
        cpus: kernel.cpu_time.len(),
        busy: Duration::from_millis(ticks.saturating_mul(1000) / procfs::ticks_per_second()),
        memory_bytes: memory.mem_total,
        memory_used_bytes: memory.mem_total.saturating_sub(available),
        swap_bytes: memory.swap_total,
        swap_used_bytes: memory.swap_total.saturating_sub(memory.swap_free),
    })
}
