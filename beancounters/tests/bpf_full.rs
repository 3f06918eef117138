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

/// What fills the table: entries of no container, under keys that are no kernel's addresses.
struct Filling {
    table: MapHandle,
    entries: u64,
}

impl Filling {
    fn of(table: MapHandle) -> Self {
        let mut filling = Self { table, entries: 0 };
        let nobodys = vec![0; filling.table.value_size() as usize];
        while filling.table.update(&filling.entries.to_ne_bytes(), &nobodys, MapFlags::NO_EXIST).is_ok() {
            filling.entries += 1;
        }
        filling
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        (0..self.entries).for_each(|key| self.table.delete(&key.to_ne_bytes()).unwrap());
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
    let filling = Filling::of(MapHandle::from_pinned_path(bpf::directory().join("maps/charges")).unwrap());
    assert!(filling.entries > 10_000, "there was room for {}", filling.entries);
    assert_eq!(taker.take("files", 500), (500, 0), "nothing is refused for it");
    let (held, uncharged) = (container.row(Numfile).held, host.uncharged(container.id).unwrap());
    // The kernel counts what is in a table by processor, and may find room for a few.
    assert!(uncharged >= 300 && held + uncharged == before + 500, "{held} of {before} held, {uncharged} not counted");

    drop(filling);
    taker.drop_all();
    let back = || container.row(Numfile).held == before;
    assert!(wait_until(Duration::from_secs(10), back), "{} of {before}", container.row(Numfile).held);
    container.bound(Numfile, before + 10);
    assert_eq!(taker.take("files", 20), (10, libc::ENFILE), "with room it counts and refuses again");
}
