//! The rules themselves.

use super::Demand::{AtLeast, AtMost, BarrierIsLimit, BarrierWithinLimit, BarrierZero, LimitUnlimited, Present};
use super::Severity::{self, Error, Recommendation, Warning};
use super::{Demand, Rule, Side};
use crate::resource::Resource::{
    self, Avnumproc, Dcachesize, Dgramrcvbuf, Kmemsize, Lockedpages, Numfile, Numflock, Numiptent, Numothersock,
    Numproc, Numpty, Numsiginfo, Numtcpsock, Oomguarpages, Othersockbuf, Physpages, Privvmpages, Shmpages, Swappages,
    Tcprcvbuf, Tcpsndbuf, Vmguarpages,
};
use crate::set::Set;

/// Kernel memory that one process takes, page tables and all, in bytes.
pub(crate) const KERNEL_BYTES_PER_PROCESS: u64 = 40 * 1024;
/// Directory entry and inode of one open file, in bytes.
pub(crate) const CACHE_BYTES_PER_FILE: u64 = 384;
/// What each socket needs between barrier and limit, in bytes: one packet, 2.5 KiB.
pub(crate) const ROOM_BYTES_PER_SOCKET: u64 = 2560;
/// Files that one process has open.
pub(crate) const FILES_PER_PROCESS: u64 = 32;
/// The least buffers TCP works with, in bytes.
pub(crate) const TCP_BYTES: u64 = 64 * 1024;
/// The least buffers other sockets work with, in bytes.
pub(crate) const OTHER_BYTES: u64 = 32 * 1024;
/// Buffers that lose no datagram while the reader is scheduled, in bytes.
const OTHER_BYTES_RECOMMENDED: u64 = 129 * 1024;

const fn rule(resource: Resource, severity: Severity, demand: Demand) -> Rule {
    Rule { resource, severity, demand }
}

/// For a configuration that bounds everything by itself.
pub const CLASSIC: &[Rule] = &[
    rule(Numproc, Error, Present),
    rule(Numtcpsock, Error, Present),
    rule(Numothersock, Error, Present),
    rule(Oomguarpages, Error, Present),
    rule(Vmguarpages, Error, Present),
    rule(Kmemsize, Error, Present),
    rule(Tcpsndbuf, Error, Present),
    rule(Tcprcvbuf, Error, Present),
    rule(Othersockbuf, Error, Present),
    rule(Dgramrcvbuf, Error, Present),
    rule(Privvmpages, Error, Present),
    rule(Numfile, Error, Present),
    rule(Dcachesize, Error, Present),
    rule(Physpages, Error, Present),
    rule(Numpty, Error, Present),
    rule(Numproc, Error, BarrierIsLimit),
    rule(Numtcpsock, Error, BarrierIsLimit),
    rule(Numothersock, Error, BarrierIsLimit),
    rule(Shmpages, Error, BarrierIsLimit),
    rule(Numfile, Error, BarrierIsLimit),
    rule(Numpty, Error, BarrierIsLimit),
    rule(Numsiginfo, Error, BarrierIsLimit),
    rule(Numiptent, Error, BarrierIsLimit),
    rule(Kmemsize, Error, BarrierWithinLimit),
    rule(Tcpsndbuf, Error, BarrierWithinLimit),
    rule(Tcprcvbuf, Error, BarrierWithinLimit),
    rule(Othersockbuf, Error, BarrierWithinLimit),
    rule(Dgramrcvbuf, Error, BarrierWithinLimit),
    rule(Privvmpages, Error, BarrierWithinLimit),
    rule(Lockedpages, Error, BarrierWithinLimit),
    rule(Numflock, Error, BarrierWithinLimit),
    rule(Dcachesize, Error, BarrierWithinLimit),
    rule(Vmguarpages, Error, LimitUnlimited),
    rule(Oomguarpages, Error, LimitUnlimited),
    rule(Physpages, Error, BarrierZero),
    rule(Physpages, Error, LimitUnlimited),
    // The number of files before the cache for them, the cache before the kernel memory it is part of: each is known when it is asked for.
    rule(Numfile, Warning, AtLeast(Side::Barrier, files)),
    rule(Dcachesize, Warning, AtLeast(Side::Limit, cache_bytes)),
    rule(Kmemsize, Error, AtLeast(Side::Barrier, kernel_bytes)),
    rule(Privvmpages, Warning, AtLeast(Side::Barrier, guaranteed_pages)),
    rule(Tcpsndbuf, Error, AtLeast(Side::Room, tcp_room)),
    rule(Othersockbuf, Error, AtLeast(Side::Room, other_room)),
    rule(Tcprcvbuf, Warning, AtLeast(Side::Room, tcp_room)),
    rule(Tcprcvbuf, Warning, AtLeast(Side::Barrier, |_| Some(TCP_BYTES))),
    rule(Tcpsndbuf, Warning, AtLeast(Side::Barrier, |_| Some(TCP_BYTES))),
    rule(Dgramrcvbuf, Warning, AtLeast(Side::Barrier, |_| Some(OTHER_BYTES))),
    rule(Othersockbuf, Warning, AtLeast(Side::Barrier, |_| Some(OTHER_BYTES))),
    rule(Dgramrcvbuf, Recommendation, AtLeast(Side::Barrier, |_| Some(OTHER_BYTES_RECOMMENDED))),
    rule(Othersockbuf, Recommendation, AtLeast(Side::Barrier, |_| Some(OTHER_BYTES_RECOMMENDED))),
];

/// For a configuration of the simple mode. Swap has to be said: without it nothing starts (V4, code 28).
pub const VSWAP: &[Rule] = &[
    rule(Physpages, Error, Present),
    rule(Swappages, Error, Present),
    rule(Physpages, Error, BarrierZero),
    rule(Swappages, Error, BarrierZero),
    rule(Physpages, Warning, AtMost(|host| host.ram_pages)),
    rule(Swappages, Warning, AtMost(|host| host.swap_pages)),
];

fn barrier(set: &Set, resource: Resource) -> Option<u64> {
    set.get(resource).map(|bound| bound.barrier().count())
}

/// The expected number of processes; where the configuration does not say, half of those allowed.
fn average_processes(set: &Set) -> Option<u64> {
    barrier(set, Avnumproc).or_else(|| barrier(set, Numproc).map(|most| most / 2))
}

fn files(set: &Set) -> Option<u64> {
    let of_processes = average_processes(set).map(|count| count.saturating_mul(FILES_PER_PROCESS));
    let [tcp, other, ptys] = [Numtcpsock, Numothersock, Numpty].map(|resource| barrier(set, resource));
    let open = [tcp, other, ptys].into_iter().flatten().reduce(u64::saturating_add);
    of_processes.max(open)
}

fn cache_bytes(set: &Set) -> Option<u64> {
    barrier(set, Numfile).map(|count| count.saturating_mul(CACHE_BYTES_PER_FILE))
}

fn kernel_bytes(set: &Set) -> Option<u64> {
    let of_processes = average_processes(set)?.saturating_mul(KERNEL_BYTES_PER_PROCESS);
    set.get(Dcachesize).map(|cache| of_processes.saturating_add(cache.limit().count()))
}

fn guaranteed_pages(set: &Set) -> Option<u64> {
    barrier(set, Vmguarpages)
}

fn tcp_room(set: &Set) -> Option<u64> {
    barrier(set, Numtcpsock).map(|count| count.saturating_mul(ROOM_BYTES_PER_SOCKET))
}

fn other_room(set: &Set) -> Option<u64> {
    barrier(set, Numothersock).map(|count| count.saturating_mul(ROOM_BYTES_PER_SOCKET))
}
