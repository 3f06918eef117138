//! The administrator's terminal in front of a terminal inside.

use std::io::IsTerminal;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use super::proxy::write_all;
use crate::error::{Call, Failed};

/// Why attending a terminal ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TerminalEnd {
    /// The program behind it ended.
    Ended,
    /// Our side was closed.
    Left,
}

/// Raw mode of the caller's terminal, put back when dropped.
pub(crate) struct Raw(Option<Termios>);

impl Raw {
    pub(crate) fn enter() -> Self {
        let stdin = std::io::stdin();
        let Ok(before) = tcgetattr(&stdin) else { return Self(None) };
        let mut raw = before.clone();
        raw.make_raw();
        match tcsetattr(&stdin, OptionalActions::Drain, &raw) {
            Ok(()) => Self(Some(before)),
            Err(_) => Self(None),
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // What was typed and not read is thrown away: it may be the terminal's answer to something the container printed last, and must
            // not be a command line of the administrator's shell.
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, before);
        }
    }
}

/// The signals of who sits at a terminal, taken as data: those that end a command, so that the terminal is put back before, and the one that
/// says that its window has another size.
pub(crate) struct TerminalSignals(SignalFd);

impl TerminalSignals {
    pub(crate) fn watch() -> Result<Self, Failed> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGWINCH, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGHUP] {
            set.add(signal);
        }
        set.thread_block().call(|| "sigprocmask()")?;
        SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map(Self).call(|| "signalfd()")
    }

    /// Takes those that have come: the one that ends the command, if it is among them.
    pub(crate) fn take(&self, mut resized: impl FnMut()) -> Option<Signal> {
        while let Ok(Some(info)) = self.0.read_signal() {
            match i32::try_from(info.ssi_signo).ok().and_then(|n| Signal::try_from(n).ok()) {
                Some(Signal::SIGWINCH) | None => resized(),
                ends => return ends,
            }
        }
        None
    }
}

impl AsFd for TerminalSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Copies between the caller's standard input and output and the master of a terminal inside, until the program there ends.
pub(super) fn attend(master: &OwnedFd, program: &OwnedFd) -> Result<TerminalEnd, Failed> {
    let signals = TerminalSignals::watch()?;
    copy_window_size(master);
    let _raw = Raw::enter();
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    let mut typing = true;
    loop {
        let mut fds = vec![
            PollFd::new(&signals, PollFlags::IN),
            PollFd::new(master, PollFlags::IN),
            PollFd::new(program, PollFlags::IN),
        ];
        if typing {
            fds.push(PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => return Err(e).call(|| "poll()"),
        }
        let ready: Vec<bool> = fds.iter().map(|f| !f.revents().is_empty()).collect();
        drop(fds);
        // Hanging up our side hangs up the terminal inside.
        if ready[0] && signals.take(|| copy_window_size(master)).is_some() {
            return Ok(TerminalEnd::Left);
        }
        if ready[1] {
            // EIO: nobody has the other side open any more; the program's end follows, if it has not come.
            if !copy(master.as_fd(), stdout.as_fd()) {
                crate::hooks::wait_for(program, std::time::Duration::from_secs(1))?;
                return Ok(TerminalEnd::Ended);
            }
        } else if ready[2] {
            return Ok(TerminalEnd::Ended);
        }
        if typing && ready.get(3) == Some(&true) && !copy(stdin.as_fd(), master.as_fd()) {
            typing = false;
            if !stdin.is_terminal() {
                // A script on standard input has ended: so does the shell it was for (Ctrl-D).
                write_all(master.as_fd(), &[4]);
            }
        }
    }
}

fn copy(from: BorrowedFd, to: BorrowedFd) -> bool {
    let mut buffer = [0u8; 8192];
    match rustix::io::read(from, &mut buffer) {
        Ok(n) if n > 0 => write_all(to, &buffer[..n]),
        _ => false,
    }
}

fn copy_window_size(master: &OwnedFd) {
    if let Ok(size) = tcgetwinsize(std::io::stdin()) {
        let _ = tcsetwinsize(master, size);
    }
}
