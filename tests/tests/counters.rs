//! The files of beancounters: on the host for all running containers, in each container for itself.
#![expect(clippy::expect_used, reason = "a test that fails here has failed")]

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use beancounters::{Counter, Counters, Resource, format};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::containers::running_busybox;
use tests::node::{Node, Outcome};
use tests::wait::{is_gone, scaled, wait_until};

fn host_file(node: &Node, name: &str) -> PathBuf {
    node.path("run/proc").join(name)
}

fn on_host(node: &Node, name: &str) -> String {
    fs_err::read_to_string(host_file(node, name)).expect("it is served")
}

/// The rows of a table by container, which a reader finds by splitting on blanks; the container without number is 0.
fn parsed(text: &str) -> BTreeMap<u32, BTreeMap<String, [u64; 5]>> {
    let mut all: BTreeMap<u32, BTreeMap<String, [u64; 5]>> = BTreeMap::new();
    let mut id = 0;
    for line in text.lines().filter(|line| !line.starts_with("Version: ") && !line.contains(" uid ")) {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        if let Some(number) = words[0].strip_suffix(':') {
            id = number.parse().expect("a number");
            words.remove(0);
        }
        let numbers: Vec<u64> = words[1..].iter().map(|word| word.parse().expect("a count")).collect();
        all.entry(id).or_default().insert(words[0].to_owned(), numbers.try_into().expect("five"));
    }
    all
}

/// The same rows as the library has them, for what is not in the text with zeros.
fn counters(rows: &BTreeMap<String, [u64; 5]>) -> Counters {
    Counters::new(|resource: Resource| {
        let [held, maxheld, barrier, limit, failcnt] = rows.get(resource.name()).copied().unwrap_or_default();
        Counter { held, maxheld, barrier, limit, failcnt }
    })
}

/// Each text is what the writer of its table makes of the numbers in it, byte for byte.
fn assert_formats(user_beancounters: &str, resources: &str, own: &str) {
    let all = |text: &str| -> Vec<(u32, Counters)> {
        parsed(text).into_iter().map(|(id, rows)| (id, counters(&rows))).collect()
    };
    let mut written = String::new();
    let rows = all(user_beancounters);
    format::user_beancounters(&mut written, rows.iter().map(|(id, rows)| (*id, rows))).expect("a string");
    assert_eq!(written, user_beancounters);
    written.clear();
    let rows = all(resources);
    format::bc_resources(&mut written, rows.iter().map(|(id, rows)| (*id, rows))).expect("a string");
    assert_eq!(written, resources);
    written.clear();
    format::bc_id_resources(&mut written, &all(own)[0].1).expect("a string");
    assert_eq!(written, own);
}

fn numproc(text: &str, ctid: u32) -> [u64; 5] {
    parsed(text)[&ctid]["numproc"]
}

fn two_running(test: &str) -> Option<Node> {
    let node = running_busybox(test)?;
    node.done(["create", "102", "--ostemplate", "busybox"]);
    node.done(["start", "102"]);
    Some(node)
}

/// Who serves the host's files.
fn server(node: &Node) -> i32 {
    let text = fs_err::read_to_string(node.path("run/proc.lock")).expect("it is served");
    text.trim().parse().expect("a process id")
}

#[test]
fn the_host_has_all_that_run_and_a_container_has_itself() {
    let Some(node) = two_running("the_host_has_all_that_run_and_a_container_has_itself") else { return };
    let text = on_host(&node, "user_beancounters");
    assert_formats(&text, &on_host(&node, "bc/resources"), &on_host(&node, "bc/102/resources"));
    assert_eq!(parsed(&text).into_keys().collect::<Vec<_>>(), [101, 102]);
    assert_eq!(numproc(&text, 101)[2..], [240, 240, 0], "of the sample configuration");
    assert!(numproc(&text, 101)[0] > 0);
    for file in ["user_beancounters", "bc/resources", "bc/101/resources", "bc/102/resources"] {
        let metadata = fs_err::metadata(host_file(&node, file)).expect("it is there");
        assert_eq!((metadata.mode(), metadata.uid(), metadata.gid()), (libc_file() | 0o400, 0, 0), "{file}");
    }
    assert_eq!(
        node.inside("find /run/vz/proc -type f | sort; stat -c '%a %u:%g' $(find /run/vz/proc -type f)"),
        "\
        /run/vz/proc/bc/101/resources\n/run/vz/proc/bc/resources\n/run/vz/proc/user_beancounters\n400 0:0\n400 0:0\n400 0:0"
    );
    let inside = |file: &str| node.done(["exec2", "101", &format!("cat /run/vz/proc/{file}")]);
    let text = inside("user_beancounters");
    assert_formats(&text, &inside("bc/resources"), &inside("bc/101/resources"));
    assert_eq!(parsed(&text).into_keys().collect::<Vec<_>>(), [101], "it sees itself and no other");
    node.vzctl(["exec2", "101", "cat /run/vz/proc/bc/102/resources"]).fails_with(1);
    // In one piece or in many.
    let rows = "dd if=/run/vz/proc/user_beancounters bs=100 2>/dev/null | wc -lc";
    assert_eq!(node.inside(rows).split_whitespace().collect::<Vec<_>>(), ["26", "3263"]);
    // One that has stopped is not there.
    node.done(["stop", "102", "--fast"]);
    assert_eq!(parsed(&on_host(&node, "user_beancounters")).into_keys().collect::<Vec<_>>(), [101]);
    assert!(!host_file(&node, "bc/102").exists());
}

/// A regular file, as `stat` says it.
fn libc_file() -> u32 {
    nix::sys::stat::SFlag::S_IFREG.bits()
}

#[test]
fn nobody_but_root_reads_them_outside_or_inside() {
    let Some(node) = running_busybox("nobody_but_root_reads_them_outside_or_inside") else { return };
    for file in ["user_beancounters", "bc/resources", "bc/101/resources"] {
        // Opened from below, for the directories on the way are closed to others as well.
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "cat"]).arg(file);
        command.current_dir(host_file(&node, ""));
        let outcome = Outcome::of(command, Duration::from_secs(20)).fails_with(1);
        assert!(outcome.stderr.contains("Permission denied"), "{outcome:?}");
        let line = format!("su -s /bin/sh nobody -c 'cat /run/vz/proc/{file}'");
        let outcome = node.vzctl(["exec2", "101", &line]).fails_with(1);
        assert!(outcome.stderr.contains("Permission denied"), "{outcome:?}");
    }
    node.vzctl(["exec2", "101", "echo 1 > /run/vz/proc/user_beancounters"]).fails_with(1);
    assert!(fs_err::write(host_file(&node, "user_beancounters"), "1").is_err());
}

#[test]
fn processes_and_bounds_show_as_they_are_now_and_as_vzlist_has_them() {
    let test = "processes_and_bounds_show_as_they_are_now_and_as_vzlist_has_them";
    let Some(node) = running_busybox(test) else { return };
    let held = || numproc(&on_host(&node, "user_beancounters"), 101)[0];
    let mut before = held();
    // What the start has left has ended when nothing changes for a second.
    let mut since = Instant::now();
    assert!(wait_until(scaled(Duration::from_secs(15)), || {
        let now = held();
        if std::mem::replace(&mut before, now) != now {
            since = Instant::now();
        }
        since.elapsed() >= Duration::from_secs(1)
    }));
    node.inside("for i in 1 2 3 4 5 6 7; do sleep 1000 >/dev/null 2>&1 & done");
    assert!(wait_until(Duration::from_secs(5), || held() == before + 7), "{} after {before}", held());
    node.inside("killall sleep");
    assert!(wait_until(Duration::from_secs(5), || held() == before), "{} after {before}", held());
    assert!(numproc(&on_host(&node, "bc/101/resources"), 0)[1] >= before + 7, "maxheld keeps it");
    let listed = || -> Vec<u64> {
        let fields = "numproc,numproc.m,numproc.b,numproc.l,numproc.f";
        let line = node.vzlist(["-H", "-o", fields, "101"]).ok().stdout;
        line.split_whitespace().map(|word| word.parse().unwrap_or(u64::MAX)).collect()
    };
    let same = |listed: &[u64]| {
        let row = numproc(&on_host(&node, "user_beancounters"), 101);
        // Where nothing counts a peak or refusals, vzlist says so and the file has no word for it.
        row.iter().zip(listed).all(|(file, listed)| file == listed || *listed == u64::MAX)
    };
    assert!(wait_until(Duration::from_secs(5), || same(&listed())), "{:?}", listed());
    // Set while it runs, and not saved: in force.
    node.done(["set", "101", "--numproc", "77:77"]);
    assert_eq!(numproc(&on_host(&node, "user_beancounters"), 101)[2..4], [77, 77]);
    assert_eq!(listed()[2..4], [77, 77]);
    let inside = node.done(["exec2", "101", "cat /run/vz/proc/user_beancounters"]);
    assert_eq!(numproc(&inside, 101)[2..4], [77, 77]);
    // What was never set is as the kernel of OpenVZ made a new one, for both.
    let oomguarpages = parsed(&on_host(&node, "bc/101/resources"))[&0]["swappages"];
    let listed = node.vzlist(["-H", "-o", "swappages.b,swappages.l", "101"]).ok().stdout;
    let listed: Vec<u64> = listed.split_whitespace().map(|word| word.parse().expect("a bound")).collect();
    assert_eq!(oomguarpages[2..4], listed);
}

#[test]
fn whoever_is_killed_they_are_back_and_in_the_end_nothing_is_left() {
    let Some(node) = two_running("whoever_is_killed_they_are_back_and_in_the_end_nothing_is_left") else { return };
    let both = || {
        let text = fs_err::read_to_string(host_file(&node, "user_beancounters")).unwrap_or_default();
        parsed(&text).into_keys().collect::<Vec<_>>() == [101, 102]
    };
    let killed = |pid: i32| {
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it lives");
        assert!(wait_until(Duration::from_secs(5), || is_gone(pid)));
    };
    for _ in 0..2 {
        killed(server(&node));
        assert!(!both(), "its files are dead");
        assert!(wait_until(Duration::from_secs(10), both), "an attendant has seen to it");
    }
    // They depend on no container's keepers.
    [node.attendant(101).expect("it runs"), node.process(101, "monitor")].into_iter().for_each(killed);
    assert!(both());
    // Those inside come back with the next command.
    assert_eq!(
        node.inside("head -n 1 /run/vz/proc/user_beancounters; grep -c /run/vz/proc /proc/mounts"),
        "Version: 2.5\n1"
    );
    // Nor on the container that was first: no moment without them.
    node.done(["stop", "101", "--fast"]);
    assert_eq!(parsed(&on_host(&node, "user_beancounters")).into_keys().collect::<Vec<_>>(), [102]);
    // The administrator takes them away.
    nix::mount::umount(&host_file(&node, "")).expect("not busy");
    let there = || host_file(&node, "bc/102/resources").exists();
    assert!(wait_until(Duration::from_secs(10), there));
    let last = server(&node);
    killed(last);
    node.done(["stop", "102", "--fast"]);
    assert!(!node.path("run/proc").exists() && !node.path("run/proc.lock").exists());
    node.done(["destroy", "101"]);
    node.done(["destroy", "102"]);
    // Console logs go with their containers.
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn the_last_container_takes_them_along_however_it_ends() {
    let Some(node) = running_busybox("the_last_container_takes_them_along_however_it_ends") else { return };
    let gone = || !node.path("run/proc").exists() && !node.path("run/proc.lock").exists();
    assert!(!gone());
    let last = server(&node);
    node.done(["stop", "101", "--skip-umount", "--fast"]);
    assert!(gone() && is_gone(last), "its root is mounted, and nothing runs");
    node.done(["start", "101"]);
    node.inside("halt");
    node.wait_for_status(101, "unmounted down");
    assert!(wait_until(Duration::from_secs(10), gone));
    node.done(["start", "101"]);
    let last = server(&node);
    assert!(wait_until(scaled(Duration::from_secs(5)), || node.attendant(101).is_some()));
    for pid in [node.attendant(101).expect("it runs"), node.process(101, "monitor"), last, node.process(101, "init")] {
        // Some go by themselves when the others have.
        let _gone_already = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    assert!(wait_until(Duration::from_secs(10), || node.status(101).ends_with(" down")));
    node.done(["destroy", "101"]);
    assert!(gone(), "the next command has cleared up");
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn a_container_that_takes_its_run_apart_harms_itself_only() {
    let Some(node) = running_busybox("a_container_that_takes_its_run_apart_harms_itself_only") else { return };
    let fine = || assert_eq!(parsed(&on_host(&node, "user_beancounters")).into_keys().collect::<Vec<_>>(), [101]);
    node.inside("umount /run/vz/proc; mount --bind /etc /run/vz/proc; umount -l /run; rm -rf /run; mkdir /tmp/else; ln -s /tmp/else /run");
    fine();
    let kill_keepers = || {
        for pid in [node.process(101, "monitor"), node.attendant(101).expect("it runs")] {
            kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it lives");
            assert!(wait_until(Duration::from_secs(5), || is_gone(pid)));
        }
    };
    kill_keepers();
    assert_eq!(node.inside("test -e /tmp/else/vz || echo none"), "none", "what mends follows no link");
    fine();
    for instead in ["ln -s /tmp/else /run", "touch /run", "mkdir -p /run/vz; ln -s /tmp/else /run/vz/proc"] {
        node.inside(&format!("umount -l /run 2>/dev/null; rm -rf /run; mkdir -p /tmp/else; {instead}"));
        node.done(["stop", "101", "--fast"]);
        node.done(["start", "101"]);
        // Its own programs may write there as they like.
        assert_eq!(node.inside("test -e /tmp/else/vz || echo none"), "none", "{instead}");
        fine();
    }
    node.done(["stop", "101", "--fast"]);
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn a_container_that_reads_without_end_has_them_counted_a_few_times_a_second_and_still_sees_a_set_at_once() {
    const PROCESSES: u64 = 150;
    /// What counting reads of one process: its `/proc/PID/status`, about.
    const BYTES: u64 = 1200;
    let test = "a_container_that_reads_without_end_has_them_counted_a_few_times_a_second_and_still_sees_a_set_at_once";
    let Some(node) = running_busybox(test) else { return };
    node.inside(&format!("i=0; while [ $i -lt {PROCESSES} ]; do sleep 1000 >/dev/null 2>&1 & i=$((i+1)); done"));
    node.inside("while :; do cat /run/vz/proc/user_beancounters /run/vz/proc/bc/resources; done >/dev/null 2>&1 &");
    assert!(wait_until(scaled(Duration::from_secs(5)), || node.attendant(101).is_some()));
    let attendant = node.attendant(101).expect("it runs");
    let read = || {
        let text = fs_err::read_to_string(format!("/proc/{attendant}/io")).expect("it runs");
        let bytes = text.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse::<u64>().ok());
        bytes.expect("Linux 2.6.20")
    };
    let (before, since) = (read(), Instant::now());
    // Until it has been read at least a few times, whatever the machine.
    assert!(wait_until(scaled(Duration::from_secs(20)), || since.elapsed() >= Duration::from_secs(3)
        && read() - before >= 3 * PROCESSES * BYTES));
    let a_second = (read() - before) / (PROCESSES * BYTES) / since.elapsed().as_secs().max(1);
    assert!(a_second <= 20, "counted {a_second} times a second");
    for barrier in [300, 301, 302, 303] {
        let bound = format!("{barrier}:{barrier}");
        node.done(["set", "101", "--numproc", &bound]);
        let inside = node.done(["exec2", "101", "cat /run/vz/proc/user_beancounters"]);
        assert_eq!(numproc(&inside, 101)[2..4], [barrier, barrier]);
    }
}
