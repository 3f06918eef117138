//! A container's life: made, mounted, started, entered, stopped, destroyed; with what each command prints, word for word.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::containers::{node_with, running_busybox};
use tests::wait::wait_until;

#[test]
fn a_life_from_create_to_destroy_says_what_scripts_expect() {
    let Some(node) = node_with("a_life_from_create_to_destroy_says_what_scripts_expect", "busybox") else { return };
    assert_eq!(node.status(101), "CTID 101 deleted unmounted down");
    let configuration = node.configuration(101).display().to_string();
    assert_eq!(
        node.done(["create", "101", "--ostemplate", "busybox"]),
        format!(
            "Creating container private area (busybox)\nCT configuration saved to {configuration}\nContainer private area was created\n"
        )
    );
    assert_eq!(node.status(101), "CTID 101 exist unmounted down");
    assert_eq!(
        node.done(["start", "101"]),
        "Starting container...\nContainer is mounted\nSetting CPU units: 1000\nContainer start in progress...\n"
    );
    assert_eq!(node.status(101), "CTID 101 exist mounted running");
    assert_eq!(node.done(["stop", "101"]), "Stopping container ...\nContainer was stopped\nContainer is unmounted\n");
    assert_eq!(node.status(101), "CTID 101 exist unmounted down");
    let private = node.path("private/101").display().to_string();
    assert_eq!(
        node.done(["destroy", "101"]),
        format!("Destroying container private area: {private}\nContainer private area was destroyed\n")
    );
    assert_eq!(node.status(101), "CTID 101 deleted unmounted down");
    assert!(node.path("etc/conf/101.conf.destroyed").is_file(), "a way back for a mistake");
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn commands_that_find_their_work_done_say_so() {
    let Some(node) = running_busybox("commands_that_find_their_work_done_say_so") else { return };
    let start = node.vzctl(["start", "101"]).fails_with(32);
    assert_eq!(start.stderr, "Container is already running\n");
    node.done(["stop", "101"]);
    assert_eq!(node.done(["stop", "101"]), "Unable to stop: container is not running\n");
    assert_eq!(node.done(["mount", "101"]), "Container is mounted\n");
    assert_eq!(node.status(101), "CTID 101 exist mounted down");
    assert_eq!(node.done(["mount", "101"]), "Container is already mounted\n");
    assert_eq!(node.done(["umount", "101"]), "Container is unmounted\n");
    let umount = node.vzctl(["umount", "101"]).fails_with(40);
    assert_eq!(umount.stderr, "CT is not mounted\n");
}

#[test]
fn a_mounted_root_shows_the_containers_files_and_keeps_what_is_written() {
    let Some(node) = node_with("a_mounted_root_shows_the_containers_files_and_keeps_what_is_written", "busybox") else {
        return;
    };
    node.done(["create", "101", "--ostemplate", "busybox"]);
    node.done(["mount", "101"]);
    assert!(node.path("root/101/sbin/init").symlink_metadata().is_ok(), "the template's files are there");
    node.done(["start", "101"]);
    node.inside("echo kept > /root/file");
    node.done(["restart", "101"]);
    assert_eq!(node.inside("cat /root/file"), "kept");
    node.done(["stop", "101", "--skip-umount"]);
    assert_eq!(node.status(101), "CTID 101 exist mounted down");
    assert_eq!(fs_err::read_to_string(node.path("root/101/root/file")).expect("mounted"), "kept\n");
    node.vzctl(["destroy", "101"]).fails_with(41);
    node.done(["umount", "101"]);
    node.done(["destroy", "101"]);
}

#[test]
fn two_containers_of_one_template_do_not_see_each_others_files() {
    let Some(node) = running_busybox("two_containers_of_one_template_do_not_see_each_others_files") else { return };
    node.done(["create", "102", "--ostemplate", "busybox"]);
    node.done(["start", "102"]);
    node.inside("echo mine > /etc/only-101; rm /etc/passwd");
    node.vzctl(["exec2", "102", "test -e /etc/only-101"]).fails_with(1);
    node.done(["exec2", "102", "test -s /etc/passwd"]);
    assert_ne!(node.configured(101, "LOCAL_UID"), node.configured(102, "LOCAL_UID"), "nor do they share users");
}

#[test]
fn restart_starts_a_container_whether_it_runs_or_not() {
    let Some(node) = running_busybox("restart_starts_a_container_whether_it_runs_or_not") else { return };
    let before = node.process(101, "init");
    assert!(node.done(["restart", "101"]).starts_with("Restarting container\nStopping container ...\n"));
    assert_ne!(node.process(101, "init"), before);
    node.done(["stop", "101"]);
    assert!(node.done(["restart", "101"]).starts_with("Restarting container\nStarting container...\n"));
    assert_eq!(node.status(101), "CTID 101 exist mounted running");
}

#[test]
fn a_fast_stop_asks_nobody() {
    let Some(node) = running_busybox("a_fast_stop_asks_nobody") else { return };
    let said = node.done(["stop", "101", "--fast"]);
    assert_eq!(said, "Killing container ...\nContainer was stopped\nContainer is unmounted\n");
}

#[test]
fn an_init_that_does_not_halt_is_killed_after_the_stop_timeout() {
    let Some(node) = running_busybox("an_init_that_does_not_halt_is_killed_after_the_stop_timeout") else { return };
    // A halt that does nothing, and an init that ignores what it is told.
    node.inside("for f in halt init; do rm /sbin/$f; printf '#!/bin/sh\\n' > /sbin/$f; chmod 755 /sbin/$f; done");
    node.inside("echo \"trap '' TERM INT HUP USR1 USR2; while :; do sleep 1; done\" >> /sbin/init");
    node.done(["stop", "101", "--fast"]);
    node.done(["start", "101"]);
    let said = node.done(["stop", "101", "--stop-timeout", "1"]);
    assert_eq!(said, "Stopping container ...\nKilling container ...\nContainer was stopped\nContainer is unmounted\n");
}

#[test]
fn a_reboot_inside_starts_the_container_anew() {
    let Some(node) = running_busybox("a_reboot_inside_starts_the_container_anew") else { return };
    let before = node.process(101, "init");
    node.inside("reboot");
    let again = wait_until(Duration::from_secs(30), || {
        node.status(101).ends_with(" running") && node.process(101, "init") != before
    });
    assert!(again, "it came back");
    node.inside("true");
    node.done(["stop", "101"]);
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn a_container_that_reboots_all_the_time_is_made_to_wait_and_can_be_stopped_meanwhile() {
    let test = "a_container_that_reboots_all_the_time_is_made_to_wait_and_can_be_stopped_meanwhile";
    let Some(node) = running_busybox(test) else { return };
    node.inside(
        "printf '#!/bin/sh\\n[ -e /stay ] || reboot -f\\n' > /etc/init.d/S99; chmod 755 /etc/init.d/S99; reboot",
    );
    let log = || node.done(["console", "101", "--log"]);
    // Its starts are 2, 4 and 8 seconds apart: what is left of the last depends on how long its start takes.
    let grown = || {
        let log = log();
        let waits =
            log.lines().filter_map(|line| line.strip_suffix(" s")?.rsplit_once("starts again in ")?.1.parse().ok());
        let waits: Vec<u32> = waits.collect();
        waits.windows(2).all(|w| w[1] > w[0]) && waits.last().is_some_and(|&last| last >= 5)
    };
    assert!(wait_until(Duration::from_secs(60), grown), "{}", log());
    assert!(wait_until(Duration::from_secs(5), || node.path("run/101.reboot").exists()), "{}", node.status(101));
    let written = fs_err::read_to_string(node.path("vzctl.log")).expect("a log");
    assert!(
        written.contains("CT 101 : Container reboots so soon after its start that it is made to wait"),
        "{written}"
    );
    // Settings can be changed while it waits, and the start is still to come.
    node.done(["set", "101", "--description", "in a loop", "--save"]);
    assert!(node.path("run/101.reboot").exists());
    assert_eq!(node.done(["stop", "101"]), "Container was stopped\n");
    assert!(!node.path("run/101.reboot").exists());
    assert_eq!(node.status(101), "CTID 101 exist unmounted down");
    assert_eq!(node.done(["stop", "101"]), "Unable to stop: container is not running\n");
    // A start while it waits is one at once, and the only one.
    node.done(["start", "101"]);
    assert!(wait_until(Duration::from_secs(60), || node.path("run/101.reboot").exists()), "{}", log());
    node.done(["mount", "101"]);
    fs_err::remove_file(node.path("root/101/etc/init.d/S99")).expect("there");
    node.done(["start", "101"]);
    assert!(!node.path("run/101.reboot").exists());
    assert_eq!(node.inside("echo up"), "up");
    node.done(["stop", "101"]);
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn a_container_that_forks_without_end_is_stopped() {
    let Some(node) = running_busybox("a_container_that_forks_without_end_is_stopped") else { return };
    node.done(["set", "101", "--numproc", "200", "--cpulimit", "50"]);
    node.inside(
        "(trap '' TERM HUP INT; bomb() { bomb & bomb & sleep 0.01; bomb; }; bomb) >/dev/null 2>&1 </dev/null &",
    );
    let full = || node.cgroup_file(101, &["pids.current"]).parse().is_ok_and(|count: u32| count >= 190);
    assert!(wait_until(Duration::from_secs(30), full), "{}", node.cgroup_file(101, &["pids.current"]));
    let said = node.done(["stop", "101", "--stop-timeout", "2"]);
    assert!(said.ends_with("Container was stopped\nContainer is unmounted\n"), "{said}");
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn a_start_that_waits_says_so_and_takes_nothing_of_its_callers_input() {
    let Some(node) = node_with("a_start_that_waits_says_so_and_takes_nothing_of_its_callers_input", "busybox") else {
        return;
    };
    node.done(["create", "101", "--ostemplate", "busybox"]);
    let said = node.done(["start", "101", "--wait"]);
    assert!(said.ends_with("Container start in progress, waiting ...\nContainer started successfully\n"), "{said}");
    let mut loop_of_a_script = std::process::Command::new("sh");
    let vzctl = tests::node::binary().display().to_string();
    let line = format!(
        "printf '101\\n102\\n' | while read -r ctid; do {vzctl} restart 101 --fast --wait >/dev/null; echo $ctid; done"
    );
    loop_of_a_script.args(["-c", &line]).env("VZ_CONFDIR", node.path("etc"));
    assert_eq!(tests::program::capture(loop_of_a_script).expect("it ends"), "101\n102\n");
}

#[test]
fn a_halt_inside_stops_the_container_and_cleans_up() {
    let Some(node) = running_busybox("a_halt_inside_stops_the_container_and_cleans_up") else { return };
    node.inside("halt");
    node.wait_for_status(101, "unmounted down");
    node.done(["destroy", "101"]);
    assert!(wait_until(Duration::from_secs(10), || !node.path("run/101").exists()), "its run directory goes too");
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn an_init_that_is_killed_leaves_nothing() {
    let Some(node) = running_busybox("an_init_that_is_killed_leaves_nothing") else { return };
    kill(Pid::from_raw(node.process(101, "init")), Signal::SIGKILL).expect("it lives");
    node.wait_for_status(101, "unmounted down");
    node.done(["start", "101"]);
    node.done(["stop", "101"]);
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn a_container_goes_by_its_name_everywhere() {
    let Some(node) = node_with("a_container_goes_by_its_name_everywhere", "busybox") else { return };
    node.done(["create", "101", "--ostemplate", "busybox", "--name", "front end.1"]);
    node.done(["start", "front end.1"]);
    assert_eq!(node.done(["exec", "front end.1", "echo", "hi"]), "hi\n");
    assert_eq!(node.done(["status", "front end.1"]), "CTID 101 exist mounted running\n");
    node.done(["set", "front end.1", "--name", "back", "--save"]);
    node.vzctl(["status", "front end.1"]).fails_with(21);
    node.done(["exec3", "back", "true"]);
    node.done(["set", "back", "--numproc", "50", "--save"]);
    node.done(["stop", "back"]);
    node.done(["mount", "back"]);
    node.done(["umount", "back"]);
    node.done(["destroy", "back"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn a_script_of_the_host_runs_inside_whether_the_container_runs_or_not() {
    let Some(node) = running_busybox("a_script_of_the_host_runs_inside_whether_the_container_runs_or_not") else {
        return;
    };
    let script = node.path("script");
    fs_err::write(&script, "#!/bin/sh\necho \"$(id -u) $(ls /etc/hostname)\"\n").expect("writable");
    let path = script.display().to_string();
    assert!(node.done(["runscript", "101", &path]).starts_with("0 /etc/hostname"));
    node.done(["stop", "101"]);
    assert!(node.done(["runscript", "101", &path]).starts_with("0 /etc/hostname"));
    assert_eq!(node.status(101), "CTID 101 exist unmounted down", "it was there for the script only");
    fs_err::write(&script, "exit 7\n").expect("writable");
    assert_eq!(node.vzctl(["runscript", "101", &path]).code, 7);
    let missing = node.vzctl(["runscript", "101", "/nonexistent"]).fails_with(11);
    assert_eq!(missing.stderr, "Script not found: /nonexistent\n");
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn a_disabled_container_starts_only_by_force() {
    let Some(node) = node_with("a_disabled_container_starts_only_by_force", "busybox") else { return };
    node.done(["create", "101", "--ostemplate", "busybox"]);
    node.done(["set", "101", "--disabled", "yes", "--save"]);
    let refused = node.vzctl(["start", "101"]).fails_with(105);
    assert!(refused.stderr.starts_with("Container start disabled\n"), "{}", refused.stderr);
    node.done(["start", "101", "--force"]);
}

#[test]
fn a_dry_run_prints_the_plan_and_does_nothing() {
    let Some(node) = node_with("a_dry_run_prints_the_plan_and_does_nothing", "busybox") else { return };
    node.done(["create", "101", "--ostemplate", "busybox"]);
    let plan: serde_json::Value =
        serde_json::from_str(&node.done(["start", "101", "--dry-run", "--json"])).expect("JSON");
    assert_eq!(plan["ctid"].as_u64(), Some(101));
    assert!(plan["spec"]["linux"]["namespaces"].as_array().is_some_and(|all| all.len() >= 7));
    assert_eq!(node.status(101), "CTID 101 exist unmounted down");
    assert!(!node.path("run/101").exists());
}
