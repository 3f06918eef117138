//! What one more idle container takes of the host, its own processes left out as far as they can be: the mean over several.

use std::error::Error;

use procfs::process::Process;
use procfs::{Current, Meminfo};
use tests::node::Node;

use crate::NORMAL;

const FIRST: u32 = 201;
const CONTAINERS: u32 = 20;

pub(crate) fn measure(node: &Node) -> Result<(), Box<dyn Error>> {
    let all = FIRST..FIRST + CONTAINERS;
    for ctid in all.clone() {
        let ctid = ctid.to_string();
        node.vzctl(["create", &ctid].into_iter().chain(NORMAL)).ok();
        // Once before it counts: what the kernel allocates once and keeps is nobody's.
        node.vzctl(["start", &ctid]).ok();
        node.vzctl(["stop", &ctid, "--fast"]).ok();
    }
    let before = Host::now()?;
    for ctid in all.clone() {
        node.vzctl(["start", &ctid.to_string()]).ok();
    }
    std::thread::sleep(std::time::Duration::from_secs(3));
    let after = Host::now()?;
    let pairs: Vec<Pair> = all.clone().map(|ctid| Pair::of(node, ctid)).collect::<Result<_, _>>()?;
    for ctid in all {
        node.vzctl(["stop", &ctid.to_string(), "--fast"]).ok();
        node.vzctl(["destroy", &ctid.to_string()]).ok();
    }
    let mean = |of: fn(&Pair) -> u64| pairs.iter().map(of).sum::<u64>() as f64 / f64::from(CONTAINERS);
    let each = |of: fn(&Host) -> u64| (of(&after) as f64 - of(&before) as f64) / f64::from(CONTAINERS);
    let kib = 1024.0;
    let (own, kernel) = (mean(|p| p.dirty_bytes) / kib, each(|h| h.kernel_bytes) / kib);
    println!("\none more idle container, mean of {CONTAINERS}");
    println!("  {:<66} {own:>8.0} KiB", "monitor and attendant: memory nobody shares with them (Pss_Dirty)");
    println!("  {:<66} {kernel:>8.0} KiB", "kernel: slab, stacks, page tables, per-CPU (its init's included)");
    println!("  {:<66} {:>8.0} KiB", "both", own + kernel);
    println!("  {:<66} {:>8.1}", "open descriptors of monitor and attendant (one table)", mean(|p| p.descriptors));
    println!("  {:<66} {:>8.1}", "open files of the host, with the container's own", each(|h| h.files));
    Ok(())
}

/// A container's monitor and attendant together.
struct Pair {
    dirty_bytes: u64,
    descriptors: u64,
}

impl Pair {
    fn of(node: &Node, ctid: u32) -> Result<Self, Box<dyn Error>> {
        let monitor = Process::new(node.process(ctid, "monitor"))?;
        let attendant = Process::new(node.attendant(ctid).ok_or("a container without an attendant")?)?;
        // Proportional: the two are forks of one and share what neither has written since.
        let dirty = |process: &Process| -> Result<u64, Box<dyn Error>> {
            let rollup = fs_err::read_to_string(format!("/proc/{}/smaps_rollup", process.pid))?;
            let line = rollup.lines().find_map(|line| line.strip_prefix("Pss_Dirty:")).ok_or("no Pss_Dirty")?;
            Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
        };
        Ok(Self { dirty_bytes: dirty(&monitor)? + dirty(&attendant)?, descriptors: monitor.fd_count()? as u64 })
    }
}

/// What the whole host uses.
struct Host {
    kernel_bytes: u64,
    files: u64,
}

impl Host {
    fn now() -> Result<Self, Box<dyn Error>> {
        let memory = Meminfo::current()?;
        let parts = [Some(memory.slab), memory.kernel_stack, memory.page_tables, memory.per_cpu];
        let files = fs_err::read_to_string("/proc/sys/fs/file-nr")?;
        let files = files.split_whitespace().next().ok_or("an empty file-nr")?.parse()?;
        Ok(Self { kernel_bytes: parts.into_iter().flatten().sum(), files })
    }
}
