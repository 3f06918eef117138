//! Doing something inside a running container: a command, a shell, a script, an edit of its files.
//!
//! The process that goes in is born in the container's cgroup and in all its namespaces,
//! and takes nothing of the host along: no descriptor but the pipes or the terminal made for it, no variable, no directory. It is not
//! dumpable, so no process inside can trace it or look at its descriptors before it has become a program of the container.

mod capture;
mod proxy;
mod terminal;

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::wait::{WaitStatus, waitpid};
use rustix::process::{Signal, pidfd_send_signal};

use crate::cgroup::{self, Entry};
use crate::channel::{Channel, Message, Trouble};
use crate::error::{Call, Failed};
use crate::hooks::{self, Script, wait_for, wait_for_either};
use crate::interrupt::Interrupt;
use crate::launch::chain;
use crate::monitor::{self, Ask, Visit};
use crate::plan::Plan;
use crate::state::{RunDir, Running};
use crate::userquota::UserQuota;
use crate::{container, sys, view};

pub use capture::Stream;
pub(crate) use proxy::{as_stdio, write_all};
pub use terminal::TerminalEnd;
pub(crate) use terminal::{Raw, TerminalSignals};

/// How long an edit of the container's files may take.
const EDIT_TIMEOUT: Duration = Duration::from_secs(20);

/// A running container, about to be entered.
#[derive(Debug)]
pub struct Inside<'a> {
    running: &'a Running,
    plan: &'a Plan,
    host: &'a cgroup::Host,
}

/// Why nothing was done inside, or not all.
#[derive(Debug, thiserror::Error)]
pub enum InsideError {
    /// What the process inside met.
    #[error(transparent)]
    Trouble(#[from] Trouble),
    /// What was met outside.
    #[error(transparent)]
    Failed(#[from] Failed),
}

/// A program to run inside.
#[derive(Debug, Clone)]
pub enum Program {
    /// A line for the container's shell: `bash -c`, or `sh -c` where there is no bash.
    Line(String),
    /// A program and its arguments, looked up in `PATH` inside; no shell.
    Argv(Vec<String>),
    /// A script on standard input, for the container's shell.
    Stdin,
    /// An interactive login shell.
    LoginShell,
}

/// How a program inside ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With this status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

/// The environment of whatever is run inside: nothing of the caller's.
const ENV: [&str; 2] = ["HOME=/", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"];

impl<'a> Inside<'a> {
    /// Names the container; nothing happens yet.
    #[must_use]
    pub fn new(running: &'a Running, plan: &'a Plan, host: &'a cgroup::Host) -> Self {
        Self { running, plan, host }
    }

    /// Runs a program with pipes for standard input, output and error, copying between them and ours until it ends.
    ///
    /// # Errors
    /// The container could not be entered, or has no shell.
    pub fn exec(&self, program: &Program) -> Result<End, InsideError> {
        let (pipes, child) = self.start_on_pipes(program)?;
        pipes.copy_until(&child.pidfd)?;
        end_of(&child)
    }

    /// Starts a program whose standard input, output and error are pipes.
    fn start_on_pipes(&self, program: &Program) -> Result<(proxy::Pipes, sys::Cloned), InsideError> {
        let pipes = proxy::Pipes::new()?;
        let attendant = self.attendant()?;
        let child = self.spawn(None, |_| {
            pipes.inner.as_stdio()?;
            drop_session()?;
            self.become_program(program, "TERM=linux", attendant.as_ref())
        })?;
        Ok((pipes, child))
    }

    /// Runs a program on a new terminal inside, with ours in raw mode at its other end.
    ///
    /// # Errors
    /// As [`Inside::exec`].
    pub fn enter(&self, program: &Program) -> Result<End, InsideError> {
        let term =
            std::env::var("TERM").ok().filter(|t| t.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._+".contains(&b)));
        let term = format!("TERM={}", term.as_deref().unwrap_or("linux"));
        let attendant = self.attendant()?;
        let (ours, theirs) = Channel::pair()?;
        let child = self.spawn(Some(&theirs), |channel| {
            let root = crate::rootfs::hold_dir(rustix::fs::CWD, "/")?;
            let (master, slave) = container::open_pty(root.as_fd())?;
            if let Some(channel) = channel {
                channel.send(&Message::Ready, Some(master.as_fd()))?;
            }
            drop(master);
            drop_session()?;
            sys::set_controlling_terminal(slave.as_fd()).call(|| "ioctl(TIOCSCTTY)")?;
            proxy::as_stdio(&slave, &slave, &slave)?;
            self.become_program(program, &term, attendant.as_ref())
        })?;
        drop(theirs);
        match ours.receive()? {
            Some((Message::Ready, Some(master))) => terminal::attend(&master, &child.pidfd).map(drop)?,
            Some((Message::Failed(trouble), _)) => {
                end_of(&child)?;
                return Err(trouble.into());
            }
            _ => return Err(Failed::new("enter", "the process died before it had a terminal").into()),
        }
        end_of(&child)
    }

    /// Runs a script of the administrator by the container's shell.
    ///
    /// # Errors
    /// It failed, or took longer than scripts may.
    pub fn run_script(&self, script: &Script, ve_state: &str) -> Result<(), InsideError> {
        self.edit(hooks_timeout(), || script.run_inside(self.plan, ve_state))
    }

    /// Runs a script inside with pipes, as [`Inside::exec`]; for `runscript`.
    ///
    /// # Errors
    /// As [`Inside::exec`].
    pub fn exec_script(&self, script: &Script) -> Result<End, InsideError> {
        let pipes = proxy::Pipes::new()?;
        let attendant = self.attendant()?;
        let child = self.spawn(None, |_| {
            pipes.inner.as_stdio()?;
            drop_session()?;
            script.exec(self.plan, "running", |plan| confine(plan, attendant.as_ref()))
        })?;
        pipes.copy_until(&child.pidfd)?;
        end_of(&child)
    }

    /// Asks the container something: runs a line by its shell, with nothing to read and nobody to read what it says, and waits so long for its
    /// end. `None` when it has not ended by then, or a signal of `interrupt` came before; it is killed then.
    ///
    /// # Errors
    /// As [`Inside::exec`].
    pub fn ask(&self, line: &str, timeout: Duration, interrupt: &Interrupt) -> Result<Option<End>, InsideError> {
        let child = self.spawn(None, |_| {
            null_stdio()?;
            drop_session()?;
            self.become_program(&Program::Line(line.to_owned()), "TERM=linux", None)
        })?;
        if !wait_for_either(&child.pidfd, Some(interrupt), timeout)? {
            pidfd_send_signal(&child.pidfd, Signal::KILL).call(|| "pidfd_send_signal(KILL)")?;
            waitpid(child.pid, None).call(|| "waitpid()")?;
            return Ok(None);
        }
        end_of(&child).map(Some)
    }

    /// Does something to the container's files, as its root, within [`EDIT_TIMEOUT`].
    ///
    /// # Errors
    /// What `edit` met.
    pub fn change_files(&self, edit: impl Fn() -> Result<(), Trouble>) -> Result<(), InsideError> {
        self.edit(EDIT_TIMEOUT, || {
            container::confine(self.plan)?;
            edit()
        })
    }

    /// Makes devices of the host appear in the container's `/dev`; names are those below the host's `/dev`.
    ///
    /// # Errors
    /// The host has no such device, or the container keeps its place from being taken.
    pub fn grant_devices(&self, names: &[String]) -> Result<(), InsideError> {
        let nodes = container::own_nodes(&self.plan.vz.run_dir, self.plan.vz.ids, names)?;
        self.edit(EDIT_TIMEOUT, || Ok(container::bind_into_running(&nodes)?))
    }

    /// A way to the container's attendant, who answers some system calls; `None` where there is no monitor, as in the environment of a
    /// stopped container.
    fn attendant(&self) -> Result<Option<Visit>, Failed> {
        monitor::visit(&RunDir::new(&self.plan.vz.run_dir))
    }

    /// Puts the files that tell the container of itself over its own, where those of its dead monitor lie.
    ///
    /// # Errors
    /// As [`Inside::exec`].
    pub(crate) fn restore_files(&self, files: &OwnedFd) -> Result<(), InsideError> {
        let tells_of_quotas = UserQuota::of(self.plan).is_some_and(|quota| quota.is_under_overlay);
        self.edit(EDIT_TIMEOUT, || Ok(view::place::again(files, self.running.init.as_fd(), tells_of_quotas)?))
    }

    /// Asks the container's init to halt: by its own `halt`, as vzctl did, and where there is none by the signal systemd takes for it.
    /// Comes back at once or within seconds. False where it may not have heard: nothing but a signal was sent, which is lost where it is not handled
    /// yet, and may be sent again. Whether the container then halts is for the caller to see.
    pub(crate) fn halt(&self) -> bool {
        // The program of an image: its own signal, as podman and docker stop it. One that takes no notice will have to be killed.
        if let Some(signal) = self.plan.vz.stop_signal {
            if let Err(e) = sys::send_number(&self.running.init, signal) {
                tracing::debug!("pidfd_send_signal({signal}): {e}");
            }
            return true;
        }
        let asked = self.edit(Duration::from_secs(5), || {
            null_stdio()?;
            self.become_program(&Program::Argv(vec!["halt".into()]), "TERM=linux", None).map(|never| match never {})
        });
        if let Err(e) = asked {
            tracing::debug!("halt inside: {}", chain(&e));
            // SIGRTMIN+3 asks systemd to halt (systemd(1)); other inits without a halt program will have to be killed.
            if let Err(e) = sys::send_realtime(&self.running.init, 3) {
                tracing::debug!("pidfd_send_signal(SIGRTMIN+3): {e}");
            }
            return false;
        }
        true
    }

    /// Forks a process that goes in and does `work`; waits for it and brings back its failure.
    fn edit(&self, timeout: Duration, work: impl Fn() -> Result<(), Trouble>) -> Result<(), InsideError> {
        let (ours, theirs) = Channel::pair()?;
        let child = self.spawn(Some(&theirs), |channel| {
            work()?;
            if let Some(channel) = channel {
                channel.send(&Message::Done, None)?;
            }
            sys::exit_now(0)
        })?;
        drop(theirs);
        if !wait_for(&child.pidfd, timeout)? {
            pidfd_send_signal(&child.pidfd, Signal::KILL).call(|| "pidfd_send_signal(KILL)")?;
            waitpid(child.pid, None).call(|| "waitpid()")?;
            return Err(Trouble::Call(format!(
                "nothing came back from inside the container within {} s",
                timeout.as_secs()
            ))
            .into());
        }
        let said = ours.receive()?;
        match (said, end_of(&child)?) {
            (Some((Message::Done, _)), _) | (None, End::Exited(0)) => Ok(()),
            (Some((Message::Failed(trouble), _)), _) => Err(trouble.into()),
            (_, end) => Err(Trouble::Call(format!("the process inside the container ended early: {end:?}")).into()),
        }
    }

    /// Makes a process inside. `work` runs in it and normally becomes another program; a failure goes over `channel`, or to standard error
    /// where there is none (any more), and ends it with 127, the shells' status for what could not be run.
    ///
    /// A process of ours goes first: it joins everything while it is still out of the container's sight (a process id namespace is joined by
    /// the children of who sets it, not by itself), and then makes the process proper as our child. Whatever shows in the container's
    /// `/proc` is of the container already: not dumpable is enough to hide descriptors and memory, but `mountinfo` and `net` anyone may read.
    fn spawn(
        &self,
        channel: Option<&Channel>,
        work: impl FnOnce(Option<&Channel>) -> Result<std::convert::Infallible, Trouble>,
    ) -> Result<sys::Cloned, InsideError> {
        nix::sys::prctl::set_dumpable(false).call(|| "prctl(PR_SET_DUMPABLE)")?;
        let entry = self
            .host
            .container(&self.running.state.cgroup, self.running.state.ctid)
            .exec_entry()
            .map_err(|e| Trouble::Limits(chain(&e)))?;
        let (ours, theirs) = Channel::pair()?;
        let first = sys::clone3(&sys::Clone { cgroup: Some(entry.cgroup2()), ..sys::Clone::default() })
            .call(|| "clone3(into the container's cgroup)")?;
        let Some(first) = first else {
            let made = self.go_in(&entry).and_then(|()| Ok(sys::clone_sibling().call(|| "clone3(CLONE_PARENT)")?));
            let told = match made {
                Ok(None) => run(channel, work),
                Ok(Some(child)) => theirs.send(&Message::Born { pid: child.pid.as_raw() }, Some(child.pidfd.as_fd())),
                Err(trouble) => theirs.send(&Message::Failed(trouble), None),
            };
            sys::exit_now(i32::from(told.is_err()));
        };
        drop(theirs);
        let said = ours.receive()?;
        waitpid(first.pid, None).call(|| "waitpid()")?;
        match said {
            Some((Message::Born { pid }, Some(pidfd))) => {
                Ok(sys::Cloned { pid: nix::unistd::Pid::from_raw(pid), pidfd })
            }
            Some((Message::Failed(trouble), _)) => Err(trouble.into()),
            _ => Err(Trouble::Call("the process on its way into the container died".into()).into()),
        }
    }

    /// The way in, for a process of its own.
    fn go_in(&self, entry: &Entry) -> Result<(), Trouble> {
        sys::cloexec_all_above_stderr().call(|| "close_range(CLOEXEC)")?;
        container::forget_caller(&self.plan.spec)?;
        // Every user inside can read the command line of every process there, and ours may have a password in it.
        crate::monitor::title("vzctl");
        entry.enter_self().map_err(|e| Trouble::Limits(chain(&e)))?;
        // One call for all (Linux 5.8); the kernel joins the user namespace first, so the rest is joined with its rights.
        let all = CloneFlags::CLONE_NEWUSER
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWCGROUP
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::from_bits_retain(libc::CLONE_NEWTIME);
        setns(&self.running.init, all).call(|| "setns(the container's namespaces)")?;
        container::become_root()?;
        nix::unistd::chdir("/").call(|| "chdir(/)")?;
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        Ok(())
    }

    /// Puts on the container's confinement and becomes the program, whose system calls ask the attendant.
    fn become_program(
        &self,
        program: &Program,
        term: &str,
        attendant: Option<&Visit>,
    ) -> Result<std::convert::Infallible, Trouble> {
        sys::reset_signals().call(|| "sigprocmask()")?;
        confine(self.plan, attendant)?;
        let mut env: Vec<String> = ENV.iter().map(|s| (*s).to_owned()).collect();
        env.push(term.to_owned());
        match program {
            Program::Line(line) => hooks::exec_shell(&["-c".into(), line.clone()], &env, None),
            Program::Stdin => hooks::exec_shell(&["-s".into()], &env, None),
            Program::LoginShell => {
                env[0] = "HOME=/root".into();
                let _ = nix::unistd::chdir("/root");
                hooks::exec_shell(&["-i".into(), "-l".into()], &env, None)
                    .or_else(|_| hooks::exec_shell(&["-i".into()], &env, None))
            }
            Program::Argv(argv) => exec_argv(argv, &env),
        }
    }
}

/// The life of a process inside that has not become its program yet.
fn run(
    channel: Option<&Channel>,
    work: impl FnOnce(Option<&Channel>) -> Result<std::convert::Infallible, Trouble>,
) -> ! {
    use std::io::Write;
    let Err(trouble) = work(channel);
    let text = trouble.to_string();
    // Who got as far as execve has closed the channel, and speaks where the program would have.
    let told = channel.is_some_and(|channel| channel.send(&Message::Failed(trouble), None).is_ok())
        || writeln!(std::io::stderr(), "{text}").is_ok();
    sys::exit_now(if told { NOT_RUN } else { 1 })
}

/// Puts on the confinement, with its questions left to the attendant if there is one.
fn confine(plan: &Plan, attendant: Option<&Visit>) -> Result<(), Failed> {
    match attendant {
        Some(attendant) => {
            container::confine_asking(plan, |listener| attendant.send(&Ask::Answer, Some(listener.as_fd())))
        }
        None => container::confine(plan),
    }
}

/// The status of a process that could not become its program.
const NOT_RUN: i32 = 127;

/// Nothing to read, and nobody who reads.
fn null_stdio() -> Result<(), Failed> {
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
    let null = rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty()).call(|| "open(/dev/null)")?;
    proxy::as_stdio(&null, &null, &null)
}

fn hooks_timeout() -> Duration {
    Duration::from_secs(310)
}

/// A session of its own, so that nothing of the caller's terminal is reachable as /dev/tty.
fn drop_session() -> Result<(), Trouble> {
    Ok(nix::unistd::setsid().map(drop).call(|| "setsid()")?)
}

fn exec_argv(argv: &[String], env: &[String]) -> Result<std::convert::Infallible, Trouble> {
    let c = |s: &String| std::ffi::CString::new(s.as_str()).map_err(|e| Trouble::Call(e.to_string()));
    let args = argv.iter().map(c).collect::<Result<Vec<_>, _>>()?;
    let vars = env.iter().map(c).collect::<Result<Vec<_>, _>>()?;
    let Some(program) = argv.first() else { return Err(Trouble::Call("no program given".into())) };
    let candidates: Vec<String> = if program.contains('/') {
        vec![program.clone()]
    } else {
        hooks::PATH.split(':').map(|dir| format!("{dir}/{program}")).collect()
    };
    let mut why = nix::errno::Errno::ENOENT;
    sys::close_above_stderr_but(None).call(|| "close_range()")?;
    for path in &candidates {
        let Err(e) = nix::unistd::execve(&c(path)?, &args, &vars);
        if e != nix::errno::Errno::ENOENT {
            why = e;
        }
    }
    Err(Failed { call: format!("execve({program})"), source: why.into() }.into())
}

fn end_of(child: &sys::Cloned) -> Result<End, InsideError> {
    loop {
        match waitpid(child.pid, None) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(End::Exited(code)),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(End::Killed(signal as i32)),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e).call(|| "waitpid()").map_err(Into::into),
        }
    }
}
