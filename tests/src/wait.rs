//! Waiting on conditions, never for a time.

use std::thread;
use std::time::{Duration, Instant};

/// How many times slower than an ordinary machine this one is: 1 on hardware, what was measured at boot under emulation.
pub const TIME_FACTOR_VARIABLE: &str = "VZ_TIME_FACTOR";

/// The same as a number.
fn factor() -> f64 {
    let told = std::env::var(TIME_FACTOR_VARIABLE).ok().and_then(|text| text.parse::<f64>().ok());
    told.unwrap_or(1.0).clamp(1.0, 100.0)
}

/// A limit meant for an ordinary machine, made longer for a slower one.
pub fn scaled(limit: Duration) -> Duration {
    limit.mul_f64(factor())
}

/// How a line begins that tells of fewer rounds.
pub const ROUNDS: &str = "rounds: ";

/// How many rounds a test that repeats itself does: this many on an ordinary machine, fewer on a slower one (it says so),
/// but never less than `least`. The variable asks for another number.
pub fn rounds(variable: &str, ordinary: u32, least: u32) -> u32 {
    if let Some(asked) = std::env::var(variable).ok().and_then(|text| text.parse().ok()) {
        return asked;
    }
    let rounds = fewer(ordinary, least, factor());
    if rounds < ordinary {
        eprintln!("{ROUNDS}{rounds} here, {ordinary} on an ordinary machine; {variable} asks for another number");
    }
    rounds
}

fn fewer(ordinary: u32, least: u32, factor: f64) -> u32 {
    ((f64::from(ordinary) / factor) as u32).max(least)
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
    fn a_slow_machine_does_fewer_rounds_but_some() {
        assert_eq!([1.0, 2.5, 10.0, 90.0].map(|factor| fewer(200, 20, factor)), [200, 80, 20, 20]);
    }

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
