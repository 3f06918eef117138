//! Programs of another build take over while a container works. A program of its own: during that, programs of both are at work.
#![expect(clippy::unwrap_used, reason = "a test that fails here has failed")]

#[expect(dead_code, reason = "the other test programs use the rest")]
mod bpf_support;

use std::fs;
use std::thread;

use beancounters::Resource::{Numfile, Numtcpsock};
use beancounters::bpf;
use bpf_support::{Container, enforced, host};

#[test]
fn another_builds_programs_take_over_without_a_count_lost_or_doubled() {
    let before = host();
    if !enforced("another_builds_programs_take_over_without_a_count_lost_or_doubled", &before, Numfile)
        || !enforced("another_builds_programs_take_over_without_a_count_lost_or_doubled", &before, Numtcpsock)
    {
        return;
    }
    let mut container = Container::new(&before, "takeover");
    let (mut taker, mut churner) = (container.taker(), container.taker());
    assert_eq!(taker.take("files", 40), (40, 0));
    assert_eq!(taker.take("tcp", 20), (20, 0));
    let held = (container.row(Numfile).held, container.row(Numtcpsock).held);
    assert_eq!(held.1, 20);
    // Room for one more at any time: a doubled charge would be refused.
    container.bound(Numfile, held.0 + 1);
    container.bound(Numtcpsock, held.1 + 1);

    // Under another name, what is loaded is another build's.
    let other = bpf::directory().join("0123456789abcdef");
    fs::rename(bpf::directory().join(bpf::BUILD), &other).unwrap();
    assert!(bpf::Host::open().unwrap().is_none());
    let churn = thread::spawn(move || (churner.take("churn", 20_000), churner));
    let after = host();
    assert!(!other.exists(), "the other build's programs are gone");
    // It lives on: with it its own files would go.
    let (churned, _churner) = churn.join().unwrap();
    assert_eq!(churned, (20_000, 0));

    let rows = after.read(container.id).unwrap();
    let row = |resource| rows.iter().find(|(r, _)| *r == resource).unwrap().1;
    assert_eq!((row(Numfile).held, row(Numtcpsock).held), held, "the counts went on");
    assert_eq!((row(Numfile).failcnt, row(Numtcpsock).failcnt), (0, 0));
    assert_eq!(taker.take("files", 2), (1, libc::ENFILE), "and so did the barriers");
    taker.drop_all();
    assert_eq!(container.row(Numtcpsock).held, 0, "what the old programs charged, the new ones give back");
}
