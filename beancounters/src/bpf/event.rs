//! Who was refused what, and when.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, SystemTime};

use super::layout;
use crate::Resource;

/// One refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its place among those of its container that were told, from 1.
    pub number: u64,
    /// When.
    pub at: SystemTime,
    /// Of what.
    pub resource: Resource,
    /// The limit refused; otherwise the barrier.
    pub at_limit: bool,
    /// What that was, in the unit of the resource.
    pub bound: u64,
    /// What was held then.
    pub held: u64,
    /// How much more was asked for.
    pub wanted: u64,
    /// Refusals until then, this one included: the difference to the one before is how many were not told apart.
    pub failcnt: u64,
    /// Whose process, as the host numbers them; 0 for a packet that came while none of the container's ran.
    pub pid: u32,
    /// Its thread.
    pub tid: u32,
    /// What the thread is called.
    pub command: String,
}

/// The ring of a container, oldest first. One that is being written is left out.
pub(super) fn read(slot: &layout::Slot) -> Vec<Refusal> {
    let booted = SystemTime::now().checked_sub(since_boot()).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut found: Vec<Refusal> = slot.ring.iter().filter_map(|event| one(event, booted)).collect();
    found.sort_by_key(|refusal| refusal.number);
    found
}

/// Counts a refusal and remembers it, as the programs do with theirs (`refuse` in `bpf/charge.h`): at most one a second of each resource.
pub(super) fn refuse(slot: &layout::Slot, resource: Resource, wanted: u64, at_limit: bool, thread: u32) {
    let counter = &slot.counters[resource as usize];
    let failcnt = counter.failcnt.fetch_add(1, Relaxed) + 1;
    let now = since_boot().as_nanos() as u64;
    let told = counter.told_ns.load(Relaxed);
    let lately = told != 0 && now.saturating_sub(told) < 1_000_000_000;
    if lately || counter.told_ns.compare_exchange(told, now, Relaxed, Relaxed).is_err() {
        return;
    }
    let number = slot.events.fetch_add(1, Relaxed);
    let event = &slot.ring[number as usize % layout::EVENTS];
    event.sequence.store(0, Release);
    event.boottime_ns.store(now, Relaxed);
    event.held.store(counter.held.load(Relaxed), Relaxed);
    event.wanted.store(wanted, Relaxed);
    event.bound.store(if at_limit { &counter.limit } else { &counter.barrier }.load(Relaxed), Relaxed);
    event.failcnt.store(failcnt, Relaxed);
    event.resource.store(resource as u32, Relaxed);
    event.at_limit.store(at_limit.into(), Relaxed);
    event.pid.store(process_of(thread).unwrap_or(thread), Relaxed);
    event.tid.store(thread, Relaxed);
    let command = std::fs::read(format!("/proc/{thread}/comm")).unwrap_or_default();
    let command = command.strip_suffix(b"\n").unwrap_or(&command);
    for (place, byte) in event.comm.iter().enumerate() {
        byte.store(command.get(place).copied().unwrap_or(0), Relaxed);
    }
    event.sequence.store(number + 1, Release);
}

/// Whose thread it is; `None`: it is gone.
fn process_of(thread: u32) -> Option<u32> {
    let status = std::fs::read(format!("/proc/{thread}/status")).ok()?;
    String::from_utf8_lossy(&status).lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())
}

fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

fn one(event: &layout::Event, booted: SystemTime) -> Option<Refusal> {
    let number = event.sequence.load(Acquire);
    let comm: Vec<u8> = event.comm.iter().map(|byte| byte.load(Relaxed)).take_while(|&byte| byte != 0).collect();
    let refusal = Refusal {
        number,
        at: booted + Duration::from_nanos(event.boottime_ns.load(Relaxed)),
        resource: *Resource::LIVE.get(event.resource.load(Relaxed) as usize)?,
        at_limit: event.at_limit.load(Relaxed) != 0,
        bound: event.bound.load(Relaxed),
        held: event.held.load(Relaxed),
        wanted: event.wanted.load(Relaxed),
        failcnt: event.failcnt.load(Relaxed),
        pid: event.pid.load(Relaxed),
        tid: event.tid.load(Relaxed),
        command: String::from_utf8_lossy(&comm).into_owned(),
    };
    (number != 0 && event.sequence.load(Acquire) == number).then_some(refusal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(sequence: u64, failcnt: u64) -> layout::Event {
        let comm = *b"httpd\0rest of it";
        layout::Event {
            sequence: sequence.into(),
            boottime_ns: 1_500_000_000.into(),
            held: 7.into(),
            wanted: 1.into(),
            bound: 7.into(),
            failcnt: failcnt.into(),
            resource: (Resource::Numfile as u32).into(),
            at_limit: 0.into(),
            pid: 42.into(),
            tid: 43.into(),
            comm: comm.map(Into::into),
        }
    }

    #[test]
    fn an_event_is_read_as_it_was_written() {
        let refusal = one(&event(3, 9), SystemTime::UNIX_EPOCH).expect("it is whole");
        assert_eq!((refusal.number, refusal.failcnt, refusal.pid, refusal.tid), (3, 9, 42, 43));
        assert_eq!((refusal.resource, refusal.command.as_str()), (Resource::Numfile, "httpd"));
        assert_eq!(refusal.at, SystemTime::UNIX_EPOCH + Duration::from_millis(1500));
        assert!(!refusal.at_limit);
    }

    #[test]
    fn an_event_that_is_being_written_or_makes_no_sense_is_left_out() {
        assert_eq!(one(&event(0, 9), SystemTime::UNIX_EPOCH), None);
        let strange = layout::Event { resource: 21.into(), ..event(1, 1) };
        assert_eq!(one(&strange, SystemTime::UNIX_EPOCH), None);
    }
}
