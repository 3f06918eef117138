//! From two looks to rates: the arithmetic of `vztop`. Pure.

use std::time::Duration;

use vzrt::Ctid;

use super::sample::{Look, Machine, Sample};

/// A container over an interval. `None`: this host does not count it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) ctid: Ctid,
    /// As it is now.
    pub(super) now: Sample,
    /// CPU time used, percent of one CPU.
    pub(super) cpu_percent: f64,
    /// What its weight gives it when everybody is busy, and its limit lets it have: percent of one CPU.
    pub(super) entitled_percent: Option<f64>,
    /// For how long its limit kept CPUs from it, percent of one CPU.
    pub(super) throttled_percent: Option<f64>,
    pub(super) read_bytes_per_s: Option<f64>,
    pub(super) written_bytes_per_s: Option<f64>,
    pub(super) reads_per_s: Option<f64>,
    pub(super) writes_per_s: Option<f64>,
    pub(super) network_in_bytes_per_s: Option<f64>,
    pub(super) network_out_bytes_per_s: Option<f64>,
}

/// All containers and the host over an interval.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Round {
    pub(super) interval: Duration,
    pub(super) machine: Machine,
    /// Of all its CPUs: as many times 100 as there are.
    pub(super) cpu_percent: f64,
    pub(super) rows: Vec<Row>,
}

impl Round {
    /// What came of it between two looks. One that was not there at the first, or is another life of the same number, did nothing that was seen.
    pub(super) fn between(before: &Look, after: Look) -> Self {
        let interval = after.at.saturating_duration_since(before.at);
        let Look { machine, all_units, containers, .. } = after;
        let row = |(ctid, now): (Ctid, Sample)| {
            let then = before.containers.get(&ctid).filter(|then| then.life == now.life).unwrap_or(&now).clone();
            row(ctid, &then, now, interval, machine.cpus, all_units)
        };
        let rows = containers.into_iter().map(row).collect();
        let cpu_percent = percent(before.machine.busy, machine.busy, interval);
        Self { interval, machine, cpu_percent, rows }
    }
}

fn row(ctid: Ctid, then: &Sample, now: Sample, interval: Duration, cpus: usize, all_units: u64) -> Row {
    let (a, b) = (&then.activity, &now.activity);
    let io = a.io.zip(b.io);
    let net = then.network.zip(now.network);
    Row {
        ctid,
        cpu_percent: percent(a.cpu, b.cpu, interval),
        entitled_percent: b.cpuunits.map(|units| entitled(units, all_units, cpus, b.cpu_limit_milli)),
        throttled_percent: a.throttled.zip(b.throttled).map(|(a, b)| percent(a, b, interval)),
        read_bytes_per_s: io.map(|(a, b)| per_s(a.read_bytes, b.read_bytes, interval)),
        written_bytes_per_s: io.map(|(a, b)| per_s(a.written_bytes, b.written_bytes, interval)),
        reads_per_s: io.map(|(a, b)| per_s(a.reads, b.reads, interval)),
        writes_per_s: io.map(|(a, b)| per_s(a.writes, b.writes, interval)),
        network_in_bytes_per_s: net.map(|(a, b)| per_s(a.in_bytes, b.in_bytes, interval)),
        network_out_bytes_per_s: net.map(|(a, b)| per_s(a.out_bytes, b.out_bytes, interval)),
        now,
    }
}

/// A counter that has gone back was begun anew: nothing is known of the interval.
#[expect(clippy::cast_precision_loss, reason = "a rate of more than 53 bits is shown with three digits")]
fn per_s(before: u64, after: u64, interval: Duration) -> f64 {
    over(after.saturating_sub(before) as f64, interval)
}

fn percent(before: Duration, after: Duration, interval: Duration) -> f64 {
    over(after.saturating_sub(before).as_secs_f64() * 100.0, interval)
}

fn over(amount: f64, interval: Duration) -> f64 {
    if interval.is_zero() { 0.0 } else { amount / interval.as_secs_f64() }
}

/// The part of the host's CPUs that a weight is of all weights, not more than the limit. What others leave unused comes on top of it.
#[expect(clippy::cast_precision_loss, reason = "weights and CPUs are small")]
fn entitled(units: u64, all_units: u64, cpus: usize, limit_milli: Option<u64>) -> f64 {
    let share = 100.0 * cpus as f64 * units as f64 / all_units.max(1) as f64;
    limit_milli.map_or(share, |milli| share.min(milli as f64 / 10.0))
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Instant;

    use vzrt::cgroup::{Activity, BlockIo, Waiting};

    use super::super::sample::Network;
    use super::*;

    pub(in super::super) fn ctid(number: u32) -> Ctid {
        number.try_into().unwrap()
    }

    /// A container that has done `n` of everything.
    pub(in super::super) fn sample(n: u64) -> Sample {
        let activity = Activity {
            cpu: Duration::from_millis(n),
            cpu_user: Duration::ZERO,
            cpu_system: Duration::ZERO,
            throttled: Some(Duration::from_millis(n)),
            cpuunits: Some(1000),
            cpu_limit_milli: None,
            io: Some(BlockIo { read_bytes: n, written_bytes: 2 * n, reads: 3 * n, writes: 4 * n }),
            memory_bytes: Some(n),
            memory_limit_bytes: None,
            swap_bytes: None,
            tasks: Some(n),
            waiting: Waiting::default(),
        };
        let network = Some(Network { in_bytes: 5 * n, out_bytes: 6 * n });
        Sample { life: (1, 1), name: None, activity, network }
    }

    pub(in super::super) fn look(at: Instant, containers: &[(u32, Sample)]) -> Look {
        let machine = Machine {
            load: [0.5, 0.25, 0.0],
            cpus: 4,
            busy: Duration::from_secs(10),
            memory_bytes: 1 << 30,
            memory_used_bytes: 1 << 29,
            swap_bytes: 0,
            swap_used_bytes: 0,
        };
        let containers = containers.iter().map(|(n, sample)| (ctid(*n), sample.clone())).collect();
        Look { at, machine, all_units: 2000, containers }
    }

    fn two_seconds(before: &[(u32, Sample)], after: &[(u32, Sample)]) -> Round {
        let at = Instant::now();
        let mut after = look(at + Duration::from_secs(2), after);
        after.machine.busy += Duration::from_secs(3);
        Round::between(&look(at, before), after)
    }

    #[test]
    fn rates_are_by_the_second_and_percent_of_one_cpu() {
        let round = two_seconds(&[(101, sample(1000))], &[(101, sample(3000))]);
        let row = &round.rows[0];
        assert_eq!((row.cpu_percent, row.throttled_percent), (100.0, Some(100.0)));
        assert_eq!((row.read_bytes_per_s, row.written_bytes_per_s), (Some(1000.0), Some(2000.0)));
        assert_eq!((row.reads_per_s, row.writes_per_s), (Some(3000.0), Some(4000.0)));
        assert_eq!((row.network_in_bytes_per_s, row.network_out_bytes_per_s), (Some(5000.0), Some(6000.0)));
        assert_eq!(round.cpu_percent, 150.0);
        assert_eq!(round.interval, Duration::from_secs(2));
    }

    #[test]
    fn who_has_come_or_was_restarted_has_done_nothing_yet_and_who_has_gone_is_gone() {
        let mut other = sample(3000);
        other.life = (2, 2);
        let round = two_seconds(&[(101, sample(1000)), (103, sample(1))], &[(101, other), (102, sample(5))]);
        let seen: Vec<_> = round.rows.iter().map(|row| (row.ctid.get(), row.cpu_percent)).collect();
        assert_eq!(seen, [(101, 0.0), (102, 0.0)]);
    }

    #[test]
    fn counters_that_went_back_and_no_time_at_all_are_zero() {
        let round = two_seconds(&[(101, sample(3000))], &[(101, sample(1000))]);
        assert_eq!((round.rows[0].cpu_percent, round.rows[0].reads_per_s), (0.0, Some(0.0)));
        let at = Instant::now();
        let round = Round::between(&look(at, &[(101, sample(1))]), look(at, &[(101, sample(2))]));
        assert_eq!(round.rows[0].cpu_percent, 0.0);
    }

    #[test]
    fn what_is_not_counted_has_no_rate() {
        let mut bare = sample(1);
        (bare.activity.io, bare.activity.throttled, bare.activity.cpuunits, bare.network) = (None, None, None, None);
        let round = two_seconds(&[(101, sample(1))], &[(101, bare)]);
        let row = &round.rows[0];
        assert_eq!((row.reads_per_s, row.throttled_percent, row.entitled_percent), (None, None, None));
        assert_eq!(row.network_in_bytes_per_s, None);
    }

    #[test]
    fn a_weight_is_a_part_of_all_cpus_and_a_limit_caps_it() {
        assert_eq!(entitled(1000, 4000, 2, None), 50.0);
        assert_eq!(entitled(1000, 4000, 2, Some(300)), 30.0);
        assert_eq!(entitled(1000, 4000, 2, Some(1500)), 50.0);
        assert_eq!(entitled(0, 0, 2, None), 0.0);
    }
}
