//! `vzquota` and `vzctl quotaon|quotaoff|quotainit`: tables, codes and messages, on project quota; and what they say where there is none.
#![expect(clippy::expect_used, reason = "a test that fails here has failed")]

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tests::containers::node_with;
use tests::node::{Node, Outcome};
use tests::skips::skip;

/// Soft and hard limit of space, in KiB, and of inodes, as the containers here are made.
const OPTIONS: [&str; 4] = ["--diskspace", "20M:30M", "--diskinodes", "1000:1100"];

/// A node with container 101, which is not mounted, and whether project quota bounds it.
fn node(test: &str) -> Option<(Node, bool)> {
    let node = node_with(test, "busybox")?;
    create(&node);
    let is_project = !node.path("private/101/root.img").exists();
    Some((node, is_project))
}

/// The grace times are all projects' of the file system, on which the containers of all tests are.
static GRACE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    GRACE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn create(node: &Node) {
    node.done(["create", "101", "--ostemplate", "busybox"].into_iter().chain(OPTIONS));
    node.done(["set", "101", "--quotatime", "3600", "--save"]);
}

fn vzquota(node: &Node, line: &str) -> Outcome {
    node.run("vzquota", line.split(' '))
}

/// It ended with this code, said this on standard error, and nothing on standard output.
#[track_caller]
fn says(outcome: Outcome, code: i32, message: &str) {
    let outcome = outcome.fails_with(code);
    assert_eq!((outcome.stderr.trim_end(), outcome.stdout.as_str()), (message, ""));
}

/// Usage of space in KiB, and of inodes.
fn usage(node: &Node) -> [u64; 2] {
    let batch = vzquota(node, "-b show 101").ok().stdout;
    let first = |line: &str| line.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number");
    let all: Vec<u64> = batch.lines().map(first).collect();
    all.try_into().expect("two lines")
}

/// A megabyte after the other, up to 40, and how many there were.
fn filled(node: &Node) -> u64 {
    node.inside("for n in $(seq 1 40); do dd if=/dev/zero of=/f$n bs=1M count=1 2> /dev/null || break; done; sync; ls / | grep -c '^f[0-9]'")
        .parse()
        .expect("a number")
}

#[test]
fn vzquota_prints_what_openvz_printed_and_ends_with_its_codes() {
    let _alone = alone();
    let Some((node, is_project)) = node("vzquota_prints_what_openvz_printed_and_ends_with_its_codes") else { return };
    says(vzquota(&node, "stat 999"), 11, "vzquota: there is no container 999");
    says(vzquota(&node, "-q stat 999"), 11, "");
    assert_eq!(vzquota(&node, "stat 0").code, 2);
    assert_eq!(vzquota(&node, "grow 101").code, 2);
    assert_eq!(vzquota(&node, "on 101 -e soon").code, 2);
    if !is_project {
        let none = "vzquota: the private area is not bounded by project quota";
        for verb in ["init", "drop", "on", "off", "setlimit"] {
            says(vzquota(&node, &format!("{verb} 101")), 12, none);
        }
        says(vzquota(&node, "stat 101"), 6, "vzquota: the private area is an image that is not mounted");
        for (verb, code) in [("quotaon", 60), ("quotaoff", 66), ("quotainit", 61)] {
            let said = node.vzctl([verb, "101"]).fails_with(code).stderr;
            assert!(said.contains("The private area has no project quota"), "{said}");
        }
        node.done(["start", "101"]);
        let table = vzquota(&node, "stat 101").ok().stdout;
        assert!(
            table.starts_with("   resource          usage       softlimit      hardlimit    grace\n  1k-blocks "),
            "{table}"
        );
        assert_eq!(vzquota(&node, "-b show 101").ok().stdout.lines().count(), 2);
        return;
    }
    // As a script of OpenVZ's has it, with all that it gave.
    let private = node.path("private/101").display().to_string();
    let given =
        format!("101 -p {private} -c /var/vzquota/quota.101 -s 1 -u 200 -b 1024 -B 2048 -i 10 -I 20 -e 3d -n 5d");
    assert_eq!(vzquota(&node, &format!("init {given}")).ok().stderr, "");
    let told = vzquota(&node, &format!("-v init {given}")).ok().stderr;
    assert_eq!(told.lines().count(), 4, "{told}");
    assert!(told.lines().all(|line| line.starts_with("vzquota: ")), "{told}");
    assert_eq!(vzquota(&node, "init 101 -p /elsewhere").code, 2);
    assert_eq!(vzquota(&node, "init 101 -b 9 -B 8").code, 2);
    says(vzquota(&node, "drop 101"), 0, "");
    says(vzquota(&node, "stat 101"), 6, "vzquota: quota is off");
    says(vzquota(&node, "setlimit 101 -B 50000"), 6, "vzquota: quota is off");
    says(vzquota(&node, "off 101"), 6, "vzquota: quota is off");
    let [kib, inodes] = usage(&node);
    let off = format!("{kib:>14} 9223372036854775807 9223372036854775807");
    assert!(vzquota(&node, "-b show 101").ok().stdout.starts_with(&off));
    says(vzquota(&node, "on 101"), 0, "");
    says(vzquota(&node, "on 101"), 5, "vzquota: quota is on already");
    let table = |blocks: &str, files: &str| {
        format!(
            "   resource          usage       softlimit      hardlimit    grace\n  \
             1k-blocks {kib:>14}  {blocks}         \n     \
             inodes {inodes:>14}  {files}         \n"
        )
    };
    let configured = table("         20480          30720", "          1000           1100");
    assert_eq!(vzquota(&node, "stat 101").ok().stdout, configured);
    assert_eq!(vzquota(&node, "show 101").ok().stdout, configured);
    says(vzquota(&node, "setlimit 101 -b 40000 -B 50000 -e 2h -n 1d"), 0, "");
    assert_eq!(
        vzquota(&node, "stat 101").ok().stdout,
        table("         40000          50000", "          1000           1100")
    );
    assert_eq!(
        vzquota(&node, "-b stat 101").ok().stdout,
        format!(
            "{kib:>14}          40000          50000           7200              0\n\
                 {inodes:>14}           1000           1100          86400              0\n"
        )
    );
    let json = vzquota(&node, "stat 101 --json").ok().stdout;
    assert!(json.contains("\"hardlimit\": 50000") && json.contains("\"grace_s\": 7200"), "{json}");
    says(vzquota(&node, "setlimit 101 -b 60000"), 2, "vzquota: the soft limit 60000 is above the hard limit 50000");
    says(vzquota(&node, "setlimit2 101 -u 1000 -B 5"), 9, "vzquota: second-level quota is off");
    says(vzquota(&node, "reload2 101"), 9, "vzquota: second-level quota is off");
    let told = vzquota(&node, "stat 101 -t").fails_with(9).stdout;
    assert!(
        told.ends_with(
            "User/group quota: off,inactive\nUgids: loaded 0, total 0, limit 0\nUgid limit was exceeded: no\n"
        ),
        "{told}"
    );
    says(vzquota(&node, "off 101"), 0, "");
    says(vzquota(&node, "stat 101"), 6, "vzquota: quota is off");
    node.done(["mount", "101"]);
    says(vzquota(&node, "drop 101"), 5, "vzquota: the container is mounted");
    says(node.vzctl(["quotainit", "101"]), 61, "The container uses its quota\nStop or unmount it first.");
    says(vzquota(&node, "drop 101 -f"), 0, "");
    node.done(["umount", "101"]);
    let before = usage(&node);
    node.done(["quotainit", "101"]);
    assert_eq!(usage(&node), before, "counted anew");
    // The second level needs a file system of the container's own, and is told so when it is asked for.
    let told = node.vzctl(["set", "101", "--quotaugidlimit", "20", "--save"]).ok();
    assert!(told.stdout.contains("`vzctl convert 101 --layout ploop`"), "{told:?}");
}

#[test]
fn vzquota_off_and_on_lift_the_bound_of_a_running_container_and_bring_it_back() {
    let _alone = alone();
    let test = "vzquota_off_and_on_lift_the_bound_of_a_running_container_and_bring_it_back";
    let Some((node, is_project)) = node(test) else { return };
    node.done(["start", "101"]);
    let file = || std::fs::read_to_string(node.path("run/proc/vz/vzquota")).expect("the file of the node");
    let heading = "qid: path            usage      softlimit      hardlimit       time     expire";
    let record = file();
    let lines: Vec<&str> = record.lines().collect();
    let private = node.path("private/101").display().to_string();
    assert_eq!((lines[0], lines[1]), (heading, format!("101: {private}").as_str()));
    for (line, name) in lines[2..].iter().zip(["1k-blocks", "inodes"]) {
        let cells: Vec<&str> = line.split_whitespace().collect();
        assert_eq!((cells.len(), cells[0]), (6, name), "{line}");
    }
    assert_eq!(lines.len(), 4);
    if !is_project {
        // The image is the limit, and nobody turns it off.
        assert_eq!(vzquota(&node, "off 101").code, 12);
        assert_eq!(node.vzctl(["quotaoff", "101"]).code, 66);
        let inside = filled(&node);
        assert!((20..=30).contains(&inside), "{inside} MiB");
        return;
    }
    let cells: Vec<&str> = lines[2].split_whitespace().collect();
    assert_eq!((cells[2..4].join(" "), cells[5]), ("20480 30720".to_owned(), "3600"));
    let at_most = filled(&node);
    assert!((28..=30).contains(&at_most), "{at_most} MiB");
    let overdrawn = file();
    let ends: u64 =
        overdrawn.lines().nth(2).and_then(|line| line.split_whitespace().nth(4)?.parse().ok()).expect("a time");
    assert!(ends > 1_700_000_000, "{overdrawn}");
    node.inside("rm /f*; sync");
    assert!(node.vzctl(["quotaoff", "101"]).ok().stdout.contains("Quota is off"));
    assert_eq!(file().lines().count(), 1, "quota that is off is not there");
    assert_eq!(filled(&node), 40);
    assert!(node.vzctl(["status", "101"]).ok().stderr.contains("space unlimited:unlimited KiB"));
    assert!(node.vzctl(["quotaon", "101"]).ok().stdout.contains("Quota is on"));
    node.vzctl(["exec2", "101", "dd if=/dev/zero of=/more bs=64k count=1"]).fails_with(1);
    node.inside("rm /f*; sync");
    assert!(filled(&node) <= 30);
    // By OpenVZ's own command the same.
    node.inside("rm /f*; sync");
    says(vzquota(&node, "off 101"), 0, "");
    assert_eq!(filled(&node), 40);
    node.inside("rm /f*; sync");
    says(vzquota(&node, "on 101"), 0, "");
    assert!(filled(&node) <= 30);
}

/// A file system with project quota of the test's own, where the node's private areas are: turning quota off concerns all of a file system.
struct OwnDisk {
    at: PathBuf,
    device: String,
}

impl OwnDisk {
    fn below(node: &Node) -> Result<Self, String> {
        let (image, at) = (node.path("disk.img"), node.path("private"));
        let sh = |line: &str| {
            let out = Command::new("sh").args(["-ec", line]).stdin(Stdio::null()).output().expect("sh");
            let said =
                String::from_utf8_lossy(if out.status.success() { &out.stdout } else { &out.stderr }).trim().to_owned();
            if out.status.success() { Ok(said) } else { Err(said) }
        };
        let (image, place) = (image.display(), at.display());
        sh(&format!(
            "truncate -s 200M {image}; mkfs.ext4 -qO quota,project -E quotatype=usrquota:grpquota:prjquota {image}"
        ))?;
        sh(&format!("mount -o loop,prjquota {image} {place}"))?;
        let device = sh(&format!("findmnt -no SOURCE {place}"))?;
        Ok(Self { at, device })
    }

    /// quotactl(2), by its words: what quotaoff(8), quotaon(8) and setquota(8) call, which this host may not have.
    fn quotactl(&self, arguments: &str) {
        let program = format!("$d = shift; {arguments} == 0 or die \"quotactl: $!\\n\"");
        let status = Command::new("perl").args(["-e", &program, &self.device]).status().expect("perl");
        assert!(status.success(), "{arguments}");
    }
}

impl Drop for OwnDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.at).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[test]
fn vzquota_that_was_turned_off_or_changed_by_hand_is_told_of_and_mended() {
    let test = "vzquota_that_was_turned_off_or_changed_by_hand_is_told_of_and_mended";
    let Some(node) = node_with(test, "busybox") else { return };
    let disk = match OwnDisk::below(&node) {
        Ok(disk) => disk,
        Err(_) => return skip(test, "this kernel has no quota format, so ext4 cannot be mounted with project quota"),
    };
    create(&node);
    node.done(["start", "101"]);
    let limits = || node.vzlist(["-aHo", "diskspace.s,diskspace.h,diskinodes.h", "101"]).ok().stdout;
    let shown = || limits().split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
    let status = || node.vzctl(["status", "101"]).ok();
    assert_eq!((shown().as_str(), status().stderr.as_str()), ("20480 30720 1100", ""));

    // setquota -P
    let area = Command::new("lsattr").arg("-pd").arg(node.path("private/101")).output().expect("lsattr");
    let id = String::from_utf8_lossy(&area.stdout).split_whitespace().next().expect("an id").to_owned();
    // perl hands over variables, not constants.
    let record = "$r = pack('Q8L2', 99999, 88888, 0, 77, 66, 0, 0, 0, 5, 0)";
    disk.quotactl(&format!("{record}; syscall(179, 0x80000802, $d, {id}, $r)"));
    assert_eq!(shown(), "88888 99999 77");
    let said = status();
    assert_eq!(said.stdout, "CTID 101 exist mounted running\n");
    assert!(said.stderr.contains("space 88888:99999 KiB, inodes 66:77 (`vzctl quotaon 101`"), "{}", said.stderr);
    node.done(["quotaon", "101"]);
    assert_eq!((shown().as_str(), status().stderr.as_str()), ("20480 30720 1100", ""));

    // quotaoff -P
    disk.quotactl("syscall(179, 0x80000302, $d, 0, 0)");
    assert_eq!(filled(&node), 40, "nothing holds it");
    assert_eq!(shown(), "9223372036854775807 9223372036854775807 9223372036854775807");
    assert!(status().stderr.contains("space unlimited:unlimited KiB"));
    let refused = node.vzctl(["quotaon", "101"]).fails_with(60).stderr;
    assert!(refused.contains("turned off, and `quotaon -P`"), "{refused}");
    let rows = node.vzctl(["check"]).stdout;
    let row = rows.lines().find(|line| line.contains("project quota")).expect("a row").to_owned();
    assert!(row.contains("only counts"), "{row}");
    let set = node.vzctl(["set", "101", "--diskspace", "25M:35M", "--save"]).ok();
    assert!(set.stdout.contains("Warning: "), "{set:?}");

    // quotaon -P: what was set meanwhile is put in force by vzctl's quotaon.
    disk.quotactl("$p = '/'; syscall(179, 0x80000202, $d, 4, $p)");
    assert_eq!(shown(), "20480 30720 1100");
    node.done(["quotaon", "101"]);
    assert_eq!(shown(), "25600 35840 1100");
    node.vzctl(["exec2", "101", "dd if=/dev/zero of=/more bs=64k count=1"]).fails_with(1);
    node.done(["stop", "101", "--fast"]);
}
