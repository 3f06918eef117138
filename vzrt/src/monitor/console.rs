//! The console of a container: the other end of its `/dev/console`, a log of what it printed last, and who is attached.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::termios::{Winsize, tcsetwinsize};

use crate::error::{Call, Failed};
use crate::state::RunDir;

/// Size at which the console log is put aside and a new one begun; two are kept, so a container can fill no more than twice this, in bytes.
const LOG_BYTES: u64 = 64 * 1024;

/// A console with no one at its other end says HUP for ever: init has closed it and may open it again. It is looked at no sooner than this.
const QUIET: Duration = Duration::from_secs(1);

/// Most that is taken from the console before anything else gets its turn, in reads of 4 KiB.
const READS_AT_ONCE: usize = 16;

/// The console, as its attendant has it.
#[derive(Debug)]
pub(super) struct Console<'a> {
    master: &'a OwnedFd,
    log: Log,
    quiet_until: Option<Instant>,
    attached: Vec<Attached>,
}

/// Somebody who reads and types.
#[derive(Debug)]
struct Attached {
    stream: OwnedFd,
    gone: bool,
}

impl<'a> Console<'a> {
    /// Takes up the console; what was logged before is kept.
    ///
    /// # Errors
    /// The log can't be opened.
    pub(super) fn take(master: &'a OwnedFd, run: &RunDir) -> Result<Self, Failed> {
        rustix::io::ioctl_fionbio(master, true).call(|| "ioctl(console, FIONBIO)")?;
        Ok(Self { master, log: Log::open(run)?, quiet_until: None, attached: Vec::new() })
    }

    /// What to watch for what is printed, if it is time.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.quiet_until.is_none_or(|until| until <= Instant::now()).then(|| self.master.as_fd())
    }

    /// What to watch for what is typed.
    pub(super) fn attached(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.attached.iter().map(|who| who.stream.as_fd())
    }

    /// How long the console is left alone from now on.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.quiet_until.map(|until| until.saturating_duration_since(Instant::now()))
    }

    /// Attaches somebody.
    ///
    /// # Errors
    /// What came is no stream.
    pub(super) fn attach(&mut self, stream: OwnedFd) -> Result<(), Failed> {
        rustix::io::ioctl_fionbio(&stream, true).call(|| "ioctl(stream, FIONBIO)")?;
        self.attached.push(Attached { stream, gone: false });
        Ok(())
    }

    /// Gives the container's terminal this size.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn resize(&self, rows: u16, columns: u16) -> Result<(), Failed> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(self.master, size).call(|| "ioctl(TIOCSWINSZ)")
    }

    /// Takes what was printed, up to a bound: a container that never stops printing must not keep its attendant from anything else.
    pub(super) fn printed(&mut self) {
        let mut buffer = [0u8; 4096];
        self.quiet_until = None;
        for _ in 0..READS_AT_ONCE {
            match rustix::io::read(self.master, &mut buffer) {
                Ok(n) if n > 0 => {
                    self.log.append(&buffer[..n]);
                    for who in &mut self.attached {
                        who.show(&buffer[..n]);
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) => return,
                // EIO: nobody has the other end open.
                _ => {
                    self.quiet_until = Some(Instant::now() + QUIET);
                    return;
                }
            }
        }
    }

    /// Takes what was typed by one of [`Console::attached`].
    pub(super) fn typed(&mut self, i: usize) {
        let mut buffer = [0u8; 1024];
        let who = &mut self.attached[i];
        match rustix::io::read(&who.stream, &mut buffer) {
            // A terminal whose input nobody takes is full after 4 KiB: what is typed then is lost, as on a serial line.
            Ok(n) if n > 0 => drop(rustix::io::write(self.master, &buffer[..n])),
            Err(Errno::AGAIN | Errno::INTR) => {}
            _ => who.gone = true,
        }
    }

    /// Lets go of those who have left.
    pub(super) fn forget_the_gone(&mut self) {
        self.attached.retain(|who| !who.gone);
    }
}

impl Attached {
    /// Who does not keep up misses what does not fit: nobody's terminal may hold up a container.
    fn show(&mut self, text: &[u8]) {
        match rustix::io::write(&self.stream, text) {
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.gone = true,
        }
    }
}

/// What the container printed on its console, the last of it.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: std::fs::File,
    bytes: u64,
}

impl Log {
    fn open(run: &RunDir) -> Result<Self, Failed> {
        let path = run.path().join("console.log");
        let open = || {
            let file = std::fs::OpenOptions::new().append(true).create(true).open(&path)?;
            let bytes = file.metadata()?.len();
            Ok::<_, std::io::Error>((file, bytes))
        };
        let (file, bytes) = open().call(|| format!("open({})", path.display()))?;
        Ok(Self { path, file, bytes })
    }

    /// A full disk loses console output; it must not lose the container.
    fn append(&mut self, text: &[u8]) {
        if self.bytes + text.len() as u64 > LOG_BYTES {
            let _ = std::fs::rename(&self.path, self.path.with_extension("log.1"));
            if let Ok(file) = std::fs::File::create(&self.path) {
                self.file = file;
            }
            self.bytes = 0;
        }
        if self.file.write_all(text).is_ok() {
            self.bytes += text.len() as u64;
        }
    }
}
