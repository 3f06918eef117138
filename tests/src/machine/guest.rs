//! What happens inside the machine: the only program its `reference.service` starts.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::mount::{MsFlags, mount};

use super::{Error, Job, time_factor};
use crate::containers::store_below;
use crate::program::{capture, run};
use crate::suite::{self, Options};
use crate::wait::{TIME_FACTOR_VARIABLE, wait_until};

const PAYLOAD: &str = "/payload";
/// The disk with project quota.
const VZ: &str = "/vz";
const RESULTS: &str = "/run/reference/results";

/// Whether this is such a machine: a test may do to it what it would do to no machine that somebody needs.
pub fn is_here() -> bool {
    let named = fs_err::read_to_string("/etc/hostname").is_ok_and(|name| name.trim() == "reference");
    named && Path::new(PAYLOAD).join("job.json").exists() && Path::new("/etc/systemd/system/reference.service").exists()
}

/// Runs the job on the payload disk and sends its result; the unit turns the machine off when this returns.
///
/// # Errors
/// The job or the ports are not there.
pub fn main(mut run_tests: Command) -> Result<(), Error> {
    let text = fs_err::read(Path::new(PAYLOAD).join("job.json"))?;
    let job: Job = serde_json::from_slice(&text).map_err(|source| Error::Json { what: "job.json", source })?;
    fs_err::create_dir_all(&job.checkout)?;
    let checkout = Path::new(PAYLOAD).join("checkout");
    mount(Some(&checkout), &job.checkout, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(std::io::Error::from)?;
    if job.power_cut {
        return between_cuts(&job);
    }
    place_templates()?;
    if let Some((rows, columns)) = job.shell {
        return shell(&job, rows, columns);
    }
    if let Some(command) = &job.command {
        run_tests = Command::new("bash");
        run_tests.args(["-c", command]).env("HOME", "/root").current_dir(&job.checkout);
    }
    let output = port("output")?;
    let status =
        run_tests.envs(environment(&job)?).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).status()?;
    send(status.success())
}

/// The machine checks and writes; it is off before this returns, or something is wrong.
fn between_cuts(job: &Job) -> Result<(), Error> {
    // Once: what the disk has outlives the machine.
    if !store_below(Path::new(VZ)).exists() {
        place_templates()?;
    }
    let names = Path::new("/run/reference/bin");
    fs_err::create_dir_all(names)?;
    for name in ["vzctl", "vzlist", "vzquota"] {
        std::os::unix::fs::symlink(&job.vz_bin, names.join(name))?;
    }
    let mut output = port("output")?;
    let mut work = Command::new(std::env::current_exe()?);
    work.arg("guest-power-cut").env("VZ_CONFDIR", "/vz/node/etc");
    work.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", names.display()));
    let status = work.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?).status()?;
    writeln!(output, "== {status}")?;
    send(false)
}

/// What test programs are told of this machine.
fn environment(job: &Job) -> Result<[(&'static str, OsString); 4], Error> {
    Ok([
        (TIME_FACTOR_VARIABLE, format!("{:.1}", time_factor()?).into()),
        ("VZ_BIN", job.vz_bin.clone().into()),
        (crate::node::DIRECTORY_VARIABLE, VZ.into()),
        ("VZ_TEST_PRJQUOTA_DIR", VZ.into()),
    ])
}

/// Where tests look for templates before they make them.
fn place_templates() -> Result<(), Error> {
    let cache = store_below(Path::new(VZ)).join("cache");
    fs_err::create_dir_all(&cache)?;
    for archive in fs_err::read_dir(Path::new(PAYLOAD).join("templates"))? {
        let archive = archive?;
        fs_err::copy(archive.path(), cache.join(archive.file_name()))?;
    }
    Ok(())
}

/// The second half of [`main`], in a process of its own that has the right environment: the same as on the host.
///
/// # Errors
/// The output cannot be written.
pub fn run_suite(out: &mut dyn Write) -> Result<bool, Error> {
    let text = fs_err::read(Path::new(PAYLOAD).join("job.json"))?;
    let job: Job = serde_json::from_slice(&text).map_err(|source| Error::Json { what: "job.json", source })?;
    let up = fs_err::read_to_string("/proc/uptime")?;
    let release = fs_err::read_to_string("/proc/sys/kernel/osrelease")?;
    let factor = std::env::var(TIME_FACTOR_VARIABLE).unwrap_or_default();
    let up = up.split('.').next().unwrap_or_default();
    writeln!(out, "== {} with Linux {}, up {up} s, {factor} times slower", suite::kind_of_host(), release.trim())?;
    let limit = Duration::from_secs(job.limit_seconds);
    let report = suite::run(&job.programs, &Options { filter: job.filter, limit }, out)?;
    Ok(report.close("reference", &suite::kind_of_host(), out)?)
}

/// The device file of a port that QEMU gave a name; its driver may still be loading.
fn port(name: &'static str) -> Result<File, Error> {
    let mut found = None;
    let appeared = wait_until(Duration::from_secs(60), || {
        let ports = fs_err::read_dir("/sys/class/virtio-ports").into_iter().flatten().flatten();
        found = ports
            .map(|entry| entry.path())
            .find(|path| fs_err::read_to_string(path.join("name")).is_ok_and(|text| text.trim() == name))
            .and_then(|path| Some(Path::new("/dev").join(path.file_name()?)));
        found.as_ref().is_some_and(|device: &PathBuf| device.exists())
    });
    match found.filter(|_| appeared) {
        None => Err(Error::NoPort { name }),
        Some(device) => Ok(fs_err::OpenOptions::new().write(true).open(device)?.into_parts().0),
    }
}

/// The result and what a person will want to look at, as a tar archive; its name `passed` or `failed` is the verdict.
fn send(passed: bool) -> Result<(), Error> {
    let results = Path::new(RESULTS);
    fs_err::create_dir_all(results)?;
    for (file, program, arguments) in [
        ("journal", "journalctl", &["--boot", "--no-pager", "--output=short-monotonic"][..]),
        ("dmesg", "dmesg", &[]),
        ("failed-units", "systemctl", &["--failed", "--no-legend", "--plain"]),
        ("boot", "systemd-analyze", &["blame", "--no-pager"]),
    ] {
        let mut command = Command::new(program);
        command.args(arguments);
        fs_err::write(results.join(file), capture(command).unwrap_or_else(|error| error.to_string()))?;
    }
    let skips = crate::target_dir().join("skips/reference");
    if skips.exists() {
        fs_err::copy(skips, results.join("skips"))?;
    }
    fs_err::write(results.join(if passed { "passed" } else { "failed" }), "")?;
    let mut tar = Command::new("tar");
    tar.args(["--create", "--directory", RESULTS, "."]).stdout(port("results")?);
    Ok(run(tar)?)
}

/// An interactive shell on the console; the machine ends with it.
fn shell(job: &Job, rows: u16, columns: u16) -> Result<(), Error> {
    let console =
        || fs_err::OpenOptions::new().read(true).write(true).open("/dev/hvc0").map(|file| file.into_parts().0);
    let mut greeting = console()?; // held: a terminal that nobody has open forgets its size
    let mut stty = Command::new("stty");
    stty.args(["sane", "rows", &rows.to_string(), "cols", &columns.to_string(), "--file=/dev/hvc0"]);
    run(stty)?;
    writeln!(
        greeting,
        "The checkout is in {}; /vz has project quota; `exit` ends the machine.",
        job.checkout.display()
    )?;
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", job.vz_bin.parent().unwrap_or(Path::new("/")).display());
    let mut command = Command::new("setsid");
    command.args(["--ctty", "--wait", "bash", "--login"]).current_dir(&job.checkout);
    command.env("TERM", "xterm-256color").env("HOME", "/root").env("PATH", path);
    command.envs(environment(job)?); // so that test programs work when they are run by hand
    command.stdin(console()?).stdout(console()?).stderr(console()?);
    command.status()?; // whatever the last command in it returned
    Ok(())
}
