//! A container that reboots is started again by its monitor. One that does so again and again is made to wait, and may be stopped meanwhile.
//!
//! What says that it is going to start is a mark beside its run directory, made and taken away under the container's lock: who finds it
//! there may call the start off by removing it.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use crate::error::{Call, Failed};
use crate::state::RunDir;

/// The starts of a container that reboots are at least so far apart, and then twice as far, and so on.
const FIRST: Duration = Duration::from_secs(2);

/// But not further than this. A container that ran for longer begins anew.
const LONGEST: Duration = Duration::from_secs(64);

/// How often who waits looks whether it has been called off.
const LOOK: Duration = Duration::from_millis(200);

/// How long a container that ran for so long and then rebooted has to wait, when it had done so `quickly` many times in a row before; and how
/// many times that is now.
pub(crate) fn pause(quickly: u32, ran: Duration) -> (Duration, u32) {
    if ran >= LONGEST {
        return (Duration::ZERO, 0);
    }
    let apart = 1u32.checked_shl(quickly).and_then(|n| FIRST.checked_mul(n)).map_or(LONGEST, |d| d.min(LONGEST));
    (apart.saturating_sub(ran), quickly.saturating_add(1))
}

/// The mark, as who waits has it.
#[derive(Debug)]
pub(crate) struct Mark(File);

impl Mark {
    /// Makes it.
    ///
    /// # Errors
    /// The failed call.
    pub(crate) fn put(run: &RunDir) -> Result<Self, Failed> {
        let path = run.reboot_mark();
        let open = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path);
        open.map(Self).call(|| format!("open({})", path.display()))
    }

    /// Waits for so long; false, and at once, if the start is called off.
    pub(crate) fn wait(&self, pause: Duration) -> Result<bool, Failed> {
        let until = Instant::now() + pause;
        loop {
            if self.0.metadata().call(|| "fstat(reboot mark)")?.nlink() == 0 {
                return Ok(false);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(true);
            }
            std::thread::sleep(left.min(LOOK));
        }
    }
}

/// Takes the mark away: whoever was going to start the container does not. True if there was one. To be called under the container's lock.
///
/// # Errors
/// The failed call.
pub fn call_off(run: &RunDir) -> Result<bool, Failed> {
    let path = run.reboot_mark();
    match std::fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).call(|| format!("unlink({})", path.display())),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    #[test]
    fn starts_grow_apart_to_a_bound_and_a_long_run_begins_anew() {
        let s = Duration::from_secs;
        let (mut quickly, mut waits) = (0, Vec::new());
        for _ in 0..8 {
            let (wait, now) = pause(quickly, s(1));
            quickly = now;
            waits.push(wait.as_secs());
        }
        assert_eq!(waits, [1, 3, 7, 15, 31, 63, 63, 63]);
        assert_eq!(pause(5, s(64)), (Duration::ZERO, 0));
        assert_eq!(pause(0, s(10)), (Duration::ZERO, 1), "one reboot soon after a start waits for nothing");
        assert_eq!(pause(u32::MAX, s(1)), (s(63), u32::MAX));
    }

    #[test]
    fn a_start_that_waits_is_called_off_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::new(dir.path().join("101"));
        assert!(!call_off(&run).unwrap());
        let mark = Mark::put(&run).unwrap();
        assert!(mark.wait(Duration::ZERO).unwrap());
        assert!(call_off(&run).unwrap());
        assert!(!mark.wait(Duration::from_secs(3600)).unwrap());
    }
}
