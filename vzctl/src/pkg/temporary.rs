//! Containers for a while: something is installed into one, what it changed is kept, and the container goes, also when we are killed.
//!
//! `TEMPLATE/recipes/apps/.temporary-CTID/` is made, and its file `lock` locked, before the container is. The kernel gives the lock back when we die;
//! the next command finds it free and destroys the container and the directory.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::{Flock, FlockArg};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use templates::app::System;
use templates::difference::{self, Bounds, Difference};
use vzrt::{Ctid, Interrupt};

use super::exit::PkgExit;
use crate::config::Node;
use crate::subject::Subject;
use crate::{Exit, Failure, decide};

/// Their numbers: the last there are, which nobody gives by hand.
const CTIDS: std::ops::RangeInclusive<u32> = 2_147_483_000..=Ctid::MAX;
const PREFIX: &str = ".temporary-";

/// No disk quota, so that the private area is a plain directory on every host; no limits but the host's.
const CONFIGURATION: &str = "ONBOOT=\"no\"\nDISK_QUOTA=\"no\"\nVE_LAYOUT=\"simfs\"\nDESCRIPTION=\"temporary\"\n";

type Made<T> = Result<T, (PkgExit, Failure)>;

/// A temporary container. Destroyed when dropped.
pub(super) struct Temporary<'a> {
    node: &'a Node,
    interrupt: &'a Interrupt,
    ctid: Ctid,
    directory: PathBuf,
    _lock: Flock<File>,
}

/// What was found in a temporary container that has stopped.
pub(super) struct Taken {
    /// What its installation changed.
    pub(super) difference: Difference,
    /// Its root, for reading.
    pub(super) after: OwnedFd,
    /// What it was made of, which system that says it is, and the id of its tree.
    pub(super) system: System,
    pub(super) tree: String,
}

impl<'a> Temporary<'a> {
    /// Makes one of an OS template; it is not started. What killed commands have left is cleared away first.
    pub(super) fn create(
        node: &'a Node,
        interrupt: &'a Interrupt,
        apps: &Path,
        ostemplate: &str,
        more: &[String],
    ) -> Made<Self> {
        std::fs::create_dir_all(apps).map_err(|e| system("mkdir", apps, e))?;
        sweep(node, apps);
        let (ctid, directory, lock) = claim(node, apps)?;
        let temporary = Self { node, interrupt, ctid, directory, _lock: lock };
        let conf = node.container_conf(ctid);
        std::fs::write(&conf, CONFIGURATION).map_err(|e| system("write", &conf, e))?;
        let create = ["create", &ctid.to_string(), "--ostemplate", ostemplate].map(String::from);
        temporary.must(&[&create[..], more].concat())?;
        Ok(temporary)
    }

    /// Its number.
    pub(super) fn ctid(&self) -> Ctid {
        self.ctid
    }

    /// An empty directory of its own, which goes with it.
    pub(super) fn work(&self) -> Made<PathBuf> {
        let work = self.directory.join("work");
        vzrt::remove::remove_tree(&work).map_err(|e| failed(&e))?;
        std::fs::DirBuilder::new().mode(0o700).create(&work).map_err(|e| system("mkdir", &work, e))?;
        Ok(work)
    }

    /// `vzctl`, as somebody would have typed it, with the container's number after the verb; its exit code.
    pub(super) fn vzctl(&self, verb: &str, more: &[&str], input: Stdio, output: Stdio) -> Made<i32> {
        let words = [verb, &self.ctid.to_string()].iter().chain(more).map(ToString::to_string).collect::<Vec<_>>();
        run(self.node, "vzctl", &words, input, output, Some(self.interrupt))
    }

    /// `vzpkg`, of which everybody sees what it says; its exit code.
    pub(super) fn vzpkg(&self, words: &[&str]) -> Made<i32> {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        run(self.node, "vzpkg", &words, Stdio::null(), Stdio::inherit(), Some(self.interrupt))
    }

    /// `vzctl` that has to succeed.
    pub(super) fn done(&self, verb: &str, more: &[&str]) -> Made<()> {
        let words: Vec<String> = [verb, &self.ctid.to_string()].iter().chain(more).map(ToString::to_string).collect();
        self.must(&words)
    }

    /// Waits until there is something to read; a signal ends the command.
    pub(super) fn wait_for(&self, input: &impl AsFd) -> Made<()> {
        wait(input, self.interrupt)
    }

    fn must(&self, words: &[String]) -> Made<()> {
        match run(self.node, "vzctl", words, Stdio::null(), Stdio::null(), Some(self.interrupt))? {
            0 => Ok(()),
            code => {
                let what = format!("vzctl {} of the temporary container ended with {code}", words[0]);
                Err((PkgExit::CommandFailed, Failure::new(Exit::System, what)))
            }
        }
    }

    /// What has changed in it. It must not be running.
    pub(super) fn take(&self) -> Made<Taken> {
        let subject = Subject::load(self.node, self.ctid).map_err(|e| failed(&e))?;
        let tree = subject.settings.tree.as_ref().ok_or_else(|| {
            (PkgExit::System, Failure::new(Exit::System, "The temporary container lies on no template"))
        })?;
        let plan = decide::ids(&subject).and_then(|ids| decide::root(self.node, &subject, ids));
        let plan = plan.map_err(|failure| (PkgExit::System, failure))?;
        let trees = decide::trees(self.node, tree, &subject.settings.layers).map_err(|f| (PkgExit::System, f))?;
        let before = vzrt::rootfs::stacked(&trees).map_err(|e| failed(&e))?;
        let after = vzrt::rootfs::merged(&plan).map_err(|e| failed(&e))?;
        let difference = difference::take(before.as_fd(), after.as_fd(), &Bounds::default())
            .map_err(|e| (PkgExit::System, Failure::because(Exit::System, "The container can't be read", &e)))?;
        // From the tree before: what a container says of itself does not decide where its template may go.
        let system = System::parse(&difference::os_release(before.as_fd()).map_err(|e| failed(&e))?);
        Ok(Taken { difference, after, system, tree: tree.to_string() })
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        destroy(self.node, self.ctid, &self.directory);
    }
}

/// Destroys the containers of commands that were killed.
fn sweep(node: &Node, apps: &Path) {
    for entry in std::fs::read_dir(apps).into_iter().flatten().flatten() {
        let ctid = entry.file_name().to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<Ctid>().ok());
        let Some(ctid) = ctid.filter(|ctid| CTIDS.contains(&ctid.get())) else { continue };
        // Held while it is destroyed, so that only one does.
        if let Ok(Some(_lock)) = lock(&entry.path()) {
            tracing::info!("Clearing away the temporary container {ctid}, whose command was killed");
            destroy(node, ctid, &entry.path());
        }
    }
}

/// The lock of a temporary container's directory; `None` where its command lives.
fn lock(directory: &Path) -> std::io::Result<Option<Flock<File>>> {
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(directory.join("lock"))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::Error::EWOULDBLOCK)) => Ok(None),
        Err((_, e)) => Err(e.into()),
    }
}

/// The first number that no container and no other command has.
fn claim(node: &Node, apps: &Path) -> Made<(Ctid, PathBuf, Flock<File>)> {
    for number in CTIDS {
        let Ok(ctid) = Ctid::try_from(number) else { continue };
        let directory = apps.join(format!("{PREFIX}{ctid}"));
        if node.container_conf(ctid).exists() {
            continue;
        }
        match std::fs::DirBuilder::new().mode(0o700).create(&directory) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => continue,
            made => made.map_err(|e| system("mkdir", &directory, e))?,
        }
        if let Some(lock) = lock(&directory).map_err(|e| system("flock", &directory, e))? {
            return Ok((ctid, directory, lock));
        }
    }
    Err((PkgExit::System, Failure::new(Exit::System, "All numbers of temporary containers are taken")))
}

fn destroy(node: &Node, ctid: Ctid, directory: &Path) {
    let conf = node.container_conf(ctid);
    let go = || -> Made<()> {
        if conf.exists() {
            let quiet = |words: &[&str]| {
                let words: Vec<String> = words.iter().map(ToString::to_string).collect();
                run(node, "vzctl", &words, Stdio::null(), Stdio::null(), None)
            };
            let number = ctid.to_string();
            // Of one that does not run this fails; what counts is whether it can be destroyed.
            let stopped = quiet(&["--quiet", "stop", &number, "--fast"])?;
            tracing::debug!("vzctl stop {ctid} ended with {stopped}");
            let code = quiet(&["--quiet", "destroy", &number])?;
            if code != 0 {
                let what = format!("The temporary container {ctid} was not destroyed: vzctl destroy ended with {code}");
                return Err((PkgExit::System, Failure::new(Exit::System, what)));
            }
        }
        for aside in ["conf.destroyed", "apps.destroyed"].map(|extension| conf.with_extension(extension)) {
            match std::fs::remove_file(&aside) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(system("unlink", &aside, e)),
                _ => {}
            }
        }
        vzrt::remove::remove_tree(directory).map_err(|e| failed(&e))
    };
    if let Err((_, failure)) = go() {
        failure.tell();
    }
}

/// Runs `vzctl` or `vzpkg` and waits for its end, or for a signal, which it is then sent too.
fn run(
    node: &Node,
    program: &str,
    words: &[String],
    input: Stdio,
    output: Stdio,
    interrupt: Option<&Interrupt>,
) -> Made<i32> {
    // By this name it is the program that runs, also when another has been installed in its place.
    let mut command = Command::new("/proc/self/exe");
    command.arg0(program).arg("--config-dir").arg(node.config_dir()).args(words).stdin(input).stdout(output);
    let mut child = command.spawn().map_err(|e| system("execve", Path::new("/proc/self/exe"), e))?;
    if let Some(interrupt) = interrupt {
        // Not waited for yet, so the number is its own.
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).map_err(|e| failed(&e))?;
        if let Err(cancelled) = wait(&pidfd, interrupt) {
            // One that has ended needs no signal.
            let _ = pidfd_send_signal(&pidfd, Signal::TERM);
            child.wait().map_err(|e| failed(&e))?;
            return Err(cancelled);
        }
    }
    let status = child.wait().map_err(|e| failed(&e))?;
    Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}

/// Until this can be read, or a signal comes, which is an error.
fn wait(on: &impl AsFd, interrupt: &Interrupt) -> Made<()> {
    loop {
        let ready = PollFd::new(on, PollFlags::IN);
        let mut fds = [ready, PollFd::from_borrowed_fd(interrupt.as_fd(), PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(failed(&e)),
        }
        if !fds[0].revents().is_empty() {
            return Ok(());
        }
        interrupt
            .check()
            .map_err(|signal| (PkgExit::System, Failure::new(Exit::System, "Cancelling...").why(signal.to_string())))?;
    }
}

pub(super) fn failed(error: &(dyn std::error::Error + 'static)) -> (PkgExit, Failure) {
    (PkgExit::System, Failure::from_error(Exit::System, error))
}

pub(super) fn system(call: &str, path: &Path, error: std::io::Error) -> (PkgExit, Failure) {
    (PkgExit::System, Failure::new(Exit::System, format!("{call}({}): {error}", path.display())))
}
