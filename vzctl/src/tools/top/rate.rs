//! From two looks to rates: the arithmetic of `vztop`. Pure.

use std::time::Duration;

use vzrt::Ctid;
use vzrt::cgroup::{Competitor, entitled};

use super::sample::{Look, Machine, Sample};

/// A container over an interval. `None`: this host does not count it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) ctid: Ctid,
    /// As it is now.
    pub(super) now: Sample,
    /// CPU time used, percent of one CPU.
    pub(super) cpu_percent: f64,
    /// What it could have had, by its weight and its limit, beside what the others did: percent of one CPU.
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
        let entitled = entitlements(before, &after, interval);
        let Look { machine, containers, .. } = after;
        let row = |(ctid, now): (Ctid, Sample)| {
            let then = before.containers.get(&ctid).filter(|then| then.life == now.life).unwrap_or(&now).clone();
            row(ctid, &then, now, interval)
        };
        let rows = containers.into_iter().map(row);
        let rows = rows.zip(entitled).map(|(row, entitled_percent)| Row { entitled_percent, ..row }).collect();
        let cpu_percent = percent(before.machine.busy, machine.busy, interval);
        Self { interval, machine, cpu_percent, rows }
    }
}

fn row(ctid: Ctid, then: &Sample, now: Sample, interval: Duration) -> Row {
    let (a, b) = (&then.activity, &now.activity);
    let io = a.io.zip(b.io);
    let net = then.network.zip(now.network);
    Row {
        ctid,
        cpu_percent: percent(a.cpu, b.cpu, interval),
        entitled_percent: None,
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

/// Who uses at least so much of what is its own is busy: it would take what others leave.
const BUSY: f64 = 0.9;

/// What each could have had, in percent of one CPU: its part by weight, not more than its limit, and what those leave who are idle or at their limits.
/// The host, and containers that are not shown, count as busy: nothing is promised that they may want. `None`: nobody has weighed it.
#[expect(clippy::cast_precision_loss, reason = "weights and CPUs are small")]
fn entitlements(before: &Look, after: &Look, interval: Duration) -> Vec<Option<f64>> {
    let cpus = after.machine.cpus as f64;
    let mut shown = 0u64;
    let mut capped = Vec::new();
    for sample in after.containers.values() {
        let units = sample.activity.cpuunits.unwrap_or(0);
        shown = shown.saturating_add(units);
        let most = sample.activity.cpu_limit_milli.map_or(cpus, |milli| (milli as f64 / 1000.0).min(cpus));
        capped.push(Competitor { weight: units as f64, most });
    }
    capped.push(Competitor { weight: after.all_units.saturating_sub(shown) as f64, most: cpus });
    let own = entitled(&capped, cpus);
    let used = after.containers.iter().map(|(ctid, now)| {
        let then = before.containers.get(ctid).filter(|then| then.life == now.life).unwrap_or(now);
        percent(then.activity.cpu, now.activity.cpu, interval) / 100.0
    });
    let as_used: Vec<Competitor> = capped
        .iter()
        .zip(used.chain([cpus]))
        .zip(&own)
        .map(|((one, used), own)| if used >= BUSY * own { *one } else { Competitor { most: used, ..*one } })
        .collect();
    let together = entitled(&as_used, cpus);
    let percent_of = |(at, sample): (usize, &Sample)| {
        sample.activity.cpuunits?;
        // Who is busy has it; who is not could have at least this much at once.
        Some(100.0 * if as_used[at].most < capped[at].most { own[at] } else { together[at] })
    };
    after.containers.values().enumerate().map(percent_of).collect()
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

    /// What two containers of 1000 units, beside a host of 1000, are entitled to, each having used so many seconds in two.
    fn of_two(used_ms: [u64; 2], limit_milli: Option<u64>) -> [f64; 2] {
        let at = |index: usize, used: bool| {
            let mut one = sample(if used { used_ms[index] } else { 0 });
            one.activity.cpu_limit_milli = limit_milli.filter(|_| index == 0);
            (101 + u32::try_from(index).unwrap(), one)
        };
        let begun = Instant::now();
        let mut after = look(begun + Duration::from_secs(2), &[at(0, true), at(1, true)]);
        after.all_units = 3000;
        let round = Round::between(&look(begun, &[at(0, false), at(1, false)]), after);
        [0, 1].map(|index| round.rows[index].entitled_percent.unwrap().round())
    }

    #[test]
    fn a_weight_is_a_part_of_all_cpus_and_what_the_capped_and_the_idle_leave_is_the_others() {
        let cpus: f64 = 4.0;
        let third = (100.0 * cpus / 3.0).round();
        assert_eq!(of_two([4000, 4000], None), [third; 2], "all are busy, the host counts as busy");
        let capped = of_two([600, 4000], Some(300));
        assert_eq!(capped, [30.0, ((100.0 * cpus - 30.0) / 2.0).round()], "a cap is a part that others have");
        assert_eq!(of_two([0, 4000], None), [third, (50.0 * cpus).round()], "the idle keep their claim");
    }
}
