//! How long a limit of disk takes to be set and to be read, with few areas and with many.

use std::error::Error;
use std::time::{Duration, Instant};

use quota::image::{self, Size};
use quota::owned::{self, Ids};
use quota::project::{Support, support};
use quota::{EffectiveLimits, Limit, SoftHard};
use tests::node::Node;

use crate::measure::Timings;

/// Project ids that no node has by default.
const FIRST_ID: u32 = 3_000_000_000;
/// The smallest that there is.
const IMAGE_BYTES: u64 = 16 << 20;

pub(crate) fn measure(rounds: u32, node: &Node) -> Result<(), Box<dyn Error>> {
    let projects = support(&node.path("private"))? == Support::Available;
    println!(
        "\na limit of disk, {} (aim: less than 1 ms)",
        if projects { "project quota" } else { "images: the size is the limit, and read with statfs(2)" }
    );
    for areas in [10, 1000] {
        if projects { of_projects(rounds, node, areas)? } else { of_images(rounds, node, areas)? }
    }
    Ok(())
}

fn of_projects(rounds: u32, node: &Node, areas: u32) -> Result<(), Box<dyn Error>> {
    let ids = Ids::new(FIRST_ID, FIRST_ID + 10 * areas).ok_or("no ids")?;
    let above = tempfile::tempdir_in(node.path("private"))?;
    let mut made = Vec::new();
    for number in 0..areas {
        let area = above.path().join(number.to_string());
        fs_err::create_dir(&area)?;
        made.push(owned::own(&area, ids)?);
    }
    let (mut set, mut read) = (Timings::default(), Timings::default());
    for (at, project) in made.iter().cycle().take((rounds * 10).max(areas) as usize).enumerate() {
        let both = |limit: u64| SoftHard { soft: Limit::Of(limit), hard: Limit::Of(limit) };
        let limits = EffectiveLimits { space_kib: both(1024 + at as u64), inodes: both(1000), grace_s: None };
        set.add(taken(|| project.set_limits(&limits))?);
        read.add(taken(|| project.status())?);
    }
    for project in &made {
        project.clear_limits()?;
    }
    print(areas, "set", &set);
    print(areas, "read", &read);
    Ok(())
}

fn of_images(rounds: u32, node: &Node, areas: u32) -> Result<(), Box<dyn Error>> {
    let above = tempfile::tempdir_in(node.path("private"))?;
    let mut mounted = Vec::new();
    for number in 0..areas {
        let file = above.path().join(number.to_string());
        image::create(&file, Size::Image(IMAGE_BYTES), 64)?;
        let device = image::attach(&file)?;
        mounted.push(image::mount(&device)?);
    }
    let mut read = Timings::default();
    for mount in mounted.iter().cycle().take((rounds * 10).max(areas) as usize) {
        read.add(taken(|| image::usage(mount))?);
    }
    print(areas, "read", &read);
    Ok(())
}

fn taken<T, E>(work: impl FnOnce() -> Result<T, E>) -> Result<Duration, E> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

fn print(areas: u32, what: &str, timings: &Timings) {
    let us = |part: f64| timings.quantile(part).as_secs_f64() * 1e6;
    let spread = format!("{:.1}..{:.1}", us(0.1), us(0.9));
    println!("  {areas:>5} areas, {what:<5} n = {:<5} {:>8.1} us {spread:>18} us", timings.len(), us(0.5));
}
