//! Block I/O: parts of a busy disk by `ioprio`, limits, and how soon a change of one is in force. On a disk of its own, a loop device with the scheduler
//! that `IO_SCHEDULER=auto` gives it, beside plain cgroups with the same weights on the same disk.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tests::compiled::IO;
use tests::node::Node;
use tests::own_disk::OwnDisk;
use vzrt::cgroup::weights::ioprio_to_weight;

use crate::entitled::worst;
use crate::{Outcome, spread};

const FIRST: u32 = 481;
/// Of each competitor's file.
const FILE_MIB: u32 = 48;
const SETTLE: Duration = Duration::from_secs(1);

/// A competitor: its priority, and how many processes ask for it.
type Asks = (u8, u32);

pub(crate) fn measure(node: &Node, rounds: u32, window: Duration) -> Outcome<()> {
    let disk = OwnDisk::of(400);
    node.configure(&format!("VE_PRIVATE={}/$VEID\nDISK_QUOTA=no\nIO_SCHEDULER=auto", disk.on().display()));
    let measured = on(node, &disk, rounds, window);
    // The containers before the disk that they are on.
    let left = node.close();
    measured?;
    if left.is_empty() { Ok(()) } else { Err(format!("left: {left:?}").into()) }
}

fn on(node: &Node, disk: &OwnDisk, rounds: u32, window: Duration) -> Outcome<()> {
    for at in 0..3 {
        let number = (FIRST + at).to_string();
        node.vzctl(["create", &number, "--ostemplate", "busybox"]).ok();
        node.vzctl(["start", &number]).ok();
        IO.put(node, FIRST + at);
        node.vzctl(["exec2", &number, &format!("/io read /f {FILE_MIB} 1 0")]).ok();
    }
    println!("\nblock I/O on {}: {}", disk.name(), disk.scheduler().trim());
    if disk.scheduler().contains("[bfq]") {
        shares(node, disk, rounds, window)?;
    } else {
        println!("  no bfq on this kernel: parts by ioprio are not measured");
    }
    caps(node, disk, rounds, window)?;
    changes(node, disk, rounds)
}

fn shares(node: &Node, disk: &OwnDisk, rounds: u32, window: Duration) -> Outcome<()> {
    println!(
        "the largest difference of a part from its entitlement; windows of {window:?}, median of {rounds} (least..most), what each had in the last"
    );
    println!("  {:<44} {:>26} {:>20}   {:>26} {:>20}", "", "vz", "percent", "plain cgroups", "percent");
    let by_priority: [Asks; 3] = [(0, 4), (4, 4), (7, 4)];
    let many_beside_few: [Asks; 2] = [(4, 16), (4, 1)];
    for how in ["read", "write", "randread", "randwrite"] {
        for (what, asks) in [("ioprio 0, 4, 7", &by_priority[..]), ("16 processes beside 1", &many_beside_few)] {
            let (mut ours, mut plain) = (Vec::new(), Vec::new());
            let mut last = [Vec::new(), Vec::new()];
            let weights: Vec<f64> = asks.iter().map(|(priority, _)| f64::from(weight(*priority))).collect();
            let all: f64 = weights.iter().sum();
            let should: Vec<f64> = weights.iter().map(|weight| weight / all).collect();
            for _ in 0..rounds {
                last = [containers(node, disk, how, asks, window)?, by_hand(disk, how, asks, window)?];
                ours.push(100.0 * worst(&last[0], &should));
                plain.push(100.0 * worst(&last[1], &should));
            }
            let told = |worst: &[f64]| {
                let [median, least, most] = spread(worst);
                format!("{median:.1} % ({least:.1}..{most:.1})")
            };
            let parts =
                last.map(|had| had.iter().map(|part| format!("{:.1}", 100.0 * part)).collect::<Vec<_>>().join(" "));
            println!(
                "  {:<44} {:>26} {:>20}   {:>26} {:>20}",
                format!("{how}: {what}"),
                told(&ours),
                parts[0],
                told(&plain),
                parts[1]
            );
        }
    }
    Ok(())
}

fn weight(priority: u8) -> u16 {
    ioprio_to_weight(priority).unwrap_or_default()
}

/// The parts of all that containers had of the disk meanwhile.
fn containers(node: &Node, disk: &OwnDisk, how: &str, asks: &[Asks], window: Duration) -> Outcome<Vec<f64>> {
    let mut cgroups = Vec::new();
    for (at, (priority, processes)) in (FIRST..).zip(asks) {
        node.vzctl(["set", &at.to_string(), "--ioprio", &priority.to_string(), "--save"]).ok();
        start(node, at, how, *processes, window);
        cgroups.push(accounted(node.cgroups(at))?);
    }
    let had = parts(&cgroups, disk, window);
    for at in (FIRST..).take(asks.len()) {
        node.vzctl(["exec2", &at.to_string(), "killall -9 io; true"]).ok();
    }
    had
}

/// In the background of a container, and longer than it is looked at.
fn start(node: &Node, ctid: u32, how: &str, processes: u32, window: Duration) {
    let seconds = window.as_secs() + 30;
    let line = format!("/io {how} /f {FILE_MIB} {processes} {seconds} </dev/null >/dev/null 2>&1 &");
    node.vzctl(["exec2", &ctid.to_string(), &line]).ok();
}

/// The directory, of a cgroup's, with the account of block I/O.
fn accounted(mut directories: Vec<PathBuf>) -> Outcome<PathBuf> {
    directories.retain(|dir| dir.join("blkio.throttle.io_service_bytes").exists() || dir.join("io.stat").exists());
    directories.pop().ok_or_else(|| "block I/O is not counted".into())
}

fn parts(cgroups: &[PathBuf], disk: &OwnDisk, window: Duration) -> Outcome<Vec<f64>> {
    sleep(SETTLE);
    let read = || cgroups.iter().map(|cgroup| Ok(moved(cgroup, disk)?.0)).collect::<Outcome<Vec<f64>>>();
    let before = read()?;
    sleep(window);
    let had: Vec<f64> = read()?.iter().zip(&before).map(|(after, before)| after - before).collect();
    let all: f64 = had.iter().sum();
    Ok(had.iter().map(|one| one / all).collect())
}

/// Bytes and requests on the disk so far.
fn moved(cgroup: &Path, disk: &OwnDisk) -> Outcome<(f64, f64)> {
    let number = disk.number();
    let v2 = cgroup.join("io.stat");
    let mut sums = (0.0, 0.0);
    if v2.exists() {
        let text = fs_err::read_to_string(v2)?;
        for word in text.lines().filter(|line| line.split(' ').next() == Some(&number)).flat_map(str::split_whitespace)
        {
            let Some((key, value)) = word.split_once('=') else { continue };
            match key {
                "rbytes" | "wbytes" => sums.0 += value.parse::<f64>()?,
                "rios" | "wios" => sums.1 += value.parse::<f64>()?,
                _ => {}
            }
        }
        return Ok(sums);
    }
    for (file, sum) in [("io_service_bytes", &mut sums.0), ("io_serviced", &mut sums.1)] {
        let text = fs_err::read_to_string(cgroup.join(format!("blkio.throttle.{file}")))?;
        let total = text.lines().find_map(|line| line.strip_prefix(&format!("{number} Total ")));
        *sum += total.unwrap_or("0").trim().parse::<f64>()?;
    }
    Ok(sums)
}

/// The same in cgroups that are only directories.
struct Plain {
    top: PathBuf,
    count: usize,
    loads: Vec<Child>,
}

impl Plain {
    fn begin(disk: &OwnDisk, how: &str, asks: &[Asks], window: Duration) -> Outcome<Self> {
        let (v1, v2) = (Path::new("/sys/fs/cgroup/blkio"), Path::new("/sys/fs/cgroup"));
        let (top, file) = if v1.exists() { (v1, "blkio.bfq.weight") } else { (v2, "io.bfq.weight") };
        let mut plain = Self { top: top.join(format!("vzfair-{}", std::process::id())), count: 0, loads: Vec::new() };
        fs_err::create_dir(&plain.top)?;
        if top == v2 {
            fs_err::write(plain.top.join("cgroup.subtree_control"), "+io")?;
        }
        let tool = IO.compiled()?;
        for (priority, processes) in asks {
            let (dir, path) = (plain.dir(plain.count), disk.on().join(format!("plain-{}", plain.count)));
            fs_err::create_dir(&dir)?;
            plain.count += 1;
            fs_err::write(dir.join(file), weight(*priority).to_string())?;
            let script = format!(
                "echo $$ > {}/cgroup.procs; exec {} {how} {} {FILE_MIB} {processes} {}",
                dir.display(),
                tool.display(),
                path.display(),
                window.as_secs() + 3
            );
            plain.loads.push(Command::new("busybox").args(["sh", "-c", &script]).stdin(Stdio::null()).spawn()?);
        }
        Ok(plain)
    }

    fn dir(&self, at: usize) -> PathBuf {
        self.top.join(at.to_string())
    }
}

impl Drop for Plain {
    /// They end by themselves, a moment after they were looked at.
    fn drop(&mut self) {
        for load in &mut self.loads {
            if let Err(e) = load.wait() {
                eprintln!("wait: {e}");
            }
        }
        let dirs = (0..self.count).map(|at| self.dir(at)).chain([self.top.clone()]);
        for dir in dirs {
            let gone = || std::fs::remove_dir(&dir).is_ok() || !dir.exists();
            if !tests::wait::wait_until(Duration::from_secs(10), gone) {
                eprintln!("{} stays", dir.display());
            }
        }
    }
}

fn by_hand(disk: &OwnDisk, how: &str, asks: &[Asks], window: Duration) -> Outcome<Vec<f64>> {
    // Each file is written once, or the first window would be of that.
    let tool = IO.compiled()?;
    for at in 0..asks.len() {
        let file = disk.on().join(format!("plain-{at}"));
        let mut fill = Command::new(&tool);
        fill.args(["read".as_ref(), file.as_os_str()]).args([&FILE_MIB.to_string(), "1", "0"]);
        tests::program::run(fill)?;
    }
    let plain = Plain::begin(disk, how, asks, window)?;
    let cgroups: Vec<PathBuf> = (0..asks.len()).map(|at| plain.dir(at)).collect();
    parts(&cgroups, disk, window)
}

/// What a container moves in a second.
fn rate(node: &Node, disk: &OwnDisk, window: Duration) -> Outcome<(f64, f64)> {
    let cgroup = accounted(node.cgroups(FIRST))?;
    let (begun, before) = (Instant::now(), moved(&cgroup, disk)?);
    sleep(window);
    let (took, after) = (begun.elapsed().as_secs_f64(), moved(&cgroup, disk)?);
    Ok(((after.0 - before.0) / took, (after.1 - before.1) / took))
}

fn caps(node: &Node, disk: &OwnDisk, rounds: u32, window: Duration) -> Outcome<()> {
    println!("\nlimits: what a container moves beside them, windows of {window:?}, median of {rounds} (least..most)");
    let number = FIRST.to_string();
    for (option, limit, how) in [
        ("--iolimit", 1u64 << 20, "read"),
        ("--iolimit", 8 << 20, "read"),
        ("--iolimit", 8 << 20, "write"),
        ("--iopslimit", 50, "randread"),
        ("--iopslimit", 500, "randread"),
        ("--iopslimit", 500, "randwrite"),
    ] {
        let said = if option == "--iolimit" { format!("{limit}B") } else { limit.to_string() };
        node.vzctl(["set", &number, option, &said, "--save"]).ok();
        start(node, FIRST, how, 4, window * rounds);
        sleep(SETTLE);
        let mut percent = Vec::new();
        for _ in 0..rounds {
            let (bytes, requests) = rate(node, disk, window)?;
            percent.push(100.0 * if option == "--iolimit" { bytes } else { requests } / limit as f64);
        }
        node.vzctl(["set", &number, option, "0", "--save"]).ok();
        node.vzctl(["exec2", &number, "killall -9 io; true"]).ok();
        let [median, least, most] = spread(&percent);
        println!("  {:<36} {median:>7.2} % ({least:.2}..{most:.2})", format!("{option} {said}, {how}"));
    }
    Ok(())
}

/// From the call of the command until the container moves no more than it may.
fn changes(node: &Node, disk: &OwnDisk, rounds: u32) -> Outcome<()> {
    const LIMIT: f64 = 1048576.0;
    let number = FIRST.to_string();
    let mut took = Vec::new();
    for _ in 0..rounds.max(5) {
        start(node, FIRST, "read", 4, Duration::from_secs(5));
        sleep(Duration::from_millis(500));
        let begun = Instant::now();
        node.vzctl(["set", &number, "--iolimit", "1048576B"]).ok();
        let told = begun.elapsed();
        let (bytes, _) = rate(node, disk, Duration::from_millis(500))?;
        // What was on its way when it changed is a few pieces of each process.
        took.push(if bytes < 2.0 * LIMIT { told.as_secs_f64() * 1000.0 } else { f64::INFINITY });
        node.vzctl(["set", &number, "--iolimit", "0"]).ok();
        node.vzctl(["exec2", &number, "killall -9 io; true"]).ok();
    }
    let [median, least, most] = spread(&took);
    println!("\nset --iolimit 1M is in force when the command returns, after {median:.1} ms ({least:.1}..{most:.1})");
    Ok(())
}
