//! A stock host: systemd is its init and all controllers are in one cgroup2 tree. Containers live in that tree beside
//! systemd's units, and neither disturbs the other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::containers::running_busybox;
use tests::node::Node;
use tests::program::capture;
use tests::skips::skip;

const ROOT: &str = "/sys/fs/cgroup";

/// What bounds a cgroup of v2, and what it hands on.
const SETTINGS: [&str; 13] = [
    "cgroup.subtree_control",
    "cgroup.type",
    "cpu.max",
    "cpu.weight",
    "cpuset.cpus",
    "cpuset.mems",
    "io.max",
    "memory.high",
    "memory.low",
    "memory.max",
    "memory.min",
    "memory.swap.max",
    "pids.max",
];

/// A node with a running container 101 that has limits of every kind.
fn limited(test: &str) -> Option<Node> {
    if !Path::new("/run/systemd/system").exists() || !Path::new(ROOT).join("cgroup.controllers").exists() {
        skip(test, "this host's init is not systemd, or not in a unified hierarchy");
        return None;
    }
    let node = running_busybox(test)?;
    let limits = ["--ram", "256M", "--swap", "64M", "--numproc", "70", "--cpuunits", "1500", "--cpulimit", "80"];
    let more = ["--cpumask", "0", "--iolimit", "50", "--iopslimit", "900", "--save"];
    node.done(["set", "101"].into_iter().chain(limits).chain(more));
    Some(node)
}

/// The settings of one cgroup.
fn settings(cgroup: &Path) -> BTreeMap<&'static str, String> {
    let value = |name| Some((name, std::fs::read_to_string(cgroup.join(name)).ok()?.trim().to_owned()));
    SETTINGS.into_iter().filter_map(value).collect()
}

fn container(node: &Node) -> PathBuf {
    Path::new(ROOT).join(node.name()).join("101")
}

type Units = (BTreeMap<PathBuf, BTreeMap<&'static str, String>>, BTreeMap<String, PathBuf>);

/// The settings of all cgroups of systemd's, beside the node's, and which process is in which.
fn units(node: &Node) -> Units {
    let (mut cgroups, mut processes) = (BTreeMap::new(), BTreeMap::new());
    let mut open = vec![PathBuf::from(ROOT)];
    while let Some(directory) = open.pop() {
        let entries = fs_err::read_dir(directory).expect("a cgroup").flatten().filter(|entry| entry.path().is_dir());
        for path in entries.map(|entry| entry.path()).filter(|path| !path.ends_with(node.name())) {
            let inside = std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
            processes.extend(inside.lines().map(|pid| (pid.to_owned(), path.clone())));
            cgroups.insert(path.clone(), settings(&path));
            open.push(path);
        }
    }
    (cgroups, processes)
}

/// Nothing of systemd's is as it was not before. Processes end and begin all the time; none moves.
#[track_caller]
fn assert_untouched(node: &Node, before: &Units) {
    let after = units(node);
    assert_eq!(after.0, before.0);
    let moved = |pid: &&String| after.1.get(*pid).is_some_and(|now| *now != before.1[*pid]);
    assert_eq!(before.1.keys().filter(moved).collect::<Vec<_>>(), [""; 0]);
}

#[track_caller]
fn systemctl(arguments: &[&str]) -> String {
    let mut command = Command::new("systemctl");
    command.args(arguments);
    capture(command).expect("systemctl").trim_end().to_owned()
}

/// What systemd says of itself, and its failed units.
fn state() -> (String, String) {
    // Degraded is an exit code of its own, and a state as good as another here.
    let said = Command::new("systemctl").arg("is-system-running").output().expect("systemctl").stdout;
    let failed = systemctl(&["list-units", "--failed", "--plain", "--no-legend"]);
    (String::from_utf8_lossy(&said).trim().to_owned(), failed)
}

#[test]
fn containers_change_nothing_of_systemds_units() {
    let Some(node) = limited("containers_change_nothing_of_systemds_units") else { return };
    let state = state();
    let before = units(&node);
    assert!(before.0.keys().any(|path| path.ends_with("system.slice")), "{before:?}");
    node.done(["restart", "101"]);
    assert_untouched(&node, &before);
    node.done(["exec2", "101", "true"]);
    node.done(["stop", "101"]);
    node.done(["destroy", "101"]);
    assert_untouched(&node, &before);
    assert_eq!(self::state(), state);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn nothing_that_systemd_does_changes_a_container_or_its_limits() {
    let Some(node) = limited("nothing_that_systemd_does_changes_a_container_or_its_limits") else { return };
    let (cgroup, init) = (container(&node), node.process(101, "init"));
    let before = settings(&cgroup);
    for (name, value) in [("memory.max", "268435456"), ("pids.max", "70"), ("cpuset.cpus", "0")] {
        assert_eq!(before.get(name).map(String::as_str), Some(value), "{before:?}");
    }
    // Properties of every controller: systemd enables what it needs, and takes back what it needs no more.
    let unit = ["--wait", "--quiet", "--collect", "-p", "MemoryMax=64M", "-p", "CPUWeight=50", "-p", "CPUQuota=50%"];
    let more = ["-p", "TasksMax=20", "-p", "IOWeight=50", "-p", "AllowedCPUs=0", "true"];
    let mut transient = Command::new("systemd-run");
    transient.args(unit).args(more);
    capture(transient).expect("a service of systemd's beside the container");
    for words in [&["daemon-reload"][..], &["daemon-reexec"], &["reset-failed"]] {
        systemctl(words);
        assert_eq!(settings(&cgroup), before, "{words:?}");
        assert_eq!(node.process(101, "init"), init, "{words:?}");
        let own = fs_err::read_to_string(format!("/proc/{init}/cgroup")).expect("it runs");
        assert!(own.trim_end().starts_with(&format!("0::/{}/101", node.name())), "{words:?}: {own}");
    }
    assert_eq!(node.inside("echo on"), "on");
    // What a command of ours does after that still takes effect: the controllers are there.
    node.done(["set", "101", "--ram", "128M", "--swap", "0", "--cpulimit", "40", "--iolimit", "9"]);
    assert_eq!(settings(&cgroup).get("memory.max").map(String::as_str), Some("134217728"));
    node.done(["restart", "101"]);
    assert_eq!(settings(&cgroup).get("pids.max").map(String::as_str), Some("70"));
}

#[test]
fn a_container_is_no_part_of_the_unit_that_started_it() {
    let Some(node) = limited("a_container_is_no_part_of_the_unit_that_started_it") else { return };
    node.done(["stop", "101"]);
    let state = state();
    let mut unit = Command::new("systemd-run");
    // KillMode=control-group, the default: whatever is still in the service's cgroup when it ends is killed.
    unit.args(["--wait", "--quiet", "--collect", "--setenv"]).arg(format!("VZ_CONFDIR={}", node.path("etc").display()));
    unit.arg(tests::node::binary()).args(["start", "101"]);
    capture(unit).expect("vzctl start in a service");
    assert_eq!(node.inside("echo on"), "on", "the service has ended, the container has not");
    for process in ["init", "monitor"] {
        let cgroup = fs_err::read_to_string(format!("/proc/{}/cgroup", node.process(101, process))).expect("it runs");
        assert!(cgroup.starts_with(&format!("0::/{}/", node.name())), "{process}: {cgroup}");
    }
    assert_eq!(self::state(), state);
}

/// A unit of systemd's, gone with the test.
struct Unit(PathBuf);

impl Drop for Unit {
    fn drop(&mut self) {
        // A test that fails elsewhere shall not fail again here.
        let _ = fs_err::remove_file(&self.0);
        let _ = Command::new("systemctl").arg("daemon-reload").status();
    }
}

#[test]
fn the_boot_unit_starts_the_containers_of_the_host_and_stops_them() {
    let Some(node) = limited("the_boot_unit_starts_the_containers_of_the_host_and_stops_them") else { return };
    node.done(["set", "101", "--onboot", "yes", "--save"]);
    node.done(["stop", "101"]);
    let name = format!("vz-{}.service", node.name());
    let unit = Unit(Path::new("/run/systemd/system").join(&name));
    let shipped = fs_err::read_to_string(tests::checkout().join("vzctl/etc/vz.service")).expect("the unit");
    // As it is shipped, but for where this node and this checkout's program are.
    let here = format!("[Service]\nEnvironment=VZ_CONFDIR={}\n", node.path("etc").display());
    let ours =
        shipped.replace("[Service]\n", &here).replace("=vzctl ", &format!("={} ", tests::node::binary().display()));
    let ours = ours.replace("=-vzctl ", &format!("=-{} ", tests::node::binary().display()));
    assert_eq!(ours.matches(tests::node::binary().to_str().expect("a path")).count(), 2, "{ours}");
    fs_err::write(&unit.0, ours.replace("/etc/vz/vz.conf", &node.path("etc/vz.conf").display().to_string()))
        .expect("a unit");
    systemctl(&["daemon-reload"]);
    let state = state();
    systemctl(&["start", &name]);
    assert_eq!(node.inside("echo on"), "on");
    let show = |property| systemctl(&["show", "--value", "-p", property, &name]);
    assert_eq!((show("ActiveState"), show("Result"), show("MainPID")), ("active".into(), "success".into(), "0".into()));
    systemctl(&["stop", &name]);
    assert!(node.vzctl(["status", "101"]).stdout.ends_with("down\n"));
    assert_eq!(self::state(), state);
}
