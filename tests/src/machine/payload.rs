//! What the machine is given: this checkout, its programs and a job, on a disk.
//!
//! A disk with a file system, not an archive: under emulation only what is read costs time. Not 9p or virtiofs:
//! Debian's cloud kernel has the one not, the other needs a daemon here.

use std::path::Path;
use std::process::Command;

use super::image::make_ext4;
use super::{Error, Job};
use crate::program::{capture, run};

/// Writes the disk image `disk`; `scratch` is an empty directory for it.
///
/// # Errors
/// A file cannot be read or written, or a program failed.
pub fn write(job: &Job, binaries: &[std::path::PathBuf], scratch: &Path, disk: &Path) -> Result<(), Error> {
    let to = scratch.join("checkout");
    fs_err::create_dir_all(&to)?;
    copy_sources(crate::checkout(), &to)?;
    let programs = job.programs.iter().map(|program| &program.path);
    let beside = ["vzrt", "vzubc-load"].map(|name| job.vz_bin.with_file_name(name));
    for program in programs.chain(binaries).chain([&job.vz_bin]).chain(&beside) {
        carry(program, &to)?;
    }
    let templates = scratch.join("templates");
    fs_err::create_dir_all(&templates)?;
    for archive in &job.templates {
        fs_err::copy(archive, templates.join(archive.file_name().unwrap_or_default()))?;
    }
    // By its inode: cargo may have put a newer one in its place since we started.
    let ourselves = format!("/proc/{}/exe", std::process::id());
    strip(Path::new(&ourselves), &scratch.join("reference"))?;
    let text = serde_json::to_vec_pretty(job).map_err(|source| Error::Json { what: "job.json", source })?;
    fs_err::write(scratch.join("job.json"), text)?;

    let mut du = Command::new("du");
    du.args(["--summarize", "--block-size=1M"]).arg(scratch);
    let used_mib: u64 = capture(du)?.split_whitespace().next().and_then(|mib| mib.parse().ok()).unwrap_or(2048);
    make_ext4(disk, &format!("{}M", used_mib * 5 / 4 + 256), &["-L", "payload"], Some(scratch))?;
    Ok(fs_err::remove_dir_all(scratch)?)
}

/// All but what was built and the history; through `tar`, which keeps modes and links.
fn copy_sources(from: &Path, to: &Path) -> Result<(), Error> {
    let archive = to.with_extension("tar");
    let mut pack = Command::new("tar");
    pack.args(["--create", "--exclude-vcs", "--exclude=./target", "--file"]).arg(&archive).arg("-C").arg(from).arg(".");
    run(pack)?;
    let mut unpack = Command::new("tar");
    unpack.args(["--extract", "--file"]).arg(&archive).arg("-C").arg(to);
    run(unpack)?;
    Ok(fs_err::remove_file(archive)?)
}

/// Puts one program at its own place below the checkout's copy; one from elsewhere is not ours to carry.
fn carry(program: &Path, checkout: &Path) -> Result<(), Error> {
    let Ok(relative) = program.strip_prefix(crate::checkout()) else { return Ok(()) };
    let to = checkout.join(relative);
    if program.exists() && !to.exists() {
        fs_err::create_dir_all(to.parent().unwrap_or(checkout))?;
        strip(program, &to)?;
    }
    Ok(())
}

/// Without debugging information: nine tenths of a test program, and nothing in there reads it.
fn strip(program: &Path, to: &Path) -> Result<(), Error> {
    let mut command = Command::new("strip");
    command.arg("--strip-debug").arg("-o").arg(to).arg(program);
    Ok(run(command)?)
}
