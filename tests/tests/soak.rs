//! Many containers, one after another and at once: the machine is afterwards as it was.

use std::sync::{Mutex, PoisonError};
use std::thread;

use tests::containers::node_with;
use tests::node::Node;
use tests::snapshot::Snapshot;
use tests::wait::rounds;

/// Each compares the whole machine: two at once would see each other.
static ALONE: Mutex<()> = Mutex::new(());

/// The machine with everything of this node that outlives a container: one has been there.
fn machine_before(node: &Node) -> Snapshot {
    cycle(node, 100);
    let parts = ["run", "lock", "private", "root", "dump", "etc/names"];
    Snapshot::take(parts.map(|part| node.path(part)))
}

fn cycle(node: &Node, ctid: u32) {
    let id = ctid.to_string();
    let address = format!("10.80.{}.{}", ctid / 250, ctid % 250 + 1);
    node.done(["create", &id, "--ostemplate", "busybox", "--ipadd", &address, "--name", &format!("name-{id}")]);
    node.done(["start", &id]);
    node.done(["exec2", &id, "true"]);
    node.done(["stop", &id, "--fast"]);
    node.done(["destroy", &id]);
}

#[test]
fn many_lives_one_after_another_leave_nothing() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(node) = node_with("many_lives_one_after_another_leave_nothing", "busybox") else { return };
    let machine = machine_before(&node);
    for _ in 0..rounds("VZ_TEST_CYCLES", 200, 25) {
        cycle(&node, 101);
    }
    machine.assert_unchanged();
}

#[test]
fn many_containers_at_once_leave_nothing() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(node) = node_with("many_containers_at_once_leave_nothing", "busybox") else { return };
    let machine = machine_before(&node);
    let count = rounds("VZ_TEST_CONTAINERS", 50, 8);
    let ctids: Vec<u32> = (101..101 + count).collect();
    let each = |work: &(dyn Fn(&str) + Sync)| {
        thread::scope(|scope| {
            // A few commands at once, as a host's boot does it.
            for part in ctids.chunks(ctids.len().div_ceil(4).max(1)) {
                scope.spawn(move || part.iter().for_each(|ctid| work(&ctid.to_string())));
            }
        });
    };
    each(&|id| {
        let address = format!("10.81.0.{}", id.parse::<u32>().expect("a number") - 100);
        node.done(["create", id, "--ostemplate", "busybox", "--ipadd", &address]);
        node.done(["start", id]);
    });
    for ctid in &ctids {
        assert_eq!(node.status(*ctid), format!("CTID {ctid} exist mounted running"));
    }
    let mut ranges: Vec<_> = ctids.iter().map(|ctid| node.configured(*ctid, "LOCAL_UID").expect("saved")).collect();
    ranges.sort();
    ranges.dedup();
    assert_eq!(ranges.len(), ctids.len(), "each has a range of users of its own");
    // The first and the last reach each other through all that is between.
    node.done(["exec2", "101", &format!("ping -c 1 -W 5 10.81.0.{count}")]);
    each(&|id| {
        node.done(["stop", id]);
        node.done(["destroy", id]);
    });
    machine.assert_unchanged();
}
