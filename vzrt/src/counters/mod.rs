//! The beancounters of running containers: what was counted, beside barrier and limit; and the files that show them as OpenVZ's kernel did.
//!
//! | module | what it is for |
//! |---|---|
//! | here | the rows of one running container: [`running`] |
//! | `table` | the tree of files: `user_beancounters`, `bc/resources`, `bc/101/resources`; and of disk quota, `vz/vzquota` |
//! | `disk` | what `vz/vzquota` says |
//! | `schedule` | `vz/vestat` and `fairsched`, of CPU time and weights |
//! | `kernel` | what BPF programs count and refuse for a container |
//! | `desk` | who serves the host's: a process for as long as a container runs |

mod desk;
mod disk;
mod kernel;
mod schedule;
mod table;

use std::path::Path;
use std::time::{Duration, Instant};

use beancounters::peaks::Peaks;
use beancounters::read::{ReadError, Reader, Sources, Usage};
use beancounters::{Amount, Bound, Counter, Counters, Resource, Set};
use rustix::time::{ClockId, clock_gettime};

pub(crate) use self::desk::{Desk, close_if_idle, numbers, open, serve};
pub use self::kernel::rebound;
pub(crate) use self::kernel::{allows, detach};
pub(crate) use self::table::{Register, Table};
use crate::cgroup::{self, CtCgroup};
use crate::error::Failed;
use crate::launch::chain;
use crate::plan::Plan;
use crate::state::{PlanStamp, RunDir};
use crate::{Ctid, state};

/// Why a running container's counters can't be told.
#[derive(Debug, thiserror::Error)]
pub enum CountersError {
    /// What the run directory says of it.
    #[error(transparent)]
    State(#[from] Failed),
    /// What the kernel counted.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// The rows of a container.
#[derive(Debug)]
pub struct Rows {
    /// The numbers.
    pub counters: Counters,
    /// Those whose maxheld is only the most that anybody has seen ([`Reader::is_sampled`]).
    pub sampled: Vec<Resource>,
}

/// The rows of the container with this run directory; `None` when it does not run.
///
/// # Errors
/// Its run directory or its cgroup can't be read.
pub fn running(run: &RunDir, host: &cgroup::Host) -> Result<Option<Rows>, CountersError> {
    let Some(state::Running { state, .. }) = run.running()? else { return Ok(None) };
    let bounds = run.bounds()?.unwrap_or_default();
    let sources = sources(&host.container(&state.cgroup, state.ctid), state.init_pid, run);
    match rows(&bounds, &sources) {
        // It has ended while it was being looked at.
        Err(_) if run.running()?.is_none() => Ok(None),
        rows => Ok(Some(rows?)),
    }
}

/// Where a container with this first process is counted, and where its highest marks are.
#[must_use]
pub fn sources(cgroup: &CtCgroup, init_pid: i32, run: &RunDir) -> Sources {
    Sources { init: u32::try_from(init_pid).ok(), peaks: Some(run.peaks()), ..cgroup.sources() }
}

/// Has a container counted from zero, which is about to start.
pub(crate) fn begin(plan: &Plan, cgroup: &CtCgroup) {
    let marks = RunDir::new(&plan.vz.run_dir).peaks();
    if let Err(e) = Peaks::create(&marks) {
        tracing::warn!("Warning: nothing remembers the most that the container holds: {}: {e}", marks.display());
    }
    kernel::attach(plan, cgroup);
}

/// The rows of a container that has these bounds and is counted there. What nobody counts is 0, for the files have no other word, and what is
/// not bounded has the bound that a new beancounter had.
///
/// # Errors
/// A counter is there and can't be read.
pub fn rows(bounds: &Set, sources: &Sources) -> Result<Rows, ReadError> {
    let bounds = in_force(bounds);
    let mut reader = Reader::new(sources);
    let mut trouble = None;
    let mut sampled = Vec::new();
    let counters = Counters::new(|resource| {
        let bound = bounds.get(resource).unwrap_or_else(|| Bound::unlimited(resource));
        let counted = reader.usage(resource).map(|usage| {
            sampled.extend(usage.is_sampled.then_some(resource));
            row(usage, bound)
        });
        counted.unwrap_or_else(|e| {
            trouble.get_or_insert(e);
            Counter::new(bound, 0, 0, 0)
        })
    });
    trouble.map_or(Ok(Rows { counters, sampled }), Err)
}

/// The bounds of a running container: those that were said, and for all others what a new beancounter had.
#[must_use]
pub fn in_force(said: &Set) -> Set {
    let ram_bytes = host_ram_bytes();
    let mut all = said.clone();
    Resource::LIVE.into_iter().for_each(|resource| all.insert_if_absent(Bound::kernel_default(resource, ram_bytes)));
    all
}

fn row(usage: Usage, bound: Bound) -> Counter {
    let count = |amount: Option<Amount>| amount.map_or(0, Amount::count);
    Counter::new(bound, count(usage.held), count(usage.maxheld), usage.failcnt.unwrap_or(0))
}

/// The machine's memory, of which a new beancounter was guaranteed its part.
#[must_use]
pub fn host_ram_bytes() -> u64 {
    let host = rustix::system::sysinfo();
    host.totalram * u64::from(host.mem_unit).max(1)
}

/// The bounds of one container, read again when they have changed.
#[derive(Debug, Default)]
struct KnownBounds {
    of: Option<PlanStamp>,
    set: Set,
}

impl KnownBounds {
    fn of(&mut self, run: &RunDir) -> Result<&Set, Failed> {
        let stamp = run.plan_stamp()?;
        if stamp.is_none() || self.of != stamp {
            *self = Self { of: stamp, set: run.bounds()?.unwrap_or_default() };
        }
        Ok(&self.set)
    }
}

/// A container that tells of itself.
#[derive(Debug)]
pub(crate) struct One {
    ctid: Ctid,
    run: RunDir,
    sources: Sources,
    cgroup: CtCgroup,
    bounds: KnownBounds,
    /// The CPU time of its processes at the last look.
    cpu_seen: Option<Duration>,
    told: Option<Told>,
}

/// Rows that were told, and for how long they are told again.
#[derive(Debug)]
struct Told {
    rows: Counters,
    /// The plan they are of: a `set` makes another.
    plan: Option<PlanStamp>,
    until: Instant,
}

/// For how long rows are told again that have taken this much CPU time: a container that does nothing but read them makes its attendant count for a
/// twentieth of a processor's time, up to where a reader would think that nothing changes.
fn told_for(took: Duration) -> Duration {
    (took * 20).min(Duration::from_secs(1))
}

impl One {
    /// The one with this run directory, which runs.
    pub(crate) fn new(ctid: Ctid, run_dir: &Path, cgroup: &CtCgroup, init_pid: i32) -> Self {
        let run = RunDir::new(run_dir);
        let sources = sources(cgroup, init_pid, &run);
        Self { ctid, run, sources, cgroup: cgroup.clone(), bounds: KnownBounds::default(), cpu_seen: None, told: None }
    }

    /// Looks at what nobody else watches, for its highest marks. A container whose processes have not run since the last look has taken nothing.
    pub(crate) fn look(&mut self) -> Result<(), CountersError> {
        let cpu = self.cgroup.usage().ok().map(|usage| usage.cpu);
        if cpu.is_some() && cpu == self.cpu_seen {
            return Ok(());
        }
        self.cpu_seen = cpu;
        let mut reader = Reader::new(&self.sources);
        for resource in Resource::LIVE {
            if reader.is_sampled(resource)? {
                reader.usage(resource)?;
            }
        }
        Ok(())
    }

    fn rows(&mut self) -> Result<Counters, CountersError> {
        let plan = self.run.plan_stamp()?;
        if let Some(told) = &self.told
            && told.plan == plan
            && Instant::now() < told.until
        {
            return Ok(told.rows.clone());
        }
        let before = cpu_time();
        let rows = rows(self.bounds.of(&self.run)?, &self.sources)?.counters;
        let until = Instant::now() + told_for(cpu_time().saturating_sub(before));
        self.told = Some(Told { rows: rows.clone(), plan, until });
        Ok(rows)
    }
}

/// Of this process, which has one thread. Not the time that has passed: waiting costs nobody anything.
fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(now).unwrap_or_default()
}

impl Register for One {
    fn numbers(&mut self) -> Vec<Ctid> {
        vec![self.ctid]
    }

    fn is_running(&mut self, ctid: Ctid) -> bool {
        ctid == self.ctid
    }

    fn rows(&mut self, ctid: Ctid) -> Option<Counters> {
        let told = |e: &CountersError| tracing::debug!("beancounters: {}", chain(e));
        (ctid == self.ctid).then(|| One::rows(self).inspect_err(told).ok())?
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use beancounters::read::CgroupVersion;

    use super::*;

    #[test]
    fn what_is_bounded_shows_with_what_was_counted_and_the_rest_as_a_new_beancounter() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("pids.current"), "7\n").unwrap();
        let here = Some(dir.path().to_owned());
        let mut sources =
            Sources { memory: None, pids: None, version: CgroupVersion::V2, processes: None, init: None, peaks: None };
        sources.pids = here;
        let bounds: Set = [Bound::new(Resource::Numproc, 10, 12)].into_iter().collect();
        let rows = rows(&bounds, &sources).unwrap().counters;
        let numproc = rows.get(Resource::Numproc).unwrap();
        assert_eq!((numproc.held, numproc.barrier, numproc.limit), (7, 10, 12));
        assert!(numproc.maxheld >= 7);
        let free = Bound::kernel_default(Resource::Oomguarpages, host_ram_bytes());
        let oomguarpages = rows.get(Resource::Oomguarpages).unwrap();
        assert_eq!(oomguarpages.barrier, free.barrier().count());
        assert!(oomguarpages.barrier > 0);
    }

    #[test]
    fn a_counter_that_says_no_number_is_an_error_and_no_zero() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("pids.current"), "many\n").unwrap();
        let mut sources =
            Sources { memory: None, pids: None, version: CgroupVersion::V2, processes: None, init: None, peaks: None };
        sources.pids = Some(dir.path().to_owned());
        assert!(rows(&Set::default(), &sources).is_err());
    }

    #[test]
    fn what_was_cheap_is_counted_anew_and_what_was_dear_is_told_for_a_second_at_most() {
        assert_eq!(told_for(Duration::from_micros(100)), Duration::from_millis(2));
        assert_eq!(told_for(Duration::from_millis(12)), Duration::from_millis(240));
        assert_eq!(told_for(Duration::from_secs(5)), Duration::from_secs(1));
    }

    #[test]
    fn a_container_that_does_not_run_has_no_rows() {
        let Ok(host) = cgroup::Host::detect(Path::new("/")) else { return };
        let dir = tempfile::tempdir().unwrap();
        assert!(running(&RunDir::new(dir.path().join("101")), &host).unwrap().is_none());
    }
}
