//! One node shared out among equal containers: the arithmetic of `vzsplit`.
//!
//! The constants are V4's (`bin/vzsplit`); how they are put together follows from the rules that a configuration has to keep
//! ([`crate::rules`]) and from what a node may promise ([`crate::overcommit`]): kernel memory of all containers fits into 40 % of low memory,
//! and what they are guaranteed into RAM and swap.

use crate::amount::{UNLIMITED, Unit::Pages};
use crate::bound::Bound;
use crate::overcommit::KERNEL_MEMORY;
use crate::resource::Resource;
use crate::rules::{
    CACHE_BYTES_PER_FILE, FILES_PER_PROCESS, KERNEL_BYTES_PER_PROCESS, OTHER_BYTES, ROOM_BYTES_PER_SOCKET, TCP_BYTES,
};
use crate::set::Set;

/// Kept for the host itself, in bytes.
const HOST_BYTES: u64 = 50 << 20;
/// The least kernel memory that a container works with, in bytes.
const KERNEL_BYTES_MIN: u64 = 1_348_608;
/// The least memory that a container works with, in bytes: kernel memory and 4 MiB of its own.
const MEMORY_BYTES_MIN: u64 = 5_542_912;
/// The least number of processes that a container works with.
const PROCESSES_MIN: u64 = 30;
/// Processes of all containers.
const PROCESSES_MAX: u64 = 8000;
/// Packet filter rules of all containers.
const IPTENTS_MAX: u64 = 2000;
/// The least number of packet filter rules that `start` accepts.
const IPTENTS_MIN: u64 = 16;
/// Signals that may be queued: as in every sample.
const SIGNALS: u64 = 256;

/// What a node has to share, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Node {
    pub ram_bytes: u64,
    pub swap_bytes: u64,
    /// Memory that the kernel can use for itself: all of it on a 64-bit host.
    pub lowmem_bytes: u64,
}

/// The node is too small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this node has room for {most} containers, not for {asked}")]
pub struct TooMany {
    /// How many were asked for.
    pub asked: u64,
    /// How many there can be.
    pub most: u64,
}

impl Node {
    /// How many containers there is room for.
    #[must_use]
    pub fn most(&self) -> u64 {
        let by_memory = self.shareable_bytes() / MEMORY_BYTES_MIN;
        let by_kernel = self.kernel_bytes() / KERNEL_BYTES_MIN;
        by_memory.min(by_kernel).min(PROCESSES_MAX / PROCESSES_MIN)
    }

    /// The bounds of one of `containers` equal ones, in the classic mode.
    ///
    /// # Errors
    /// There is no room for so many, or none are asked for.
    pub fn split(&self, containers: u64) -> Result<Set, TooMany> {
        self.refuse_too_many(containers)?;
        let memory = self.shareable_bytes() / containers;
        let kernel = (self.kernel_bytes() / containers).min(memory - (MEMORY_BYTES_MIN - KERNEL_BYTES_MIN));
        let mut set = kernel_bounds(kernel, PROCESSES_MAX / containers);
        let kernel: u64 = KERNEL_MEMORY.into_iter().filter_map(|r| set.get(r)).map(|b| b.limit().count()).sum();
        let own_pages = (memory - kernel) / Pages.bytes().unwrap_or(1);
        let iptents = (IPTENTS_MAX / containers).max(IPTENTS_MIN);
        // Six tenths of what programs ask for are guaranteed: they use less than they ask for.
        let address_space = own_pages * 10 / 6;
        let shared = address_space / 10;
        set.extend([
            Bound::new(Resource::Vmguarpages, own_pages, UNLIMITED),
            Bound::new(Resource::Oomguarpages, own_pages, UNLIMITED),
            Bound::new(Resource::Privvmpages, address_space, tenth_more(address_space)),
            Bound::new(Resource::Physpages, 0, UNLIMITED),
            both(Resource::Shmpages, shared),
            both(Resource::Lockedpages, shared),
            both(Resource::Numiptent, iptents),
            both(Resource::Numsiginfo, SIGNALS),
        ]);
        Ok(set)
    }

    /// The bounds of one of `containers` equal ones, in the simple mode: RAM and swap.
    ///
    /// # Errors
    /// Those of [`Node::split`].
    pub fn split_simply(&self, containers: u64) -> Result<Set, TooMany> {
        self.refuse_too_many(containers)?;
        let pages = |bytes: u64| bytes / containers / Pages.bytes().unwrap_or(1);
        let ram = pages(self.ram_bytes.saturating_sub(HOST_BYTES));
        let bounds = [(Resource::Physpages, ram), (Resource::Swappages, pages(self.swap_bytes))];
        Ok(bounds.into_iter().map(|(resource, limit)| Bound::new(resource, 0, limit)).collect())
    }

    fn refuse_too_many(&self, asked: u64) -> Result<(), TooMany> {
        let most = self.most();
        if (1..=most).contains(&asked) { Ok(()) } else { Err(TooMany { asked, most }) }
    }

    fn shareable_bytes(&self) -> u64 {
        self.ram_bytes.saturating_add(self.swap_bytes).saturating_sub(HOST_BYTES)
    }

    fn kernel_bytes(&self) -> u64 {
        self.lowmem_bytes / 10 * 4
    }
}

/// The bounds that share `kernel` bytes of kernel memory: as many processes as there is room for, up to `most`, then the sockets of each.
fn kernel_bounds(kernel: u64, most: u64) -> Set {
    let of_buffers = |processes| 2 * (TCP_BYTES + OTHER_BYTES) + 3 * ROOM_BYTES_PER_SOCKET * processes;
    let needs = |average: u64| Kernel::of(average).limit + of_buffers(2 * average);
    // What fits is looked for from what would fit without buffers downwards: the need of one more process is nearly the same for each.
    let fitting = kernel.saturating_sub(of_buffers(0)) / (needs(1001) - needs(1)).div_ceil(1000);
    let average = fitting.clamp(PROCESSES_MIN / 2, (most / 2).max(PROCESSES_MIN / 2));
    let processes = 2 * average;
    let Kernel { files, cache_barrier, cache_limit, barrier, limit } = Kernel::of(average);
    // More than 64 KiB for each socket would be memory that programs lack.
    let buffer = (kernel.saturating_sub(limit) / 4).min(TCP_BYTES * processes);
    let room = ROOM_BYTES_PER_SOCKET * processes;
    let most_of = |least: u64| buffer.max(least + room);
    let buffers = |resource, least: u64| Bound::new(resource, most_of(least) - room, most_of(least));
    let left = kernel.saturating_sub(limit + 2 * most_of(TCP_BYTES) + most_of(OTHER_BYTES));
    [
        both(Resource::Numproc, processes),
        both(Resource::Avnumproc, average),
        both(Resource::Numtcpsock, processes),
        both(Resource::Numothersock, processes),
        both(Resource::Numpty, (processes / 10).max(1)),
        both(Resource::Numfile, files),
        Bound::new(Resource::Numflock, files / 10, tenth_more(files / 10)),
        Bound::new(Resource::Dcachesize, cache_barrier, cache_limit),
        Bound::new(Resource::Kmemsize, barrier, limit),
        buffers(Resource::Tcpsndbuf, TCP_BYTES),
        buffers(Resource::Tcprcvbuf, TCP_BYTES),
        buffers(Resource::Othersockbuf, OTHER_BYTES),
        both(Resource::Dgramrcvbuf, left.clamp(OTHER_BYTES, buffer.max(OTHER_BYTES))),
    ]
    .into_iter()
    .collect()
}

/// Kernel memory that so many processes need, in bytes.
struct Kernel {
    files: u64,
    cache_barrier: u64,
    cache_limit: u64,
    barrier: u64,
    limit: u64,
}

impl Kernel {
    fn of(average_processes: u64) -> Self {
        let files = FILES_PER_PROCESS * average_processes;
        let cache_barrier = CACHE_BYTES_PER_FILE * files;
        let cache_limit = cache_barrier + cache_barrier * 3 / 100;
        let barrier = KERNEL_BYTES_PER_PROCESS * average_processes + cache_limit;
        Self { files, cache_barrier, cache_limit, barrier, limit: tenth_more(barrier) }
    }
}

fn both(resource: Resource, count: u64) -> Bound {
    Bound::new(resource, count, count)
}

fn tenth_more(count: u64) -> u64 {
    count + count / 10
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overcommit::{Machine, Promised};
    use crate::rules::{CLASSIC, Host, Severity, VSWAP, check};
    use proptest::prelude::*;

    fn node(ram_mib: u64, swap_mib: u64) -> Node {
        let ram_bytes = ram_mib << 20;
        Node { ram_bytes, swap_bytes: swap_mib << 20, lowmem_bytes: ram_bytes }
    }

    #[test]
    fn a_small_node_and_a_large_one() {
        let shown = |node: Node, containers| {
            let set = node.split(containers).expect("room");
            set.iter().map(|bound| format!("{} {bound}", bound.resource())).collect::<Vec<_>>().join("\n")
        };
        insta::assert_snapshot!(format!(
            "512 MiB among 20\n{}\n\n24 GiB among 10\n{}",
            shown(node(512, 1024), 20),
            shown(node(24 << 10, 0), 10)
        ));
    }

    #[test]
    fn a_node_has_room_for_so_many_and_says_how_many() {
        assert_eq!(node(512, 1024).most(), 159);
        assert_eq!(node(24 << 10, 0).most(), 266, "by processes");
        assert_eq!(node(32, 0).most(), 0);
        assert_eq!(node(512, 1024).split(160), Err(TooMany { asked: 160, most: 159 }));
        assert_eq!(node(512, 1024).split(0), Err(TooMany { asked: 0, most: 159 }));
        assert_eq!(node(512, 0).split_simply(1000), Err(TooMany { asked: 1000, most: node(512, 0).most() }));
    }

    #[test]
    fn where_sockets_have_the_least_that_makes_sense_datagrams_have_what_is_left() {
        let set = node(97, 112).split(1).expect("room for one");
        let kernel: u64 = KERNEL_MEMORY.into_iter().filter_map(|r| set.get(r)).map(|b| b.limit().count()).sum();
        assert!(kernel <= (97 << 20) / 10 * 4, "{kernel}");
    }

    proptest! {
        #[test]
        fn what_a_node_is_split_into_is_consistent_and_not_promised_twice(ram in 60..4_000_000_u64, swap in 0..1_000_000_u64, of in 1..300_u64) {
            let node = node(ram, swap);
            prop_assume!(of <= node.most());
            let page = procfs::page_size();
            let host = Host { ram_pages: node.ram_bytes / page, swap_pages: node.swap_bytes / page };
            let set = node.split(of).expect("room for so many");
            for finding in check(CLASSIC, &set, &host) {
                prop_assert!(finding.severity < Severity::Warning, "{finding}");
            }
            let simple = node.split_simply(of).expect("room for so many");
            prop_assert!(check(VSWAP, &simple, &host).is_empty());

            #[expect(clippy::cast_precision_loss, reason = "sizes of a test")]
            let (ram, swap, of) = (node.ram_bytes as f64, node.swap_bytes as f64, of as f64);
            let machine = Machine { ram_bytes: ram, swap_bytes: swap, lowmem_bytes: ram, threads_max: 1.0 };
            let promised = Promised::by(&set, None, &machine).expect("not of the simple mode");
            prop_assert!(promised.kernel_bytes * of <= ram * 0.4);
            prop_assert!(promised.guaranteed_bytes * of <= ram + swap);
        }
    }
}
