//! The beancounters of running containers: what the kernel counts beside what the plan bounds.

use std::io;
use std::path::{Path, PathBuf};

use beancounters::read::{ReadError, Reader, Sources};
use beancounters::{Bound, Counter, Counters};

use crate::error::Failed;
use crate::{Ctid, RunDir, cgroup};

/// Nothing can be told of a container that runs.
#[derive(Debug, thiserror::Error)]
pub enum CountersError {
    /// Its run directory can't be read.
    #[error(transparent)]
    State(#[from] Failed),
    /// A counter can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The directory of run directories can't be read.
    #[error("readdir({})", directory.display())]
    Directory {
        /// Which.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The 21 rows of a container; `None`: it does not run. What the kernel does not count on this host is 0, for the tables have no other word.
///
/// # Errors
/// Its run directory or a counter can't be read.
pub fn of(run: &RunDir, host: &cgroup::Host) -> Result<Option<Counters>, CountersError> {
    let Some(running) = run.running()? else { return Ok(None) };
    let state = &running.state;
    let bounds = run.plan()?.map(|plan| plan.vz.bounds).unwrap_or_default();
    let init = u32::try_from(state.init_pid).ok();
    let sources = Sources { init, ..host.container(&state.cgroup, state.ctid).sources() };
    let mut reader = Reader::new(&sources);
    let memory = rustix::system::sysinfo();
    let host_memory_bytes = memory.totalram.saturating_mul(u64::from(memory.mem_unit).max(1));
    let mut failed = None;
    let counters = Counters::new(|resource| {
        let bound = bounds.get(resource).unwrap_or_else(|| Bound::kernel_default(resource, host_memory_bytes));
        let usage = reader.usage(resource).map_err(|e| failed.get_or_insert(e)).ok();
        let count = |amount: Option<beancounters::Amount>| amount.map_or(0, beancounters::Amount::count);
        let (held, maxheld, failcnt) =
            usage.map_or((0, 0, 0), |usage| (count(usage.held), count(usage.maxheld), usage.failcnt.unwrap_or(0)));
        Counter::new(bound, held, maxheld, failcnt)
    });
    match failed {
        None => Ok(Some(counters)),
        // It has ended while it was being looked at.
        Some(_) if run.running()?.is_none() => Ok(None),
        Some(error) => Err(error.into()),
    }
}

/// Those of all containers that run, in the order of their numbers. `directory`: where the run directories are.
///
/// # Errors
/// As [`of`].
pub fn of_all(directory: &Path, host: &cgroup::Host) -> Result<Vec<(Ctid, Counters)>, CountersError> {
    let failed = |source| CountersError::Directory { directory: directory.to_owned(), source };
    let entries = match std::fs::read_dir(directory) {
        // Nothing has run since the host was started.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut ctids: Vec<Ctid> = Vec::new();
    for entry in entries {
        ctids.extend(entry.map_err(failed)?.file_name().to_str().and_then(|name| name.parse::<Ctid>().ok()));
    }
    ctids.sort_unstable();
    let mut all = Vec::new();
    for ctid in ctids {
        let counters = of(&RunDir::new(directory.join(ctid.to_string())), host)?;
        all.extend(counters.map(|counters| (ctid, counters)));
    }
    Ok(all)
}
