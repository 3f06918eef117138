//! A picture of what commands of ours may change of a machine, to compare before and after.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fmt, io};

use procfs::process::{Process, all_processes};

use crate::program::capture;

/// Mounts, cgroups, network, loop devices, processes, and files under given directories, as lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    directories: Vec<PathBuf>,
    facts: BTreeMap<&'static str, BTreeSet<String>>,
}

/// What came and went between two pictures; displayed one fact per line.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference(Vec<String>);

impl Snapshot {
    /// Takes a picture; of files, only of those under `directories`.
    ///
    /// # Panics
    /// The kernel does not show its mounts or processes: nothing could be compared.
    pub fn take<P: Into<PathBuf>>(directories: impl IntoIterator<Item = P>) -> Self {
        let directories: Vec<PathBuf> = directories.into_iter().map(Into::into).collect();
        let mut files = BTreeSet::new();
        directories.iter().for_each(|directory| walk(directory, &mut files));
        let facts = BTreeMap::from([
            ("mount", mounts()),
            ("cgroup", cgroups()),
            ("loop device", loops()),
            ("process", processes()),
            ("file", files),
            ("link", said("ip", &["-oneline", "link"])),
            ("address", said("ip", &["-oneline", "address"])),
            ("route", said("ip", &["-oneline", "route", "show", "table", "all"])),
            ("IPv6 route", said("ip", &["-oneline", "-6", "route", "show", "table", "all"])),
            ("rule", said("ip", &["rule"])),
            ("proxy neighbour", said("ip", &["neighbour", "show", "proxy"])),
            ("IPv6 proxy neighbour", said("ip", &["-6", "neighbour", "show", "proxy"])),
            ("nft", said("nft", &["--stateless", "list", "ruleset"])),
        ]);
        Self { directories, facts }
    }

    /// The same again, now.
    #[must_use]
    pub fn again(&self) -> Self {
        Self::take(self.directories.clone())
    }

    /// What `later` has and this has not, and the other way round.
    #[must_use]
    pub fn difference(&self, later: &Self) -> Difference {
        let mut lines = Vec::new();
        for (what, before) in &self.facts {
            let after = &later.facts[what];
            lines.extend(before.difference(after).map(|fact| format!("- {what}: {fact}")));
            lines.extend(after.difference(before).map(|fact| format!("+ {what}: {fact}")));
        }
        Difference(lines)
    }

    /// The machine is as it was; waits a little, for the kernel frees some things after it has answered.
    ///
    /// # Panics
    /// It is not; shows what came and what went.
    #[track_caller]
    pub fn assert_unchanged(&self) {
        let mut difference = Difference(Vec::new());
        let same = crate::wait::wait_until(std::time::Duration::from_secs(5), || {
            difference = self.difference(&self.again());
            difference.is_empty()
        });
        assert!(same, "the machine is not as it was:\n{difference}");
    }
}

impl Difference {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

fn own_mounts() -> Vec<procfs::process::MountInfo> {
    let own = Process::myself().and_then(|process| process.mountinfo()).expect("/proc/self/mountinfo");
    own.into_iter().collect()
}

fn mounts() -> BTreeSet<String> {
    let line = |mount: procfs::process::MountInfo| {
        let source = mount.mount_source.unwrap_or_default();
        format!("{} {} {source} {}", mount.mount_point.display(), mount.fs_type, mount.root)
    };
    own_mounts().into_iter().map(line).collect()
}

/// Systemd's own come and go with its timers; they are never ours.
fn cgroups() -> BTreeSet<String> {
    let systemds = |path: &Path| {
        path.components().any(|part| {
            let part = part.as_os_str().as_encoded_bytes();
            part.ends_with(b".slice") || part.ends_with(b".scope") || part.ends_with(b".service")
        })
    };
    let mut found = BTreeSet::new();
    let hierarchies = own_mounts().into_iter().filter(|mount| matches!(mount.fs_type.as_str(), "cgroup" | "cgroup2"));
    for hierarchy in hierarchies {
        let mut pending = vec![hierarchy.mount_point];
        while let Some(cgroup) = pending.pop() {
            if systemds(&cgroup) {
                continue;
            }
            let entries = fs_err::read_dir(&cgroup).into_iter().flatten().flatten();
            pending.extend(
                entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()),
            );
            found.insert(cgroup.display().to_string());
        }
    }
    found
}

/// Loop devices that are in use, with their files.
pub(crate) fn loop_devices() -> Vec<(String, PathBuf)> {
    let entries = fs_err::read_dir("/sys/block").into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())));
    let file = |path: PathBuf| fs_err::read_to_string(path.join("loop/backing_file")).ok();
    named.filter_map(|(name, path)| Some((name, PathBuf::from(file(path)?.trim_end())))).collect()
}

fn loops() -> BTreeSet<String> {
    loop_devices().into_iter().map(|(name, file)| format!("{name} {}", file.display())).collect()
}

/// Processes that are ours by what they run (the binary under test) or where they live (a namespace that is not this
/// test's; a mount namespace alone is what systemd gives its own services, udev's passing workers among them). All others belong to whoever works on this machine beside us. The dead do not count: some hosts' first
/// process never reaps.
fn processes() -> BTreeSet<String> {
    let binary = crate::node::binary();
    let own = namespaces(&Process::myself().expect("/proc/self"));
    let ours = |process: &Process| {
        let alive = process.stat().is_ok_and(|stat| !matches!(stat.state, 'Z' | 'X'));
        let elsewhere = || namespaces(process).into_iter().any(|(kind, inode)| own.get(&kind) != Some(&inode));
        alive && (process.exe().is_ok_and(|exe| exe == binary) || elsewhere())
    };
    let all = all_processes().expect("/proc").flatten().filter(ours);
    all.map(|process| format!("{} {}", process.pid, process.cmdline().unwrap_or_default().join(" "))).collect()
}

fn namespaces(process: &Process) -> BTreeMap<String, u64> {
    let all = process.namespaces().map(|namespaces| namespaces.0).unwrap_or_default();
    let kind = |name: &std::ffi::OsStr| name.to_string_lossy().into_owned();
    let mattering = all.into_iter().filter(|(name, _)| ["net", "pid", "user"].contains(&kind(name).as_str()));
    mattering.map(|(name, namespace)| (kind(&name), namespace.identifier)).collect()
}

/// The lines a program says, without the numbers that change by themselves.
fn said(program: &str, arguments: &[&str]) -> BTreeSet<String> {
    let mut command = Command::new(program);
    command.args(arguments);
    capture(command).unwrap_or_default().lines().map(steady).collect()
}

/// Without the index an interface happens to have and the seconds until a route or an address expires.
fn steady(line: &str) -> String {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    if words.first().is_some_and(|word| word.ends_with(':') && word.trim_end_matches(':').parse::<u32>().is_ok()) {
        words.remove(0);
    }
    while let Some(at) = words.iter().position(|word| ["expires", "valid_lft", "preferred_lft"].contains(word)) {
        words.drain(at..words.len().min(at + 2));
    }
    words.join(" ")
}

/// Everything under a directory, with what a careless program changes: kind, mode, owner. Not sizes or times: logs grow.
fn walk(directory: &Path, found: &mut BTreeSet<String>) {
    let describe = |path: &Path| -> io::Result<(bool, String)> {
        let metadata = fs_err::symlink_metadata(path)?;
        let (mode, uid, gid) = (metadata.mode(), metadata.uid(), metadata.gid());
        Ok((metadata.is_dir(), format!("{} {mode:o} {uid}:{gid}", path.display())))
    };
    let Ok((is_directory, line)) = describe(directory) else { return }; // gone meanwhile
    found.insert(line);
    if is_directory {
        fs_err::read_dir(directory).into_iter().flatten().flatten().for_each(|entry| walk(&entry.path(), found));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_is_seen_and_so_is_its_going() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        let mut empty = Snapshot::take([directory.path()]);
        fs_err::write(&file, "").expect("writable");
        let mut full = empty.again();
        // The rest of the machine is not this test's.
        for snapshot in [&mut empty, &mut full] {
            snapshot.facts.retain(|what, _| *what == "file");
        }
        let (there, back) = (empty.difference(&full).to_string(), full.difference(&empty).to_string());
        assert!(there.starts_with(&format!("+ file: {} 100", file.display())), "{there}");
        assert!(back.starts_with("- file: "), "{back}");
        assert!(empty.difference(&empty).is_empty());
    }

    #[test]
    fn numbers_that_change_by_themselves_are_left_out() {
        assert_eq!(steady("12: eth0: <UP> mtu 1500"), "eth0: <UP> mtu 1500");
        assert_eq!(steady("default via fe80::1 expires 86sec pref medium"), "default via fe80::1 pref medium");
    }

    #[test]
    fn a_picture_has_something_of_every_machine() {
        let snapshot = Snapshot::take(["/nonexistent"]);
        for what in ["mount", "cgroup", "link"] {
            assert!(!snapshot.facts[what].is_empty(), "no {what}");
        }
        assert!(snapshot.facts["file"].is_empty());
    }
}
