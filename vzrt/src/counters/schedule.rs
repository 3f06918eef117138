//! `vz/vestat` and `fairsched`: the CPU time and the weights of running containers, as OpenVZ's kernel showed them.
//!
//! What a stock kernel counts for no cgroup is 0 there: time of niced tasks apart from other time, idle time, latencies of scheduling, and how
//! often something was scheduled.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::cgroup::{CtCgroup, DEFAULT_CPUUNITS, Error};

/// The clock ticks of OpenVZ's 2.6.32, in a second (`CONFIG_HZ`).
const HZ: u128 = 1000;

/// What `fairsched` gave a container of this weight: `500000 / cpuunits`.
const WEIGHTS: u64 = 500_000;

/// One container. Times are since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Schedule {
    user: Duration,
    system: Duration,
    used: Duration,
    uptime: Duration,
    cpuunits: u64,
    /// Of CPU time, thousandths of one CPU; 0: no limit.
    limit_milli: u64,
    tasks: u64,
}

impl Schedule {
    /// Of the container whose first process was started then: clock ticks since boot.
    ///
    /// # Errors
    /// The cgroup is gone.
    pub(crate) fn of(cgroup: &CtCgroup, start_ticks: u64) -> Result<Self, Error> {
        let usage = cgroup.usage()?;
        let started = Duration::from_millis(start_ticks.saturating_mul(1000) / rustix::param::clock_ticks_per_second());
        let now = Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default();
        Ok(Self {
            user: usage.cpu_user,
            system: usage.cpu_system,
            used: usage.cpu,
            uptime: now.saturating_sub(started),
            cpuunits: cgroup.cpuunits()?.unwrap_or(DEFAULT_CPUUNITS),
            limit_milli: cgroup.cpu_grant()?.quota_milli.unwrap_or(0),
            tasks: usage.pids.unwrap_or(0),
        })
    }
}

/// `/proc/vz/vestat` (K6 `kernel/ve/vecalls.c`): a line of 251 characters, titles, and rows in columns of 20. The first four numbers are in clock ticks,
/// the second uptime and `used` in nanoseconds, for K6's cycles.
pub(crate) fn vestat(rows: &[(u32, Schedule)]) -> String {
    const TITLES: [&str; 12] =
        ["VEID", "user", "nice", "system", "uptime", "idle", "strv", "uptime", "used", "maxlat", "totlat", "numsched"];
    let line = |cells: &[String]| cells.iter().map(|cell| format!("{cell:>20}")).collect::<Vec<_>>().join(" ") + "\n";
    let mut out = format!("{:<251}\n", "Version: 2.2");
    out += &line(&TITLES.map(str::to_owned));
    for (ctid, row) in rows {
        let ticks = |time: Duration| time.as_micros() * HZ / 1_000_000;
        let cells: [u128; 12] = [
            u128::from(*ctid),
            ticks(row.user),
            0,
            ticks(row.system),
            ticks(row.uptime),
            0,
            0,
            row.uptime.as_nanos(),
            row.used.as_nanos(),
            0,
            0,
            0,
        ];
        out += &line(&cells.map(|cell| cell.to_string()));
    }
    out
}

/// `/proc/fairsched`: a row for each container. `rate` is its limit in 1024ths of a CPU, `cpus` that in whole CPUs, 0 without one.
pub(crate) fn fairsched(rows: &[(u32, Schedule)]) -> String {
    const WIDTHS: [usize; 12] = [10, 10, 10, 6, 5, 5, 5, 4, 3, 5, 20, 20];
    const TITLES: [&str; 12] =
        ["veid", "id", "parent", "weight", "rate", "tasks", "run", "cpus", "flg", "ready", "value", "delay"];
    let line = |cells: &[String]| {
        let cells = cells.iter().zip(WIDTHS).map(|(cell, width)| format!("{cell:>width$}"));
        cells.collect::<Vec<_>>().join(" ") + "\n"
    };
    let mut out = "Version: 2.6 debug\n".to_owned();
    out += &line(&TITLES.map(str::to_owned));
    for (ctid, row) in rows {
        let flag = if row.limit_milli > 0 { "L." } else { ".." };
        out += &line(&[
            ctid.to_string(),
            ctid.to_string(),
            "0".to_owned(),
            (WEIGHTS / row.cpuunits.max(1)).max(1).to_string(),
            (row.limit_milli.saturating_mul(1024) / 1000).to_string(),
            row.tasks.to_string(),
            "0".to_owned(),
            row.limit_milli.div_ceil(1000).to_string(),
            flag.to_owned(),
            "0".to_owned(),
            "0".to_owned(),
            "0".to_owned(),
        ]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: Schedule = Schedule {
        user: Duration::from_micros(1_234_567),
        system: Duration::from_millis(10),
        used: Duration::from_micros(1_244_567),
        uptime: Duration::from_secs(60),
        cpuunits: 2000,
        limit_milli: 1500,
        tasks: 7,
    };

    #[test]
    fn vestat_has_a_line_of_251_characters_and_columns_of_20() {
        let text = vestat(&[(101, ROW)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.len() == 12 * 21 - 1), "{text}");
        assert_eq!(lines[0].trim_end(), "Version: 2.2");
        assert!(lines[1].starts_with("                VEID                 user "), "{text}");
        let cells: Vec<&str> = lines[2].split_whitespace().collect();
        assert_eq!(cells, ["101", "1234", "0", "10", "60000", "0", "0", "60000000000", "1244567000", "0", "0", "0"]);
        assert_eq!(vestat(&[]).lines().count(), 2, "the titles are there without rows");
    }

    #[test]
    fn fairsched_tells_the_weight_as_its_inverse() {
        let text = fairsched(&[(101, ROW), (102, Schedule { cpuunits: 1000, limit_milli: 0, ..ROW })]);
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["Version:", "2.6", "debug"]);
        assert_eq!(rows[1][..4], ["veid", "id", "parent", "weight"]);
        assert_eq!(rows[2], ["101", "101", "0", "250", "1536", "7", "0", "2", "L.", "0", "0", "0"]);
        assert_eq!(rows[3][3..9], ["500", "0", "7", "0", "0", ".."]);
        let heaviest = fairsched(&[(1, Schedule { cpuunits: u64::MAX, ..ROW })]);
        assert!(heaviest.lines().last().is_some_and(|row| row.split_whitespace().nth(3) == Some("1")), "never 0");
    }
}
