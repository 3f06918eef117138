//! The host's table of what was charged is full. A program of its own: other tests count on room in it.
#![expect(clippy::unwrap_used, reason = "a test that fails here has failed")]

#[expect(dead_code, reason = "the other test programs use the rest")]
mod bpf_support;

use std::time::Duration;

use beancounters::Resource::Numfile;
use beancounters::bpf;
use bpf_support::{Container, enforced, host};
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use tests::wait::wait_until;

/// What fills the table and the map beside it (`bpf/table.h`): entries of no container, under keys that are no kernel's addresses.
struct Filling {
    lines: MapHandle,
    spilled: MapHandle,
    spilled_entries: u64,
}

/// Of a line, and where in it the keys are.
const LINE_BYTES: usize = 128;
const WAYS: std::ops::Range<usize> = 0..5;
const WAY_BYTES: usize = 24;
const FREE: u64 = 0;
const NOBODYS: u64 = 1;

impl Filling {
    fn of(lines: MapHandle, spilled: MapHandle) -> Self {
        let mut filling = Self { lines, spilled, spilled_entries: 0 };
        filling.replace(FREE, NOBODYS);
        let nobodys = vec![0; filling.spilled.value_size() as usize];
        while filling.spilled.update(&filling.spilled_entries.to_ne_bytes(), &nobodys, MapFlags::NO_EXIST).is_ok() {
            filling.spilled_entries += 1;
        }
        filling
    }

    /// A line is read and written as a whole: nothing else may put anything into the table meanwhile.
    fn replace(&self, from: u64, to: u64) {
        for line in 0..self.lines.max_entries() {
            let mut ways = self.lines.lookup(&line.to_ne_bytes(), MapFlags::ANY).unwrap().unwrap();
            assert_eq!(ways.len(), LINE_BYTES);
            for way in WAYS {
                let key = &mut ways[way * WAY_BYTES..][..8];
                if key == from.to_ne_bytes() {
                    key.copy_from_slice(&to.to_ne_bytes());
                }
            }
            self.lines.update(&line.to_ne_bytes(), &ways, MapFlags::EXIST).unwrap();
        }
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        (0..self.spilled_entries).for_each(|key| self.spilled.delete(&key.to_ne_bytes()).unwrap());
        self.replace(NOBODYS, FREE);
    }
}

#[test]
fn without_room_to_count_more_is_allowed_and_said_and_nothing_is_given_back_that_was_not_taken() {
    let test = "without_room_to_count_more_is_allowed_and_said_and_nothing_is_given_back_that_was_not_taken";
    let host = host();
    if !enforced(test, &host, Numfile) {
        return;
    }
    let mut container = Container::new(&host, "full");
    let mut taker = container.taker();
    let before = container.row(Numfile).held;
    let map = |name| MapHandle::from_pinned_path(bpf::directory().join("maps").join(name)).unwrap();
    let filling = Filling::of(map("charges"), map("charges_spilled"));
    assert!(filling.spilled_entries > 10_000, "there was room for {}", filling.spilled_entries);
    assert_eq!(taker.take("files", 500), (500, 0), "nothing is refused for it");
    let (held, uncharged) = (container.row(Numfile).held, host.uncharged(container.id).unwrap());
    // The kernel counts what is in a table by processor, and may find room for a few.
    assert!(uncharged >= 300 && held + uncharged == before + 500, "{held} of {before} held, {uncharged} not counted");

    // What they were charged with has spilled, and is found there.
    drop(filling);
    taker.drop_all();
    let back = || container.row(Numfile).held == before;
    assert!(wait_until(Duration::from_secs(10), back), "{} of {before}", container.row(Numfile).held);
    container.bound(Numfile, before + 10);
    assert_eq!(taker.take("files", 20), (10, libc::ENFILE), "with room it counts and refuses again");
}
