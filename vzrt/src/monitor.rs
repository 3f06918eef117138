//! The monitor: one small process per container, the parent of its init.
//!
//! It is forked from the command that starts the container, launches it, says how that went, and stays: it keeps the console, knows from the
//! signal init dies with whether the container wanted a reboot or a halt, and clears up however init died.

use std::io::{Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitStatus, waitpid};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};

use crate::channel::{Channel, Message, Trouble};
use crate::error::{Call, Failed};
use crate::interrupt::Interrupt;
use crate::launch::{Launched, chain, exec_init, launch};
use crate::lock::{CLEARING, Lock, LockError};
use crate::net::Probe;
use crate::plan::Plan;
use crate::state::{RunDir, Running, State, boot_id, start_ticks};
use crate::verbs::VerbError;
use crate::{cgroup, sys, teardown};

/// Size at which the console log is put aside and a new one begun; two are kept, so a container can fill no more than twice this, in bytes.
const CONSOLE_LOG_BYTES: u64 = 64 * 1024;

/// A container that reboots sooner than this after its start is made to wait as long: a reboot loop costs the host nothing.
const QUICK_REBOOT: Duration = Duration::from_secs(2);

/// How long the monitor waits for a command that holds the container's lock before it clears up without it.
const LOCK_PATIENCE: Duration = Duration::from_secs(600);

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
    let (launched, _alive) = match begin(plan, host, probe, &run) {
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
    match stay(plan, host, &run, &launched) {
        Ok(()) => sys::exit_now(0),
        Err(e) => {
            tracing::error!("monitor: {}", e.one_line());
            sys::exit_now(1);
        }
    }
}

type Alive = nix::fcntl::Flock<std::fs::File>;

fn begin(plan: &Plan, host: &cgroup::Host, probe: Probe, run: &RunDir) -> Result<(Launched, Alive), Trouble> {
    leave_caller()?;
    let alive = run.monitor_lock()?.ok_or_else(|| Trouble::Call("another monitor of this container lives".into()))?;
    title(plan);
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

/// The monitor's life.
fn stay(plan: &Plan, host: &cgroup::Host, run: &RunDir, launched: &Launched) -> Result<(), Failed> {
    let started = Instant::now();
    detach()?;
    // Neighbours that remember another machine for an address learn better. Not before now: it takes longer than the start itself.
    if let Err(e) = crate::net::announce(&plan.vz.net, &plan.vz.net.ips().collect::<Vec<_>>()) {
        tracing::debug!("announce: {}", chain(&e));
    }
    let mut log = ConsoleLog::open(run)?;
    loop {
        let mut fds = [PollFd::new(&launched.pidfd, PollFlags::IN), PollFd::new(&launched.console, PollFlags::IN)];
        // A console with no one at its other end says HUP for ever: init has closed it and may open it again.
        let watched = if log.quiet { &mut fds[..1] } else { &mut fds[..] };
        let patience = log.quiet.then_some(rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 });
        match poll(watched, patience.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => return Err(e).call(|| "poll()"),
        }
        log.quiet = false;
        let (init, console) = (fds[0].revents(), fds[1].revents());
        if !console.is_empty() {
            log.copy(&launched.console);
        }
        if !init.is_empty() {
            break;
        }
    }
    let end = waitpid(launched.pid, None).call(|| "waitpid(init)")?;
    log.copy(&launched.console);
    // reboot(2) in a pid namespace ends its init: by SIGHUP for a restart, by SIGINT for a halt (pid_namespaces(7)).
    let reboot = matches!(end, WaitStatus::Signaled(_, Signal::SIGHUP, _));
    tracing::info!("Container has stopped ({end:?}){}", if reboot { ", restarting it" } else { "" });
    let cleared = clear(plan, host, run);
    if reboot && cleared {
        std::thread::sleep(QUICK_REBOOT.saturating_sub(started.elapsed()));
        return restart(plan);
    }
    Ok(())
}

/// Gives a container whose monitor died another one. It is not the parent of init, so of init's end it learns only that, not how: a reboot
/// from inside is then a halt. Its console is gone with the first monitor.
pub(crate) fn adopt(plan: &Plan, host: &cgroup::Host, running: &Running) -> Result<(), Failed> {
    let (ours, theirs) = Channel::pair()?;
    if sys::clone3(&sys::Clone::default()).call(|| "clone3(monitor)")?.is_some() {
        drop(theirs);
        // The other side closes its end once it holds the monitor's lock.
        return ours.receive().map(drop);
    }
    drop(ours);
    let run = RunDir::new(&plan.vz.run_dir);
    let attend = || -> Result<(), Failed> {
        leave_caller()?;
        let Some(_alive) = run.monitor_lock()? else { return Ok(()) };
        title(plan);
        detach()?;
        drop(theirs);
        poll(&mut [PollFd::new(&running.init, PollFlags::IN)], None).call(|| "poll(init)")?;
        tracing::info!("Container has stopped");
        clear(plan, host, &run);
        Ok(())
    };
    sys::exit_now(i32::from(attend().is_err()))
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

/// Shows in `ps` as what it is. The arguments of a process are read from its own memory, between two addresses that /proc/self/stat tells;
/// writing there through /proc/self/mem needs no privilege.
fn title(plan: &Plan) {
    let title = format!("vz-monitor: CT {}", plan.ctid);
    let _ = nix::sys::prctl::set_name(c"vz-monitor");
    let go = || -> Option<()> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(45);
        let start: u64 = fields.next()?.parse().ok()?;
        let end: u64 = fields.next()?.parse().ok()?;
        let room = usize::try_from(end.checked_sub(start)?).ok()?;
        let mut bytes = title.into_bytes();
        bytes.truncate(room.checked_sub(1)?);
        bytes.resize(room, 0);
        let mut memory = std::fs::OpenOptions::new().write(true).open("/proc/self/mem").ok()?;
        memory.seek(SeekFrom::Start(start)).ok()?;
        memory.write_all(&bytes).ok()
    };
    if go().is_none() {
        tracing::debug!("the monitor keeps the command line of the command that started it");
    }
}

/// What the container printed on its console, the last of it.
struct ConsoleLog {
    path: PathBuf,
    file: std::fs::File,
    bytes: u64,
    quiet: bool,
}

impl ConsoleLog {
    fn open(run: &RunDir) -> Result<Self, Failed> {
        let path = run.path().join("console.log");
        let file = std::fs::File::create(&path).call(|| format!("open({})", path.display()))?;
        Ok(Self { path, file, bytes: 0, quiet: false })
    }

    /// Takes what there is, up to a bound: a container that never stops printing must not keep its monitor from noticing its end.
    fn copy(&mut self, console: &OwnedFd) {
        let mut buffer = [0u8; 4096];
        for _ in 0..16 {
            match poll(
                &mut [PollFd::new(console, PollFlags::IN)],
                Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }),
            ) {
                Ok(n) if n > 0 => {}
                _ => return,
            }
            match rustix::io::read(console.as_fd(), &mut buffer) {
                Ok(n) if n > 0 => self.append(&buffer[..n]),
                _ => {
                    self.quiet = true;
                    return;
                }
            }
        }
    }

    /// A full disk loses console output; it must not lose the container.
    fn append(&mut self, text: &[u8]) {
        if self.bytes + text.len() as u64 > CONSOLE_LOG_BYTES {
            let _ = std::fs::rename(&self.path, self.path.with_extension("log.1"));
            if let Ok(file) = std::fs::File::create(&self.path) {
                self.file = file;
            }
            self.bytes = 0;
        }
        if self.file.write_all(text).is_ok() {
            self.bytes += text.len() as u64;
        }
    }
}
