//! `vzctl stop`.

use std::time::Duration;

use vzrt::{Condition, StopMode, StopStep};

use super::{Context, failed, system};
use crate::failure::Outcome;
use crate::subject::Subject;
use crate::{Exit, Failure};

/// How long a container may take to halt by itself, where nobody says otherwise (vzctl 4's STOP_TIMEOUT).
const DEFAULT_TIMEOUT_S: u64 = 120;

pub(super) fn run(context: &Context) -> Outcome {
    let container = context.container()?;
    let _lock = context.lock("stopping")?;
    let host = context.cgroups()?;
    match vzrt::settle(&context.run_dir(), &host).map_err(|e| failed(&e))? {
        Condition::Running(running) => {
            stop(context, &container, *running, &host)?;
            Ok(Exit::Success)
        }
        Condition::Mounted(_) | Condition::Stopped => {
            // One that reboots too often is down only for a while.
            if vzrt::reboot::call_off(&context.run_dir()).map_err(|e| system(&e))? {
                tracing::info!("Container was stopped");
            } else {
                tracing::info!("Unable to stop: container is not running");
            }
            Ok(Exit::Success)
        }
    }
}

/// Stops a running container under the lock, saying how it goes.
pub(super) fn stop(
    context: &Context,
    container: &Subject,
    running: vzrt::Running,
    host: &vzrt::cgroup::Host,
) -> Result<(), Failure> {
    let options = &context.request.matches;
    let option = |name: &str| options.try_get_one::<bool>(name).ok().flatten().copied().unwrap_or(false);
    let timeout_s = options
        .try_get_one::<u64>("stop-timeout")
        .ok()
        .flatten()
        .copied()
        .or(container.settings.stop_timeout_s)
        .unwrap_or(DEFAULT_TIMEOUT_S);
    let mode = if option("fast") { StopMode::Kill } else { StopMode::Halt(Duration::from_secs(timeout_s)) };
    tracing::info!("{}", if mode == StopMode::Kill { "Killing container ..." } else { "Stopping container ..." });
    let interrupt = context.interrupt()?;
    vzrt::stop(&context.run_dir(), running, host, mode, option("skip-umount"), &interrupt, &mut |step| match step {
        StopStep::Killing => tracing::info!("Killing container ..."),
        StopStep::Stopped => tracing::info!("Container was stopped"),
        StopStep::Unmounted => tracing::info!("Container is unmounted"),
    })
    .map_err(|e| failed(&e))
}
