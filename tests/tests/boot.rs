//! `startall` and `stopall`: what the host's boot and shutdown do with all containers.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use tests::containers::node_with;
use tests::node::{Node, Outcome};
use tests::session::Session;
use tests::wait::wait_until;

/// A node with these containers, and what is set for each.
fn node_of(test: &str, containers: &[(&str, &[&str])]) -> Option<Node> {
    let node = node_with(test, "busybox")?;
    node.configure(&format!("VZREBOOTDIR={}", node.path("vzreboot").display()));
    for (ctid, settings) in containers {
        node.done(["create", ctid, "--ostemplate", "busybox"]);
        // The samples say ONBOOT=no, as they always did: these containers have it only where they are told.
        let text = fs_err::read_to_string(node.configuration(ctid.parse().expect("a number"))).expect("there");
        let text: String = text.lines().filter(|l| !l.starts_with("ONBOOT=")).map(|l| format!("{l}\n")).collect();
        fs_err::write(node.path(format!("etc/conf/{ctid}.conf")), text).expect("writable");
        if !settings.is_empty() {
            node.done(["set", ctid].into_iter().chain(settings.iter().copied()).chain(["--save"]));
        }
    }
    Some(node)
}

/// The containers of the lines that begin so, in their order.
fn of_lines(said: &str, begin: &str) -> Vec<u32> {
    said.lines().filter_map(|line| line.strip_prefix(begin)?.parse().ok()).collect()
}

fn runs(node: &Node, ctid: u32) -> bool {
    node.status(ctid).ends_with(" running")
}

fn remembered(node: &Node) -> Vec<String> {
    let entries = fs_err::read_dir(node.path("vzreboot")).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// The processes in the cgroup of the node's monitors.
fn monitors(node: &Node) -> String {
    let tops = fs_err::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    let tops = tops.chain(["/sys/fs/cgroup".into()]);
    let files = tops.map(|top| top.join(node.name()).join("monitors/cgroup.procs"));
    files.filter_map(|file| fs_err::read_to_string(file).ok()).collect()
}

/// A script of the administrator, run on the host while the container's root is mounted.
fn script(node: &Node, name: &str, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = node.path("etc/conf").join(name);
    fs_err::write(&path, format!("#!/bin/sh\n{text}\n")).expect("writable");
    fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("ours");
}

#[test]
fn containers_start_by_their_order_and_stop_the_other_way_round() {
    let containers: [(&str, &[&str]); 5] = [
        ("101", &["--onboot", "yes"]),
        ("102", &["--onboot", "yes", "--bootorder", "5"]),
        ("103", &["--onboot", "no"]),
        ("104", &["--onboot", "yes", "--bootorder", "7"]),
        ("105", &[]),
    ];
    let test = "containers_start_by_their_order_and_stop_the_other_way_round";
    let Some(node) = node_of(test, &containers) else { return };
    node.configure("VE_PARALLEL=1\nVE_STOP_MODE=stop");
    let said = node.done(["startall"]);
    assert_eq!(of_lines(&said, "Starting container "), [104, 102, 101]);
    assert!(said.contains("Container 104 was started\nStarting container 102\n"), "one after another: {said}");
    assert_eq!([101, 102, 103, 104, 105].map(|ctid| runs(&node, ctid)), [true, true, false, true, false]);
    assert_eq!(node.done(["startall"]).matches(" runs already\n").count(), 3);
    let said = node.done(["stopall"]);
    assert_eq!(of_lines(&said, "Stopping container "), [101, 102, 104]);
    assert!(!said.contains("suspend"), "{said}");
    assert!([101, 102, 104].iter().all(|&ctid| !runs(&node, ctid)));
    assert_eq!(node.done(["stopall"]), "", "nothing is left to do");
}

#[test]
fn what_ran_at_shutdown_starts_again_unless_it_is_not_to() {
    let containers: [(&str, &[&str]); 4] =
        [("101", &[]), ("102", &["--onboot", "no"]), ("103", &["--onboot", "yes"]), ("104", &[])];
    let Some(node) = node_of("what_ran_at_shutdown_starts_again_unless_it_is_not_to", &containers) else { return };
    for ctid in ["101", "102", "104"] {
        node.done(["start", ctid]);
    }
    node.done(["mount", "103"]);
    let said = node.done(["stopall"]);
    assert_eq!(said.matches("VE_STOP_MODE=suspend").count(), 1, "said once: {said}");
    assert!(said.contains("Container 103 was unmounted\n"), "{said}");
    assert_eq!(remembered(&node), ["101", "102", "104"]);
    node.done(["destroy", "104"]);
    node.done(["startall"]);
    assert_eq!([101, 102, 103].map(|ctid| runs(&node, ctid)), [true, false, true]);
    assert_eq!(remembered(&node), [""; 0], "the next boot is for what runs then");
    node.done(["stop", "101"]);
    node.done(["stopall"]);
    assert_eq!(remembered(&node), ["103"]);
}

#[test]
fn one_that_fails_keeps_no_other_and_the_code_tells() {
    let containers: [(&str, &[&str]); 4] = [
        ("101", &["--onboot", "yes", "--bootorder", "9"]),
        ("102", &["--onboot", "yes", "--disabled", "yes"]),
        ("103", &["--onboot", "yes"]),
        ("104", &[]),
    ];
    let Some(node) = node_of("one_that_fails_keeps_no_other_and_the_code_tells", &containers) else { return };
    fs_err::rename(node.path("private/101"), node.path("aside")).expect("there");
    let started = node.vzctl(["startall"]).fails_with(3);
    let private = node.path("private/101").display().to_string();
    assert_eq!(
        started.stderr,
        format!(
            "Container 101 was not started: Container private area {private} does not exist (43)\n\
             1 of 3 containers were not started: 101\n"
        )
    );
    assert!(started.stdout.contains("Container 102 is disabled\n"), "{}", started.stdout);
    assert!(runs(&node, 103) && !runs(&node, 102));
    // A file that cannot be read may be of one that should run.
    fs_err::write(node.configuration(104), "ONBOOT=\"yes\n").expect("writable");
    fs_err::rename(node.path("aside"), node.path("private/101")).expect("there");
    let started = node.vzctl(["startall"]).fails_with(3);
    assert!(started.stderr.starts_with("Container 104 was not started: "), "{}", started.stderr);
    assert!(started.stderr.ends_with("\n1 of 4 containers were not started: 104\n"), "{}", started.stderr);
    assert!(runs(&node, 101));
    fs_err::remove_file(node.configuration(104)).expect("there");
    // What can't be stopped is told, tried three times, and keeps no other.
    script(&node, "101.umount", "exit 1");
    let stopped = node.vzctl(["stopall"]).fails_with(0);
    assert_eq!(stopped.stderr.matches("Container 101 was not ").count(), 4, "{stopped:?}");
    assert!(!runs(&node, 101) && !runs(&node, 103));
    fs_err::remove_file(node.path("etc/conf/101.umount")).expect("there");
}

#[test]
fn several_start_and_stop_at_once() {
    let Some(node) =
        node_of("several_start_and_stop_at_once", &[("101", &["--onboot", "yes"]), ("102", &["--onboot", "yes"])])
    else {
        return;
    };
    node.configure("VE_PARALLEL=2");
    // Each waits for the other: one after another they would not come up.
    let meet = |moment: &str| {
        let here = node.path("");
        let text = format!(
            "touch {here}/{moment}.$VEID; i=0; while [ $i -lt 600 ]; do \
             [ -e {here}/{moment}.101 ] && [ -e {here}/{moment}.102 ] && exit 0; sleep 0.1; i=$((i+1)); done; exit 1",
            here = here.display()
        );
        script(&node, &format!("vps.{moment}"), &text);
    };
    meet("mount");
    meet("umount");
    node.done(["startall"]);
    assert!(runs(&node, 101) && runs(&node, 102));
    node.done(["stopall"]);
    assert!(node.status(101).ends_with("unmounted down") && node.status(102).ends_with("unmounted down"));
}

#[test]
fn a_signal_ends_it_and_nothing_half_started_is_left() {
    let containers: [(&str, &[&str]); 2] =
        [("101", &["--onboot", "yes", "--bootorder", "2"]), ("102", &["--onboot", "yes", "--bootorder", "1"])];
    let Some(node) = node_of("a_signal_ends_it_and_nothing_half_started_is_left", &containers) else { return };
    node.configure("VE_PARALLEL=1");
    let here = node.path("").display().to_string();
    script(&node, "101.mount", &format!("touch {here}/there; while [ -e {here}/there ]; do sleep 0.1; done"));
    let mut session = Session::new(node.command("vzctl", ["startall"]));
    assert!(wait_until(Duration::from_secs(20), || node.path("there").exists()), "{}", session.shown());
    session.signal(Signal::SIGTERM);
    fs_err::remove_file(node.path("there")).expect("there");
    assert_eq!(session.ends(), 3);
    session.tells("Cancelling...\ninterrupted by SIGTERM\n");
    assert!(!session.shown().contains("102"), "{}", session.shown());
    assert_eq!(node.status(101), "CTID 101 exist unmounted down");
    script(&node, "101.mount", "");
    node.done(["startall"]);
    node.done(["stopall"]);
    node.done(["destroy", "101"]);
    node.done(["destroy", "102"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn limits_do_not_hold_up_a_shutdown_and_are_put_back_if_it_is_off() {
    let settings: &[&str] = &["--cpulimit", "50", "--cpuunits", "500", "--stop-timeout", "3600"];
    let test = "limits_do_not_hold_up_a_shutdown_and_are_put_back_if_it_is_off";
    let Some(node) = node_of(test, &[("101", settings)]) else { return };
    node.done(["mount", "101"]);
    // A halt that does nothing: it takes the hour, or what we do to it.
    node.done(["start", "101"]);
    node.inside("rm /sbin/halt; printf '#!/bin/sh\\n' > /sbin/halt; chmod 755 /sbin/halt");
    let quota = || node.cgroup_file(101, &["cpu.cfs_quota_us", "cpu.max"]);
    let weight = || node.cgroup_file(101, &["cpu.shares", "cpu.weight"]);
    let before = (quota(), weight());
    let number = |weight: &str| weight.parse::<u64>().expect("a weight");
    assert!(before.0.starts_with("50000"), "{before:?}");
    let mut session = Session::new(node.command("vzctl", ["stopall"]));
    session.shows("Stopping container 101\n");
    let lifted = || {
        let unlimited = quota().starts_with("-1") || quota().starts_with("max");
        unlimited && number(&weight()).abs_diff(4 * number(&before.1)) <= 4 // 2000 for all, for its 500
    };
    assert!(wait_until(Duration::from_secs(20), lifted), "{} {}", quota(), weight());
    let asked = || node.inside("ls /proc/1/exe").is_empty() || session.shown().contains("Stopping");
    assert!(wait_until(Duration::from_secs(20), asked));
    session.signal(Signal::SIGTERM);
    assert_eq!(session.ends(), 3);
    assert!(runs(&node, 101));
    assert_eq!((quota(), weight()), before);
    assert_eq!(remembered(&node), ["101"]);
}

#[test]
fn a_container_that_waits_to_reboot_is_stopped_with_the_others() {
    let Some(node) = node_of("a_container_that_waits_to_reboot_is_stopped_with_the_others", &[("101", &[])]) else {
        return;
    };
    node.done(["start", "101"]);
    node.inside("printf '#!/bin/sh\\nreboot -f\\n' > /etc/init.d/S99reboot; chmod 755 /etc/init.d/S99reboot; reboot");
    let log = || node.done(["console", "101", "--log"]);
    // Its starts are 8 seconds apart now: there is time.
    let waits = || node.path("run/101.reboot").exists() && log().matches("it starts again in ").count() >= 3;
    assert!(wait_until(Duration::from_secs(60), waits), "{}", log());
    assert!(!runs(&node, 101));
    let said = node.done(["stopall"]);
    assert!(said.contains("Container 101 was stopped\n"), "{said}");
    assert!(!node.path("run/101.reboot").exists());
    assert_eq!(remembered(&node), ["101"]);
    assert!(wait_until(Duration::from_secs(10), || monitors(&node).is_empty()), "{}", monitors(&node));
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn the_script_for_hosts_without_systemd_does_what_the_unit_does() {
    let Some(node) = node_of(
        "the_script_for_hosts_without_systemd_does_what_the_unit_does",
        &[("101", &["--onboot", "yes"]), ("102", &["--onboot", "no"])],
    ) else {
        return;
    };
    let bin = node.path("bin");
    fs_err::create_dir_all(&bin).expect("made");
    for name in ["vzctl", "vzlist"] {
        fs_err::os::unix::fs::symlink(tests::node::binary(), bin.join(name)).expect("made");
    }
    let script = fs_err::read_to_string(tests::checkout().join("vzctl/etc/vz.init")).expect("there");
    let script = script.replacen("PATH=", &format!("PATH={}:", bin.display()), 1);
    fs_err::write(node.path("vz.init"), script).expect("writable");
    let run = |action: &str| {
        let mut command = Command::new("sh");
        command.arg(node.path("vz.init")).arg(action).env("VZ_CONFDIR", node.path("etc"));
        Outcome::of(command, Duration::from_secs(120))
    };
    run("start").ok();
    assert!(runs(&node, 101) && !runs(&node, 102));
    let listed = run("status").ok().stdout;
    assert!(listed.contains("running") && listed.contains("stopped"), "{listed}");
    let before = node.process(101, "init");
    run("restart").ok();
    assert!(runs(&node, 101) && node.process(101, "init") != before);
    run("stop").ok();
    assert!(!runs(&node, 101));
    run("frobnicate").fails_with(2);
    let unit = fs_err::read_to_string(tests::checkout().join("vzctl/etc/vz.service")).expect("there");
    for line in ["ExecStart=-vzctl startall", "ExecStop=vzctl stopall"] {
        assert!(unit.lines().any(|l| l == line), "{line} in\n{unit}");
    }
}
