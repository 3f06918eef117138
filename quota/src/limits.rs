//! Disk limits as the configuration has them, and as they work.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Grace time where the configuration has no `QUOTATIME`: three days, in seconds (vzctl, `dq.c`).
pub const DEFAULT_GRACE_S: u64 = 259_200;

/// The word's value in OpenVZ (`LONG_MAX` of a 64-bit host): such a number in a configuration file means no limit.
const UNLIMITED: u64 = i64::MAX as u64;

/// One limit. A number orders below [`Limit::Unlimited`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// No limit.
    Unlimited,
    /// At most so many; the unit is that of the parameter.
    #[serde(untagged)]
    Of(u64),
}

impl Ord for Limit {
    fn cmp(&self, other: &Limit) -> Ordering {
        match (self, other) {
            (Limit::Of(this), Limit::Of(other)) => this.cmp(other),
            (Limit::Of(_), Limit::Unlimited) => Ordering::Less,
            (Limit::Unlimited, Limit::Of(_)) => Ordering::Greater,
            (Limit::Unlimited, Limit::Unlimited) => Ordering::Equal,
        }
    }
}

impl PartialOrd for Limit {
    fn partial_cmp(&self, other: &Limit) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Of(amount) => amount.fmt(f),
            Limit::Unlimited => f.write_str("unlimited"),
        }
    }
}

/// A soft limit, which may be exceeded for the grace time, and a hard one, which may not. `soft <= hard` when it comes from a parser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SoftHard {
    /// May be exceeded during the grace time.
    pub soft: Limit,
    /// Never exceeded.
    pub hard: Limit,
}

impl SoftHard {
    /// No limit at all.
    pub const UNLIMITED: SoftHard = SoftHard { soft: Limit::Unlimited, hard: Limit::Unlimited };
}

/// As configuration files have it: `2097152:2306867`.
impl fmt::Display for SoftHard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.soft, self.hard)
    }
}

/// What the configuration says about the disk of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskLimits {
    /// `DISKSPACE`, in KiB.
    pub space_kib: SoftHard,
    /// `DISKINODES`, a count.
    pub inodes: SoftHard,
    /// `QUOTATIME`, in seconds; `None` where the configuration has none.
    pub grace_s: Option<u64>,
}

/// The limits that a kernel is to enforce. Without grace the soft and the hard limits are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectiveLimits {
    /// Space in KiB.
    pub space_kib: SoftHard,
    /// Number of inodes.
    pub inodes: SoftHard,
    /// How long a soft limit may stay exceeded, in seconds; `None` when no soft limit lies below its hard one.
    pub grace_s: Option<u64>,
}

impl DiskLimits {
    /// The limits as they work. `QUOTATIME=0`, which every OpenVZ sample has, lets a soft limit expire the moment it is exceeded:
    /// it acts as the hard one (kernel 2.6.32 of OpenVZ, `vzdq_ops.c`). No `QUOTATIME` is [`DEFAULT_GRACE_S`]. A limit of nothing is one of 1, for
    /// the kernel takes 0 for no limit.
    pub fn effective(&self) -> EffectiveLimits {
        let grace_s = self.grace_s.unwrap_or(DEFAULT_GRACE_S);
        let [space_kib, inodes] = [self.space_kib, self.inodes].map(|configured| {
            let [soft, hard] = [configured.soft, configured.hard].map(|limit| limit.max(Limit::Of(1)));
            let soft = soft.min(hard);
            let hard = if grace_s == 0 { soft } else { hard };
            SoftHard { soft, hard }
        });
        let soft_matters = space_kib.soft < space_kib.hard || inodes.soft < inodes.hard;
        EffectiveLimits { space_kib, inodes, grace_s: soft_matters.then_some(grace_s) }
    }
}

/// Why a value of `DISKSPACE` or `DISKINODES` is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not `amount` or `soft:hard`.
    #[error("`{0}` is not a limit: expected an amount or soft:hard, such as 2G:2.2G or unlimited")]
    NotALimit(String),
    /// The soft limit lies above the hard one.
    #[error("the soft limit {soft} is above the hard limit {hard}")]
    SoftAboveHard {
        /// As parsed.
        soft: Limit,
        /// As parsed.
        hard: Limit,
    },
}

/// What a number without a suffix counts, and what is left of one with a suffix.
#[derive(Clone, Copy)]
struct Unit {
    plain: u128,
    divisor: u128,
}

/// Parses a value of `DISKSPACE`: KiB, or a number (fractions too) with a suffix T, G, M, K, P (pages of 4 KiB) or B (bytes) in either case,
/// or `unlimited`; one for both limits or `soft:hard`. Parts of a KiB are dropped, as vzctl drops them.
///
/// # Errors
/// See [`ParseError`].
pub fn parse_space_kib(text: &str) -> Result<SoftHard, ParseError> {
    parse(text, Unit { plain: 1024, divisor: 1024 })
}

/// Parses a value of `DISKINODES`: as [`parse_space_kib`], but a plain number is a count and a suffix only multiplies (`200K` is 204800).
///
/// # Errors
/// See [`ParseError`].
pub fn parse_inodes(text: &str) -> Result<SoftHard, ParseError> {
    parse(text, Unit { plain: 1, divisor: 1 })
}

fn parse(text: &str, unit: Unit) -> Result<SoftHard, ParseError> {
    let amount = |part: &str| parse_amount(part, unit).ok_or_else(|| ParseError::NotALimit(text.to_owned()));
    let (soft, hard) = match text.split_once(':') {
        Some((soft, hard)) => (amount(soft)?, amount(hard)?),
        None => (amount(text)?, amount(text)?),
    };
    if soft > hard {
        return Err(ParseError::SoftAboveHard { soft, hard });
    }
    Ok(SoftHard { soft, hard })
}

/// Exact decimal arithmetic: a float would lose KiBs above 8 PiB and round where vzctl truncates.
fn parse_amount(text: &str, unit: Unit) -> Option<Limit> {
    if text == "unlimited" {
        return Some(Limit::Unlimited);
    }
    let (number, multiplier) = match text.char_indices().next_back()? {
        (at, suffix) if suffix.is_ascii_alphabetic() => (&text[..at], multiplier(suffix)?),
        _ => (text, unit.plain),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    // Twelve digits of a fraction reach below a byte of a TiB; further ones cannot change the result by more than one unit.
    let fraction = &fraction[..fraction.len().min(12)];
    let scale = 10_u128.pow(fraction.len() as u32);
    // More digits than a u128 holds, or than LONG_MAX, is unlimited: vzctl caps there too.
    let whole: Option<u128> = whole.parse().ok();
    let amount = whole
        .and_then(|whole| whole.checked_mul(scale)?.checked_add(fraction.parse().ok()?)?.checked_mul(multiplier))
        .map(|scaled| scaled / scale / unit.divisor)
        .and_then(|amount| u64::try_from(amount).ok());
    match amount {
        Some(amount) if amount < UNLIMITED => Some(Limit::Of(amount)),
        _ => Some(Limit::Unlimited),
    }
}

fn multiplier(suffix: char) -> Option<u128> {
    Some(match suffix.to_ascii_uppercase() {
        'T' => 1 << 40,
        'G' => 1 << 30,
        'M' => 1 << 20,
        'K' => 1 << 10,
        'P' => 4096,
        'B' => 1,
        _ => return None,
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that fails here has failed")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(soft: u64, hard: u64) -> SoftHard {
        SoftHard { soft: Limit::Of(soft), hard: Limit::Of(hard) }
    }

    #[test]
    fn the_samples_values_are_read_as_vzctl_reads_them() {
        assert_eq!(parse_space_kib("2G:2.2G"), Ok(of(2_097_152, 2_306_867)));
        assert_eq!(parse_space_kib("1G:1.1G"), Ok(of(1_048_576, 1_153_433)));
        assert_eq!(parse_inodes("131072:144179"), Ok(of(131_072, 144_179)));
    }

    #[test]
    fn a_single_value_is_both_limits() {
        assert_eq!(parse_space_kib("10.0G"), Ok(of(10_485_760, 10_485_760)));
        assert_eq!(parse_inodes("200000"), Ok(of(200_000, 200_000)));
    }

    #[test]
    fn space_without_a_suffix_is_in_kib_and_inodes_are_counted() {
        assert_eq!(parse_space_kib("1048576"), Ok(of(1_048_576, 1_048_576)));
        assert_eq!(parse_space_kib("1.5"), Ok(of(1, 1)));
        assert_eq!(parse_inodes("200K:1m"), Ok(of(204_800, 1_048_576)));
    }

    #[test]
    fn every_suffix_has_its_size() {
        for (text, kib) in [
            ("1T", 1 << 30),
            ("1g", 1 << 20),
            ("1M", 1024),
            ("7k", 7),
            ("3P", 12),
            ("2048B", 2),
            ("2047b", 1),
            ("0.5K", 0),
        ] {
            assert_eq!(parse_space_kib(text), Ok(of(kib, kib)), "{text}");
        }
    }

    #[test]
    fn unlimited_is_a_word_and_a_huge_number() {
        assert_eq!(parse_space_kib("unlimited"), Ok(SoftHard::UNLIMITED));
        assert_eq!(parse_inodes("9223372036854775807:9223372036854775807"), Ok(SoftHard::UNLIMITED));
        assert_eq!(parse_space_kib("99999999999999999999999999999999999999999999G"), Ok(SoftHard::UNLIMITED));
        assert_eq!(
            parse_space_kib("1G:unlimited").map(|limits| limits.to_string()),
            Ok("1048576:unlimited".to_owned())
        );
    }

    #[test]
    fn what_is_not_a_limit_is_refused() {
        for text in [
            "",
            ":",
            "1G:",
            ":1G",
            "G",
            "1GB",
            "1X",
            "-1",
            "+1",
            " 1",
            "1 ",
            "1e5",
            ".5G",
            "1.G",
            "0x10",
            "1:2:3",
            "Unlimited",
            "1µ",
            "nan",
        ] {
            assert_eq!(parse_space_kib(text), Err(ParseError::NotALimit(text.to_owned())), "{text:?}");
        }
        assert_eq!(parse_inodes("2:1"), Err(ParseError::SoftAboveHard { soft: Limit::Of(2), hard: Limit::Of(1) }));
    }

    #[test]
    fn without_quotatime_a_soft_limit_holds_for_three_days() {
        let configured = DiskLimits { space_kib: of(10, 20), inodes: of(5, 5), grace_s: None };
        let expected = EffectiveLimits { space_kib: of(10, 20), inodes: of(5, 5), grace_s: Some(259_200) };
        assert_eq!(configured.effective(), expected);
    }

    #[test]
    fn with_quotatime_zero_the_soft_limit_is_the_hard_one() {
        let configured = DiskLimits { space_kib: of(10, 20), inodes: of(5, 6), grace_s: Some(0) };
        let expected = EffectiveLimits { space_kib: of(10, 10), inodes: of(5, 5), grace_s: None };
        assert_eq!(configured.effective(), expected);
    }

    #[test]
    fn a_limit_of_nothing_works_as_the_least_there_is() {
        let configured = DiskLimits { space_kib: of(0, 0), inodes: of(0, 5), grace_s: Some(60) };
        assert_eq!((configured.effective().space_kib, configured.effective().inodes), (of(1, 1), of(1, 5)));
    }

    #[test]
    fn grace_is_only_told_where_a_soft_limit_lies_below_its_hard_one() {
        let configured = DiskLimits { space_kib: of(10, 10), inodes: SoftHard::UNLIMITED, grace_s: Some(60) };
        assert_eq!(configured.effective().grace_s, None);
    }

    #[test]
    fn limits_are_numbers_or_a_word_in_json() {
        let limits = SoftHard { soft: Limit::Of(5), hard: Limit::Unlimited };
        let json = serde_json::to_string(&limits).unwrap();
        assert_eq!(json, r#"{"soft":5,"hard":"unlimited"}"#);
        assert_eq!(serde_json::from_str::<SoftHard>(&json).unwrap(), limits);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(soft in 0..UNLIMITED, more in 0..UNLIMITED) {
            let limits = of(soft, soft.saturating_add(more).min(UNLIMITED - 1));
            prop_assert_eq!(parse_space_kib(&limits.to_string()), Ok(limits));
            prop_assert_eq!(parse_inodes(&limits.to_string()), Ok(limits));
        }

        #[test]
        fn no_text_breaks_the_parser(text in "\\PC*") {
            let _ = parse_space_kib(&text);
            let _ = parse_inodes(&text);
        }
    }
}
