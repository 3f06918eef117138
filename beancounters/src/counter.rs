//! The rows of the tables: what is bounded, and what was counted.

use serde::Serialize;

use crate::bound::Bound;
use crate::resource::Resource;

/// One row: everything known of one resource of one container. All but `failcnt` in the resource's own unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Counter {
    /// What the container has now.
    pub held: u64,
    /// The most it had since it started.
    pub maxheld: u64,
    /// The barrier.
    pub barrier: u64,
    /// The limit.
    pub limit: u64,
    /// How often it was refused more.
    pub failcnt: u64,
}

impl Counter {
    /// The row of `bound` with what was counted for it. Held is never above maxheld in it: a source that samples the two one after the other
    /// may have seen them cross.
    #[must_use]
    pub fn new(bound: Bound, held: u64, maxheld: u64, failcnt: u64) -> Self {
        Self {
            held,
            maxheld: maxheld.max(held),
            barrier: bound.barrier().count(),
            limit: bound.limit().count(),
            failcnt,
        }
    }
}

/// The 21 rows of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters([Counter; 21]);

impl Counters {
    /// Asks `row` for each of [`Resource::LIVE`].
    pub fn new(row: impl FnMut(Resource) -> Counter) -> Self {
        Self(Resource::LIVE.map(row))
    }

    /// The row of `resource`; `None` for the one that is not counted.
    #[must_use]
    pub fn get(&self, resource: Resource) -> Option<Counter> {
        self.0.get(resource as usize).copied()
    }

    /// All rows, in the order of `bc/resources`.
    pub fn iter(&self) -> impl Iterator<Item = (Resource, Counter)> + '_ {
        Resource::LIVE.into_iter().zip(self.0.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_found_by_its_resource() {
        let counters = Counters::new(|r| Counter::new(Bound::new(r, 10, 20), r as u64, 0, 1));
        for resource in Resource::LIVE {
            let row = counters.get(resource).expect("a live resource has a row");
            assert_eq!((row.held, row.barrier, row.limit, row.failcnt), (resource as u64, 10, 20, 1));
            assert_eq!(row.maxheld, row.held, "held was seen, so it is the least that maxheld can be");
        }
        assert_eq!(counters.get(Resource::Avnumproc), None);
        assert!(counters.iter().map(|(resource, _)| resource).eq(Resource::LIVE));
    }
}
