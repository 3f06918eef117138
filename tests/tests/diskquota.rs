//! The first level of disk quota is exact: a container has what its limits say, however it writes, and nobody else pays for it.
//!
//! The same sentences for project quota, for images that bound a simfs area where the host has no such quota, and for the ploop layout; what
//! differs is how close to the limit a refusal comes (`docs/quota.md`).
#![expect(clippy::expect_used, reason = "a test that fails here has failed")]

use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use tests::compiled::DISK;
use tests::containers::node_with;
use tests::node::Node;
use tests::skips::skip;
use tests::wait::wait_until;

/// ext4's unit of allocation, in KiB.
const UNIT_KIB: u64 = 4;
/// Limit of the tests' containers.
const LIMIT_KIB: u64 = 24 << 10;
/// What the journal and the tables of an image of the ploop layout and the template in it take at most, in KiB.
const PLOOP_OWN_KIB: u64 = 12 << 10;

/// What bounds a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Project,
    Image,
    Ploop,
}

/// A node with container 101, running, of this layout.
fn running(test: &str, layout: &str, options: &[&str]) -> Option<(Node, Bound)> {
    let node = node_with(test, "busybox")?;
    if DISK.compiled().is_err() {
        skip(test, "needs a C compiler (cc) and static libraries");
        return None;
    }
    let bound = another(&node, 101, layout, options);
    Some((node, bound))
}

/// One more container, with the tool in it.
fn another(node: &Node, ctid: u32, layout: &str, options: &[&str]) -> Bound {
    let id = ctid.to_string();
    let create = ["create", &id, "--ostemplate", "busybox", "--layout", layout];
    node.done(create.into_iter().chain(options.iter().copied()));
    node.done(["start", &id]);
    let tool = File::open(DISK.compiled().expect("the tool")).expect("the tool");
    let mut put = node.command("vzctl", ["exec2", &id, "cat > /disk && chmod 755 /disk && mkdir /d && sync"]);
    let status = put.stdin(tool).stdout(Stdio::null()).status().expect("vzctl");
    assert!(status.success(), "copying the tool into the container: {status}");
    match layout {
        "ploop" => Bound::Ploop,
        _ if node.path(format!("private/{ctid}/root.img")).exists() => Bound::Image,
        _ => Bound::Project,
    }
}

fn line(node: &Node, ctid: u32, line: &str) -> String {
    node.done(["exec2", &ctid.to_string(), line]).trim_end().to_owned()
}

/// What the tool got, and why no more.
fn take(node: &Node, ctid: u32, words: &str) -> (u64, String) {
    let said = line(node, ctid, &format!("/disk {words}"));
    let (count, why) = said.split_once(' ').expect("two words");
    (count.parse().expect("a number"), why.to_owned())
}

/// What statfs(2) says inside.
#[derive(Debug, Clone, Copy)]
struct Free {
    total_kib: u64,
    kib: u64,
    inodes_total: u64,
    inodes: u64,
}

fn free(node: &Node, ctid: u32) -> Free {
    let said = line(node, ctid, "sync; /disk free /");
    let numbers: Vec<u64> = said.split(' ').map(|word| word.parse().expect("a number")).collect();
    let [total_kib, kib, inodes_total, inodes] = numbers.try_into().expect("four");
    Free { total_kib, kib, inodes_total, inodes }
}

/// The cells of vzlist for a container.
fn listed(node: &Node, ctid: u32, fields: &str) -> Vec<String> {
    let out = node.vzlist(["-aHo", fields, &ctid.to_string()]).ok().stdout;
    out.split_whitespace().map(str::to_owned).collect()
}

fn refused(why: &str) -> bool {
    why == "EDQUOT" || why == "ENOSPC"
}

/// So much was had of what was free, by so many files: to a unit, and one more for the map of each file's extents.
#[track_caller]
fn assert_exact(what: &str, got: u64, free: u64, files: u64) {
    let slack = UNIT_KIB + UNIT_KIB * files;
    assert!(got.abs_diff(free) <= slack, "{what}: {got} KiB of {free} KiB, a slack of {slack}");
}

fn limits(bound: &str) -> [String; 2] {
    let kib = if bound == "ploop" { LIMIT_KIB + PLOOP_OWN_KIB } else { LIMIT_KIB };
    ["--diskspace".to_owned(), format!("{kib}K")]
}

fn ends_at_the_limit(test: &str, layout: &str) {
    let limits = limits(layout);
    let options = [limits[0].as_str(), &limits[1], "--diskinodes", "2000"];
    let Some((node, bound)) = running(test, layout, &options) else { return };
    another(&node, 102, layout, &options);
    let at_first = free(&node, 101);
    match bound {
        Bound::Project => assert_eq!((at_first.total_kib, at_first.inodes_total), (LIMIT_KIB, 2000)),
        // The last group of blocks is rounded up by a fraction of what its tables take.
        Bound::Image => assert!((LIMIT_KIB..LIMIT_KIB + 512).contains(&at_first.total_kib), "{at_first:?}"),
        Bound::Ploop => assert!(at_first.total_kib < LIMIT_KIB + PLOOP_OWN_KIB, "{at_first:?}"),
    }
    for (what, files) in
        [("append /d/f 100000", 1), ("direct /d/f 100000", 1), ("reserve /d/f 100000", 1), ("parallel /d 8 100000", 8)]
    {
        let before = free(&node, 101);
        let (got, why) = take(&node, 101, what);
        assert!(refused(&why), "{what}: {why}");
        assert_exact(what, got, before.kib, files);
        let after = free(&node, 101);
        assert!(after.kib <= UNIT_KIB * (1 + files), "{what}: {after:?}");
        if bound == Bound::Project {
            let used: u64 = listed(&node, 101, "diskspace")[0].parse().expect("a number");
            assert!((LIMIT_KIB - UNIT_KIB * files..=LIMIT_KIB).contains(&used), "{what}: {used} KiB used");
        }
        line(&node, 101, "rm -r /d; sync; mkdir /d");
        let back = wait_until(Duration::from_secs(20), || free(&node, 101).kib == before.kib);
        assert!(back, "{what}: {:?} after its files were deleted, {before:?} before", free(&node, 101));
    }
    // The neighbour has all of its own, while this one has nothing left; and so has the host.
    take(&node, 101, "append /d/f 100000");
    let before = free(&node, 102);
    let (got, _) = take(&node, 102, "append /d/f 100000");
    assert_exact("the neighbour's", got, before.kib, 1);
    fs_err::write(node.path("hosts"), vec![1; 4 << 20]).expect("the host has space");
}

#[test]
fn space_ends_at_the_limit_however_it_is_written() {
    ends_at_the_limit("space_ends_at_the_limit_however_it_is_written", "simfs");
}

#[test]
fn space_of_an_image_of_the_ploop_layout_ends_at_its_limit() {
    ends_at_the_limit("space_of_an_image_of_the_ploop_layout_ends_at_its_limit", "ploop");
}

#[test]
fn what_costs_nothing_costs_nothing_and_what_is_deleted_comes_back_at_the_last_close() {
    let test = "what_costs_nothing_costs_nothing_and_what_is_deleted_comes_back_at_the_last_close";
    let Some((node, _)) = running(test, "simfs", &["--diskspace", "24M", "--diskinodes", "3000"]) else { return };
    let inside = |what: &str| line(&node, 101, what);
    let used_by = |what: &str| {
        let before = free(&node, 101);
        inside(what);
        let after = free(&node, 101);
        (before.kib.cast_signed() - after.kib.cast_signed(), before.inodes.cast_signed() - after.inodes.cast_signed())
    };
    // A hole, ten times what the limit is, and a block at its end.
    let (kib, inodes) = used_by("dd if=/dev/zero of=/d/hole bs=4k count=1 seek=61440 2>/dev/null");
    assert!((4..=8).contains(&kib) && inodes == 1, "a hole: {kib} KiB, {inodes} inodes");
    assert_eq!(used_by("for i in $(seq 50); do ln /d/hole /d/l$i; done"), (0, 0), "hard links");
    assert_eq!(used_by("mkdir /d/e"), (4, 1));
    assert_eq!(used_by("mv /d/hole /d/e/other; for i in $(seq 50); do mv /d/l$i /d/e/m$i; done"), (0, 0), "renames");
    assert_eq!(used_by("rm -r /d/e"), (-kib - 4, -2), "all links of it");
    // Deleted but open.
    let before = free(&node, 101);
    let held = inside(
        "dd if=/dev/zero of=/d/held bs=1M count=8 2>/dev/null; exec 9</d/held; rm /d/held; sync; /disk free /; exec 9<&-",
    );
    let held: u64 = held.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a number");
    assert!((8192..=8200).contains(&(before.kib - held)), "{} KiB held", before.kib - held);
    assert!(wait_until(Duration::from_secs(20), || free(&node, 101).kib == before.kib), "{:?}", free(&node, 101));
    // A file of the template costs when it is changed, all of it.
    let size: i64 = inside("stat -c %s /bin/busybox").parse().expect("a size");
    let (kib, inodes) = used_by("chmod 700 /bin/busybox; chmod 755 /bin/busybox");
    let whole = (size + 4095) / 4096 * 4;
    assert!((whole..=whole + 16).contains(&kib), "copied up: {kib} KiB of {whole}");
    assert!((1..=2).contains(&inodes), "the file, and its directory: {inodes}");
    // Extended attributes cost a block each where they do not fit into the inode.
    let before = free(&node, 101);
    let (got, why) = take(&node, 101, "attributes /d 100000");
    assert!(refused(&why) || got > 1000, "{got}: {why}");
    let blocks = (before.kib - free(&node, 101).kib) / UNIT_KIB;
    assert!((got..=got + got / 20 + 4).contains(&blocks), "{got} attributes took {blocks} blocks");
    assert!(free(&node, 101).inodes == 0 || free(&node, 101).kib <= UNIT_KIB, "{:?}", free(&node, 101));
}

#[test]
fn inodes_end_at_the_limit_to_the_one() {
    let test = "inodes_end_at_the_limit_to_the_one";
    // More for who asks; ten thousand are enough to go over many blocks of inodes.
    let limit: u64 = std::env::var("VZ_TEST_DISK_INODES").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000);
    // An image has an inode for each of its blocks at most.
    let space = format!("{}K", (limit * 8).max(204_800));
    let Some((node, bound)) = running(test, "simfs", &["--diskspace", &space, "--diskinodes", &limit.to_string()])
    else {
        return;
    };
    let before = free(&node, 101);
    match bound {
        Bound::Project => assert_eq!(before.inodes_total, limit),
        // The ten of ext4 and lost+found above the limit, rounded up to whole blocks of a group's inodes.
        _ => assert!((limit + 11..=limit + 11 + 2 * 128).contains(&before.inodes_total), "{before:?}"),
    }
    let (got, why) = take(&node, 101, &format!("files /d {}", limit * 2));
    assert!(refused(&why), "{why}");
    assert_eq!((got, free(&node, 101).inodes), (before.inodes, 0));
    let used: u64 = listed(&node, 101, "diskinodes")[0].parse().expect("a number");
    assert_eq!(used, before.inodes_total);
    // One deleted is one more.
    line(&node, 101, "rm /d/0 /d/1");
    assert!(wait_until(Duration::from_secs(20), || free(&node, 101).inodes == 2), "{:?}", free(&node, 101));
    line(&node, 101, "mkdir /d/0; ln -s x /d/1");
    assert_ne!(node.vzctl(["exec2", "101", "mkfifo /d/2"]).code, 0);
}

#[test]
fn limits_change_while_the_container_runs() {
    let test = "limits_change_while_the_container_runs";
    let Some((node, bound)) = running(test, "simfs", &["--diskspace", "16M", "--diskinodes", "2000"]) else { return };
    let (first, why) = take(&node, 101, "append /d/f 100000");
    assert!(refused(&why), "{why}");
    let fields = "diskspace,diskspace.s,diskspace.h,diskinodes,diskinodes.s,diskinodes.h";
    let said = node.done(["set", "101", "--diskspace", "24M:24M", "--save"]);
    if said.contains("at the next start") {
        assert_eq!(bound, Bound::Image);
        node.done(["restart", "101", "--fast"]);
    }
    let (second, why) = take(&node, 101, "append /d/g 100000");
    assert!(refused(&why) && (7900..=8700).contains(&second), "{first} KiB, then {second} KiB: {why}");
    let cells = listed(&node, 101, fields);
    assert_eq!((cells[1].as_str(), cells[2].as_str()), ("24576", "24576"), "{cells:?}");
    assert_eq!((cells[4].as_str(), cells[5].as_str()), ("2000", "2000"), "{cells:?}");
    let statfs = free(&node, 101);
    assert_eq!(cells[3], (statfs.inodes_total - statfs.inodes).to_string(), "used inodes: {statfs:?}");
    if bound == Bound::Image {
        // Less than is used is refused, and less than there was is in force at once: a balloon takes the difference.
        let full = node.vzctl(["set", "101", "--diskspace", "8M", "--save"]);
        assert!(full.code != 0 && full.stderr.contains("Delete files inside first"), "{full:?}");
        assert_eq!(node.configured(101, "DISKSPACE").as_deref(), Some("24576:24576"));
        line(&node, 101, "rm /d/f /d/g; sync");
        let had = free(&node, 101).kib;
        node.done(["set", "101", "--diskspace", "8M", "--save"]);
        let left = free(&node, 101).kib;
        assert!((had - (17 << 10)..=had - (16 << 10)).contains(&left), "{had} KiB, and with 16 MiB less {left} KiB");
        assert_exact("after deleting", take(&node, 101, "append /d/h 100000").0, left, 1);
        let used: u64 = listed(&node, 101, "diskspace")[0].parse().expect("a number");
        assert!((7 << 10..=8 << 10).contains(&used), "the balloon is not the container's: {used} KiB");
        // It holds over a restart, and goes when the limit is what it was.
        node.done(["restart", "101", "--fast"]);
        assert!(free(&node, 101).kib <= UNIT_KIB * 2);
        line(&node, 101, "rm /d/h; sync");
        node.done(["set", "101", "--diskspace", "24M", "--save"]);
        let again = free(&node, 101).kib;
        assert!((had - 600..=had).contains(&again), "{had} KiB, and then {again} KiB");
    } else {
        // Below what is used: taken, told, and nothing but deleting works.
        let said = node.done(["set", "101", "--diskspace", "8M", "--diskinodes", "20", "--save"]);
        assert!(said.contains("it can only delete"), "{said}");
        assert_eq!(take(&node, 101, "append /d/h 4").0, 0);
        assert_ne!(node.vzctl(["exec2", "101", "mkdir /d/new"]).code, 0);
        assert_eq!((free(&node, 101).total_kib, free(&node, 101).kib), (8192, 0));
        line(&node, 101, "rm /d/f /d/g");
        node.done(["set", "101", "--diskinodes", "2000", "--save"]);
        let before = free(&node, 101).kib;
        assert_exact("after deleting", take(&node, 101, "append /d/h 100000").0, before, 1);
        // Inodes alone, and up to them.
        node.done(["set", "101", "--diskspace", "16M", "--diskinodes", "100:100", "--save"]);
        let before = free(&node, 101).inodes;
        assert_eq!(take(&node, 101, "files /d 1000").0, before);
    }
    // The same numbers of a stopped container; what it uses is known where nothing has to be mounted for it.
    let running = listed(&node, 101, fields);
    node.done(["stop", "101", "--fast"]);
    let stopped = listed(&node, 101, fields);
    assert_eq!((&stopped[1..3], &stopped[4..]), (&running[1..3], &running[4..]));
    match bound {
        Bound::Project => assert_eq!(stopped[3], running[3]),
        _ => assert_eq!((stopped[0].as_str(), stopped[3].as_str()), ("-", "-")),
    }
}

#[test]
fn a_soft_limit_is_one_after_its_time() {
    let test = "a_soft_limit_is_one_after_its_time";
    let options = ["--diskspace", "12M:24M", "--diskinodes", "500:1000"];
    let Some((node, bound)) = running(test, "simfs", &options) else { return };
    node.done(["set", "101", "--quotatime", "3", "--save"]);
    if bound != Bound::Project {
        // No soft limit: what counts is the hard one, which without time was the soft one, and an image may grow at a start only.
        node.done(["restart", "101", "--fast"]);
        let (got, why) = take(&node, 101, "append /d/f 16384");
        assert_eq!((got, why.as_str()), (16384, "all"));
        return;
    }
    let (got, why) = take(&node, 101, "append /d/f 12288");
    assert_eq!((got, why.as_str()), (12288, "all"), "above the soft limit, and in time");
    let ended = wait_until(Duration::from_secs(30), || refused(&take(&node, 101, "append /d/f 4").1));
    assert!(ended, "the time has not ended");
    // Below it once more, it begins anew.
    line(&node, 101, "rm /d/f; sync");
    assert_eq!(take(&node, 101, "append /d/f 13000").1, "all");
}

#[test]
fn what_is_no_limit_is_refused_and_changes_nothing() {
    let test = "what_is_no_limit_is_refused_and_changes_nothing";
    let Some((node, _)) = running(test, "simfs", &["--diskspace", "16M", "--diskinodes", "2000"]) else { return };
    for (option, value) in [
        ("--diskspace", "20M:16M"),
        ("--diskspace", "-1"),
        ("--diskspace", "1X"),
        ("--diskspace", ""),
        ("--diskspace", "1G:2G:3G"),
        ("--diskinodes", "3000:2000"),
        ("--diskinodes", "many"),
        ("--quotatime", "-1"),
        ("--quotatime", "99999999999999999999999"),
    ] {
        let refused = node.vzctl(["set", "101", option, value, "--save"]);
        assert_ne!(refused.code, 0, "{option} {value}");
    }
    assert_eq!(node.configured(101, "DISKSPACE").as_deref(), Some("16384:16384"));
    assert_eq!(node.configured(101, "DISKINODES").as_deref(), Some("2000:2000"));
    assert!(free(&node, 101).total_kib < 17 << 10);
}

#[test]
fn a_container_stays_in_its_project() {
    let test = "a_container_stays_in_its_project";
    let Some((node, bound)) = running(test, "simfs", &["--diskspace", "16M", "--diskinodes", "2000"]) else { return };
    line(&node, 101, "touch /d/f");
    for path in ["/d/f", "/d", "/"] {
        for words in [format!("project {path} 0"), format!("project {path} 77"), format!("flag {path}")] {
            let said = line(&node, 101, &format!("/disk {words}"));
            let same = said == "0 all" && bound != Bound::Project && words.starts_with("flag")
                || said == "0 all" && words == "flag /d/f" // A file has none.
                || said == "0 all" && bound != Bound::Project && words.ends_with(" 0");
            assert!(same || said.starts_with("-1 "), "{words}: {said}");
        }
    }
    if bound != Bound::Project {
        return;
    }
    // On the host too a file does not go from one area to another without being counted there.
    another(&node, 102, "simfs", &["--diskspace", "16M"]);
    let there = |ctid: u32| -> std::path::PathBuf {
        let found = std::process::Command::new("find")
            .arg(node.path(format!("private/{ctid}")))
            .args(["-name", "d", "-type", "d"])
            .output();
        String::from_utf8(found.expect("find").stdout).expect("a path").trim().into()
    };
    let (from, to) = (there(101).join("f"), there(102).join("f"));
    let crossed = |result: std::io::Result<()>| result.expect_err("refused").kind();
    assert_eq!(crossed(std::fs::rename(&from, &to)), std::io::ErrorKind::CrossesDevices);
    assert_eq!(crossed(std::fs::hard_link(&from, &to)), std::io::ErrorKind::CrossesDevices);
}
