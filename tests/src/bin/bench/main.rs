//! Our times beside those of LXC, runc and bare namespaces, in turn (A B C A B C …), on the same root file system, so
//! that what else the machine does falls on all of them. Prints medians and ratios; asserts nothing. `make bench`.
//! Then what a container costs: the same programs inside and outside, the memory that one more of them takes, and reading the counters of many.

mod counters;
mod footprint;
mod images;
mod limits;
mod measure;
mod overhead;
mod root;
mod runtimes;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;
use tests::node::Node;

use measure::{Timings, start_and_stop, time};
use runtimes::Runtime;

#[derive(Parser)]
struct Arguments {
    /// How often each thing is measured.
    #[arg(long, default_value_t = 40)]
    rounds: u32,
    /// What is measured; all of it unless told.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Create, start, exec, list: how long the commands take, beside the peers'.
    Commands,
    /// The same programs inside and outside.
    Overhead,
    /// The same with the kernel's beancounters (`UBC_ENFORCE`) and without.
    Enforcing,
    /// What one more idle container takes of the host's memory.
    Footprint,
    /// A hundred containers at their limits: how long it takes to read all their counters.
    Counters,
    /// Writing inside a container of each layout, beside writing into the file system that its area is on.
    Images,
    /// Setting and reading limits of disk.
    Limits,
}

fn main() -> ExitCode {
    tests::verdict(go(&Arguments::parse()).map(|()| true))
}

fn go(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    if arguments.only == [Part::Limits] {
        // No container has to run for it: neither runtimes are needed, nor what they would run.
        println!("{}", tests::machine_in_a_line()?);
        return limits::measure(arguments.rounds, &Node::new());
    }
    // Not below anything private: the containers' root is nobody here.
    let directory = tempfile::Builder::new().prefix("vzbench").tempdir_in("/var/tmp")?;
    fs_err::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let roots = root::make(directory.path())?;
    let node = Node::new();
    // What runtimes keep of a running container lies in /run, which is in memory on a host with systemd, if not on this one.
    let memory = tempfile::Builder::new().prefix("vzbench").tempdir_in("/dev/shm")?;
    fs_err::create_dir(memory.path().join("vz"))?;
    fs_err::remove_dir(node.path("run"))?;
    fs_err::os::unix::fs::symlink(memory.path().join("vz"), node.path("run"))?;
    println!("{}", tests::machine_in_a_line()?);

    let ours = runtimes::ours(&node, &roots)?;
    let vzctl_is_there = ours.is_some();
    let found = [
        ("vzctl", ours),
        ("lxc", runtimes::lxc(directory.path(), &roots)?),
        ("runc", runtimes::runc(directory.path(), &memory.path().join("runc"), &roots)?),
        ("unshare", runtimes::unshare(&roots)),
    ];
    for (name, _) in found.iter().filter(|(_, runtime)| runtime.is_none()) {
        println!("{name}: not installed, not measured (`make build`, `make peers`)");
    }
    let runtimes: Vec<Runtime> = found.into_iter().filter_map(|(_, runtime)| runtime).collect();
    let result = measure_parts(arguments, &runtimes, vzctl_is_there.then_some(&node), directory.path());
    runtimes.iter().for_each(|runtime| drop(measure::stop(runtime)));
    runtimes::remove_lxc_cgroups();
    result
}

fn measure_parts(
    arguments: &Arguments,
    runtimes: &[Runtime],
    node: Option<&Node>,
    directory: &std::path::Path,
) -> Result<(), Box<dyn Error>> {
    let wanted = |part| arguments.only.is_empty() || arguments.only.contains(&part);
    if wanted(Part::Commands) {
        compare(arguments.rounds, runtimes, node)?;
    }
    let Some(node) = node else { return Ok(()) };
    if wanted(Part::Overhead) {
        overhead::measure(arguments.rounds, node, directory)?;
    }
    if wanted(Part::Enforcing) {
        overhead::measure_enforcing(arguments.rounds, node, directory)?;
    }
    if wanted(Part::Footprint) {
        footprint::measure(node)?;
    }
    if wanted(Part::Counters) {
        counters::measure(arguments.rounds, node)?;
    }
    if wanted(Part::Images) {
        images::measure(arguments.rounds, node)?;
    }
    if wanted(Part::Limits) {
        limits::measure(arguments.rounds, node)?;
    }
    Ok(())
}

/// What the measured containers are made with: everything a container normally has (an address, limits of memory, tasks and CPU, disk
/// quota). The peers are given none of it.
pub(crate) const NORMAL: [&str; 4] = ["--ostemplate", "bench", "--config", "vswap-512m"];

fn compare(rounds: u32, runtimes: &[Runtime], node: Option<&Node>) -> Result<(), Box<dyn Error>> {
    if let Some(node) = node {
        create(rounds, node)?;
        node.vzctl(["create", "101"].into_iter().chain(NORMAL).chain(["--ipadd", "10.99.77.1"])).ok();
    }
    starts(rounds, runtimes)?;
    execs(rounds, runtimes)?;
    if let Some(node) = node {
        list(rounds, node)?;
    }
    Ok(())
}

/// From a template that has been used before: the first creation also unpacks it.
fn create(rounds: u32, node: &Node) -> Result<(), Box<dyn Error>> {
    let mut timings = Timings::default();
    for round in 0..=rounds {
        let took = time(node.command("vzctl", ["create", "102", "--ostemplate", "bench"]))?;
        if round > 0 {
            timings.add(took);
        }
        time(node.command("vzctl", ["destroy", "102"]))?;
    }
    table("create from a cache", &[("vzctl", timings)]);
    Ok(())
}

fn starts(rounds: u32, runtimes: &[Runtime]) -> Result<(), Box<dyn Error>> {
    let mut until_init: Vec<_> = runtimes.iter().map(|runtime| (runtime.name, Timings::default())).collect();
    let mut until_return: Vec<_> = runtimes.iter().map(|runtime| (runtime.name, Timings::default())).collect();
    for round in 0..=rounds {
        for (at, runtime) in runtimes.iter().enumerate() {
            let start = start_and_stop(runtime)?;
            if round > 0 {
                until_init[at].1.add(start.init);
                start.command.into_iter().for_each(|took| until_return[at].1.add(took));
            }
        }
    }
    table("start, until init's first instruction", &until_init);
    table("start, until the command returns", &until_return);
    Ok(())
}

fn execs(rounds: u32, runtimes: &[Runtime]) -> Result<(), Box<dyn Error>> {
    let with_exec: Vec<_> = runtimes.iter().filter(|runtime| runtime.exec().is_some()).collect();
    let mut timings: Vec<_> = with_exec.iter().map(|runtime| (runtime.name, Timings::default())).collect();
    for runtime in &with_exec {
        time(runtime.start())?;
    }
    for round in 0..=rounds * 2 {
        for (at, command) in with_exec.iter().filter_map(|runtime| runtime.exec()).enumerate() {
            let took = time(command)?;
            if round > 0 {
                timings[at].1.add(took);
            }
        }
    }
    for runtime in &with_exec {
        measure::stop(runtime)?;
    }
    table("exec true", &timings);
    Ok(())
}

fn list(rounds: u32, node: &Node) -> Result<(), Box<dyn Error>> {
    const CONTAINERS: u32 = 1000;
    let like = fs_err::read_to_string(node.configuration(101))?;
    let others = 1001..1001 + CONTAINERS - 1;
    for ctid in others.clone() {
        fs_err::write(node.configuration(ctid), &like)?;
    }
    let mut timings = Timings::default();
    for _ in 0..rounds {
        timings.add(time(node.command("vzlist", ["-a"]))?);
    }
    let lines = node.vzlist(["-a", "-H"]).ok().stdout.lines().count();
    table(&format!("vzlist -a, {lines} containers"), &[("vzlist", timings)]);
    for ctid in others {
        fs_err::remove_file(node.configuration(ctid))?;
    }
    Ok(())
}

/// One line for each runtime; the ratio is that of our median to its, and below 1 we are the faster.
fn table(what: &str, rows: &[(&str, Timings)]) {
    let ms = |time: std::time::Duration| time.as_secs_f64() * 1e3;
    println!("\n{what}\n  {:<10} {:>5} {:>10} {:>18} {:>8}", "", "n", "median", "10 %..90 %", "ours/its");
    let ours = rows
        .first()
        .filter(|(name, timings)| name.starts_with("vz") && !timings.is_empty())
        .map(|(_, timings)| ms(timings.quantile(0.5)));
    for (name, timings) in rows.iter().filter(|(_, timings)| !timings.is_empty()) {
        let median = ms(timings.quantile(0.5));
        let spread = format!("{:.2}..{:.2}", ms(timings.quantile(0.1)), ms(timings.quantile(0.9)));
        let ratio = ours.map_or(String::new(), |ours| format!("{:.2}", ours / median));
        println!("  {name:<10} {:>5} {median:>7.2} ms {spread:>15} ms {ratio:>8}", timings.len());
    }
}
