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
use crate::channel::Channel;
use crate::error::{Call, Failed};
use crate::hooks::wait_for;
use crate::launch::chain;
use crate::lock::{CLEARING, Lock, LockError};
use crate::plan::{IdRange, Plan};
use crate::reboot::{self, Mark};
use crate::state::{RunDir, Running, State};
use crate::userquota::UserQuota;
use crate::view::fuse::Connection;
use crate::{Ctid, sys, teardown};

/// How long the monitor waits for a command that holds the container's lock before it clears up without it.
const LOCK_PATIENCE: Duration = Duration::from_secs(600);

/// How long the attendant may take to hear what a container printed last.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(2);

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
    /// How often in a row it has rebooted soon after its start, before this one.
    pub(super) quick_reboots: u32,
    /// Where messages go.
    pub(super) log_file: Option<PathBuf>,
    /// Its init, as the host numbers processes.
    pub(super) init_pid: i32,
    /// Whether that is the monitor's own child. If not, its end is seen and not how it came, and a reboot from inside is a halt.
    pub(super) init_is_child: bool,
    /// The quotas of its users and groups.
    pub(super) user_quota: Option<UserQuota>,
}

impl Charge {
    /// That of a container whose init is not the caller's child.
    pub(super) fn of(plan: &Plan, init_pid: i32, user_quota: Option<UserQuota>) -> Self {
        let vz = &plan.vz;
        Self {
            ctid: plan.ctid,
            run_dir: vz.run_dir.clone(),
            lock_file: vz.lock_file.clone(),
            cgroup: vz.cgroup.clone(),
            ids: vz.ids,
            restart_argv: vz.restart_argv.clone(),
            quick_reboots: vz.quick_reboots,
            log_file: vz.log_file.clone(),
            init_pid,
            init_is_child: false,
            user_quota,
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
    let end = attend_until_the_end(kit, &cgroup, started)?;
    tracing::info!("{end}");
    match clear(kit, &host, &end)? {
        Some(again) => again.restart(&kit.charge),
        None => Ok(()),
    }
}

/// What became of a container's init.
#[derive(Debug)]
enum End {
    /// It halted, or was killed; `None` if that was not ours to learn.
    Down(Option<WaitStatus>),
    /// It wants to be started again.
    Reboot {
        /// Not before this.
        pause: Duration,
        /// How often it has been so now.
        quick_reboots: u32,
    },
}

impl End {
    fn of(child: Option<Pid>, quick_reboots: u32, ran: Duration) -> Result<Self, Failed> {
        let status = child.map(|pid| waitpid(pid, None).call(|| "waitpid(init)")).transpose()?;
        // reboot(2) in a pid namespace ends its init: by SIGHUP for a restart, by SIGINT for a halt (pid_namespaces(7)).
        if !matches!(status, Some(WaitStatus::Signaled(_, Signal::SIGHUP, _))) {
            return Ok(Self::Down(status));
        }
        let (pause, quick_reboots) = reboot::pause(quick_reboots, ran);
        Ok(Self::Reboot { pause, quick_reboots })
    }
}

/// For those at its console, and for the log.
impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Down(Some(WaitStatus::Signaled(_, Signal::SIGINT, _)) | None) => f.write_str("Container has stopped"),
            Self::Down(Some(WaitStatus::Exited(_, status))) => {
                write!(f, "Container has stopped: its init ended with status {status}")
            }
            Self::Down(Some(WaitStatus::Signaled(_, signal, _))) => {
                write!(f, "Container has stopped: its init was ended by {signal}")
            }
            Self::Down(Some(other)) => write!(f, "Container has stopped: {other:?}"),
            Self::Reboot { pause, .. } if pause.is_zero() => f.write_str("Container reboots"),
            Self::Reboot { pause, .. } => write!(
                f,
                "Container reboots so soon after its start that it is made to wait: it starts again in {:.0} s",
                pause.as_secs_f64().ceil()
            ),
        }
    }
}

/// A container that is to be started again.
#[derive(Debug)]
struct Again {
    mark: Mark,
    pause: Duration,
    quick_reboots: u32,
}

impl Again {
    /// Starts it, as the command line would, with the configuration as it is then; or not, if a command calls it off before.
    fn restart(self, charge: &Charge) -> Result<(), Failed> {
        let argv = &charge.restart_argv;
        let Some(program) = argv.first() else { return Ok(()) };
        if !self.mark.wait(self.pause)? {
            return Ok(());
        }
        let error = std::os::unix::process::CommandExt::exec(
            std::process::Command::new(program)
                .args(&argv[1..])
                .args(["--quick-reboots", &self.quick_reboots.to_string()])
                .env_clear()
                .env("PATH", crate::hooks::PATH),
        );
        Err(error).call(|| format!("execve({program})"))
    }
}

/// Sees to it that there is an attendant, until init is gone.
fn attend_until_the_end(kit: &Kit, cgroup: &CtCgroup, started: Instant) -> Result<End, Failed> {
    let mut child = kit.charge.init_is_child.then(|| Pid::from_raw(kit.charge.init_pid));
    let door = Door::open(&kit.run())?;
    let changes = changes_of_children()?;
    loop {
        let born = Instant::now();
        let before = sys::descriptors().call(|| "readdir(/proc/self/fd)")?;
        let me = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())
            .call(|| "pidfd_open(self)")?;
        let (ours, theirs) = Channel::<String>::pair()?;
        let share = sys::Clone { shared_descriptors: true, ..sys::Clone::default() };
        let Some(attendant) = sys::clone3(&share).call(|| "clone3(attendant)")? else {
            title(&format!("vz-attendant: CT {}", kit.charge.ctid));
            match attendant::attend(kit, &door, cgroup, &me, &theirs) {
                Ok(Over::Init) => sys::exit_now(0),
                Ok(Over::Monitor) => {}
                Err(e) => sys::exit_now(ended(Err(e))),
            }
            // The attendant of a monitor that died becomes the monitor.
            title(&format!("vz-monitor: CT {}", kit.charge.ctid));
            kit.sign()?;
            drop((me, ours, theirs));
            sys::close_all_but(&before, door::NAME).call(|| "readdir(/proc/self/fd)")?;
            child = None;
            continue;
        };
        let init_is_over = wait_for_first(&kit.init, &attendant, &changes)?;
        let end = init_is_over.then(|| End::of(child, kit.charge.quick_reboots, started.elapsed())).transpose()?;
        if let Some(end) = &end {
            // The attendant may be gone too, and then nobody is attached.
            let _ = ours.send(&end.to_string(), None);
        }
        end_attendant(&attendant)?;
        drop((attendant, me, ours, theirs));
        sys::close_all_but(&before, door::NAME).call(|| "readdir(/proc/self/fd)")?;
        if let Some(end) = end {
            return Ok(end);
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

/// Clears up after init, and marks a container that is to be started again: when that was ours to do, and is done.
fn clear(kit: &Kit, host: &cgroup::Host, end: &End) -> Result<Option<Again>, Failed> {
    let run = kit.run();
    let Some(journal) = run.journal()? else { return Ok(None) };
    let failed = |e: &dyn std::error::Error| {
        tracing::error!("monitor: {}", chain(e));
        Ok(None)
    };
    if let Err(e) = teardown::end_processes(&journal, host) {
        return failed(&e);
    }
    // `stop` holds the lock and finishes itself; any other command that holds it is waited for.
    let deadline = Instant::now() + LOCK_PATIENCE;
    let _lock = loop {
        if run.is_handed_over() {
            return Ok(None);
        }
        match Lock::take(&kit.charge.lock_file, CLEARING, Duration::from_millis(50)) {
            Ok(lock) => break lock,
            Err(LockError::Held { .. }) if Instant::now() < deadline => {}
            Err(e) => return failed(&e),
        }
    };
    if let Err(e) = teardown::dismantle(&run, &journal, host) {
        return failed(&e);
    }
    match *end {
        End::Down(_) => Ok(None),
        End::Reboot { pause, quick_reboots } => Ok(Some(Again { mark: Mark::put(&run)?, pause, quick_reboots })),
    }
}
