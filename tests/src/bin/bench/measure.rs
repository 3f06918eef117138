//! Timing commands, and what many timings say.

use std::error::Error;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tests::wait::wait_until;

use crate::runtimes::Runtime;

const CLOCK_BITS: u32 = 56;
/// No runtime needs this long for anything measured here.
const LIMIT: Duration = Duration::from_secs(20);

/// Many timings of one thing.
#[derive(Default)]
pub(crate) struct Timings(Vec<Duration>);

impl Timings {
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The time that this part of them stay below: 0.5 is the median.
    pub(crate) fn quantile(&self, part: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let at = ((sorted.len() - 1) as f64 * part).round() as usize;
        sorted[at]
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Runs a command that must succeed and returns how long it took.
pub(crate) fn time(mut command: Command) -> Result<Duration, Box<dyn Error>> {
    let start = Instant::now();
    // Files, not pipes: a runtime's own processes may keep them for as long as the container lives.
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    let took = start.elapsed();
    if status.success() { Ok(took) } else { Err(format!("{command:?}: {status}").into()) }
}

/// A start: until init's first instruction, and until the command returns.
pub(crate) struct Start {
    pub(crate) init: Duration,
    pub(crate) command: Option<Duration>,
}

/// Starts a container, hears when its init began, and stops it again.
pub(crate) fn start_and_stop(runtime: &Runtime) -> Result<Start, Box<dyn Error>> {
    let since = now()?;
    let (mut stays, command) = if runtime.stays {
        let mut start = runtime.start();
        (Some(start.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?), None)
    } else {
        (None, Some(time(runtime.start())?))
    };
    let mut began = None;
    let heard = wait_until(LIMIT, || {
        began = tick_since(since);
        began.is_some()
    });
    if let Some(child) = &mut stays {
        child.kill()?;
        child.wait()?;
    }
    stop(runtime)?;
    let init = began.filter(|_| heard).ok_or_else(|| format!("{}: its init never ran", runtime.name))?;
    Ok(Start { init, command })
}

pub(crate) fn stop(runtime: &Runtime) -> Result<(), Box<dyn Error>> {
    runtime.stop().into_iter().try_for_each(|command| time(command).map(drop))
}

fn now() -> Result<u64, Box<dyn Error>> {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(since_epoch.as_nanos() as u64 & ((1 << CLOCK_BITS) - 1))
}

/// The time from `since` until an init of ours began, if one has: see `tick.c`.
fn tick_since(since: u64) -> Option<Duration> {
    let processes = procfs::process::all_processes().ok()?.flatten();
    let names = processes.filter_map(|process| process.stat().ok()).map(|stat| stat.comm);
    let ticks = names.filter_map(|name| u64::from_str_radix(name.strip_prefix('T')?, 16).ok());
    ticks.filter(|&tick| tick >= since).min().map(|tick| Duration::from_nanos(tick - since))
}
