//! Waiting on conditions, never for a time.

use std::thread;
use std::time::{Duration, Instant};

/// How many times slower than an ordinary machine this one is: 1 on hardware, what was measured at boot under emulation.
pub const TIME_FACTOR_VARIABLE: &str = "VZ_TIME_FACTOR";

/// A limit meant for an ordinary machine, made longer for a slower one.
pub fn scaled(limit: Duration) -> Duration {
    let factor = std::env::var(TIME_FACTOR_VARIABLE).ok().and_then(|text| text.parse::<f64>().ok());
    limit.mul_f64(factor.unwrap_or(1.0).clamp(1.0, 100.0))
}

/// Whether a process has ended; one that nobody has buried yet has.
pub fn is_gone(pid: i32) -> bool {
    let stat = procfs::process::Process::new(pid).and_then(|process| process.stat());
    stat.map_or(true, |stat| stat.state == 'Z')
}

/// Asks until the condition holds, at most for `limit` (scaled to the machine's speed); returns whether it did.
#[must_use]
pub fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + scaled(limit);
    let mut pause = Duration::from_millis(1);
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_with_the_condition_or_with_the_limit() {
        let mut asked = 0;
        assert!(wait_until(Duration::from_secs(5), || {
            asked += 1;
            asked == 3
        }));
        assert_eq!(asked, 3);
        assert!(!wait_until(Duration::from_millis(5), || false));
    }
}
