//! What is queued in sockets is counted by the memory it takes, refused or dropped at the barrier, and given back however it goes.

use std::time::Duration;

use beancounters::Resource::{self, Dgramrcvbuf, Othersockbuf, Tcprcvbuf, Tcpsndbuf};
use tests::wait::wait_until;

use crate::bpf_support::{Container, enforced, host};

/// What each take writes.
const PAGE: u64 = 4096;

/// Whether nothing is held any more, soon.
fn comes_to(container: &Container<'_>, resource: Resource, held: u64) -> bool {
    wait_until(Duration::from_secs(20), || container.row(resource).held == held)
}

#[test]
fn datagrams_are_held_by_the_memory_they_take_up_to_the_barrier() {
    let host = host();
    for (resource, what, errno) in [(Othersockbuf, "datagram", libc::ENOBUFS), (Dgramrcvbuf, "udp", 0)] {
        if !enforced("datagrams_are_held_by_the_memory_they_take_up_to_the_barrier", &host, resource) {
            return;
        }
        let (mut container, mut neighbour) =
            (Container::new(&host, &format!("full-{what}")), Container::new(&host, &format!("beside-{what}")));
        let (mut taker, mut other) = (container.taker(), neighbour.taker());
        assert_eq!(container.row(resource).held, 0, "{what}");
        assert_eq!(taker.take(what, 1), (1, 0), "{what}");
        let each = container.row(resource).held;
        assert!((PAGE + 512..=4 * PAGE).contains(&each), "{what}: {each} for {PAGE} bytes");

        container.bound(resource, 10 * each);
        assert_eq!(taker.take(what, 9), (9, 0), "{what}: held equal to the barrier is allowed");
        for refusals in 1..=3 {
            assert_eq!(taker.take(what, 1), (0, errno), "{what}");
            let row = container.row(resource);
            assert_eq!((row.held, row.maxheld, row.failcnt), (10 * each, 10 * each, refusals), "{what}");
        }
        assert_eq!(other.take(what, 20), (20, 0), "{what}: a neighbour feels nothing");
        assert_eq!(neighbour.row(resource).failcnt, 0, "{what}");

        container.bound(resource, 12 * each);
        assert_eq!(taker.take(what, 2), (2, 0), "{what}: raised while it runs");
        taker.drop_all();
        assert!(comes_to(&container, resource, 0), "{what}: {} are left", container.row(resource).held);
        assert_eq!(taker.take(what, 5), (5, 0), "{what}: there is room again");
        container.kill();
        assert!(comes_to(&container, resource, 0), "{what}: {} are left", container.row(resource).held);
        assert_eq!(host.uncharged(container.id).unwrap(), 0);
    }
}

#[test]
fn a_writer_of_a_stream_is_refused_at_the_barrier_and_goes_on_when_it_was_read() {
    let host = host();
    for (resource, how) in [(Othersockbuf, "pair"), (Tcpsndbuf, "connection")] {
        if !enforced("a_writer_of_a_stream_is_refused_at_the_barrier_and_goes_on_when_it_was_read", &host, resource) {
            return;
        }
        let mut container = Container::new(&host, &format!("written-{how}"));
        let mut taker = container.taker();
        taker.take("listen", 1);
        assert_eq!(taker.take(how, 1), (1, 0), "{how}");
        let barrier = 16 * PAGE;
        container.bound(resource, barrier);
        let (written, errno) = taker.take("page", 1000);
        assert_eq!(errno, libc::ENOBUFS, "{how} after {written}");
        let row = container.row(resource);
        assert_eq!(row.failcnt, 1, "{how}");
        assert!((barrier / 2..=barrier).contains(&row.held), "{how}: {row:?}");

        container.bound(resource, 2 * barrier);
        assert!(taker.take("page", 1000).0 > 4, "{how}: raised while it runs");
        assert_eq!(taker.take("drain", 1), (1, 0), "{how}: what was written arrives");
        assert!(comes_to(&container, resource, 0), "{how}: {} are left", container.row(resource).held);
        assert_eq!(taker.take("page", 4), (4, 0), "{how}: there is room again");
        assert_eq!(taker.take("force", 1), (0, libc::EPERM), "{how}: no buffer past what the host allows");

        assert_eq!(taker.take("hangup", 1), (1, 0));
        assert!(comes_to(&container, resource, 0), "{how}: a dead reader leaves {}", container.row(resource).held);
        container.kill();
        assert!(comes_to(&container, resource, 0), "{how}: {} are left", container.row(resource).held);
    }
}

#[test]
fn what_tcp_may_not_receive_comes_again() {
    let host = host();
    if !enforced("what_tcp_may_not_receive_comes_again", &host, Tcprcvbuf) {
        return;
    }
    let mut container = Container::new(&host, "received");
    let mut taker = container.taker();
    taker.take("listen", 1);
    assert_eq!(taker.take("connection", 1), (1, 0));
    assert_eq!(taker.take("page", 1), (1, 0));
    assert!(wait_until(Duration::from_secs(10), || container.row(Tcprcvbuf).held >= PAGE));
    let first = container.row(Tcprcvbuf).held;
    container.bound(Tcprcvbuf, first + 4 * PAGE);
    assert_eq!(taker.take("page", 16), (16, 0), "the writer's own buffer has room");
    assert!(wait_until(Duration::from_secs(10), || container.row(Tcprcvbuf).failcnt > 0));
    let row = container.row(Tcprcvbuf);
    assert!(row.held <= row.barrier && row.maxheld <= row.barrier, "{row:?}");
    assert!(container.row(Tcpsndbuf).held >= 8 * PAGE, "it waits at its writer: {:?}", container.row(Tcpsndbuf));

    // Even where nothing at all may be received, a reader gets on.
    container.bound(Tcprcvbuf, 1);
    assert_eq!(taker.take("drain", 1), (1, 0));
    assert!(comes_to(&container, Tcprcvbuf, 0), "{:?}", container.row(Tcprcvbuf));
    assert!(comes_to(&container, Tcpsndbuf, 0), "{:?}", container.row(Tcpsndbuf));

    container.bound(Tcprcvbuf, 1 << 30);
    assert_eq!(taker.take("page", 16), (16, 0));
    assert!(wait_until(Duration::from_secs(10), || container.row(Tcprcvbuf).held >= 16 * PAGE));
    container.kill();
    assert!(comes_to(&container, Tcprcvbuf, 0), "{:?}", container.row(Tcprcvbuf));
    assert!(comes_to(&container, Tcpsndbuf, 0), "{:?}", container.row(Tcpsndbuf));
}
