//! What an operator's typo, a hand-edited configuration or another user of the host cannot do.

mod security_support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use security_support::{Canary, PATIENCE, bounded, create, inside, node};
use tests::node::{Node, Outcome, binary};

#[test]
fn a_value_cannot_become_another_line_of_the_configuration_or_a_command() {
    let Some(node) = node("a_value_cannot_become_another_line_of_the_configuration_or_a_command") else { return };
    let canary = Canary::new();
    create(&node, 101);
    let planted = canary.path().join("planted").display().to_string();
    let evil = [
        "a\"\nONBOOT=\"yes".to_owned(),
        format!("a$(touch {planted})"),
        format!("a`touch {planted}`"),
        format!("a\"; touch {planted}; \""),
        "a\\".to_owned(),
        "a\r\nONBOOT=yes".to_owned(),
    ];
    for option in
        ["--name", "--hostname", "--description", "--nameserver", "--searchdomain", "--ostemplate", "--userpasswd"]
    {
        for value in &evil {
            bounded(&node, &["set", "101", option, value, "--save"]);
            let conf = fs::read_to_string(node.configuration(101)).expect("the configuration");
            assert!(!conf.lines().any(|line| line.starts_with("ONBOOT") && line.contains("yes")), "{option}: {conf}");
            bounded(&node, &["status", "101"]).ok();
        }
    }
    canary.assert_untouched("a value");
}

#[test]
fn a_hand_edited_configuration_is_never_run() {
    let Some(node) = node("a_hand_edited_configuration_is_never_run") else { return };
    let canary = Canary::new();
    create(&node, 101);
    let good = fs::read_to_string(node.configuration(101)).expect("the configuration");
    let planted = canary.path().join("planted").display().to_string();
    let lines = [
        format!("HOSTNAME=\"$(touch {planted})\""),
        format!("HOSTNAME=`touch {planted}`"),
        format!("X=1; touch {planted}"),
        format!("touch {planted}"),
        "HOSTNAME=\"no end".to_owned(),
        "HOSTNAME=a\\".to_owned(),
        "\0\0".to_owned(),
        format!("DESCRIPTION=\"{}\"", "x".repeat(10 << 20)),
        "HOSTNAME=a\r".to_owned(),
    ];
    for line in lines {
        fs::write(node.configuration(101), format!("{good}{line}\n")).expect("written");
        for command in [&["status", "101"][..], &["start", "101"], &["stop", "101", "--fast"]] {
            bounded(&node, command);
        }
        Outcome::of(node.command("vzlist", ["-a"]), PATIENCE);
        canary.assert_untouched(&line[..line.len().min(60)]);
    }
    fs::write(node.configuration(101), good).expect("written");
}

#[test]
fn what_is_no_container_number_or_name_is_refused() {
    let Some(node) = node("what_is_no_container_number_or_name_is_refused") else { return };
    create(&node, 101);
    for id in
        ["../../etc", "", "-rf", "101/..", "18446744073709551617", "1e3", "-1", "\u{661}\u{660}\u{661}", "101\n102"]
    {
        for command in ["start", "destroy", "stop"] {
            assert_ne!(bounded(&node, &[command, "--", id]).code, 0, "{command} {id:?}");
        }
    }
    for name in ["../x", "a/b", "-f", "", "..", ".", "a\nb"] {
        let set = bounded(&node, &["set", "101", &format!("--name={name}"), "--save"]);
        let names: Vec<_> = fs::read_dir(node.path("etc/names")).expect("names").flatten().collect();
        assert!(names.is_empty(), "{name:?} became {names:?} ({})", set.code);
    }
    for template in ["../../x", "/etc/passwd", "-I touch", "a/../b"] {
        assert_ne!(bounded(&node, &["create", "104", &format!("--ostemplate={template}")]).code, 0, "{template}");
        assert!(!node.path("private/104").exists());
    }
    assert!(node.configuration(101).exists(), "101 is still there");
}

#[test]
fn a_password_cannot_be_read_in_the_log_or_the_configuration() {
    let Some(node) = node("a_password_cannot_be_read_in_the_log_or_the_configuration") else { return };
    create(&node, 101);
    node.vzctl(["start", "101"]).ok();
    node.vzctl(["set", "101", "--userpasswd", "root:t0psecret", "--save"]).ok();
    for part in ["vzctl.log", "etc/conf/101.conf", "run/101/plan.json", "run/101/journal.json"] {
        let text = fs::read_to_string(node.path(part)).unwrap_or_default();
        assert!(!text.contains("t0psecret"), "{part}: {text}");
    }
    assert!(inside(&node, 101, "cat /etc/shadow").ok().stdout.contains("root:$"), "it was set");
}

#[test]
fn a_script_that_others_may_write_is_not_run() {
    let Some(node) = node("a_script_that_others_may_write_is_not_run") else { return };
    let canary = Canary::new();
    create(&node, 101);
    for name in ["101.mount", "vps.premount", "101.start"] {
        let path = node.path("etc/conf").join(name);
        fs::write(&path, format!("#!/bin/sh\ntouch {}/planted\n", canary.path().display())).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("its mode");
        assert_ne!(bounded(&node, &["start", "101"]).code, 0, "{name} was run or passed over");
        canary.assert_untouched(name);
        fs::remove_file(path).expect("there");
    }
}

#[test]
fn another_user_of_the_host_cannot_reach_a_containers_files_or_state() {
    let Some(node) = node("another_user_of_the_host_cannot_reach_a_containers_files_or_state") else { return };
    // The harness makes these for everybody; what vzctl makes itself is what is looked at.
    node.configure(&format!("VE_ROOT={0}/own/root/$VEID\nVE_PRIVATE={0}/own/private/$VEID", node.path("").display()));
    create(&node, 101);
    node.vzctl(["start", "101"]).ok();
    fs::set_permissions(node.path(""), fs::Permissions::from_mode(0o755)).expect("its mode");
    for part in ["own/private/101", "own/root/101/etc/shadow", "own/root/101/bin/busybox", "run/101/state.json"] {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "stat"]).arg(node.path(part));
        assert_ne!(Outcome::of(command, PATIENCE).code, 0, "{part} is reached by nobody");
        assert!(node.path(part).exists(), "{part}");
    }
}

#[test]
fn no_two_containers_share_a_range_of_user_ids() {
    let Some(node) = node("no_two_containers_share_a_range_of_user_ids") else { return };
    let ids = |ctid: u32| range_of(&node, ctid);
    (101..121).for_each(|ctid| create(&node, ctid));
    (101..121).step_by(3).for_each(|ctid| drop(node.vzctl(["destroy", &ctid.to_string()]).ok()));
    (121..128).for_each(|ctid| create(&node, ctid));
    let mut all: Vec<u32> = (101..128).filter(|ctid| node.configuration(*ctid).exists()).map(ids).collect();
    assert_eq!(all.len(), 20);
    all.sort_unstable();
    assert!(all.windows(2).all(|pair| pair[1] - pair[0] >= 65536), "{all:?}");
}

#[test]
fn a_planted_link_in_place_of_a_lock_or_a_log_is_not_followed() {
    let Some(node) = node("a_planted_link_in_place_of_a_lock_or_a_log_is_not_followed") else { return };
    let canary = Canary::new();
    create(&node, 101);
    let _ = fs::remove_file(node.path("vzctl.log"));
    for part in ["lock/101.lck", "vzctl.log"] {
        symlink(canary.path().join("file"), node.path(part)).expect("a link");
    }
    bounded(&node, &["start", "101"]);
    canary.assert_untouched("a lock or a log");
    for part in ["lock/101.lck", "vzctl.log"] {
        let _ = fs::remove_file(node.path(part));
    }
}

#[test]
fn of_many_starts_and_stops_at_once_none_leaves_the_container_in_between() {
    let Some(node) = node("of_many_starts_and_stops_at_once_none_leaves_the_container_in_between") else { return };
    create(&node, 101);
    let script = format!(
        "for i in 1 2 3 4 5 6 7 8; do {0} start 101 & {0} stop 101 --fast & {0} set 101 --hostname h$i --save & done; wait",
        binary().display()
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]).env("VZ_CONFDIR", node.path("etc"));
    Outcome::of(command, PATIENCE * 3);
    bounded(&node, &["stop", "101", "--fast"]).ok();
    bounded(&node, &["start", "101"]).ok();
    assert_eq!(fs::metadata(node.configuration(101)).expect("the configuration").uid(), 0);
}

#[test]
fn a_container_never_has_numbers_of_the_host_or_of_another_container() {
    let Some(node) = node("a_container_never_has_numbers_of_the_host_or_of_another_container") else { return };
    create(&node, 101);
    let first = range_of(&node, 101);
    let taken = first.to_string();
    for bad in
        ["0", "1", "01", "1:", ":1", "-1", "65535", &taken, "4294836224", "4294901760", "4294967295", "99999999999"]
    {
        let words = [format!("--local_uid={bad}"), format!("--local_gid={bad}")];
        let both = bounded(&node, &["create", "102", "--ostemplate", "busybox", &words[0], &words[1]]);
        assert_eq!(both.code, 21, "{bad}: {both:?}");
        assert!(!node.configuration(102).exists() && !node.path("private/102").exists(), "{bad}");
    }
    bounded(&node, &["create", "102", "--ostemplate", "busybox", "--local_uid=9000000"]).fails_with(27);
    // What no command lets in may still stand in a file: written by hand, or a copy of another container's.
    create(&node, 102);
    node.vzctl(["start", "101"]).ok();
    for bad in ["0", &taken] {
        let own = range_of(&node, 102).to_string();
        let text = fs::read_to_string(node.configuration(102)).expect("the configuration");
        fs::write(node.configuration(102), text.replace(&own, bad)).expect("written");
        let start = bounded(&node, &["start", "102"]).ok();
        assert!(start.stdout.contains("overlap"), "{start:?}");
        let map = inside(&node, 102, "cat /proc/self/uid_map /proc/self/gid_map").ok().stdout;
        for line in map.lines() {
            let host: u32 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a map");
            assert!(host >= 65536 && host.abs_diff(first) >= 65536, "LOCAL_UID={bad} became {map}");
        }
        bounded(&node, &["stop", "102", "--fast"]).ok();
    }
    assert_eq!(range_of(&node, 101), first, "the other keeps its numbers");
}

fn range_of(node: &Node, ctid: u32) -> u32 {
    let conf = fs::read_to_string(node.configuration(ctid)).expect("the configuration");
    let line = conf.lines().find_map(|line| line.strip_prefix("LOCAL_UID=")).expect("a range");
    line.trim_matches('"').parse().expect("a number")
}

#[test]
fn the_umask_of_the_caller_opens_nothing_on_the_host_and_closes_nothing_inside() {
    let test = "the_umask_of_the_caller_opens_nothing_on_the_host_and_closes_nothing_inside";
    let Some(node) = node(test) else { return };
    for (umask, ctid) in [("077", "101"), ("0", "102")] {
        let mut command = Command::new("sh");
        let vzctl = binary();
        let script = format!(
            "umask {umask}; {0} create {ctid} --ostemplate busybox && {0} start {ctid} && {0} set {ctid} --userpasswd user:x --hostname h --save",
            vzctl.display()
        );
        command.args(["-c", &script]).env("VZ_CONFDIR", node.path("etc"));
        Outcome::of(command, PATIENCE * 3).ok();
        let id = node.vzctl(["exec2", ctid, "su -s /bin/sh user -c 'id -un; cat /etc/hostname'"]).ok();
        assert_eq!(id.stdout, "user\nh\n", "umask {umask}");
        let find = |what: &str| {
            let mut command = Command::new("find");
            command.arg(node.path(what)).args(["-perm", "/022", "!", "-type", "l", "!", "-type", "c"]);
            Outcome::of(command, PATIENCE).ok().stdout
        };
        for what in
            [format!("run/{ctid}"), format!("etc/conf/{ctid}.conf"), format!("private/{ctid}"), "vzctl.log".into()]
        {
            assert_eq!(find(&what), "", "umask {umask} leaves writable to others");
        }
    }
}
