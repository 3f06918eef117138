//! The counters in the kernel, on whichever host this is: exact, refused at the barrier, given back.
#![expect(clippy::unwrap_used, reason = "a test that fails here has failed")]

mod bpf_support;
#[path = "bpf/buffers.rs"]
mod buffers;

use std::time::{Duration, Instant};

use beancounters::Resource::{
    self, Dcachesize, Kmemsize, Lockedpages, Numfile, Numflock, Numiptent, Numothersock, Numpty, Numsiginfo,
    Numtcpsock, Privvmpages, Shmpages,
};
use beancounters::Set;
use beancounters::bpf::{Error, RESOURCES, Standing};
use bpf_support::{Container, enforced, host};
use tests::wait::wait_until;

/// What each resource is taken with, how many of it one take is, and what a refusal says.
const TAKES: [(Resource, &str, u64, i32); 12] = [
    (Numfile, "files", 1, libc::ENFILE),
    (Numtcpsock, "tcp", 1, libc::ENOBUFS),
    (Numothersock, "unix", 1, libc::ENOBUFS),
    (Numothersock, "pairs", 2, libc::ENOBUFS),
    (Numpty, "ptys", 1, libc::ENOSPC),
    (Shmpages, "shared", 256, libc::ENOMEM),
    (Shmpages, "tmpfs", 1, libc::ENOSPC),
    (Numflock, "flocks", 1, libc::ENOLCK),
    (Numflock, "ranges", 1, libc::ENOLCK),
    (Lockedpages, "locked-maps", 1, libc::EAGAIN),
    (Lockedpages, "locked-segments", 1, libc::ENOMEM),
    (Numiptent, "rules", 1, libc::ENOMEM),
];

#[test]
fn a_host_says_how_each_resource_stands_and_why() {
    let host = host();
    // Stock Debian kernels load every program; that they do is what makes the other tests mean something.
    let reference = tests::suite::kind_of_host().starts_with("debian-");
    for resource in Resource::LIVE {
        let standing = host.standing(resource).unwrap();
        eprintln!("{resource}: {standing}");
        let taken = RESOURCES.iter().any(|counting| counting.resource == resource);
        if reference && taken {
            assert_eq!(standing, Standing::Enforced, "{resource}");
        }
        if !taken {
            assert_eq!(standing, Standing::Absent("no program counts it".to_owned()), "{resource}");
        }
    }
}

#[test]
fn what_is_taken_is_held_up_to_the_barrier_and_refused_beyond_it() {
    let host = host();
    for (place, (resource, what, each, errno)) in TAKES.into_iter().enumerate() {
        if !enforced("what_is_taken_is_held_up_to_the_barrier_and_refused_beyond_it", &host, resource) {
            return;
        }
        let (mut container, mut neighbour) =
            (Container::new(&host, &format!("at-{place}")), Container::new(&host, &format!("beside-{place}")));
        let (mut taker, mut other) = (container.taker(), neighbour.taker());
        let before = container.row(resource).held;
        container.bound(resource, before + 10 * each);
        assert_eq!(taker.take(what, 10), (10, 0), "{what}: held equal to the barrier is allowed");
        assert_eq!(container.row(resource).held, before + 10 * each, "{what}");
        assert_eq!(container.row(resource).failcnt, 0, "{what}");
        for refusals in 1..=3 {
            assert_eq!(taker.take(what, 5), (0, errno), "{what}");
            let row = container.row(resource);
            assert_eq!((row.held, row.maxheld), (before + 10 * each, before + 10 * each), "{what}");
            assert_eq!(row.failcnt, refusals, "{what}");
        }
        assert_eq!(other.take(what, 20), (20, 0), "{what}: a neighbour feels nothing");
        assert_eq!(neighbour.row(resource).failcnt, 0);

        container.bound(resource, before + 12 * each);
        assert_eq!(taker.take(what, 5), (2, errno), "{what}: raised while it runs");
        taker.drop_all();
        assert!(wait_until(Duration::from_secs(5), || container.row(resource).held == before), "{what}: given back");
        assert_eq!(taker.take(what, 12), (12, 0), "{what}: there is room again");

        container.kill();
        let gone = wait_until(Duration::from_secs(10), || container.row(resource).held == 0);
        assert!(gone, "{what}: a killed process gives everything back, {} are left", container.row(resource).held);
        assert_eq!(host.uncharged(container.id).unwrap(), 0);
        let row = container.row(resource);
        assert_eq!((row.maxheld, row.failcnt), (before + 12 * each, 4), "{what}: what was, stays");
        host.reset(container.id).unwrap();
        assert_eq!((container.row(resource).maxheld, container.row(resource).failcnt), (0, 0), "{what}");
    }
}

#[test]
fn a_connection_that_may_not_be_accepted_waits_for_room() {
    let host = host();
    if !enforced("a_connection_that_may_not_be_accepted_waits_for_room", &host, Numtcpsock) {
        return;
    }
    let mut container = Container::new(&host, "accepts");
    let mut taker = container.taker();
    assert_eq!(taker.take("listen", 1), (1, 0));
    assert_eq!(taker.take("connect", 2), (2, 0));
    assert_eq!(container.row(Numtcpsock).held, 3, "what nobody has accepted is nobody's socket");
    container.bound(Numtcpsock, 4);
    assert_eq!(taker.take("accept", 2), (1, libc::ENOBUFS));
    let row = container.row(Numtcpsock);
    assert_eq!((row.held, row.maxheld, row.failcnt), (4, 4, 1));
    container.bound(Numtcpsock, 5);
    assert_eq!(taker.take("accept", 1), (1, 0), "it was still in the queue");
    container.kill();
    assert!(wait_until(Duration::from_secs(10), || container.row(Numtcpsock).held == 0));
}

#[test]
fn a_lock_is_split_merged_changed_waited_for_and_handed_on() {
    let host = host();
    if !enforced("a_lock_is_split_merged_changed_waited_for_and_handed_on", &host, Numflock) {
        return;
    }
    let mut container = Container::new(&host, "locks");
    let mut taker = container.taker();
    for (what, held, why) in [
        ("lock", 1, "a range is one"),
        ("unlock-middle", 2, "what is left of it on both sides"),
        ("lock-middle", 1, "three that touch are one"),
        ("read-middle", 3, "another kind between two"),
        ("lock", 1, "one in place of three"),
        ("flock-shared", 2, ""),
        ("flock-exclusive", 2, "the same one"),
        ("open-lock", 3, "of an open file description"),
        ("lease", 4, ""),
        ("lease", 4, "the same one"),
        ("wait", 4, "what waits holds nothing"),
    ] {
        assert_eq!(taker.take(what, 1), (1, 0), "{what}");
        assert_eq!(container.row(Numflock).held, held, "{what}: {why}");
    }
    let waits = || std::fs::read_to_string("/proc/locks").unwrap().contains("-> POSIX");
    assert!(wait_until(Duration::from_secs(10), waits));
    assert_eq!(container.row(Numflock).held, 4, "what waits holds nothing");
    assert_eq!(taker.take("unlock", 1), (1, 0));
    assert!(wait_until(Duration::from_secs(10), || container.row(Numflock).held == 4), "it got what it waited for");
    taker.take("close", 1);
    assert_eq!(container.row(Numflock).held, 4, "its files are open in the one that waited");
    container.kill();
    assert!(wait_until(Duration::from_secs(10), || container.row(Numflock).held == 0));
    let row = container.row(Numflock);
    assert_eq!((row.maxheld, row.failcnt), (4, 0));
}

#[test]
fn a_ruleset_is_had_as_a_whole_or_not_at_all() {
    let host = host();
    if !enforced("a_ruleset_is_had_as_a_whole_or_not_at_all", &host, Numiptent) {
        return;
    }
    let (mut container, mut neighbour) = (Container::new(&host, "ruleset"), Container::new(&host, "ruleset-beside"));
    let (mut taker, mut other) = (container.taker(), neighbour.taker());
    let row = |container: &Container<'_>| {
        let row = container.row(Numiptent);
        (row.held, row.maxheld, row.failcnt)
    };
    container.bound(Numiptent, 100);
    taker.take("size", 101);
    assert_eq!(taker.take("rules-at-once", 1), (0, libc::ENOMEM));
    assert_eq!(row(&container), (0, 0, 1), "none of them is there");
    taker.take("size", 60);
    assert_eq!(taker.take("rules-in-vain", 3), (0, libc::ENOENT), "the kernel does not take it");
    assert_eq!(row(&container), (0, 0, 1), "what was held for it is given back");
    taker.take("size", 100);
    assert_eq!(taker.take("rules-at-once", 1), (1, 0));
    assert_eq!(row(&container), (100, 100, 1), "held equal to the barrier is allowed");
    for _ in 0..3 {
        assert_eq!(taker.take("rules-anew", 1), (1, 0), "all in place of all");
    }
    assert_eq!(taker.take("rules", 1), (0, libc::ENOMEM));
    assert_eq!(row(&container), (100, 100, 2));
    taker.take("size", 101);
    assert_eq!(taker.take("rules-anew", 1), (0, libc::ENOMEM));
    assert_eq!(row(&container), (100, 100, 3), "the old ones are still there");
    let told = host.refusals(container.id).unwrap();
    assert_eq!((told[0].resource, told[0].wanted, told[0].pid), (Numiptent, 101, taker.pid));

    container.bound(Numiptent, 101);
    assert_eq!(taker.take("rules-anew", 1), (1, 0), "raised while it runs");
    assert_eq!(row(&container), (101, 101, 3));
    container.bound(Numiptent, 50);
    assert_eq!(taker.take("no-rules", 1), (1, 0), "more than may be, and all may go");
    assert_eq!(row(&container), (0, 101, 3));
    taker.take("size", 50);
    assert_eq!(taker.take("rules-at-once", 1), (1, 0));

    assert_eq!(taker.take("more-anew", 1), (0, libc::ENOMEM), "one goes, two come");
    assert_eq!(taker.take("half-anew", 1), (1, 0), "one chain in place of itself");
    assert_eq!(taker.take("other-anew", 1), (0, libc::ENOMEM), "what goes is nothing");
    assert_eq!(taker.take("ruleset-anew", 1), (1, 0), "all tables in place of all");
    assert_eq!(row(&container), (50, 101, 5));

    other.take("size", 1000);
    assert_eq!(other.take("rules-at-once", 1), (1, 0), "a neighbour feels nothing");
    assert_eq!(row(&neighbour), (1000, 1000, 0));
    assert_eq!(other.take("rules", 1), (1, 0));
    other.drop_all();
    assert_eq!(row(&neighbour), (1000, 1001, 0));
    container.kill();
    assert!(wait_until(Duration::from_secs(10), || container.row(Numiptent).held == 0), "gone with its network");
    assert_eq!(host.uncharged(container.id).unwrap(), 0);
}

#[test]
fn rules_that_are_added_at_once_are_together_no_more_than_may_be() {
    let host = host();
    if !enforced("rules_that_are_added_at_once_are_together_no_more_than_may_be", &host, Numiptent) {
        return;
    }
    let mut container = Container::new(&host, "at-once");
    container.bound(Numiptent, 100);
    // Each in a network namespace of its own: nothing of the kernel's keeps them apart.
    let mut takers: Vec<_> = (0..4).map(|_| container.taker()).collect();
    takers.iter_mut().for_each(|taker| taker.tell("rules", 101));
    let got: u32 = takers.iter_mut().map(|taker| taker.got().0).sum();
    let row = container.row(Numiptent);
    assert_eq!((got, row.held, row.maxheld, row.failcnt), (100, 100, 100, 4));
}

#[test]
fn a_table_of_iptables_has_no_more_entries_than_may_be() {
    const TEST: &str = "a_table_of_iptables_has_no_more_entries_than_may_be";
    let host = host();
    if !enforced(TEST, &host, Numiptent) {
        return;
    }
    let mut container = Container::new(&host, "table");
    let mut taker = container.taker();
    taker.take("size", 50);
    let first = taker.take("table", 1);
    if [libc::ENOPROTOOPT, libc::ENOENT].contains(&first.1) {
        tests::skips::skip(TEST, "this kernel has no iptables of its own");
        return;
    }
    assert_eq!(first, (1, 0));
    container.bound(Numiptent, 50);
    assert_eq!(taker.take("table", 1), (1, 0), "as many in place of as many");
    taker.take("size", 51);
    assert_eq!(taker.take("table", 1), (0, libc::ENOMEM));
    assert_eq!(container.row(Numiptent).failcnt, 1);
    assert_eq!(taker.take("rules", 1), (1, 0), "the table is not counted");
    taker.take("size", 50);
    assert_eq!(taker.take("table", 1), (0, libc::ENOMEM), "but the rules are");
    let told = host.refusals(container.id).unwrap();
    assert_eq!((told[0].resource, told[0].wanted, told[0].pid), (Numiptent, 51, taker.pid));
    container.bound(Numiptent, 51);
    assert_eq!(taker.take("table", 1), (1, 0));
}

#[test]
fn a_signal_that_cannot_be_queued_is_a_refusal_and_the_most_that_were_is_kept() {
    let host = host();
    if !enforced("a_signal_that_cannot_be_queued_is_a_refusal_and_the_most_that_were_is_kept", &host, Numsiginfo) {
        return;
    }
    let mut container = Container::new(&host, "signals");
    let mut taker = container.taker();
    assert_eq!(taker.take("limit-signals", 1), (1, 0));
    assert_eq!(taker.take("signals", 4), (4, 0));
    let row = container.row(Numsiginfo);
    assert_eq!((row.held, row.maxheld, row.failcnt), (4, 4, 0));
    assert_eq!(taker.take("signals", 20), (6, libc::EAGAIN));
    assert_eq!(taker.take("signals", 1), (0, libc::EAGAIN));
    assert_eq!(taker.take("kills", 1), (1, 0), "it arrives without who sent it");
    let row = container.row(Numsiginfo);
    assert_eq!((row.maxheld, row.failcnt), (10, 3));
    let refusals = host.refusals(container.id).unwrap();
    assert_eq!((refusals[0].resource, refusals[0].pid), (Numsiginfo, taker.pid));
}

#[test]
fn what_is_locked_is_counted_of_all_and_refused_to_each() {
    let host = host();
    if !enforced("what_is_locked_is_counted_of_all_and_refused_to_each", &host, Lockedpages) {
        return;
    }
    let mut container = Container::new(&host, "locked");
    let (mut one, mut other) = (container.taker(), container.taker());
    let held = |container: &Container<'_>| container.row(Lockedpages).held;
    assert_eq!(one.take("mlock", 5), (5, 0));
    assert_eq!(other.take("mlock", 3), (3, 0));
    assert_eq!(held(&container), 8, "of both");
    assert_eq!(one.take("munlock", 1), (1, 0));
    assert_eq!(held(&container), 7);
    assert_eq!(one.take("fork", 1), (1, 0));
    assert_eq!(held(&container), 7, "a child has the memory and not the locks");
    other.drop_all();
    assert_eq!(held(&container), 4, "what is unmapped is not locked");
    assert_eq!(container.row(Lockedpages).failcnt, 0);

    assert_eq!(one.take("limit-locked", 1), (1, 0));
    assert_eq!(one.take("mlock-hole", 1), (0, libc::ENOMEM));
    assert_eq!(container.row(Lockedpages).failcnt, 0, "there was nothing to lock");
    assert_eq!(one.take("mlock", 20), (12, libc::ENOMEM));
    assert_eq!(one.take("mlockall", 1), (0, libc::ENOMEM));
    let row = container.row(Lockedpages);
    assert_eq!((row.held, row.maxheld, row.failcnt), (16, 16, 2));
    container.kill();
    assert!(wait_until(Duration::from_secs(10), || held(&container) == 0));
}

/// One mapping of the child's, 1 MiB.
const MAPPING: u64 = 256;

#[test]
fn address_space_is_held_up_to_the_barrier_and_forks_count_too() {
    let host = host();
    if !enforced("address_space_is_held_up_to_the_barrier_and_forks_count_too", &host, Privvmpages) {
        return;
    }
    let (mut container, mut neighbour) = (Container::new(&host, "space"), Container::new(&host, "space-beside"));
    let (mut taker, mut other) = (container.taker(), neighbour.taker());
    taker.take("memory", 1); // from here on perl has what it needs itself
    let before = container.row(Privvmpages).held;
    assert!(before > MAPPING, "a perl is more than its mapping: {before}");
    // Half a mapping of room for perl's own heap.
    container.bound(Privvmpages, before + 10 * MAPPING + MAPPING / 2);
    assert_eq!(taker.take("memory", 20), (10, libc::ENOMEM));
    let row = container.row(Privvmpages);
    assert!((10 * MAPPING..11 * MAPPING).contains(&(row.held - before)), "{row:?}");
    assert_eq!(row.failcnt, 1);
    assert!(row.maxheld <= row.barrier, "{row:?}");
    assert_eq!(taker.take("fork", 1), (0, libc::ENOMEM), "the copy would have as much again");
    assert_eq!(other.take("memory", 20), (20, 0), "a neighbour feels nothing");

    assert_eq!(taker.take("unmap", 10), (10, 0));
    let row = container.row(Privvmpages);
    assert!(row.held < before + MAPPING, "given back: {row:?}, {before} before");
    container.bound(Privvmpages, row.held * 2 + MAPPING);
    assert_eq!(taker.take("fork", 1), (1, 0), "raised while it runs");
    let forked = container.row(Privvmpages).held;
    assert!(forked.abs_diff(row.held * 2) < MAPPING, "two have {forked}, one has {}", row.held);
    assert_eq!(taker.take("fork", 1), (0, libc::ENOMEM));

    container.kill();
    let gone = wait_until(Duration::from_secs(10), || container.row(Privvmpages).held == 0);
    assert!(gone, "killed processes give everything back, {} are left", container.row(Privvmpages).held);
}

#[test]
fn a_refusal_is_told_with_who_when_and_what() {
    let host = host();
    if !enforced("a_refusal_is_told_with_who_when_and_what", &host, Numfile) {
        return;
    }
    let mut container = Container::new(&host, "told");
    let mut taker = container.taker();
    let held = container.row(Numfile).held;
    container.bound(Numfile, held);
    let start = std::time::SystemTime::now();
    for _ in 0..50 {
        assert_eq!(taker.take("files", 1), (0, libc::ENFILE));
    }
    let refusals = host.refusals(container.id).unwrap();
    let first = refusals.first().expect("one is told");
    assert_eq!((first.resource, first.at_limit, first.bound, first.held), (Numfile, false, held, held));
    assert_eq!((first.pid, first.command.as_str(), first.failcnt, first.wanted), (taker.pid, "perl", 1, 1));
    let away = first.at.duration_since(start).unwrap_or_else(|before| before.duration());
    assert!(away < Duration::from_secs(20), "{away:?}");
    assert_eq!(container.row(Numfile).failcnt, 50, "every refusal is counted");
    assert!(refusals.len() <= 16, "but a storm is told once a second: {}", refusals.len());
}

#[test]
fn a_cgroup_is_attached_once_detached_at_will_and_starts_from_zero() {
    let host = host();
    let mut container = Container::new(&host, "twice");
    assert!(matches!(host.attach(container.directory(), &Set::default()), Err(Error::Attached { .. })));
    let mut taker = container.taker();
    taker.take("files", 5);
    host.detach(container.id).unwrap();
    host.detach(container.id).unwrap();
    assert!(matches!(host.read(container.id), Err(Error::NotAttached { .. })));
    assert_eq!(host.attach(container.directory(), &Set::default()).unwrap(), container.id);
    taker.drop_all();
    // The kernel's memory is the cgroup's, whoever counts it.
    let rows = host.read(container.id).unwrap();
    for (resource, row) in rows.into_iter().filter(|(resource, _)| ![Kmemsize, Dcachesize].contains(resource)) {
        assert_eq!((row.held, row.failcnt), (0, 0), "{resource}: what it had before is nobody's");
    }
    let not_a_cgroup = host.attach(std::path::Path::new("/tmp"), &Set::default());
    assert!(matches!(not_a_cgroup, Err(Error::NotACgroup { .. })), "{not_a_cgroup:?}");
}

#[test]
fn reading_all_counters_of_a_container_takes_microseconds() {
    let host = host();
    let container = Container::new(&host, "read");
    let best = (0..100).map(|_| {
        let start = Instant::now();
        host.read(container.id).unwrap();
        start.elapsed()
    });
    let best = best.min().unwrap();
    eprintln!("reading all counters: {best:?}");
    assert!(best < tests::wait::scaled(Duration::from_micros(100)), "{best:?}");
}

const MIB: u64 = 1 << 20;

/// What `memory.stat` of a container's cgroup says.
fn stat(container: &Container<'_>, key: &str) -> u64 {
    let text = std::fs::read_to_string(container.directory().join("memory.stat")).unwrap();
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).unwrap().parse().unwrap()
}

#[test]
fn kernel_memory_is_held_as_the_kernel_counts_it_and_nothing_new_is_had_above_the_barrier() {
    const TEST: &str = "kernel_memory_is_held_as_the_kernel_counts_it_and_nothing_new_is_had_above_the_barrier";
    let host = host();
    if !enforced(TEST, &host, Kmemsize) {
        return;
    }
    let (mut container, mut neighbour) = (Container::new(&host, "kernel"), Container::new(&host, "kernel-beside"));
    let (mut taker, mut other) = (container.taker(), neighbour.taker());
    assert_eq!(taker.take("fork", 5), (5, 0));
    // The kernel's own sum is made every two seconds.
    let same = || stat(&container, "kernel").abs_diff(container.row(Kmemsize).held) <= 4096 * 16;
    assert!(wait_until(Duration::from_secs(10), same), "{} {:?}", stat(&container, "kernel"), container.row(Kmemsize));

    let before = container.row(Kmemsize).held;
    container.bound(Kmemsize, before + 2 * MIB);
    let (forked, error) = taker.take("fork", 1000);
    assert!(forked > 0 && error == libc::ENOMEM, "{forked} forks, then {error}");
    let row = container.row(Kmemsize);
    assert!(row.failcnt == 1 && row.maxheld + 4096 > row.barrier, "{row:?}");
    eprintln!("one that forks got {} bytes beyond the barrier", row.maxheld.saturating_sub(row.barrier));
    // What the kernel could give back is not in the way.
    assert!(row.maxheld < row.barrier + container.row(Dcachesize).held + MIB, "{row:?}");
    container.bound(Kmemsize, 0);
    let kinds = ["fork", "files", "tcp", "unix", "directories", "segments", "queues", "semaphores"];
    for (what, failcnt) in kinds.into_iter().zip(2..) {
        assert_eq!(taker.take(what, 1), (0, libc::ENOMEM), "{what}");
        assert_eq!(container.row(Kmemsize).failcnt, failcnt, "{what}: one refusal");
        assert_eq!(other.take(what, 2), (2, 0), "{what}: a neighbour feels nothing");
    }
    assert!(host.refusals(container.id).unwrap().iter().any(|refusal| refusal.resource == Kmemsize));
    container.bound(Kmemsize, row.maxheld + 16 * MIB);
    for what in kinds {
        assert_eq!(taker.take(what, 2), (2, 0), "{what}: raised while it runs");
    }
    taker.drop_all();
    container.kill();
    let gone = wait_until(Duration::from_secs(20), || container.row(Kmemsize).held < before);
    assert!(gone, "what is killed gives it back: {:?}, {before} before", container.row(Kmemsize));
}

#[test]
fn kernel_memory_is_held_to_little_more_than_the_barrier_by_many_who_fork_without_end() {
    let host = host();
    if !enforced("kernel_memory_is_held_to_little_more_than_the_barrier_by_many_who_fork_without_end", &host, Kmemsize)
    {
        return;
    }
    let mut container = Container::new(&host, "bomb");
    let mut taker = container.taker();
    let before = container.row(Kmemsize).held;
    container.bound(Kmemsize, before + 8 * MIB);
    taker.tell("bomb", 1);
    assert!(wait_until(Duration::from_secs(30), || container.row(Kmemsize).failcnt > 100));
    std::thread::sleep(Duration::from_secs(3));
    let row = container.row(Kmemsize);
    eprintln!(
        "many that fork got {} bytes beyond the barrier, and {} refusals",
        row.maxheld - row.barrier,
        row.failcnt
    );
    assert!(row.maxheld < row.barrier + 8 * MIB, "{row:?}");
    container.kill();
    let gone = wait_until(Duration::from_secs(20), || container.row(Kmemsize).held < before);
    assert!(gone, "{:?}, {before} before", container.row(Kmemsize));
}

#[test]
fn dcache_is_held_by_the_kernels_sum_and_no_new_ones_are_had_above_dcachesize() {
    let host = host();
    if !enforced("dcache_is_held_by_the_kernels_sum_and_no_new_ones_are_had_above_dcachesize", &host, Dcachesize) {
        return;
    }
    let (mut container, mut neighbour) = (Container::new(&host, "inodes"), Container::new(&host, "inodes-beside"));
    let (mut taker, mut other) = (container.taker(), neighbour.taker());
    let limit = container.row(Dcachesize).held + MIB / 2;
    assert_eq!(taker.take("directories", 2000), (2000, 0));
    let counted = || container.row(Dcachesize).held > limit;
    assert!(wait_until(Duration::from_secs(10), counted), "{:?}", container.row(Dcachesize));
    container.bound(Dcachesize, limit);
    assert_eq!(taker.take("directories", 1), (0, libc::ENOMEM));
    let row = container.row(Dcachesize);
    assert_eq!(row.failcnt, 1);
    assert!(row.maxheld >= row.held && row.held > limit, "{row:?}");
    assert_eq!(taker.take("files", 2), (2, 0), "what is there can be opened");
    assert_eq!(other.take("directories", 2), (2, 0), "a neighbour feels nothing");
    let full = stat(&container, "slab_reclaimable");
    taker.drop_all();
    // The names of what is gone are remembered: not all comes back.
    let given_back = || container.row(Dcachesize).held < full / 2;
    assert!(wait_until(Duration::from_secs(10), given_back), "{:?}", container.row(Dcachesize));
    container.bound(Dcachesize, full);
    assert_eq!(taker.take("directories", 2), (2, 0), "raised while it runs");
}

#[test]
fn shared_memory_is_held_by_its_size_and_is_no_private_memory() {
    let host = host();
    if !enforced("shared_memory_is_held_by_its_size_and_is_no_private_memory", &host, Shmpages) {
        return;
    }
    let mut container = Container::new(&host, "shared");
    let mut taker = container.taker();
    for what in ["segments", "tmpfs", "shared"] {
        taker.take(what, 1); // perl has what it needs itself
    }
    taker.drop_all();
    assert_eq!(container.row(Shmpages).held, 0);
    let private = container.row(Privvmpages).held;
    // Less than one of the mappings: room for perl's own heap.
    container.bound(Privvmpages, private + 200);
    container.bound(Shmpages, 20 * 16);
    assert_eq!(taker.take("segments", 30), (20, libc::ENOMEM), "untouched as they are");
    let row = container.row(Shmpages);
    assert_eq!((row.held, row.maxheld, row.failcnt), (320, 320, 1));
    container.bound(Shmpages, 320 + 10 * 256 + 300);
    assert_eq!(taker.take("shared", 10), (10, 0));
    assert_eq!(taker.take("tmpfs", 400), (300, libc::ENOSPC));
    let row = container.row(Privvmpages);
    assert!(row.failcnt == 0 && row.held < private + 200, "{row:?}, {private} before");
    taker.drop_all();
    assert_eq!(container.row(Shmpages).held, 0);
}
