//! Who keeps memory when the whole host runs short of it, and who is killed when it is out of it.
//!
//! What programs of a container hold within its promise (`vmguarpages`, `oomguarpages`) is kept from reclaim (`cgroup/promise.rs`). How much that
//! is is looked at each second from when a quarter of the host's memory is left.
//!
//! Killed is a process of the container that is furthest beyond what it is promised (`oomguarpages`).
//!
//! The kernel compares processes, not containers. It kills the one whose memory and adjustment (proc_pid_oom_score_adj(5)) together are the most.
//! A container's processes therefore get the adjustment with which the largest of them counts for as much as the container is beyond its promise:
//!
//! ```text
//! size of the largest + adjustment = held by the container - promised to it
//! ```
//!
//! Both sides grow alike with the largest, which is how memory mostly runs out; only what the others hold has to be looked at again. That is done
//! each second while the host is short of memory, and never while it is not: a container has its promise from its start.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use beancounters::read::Reader;
use beancounters::{Amount, Resource, Set};
use procfs::{Current, Meminfo};

use crate::cgroup::Host;
use crate::error::Failed;
use crate::launch::chain;
use crate::state::{RunDir, Running};
use crate::{Ctid, counters};

/// How often it is looked whether the host is short of memory.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

/// With less than this part of memory left, 1 of so many, the kernel is about to reclaim what programs hold.
const TIGHT: u64 = 4;

/// Less than this part of memory and swap, 1 of so many, is a shortage in which somebody may be killed.
const SHORT: u64 = 8;

/// The adjustment, in thousandths of the host's memory and swap, of the processes of a container that holds so many bytes, its largest process
/// so many of them. Never -1000, which would be a promise without end.
#[must_use]
pub fn adjustment(held: u64, largest: u64, promised: u64, host: u64) -> i32 {
    let beside_the_largest = i128::from(held) - i128::from(largest) - i128::from(promised);
    let thousandths = beside_the_largest * 1000 / i128::from(host.max(1));
    i32::try_from(thousandths.clamp(-999, 1000)).unwrap_or(0)
}

/// What a container with these bounds is promised not to lose to the killer.
#[must_use]
pub fn promised_bytes(bounds: &Set) -> u64 {
    let promised = bounds.get(Resource::Oomguarpages).and_then(|bound| bound.barrier().in_bytes());
    promised.map_or(0, Amount::count)
}

/// How much of this host's memory may be kept from reclaim for containers, whatever the rest needs.
#[must_use]
pub fn guaranteeable_bytes() -> u64 {
    crate::cgroup::kept_at_most(counters::host_ram_bytes())
}

/// What the kernel's killer takes for all of the memory there is.
#[must_use]
pub fn host_bytes() -> u64 {
    let host = rustix::system::sysinfo();
    host.totalram.saturating_add(host.totalswap) * u64::from(host.mem_unit).max(1)
}

/// How short of memory the host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shortage {
    /// What is promised is to be kept.
    tight: bool,
    /// The killer may be near.
    short: bool,
}

impl Shortage {
    fn now() -> procfs::ProcResult<Self> {
        let memory = Meminfo::current()?;
        let available = memory.mem_available.unwrap_or(memory.mem_free);
        let (free, all) =
            (available.saturating_add(memory.swap_free), memory.mem_total.saturating_add(memory.swap_total));
        Ok(Self { tight: available < memory.mem_total / TIGHT, short: free < all / SHORT })
    }
}

/// The containers of a node in the kernel's eyes when memory is short.
#[derive(Debug)]
pub(crate) struct Order {
    node: PathBuf,
    /// Found in the first shortage.
    host: Option<Host>,
    /// Of whom it has been told that it does not work.
    told: BTreeSet<Ctid>,
}

impl Order {
    /// Of the node with this run directory.
    pub(crate) fn of(node: &Path) -> Self {
        Self { node: node.to_owned(), host: None, told: BTreeSet::new() }
    }

    /// Keeps what is promised, and adjusts the processes of all containers, if the host is short of memory.
    ///
    /// # Errors
    /// The host's memory or its cgroups can't be read.
    pub(crate) fn keep(&mut self) -> Result<(), Failed> {
        let shortage = Shortage::now().map_err(|e| Failed::new("read /proc/meminfo", chain(&e)))?;
        if !(shortage.tight || shortage.short) {
            return Ok(());
        }
        let host = match self.host.take() {
            Some(host) => host,
            None => Host::detect(Path::new("/")).map_err(|e| Failed::new("find the cgroups", chain(&e)))?,
        };
        let mut parents = BTreeSet::new();
        for ctid in counters::numbers(&self.node) {
            match look(&RunDir::new(self.node.join(ctid.to_string())), &host, shortage) {
                Ok(parent) => parents.extend(parent),
                Err(e) if self.told.insert(ctid) => {
                    tracing::warn!("Warning: short of memory, CT {ctid} counts as at the last look: {}", e.one_line());
                }
                Err(_) => {}
            }
        }
        let ram = counters::host_ram_bytes();
        let shared = parents.iter().filter(|_| shortage.tight).try_for_each(|parent| host.share_promises(parent, ram));
        self.host = Some(host);
        shared.map_err(|e| Failed::new("keep what is promised", chain(&e)))?;
        Ok(())
    }
}

/// One container, if it runs: the cgroup above its own.
fn look(run: &RunDir, host: &Host, shortage: Shortage) -> Result<Option<String>, Failed> {
    let failed = |what: &str, e: &dyn std::error::Error| Failed::new(what, chain(e));
    let Some(Running { state, .. }) = run.running()? else { return Ok(None) };
    let cgroup = host.container(&state.cgroup, state.ctid);
    let sources = counters::sources(&cgroup, state.init_pid, run);
    let mut reader = Reader::new(&sources);
    let mut held = |resource| {
        let held = reader.held(resource).map_err(|e| failed("count what it holds", &e))?;
        Ok::<_, Failed>(held.and_then(Amount::in_bytes).map(Amount::count))
    };
    // Not counted on this host: then a process's own size decides.
    let Some(programs) = held(Resource::Oomguarpages)? else { return Ok(None) };
    if shortage.tight {
        let kernel = held(Resource::Kmemsize)?.unwrap_or(0);
        cgroup.keep(programs.saturating_add(kernel)).map_err(|e| failed("keep what is promised", &e))?;
    }
    if shortage.short {
        let promised = promised_bytes(&run.bounds()?.unwrap_or_default());
        let largest = cgroup.largest_process().map_err(|e| failed("look at the processes", &e))?;
        let wanted = adjustment(programs, largest, promised, host_bytes());
        let adjusted = cgroup.readjust_oom_score(state.init_pid, wanted);
        adjusted.map_err(|e| failed("adjust the processes", &e))?;
    }
    Ok(Some(state.cgroup))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_largest_process_counts_for_what_its_container_is_beyond_its_promise() {
        let host = 1000 * MIB;
        for (held, largest, promised) in [(400, 400, 300), (400, 50, 100), (200, 200, 0), (50, 20, 300), (10, 60, 0)] {
            let adjustment = adjustment(held * MIB, largest * MIB, promised * MIB, host);
            let counts_for = i64::from(adjustment) + largest.cast_signed();
            assert_eq!(counts_for, held.cast_signed() - promised.cast_signed(), "{held} {largest} {promised}");
        }
    }

    #[test]
    fn no_promise_is_without_end_and_no_number_too_large() {
        assert_eq!(adjustment(0, 0, u64::MAX, 4096), -999);
        assert_eq!(adjustment(u64::MAX, 0, 0, 4096), 1000);
        assert_eq!(adjustment(4096, 0, 0, 0), 1000);
    }
}
