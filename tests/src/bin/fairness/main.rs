//! How fair CPU time and block I/O are divided: each container's part beside its entitlement, beside the same in plain cgroups made by hand, which is
//! what the kernel can do, and CPU time in LXC too. Prints tables with medians and spreads, keeps the figures for plots; asserts nothing. Ends by
//! itself. `make bench-fairness`.

mod competing;
mod entitled;
mod io;
mod limits;
mod lxc;
mod plot;
mod shares;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tests::containers::node_with;

type Outcome<T> = Result<T, Box<dyn Error>>;

#[derive(Parser)]
struct Arguments {
    /// How often each thing is measured.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// How long CPU time is counted.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// What is measured; all of it unless told.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// The most containers at one time.
    #[arg(long, default_value_t = 64)]
    most: usize,
    /// Where figures and plots go.
    #[arg(long, default_value = "target/fairness")]
    to: PathBuf,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Parts of all processors: equal weights and 1:2:4:8, and different ways to be busy.
    Shares,
    /// `cpulimit`, how soon a change is in force, one alone, and how late a quiet container and the host wake up beside busy ones.
    Limits,
    /// Block I/O: parts by `ioprio`, `iolimit` and `iopslimit`, on a disk of its own.
    Io,
}

fn main() -> ExitCode {
    tests::verdict(go(&Arguments::parse()).map(|()| true))
}

fn go(arguments: &Arguments) -> Outcome<()> {
    let Some(node) = node_with("fairness", "busybox") else { return Ok(()) };
    println!("{}", tests::machine_in_a_line()?);
    fs_err::create_dir_all(&arguments.to)?;
    let window = Duration::from_secs(arguments.seconds);
    let wanted = |part| arguments.only.is_empty() || arguments.only.contains(&part);
    if wanted(Part::Shares) {
        shares::measure(&node, arguments, window)?;
    }
    if wanted(Part::Limits) {
        limits::measure(&node, arguments.rounds, window)?;
    }
    if wanted(Part::Io) {
        io::measure(&node, arguments.rounds, window)?;
    }
    Ok(())
}

fn processors() -> Outcome<usize> {
    Ok(std::thread::available_parallelism()?.get())
}

/// The middle one, the least and the most.
fn spread(values: &[f64]) -> [f64; 3] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |part: usize| sorted.get(part).copied().unwrap_or(f64::NAN);
    [at(sorted.len() / 2), at(0), at(sorted.len().saturating_sub(1))]
}
