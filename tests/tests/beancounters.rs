//! User beancounters of real containers: a small program inside takes some of a resource, and the counters say so on every kind of host.
#![expect(clippy::expect_used, reason = "a test that fails here has failed")]

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use beancounters::Resource;
use tests::containers::{DEBIAN_12_TOOLS, node_with, running_busybox};
use tests::node::Node;
use tests::skips::skip;
use tests::taking::{Taking, can_take, put_tool};
use tests::wait::{scaled, wait_until};

/// Two running containers, 101 with the tool in it. Their bounds are those of the sample `basic`: the classic set of parameters.
fn running(test: &str) -> Option<Node> {
    let node = if can_take(test) { running_busybox(test)? } else { return None };
    node.done(["create", "102"]);
    node.done(["start", "102"]);
    put_tool(&node, 101);
    Some(node)
}

/// One row of a container: held, maxheld, failcnt.
fn row(node: &Node, ctid: u32, resource: &str) -> [u64; 3] {
    let shown = node.run("vzubc", ["--json", &ctid.to_string()]).ok().stdout;
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let rows = shown[0]["beancounters"].as_array().expect("rows");
    let row = rows.iter().find(|row| row["resource"] == resource).expect("the resource");
    ["held", "maxheld", "failcnt"].map(|field| row[field].as_u64().expect("a count"))
}

/// Taking `count` of `kind` shows in `resource` as `each` of its units for one, in this container only, and is gone when the program is killed.
fn counted(test: &str, kind: &str, resource: &str, count: u64, each: u64) {
    let Some(node) = running(test) else { return };
    let (before, neighbour) = (row(&node, 101, resource), row(&node, 102, resource));
    let taking = Taking::of(&node, kind, count);
    assert_eq!(taking.said, format!("took {count} all"), "{kind}");
    let during = row(&node, 101, resource);
    // The program itself has a little of most things.
    let taken = during[0].saturating_sub(before[0]);
    assert!(
        (count * each..=count * each + 16 * each.max(8)).contains(&taken),
        "{resource}: {taken} for {count} of {each}"
    );
    assert!(during[1] >= during[0], "{resource}: {during:?}");
    assert_eq!(row(&node, 102, resource)[0], neighbour[0], "{resource} of the neighbour");
    // However it ends.
    node.done(["exec2", "101", "killall -9 take"]);
    drop(taking);
    let back = || row(&node, 101, resource)[0] <= before[0];
    assert!(wait_until(scaled(Duration::from_secs(5)), back), "{resource} is held: {:?}", row(&node, 101, resource));
    let after = row(&node, 101, resource);
    assert_eq!(after[2], before[2], "{resource}: nothing was refused");
    assert!(after[1] >= during[0], "{resource}: the most that was held is remembered: {after:?} after {during:?}");
}

/// Of `kind` no more than `bound` can be had, on every kind of host; then the refusal is `errno`. A neighbour has as much as before, and more can
/// be had as soon as it is allowed.
fn refused(test: &str, kind: &str, resource: &str, bound: u64, errno: &str) {
    let Some(node) = running(test) else { return };
    let set = |bound: u64| {
        node.done(["set", "101", &format!("--{resource}"), &format!("{bound}:{bound}"), "--save"]);
    };
    set(bound);
    node.done(["restart", "101"]);
    let got = |taking: &Taking| {
        let words: Vec<&str> = taking.said.split(' ').collect();
        assert_eq!(words[0], "took", "{:?}", taking.said);
        (words[1].parse::<u64>().expect("a count"), words[2].to_owned())
    };
    let taking = Taking::of(&node, kind, bound + 20);
    let (took, refusal) = got(&taking);
    // The container's own processes have some already.
    assert!(took <= bound && took + 16 > bound && refusal == errno, "{resource}: {:?}", taking.said);
    let held = row(&node, 101, resource)[0];
    assert!(held <= bound, "{resource}: {held} of {bound}");
    assert_eq!(node.run("vzctl", ["exec2", "102", "sleep 0 & wait; echo as before"]).ok().stdout, "as before\n");
    drop(taking);
}

/// Two running containers as [`running`], where the kernel's programs refuse more of `resource` (`UBC_ENFORCE`). Elsewhere the host says that it only
/// counts.
fn enforcing(test: &str, resource: &str) -> Option<Node> {
    let node = enforced(test, running(test)?, resource)?;
    node.done(["restart", "102"]);
    Some(node)
}

/// The same of container 101 of a node.
fn enforced(test: &str, node: Node, resource: &str) -> Option<Node> {
    node.configure("UBC_ENFORCE=yes");
    let restarted = node.vzctl(["restart", "101"]).ok();
    let said = node.run("vzubc", ["--enforcement", "--json", "101"]).ok().stdout;
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let rows = said["101"].as_array().expect("rows");
    let standing = rows.iter().find(|row| row["resource"] == resource).expect("the resource");
    if !standing["how"].as_str().is_some_and(|how| how.starts_with("BPF: ")) {
        // A kernel that takes such programs takes ours.
        let lsm = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
        assert!(!lsm.contains("bpf"), "{standing}\n{restarted:?}");
        skip(test, "this kernel takes no LSM programs");
        return None;
    }
    Some(node)
}

fn set_both(node: &Node, resource: &str, bound: u64) {
    node.done(["set", "101", &format!("--{resource}"), &format!("{bound}:{bound}")]);
}

/// Of `kind` no more can be had than the barrier: the counter of refusals is exact, they can be told, and a live raise helps.
///
/// One of `kind` is `each` of the resource's units.
fn refused_by_the_kernel(test: &str, kind: &str, resource: &str, each: u64, errno: &str) {
    let Some(node) = enforcing(test, resource) else { return };
    refused_at(&node, kind, resource, each, errno);
}

fn refused_at(node: &Node, kind: &str, resource: &str, each: u64, errno: &str) {
    let bound = row(node, 101, resource)[0] + 40 * each;
    set_both(node, resource, bound);
    let taking = Taking::of(node, kind, 100);
    assert!(taking.said.ends_with(errno), "{:?}", taking.said);
    let [held, maxheld, failcnt] = row(node, 101, resource);
    // As near to the bound as whole ones come.
    let near = maxheld <= bound && maxheld + each > bound;
    assert!(held <= bound && near && failcnt >= 1, "{resource}: {held} {maxheld} {failcnt} of {bound}");
    let mut follow = node.command("vzubc", ["--events", "--follow", "--json", "101"]);
    let mut following = follow.stdout(Stdio::piped()).spawn().expect("vzubc");
    let mut first = String::new();
    BufReader::new(following.stdout.take().expect("a pipe")).read_line(&mut first).expect("a line");
    assert!(first.starts_with(r#"{"ctid":101,"#) && first.contains(&format!(r#""resource":"{resource}""#)), "{first}");
    // Nobody reads any more: it ends with the next refusal at the latest, here with us.
    let _ = following.kill();
    let _ = following.wait();
    let events = node.run("vzubc", ["--events", "101"]).ok().stdout;
    assert!(events.contains(&format!(" {resource}: take (pid ")), "{events}");
    let neighbour = node.run("vzctl", ["exec2", "102", "echo as before > /x; cat /x"]).ok().stdout;
    assert_eq!(neighbour, "as before\n");
    drop(taking);
    set_both(node, resource, bound + 400 * each);
    assert_eq!(Taking::of(node, kind, 100).said, "took 100 all");
    let back = || row(node, 101, resource)[0] <= bound - 40 * each;
    assert!(wait_until(scaled(Duration::from_secs(5)), back), "{resource} is held: {:?}", row(node, 101, resource));
}

/// What one of `take` writes to a socket, in bytes.
const WRITTEN: u64 = 4096;

/// A buffer that nobody reads is held with the memory it takes, and full at the barrier: then the writer is told `end`. A neighbour feels nothing, a
/// live raise helps, and a killed program's are given back. The barrier is so many of `kind` above what is held.
fn full_at_the_barrier(test: &str, kind: &str, resource: &str, above: u64, end: &str) {
    let Some(node) = enforcing(test, resource) else { return };
    let before = row(&node, 101, resource)[0];
    let (bound, count) = (before + above * WRITTEN, 100);
    set_both(&node, resource, bound);
    let taking = Taking::of(&node, kind, count);
    assert!(taking.said.ends_with(end), "{:?}", taking.said);
    assert!(
        wait_until(scaled(Duration::from_secs(5)), || row(&node, 101, resource)[2] > 0),
        "{resource}: {:?} after {:?}",
        row(&node, 101, resource),
        taking.said
    );
    let [held, maxheld, failcnt] = row(&node, 101, resource);
    // A writer is measured by its bytes: the last write takes more memory than that.
    let most = bound + 3 * WRITTEN;
    assert!(held >= before + 8 * WRITTEN && held <= most, "{resource}: {held} {maxheld} {failcnt} of {bound}");
    assert!(maxheld >= held, "{resource}: {held} {maxheld}");
    let events = node.run("vzubc", ["--events", "101"]).ok().stdout;
    assert!(events.contains(&format!(" {resource}: ")), "{events}");
    let neighbour = row(&node, 102, resource);
    assert_eq!(neighbour[2], 0, "{resource} of the neighbour: {neighbour:?}");
    node.done(["exec2", "101", "killall -9 take"]);
    drop(taking);
    let back = || row(&node, 101, resource)[0] <= before;
    assert!(wait_until(scaled(Duration::from_secs(5)), back), "{resource} is held: {:?}", row(&node, 101, resource));
    set_both(&node, resource, before + 16 * count * WRITTEN);
    let taking = Taking::of(&node, kind, count);
    assert_eq!(taking.said, format!("took {count} all"));
}

/// The number in the file of marks, which nobody has to have looked for.
fn mark(node: &Node, ctid: u32, resource: Resource) -> u64 {
    let marks = std::fs::read(node.path(format!("run/{ctid}/peaks"))).expect("each running container has marks");
    let at = resource as usize * 8;
    u64::from_ne_bytes(marks[at..at + 8].try_into().expect("eight"))
}

#[test]
fn what_came_and_went_is_in_maxheld_although_nobody_asked_meanwhile() {
    let test = "what_came_and_went_is_in_maxheld_although_nobody_asked_meanwhile";
    let Some(node) = running(test) else { return };
    let taking = Taking::of(&node, "lock", 60);
    assert_eq!(taking.said, "took 60 all");
    let seen = || mark(&node, 101, Resource::Numflock) >= 60;
    let sampled = wait_until(scaled(Duration::from_secs(15)), seen);
    drop(taking);
    let [held, maxheld, _] = row(&node, 101, "numflock");
    assert!(sampled && held < 60 && maxheld >= 60, "{held} {maxheld}");
    assert_eq!(mark(&node, 102, Resource::Numflock), 0, "the neighbour's");
    node.done(["restart", "101"]);
    assert!(row(&node, 101, "numflock")[1] < 60, "a container counts from its start");
}

#[test]
fn the_kernel_refuses_more_files_than_numfile() {
    refused_by_the_kernel("the_kernel_refuses_more_files_than_numfile", "file", "numfile", 1, "ENFILE");
}

#[test]
fn the_kernel_refuses_more_tcp_sockets_than_numtcpsock() {
    refused_by_the_kernel(
        "the_kernel_refuses_more_tcp_sockets_than_numtcpsock",
        "bare-tcp",
        "numtcpsock",
        1,
        "ENOBUFS",
    );
}

#[test]
fn the_kernel_refuses_more_other_sockets_than_numothersock() {
    refused_by_the_kernel(
        "the_kernel_refuses_more_other_sockets_than_numothersock",
        "local",
        "numothersock",
        1,
        "ENOBUFS",
    );
}

#[test]
fn the_kernel_refuses_more_terminals_than_numpty() {
    let Some(node) = enforcing("the_kernel_refuses_more_terminals_than_numpty", "numpty") else { return };
    let before = row(&node, 101, "numpty")[0];
    // Below what its devpts was mounted with: that refuses too, and can't tell.
    set_both(&node, "numpty", before + 6);
    let taking = Taking::of(&node, "pty", 12);
    assert_eq!(taking.said, "took 6 ENOSPC");
    assert_eq!(row(&node, 101, "numpty"), [before + 6, before + 6, 1]);
    drop(taking);
    set_both(&node, "numpty", before + 10);
    assert_eq!(Taking::of(&node, "pty", 10).said, "took 10 all");
}

#[test]
fn the_kernel_refuses_more_address_space_than_privvmpages() {
    let test = "the_kernel_refuses_more_address_space_than_privvmpages";
    let Some(node) = enforcing(test, "privvmpages") else { return };
    // What is promised is not refused.
    node.done(["set", "101", "--vmguarpages", "0", "--save"]);
    refused_at(&node, "private-pages", "privvmpages", 100, "ENOMEM");
}

#[test]
fn the_kernel_refuses_new_shared_memory_above_shmpages() {
    refused_by_the_kernel(
        "the_kernel_refuses_new_shared_memory_above_shmpages",
        "shared-page",
        "shmpages",
        1,
        "ENOMEM",
    );
}

const MIB: u64 = 1 << 20;

#[test]
fn the_kernel_refuses_new_processes_above_kmemsize() {
    let Some(node) = enforcing("the_kernel_refuses_new_processes_above_kmemsize", "kmemsize") else { return };
    let bound = row(&node, 101, "kmemsize")[0] + 2 * MIB;
    set_both(&node, "kmemsize", bound);
    let taking = Taking::of(&node, "process", 200);
    assert!(taking.said.ends_with("ENOMEM"), "{:?}", taking.said);
    let [_, maxheld, failcnt] = row(&node, 101, "kmemsize");
    // What the kernel could give back is not in the way.
    let most = bound + row(&node, 101, "dcachesize")[1] + MIB;
    assert!((bound - 4096..most).contains(&maxheld) && failcnt >= 1, "{maxheld} {failcnt} of {bound}");
    let events = node.run("vzubc", ["--events", "101"]).ok().stdout;
    assert!(events.contains(" kmemsize: take (pid "), "{events}");
    let neighbour = node.run("vzctl", ["exec2", "102", "echo as before > /x; cat /x"]).ok().stdout;
    assert_eq!(neighbour, "as before\n");
    drop(taking);
    set_both(&node, "kmemsize", bound + 64 * MIB);
    assert_eq!(Taking::of(&node, "process", 40).said, "took 40 all");
}

#[test]
fn the_kernel_refuses_new_inodes_above_dcachesize() {
    let Some(node) = enforcing("the_kernel_refuses_new_inodes_above_dcachesize", "dcachesize") else { return };
    set_both(&node, "kmemsize", 256 * MIB);
    set_both(&node, "dcachesize", 256 * MIB);
    let bound = row(&node, 101, "dcachesize")[0] + MIB / 2;
    assert_eq!(Taking::of(&node, "directory", 2000).said, "took 2000 all");
    set_both(&node, "dcachesize", bound);
    // The kernel makes its sum every two seconds.
    assert!(wait_until(scaled(Duration::from_secs(5)), || Taking::of(&node, "directory", 1).said == "took 0 ENOMEM"));
    let [held, maxheld, failcnt] = row(&node, 101, "dcachesize");
    assert!(held > bound && maxheld >= held && failcnt >= 1, "{held} {maxheld} {failcnt} of {bound}");
    let events = node.run("vzubc", ["--events", "101"]).ok().stdout;
    assert!(events.contains(" dcachesize: "), "{events}");
    assert_eq!(node.run("vzctl", ["exec2", "102", "mkdir /x && echo as before"]).ok().stdout, "as before\n");
    set_both(&node, "dcachesize", 256 * MIB);
    assert_eq!(Taking::of(&node, "directory", 10).said, "took 10 all");
}

#[test]
fn the_kernel_refuses_more_locks_than_numflock() {
    refused_by_the_kernel("the_kernel_refuses_more_locks_than_numflock", "lock", "numflock", 1, "ENOLCK");
}

#[test]
fn the_kernel_refuses_more_locked_memory_than_lockedpages_of_all_processes_together() {
    let test = "the_kernel_refuses_more_locked_memory_than_lockedpages_of_all_processes_together";
    refused_by_the_kernel(test, "locked-page", "lockedpages", 1, "ENOMEM");
}

#[test]
fn the_kernel_refuses_more_rules_of_the_packet_filter_than_numiptent() {
    let test = "the_kernel_refuses_more_rules_of_the_packet_filter_than_numiptent";
    refused_by_the_kernel(test, "rule", "numiptent", 1, "ENOMEM");
}

/// So many rules, as one of Debian's programs reads them.
fn ruleset(program: &str, rules: usize) -> String {
    let lines = |line: &dyn Fn(usize) -> String| (1..=rules).map(line).collect::<String>();
    let head = "*filter\n:INPUT ACCEPT\n:OUTPUT ACCEPT\n";
    match program {
        "nft -f -" => format!(
            "table inet t\nflush table inet t\ntable inet t {{ chain c {{\n{}}}\n}}\n",
            lines(&|rule| format!("tcp dport {rule} accept\n"))
        ),
        "arptables-nft-restore" => format!("{head}{}", lines(&|rule| format!("-A INPUT -s 10.1.2.{rule} -j ACCEPT\n"))),
        "ebtables-nft-restore" => {
            format!("{head}{}", lines(&|rule| format!("-A INPUT -p IPv4 --ip-source 10.1.2.{rule} -j ACCEPT\n")))
        }
        _ => format!("{head}{}COMMIT\n", lines(&|rule| format!("-A INPUT -p tcp --dport {rule} -j ACCEPT\n"))),
    }
}

#[test]
fn the_kernel_refuses_rules_of_debians_own_programs_above_numiptent() {
    let test = "the_kernel_refuses_rules_of_debians_own_programs_above_numiptent";
    let Some(node) = node_with(test, DEBIAN_12_TOOLS) else { return };
    node.done(["create", "101", "--ostemplate", DEBIAN_12_TOOLS]);
    // What the processes of systemd take of anything else is beside the point.
    node.done([
        "set",
        "101",
        "--numiptent",
        "60:60",
        "--privvmpages",
        "unlimited",
        "--kmemsize",
        "unlimited",
        "--save",
    ]);
    node.done(["start", "101"]);
    let Some(node) = enforced(test, node, "numiptent") else { return };
    let programs =
        ["nft -f -", "iptables-nft-restore", "ip6tables-nft-restore", "arptables-nft-restore", "ebtables-nft-restore"];
    for program in programs {
        let load =
            |rules: usize| node.vzctl(["exec2", "101", &format!("{program} <<'END'\n{}END", ruleset(program, rules))]);
        let before = row(&node, 101, "numiptent");
        load(40).ok();
        assert_eq!(row(&node, 101, "numiptent")[0], 40, "{program}");
        let refused = load(100);
        let [held, maxheld, failcnt] = row(&node, 101, "numiptent");
        assert!(refused.code != 0 && held == 40 && failcnt == before[2] + 1, "{program}: {held} {failcnt} {refused:?}");
        assert!(maxheld <= 60, "{program}: {maxheld}");
        // A ruleset takes the place of the one before: what both have together is above the bound.
        load(50).ok();
        assert_eq!(row(&node, 101, "numiptent")[0], 50, "{program}");
        node.inside("nft flush ruleset");
        assert_eq!(row(&node, 101, "numiptent")[0], 0, "{program}");
    }
}

#[test]
fn the_kernel_refuses_signals_beyond_numsiginfo_and_counts_it() {
    let test = "the_kernel_refuses_signals_beyond_numsiginfo_and_counts_it";
    let Some(node) = enforcing(test, "numsiginfo") else { return };
    node.done(["set", "101", "--numsiginfo", "60:60", "--save"]);
    node.done(["restart", "101"]);
    let taking = Taking::of(&node, "signal", 80);
    assert!(taking.said.ends_with("EAGAIN"), "{:?}", taking.said);
    let [held, maxheld, failcnt] = row(&node, 101, "numsiginfo");
    assert!(held <= 60 && held > 60 - 16, "{held}");
    assert_eq!((maxheld, failcnt), (60, 1));
    assert_eq!(row(&node, 102, "numsiginfo")[2], 0, "of the neighbour");
    drop(taking);
    let back = || row(&node, 101, "numsiginfo")[0] < 16;
    assert!(wait_until(scaled(Duration::from_secs(5)), back), "{:?}", row(&node, 101, "numsiginfo"));
    // What ended the program was queued beyond: a plain signal is not refused.
    assert!((60..=64).contains(&row(&node, 101, "numsiginfo")[1]), "{:?}", row(&node, 101, "numsiginfo"));
}

#[test]
fn the_kernel_refuses_datagrams_of_unix_sockets_above_othersockbuf() {
    full_at_the_barrier(
        "the_kernel_refuses_datagrams_of_unix_sockets_above_othersockbuf",
        "datagram",
        "othersockbuf",
        20,
        "ENOBUFS",
    );
}

#[test]
fn the_kernel_refuses_datagrams_of_udp_above_dgramrcvbuf() {
    full_at_the_barrier(
        "the_kernel_refuses_datagrams_of_udp_above_dgramrcvbuf",
        "udp-unread",
        "dgramrcvbuf",
        20,
        "ETIME",
    );
}

#[test]
fn the_kernel_refuses_to_write_above_tcpsndbuf() {
    // More than goes on to the reader's socket.
    full_at_the_barrier("the_kernel_refuses_to_write_above_tcpsndbuf", "tcp-unread", "tcpsndbuf", 40, "ENOBUFS");
}

#[test]
fn the_kernel_refuses_to_receive_above_tcprcvbuf() {
    // Less than the socket would take by itself. What is dropped waits at its writer and comes again.
    full_at_the_barrier("the_kernel_refuses_to_receive_above_tcprcvbuf", "tcp-unread", "tcprcvbuf", 20, "all");
}

#[test]
fn no_more_processes_than_numproc() {
    refused("no_more_processes_than_numproc", "process", "numproc", 40, "EAGAIN");
}

#[test]
fn no_more_signals_than_numsiginfo() {
    refused("no_more_signals_than_numsiginfo", "signal", "numsiginfo", 60, "EAGAIN");
}

#[test]
fn no_more_locked_memory_than_lockedpages() {
    refused("no_more_locked_memory_than_lockedpages", "locked-page", "lockedpages", 50, "ENOMEM");
}

#[test]
fn what_may_be_locked_changes_at_once() {
    let Some(node) = running("what_may_be_locked_changes_at_once") else { return };
    let said = |node: &Node| Taking::of(node, "locked-page", 100).said.clone();
    node.done(["set", "101", "--lockedpages", "20:20"]);
    assert_eq!(said(&node), "took 20 ENOMEM");
    node.done(["set", "101", "--lockedpages", "200:200"]);
    assert_eq!(said(&node), "took 100 all");
}

#[test]
fn open_files_are_counted() {
    counted("open_files_are_counted", "file", "numfile", 100, 1);
}

#[test]
fn tcp_sockets_are_counted() {
    counted("tcp_sockets_are_counted", "tcp", "numtcpsock", 50, 1);
}

#[test]
fn udp_sockets_are_counted() {
    counted("udp_sockets_are_counted", "udp", "numothersock", 50, 1);
}

#[test]
fn unix_sockets_are_counted() {
    counted("unix_sockets_are_counted", "local", "numothersock", 50, 1);
}

#[test]
fn file_locks_are_counted() {
    counted("file_locks_are_counted", "lock", "numflock", 60, 1);
}

#[test]
fn terminals_are_counted() {
    counted("terminals_are_counted", "pty", "numpty", 10, 1);
}

#[test]
fn locked_memory_is_counted() {
    counted("locked_memory_is_counted", "locked-page", "lockedpages", 100, 1);
}

#[test]
fn private_address_space_is_counted() {
    counted("private_address_space_is_counted", "private-pages", "privvmpages", 100, 100);
}

#[test]
fn shared_memory_is_counted() {
    counted("shared_memory_is_counted", "shared-page", "shmpages", 200, 1);
}

#[test]
fn queued_signals_are_counted() {
    counted("queued_signals_are_counted", "signal", "numsiginfo", 100, 1);
}

#[test]
fn rules_of_the_packet_filter_are_counted() {
    counted("rules_of_the_packet_filter_are_counted", "rule", "numiptent", 50, 1);
}

#[test]
fn processes_are_counted() {
    counted("processes_are_counted", "process", "numproc", 40, 1);
}
