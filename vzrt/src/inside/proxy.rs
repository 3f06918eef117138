//! Standard input, output and error of a program inside: pipes of its own, copied to and from the caller's.
//!
//! The caller's own descriptors never go in. What looks like three harmless files may be a terminal (TIOCSTI types into the administrator's
//! shell) or a directory (openat leads out of the container).

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::error::{Call, Failed};

/// One side's three descriptors.
pub(super) struct Stdio {
    pub(super) input: OwnedFd,
    pub(super) output: OwnedFd,
    pub(super) error: OwnedFd,
}

impl Stdio {
    /// Makes them the standard ones of this process.
    pub(super) fn as_stdio(&self) -> Result<(), Failed> {
        as_stdio(&self.input, &self.output, &self.error)
    }
}

/// Makes these the standard descriptors of this process.
pub(crate) fn as_stdio(input: &OwnedFd, output: &OwnedFd, error: &OwnedFd) -> Result<(), Failed> {
    rustix::stdio::dup2_stdin(input)
        .and_then(|()| rustix::stdio::dup2_stdout(output))
        .and_then(|()| rustix::stdio::dup2_stderr(error))
        .call(|| "dup2(standard descriptors)")
}

/// Three pipes.
pub(super) struct Pipes {
    /// The ends for inside.
    pub(super) inner: Stdio,
    outer: Stdio,
}

impl Pipes {
    pub(super) fn new() -> Result<Self, Failed> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC).call(|| "pipe2()");
        let ((in_read, in_write), (out_read, out_write), (err_read, err_write)) = (pipe()?, pipe()?, pipe()?);
        // A program that writes more than it reads would otherwise wait for us to take its output while we wait for it to take its input.
        rustix::fs::fcntl_setfl(&in_write, rustix::fs::OFlags::NONBLOCK).call(|| "fcntl(O_NONBLOCK)")?;
        Ok(Self {
            inner: Stdio { input: in_read, output: out_write, error: err_write },
            outer: Stdio { input: in_write, output: out_read, error: err_read },
        })
    }

    /// Our ends, the program's closed.
    pub(super) fn outer(self) -> Stdio {
        drop(self.inner);
        self.outer
    }

    /// Copies until the program has ended and what it wrote is through. What it left running in the background may keep its ends open; that
    /// is not waited for. SIGINT, SIGTERM and SIGHUP of ours are passed on.
    pub(super) fn copy_until(self, program: &OwnedFd) -> Result<(), Failed> {
        drop(self.inner);
        let signals = Signals::block()?;
        let Stdio { input, output, error } = self.outer;
        let (mut input, mut output, mut error) = (Some(input), Some(output), Some(error));
        let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        let mut ended = false;
        // Read from the caller and not yet taken by the program.
        let mut pending = Vec::new();
        while !(ended && output.is_none() && error.is_none()) {
            let (mut watched, mut fds) = (Vec::new(), Vec::new());
            let mut watch = |what: Event, fd| {
                watched.push(what);
                fds.push(PollFd::from_borrowed_fd(
                    fd,
                    if what == Event::Room { PollFlags::OUT } else { PollFlags::IN },
                ));
            };
            watch(Event::Signal, signals.0.as_fd());
            // Read only while the program can take it: what is typed ahead is not lost to a program that has gone.
            match &input {
                Some(_) if pending.is_empty() => watch(Event::Input, stdin.as_fd()),
                Some(fd) => watch(Event::Room, fd.as_fd()),
                None => {}
            }
            if let Some(fd) = &output {
                watch(Event::Output, fd.as_fd());
            }
            if let Some(fd) = &error {
                watch(Event::Error, fd.as_fd());
            }
            if !ended {
                watch(Event::Ended, program.as_fd());
            }
            // After the end only what is in the pipes already is fetched.
            let patience = ended.then_some(Timespec { tv_sec: 0, tv_nsec: 0 });
            match poll(&mut fds, patience.as_ref()) {
                Ok(0) => break,
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(e).call(|| "poll()"),
            }
            let ready: Vec<Event> = watched
                .into_iter()
                .zip(&fds)
                .filter(|(_, fd)| !fd.revents().is_empty())
                .map(|(what, _)| what)
                .collect();
            drop(fds);
            for event in ready {
                let open = match event {
                    Event::Signal => signals.pass_on(program),
                    Event::Input => fetch(stdin.as_fd(), &mut pending) && feed(&mut pending, input.as_ref()),
                    Event::Room => feed(&mut pending, input.as_ref()),
                    Event::Output => drain(output.as_ref(), &mut stdout.lock()),
                    Event::Error => drain(error.as_ref(), &mut stderr.lock()),
                    Event::Ended => false,
                };
                match event {
                    Event::Input | Event::Room if !open => input = None,
                    Event::Output if !open => output = None,
                    Event::Error if !open => error = None,
                    Event::Ended => (ended, input) = (true, None),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// What poll said there is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Event {
    Signal,
    Input,
    Room,
    Output,
    Error,
    Ended,
}

/// Reads once from ours; false at the end.
fn fetch(from: BorrowedFd, pending: &mut Vec<u8>) -> bool {
    let mut buffer = [0u8; 16384];
    let Ok(n) = rustix::io::read(from, &mut buffer) else { return false };
    pending.extend_from_slice(&buffer[..n]);
    n > 0
}

/// Writes to the pipe what it has room for; false when nobody reads it any more.
pub(super) fn feed(pending: &mut Vec<u8>, to: Option<&OwnedFd>) -> bool {
    let Some(to) = to else { return false };
    while !pending.is_empty() {
        match rustix::io::write(to, pending) {
            Ok(n) => drop(pending.drain(..n)),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => break,
            Err(_) => return false,
        }
    }
    true
}

/// Copies once from the pipe to ours; false at the end of either.
fn drain(from: Option<&OwnedFd>, to: &mut impl Write) -> bool {
    let mut buffer = [0u8; 16384];
    let Some(Ok(n)) = from.map(|fd| rustix::io::read(fd, &mut buffer)) else { return false };
    n > 0 && to.write_all(&buffer[..n]).and_then(|()| to.flush()).is_ok()
}

pub(crate) fn write_all(to: BorrowedFd, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(rustix::io::Errno::INTR) => {}
            // Whoever else has this terminal open has made it so.
            Err(rustix::io::Errno::AGAIN) => drop(poll(&mut [PollFd::from_borrowed_fd(to, PollFlags::OUT)], None)),
            Err(_) => return false,
        }
    }
    true
}

/// The signals that end a command, taken as data: they are for the program inside.
struct Signals(SignalFd);

impl Signals {
    fn block() -> Result<Self, Failed> {
        let mut set = SigSet::empty();
        for s in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
            set.add(s);
        }
        set.thread_block().call(|| "sigprocmask()")?;
        SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map(Self).call(|| "signalfd()")
    }

    /// Always true: there may be more.
    fn pass_on(&self, program: &OwnedFd) -> bool {
        while let Ok(Some(info)) = self.0.read_signal() {
            let signal = i32::try_from(info.ssi_signo).ok().and_then(rustix::process::Signal::from_named_raw);
            if let Some(signal) = signal {
                // A program that is gone needs no signal.
                let _ = rustix::process::pidfd_send_signal(program, signal);
            }
        }
        true
    }
}
