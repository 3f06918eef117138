//! The tools for beancounters, CPU and processes: on configurations that are shipped, made and broken, and on a container that runs.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tests::containers::{node_with, running_busybox};
use tests::node::Node;

/// Standard output of one of the tools, which must succeed and complain of nothing.
#[track_caller]
fn tool(node: &Node, name: &str, arguments: &[&str]) -> String {
    let outcome = node.run(name, arguments).ok();
    assert_eq!(outcome.stderr, "", "{name} {arguments:?} complained");
    outcome.stdout
}

#[track_caller]
fn json(node: &Node, name: &str, arguments: &[&str]) -> Value {
    let text = tool(node, name, &[arguments, &["--json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name} {arguments:?}: {e}: {text}"))
}

/// The same with something on standard input: code, standard output, standard error.
fn answered(node: &Node, name: &str, arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut command = node.command(name, arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code().expect("not killed"), text(output.stdout), text(output.stderr))
}

fn text_of(path: &std::path::Path) -> &str {
    path.to_str().expect("a path of ours is text")
}

#[test]
fn every_sample_that_is_shipped_validates_as_far_as_this_host_is_large_enough() {
    let node = Node::new();
    let samples = fs_err::read_dir(node.path("etc/conf")).expect("there").map(|e| e.expect("readable").path());
    let samples: Vec<_> = samples.filter(|path| path.extension().is_some_and(|e| e == "conf-sample")).collect();
    assert_eq!(samples.len(), 8);
    for path in samples {
        let outcome = node.run("vzcfgvalidate", [text_of(&path)]);
        assert_eq!(outcome.stdout, "");
        if outcome.code == 0 {
            assert_eq!(outcome.stderr, "Validation completed: success\n", "{}", path.display());
            continue;
        }
        let of_host = |line: &str| {
            line.starts_with("Warning: physpages.lim should be <= ")
                || line.starts_with("Warning: swappages.lim should be <= ")
        };
        assert!(text_of(&path).contains("ve-vswap-"), "{outcome:?}");
        assert!(outcome.code == 2 && outcome.stderr.lines().all(of_host), "{outcome:?}");
    }
}

#[test]
fn a_broken_configuration_is_told_mended_and_keeps_what_others_wrote() {
    let node = Node::new();
    let path = node.path("etc/conf/101.conf");
    let sample = fs_err::read_to_string(node.path("etc/conf/ve-basic.conf-sample")).expect("there");
    let broken = sample
        .replace("NUMPROC=\"240:240\"", "# by hand\nNUMPROC=\"100:240\"")
        .replace("DCACHESIZE=\"3409920:3624960\"", "DCACHESIZE=\"1000:2000\"\nMINE=\"x\"");
    assert_ne!(broken, sample);
    fs_err::write(&path, &broken).expect("written");
    let said = "Error: barrier should be equal to limit for numproc (currently, 100:240)\n\
                Warning: dcachesize.lim should be > 3575808 (currently, 2000)\n";
    let outcome = node.run("vzcfgvalidate", [text_of(&path)]).fails_with(2);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("", said));
    assert_eq!(fs_err::read_to_string(&path).expect("there"), broken, "looking changes nothing");

    let (code, stdout, stderr) = answered(&node, "vzcfgvalidate", &["-i", text_of(&path)], "n\ny\n");
    assert_eq!((code, stderr.as_str()), (2, said));
    assert!(stdout.starts_with("set to 240:240? [y/n] "), "{stdout}");
    let half = broken.replace("1000:2000", "1000:3575808");
    assert_eq!(fs_err::read_to_string(&path).expect("there"), half);

    let outcome = node.run("vzcfgvalidate", ["-r", text_of(&path)]).ok();
    assert_eq!(outcome.stdout, "set to 240\n");
    assert!(outcome.stderr.ends_with("\nValidation completed: success\n"), "{}", outcome.stderr);
    assert_eq!(fs_err::read_to_string(&path).expect("there"), half.replace("100:240", "240:240"));
    assert_eq!(json(&node, "vzcfgvalidate", &[text_of(&path)]), serde_json::json!([]));
}

#[test]
fn what_is_no_configuration_is_1() {
    let node = Node::new();
    for arguments in [&["/no/such/file"][..], &[], &["-v", "maybe", "x"], &["-r", "-i", "x"]] {
        let outcome = node.run("vzcfgvalidate", arguments).fails_with(1);
        assert!(!outcome.stderr.is_empty() && outcome.stdout.is_empty(), "{outcome:?}");
    }
    let path = node.path("etc/conf/101.conf");
    fs_err::write(&path, "NUMPROC=\"many\"\n").expect("written");
    let outcome = node.run("vzcfgvalidate", [text_of(&path)]).fails_with(1);
    assert!(outcome.stderr.contains("NUMPROC=many"), "{}", outcome.stderr);
    fs_err::remove_file(node.path("etc/vz.conf")).expect("there");
    node.run("vzcfgvalidate", [text_of(&path)]).fails_with(1);
}

#[test]
fn a_scaled_configuration_is_a_sample_of_its_own() {
    let node = Node::new();
    let basic = node.path("etc/conf/ve-basic.conf-sample");
    let text = fs_err::read_to_string(&basic).expect("there");
    assert_eq!(tool(&node, "vzcfgscale", &[text_of(&basic)]), text, "times one is the same");
    let own = node.path("etc/conf/101.conf");
    fs_err::write(&own, format!("{text}HOSTNAME=\"web\"\nIP_ADDRESS=\"10.0.0.1\"\n")).expect("written");
    let large = node.path("etc/conf/ve-large.conf-sample");
    let outcome = tool(&node, "vzcfgscale", &["-a", "2", "-d", "1", "-r", "-v", "-o", text_of(&large), text_of(&own)]);
    assert_eq!(outcome, "");
    let doubled = fs_err::read_to_string(&large).expect("written");
    for line in ["NUMPROC=\"480:480\"", "PHYSPAGES=\"0:unlimited\"", "CPUUNITS=\"2000\"", "DISKSPACE=\"2G:2.2G\""] {
        assert!(doubled.lines().any(|l| l == line), "{line} in\n{doubled}");
    }
    assert!(
        !doubled.contains("HOSTNAME") && !doubled.contains("IP_ADDRESS") && !doubled.contains("ONBOOT"),
        "{doubled}"
    );
    node.run("vzcfgvalidate", [text_of(&large)]).ok();
    node.run("vzcfgscale", ["-a", "0", text_of(&own)]).fails_with(1);
}

#[test]
fn a_part_of_the_node_is_a_sample_that_a_container_is_made_and_started_from() {
    let test = "a_part_of_the_node_is_a_sample_that_a_container_is_made_and_started_from";
    let Some(node) = node_with(test, "busybox") else { return };
    for (name, vswap) in [("quarter", "yes"), ("classic", "no")] {
        let path = node.path(format!("etc/conf/ve-{name}.conf-sample"));
        let said = tool(&node, "vzsplit", &["-n", "4", "-f", name, "-v", vswap]);
        assert_eq!(said, format!("Config {} was created\n", path.display()));
        assert_eq!(tool(&node, "vzsplit", &["-n", "4", "-v", vswap]), fs_err::read_to_string(&path).expect("written"));
        node.run("vzsplit", ["-n", "4", "-f", name]).fails_with(1);
        let outcome = node.run("vzcfgvalidate", [text_of(&path)]).ok();
        assert_eq!(outcome.stderr, "Validation completed: success\n");
    }
    node.done(["create", "101", "--ostemplate", "busybox", "--config", "classic"]);
    node.done(["start", "101"]);
    let many = node.run("vzsplit", ["-n", "1000000"]).fails_with(1);
    assert!(many.stderr.starts_with("this node has room for "), "{}", many.stderr);
    node.run("vzsplit", [""; 0]).fails_with(1);
}

#[test]
fn what_a_container_has_of_the_node_is_known_while_it_runs() {
    let Some(node) = running_busybox("what_a_container_has_of_the_node_is_known_while_it_runs") else { return };
    node.done(["create", "102", "--ostemplate", "busybox"]);
    assert!(
        tool(&node, "vzcalc", &["102"])
            .starts_with("Resource     Current(%)  Promised(%)  Max(%)\nMemory            n/a ")
    );
    let verbose = tool(&node, "vzcalc", &["-v", "101"]);
    let names: Vec<&str> = verbose.lines().map(|line| line.get(..11).unwrap_or(line).trim_end()).collect();
    assert_eq!(
        names,
        ["Resource", "Low Mem", "Total RAM", "Mem + Swap", "Alloc. Mem", "Num. Proc", "-----------", "Memory"]
    );
    let rows = json(&node, "vzcalc", &["101"]);
    let memory = rows.as_array().and_then(|rows| rows.last()).expect("the sum-up");
    assert_eq!(memory["resource"], "Memory");
    assert!(memory["current"].is_number() && memory["promised"].as_f64() > Some(0.0), "{memory}");
    for (who, line) in [("999", "Container config file does not exist"), ("nobody", "")] {
        let outcome = node.run("vzcalc", [who]).fails_with(1);
        assert!(outcome.stderr.starts_with(line) && !outcome.stderr.is_empty(), "{}", outcome.stderr);
    }

    let table = tool(&node, "vzmemcheck", &["-v"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0], "Output values in %");
    assert_eq!(lines.len(), 6, "one container runs:\n{table}");
    assert!(lines[3].starts_with("101       ") && lines[5].starts_with("Summary:   "), "{table}");
    assert_eq!(lines[3][11..], lines[5][11..], "the sum of one is that one");
    assert_eq!(tool(&node, "vzmemcheck", &[]).lines().last(), Some(&lines[5][11..]));
    // ve-basic: kmemsize and four buffers have limits of 14790164 + 2 * 2703360 + 2097152 + 262144 bytes.
    let row = &json(&node, "vzmemcheck", &["-A"])[0];
    assert_eq!((&row["ctid"], &row["lowmem_commit"]), (&101.into(), &21.51.into()));
    let ram = row["ram_util"].as_f64().expect("memory is counted on every host of ours");
    let counted = node.cgroup_file(101, &["memory.usage_in_bytes", "memory.current"]);
    let counted = counted.parse::<f64>().expect("a number of bytes") / 1_048_576.0;
    // It moves while it is read, but not that far.
    assert!((ram - counted).abs() < counted / 2.0 + 1.0, "{ram} MB, and its cgroup has {counted}");
}

#[test]
fn cpu_weights_are_those_in_force() {
    let Some(node) = running_busybox("cpu_weights_are_those_in_force") else { return };
    let report = tool(&node, "vzcpucheck", &["-v"]);
    let head = "VEID\t\tCPUUNITS\n-------------------------\n0\t\t1000\n101\t\t1000\nCurrent CPU utilization: 2000\nPower of the node: ";
    assert!(report.starts_with(head), "{report}");
    node.done(["set", "101", "--cpuunits", "500"]);
    let report = json(&node, "vzcpucheck", &[]);
    assert_eq!(report["utilization"], 1500);
    assert_eq!(report["containers"][1], serde_json::json!({"ctid": 101, "cpuunits": 500}));
    let brief = tool(&node, "vzcpucheck", &[]);
    assert!(brief.starts_with("Current CPU utilization: 1500\nPower of the node: "), "{brief}");
    node.run("vzcpucheck", ["--frobnicate"]).fails_with(2);
    node.run("vzcpucheck", ["--config-dir", "/no/such/directory"]).fails_with(1);
}

#[test]
fn a_process_is_found_in_its_container_and_by_its_number_there() {
    let Some(node) = running_busybox("a_process_is_found_in_its_container_and_by_its_number_there") else { return };
    let init = node.process(101, "init");
    let monitor = node.process(101, "monitor");
    let host = std::process::id();
    let mut sleeper = node.command("vzctl", ["exec2", "101", "echo $$ > /pid; exec sleep 1000"]);
    // It will say that it was killed.
    let mut sleeper = sleeper.stderr(Stdio::null()).spawn().expect("vzctl");
    let told = || node.vzctl(["exec2", "101", "cat /pid"]);
    assert!(tests::wait::wait_until(Duration::from_secs(10), || told().stdout.ends_with('\n')));
    let inside = told().stdout.trim().to_owned();
    // Which of the host's processes that is.
    let everybody: Vec<String> = fs_err::read_dir("/proc")
        .expect("there")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.bytes().all(|b| b.is_ascii_digit()))
        .collect();
    let (code, all, _) = answered(&node, "vzpid", &["-p", "-"], &everybody.join("\n"));
    let wanted = format!("\t{inside}\t101\tsleep");
    let found = all.lines().find_map(|line| line.strip_suffix(&wanted)).map(str::to_owned);
    if let Some(pid) = &found {
        let outcome = tool(&node, "vzpid", &[pid, &u32::MAX.to_string(), &init.to_string()]);
        let name = outcome.lines().last().and_then(|line| line.rsplit('\t').next()).unwrap_or_default().to_owned();
        assert_eq!(outcome, format!("Pid\tCTID\tName\n{pid}\t101\tsleep\n{init}\t101\t{name}\n"));
    }
    let init_row = format!("{init}\t1\t101\t");
    let rows = json(&node, "vzpid", &["-p", &host.to_string(), &monitor.to_string()]);
    node.done(["stop", "101", "--fast"]);
    assert!(!sleeper.wait().expect("it ends").success());
    assert_eq!(code, 0);
    assert!(found.is_some(), "no row ends with {wanted:?} in\n{all}");
    assert!(all.starts_with("Pid\tCT/Pid\tCTID\tName\n") && all.contains(&init_row), "{all}");
    assert_eq!(rows[0]["ctid"], 0);
    assert_eq!(rows[0]["ctpid"], host);
    assert_eq!(rows[1]["ctid"], 0, "the monitor is the host's: {rows}");
    assert_eq!(node.run("vzpid", [init.to_string()]).ok().stdout, "Pid\tCTID\tName\n", "nobody is there any more");
    node.run("vzpid", ["x"]).fails_with(1);
    node.run("vzpid", [""; 0]).fails_with(1);
}
