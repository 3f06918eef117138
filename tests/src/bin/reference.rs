//! Builds and boots the reference machine: `reference test`, `reference run`, `reference shell`. See `make help`.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, UNIX_EPOCH};

use clap::{Args, Parser, Subcommand};
use nix::sys::{prctl, signal::Signal};
use tests::containers;
use tests::machine::accelerator::Accelerator;
use tests::machine::disk::{Moment, Torn};
use tests::machine::qemu::Machine;
use tests::machine::{self, Job, guest, image, payload, power_cut, recipe::Recipe};
use tests::program;
use tests::suite::{self, Policy};

/// For a whole run; a machine still up after this is killed.
const RUN_LIMIT: Duration = Duration::from_secs(40 * 60);

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Args)]
struct Which {
    /// The release: 13 or 12.
    #[arg(long, default_value = "13")]
    debian: String,
    /// Only programs of these crates; of all of the workspace otherwise.
    #[arg(long = "package", short)]
    packages: Vec<String>,
    /// A template that is carried in beside those that all tests have: debian-12-programs.
    #[arg(long = "template")]
    templates: Vec<String>,
}

#[derive(Subcommand)]
enum What {
    /// Runs the tests that ask a kernel anything.
    Test {
        #[command(flatten)]
        which: Which,
        /// Only tests whose name contains this.
        test: Option<String>,
    },
    /// Gives a shell in the machine.
    Shell {
        #[command(flatten)]
        which: Which,
    },
    /// Runs one command in the machine, from the checkout; its output is ours, and whether it succeeded.
    Run {
        #[command(flatten)]
        which: Which,
        /// What bash is given: `target/release/bench --only overhead`.
        command: String,
    },
    /// Cuts the machine's power while containers write, again and again, and has it check their disk quota after each boot.
    PowerCut {
        /// The release: 13 or 12.
        #[arg(long, default_value = "13")]
        debian: String,
        /// How often.
        #[arg(long, default_value_t = 20)]
        times: u64,
        /// Decides when; printed, so that it can be given again.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// What the machine itself runs.
    #[command(hide = true)]
    Guest,
    #[command(hide = true)]
    GuestSuite,
    #[command(hide = true)]
    GuestPowerCut,
}

fn main() -> ExitCode {
    tests::verdict(match Arguments::parse().what {
        What::Test { which, test } => in_machine(&which, |job| job.filter = test.filter(|name| !name.is_empty())),
        What::Run { which, command } => in_machine(&which, |job| job.command = Some(command)),
        What::Shell { which } => shell_in(&which),
        What::PowerCut { debian, times, seed } => cut_power(&debian, times, seed),
        What::GuestPowerCut => power_cut::run(&mut io::stdout()).map(|()| true).map_err(Into::into),
        What::Guest => in_the_machine(),
        What::GuestSuite => guest::run_suite(&mut io::stdout()).map_err(Into::into),
    })
}

fn in_the_machine() -> Result<bool, Box<dyn Error>> {
    let mut suite = Command::new(std::env::current_exe()?);
    suite.arg("guest-suite");
    guest::main(suite)?;
    Ok(true)
}

struct Kept {
    recipe: Recipe,
    image: image::Image,
    qemu: PathBuf,
}

fn keep(release: &str) -> Result<Kept, Box<dyn Error>> {
    let recipe = Recipe::read()?;
    let qemu = image::ensure_qemu(&recipe)?;
    let image = image::ensure_image(&recipe, release)?;
    Ok(Kept { recipe, image, qemu })
}

/// The job, and the programs it needs beside the test programs.
fn job(which: &Which) -> Result<(Job, Vec<PathBuf>), Box<dyn Error>> {
    let policy = Policy::read()?;
    let mut built = suite::build(&which.packages)?;
    // Not cargo's, and needs a compiler.
    for tool in tests::compiled::ALL {
        built.binaries.push(tool.compiled().map_err(|why| carried("a tool of the tests", why.to_string()))?);
    }
    let template = |name: &str| containers::archive_of(name).map_err(|why| carried("a template", why));
    let default = tests::target_dir().join("release/vzctl");
    // What is measured is measured in a release build, if one was made.
    built.binaries.push(tests::target_dir().join("release/bench"));
    let job = Job {
        shell: None,
        command: None,
        power_cut: false,
        filter: None,
        programs: policy.for_another_kernel(&built.programs),
        limit_seconds: policy.limit_seconds,
        checkout: tests::checkout().to_owned(),
        vz_bin: std::env::var_os("VZ_BIN").map_or(default, PathBuf::from),
        templates: containers::DEBIAN
            .into_iter()
            .chain(which.templates.iter().map(String::as_str))
            .map(template)
            .collect::<Result<_, _>>()?,
    };
    Ok((job, built.binaries))
}

fn carried(what: &'static str, why: String) -> machine::Error {
    machine::Error::Carried { what, why }
}

fn in_machine(which: &Which, asked: impl FnOnce(&mut Job)) -> Result<bool, Box<dyn Error>> {
    prctl::set_pdeathsig(Signal::SIGTERM)?; // nobody is left to read the result
    let release = &which.debian;
    let (mut job, binaries) = job(which)?;
    asked(&mut job);
    let kept = keep(release)?;
    let last = fresh(&image::directory()?.join(format!("last-debian-{release}")))?;
    let directory = image::directory_of_a_run()?;
    payload::write(&job, &binaries, &directory.path().join("payload"), &directory.path().join("payload.img"))?;
    let machine = machine_of(&kept, directory.path(), &last)?;
    println!("== booting Debian {release} under {:?}, at most {} min", machine.accelerator, RUN_LIMIT.as_secs() / 60);
    let status = machine.run(RUN_LIMIT, &mut io::stdout())?;

    let mut unpack = Command::new("tar");
    unpack.arg("--extract").arg("--file").arg(machine.results()).arg("--directory").arg(&last);
    let sent = program::run(unpack).is_ok();
    let (passed, failed) = (last.join("passed").exists(), last.join("failed").exists());
    if !sent || !(passed || failed) {
        let console = last.join("console").display().to_string();
        return Err(machine::Error::Died { status, console }.into());
    }
    if last.join("skips").exists() {
        fs_err::create_dir_all(tests::target_dir().join("skips"))?;
        fs_err::copy(last.join("skips"), tests::target_dir().join(format!("skips/reference-{release}")))?;
    }
    println!("== its journal and console are in {}", last.display());
    Ok(passed && !failed)
}

fn shell_in(which: &Which) -> Result<bool, Box<dyn Error>> {
    let size = rustix::termios::tcgetwinsize(io::stdin())?;
    let (mut job, binaries) = job(which)?;
    job.shell = Some((size.ws_row, size.ws_col));
    let release = &which.debian;
    let kept = keep(release)?;
    let last = fresh(&image::directory()?.join(format!("shell-debian-{release}")))?;
    let directory = image::directory_of_a_run()?;
    payload::write(&job, &binaries, &directory.path().join("payload"), &directory.path().join("payload.img"))?;
    Ok(machine_of(&kept, directory.path(), &last)?.run_interactive()?.success())
}

/// From power on to the writers at work, with the containers' first making.
const WORK_LIMIT: Duration = Duration::from_secs(10 * 60);

fn cut_power(release: &str, times: u64, seed: Option<u64>) -> Result<bool, Box<dyn Error>> {
    prctl::set_pdeathsig(Signal::SIGTERM)?;
    let template = |name| containers::archive_of(name).map_err(|why| carried("a template", why));
    let job = Job {
        shell: None,
        command: None,
        power_cut: true,
        filter: None,
        programs: Vec::new(),
        limit_seconds: WORK_LIMIT.as_secs(),
        checkout: tests::checkout().to_owned(),
        vz_bin: tests::node::binary(),
        templates: ["busybox"].into_iter().map(template).collect::<Result<_, _>>()?,
    };
    let kept = keep(release)?;
    let last = fresh(&image::directory()?.join(format!("power-cut-debian-{release}")))?;
    let directory = image::directory_of_a_run()?;
    payload::write(&job, &[], &directory.path().join("payload"), &directory.path().join("payload.img"))?;
    let machine = machine_of(&kept, directory.path(), &last)?;
    let seed = match seed {
        Some(seed) => seed,
        None => UNIX_EPOCH.elapsed()?.as_secs(),
    };
    // One boot more than cuts: the last cut is checked too.
    for round in 1..=times + 1 {
        let chosen = mixed(seed.wrapping_add(round));
        let moment = Moment { after: Duration::from_millis(1000 + chosen % 7000), blocks: 1 + chosen as usize % 100 };
        println!(
            "== boot {round}, seed {seed}: power goes {} ms after the writers are at work, with {} blocks not flushed",
            moment.after.as_millis(),
            moment.blocks
        );
        let mut block = 0_u64;
        let survives = || {
            block += 1;
            mixed(seed ^ mixed(round << 32 | block)) & 1 == 1
        };
        let Some(Torn { kept, lost }) =
            machine.cut_power(power_cut::AT_WORK, moment, WORK_LIMIT, survives, &mut io::stdout())?
        else {
            println!("== FAILED after {} cuts; the console is {}", round - 1, machine.console.display());
            return Ok(false);
        };
        println!("   cut: of {} blocks that were not flushed {lost} are lost", kept + lost);
    }
    println!("== right after each of {times} power cuts");
    Ok(true)
}

/// A number that shows nothing of the one it is made of (the finish of splitmix64).
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    number ^ (number >> 31)
}

fn machine_of<'a>(kept: &'a Kept, directory: &'a Path, last: &Path) -> Result<Machine<'a>, machine::Error> {
    let accelerator = Accelerator::find(&kept.qemu, &kept.image, directory)?;
    let (recipe, image, qemu) = (&kept.recipe, &kept.image, &kept.qemu);
    Ok(Machine { recipe, image, qemu, accelerator, directory, console: last.join("console") })
}

/// An empty directory for what this run leaves to read.
fn fresh(path: &Path) -> Result<PathBuf, Box<dyn Error>> {
    if path.exists() {
        fs_err::remove_dir_all(path)?;
    }
    fs_err::create_dir_all(path)?;
    Ok(path.to_owned())
}
