//! What a container's processes have, found by asking each of them: where the kernel keeps no sum for a cgroup.
//!
//! Only the container's own processes are asked (those in its cgroup2 directory and below), never all of the host's. One that ends meanwhile is
//! left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::listing;
use crate::read::ReadError;

/// Sums over the processes of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    /// Memory that mlock(2) and its kind keep from being swapped out: `VmLck`.
    pub(crate) locked_bytes: u64,
    /// Private writable address space, stacks included: `VmData` and `VmStk`.
    pub(crate) private_bytes: u64,
    /// Signals queued for the users of these processes: `SigQ`.
    pub(crate) signals: u64,
}

/// The processes of the cgroup at `directory` and of all below it, as the host numbers them.
///
/// # Errors
/// A list is there and can't be read.
pub fn processes(directory: &Path) -> Result<BTreeSet<u32>, ReadError> {
    let mut found = BTreeSet::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        let list = directory.join("cgroup.procs");
        match fs::read_to_string(&list) {
            Ok(text) => found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0)),
            // A threaded cgroup has no list of processes; they are in that of the one above. ENODEV: gone since.
            Err(e) if is_gone(&e) || e.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
            Err(source) => return Err(ReadError::Read { path: list, source }),
        }
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(e) if is_gone(&e) => continue,
            Err(source) => return Err(ReadError::Read { path: directory, source }),
        };
        open.extend(entries.flatten().filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
    }
    Ok(found)
}

/// What the processes say of themselves in `/proc/PID/status`.
///
/// # Errors
/// One is there and can't be read.
pub(crate) fn sums(processes: &BTreeSet<u32>) -> Result<Sums, ReadError> {
    let mut sums = Sums::default();
    // The kernel queues signals for users: what one process says is said by all of its user.
    let mut queued = BTreeMap::new();
    for pid in processes {
        let Some(text) = read(format!("/proc/{pid}/status").into())? else { continue };
        let status = Status::parse(&text);
        sums.locked_bytes += status.locked_bytes;
        sums.private_bytes += status.private_bytes;
        queued.insert(status.uid, status.signals);
    }
    sums.signals = queued.into_values().sum();
    Ok(sums)
}

/// How many descriptors they have open. A file that two processes share counts for both: only the kernel's own count (BPF) is of files.
///
/// # Errors
/// A list is there and can't be read.
pub(crate) fn descriptors(processes: &BTreeSet<u32>) -> Result<u64, ReadError> {
    let mut sum = 0;
    for pid in processes {
        let path = PathBuf::from(format!("/proc/{pid}/fd"));
        // The size of the directory is the number of its entries since Linux 6.2, and 0 before.
        let count = match fs::metadata(&path).map(|meta| meta.size()) {
            Ok(0) => fs::read_dir(&path).map(|entries| entries.count() as u64),
            size => size,
        };
        match count {
            Ok(count) => sum += count,
            Err(e) if is_gone(&e) => {}
            Err(source) => return Err(ReadError::Read { path, source }),
        }
    }
    Ok(sum)
}

/// How many file locks they hold, of `/proc/locks`. Locks of an open file description (`F_OFD_SETLK`) belong to no process and are not in it.
///
/// # Errors
/// The list can't be read.
pub(crate) fn locks(processes: &BTreeSet<u32>) -> Result<u64, ReadError> {
    let text = read("/proc/locks".into())?.unwrap_or_default();
    Ok(text.lines().filter_map(holder).filter(|pid| processes.contains(pid)).count() as u64)
}

/// Who holds the lock of a line (`1: POSIX  ADVISORY  WRITE 1234 fe:00:5308858 0 EOF`); `None` for one that only waits (`1: -> POSIX …`).
fn holder(line: &str) -> Option<u32> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let kind = words.next()?;
    if kind == "->" { None } else { words.nth(2)?.parse().ok() }
}

/// What is of use in `/proc/PID/status` (proc_pid_status(5)).
#[derive(Debug, Default, PartialEq, Eq)]
struct Status {
    uid: u32,
    locked_bytes: u64,
    private_bytes: u64,
    signals: u64,
}

impl Status {
    /// A process without memory (a zombie) has none of the fields of memory.
    fn parse(text: &str) -> Self {
        let mut status = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
            let first = || value.split_ascii_whitespace().next().and_then(|word| word.parse::<u64>().ok());
            let bytes = || first().unwrap_or(0).saturating_mul(1024);
            match key {
                "Uid" => status.uid = first().and_then(|uid| u32::try_from(uid).ok()).unwrap_or(0),
                "VmLck" => status.locked_bytes = bytes(),
                "VmData" | "VmStk" => status.private_bytes += bytes(),
                "SigQ" => {
                    status.signals =
                        value.trim().split_once('/').and_then(|(queued, _)| queued.parse().ok()).unwrap_or(0);
                }
                _ => {}
            }
        }
        status
    }
}

/// A file of `/proc`; `None`: its process is gone.
fn read(path: PathBuf) -> Result<Option<String>, ReadError> {
    match listing::read(&path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if is_gone(&e) => Ok(None),
        Err(source) => Err(ReadError::Read { path, source }),
    }
}

fn is_gone(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH | libc::ENODEV))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that fails here has failed")]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_by_its_names() {
        let text = "Name:\ta: 1 kB\nUid:\t100033\t0\t0\t0\nVmLck:\t     64 kB\nVmData:\t  100 kB\nVmStk:\t  28 kB\nSigQ:\t3/9999\n";
        let want = Status { uid: 100_033, locked_bytes: 64 << 10, private_bytes: 128 << 10, signals: 3 };
        assert_eq!(Status::parse(text), want);
        assert_eq!(Status::parse("State:\tZ (zombie)\nUid:\t0\t0\t0\t0\n"), Status::default());
    }

    #[test]
    fn a_lock_is_its_holders_and_one_that_waits_is_nobodys() {
        assert_eq!(holder("1: FLOCK  ADVISORY  WRITE 15658 fe:00:5308858 0 EOF"), Some(15658));
        assert_eq!(holder("1: -> FLOCK  ADVISORY  WRITE 15659 fe:00:5308858 0 EOF"), None);
        // An open file description's.
        assert_eq!(holder("2: OFDLCK ADVISORY  READ  -1 fe:00:10133507 0 EOF"), None);
        assert_eq!(holder(""), None);
    }

    #[test]
    fn this_process_has_what_it_has_opened_and_locked() {
        let me = BTreeSet::from([std::process::id()]);
        let file = tempfile::tempfile().unwrap();
        let before = (descriptors(&me).unwrap(), locks(&me).unwrap());
        let held: Vec<fs::File> = (0..50).map(|_| file.try_clone().unwrap()).collect();
        let _lock = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive).unwrap();
        // Other tests of this process open and close a few meanwhile.
        assert!(descriptors(&me).unwrap() > before.0 + 25);
        assert_eq!(locks(&me).unwrap(), before.1 + 1);
        drop(held);
        let sums = sums(&me).unwrap();
        assert!(sums.private_bytes > 0);
    }

    #[test]
    fn processes_of_cgroups_below_are_found_and_one_that_is_gone_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("init.scope");
        fs::create_dir(&below).unwrap();
        fs::write(dir.path().join("cgroup.procs"), "12\n7\n").unwrap();
        // 0: a process of another pid namespace, as a reader inside one would see it.
        fs::write(below.join("cgroup.procs"), "0\n900\n").unwrap();
        assert_eq!(processes(dir.path()).unwrap(), BTreeSet::from([7, 12, 900]));
        assert_eq!(processes(&dir.path().join("gone")).unwrap(), BTreeSet::new());
    }
}
