//! OpenVZ's CPU and I/O figures in the kernel's units. Pure.

/// The period of a CPU limit. The kernel's own default; shorter ones cost more timer work, longer ones stall a container longer.
pub const CPU_PERIOD_USEC: u64 = 100_000;
/// The least quota the kernel takes (`min_cfs_quota_period`, 1 ms).
const CPU_QUOTA_MIN_USEC: u64 = 1_000;

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

/// The weight on disks of a container that has no `ioprio` set: that of 4, libvzctl's default.
pub const ORDINARY_IO_WEIGHT: u16 = 500;

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
        assert_eq!(ioprio_to_weight(4), Some(ORDINARY_IO_WEIGHT));
    }
}
