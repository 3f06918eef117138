//! The monitor: the process that stays with a container, the parent of its init.
//!
//! It is forked from the command that starts the container, launches it, says how that went, and stays. It knows from the signal init dies
//! with whether the container wanted a reboot or a halt, and clears up however init died.
//!
//! What has to be *served* while the container runs is the work of its child, the [`attendant`]. The two watch each other.

mod attendant;
mod console;
mod door;
mod title;

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};

use self::attendant::Over;
use self::door::Door;
use self::title::title;
use crate::channel::{Channel, Message, Trouble};
use crate::error::{Call, Failed};
use crate::hooks::wait_for;
use crate::interrupt::Interrupt;
use crate::launch::{Launched, chain, exec_init, launch};
use crate::lock::{CLEARING, Lock, LockError, close_inherited};
use crate::net::Probe;
use crate::plan::Plan;
use crate::state::{RunDir, Running, State, boot_id, start_ticks};
use crate::verbs::VerbError;
use crate::{cgroup, sys, teardown};

/// A container that reboots sooner than this after its start is made to wait as long: a reboot loop costs the host nothing.
const QUICK_REBOOT: Duration = Duration::from_secs(2);

/// How long the monitor waits for a command that holds the container's lock before it clears up without it.
const LOCK_PATIENCE: Duration = Duration::from_secs(600);

/// How long the attendant may take to hear what a container printed last.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// An attendant that dies sooner than this is not made anew at once.
const QUICK_DEATH: Duration = Duration::from_secs(1);

/// What there is of a container that only a living process can hold; the monitor and its attendant have it both.
#[derive(Debug)]
struct Kit {
    run: RunDir,
    /// pidfd of the container's init.
    init: OwnedFd,
    /// Master side of its console; a container that was without any monitor for a while has lost it.
    console: Option<OwnedFd>,
    door: Door,
    /// Held for as long as one of the two lives.
    _alive: Alive,
}

/// Forks the monitor, which starts the container; returns when init has become a program of the container, or what went wrong.
///
/// # Errors
/// What the launch met. What it had made is left to `teardown`.
pub(crate) fn start(plan: &Plan, host: &cgroup::Host, probe: Probe, interrupt: &Interrupt) -> Result<(), VerbError> {
    let (ours, theirs) = Channel::pair()?;
    let Some(monitor) = sys::clone3(&sys::Clone::default()).call(|| "clone3(monitor)")? else {
        drop(ours);
        run(plan, host, probe, &theirs);
    };
    drop(theirs);
    // Whichever comes first: the monitor's word, its end, or a signal.
    let mut fds = [PollFd::new(&ours, PollFlags::IN), PollFd::new(interrupt, PollFlags::IN)];
    while let Err(e) = poll(&mut fds, None) {
        if e != rustix::io::Errno::INTR {
            return Err(e).call(|| "poll()").map_err(Into::into);
        }
    }
    if fds[0].revents().is_empty() {
        // Half way through a launch only the monitor could stop in order; killed, it leaves what the journal names.
        rustix::process::pidfd_send_signal(&monitor.pidfd, rustix::process::Signal::KILL)
            .call(|| "pidfd_send_signal(KILL)")?;
        waitpid(monitor.pid, None).call(|| "waitpid(monitor)")?;
        interrupt.check()?;
    }
    match ours.receive()? {
        Some((Message::Done, _)) => Ok(()),
        Some((Message::Failed(trouble), _)) => Err(VerbError::Start(trouble)),
        _ => Err(VerbError::Start(Trouble::Call("the monitor died while starting the container".into()))),
    }
}

fn run(plan: &Plan, host: &cgroup::Host, probe: Probe, report: &Channel) -> ! {
    let run = RunDir::new(&plan.vz.run_dir);
    let (launched, alive) = match begin(plan, host, probe, &run) {
        Ok(ok) => ok,
        Err(trouble) => {
            // Nobody to tell means nobody waits: the journal tells the next command.
            let _ = report.send(&Message::Failed(trouble), None);
            sys::exit_now(1);
        }
    };
    if let Err(e) = report.send(&Message::Done, None) {
        // The command was killed. Init runs, and another command may have seen it do so by now: it stays.
        tracing::debug!("nobody waits for this start any more: {e}");
    }
    close_inherited(&plan.vz.lock_file);
    let stay = || {
        detach()?;
        // Neighbours that remember another machine for an address learn better. Not before now: it takes longer than the start itself.
        if let Err(e) = crate::net::announce(&plan.vz.net, &plan.vz.net.ips().collect::<Vec<_>>()) {
            tracing::debug!("announce: {}", chain(&e));
        }
        let (pid, init, console) = launched.into_parts();
        let door = Door::open(&run)?;
        let kit = Kit { run, init, console: Some(console), door, _alive: alive };
        watch(plan, host, &kit, Some(pid))
    };
    sys::exit_now(ended(stay()))
}

/// The exit status of a monitor.
fn ended(result: Result<(), Failed>) -> i32 {
    let Err(e) = result else { return 0 };
    tracing::error!("monitor: {}", e.one_line());
    1
}

type Alive = nix::fcntl::Flock<std::fs::File>;

fn begin(plan: &Plan, host: &cgroup::Host, probe: Probe, run: &RunDir) -> Result<(Launched, Alive), Trouble> {
    leave_caller()?;
    let alive = run.monitor_lock()?.ok_or_else(|| Trouble::Call("another monitor of this container lives".into()))?;
    title(&format!("vz-monitor: CT {}", plan.ctid));
    let launched = launch(plan, host, Some(probe), &exec_init)?;
    let pid = launched.pid.as_raw();
    // The state is there before init runs: whoever kills us from here on leaves a container that is known.
    let init_start_ticks =
        start_ticks(pid).ok_or_else(|| Trouble::Call("the container's first process is gone".into()))?;
    let state = State {
        boot_id: boot_id(),
        ctid: plan.ctid,
        init_pid: pid,
        init_start_ticks,
        monitor_pid: nix::unistd::getpid().as_raw(),
        started_at_s: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        cgroup: plan.vz.cgroup.clone(),
    };
    run.write_plan(plan)?;
    run.write_state(&state)?;
    launched.go()?;
    Ok((launched, alive))
}

/// The monitor's life, from the start of init to the end of what was made for it. Init is the monitor's own child, known by its process id,
/// or that of a monitor that died: then its end is seen and not how it came, and a reboot from inside is a halt.
fn watch(plan: &Plan, host: &cgroup::Host, kit: &Kit, mut child: Option<Pid>) -> Result<(), Failed> {
    let started = Instant::now();
    loop {
        let born = Instant::now();
        let before = sys::descriptors().call(|| "readdir(/proc/self/fd)")?;
        let me = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())
            .call(|| "pidfd_open(self)")?;
        let share = sys::Clone { shared_descriptors: true, ..sys::Clone::default() };
        let Some(attendant) = sys::clone3(&share).call(|| "clone3(attendant)")? else {
            title(&format!("vz-attendant: CT {}", plan.ctid));
            match attendant::attend(kit, &me) {
                Ok(Over::Init) => sys::exit_now(0),
                Ok(Over::Monitor) => {}
                Err(e) => sys::exit_now(ended(Err(e))),
            }
            succeed(plan, kit)?;
            drop(me);
            sys::close_all_but(&before).call(|| "readdir(/proc/self/fd)")?;
            child = None;
            continue;
        };
        let init_is_over = wait_for_first(&kit.init, &attendant.pidfd)?;
        end_attendant(&attendant)?;
        drop((attendant, me));
        sys::close_all_but(&before).call(|| "readdir(/proc/self/fd)")?;
        if init_is_over {
            break;
        }
        tracing::warn!("Warning: the attendant of the container has died; it gets another");
        wait_for(&kit.init, QUICK_DEATH.saturating_sub(born.elapsed()))?;
    }
    let end = child.map(|pid| waitpid(pid, None).call(|| "waitpid(init)")).transpose()?;
    // reboot(2) in a pid namespace ends its init: by SIGHUP for a restart, by SIGINT for a halt (pid_namespaces(7)).
    let reboot = matches!(end, Some(WaitStatus::Signaled(_, Signal::SIGHUP, _)));
    tracing::info!("Container has stopped ({end:?}){}", if reboot { ", restarting it" } else { "" });
    let cleared = clear(plan, host, &kit.run);
    if reboot && cleared {
        std::thread::sleep(QUICK_REBOOT.saturating_sub(started.elapsed()));
        return restart(plan);
    }
    Ok(())
}

/// Waits for the end of init, or of the attendant: true if it was init's.
fn wait_for_first(init: &OwnedFd, attendant: &OwnedFd) -> Result<bool, Failed> {
    let mut fds = [PollFd::new(init, PollFlags::IN), PollFd::new(attendant, PollFlags::IN)];
    while let Err(e) = poll(&mut fds, None) {
        if e != rustix::io::Errno::INTR {
            return Err(e).call(|| "poll(init, attendant)");
        }
    }
    Ok(!fds[0].revents().is_empty())
}

/// Sees the attendant off: it ends by itself when init has, after the last words on the console.
fn end_attendant(attendant: &sys::Cloned) -> Result<(), Failed> {
    if !wait_for(&attendant.pidfd, LAST_WORDS)? {
        rustix::process::pidfd_send_signal(&attendant.pidfd, rustix::process::Signal::KILL)
            .call(|| "pidfd_send_signal(attendant, KILL)")?;
    }
    waitpid(attendant.pid, None).call(|| "waitpid(attendant)").map(drop)
}

/// The attendant of a monitor that died becomes the monitor.
fn succeed(plan: &Plan, kit: &Kit) -> Result<(), Failed> {
    title(&format!("vz-monitor: CT {}", plan.ctid));
    let Some(Running { state, .. }) = kit.run.running()? else { return Ok(()) };
    kit.run.write_state(&State { monitor_pid: nix::unistd::getpid().as_raw(), ..state })
}

/// Gives a container whose monitor and attendant died both another pair. It is not the parent of init, so of init's end it learns only that,
/// not how; the console is gone with the first.
pub(crate) fn adopt(plan: &Plan, host: &cgroup::Host, running: &Running) -> Result<(), Failed> {
    let (ours, theirs) = Channel::<Message>::pair()?;
    if sys::clone3(&sys::Clone::default()).call(|| "clone3(monitor)")?.is_some() {
        drop(theirs);
        // The other side closes its end once it holds the monitor's lock.
        return ours.receive().map(drop);
    }
    drop(ours);
    let attend = || -> Result<(), Failed> {
        leave_caller()?;
        close_inherited(&plan.vz.lock_file);
        let run = RunDir::new(&plan.vz.run_dir);
        let Some(alive) = run.monitor_lock()? else { return Ok(()) };
        let init = running.init.try_clone().call(|| "dup(pidfd)")?;
        let door = Door::open(&run)?;
        let kit = Kit { run, init, console: None, door, _alive: alive };
        succeed(plan, &kit)?;
        detach()?;
        drop(theirs);
        watch(plan, host, &kit, None)
    };
    sys::exit_now(ended(attend()))
}

/// A session of its own, no directory held, no signal blocked: those of the command that is starting us are not meant for us.
fn leave_caller() -> Result<(), Failed> {
    nix::unistd::setsid().call(|| "setsid()")?;
    SigSet::empty().thread_set_mask().call(|| "sigprocmask()")?;
    nix::unistd::chdir("/").call(|| "chdir(/)")
}

/// Clears up after init. True when it was ours to do, and is done.
fn clear(plan: &Plan, host: &cgroup::Host, run: &RunDir) -> bool {
    let Ok(Some(journal)) = run.journal() else { return false };
    if let Err(e) = teardown::end_processes(&journal, host) {
        tracing::error!("monitor: {}", chain(&e));
        return false;
    }
    // `stop` holds the lock and finishes itself; any other command that holds it is waited for.
    let deadline = Instant::now() + LOCK_PATIENCE;
    let _lock = loop {
        if run.is_handed_over() {
            return false;
        }
        match Lock::take(&plan.vz.lock_file, CLEARING, Duration::from_millis(50)) {
            Ok(lock) => break lock,
            Err(LockError::Held { .. }) if Instant::now() < deadline => {}
            Err(e) => {
                tracing::error!("monitor: {}", chain(&e));
                return false;
            }
        }
    };
    match teardown::dismantle(run, &journal, host) {
        Ok(()) => true,
        Err(e) => {
            tracing::error!("monitor: {}", chain(&e));
            false
        }
    }
}

/// Starts the container anew, as the command line would: with the configuration as it is now.
fn restart(plan: &Plan) -> Result<(), Failed> {
    let argv = &plan.vz.restart_argv;
    let Some(program) = argv.first() else { return Ok(()) };
    let error = std::os::unix::process::CommandExt::exec(
        std::process::Command::new(program).args(&argv[1..]).env_clear().env("PATH", crate::hooks::PATH),
    );
    Err(error).call(|| format!("execve({program})"))
}

/// Lets go of everything of the command that started us: its terminal, its pipes, its directory.
fn detach() -> Result<(), Failed> {
    sys::close_inherited().call(|| "readdir(/proc/self/fd)")?;
    let null =
        rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).call(|| "open(/dev/null)")?;
    rustix::stdio::dup2_stdin(&null)
        .and_then(|()| rustix::stdio::dup2_stdout(&null))
        .and_then(|()| rustix::stdio::dup2_stderr(&null))
        .call(|| "dup2(/dev/null)")
}
