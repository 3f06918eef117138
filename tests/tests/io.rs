//! Limits and weights of block I/O, on disks of the tests' own: loop devices, whose scheduler is nobody else's.
#![expect(clippy::expect_used, reason = "a test that fails here has failed")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tests::containers::{node_with, running_busybox};
use tests::node::{DIRECTORY_VARIABLE, Node};
use tests::own_disk::{OwnDisk, attached, command};
use tests::program::{capture, run};

/// A node whose private areas are on a disk of its own. The node goes first.
struct Own {
    node: Node,
    disk: OwnDisk,
}

impl Own {
    /// With container 101 running.
    fn with(test: &str, vz_conf: &str, options: &[&str]) -> Option<Self> {
        let own = Self { node: node_with(test, "busybox")?, disk: OwnDisk::of(400) };
        own.node.configure(&format!("VE_PRIVATE={}/$VEID\n{vz_conf}", own.disk.on().display()));
        own.node.done(["create", "101", "--ostemplate", "busybox"].into_iter().chain(options.iter().copied()));
        own.node.done(["start", "101"]);
        Some(own)
    }
}

fn weight(node: &Node, ctid: u32) -> String {
    let text = node.cgroup_file(ctid, &["blkio.bfq.weight", "io.bfq.weight"]);
    text.trim_start_matches("default ").to_owned()
}

#[test]
fn the_scheduler_is_set_where_vz_conf_says_so_and_weights_of_all_that_run_are_in_force() {
    let test = "the_scheduler_is_set_where_vz_conf_says_so_and_weights_of_all_that_run_are_in_force";
    let Some(own) = Own::with(test, "DISK_QUOTA=no", &[]) else { return };
    let (node, disk) = (&own.node, &own.disk);
    assert!(!disk.scheduler().contains("[bfq]"), "left alone: {}", disk.scheduler());
    node.done(["create", "102", "--ostemplate", "busybox"]);
    node.done(["set", "102", "--ioprio", "7", "--save"]);
    let said = node.done(["start", "102"]);
    let warning = format!("I/O priority has no effect on {}", disk.name());
    assert!(said.contains(&warning), "{said}");
    let checked = node.vzctl(["check"]).stdout;
    let row = checked.lines().find(|line| line.starts_with("I/O weights")).expect("a row").to_owned();
    assert!(row.contains(" no ") && row.contains(disk.name()) && row.contains("IO_SCHEDULER"), "{row}");
    node.configure("IO_SCHEDULER=auto");
    node.done(["set", "102", "--ioprio", "0", "--save"]);
    assert!(disk.scheduler().contains("[bfq]"), "{}", disk.scheduler());
    assert_eq!((weight(node, 101), weight(node, 102)), ("500".into(), "320".into()), "who ran already has it too");
    let low_latency = format!("/sys/block/{}/queue/iosched/low_latency", disk.name());
    assert_eq!(fs_err::read_to_string(low_latency).expect("bfq's").trim(), "0");
    node.done(["restart", "102"]);
    assert_eq!(weight(node, 102), "320");
    let checked = node.vzctl(["check"]).stdout;
    assert!(checked.contains(&format!("{} (bfq)", disk.name())), "{checked}");
}

/// How much goes through a disk (`major:minor`) in a while, in bytes a second: by a file in the container, past its page cache or through it.
fn moved(node: &Node, disk: &str, how: &str, seconds: u32) -> u64 {
    let begun = Instant::now();
    let limit = format!("timeout -s KILL {seconds} dd bs=64k");
    let line = match how {
        "write" => format!("{limit} if=/dev/zero of=/f count=3000 oflag=direct conv=notrunc"),
        // What is synced has been written; so much at a time that a second is not all of it.
        "buffered" => format!(
            "i=0; while [ $i -lt 100 ]; do {limit} if=/dev/zero of=/f count=8 conv=notrunc,fsync || break; i=$((i+1)); done"
        ),
        _ => format!("{limit} if=/f of=/dev/null iflag=direct"),
    };
    let line = format!("timeout -s KILL {seconds} sh -c '{line}' 2>/dev/null; true");
    let before = io_bytes(node, disk, how);
    node.vzctl(["exec2", "101", &line]).ok();
    let bytes = io_bytes(node, disk, how) - before;
    let took = begun.elapsed().as_secs_f64().max(1.0);
    // How fast, in whole bytes.
    bytes / (took.ceil() as u64)
}

/// What the kernel has counted of the container on a disk.
fn io_bytes(node: &Node, disk: &str, how: &str) -> u64 {
    let text = node.cgroup_file(101, &["blkio.throttle.io_service_bytes", "io.stat"]);
    let (v1, v2) = if how == "read" { ("Read", "rbytes=") } else { ("Write", "wbytes=") };
    let number = |line: &str| -> Option<u64> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.iter().find_map(|word| word.strip_prefix(v2)) {
            Some(of_v2) => of_v2.parse().ok(),
            None => words.get(2).filter(|_| words.get(1) == Some(&v1))?.parse().ok(),
        }
    };
    text.lines().filter(|line| line.split(' ').next() == Some(disk)).filter_map(number).sum()
}

const MIB: u64 = 1 << 20;

#[test]
fn a_limit_holds_for_reading_and_writing_changes_live_and_outlives_a_restart() {
    let test = "a_limit_holds_for_reading_and_writing_changes_live_and_outlives_a_restart";
    let Some(own) = Own::with(test, "DISK_QUOTA=no", &[]) else { return };
    let (node, disk) = (&own.node, own.disk.number());
    node.done(["exec2", "101", "dd if=/dev/zero of=/f bs=1M count=64 2>/dev/null; sync"]);
    node.done(["set", "101", "--iolimit", "2M", "--save"]);
    let file = node.cgroup_file(101, &["blkio.throttle.read_bps_device", "io.max"]);
    assert!(file.contains(&disk) && file.contains("2097152"), "{file}");
    for how in ["write", "read"] {
        let rate = moved(node, &disk, how, 4);
        assert!(rate > 0 && rate < 3 * MIB, "{how}: {rate} bytes a second with a limit of 2 MiB");
    }
    let listed = node.vzlist(["-H", "-o", "iolimit,iopslimit", "101"]).ok().stdout;
    assert_eq!(listed.split_whitespace().collect::<Vec<_>>(), ["2097152", "-"]);
    node.done(["restart", "101"]);
    let rate = moved(node, &disk, "read", 3);
    assert!(rate > 0 && rate < 3 * MIB, "{rate} bytes a second after a restart");
    node.done(["set", "101", "--iolimit", "0", "--iopslimit", "20", "--save"]);
    let rate = moved(node, &disk, "read", 4);
    assert!(rate > 0 && rate < 30 * 65536, "{rate} bytes a second in 20 pieces of 64 KiB");
    node.done(["set", "101", "--iopslimit", "0", "--save"]);
    let begun = Instant::now();
    node.done(["exec2", "101", "dd if=/f of=/dev/null bs=64k iflag=direct count=320 2>/dev/null"]);
    assert!(begun.elapsed() < Duration::from_secs(10), "20 MiB without a limit took {:?}", begun.elapsed());
}

#[test]
fn an_image_is_limited_at_the_disk_that_it_lies_on() {
    let test = "an_image_is_limited_at_the_disk_that_it_lies_on";
    for layout in ["simfs", "ploop"] {
        // Without project quota a bounded simfs area is an image too.
        let options = ["--layout", layout, "--diskspace", "100M:100M"];
        let Some(own) = Own::with(test, "", &options) else { return };
        let (node, disk) = (&own.node, own.disk.number());
        node.done(["exec2", "101", "dd if=/dev/zero of=/f bs=1M count=40 2>/dev/null; sync"]);
        node.done(["set", "101", "--iolimit", "2M"]);
        let is_v2 = node
            .vzctl(["check"])
            .stdout
            .lines()
            .any(|l| l.starts_with("I/O of buffered writes") && l.contains(" yes "));
        // On cgroup v1 what goes through the page cache is in nobody's name.
        for how in ["write", "read", "buffered"].into_iter().filter(|how| is_v2 || *how != "buffered") {
            let rate = moved(node, &disk, how, 4);
            assert!(rate > 0 && rate < 3 * MIB, "{layout}, {how}: {rate} bytes a second with a limit of 2 MiB");
        }
    }
}

#[test]
fn many_changes_in_a_row_leave_the_last_weights_and_nothing_else() {
    let Some(node) = running_busybox("many_changes_in_a_row_leave_the_last_weights_and_nothing_else") else { return };
    node.done(["create", "102", "--ostemplate", "busybox"]);
    node.done(["start", "102"]);
    let cpu = |ctid| node.cgroup_file(ctid, &["cpu.shares", "cpu.weight"]).parse::<f64>().expect("a weight");
    let equal = (cpu(101), cpu(102));
    assert!((equal.0 - equal.1).abs() < 1.0, "{equal:?}");
    for turn in 0..200u32 {
        let (ctid, units) = (101 + turn % 2, 500 + 7 * turn);
        node.done(["set", &ctid.to_string(), "--cpuunits", &units.to_string(), "--ioprio", &(turn % 8).to_string()]);
    }
    let ratio = cpu(102) / cpu(101);
    let should = f64::from(500 + 7 * 199) / f64::from(500 + 7 * 198);
    assert!((ratio / should - 1.0).abs() < 0.01, "{ratio} for {should}");
    for (ctid, units) in [(101, "8"), (102, "8")] {
        node.done(["set", &ctid.to_string(), "--cpuunits", units]);
    }
    assert!((cpu(101) - cpu(102)).abs() < 1.0 && cpu(101) >= 1.0, "all at the least: {} {}", cpu(101), cpu(102));
    let left = node.close();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn processors_that_are_not_there_are_refused_and_those_that_have_gone_are_told() {
    let test = "processors_that_are_not_there_are_refused_and_those_that_have_gone_are_told";
    let Some(node) = running_busybox(test) else { return };
    let refused = node.vzctl(["set", "101", "--cpumask", "0,4000", "--save"]).fails_with(2);
    assert!(refused.stderr.contains("there is no CPU 4000"), "{}", refused.stderr);
    assert_eq!(node.configured(101, "CPUMASK"), None, "not saved");
    let refused = node.vzctl(["set", "101", "--cpumask", "0", "--nodemask", "500", "--save"]).fails_with(2);
    assert!(refused.stderr.contains("there is no memory node 500"), "{}", refused.stderr);
    node.done(["set", "101", "--cpumask", "0", "--save"]);
    assert_eq!(node.cgroup_file(101, &["cpuset.cpus"]), "0");
    node.done(["set", "101", "--cpumask", "all", "--save"]);
    assert_ne!(node.cgroup_file(101, &["cpuset.cpus"]), "0", "taken away");
    // A configuration from a larger host.
    let path = node.configuration(101);
    let text = fs_err::read_to_string(&path).expect("there").replace("CPUMASK=\"all\"", "CPUMASK=\"0,4000\"");
    fs_err::write(&path, text).expect("written");
    let said = node.done(["restart", "101"]);
    assert!(said.contains("there is no CPU 4000 any more; 0 of "), "{said}");
    assert_eq!(node.cgroup_file(101, &["cpuset.cpus"]), "0");
}

#[test]
fn what_lies_on_no_disk_cannot_be_limited_and_a_priority_there_is_only_warned_of() {
    let test = "what_lies_on_no_disk_cannot_be_limited_and_a_priority_there_is_only_warned_of";
    let Some(node) = node_with(test, "busybox") else { return };
    let memory = Memory { node, directory: tempfile::tempdir().expect("a directory") };
    let (node, private) = (&memory.node, memory.directory.path().display().to_string());
    run(command(&["mount", "-t", "tmpfs", "tmpfs", &private])).expect("mount");
    node.configure(&format!("VE_PRIVATE={private}/$VEID\nDISK_QUOTA=no"));
    node.done(["create", "101", "--ostemplate", "busybox"]);
    node.done(["set", "101", "--ioprio", "2", "--save"]);
    let started = node.vzctl(["start", "101"]);
    if started.stderr.contains("MOUNT_ATTR_IDMAP") {
        return tests::skips::skip(test, "this kernel can't shift the ids of a tmpfs");
    }
    let said = started.ok().stdout;
    assert!(said.contains("I/O priority has no effect") && said.contains("is on tmpfs"), "{said}");
    let refused = node.vzctl(["set", "101", "--iolimit", "5", "--save"]).fails_with(148);
    assert!(refused.stderr.contains("is on tmpfs, which has no disk of its own"), "{}", refused.stderr);
    assert_eq!(node.configured(101, "IOLIMIT"), None, "not saved");
}

/// A node whose private areas are on a tmpfs. The node goes first, then what is mounted.
struct Memory {
    node: Node,
    directory: tempfile::TempDir,
}

impl Drop for Memory {
    fn drop(&mut self) {
        for left in self.node.close() {
            eprintln!("left: {left}");
        }
        if let Err(e) = run(command(&["umount", &self.directory.path().display().to_string()])) {
            eprintln!("{e}");
        }
    }
}

/// A volume over two loop devices, gone with this value.
struct Volume {
    name: String,
    loops: [String; 2],
    directory: tempfile::TempDir,
}

impl Volume {
    fn of(name: &str) -> Self {
        let base = std::env::var_os(DIRECTORY_VARIABLE).map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
        let directory = tempfile::Builder::new().prefix("vzd").tempdir_in(base).expect("a directory");
        let loops = ["a", "b"].map(|file| attached(&directory.path().join(file), 128));
        let half = 128 * 2048;
        let table = format!("0 {half} linear {} 0\n{half} {half} linear {} 0", loops[0], loops[1]);
        let volume = Self { name: format!("vzt-{name}"), loops, directory };
        run(command(&["dmsetup", "create", &volume.name, "--table", &table])).expect("dmsetup");
        run(command(&["mkfs.ext4", "-q", &volume.device()])).expect("mkfs.ext4");
        fs_err::create_dir(volume.on()).expect("a directory");
        run(command(&["mount", &volume.device(), &volume.on().display().to_string()])).expect("mount");
        volume
    }

    fn device(&self) -> String {
        format!("/dev/mapper/{}", self.name)
    }

    fn on(&self) -> PathBuf {
        self.directory.path().join("private")
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let on = self.on().display().to_string();
        let detach = ["losetup", "--detach", &self.loops[0], &self.loops[1]];
        for words in [&["umount", &on][..], &["dmsetup", "remove", &self.name], &detach] {
            if let Err(e) = run(command(words)) {
                eprintln!("{words:?}: {e}");
            }
        }
    }
}

#[test]
fn a_volume_over_two_disks_has_one_limit_and_its_disks_are_found() {
    struct OnVolume {
        node: Node,
        volume: Volume,
    }
    let test = "a_volume_over_two_disks_has_one_limit_and_its_disks_are_found";
    if run(command(&["dmsetup", "version"])).is_err() {
        return tests::skips::skip(test, "this kernel has no device mapper");
    }
    let Some(node) = node_with(test, "busybox") else { return };
    let volume = Volume::of(node.name());
    let own = OnVolume { node, volume };
    let (node, volume) = (&own.node, &own.volume);
    node.configure(&format!("VE_PRIVATE={}/$VEID\nDISK_QUOTA=no", volume.on().display()));
    node.done(["create", "101", "--ostemplate", "busybox"]);
    node.done(["set", "101", "--iolimit", "2M", "--save"]);
    node.done(["start", "101"]);
    let number = capture(command(&["lsblk", "--nodeps", "--noheadings", "--output", "MAJ:MIN", &volume.device()]));
    let number = number.expect("lsblk").trim().to_owned();
    let file = node.cgroup_file(101, &["blkio.throttle.write_bps_device", "io.max"]);
    assert_eq!((file.lines().count(), file.split(' ').next()), (1, Some(number.as_str())), "one limit: {file}");
    let rate = moved(node, &number, "write", 4);
    assert!(rate > 0 && rate < 3 * MIB, "{rate} bytes a second");
    let checked = node.vzctl(["check"]).stdout;
    let names: Vec<&str> = volume.loops.iter().map(|device| device.trim_start_matches("/dev/")).collect();
    let row = checked.lines().find(|line| line.starts_with("I/O limits")).expect("a row");
    assert!(names.iter().all(|name| row.contains(name)) && row.contains("together"), "{row}");
}
