//! Building what the machine boots from, once, and keeping it under `target/reference/`.
//!
//! `mmdebstrap` is told the suite for one command, so neither this host's apt sources nor its packages change.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};

use super::{Error, recipe};
use crate::program::{self, run};

/// What QEMU needs to boot one release.
#[derive(Debug)]
pub struct Image(PathBuf);

impl Image {
    /// The root file system, ext4 on the bare disk.
    pub fn disk(&self) -> PathBuf {
        self.0.join("root.img")
    }
    /// The kernel, loaded by QEMU itself: no boot loader, no firmware menu.
    pub fn kernel(&self) -> PathBuf {
        self.0.join("vmlinuz")
    }
    /// The initial file system with the three drivers the root needs.
    pub fn initrd(&self) -> PathBuf {
        self.0.join("initrd.img")
    }
}

/// Where images and runs live.
///
/// # Errors
/// It cannot be made.
pub fn directory() -> Result<PathBuf, Error> {
    let directory = crate::target_dir().join("reference");
    fs_err::create_dir_all(&directory)?;
    Ok(directory)
}

/// A directory for one run, removed with its owner; those whose owner was killed are removed now.
///
/// # Errors
/// It cannot be made, or an old one not be removed.
pub fn directory_of_a_run() -> Result<tempfile::TempDir, Error> {
    let directory = directory()?;
    for entry in fs_err::read_dir(&directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let owner = name.strip_prefix("run-").and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            fs_err::remove_dir_all(path)?;
        }
    }
    Ok(tempfile::Builder::new().prefix(&format!("run-{}-", std::process::id())).tempdir_in(directory)?)
}

/// The image of one release: the one kept, if nothing it is made of has changed.
///
/// # Errors
/// A package cannot be had, or a program failed (it has said why on stderr).
pub fn ensure_image(recipe: &recipe::Recipe, release: &str) -> Result<Image, Error> {
    let (suite, mirror) = (recipe.suite(release)?, recipe::mirror()?);
    let key = recipe::fingerprint(&[suite, &mirror])?;
    let kept = keep(&format!("debian-{release}-"), &key, |new| {
        let root = new.join("root");
        debootstrap(recipe, suite, &mirror, &root)?;
        for file in ["vmlinuz", "initrd.img"] {
            fs_err::copy(root.join(file), new.join(file))?;
        }
        make_ext4(&new.join("root.img"), "3G", &["-L", "root"], Some(&root))?;
        Ok(fs_err::remove_dir_all(root)?)
    })?;
    Ok(Image(kept))
}

/// The tree QEMU lives in, with all its libraries: unpacked, not installed.
///
/// # Errors
/// A package cannot be had, or a program failed (it has said why on stderr).
pub fn ensure_qemu(recipe: &recipe::Recipe) -> Result<PathBuf, Error> {
    let (suite, mirror) = (&recipe.qemu_suite, recipe::mirror()?);
    keep("qemu-", &recipe::fingerprint_of(&[suite, &mirror]), |new| {
        let mut command = mmdebstrap("extract");
        command.args(["--include=qemu-system-x86", suite]).arg(new.join("tree")).arg(&mirror);
        with_packages(command, "QEMU", &mirror)
    })
}

/// Makes `directory/prefix-key` by `build` unless it is there, under a lock, and forgets those with other keys.
/// What `build` leaves half done is never seen: it works in a directory of another name.
fn keep(prefix: &str, key: &str, build: impl FnOnce(&Path) -> Result<(), Error>) -> Result<PathBuf, Error> {
    let directory = directory()?;
    let lock = fs_err::File::create(directory.join("lock"))?.into_parts().0;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| std::io::Error::from(errno))?;
    let kept = directory.join(format!("{prefix}{key}"));
    if kept.exists() {
        return Ok(kept);
    }
    eprintln!("building {} (once)", kept.display());
    let new = directory.join(format!("new-{prefix}{key}"));
    for entry in fs_err::read_dir(&directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.trim_start_matches("new-").starts_with(prefix) {
            fs_err::remove_dir_all(path)?;
        }
    }
    fs_err::create_dir(&new)?;
    build(&new)?;
    fs_err::rename(&new, &kept)?;
    Ok(kept)
}

fn mmdebstrap(variant: &str) -> Command {
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--mode=root"]).arg(format!("--variant={variant}"));
    command.current_dir(recipe::directory()); // its copy-in hook knows no paths with spaces
    command
}

fn debootstrap(recipe: &recipe::Recipe, suite: &str, mirror: &str, root: &Path) -> Result<(), Error> {
    let mut command = mmdebstrap("minbase");
    command.arg(format!("--include={}", recipe.packages.join(",")));
    // Before the kernel is unpacked: its post-install script builds the initrd by our configuration.
    command.arg("--essential-hook=copy-in root/etc /");
    command.arg(format!("--customize-hook=chroot \"$1\" systemctl --quiet mask {}", recipe.masked_units.join(" ")));
    command.arg("--customize-hook=chroot \"$1\" systemctl --quiet enable reference.service");
    command.arg("--customize-hook=chroot \"$1\" passwd --delete root");
    command.arg("--customize-hook=mkdir \"$1\"/vz \"$1\"/payload");
    // A machine id of its own: systemd would take the first boot for an installation, and preset all units anew.
    command.arg("--customize-hook=echo 7265666572656e63657265666572656e > \"$1\"/etc/machine-id");
    command.args([suite]).arg(root).arg(mirror);
    with_packages(command, suite, mirror)
}

fn with_packages(command: Command, what: &str, mirror: &str) -> Result<(), Error> {
    run(command).map_err(|source| Error::Packages { what: what.to_owned(), mirror: mirror.to_owned(), source })
}

/// Makes a sparse file with an ext4 file system of this size, filled from a directory.
///
/// # Errors
/// `mkfs.ext4` failed.
pub fn make_ext4(file: &Path, size: &str, options: &[&str], from: Option<&Path>) -> Result<(), Error> {
    let mut command = Command::new("mkfs.ext4");
    command.args(["-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1,discard"]).args(options);
    if let Some(from) = from {
        command.arg("-d").arg(from);
    }
    command.arg(file).arg(size);
    program::capture(command)?;
    Ok(())
}
