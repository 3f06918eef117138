//! The number of a container.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A container's number: 1..=2147483644 (`VEID_MAX` of vzctl 4). Zero, the host itself, is not a container and has no value here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Ctid(u32);

/// The text was not a container number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Bad CT ID {0}")]
pub struct BadCtid(pub String);

impl Ctid {
    /// The largest number a container may have.
    pub const MAX: u32 = 2_147_483_644;

    /// The number itself.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Ctid {
    type Error = BadCtid;
    fn try_from(n: u32) -> Result<Self, BadCtid> {
        if (1..=Self::MAX).contains(&n) { Ok(Self(n)) } else { Err(BadCtid(n.to_string())) }
    }
}

impl From<Ctid> for u32 {
    fn from(c: Ctid) -> u32 {
        c.0
    }
}

/// Decimal digits only: no sign, no blanks, no leading `+`; leading zeros are taken as `strtoul` did.
impl FromStr for Ctid {
    type Err = BadCtid;
    fn from_str(s: &str) -> Result<Self, BadCtid> {
        let bad = || BadCtid(s.to_owned());
        if s.is_empty() || !s.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        s.parse::<u32>().ok().and_then(|n| Self::try_from(n).ok()).ok_or_else(bad)
    }
}

impl fmt::Display for Ctid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_exactly_the_range_of_container_numbers() {
        for good in ["1", "101", "0101", "2147483644"] {
            assert!(good.parse::<Ctid>().is_ok(), "{good}");
        }
        for bad in ["", "0", "-1", "+1", " 1", "1 ", "2147483645", "18446744073709551616", "../1", "1a", "١"] {
            assert!(bad.parse::<Ctid>().is_err(), "{bad}");
        }
    }
}
