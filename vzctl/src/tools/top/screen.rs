//! The terminal while `vztop` has it: another page of it, no echo, keys as they are pressed, and signals as something that is read, so that it is given
//! back whatever ends the program.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// Another page, no cursor, and no line goes on below itself.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// Those that end the program, stop it, or tell of another size.
const SIGNALS: [Signal; 6] =
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGTSTP, Signal::SIGWINCH];

/// What there was to see before the time was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Key(u8),
    /// The page is to be drawn anew.
    Redraw,
    /// A signal that ends the program.
    End(Signal),
    TimeOver,
}

/// The terminal, taken; dropped it is as it was.
pub(super) struct Screen {
    before: Termios,
    signals: SignalFd,
    mask: SigSet,
}

/// Whether there is somebody at both ends.
pub(super) fn is_there() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

impl Screen {
    pub(super) fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mask: SigSet = SIGNALS.into_iter().collect();
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        mask.thread_block()?;
        let screen = Self { before, signals, mask };
        screen.take()?;
        Ok(screen)
    }

    /// From here on a failure gives it back: `self` is there.
    fn take(&self) -> io::Result<()> {
        let mut taken = self.before.clone();
        // ^C and ^Z stay signals.
        taken.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
        tcsetattr(io::stdin(), OptionalActions::Flush, &taken)?;
        write(ENTER)
    }

    fn give_back(&self) -> io::Result<()> {
        let written = write(LEAVE);
        tcsetattr(io::stdin(), OptionalActions::Flush, &self.before)?;
        written
    }

    /// Lines and columns.
    pub(super) fn size(&self) -> (usize, usize) {
        let size = tcgetwinsize(io::stdout()).map(|size| (usize::from(size.ws_row), usize::from(size.ws_col)));
        // A serial line does not know.
        size.ok().filter(|(rows, columns)| *rows > 0 && *columns > 0).unwrap_or((24, 80))
    }

    /// Puts these lines in place of what is there. No line is cleared before it is written: nothing flickers.
    pub(super) fn draw(&self, lines: &[String]) -> io::Result<()> {
        let lines: Vec<String> = lines.iter().take(self.size().0).map(|line| format!("{line}\x1b[K")).collect();
        write(&format!("\x1b[H{}\x1b[J", lines.join("\r\n")))
    }

    /// Waits for a key, a signal, or this moment.
    pub(super) fn wait(&mut self, until: Instant) -> io::Result<Event> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let stdin = io::stdin();
            let mut fds =
                [PollFd::new(&stdin, PollFlags::IN), PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN)];
            match poll(&mut fds, Some(&Timespec::try_from(left).unwrap_or_default())) {
                Err(Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
                Ok(0) => return Ok(Event::TimeOver),
                Ok(_) => {}
            }
            let (typed, signalled) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
            if signalled && let Some(event) = self.signal()? {
                return Ok(event);
            }
            if typed {
                let mut key = [0];
                return match rustix::io::read(&stdin, &mut key)? {
                    // The terminal has gone, and SIGHUP with it or not.
                    0 => Ok(Event::End(Signal::SIGHUP)),
                    _ => Ok(Event::Key(key[0])),
                };
            }
        }
    }

    fn signal(&mut self) -> io::Result<Option<Event>> {
        let Some(told) = self.signals.read_signal()? else { return Ok(None) };
        let signal = i32::try_from(told.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
        Ok(match signal {
            Some(Signal::SIGWINCH) | None => Some(Event::Redraw),
            Some(Signal::SIGTSTP) => {
                self.give_back()?;
                raise(Signal::SIGSTOP)?;
                // SIGCONT has come.
                self.take()?;
                Some(Event::Redraw)
            }
            Some(signal) => Some(Event::End(signal)),
        })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that has gone can't be given back.
        let _ = self.give_back();
        let _ = self.mask.thread_unblock();
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Waits without a terminal.
pub(super) fn sleep_until(moment: Instant) {
    std::thread::sleep(moment.saturating_duration_since(Instant::now()).min(Duration::from_secs(86_400)));
}
