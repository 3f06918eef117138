//! SIGINT, SIGTERM and SIGHUP while a command changes something: taken as data, at places where stopping is safe.
//!
//! No handler runs: the signals are blocked and read from a descriptor, so a step is never cut in half, and what waits can wait for either.
//! Programs that the command starts get the signals as ever, so Ctrl-C ends a long `mkfs` at once, and its failure ends the step.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::{Call, Failed};

/// A signal came that ends the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted by {0}")]
pub struct Interrupted(pub Signal);

/// The watch for them; from its making on, this process is not ended by them.
#[derive(Debug)]
pub struct Interrupt {
    signals: SignalFd,
    come: AtomicBool,
}

impl Interrupt {
    /// Begins to watch.
    ///
    /// # Errors
    /// The failed call.
    pub fn watch() -> Result<Self, Failed> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            set.add(signal);
        }
        set.thread_block().call(|| "sigprocmask()")?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
        signals.map(|signals| Self { signals, come: AtomicBool::new(false) }).call(|| "signalfd()")
    }

    /// A place where stopping is safe: fails if a signal has come since the last one.
    ///
    /// # Errors
    /// The signal.
    pub fn check(&self) -> Result<(), Interrupted> {
        match self.signals.read_signal() {
            Ok(Some(info)) => {
                self.come.store(true, Ordering::Relaxed);
                Err(Interrupted(
                    i32::try_from(info.ssi_signo)
                        .ok()
                        .and_then(|n| Signal::try_from(n).ok())
                        .unwrap_or(Signal::SIGTERM),
                ))
            }
            _ => Ok(()),
        }
    }

    /// Whether a check has failed: for those who go on after errors, but not after a signal.
    pub fn has_come(&self) -> bool {
        self.come.load(Ordering::Relaxed)
    }
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    #[test]
    fn a_signal_is_told_once_and_only_at_a_check() {
        let watch = Interrupt::watch().unwrap();
        assert_eq!((watch.check(), watch.has_come()), (Ok(()), false));
        // To this thread: the test runner has others, which do not block it.
        nix::sys::pthread::pthread_kill(nix::sys::pthread::pthread_self(), Signal::SIGTERM).unwrap();
        assert_eq!(watch.check(), Err(Interrupted(Signal::SIGTERM)));
        assert_eq!((watch.check(), watch.has_come()), (Ok(()), true));
    }
}
