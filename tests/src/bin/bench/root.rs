//! The root file system that all runtimes are given: busybox, and an init that tells when it ran.

use std::error::Error;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::compiled::{TICK, WORK};
use tests::program::run;

/// What uid 0 inside is outside, for all runtimes.
pub(crate) const BASE_ID: u32 = 100_000;
/// How many ids a container has.
pub(crate) const ID_COUNT: u32 = 65_536;

/// The same files three times, as the three ways of giving ids to a container want them.
pub(crate) struct Roots {
    /// Owned by [`BASE_ID`], for runtimes that map ids and shift no files.
    pub(crate) shifted: PathBuf,
    /// Owned by root, for a user namespace of one id.
    pub(crate) plain: PathBuf,
    /// A template cache.
    pub(crate) archive: PathBuf,
}

pub(crate) fn make(directory: &Path) -> Result<Roots, Box<dyn Error>> {
    let plain = directory.join("plain");
    for part in ["bin", "sbin", "etc", "dev", "proc", "sys", "run", "tmp", "root", "var"] {
        fs_err::create_dir_all(plain.join(part))?;
    }
    for (program, tool) in [("sbin/init", TICK), ("bin/work", WORK)] {
        fs_err::copy(tool.compiled()?, plain.join(program))?;
    }
    fs_err::copy("/usr/bin/busybox", plain.join("bin/busybox"))?;
    for applet in ["sh", "true", "cat", "hostname", "halt"] {
        symlink("busybox", plain.join("bin").join(applet))?;
    }
    fs_err::write(plain.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs_err::write(plain.join("etc/group"), "root:x:0:\n")?;

    let (shifted, archive) = (directory.join("shifted"), directory.join("bench.tar"));
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(&plain).arg(&shifted);
    run(copy)?;
    let mut chown = Command::new("chown");
    chown.args(["--recursive", "--no-dereference", &format!("{BASE_ID}:{BASE_ID}")]).arg(&shifted);
    run(chown)?;
    let mut tar = Command::new("tar");
    tar.arg("--create").arg("--file").arg(&archive).arg("-C").arg(&plain).arg(".");
    run(tar)?;
    Ok(Roots { shifted, plain, archive })
}
