//! What it takes to read all counters of many containers that are all at their limits.

use std::error::Error;
use std::time::{Duration, Instant};

use beancounters::Resource;
use nix::sys::resource::{Usage, UsageWho, getrusage};
use tests::node::Node;
use tests::taking::{Taking, put_tool};

use crate::measure::{Timings, time};
use crate::overhead::enforcing;

const FIRST: u32 = 301;
const CONTAINERS: u32 = 100;
/// Processes of each: then one more is refused.
const NUMPROC: u64 = 40;
/// Where the kernel refuses them.
const NUMFILE: u64 = 400;

pub(crate) fn measure(rounds: u32, node: &Node) -> Result<(), Box<dyn Error>> {
    let enforced = enforcing(node);
    node.run("vzpkg", ["create", "cache", "busybox"]).ok();
    let mut taking = Vec::new();
    for ctid in FIRST..FIRST + CONTAINERS {
        taking.extend(at_its_limits(node, ctid, enforced)?);
    }
    let refused = if enforced { "processes and files" } else { "processes; files are not refused here" };
    println!("\nall counters of {CONTAINERS} containers at their limits ({refused}), n = {rounds}");
    println!("  {:<44} {:>8} {:>20} {:>10}", "", "median", "10 %..90 %", "CPU, mean");
    let result = readings(rounds, node);
    // Before the containers, whose processes they are.
    drop(taking);
    for ctid in FIRST..FIRST + CONTAINERS {
        node.vzctl(["stop", &ctid.to_string(), "--fast"]).ok();
        node.vzctl(["destroy", &ctid.to_string()]).ok();
    }
    result
}

/// A container that can have no more processes and, where it is refused, no more files.
fn at_its_limits(node: &Node, ctid: u32, enforced: bool) -> Result<Vec<Taking>, Box<dyn Error>> {
    let number = ctid.to_string();
    let limit = |resource: &str, to: u64| drop(node.vzctl(["set", &number, resource, &format!("{to}:{to}")]).ok());
    node.vzctl(["create", &number, "--ostemplate", "busybox"]).ok();
    node.vzctl(["start", &number]).ok();
    put_tool(node, ctid);
    let mut taking = Vec::new();
    if enforced {
        limit("--numfile", NUMFILE);
        taking.push(at_limit(node, ctid, "file", NUMFILE, "ENFILE")?);
        // What comes in has files of its own.
        limit("--numfile", NUMFILE * 2);
    }
    limit("--numproc", NUMPROC);
    taking.push(at_limit(node, ctid, "process", NUMPROC, "EAGAIN")?);
    if enforced {
        limit("--numfile", held(node, ctid, "numfile")?);
    }
    Ok(taking)
}

fn at_limit(node: &Node, ctid: u32, kind: &str, limit: u64, refusal: &str) -> Result<Taking, Box<dyn Error>> {
    let taking = Taking::in_container(node, ctid, kind, limit + 1);
    let refused = taking.said.ends_with(refusal);
    refused.then_some(()).ok_or_else(|| format!("CT {ctid} is not at its limit: {:?}", taking.said))?;
    Ok(taking)
}

fn held(node: &Node, ctid: u32, resource: &str) -> Result<u64, Box<dyn Error>> {
    Ok(node.vzlist(["-H", "-o", resource, &ctid.to_string()]).ok().stdout.trim().parse()?)
}

fn readings(rounds: u32, node: &Node) -> Result<(), Box<dyn Error>> {
    let of_each = |resource: Resource| ["", ".m", ".b", ".l", ".f"].map(|part| format!("{resource}{part}")).join(",");
    let columns = Resource::LIVE.map(of_each).join(",");
    reading(rounds, "vzubc", || time(node.command("vzubc", ["--json"])), cpu_of_commands)?;
    reading(
        rounds,
        "vzlist -o numproc,numproc.m, ... (all)",
        || time(node.command("vzlist", ["-o", &columns])),
        cpu_of_commands,
    )?;
    let file = node.path("run/proc/user_beancounters");
    let server = fs_err::read_to_string(node.path("run/proc.lock"))?;
    let read = || {
        let start = Instant::now();
        let rows = fs_err::read_to_string(&file)?.lines().count();
        let took = start.elapsed();
        if rows < 24 * CONTAINERS as usize { Err(format!("{rows} lines").into()) } else { Ok(took) }
    };
    reading(rounds, "/run/vz/proc/user_beancounters", read, || cpu_of(server.trim()))
}

fn reading(
    rounds: u32,
    what: &str,
    mut read: impl FnMut() -> Result<Duration, Box<dyn Error>>,
    cpu: impl Fn() -> Result<Duration, Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    read()?;
    let (mut timings, before) = (Timings::default(), cpu()?);
    for _ in 0..rounds {
        timings.add(read()?);
    }
    let cpu = (cpu()? - before) / rounds.max(1);
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let [low, median, high] = [0.1, 0.5, 0.9].map(|part| ms(timings.quantile(part)));
    println!("  {what:<44} {median:>5.1} ms {:>17} ms {:>7.1} ms", format!("{low:.1}..{high:.1}"), ms(cpu));
    Ok(())
}

/// That of all commands that have been waited for.
fn cpu_of_commands() -> Result<Duration, Box<dyn Error>> {
    let usage: Usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = |time: nix::sys::time::TimeVal| time.tv_sec() as u64 * 1_000_000 + time.tv_usec() as u64;
    Ok(Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time())))
}

/// That of a process of one thread.
fn cpu_of(pid: &str) -> Result<Duration, Box<dyn Error>> {
    let text = fs_err::read_to_string(format!("/proc/{pid}/schedstat"))?;
    Ok(Duration::from_nanos(text.split(' ').next().ok_or("an empty schedstat")?.parse()?))
}
