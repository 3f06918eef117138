//! What a server's user runs today and OpenVZ's containers could not: namespaces, sandboxes and containers of one's own, FUSE and tun, packet
//! filters. As root inside and as an ordinary user; and what that must not open.

use std::process::Command;
use std::time::Duration;

use tests::containers::{DEBIAN_12_TOOLS, node_with, running_busybox};
use tests::node::{Node, Outcome};
use tests::wait::wait_until;

/// A container with the tools, running; each test has an address of its own. The user `u` has numbers for containers within those that the
/// container has, and a service manager.
fn running_tools(test: &str, address: &str, options: &[&str]) -> Option<Node> {
    let node = node_with(test, DEBIAN_12_TOOLS)?;
    node.done(["create", "101", "--ostemplate", DEBIAN_12_TOOLS, "--ipadd", address]);
    if !options.is_empty() {
        node.done(["set", "101"].iter().chain(options).copied().chain(["--save"]));
    }
    node.done(["start", "101", "--wait"]);
    node.inside(
        "useradd -m -s /bin/sh u; echo u:10000:50000 | tee /etc/subuid > /etc/subgid; loginctl enable-linger u",
    );
    assert!(
        wait_until(Duration::from_secs(20), || node.vzctl(["exec2", "101", "test -S /run/user/1000/bus"]).code == 0)
    );
    Some(node)
}

/// A command line of the user `u`.
fn by_user(line: &str) -> String {
    let line = format!("export XDG_RUNTIME_DIR=/run/user/1000; {line}");
    format!("su - u -c '{}'", line.replace('\'', "'\\''"))
}

/// A command line of root, as [`by_user`].
fn by_root(line: &str) -> String {
    format!("export USER=root; {line}")
}

/// What a command line in container 101 prints; it must succeed, and may warn.
#[track_caller]
fn said(node: &Node, line: &str) -> String {
    node.vzctl(["exec2", "101", line]).ok().stdout.trim_end().to_owned()
}

fn fails(node: &Node, line: &str) -> bool {
    node.vzctl(["exec2", "101", line]).code != 0
}

#[test]
fn root_and_users_inside_make_namespaces_and_sandboxes_with_proc_and_sysfs_of_their_own() {
    let test = "root_and_users_inside_make_namespaces_and_sandboxes_with_proc_and_sysfs_of_their_own";
    let Some(node) = running_tools(test, "10.84.1.1", &[]) else { return };
    for (line, expected) in [
        ("unshare -Ur id -u", "0"),
        ("unshare -Urmpf --mount-proc ps -e -o comm=", "ps"),
        ("unshare -Urmnpf sh -c \"mount -t sysfs none /mnt && ls /mnt/class/net\"", "lo"),
        ("bwrap --ro-bind / / --proc /proc --dev /dev --unshare-all ps -e -o comm=", "bwrap\nps"),
    ] {
        assert_eq!(said(&node, line), expected, "{line}");
        assert_eq!(said(&node, &by_user(line)), expected, "a user's {line}");
    }
    assert_eq!(node.inside("systemctl is-system-running"), "running");
}

#[test]
fn what_is_mounted_inside_shows_in_the_mount_namespace_of_a_service() {
    let Some(node) = running_busybox("what_is_mounted_inside_shows_in_the_mount_namespace_of_a_service") else {
        return;
    };
    // As systemd makes it for a service with PrivateTmp= and the like.
    let service = "unshare -m --propagation slave sh -c 'touch /ready; until grep -q /mnt /proc/self/mountinfo; do sleep 0.1; done; touch /seen'";
    node.inside(&format!("mkdir -p /mnt; {service} > /dev/null 2>&1 & until [ -e /ready ]; do sleep 0.1; done"));
    node.inside("mount -t tmpfs none /mnt; until [ -e /seen ]; do sleep 0.1; done");
}

/// Opens for writing, and does not write, all that has a write bit in the proc and sysfs which nested namespaces are made from, and prints
/// what opened. Processes are its own container's.
const OPEN_ALL: &str = "cd /dev/.vz; for file in $(find 2>/dev/null proc sys -type f -perm /222 -not -path 'proc/[0-9]*' -not -path 'proc/self/*' \
    -not -path 'proc/thread-self/*'); do if (exec 3>>$file) 2>/dev/null; then echo $file; fi; done";

/// What belongs to the container's own namespaces: network, ipc, uts, limits of its user namespace; its own network devices.
/// Those of `proc/pressure` take who is to be told of pressure, and are the same for every user of a machine.
const OWN: [&str; 14] = [
    "proc/pressure/",
    "proc/sys/net/",
    "proc/sys/user/",
    "proc/sys/fs/mqueue/",
    "proc/sys/kernel/shm",
    "proc/sys/kernel/msg",
    "proc/sys/kernel/sem",
    "proc/sys/kernel/auto_msgmni",
    "proc/sys/kernel/hostname",
    "proc/sys/kernel/domainname",
    "proc/sys/kernel/ns_last_pid",
    "proc/sys/kernel/pid_max",
    "sys/devices/virtual/net/",
    "sys/class/net/",
];

#[test]
fn the_proc_and_sysfs_that_make_nesting_possible_are_out_of_sight_and_nothing_of_the_host_in_them_can_be_written() {
    let test =
        "the_proc_and_sysfs_that_make_nesting_possible_are_out_of_sight_and_nothing_of_the_host_in_them_can_be_written";
    let Some(node) = running_busybox(test) else { return };
    assert_eq!(node.inside("ls -A /dev/.vz"), "");
    assert!(
        fails(&node, "touch /dev/.vz/x") && fails(&node, "unshare -Urm umount /dev/.vz"),
        "a user's namespace uncovers it"
    );
    assert!(fails(&node, "adduser -D u; su u -c 'ls /dev/.vz'"), "users look below it");
    // Root inside may do with its mounts what it likes; here it does the worst.
    node.inside("umount /dev/.vz; ls /dev/.vz/proc/self/status /dev/.vz/sys/class/net/lo");
    let opened = node.inside(OPEN_ALL);
    let foreign: Vec<&str> = opened.lines().filter(|file| !OWN.iter().any(|own| file.starts_with(own))).collect();
    assert_eq!(foreign, [""; 0], "can be written from inside");
    assert!(opened.contains("proc/sys/net/ipv4/ip_forward"), "the search works: {opened}");
    for secret in ["proc/kcore", "proc/kmsg", "proc/timer_list", "proc/slabinfo", "proc/1/map_files/x"] {
        assert!(fails(&node, &format!("head -c 1 /dev/.vz/{secret}")), "{secret} can be read");
    }
    let keys = node.inside("cat /dev/.vz/proc/keys");
    assert!(keys.lines().all(|key| key.contains(" _ses.vz: ")), "more than its own session keyring: {keys}");
}

/// An image of nothing but busybox, and what podman has to know where the container has no controllers to give on.
const IMAGE: &str = "mkdir -p /srv/img && cp /bin/busybox /srv/img && cd /srv/img && printf 'FROM scratch\\nCOPY busybox /bin/busybox\\n\
    RUN [\"/bin/busybox\",\"--install\",\"-s\",\"/bin\"]\\n' > Containerfile; mkdir -p /etc/containers; \
    grep -q pids /sys/fs/cgroup/cgroup.controllers || printf '[containers]\\npids_limit = 0\\n' > /etc/containers/containers.conf";

/// fuse-overlayfs and slirp4netns need them.
const GRANTS: [&str; 4] = ["--devnodes", "fuse:rw", "--devnodes", "net/tun:rw"];

const VFS: &str = "podman --root /var/tmp/$USER/vfs --runroot /var/tmp/$USER/run-vfs --storage-driver vfs";
const FUSE_OVERLAY: &str = "podman --root /var/tmp/$USER/fuse --runroot /var/tmp/$USER/run-fuse --storage-driver overlay \
    --storage-opt overlay.mount_program=/usr/bin/fuse-overlayfs";

#[test]
fn podman_builds_and_runs_an_image_for_root_and_for_a_user() {
    let test = "podman_builds_and_runs_an_image_for_root_and_for_a_user";
    let Some(node) = running_tools(test, "10.84.1.2", &GRANTS) else {
        return;
    };
    node.inside(IMAGE);
    for (who, whose) in [("root", &by_root as &dyn Fn(&str) -> String), ("u", &by_user)] {
        for storage in [VFS, FUSE_OVERLAY] {
            said(&node, &whose(&format!("{storage} build -q -t one /srv/img")));
            let look = "/bin/sh -c \"id -u; ps -o pid,args; ls /sys/class/net\"";
            let lines = said(&node, &whose(&format!("{storage} run --rm one {look}")));
            assert!(lines.starts_with("0\nPID   COMMAND\n    1 "), "{who}, {storage}: {lines}");
            assert!(lines.contains("\nlo") && !lines.contains("venet0"), "{who}, {storage}: {lines}");
        }
        // One that stays, in a cgroup of its own: it is frozen, and stopped from outside.
        said(&node, &whose(&format!("{VFS} run -d --name d one /bin/sleep 1000")));
        let look = format!("{VFS} pause d; {VFS} inspect -f {{{{.State.Status}}}} d; {VFS} unpause d");
        let state = said(&node, &whose(&look));
        assert!(state.contains("\npaused\n"), "{who}: {state}");
        said(&node, &whose(&format!("{VFS} exec d /bin/true && {VFS} stop -t 0 d && {VFS} rm d")));
    }
    said(&node, &by_root(&format!("{VFS} run --rm --privileged one /bin/true")));
    assert_eq!(node.inside("systemctl is-system-running"), "running");
}

#[test]
fn where_the_host_has_controllers_a_container_inside_is_bounded_by_them() {
    let test = "where_the_host_has_controllers_a_container_inside_is_bounded_by_them";
    if tests::suite::kind_of_host() == "hybrid" {
        return tests::skips::skip(
            test,
            "the controllers of this host are in cgroup v1, of which a container sees nothing",
        );
    }
    let Some(node) = running_tools(test, "10.84.1.3", &GRANTS) else { return };
    node.inside(IMAGE);
    let controllers = node.inside("cat /sys/fs/cgroup/cgroup.controllers");
    for needed in ["cpu", "memory", "pids", "io"] {
        assert!(controllers.split_whitespace().any(|c| c == needed), "{needed} is not among {controllers}");
    }
    for whose in [&by_root as &dyn Fn(&str) -> String, &by_user] {
        said(&node, &whose(&format!("{VFS} build -q -t one /srv/img")));
        let look = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max";
        let bounds = said(&node, &whose(&format!("{VFS} run --rm --memory 64m --pids-limit 50 one {look}")));
        assert_eq!(bounds, "67108864\n50");
    }
}

#[test]
fn tun_and_fuse_granted_to_a_running_container_work_for_root_and_users_and_again_after_a_restart() {
    let test = "tun_and_fuse_granted_to_a_running_container_work_for_root_and_users_and_again_after_a_restart";
    let Some(node) = running_tools(test, "10.84.1.4", &[]) else { return };
    let tun = "ip tuntap add dev tun0 mode tun user u && ip -br link show tun0 | cut -d' ' -f1 && ip link delete tun0";
    let overlay = "mkdir -p /srv/l /srv/u /srv/w /srv/m; echo below > /srv/l/file; \
        fuse-overlayfs -o lowerdir=/srv/l,upperdir=/srv/u,workdir=/srv/w /srv/m && \
        echo above > /srv/m/file && umount /srv/m && cat /srv/l/file /srv/u/file";
    let by_users = by_user(
        "mkdir -p d m; echo packed > d/file; mksquashfs d image -quiet -no-progress -noappend > /dev/null; \
         squashfuse image m && cat m/file && fusermount3 -u m",
    );
    assert!([tun, overlay, &by_users].iter().all(|line| fails(&node, line)), "they need a grant");
    node.done(["set", "101", "--devnodes", "net/tun:rw", "--devnodes", "fuse:rw", "--save"]);
    for when in ["at once", "after a restart"] {
        assert_eq!(said(&node, tun), "tun0", "{when}");
        assert_eq!(said(&node, overlay), "below\nabove", "{when}");
        assert_eq!(said(&node, &by_users), "packed", "{when}");
        node.done(["restart", "101", "--wait"]);
    }
    node.done(["set", "101", "--devnodes", "net/tun:none", "--devnodes", "fuse:none", "--save"]);
    assert!([tun, overlay, &by_users].iter().all(|line| fails(&node, line)), "it was taken away");
}

#[test]
fn ping_tcpdump_and_every_packet_filter_work_inside_and_stay_inside() {
    let test = "ping_tcpdump_and_every_packet_filter_work_inside_and_stay_inside";
    let Some(node) = running_tools(test, "10.84.1.5", &[]) else { return };
    said(&node, "ping -c 1 127.0.0.9");
    said(&node, &by_user("ping -c 1 127.0.0.9"));
    let seen = said(
        &node,
        "tcpdump -c 1 -ni venet0 icmp 2>/run/ready & until grep -q listening /run/ready; do sleep 0.1; done; \
         ping -c 1 -W 1 192.0.2.1 > /dev/null; wait",
    );
    assert!(seen.contains("IP 10.84.1.5 > 192.0.2.1: ICMP echo request"), "{seen}");
    for (block, list, flush) in [
        (
            "nft add table inet t; nft add chain inet t out {type filter hook output priority 0\\;}; \
             nft add rule inet t out ip daddr 127.0.0.9 reject",
            "nft list ruleset",
            "nft delete table inet t",
        ),
        ("iptables -A OUTPUT -d 127.0.0.9 -j REJECT", "iptables -S", "iptables -F"),
        ("iptables-legacy -A OUTPUT -d 127.0.0.9 -j REJECT", "iptables-legacy -S", "iptables-legacy -F"),
    ] {
        said(&node, block);
        assert!(said(&node, list).contains("127.0.0.9"), "{list}");
        assert!(fails(&node, "ping -c 1 127.0.0.9"), "{block} does nothing");
        let mut ping = Command::new("ping");
        ping.args(["-c", "1", "127.0.0.9"]);
        Outcome::of(ping, Duration::from_secs(10)).ok();
        said(&node, flush);
        said(&node, "ping -c 1 127.0.0.9");
    }
}
