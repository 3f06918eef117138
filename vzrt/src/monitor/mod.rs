//! The monitor: the process that stays with a container, the parent of its init.
//!
//! It is forked from the command that starts the container, launches it, says how that went, and stays. It knows from the signal init dies
//! with whether the container wanted a reboot or a halt, and clears up however init died.
//!
//! What has to be *served* while the container runs is the work of its child, the [`attendant`]. The two watch each other.
//!
//! A fork of a command is large: it has all that the command has read and relocated. So once the container runs the monitor becomes a small
//! program ([`program`]), which has nothing but its [`life`].

mod attendant;
mod console;
mod door;
mod life;
mod printed;
mod program;
mod title;

use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::signal::SigSet;
use nix::sys::wait::waitpid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};

use self::life::{Charge, Kit};
pub use self::title::title;
use crate::channel::{Channel, Message, Trouble};
use crate::error::{Call, Failed};
use crate::interrupt::Interrupt;
use crate::launch::{Remains, chain, exec_init, launch};
use crate::lock::close_inherited;
use crate::net::Probe;
use crate::plan::Plan;
use crate::state::{RunDir, Running, State, boot_id, start_ticks};
use crate::userquota::UserQuota;
use crate::verbs::VerbError;
use crate::view::fuse::Connection;
use crate::{cgroup, counters, sys};

pub(crate) use self::door::{Ask, Visit, visit};
pub(crate) use self::printed::{last as last_printed, remove as forget_printed};
pub use self::program::main;
pub(crate) use self::program::{NAME as PROGRAM, Work, beside_us, program};

/// Sees to it that the host's files of beancounters are there. Last, for the first container of a node: it takes a process of its own, and init
/// does not wait for it.
fn show_counters(plan: &Plan, host: &cgroup::Host) {
    let run = RunDir::new(&plan.vz.run_dir);
    if let Err(e) = counters::open(run.node(), plan.vz.log_file.as_deref(), || clone(&plan.vz.cgroup, host)) {
        tracing::warn!("Warning: no beancounters in {}/proc: {}", run.node().display(), e.one_line());
    }
}

/// Forks the monitor, which starts the container; returns when init has become a program of the container, or what went wrong.
///
/// # Errors
/// What the launch met. What it had made is left to `teardown`.
pub(crate) fn start(plan: &Plan, host: &cgroup::Host, probe: Probe, interrupt: &Interrupt) -> Result<(), VerbError> {
    let (ours, theirs) = Channel::pair()?;
    let Some(monitor) = clone(&plan.vz.cgroup, host)? else {
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
        Some((Message::Done, _)) => {
            show_counters(plan, host);
            Ok(())
        }
        Some((Message::Failed(trouble), _)) => Err(VerbError::Start(trouble)),
        _ => Err(VerbError::Start(Trouble::Call("the monitor died while starting the container".into()))),
    }
}

/// The monitor's process, in the cgroup of all monitors: what a container makes its monitor do is bounded with what the others' do, and it is
/// not in the session or service of whoever runs the command, to be killed with that.
fn clone(cgroup: &str, host: &cgroup::Host) -> Result<Option<sys::Cloned>, Failed> {
    let entry = host.monitors(cgroup).inspect_err(|e| tracing::warn!("Warning: the monitor: {}", chain(e))).ok();
    let request = sys::Clone { cgroup: entry.as_ref().map(cgroup::Entry::cgroup2), ..sys::Clone::default() };
    let child = sys::clone3(&request).call(|| "clone3(monitor)")?;
    if let (None, Some(entry)) = (&child, entry)
        && let Err(e) = entry.enter_self()
    {
        tracing::warn!("Warning: the monitor: {}", chain(&e));
    }
    Ok(child)
}

fn run(plan: &Plan, host: &cgroup::Host, probe: Probe, report: &Channel) -> ! {
    let run = RunDir::new(&plan.vz.run_dir);
    let (remains, alive) = match begin(plan, host, probe, &run) {
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
        let Remains { pid, init, console, connection, listener, user_quota } = remains;
        let charge = Charge { init_is_child: true, ..Charge::of(plan, pid.as_raw(), user_quota) };
        // From now on whoever serves finds it in the table of descriptors.
        let _in_the_table = listener.map(IntoRawFd::into_raw_fd);
        stay(Kit { charge, init, console: Some(console), connection, alive })
    };
    sys::exit_now(ended(stay()))
}

/// Becomes the small program; where that is not to be had, goes on as what we are.
fn stay(kit: Kit) -> Result<(), Failed> {
    let why = program::become_(&kit);
    tracing::warn!("Warning: the monitor stays larger than it need be: {}", why.one_line());
    life::watch(&kit)
}

/// The exit status of a monitor.
fn ended(result: Result<(), Failed>) -> i32 {
    let Err(e) = result else { return 0 };
    tracing::error!("monitor: {}", e.one_line());
    1
}

fn begin(plan: &Plan, host: &cgroup::Host, probe: Probe, run: &RunDir) -> Result<(Remains, OwnedFd), Trouble> {
    leave_caller()?;
    let alive = run.monitor_lock()?.ok_or_else(|| Trouble::Call("another monitor of this container lives".into()))?;
    title(&format!("vz-monitor: CT {}", plan.ctid));
    let files = Connection::new().inspect_err(|e| {
        tracing::warn!("Warning: /proc of the container shows the numbers of this host: {}", e.one_line());
    });
    let launched = launch(plan, host, Some(probe), files.ok(), &exec_init)?;
    // Again: for the launch we had what the container inherits.
    be_killed_last()?;
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
    Ok((launched.go()?, alive))
}

/// Gives a container whose monitor and attendant died both another pair. It is not the parent of init, so of init's end it learns only that,
/// not how; the console is gone with the first. Gives the new files for its `/proc`, to be put in place of the dead ones.
pub(crate) fn adopt(plan: &Plan, host: &cgroup::Host, running: &Running) -> Result<Option<OwnedFd>, Failed> {
    let (ours, theirs) = Channel::<Message>::pair()?;
    let Some(_child) = clone(&plan.vz.cgroup, host)? else {
        drop(ours);
        sys::exit_now(ended(take_up(plan, running, theirs)));
    };
    drop(theirs);
    // The other side closes its end once all is as it was.
    Ok(ours.receive()?.and_then(|(_, files)| files))
}

/// Lets a monitor that somebody has stopped go on. It is silent, as commands are whose output is that of a program inside.
pub(crate) fn wake(running: &Running) -> Result<(), Failed> {
    let Some(pid) = rustix::process::Pid::from_raw(running.state.monitor_pid) else { return Ok(()) };
    let monitor =
        rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).call(|| "pidfd_open(monitor)")?;
    rustix::process::pidfd_send_signal(&monitor, rustix::process::Signal::CONT)
        .call(|| "pidfd_send_signal(monitor, CONT)")
}

fn take_up(plan: &Plan, running: &Running, report: Channel) -> Result<(), Failed> {
    leave_caller()?;
    close_inherited(&plan.vz.lock_file);
    let run = RunDir::new(&plan.vz.run_dir);
    let Some(alive) = run.monitor_lock()? else { return Ok(()) };
    let init = running.init.try_clone().call(|| "dup(pidfd)")?;
    let (connection, files) =
        Connection::new().inspect_err(|e| tracing::warn!("Warning: {}", e.one_line())).ok().unzip();
    let charge = Charge::of(plan, running.state.init_pid, UserQuota::of(plan));
    let kit = Kit { charge, init, console: None, connection, alive };
    kit.sign()?;
    detach()?;
    report.send(&Message::Ready, files.as_ref().map(AsFd::as_fd))?;
    drop((report, files));
    stay(kit)
}

/// A session of its own, no directory held, no signal blocked: those of the command that is starting us are not meant for us.
pub(crate) fn leave_caller() -> Result<(), Failed> {
    nix::unistd::setsid().call(|| "setsid()")?;
    SigSet::empty().thread_set_mask().call(|| "sigprocmask()")?;
    be_killed_last()?;
    nix::unistd::chdir("/").call(|| "chdir(/)")
}

/// Last among those that may be killed when the host is out of memory: a container within its promise counts for less than nothing, and our few
/// pages are not to be had before its.
fn be_killed_last() -> Result<(), Failed> {
    match std::fs::write("/proc/self/oom_score_adj", "-999") {
        // A root without CAP_SYS_RESOURCE.
        Err(e) if e.kind() != std::io::ErrorKind::PermissionDenied => {
            Err(e).call(|| "write(/proc/self/oom_score_adj, -999)")
        }
        _ => Ok(()),
    }
}

/// Lets go of everything of the command that started us: its terminal, its pipes, its directory.
pub(crate) fn detach() -> Result<(), Failed> {
    sys::close_inherited().call(|| "readdir(/proc/self/fd)")?;
    let null =
        rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).call(|| "open(/dev/null)")?;
    rustix::stdio::dup2_stdin(&null)
        .and_then(|()| rustix::stdio::dup2_stdout(&null))
        .and_then(|()| rustix::stdio::dup2_stderr(&null))
        .call(|| "dup2(/dev/null)")
}
