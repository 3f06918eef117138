//! What can be counted of a container: from its cgroups, from its processes (`tasks.rs`) and from its network namespace
//! (`sockets.rs`).
//!
//! | resource | held | maxheld | failcnt |
//! |---|---|---|---|
//! | kmemsize | v2 `memory.stat: kernel` (since 5.18), v1 `memory.kmem.usage_in_bytes` | v1 `memory.kmem.max_usage_in_bytes` | – |
//! | shmpages | `memory.stat: shmem` | – | – |
//! | numproc | `pids.current` | `pids.peak` | v2 `pids.events.local: max` (since 6.11), v1 `pids.events: max` |
//! | physpages | v2 `memory.current`, v1 `memory.usage_in_bytes` | `memory.peak`, `memory.max_usage_in_bytes` | v2 `memory.events.local: max`, v1 `memory.failcnt` |
//! | vmguarpages | 0: it is a promise, nothing is charged to it | 0 | 0 |
//! | oomguarpages | `memory.stat`: anonymous and unevictable lists, and swap | – | `oom_kill` of v2 `memory.events`, v1 `memory.oom_control` |
//! | swappages | v2 `memory.swap.current`, v1 `memory.stat: total_swap` | v2 `memory.swap.peak` (since 6.5) | v2 `memory.swap.events: max`, v1 `memory.memsw.failcnt` |
//! | dcachesize | v2 `memory.stat: slab_reclaimable` | – | – |
//! | lockedpages, privvmpages, numsiginfo | `/proc/PID/status` of its processes, summed | – | – |
//! | numfile | descriptors of its processes | – | – |
//! | numflock | `/proc/locks`, those of its processes | – | – |
//! | numpty | the terminals in its `/dev/pts` | – | – |
//! | numtcpsock, numothersock, tcpsndbuf, tcprcvbuf, othersockbuf, dgramrcvbuf | lists of its network namespace | – | – |
//!
//! Everything else, and every file a kernel does not have, is `None`: not known, and never a zero in its place. Only a maxheld that nobody keeps
//! is at least what was seen, if the container has a file of [`Peaks`]. Notably:
//!
//! * Without BPF numtcpsock and numothersock leave out every socket that is neither bound nor connected, and everything in a network namespace
//!   that the container made itself.
//! * The `.local` files are the refusals at the container's *own* limit. The others would let root in the container drive its failcnt up
//!   with limits of its own in cgroups of its own. `pids.events` of v2 before 6.11 counts where the forking task is, which is not here.
//!   On v1 the container has no cgroups below this one, and the plain files are right.
//! * failcnt of physpages counts how often the limit was *reached*; unlike K6's it also grows when reclaim then made room.
//! * failcnt of swappages on v1 is that of RAM and swap together: v1 has no counter of swap alone.
//!
//! A [`Reader`] opens only what it is asked for and no file of many values twice: `vzlist` asks a thousand containers for one column.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::amount::{Amount, Unit};
use crate::bpf;
use crate::counter::Counter;
use crate::peaks::Peaks;
use crate::resource::Resource;
use crate::sockets::{self, Sockets};
use crate::tasks::{self, Sums};

pub use crate::tasks::processes;
use crate::terminals::terminals;

/// Which generation of cgroups the directories are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupVersion {
    /// Each controller has a hierarchy of its own: the hybrid host.
    V1,
    /// One hierarchy for all: the unified host.
    V2,
}

/// Where to count one container: the cgroup its limits are set on, for each controller. `None` if it has none, because it does not run
/// or because the host has no such controller.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The directory with `memory.*`.
    pub memory: Option<PathBuf>,
    /// The directory with `pids.*`; on v2 the same one.
    pub pids: Option<PathBuf>,
    /// What the files in them are called.
    pub version: CgroupVersion,
    /// The directory whose `cgroup.procs`, and those below it, have all its processes.
    pub processes: Option<PathBuf>,
    /// Its first process, as the host numbers it: whose network and terminals are the container's.
    pub init: Option<u32>,
    /// The file of its [`Peaks`].
    pub peaks: Option<PathBuf>,
}

/// A counter could not be read. One that does not exist is no error but `None`.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ReadError {
    #[error("read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} says {text:?}, which is not a counter", path.display())]
    Malformed { path: PathBuf, text: String },
}

/// What was counted of one resource, in its own unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// What the container has now.
    pub held: Option<Amount>,
    /// The most it had; at least, the most that anybody has seen (see [`Reader::is_sampled`]).
    pub maxheld: Option<Amount>,
    /// How often it was refused more.
    pub failcnt: Option<u64>,
}

/// Reads the counters of one container. It keeps what tells of several counters once it has read it, so make a new one for each look.
#[derive(Debug)]
pub struct Reader<'a> {
    sources: &'a Sources,
    stat: Option<MemoryStat>,
    processes: Option<BTreeSet<u32>>,
    sums: Option<Sums>,
    sockets: Option<Sockets>,
    /// What the kernel's programs count of it, if it is attached to them.
    kernel: Option<Vec<(Resource, Counter)>>,
    peaks: Option<Option<Peaks>>,
}

impl<'a> Reader<'a> {
    /// A reader that has read nothing yet.
    #[must_use]
    pub fn new(sources: &'a Sources) -> Self {
        Self { sources, stat: None, processes: None, sums: None, sockets: None, kernel: None, peaks: None }
    }

    /// All three numbers of `resource`.
    ///
    /// # Errors
    /// Those of [`Reader::held`].
    pub fn usage(&mut self, resource: Resource) -> Result<Usage, ReadError> {
        if let Some(row) = self.kernel(resource) {
            let amount = |count| Some(Amount::new(resource.unit(), count));
            return Ok(Usage { held: amount(row.held), maxheld: amount(row.maxheld), failcnt: Some(row.failcnt) });
        }
        // The peak last: it is then no less than what was held before.
        let held = self.held(resource)?;
        let maxheld = match self.peak(resource)? {
            Some(peak) => Some(peak),
            None => held.map(|held| self.mark(resource, held)).transpose()?.flatten(),
        };
        Ok(Usage { held, maxheld, failcnt: self.failcnt(resource)? })
    }

    /// Whether nobody watches the most that a container has of `resource`: maxheld is then the most that anybody has seen, and what came and went
    /// between two looks is not in it.
    ///
    /// # Errors
    /// Those of [`Reader::held`].
    pub fn is_sampled(&mut self, resource: Resource) -> Result<bool, ReadError> {
        Ok(self.kernel(resource).is_none() && self.peak(resource)?.is_none())
    }

    /// Raises the container's own mark, which is in a file.
    fn mark(&mut self, resource: Resource, held: Amount) -> Result<Option<Amount>, ReadError> {
        if self.peaks.is_none() {
            let open =
                |path: &PathBuf| Peaks::open(path).map_err(|source| ReadError::Read { path: path.clone(), source });
            self.peaks = Some(self.sources.peaks.as_ref().map(open).transpose()?.flatten());
        }
        let peaks = self.peaks.as_ref().and_then(Option::as_ref);
        Ok(peaks.map(|peaks| Amount::new(held.unit(), peaks.raise(resource, held.count()))))
    }

    /// What the container has of `resource` now.
    ///
    /// # Errors
    /// A file is there but cannot be read, or what it says is not a counter.
    pub fn held(&mut self, resource: Resource) -> Result<Option<Amount>, ReadError> {
        use CgroupVersion::{V1, V2};
        if let Some(row) = self.kernel(resource) {
            return Ok(Some(Amount::new(resource.unit(), row.held)));
        }
        let count = match (resource, self.sources.version) {
            (Resource::Kmemsize, V1) => self.memory("memory.kmem.usage_in_bytes")?,
            (Resource::Kmemsize, V2) => self.stat()?.kernel,
            (Resource::Shmpages, _) => self.stat()?.shmem,
            (Resource::Numproc, _) => number(self.sources.pids.as_deref(), "pids.current")?,
            (Resource::Physpages, V1) => self.memory("memory.usage_in_bytes")?,
            (Resource::Physpages, V2) => self.memory("memory.current")?,
            (Resource::Vmguarpages, _) => Some(0),
            (Resource::Oomguarpages, _) => {
                let swap = self.swap_bytes()?;
                self.stat()?.unreclaimable().zip(swap).map(|(memory, swap)| memory.saturating_add(swap))
            }
            (Resource::Swappages, _) => self.swap_bytes()?,
            (Resource::Dcachesize, V2) => self.stat()?.slab_reclaimable,
            (Resource::Lockedpages, _) => self.sums()?.map(|sums| sums.locked_bytes),
            (Resource::Privvmpages, _) => self.sums()?.map(|sums| sums.private_bytes),
            (Resource::Numsiginfo, _) => self.sums()?.map(|sums| sums.signals),
            (Resource::Numfile, _) => self.processes()?.map(tasks::descriptors).transpose()?,
            (Resource::Numflock, _) => self.processes()?.map(tasks::locks).transpose()?,
            (Resource::Numpty, _) => self.sources.init.map(terminals).transpose()?.flatten(),
            (Resource::Numtcpsock, _) => self.sockets()?.map(|sockets| sockets.tcp),
            (Resource::Numothersock, _) => self.sockets()?.map(|sockets| sockets.other),
            (Resource::Tcpsndbuf, _) => self.sockets()?.map(|sockets| sockets.tcp_send_bytes),
            (Resource::Tcprcvbuf, _) => self.sockets()?.map(|sockets| sockets.tcp_receive_bytes),
            (Resource::Othersockbuf, _) => self.sockets()?.map(|sockets| sockets.other_send_bytes),
            (Resource::Dgramrcvbuf, _) => self.sockets()?.map(|sockets| sockets.datagram_receive_bytes),
            _ => None,
        };
        Ok(count.map(|count| in_unit_of(resource, count)))
    }

    /// The most it had at once since its cgroup was made, if the cgroup keeps that.
    fn peak(&mut self, resource: Resource) -> Result<Option<Amount>, ReadError> {
        use CgroupVersion::{V1, V2};
        let count = match (resource, self.sources.version) {
            (Resource::Kmemsize, V1) => self.memory("memory.kmem.max_usage_in_bytes")?,
            (Resource::Numproc, _) => number(self.sources.pids.as_deref(), "pids.peak")?,
            (Resource::Physpages, V1) => self.memory("memory.max_usage_in_bytes")?,
            (Resource::Physpages, V2) => self.memory("memory.peak")?,
            (Resource::Vmguarpages, _) => Some(0),
            (Resource::Swappages, V2) => self.memory("memory.swap.peak")?,
            _ => None,
        };
        Ok(count.map(|count| in_unit_of(resource, count)))
    }

    /// How often it was refused more.
    ///
    /// # Errors
    /// Those of [`Reader::held`].
    pub fn failcnt(&mut self, resource: Resource) -> Result<Option<u64>, ReadError> {
        use CgroupVersion::{V1, V2};
        let (memory, pids) = (self.sources.memory.as_deref(), self.sources.pids.as_deref());
        match (resource, self.sources.version) {
            (Resource::Numproc, V1) => event(pids, "pids.events", "max"),
            (Resource::Numproc, V2) => event(pids, "pids.events.local", "max"),
            (Resource::Physpages, V1) => self.memory("memory.failcnt"),
            (Resource::Physpages, V2) => event(memory, "memory.events.local", "max"),
            (Resource::Vmguarpages, _) => Ok(Some(0)),
            (Resource::Oomguarpages, V1) => event(memory, "memory.oom_control", "oom_kill"),
            (Resource::Oomguarpages, V2) => event(memory, "memory.events", "oom_kill"),
            (Resource::Swappages, V1) => self.memory("memory.memsw.failcnt"),
            (Resource::Swappages, V2) => event(memory, "memory.swap.events", "max"),
            _ => Ok(None),
        }
    }

    /// The row that the kernel's programs have. A host without them, and a container that is not attached, have none.
    fn kernel(&mut self, resource: Resource) -> Option<Counter> {
        if !bpf::RESOURCES.iter().any(|counting| counting.resource == resource) {
            return None;
        }
        let directory = self.sources.processes.as_deref();
        let rows = self.kernel.get_or_insert_with(|| directory.and_then(kernel_rows).unwrap_or_default());
        rows.iter().find(|(counted, _)| *counted == resource).map(|(_, row)| *row)
    }

    fn memory(&self, file: &str) -> Result<Option<u64>, ReadError> {
        number(self.sources.memory.as_deref(), file)
    }

    fn swap_bytes(&mut self) -> Result<Option<u64>, ReadError> {
        match self.sources.version {
            // Not memsw less usage: a page in the swap cache is in both of those, and they are read at two moments.
            CgroupVersion::V1 => Ok(self.stat()?.swap),
            CgroupVersion::V2 => self.memory("memory.swap.current"),
        }
    }

    fn processes(&mut self) -> Result<Option<&BTreeSet<u32>>, ReadError> {
        if let (None, Some(directory)) = (&self.processes, &self.sources.processes) {
            self.processes = Some(tasks::processes(directory)?);
        }
        Ok(self.processes.as_ref())
    }

    fn sums(&mut self) -> Result<Option<Sums>, ReadError> {
        if self.sums.is_none() {
            self.sums = self.processes()?.map(tasks::sums).transpose()?;
        }
        Ok(self.sums)
    }

    fn sockets(&mut self) -> Result<Option<Sockets>, ReadError> {
        if self.sockets.is_none() {
            self.sockets = self.sources.init.map(sockets::of).transpose()?;
        }
        Ok(self.sockets)
    }

    fn stat(&mut self) -> Result<MemoryStat, ReadError> {
        if let Some(stat) = self.stat {
            return Ok(stat);
        }
        let stat = MemoryStat::read(self.sources)?;
        self.stat = Some(stat);
        Ok(stat)
    }
}

/// What programs of this build count of the container with this cgroup2 directory.
fn kernel_rows(directory: &Path) -> Option<Vec<(Resource, Counter)>> {
    let host = bpf::Host::open().ok()??;
    let mut rows = host.read(bpf::id(directory).ok()?).ok()?;
    rows.retain(|(resource, _)| !matches!(host.standing(*resource), Ok(bpf::Standing::Absent(_)) | Err(_)));
    Some(rows)
}

/// Cgroups count memory in bytes; the resource may count it in pages.
fn in_unit_of(resource: Resource, count: u64) -> Amount {
    match resource.unit() {
        Unit::Pages => Amount::pages_for(count),
        unit @ (Unit::Bytes | Unit::Items) => Amount::new(unit, count),
    }
}

/// The lines of `memory.stat` that are of use, in bytes.
#[derive(Debug, Clone, Copy, Default)]
struct MemoryStat {
    shmem: Option<u64>,
    kernel: Option<u64>,
    slab_reclaimable: Option<u64>,
    swap: Option<u64>,
    inactive_anon: Option<u64>,
    active_anon: Option<u64>,
    unevictable: Option<u64>,
}

impl MemoryStat {
    fn read(sources: &Sources) -> Result<Self, ReadError> {
        let mut stat = Self::default();
        // 4 KiB on v1 and 2 KiB on v2 in kernel 6.18; a longer one is read in several pieces.
        let mut text = Vec::with_capacity(8192);
        let Some(path) = sources.memory.as_deref().map(|dir| dir.join("memory.stat")) else { return Ok(stat) };
        if !read_whole(&path, &mut text)? {
            return Ok(stat);
        }
        let text = String::from_utf8_lossy(&text);
        for line in text.lines() {
            let Some((key, value)) = line.split_once(' ') else { continue };
            // Those of v1 without the prefix leave out cgroups below; there are none today, but the sum is what is meant.
            let place = match (key, sources.version) {
                ("shmem", CgroupVersion::V2) | ("total_shmem", CgroupVersion::V1) => &mut stat.shmem,
                ("inactive_anon", CgroupVersion::V2) | ("total_inactive_anon", CgroupVersion::V1) => {
                    &mut stat.inactive_anon
                }
                ("active_anon", CgroupVersion::V2) | ("total_active_anon", CgroupVersion::V1) => &mut stat.active_anon,
                ("unevictable", CgroupVersion::V2) | ("total_unevictable", CgroupVersion::V1) => &mut stat.unevictable,
                ("total_swap", CgroupVersion::V1) => &mut stat.swap,
                ("kernel", CgroupVersion::V2) => &mut stat.kernel,
                ("slab_reclaimable", CgroupVersion::V2) => &mut stat.slab_reclaimable,
                _ => continue,
            };
            *place = Some(counter(&path, value)?);
        }
        Ok(stat)
    }

    /// What reclaim could only swap out: the lists that K6 summed for oomguarpages. A locked page is in the third of them only, so none counts twice.
    fn unreclaimable(&self) -> Option<u64> {
        let lists = [self.inactive_anon?, self.active_anon?, self.unevictable?];
        Some(lists.into_iter().fold(0, u64::saturating_add))
    }
}

/// The one number in a file.
fn number(dir: Option<&Path>, file: &str) -> Result<Option<u64>, ReadError> {
    let Some(path) = dir.map(|dir| dir.join(file)) else { return Ok(None) };
    let mut text = Vec::with_capacity(64);
    if !read_whole(&path, &mut text)? {
        return Ok(None);
    }
    counter(&path, String::from_utf8_lossy(&text).trim_end()).map(Some)
}

/// The number behind `key` in a file of `key number` lines; `None` if no line has it.
fn event(dir: Option<&Path>, file: &str, key: &str) -> Result<Option<u64>, ReadError> {
    let Some(path) = dir.map(|dir| dir.join(file)) else { return Ok(None) };
    let mut text = Vec::with_capacity(256);
    if !read_whole(&path, &mut text)? {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&text);
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    value.map(|value| counter(&path, value)).transpose()
}

fn counter(path: &Path, text: &str) -> Result<u64, ReadError> {
    text.parse().map_err(|_| ReadError::Malformed { path: path.to_owned(), text: text.to_owned() })
}

/// Reads a file into `text`; `false` if there is none: the kernel does not have it, or the container is gone since (`ENODEV` is what a file
/// answers that was opened in time), or swap is not accounted (`EOPNOTSUPP`).
///
/// Through `take`, because reading a `File` as such asks for its size and position first: cgroup files have none, and `vzlist` reads
/// thousands of them.
fn read_whole(path: &Path, text: &mut Vec<u8>) -> Result<bool, ReadError> {
    match File::open(path).and_then(|file| file.take(1 << 20).read_to_end(text)) {
        Ok(_) => Ok(true),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP)) => Ok(false),
        Err(source) => Err(ReadError::Read { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    use CgroupVersion::{V1, V2};

    /// A container's cgroup as a directory of files with these contents.
    fn cgroup(version: CgroupVersion, files: &[(&str, &str)]) -> (tempfile::TempDir, Sources) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (name, text) in files {
            fs::write(dir.path().join(name), text).expect("write a file of the cgroup");
        }
        let path = Some(dir.path().to_owned());
        (dir, Sources { memory: path.clone(), pids: path, version, processes: None, init: None, peaks: None })
    }

    /// The three numbers as a row, with `-` for what is not known.
    fn row(reader: &mut Reader<'_>, resource: Resource) -> String {
        let usage = reader.usage(resource).expect("readable counters");
        let cell = |count: Option<u64>| count.map_or("-".to_owned(), |count| count.to_string());
        let amount = |amount: Option<Amount>| cell(amount.map(Amount::count));
        format!("{:<12} {:>6} {:>8} {:>7}", resource, amount(usage.held), amount(usage.maxheld), cell(usage.failcnt))
            .trim_end()
            .to_owned()
    }

    fn table(sources: &Sources) -> String {
        let mut reader = Reader::new(sources);
        Resource::LIVE.map(|resource| row(&mut reader, resource)).join("\n")
    }

    fn pages(count: u64) -> String {
        (count * procfs::page_size()).to_string()
    }

    #[test]
    fn everything_a_v2_cgroup_counts_is_read() {
        let stat = format!(
            "anon {}\nfile 4096\nkernel 123456\nshmem {}\ninactive_anon {}\nactive_anon {}\nunevictable {}\nslab_reclaimable 777\n",
            pages(9),
            pages(3),
            pages(10),
            pages(20),
            pages(4)
        );
        let (_dir, sources) = cgroup(
            V2,
            &[
                ("memory.stat", &stat),
                ("memory.current", &pages(100)),
                ("memory.peak", &pages(200)),
                ("memory.swap.current", &pages(30)),
                ("memory.swap.peak", &pages(50)),
                ("memory.events", "low 0\nhigh 0\nmax 99\noom 3\noom_kill 2\noom_group_kill 7\n"),
                ("memory.events.local", "low 0\nhigh 0\nmax 5\noom 3\noom_kill 0\n"),
                ("memory.swap.events", "high 0\nmax 6\nfail 8\n"),
                ("pids.current", "23\n"),
                ("pids.peak", "40\n"),
                ("pids.events", "max 99\n"),
                ("pids.events.local", "max 17\n"),
            ],
        );
        insta::assert_snapshot!(table(&sources), @r"
        kmemsize     123456        -       -
        lockedpages       -        -       -
        privvmpages       -        -       -
        shmpages          3        -       -
        numproc          23       40      17
        physpages       100      200       5
        vmguarpages       0        0       0
        oomguarpages     64        -       2
        numtcpsock        -        -       -
        numflock          -        -       -
        numpty            -        -       -
        numsiginfo        -        -       -
        tcpsndbuf         -        -       -
        tcprcvbuf         -        -       -
        othersockbuf      -        -       -
        dgramrcvbuf       -        -       -
        numothersock      -        -       -
        dcachesize      777        -       -
        numfile           -        -       -
        numiptent         -        -       -
        swappages        30       50       6
        ");
    }

    #[test]
    fn everything_a_v1_cgroup_counts_is_read() {
        let stat = format!(
            "shmem 1\nswap 1\ntotal_shmem {}\ntotal_swap {}\ntotal_inactive_anon {}\ntotal_active_anon {}\ntotal_unevictable {}\n",
            pages(3),
            pages(30),
            pages(10),
            pages(20),
            pages(4)
        );
        let (_dir, sources) = cgroup(
            V1,
            &[
                ("memory.stat", &stat),
                ("memory.usage_in_bytes", &pages(100)),
                ("memory.max_usage_in_bytes", &pages(200)),
                ("memory.failcnt", "5\n"),
                ("memory.memsw.failcnt", "6\n"),
                ("memory.kmem.usage_in_bytes", "123456\n"),
                ("memory.kmem.max_usage_in_bytes", "234567\n"),
                ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
                ("pids.current", "23\n"),
                ("pids.peak", "40\n"),
                ("pids.events", "max 17\n"),
            ],
        );
        let mut reader = Reader::new(&sources);
        let known = [
            Resource::Kmemsize,
            Resource::Shmpages,
            Resource::Numproc,
            Resource::Physpages,
            Resource::Oomguarpages,
            Resource::Dcachesize,
            Resource::Swappages,
        ];
        insta::assert_snapshot!(known.map(|resource| row(&mut reader, resource)).join("\n"), @r"
        kmemsize     123456   234567       -
        shmpages          3        -       -
        numproc          23       40      17
        physpages       100      200       5
        oomguarpages     64        -       2
        dcachesize        -        -       -
        swappages        30        -       6
        ");
    }

    #[test]
    fn what_has_no_source_is_not_known_rather_than_zero() {
        let (dir, empty) = cgroup(V2, &[("memory.stat", "anon 5\n"), ("pids.events", "max 9\n")]);
        let nowhere = Sources { memory: None, pids: None, version: V1, processes: None, init: None, peaks: None };
        let gone = Sources {
            memory: Some(dir.path().join("gone")),
            pids: None,
            version: V2,
            processes: None,
            init: None,
            peaks: None,
        };
        for sources in [empty, nowhere, gone] {
            let mut reader = Reader::new(&sources);
            for resource in Resource::ALL.into_iter().filter(|resource| *resource != Resource::Vmguarpages) {
                let usage = reader.usage(resource).expect("a missing file is no error");
                assert_eq!(usage, Usage { held: None, maxheld: None, failcnt: None }, "{resource} of {sources:?}");
            }
        }
    }

    #[test]
    fn what_is_no_counter_is_an_error_with_its_path() {
        for bad in ["", "max\n", "-1\n", "12x\n", "18446744073709551616\n", "1 2\n", "\u{fffd}"] {
            let (dir, sources) = cgroup(V2, &[("pids.current", bad), ("pids.events.local", &format!("max {bad}"))]);
            match Reader::new(&sources).held(Resource::Numproc) {
                Err(ReadError::Malformed { path, .. }) => assert_eq!(path, dir.path().join("pids.current")),
                other => panic!("{bad:?} was read as {other:?}"),
            }
            assert!(Reader::new(&sources).failcnt(Resource::Numproc).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_unreadable_counter_is_an_error_with_its_path() {
        let (dir, sources) = cgroup(V1, &[]);
        fs::create_dir(dir.path().join("pids.current")).expect("a directory where a file should be");
        let error = Reader::new(&sources).held(Resource::Numproc).expect_err("a directory cannot be read");
        assert_eq!(error.to_string(), format!("read {}", dir.path().join("pids.current").display()));
    }

    #[test]
    fn memory_stat_is_read_once_for_all_that_is_in_it() {
        let (dir, sources) = cgroup(V2, &[("memory.stat", &format!("shmem {}\nkernel 5\n", pages(3)))]);
        let mut reader = Reader::new(&sources);
        assert_eq!(reader.held(Resource::Shmpages).expect("read"), Some(Amount::new(Unit::Pages, 3)));
        fs::remove_file(dir.path().join("memory.stat")).expect("remove it");
        assert_eq!(reader.held(Resource::Kmemsize).expect("kept"), Some(Amount::new(Unit::Bytes, 5)));
    }

    /// The cgroup this test runs in, whose files a real kernel wrote.
    fn own_memory_cgroup() -> Result<Sources, String> {
        let own = fs::read_to_string("/proc/self/cgroup").map_err(|e| format!("/proc/self/cgroup: {e}"))?;
        let v1 = own
            .lines()
            .find_map(|line| line.split_once(":memory:"))
            .map(|(_, path)| (V1, "/sys/fs/cgroup/memory", path));
        let v2 = own.lines().find_map(|line| line.strip_prefix("0::")).map(|path| (V2, "/sys/fs/cgroup", path));
        let (version, mount, path) = v1.or(v2).ok_or("no cgroup with memory")?;
        let dir = Path::new(mount).join(path.trim_start_matches('/'));
        let usage = dir.join(if version == V1 { "memory.usage_in_bytes" } else { "memory.current" });
        // Not there for the root of v2, nor for a path of another cgroup namespace.
        if usage.exists() {
            Ok(Sources { memory: Some(dir), pids: None, version, processes: None, init: None, peaks: None })
        } else {
            Err(format!("no {}", usage.display()))
        }
    }

    #[test]
    fn the_files_of_this_kernel_are_understood() {
        let sources = match own_memory_cgroup() {
            Ok(sources) => sources,
            Err(reason) => return eprintln!("skipped: the_files_of_this_kernel_are_understood: {reason}"),
        };
        let mut reader = Reader::new(&sources);
        for resource in Resource::LIVE {
            reader.usage(resource).unwrap_or_else(|e| panic!("{resource}: {e}"));
        }
        let own = reader.held(Resource::Physpages).expect("readable").expect("this test has some memory");
        assert!(own.count() > 0);
        assert!(reader.held(Resource::Shmpages).expect("readable").is_some());
    }
}
