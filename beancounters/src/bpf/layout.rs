//! What is shared with the programs: `bpf/layout.h`, in Rust. Both sides assert the same sizes.
//!
//! Everything is atomic because the programs write it meanwhile, on all processors.

use std::mem::offset_of;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

/// The version in the name of the directory of pins. Raised with every change of the layout.
pub const LAYOUT: u32 = 2;
/// How many containers there can be at one time.
pub(super) const SLOTS: usize = 2048;
/// How many refusals are remembered of each container.
pub(super) const EVENTS: usize = 16;
/// At how many depths of the cgroup tree containers can lie.
pub(super) const LEVELS: usize = 4;
/// As many as [`Resource::LIVE`](crate::Resource::LIVE), whose numbers index the counters.
pub(super) const RESOURCES: usize = crate::Resource::LIVE.len();

#[repr(C)]
pub(super) struct Counter {
    pub(super) held: AtomicU64,
    pub(super) maxheld: AtomicU64,
    pub(super) barrier: AtomicU64,
    pub(super) limit: AtomicU64,
    pub(super) failcnt: AtomicU64,
    pub(super) told_ns: AtomicU64,
}

#[repr(C)]
pub(super) struct Event {
    pub(super) sequence: AtomicU64,
    pub(super) boottime_ns: AtomicU64,
    pub(super) held: AtomicU64,
    pub(super) wanted: AtomicU64,
    pub(super) bound: AtomicU64,
    pub(super) failcnt: AtomicU64,
    pub(super) resource: AtomicU32,
    pub(super) at_limit: AtomicU32,
    pub(super) pid: AtomicU32,
    pub(super) tid: AtomicU32,
    pub(super) comm: [AtomicU8; 16],
}

#[repr(C)]
pub(super) struct Slot {
    pub(super) cgroup: AtomicU64,
    pub(super) generation: AtomicU32,
    pub(super) level: AtomicU32,
    pub(super) uncharged: AtomicU64,
    pub(super) events: AtomicU64,
    pub(super) counters: [Counter; RESOURCES],
    pub(super) ring: [Event; EVENTS],
}

#[repr(C)]
pub(super) struct Host {
    pub(super) levels: [AtomicU32; LEVELS],
}

/// What the loader says of one program, under its name padded with NUL.
pub const NAME_BYTES: usize = 32;
/// `1` and nothing, or `0` and why.
pub const VERDICT_BYTES: usize = 256;

const _: () = {
    assert!(RESOURCES == 21);
    assert!(size_of::<Counter>() == 48 && offset_of!(Counter, failcnt) == 32);
    assert!(size_of::<Event>() == 80 && offset_of!(Event, resource) == 48 && offset_of!(Event, comm) == 64);
    assert!(size_of::<Slot>() == 2320 && offset_of!(Slot, counters) == 32 && offset_of!(Slot, ring) == 1040);
    assert!(size_of::<Host>() == 16);
};
