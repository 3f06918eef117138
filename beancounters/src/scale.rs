//! Bounds that grow or shrink together: the arithmetic of `vzcfgscale`.

use crate::amount::{Amount, UNLIMITED};
use crate::bound::Bound;

/// `count` times `factor`, rounded down. Unlimited stays so, and what there is does not become nothing.
///
/// `factor` is not negative.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "`as` saturates, the factor is not negative, and 53 bits of bytes are more than any host has"
)]
pub fn count(count: u64, factor: f64) -> u64 {
    if count >= UNLIMITED || count == 0 {
        return count.min(UNLIMITED);
    }
    ((count as f64 * factor) as u64).clamp(1, UNLIMITED)
}

/// Barrier and limit times `factor`, as [`count`] takes each.
#[must_use]
pub fn bound(bound: Bound, factor: f64) -> Bound {
    let times = |amount: Amount| count(amount.count(), factor);
    Bound::new(bound.resource(), times(bound.barrier()), times(bound.limit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Resource;
    use crate::rules::{CLASSIC, Host, Severity, check};
    use crate::set::Set;
    use proptest::prelude::*;

    #[test]
    fn unlimited_and_nothing_stay_what_they_are() {
        let scaled =
            |text, factor| bound(Bound::parse(Resource::Vmguarpages, text).expect("a bound"), factor).to_string();
        assert_eq!(scaled("33792:unlimited", 1.5), "50688:unlimited");
        assert_eq!(scaled("0:unlimited", 1.5), "0:unlimited");
        assert_eq!(scaled("1:3", 0.5), "1:1");
        assert_eq!(scaled("7:9", 0.0), "1:1");
        assert_eq!(scaled("4:5", 1e300), "unlimited:unlimited");
    }

    proptest! {
        #[test]
        fn a_barrier_stays_at_its_limit_or_below(barrier: u64, room in 0..1_000_000_u64, factor in 0.0..1000.0_f64) {
            let scaled = bound(Bound::new(Resource::Kmemsize, barrier, barrier.saturating_add(room)), factor);
            prop_assert!(scaled.barrier() <= scaled.limit());
            let equal = bound(Bound::new(Resource::Numproc, barrier, barrier), factor);
            prop_assert_eq!(equal.barrier(), equal.limit());
        }
    }

    #[test]
    fn a_split_node_stays_consistent_when_its_containers_grow() {
        let node = crate::split::Node { ram_bytes: 8 << 30, swap_bytes: 2 << 30, lowmem_bytes: 8 << 30 };
        let set = node.split(10).expect("room for ten");
        let grown: Set = set.iter().map(|b| bound(b, 2.0)).collect();
        let host = Host { ram_pages: 0, swap_pages: 0 };
        assert!(check(CLASSIC, &grown, &host).iter().all(|finding| finding.severity < Severity::Warning));
    }
}
