//! What a program loses by running in a container: the same static program, in turn inside and outside, timing itself.

use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tests::node::Node;

use crate::NORMAL;
use crate::measure::Timings;

/// Work of `work.c`, where it is done (`None`: on a disk), and what it stands for.
const WORKS: [Work; 8] = [
    ("cpu", None, "arithmetic and memory"),
    ("calls", None, "open, fstat, read, close; a pipe: inside through the overlay"),
    ("calls", Some("/dev/shm"), "the same on a tmpfs"),
    ("files", None, "500 files made, written, read, removed"),
    ("net", None, "TCP on the loopback: talk and flood"),
    ("null", None, "getppid, a million times: the bare way into the kernel"),
    ("proc", None, "/proc/meminfo opened, read, closed 1,000 times: ms here are us for one"),
    ("again", None, "/proc/meminfo read 1,000 times by who keeps it open"),
];

/// What beancounters count, by itself.
const COUNTED: [Work; 4] = [
    ("open", None, "a file opened and closed, 200,000 times"),
    ("socket", None, "a local socket made and closed, 100,000 times"),
    ("map", None, "64 KiB mapped and unmapped, 200,000 times"),
    ("fork", None, "a process forked, ended and waited for, 2,000 times"),
];

type Work = (&'static str, Option<&'static str>, &'static str);

/// Where it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Outside,
    /// In the container that was started before the kernel was asked to refuse anything.
    Inside,
    /// In the container that the kernel refuses.
    Enforced,
}

/// The container of [`Side::Inside`], and that of [`Side::Enforced`].
const CONTAINERS: [&str; 2] = ["103", "104"];

pub(crate) fn measure(rounds: u32, node: &Node, directory: &Path) -> Result<(), Box<dyn Error>> {
    println!("\nthe same program inside and outside, in turn, n = {rounds}; spreads are 10 %..90 %");
    start(node, CONTAINERS[0]);
    let works = [&WORKS[..], &COUNTED].concat();
    let result = table(&works, &[Side::Outside, Side::Inside], rounds, node, directory);
    end(node, CONTAINERS[0]);
    result
}

/// What is counted, before the kernel's programs are there and with them: outside, in a container that is not attached, in one that is.
pub(crate) fn measure_enforcing(rounds: u32, node: &Node, directory: &Path) -> Result<(), Box<dyn Error>> {
    start(node, CONTAINERS[0]);
    println!("\nwithout the kernel's beancounters, in turn, n = {rounds}; spreads are 10 %..90 %");
    let mut result = table(&COUNTED, &[Side::Outside, Side::Inside], rounds, node, directory);
    if !enforcing(node) {
        println!("UBC_ENFORCE: this host's kernel does not take the programs, not measured");
    } else if result.is_ok() {
        start(node, CONTAINERS[1]);
        println!("\nwith them (UBC_ENFORCE), which costs outside too");
        result = table(&COUNTED, &[Side::Outside, Side::Inside, Side::Enforced], rounds, node, directory);
        end(node, CONTAINERS[1]);
    }
    end(node, CONTAINERS[0]);
    result
}

fn start(node: &Node, ctid: &str) {
    // No limit of CPU time: it would be measured instead.
    node.vzctl(["create", ctid].into_iter().chain(NORMAL)).ok();
    node.vzctl(["start", ctid]).ok();
}

fn end(node: &Node, ctid: &str) {
    node.vzctl(["stop", ctid, "--fast"]).ok();
    node.vzctl(["destroy", ctid]).ok();
}

/// Has the kernel refuse for containers that start from now on; `false`: this host's kernel refuses nothing.
pub(crate) fn enforcing(node: &Node) -> bool {
    let lsm = fs_err::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    let can = lsm.trim().split(',').any(|name| name == "bpf");
    if can {
        node.configure("UBC_ENFORCE=yes");
    }
    can
}

fn table(works: &[Work], sides: &[Side], rounds: u32, node: &Node, directory: &Path) -> Result<(), Box<dyn Error>> {
    print!("  {:<7}", "");
    for side in sides {
        print!(" {:>22} {:>8}", format!("{}, ms", format!("{side:?}").to_lowercase()), "loss");
    }
    println!("  what it does");
    for &(kind, place, what) in works {
        let mut timings: Vec<(Side, Timings)> = sides.iter().map(|side| (*side, Timings::default())).collect();
        for round in 0..=rounds {
            for (side, timings) in &mut timings {
                let took = own_time(command(*side, kind, place, node, directory))?;
                // The first round warms caches.
                if round > 0 {
                    timings.add(took);
                }
            }
        }
        let median = |timings: &Timings| timings.quantile(0.5).as_secs_f64();
        let first = median(&timings[0].1);
        print!("  {kind:<7}");
        for (at, (_, timings)) in timings.iter().enumerate() {
            let loss =
                if at == 0 { String::new() } else { format!("{:.1} %", (median(timings) / first - 1.0) * 100.0) };
            print!(" {:>22} {loss:>8}", spread(timings));
        }
        println!("  {what}");
    }
    Ok(())
}

fn command(side: Side, kind: &str, place: Option<&str>, node: &Node, directory: &Path) -> Command {
    let [plain, enforced] = CONTAINERS;
    let inside = |ctid| node.command("vzctl", ["exec", ctid, "work", kind, place.unwrap_or("/root")]);
    match side {
        Side::Outside => {
            let mut outside = Command::new(directory.join("plain/bin/work"));
            outside.arg(kind).arg(place.map_or(directory, Path::new));
            outside
        }
        Side::Inside => inside(plain),
        Side::Enforced => inside(enforced),
    }
}

/// What the program says it took.
fn own_time(mut command: Command) -> Result<Duration, Box<dyn Error>> {
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(Duration::from_nanos(String::from_utf8(output.stdout)?.trim().parse()?))
}

fn spread(timings: &Timings) -> String {
    let ms = |part| timings.quantile(part).as_secs_f64() * 1e3;
    format!("{:.1} ({:.1}..{:.1})", ms(0.5), ms(0.1), ms(0.9))
}
