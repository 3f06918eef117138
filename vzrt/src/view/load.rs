//! The load average of a container, counted as the kernel counts the machine's: tasks that run or wait for a CPU, and tasks in an
//! uninterruptible sleep, every five seconds, as three decaying means.

use std::time::{Duration, Instant};

use crate::cgroup::{CtCgroup, Pressure};

/// Time between two counts, as the kernel's `LOAD_FREQ`.
const PERIOD: Duration = Duration::from_secs(5);

/// No more tasks are looked at one by one; of a larger crowd these tell for all.
const MOST_LOOKED_AT: usize = 2048;

/// The three means, and when they were last brought up to date.
#[derive(Debug)]
pub(super) struct Load {
    means: [f64; 3],
    counted: Counted,
    next: Instant,
    quiet: Option<Quiet>,
}

/// Tasks at the last count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) running: usize,
    pub(super) blocked: usize,
}

/// What does not change while nothing runs or waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Quiet {
    cpu: Duration,
    io_stall_us: u64,
}

impl Load {
    pub(super) fn new() -> Self {
        Self { means: [0.0; 3], counted: Counted::default(), next: Instant::now() + PERIOD, quiet: None }
    }

    /// How long until the next count is due.
    pub(super) fn patience(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    /// Counts, for every period that has passed.
    pub(super) fn keep_up(&mut self, cgroup: &CtCgroup) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.counted = self.count(cgroup);
        let active = (self.counted.running + self.counted.blocked) as f64;
        // Whoever was stopped for an hour need not do an hour's counts.
        for _ in 0..1000 {
            self.means = decayed(self.means, active);
            self.next += PERIOD;
            if self.next > now {
                return;
            }
        }
        self.next = now + PERIOD;
    }

    /// Looking at every task costs; a container that has used next to no CPU time and waited for no I/O since the last count has none that
    /// run or wait.
    fn count(&mut self, cgroup: &CtCgroup) -> Counted {
        let quiet = cgroup.usage().ok().map(|usage| Quiet { cpu: usage.cpu, io_stall_us: io_stall_us(cgroup) });
        let before = std::mem::replace(&mut self.quiet, quiet);
        if let (Some(now), Some(before)) = (quiet, before) {
            let idle = now.cpu.saturating_sub(before.cpu) < PERIOD / 200 && now.io_stall_us == before.io_stall_us;
            if idle && self.counted.blocked == 0 {
                return Counted::default();
            }
        }
        let tasks = cgroup.tasks(MOST_LOOKED_AT).unwrap_or_default();
        let mut counted = Counted::default();
        for state in tasks.iter().filter_map(|&task| state_of(task)) {
            match state {
                b'R' => counted.running += 1,
                b'D' => counted.blocked += 1,
                _ => {}
            }
        }
        counted.times(cgroup, tasks.len())
    }

    /// `/proc/loadavg`. The last field is the number of the newest process, which only a process inside could ask for: it is 0.
    pub(super) fn text(&self, tasks: u64) -> String {
        let [a, b, c] = self.means;
        let running = (self.counted.running as u64).clamp(1, tasks.max(1));
        format!("{a:.2} {b:.2} {c:.2} {running}/{} 0\n", tasks.max(1))
    }

    /// The means, over 1, 5 and 15 minutes.
    pub(super) fn means(&self) -> [f64; 3] {
        self.means
    }

    pub(super) fn counted(&self) -> Counted {
        self.counted
    }
}

impl Counted {
    /// What was counted among `looked_at` tasks, for all there are.
    fn times(self, cgroup: &CtCgroup, looked_at: usize) -> Self {
        if looked_at < MOST_LOOKED_AT {
            return self;
        }
        let all = cgroup.usage().ok().and_then(|usage| usage.pids).and_then(|pids| usize::try_from(pids).ok());
        let scaled = |n: usize| all.map_or(n, |all| n * all.max(looked_at) / looked_at);
        Self { running: scaled(self.running), blocked: scaled(self.blocked) }
    }
}

/// One period of the kernel's `calc_load`.
fn decayed(means: [f64; 3], active: f64) -> [f64; 3] {
    let minutes = [1.0, 5.0, 15.0];
    std::array::from_fn(|i| {
        let keep = (-PERIOD.as_secs_f64() / (minutes[i] * 60.0)).exp();
        let mean = means[i] * keep + active * (1.0 - keep);
        // Too small to be shown: nothing is to be noted of an idle container every five seconds for ever.
        if mean < 0.001 { 0.0 } else { mean }
    })
}

fn io_stall_us(cgroup: &CtCgroup) -> u64 {
    let text = cgroup.pressure(Pressure::Io);
    text.and_then(|text| text.lines().next()?.rsplit_once("total=")?.1.parse().ok()).unwrap_or(0)
}

/// Whether somebody has stopped this process (SIGSTOP).
pub(crate) fn is_stopped(pid: i32) -> bool {
    state_of(pid) == Some(b'T')
}

/// The state letter of a task, from `/proc/PID/stat`: it follows the name, which may hold anything.
fn state_of(task: i32) -> Option<u8> {
    let mut buffer = [0u8; 128];
    let file = rustix::fs::open(
        format!("/proc/{task}/stat"),
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    );
    let n = rustix::io::read(file.ok()?, &mut buffer).ok()?;
    let end = buffer[..n].iter().rposition(|&b| b == b')')?;
    buffer.get(end + 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_task_that_always_runs_brings_the_first_mean_close_to_one_in_five_minutes() {
        let mut means = [0.0; 3];
        for _ in 0..60 {
            means = decayed(means, 1.0);
        }
        assert!(means[0] > 0.99 && means[1] > 0.62 && means[1] < 0.64, "{means:?}");
        for _ in 0..2000 {
            means = decayed(means, 0.0);
        }
        assert!(means.iter().all(|&m| (0.0..0.01).contains(&m)), "{means:?}");
    }

    #[test]
    fn a_tasks_own_state_is_running() {
        let me = i32::try_from(std::process::id()).unwrap_or(0);
        assert!(matches!(state_of(me), Some(b'R' | b'S')));
        assert_eq!(state_of(-1), None);
    }
}
