//! `vztop` and `vzps` on containers that run.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tests::containers::running_busybox;
use tests::node::Node;

/// The rounds of `vztop --json`, which must say nothing else.
#[track_caller]
fn rounds(node: &Node, arguments: &[&str]) -> Vec<Value> {
    let outcome = node.run("vztop", [arguments, &["--json"]].concat()).ok();
    assert_eq!(outcome.stderr, "", "vztop {arguments:?} complained");
    let document = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    outcome.stdout.lines().map(document).collect()
}

fn container(round: &Value, ctid: u32) -> &Value {
    let all = round["containers"].as_array().expect("a list");
    all.iter().find(|container| container["ctid"] == ctid).unwrap_or_else(|| panic!("no CT {ctid} in {round}"))
}

/// The processes in a container's cgroup2 tree.
fn processes(node: &Node, ctid: u32) -> BTreeSet<String> {
    let mut directories: Vec<_> =
        node.cgroups(ctid).into_iter().filter(|path| path.join("cgroup.controllers").exists()).collect();
    assert_eq!(directories.len(), 1, "one cgroup2 tree");
    let mut pids = BTreeSet::new();
    while let Some(directory) = directories.pop() {
        let text = fs_err::read_to_string(directory.join("cgroup.procs")).expect("readable");
        pids.extend(text.lines().map(str::to_owned));
        let below = fs_err::read_dir(&directory).expect("readable").map(|entry| entry.expect("readable").path());
        directories.extend(below.filter(|path| path.is_dir()));
    }
    pids
}

#[test]
fn a_busy_container_shows_as_one_busy_cpu_and_sorts_first() {
    let Some(node) = running_busybox("a_busy_container_shows_as_one_busy_cpu_and_sorts_first") else { return };
    node.done(["create", "102", "--ostemplate", "busybox"]);
    node.done(["start", "102"]);
    node.done(["exec2", "102", "while :; do :; done >/dev/null 2>&1 </dev/null &"]);
    // This machine may have other work: the kernel says what the container got meanwhile.
    let cpu = || -> f64 {
        let stat = node.cgroup_file(102, &["cpu.stat"]);
        let usec = stat.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse::<f64>().ok());
        usec.unwrap_or_else(|| cpu_v1(&node, 102)) / 1e6
    };
    let (began, before) = (std::time::Instant::now(), cpu());
    let rounds = rounds(&node, &["-n", "2", "-d", "2"]);
    let got_percent = (cpu() - before) / began.elapsed().as_secs_f64() * 100.0;
    let text = node.run("vztop", ["-b", "-n", "1", "-d", "1", "-o", "ctid,cpu,limit,pcpu"]).ok().stdout;
    node.done(["set", "102", "--cpulimit", "20"]);
    let limited = self::rounds(&node, &["-n", "1", "-d", "3", "102"]);
    node.done(["stop", "102", "--fast"]);
    let last = self::rounds(&node, &["-n", "1", "-d", "0.2"]);
    node.done(["stop", "101", "--fast"]);

    assert_eq!(rounds.len(), 2);
    for round in &rounds {
        let (idle, busy) = (container(round, 101), container(round, 102));
        let percent = busy["cpu_percent"].as_f64().expect("a number");
        assert!(percent > 0.0 && percent <= 115.0, "{percent} of one CPU for one loop");
        assert!(idle["cpu_percent"].as_f64().expect("a number") < percent.max(5.0), "{round}");
        assert_eq!(round["containers"][0]["ctid"], 102, "the busiest first: {round}");
        assert!((1.8..4.0).contains(&round["interval_s"].as_f64().expect("a number")), "{round}");
        assert!(busy["memory_bytes"].as_u64().expect("counted") > 0 && busy["tasks"].as_u64().expect("counted") >= 2);
        assert!(busy["entitled_percent"].as_f64().expect("weighed") > 0.0);
    }
    let percent = |round: &Value| container(round, 102)["cpu_percent"].as_f64().expect("a number");
    let mean = f64::midpoint(percent(&rounds[0]), percent(&rounds[1]));
    assert!((mean - got_percent).abs() < 30.0, "{mean} percent, and the kernel counted {got_percent}");
    let usec = |round: &Value| container(round, 102)["cpu_usec"].as_u64().expect("a number");
    assert!(usec(&rounds[0]) < usec(&rounds[1]), "counters go on");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("host: load ") && lines[0].ends_with("; 2 running"), "{text}");
    assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["CTID", "CPU%", "LIMIT", "PC%"]);
    assert!(lines[2].trim_start().starts_with("102 ") && lines[3].trim_start().starts_with("101 "), "{text}");
    assert_eq!(limited[0]["containers"].as_array().expect("a list").len(), 1, "only what was asked for");
    let limited = container(&limited[0], 102);
    assert!(limited["cpu_percent"].as_f64().expect("a number") < 30.0, "{limited}");
    assert_eq!(limited["cpu_limit_percent"], 20);
    assert!(limited["entitled_percent"].as_f64().expect("weighed") <= 20.0, "{limited}");
    assert!(limited["throttled_percent"].as_f64().expect("counted") > 0.0, "{limited}");
    assert_eq!(last[0]["containers"].as_array().expect("a list").len(), 1, "who has stopped is gone");
}

/// Where the CPU controller has a `cpu.stat` of its own, that of the cgroup2 tree is in another directory.
fn cpu_v1(node: &Node, ctid: u32) -> f64 {
    let nanoseconds = node.cgroup_file(ctid, &["cpuacct.usage"]);
    nanoseconds.parse::<f64>().expect("a number") / 1e3
}

#[test]
fn vztop_refuses_what_it_does_not_know() {
    let Some(node) = running_busybox("vztop_refuses_what_it_does_not_know") else { return };
    for bad in [&["-s", "x"][..], &["-o", "x"], &["-n", "0"], &["-d", "0"], &["no-such-name"]] {
        node.run("vztop", bad).fails_with(1);
    }
    let columns = node.run("vztop", ["-L"]).ok().stdout;
    assert_eq!(columns.lines().count(), 19, "{columns}");
    node.done(["stop", "101", "--fast"]);
    assert_eq!(rounds(&node, &["-n", "1", "-d", "0.1"])[0]["containers"], serde_json::json!([]));
}

#[test]
fn vzps_shows_exactly_the_processes_of_a_container_whatever_they_call_themselves() {
    let Some(node) = running_busybox("vzps_shows_exactly_the_processes_of_a_container_whatever_they_call_themselves")
    else {
        return;
    };
    // One whose command line looks like a row of the host's init, and acts on a terminal.
    let evil = "printf '#!/bin/sh\\nsleep 1000; :\\n' > /evil; chmod 755 /evil; \
                /evil \"$(printf '\\nroot 1 \\033[2J 0 1 init')\" >/dev/null 2>&1 </dev/null &";
    node.done(["exec2", "101", evil]);
    let there = tests::wait::wait_until(Duration::from_secs(10), || processes(&node, 101).len() >= 3);
    let before = processes(&node, 101);
    let own = node.run("vzps", ["-E", "101", "aux"]).ok().stdout;
    let numbers = node.run("vzps", ["-o", "pid=", "-E101"]).ok().stdout;
    let after = processes(&node, 101);
    let host = node.run("vzps", ["-E", "0", "-eo", "pid"]).ok().stdout;
    let init = node.process(101, "init").to_string();
    let one = node.run("vzps", ["-p", &format!("{init},{}", std::process::id()), "-o", "pid"]).ok().stdout;
    let child = node.command("vzps", ["-Q"]).stdout(Stdio::null()).stderr(Stdio::null()).status().expect("it runs");
    node.done(["stop", "101", "--fast"]);

    assert!(there, "{before:?}");
    assert_eq!(before, after, "nothing came or went meanwhile");
    let titles = own.lines().next().expect("a line");
    assert!(titles.starts_with("      CTID USER ") && titles.contains(" PID "), "{own}");
    assert!(own.lines().skip(1).all(|line| line.starts_with("       101 ")), "{own}");
    assert_eq!(own.lines().count(), 1 + before.len(), "{own}");
    assert!(!own.contains('\u{1b}'), "{own:?}");
    let shown: BTreeSet<String> = numbers.lines().map(|line| line["       101 ".len()..].trim().to_owned()).collect();
    assert_eq!(shown, before, "{numbers}");
    let of_host: BTreeSet<&str> = host.lines().filter_map(|line| line.split_whitespace().last()).collect();
    assert!(of_host.contains(std::process::id().to_string().as_str()), "{host}");
    assert!(before.iter().all(|pid| !of_host.contains(pid.as_str())), "{host}");
    let rows: Vec<Vec<&str>> = one.lines().map(|line| line.split_whitespace().collect()).collect();
    let me = std::process::id().to_string();
    assert_eq!(rows, [["CTID", "PID"], ["0", &me], ["101", &init]]);
    assert_eq!(child.code(), Some(1), "an option that ps does not have");
    assert_eq!(node.run("vzps", ["-E", "101"]).code, 1, "nobody is there any more");
}

#[test]
fn vestat_and_fairsched_have_a_row_for_each_running_container() {
    let Some(node) = running_busybox("vestat_and_fairsched_have_a_row_for_each_running_container") else { return };
    node.done(["create", "102", "--ostemplate", "busybox"]);
    node.done(["set", "102", "--cpuunits", "2000", "--cpulimit", "50", "--save"]);
    node.done(["start", "102"]);
    let rows = |file: &str| -> Vec<Vec<String>> {
        let text = fs_err::read_to_string(node.path(format!("run/proc/{file}"))).expect("readable");
        text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    };
    let (vestat, fairsched) = (rows("vz/vestat"), rows("fairsched"));
    let uptime = node.vzlist(["-Ho", "uptime", "101"]).ok().stdout;
    let inside = node.inside("ls /run/vz/proc");
    node.done(["stop", "102", "--fast"]);
    let fewer = rows("vz/vestat");
    node.done(["stop", "101", "--fast"]);

    let number = |rows: &[Vec<String>], ctid: &str, column: usize| -> u64 {
        let row = rows.iter().find(|row| row[0] == ctid).unwrap_or_else(|| panic!("no {ctid} in {rows:?}"));
        row[column].parse().expect("a number")
    };
    assert_eq!(vestat.len(), 4, "{vestat:?}");
    assert!(vestat[2..].iter().all(|row| row.len() == 12), "{vestat:?}");
    let (ticks, nanoseconds) = (number(&vestat, "101", 4), number(&vestat, "101", 7));
    assert!(ticks > 0 && ticks < 600_000, "{ticks} ticks, and vzlist said {uptime}");
    assert_eq!(ticks, nanoseconds / 1_000_000);
    assert!(number(&vestat, "101", 8) > 0, "a start takes CPU time");
    assert_eq!(fairsched.len(), 4, "{fairsched:?}");
    assert_eq!((number(&fairsched, "101", 3), number(&fairsched, "102", 3)), (500, 250));
    assert_eq!((number(&fairsched, "101", 4), number(&fairsched, "102", 4)), (0, 512));
    assert!(!inside.contains("fairsched") && inside.contains("user_beancounters"), "{inside}");
    assert_eq!(fewer.len(), 3, "who has stopped is gone: {fewer:?}");
}
