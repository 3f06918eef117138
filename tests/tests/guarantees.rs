//! What containers are promised (`vmguarpages`, `oomguarpages`) when the whole host runs out of memory. Such a shortage is made only on the reference
//! machine.
#![expect(clippy::expect_used, reason = "a test that fails here has failed")]

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use procfs::{Current, Meminfo};
use tests::containers::node_with;
use tests::machine::guest;
use tests::node::Node;
use tests::program::run;
use tests::skips::skip;
use tests::taking::{Taking, can_take, put_tool};
use tests::wait::wait_until;

const MIB: u64 = 1 << 20;

/// Of linux/capability.h.
const CAP_SYS_RESOURCE: i32 = 24;

/// More than there is.
const ALL: u64 = 1 << 20;

/// A node on a machine that may run out of memory.
fn doomed(test: &str) -> Option<Node> {
    if !guest::is_here() {
        skip(test, "a shortage of memory is made only on the reference machine, which nobody needs");
        return None;
    }
    if !can_take(test) {
        return None;
    }
    // Not the one who looks.
    fs_err::write("/proc/self/oom_score_adj", "-1000").expect("root");
    node_with(test, "busybox")
}

/// A running container with the tool in it, that is promised so many MiB.
fn promised(node: &Node, ctid: u32, mib: u64) {
    let (number, promise) = (ctid.to_string(), format!("{mib}M:{mib}M"));
    node.done(["create", &number, "--ostemplate", "busybox"]);
    node.done(["set", &number, "--vmguarpages", &promise, "--oomguarpages", &promise, "--save"]);
    node.done(["start", &number]);
    put_tool(node, ctid);
}

/// A container holds so many MiB in each of so many processes.
fn holding(node: &Node, ctid: u32, processes: usize, mib: u64) -> Vec<Taking> {
    let all: Vec<_> = (0..processes).map(|_| Taking::in_container(node, ctid, "mib", mib)).collect();
    all.iter().for_each(|taking| assert_eq!(taking.said, format!("took {mib} all"), "CT {ctid}"));
    all
}

/// A number of a container's `memory.stat` or `memory.events`.
fn memory(node: &Node, ctid: u32, file: &str, key: &str) -> u64 {
    let text = node.cgroup_file(ctid, &[file]);
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("{file} has no {key}"))
}

/// What the kernel says of those it kills because the whole host is out of memory.
struct Killer(File);

impl Killer {
    fn from_now_on() -> Self {
        let mut options = OpenOptions::new();
        let mut log = options.read(true).custom_flags(nix::libc::O_NONBLOCK).open("/dev/kmsg").expect("/dev/kmsg");
        log.seek(SeekFrom::End(0)).expect("/dev/kmsg");
        Self(log)
    }

    /// The containers of those that were killed since it was asked last; 0 is who was in none.
    fn victims(&mut self, node: &Node) -> Vec<u32> {
        let mut victims = Vec::new();
        let mut record = [0; 8192];
        // One record for each read; EAGAIN after the last.
        while let Ok(length) = self.0.read(&mut record) {
            let text = String::from_utf8_lossy(&record[..length]);
            let Some((_, cgroup)) = text.split_once("global_oom,task_memcg=") else { continue };
            eprintln!("killed: {}", cgroup.trim_end());
            let of_node = cgroup.strip_prefix(&format!("/{}/", node.name()));
            let number = of_node.and_then(|rest| rest.split(['/', ',']).next()?.parse().ok());
            victims.push(number.unwrap_or(0));
        }
        victims
    }
}

/// Memory that no killer gets back: a tmpfs of the host's, filled step by step by this program, which is not to be killed.
struct Filling {
    directory: PathBuf,
    file: File,
}

impl Filling {
    fn of(node: &Node) -> Self {
        let directory = node.path("filling");
        fs_err::create_dir(&directory).expect("a directory");
        mount(Some("none"), &directory, Some("tmpfs"), MsFlags::empty(), Some("size=100%")).expect("tmpfs");
        let file = File::create(directory.join("file")).expect("a file");
        Self { directory, file }
    }

    fn more(&mut self) {
        self.file.write_all(&[1; 4 * MIB as usize]).expect("what the killer has got back");
    }

    /// Until less than this part of the machine's memory is left.
    fn until_left(&mut self, one_of: u64) {
        let memory = || Meminfo::current().expect("/proc/meminfo");
        while memory().mem_available.expect("Linux 3.14") > memory().mem_total / one_of {
            self.more();
        }
    }

    /// Until somebody is killed.
    fn until_killed(&mut self, killer: &mut Killer, node: &Node) -> Vec<u32> {
        loop {
            self.more();
            let victims = killer.victims(node);
            if !victims.is_empty() {
                return victims;
            }
        }
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        umount2(&self.directory, MntFlags::MNT_DETACH).expect("our tmpfs");
        // The memory is there again when nobody has the file open.
        self.file.set_len(0).expect("a file");
    }
}

/// The adjustment that the processes of a container have.
fn adjustment(node: &Node, ctid: u32) -> i32 {
    let path = format!("/proc/{}/oom_score_adj", node.process(ctid, "init"));
    fs_err::read_to_string(path).expect("it runs").trim().parse().expect("a number")
}

#[test]
fn in_a_shortage_made_by_a_neighbour_a_container_within_its_promise_keeps_its_memory_and_lives() {
    let test = "in_a_shortage_made_by_a_neighbour_a_container_within_its_promise_keeps_its_memory_and_lives";
    let Some(node) = doomed(test) else { return };
    promised(&node, 101, 600);
    promised(&node, 102, 0);
    let mut guarded = holding(&node, 101, 2, 150);
    // Page cache is what reclaim takes first.
    node.inside("dd if=/dev/zero of=/file bs=1M count=100 2>/dev/null; sync; cat /file /file > /dev/null");
    let look = || ["anon", "file"].map(|key| memory(&node, 101, "memory.stat", key));
    let before = look();
    let mut killer = Killer::from_now_on();

    let neighbour = Taking::in_container(&node, 102, "mib", ALL);
    assert_eq!(neighbour.said, "Got signal 9");

    assert_eq!(killer.victims(&node), [102]);
    assert!(guarded.iter_mut().all(Taking::holds));
    let after = look();
    eprintln!(
        "anon and file before {before:?}, after {after:?}, events: {}",
        node.cgroup_file(101, &["memory.events"])
    );
    assert!(after[0] >= before[0] && before[0] >= 300 * MIB, "{before:?} {after:?}");
    assert_eq!(memory(&node, 101, "memory.events", "oom_kill"), 0);
    assert_eq!(memory(&node, 102, "memory.events", "oom_kill"), 1);
}

/// Room to swap on the machine's disk, for one test.
struct Swap(PathBuf);

impl Swap {
    fn of(node: &Node, mib: u64) -> Self {
        let path = node.path("swap");
        let size = format!("{mib}M");
        for (program, arguments) in
            [("fallocate", &["-l", &size][..]), ("chmod", &["600"]), ("mkswap", &[]), ("swapon", &[])]
        {
            let mut command = Command::new(program);
            command.args(arguments).arg(&path);
            run(command).expect("swap");
        }
        Self(path)
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        let mut command = Command::new("swapoff");
        command.arg(&self.0);
        run(command).expect("it was on");
    }
}

#[test]
fn what_a_container_holds_within_its_promise_is_not_swapped_out_for_a_neighbour() {
    /// What there may be swapped out of it all the same: what went before anybody looked, and what the kernel's rounding lets go.
    const TOLERANCE: u64 = 8 * MIB;
    let Some(node) = doomed("what_a_container_holds_within_its_promise_is_not_swapped_out_for_a_neighbour") else {
        return;
    };
    let swap = Swap::of(&node, 1024);
    for (ctid, promise) in [(101, 600), (102, 0), (103, 0)] {
        promised(&node, ctid, promise);
    }
    let mut guarded = [holding(&node, 101, 2, 150), holding(&node, 102, 2, 150)];
    // What it does not hold is no reason to keep more.
    node.inside("dd if=/dev/zero of=/file bs=1M count=100 2>/dev/null; sync; cat /file /file > /dev/null");

    let memory_now = Meminfo::current().expect("/proc/meminfo");
    let beyond = memory_now.mem_available.expect("Linux 3.14") / MIB + 350;
    let neighbour = Taking::in_container(&node, 103, "mib", beyond);
    assert_eq!(neighbour.said, format!("took {beyond} all"));

    let swapped = [101, 102, 103].map(|ctid| swap_bytes(&node, ctid));
    let [anon, file] = ["anon", "file"].map(|key| memory(&node, 101, "memory.stat", key));
    eprintln!(
        "swapped out of CT 101 (promised), 102, 103 (took {beyond} MiB): {:?} MiB; of 101 in memory: anon {} MiB, file {} MiB; low and min: {} {}; events: {}",
        swapped.map(|bytes| bytes / MIB),
        anon / MIB,
        file / MIB,
        node.cgroup_file(101, &["memory.low"]),
        node.cgroup_file(101, &["memory.min"]),
        node.cgroup_file(101, &["memory.events"])
    );
    assert!(swapped[1] + swapped[2] > 200 * MIB, "no shortage: {swapped:?}");
    assert!(guarded.iter_mut().flatten().all(Taking::holds));
    assert!(swapped[0] <= TOLERANCE && anon >= 300 * MIB - TOLERANCE, "{swapped:?} {anon}");
    drop((neighbour, guarded, swap));
}

/// What a container has in swap.
fn swap_bytes(node: &Node, ctid: u32) -> u64 {
    node.cgroup_file(ctid, &["memory.swap.current"]).trim().parse().expect("a number")
}

#[test]
fn the_killer_takes_containers_by_how_far_they_are_beyond_their_promise() {
    let Some(node) = doomed("the_killer_takes_containers_by_how_far_they_are_beyond_their_promise") else { return };
    // Beyond by 100, 300 and 200 MiB: neither by size nor by number.
    for (ctid, promise) in [(101, 350), (102, 100), (103, 0)] {
        promised(&node, ctid, promise);
    }
    let taking = [holding(&node, 101, 1, 450), holding(&node, 102, 1, 400), holding(&node, 103, 1, 200)];
    let (mut killer, mut filling) = (Killer::from_now_on(), Filling::of(&node));
    let order: Vec<u32> = (0..3).flat_map(|_| filling.until_killed(&mut killer, &node)).collect();
    assert_eq!(order, [102, 103, 101]);
    drop(filling);
    drop(taking);
}

#[test]
fn a_container_of_many_small_processes_is_as_far_beyond_its_promise_as_one_of_a_large() {
    let test = "a_container_of_many_small_processes_is_as_far_beyond_its_promise_as_one_of_a_large";
    let Some(node) = doomed(test) else { return };
    // Beyond by 100, 300 and 220 MiB; the largest process is that of the first, then that of the last.
    for (ctid, promise) in [(101, 300), (102, 100), (103, 0)] {
        promised(&node, ctid, promise);
    }
    let taking = [holding(&node, 101, 1, 400), holding(&node, 102, 8, 50), holding(&node, 103, 1, 220)];
    let (mut killer, mut filling) = (Killer::from_now_on(), Filling::of(&node));
    let follows = |was: i32| {
        let does = || adjustment(&node, 102) != was;
        assert!(wait_until(Duration::from_secs(20), does), "CT 102 counts as it did: {was}");
    };
    let promise = adjustment(&node, 102);
    // Every container is weighed anew each second while memory is short.
    filling.until_left(10);
    follows(promise);
    let mut order = Vec::new();
    for _ in 0..3 {
        let weight = adjustment(&node, 102);
        let victims = filling.until_killed(&mut killer, &node);
        if victims.contains(&102) {
            follows(weight);
        }
        order.extend(victims);
    }
    assert_eq!(order, [102, 102, 103]);
    drop(filling);
    drop(taking);
}

#[test]
fn the_last_that_may_be_killed_are_those_that_stay_with_a_container() {
    let test = "the_last_that_may_be_killed_are_those_that_stay_with_a_container";
    if !has_capability(CAP_SYS_RESOURCE) {
        skip(test, "this host's root has no CAP_SYS_RESOURCE, without which nobody is made safer from the killer");
        return;
    }
    let Some(node) = node_with(test, "busybox") else { return };
    node.done(["create", "101", "--ostemplate", "busybox"]);
    node.done(["set", "101", "--vmguarpages", "0:0", "--oomguarpages", "0:0", "--save"]);
    node.done(["start", "101"]);
    let of = |pid: i32| {
        let text = fs_err::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("it runs");
        text.trim().parse::<i32>().expect("a number")
    };
    assert!(wait_until(Duration::from_secs(20), || node.attendant(101).is_some()));
    let server = fs_err::read_to_string(node.path("run/proc.lock")).expect("it is served");
    let stay =
        [node.process(101, "monitor"), node.attendant(101).expect("it runs"), server.trim().parse().expect("a number")];
    // vz-counters says so itself, a moment after it is there.
    let last = || stay.map(of) == [-999; 3];
    assert!(wait_until(Duration::from_secs(20), last), "monitor, attendant, vz-counters: {:?}", stay.map(of));
    assert_eq!(of(node.process(101, "init")), 0, "promised nothing");
    assert_eq!(node.inside("cat /proc/self/oom_score_adj"), "0", "nor is what comes in");
}

/// Whether this process has the capability in effect.
fn has_capability(number: i32) -> bool {
    let status = fs_err::read_to_string("/proc/self/status").expect("/proc");
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    mask.expect("Linux 2.2") >> number & 1 == 1
}
