//! The harness itself, on real kernel objects: what a careless command leaves on a machine is seen and removed.

use std::path::Path;
use std::process::{Command, Stdio};

use tests::node::Node;
use tests::program;
use tests::skips::skip;
use tests::snapshot::Snapshot;

fn run(words: &[&str]) {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    program::capture(command).expect("it works as root");
}

/// One hierarchy of this machine in which a cgroup can be made.
fn hierarchy() -> &'static str {
    ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"]
        .into_iter()
        .find(|path| Path::new(path).join("cgroup.procs").exists())
        .expect("cgroups")
}

#[test]
fn what_a_node_leaves_behind_is_seen_and_removed() {
    if !nix::unistd::geteuid().is_root() {
        return skip("what_a_node_leaves_behind_is_seen_and_removed", "needs root");
    }
    let node = Node::new();
    let machine = Snapshot::take([node.path("private")]);
    let text = |part: &str| node.path(part).display().to_string();

    run(&["mount", "-t", "tmpfs", "none", &text("root")]);
    run(&["truncate", "--size=1M", &text("image")]);
    run(&["losetup", "--find", &text("image")]);
    run(&[
        "ip",
        "link",
        "add",
        &format!("{}101", node.name()),
        "type",
        "veth",
        "peer",
        "name",
        &format!("{}p", node.name()),
    ]);
    run(&["nft", "add", "table", "inet", node.name()]);
    fs_err::create_dir_all(format!("{}/{}/101", hierarchy(), node.name())).expect("a cgroup");
    fs_err::write(node.path("private/file"), "").expect("a file");
    let mut careless = Command::new("unshare")
        .args(["--net", "sleep", "1000"])
        .env("VZ_CONFDIR", node.path("etc"))
        .stdin(Stdio::null())
        .spawn()
        .expect("unshare");
    assert!(
        tests::wait::wait_until(std::time::Duration::from_secs(10), || {
            machine.difference(&machine.again()).to_string().contains("+ process: ")
        }),
        "a process in a namespace of its own is seen"
    );

    let seen = machine.difference(&machine.again()).to_string();
    for what in ["mount", "loop device", "link", "nft", "cgroup", "file"] {
        assert!(seen.contains(&format!("+ {what}: ")), "{what} was not seen:\n{seen}");
    }
    let left = node.close().join("\n");
    // Its nft table and its cgroup's parent are the node's own: removed as well, as the picture below shows, but no leak.
    for what in ["process", "mount", "loop device", "interface", "cgroup"] {
        assert!(left.contains(what), "{what} was not removed:\n{left}");
    }
    careless.wait().expect("killed");
    fs_err::remove_file(node.path("private/file")).expect("there");
    machine.assert_unchanged();
    assert_eq!(node.close(), [""; 0], "nothing is left to remove");
}

#[test]
fn two_nodes_share_nothing() {
    let (one, other) = (Node::new(), Node::new());
    assert_ne!(one.name(), other.name());
    assert_ne!(one.path("run"), other.path("run"));
    let path = one.path("etc");
    drop(one);
    assert!(!path.exists(), "a node takes its files along");
}
