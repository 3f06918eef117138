//! What writing through an image costs: the same amount, in turn into a container of the ploop layout and into the file system that its image
//! is a file of, by the same program.

use std::error::Error;
use std::process::Command;

use tests::node::Node;

use crate::measure::{Timings, time};

/// Enough that entering the container, some milliseconds, does not count.
const MIB: u64 = 1024;

pub(crate) fn measure(rounds: u32, node: &Node) -> Result<(), Box<dyn Error>> {
    node.run("vzpkg", ["create", "cache", "busybox"]).ok();
    node.vzctl(["create", "104", "--ostemplate", "busybox", "--layout", "ploop", "--diskspace", "3G"]).ok();
    node.vzctl(["start", "104"]).ok();
    let result = compare(rounds, node);
    node.vzctl(["stop", "104", "--fast"]).ok();
    node.vzctl(["destroy", "104"]).ok();
    result
}

fn compare(rounds: u32, node: &Node) -> Result<(), Box<dyn Error>> {
    let outside = node.path("private/written");
    let (mut beside, mut through) = (Timings::default(), Timings::default());
    // A shell on both sides, for that is what runs the line inside.
    let line = |file: &str| format!("dd if=/dev/zero of={file} bs=1M count={MIB} conv=fsync 2>/dev/null && rm {file}");
    for round in 0..=rounds.min(10) {
        let mut plain = Command::new("sh");
        plain.args(["-c", &line(&outside.display().to_string())]);
        let times = (time(plain)?, time(node.command("vzctl", ["exec", "104", &line("/written")]))?);
        // The first round takes the blocks.
        if round > 0 {
            beside.add(times.0);
            through.add(times.1);
        }
    }
    let speed = |times: &Timings| MIB as f64 / times.quantile(0.5).as_secs_f64();
    println!("\n{MIB} MiB written and synced, in turn, n = {}; medians", beside.len());
    println!("  {:<34} {:>8.0} MiB/s", "the file system of the image", speed(&beside));
    println!(
        "  {:<34} {:>8.0} MiB/s, {:.2} of it (aim: 0.95)",
        "a container in the image",
        speed(&through),
        speed(&through) / speed(&beside)
    );
    Ok(())
}
