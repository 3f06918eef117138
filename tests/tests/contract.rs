//! What scripts rely on when something is wrong: the exit code and the first line on stderr of each command given each
//! kind of bad input; nothing is left behind by any of them.

use std::process::Command;
use std::time::Duration;

use tests::containers::{node_with, running_busybox};
use tests::node::{Node, Outcome};
use tests::program::capture;

/// Runs it, expects the code, and the first line of stderr.
#[track_caller]
fn refused(node: &Node, arguments: &[&str], code: i32, first: &str) {
    let outcome = node.vzctl(arguments).fails_with(code);
    assert_eq!(outcome.stderr.lines().next().unwrap_or_default(), first, "vzctl {arguments:?}");
}

#[test]
fn a_command_line_that_is_not_understood_is_20_or_21() {
    let Some(node) = node_with("a_command_line_that_is_not_understood_is_20_or_21", "busybox") else { return };
    refused(&node, &["frobnicate", "101"], 20, "Bad command: frobnicate");
    for command in ["start", "stop", "destroy", "exec", "set", "status", "enter", "mount"] {
        refused(&node, &[command], 21, "CT ID missing");
    }
    refused(&node, &["start", "0"], 21, "Only set actions are allowed for CT0");
    for bad in ["2147483645", "99999999999999"] {
        refused(&node, &["start", bad], 21, &format!("Bad CT ID {bad}"));
    }
    for command in ["start", "stop", "create", "destroy", "set", "status"] {
        node.vzctl([command, "101", "--frobnicate"]).fails_with(20);
    }
    let usage = node.vzctl([""; 0]).fails_with(20);
    assert!(usage.stderr.starts_with("vzctl version "), "{}", usage.stderr);
    assert!(usage.stderr.contains("\nUsage: vzctl ") && !usage.stderr.contains("\\x0a"), "{}", usage.stderr);
    let help = node.vzctl(["--help"]).ok();
    assert!(help.stdout.starts_with("vzctl version ") && help.stderr.is_empty(), "{}", help.stdout);
    assert!(node.vzctl(["--version"]).ok().stdout.starts_with("vzctl version "));
}

#[test]
fn a_container_that_is_not_there_is_14() {
    let Some(node) = node_with("a_container_that_is_not_there_is_14", "busybox") else { return };
    for words in [
        &["start", "999"][..],
        &["stop", "999"],
        &["restart", "999"],
        &["destroy", "999"],
        &["mount", "999"],
        &["umount", "999"],
        &["enter", "999"],
        &["exec2", "999", "true"],
        &["exec3", "999", "true"],
        &["runscript", "999", "/bin/true"],
        &["set", "999", "--ram", "256M", "--save"],
    ] {
        refused(&node, words, 14, "Container config file does not exist");
    }
    assert_eq!(node.status(999), "CTID 999 deleted unmounted down");
    refused(&node, &["start", "nobody"], 21, "Unable to find container by name nobody");
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn only_root_may() {
    let Some(node) = node_with("only_root_may", "busybox") else { return };
    for directory in ["", "etc"] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs_err::set_permissions(node.path(directory), mode).expect("there");
    }
    // Where anyone may run it: the checkout may lie below a directory of root's alone.
    let vzctl = node.path("vzctl");
    fs_err::copy(tests::node::binary(), &vzctl).expect("copied");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(vzctl).args(["start", "101"]);
    command.env("VZ_CONFDIR", node.path("etc"));
    let outcome = Outcome::of(command, Duration::from_secs(20)).fails_with(12);
    assert_eq!(outcome.stderr, "vzctl can only be used by root\n");
}

#[test]
fn a_running_container_is_not_taken_apart() {
    let Some(node) = running_busybox("a_running_container_is_not_taken_apart") else { return };
    refused(&node, &["destroy", "101"], 32, "Container is currently running. Stop it first.");
    refused(&node, &["umount", "101"], 32, "Container is running -- stop it first");
    let private = node.path("private/101").display().to_string();
    refused(
        &node,
        &["create", "101", "--ostemplate", "busybox"],
        44,
        &format!("Private area already exists in {private}"),
    );
    node.vzctl(["set", "101", "--private", "/elsewhere", "--save"]).fails_with(32);
    assert_eq!(node.status(101), "CTID 101 exist mounted running");
}

#[test]
fn a_container_that_is_locked_is_9_and_its_holder_is_named() {
    let Some(node) = running_busybox("a_container_that_is_locked_is_9_and_its_holder_is_named") else { return };
    // A stop script that takes its time keeps `stop` in the middle of its work.
    let script = node.path("etc/conf/101.stop");
    fs_err::write(&script, "#!/bin/sh\ntouch /begun\nwhile [ ! -e /go ]; do sleep 0.1; done\n").expect("writable");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs_err::set_permissions(&script, mode).expect("there");
    let mut holder = node.command("vzctl", ["--quiet", "stop", "101"]).spawn().expect("vzctl");
    let root = node.path("root/101");
    assert!(tests::wait::wait_until(Duration::from_secs(10), || root.join("begun").exists()));
    for words in [
        &["start", "101"][..],
        &["stop", "101"],
        &["destroy", "101"],
        &["set", "101", "--ram", "200M"],
        &["umount", "101"],
    ] {
        let outcome = node.vzctl(words).fails_with(9);
        let mut lines = outcome.stderr.lines();
        assert_eq!(lines.next(), Some("Container already locked"), "{words:?}");
        let who = lines.next().unwrap_or_default();
        assert!(who.starts_with(&format!("Locked by: pid {}, cmdline ", holder.id())), "{who}");
    }
    // What only looks needs no lock.
    assert_eq!(node.status(101), "CTID 101 exist mounted running");
    node.done(["exec2", "101", "true"]);
    node.vzctl(["start", "101", "--wait-lock", "1"]).fails_with(9);
    node.inside("touch /go");
    // Who waits gets it.
    fs_err::remove_file(script).expect("there");
    node.done(["start", "101", "--wait-lock", "60"]);
    assert!(holder.wait().expect("it ends").success());
    assert_eq!(node.status(101), "CTID 101 exist mounted running");
}

#[test]
fn a_configuration_that_is_broken_is_told_and_nothing_begun() {
    let Some(node) = node_with("a_configuration_that_is_broken_is_told_and_nothing_begun", "busybox") else { return };
    node.done(["create", "101", "--ostemplate", "busybox"]);
    let good = fs_err::read_to_string(node.configuration(101)).expect("there");
    for bad in ["NUMPROC=\"many\"\n", "HOSTNAME=\"unclosed\n", "IP_ADDRESS=\"10.0.0.300\"\n", "CPUUNITS=\"\u{0}\"\n"] {
        fs_err::write(node.configuration(101), format!("{good}{bad}")).expect("writable");
        let outcome = node.vzctl(["start", "101"]);
        assert!([10, 71, 85].contains(&outcome.code), "{bad:?}: {outcome:?}");
        assert!(outcome.stderr.contains("101.conf") || outcome.stderr.contains("10.0.0.300"), "{}", outcome.stderr);
        assert_eq!(node.status(101), "CTID 101 exist unmounted down");
    }
    fs_err::write(node.configuration(101), &good).expect("writable");
    node.done(["start", "101"]);
    node.done(["stop", "101"]);
    fs_err::remove_file(node.path("etc/vz.conf")).expect("there");
    node.vzctl(["start", "101"]).fails_with(10);
}

#[test]
fn a_template_that_is_missing_is_91_and_one_that_is_cut_off_is_refused() {
    let test = "a_template_that_is_missing_is_91_and_one_that_is_cut_off_is_refused";
    let Some(node) = node_with(test, "busybox") else { return };
    refused(
        &node,
        &["create", "101", "--ostemplate", "no-such-template"],
        91,
        "Creation of container private area failed",
    );
    for name in ["../busybox", "a b", "$(touch x)", "x;y"] {
        let outcome = node.vzctl(["create", "101", "--ostemplate", name]);
        assert!([21, 91].contains(&outcome.code), "{name}: {outcome:?}");
    }
    let cache = node.path("template/cache");
    let busybox = fs_err::read_dir(tests::target_dir().join("templates/cache")).into_iter().flatten().flatten();
    let archive = busybox.map(|entry| entry.path()).find(|path| path.display().to_string().contains("/busybox.tar"));
    if let Some(archive) = archive {
        node.configure(&format!("TEMPLATE={}", node.path("template").display()));
        let bytes = fs_err::read(&archive).expect("the template");
        fs_err::write(cache.join(archive.file_name().expect("named")), &bytes[..bytes.len() / 2]).expect("writable");
        let outcome = node.vzctl(["create", "101", "--ostemplate", "busybox"]);
        assert!([46, 47, 48].contains(&outcome.code), "{outcome:?}");
        let trees = fs_err::read_dir(cache.join(".trees")).into_iter().flatten().flatten();
        let half: Vec<_> = trees.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
        assert!(half.is_empty(), "no half tree stays: {half:?}");
    }
    assert_eq!(node.status(101), "CTID 101 deleted unmounted down");
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn a_disk_that_is_full_is_46_and_leaves_nothing() {
    let Some(node) = node_with("a_disk_that_is_full_is_46_and_leaves_nothing", "busybox") else { return };
    let disk = node.path("disk");
    fs_err::create_dir_all(&disk).expect("made");
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=300k", "none"]).arg(&disk);
    capture(mount).expect("root mounts");
    node.configure(&format!("VE_PRIVATE={}/$VEID", disk.display()));
    let outcome = node.vzctl(["create", "101", "--ostemplate", "busybox"]);
    let left: Vec<_> = fs_err::read_dir(&disk).expect("there").flatten().map(|entry| entry.path()).collect();
    nix::mount::umount2(&disk, nix::mount::MntFlags::MNT_DETACH).expect("mounted");
    assert!([46, 48].contains(&outcome.code), "{outcome:?}");
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(node.status(101), "CTID 101 deleted unmounted down");
}

#[test]
fn an_address_that_another_container_has_is_78() {
    let Some(node) = running_busybox("an_address_that_another_container_has_is_78") else { return };
    node.done(["set", "101", "--ipadd", "10.78.1.1", "--save"]);
    node.done(["create", "102", "--ostemplate", "busybox", "--ipadd", "10.78.1.1"]);
    node.vzctl(["start", "102"]).fails_with(78);
    assert_eq!(node.status(102), "CTID 102 exist unmounted down");
    node.done(["set", "102", "--ipdel", "all", "--save"]);
    node.done(["start", "102"]);
    let configured = node.configured(102, "IP_ADDRESS");
    let taken = node.vzctl(["set", "102", "--ipadd", "10.78.1.1", "--save"]).fails_with(78);
    assert!(
        taken.stderr.contains("Error: failed to apply some parameters, not saving configuration file!"),
        "{taken:?}"
    );
    assert_eq!(node.configured(102, "IP_ADDRESS"), configured, "nothing was saved");
}

#[test]
fn values_out_of_range_are_refused_before_anything_changes() {
    let Some(node) = running_busybox("values_out_of_range_are_refused_before_anything_changes") else { return };
    let before = fs_err::read_to_string(node.configuration(101)).expect("there");
    for (option, value) in [
        ("--cpuunits", "7"),
        ("--cpuunits", "500001"),
        ("--cpulimit", "-5"),
        ("--cpus", "x"),
        ("--ioprio", "8"),
        ("--numproc", "-1"),
        ("--ram", "lots"),
        ("--onboot", "maybe"),
        ("--hostname", "a b"),
        ("--nameserver", "1.2.3"),
        ("--ipadd", "10.0.0.256"),
        ("--ipadd", "10.0.0.1/33"),
        ("--userpasswd", "nocolon"),
        ("--diskspace", "x"),
        ("--cpumask", "99999"),
    ] {
        let outcome = node.vzctl(["set", "101", option, value, "--save"]);
        assert!(outcome.code != 0 && !outcome.stderr.is_empty(), "{option} {value}: {outcome:?}");
        let after = fs_err::read_to_string(node.configuration(101)).expect("there");
        assert_eq!(after, before, "{option} {value} was saved");
    }
}

#[test]
fn a_name_with_shell_characters_is_a_bad_name() {
    let Some(node) = running_busybox("a_name_with_shell_characters_is_a_bad_name") else { return };
    for name in ["$(reboot)", "a;b", "../x", "a/b", "`id`", "a\nb", "123"] {
        let outcome = node.vzctl(["set", "101", "--name", name, "--save"]);
        assert!(outcome.code != 0, "{name:?}: {outcome:?}");
        let created = node.vzctl(["create", "102", "--ostemplate", "busybox", "--name", name]);
        assert!(created.code != 0, "{name:?}: {created:?}");
        assert!(!node.configuration(102).exists(), "{name:?}");
    }
    assert_eq!(fs_err::read_dir(node.path("etc/names")).expect("there").count(), 0);
}

#[test]
fn a_start_without_a_private_area_is_43() {
    let Some(node) = node_with("a_start_without_a_private_area_is_43", "busybox") else { return };
    node.done(["create", "101", "--ostemplate", "busybox"]);
    fs_err::rename(node.path("private/101"), node.path("aside")).expect("there");
    node.vzctl(["start", "101"]).fails_with(43);
    node.vzctl(["mount", "101"]).fails_with(43);
    fs_err::rename(node.path("aside"), node.path("private/101")).expect("there");
    node.done(["start", "101"]);
}

#[test]
fn a_root_without_an_init_is_47_and_leaves_nothing() {
    let Some(node) = node_with("a_root_without_an_init_is_47_and_leaves_nothing", "busybox") else { return };
    node.done(["create", "101", "--ostemplate", "busybox"]);
    node.done(["mount", "101"]);
    for init in ["sbin/init", "etc/init", "bin/init"] {
        let _ = fs_err::remove_file(node.path("root/101").join(init));
    }
    node.done(["umount", "101"]);
    refused(&node, &["start", "101"], 47, "Unable to start init, probably incorrect template");
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn quiet_says_nothing_and_the_log_has_it() {
    let Some(node) = node_with("quiet_says_nothing_and_the_log_has_it", "busybox") else { return };
    assert_eq!(node.done(["--quiet", "create", "101", "--ostemplate", "busybox"]), "");
    let failed = node.vzctl(["--quiet", "umount", "101"]).fails_with(40);
    assert_eq!((failed.stdout.as_str(), failed.stderr.as_str()), ("", ""));
    let log = fs_err::read_to_string(node.path("vzctl.log")).expect("a log");
    for line in [" vzctl : CT 101 : Container private area was created", " vzctl : CT 101 : CT is not mounted"] {
        assert!(log.lines().any(|said| said.ends_with(line)), "{line} in\n{log}");
    }
}
