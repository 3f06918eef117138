//! VSwap, the simple mode: RAM and swap are given, and everything else follows from them.

use crate::amount::{Amount, BadAmount, UNLIMITED, Unit};
use crate::bound::{BadBound, Bound};
use crate::resource::Resource;
use crate::set::Set;

/// What 32-bit tools wrote for "unlimited".
const INT_MAX: u64 = i32::MAX as u64;

/// RAM is bounded but swap is not said: V4 ends with 28, `required UB parameter (swap) not set`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("required UB parameter (swap) not set")]
pub struct SwapNotSet;

/// Whether a configuration is of the simple mode: its physpages have a limit (V4 `is_vswap_config`).
#[must_use]
pub fn is_vswap(set: &Set) -> bool {
    set.get(Resource::Physpages).is_some_and(|ram| !matches!(ram.limit().count(), UNLIMITED | INT_MAX))
}

/// What `--ram SIZE` says: physpages of `0:SIZE`. A number without a suffix is bytes, and part of a page becomes a whole one (V4 `parse_vswap`).
///
/// # Errors
/// The text is not one size.
pub fn ram(text: &str) -> Result<Bound, BadBound> {
    size(Resource::Physpages, text)
}

/// What `--swap SIZE` says: swappages of `0:SIZE`, read as [`ram`] reads its own.
///
/// # Errors
/// The text is not one size.
pub fn swap(text: &str) -> Result<Bound, BadBound> {
    size(Resource::Swappages, text)
}

fn size(resource: Resource, text: &str) -> Result<Bound, BadBound> {
    let bytes = Amount::parse(Unit::Bytes, text).map_err(|source: BadAmount| BadBound {
        resource,
        text: text.to_owned(),
        source,
    })?;
    Ok(Bound::new(resource, 0, Amount::pages_for(bytes.count()).count()))
}

/// The set with what the simple mode derives (V4 `fill_vswap_ub`); a set that [is not of it](is_vswap) as it was.
///
/// What was said stays; the rest becomes: lockedpages `ram:ram`, oomguarpages `ram:unlimited`, vmguarpages `ram+swap:unlimited`, and
/// privvmpages (ram+swap) times `vm_overcommit`, barrier and limit, or unlimited without one (`None`, zero, or not a positive number).
///
/// # Errors
/// [`SwapNotSet`]: RAM has a limit and nothing is said of swap.
pub fn fill(set: &Set, vm_overcommit: Option<f64>) -> Result<Set, SwapNotSet> {
    let mut filled = set.clone();
    let Some(ram) = set.get(Resource::Physpages).filter(|_| is_vswap(set)) else {
        return Ok(filled);
    };
    let ram = ram.limit().count();
    let swap = set.get(Resource::Swappages).ok_or(SwapNotSet)?.limit().count();
    // Both are at most half of what 64 bits hold, and Bound::new takes what is past UNLIMITED for unlimited.
    let both = ram + swap;
    let address_space = vm_overcommit.filter(|factor| *factor > 0.0).map_or(UNLIMITED, |factor| scaled(both, factor));
    for derived in [
        Bound::new(Resource::Lockedpages, ram, ram),
        Bound::new(Resource::Oomguarpages, ram, UNLIMITED),
        Bound::new(Resource::Vmguarpages, both, UNLIMITED),
        Bound::new(Resource::Privvmpages, address_space, address_space),
    ] {
        filled.insert_if_absent(derived);
    }
    Ok(filled)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "`as` saturates, the factor is positive, and 53 bits of pages are more than any host has"
)]
fn scaled(pages: u64, factor: f64) -> u64 {
    if pages >= UNLIMITED { UNLIMITED } else { (pages as f64 * factor) as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(values: &[(Resource, &str)]) -> Set {
        values.iter().map(|(resource, text)| Bound::parse(*resource, text).expect("a good bound")).collect()
    }

    fn pages(set: &Set, resource: Resource) -> String {
        set.get(resource).expect("a bound").to_string()
    }

    #[test]
    fn a_configuration_is_of_the_simple_mode_when_its_ram_has_a_limit() {
        assert!(is_vswap(&set(&[(Resource::Physpages, "0:512M")])));
        assert!(is_vswap(&set(&[(Resource::Physpages, "0:0")])));
        for classic in ["0:unlimited", "0:2147483647", "0:9223372036854775807"] {
            assert!(!is_vswap(&set(&[(Resource::Physpages, classic)])), "{classic}");
        }
        assert!(!is_vswap(&Set::default()));
    }

    #[test]
    fn ram_and_swap_are_bytes_rounded_up_to_pages() {
        let page = procfs::page_size();
        assert_eq!(ram("512M").map(|b| b.limit().count()), Ok((512 << 20) / page));
        assert_eq!(ram("1").map(|b| b.to_string()), Ok("0:1".to_owned()));
        assert_eq!(swap("0").map(|b| b.to_string()), Ok("0:0".to_owned()));
        assert_eq!(swap("10P").map(|b| b.to_string()), Ok("0:10".to_owned()));
        assert_eq!(swap("unlimited").map(|b| b.to_string()), Ok("0:unlimited".to_owned()));
        assert!(ram("0:512M").is_err());
        assert_eq!(ram("-5").expect_err("negative").resource, Resource::Physpages);
    }

    #[test]
    fn what_is_not_said_follows_from_ram_and_swap() {
        let given = set(&[(Resource::Physpages, "0:1000"), (Resource::Swappages, "0:2000")]);
        let filled = fill(&given, None).expect("swap is set");
        assert_eq!(pages(&filled, Resource::Lockedpages), "1000:1000");
        assert_eq!(pages(&filled, Resource::Oomguarpages), "1000:unlimited");
        assert_eq!(pages(&filled, Resource::Vmguarpages), "3000:unlimited");
        assert_eq!(pages(&filled, Resource::Privvmpages), "unlimited:unlimited");
        assert_eq!(filled.iter().count(), 6);

        let filled = fill(&given, Some(1.5)).expect("swap is set");
        assert_eq!(pages(&filled, Resource::Privvmpages), "4500:4500");
        for none in [0.0, -1.0, f64::NAN] {
            assert_eq!(
                pages(&fill(&given, Some(none)).expect("swap is set"), Resource::Privvmpages),
                "unlimited:unlimited"
            );
        }
        let filled = fill(&given, Some(f64::INFINITY)).expect("swap is set");
        assert_eq!(pages(&filled, Resource::Privvmpages), "unlimited:unlimited");
    }

    #[test]
    fn what_is_said_stays() {
        let given = set(&[
            (Resource::Physpages, "0:1000"),
            (Resource::Swappages, "0:unlimited"),
            (Resource::Lockedpages, "7"),
            (Resource::Privvmpages, "1:2"),
        ]);
        let filled = fill(&given, Some(2.0)).expect("swap is set");
        assert_eq!(pages(&filled, Resource::Lockedpages), "7:7");
        assert_eq!(pages(&filled, Resource::Privvmpages), "1:2");
        assert_eq!(pages(&filled, Resource::Vmguarpages), "unlimited:unlimited");
    }

    #[test]
    fn ram_without_swap_is_refused_and_a_classic_set_is_left_alone() {
        assert_eq!(fill(&set(&[(Resource::Physpages, "0:1000")]), None), Err(SwapNotSet));
        let classic = set(&[(Resource::Physpages, "0:unlimited"), (Resource::Numproc, "240")]);
        assert_eq!(fill(&classic, Some(2.0)), Ok(classic.clone()));
    }
}
