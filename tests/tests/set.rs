//! `vzctl set` on a running container: each setting is looked up in the kernel, and again after a restart.

use std::process::Command;

use tests::containers::running_busybox;
use tests::node::Node;
use tests::program::capture;

/// What the kernel says of the limits that `limits_take_effect_at_once_and_survive_a_restart` sets, on both versions of
/// cgroups.
#[track_caller]
fn limits_are_in_force(node: &Node) {
    let file = |names: &[&str]| node.cgroup_file(101, names);
    assert_eq!(file(&["memory.limit_in_bytes", "memory.max"]), (300u64 << 20).to_string());
    // v1 counts swap together with memory.
    assert!(
        [(400u64 << 20).to_string(), (100u64 << 20).to_string()]
            .contains(&file(&["memory.memsw.limit_in_bytes", "memory.swap.max"]))
    );
    assert_eq!(file(&["pids.max"]), "44");
    let quota = file(&["cpu.cfs_quota_us", "cpu.max"]);
    let quota: u64 = quota.split(' ').next().and_then(|text| text.parse().ok()).expect("a number");
    let period = file(&["cpu.cfs_period_us", "cpu.max"]);
    let period: u64 = period.split(' ').next_back().and_then(|text| text.parse().ok()).expect("a number");
    assert_eq!(quota * 2, period, "50 % of one CPU");
    assert_eq!(file(&["cpuset.cpus"]), "0");
}

#[test]
fn limits_take_effect_at_once_and_survive_a_restart() {
    let Some(node) = running_busybox("limits_take_effect_at_once_and_survive_a_restart") else { return };
    let shares = node.cgroup_file(101, &["cpu.shares", "cpu.weight"]);
    let words = ["--ram", "300M", "--swap", "100M", "--numproc", "44", "--cpuunits", "2000", "--cpulimit", "50"];
    node.done(["set", "101"].into_iter().chain(words).chain(["--cpumask", "0", "--save"]));
    limits_are_in_force(&node);
    assert_ne!(node.cgroup_file(101, &["cpu.shares", "cpu.weight"]), shares);
    node.done(["restart", "101"]);
    limits_are_in_force(&node);
    assert_eq!(node.configured(101, "CPUUNITS").as_deref(), Some("2000"));
    assert_eq!(node.configured(101, "CPULIMIT").as_deref(), Some("50"));
    // And they bite.
    let refused = node.vzctl(["exec2", "101", "i=0; while [ $i -lt 60 ]; do sleep 5 & i=$((i+1)); done; wait"]);
    assert!(refused.stderr.contains("fork"), "{refused:?}");
}

#[test]
fn an_io_limit_takes_effect_at_once() {
    let Some(node) = running_busybox("an_io_limit_takes_effect_at_once") else { return };
    node.done(["set", "101", "--iolimit", "5", "--iopslimit", "700", "--save"]);
    let bytes = node.cgroup_file(101, &["blkio.throttle.write_bps_device", "io.max"]);
    assert!(bytes.contains("5242880"), "{bytes}");
    let operations = node.cgroup_file(101, &["blkio.throttle.write_iops_device", "io.max"]);
    assert!(operations.contains("700"), "{operations}");
    node.done(["set", "101", "--iolimit", "0", "--save"]);
    let bytes = node.cgroup_file(101, &["blkio.throttle.write_bps_device", "io.max"]);
    assert!(!bytes.contains("5242880"), "0 is no limit: {bytes}");
}

#[test]
fn host_name_and_name_servers_change_in_the_kernel_and_in_the_files() {
    let Some(node) = running_busybox("host_name_and_name_servers_change_in_the_kernel_and_in_the_files") else {
        return;
    };
    let words = ["--hostname", "www.example.com", "--nameserver", "192.0.2.1", "--nameserver", "2001:db8::1"];
    node.done(["set", "101"].into_iter().chain(words).chain(["--searchdomain", "example.com", "--save"]));
    for _ in 0..2 {
        assert!(["www", "www.example.com"].contains(&node.inside("hostname").as_str()));
        assert!(node.inside("cat /etc/hostname").starts_with("www"));
        assert_eq!(
            node.inside("grep -E '^(nameserver|search)' /etc/resolv.conf | sort"),
            "nameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch example.com"
        );
        node.done(["restart", "101"]);
    }
}

#[test]
fn addresses_come_and_go_while_it_runs() {
    let Some(node) = running_busybox("addresses_come_and_go_while_it_runs") else { return };
    let route = || capture_words(&["ip", "route", "show", "table", "all"]);
    node.done(["set", "101", "--ipadd", "10.82.0.1", "--ipadd", "2001:db8:82::1", "--save"]);
    assert_eq!(node.configured(101, "IP_ADDRESS").as_deref(), Some("10.82.0.1 2001:db8:82::1"));
    assert!(node.inside("ip address show dev venet0").contains("10.82.0.1"));
    assert!(route().contains("10.82.0.1"), "the host knows the way");
    capture_words(&["ping", "-c", "1", "-W", "5", "10.82.0.1"]);
    node.done(["restart", "101"]);
    capture_words(&["ping", "-c", "1", "-W", "5", "10.82.0.1"]);
    node.done(["set", "101", "--ipdel", "all", "--ipadd", "10.82.0.2", "--save"]);
    assert_eq!(node.configured(101, "IP_ADDRESS").as_deref(), Some("10.82.0.2"));
    assert!(!route().contains("10.82.0.1 ") && route().contains("10.82.0.2 "), "{}", route());
    node.done(["set", "101", "--ipdel", "10.82.0.2", "--save"]);
    assert!(!route().contains("10.82.0."));
}

#[test]
fn two_containers_reach_each_other_and_none_takes_the_others_address() {
    let test = "two_containers_reach_each_other_and_none_takes_the_others_address";
    let Some(node) = running_busybox(test) else { return };
    node.done(["set", "101", "--ipadd", "10.83.0.1", "--save"]);
    node.done(["create", "102", "--ostemplate", "busybox", "--ipadd", "10.83.0.2"]);
    node.done(["start", "102"]);
    node.inside("ping -c 1 -W 5 10.83.0.2");
    node.done(["exec2", "102", "ping -c 1 -W 5 10.83.0.1"]);
    // Root inside may give itself any address; what it sends from there goes nowhere.
    node.inside("ip address add 10.83.0.9/32 dev venet0");
    node.vzctl(["exec2", "101", "ping -c 1 -W 1 -I 10.83.0.9 10.83.0.2"]).fails_with(1);
    node.done(["create", "103", "--ostemplate", "busybox", "--ipadd", "10.83.0.3"]);
    node.done(["start", "103"]);
    node.inside("ip address add 10.83.0.3/32 dev venet0");
    node.vzctl(["exec2", "101", "ping -c 1 -W 1 -I 10.83.0.3 10.83.0.2"]).fails_with(1);
    node.done(["exec2", "102", "ping -c 1 -W 5 10.83.0.3"]);
}

#[test]
fn a_password_is_set_by_a_hash_in_a_container_that_runs_and_in_one_that_does_not() {
    let test = "a_password_is_set_by_a_hash_in_a_container_that_runs_and_in_one_that_does_not";
    let Some(node) = running_busybox(test) else { return };
    for password in ["first: with $(shell) 'characters'", "second"] {
        node.done(["set", "101", "--userpasswd", &format!("root:{password}")]);
        if !node.status(101).ends_with(" running") {
            assert_eq!(node.status(101), "CTID 101 exist unmounted down");
            node.done(["start", "101"]);
        }
        let shadow = node.inside("grep ^root: /etc/shadow");
        let hash = shadow.split(':').nth(1).expect("a hash");
        assert!(hash.starts_with('$') && !shadow.contains("first") && !shadow.contains("second"), "{shadow}");
        let setting = &hash[..hash.rfind('$').expect("a salt")];
        let mut again = Command::new("perl");
        again.args(["-e", "print crypt($ARGV[0], $ARGV[1])", password, setting]);
        assert_eq!(capture(again).expect("perl"), hash, "it is the hash of that password");
        node.done(["stop", "101"]);
    }
    let text = fs_err::read_to_string(node.configuration(101)).expect("there");
    assert!(!text.contains("second"), "never saved");
    let log = fs_err::read_to_string(node.path("vzctl.log")).unwrap_or_default();
    assert!(!log.contains("second"), "never logged");
}

#[test]
fn what_is_not_saved_is_lost_and_said_to_be() {
    let Some(node) = running_busybox("what_is_not_saved_is_lost_and_said_to_be") else { return };
    let before = fs_err::read_to_string(node.configuration(101)).expect("there");
    let said = node.done(["set", "101", "--numproc", "33"]);
    let warning = "WARNING: Settings were not saved to config and will be lost after CT restart (use --save flag)";
    assert!(said.contains(warning), "{said}");
    assert_eq!(node.cgroup_file(101, &["pids.max"]), "33");
    assert_eq!(fs_err::read_to_string(node.configuration(101)).expect("there"), before);
    node.done(["restart", "101"]);
    assert_ne!(node.cgroup_file(101, &["pids.max"]), "33");
    node.done(["stop", "101"]);
    let said = node.done(["set", "101", "--numproc", "33"]);
    assert!(said.contains("WARNING: Settings were not saved to config (use --save flag)"), "{said}");
}

#[test]
fn what_was_not_saved_stays_in_force_while_other_things_are_set() {
    let Some(node) = running_busybox("what_was_not_saved_stays_in_force_while_other_things_are_set") else { return };
    node.done(["set", "101", "--ipadd", "10.82.7.1", "--numproc", "33"]);
    let throttle = ["blkio.throttle.write_bps_device", "io.max"];
    node.done(["set", "101", "--iolimit", "5"]);
    for words in [
        &["--cpulimit", "50", "--save"][..],
        &["--description", "something else", "--save"],
        &["--ipadd", "10.82.7.2", "--save"],
        &["--ram", "300M", "--swap", "100M"],
    ] {
        node.done(["set", "101"].into_iter().chain(words.iter().copied()));
        assert!(node.inside("ip address show dev venet0").contains("10.82.7.1/"), "{words:?}");
        assert_eq!(node.cgroup_file(101, &["pids.max"]), "33", "{words:?}");
        assert!(node.cgroup_file(101, &throttle).contains("5242880"), "{words:?}");
    }
    node.done(["set", "101", "--iolimit", "0"]);
    assert!(!node.cgroup_file(101, &throttle).contains("5242880"));
    assert_eq!(node.cgroup_file(101, &["memory.limit_in_bytes", "memory.max"]), (300u64 << 20).to_string());
    node.done(["set", "101", "--ipdel", "10.82.7.1"]);
    assert!(!node.inside("ip address show dev venet0").contains("10.82.7.1/"), "and it can be taken away");
    node.done(["set", "101", "--ipadd", "10.82.7.1"]);
    node.done(["restart", "101"]);
    assert_eq!(node.configured(101, "IP_ADDRESS").as_deref(), Some("10.82.7.2"));
    assert!(!node.inside("ip address show dev venet0").contains("10.82.7.1/"), "until the restart");
    assert_eq!(node.cgroup_file(101, &["pids.max"]), "240");
}

#[test]
fn what_a_running_container_cannot_take_follows_the_setmode() {
    let Some(node) = running_busybox("what_a_running_container_cannot_take_follows_the_setmode") else { return };
    let init = node.process(101, "init");
    let capability = ["set", "101", "--capability", "SYS_TIME:on", "--save"];
    let said = node.vzctl(capability).ok();
    let all = format!("{}{}", said.stdout, said.stderr);
    assert!(all.contains("Unable to set capability on a running container"), "{all}");
    assert!(all.contains("Please consider using --setmode option"), "{all}");
    assert!(
        node.configured(101, "CAPABILITY").is_some_and(|value| value.contains("SYS_TIME:on")),
        "saved all the same"
    );
    let ignored = ["set", "101", "--capability", "SYS_TIME:off", "--save", "--setmode", "ignore"];
    node.vzctl(ignored).fails_with(32);
    assert!(node.configured(101, "CAPABILITY").is_some_and(|value| value.contains("SYS_TIME:on")), "not saved");
    assert_eq!(node.process(101, "init"), init);
    node.vzctl(["set", "101", "--capability", "SYS_TIME:off", "--save", "--setmode", "restart"]).ok();
    assert_ne!(node.process(101, "init"), init, "restarted");
}

#[test]
fn what_has_no_effect_here_is_kept_and_said_to_have_none() {
    let Some(node) = running_busybox("what_has_no_effect_here_is_kept_and_said_to_have_none") else { return };
    node.done(["stop", "101"]);
    for (option, value, key, name) in [
        ("--features", "nfs:on", "FEATURES", "feature nfs"),
        ("--netfilter", "stateful", "NETFILTER", "netfilter"),
        ("--iptables", "ipt_REJECT", "IPTABLES", "iptables"),
    ] {
        let said = node.done(["set", "101", option, value, "--save"]);
        let warning = format!("Warning: {name} is kept in the configuration but has no effect yet\n");
        assert!(said.contains(&warning), "{said}");
        assert_eq!(node.configured(101, key).as_deref(), Some(value));
    }
    let said = node.done(["set", "101", "--features", "af_alg:on", "--save"]);
    assert!(!said.contains("Warning"), "a door is in force: {said}");
}

#[test]
fn options_that_need_others_are_refused_without_them() {
    let Some(node) = running_busybox("options_that_need_others_are_refused_without_them") else { return };
    for (words, code) in [
        (&["--name", "x"][..], 131),
        (&["--stop-timeout", "5"], 20),
        (&["--reset_ub", "--numproc", "5"], 20),
        (&["--nodemask", "0"], 20),
        (&["--applyconfig", "no-such-sample", "--save"], 109),
        (&[], 20),
    ] {
        let all: Vec<&str> = ["set", "101"].into_iter().chain(words.iter().copied()).collect();
        node.vzctl(all).fails_with(code);
    }
    node.done(["set", "101", "--applyconfig", "light", "--save"]);
    assert_eq!(node.configured(101, "NUMPROC").as_deref(), Some("40:40"));
    assert_eq!(node.cgroup_file(101, &["pids.max"]), "40");
}

#[test]
fn a_configuration_keeps_what_others_wrote_into_it() {
    let Some(node) = running_busybox("a_configuration_keeps_what_others_wrote_into_it") else { return };
    let path = node.configuration(101);
    let text = fs_err::read_to_string(&path).expect("there");
    fs_err::write(&path, format!("# The panel's own.\n#OWNER: 17\nPANEL_KEY=\"a b\"\n{text}")).expect("writable");
    node.done(["set", "101", "--numproc", "77", "--save"]);
    let after = fs_err::read_to_string(&path).expect("there");
    assert!(after.starts_with("# The panel's own.\n#OWNER: 17\nPANEL_KEY=\"a b\"\n"), "{after}");
    let mut shell = Command::new("sh");
    shell.args(["-euc", ". \"$0\"; echo $PANEL_KEY $NUMPROC"]).arg(&path);
    assert_eq!(capture(shell).expect("sh reads it"), "a b 77:77\n");
}

#[test]
fn disk_space_grows_at_once_or_at_the_next_start() {
    let Some(node) = running_busybox("disk_space_grows_at_once_or_at_the_next_start") else { return };
    let size = |node: &Node| node.inside("df -k / | tail -n 1 | awk '{print $2}'").parse::<u64>().expect("KiB");
    let before = size(&node);
    let said = node.done(["set", "101", "--diskspace", "3G:3G", "--save"]);
    if said.contains("grows at the next start") {
        // Growing an image that is mounted takes a privilege that some hosts' root lacks.
        assert!(said.contains("CAP_SYS_RESOURCE"), "{said}");
        node.done(["restart", "101"]);
    }
    assert!(size(&node) > before, "{} KiB", size(&node));
}

#[track_caller]
fn capture_words(words: &[&str]) -> String {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    capture(command).expect("it works")
}

#[test]
fn a_part_of_the_ram_is_guaranteed_if_the_host_has_it() {
    let Some(node) = running_busybox("a_part_of_the_ram_is_guaranteed_if_the_host_has_it") else { return };
    let promised = || node.vzlist(["-H", "-o", "vmguarpages.b,oomguarpages.b"]).ok().stdout;
    let words = |text: String| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let usual = words(promised());
    node.done(["set", "101", "--ram", "64M", "--swap", "0", "--memguarantee", "25", "--save"]);
    assert_eq!(node.configured(101, "MEMGUARANTEE").as_deref(), Some("25"));
    assert_eq!(words(promised()), ["4096", "4096"], "16 MiB in pages");
    node.done(["set", "101", "--memguarantee", "auto"]);
    assert_eq!(words(promised()), usual, "what its beancounters say");

    let too_much = node.vzctl(["set", "101", "--ram", "900T", "--memguarantee", "100%"]);
    assert_eq!(too_much.code, 36, "{too_much:?}");
    assert!(format!("{}{}", too_much.stdout, too_much.stderr).contains("this host may guarantee"), "{too_much:?}");
    assert_eq!(words(promised()), usual);
}

#[test]
fn a_limit_in_megahertz_is_a_part_of_this_hosts_processor() {
    let Some(node) = running_busybox("a_limit_in_megahertz_is_a_part_of_this_hosts_processor") else { return };
    let cpuinfo = fs_err::read_to_string("/proc/cpuinfo").expect("/proc/cpuinfo");
    let told = cpuinfo.lines().any(|line| line.starts_with("cpu MHz"));
    let set = node.vzctl(["set", "101", "--cpulimit", "600m", "--save"]);
    if !told {
        assert_eq!(set.code, 2, "{set:?}");
        return;
    }
    assert!(set.ok().stdout.contains("Setting CPU limit: 600m\n"));
    let quota = node.cgroup_file(101, &["cpu.cfs_quota_us", "cpu.max"]);
    let quota: u64 = quota.split(' ').next().and_then(|text| text.parse().ok()).expect("a number");
    // Of a processor of 1 to 6 GHz.
    assert!((10_000..=60_000).contains(&quota), "{quota}");
}
