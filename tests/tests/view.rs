//! What a container's `/proc` and system calls tell it of itself, beside the limits it was given.
#![expect(clippy::expect_used, reason = "a test that fails here has failed")]

use std::process::Command;
use std::time::{Duration, Instant};

use tests::containers::{node_with, running_busybox};
use tests::node::{Node, Outcome};
use tests::program::capture;
use tests::wait::{is_gone, wait_until};

/// The first number after a word at the beginning of a line.
fn number(text: &str, word: &str) -> u64 {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(word)).unwrap_or_else(|| panic!("{text}"));
    let digits = line.split(|c: char| !c.is_ascii_digit()).find(|digits| !digits.is_empty());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

fn limited(test: &str) -> Option<Node> {
    let node = running_busybox(test)?;
    node.done(["set", "101", "--ram", "200M", "--swap", "100M", "--cpus", "1"]);
    Some(node)
}

#[test]
fn memory_and_cpus_inside_are_those_of_the_limits() {
    let Some(node) = limited("memory_and_cpus_inside_are_those_of_the_limits") else { return };
    let meminfo = node.inside("cat /proc/meminfo");
    let (total, free) = (number(&meminfo, "MemTotal:"), number(&meminfo, "MemFree:"));
    assert_eq!(total, 200 * 1024);
    assert!(free > 0 && free < total, "{meminfo}");
    // busybox asks sysinfo(2) for the one and reads the other.
    assert_eq!(number(&node.inside("free"), "Mem:"), total);
    assert!(number(&meminfo, "SwapTotal:") <= 100 * 1024, "{meminfo}");
    assert_eq!(node.inside("nproc"), "1", "sched_getaffinity(2)");
    assert_eq!(node.inside("grep -c ^processor /proc/cpuinfo"), "1");
    assert_eq!(node.inside("grep -c ^cpu[0-9] /proc/stat"), "1");
    for list in ["online", "present", "possible"] {
        assert_eq!(node.inside(&format!("cat /sys/devices/system/cpu/{list}")), "0");
    }
    // Live: what is set is seen at once.
    node.done(["set", "101", "--ram", "300M", "--swap", "0"]);
    assert_eq!(number(&node.inside("cat /proc/meminfo"), "MemTotal:"), 300 * 1024);
}

#[test]
fn what_is_used_shows_and_is_given_back() {
    let Some(node) = limited("what_is_used_shows_and_is_given_back") else { return };
    let free = || number(&node.inside("cat /proc/meminfo"), "MemFree:");
    let before = free();
    node.inside("dd if=/dev/zero of=/dev/shm/x bs=1M count=50 2>/dev/null");
    let meminfo = node.inside("cat /proc/meminfo");
    assert!(number(&meminfo, "Shmem:") >= 50 * 1024, "{meminfo}");
    assert!(free() + 45 * 1024 < before);
    node.inside("rm /dev/shm/x");
    assert!(wait_until(Duration::from_secs(10), || free() + 5 * 1024 > before));
}

#[test]
fn uptime_and_load_are_the_containers() {
    let Some(node) = limited("uptime_and_load_are_the_containers") else { return };
    let host: f64 =
        fs_err::read_to_string("/proc/uptime").expect("read").split(' ').next().expect("two").parse().expect("f64");
    let inside = || -> Vec<f64> {
        node.inside("cat /proc/uptime").split(' ').map(|field| field.parse().expect("a number")).collect()
    };
    let (first, second) = (inside(), inside());
    assert!(first[0] < 120.0 && first[0] < host, "up for {first:?}, the host for {host}");
    assert!(second[0] >= first[0] && second[1] >= first[1], "{first:?}, then {second:?}");
    // One task that always runs: the mean over a minute rises with it, and vzlist has the same numbers.
    node.inside("(while :; do :; done) >/dev/null 2>&1 &");
    let load = || -> f64 { node.inside("cut -d' ' -f1 /proc/loadavg").parse().expect("a number") };
    assert!(wait_until(Duration::from_secs(30), || load() > 0.05), "{}", node.inside("cat /proc/loadavg"));
    let listed = node.vzlist(["-H", "-o", "laverage", "101"]).ok().stdout;
    let listed: f64 = listed.trim().split('/').next().expect("three").parse().expect("a number");
    assert!(listed > 0.0, "{listed}");
    let ticks = number(&node.inside("head -1 /proc/stat"), "cpu");
    assert!(ticks > 100, "{ticks} ticks of a task that ran for seconds");
}

#[test]
fn a_file_reads_alike_in_one_piece_and_in_many() {
    let Some(node) = limited("a_file_reads_alike_in_one_piece_and_in_many") else { return };
    let cut = "sed -E 's/^(cpu MHz|bogomips).*//'";
    let whole = node.inside(&format!("cat /proc/cpuinfo | {cut}"));
    assert_eq!(node.inside(&format!("dd if=/proc/cpuinfo bs=7 2>/dev/null | {cut}")), whole);
    assert_eq!(node.inside("tail -n 1 /proc/stat"), node.inside("cat /proc/stat | tail -n 1"));
    node.vzctl(["exec2", "101", "echo 1 > /proc/meminfo"]).fails_with(1);
    node.vzctl(["exec2", "101", "rm /proc/meminfo"]).fails_with(1);
}

/// Both processes of ours that stay with the container, as the host numbers them.
fn keepers(node: &Node) -> [i32; 2] {
    [node.process(101, "monitor"), node.attendant(101).unwrap_or(0)]
}

fn signal(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("kill");
}

#[test]
fn proc_lives_whichever_of_its_keepers_is_killed_or_stopped() {
    use nix::sys::signal::Signal::{SIGKILL, SIGSTOP};
    let Some(node) = limited("proc_lives_whichever_of_its_keepers_is_killed_or_stopped") else { return };
    let whole = || {
        assert_eq!(node.inside("cat /proc/meminfo | head -n 1"), "MemTotal:         204800 kB");
        assert_eq!(number(&node.inside("free"), "Mem:"), 204_800);
        assert_eq!(node.inside("nproc; grep -c ' /proc/meminfo ' /proc/mounts"), "1\n1", "nothing dead lies below");
    };
    // A program that was there before goes on being answered.
    node.inside("(while sleep 0.2; do nproc > /tmp/cpus.new; mv /tmp/cpus.new /tmp/cpus; done) >/dev/null 2>&1 &");
    for (victims, how) in [(&[1][..], SIGKILL), (&[0], SIGKILL), (&[1], SIGSTOP), (&[0], SIGSTOP), (&[0, 1], SIGSTOP)] {
        let [monitor, attendant] = keepers(&node);
        victims.iter().for_each(|&victim| signal([monitor, attendant][victim], how));
        assert!(wait_until(Duration::from_secs(10), || keepers(&node)[1] != 0), "{how} of {victims:?}");
        whole();
        node.inside("rm -f /tmp/cpus");
        let again = || node.vzctl(["exec2", "101", "cat /tmp/cpus"]).stdout == "1\n";
        assert!(wait_until(Duration::from_secs(10), again), "{how} of {victims:?}");
    }
    let [monitor, attendant] = keepers(&node);
    signal(monitor, SIGKILL);
    signal(attendant, SIGKILL);
    assert!(wait_until(Duration::from_secs(10), || is_gone(monitor) && is_gone(attendant)));
    whole();
    assert!(wait_until(Duration::from_secs(10), || keepers(&node)[1] != 0));
    node.done(["stop", "101", "--fast"]);
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn a_container_that_takes_its_proc_apart_harms_itself_only() {
    let Some(node) = limited("a_container_that_takes_its_proc_apart_harms_itself_only") else { return };
    node.inside("umount /proc/meminfo; umount /proc/stat; mount -t tmpfs none /proc/pressure; mount --bind /etc/passwd /proc/uptime");
    assert_eq!(node.inside("nproc"), "1", "sched_getaffinity(2) is answered all the same");
    node.inside("while :; do cat /proc/vmstat /proc/loadavg > /dev/null; done & p=$!; sleep 1; kill $p");
    node.done(["set", "101", "--ram", "256M", "--swap", "0", "--save"]);
    node.done(["stop", "101", "--fast"]);
    node.done(["start", "101"]);
    assert_eq!(number(&node.inside("cat /proc/meminfo"), "MemTotal:"), 256 * 1024);
    node.done(["stop", "101", "--fast"]);
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn a_monitor_out_of_descriptors_fails_readers_and_recovers() {
    let Some(node) = limited("a_monitor_out_of_descriptors_fails_readers_and_recovers") else { return };
    let descriptors = |limit: usize| {
        for keeper in keepers(&node) {
            let mut prlimit = Command::new("prlimit");
            prlimit.arg(format!("--pid={keeper}")).arg(format!("--nofile={limit}:"));
            capture(prlimit).expect("prlimit");
        }
    };
    // A program that is inside already, for none gets in by the attendant now.
    node.inside(
        "(while sleep 0.1; do cat /proc/meminfo > /tmp/new 2>&1; mv /tmp/new /tmp/meminfo; done) >/dev/null 2>&1 &",
    );
    let reads = |what: &str| node.vzctl(["exec2", "101", &format!("grep -q '{what}' /tmp/meminfo")]).code == 0;
    assert!(wait_until(Duration::from_secs(10), || reads("MemTotal: *204800 kB")));
    // None is left below the first that is free: they have one table.
    let open = fs_err::read_dir(format!("/proc/{}/fd", keepers(&node)[0])).expect("it lives");
    let numbers: Vec<usize> = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    descriptors((0..).find(|number| !numbers.contains(number)).expect("one is free"));
    assert!(wait_until(Duration::from_secs(10), || reads("Input/output error")), "a reader is told, not kept waiting");
    descriptors(1024);
    assert!(wait_until(Duration::from_secs(10), || reads("MemTotal: *204800 kB")));
}

#[test]
fn a_host_without_fuse_says_so_and_runs_containers() {
    let Some(node) = node_with("a_host_without_fuse_says_so_and_runs_containers", "busybox") else { return };
    node.done(["create", "101", "--ostemplate", "busybox"]);
    // All in one namespace in which /dev/fuse is something else.
    let vzctl = node.command("vzctl", [""; 0]);
    let program = vzctl.get_program().to_owned();
    let mut script = Command::new("unshare");
    vzctl.get_envs().for_each(|(key, value)| {
        script.env(key, value.unwrap_or_default());
    });
    let lines = "mount --bind /dev/null /dev/fuse && $0 start 101 && $0 exec2 101 'grep MemTotal /proc/meminfo; nproc' && \
        $0 stop 101 --fast && $0 check";
    script.args(["--mount", "--propagation", "private", "sh", "-c", lines]).arg(program);
    let outcome = Outcome::of(script, Duration::from_secs(60)).ok();
    assert!(outcome.stdout.contains("Warning: /proc of the container shows the numbers of this host: "), "{outcome:?}");
    let host = fs_err::read_to_string("/proc/meminfo").expect("read");
    assert!(outcome.stdout.contains(host.lines().next().expect("MemTotal")), "{outcome:?}");
    assert!(outcome.stdout.contains("free, top, uptime inside show the host's numbers"), "{outcome:?}");
}

/// Debian's own tools, side by side with the limits.
#[test]
fn debians_tools_show_the_limits() {
    let test = "debians_tools_show_the_limits";
    let Some(node) = node_with(test, "debian-12-x86_64") else { return };
    node.done(["create", "101", "--ostemplate", "debian-12-x86_64", "--diskspace", "700M"]);
    node.done(["set", "101", "--ram", "300M", "--swap", "0", "--cpus", "1", "--save"]);
    node.done(["start", "101", "--wait"]);
    let began = Instant::now();
    let mut shown = String::new();
    let mut show = |command: &str| {
        let output = node.inside(command);
        shown.push_str(&format!("# {command}\n{output}\n"));
        output
    };
    let free = show("free -m");
    assert_eq!((number(&free, "Mem:"), number(&free, "Swap:")), (300, 0), "{free}");
    let top = show("top -bn1 | head -n 5");
    assert!(top.contains("300.0 total") && top.contains("up 0 min"), "{top}");
    assert_eq!(show("nproc"), "1");
    assert_eq!(show("getconf _NPROCESSORS_ONLN; getconf _NPROCESSORS_CONF"), "1\n1");
    assert_eq!(show("getconf _PHYS_PAGES").parse::<u64>().expect("pages"), 300 * 256);
    let lscpu = show("lscpu");
    assert_eq!(number(&lscpu, "CPU(s):"), 1, "{lscpu}");
    let vmstat = show("vmstat | tail -n 1");
    let fields: Vec<i64> = vmstat.split_whitespace().map(|field| field.parse().expect("a number")).collect();
    assert!(fields.iter().all(|&field| field >= 0) && fields[3] < 300 * 1024, "{vmstat}");
    assert!(show("uptime").contains("up 0 min") || began.elapsed() > Duration::from_secs(50));
    let df = show("df -m / | tail -n 1");
    let size: u64 = df.split_whitespace().nth(1).expect("a size").parse().expect("MiB");
    assert!((600..=700).contains(&size), "{df}");
    println!("{shown}");
}
