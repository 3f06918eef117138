//! Whatever is killed, and whenever: the next command finds its way, and in the end nothing is left.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::containers::{node_with, running_busybox};
use tests::node::Node;
use tests::wait::{is_gone, rounds, wait_until};

/// How long a command takes when nobody disturbs it.
fn measured(node: &Node, words: &[&str]) -> Duration {
    let begin = Instant::now();
    node.done(words.iter().copied());
    begin.elapsed()
}

/// Runs a command and sends it a signal after this time. Waits until it has ended.
fn disturbed(node: &Node, words: &[&str], after: Duration, signal: Signal) {
    let mut command = node.command("vzctl", words);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("vzctl");
    thread::sleep(after);
    // Not reaped yet, so the number is still its own; a signal to a command that has just ended does nothing.
    kill(Pid::from_raw(child.id() as i32), signal).expect("our child");
    let ended = wait_until(Duration::from_secs(60), || child.try_wait().is_ok_and(|status| status.is_some()));
    if !ended {
        child.kill().expect("it runs");
        child.wait().expect("killed");
    }
    assert!(ended, "vzctl {words:?} outlived {signal} by a minute");
}

/// Points spread evenly over a command's time, and somewhat beyond its end.
fn moments(whole: Duration) -> impl Iterator<Item = Duration> {
    let count = rounds("VZ_TEST_KILLS", 12, 4);
    (0..count).map(move |number| whole.mul_f64(1.2 * f64::from(number) / f64::from(count)))
}

#[test]
fn a_start_that_is_killed_anywhere_is_followed_by_a_start_that_works() {
    let test = "a_start_that_is_killed_anywhere_is_followed_by_a_start_that_works";
    let Some(node) = node_with(test, "busybox") else { return };
    node.done(["create", "101", "--ostemplate", "busybox", "--ipadd", "10.79.1.1"]);
    let whole = measured(&node, &["start", "101"]);
    node.done(["stop", "101", "--fast"]);
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT] {
        for after in moments(whole) {
            disturbed(&node, &["start", "101"], after, signal);
            // Its init may run, if the start had got as far; a command cleans up what is neither running nor not.
            let again = node.vzctl(["start", "101", "--wait-lock", "30"]);
            assert!([0, 32].contains(&again.code), "{signal} after {after:?}: {again:?}");
            let works = node.vzctl(["exec2", "101", "echo works"]);
            assert_eq!(works.stdout, "works\n", "{signal} after {after:?}: {again:?}, {works:?}");
            node.done(["stop", "101", "--fast", "--wait-lock", "30"]);
            assert_eq!(node.status(101), "CTID 101 exist unmounted down", "{signal} after {after:?}");
            assert!(node.cgroups(101).is_empty(), "{signal} after {after:?}: {:?}", node.cgroups(101));
        }
    }
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn a_stop_that_is_killed_anywhere_is_finished_by_the_next() {
    let Some(node) = running_busybox("a_stop_that_is_killed_anywhere_is_finished_by_the_next") else { return };
    let whole = measured(&node, &["stop", "101"]);
    for after in moments(whole) {
        node.done(["start", "101", "--wait-lock", "30"]);
        disturbed(&node, &["stop", "101"], after, Signal::SIGKILL);
        node.done(["stop", "101", "--fast", "--wait-lock", "30"]);
        let down = wait_until(Duration::from_secs(10), || node.status(101) == "CTID 101 exist unmounted down");
        assert!(down, "after {after:?}: {}", node.status(101));
    }
    node.done(["destroy", "101", "--wait-lock", "30"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

/// Kills and interrupts a `create` of container "one" everywhere; each time it can be repeated.
fn create_can_be_repeated(node: &Node, words: &[&str]) {
    let whole = measured(node, words);
    node.done(["destroy", "101"]);
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT] {
        for after in moments(whole) {
            disturbed(node, words, after, signal);
            // A child of the killed one that is just becoming mkfs still has the lock.
            let again = node.vzctl(words.iter().chain(&["--wait-lock", "30"]));
            assert!([0, 44].contains(&again.code), "{signal} after {after:?}: {again:?}");
            node.done(["start", "one"]);
            node.done(["stop", "one", "--fast"]);
            node.done(["destroy", "one"]);
            assert_eq!(node.status(101), "CTID 101 deleted unmounted down");
        }
    }
    // What a killed create leaves is cleared by the next command that makes or removes a private area.
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn a_create_that_is_killed_or_interrupted_anywhere_can_be_repeated() {
    let Some(node) = node_with("a_create_that_is_killed_or_interrupted_anywhere_can_be_repeated", "busybox") else {
        return;
    };
    create_can_be_repeated(&node, &["create", "101", "--ostemplate", "busybox", "--name", "one"]);
}

#[test]
fn a_create_of_an_image_that_is_killed_or_interrupted_anywhere_can_be_repeated() {
    let test = "a_create_of_an_image_that_is_killed_or_interrupted_anywhere_can_be_repeated";
    let Some(node) = node_with(test, "busybox") else { return };
    let common = ["create", "101", "--ostemplate", "busybox", "--name", "one", "--layout", "ploop"];
    // Filled file by file, and as a copy of the template's image.
    for space in ["64M", "1G"] {
        create_can_be_repeated(&node, &[&common[..], &["--diskspace", space]].concat());
    }
}

/// What is among the private areas.
fn areas(node: &Node) -> Vec<std::ffi::OsString> {
    std::fs::read_dir(node.path("private")).expect("there").flatten().map(|e| e.file_name()).collect()
}

#[test]
fn a_conversion_that_is_killed_anywhere_has_happened_or_not() {
    let Some(node) = node_with("a_conversion_that_is_killed_anywhere_has_happened_or_not", "busybox") else { return };
    node.done(["create", "101", "--ostemplate", "busybox", "--diskspace", "64M"]);
    node.done(["start", "101"]);
    node.inside("echo precious > /root/file; rm -r /bin/ls; mkdir /root/many; for i in $(seq 500); do echo $i > /root/many/$i; done");
    node.done(["stop", "101", "--fast"]);
    let mut whole = Duration::ZERO;
    for layout in ["ploop", "simfs"] {
        whole = whole.max(measured(&node, &["convert", "101", "--layout", layout]));
    }
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        for after in moments(whole) {
            let now = node.configured(101, "VE_LAYOUT").expect("a layout");
            let other = if now == "ploop" { "simfs" } else { "ploop" };
            disturbed(&node, &["convert", "101", "--layout", other], after, signal);
            node.done(["start", "101", "--wait-lock", "30"]);
            let seen = node.inside("cat /root/file; ls /root/many | wc -l; test -e /bin/ls || echo gone");
            assert_eq!(seen, "precious\n500\ngone", "{signal} after {after:?}, from {now}");
            let root = node.inside("grep ' / ' /proc/mounts");
            let is_image = root.starts_with("/dev/loop");
            let says = node.configured(101, "VE_LAYOUT").expect("a layout");
            assert_eq!(is_image, says == "ploop", "{signal} after {after:?}: {says}, {root}");
            node.done(["stop", "101", "--fast"]);
            assert_eq!(areas(&node), ["101"], "{signal} after {after:?}");
        }
    }
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn a_reinstallation_that_is_killed_anywhere_has_happened_or_not() {
    let Some(node) = node_with("a_reinstallation_that_is_killed_anywhere_has_happened_or_not", "busybox") else {
        return;
    };
    node.done(["create", "101", "--ostemplate", "busybox", "--diskspace", "64M"]);
    let live = || {
        node.done(["start", "101", "--wait-lock", "30"]);
        node.inside("echo precious > /root/file; rm -f /bin/ls; mkdir -p /root/many; for i in $(seq 300); do echo $i > /root/many/$i; done");
        node.done(["stop", "101", "--fast"]);
    };
    live();
    let whole = measured(&node, &["reinstall", "101"]);
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        for after in moments(whole) {
            live();
            disturbed(&node, &["reinstall", "101"], after, signal);
            node.done(["start", "101", "--wait-lock", "30"]);
            let seen = node.inside("if test -e /bin/ls; then cd /old; test -e bin/ls || echo new; else cd /; echo old; fi; cat root/file; ls root/many | wc -l");
            assert!(
                ["new", "old"].map(|is| format!("{is}\nprecious\n300")).contains(&seen),
                "{signal} after {after:?}: {seen}"
            );
            node.done(["stop", "101", "--fast"]);
            assert_eq!(areas(&node), ["101"], "{signal} after {after:?}");
        }
    }
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn a_destroy_that_is_killed_anywhere_can_be_repeated() {
    let Some(node) = node_with("a_destroy_that_is_killed_anywhere_can_be_repeated", "busybox") else { return };
    let create = ["create", "101", "--ostemplate", "busybox", "--name", "one"];
    node.done(create);
    let whole = measured(&node, &["destroy", "101"]);
    for after in moments(whole) {
        node.done(create);
        disturbed(&node, &["destroy", "101"], after, Signal::SIGKILL);
        let again = node.vzctl(["destroy", "101"]);
        assert!([0, 14].contains(&again.code), "after {after:?}: {again:?}");
        assert_eq!(node.status(101), "CTID 101 deleted unmounted down");
    }
    node.done(create);
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn a_set_that_is_killed_anywhere_leaves_the_old_configuration_or_the_new() {
    let Some(node) = running_busybox("a_set_that_is_killed_anywhere_leaves_the_old_configuration_or_the_new") else {
        return;
    };
    let whole = measured(&node, &["set", "101", "--ipadd", "10.79.2.1", "--numproc", "60", "--save"]);
    for after in moments(whole) {
        node.done(["set", "101", "--ipdel", "all", "--numproc", "50", "--hostname", "old", "--save"]);
        let old = fs_err::read_to_string(node.configuration(101)).expect("there");
        let new = ["set", "101", "--ipadd", "10.79.2.1", "--numproc", "60", "--hostname", "new", "--save"];
        let again = new.into_iter().chain(["--wait-lock", "30"]);
        disturbed(&node, &new, after, Signal::SIGKILL);
        let found = fs_err::read_to_string(node.configuration(101)).expect("there");
        // What the killed command had begun inside ends by itself.
        node.done(again);
        let changed = fs_err::read_to_string(node.configuration(101)).expect("there");
        assert!(found == old || found == changed, "after {after:?}:\n{found}");
        assert_eq!(node.inside("hostname"), "new");
        assert!(node.inside("ip -4 address show dev venet0").contains("10.79.2.1"));
    }
    node.done(["stop", "101"]);
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn a_growth_that_is_killed_anywhere_is_what_the_configuration_says_after_the_next_start() {
    let test = "a_growth_that_is_killed_anywhere_is_what_the_configuration_says_after_the_next_start";
    let Some(node) = node_with(test, "busybox") else { return };
    node.done(["create", "101", "--ostemplate", "busybox", "--layout", "ploop", "--diskspace", "32M"]);
    let image = node.path("private/101/root.hdd/root.hds");
    let grow = |mib: u64| ["set".to_owned(), "101".into(), "--diskspace".into(), format!("{mib}M"), "--save".into()];
    let whole = measured(&node, &grow(33).each_ref().map(String::as_str));
    for (mib, after) in (34..).zip(moments(whole)) {
        node.done(["start", "101"]);
        disturbed(&node, &grow(mib).each_ref().map(String::as_str), after, Signal::SIGKILL);
        let conf = fs_err::read_to_string(node.configuration(101)).expect("there");
        node.done(["stop", "101", "--fast", "--wait-lock", "30"]);
        // The image is never ahead of its configuration: it could not be made smaller.
        let length_kib = fs_err::metadata(&image).expect("there").len() / 1024;
        let says = |kib: u64| conf.contains(&format!("DISKSPACE=\"{kib}:{kib}\""));
        assert!(
            says(mib * 1024) || (says(length_kib) && length_kib == (mib - 1) * 1024),
            "{after:?}: {length_kib}, {conf}"
        );
        node.done(["start", "101"]);
        let length_kib = fs_err::metadata(&image).expect("there").len() / 1024;
        assert!(says(length_kib), "after {after:?}: {length_kib} KiB, {conf}");
        node.done(["set", "101", "--diskspace", &format!("{mib}M"), "--save"]);
        node.done(["stop", "101", "--fast"]);
    }
    // And it is not grown where that can't be saved.
    let length = || fs_err::metadata(&image).expect("there").len();
    let (configurations, had) = (node.path("etc/conf"), length());
    let chattr = |flag: &str| {
        let done = Command::new("chattr").arg(flag).arg(&configurations).status();
        assert!(done.is_ok_and(|status| status.success()), "chattr {flag}");
    };
    chattr("+i");
    let unsaved = node.vzctl(["set", "101", "--diskspace", "100M", "--save"]);
    chattr("-i");
    assert!(unsaved.code != 0 && length() == had, "{unsaved:?}");
    // What can't be is not saved either.
    let before = fs_err::read_to_string(node.configuration(101)).expect("there");
    assert_ne!(node.vzctl(["set", "101", "--diskspace", "100T", "--save"]).code, 0);
    assert_eq!(fs_err::read_to_string(node.configuration(101)).expect("there"), before);
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn a_container_outlives_its_monitor() {
    let Some(node) = running_busybox("a_container_outlives_its_monitor") else { return };
    kill(Pid::from_raw(node.process(101, "monitor")), Signal::SIGKILL).expect("it lives");
    // It runs on, or is cleared up; either way commands work.
    let status = node.status(101);
    if status.ends_with(" running") {
        assert_eq!(node.inside("echo on"), "on");
        node.done(["stop", "101"]);
    }
    node.done(["start", "101"]);
    let (monitor, init) = (node.process(101, "monitor"), node.process(101, "init"));
    kill(Pid::from_raw(monitor), Signal::SIGKILL).expect("it lives");
    // Init may have died with it.
    let _ = kill(Pid::from_raw(init), Signal::SIGKILL);
    wait_until(Duration::from_secs(10), || !node.status(101).ends_with(" running"))
        .then_some(())
        .expect("a dead init is no running container");
    node.done(["start", "101"]);
    assert_eq!(node.inside("echo back"), "back");
    node.done(["stop", "101"]);
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn monitor_and_attendant_replace_each_other_and_lose_nothing() {
    let Some(node) = running_busybox("monitor_and_attendant_replace_each_other_and_lose_nothing") else { return };
    let soon = Duration::from_secs(10);
    let booted = node.inside("cat /proc/sys/kernel/random/uuid >/tmp/mark; cat /tmp/mark");
    // An attendant first: the monitor has init for its child and knows what it wants.
    assert!(wait_until(soon, || node.attendant(101).is_some()), "no attendant");
    let before = node.attendant(101).expect("there");
    kill(Pid::from_raw(before), Signal::SIGKILL).expect("it lives");
    assert!(wait_until(soon, || node.attendant(101).is_some_and(|now| now != before)), "no other attendant");
    for _ in 0..3 {
        let monitor = node.process(101, "monitor");
        kill(Pid::from_raw(monitor), Signal::SIGKILL).expect("it lives");
        let replaced = wait_until(soon, || node.process(101, "monitor") != monitor && node.attendant(101).is_some());
        assert!(replaced, "no other monitor");
        node.inside("echo printed >/dev/console");
        let log = node.path("run/101.console");
        let heard = || fs_err::read_to_string(&log).is_ok_and(|text| text.ends_with("printed\r\n"));
        assert!(wait_until(soon, heard), "the console is not heard any more");
        fs_err::write(&log, "").expect("writable");
        assert_eq!(node.inside("cat /tmp/mark"), booted);
    }
    // The last of them clears up as the first would have.
    let _ = node.vzctl(["exec2", "101", "halt -f"]);
    assert!(wait_until(soon, || node.status(101) == "CTID 101 exist unmounted down"), "{}", node.status(101));
    assert!(wait_until(soon, || node.cgroups(101).is_empty()), "{:?}", node.cgroups(101));
    node.done(["destroy", "101", "--wait-lock", "10"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn a_container_without_monitor_and_attendant_is_given_both() {
    let Some(node) = running_busybox("a_container_without_monitor_and_attendant_is_given_both") else { return };
    let soon = Duration::from_secs(10);
    assert!(wait_until(soon, || node.attendant(101).is_some()), "no attendant");
    // Stopped first, so that neither replaces the other.
    let pair = [node.attendant(101).expect("there"), node.process(101, "monitor")].map(Pid::from_raw);
    for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
        pair.iter().for_each(|&pid| kill(pid, signal).expect("it lives"));
    }
    assert!(wait_until(soon, || pair.iter().all(|pid| is_gone(pid.as_raw()))), "killed");
    node.done(["set", "101", "--numproc", "99"]);
    assert_ne!(node.process(101, "monitor"), pair[1].as_raw());
    assert!(wait_until(soon, || node.attendant(101).is_some()), "no attendant");
    node.done(["stop", "101"]);
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn a_stale_lock_file_holds_nobody_up() {
    let Some(node) = node_with("a_stale_lock_file_holds_nobody_up", "busybox") else { return };
    node.done(["create", "101", "--ostemplate", "busybox"]);
    for text in ["", "1\nstarting\n", "999999999\nstopping\n", "garbage\0\u{1b}[2J"] {
        fs_err::write(node.path("lock/101.lck"), text).expect("writable");
        node.done(["start", "101"]);
        node.done(["stop", "101", "--fast"]);
    }
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn the_state_of_another_boot_is_no_state() {
    let Some(node) = running_busybox("the_state_of_another_boot_is_no_state") else { return };
    let run = node.path("run/101");
    let kept: Vec<_> = ["state.json", "journal.json", "plan.json"]
        .map(|name| (name, fs_err::read_to_string(run.join(name)).expect("there")))
        .into();
    node.done(["stop", "101"]);
    let boot = fs_err::read_to_string("/proc/sys/kernel/random/boot_id").expect("proc");
    fs_err::create_dir_all(&run).expect("made");
    for (name, text) in &kept {
        let text = text.replace(boot.trim(), "00000000-0000-0000-0000-000000000000");
        fs_err::write(run.join(name), text).expect("writable");
    }
    assert_eq!(node.status(101), "CTID 101 exist unmounted down");
    node.done(["start", "101"]);
    assert_eq!(node.inside("echo up"), "up");
    node.done(["stop", "101"]);
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}
