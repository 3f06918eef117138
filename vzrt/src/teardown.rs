//! Taking a container's kernel objects away, from the journal alone.
//!
//! This one function undoes a failed start, ends a stop, cleans up when init died, and cleans up after a `kill -9` of anything. Every step
//! takes the absence of its object for success.

use std::time::Duration;

use crate::cgroup;
use crate::channel::Trouble;
use crate::launch::{chain, network_trouble};
use crate::rootfs::{self, RootError};
use crate::state::{Journal, RunDir};
use crate::{counters, hooks, net};

/// How long killed processes may take to be gone. A process in an uninterruptible wait outlives it, and is reported.
const KILL_TIMEOUT: Duration = Duration::from_secs(30);

/// Why something is left.
#[derive(Debug, thiserror::Error)]
pub enum TeardownError {
    /// Processes, or the cgroup.
    #[error("cannot remove the cgroup of the container")]
    Cgroup(#[from] cgroup::Error),
    /// A script.
    #[error(transparent)]
    Hook(Trouble),
    /// The network.
    #[error(transparent)]
    Network(Trouble),
    /// The mount.
    #[error(transparent)]
    Root(#[from] RootError),
    /// Another call.
    #[error(transparent)]
    Failed(#[from] crate::error::Failed),
}

/// Ends what runs: processes, cgroup, network. The root stays mounted.
///
/// # Errors
/// What could not be ended; the journal stays for the next try.
pub fn end_processes(journal: &Journal, host: &cgroup::Host) -> Result<(), TeardownError> {
    if let Some(parent) = &journal.cgroup {
        let cgroup = host.container(parent, journal.ctid);
        if cgroup.exists() {
            counters::detach(&cgroup);
            cgroup.kill()?;
            cgroup.wait_empty(KILL_TIMEOUT)?;
        }
        cgroup.remove(KILL_TIMEOUT)?;
        if let Err(e) = host.share_cpu(parent) {
            tracing::warn!("Warning: the other containers have not been weighed anew: {}", chain(&e));
        }
    }
    if let Some(plan) = &journal.net {
        net::down(plan).map_err(|e| TeardownError::Network(network_trouble(e)))?;
    }
    Ok(())
}

/// Unmounts the root, with the scripts around it.
///
/// # Errors
/// A script failed, or the root is busy. The scripts are the administrator's means to keep a root mounted, so their failure stops here.
pub fn unmount(journal: &Journal) -> Result<(), TeardownError> {
    hooks::run_on_host(&journal.hooks.umount, &journal.hooks).map_err(TeardownError::Hook)?;
    rootfs::unmount(&journal.root.mountpoint)?;
    hooks::run_on_host(&journal.hooks.postumount, &journal.hooks).map_err(TeardownError::Hook)
}

/// All of it, and then the run directory that told of it.
///
/// # Errors
/// As [`end_processes`] and [`unmount`].
pub fn dismantle(run: &RunDir, journal: &Journal, host: &cgroup::Host) -> Result<(), TeardownError> {
    end_processes(journal, host)?;
    if rootfs::is_mounted(&journal.root.mountpoint)? {
        unmount(journal)?;
    }
    forget(run)
}

/// The run directory of a container that has ended, and what is there only while one runs.
///
/// # Errors
/// The failed call.
pub(crate) fn forget(run: &RunDir) -> Result<(), TeardownError> {
    run.remove()?;
    counters::close_if_idle(run.node());
    Ok(())
}

/// As [`dismantle`], where an error has been met already that the user is going to be told: a further one is only logged.
pub fn dismantle_after_failure(run: &RunDir, journal: &Journal, host: &cgroup::Host) {
    if let Err(e) = dismantle(run, journal, host) {
        tracing::error!("Cleaning up after the failure failed too: {}", chain(&e));
    }
}
