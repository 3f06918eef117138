//! Counts that know what they count, and the ways people write them.

use std::cmp::Ordering;
use std::fmt;

/// What an unlimited amount is as a number: the kernel's `LONG_MAX`, in files and tables alike.
pub const UNLIMITED: u64 = i64::MAX as u64;

/// The word for [`UNLIMITED`] in configurations and on command lines.
pub const UNLIMITED_WORD: &str = "unlimited";

/// What a resource is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Bytes of memory.
    Bytes,
    /// Pages of memory, of the size this host's kernel has.
    Pages,
    /// Things: processes, sockets, locks.
    Items,
}

impl Unit {
    /// How many bytes one of it is; `None` for things, which have no size.
    #[must_use]
    pub fn bytes(self) -> Option<u64> {
        match self {
            Self::Bytes => Some(1),
            Self::Pages => Some(procfs::page_size()),
            Self::Items => None,
        }
    }
}

/// So many of a unit, from none to [`UNLIMITED`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Amount {
    count: u64,
    unit: Unit,
}

impl Amount {
    /// `count` of `unit`; more than [`UNLIMITED`] is unlimited.
    #[must_use]
    pub const fn new(unit: Unit, count: u64) -> Self {
        Self { count: if count > UNLIMITED { UNLIMITED } else { count }, unit }
    }

    /// No bound at all.
    #[must_use]
    pub const fn unlimited(unit: Unit) -> Self {
        Self::new(unit, UNLIMITED)
    }

    /// What `text` says, as [`parse_count`] reads it for `unit`, rounded down.
    ///
    /// # Errors
    /// Those of [`parse_count`].
    pub fn parse(unit: Unit, text: &str) -> Result<Self, BadAmount> {
        parse_count(text, unit.bytes()).map(|count| Self::new(unit, count))
    }

    /// The number, in its own unit: what the tables show.
    #[must_use]
    pub const fn count(self) -> u64 {
        self.count
    }

    /// What it counts.
    #[must_use]
    pub const fn unit(self) -> Unit {
        self.unit
    }

    /// Whether it stands for "no bound".
    #[must_use]
    pub const fn is_unlimited(self) -> bool {
        self.count == UNLIMITED
    }

    /// The number, or `None` when unlimited: what a cgroup file wants is then `max`.
    #[must_use]
    pub const fn finite(self) -> Option<u64> {
        if self.is_unlimited() { None } else { Some(self.count) }
    }

    /// The same amount in bytes: unlimited stays so, and what is too many bytes for a kernel becomes so. `None` for things.
    #[must_use]
    pub fn in_bytes(self) -> Option<Self> {
        self.unit.bytes().map(|size| Self::new(Unit::Bytes, self.count.saturating_mul(size)))
    }

    /// The least number of pages that has room for `bytes`.
    #[must_use]
    pub fn pages_for(bytes: u64) -> Self {
        let count = if bytes >= UNLIMITED { UNLIMITED } else { bytes.div_ceil(procfs::page_size()) };
        Self::new(Unit::Pages, count)
    }
}

/// Amounts of different units have no order.
impl PartialOrd for Amount {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self.unit == other.unit).then(|| self.count.cmp(&other.count))
    }
}

/// The number as configurations have it, with `unlimited` spelled out.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.finite() {
            Some(count) => count.fmt(f),
            None => f.pad(UNLIMITED_WORD),
        }
    }
}

/// Why a text is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum BadAmount {
    #[error("a value is missing")]
    Missing,
    #[error("{0:?} is negative")]
    Negative(String),
    #[error("{0:?} is not a number")]
    NotANumber(String),
    #[error("{text:?} ends in {suffix:?}, which is none of T G M K P B")]
    UnknownSuffix { text: String, suffix: String },
    #[error("{text:?} ends in {suffix:?}, but things have no size: give their number alone")]
    SuffixOnItems { text: String, suffix: char },
    #[error("{0:?} is more than {UNLIMITED}, the most there is")]
    TooLarge(String),
    #[error("{0:?} is more than nothing, but less than one")]
    TooSmall(String),
    #[error("{0:?} has more than the two values of barrier:limit")]
    TooManyValues(String),
}

/// How many units `text` says, rounded down to whole ones: digits with an optional fraction and suffix, or `unlimited`.
///
/// `unit_bytes` is the size of one unit. A number with a suffix (`T G M K` are powers of 1024, `P` is pages, `B` is bytes; either case)
/// is a size, and is divided by it; a number without one counts units. `None` means that units have no size, and refuses suffixes.
///
/// The spellings are V4's (`lib/config.c`), with three changes, because each hid a mistake: a number past [`UNLIMITED`] was cut to it
/// and `-1` became it; `1K` of pages became no pages at all. All are errors here. A fraction is computed exactly, not in floating point.
///
/// # Errors
/// Each says what was wrong with `text`.
pub fn parse_count(text: &str, unit_bytes: Option<u64>) -> Result<u64, BadAmount> {
    let text = text.trim_ascii();
    if text == UNLIMITED_WORD {
        return Ok(UNLIMITED);
    }
    let (whole, fraction, suffix) = split_number(text)?;
    let (multiplier, divisor) = match suffix {
        None => (1, 1),
        Some(suffix) => {
            let multiplier = suffix_bytes(suffix)
                .ok_or_else(|| BadAmount::UnknownSuffix { text: text.to_owned(), suffix: suffix.to_string() })?;
            let divisor = unit_bytes.ok_or_else(|| BadAmount::SuffixOnItems { text: text.to_owned(), suffix })?;
            (multiplier, divisor)
        }
    };
    let too_large = || BadAmount::TooLarge(text.to_owned());
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| too_large())? };
    // 64 bits times the 40 of a terabyte stay far below 128, so nothing here wraps.
    let size = u128::from(whole) * u128::from(multiplier) + fraction_of(fraction, multiplier);
    let count = u64::try_from(size / u128::from(divisor)).ok().filter(|&n| n <= UNLIMITED).ok_or_else(too_large)?;
    let says_zero = whole == 0 && fraction.bytes().all(|digit| digit == b'0');
    if count == 0 && !says_zero { Err(BadAmount::TooSmall(text.to_owned())) } else { Ok(count) }
}

/// `1.5G` as its digits before and after the point (either may be missing, not both) and its suffix.
fn split_number(text: &str) -> Result<(&str, &str, Option<char>), BadAmount> {
    if text.is_empty() {
        return Err(BadAmount::Missing);
    }
    if text.starts_with('-') {
        return Err(BadAmount::Negative(text.to_owned()));
    }
    let digits_end = |part: &str| part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
    let (whole, rest) = text.split_at(digits_end(text));
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits_end(rest)),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(BadAmount::NotANumber(text.to_owned()));
    }
    let mut letters = rest.chars();
    match (letters.next(), letters.next()) {
        (None, _) => Ok((whole, fraction, None)),
        (Some(suffix), None) => Ok((whole, fraction, Some(suffix))),
        (Some(_), Some(_)) => Err(BadAmount::UnknownSuffix { text: text.to_owned(), suffix: rest.to_owned() }),
    }
}

/// `0.{digits}` of `multiplier`, rounded down. Eighteen digits say every byte of a terabyte; those after them change nothing.
fn fraction_of(digits: &str, multiplier: u64) -> u128 {
    let (mut numerator, mut denominator) = (0_u128, 1_u128);
    for digit in digits.bytes().take(18) {
        numerator = numerator * 10 + u128::from(digit - b'0');
        denominator *= 10;
    }
    numerator * u128::from(multiplier) / denominator
}

fn suffix_bytes(suffix: char) -> Option<u64> {
    match suffix.to_ascii_uppercase() {
        'T' => Some(1 << 40),
        'G' => Some(1 << 30),
        'M' => Some(1 << 20),
        'K' => Some(1 << 10),
        'P' => Some(procfs::page_size()),
        'B' => Some(1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn count(unit: Unit, text: &str) -> u64 {
        Amount::parse(unit, text).unwrap_or_else(|e| panic!("{text}: {e}")).count()
    }

    #[test]
    fn a_number_without_a_suffix_counts_the_resources_own_unit() {
        for unit in [Unit::Bytes, Unit::Pages, Unit::Items] {
            assert_eq!(count(unit, "0"), 0);
            assert_eq!(count(unit, "0042"), 42);
            assert_eq!(count(unit, " 7 "), 7);
            assert_eq!(count(unit, "2.9"), 2);
            assert_eq!(count(unit, "9223372036854775807"), UNLIMITED);
            assert_eq!(count(unit, "unlimited"), UNLIMITED);
        }
    }

    #[test]
    fn a_suffix_makes_it_a_size() {
        assert_eq!(count(Unit::Bytes, "2T"), 2 << 40);
        assert_eq!(count(Unit::Bytes, "1.5g"), 3 << 29);
        assert_eq!(count(Unit::Bytes, ".5K"), 512);
        assert_eq!(count(Unit::Bytes, "1.k"), 1024);
        assert_eq!(count(Unit::Bytes, "3B"), 3);
        assert_eq!(count(Unit::Bytes, "2P"), 2 * procfs::page_size());
        assert_eq!(count(Unit::Pages, "100p"), 100);
        assert_eq!(count(Unit::Pages, "512M"), (512 << 20) / procfs::page_size());
        assert_eq!(count(Unit::Bytes, "0M"), 0);
        // A fraction that a double cannot hold: 0.1 TiB is 109951162777.6 bytes.
        assert_eq!(count(Unit::Bytes, "0.1T"), 109_951_162_777);
        assert_eq!(parse_count("10.0G", Some(1024)), Ok(10 << 20), "as diskspace, in blocks of 1 KiB");
    }

    #[test]
    fn what_is_wrong_with_a_value_is_said() {
        let bad = [
            "",
            " ",
            "-1",
            "-0",
            "+1",
            "x",
            ".",
            ".K",
            "1x",
            "1KB",
            "1K ib",
            "0x10",
            "1e3",
            "1,5",
            "1..2",
            "Unlimited",
            "unlimitedK",
            "9223372036854775808",
            "18446744073709551616",
            "99999999999999999999999",
            "0.9",
            "1B",
            "0.1P",
            "١",
            "1\u{e9}",
            "1\0",
        ];
        let said: Vec<_> =
            bad.iter().map(|text| format!("{text:?}: {}", Amount::parse(Unit::Pages, text).expect_err(text))).collect();
        insta::assert_snapshot!(said.join("\n"));
        assert_eq!(
            Amount::parse(Unit::Items, "4K"),
            Err(BadAmount::SuffixOnItems { text: "4K".to_owned(), suffix: 'K' })
        );
        assert_eq!(Amount::parse(Unit::Bytes, "8388608T"), Err(BadAmount::TooLarge("8388608T".to_owned())));
    }

    #[test]
    fn pages_become_bytes_and_unlimited_stays_unlimited() {
        let page = procfs::page_size();
        assert_eq!(Amount::new(Unit::Pages, 3).in_bytes(), Some(Amount::new(Unit::Bytes, 3 * page)));
        assert_eq!(Amount::unlimited(Unit::Pages).in_bytes(), Some(Amount::unlimited(Unit::Bytes)));
        assert_eq!(Amount::new(Unit::Pages, UNLIMITED / 2).in_bytes(), Some(Amount::unlimited(Unit::Bytes)));
        assert_eq!(Amount::new(Unit::Items, 3).in_bytes(), None);
        assert_eq!(Amount::pages_for(0).count(), 0);
        assert_eq!(Amount::pages_for(1).count(), 1);
        assert_eq!(Amount::pages_for(page).count(), 1);
        assert_eq!(Amount::pages_for(page + 1).count(), 2);
        assert!(Amount::pages_for(UNLIMITED).is_unlimited());
    }

    #[test]
    fn a_page_is_not_comparable_with_a_byte() {
        assert!(Amount::new(Unit::Pages, 1) < Amount::new(Unit::Pages, 2));
        assert_eq!(Amount::new(Unit::Pages, 1).partial_cmp(&Amount::new(Unit::Bytes, 2)), None);
        assert_ne!(Amount::new(Unit::Pages, 1), Amount::new(Unit::Bytes, 1));
    }

    proptest! {
        #[test]
        fn an_amount_is_read_back_as_it_was_written(count in 0..=UNLIMITED, unit in 0..3) {
            let unit = [Unit::Bytes, Unit::Pages, Unit::Items][unit as usize];
            let amount = Amount::new(unit, count);
            prop_assert_eq!(Amount::parse(unit, &amount.to_string()), Ok(amount));
        }

        #[test]
        fn a_whole_size_is_what_its_suffix_says(count in 0..=(UNLIMITED >> 40), shift in 0..5_u32) {
            let suffix = ["B", "K", "M", "G", "T"][shift as usize];
            prop_assert_eq!(parse_count(&format!("{count}{suffix}"), Some(1)), Ok(count << (10 * shift)));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,40}") {
            for unit in [Unit::Bytes, Unit::Pages, Unit::Items] {
                if let Ok(amount) = Amount::parse(unit, &text) {
                    prop_assert!(amount.count() <= UNLIMITED);
                }
            }
        }

        #[test]
        fn text_that_looks_like_an_amount_never_wraps(text in "[0-9]{0,25}\\.?[0-9]{0,25}[TGMKPBtgmkpb]?") {
            if let Ok(amount) = Amount::parse(Unit::Bytes, &text) {
                prop_assert!(amount.count() <= UNLIMITED);
                let whole = text.split(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse().ok()).unwrap_or(0);
                prop_assert!(amount.count() >= whole);
            }
        }
    }
}
