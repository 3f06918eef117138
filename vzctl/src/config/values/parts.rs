//! Parts of what the host has: of a processor, of memory.

use std::fmt;

use super::{BadValue, number_in};

/// `CPULIMIT`: the most processor time a container may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CpuLimit {
    /// Of one processor; 0 is no limit.
    Percent(u64),
    /// As much as a processor of this clock rate gives; 0 is no limit.
    Mhz(u64),
}

impl CpuLimit {
    /// `50`, `50%`, or `2000m` for megahertz (libvzctl of Virtuozzo 7).
    pub(crate) fn parse(value: &str) -> Result<Self, BadValue> {
        let bad = || BadValue::new(value, "percent of one CPU, or megahertz: 50, 2000m");
        match value.strip_suffix(['m', 'M']) {
            Some(mhz) => number_in(mhz, 0..=100_000_000).map(Self::Mhz),
            None => number_in(value.strip_suffix('%').unwrap_or(value), 0..=1_000_000).map(Self::Percent),
        }
        .map_err(|_| bad())
    }
}

impl fmt::Display for CpuLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent}"),
            Self::Mhz(mhz) => write!(f, "{mhz}m"),
        }
    }
}

/// `MEMGUARANTEE`: how much of its memory a container keeps when the host runs short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemGuarantee {
    /// What its beancounters promise.
    Auto,
    /// So much of its RAM, 0 to 100 percent.
    Percent(u8),
}

impl MemGuarantee {
    pub(crate) fn parse(value: &str) -> Result<Self, BadValue> {
        let percent = |digits: &str| digits.parse().ok().filter(|n| *n <= 100 && !digits.starts_with('+'));
        match value {
            "auto" => Ok(Self::Auto),
            value => percent(value.strip_suffix('%').unwrap_or(value))
                .map(Self::Percent)
                .ok_or_else(|| BadValue::new(value, "auto, or percent of its RAM")),
        }
    }
}

impl fmt::Display for MemGuarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Percent(percent) => write!(f, "{percent}"),
        }
    }
}
