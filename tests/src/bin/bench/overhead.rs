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

pub(crate) fn measure(rounds: u32, node: &Node, directory: &Path) -> Result<(), Box<dyn Error>> {
    // No limit of CPU time: it would be measured instead.
    node.vzctl(["create", "103"].into_iter().chain(NORMAL)).ok();
    node.vzctl(["start", "103"]).ok();
    let result = tables(rounds, node, directory);
    node.vzctl(["stop", "103", "--fast"]).ok();
    node.vzctl(["destroy", "103"]).ok();
    result
}

fn tables(rounds: u32, node: &Node, directory: &Path) -> Result<(), Box<dyn Error>> {
    println!("\nthe same program inside and outside, in turn, n = {rounds}; spreads are 10 %..90 %");
    table(&[&WORKS[..], &COUNTED].concat(), rounds, node, directory)?;
    if !enforcing(node) {
        println!("UBC_ENFORCE: this host's kernel does not take the programs, not measured");
        return Ok(());
    }
    node.vzctl(["restart", "103", "--fast"]).ok();
    println!("\nthe same with UBC_ENFORCE, which costs outside too");
    table(&COUNTED, rounds, node, directory)
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

fn table(works: &[Work], rounds: u32, node: &Node, directory: &Path) -> Result<(), Box<dyn Error>> {
    println!("  {:<7} {:>22} {:>22} {:>8}  what it does", "", "outside, ms", "inside, ms", "loss");
    for &(kind, place, what) in works {
        let (mut outside, mut inside) = (Timings::default(), Timings::default());
        for round in 0..=rounds {
            let mut plain = Command::new(directory.join("plain/bin/work"));
            plain.arg(kind).arg(place.map_or(directory, Path::new));
            let times = (
                own_time(plain)?,
                own_time(node.command("vzctl", ["exec", "103", "work", kind, place.unwrap_or("/root")]))?,
            );
            // The first round warms caches.
            if round > 0 {
                outside.add(times.0);
                inside.add(times.1);
            }
        }
        let loss = inside.quantile(0.5).as_secs_f64() / outside.quantile(0.5).as_secs_f64() - 1.0;
        println!("  {kind:<7} {:>22} {:>22} {:>6.1} %  {what}", spread(&outside), spread(&inside), loss * 100.0);
    }
    Ok(())
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
