//! The administrator's side of a container's console: his terminal, or pipes of a script, at one end of a stream whose other end the
//! container's attendant holds. Nothing of his goes in but what he types.
//!
//! The container may come, go and come again meanwhile. Whenever there is an attendant, the console is attached to it.

mod keys;

use std::io::IsTerminal;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::termios::tcgetwinsize;

use self::keys::{Keys, Order};
use crate::error::{Call, Failed};
use crate::inside::{Raw, TerminalSignals, write_all};
use crate::interrupt::Interrupted;
use crate::monitor::{Ask, Visit, forget_printed, last_printed, visit};
use crate::state::RunDir;

/// How often a container that does not run is looked for.
const LOOK: Duration = Duration::from_millis(200);

/// Most that is taken from who types before the container has taken it, in bytes.
const TYPED_AHEAD: usize = 64 * 1024;

/// How a console was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// By the keys for it, or with the terminal.
    Detached,
    /// Nobody reads any more what the container prints.
    Unread,
    /// By a signal.
    Interrupted(Interrupted),
}

/// What who is at a console should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The container does not run; it is waited for.
    Waiting,
    /// It did, and has stopped; it is waited for.
    Stopped,
}

/// The last of what a container printed on its console, in this run or an earlier one, at most so many bytes. Nothing in it was looked at: it may
/// hold whatever moves a terminal.
///
/// # Errors
/// It can't be read.
pub fn log(run: &RunDir, bytes: u64) -> Result<Vec<u8>, Failed> {
    last_printed(run, bytes)
}

/// Removes the log of a container that is no more.
///
/// # Errors
/// The failed call.
pub fn forget(run: &RunDir) -> Result<(), Failed> {
    forget_printed(run)
}

/// Attends the console with our standard input and output, from now until it is left.
///
/// # Errors
/// A call that cannot fail here did.
pub fn attend(run: &RunDir, tell: &mut dyn FnMut(Change)) -> Result<Left, Failed> {
    let signals = TerminalSignals::watch()?;
    let mut desk = Desk {
        run,
        line: None,
        missing: None,
        was_attached: false,
        keys: Keys::default(),
        typed: Vec::new(),
        typing: true,
    };
    // After the signals are in hand: from here on every way out puts the terminal back.
    let _raw = Raw::enter();
    loop {
        desk.look(tell)?;
        let ready = desk.wait(&signals)?;
        if ready.signal
            && let Some(signal) = signals.take(|| desk.resize())
        {
            return Ok(Left::Interrupted(Interrupted(signal)));
        }
        if ready.printed && !desk.show() {
            return Ok(Left::Unread);
        }
        if ready.typed
            && let Some(left) = desk.read()
        {
            return Ok(left);
        }
        desk.pass_on();
    }
}

/// Who sits at the console, and what he has before him.
struct Desk<'a> {
    run: &'a RunDir,
    line: Option<Line>,
    /// What he was told of there being nothing to attach to.
    missing: Option<Change>,
    was_attached: bool,
    keys: Keys,
    /// Typed, and not yet taken by the container's attendant.
    typed: Vec<u8>,
    typing: bool,
}

/// An attachment: the visit to the attendant, and the stream of what is printed and typed.
struct Line {
    visit: Visit,
    stream: OwnedFd,
}

/// What poll said there is.
struct Ready {
    signal: bool,
    typed: bool,
    printed: bool,
}

impl Desk<'_> {
    /// Attaches, if it is not attached and there is something to attach to.
    fn look(&mut self, tell: &mut dyn FnMut(Change)) -> Result<(), Failed> {
        if self.line.is_some() {
            return Ok(());
        }
        match attach(self.run)? {
            Some(line) => {
                self.line = Some(line);
                self.missing = None;
                self.resize();
            }
            None => {
                let missing = if self.was_attached { Change::Stopped } else { Change::Waiting };
                if self.missing.replace(missing).is_none() {
                    tell(missing);
                }
            }
        }
        Ok(())
    }

    fn wait(&self, signals: &TerminalSignals) -> Result<Ready, Failed> {
        let mut fds = vec![PollFd::new(signals, PollFlags::IN)];
        let stdin = std::io::stdin();
        let (mut input, mut line) = (None, None);
        if self.typing && self.typed.len() < TYPED_AHEAD {
            input = Some(fds.len());
            fds.push(PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN));
        }
        if let Some(Line { stream, .. }) = &self.line {
            let room = if self.typed.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            line = Some(fds.len());
            fds.push(PollFd::new(stream, PollFlags::IN | room));
        }
        let patience = self.line.is_none().then(|| Timespec::try_from(LOOK).ok()).flatten();
        match poll(&mut fds, patience.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e).call(|| "poll()"),
        }
        let heard = |i: Option<usize>| i.is_some_and(|i| !fds[i].revents().is_empty());
        Ok(Ready { signal: heard(Some(0)), typed: heard(input), printed: heard(line) })
    }

    /// Shows what the container printed; false when nobody can be shown anything any more.
    fn show(&mut self) -> bool {
        let mut buffer = [0u8; 16 * 1024];
        let Some(Line { stream, .. }) = &self.line else { return true };
        match rustix::io::read(stream, &mut buffer) {
            Ok(n) if n > 0 => return write_all(std::io::stdout().as_fd(), &buffer[..n]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            // The attendant is gone: with its container, or another takes its place.
            _ => {
                self.line = None;
                self.was_attached = true;
            }
        }
        true
    }

    /// Takes what is typed.
    fn read(&mut self) -> Option<Left> {
        let mut buffer = [0u8; 4096];
        let stdin = std::io::stdin();
        let n = match rustix::io::read(&stdin, &mut buffer) {
            Ok(n) if n > 0 => n,
            Err(Errno::AGAIN | Errno::INTR) => return None,
            _ => {
                // A terminal that has gone takes who sat there along; a script that has said all it had may still listen.
                self.typing = false;
                self.keys.finish(&mut self.typed);
                return stdin.is_terminal().then_some(Left::Detached);
            }
        };
        for &byte in &buffer[..n] {
            match self.keys.feed(byte, &mut self.typed) {
                Some(Order::Detach) => {
                    self.pass_on();
                    return Some(Left::Detached);
                }
                Some(Order::Attention) => self.ask(&Ask::Attention),
                None => {}
            }
        }
        None
    }

    /// Gives the attendant what it has room for. What is typed while there is none is for nobody.
    fn pass_on(&mut self) {
        let Some(Line { stream, .. }) = &self.line else {
            self.typed.clear();
            return;
        };
        while !self.typed.is_empty() {
            match rustix::io::write(stream, &self.typed) {
                Ok(n) => drop(self.typed.drain(..n)),
                Err(Errno::INTR) => {}
                // No room; or the end of the attendant, which is read from the stream.
                Err(_) => return,
            }
        }
    }

    fn resize(&self) {
        if let Ok(size) = tcgetwinsize(std::io::stdin()) {
            self.ask(&Ask::WindowSize { rows: size.ws_row, columns: size.ws_col });
        }
    }

    fn ask(&self, ask: &Ask) {
        // Fails only with the end of the attendant, which is read from the stream.
        if let Some(Line { visit, .. }) = &self.line
            && let Err(e) = visit.send(ask, None)
        {
            tracing::debug!("{}", e.one_line());
        }
    }
}

/// Attaches to a container's attendant; `None` when it has none.
fn attach(run: &RunDir) -> Result<Option<Line>, Failed> {
    let Some(visit) = visit(run)? else { return Ok(None) };
    let (stream, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
            .call(|| "socketpair()")?;
    match visit.send(&Ask::Console, Some(theirs.as_fd())) {
        Ok(()) => Ok(Some(Line { visit, stream })),
        // It ended just now.
        Err(_) => Ok(None),
    }
}
