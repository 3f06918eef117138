//! What limits do to processes: a file with the right number in it may still bound nothing.

use std::process::Command;

use super::*;

/// A disk of the test's own: a loop device on a file, gone with it.
struct Disk {
    device: String,
    _file: tempfile::NamedTempFile,
}

impl Disk {
    fn new(mib: u64) -> Self {
        // Not in /tmp: a loop device on tmpfs has no direct I/O.
        let file = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
        file.as_file().set_len(mib << 20).unwrap();
        let said = Command::new("losetup").args(["--find", "--show"]).arg(file.path()).output().unwrap();
        assert!(said.status.success(), "{said:?}");
        Self { device: String::from_utf8(said.stdout).unwrap().trim().to_owned(), _file: file }
    }

    fn sys(&self, file: &str) -> PathBuf {
        Path::new("/sys/block").join(self.device.trim_start_matches("/dev/")).join(file)
    }

    /// Rates of all four kinds, as OCI says them.
    fn throttle(&self, kind: &str, rate: u64) -> LinuxResources {
        let number = fs::read_to_string(self.sys("dev")).unwrap();
        let (major, minor) = number.trim().split_once(':').unwrap();
        let [major, minor] = [major, minor].map(|text| text.parse::<i64>().unwrap());
        resources(json!({"blockIO": {kind: [{"major": major, "minor": minor, "rate": rate}]}}))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let detached = Command::new("losetup").arg("--detach").arg(&self.device).status();
        assert!(detached.is_ok_and(|status| status.success()), "{} stays", self.device);
    }
}

#[test]
fn a_throttled_disk_is_as_slow_as_it_was_told_and_fast_again_without() {
    let Some(t) = Scratch::new("slow") else { return };
    let disk = Disk::new(16);
    let write = |mib: u64| {
        let start = Instant::now();
        let line =
            format!("exec dd if=/dev/zero of={} bs=256k count={} oflag=direct 2>/dev/null", disk.device, mib * 4);
        assert_eq!(t.run(&line), 0);
        start.elapsed()
    };
    assert_eq!(t.ct.apply(&disk.throttle("throttleWriteBpsDevice", 2 << 20)).unwrap(), []);
    let slow = write(3);
    // The kernel lets the first slice of a second pass unhindered.
    assert!(slow > Duration::from_millis(900), "3 MiB at 2 MiB/s took {slow:?}");
    t.ct.apply(&disk.throttle("throttleWriteBpsDevice", 0)).unwrap();
    t.ct.apply(&disk.throttle("throttleWriteIOPSDevice", 8)).unwrap();
    let slow = write(3);
    assert!(slow > Duration::from_millis(900), "12 writes at 8/s took {slow:?}");
    t.ct.apply(&disk.throttle("throttleWriteIOPSDevice", 0)).unwrap();
    let text = t.read(Controller::Io, "blkio.throttle.write_iops_device", "io.max");
    assert_eq!(text, "", "nothing is left of either");
    write(3);
}

#[test]
fn a_weight_of_io_is_set_in_every_file_there_is_for_it_or_told_to_be_missing() {
    let Some(t) = Scratch::new("weight") else { return };
    // A module of most distributions; loading it is the administrator's part.
    let _ = Command::new("modprobe").args(["--quiet", "bfq"]).status();
    let missing = t.ct.apply(&resources(json!({"blockIO": {"weight": 320}}))).unwrap();
    let place = t.ct.place(Controller::Io).unwrap();
    let files = if place.v2 { &["io.bfq.weight", "io.weight"][..] } else { &["blkio.bfq.weight"] };
    let there: Vec<PathBuf> = files.iter().map(|file| place.dir.join(file)).filter(|path| path.exists()).collect();
    for path in &there {
        let text = fs::read_to_string(path).unwrap();
        assert_eq!(text.split_whitespace().last(), Some("320"), "{}: {text}", path.display());
    }
    let no_file = Unsupported { what: What::IoWeight, why: Why::NoFile(place.dir.join(files[0])) };
    assert_eq!(missing, if there.is_empty() { vec![no_file] } else { Vec::new() });
}

#[test]
fn a_quota_of_cpu_time_throttles_what_wants_more() {
    let Some(t) = Scratch::new("throttled") else { return };
    t.ct.apply(&resources(json!({"cpu": {"quota": 10_000, "period": 100_000}}))).unwrap();
    let pid = spawn_sh(&t.ct.entry().unwrap(), "while :; do :; done").unwrap();
    let stat = t.file(Controller::Cpu, "cpu.stat", "cpu.stat");
    let throttled = || {
        let text = fs::read_to_string(&stat).unwrap();
        file::keyed(&text, "nr_throttled").and_then(|number| number.parse::<u64>().ok()).unwrap()
    };
    until("it is throttled again and again", || throttled() > 3);
    t.ct.apply(&resources(json!({"cpu": {"quota": -1}}))).unwrap();
    let (before, used) = (throttled(), t.ct.usage().unwrap().cpu);
    until("it gets a second of CPU time", || t.ct.usage().unwrap().cpu > used + Duration::from_secs(1));
    assert!(throttled() <= before + 1, "the period under way when the quota went may count");
    t.ct.kill().unwrap();
    assert_eq!(t.wait(pid), 128 + 9);
}

/// `memory.high`, which only v2 has: what is above it is reclaimed, and nobody is killed.
#[test]
fn memory_above_the_high_mark_is_reclaimed_and_kills_nobody() {
    let Some(t) = Scratch::new("high") else { return };
    let high = 24u64 << 20;
    let missing = t.ct.apply(&resources(json!({"unified": {"memory.high": high.to_string()}}))).unwrap();
    if !t.host.top(Controller::Memory).unwrap().v2 {
        let what = What::Named("memory.high".to_owned());
        return assert_eq!(missing, [Unsupported { what, why: Why::NoController(Controller::Memory) }]);
    }
    let place = t.ct.place(Controller::Memory).unwrap();
    let read = |file: &str| fs::read_to_string(place.dir.join(file)).unwrap();
    assert_eq!(read("memory.high").trim(), high.to_string());
    let file = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
    // Synced: what is dirty cannot be taken away at once.
    let line = format!("exec dd if=/dev/zero of={} bs=1M count=96 oflag=sync 2>/dev/null", file.path().display());
    assert_eq!(t.run(&line), 0);
    let events = read("memory.events");
    let count = |key| file::keyed(&events, key).and_then(|number| number.parse::<u64>().ok()).unwrap();
    assert!(count("high") > 0 && count("oom_kill") == 0, "{events}");
    let used = t.ct.usage().unwrap().memory_bytes.unwrap();
    assert!(used < 2 * high, "{used} bytes of page cache stay");
}
