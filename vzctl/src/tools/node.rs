//! What the programs ask the node: its memory, its containers, and what these hold.

use std::path::Path;

use beancounters::overcommit::{self, Held, KERNEL_MEMORY, Machine};
use beancounters::read::{Reader, Sources};
use beancounters::{Resource, rules, split};
use clap::ArgMatches;
use procfs::{Current, Meminfo};
use vzrt::RunDir;
use vzrt::cgroup::Host;
use vzrt::state::State;

use super::Trouble;
use crate::boot::{self, Up};
use crate::config::{self, Node};

/// The node of `--config-dir`, of the environment, or `/etc/vz`.
pub(super) fn open(matches: &ArgMatches) -> Result<Node, Trouble> {
    let option = matches.get_one::<std::path::PathBuf>("config-dir").map(std::path::PathBuf::as_path);
    Node::open(config::node::config_dir(option)).map_err(|e| Trouble::from_error(&e))
}

/// Run directories and cgroups of containers are root's to read.
pub(super) fn require_root() -> Result<(), Trouble> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Trouble::new("This program can only be run under root."))
}

/// The memory of this machine, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    ram: u64,
    swap: u64,
    lowmem: u64,
}

impl Memory {
    pub(super) fn read() -> Result<Self, Trouble> {
        let info = Meminfo::current().map_err(|e| Trouble::from_error(&e))?;
        // A 64-bit kernel tells of no low memory: it can use all there is.
        let lowmem = info.low_total.unwrap_or(info.mem_total);
        Ok(Self { ram: info.mem_total, swap: info.swap_total, lowmem })
    }

    /// The same with so much swap.
    pub(super) fn with_swap(self, swap: u64) -> Self {
        Self { swap, ..self }
    }

    pub(super) fn for_rules(self) -> rules::Host {
        let page = procfs::page_size();
        rules::Host { ram_pages: self.ram / page, swap_pages: self.swap / page }
    }

    pub(super) fn for_split(self) -> split::Node {
        split::Node { ram_bytes: self.ram, swap_bytes: self.swap, lowmem_bytes: self.lowmem }
    }

    #[expect(clippy::cast_precision_loss, reason = "53 bits of bytes are more than any host has")]
    pub(super) fn for_shares(self) -> Result<Machine, Trouble> {
        const THREADS_MAX: &str = "/proc/sys/kernel/threads-max";
        let text = fs_err::read_to_string(THREADS_MAX).map_err(|e| Trouble::from_error(&e))?;
        let threads: u64 = text
            .trim()
            .parse()
            .map_err(|_| Trouble::new(format!("{THREADS_MAX} says {:?}, which is not a number", text.trim())))?;
        Ok(Machine {
            ram_bytes: self.ram as f64,
            swap_bytes: self.swap as f64,
            lowmem_bytes: self.lowmem as f64,
            threads_max: threads as f64,
        })
    }
}

/// The containers that run, in order of number.
pub(super) fn running(node: &Node) -> Result<Vec<State>, Trouble> {
    let present = boot::present(node).map_err(|e| Trouble::new(e.to_string()))?;
    let mut running = Vec::new();
    for (ctid, up) in present {
        if up == Up::Running {
            running.extend(state(node, ctid)?);
        }
    }
    Ok(running)
}

/// The state of a container, while it runs.
pub(super) fn state(node: &Node, ctid: vzrt::Ctid) -> Result<Option<State>, Trouble> {
    let running = RunDir::new(node.run_dir(ctid)).running().map_err(|e| Trouble::from_error(&e))?;
    Ok(running.map(|running| running.state))
}

pub(super) fn cgroups() -> Result<Host, Trouble> {
    Host::detect(Path::new("/")).map_err(|e| Trouble::from_error(&e))
}

/// What a running container holds, as far as it is counted.
pub(super) fn held(host: &Host, state: &State) -> Result<Held, Trouble> {
    let cgroup = host.container(&state.cgroup, state.ctid);
    let sources = Sources { init: u32::try_from(state.init_pid).ok(), ..cgroup.sources() };
    let mut reader = Reader::new(&sources);
    let mut bytes = |resource| {
        let held = reader.held(resource).map_err(|e| Trouble::from_error(&e))?;
        Ok::<_, Trouble>(held.map(overcommit::bytes))
    };
    let kernel = KERNEL_MEMORY.into_iter().map(&mut bytes).collect::<Result<Vec<_>, _>>()?;
    Ok(Held {
        kernel_bytes: kernel.into_iter().flatten().reduce(|a, b| a + b),
        ram_bytes: bytes(Resource::Physpages)?,
        unreclaimable_bytes: bytes(Resource::Oomguarpages)?,
        allocated_bytes: bytes(Resource::Privvmpages)?,
        processes: bytes(Resource::Numproc)?,
    })
}
