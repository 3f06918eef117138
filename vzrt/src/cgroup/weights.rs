//! OpenVZ's CPU and I/O figures in the kernel's units. Pure.

/// The period of a CPU limit. The kernel's own default; shorter ones cost more timer work, longer ones stall a container longer.
pub const CPU_PERIOD_USEC: u64 = 100_000;
/// The least quota the kernel takes (`min_cfs_quota_period`, 1 ms).
const CPU_QUOTA_MIN_USEC: u64 = 1_000;

/// `cpuunits` (8..=500000, default 1000) as cgroup v1 `cpu.shares`, default 1024. libvzctl: `cpuunits * 1024 / 1000`; the kernel
/// keeps shares within 2..=262144 (`MIN_SHARES`, `MAX_SHARES`), so the result shows what will really be in force.
#[must_use]
pub fn cpuunits_to_shares(cpuunits: u64) -> u64 {
    (cpuunits.saturating_mul(1024) / 1000).clamp(2, 262_144)
}

/// `cpuunits` as cgroup v2 `cpu.weight`, default 100. libvzctl: `cpuunits / 10`, within the kernel's 1..=10000.
#[must_use]
pub fn cpuunits_to_weight(cpuunits: u64) -> u64 {
    (cpuunits / 10).clamp(1, 10_000)
}

/// The v2 weight of a number of v1 shares. It goes back through cpuunits, so that the 1000 of a default container is 100 on v2, the
/// weight of everything else on the host. runc, crun and cgroups-rs bend 2..262144 onto 1..10000 and turn the default into 39.
#[must_use]
pub fn shares_to_weight(shares: u64) -> u64 {
    cpuunits_to_weight(shares_to_cpuunits(shares))
}

/// The `cpuunits` that v1 shares stand for.
#[must_use]
pub fn shares_to_cpuunits(shares: u64) -> u64 {
    shares.saturating_mul(1000).div_ceil(1024)
}

/// The `cpuunits` that a v2 weight stands for, as far as it tells: it is ten times coarser.
#[must_use]
pub fn weight_to_cpuunits(weight: u64) -> u64 {
    weight.saturating_mul(10)
}

/// `cpulimit` (percent of one CPU, 0 = no limit) and `cpus` (number of CPUs, 0 = all) as a quota per [`CPU_PERIOD_USEC`]; `None` is no
/// limit. The lower of the two counts (`cpulimit`, `cpus * 100`), as vzctl did it on kernels other than OpenVZ's.
#[must_use]
pub fn cpu_quota_usec(cpulimit_percent: u32, cpus: u32) -> Option<u64> {
    let of_cpus = u64::from(cpus) * 100;
    let percent = match (u64::from(cpulimit_percent), of_cpus) {
        (0, 0) => return None,
        (0, only) | (only, 0) => only,
        (limit, cpus) => limit.min(cpus),
    };
    Some((CPU_PERIOD_USEC * percent / 100).max(CPU_QUOTA_MIN_USEC))
}

/// `ioprio` (0..=7, default 4) as a weight of block I/O, the table of libvzctl. `None` when out of range.
#[must_use]
pub fn ioprio_to_weight(ioprio: u8) -> Option<u16> {
    const WEIGHTS: [u16; 8] = [320, 365, 410, 460, 500, 550, 600, 640];
    WEIGHTS.get(usize::from(ioprio)).copied()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    #[test]
    fn cpuunits_come_back_from_what_the_kernel_keeps() {
        for units in [8, 250, 1000, 1001, 2000, 100_000] {
            assert_eq!(shares_to_cpuunits(cpuunits_to_shares(units)), units);
        }
        for (units, coarse) in [(250, 250), (1000, 1000), (1005, 1000), (8, 10)] {
            assert_eq!(weight_to_cpuunits(cpuunits_to_weight(units)), coarse);
        }
    }

    #[test]
    fn a_default_container_weighs_the_kernels_default_on_both_versions() {
        assert_eq!(cpuunits_to_shares(1000), 1024);
        assert_eq!(cpuunits_to_weight(1000), 100);
        assert_eq!(shares_to_weight(1024), 100);
    }

    #[test]
    fn cpuunits_at_the_ends_of_their_range_stay_within_the_kernels() {
        assert_eq!((cpuunits_to_shares(8), cpuunits_to_weight(8)), (8, 1));
        assert_eq!((cpuunits_to_shares(500_000), cpuunits_to_weight(500_000)), (262_144, 10_000));
        assert_eq!((cpuunits_to_shares(0), cpuunits_to_weight(0)), (2, 1));
        assert_eq!(cpuunits_to_shares(u64::MAX), 262_144);
        assert_eq!(shares_to_weight(u64::MAX), 10_000);
    }

    #[test]
    fn shares_lead_back_to_the_weight_of_the_same_cpuunits() {
        for cpuunits in 8..=100_000 {
            assert_eq!(shares_to_weight(cpuunits_to_shares(cpuunits)), cpuunits_to_weight(cpuunits), "{cpuunits}");
        }
    }

    #[test]
    fn the_lower_of_cpulimit_and_cpus_counts_and_zero_is_no_limit() {
        for (cpulimit, cpus, quota) in [
            (0, 0, None),
            (50, 0, Some(50_000)),
            (200, 0, Some(200_000)),
            (0, 2, Some(200_000)),
            (150, 1, Some(100_000)),
            (50, 4, Some(50_000)),
            (1, 0, Some(1_000)),
            (u32::MAX, u32::MAX, Some(u64::from(u32::MAX) * 1000)),
        ] {
            assert_eq!(cpu_quota_usec(cpulimit, cpus), quota, "{cpulimit} {cpus}");
        }
    }

    #[test]
    fn ioprio_has_eight_rising_weights() {
        let weights: Vec<_> = (0..8).map(|p| ioprio_to_weight(p).unwrap()).collect();
        assert_eq!(weights, [320, 365, 410, 460, 500, 550, 600, 640]);
        assert_eq!(ioprio_to_weight(8), None);
    }
}
