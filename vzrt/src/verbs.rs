//! What can be done with a container: mount, start, stop, and finding out what it is doing. The caller holds the container's lock for all
//! that change something.

use std::time::{Duration, Instant};

use rustix::process::{Signal, pidfd_send_signal};

use crate::cgroup;
use crate::channel::Trouble;
use crate::error::{Call, Failed};
use crate::hooks::{self, wait_for_either};
use crate::inside::{self, Inside};
use crate::interrupt::{Interrupt, Interrupted};
use crate::launch::chain;
use crate::lock::{Lock, LockError};
use crate::plan::Plan;
use crate::rootfs::{self, RootError};
use crate::state::{Journal, RunDir, Running, State, boot_id, start_ticks};
use crate::teardown::{self, TeardownError};
use crate::{counters, launch, monitor, net, view};

/// How a stop is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// Ask the container's init to halt, and kill what is left after this time.
    Halt(Duration),
    /// Kill at once (`--fast`).
    Kill,
}

/// A verb's failure.
#[derive(Debug, thiserror::Error)]
pub enum VerbError {
    /// Mounting or unmounting.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The start.
    #[error("Container start failed")]
    Start(#[source] Trouble),
    /// A script of the administrator around mounting.
    #[error(transparent)]
    Hook(Trouble),
    /// An address that somebody else has, or that could not be asked for.
    #[error("Unable to use the addresses of the container")]
    Address(#[source] net::NetError),
    /// The host's side of the network.
    #[error("cannot prepare the network of this host")]
    Network(#[source] net::NetError),
    /// Processes outlived being killed.
    #[error("Unable to stop container: operation timed out")]
    StopTimeout,
    /// A signal ended the command half way.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// Clearing up.
    #[error(transparent)]
    Teardown(#[from] TeardownError),
    /// Another call.
    #[error(transparent)]
    Failed(#[from] Failed),
}

/// What a container is doing.
#[derive(Debug)]
pub enum Condition {
    /// Nothing of it is in the kernel.
    Stopped,
    /// Its root is mounted.
    Mounted(Box<Journal>),
    /// Its init lives.
    Running(Box<Running>),
}

/// Finds out what a container is doing, without touching anything.
///
/// # Errors
/// The run directory can't be read.
pub fn condition(run: &RunDir) -> Result<Condition, Failed> {
    if let Some(running) = run.running()? {
        return Ok(Condition::Running(Box::new(running)));
    }
    match run.journal()? {
        Some(journal) if rootfs::is_mounted(&journal.root.mountpoint)? => Ok(Condition::Mounted(Box::new(journal))),
        _ => Ok(Condition::Stopped),
    }
}

/// Brings the kernel in line with a state a command can work from: a container whose start, stop or monitor was killed half way is cleared
/// up first. To be called under the lock, before anything else.
///
/// # Errors
/// What could not be cleared up.
pub fn settle(run: &RunDir, host: &cgroup::Host) -> Result<Condition, VerbError> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let condition = condition(run)?;
        if let Condition::Running(running) = &condition {
            tend(run, host, running)?;
            return Ok(condition);
        }
        let Some(journal) = run.journal()? else {
            // Of an earlier boot, or nothing: no kernel object can be behind it.
            if run.path().exists() {
                run.remove()?;
            }
            return Ok(Condition::Stopped);
        };
        if run.monitor_lock()?.is_none() {
            // A monitor lives: it is launching, or clearing up. It must not wait for the lock we hold.
            run.hand_over()?;
            if Instant::now() > deadline {
                return Err(VerbError::StopTimeout);
            }
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        if journal.cgroup.is_none() && matches!(condition, Condition::Mounted(_)) {
            return Ok(condition);
        }
        teardown::dismantle(run, &journal, host)?;
        return Ok(Condition::Stopped);
    }
}

/// Sees to it that a running container has a monitor: both its processes may have been killed, or stopped. To be called under the lock.
fn tend(run: &RunDir, host: &cgroup::Host, running: &Running) -> Result<(), Failed> {
    if run.monitor_lock()?.is_none() {
        if view::is_stopped(running.state.monitor_pid) {
            monitor::wake(running)?;
        }
        return Ok(());
    }
    // Without the plan (a version of ours that wrote another kind) it goes on without a monitor: it can still be stopped.
    let plan = match run.plan() {
        Ok(Some(plan)) => plan,
        Ok(None) => return Ok(()),
        Err(e) => {
            tracing::warn!("Warning: the container has no monitor: {}", e.one_line());
            return Ok(());
        }
    };
    run.take_back()?;
    if let Some(files) = monitor::adopt(&plan, host, running)?
        && let Err(e) = Inside::new(running, &plan, host).restore_files(&files)
    {
        tracing::warn!("Warning: /proc of the container could not be mended: {}", chain(&e));
    }
    Ok(())
}

/// The same for commands that take no lock: while somebody else holds it, that one does it, or is about to end the container.
///
/// # Errors
/// The failed call.
pub fn look_after(plan: &Plan, host: &cgroup::Host, running: &Running) -> Result<(), Failed> {
    let run = RunDir::new(&plan.vz.run_dir);
    if run.monitor_lock()?.is_none() && !view::is_stopped(running.state.monitor_pid) {
        return Ok(());
    }
    match Lock::take(&plan.vz.lock_file, "looking after the container", Duration::ZERO) {
        Ok(_lock) => tend(&run, host, running),
        Err(LockError::Held { .. }) => Ok(()),
        Err(e) => Err(Failed::new("lock", chain(&e))),
    }
}

/// Mounts the root, with the scripts around it. `journal` is synced before the mount.
///
/// # Errors
/// Then nothing is mounted and the journal is gone.
pub fn mount(plan: &Plan, host: &cgroup::Host) -> Result<(), VerbError> {
    let run = RunDir::new(&plan.vz.run_dir);
    let journal = Journal { cgroup: None, net: None, ..journal_of(plan) };
    mount_journaled(plan, &run, &journal).inspect_err(|_| teardown::dismantle_after_failure(&run, &journal, host))
}

fn journal_of(plan: &Plan) -> Journal {
    Journal {
        boot_id: boot_id(),
        ctid: plan.ctid,
        root: plan.vz.root.clone(),
        hooks: plan.vz.hooks.clone(),
        cgroup: Some(plan.vz.cgroup.clone()),
        net: Some(plan.vz.net.clone()),
    }
}

/// Before anything is made, so that nothing has to be taken away again.
fn compiled(plan: &Plan) -> Result<Plan, VerbError> {
    plan.compiled().map_err(|e| VerbError::Start(e.into()))
}

fn mount_journaled(plan: &Plan, run: &RunDir, journal: &Journal) -> Result<(), VerbError> {
    hooks::run_on_host(&plan.vz.hooks.premount, &plan.vz.hooks).map_err(VerbError::Hook)?;
    run.write_journal(journal)?;
    rootfs::mount(&plan.vz.root)?;
    hooks::run_on_host(&plan.vz.hooks.mount, &plan.vz.hooks).map_err(VerbError::Hook)
}

/// Unmounts a mounted root.
///
/// # Errors
/// A script failed or the root is busy; it stays mounted.
pub fn unmount(run: &RunDir, journal: &Journal) -> Result<(), VerbError> {
    teardown::unmount(journal)?;
    Ok(run.remove()?)
}

/// Starts the container. Each step says on `tell` that it is done, for the messages of the command line.
///
/// # Errors
/// Then nothing of it is left.
pub fn start(
    plan: &Plan,
    host: &cgroup::Host,
    host_net: &net::HostNet,
    interrupt: &Interrupt,
    tell: &mut dyn FnMut(Step),
) -> Result<(), VerbError> {
    let plan = &compiled(plan)?;
    let run = RunDir::new(&plan.vz.run_dir);
    let journal = journal_of(plan);
    let go = |tell: &mut dyn FnMut(Step)| {
        // Asked first, so that the answers come while the root is being mounted.
        let probe =
            net::Probe::send(&plan.vz.net, &plan.vz.net.ips().collect::<Vec<_>>()).map_err(VerbError::Address)?;
        mount_journaled(plan, &run, &journal)?;
        tell(Step::Mounted);
        interrupt.check()?;
        if !plan.vz.net.addresses.is_empty() {
            net::ensure_host(host_net).map_err(VerbError::Network)?;
        }
        interrupt.check()?;
        monitor::start(plan, host, probe, interrupt)?;
        tell(Step::Started);
        Ok(())
    };
    go(tell).inspect_err(|_| {
        if let Err(e) = abandon(&run, &journal, host) {
            tracing::error!("Cleaning up after the failure failed too: {}", chain(&e));
        }
    })
}

/// Takes away what a start that is off has made: first the monitor, which has died or been killed, then what the journal names.
fn abandon(run: &RunDir, journal: &Journal, host: &cgroup::Host) -> Result<(), VerbError> {
    if !run.path().exists() {
        return Ok(());
    }
    wait_for_monitor(run)?;
    teardown::dismantle(run, journal, host)?;
    Ok(())
}

/// Waits until no monitor lives, having told it that the cleaning up is ours.
fn wait_for_monitor(run: &RunDir) -> Result<(), VerbError> {
    run.hand_over()?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while run.monitor_lock()?.is_none() {
        if Instant::now() > deadline {
            return Err(VerbError::StopTimeout);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// A step of the start that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The root is mounted.
    Mounted,
    /// Init runs.
    Started,
}

/// Stops a running container. With `keep_mounted` its root stays.
///
/// # Errors
/// [`VerbError::StopTimeout`] when processes outlived being killed.
pub fn stop(
    run: &RunDir,
    running: Running,
    host: &cgroup::Host,
    mode: StopMode,
    keep_mounted: bool,
    interrupt: &Interrupt,
    tell: &mut dyn FnMut(StopStep),
) -> Result<(), VerbError> {
    run.hand_over()?;
    if let StopMode::Halt(timeout) = mode {
        let plan = run.plan()?;
        let inside = plan.as_ref().map(|plan| (Inside::new(&running, plan, host), plan));
        if let Some((inside, plan)) = &inside {
            run_stop_script(inside, plan)?;
        }
        match has_halted(&running, inside.map(|(inside, _)| inside).as_ref(), interrupt, timeout) {
            Ok(true) => {}
            Ok(false) => tell(StopStep::Killing),
            Err(e @ VerbError::Interrupted(_)) => {
                // The container goes on halting, or not; clearing up is the monitor's again.
                run.take_back()?;
                return Err(e);
            }
            Err(e) => return Err(e),
        }
    }
    let Some(journal) = run.journal()? else { return Ok(()) };
    // Init first: its death ends every process of its pid namespace. Then whatever else is in the cgroup.
    let _ = pidfd_send_signal(&running.init, Signal::KILL);
    wait_for_monitor(run)?;
    teardown::end_processes(&journal, host)?;
    tell(StopStep::Stopped);
    if keep_mounted {
        run.write_journal(&Journal { cgroup: None, net: None, ..journal })?;
        counters::close_if_idle(run.node());
        return Ok(());
    }
    teardown::unmount(&journal)?;
    tell(StopStep::Unmounted);
    Ok(teardown::forget(run)?)
}

/// How soon an init is asked again that has not understood.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Asks init to halt; whether it has ended within `timeout`. The kernel drops signals that the first process of a
/// container does not handle yet, and in the first moments of its boot systemd does not listen to `halt` either: it is asked until it has understood.
fn has_halted(
    running: &Running,
    inside: Option<&Inside>,
    interrupt: &Interrupt,
    timeout: Duration,
) -> Result<bool, VerbError> {
    let deadline = Instant::now() + timeout;
    loop {
        let is_understood = inside.is_none_or(Inside::halt);
        let left = deadline.saturating_duration_since(Instant::now());
        let patience = if is_understood { left } else { left.min(ASK_AGAIN) };
        if wait_for_either(&running.init, Some(interrupt), patience)? {
            return Ok(true);
        }
        interrupt.check()?;
        if is_understood || Instant::now() >= deadline {
            return Ok(false);
        }
    }
}

/// A step of the stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopStep {
    /// It did not halt in time and is being killed.
    Killing,
    /// No process is left.
    Stopped,
    /// Its root is unmounted.
    Unmounted,
}

fn run_stop_script(inside: &Inside, plan: &Plan) -> Result<(), VerbError> {
    let Some(path) = plan.vz.hooks.stop.as_ref().filter(|path| hooks::in_force(path)) else { return Ok(()) };
    match hooks::Script::read(path).map_err(VerbError::Hook)? {
        Some(script) => match inside.run_script(&script, "stopping") {
            // A container must not keep itself from being stopped by removing its shell.
            Err(inside::InsideError::Trouble(e @ Trouble::NoShell(_))) => {
                tracing::warn!("Warning: {} was not run: {e}", path.display());
                Ok(())
            }
            Err(inside::InsideError::Trouble(t)) => Err(VerbError::Hook(t)),
            Err(inside::InsideError::Failed(f)) => Err(VerbError::Failed(f)),
            Ok(()) => Ok(()),
        },
        None => Ok(()),
    }
}

/// Makes a container's whole environment with an idle process for its init, does something inside, and takes all of it away again: for
/// `runscript` and for settings of a container that does not run. Without `network` it has none.
///
/// # Errors
/// As [`start`]; nothing is left then. A failure to clear up is an error too.
pub fn with_idle_init<T>(
    plan: &Plan,
    host: &cgroup::Host,
    network: Option<&net::HostNet>,
    work: impl FnOnce(&Inside) -> T,
) -> Result<T, VerbError> {
    let run = RunDir::new(&plan.vz.run_dir);
    let mut plan = compiled(plan)?;
    // The container is not starting: its own start script is not for this.
    plan.vz.hooks.start = None;
    let journal = journal_of(&plan);
    let go = || {
        mount_journaled(&plan, &run, &journal)?;
        let ips: Vec<_> = plan.vz.net.ips().collect();
        let probe = network.map(|net| {
            net::ensure_host(net).map_err(VerbError::Network)?;
            net::Probe::send(&plan.vz.net, &ips).map_err(VerbError::Address)
        });
        let launched =
            launch::launch(&plan, host, probe.transpose()?, None, &launch::idle).map_err(VerbError::Start)?;
        let first = launched.go().map_err(VerbError::Start)?;
        let pid = first.pid.as_raw();
        let state = State {
            boot_id: boot_id(),
            ctid: plan.ctid,
            init_pid: pid,
            init_start_ticks: start_ticks(pid).unwrap_or_default(),
            monitor_pid: 0,
            started_at_s: 0,
            cgroup: plan.vz.cgroup.clone(),
        };
        let init = first.init.try_clone().map_err(|e| Failed { call: "dup(pidfd)".into(), source: e })?;
        let done = work(&Inside::new(&Running { state, init }, &plan, host));
        // Ends the idle init and with it all that was started inside. It is our child, so it is ours to wait for.
        pidfd_send_signal(&first.init, Signal::KILL).call(|| "pidfd_send_signal(KILL)")?;
        nix::sys::wait::waitpid(first.pid, None).call(|| "waitpid(idle init)")?;
        Ok(done)
    };
    let done = go().inspect_err(|_: &VerbError| teardown::dismantle_after_failure(&run, &journal, host))?;
    teardown::dismantle(&run, &journal, host)?;
    Ok(done)
}
