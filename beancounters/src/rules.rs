//! Whether the bounds of a configuration go together: the rules of `vzcfgvalidate`, as data.
//!
//! The rules and their severities are V4's (`src/validate.c`). A classic configuration is held against [`CLASSIC`]: buffers must have room
//! for the sockets they are for, kernel memory for the processes. One of the simple mode is held against [`VSWAP`]: everything else follows from
//! RAM and swap there, so only these two can be wrong.
//!
//! What breaks a rule is a [`Finding`], which knows a bound that keeps it. Bounds are only ever raised (RAM and swap that the host does not
//! have apart), and what a rule asks for never depends on what the rule bounds, so applying fixes comes to an end.

mod tables;

use std::fmt;

use crate::amount::UNLIMITED;
use crate::bound::Bound;
use crate::resource::Resource;
use crate::set::Set;
use crate::vswap;

pub(crate) use tables::{
    CACHE_BYTES_PER_FILE, FILES_PER_PROCESS, KERNEL_BYTES_PER_PROCESS, OTHER_BYTES, ROOM_BYTES_PER_SOCKET, TCP_BYTES,
};
pub use tables::{CLASSIC, VSWAP};

/// How bad it is to break a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It works, but not as well as it might.
    Recommendation,
    /// Applications will meet refusals that they cannot deal with.
    Warning,
    /// Not a configuration.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Recommendation => "Recommendation",
            Self::Warning => "Warning",
            Self::Error => "Error",
        })
    }
}

/// Which number of a bound a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The barrier.
    Barrier,
    /// The limit.
    Limit,
    /// What lies between them: limit less barrier.
    Room,
}

/// What a rule asks of a bound. Amounts are in the resource's own unit.
#[derive(Debug, Clone, Copy)]
pub enum Demand {
    /// It is there.
    Present,
    /// Its barrier is its limit.
    BarrierIsLimit,
    /// Its barrier is not above its limit.
    BarrierWithinLimit,
    /// Its limit is unlimited.
    LimitUnlimited,
    /// Its barrier is 0.
    BarrierZero,
    /// One side is no less than what the other bounds ask for; `None` where those say nothing.
    AtLeast(Side, fn(&Set) -> Option<u64>),
    /// Its limit is no more than the host has.
    AtMost(fn(&Host) -> u64),
}

/// One rule: what is asked of the bound of a resource.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Whose bound.
    pub resource: Resource,
    /// How bad it is to break it.
    pub severity: Severity,
    /// What is asked.
    pub demand: Demand,
}

/// What the host has to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host {
    /// RAM, in pages.
    pub ram_pages: u64,
    /// Swap space, in pages.
    pub swap_pages: u64,
}

/// A rule that is broken.
#[derive(Debug, Clone, Copy)]
pub struct Finding {
    /// Whose bound.
    pub resource: Resource,
    /// How bad it is.
    pub severity: Severity,
    /// The bound as it is; `None` where it is missing.
    pub bound: Option<Bound>,
    /// What would keep the rule. A bound that is missing has to be said by somebody.
    pub fix: Option<Bound>,
    broken: Broken,
}

/// How a rule is broken, with the number that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Missing,
    NotEqual,
    Crossed,
    Limited,
    NotZero,
    Less(Side, u64),
    More(u64),
}

/// The rules for a configuration, by whether its RAM has a limit.
#[must_use]
pub fn rules_for(set: &Set) -> &'static [Rule] {
    if vswap::is_vswap(set) { VSWAP } else { CLASSIC }
}

/// Every rule that `set` breaks, in the order of the rules. Of rules that ask more and more of one number only the first broken one is told.
#[must_use]
pub fn check(rules: &[Rule], set: &Set, host: &Host) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for rule in rules {
        let Some(finding) = rule.check(set, host) else { continue };
        let said = findings.iter().any(|earlier| match (earlier.broken, finding.broken) {
            (Broken::Less(one, _), Broken::Less(other, _)) => earlier.resource == finding.resource && one == other,
            _ => false,
        });
        if !said {
            findings.push(finding);
        }
    }
    findings
}

impl Rule {
    /// How `set` breaks it; `None` where it does not.
    #[must_use]
    pub fn check(&self, set: &Set, host: &Host) -> Option<Finding> {
        let bound = set.get(self.resource);
        let broken = match (bound, self.demand) {
            (None, Demand::Present) => Broken::Missing,
            // That it is missing is said by another rule, or it may be.
            (None, _) | (Some(_), Demand::Present) => return None,
            (Some(bound), demand) => breach(bound, demand, set, host)?,
        };
        let fix = bound.and_then(|bound| broken.mended(bound));
        Some(Finding { resource: self.resource, severity: self.severity, bound, fix, broken })
    }
}

fn breach(bound: Bound, demand: Demand, set: &Set, host: &Host) -> Option<Broken> {
    let (barrier, limit) = (bound.barrier().count(), bound.limit().count());
    match demand {
        Demand::Present => None,
        Demand::BarrierIsLimit => (barrier != limit).then_some(Broken::NotEqual),
        Demand::BarrierWithinLimit => (barrier > limit).then_some(Broken::Crossed),
        Demand::LimitUnlimited => (limit != UNLIMITED).then_some(Broken::Limited),
        Demand::BarrierZero => (barrier != 0).then_some(Broken::NotZero),
        Demand::AtLeast(side, least) => {
            let least = least(set)?.min(UNLIMITED);
            let is = match side {
                Side::Barrier => barrier,
                Side::Limit => limit,
                // Below no limit there is room for everything.
                Side::Room if limit == UNLIMITED => UNLIMITED,
                Side::Room => limit.saturating_sub(barrier),
            };
            (is < least).then_some(Broken::Less(side, least))
        }
        Demand::AtMost(most) => {
            let most = most(host);
            (limit > most).then_some(Broken::More(most))
        }
    }
}

impl Broken {
    /// The bound with the least change that keeps the rule. Where a barrier is raised the limit goes with it, so that the room between them,
    /// which another rule may ask for, stays.
    fn mended(self, bound: Bound) -> Option<Bound> {
        let (barrier, limit) = (bound.barrier().count(), bound.limit().count());
        let (barrier, limit) = match self {
            Self::Missing => return None,
            Self::NotEqual => (barrier.max(limit), barrier.max(limit)),
            Self::Crossed => (barrier, barrier),
            Self::Limited => (barrier, UNLIMITED),
            Self::NotZero => (0, limit),
            Self::Less(Side::Barrier, least) => (least, limit.saturating_add(least - barrier)),
            Self::Less(Side::Limit, least) => (barrier, least),
            Self::Less(Side::Room, least) => (barrier, barrier.saturating_add(least)),
            Self::More(most) => (barrier.min(most), most),
        };
        Some(Bound::new(bound.resource(), barrier, limit))
    }
}

/// The line that V4 printed, unlimited amounts as the number they are.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, severity) = (self.resource, self.severity);
        let Some(bound) = self.bound else {
            return write!(f, "{severity}: parameter {name} not found");
        };
        let (barrier, limit) = (bound.barrier().count(), bound.limit().count());
        match self.broken {
            Broken::Missing => write!(f, "{severity}: parameter {name} not found"),
            Broken::NotEqual => {
                write!(f, "{severity}: barrier should be equal to limit for {name} (currently, {barrier}:{limit})")
            }
            Broken::Crossed => {
                write!(f, "{severity}: barrier should be <= limit for {name} (currently, {barrier}:{limit})")
            }
            Broken::Limited => write!(f, "{severity}: limit should be = LONG_MAX for {name} (currently, {limit})"),
            Broken::NotZero => write!(f, "{severity}: barrier should be = 0 for {name} (currently, {barrier})"),
            Broken::Less(Side::Barrier, least) => {
                write!(f, "{severity}: {name}.bar should be > {least} (currently, {barrier})")
            }
            Broken::Less(Side::Limit, least) => {
                write!(f, "{severity}: {name}.lim should be > {least} (currently, {limit})")
            }
            Broken::Less(Side::Room, least) => {
                write!(f, "{severity}: {name}.lim-{name}.bar should be > {least} (currently, {limit}-{barrier})")
            }
            Broken::More(most) => write!(f, "{severity}: {name}.lim should be <= {most} (currently, {limit})"),
        }
    }
}

#[cfg(test)]
mod tests;
