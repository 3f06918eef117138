//! The console of a container: the other end of its `/dev/console`, a log of what it printed last, and who is attached.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer};
use rustix::termios::{QueueSelector, Winsize, tcflush, tcsetwinsize};

use super::printed::{self, Log};
use crate::error::{Call, Failed};
use crate::state::RunDir;
use crate::sys;

/// A console with no one at its other end says HUP for ever: init has closed it and may open it again. It is looked at no sooner than this.
const QUIET: Duration = Duration::from_secs(1);

/// Most that is taken from the console before anything else gets its turn, in reads of 4 KiB.
const READS_AT_ONCE: usize = 16;

/// How long a console is left alone after something was taken from it: a container that prints byte by byte wakes us so often and no oftener.
const BREATH: Duration = Duration::from_millis(5);

/// The same where more is waiting. A container that never stops printing waits for us then, not the host's CPUs.
const LONG_BREATH: Duration = Duration::from_millis(50);

/// Most of what was printed while nobody was attached that the next one is shown, in bytes.
const UNSEEN_BYTES: u64 = 16 * 1024;

/// The console, as its attendant has it.
#[derive(Debug)]
pub(super) struct Console<'a> {
    /// `None`: a container that was without any monitor for a while has lost it.
    master: Option<&'a OwnedFd>,
    run: RunDir,
    log: Log,
    /// How much was printed with nobody attached.
    unseen_bytes: u64,
    quiet_until: Option<Instant>,
    attached: Vec<Attached>,
}

/// Somebody who reads and types.
#[derive(Debug)]
struct Attached {
    stream: OwnedFd,
    /// Typed, and not yet taken by the terminal: no more is read from who types before this is through.
    typed: Vec<u8>,
    gone: bool,
}

impl<'a> Console<'a> {
    /// Takes up the console; what was logged before is kept.
    ///
    /// # Errors
    /// The log can't be opened.
    pub(super) fn take(master: Option<&'a OwnedFd>, run: RunDir) -> Result<Self, Failed> {
        if let Some(master) = master {
            rustix::io::ioctl_fionbio(master, true).call(|| "ioctl(console, FIONBIO)")?;
        }
        let log = Log::open(&run)?;
        Ok(Self { master, run, log, unseen_bytes: 0, quiet_until: None, attached: Vec::new() })
    }

    /// What to watch for what is printed, if it is time.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        let master = self.master?;
        self.quiet_until.is_none_or(|until| until <= Instant::now()).then(|| master.as_fd())
    }

    /// Whether something typed waits for room in the terminal.
    pub(super) fn wants_room(&self) -> bool {
        self.attached.iter().any(|who| !who.typed.is_empty())
    }

    /// What to watch for what is typed, each by its place in the list.
    pub(super) fn attached(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        let listening = self.attached.iter().enumerate().filter(|(_, who)| who.typed.is_empty());
        listening.map(|(i, who)| (i, who.stream.as_fd()))
    }

    /// How long the console is left alone from now on.
    pub(super) fn patience(&self) -> Option<Duration> {
        let left = self.quiet_until?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Attaches somebody, who is shown first what nobody has seen.
    ///
    /// # Errors
    /// What came is no stream, or the log can't be read.
    pub(super) fn attach(&mut self, stream: OwnedFd) -> Result<(), Failed> {
        rustix::io::ioctl_fionbio(&stream, true).call(|| "ioctl(stream, FIONBIO)")?;
        let mut who = Attached { stream, typed: Vec::new(), gone: false };
        who.show(&printed::last(&self.run, self.unseen_bytes.min(UNSEEN_BYTES))?);
        if self.master.is_none() {
            who.show(b"vz: this container has lost its console; it gets another when it is restarted\r\n");
        }
        self.unseen_bytes = 0;
        self.attached.push(who);
        Ok(())
    }

    /// Gives the container's terminal this size.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn resize(&self, rows: u16, columns: u16) -> Result<(), Failed> {
        let Some(master) = self.master else { return Ok(()) };
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(master, size).call(|| "ioctl(TIOCSWINSZ)")
    }

    /// The secure attention key: whatever has the container's console open has it no more, and what is in control of it gets SIGHUP. Who
    /// opens it next (a getty) is alone with who types, and gets nothing of what was typed before.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn attention(&mut self) -> Result<(), Failed> {
        self.attached.iter_mut().for_each(Attached::forget_typed);
        let Some(master) = self.master else { return Ok(()) };
        tcflush(master, QueueSelector::OFlush).call(|| "ioctl(console, TCFLSH)")?;
        // By the other side: hung up itself, the master would take the terminal along.
        let slave = ioctl_tiocgptpeer(master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .call(|| "ioctl(console, TIOCGPTPEER)")?;
        sys::hang_up(slave.as_fd()).call(|| "ioctl(console, TIOCVHANGUP)")
    }

    /// Takes what was printed, up to a bound: a container that never stops printing must not keep its attendant from anything else. And gives
    /// the terminal what it has room for of what was typed.
    pub(super) fn printed(&mut self) {
        let Some(master) = self.master else { return };
        self.pass_on(master);
        let mut buffer = [0u8; 4096];
        self.quiet_until = Some(Instant::now() + LONG_BREATH);
        for _ in 0..READS_AT_ONCE {
            match rustix::io::read(master, &mut buffer) {
                Ok(n) if n > 0 => self.show(&buffer[..n]),
                Err(Errno::AGAIN | Errno::INTR) => {
                    self.quiet_until = Some(Instant::now() + BREATH);
                    return;
                }
                // EIO: nobody has the other end open.
                _ => {
                    self.quiet_until = Some(Instant::now() + QUIET);
                    return;
                }
            }
        }
    }

    /// A word of ours to who is attached, and for the log.
    pub(super) fn say(&mut self, text: &str) {
        self.show(format!("\r\nvz: {text}\r\n").as_bytes());
    }

    fn show(&mut self, text: &[u8]) {
        self.log.append(text);
        if self.attached.is_empty() {
            self.unseen_bytes += text.len() as u64;
        }
        self.attached.iter_mut().for_each(|who| who.show(text));
    }

    /// Takes what was typed by one of [`Console::attached`].
    pub(super) fn typed(&mut self, i: usize) {
        let mut buffer = [0u8; 1024];
        let who = &mut self.attached[i];
        match rustix::io::read(&who.stream, &mut buffer) {
            Ok(n) if n > 0 => who.typed.extend_from_slice(&buffer[..n]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            _ => who.gone = true,
        }
        match self.master {
            Some(master) => self.pass_on(master),
            None => who.typed.clear(),
        }
    }

    fn pass_on(&mut self, master: &OwnedFd) {
        for who in self.attached.iter_mut().filter(|who| !who.typed.is_empty()) {
            match rustix::io::write(master, &who.typed) {
                Ok(n) => drop(who.typed.drain(..n)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => who.typed.clear(),
            }
        }
    }

    /// Lets go of those who have left.
    pub(super) fn forget_the_gone(&mut self) {
        self.attached.retain(|who| !who.gone);
    }
}

impl Attached {
    /// Throws away what was typed and is on its way, as far as a stream holds.
    fn forget_typed(&mut self) {
        self.typed.clear();
        let mut buffer = [0u8; 16 * 1024];
        for _ in 0..READS_AT_ONCE {
            match rustix::io::read(&self.stream, &mut buffer) {
                Ok(n) if n > 0 => {}
                Err(Errno::AGAIN | Errno::INTR) => return,
                _ => {
                    self.gone = true;
                    return;
                }
            }
        }
    }

    /// Who does not keep up misses what does not fit: nobody's terminal may hold up a container.
    fn show(&mut self, text: &[u8]) {
        match rustix::io::write(&self.stream, text) {
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.gone = true,
        }
    }
}
