//! Limits, changes, and what a quiet one notices of busy neighbours.

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tests::compiled::WAKE;
use tests::node::Node;

use crate::competing::{Arena, Containers, Load, used};
use crate::{Outcome, processors, spread};

/// About half a minute.
const TICKS: &str = "2000";
const HOGS: usize = 15;
const MANY_HOGS: usize = 64;

pub(crate) fn measure(node: &Node, rounds: u32, window: Duration) -> Outcome<()> {
    let processors = u32::try_from(processors()?)?;
    caps(node, rounds, window)?;
    changes(node, rounds)?;
    alone(node, processors, window)?;
    wakes(node, processors, rounds)
}

/// What it uses of one processor, in percent.
fn rate(containers: &Containers, window: Duration) -> Outcome<f64> {
    let cgroup = containers.cgroups().pop().ok_or("no container")?;
    let (begun, before) = (Instant::now(), used(&cgroup)?);
    sleep(window);
    let (took, after) = (begun.elapsed(), used(&cgroup)?);
    Ok(after.saturating_sub(before).as_secs_f64() / took.as_secs_f64() * 100.0)
}

fn limit(node: &Node, percent: &str) {
    node.vzctl(["set", &Containers::number(0), "--cpulimit", percent, "--save"]).ok();
}

fn caps(node: &Node, rounds: u32, window: Duration) -> Outcome<()> {
    println!(
        "\ncpulimit: percent of one processor used by a container of four busy processes, median of {rounds} (least..most)"
    );
    let mut containers = Containers::of(node);
    containers.begin(&[1000], Load::Busy(4))?;
    for percent in ["10", "50", "150"] {
        limit(node, percent);
        sleep(Duration::from_millis(200));
        let used = (0..rounds).map(|_| rate(&containers, window)).collect::<Outcome<Vec<_>>>()?;
        let [median, least, most] = spread(&used);
        println!("  {percent:>4} %: {median:>8.2} ({least:.2}..{most:.2})");
    }
    limit(node, "0");
    containers.end()
}

/// From the call of the command until the container runs as slowly as it is to.
fn changes(node: &Node, rounds: u32) -> Outcome<()> {
    let mut containers = Containers::of(node);
    containers.begin(&[1000], Load::Busy(1))?;
    let cgroup = containers.cgroups().pop().ok_or("no container")?;
    let mut took = Vec::new();
    for _ in 0..rounds.max(5) {
        limit(node, "0");
        sleep(Duration::from_millis(500));
        let begun = Instant::now();
        limit(node, "10");
        let told = begun.elapsed();
        // In a period of 100 ms it may have no more than 10.
        let before = used(&cgroup)?;
        sleep(Duration::from_millis(100));
        let in_force = used(&cgroup)?.saturating_sub(before) < Duration::from_millis(30);
        took.push(if in_force { told.as_secs_f64() * 1000.0 } else { f64::INFINITY });
    }
    limit(node, "0");
    let [median, least, most] = spread(&took);
    println!("\nset --cpulimit 10 is in force when the command returns, after {median:.1} ms ({least:.1}..{most:.1})");
    containers.end()
}

fn alone(node: &Node, processors: u32, window: Duration) -> Outcome<()> {
    let mut containers = Containers::of(node);
    containers.begin(&[8], Load::Busy(processors))?;
    let used = rate(&containers, window)? / 100.0;
    println!("\none container of 8 units alone: {used:.3} of {processors} processors");
    containers.end()
}

fn wakes(node: &Node, processors: u32, rounds: u32) -> Outcome<()> {
    println!(
        "\nwaking up after a sleep of 10 ms, how late: milliseconds, median of {rounds} of the median, 99 %, and the worst"
    );
    let tool = WAKE.compiled()?;
    let mut containers = Containers::of(node);
    containers.begin(&[1000], Load::Busy(0))?;
    let number = Containers::number(0);
    WAKE.put(node, number.parse()?);
    let inside = || tests::program::capture(node.command("vzctl", ["exec2", &number, &format!("/wake {TICKS}")]));
    let outside = || {
        let mut wake = Command::new(&tool);
        wake.arg(TICKS);
        tests::program::capture(wake)
    };
    tell("a container, nobody busy", rounds, inside)?;
    tell("the host, nobody busy", rounds, outside)?;
    let busy = |count: usize| -> Outcome<Containers> {
        let mut all = Containers::of(node);
        all.begin(&vec![1000; count + 1], Load::Busy(0))?;
        for at in 1..=count {
            node.vzctl(["exec2", &Containers::number(at), &Load::Busy(processors).script()]).ok();
        }
        Ok(all)
    };
    containers.end()?;
    let mut hogs = busy(HOGS)?;
    tell(&format!("a container beside {HOGS} busy ones"), rounds, inside)?;
    hogs.end()?;
    let mut hogs = busy(MANY_HOGS)?;
    tell(&format!("the host beside {MANY_HOGS} busy containers"), rounds, outside)?;
    hogs.end()
}

fn tell<E: Into<Box<dyn std::error::Error>>>(
    what: &str,
    rounds: u32,
    wake: impl Fn() -> std::result::Result<String, E>,
) -> Outcome<()> {
    let mut late: [Vec<f64>; 3] = Default::default();
    for _ in 0..rounds {
        let said = wake().map_err(Into::into)?;
        let words: Vec<f64> = said.split_whitespace().map(str::parse).collect::<std::result::Result<_, _>>()?;
        late.iter_mut().zip(words).for_each(|(all, us)| all.push(us / 1000.0));
    }
    let [half, most, worst] = late.map(|all| spread(&all)[0]);
    println!("  {what:<44} {half:>8.2} {most:>8.2} {worst:>8.2}");
    Ok(())
}
