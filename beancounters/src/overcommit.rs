//! How much of a node its containers have and were promised: the arithmetic of `vzmemcheck` and `vzcalc`.
//!
//! The formulas are V4's (`src/vzmemcheck.c`, `src/vzcalc.c`). Everything is a number of bytes as `f64`, with infinity for "no bound"; what
//! is not known, because nothing counts it on this host, is `None`.

use crate::amount::{Amount, Unit};
use crate::bound::Bound;
use crate::resource::Resource;
use crate::set::Set;
use crate::vswap;

/// The part of low memory that may go to containers: the rest is the kernel's own.
const LOWMEM_SHARE: f64 = 0.4;

/// Buffers and structures of the kernel's: what a container has of low memory.
pub const KERNEL_MEMORY: [Resource; 5] =
    [Resource::Kmemsize, Resource::Tcprcvbuf, Resource::Tcpsndbuf, Resource::Dgramrcvbuf, Resource::Othersockbuf];

/// What a node has.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Machine {
    pub ram_bytes: f64,
    pub swap_bytes: f64,
    /// Memory that the kernel can use for itself: all of it on a 64-bit host.
    pub lowmem_bytes: f64,
    /// The most processes and threads.
    pub threads_max: f64,
}

impl Machine {
    fn lowmem_for_containers(&self) -> f64 {
        self.lowmem_bytes * LOWMEM_SHARE
    }

    fn ram_and_swap(&self) -> f64 {
        self.ram_bytes + self.swap_bytes
    }
}

/// What a container has now.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Held {
    /// The sum of those of [`KERNEL_MEMORY`] that are counted.
    pub kernel_bytes: Option<f64>,
    /// What it has in RAM, kernel memory included: V4 added the two, a cgroup counts them as one.
    pub ram_bytes: Option<f64>,
    /// Memory that is in RAM or swap and can't be dropped: oomguarpages.
    pub unreclaimable_bytes: Option<f64>,
    /// Address space that may have to be backed: privvmpages.
    pub allocated_bytes: Option<f64>,
    /// Processes and threads.
    pub processes: Option<f64>,
}

impl Held {
    fn with_kernel(&self, bytes: Option<f64>) -> Option<f64> {
        bytes.zip(self.kernel_bytes).map(|(bytes, kernel)| bytes + kernel)
    }
}

/// What a container may have, by its configuration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Promised {
    /// The most kernel memory.
    pub kernel_bytes: f64,
    /// Up to where it is not killed for memory, kernel memory included.
    pub kept_bytes: f64,
    /// Up to where it is not refused memory, kernel memory included.
    pub guaranteed_bytes: f64,
    /// The most it can allocate, kernel memory included.
    pub allocatable_bytes: f64,
    /// The most processes and threads.
    pub processes: f64,
}

impl Promised {
    /// What a configuration promises. What it does not say is as the kernel of OpenVZ had it: mostly unlimited.
    ///
    /// In the simple mode kernel memory is a part of the container's RAM, and RAM and swap bound whatever it allocates. V4 knew neither, and
    /// showed such containers with figures of ten digits.
    ///
    /// # Errors
    /// [`vswap::SwapNotSet`].
    pub fn by(set: &Set, vm_overcommit: Option<f64>, machine: &Machine) -> Result<Self, vswap::SwapNotSet> {
        let set = vswap::fill(set, vm_overcommit)?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole bytes of RAM")]
        let bound =
            |resource| set.get(resource).unwrap_or_else(|| Bound::kernel_default(resource, machine.ram_bytes as u64));
        let (barrier, limit) = (|r| bytes(bound(r).barrier()), |r| bytes(bound(r).limit()));
        let kernel: f64 = KERNEL_MEMORY.into_iter().map(limit).sum();
        let processes = bytes(bound(Resource::Numproc).barrier());
        let (kept, guaranteed) = (barrier(Resource::Oomguarpages), barrier(Resource::Vmguarpages));
        let allocatable = limit(Resource::Privvmpages);
        Ok(if vswap::is_vswap(&set) {
            let ram = limit(Resource::Physpages);
            Self {
                kernel_bytes: kernel.min(ram),
                kept_bytes: kept,
                guaranteed_bytes: guaranteed,
                allocatable_bytes: allocatable.min(ram + limit(Resource::Swappages)),
                processes,
            }
        } else {
            Self {
                kernel_bytes: kernel,
                kept_bytes: kept + kernel,
                guaranteed_bytes: guaranteed + kernel,
                allocatable_bytes: allocatable + kernel,
                processes,
            }
        })
    }
}

/// An amount in bytes, or its number where it counts things.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "53 bits of bytes are more than any host has")]
pub fn bytes(amount: Amount) -> f64 {
    let number = if amount.unit() == Unit::Items { Some(amount) } else { amount.in_bytes() };
    number.and_then(Amount::finite).map_or(f64::INFINITY, |count| count as f64)
}

/// How many columns `vzmemcheck` has.
const COLUMNS: usize = 8;

/// What the figures of [`Columns`] are called, the first and the second word of each.
pub const COLUMN_NAMES: [[&str; 2]; COLUMNS] = [
    ["LowMem", "util"],
    ["LowMem", "commit"],
    ["RAM", "util"],
    ["MemSwap", "util"],
    ["MemSwap", "commit"],
    ["Alloc", "util"],
    ["Alloc", "commit"],
    ["Alloc", "limit"],
];

/// A row of `vzmemcheck`: what a container, or all of them, have (util), were promised (commit) and may take at most (limit), in the order
/// of [`COLUMN_NAMES`]. Bytes, or shares of the machine.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Columns(pub [Option<f64>; COLUMNS]);

impl Columns {
    /// One container, in bytes.
    #[must_use]
    pub fn in_bytes(held: &Held, promised: &Promised) -> Self {
        Self([
            held.kernel_bytes,
            Some(promised.kernel_bytes),
            held.ram_bytes,
            held.with_kernel(held.unreclaimable_bytes),
            Some(promised.kept_bytes),
            held.with_kernel(held.allocated_bytes),
            Some(promised.guaranteed_bytes),
            Some(promised.allocatable_bytes),
        ])
    }

    /// The same as shares of the machine. The limit of what can be allocated is held against RAM alone.
    #[must_use]
    pub fn as_shares_of(self, machine: &Machine) -> Self {
        let (lowmem, ram, both) = (machine.lowmem_for_containers(), machine.ram_bytes, machine.ram_and_swap());
        let sizes = [lowmem, lowmem, ram, both, both, both, both, ram];
        Self(std::array::from_fn(|at| self.0[at].map(|bytes| bytes / sizes[at])))
    }

    /// Each figure in another measure.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        Self(self.0.map(|figure| figure.map(|figure| figure * factor)))
    }
}

/// Of each column the sum of the figures that are known.
impl std::iter::Sum for Columns {
    fn sum<I: Iterator<Item = Self>>(rows: I) -> Self {
        rows.fold(Self::default(), |sum, row| {
            Self(std::array::from_fn(|at| sum.0[at].into_iter().chain(row.0[at]).reduce(|a, b| a + b)))
        })
    }
}

/// A row of `vzcalc`, in shares of the machine. `None` is what is not known, or has no meaning for this resource.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// What the row is about.
    pub name: &'static str,
    /// What the container has now.
    pub current: Option<f64>,
    /// What it was promised.
    pub promised: Option<f64>,
    /// The most it can take.
    pub max: Option<f64>,
}

/// The rows of `vzcalc -v`, the sum-up `Memory` last: of each column the worst. `held` is that of a running container.
#[must_use]
pub fn shares(held: Option<&Held>, promised: &Promised, machine: &Machine) -> [Share; 6] {
    let (lowmem, ram, both) = (machine.lowmem_for_containers(), machine.ram_bytes, machine.ram_and_swap());
    let has = |what: fn(&Held) -> Option<f64>, size: f64| held.and_then(what).map(|has| has / size);
    let kernel = Some(promised.kernel_bytes / lowmem);
    let rows = [
        Share { name: "Low Mem", current: has(|h| h.kernel_bytes, lowmem), promised: kernel, max: kernel },
        Share { name: "Total RAM", current: has(|h| h.ram_bytes, ram), promised: None, max: None },
        Share {
            name: "Mem + Swap",
            current: has(|h| h.with_kernel(h.unreclaimable_bytes), both),
            promised: Some(promised.kept_bytes / both),
            max: None,
        },
        Share {
            name: "Alloc. Mem",
            current: has(|h| h.with_kernel(h.allocated_bytes), both),
            promised: Some(promised.guaranteed_bytes / both),
            max: Some(promised.allocatable_bytes / both),
        },
        Share {
            name: "Num. Proc",
            current: has(|h| h.processes, machine.threads_max),
            promised: None,
            // There are no more, whatever the configuration says.
            max: Some(promised.processes.min(machine.threads_max) / machine.threads_max),
        },
    ];
    let worst = |column: fn(&Share) -> Option<f64>| rows.iter().filter_map(column).reduce(f64::max);
    let memory = Share {
        name: "Memory",
        current: worst(|row| row.current),
        promised: worst(|row| row.promised),
        max: worst(|row| row.max),
    };
    let [a, b, c, d, e] = rows;
    [a, b, c, d, e, memory]
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: f64 = 1_048_576.0;
    const MACHINE: Machine =
        Machine { ram_bytes: 1000.0 * MIB, swap_bytes: 1000.0 * MIB, lowmem_bytes: 500.0 * MIB, threads_max: 1000.0 };

    fn set(bounds: &[(Resource, &str)]) -> Set {
        bounds.iter().map(|(resource, text)| Bound::parse(*resource, text).expect("a good bound")).collect()
    }

    fn classic() -> Set {
        set(&[
            (Resource::Kmemsize, "5M:6M"),
            (Resource::Tcpsndbuf, "0:1M"),
            (Resource::Tcprcvbuf, "0:1M"),
            (Resource::Dgramrcvbuf, "0:1M"),
            (Resource::Othersockbuf, "0:1M"),
            (Resource::Oomguarpages, "20M:unlimited"),
            (Resource::Vmguarpages, "40M:unlimited"),
            (Resource::Privvmpages, "70M:90M"),
            (Resource::Physpages, "0:unlimited"),
            (Resource::Numproc, "50"),
        ])
    }

    fn held() -> Held {
        Held {
            kernel_bytes: Some(2.0 * MIB),
            ram_bytes: Some(10.0 * MIB),
            unreclaimable_bytes: Some(18.0 * MIB),
            allocated_bytes: None,
            processes: Some(10.0),
        }
    }

    #[test]
    fn a_classic_container_is_added_up_as_vzmemcheck_did() {
        let promised = Promised::by(&classic(), None, &MACHINE).expect("it says all it has to");
        let bytes = Columns::in_bytes(&held(), &promised);
        let mib = [Some(2.0), Some(10.0), Some(10.0), Some(20.0), Some(30.0), None, Some(50.0), Some(100.0)];
        assert_eq!(bytes.times(1.0 / MIB), Columns(mib));
        let percent = [Some(1.0), Some(5.0), Some(1.0), Some(1.0), Some(1.5), None, Some(2.5), Some(10.0)];
        assert_eq!(bytes.as_shares_of(&MACHINE).times(100.0), Columns(percent));
        let twice: Columns = [bytes, bytes].into_iter().sum();
        assert_eq!(twice, bytes.times(2.0), "and what nobody knows stays unknown");
    }

    #[test]
    fn vzcalc_takes_the_worst_of_each_column() {
        let promised = Promised::by(&classic(), None, &MACHINE).expect("it says all it has to");
        let percent = |held: Option<Held>| {
            let times = |share: Option<f64>| share.map(|share| share * 100.0);
            shares(held.as_ref(), &promised, &MACHINE)
                .map(|r| (r.name, times(r.current), times(r.promised), times(r.max)))
        };
        assert_eq!(
            percent(Some(held())),
            [
                ("Low Mem", Some(1.0), Some(5.0), Some(5.0)),
                ("Total RAM", Some(1.0), None, None),
                ("Mem + Swap", Some(1.0), Some(1.5), None),
                ("Alloc. Mem", None, Some(2.5), Some(5.0)),
                ("Num. Proc", Some(1.0), None, Some(5.0)),
                ("Memory", Some(1.0), Some(5.0), Some(5.0)),
            ]
        );
        assert!(percent(None).iter().all(|row| row.1.is_none()), "nothing is known of one that does not run");
    }

    #[test]
    fn in_the_simple_mode_ram_and_swap_bound_everything() {
        let simple = set(&[(Resource::Physpages, "0:100M"), (Resource::Swappages, "0:50M")]);
        let promised = Promised::by(&simple, None, &MACHINE).expect("RAM and swap");
        let mib = |bytes: f64| bytes / MIB;
        assert_eq!(mib(promised.kernel_bytes), 100.0);
        assert_eq!(mib(promised.kept_bytes), 100.0);
        assert_eq!(mib(promised.guaranteed_bytes), 150.0);
        assert_eq!(mib(promised.allocatable_bytes), 150.0);
        assert!(promised.processes.is_infinite());
        assert_eq!(
            shares(None, &promised, &MACHINE)[4].max,
            Some(1.0),
            "there are no more processes than the machine has"
        );
        let without_swap = set(&[(Resource::Physpages, "0:100M")]);
        assert_eq!(Promised::by(&without_swap, None, &MACHINE), Err(vswap::SwapNotSet));
    }

    #[test]
    fn a_configuration_that_says_nothing_promises_what_the_kernel_gave() {
        let promised = Promised::by(&Set::default(), None, &MACHINE).expect("not of the simple mode");
        assert!(promised.kernel_bytes.is_infinite() && promised.allocatable_bytes.is_infinite());
        assert_eq!(bytes(Bound::kernel_default(Resource::Oomguarpages, 1000 << 20).barrier()), 750.0 * MIB);
    }
}
