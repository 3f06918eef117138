//! Several commands at once, each a process of its own: `vzctl COMMAND CTID`, as somebody would have typed it. A start forks, and no thread
//! of ours may be about then; a process that dies takes nobody along.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use vzrt::log::printable;
use vzrt::{Ctid, Interrupt, Interrupted};

use crate::config::Node;
use crate::{Exit, Failure};

/// Most of what a worker says on standard error that is told, in bytes. An error is three lines.
const SAID_BYTES: usize = 4096;

/// What happens to a container.
#[derive(Debug)]
pub(crate) enum Event {
    /// Its worker has begun.
    Begun(Ctid),
    /// Its worker has ended.
    Ended(Ctid, Ended),
}

/// How a worker ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Its exit code; 128 + the number of the signal that ended it.
    pub(crate) code: i32,
    /// What it said of errors, in one line.
    pub(crate) said: String,
}

impl Ended {
    /// For a line that says what did not happen.
    pub(crate) fn why(&self) -> String {
        if self.said.is_empty() {
            format!("it ended with {}", self.code)
        } else {
            format!("{} ({})", self.said, self.code)
        }
    }
}

struct Worker {
    ctid: Ctid,
    child: Child,
    pidfd: OwnedFd,
    errors: OwnedFd,
}

/// Runs the command on each of the containers, in this order, so many at once. A signal ends it early: no further one is begun, those under way
/// are sent SIGTERM (which they take where stopping is safe) and waited for.
///
/// # Errors
/// A worker could not be made, or waited for.
pub(crate) fn run(
    node: &Node,
    command: &[&str],
    ctids: impl IntoIterator<Item = Ctid>,
    at_once: usize,
    interrupt: &Interrupt,
    tell: &mut dyn FnMut(Event) -> Result<(), Failure>,
) -> Result<Option<Interrupted>, Failure> {
    let mut waiting = ctids.into_iter();
    let mut workers: Vec<Worker> = Vec::new();
    let mut interrupted = None;
    loop {
        while interrupted.is_none() && workers.len() < at_once {
            let Some(ctid) = waiting.next() else { break };
            tell(Event::Begun(ctid))?;
            workers.push(Worker::begin(node, command, ctid)?);
        }
        if workers.is_empty() {
            return Ok(interrupted);
        }
        let ended = wait(&workers, interrupt)?;
        if let Err(signal) = interrupt.check()
            && interrupted.replace(signal).is_none()
        {
            workers.iter().for_each(Worker::cancel);
        }
        // From the back, so that the places of those still to be taken out stay what they were.
        for i in ended.into_iter().rev() {
            let worker = workers.remove(i);
            tell(Event::Ended(worker.ctid, worker.end()?))?;
        }
    }
}

/// Waits for the end of a worker, or a signal: the places of those that have ended.
fn wait(workers: &[Worker], interrupt: &Interrupt) -> Result<Vec<usize>, Failure> {
    let mut fds: Vec<PollFd> = workers.iter().map(|w| PollFd::new(&w.pidfd, PollFlags::IN)).collect();
    fds.push(PollFd::from_borrowed_fd(interrupt.as_fd(), PollFlags::IN));
    match poll(&mut fds, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(e) => return Err(failed("poll()", &e)),
    }
    Ok((0..workers.len()).filter(|&i| !fds[i].revents().is_empty()).collect())
}

impl Worker {
    fn begin(node: &Node, command: &[&str], ctid: Ctid) -> Result<Self, Failure> {
        // A file and no pipe: an action script that leaves something running would keep a pipe open, and us waiting for its end.
        let errors = memfd_create("errors", MemfdFlags::CLOEXEC).map_err(|e| failed("memfd_create()", &e))?;
        let copy = errors.try_clone().map_err(|e| failed("dup()", &e))?;
        // By this name it is the program that runs, also when another has been installed in its place.
        let child = Command::new("/proc/self/exe")
            .arg0("vzctl")
            .arg("--config-dir")
            .arg(node.config_dir())
            .args(["--wait-lock", super::WAIT_LOCK_S])
            .args(command)
            .arg(ctid.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(copy))
            .spawn()
            .map_err(|e| failed("execve(/proc/self/exe)", &e))?;
        // Not waited for yet, so the number is its own.
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|e| failed("pidfd_open()", &e))?;
        Ok(Self { ctid, child, pidfd, errors })
    }

    fn cancel(&self) {
        // One that has ended needs no signal.
        let _ = pidfd_send_signal(&self.pidfd, Signal::TERM);
    }

    fn end(mut self) -> Result<Ended, Failure> {
        let status = self.child.wait().map_err(|e| failed("wait()", &e))?;
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        let mut bytes = vec![0; SAID_BYTES];
        let length = std::fs::File::from(self.errors).read_at(&mut bytes, 0).map_err(|e| failed("pread()", &e))?;
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        let lines: Vec<String> = text.lines().map(printable).collect();
        Ok(Ended { code, said: lines.join("; ") })
    }
}

fn failed(call: &str, e: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::because(Exit::System, format!("Unable to run a worker: {call}"), e)
}
