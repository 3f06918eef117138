//! The monitor's life, from the start of a container's init to the end of what was made for it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};

use super::attendant::{self, Over};
use super::door::{self, Door};
use super::ended;
use super::title::title;
use crate::cgroup::{self, CtCgroup};
use crate::error::{Call, Failed};
use crate::hooks::wait_for;
use crate::launch::chain;
use crate::lock::{CLEARING, Lock, LockError};
use crate::plan::{IdRange, Plan};
use crate::state::{RunDir, Running, State};
use crate::view::fuse::Connection;
use crate::{Ctid, sys, teardown};

/// A container that reboots sooner than this after its start is made to wait as long: a reboot loop costs the host nothing.
const QUICK_REBOOT: Duration = Duration::from_secs(2);

/// How long the monitor waits for a command that holds the container's lock before it clears up without it.
const LOCK_PATIENCE: Duration = Duration::from_secs(600);

/// How long the attendant may take to hear what a container printed last.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// An attendant that dies sooner than this is not made anew at once.
const QUICK_DEATH: Duration = Duration::from_secs(1);

/// What a monitor has to know of its container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Charge {
    /// Whose monitor it is.
    pub(super) ctid: Ctid,
    /// The container's run directory.
    pub(super) run_dir: PathBuf,
    /// The file of its lock.
    pub(super) lock_file: PathBuf,
    /// Parent of its cgroups.
    pub(super) cgroup: String,
    /// Its user and group numbers.
    pub(super) ids: IdRange,
    /// What starts it again.
    pub(super) restart_argv: Vec<String>,
    /// Where messages go.
    pub(super) log_file: Option<PathBuf>,
    /// Its init, as the host numbers processes.
    pub(super) init_pid: i32,
    /// Whether that is the monitor's own child. If not, its end is seen and not how it came, and a reboot from inside is a halt.
    pub(super) init_is_child: bool,
}

impl Charge {
    /// That of a container whose init is not the caller's child.
    pub(super) fn of(plan: &Plan, init_pid: i32) -> Self {
        let vz = &plan.vz;
        Self {
            ctid: plan.ctid,
            run_dir: vz.run_dir.clone(),
            lock_file: vz.lock_file.clone(),
            cgroup: vz.cgroup.clone(),
            ids: vz.ids,
            restart_argv: vz.restart_argv.clone(),
            log_file: vz.log_file.clone(),
            init_pid,
            init_is_child: false,
        }
    }
}

/// What there is of a container that only a living process can hold; the monitor and its attendant have it both. Where the system calls of
/// its processes ask is in their table of descriptors too ([`sys::listeners`]).
#[derive(Debug)]
pub(super) struct Kit {
    pub(super) charge: Charge,
    /// pidfd of the container's init.
    pub(super) init: OwnedFd,
    /// Master side of its console; a container that was without any monitor for a while has lost it.
    pub(super) console: Option<OwnedFd>,
    /// Its files of `/proc` are at the other end; `None` on a host without FUSE.
    pub(super) connection: Option<Connection>,
    /// The lock that says that one of the two lives.
    pub(super) alive: OwnedFd,
}

impl Kit {
    pub(super) fn run(&self) -> RunDir {
        RunDir::new(&self.charge.run_dir)
    }

    /// Puts this process down as the container's monitor.
    pub(super) fn sign(&self) -> Result<(), Failed> {
        let Some(Running { state, .. }) = self.run().running()? else { return Ok(()) };
        self.run().write_state(&State { monitor_pid: nix::unistd::getpid().as_raw(), ..state })
    }
}

/// Stays until the container has ended, and clears up.
pub(super) fn watch(kit: &Kit) -> Result<(), Failed> {
    let host =
        cgroup::Host::detect(std::path::Path::new("/")).map_err(|e| Failed::new("find the cgroups", chain(&e)))?;
    let cgroup = host.container(&kit.charge.cgroup, kit.charge.ctid);
    let started = Instant::now();
    if !kit.charge.init_is_child {
        tracing::warn!("Warning: the monitor of the container was dead; it has another");
    }
    let child = attend_until_the_end(kit, &cgroup)?;
    let end = child.map(|pid| waitpid(pid, None).call(|| "waitpid(init)")).transpose()?;
    // reboot(2) in a pid namespace ends its init: by SIGHUP for a restart, by SIGINT for a halt (pid_namespaces(7)).
    let reboot = matches!(end, Some(WaitStatus::Signaled(_, Signal::SIGHUP, _)));
    tracing::info!("Container has stopped ({end:?}){}", if reboot { ", restarting it" } else { "" });
    let cleared = clear(kit, &host);
    if reboot && cleared {
        std::thread::sleep(QUICK_REBOOT.saturating_sub(started.elapsed()));
        return restart(&kit.charge);
    }
    Ok(())
}

/// Sees to it that there is an attendant, until init is gone. Gives init as a child to bury, if it is this process's.
fn attend_until_the_end(kit: &Kit, cgroup: &CtCgroup) -> Result<Option<Pid>, Failed> {
    let mut child = kit.charge.init_is_child.then(|| Pid::from_raw(kit.charge.init_pid));
    let door = Door::open(&kit.run())?;
    let changes = changes_of_children()?;
    loop {
        let born = Instant::now();
        let before = sys::descriptors().call(|| "readdir(/proc/self/fd)")?;
        let me = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())
            .call(|| "pidfd_open(self)")?;
        let share = sys::Clone { shared_descriptors: true, ..sys::Clone::default() };
        let Some(attendant) = sys::clone3(&share).call(|| "clone3(attendant)")? else {
            title(&format!("vz-attendant: CT {}", kit.charge.ctid));
            match attendant::attend(kit, &door, cgroup, &me) {
                Ok(Over::Init) => sys::exit_now(0),
                Ok(Over::Monitor) => {}
                Err(e) => sys::exit_now(ended(Err(e))),
            }
            // The attendant of a monitor that died becomes the monitor.
            title(&format!("vz-monitor: CT {}", kit.charge.ctid));
            kit.sign()?;
            drop(me);
            sys::close_all_but(&before, door::NAME).call(|| "readdir(/proc/self/fd)")?;
            child = None;
            continue;
        };
        let init_is_over = wait_for_first(&kit.init, &attendant, &changes)?;
        end_attendant(&attendant)?;
        drop((attendant, me));
        sys::close_all_but(&before, door::NAME).call(|| "readdir(/proc/self/fd)")?;
        if init_is_over {
            return Ok(child);
        }
        tracing::warn!("Warning: the attendant of the container has died; it gets another");
        wait_for(&kit.init, QUICK_DEATH.saturating_sub(born.elapsed()))?;
    }
}

fn changes_of_children() -> Result<SignalFd, Failed> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGCHLD);
    set.thread_block().call(|| "sigprocmask()")?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).call(|| "signalfd()")
}

/// Waits for the end of init, or of the attendant: true if it was init's. An attendant that somebody has stopped goes on: whoever reads in
/// the container's `/proc` waits for it.
fn wait_for_first(init: &OwnedFd, attendant: &sys::Cloned, changes: &SignalFd) -> Result<bool, Failed> {
    loop {
        let mut fds = [
            PollFd::new(init, PollFlags::IN),
            PollFd::new(&attendant.pidfd, PollFlags::IN),
            PollFd::new(changes, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            r => r.call(|| "poll(init, attendant)")?,
        };
        let [init_ended, attendant_ended, changed] = fds.map(|fd| !fd.revents().is_empty());
        if init_ended || attendant_ended {
            return Ok(init_ended);
        }
        if changed {
            while let Ok(Some(_)) = changes.read_signal() {}
            let stopped = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG;
            if let Ok(WaitStatus::Stopped(..)) = waitid(Id::PIDFd(attendant.pidfd.as_fd()), stopped) {
                tracing::warn!("Warning: the attendant of the container was stopped; it goes on");
                rustix::process::pidfd_send_signal(&attendant.pidfd, rustix::process::Signal::CONT)
                    .call(|| "pidfd_send_signal(attendant, CONT)")?;
            }
        }
    }
}

/// Sees the attendant off: it ends by itself when init has, after the last words on the console.
fn end_attendant(attendant: &sys::Cloned) -> Result<(), Failed> {
    if !wait_for(&attendant.pidfd, LAST_WORDS)? {
        rustix::process::pidfd_send_signal(&attendant.pidfd, rustix::process::Signal::KILL)
            .call(|| "pidfd_send_signal(attendant, KILL)")?;
    }
    waitpid(attendant.pid, None).call(|| "waitpid(attendant)").map(drop)
}

/// Clears up after init. True when it was ours to do, and is done.
fn clear(kit: &Kit, host: &cgroup::Host) -> bool {
    let run = kit.run();
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
        match Lock::take(&kit.charge.lock_file, CLEARING, Duration::from_millis(50)) {
            Ok(lock) => break lock,
            Err(LockError::Held { .. }) if Instant::now() < deadline => {}
            Err(e) => {
                tracing::error!("monitor: {}", chain(&e));
                return false;
            }
        }
    };
    match teardown::dismantle(&run, &journal, host) {
        Ok(()) => true,
        Err(e) => {
            tracing::error!("monitor: {}", chain(&e));
            false
        }
    }
}

/// Starts the container anew, as the command line would: with the configuration as it is now.
fn restart(charge: &Charge) -> Result<(), Failed> {
    let argv = &charge.restart_argv;
    let Some(program) = argv.first() else { return Ok(()) };
    let error = std::os::unix::process::CommandExt::exec(
        std::process::Command::new(program).args(&argv[1..]).env_clear().env("PATH", crate::hooks::PATH),
    );
    Err(error).call(|| format!("execve({program})"))
}
