//! Limits of a real container, as the kernel of this host enforces them: the same sentences on every kind of host.
#![expect(clippy::expect_used, reason = "a test that fails here has failed")]

use tests::containers::node_with;
use tests::node::Node;

/// A node with the busybox template and a running container 101.
fn running(test: &str, options: &[&str]) -> Option<Node> {
    let node = node_with(test, "busybox")?;
    let create = ["create", "101", "--ostemplate", "busybox", "--config", "vswap-256m"];
    node.vzctl(create.iter().chain(options)).ok();
    node.vzctl(["start", "101"]).ok();
    Some(node)
}

fn inside(node: &Node, line: &str) -> String {
    node.vzctl(["exec2", "101", line]).ok().stdout
}

#[test]
fn a_container_fills_its_own_disk_and_not_the_hosts() {
    let Some(node) = running(
        "a_container_fills_its_own_disk_and_not_the_hosts",
        &["--diskspace", "40M:40M", "--diskinodes", "1000:1000"],
    ) else {
        return;
    };
    let filled = node.vzctl(["exec2", "101", "dd if=/dev/zero of=/fill bs=1M count=100"]);
    assert_ne!(filled.code, 0, "100 MiB fitted into 40: {}", filled.stderr);
    let kib: u64 = inside(&node, "du -sk /fill | cut -f1").trim().parse().expect("du");
    assert!((20_000..=42_000).contains(&kib), "{kib} KiB fitted");
    let many = node.vzctl([
        "exec2",
        "101",
        "rm /fill; mkdir /m; i=0; while [ $i -lt 1500 ]; do : > /m/$i || exit 1; i=$((i+1)); done",
    ]);
    assert_ne!(many.code, 0, "1500 files fitted into 1000");
    // df inside tells the limit, not the host's disk.
    let total: u64 = inside(&node, "df -k / | tail -1 | awk '{print $2}'").trim().parse().expect("df");
    assert!((39_000..=43_000).contains(&total), "df says {total} KiB");
}

#[test]
fn memory_tasks_and_cpu_are_bounded_at_start_and_live() {
    let Some(node) = running("memory_tasks_and_cpu_are_bounded_at_start_and_live", &[]) else { return };
    // 64 MiB of RAM and no swap: 128 MiB in a tmpfs can't be had, and only the writer is killed.
    node.vzctl(["set", "101", "--ram", "64M", "--swap", "0", "--numproc", "40", "--cpulimit", "50"]).ok();
    let eaten = node.vzctl(["exec2", "101", "dd if=/dev/zero of=/dev/shm/x bs=1M count=128"]);
    assert_ne!(eaten.code, 0, "128 MiB fitted into 64");
    inside(&node, "rm -f /dev/shm/x");
    let forks = node.vzctl(["exec2", "101", "i=0; while [ $i -lt 100 ]; do sleep 20 & i=$((i+1)); done"]);
    assert_ne!(forks.code, 0, "100 tasks fitted into 40");
    node.vzctl(["exec", "101", "killall sleep; true"]);
    let listed = node.vzlist(["-H", "-o", "numproc.l,physpages.l,cpulimit", "101"]);
    let cells: Vec<&str> = listed.stdout.split_whitespace().collect();
    assert_eq!(cells.len(), 3, "{}", listed.stdout);
}

#[test]
fn a_container_cannot_raise_its_own_limits_nor_leave_its_cgroup() {
    let Some(node) = running("a_container_cannot_raise_its_own_limits_nor_leave_its_cgroup", &[]) else { return };
    for line in [
        "echo max > /sys/fs/cgroup/pids.max",
        "echo max > /sys/fs/cgroup/memory.max",
        "echo 0 > /sys/fs/cgroup/memory.low",
        "echo max > /sys/fs/cgroup/memory.high",
        "echo max > /sys/fs/cgroup/memory.swap.max",
        "echo max > /sys/fs/cgroup/cpu.max",
        "echo 10000 > /sys/fs/cgroup/cpu.weight",
        "echo 0 > /sys/fs/cgroup/cpuset.cpus",
        "echo 10000 > /sys/fs/cgroup/io.weight",
        "echo max > /sys/fs/cgroup/cgroup.max.descendants",
        "echo 1 > /sys/fs/cgroup/cgroup.freeze",
        "echo 1 > /sys/fs/cgroup/cgroup.kill",
        "echo $$ > /sys/fs/cgroup/../cgroup.procs",
        // It may mount a v1 hierarchy, where the host has one: what it then sees of it is its own, and the host root's.
        "mkdir -p /tmp/c && mount -t cgroup -o memory none /tmp/c && echo -1 > /tmp/c/memory.limit_in_bytes",
        "mountpoint -q /tmp/c && mkdir /tmp/c/escape",
        "mountpoint -q /tmp/c && echo /bin/sh > /tmp/c/release_agent",
    ] {
        assert_ne!(node.vzctl(["exec2", "101", line]).code, 0, "{line}");
    }
    assert_eq!(node.vzctl(["status", "101"]).ok().stdout, "CTID 101 exist mounted running\n");
}

#[test]
fn nothing_is_left_after_stop_and_destroy() {
    let Some(node) =
        running("nothing_is_left_after_stop_and_destroy", &["--ipadd", "10.98.7.1", "--hostname", "left.example"])
    else {
        return;
    };
    assert_eq!(inside(&node, "hostname"), "left.example\n");
    node.vzctl(["stop", "101"]).ok();
    node.vzctl(["destroy", "101"]).ok();
    assert_eq!(node.close(), Vec::<String>::new());
}
