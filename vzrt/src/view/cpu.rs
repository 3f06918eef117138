//! `/proc/cpuinfo`, `/proc/stat`, `/proc/uptime` and the lists of CPUs in sysfs.

use std::fmt::Write as _;
use std::time::Duration;

use crate::cgroup::CpuGrant;

/// The CPUs a container sees, by the numbers the host has for them: those it may run on, and of these no more than its quota is worth. A
/// program that starts a thread for each CPU it sees then starts as many as can run.
pub(super) fn visible(grant: &CpuGrant, host: &[u32]) -> Vec<u32> {
    let allowed = grant.allowed.as_deref().unwrap_or(host);
    let worth =
        grant.quota_milli.map_or(usize::MAX, |milli| usize::try_from(milli.div_ceil(1000)).unwrap_or(usize::MAX));
    allowed.iter().copied().take(worth.max(1)).collect()
}

/// `0-2,5`, as in sysfs.
pub(super) fn list(cpus: &[u32]) -> String {
    let mut text = String::new();
    let mut rest = cpus;
    while let Some(&first) = rest.first() {
        let run = rest.iter().zip(first..).take_while(|&(&cpu, expected)| cpu == expected).count();
        let last = rest[run - 1];
        let comma = if text.is_empty() { "" } else { "," };
        let _ = if run == 1 { write!(text, "{comma}{first}") } else { write!(text, "{comma}{first}-{last}") };
        rest = &rest[run..];
    }
    text
}

/// The host's `/proc/cpuinfo` without the CPUs that are not to be seen.
pub(super) fn cpuinfo(host: &str, visible: &[u32]) -> String {
    let number =
        |block: &str| block.lines().find_map(|line| line.strip_prefix("processor")?.split_once(": ")?.1.parse().ok());
    let mut text = String::with_capacity(host.len());
    for block in host.split_inclusive("\n\n") {
        // Some machines add a paragraph about the board, without a number.
        if number(block).is_none_or(|n: u32| visible.contains(&n)) {
            text.push_str(block);
        }
    }
    text
}

/// CPU time of a container so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Spent {
    pub(super) user: Duration,
    pub(super) system: Duration,
}

/// Counts the time in which the container's CPUs had nothing to do. Programs take differences of two readings, so it never goes back,
/// however many CPUs come and go.
#[derive(Debug)]
pub(super) struct Clock {
    at: Duration,
    spent: Spent,
    idle: Duration,
}

impl Clock {
    /// Takes it up for a container that has been up that long.
    pub(super) fn new(uptime: Duration, spent: Spent, cpus: usize) -> Self {
        let mut clock = Self { at: Duration::ZERO, spent: Spent::default(), idle: Duration::ZERO };
        clock.advance(uptime, spent, cpus);
        clock
    }

    /// A further reading; gives all idle time so far.
    pub(super) fn advance(&mut self, uptime: Duration, spent: Spent, cpus: usize) -> Duration {
        let passed = uptime.saturating_sub(self.at) * u32::try_from(cpus).unwrap_or(u32::MAX);
        let worked = (spent.user + spent.system).saturating_sub(self.spent.user + self.spent.system);
        self.idle += passed.saturating_sub(worked);
        (self.at, self.spent) = (uptime, spent);
        self.idle
    }
}

/// What `/proc/stat` tells.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stat<'a> {
    pub(super) visible: &'a [u32],
    pub(super) spent: Spent,
    pub(super) idle: Duration,
    /// When the container was started, in seconds since 1970.
    pub(super) boot_s: u64,
    pub(super) running: usize,
    pub(super) blocked: usize,
}

impl Stat<'_> {
    /// `/proc/stat` (proc_stat(5)). The kernel keeps a container's CPU time as one number, so its CPUs have equal parts of it; interrupts and
    /// context switches it does not keep for a container, and the host's are nobody's business: they are 0.
    pub(super) fn text(&self) -> String {
        let cpus = u32::try_from(self.visible.len()).unwrap_or(u32::MAX).max(1);
        let row = |name: &str, part: u32| {
            let ticks = |time: Duration| (time / part).as_millis() / 10;
            let (user, system, idle) = (ticks(self.spent.user), ticks(self.spent.system), ticks(self.idle));
            format!("{name} {user} 0 {system} {idle} 0 0 0 0 0 0\n")
        };
        let mut text = row("cpu ", 1);
        self.visible.iter().for_each(|cpu| text.push_str(&row(&format!("cpu{cpu}"), cpus)));
        let _ = write!(
            text,
            "intr 0\nctxt 0\nbtime {}\nprocesses 0\nprocs_running {}\nprocs_blocked {}\nsoftirq 0 0 0 0 0 0 0 0 0 0 0\n",
            self.boot_s,
            self.running.max(1),
            self.blocked
        );
        text
    }
}

/// `/proc/uptime`: up, and idle, in seconds.
pub(super) fn uptime(up: Duration, idle: Duration) -> String {
    let hundredths = |t: Duration| (t.as_secs(), t.subsec_millis() / 10);
    let ((up, up_h), (idle, idle_h)) = (hundredths(up), hundredths(idle));
    format!("{up}.{up_h:02} {idle}.{idle_h:02}\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grant(allowed: Option<&[u32]>, quota_milli: Option<u64>) -> CpuGrant {
        CpuGrant { allowed: allowed.map(<[u32]>::to_vec), quota_milli }
    }

    #[test]
    fn a_quota_shows_as_whole_cpus_and_a_mask_as_those_it_names() {
        let host = [0, 1, 2, 3];
        assert_eq!(visible(&grant(None, None), &host), host);
        assert_eq!(visible(&grant(None, Some(500)), &host), [0]);
        assert_eq!(visible(&grant(None, Some(1500)), &host), [0, 1]);
        assert_eq!(visible(&grant(Some(&[2, 3]), Some(1000)), &host), [2]);
        assert_eq!(visible(&grant(Some(&[1, 3]), Some(64_000)), &host), [1, 3]);
    }

    #[test]
    fn lists_are_written_as_sysfs_does() {
        assert_eq!(list(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
        assert_eq!(list(&[3]), "3");
        assert_eq!(list(&[]), "");
    }

    #[test]
    fn cpuinfo_keeps_the_blocks_of_visible_cpus() {
        let host = "processor\t: 0\nmodel\t: a\n\nprocessor\t: 1\nmodel\t: b\n\nprocessor\t: 2\nmodel\t: c\n\n";
        assert_eq!(cpuinfo(host, &[0, 2]), "processor\t: 0\nmodel\t: a\n\nprocessor\t: 2\nmodel\t: c\n\n");
    }

    #[test]
    fn stat_gives_all_time_and_equal_parts() {
        let s = Duration::from_secs;
        let spent = Spent { user: s(4), system: s(2) };
        let stat = Stat { visible: &[0, 3], spent, idle: s(14), boot_s: 77, running: 0, blocked: 0 };
        let text = stat.text();
        assert!(
            text.starts_with("cpu  400 0 200 1400 0 0 0 0 0 0\ncpu0 200 0 100 700 0 0 0 0 0 0\ncpu3 200 "),
            "{text}"
        );
        assert!(text.contains("\nbtime 77\n") && text.contains("procs_running 1\n"));
    }

    #[test]
    fn uptime_has_two_decimals() {
        assert_eq!(uptime(Duration::from_millis(61_239), Duration::from_millis(5)), "61.23 0.00\n");
    }

    proptest! {
        #[test]
        fn idle_time_never_goes_back(steps in proptest::collection::vec((0u64..10_000, 0u64..100_000, 1usize..64), 1..40)) {
            let mut clock = Clock::new(Duration::ZERO, Spent::default(), 1);
            let (mut up, mut spent, mut before) = (Duration::ZERO, Spent::default(), Duration::ZERO);
            for (passed, worked, cpus) in steps {
                up += Duration::from_millis(passed);
                spent.user += Duration::from_millis(worked);
                let idle = clock.advance(up, spent, cpus);
                prop_assert!(idle >= before);
                before = idle;
            }
        }
    }
}
