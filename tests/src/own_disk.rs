//! Disks of a test's own: loop devices, whose scheduler and limits are nobody else's.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::node::DIRECTORY_VARIABLE;
use crate::program::{capture, run};

/// A command line of these words.
///
/// # Panics
/// There is none.
pub fn command(words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command
}

/// A file system on a loop device, for the private areas of a node; gone with this value.
#[derive(Debug)]
pub struct OwnDisk {
    device: String,
    directory: tempfile::TempDir,
}

impl OwnDisk {
    /// Of so many MiB, sparse, below the directory that nodes are made in.
    ///
    /// # Panics
    /// It can't be made: a test can do nothing then.
    pub fn of(mib: u32) -> Self {
        let base = std::env::var_os(DIRECTORY_VARIABLE).map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
        let directory = tempfile::Builder::new().prefix("vzd").tempdir_in(base).expect("a directory");
        let device = attached(&directory.path().join("disk.img"), mib);
        let disk = Self { device, directory };
        // A loop device keeps what its last user gave it.
        fs_err::write(format!("/sys/block/{}/queue/scheduler", disk.name()), "none").expect("a scheduler");
        fs_err::create_dir(disk.on()).expect("a directory");
        run(command(&["mkfs.ext4", "-q", &disk.device])).expect("mkfs.ext4");
        run(command(&["mount", &disk.device, &disk.on().display().to_string()])).expect("mount");
        disk
    }

    /// Where it is mounted.
    pub fn on(&self) -> PathBuf {
        self.directory.path().join("private")
    }

    /// Its name, as in `/sys/block`.
    pub fn name(&self) -> &str {
        self.device.trim_start_matches("/dev/")
    }

    /// The schedulers it offers, that in use in brackets.
    ///
    /// # Panics
    /// The kernel does not tell.
    pub fn scheduler(&self) -> String {
        let path = format!("/sys/block/{}/queue/scheduler", self.name());
        fs_err::read_to_string(path).expect("a scheduler")
    }

    /// `major:minor`.
    ///
    /// # Panics
    /// The kernel does not tell.
    pub fn number(&self) -> String {
        fs_err::read_to_string(format!("/sys/block/{}/dev", self.name())).expect("a number").trim().to_owned()
    }
}

impl Drop for OwnDisk {
    fn drop(&mut self) {
        for words in [&["umount", &self.on().display().to_string()][..], &["losetup", "--detach", &self.device]] {
            if let Err(e) = run(command(words)) {
                eprintln!("{words:?}: {e}");
            }
        }
    }
}

/// A loop device on a new, sparse file of so many MiB; its path.
///
/// # Panics
/// It can't be made.
pub fn attached(file: &Path, mib: u32) -> String {
    std::fs::File::create(file).and_then(|f| f.set_len(u64::from(mib) << 20)).expect("a sparse file");
    let path = file.display().to_string();
    capture(command(&["losetup", "--find", "--show", "--direct-io=on", &path])).expect("losetup").trim().to_owned()
}
