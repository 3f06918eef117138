//! The disks below a directory, and who puts their requests in order: what limits and weights of block I/O need to know.
//!
//! Limits are put on the devices that a file system lies on itself. Requests to a volume of LVM or an md array are counted there before they are
//! spread, so one limit holds for all disks below it. Only a file system that spreads its files over several devices by itself (btrfs) has a limit
//! for each of them. Weights need a scheduler, which only the disks at the bottom have. A loop device is a disk like others: what it asks of the
//! disk below is asked in the container's name (since Linux 5.14, `drivers/block/loop.c`).

mod weigher;

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use procfs::FromRead;
use procfs::process::MountInfos;
use rustix::fs::{AtFlags, StatxFlags, major, minor};

pub use weigher::{Choice, Module, Set, Weigher, set_up};

/// A whole disk, not a partition: the kernel limits and weighs disks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Device {
    /// Its name in `/sys/block`.
    pub name: String,
    /// Its number, as the files of cgroups have it.
    pub major: u32,
    /// The second part of the number.
    pub minor: u32,
}

/// Those below a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disks {
    /// What the file system lies on, where limits are put. Several: a limit holds for each.
    pub limited: Vec<Device>,
    /// What that lies on, where requests are put in order: the same, or the disks below volumes and arrays.
    pub ordered: Vec<Device>,
}

/// There is nothing to limit or weigh, or it was not found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A network file system, a tmpfs, a file system that hides its disks.
    #[error("{} is on {fs_type}, which has no disk of its own", path.display())]
    NoDisk {
        /// The directory.
        path: PathBuf,
        /// The type of its file system.
        fs_type: String,
    },
    /// A file of `/sys` or `/proc`, or the directory itself.
    #[error("{call}({})", path.display())]
    Call {
        /// The system call.
        call: &'static str,
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Such a file says what it should not.
    #[error("{} holds {text:?}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What it holds.
        text: String,
    },
}

impl Error {
    fn call<E: Into<io::Error>>(call: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |e| Self::Call { call, path: path.to_owned(), source: e.into() }
    }
}

impl Disks {
    /// Those below a directory of the host, or below where it would be.
    ///
    /// # Errors
    /// Its file system has none, or the kernel does not tell.
    pub fn below(path: &Path) -> Result<Self, Error> {
        let there = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
        let sys = Sys(PathBuf::from("/sys"));
        let device = std::fs::metadata(there).map_err(Error::call("stat", there))?.dev();
        let limited = match major(device) {
            0 => spread(&sys, there)?,
            _ => vec![sys.whole(major(device), minor(device))?],
        };
        let mut ordered = Vec::new();
        for device in &limited {
            sys.bottom(device, &mut ordered)?;
        }
        Ok(Self { limited, ordered })
    }
}

/// The devices of a file system that has no one device: of btrfs, which lists them by the device it was mounted from.
fn spread(sys: &Sys, path: &Path) -> Result<Vec<Device>, Error> {
    let statx = rustix::fs::statx(rustix::fs::CWD, path, AtFlags::empty(), StatxFlags::MNT_ID);
    let id = statx.map_err(Error::call("statx", path))?.stx_mnt_id;
    let list = PathBuf::from("/proc/self/mountinfo");
    let file = std::fs::File::open(&list).map_err(Error::call("open", &list))?;
    let mounts = MountInfos::from_read(file).map_err(|e| Error::Format { path: list, text: e.to_string() })?;
    let mount = mounts.0.iter().find(|mount| u64::try_from(mount.mnt_id) == Ok(id));
    let fs_type = mount.map_or("unknown", |mount| mount.fs_type.as_str());
    let nothing = || Error::NoDisk { path: path.to_owned(), fs_type: fs_type.to_owned() };
    let source =
        mount.filter(|_| fs_type == "btrfs").and_then(|mount| mount.mount_source.as_deref()).ok_or_else(nothing)?;
    let number = std::fs::metadata(source).map_err(Error::call("stat", Path::new(source)))?.rdev();
    sys.of_btrfs(major(number), minor(number))?.ok_or_else(nothing)
}

/// Where sysfs is; a test hands in a tree.
struct Sys(PathBuf);

impl Sys {
    /// The directory of a device of this number, by its true path: a partition lies in its disk's.
    fn directory(&self, major: u32, minor: u32) -> Result<PathBuf, Error> {
        let link = self.0.join(format!("dev/block/{major}:{minor}"));
        link.canonicalize().map_err(Error::call("realpath", &link))
    }

    fn whole(&self, major: u32, minor: u32) -> Result<Device, Error> {
        Self::disk_of(self.directory(major, minor)?)
    }

    fn disk_of(mut directory: PathBuf) -> Result<Device, Error> {
        if directory.join("partition").exists() {
            directory.pop();
        }
        let path = directory.join("dev");
        let text = std::fs::read_to_string(&path).map_err(Error::call("read", &path))?;
        let number = |(major, minor): (&str, &str)| Some((major.parse().ok()?, minor.parse().ok()?));
        let Some((major, minor)) = text.trim().split_once(':').and_then(number) else {
            return Err(Error::Format { path, text });
        };
        let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Device { name, major, minor })
    }

    /// Adds the disks that a device is made of; itself, if it is not made of others.
    fn bottom(&self, device: &Device, found: &mut Vec<Device>) -> Result<(), Error> {
        let below = self.listed(&self.directory(device.major, device.minor)?.join("slaves"))?;
        for one in &below {
            // A device is never below itself, and the kernel makes no circles of them.
            self.bottom(one, found)?;
        }
        if below.is_empty() && !found.contains(device) {
            found.push(device.clone());
        }
        Ok(())
    }

    /// The disks that links in a directory lead to, in order of names; none, if there is no such directory.
    fn listed(&self, directory: &Path) -> Result<Vec<Device>, Error> {
        let entries = match std::fs::read_dir(directory) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Error::call("opendir", directory))?,
        };
        let mut disks = Vec::new();
        for entry in entries {
            let link = entry.map_err(Error::call("readdir", directory))?.path();
            disks.push(Self::disk_of(link.canonicalize().map_err(Error::call("realpath", &link))?)?);
        }
        disks.sort();
        disks.dedup();
        Ok(disks)
    }

    /// The disks of the btrfs that has a device of this number.
    fn of_btrfs(&self, major: u32, minor: u32) -> Result<Option<Vec<Device>>, Error> {
        let wanted = self.directory(major, minor)?;
        let top = self.0.join("fs/btrfs");
        for entry in std::fs::read_dir(&top).map_err(Error::call("opendir", &top))? {
            let devices = entry.map_err(Error::call("readdir", &top))?.path().join("devices");
            let link = devices.join(wanted.file_name().unwrap_or_default());
            if link.canonicalize().is_ok_and(|device| device == wanted) {
                return self.listed(&devices).map(Some);
            }
        }
        Ok(None)
    }
}

/// Names, for a message.
#[must_use]
pub fn names(devices: &[Device]) -> String {
    devices.iter().map(|device| device.name.as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// Two disks; the second has a partition; a volume of both, and on it another; a btrfs over the volume and the first disk.
    fn tree() -> (tempfile::TempDir, Sys) {
        let top = tempfile::tempdir().unwrap();
        let device = |path: &str, number: &str| {
            let directory = top.path().join("devices").join(path);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("dev"), format!("{number}\n")).unwrap();
            fs::create_dir_all(top.path().join("dev/block")).unwrap();
            symlink(&directory, top.path().join("dev/block").join(number)).unwrap();
            directory
        };
        let (first, second) = (device("pci/nvme0n1", "259:0"), device("pci/vdb", "254:16"));
        let part = device("pci/vdb/vdb1", "254:17");
        fs::write(part.join("partition"), "1\n").unwrap();
        let (volume, upper) = (device("virtual/dm-0", "253:0"), device("virtual/dm-1", "253:1"));
        for (above, below) in [(&volume, &first), (&volume, &part), (&upper, &volume)] {
            fs::create_dir_all(above.join("slaves")).unwrap();
            symlink(below, above.join("slaves").join(below.file_name().unwrap())).unwrap();
        }
        for listed in [&second, &part, &upper] {
            fs::create_dir_all(listed.join("slaves")).unwrap();
        }
        let btrfs = top.path().join("fs/btrfs/0f1e/devices");
        fs::create_dir_all(&btrfs).unwrap();
        for below in [&upper, &first] {
            symlink(below, btrfs.join(below.file_name().unwrap())).unwrap();
        }
        let sys = Sys(top.path().to_owned());
        (top, sys)
    }

    fn bottom(sys: &Sys, number: (u32, u32)) -> String {
        let mut found = Vec::new();
        sys.bottom(&sys.whole(number.0, number.1).unwrap(), &mut found).unwrap();
        names(&found)
    }

    #[test]
    fn a_partition_is_a_part_of_its_disk() {
        let (_top, sys) = tree();
        let disk = Device { name: "vdb".into(), major: 254, minor: 16 };
        assert_eq!(sys.whole(254, 17).unwrap(), disk);
        assert_eq!(sys.whole(254, 16).unwrap(), disk);
    }

    #[test]
    fn below_a_volume_are_the_disks_that_it_is_made_of_each_once() {
        let (_top, sys) = tree();
        assert_eq!(bottom(&sys, (253, 0)), "nvme0n1, vdb");
        assert_eq!(bottom(&sys, (253, 1)), "nvme0n1, vdb", "a volume on a volume");
        assert_eq!(bottom(&sys, (259, 0)), "nvme0n1", "a disk is its own");
    }

    #[test]
    fn a_btrfs_is_on_all_devices_that_it_lists() {
        let (_top, sys) = tree();
        let found = |major, minor| sys.of_btrfs(major, minor).unwrap().map(|devices| names(&devices));
        assert_eq!(found(253, 1).as_deref(), Some("dm-1, nvme0n1"));
        assert_eq!(found(254, 16), None);
    }

    #[test]
    fn what_has_no_disk_is_told_by_its_type() {
        let proc = Disks::below(Path::new("/proc/self")).unwrap_err();
        assert_eq!(proc.to_string(), "/proc/self is on proc, which has no disk of its own");
    }
}
