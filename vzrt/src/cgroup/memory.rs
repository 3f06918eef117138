//! Memory and swap limits. OCI gives memory, and memory + swap; v1 takes the same two, v2 wants swap alone.

use std::path::Path;

use cgroups_rs::fs::memory::MemController;
use oci_spec::runtime::LinuxMemory;
use rustix::io::Errno;

use super::limits::{Missing, written};
use super::{Controller, CtCgroup, Error, Place, What, file};

/// What to write, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Memory, bytes; `None` is no limit.
    Memory(Option<u64>),
    /// v1: memory + swap; v2: swap.
    Swap(Option<u64>),
}

impl CtCgroup {
    pub(super) fn apply_memory(&self, memory: &LinuxMemory, missing: &mut Missing) -> Result<(), Error> {
        // Part of the memory limit itself since kernel 5.16, and no file of v2.
        missing.not_managed("memory.kernel", memory.kernel().is_some());
        missing.not_managed("memory.kernelTCP", memory.kernel_tcp().is_some());
        // A container that hangs at its limit instead of losing a process helps nobody.
        missing.not_managed("memory.disableOOMKiller", memory.disable_oom_killer() == Some(true));
        let Some(place) = self.wanted(Controller::Memory, What::MemoryLimit, missing) else { return Ok(()) };
        let controller = MemController::new(place.dir.clone(), place.dir.clone(), place.v2);
        for step in steps(memory, &place)? {
            match step {
                Step::Memory(limit) => set_limit(&controller, &place, limit)?,
                Step::Swap(limit) => set_swap(&controller, &place, limit, missing)?,
            }
        }
        if let Some(reservation) = memory.reservation() {
            set_reservation(&controller, &place, reservation, missing)?;
        }
        // Whether it was promised anything or not: others have come and gone.
        self.host.share_promises(&self.parent, crate::counters::host_ram_bytes())?;
        match memory.swappiness() {
            None => Ok(()),
            Some(_) if place.v2 => {
                missing.no_file(What::Swappiness, place.dir.join("memory.swappiness"));
                Ok(())
            }
            Some(value) => written(&place.dir, controller.set_swappiness(value)),
        }
    }
}

fn steps(memory: &LinuxMemory, place: &Place) -> Result<Vec<Step>, Error> {
    if memory.limit() == Some(0) {
        // The kernel would take it and kill whatever enters.
        return Err(Error::Value { what: "memory.limit", value: "0".to_owned() });
    }
    if place.v2 {
        let current = || limit_now(&place.dir.join("memory.max"));
        return steps_v2(memory.limit(), memory.swap(), current);
    }
    let memsw = place.dir.join("memory.memsw.limit_in_bytes");
    let current = if memsw.exists() { limit_now(&memsw)? } else { None };
    steps_v1(memory.limit(), memory.swap(), current)
}

/// v1 keeps `limit <= memsw` at each write: growing, memsw goes first, shrinking last. No limit of memory alone takes swap with it.
fn steps_v1(limit: Option<i64>, swap: Option<i64>, memsw_now: Option<u64>) -> Result<Vec<Step>, Error> {
    let limit = limit.map(unsigned);
    let swap = match (limit, swap.map(unsigned)) {
        (Some(None), None) => Some(None),
        (Some(limit), Some(Some(total))) if total < limit.unwrap_or(u64::MAX) => return Err(too_small(total)),
        (_, swap) => swap,
    };
    let memory = limit.map(Step::Memory);
    let Some(total) = swap else { return Ok(memory.into_iter().collect()) };
    let grows = total.unwrap_or(u64::MAX) >= memsw_now.unwrap_or(u64::MAX);
    let swap = Some(Step::Swap(total));
    let order = if grows { [swap, memory] } else { [memory, swap] };
    Ok(order.into_iter().flatten().collect())
}

/// v2 limits swap by itself: what OCI gives less the memory limit, the one asked for or the one in force. Swap goes first, so that
/// memory pushed out by a lower memory limit finds the room it is meant to have.
fn steps_v2(
    limit: Option<i64>,
    swap: Option<i64>,
    limit_now: impl FnOnce() -> Result<Option<u64>, Error>,
) -> Result<Vec<Step>, Error> {
    let limit = limit.map(unsigned);
    let swap = match swap.map(unsigned) {
        None => limit.filter(Option::is_none),
        Some(None) => Some(None),
        Some(Some(total)) => {
            let memory = limit.map_or_else(limit_now, Ok)?;
            let swap = total.checked_sub(memory.ok_or_else(|| too_small(total))?).ok_or_else(|| too_small(total))?;
            Some(Some(swap))
        }
    };
    Ok(swap.map(Step::Swap).into_iter().chain(limit.map(Step::Memory)).collect())
}

/// OCI: -1 is no limit. So is what no machine has (v1 shows the largest number of whole pages for none).
fn unsigned(bytes: i64) -> Option<u64> {
    u64::try_from(bytes).ok().filter(|&b| b < NO_LIMIT)
}

/// From here on a value means none; v1's own maximum, in pages of up to 64 KiB, is above.
const NO_LIMIT: u64 = (i64::MAX as u64) & !0xffff;

/// A limit in bytes; `None` is none.
pub(super) fn limit_now(path: &Path) -> Result<Option<u64>, Error> {
    Ok(Some(file::read_number(path)?).filter(|&b| b < NO_LIMIT))
}

fn too_small(total: u64) -> Error {
    Error::Value { what: "memory.swap (memory and swap together)", value: total.to_string() }
}

/// As the crate takes it.
fn signed(limit: Option<u64>) -> i64 {
    limit.and_then(|l| i64::try_from(l).ok()).unwrap_or(-1)
}

/// A limit below what is in use is made room for by reclaim and refused when that does not do, on both versions. v1 works so by itself
/// (EBUSY); v2 would kill processes to reach it, which nobody expects of `vzctl set`.
fn set_limit(controller: &MemController, place: &Place, limit: Option<u64>) -> Result<(), Error> {
    let usage = place.dir.join(if place.v2 { "memory.current" } else { "memory.usage_in_bytes" });
    if let Some(limit) = limit.filter(|_| place.v2) {
        reclaim_to(limit, &usage, &place.dir.join("memory.reclaim"))?;
    }
    match (written(&place.dir, controller.set_limit(signed(limit))), limit) {
        (Err(e), Some(limit)) if e.errno() == Some(Errno::BUSY) => {
            Err(Error::InUse { limit, used: file::read_number(&usage)? })
        }
        (result, _) => result,
    }
}

fn reclaim_to(limit: u64, usage: &Path, reclaim: &Path) -> Result<(), Error> {
    let excess = file::read_number(usage)?.saturating_sub(limit);
    if excess == 0 {
        return Ok(());
    }
    match file::write(reclaim, &excess.to_string()) {
        // EAGAIN: not all of it. ENOENT: before kernel 5.19. The reading decides.
        Err(e) if !matches!(e.errno(), Some(Errno::AGAIN | Errno::NOENT)) => return Err(e),
        _ => {}
    }
    let used = file::read_number(usage)?;
    if used > limit { Err(Error::InUse { limit, used }) } else { Ok(()) }
}

fn set_swap(controller: &MemController, place: &Place, limit: Option<u64>, missing: &mut Missing) -> Result<(), Error> {
    let file = if place.v2 { "memory.swap.max" } else { "memory.memsw.limit_in_bytes" };
    if limit.is_none() && !place.dir.join(file).exists() {
        return Ok(()); // No limit was asked for and there is none.
    }
    missing.unless_there(What::SwapLimit, &place.dir, file, || {
        written(&place.dir, controller.set_memswap_limit(signed(limit)))
    })
}

fn set_reservation(controller: &MemController, place: &Place, bytes: i64, missing: &mut Missing) -> Result<(), Error> {
    let file = if place.v2 { "memory.low" } else { "memory.soft_limit_in_bytes" };
    // The crate writes -1 as it is, which memory.low does not take. There, no reservation is 0; a v1 soft limit of none is -1.
    let bytes = if place.v2 { bytes.max(0) } else { bytes };
    missing.unless_there(What::MemoryReservation, &place.dir, file, || {
        written(&place.dir, controller.set_soft_limit(bytes))
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    const M: u64 = 1 << 20;
    const fn oci(mib: i64) -> Option<i64> {
        Some(mib << 20)
    }

    #[test]
    fn v1_never_has_less_memory_and_swap_than_memory_between_two_writes() {
        let values = [Some(64), Some(128), Some(256), None];
        for now_limit in values {
            for now_total in values {
                for limit in values {
                    for total in values {
                        let fits = |l: Option<i64>, t: Option<i64>| l.unwrap_or(i64::MAX) <= t.unwrap_or(i64::MAX);
                        if !fits(now_limit, now_total) || !fits(limit, total) {
                            continue;
                        }
                        let bytes = |v: Option<i64>| v.map_or(Some(-1), oci);
                        let number = |v: Option<i64>| v.map(|v| u64::try_from(v).unwrap() * M);
                        let (mut l, mut t) = (number(now_limit), number(now_total));
                        for step in steps_v1(bytes(limit), bytes(total), t).unwrap() {
                            match step {
                                Step::Memory(v) => l = v,
                                Step::Swap(v) => t = v,
                            }
                            assert!(
                                l.unwrap_or(u64::MAX) <= t.unwrap_or(u64::MAX),
                                "{now_limit:?}/{now_total:?} to {limit:?}/{total:?}"
                            );
                        }
                        assert_eq!((l, t), (number(limit), number(total)));
                    }
                }
            }
        }
    }

    #[test]
    fn v2_swap_is_the_total_less_the_memory_asked_for_or_in_force() {
        let none = || -> Result<Option<u64>, Error> { panic!("not needed") };
        assert_eq!(
            steps_v2(oci(512), oci(768), none).unwrap(),
            [Step::Swap(Some(256 * M)), Step::Memory(Some(512 * M))]
        );
        assert_eq!(steps_v2(oci(512), oci(512), none).unwrap(), [Step::Swap(Some(0)), Step::Memory(Some(512 * M))]);
        assert_eq!(steps_v2(None, oci(768), || Ok(Some(512 * M))).unwrap(), [Step::Swap(Some(256 * M))]);
        assert_eq!(steps_v2(oci(512), Some(-1), none).unwrap(), [Step::Swap(None), Step::Memory(Some(512 * M))]);
        assert_eq!(steps_v2(Some(-1), None, none).unwrap(), [Step::Swap(None), Step::Memory(None)]);
        assert_eq!(steps_v2(oci(512), None, none).unwrap(), [Step::Memory(Some(512 * M))]);
    }

    #[test]
    fn less_memory_and_swap_than_memory_is_refused_on_both() {
        assert!(matches!(steps_v1(oci(512), oci(256), None), Err(Error::Value { .. })));
        assert!(matches!(steps_v2(oci(512), oci(256), || Ok(None)), Err(Error::Value { .. })));
        assert!(
            matches!(steps_v2(None, oci(256), || Ok(None)), Err(Error::Value { .. })),
            "no memory limit to take off"
        );
    }

    #[test]
    fn the_largest_number_of_pages_is_no_limit() {
        assert_eq!(unsigned(0x7fff_ffff_ffff_f000), None);
        assert_eq!(unsigned(i64::MAX), None);
        assert_eq!(unsigned(-1), None);
        assert_eq!(unsigned(0), Some(0));
    }
}
