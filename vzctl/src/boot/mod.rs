//! All containers of a node at once: which start with the host and in what order, which ran when it went down, and the workers that start
//! and stop them.

pub(crate) mod order;
pub(crate) mod remembered;
pub(crate) mod workers;

use vzrt::{Condition, Ctid, RunDir};

use crate::config::Node;
use crate::{Exit, Failure};

/// How long a worker waits for a command that somebody else runs on its container, in seconds.
pub(crate) const WAIT_LOCK_S: &str = "60";

/// What there is of a container that takes part in the host's shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Up {
    /// It runs, or is about to start again after a reboot.
    Running,
    /// Its root is mounted.
    Mounted,
}

/// The containers that a shutdown has to do with.
///
/// # Errors
/// The run directory can't be read.
pub(crate) fn present(node: &Node) -> Result<Vec<(Ctid, Up)>, Failure> {
    let dir = &node.global.run_dir;
    let entries = match fs_err::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|e| Failure::from_error(Exit::System, &e))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(|e| Failure::from_error(Exit::System, &e))?.file_name();
        let Some(name) = name.to_str() else { continue };
        let rebooting = name.strip_suffix(".reboot");
        let Ok(ctid) = rebooting.unwrap_or(name).parse::<Ctid>() else { continue };
        let condition = vzrt::condition(&RunDir::new(node.run_dir(ctid)));
        let up = match condition.map_err(|e| Failure::from_error(Exit::System, &e))? {
            Condition::Running(_) => Some(Up::Running),
            _ if rebooting.is_some() => Some(Up::Running),
            Condition::Mounted(_) => Some(Up::Mounted),
            Condition::Stopped => None,
        };
        found.extend(up.map(|up| (ctid, up)));
    }
    // A mark and a directory of one container are one container, and the one that says more counts.
    found.sort_unstable_by_key(|&(ctid, up)| (ctid, up != Up::Running));
    found.dedup_by_key(|&mut (ctid, _)| ctid);
    Ok(found)
}

/// How many workers there are at once (`VE_PARALLEL`): by default four for each CPU, since most of a start and of a stop is waiting.
pub(crate) fn at_once(node: &Node) -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let wanted = node.global.parallel.and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0);
    wanted.unwrap_or(4 * cpus)
}

/// How it ends when something has failed for these.
pub(crate) fn failed_for(what: &str, mut failed: Vec<Ctid>, of: usize) -> Failure {
    failed.sort_unstable();
    let list: Vec<String> = failed.iter().map(ToString::to_string).collect();
    Failure::new(Exit::System, format!("{} of {of} containers were not {what}: {}", failed.len(), list.join(" ")))
}
