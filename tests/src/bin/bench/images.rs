//! What writing inside costs: the same amount, in turn into a container of each layout and into the file system that its area is on, by the
//! same program, which ends when all is on the disk.

use std::error::Error;
use std::process::Command;

use tests::node::Node;

use crate::measure::{Timings, time};

/// Enough that entering the container, some milliseconds, does not count.
const MIB: u64 = 1024;

pub(crate) fn measure(rounds: u32, node: &Node) -> Result<(), Box<dyn Error>> {
    node.run("vzpkg", ["create", "cache", "busybox"]).ok();
    for (layout, aim) in [("simfs", 0.98), ("ploop", 0.95)] {
        node.vzctl(["create", "104", "--ostemplate", "busybox", "--layout", layout, "--diskspace", "3G"]).ok();
        node.vzctl(["start", "104"]).ok();
        let of = match layout {
            "simfs" if node.path("private/104/root.img").exists() => "simfs, an image",
            "simfs" => "simfs, a directory",
            _ => layout,
        };
        let result = compare(rounds, node, of, aim);
        node.vzctl(["stop", "104", "--fast"]).ok();
        node.vzctl(["destroy", "104"]).ok();
        result?;
    }
    Ok(())
}

fn compare(rounds: u32, node: &Node, layout: &str, aim: f64) -> Result<(), Box<dyn Error>> {
    let outside = node.path("private/written").display().to_string();
    let (mut beside, mut through, mut ratios) = (Timings::default(), Timings::default(), Vec::new());
    // A shell on both sides, for that is what runs the line inside. Deleting is not measured.
    let line = |file: &str| format!("dd if=/dev/zero of={file} bs=1M count={MIB} conv=fsync 2>/dev/null");
    let plain = || {
        let mut command = Command::new("sh");
        command.args(["-c", &line(&outside)]);
        time(command)
    };
    let inside = || time(node.command("vzctl", ["exec", "104", &line("/written")]));
    for round in 0..=rounds.min(10) {
        // The one that is second finds the disk as the first has left it.
        let (out, through_it) = if round % 2 == 0 {
            let out = plain()?;
            (out, inside()?)
        } else {
            let through_it = inside()?;
            (plain()?, through_it)
        };
        fs_err::remove_file(&outside)?;
        time(node.command("vzctl", ["exec", "104", "rm /written; sync"]))?;
        // The first round takes the blocks.
        if round > 0 {
            beside.add(out);
            through.add(through_it);
            ratios.push(out.as_secs_f64() / through_it.as_secs_f64());
        }
    }
    ratios.sort_by(f64::total_cmp);
    let speed = |times: &Timings| MIB as f64 / times.quantile(0.5).as_secs_f64();
    let part = |part: f64| ratios[((ratios.len() - 1) as f64 * part).round() as usize];
    println!("\n{MIB} MiB written and synced, in turn, {} pairs; medians", beside.len());
    println!("  {:<34} {:>8.0} MiB/s", "the file system of the area", speed(&beside));
    println!(
        "  {:<34} {:>8.0} MiB/s, {:.2} of it ({:.2}..{:.2}; aim: {aim})",
        format!("a container ({layout})"),
        speed(&through),
        part(0.5),
        part(0.1),
        part(0.9)
    );
    Ok(())
}
