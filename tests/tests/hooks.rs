//! The administrator's scripts: when they run, where, with what, and what their failure does.

use tests::containers::node_with;
use tests::node::Node;

/// Every script there is, in the directory of configurations.
const HOST: [&str; 9] = [
    "vps.premount",
    "101.premount",
    "vps.mount",
    "101.mount",
    "101.umount",
    "vps.umount",
    "101.postumount",
    "vps.postumount",
    "vps.create",
];

fn script(node: &Node, name: &str, text: &str) {
    let path = node.path("etc/conf").join(name);
    fs_err::write(&path, format!("#!/bin/sh\n{text}\n")).expect("writable");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs_err::set_permissions(path, mode).expect("there");
}

/// Scripts that tell a file that they ran.
fn telling_scripts(node: &Node) {
    for name in HOST {
        let text = format!(
            "echo \"{name} $VEID $(basename $VE_CONFFILE) $(grep -c {root} /proc/self/mounts)\" >> {trace}",
            root = node.path("root/101").display(),
            trace = node.path("trace").display()
        );
        script(node, name, &text);
    }
    // These run inside, so they tell a file inside.
    script(node, "101.start", "echo 101.start $VEID $$ $(cat /proc/1/comm) >> /trace");
    script(node, "101.stop", "echo 101.stop $VEID >> /trace");
}

fn trace(node: &Node) -> Vec<String> {
    let text = fs_err::read_to_string(node.path("trace")).unwrap_or_default();
    let _ = fs_err::remove_file(node.path("trace"));
    text.lines().map(str::to_owned).collect()
}

#[test]
fn scripts_run_in_the_order_of_the_original() {
    let Some(node) = node_with("scripts_run_in_the_order_of_the_original", "busybox") else { return };
    telling_scripts(&node);
    node.done(["create", "101", "--ostemplate", "busybox"]);
    assert_eq!(trace(&node), ["vps.create 101 101.conf 0"]);
    node.done(["start", "101"]);
    assert_eq!(
        trace(&node),
        [
            "vps.premount 101 101.conf 0",
            "101.premount 101 101.conf 0",
            "vps.mount 101 101.conf 1",
            "101.mount 101 101.conf 1"
        ]
    );
    assert!(node.inside("cat /trace").starts_with("101.start 101 "), "inside, before init");
    node.done(["stop", "101", "--skip-umount"]);
    assert_eq!(trace(&node), [""; 0]);
    let inside = fs_err::read_to_string(node.path("root/101/trace")).expect("mounted");
    assert!(inside.ends_with("\n101.stop 101\n"), "{inside}");
    node.done(["umount", "101"]);
    assert_eq!(
        trace(&node),
        [
            "101.umount 101 101.conf 1",
            "vps.umount 101 101.conf 1",
            "101.postumount 101 101.conf 0",
            "vps.postumount 101 101.conf 0"
        ]
    );
}

#[test]
fn a_failing_script_ends_the_command_with_79_and_leaves_nothing() {
    let Some(node) = node_with("a_failing_script_ends_the_command_with_79_and_leaves_nothing", "busybox") else {
        return;
    };
    node.done(["create", "101", "--ostemplate", "busybox"]);
    for name in ["vps.premount", "101.premount", "vps.mount", "101.mount", "101.start"] {
        script(&node, name, "exit 3");
        let failed = node.vzctl(["start", "101"]).fails_with(79);
        assert!(failed.stderr.contains(name), "it names {name}: {}", failed.stderr);
        assert_eq!(node.status(101), "CTID 101 exist unmounted down", "after {name}");
        assert!(!node.path("run/101").exists() && node.cgroups(101).is_empty(), "after {name}");
        fs_err::remove_file(node.path("etc/conf").join(name)).expect("there");
    }
    node.done(["start", "101"]);
    node.done(["stop", "101"]);
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn a_failing_umount_script_keeps_the_root_mounted() {
    let Some(node) = node_with("a_failing_umount_script_keeps_the_root_mounted", "busybox") else { return };
    node.done(["create", "101", "--ostemplate", "busybox"]);
    node.done(["mount", "101"]);
    script(&node, "101.umount", "exit 1");
    node.vzctl(["umount", "101"]).fails_with(79);
    assert_eq!(node.status(101), "CTID 101 exist mounted down");
    fs_err::remove_file(node.path("etc/conf/101.umount")).expect("there");
    node.done(["umount", "101"]);
}

#[test]
fn a_container_that_vps_create_refuses_never_was() {
    let Some(node) = node_with("a_container_that_vps_create_refuses_never_was", "busybox") else { return };
    script(&node, "vps.create", "exit 1");
    let refused = node.vzctl(["create", "101", "--ostemplate", "busybox", "--name", "x"]).fails_with(79);
    assert!(refused.stderr.contains("Creation of container private area failed\n"), "{}", refused.stderr);
    assert_eq!(node.status(101), "CTID 101 deleted unmounted down");
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn a_script_that_others_could_write_is_not_run() {
    let Some(node) = node_with("a_script_that_others_could_write_is_not_run", "busybox") else { return };
    node.done(["create", "101", "--ostemplate", "busybox"]);
    script(&node, "101.mount", &format!("touch {}", node.path("ran").display()));
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs_err::set_permissions(node.path("etc/conf/101.mount"), mode).expect("there");
    node.vzctl(["start", "101"]).fails_with(79);
    assert!(!node.path("ran").exists());
    assert_eq!(node.status(101), "CTID 101 exist unmounted down");
}
