//! The host's table of what was charged is full. A program of its own: other tests count on room in it.
#![expect(clippy::unwrap_used, reason = "a test that fails here has failed")]

#[expect(dead_code, reason = "the other test programs use the rest")]
mod bpf_support;

use std::time::Duration;

use beancounters::Resource::Numfile;
use bpf_support::{Container, enforced, host};
use tests::skips::skip;
use tests::wait::wait_until;

/// More files than this are too many to open for a test.
const MOST_FILES: u64 = 400_000;

#[test]
fn without_room_to_count_more_is_allowed_and_said_and_nothing_is_given_back_that_was_not_taken() {
    let test = "without_room_to_count_more_is_allowed_and_said_and_nothing_is_given_back_that_was_not_taken";
    let host = host();
    if !enforced(test, &host, Numfile) {
        return;
    }
    let info = rustix::system::sysinfo();
    // The loader makes room for one in 16 KiB of RAM, and up to a power of two.
    let more_than_fit = (info.totalram * u64::from(info.mem_unit) / (16 << 10)).next_power_of_two() + 5_000;
    if more_than_fit > MOST_FILES {
        return skip(test, "this host has more memory than a test can open files for");
    }
    let mut container = Container::new(&host, "full");
    let mut taker = container.taker();
    let before = container.row(Numfile).held;
    assert_eq!(taker.take("files", more_than_fit as u32), (more_than_fit as u32, 0), "nothing is refused for it");
    let (held, uncharged) = (container.row(Numfile).held, host.uncharged(container.id).unwrap());
    assert!(uncharged >= 5_000 && held < more_than_fit, "{held} held, {uncharged} not counted");
    assert!((held + uncharged).abs_diff(before + more_than_fit) < 20, "{held} held, {uncharged} not counted");

    taker.drop_all();
    let back = || container.row(Numfile).held == before;
    assert!(wait_until(Duration::from_secs(60), back), "{} of {before}", container.row(Numfile).held);
    container.bound(Numfile, before + 10);
    assert_eq!(taker.take("files", 20), (10, libc::ENFILE), "with room it counts and refuses again");
}
