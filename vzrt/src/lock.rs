//! The lock of one container: `LOCKDIR/CTID.lck`.
//!
//! The text of the file is the original's (`PID\nSTATUS\n`, so that scripts reading it go on working), but what locks is an open file
//! description lock: the kernel releases it when its holder dies, so there are no stale locks. The file is removed when the lock is let go,
//! and whoever waited checks that the file it locked is still the one in the directory.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::error::{Call, Failed};

/// A held lock; let go when dropped, or when the process dies.
#[derive(Debug)]
pub struct Lock {
    file: Option<Flock<File>>,
    path: PathBuf,
}

/// The word for what a monitor does after the end of its container's init. It takes no time, and who comes meanwhile has found the container
/// down: no command is refused for it.
pub const CLEARING: &str = "cleaning up";

/// How long even a command that waits for nobody waits for that.
const CLEARING_PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("Container already locked")]
    Held {
        /// Its process id, where the file told.
        pid: Option<i32>,
        /// Its command line, where the process could be asked.
        cmdline: String,
    },
    /// The lock file can't be used.
    #[error("cannot lock the container")]
    Failed(#[from] Failed),
}

impl Lock {
    /// Takes the lock, waiting up to `wait` for its holder. `status` is the word kept in the file (`starting`, `setting`, …).
    ///
    /// # Errors
    /// [`LockError::Held`] when somebody else has it and went on having it.
    pub fn take(path: &Path, status: &str, wait: Duration) -> Result<Self, LockError> {
        let begun = Instant::now();
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).call(|| format!("mkdir({})", dir.display()))?;
        }
        loop {
            match Self::attempt(path, status)? {
                Some(lock) => return Ok(lock),
                None if begun.elapsed() < wait
                    || is_clearing(path) && begun.elapsed() < wait.max(CLEARING_PATIENCE) =>
                {
                    std::thread::sleep(Duration::from_millis(20));
                }
                None => return Err(holder(path)),
            }
        }
    }

    fn attempt(path: &Path, status: &str) -> Result<Option<Self>, Failed> {
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC)
            .open(path)
            .call(|| format!("open({})", path.display()))?;
        let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(f) => f,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, e)) => return Err(e).call(|| format!("flock({})", path.display())),
        };
        // The file may have been removed between open and lock by a holder letting go: then what we locked is nobody's lock any more.
        let ours = file.metadata().call(|| "fstat")?;
        match std::fs::symlink_metadata(path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => {}
            _ => return Ok(None),
        }
        file.set_len(0).call(|| format!("truncate({})", path.display()))?;
        write!(&mut *file, "{}\n{status}\n", std::process::id()).call(|| format!("write({})", path.display()))?;
        Ok(Some(Self { file: Some(file), path: path.to_owned() }))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Some(f) = self.file.take() {
            // Removed while still held, so that nobody can lock the old file and believe it theirs.
            if let Err(e) = std::fs::remove_file(&self.path) {
                tracing::debug!("unlink({}): {e}", self.path.display());
            }
            drop(f);
        }
    }
}

/// Closes this process's copy of a lock that the command it was forked from holds: were the command killed, the lock would stay with us.
pub(crate) fn close_inherited(path: &Path) {
    let Ok(lock) = std::fs::metadata(path) else { return };
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let is_lock = |m: &std::fs::Metadata| (m.dev(), m.ino()) == (lock.dev(), lock.ino());
    let copies = entries.filter(|e| std::fs::metadata(e.path()).is_ok_and(|m| is_lock(&m)));
    let copies: Vec<i32> = copies.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    for fd in copies {
        if let Err(e) = nix::unistd::close(fd) {
            tracing::debug!("close({fd}): {e}");
        }
    }
}

/// Whether it is held by a monitor that clears up after its container's end.
fn is_clearing(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.lines().nth(1) == Some(CLEARING))
}

fn holder(path: &Path) -> LockError {
    let mut text = String::new();
    let pid = File::open(path)
        .and_then(|f| f.take(64).read_to_string(&mut text))
        .ok()
        .and_then(|_| text.lines().next().and_then(|l| l.parse::<i32>().ok()));
    let cmdline = pid
        .and_then(|p| std::fs::read(format!("/proc/{p}/cmdline")).ok())
        .map(|b| String::from_utf8_lossy(&b).replace('\0', " ").trim().to_owned())
        .unwrap_or_default();
    LockError::Held { pid, cmdline }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    #[test]
    fn a_second_taker_is_told_who_holds_it_and_gets_it_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("101.lck");
        let first = Lock::take(&path, "starting", Duration::ZERO).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\nstarting\n", std::process::id()));
        match Lock::take(&path, "setting", Duration::ZERO) {
            Err(LockError::Held { pid, .. }) => assert_eq!(pid, i32::try_from(std::process::id()).ok()),
            other => panic!("{other:?}"),
        }
        drop(first);
        assert!(!path.exists());
        Lock::take(&path, "setting", Duration::ZERO).unwrap();
    }

    #[test]
    fn a_lock_file_naming_a_live_process_locks_nothing_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("101.lck");
        std::fs::write(&path, "1\nstarting\n").unwrap();
        Lock::take(&path, "setting", Duration::ZERO).unwrap();
    }

    #[test]
    fn a_planted_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("victim"), "precious").unwrap();
        std::os::unix::fs::symlink(dir.path().join("victim"), dir.path().join("101.lck")).unwrap();
        assert!(matches!(Lock::take(&dir.path().join("101.lck"), "x", Duration::ZERO), Err(LockError::Failed(_))));
        assert_eq!(std::fs::read_to_string(dir.path().join("victim")).unwrap(), "precious");
    }
}
