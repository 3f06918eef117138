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
//! | numiptent | nftables and iptables of its network namespace (`netfilter.rs`) | – | – |
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
use crate::netfilter;
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
    /// What [`Reader::is_sampled`] says.
    pub is_sampled: bool,
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
        if let Some(row) = self.kernel(resource)? {
            let held = self.held(resource)?;
            let most = held.map_or(0, Amount::count).max(row.maxheld);
            let maxheld = Some(Amount::new(resource.unit(), most));
            return Ok(Usage { held, maxheld, failcnt: Some(row.failcnt), is_sampled: false });
        }
        // The peak last: it is then no less than what was held before.
        let held = self.held(resource)?;
        let peak = self.peak(resource)?;
        let maxheld = match peak {
            Some(peak) => Some(peak),
            None => held.map(|held| self.mark(resource, held)).transpose()?.flatten(),
        };
        Ok(Usage { held, maxheld, failcnt: self.failcnt(resource)?, is_sampled: peak.is_none() })
    }

    /// Whether nobody watches the most that a container has of `resource`: maxheld is then the most that anybody has seen, and what came and went
    /// between two looks is not in it.
    ///
    /// # Errors
    /// Those of [`Reader::held`].
    pub fn is_sampled(&mut self, resource: Resource) -> Result<bool, ReadError> {
        Ok(self.kernel(resource)?.is_none() && self.peak(resource)?.is_none())
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
        // Of signals the programs see when one is queued, not when it is taken.
        if let (false, Some(row)) = (resource == Resource::Numsiginfo, self.kernel(resource)?) {
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
            (Resource::Numiptent, _) => self.sources.init.map(netfilter::entries).transpose()?.flatten(),
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
    fn kernel(&mut self, resource: Resource) -> Result<Option<Counter>, ReadError> {
        if !bpf::RESOURCES.iter().any(|counting| counting.resource == resource) {
            return Ok(None);
        }
        let directory = self.sources.processes.as_deref();
        let rows = self.kernel.get_or_insert_with(|| directory.and_then(kernel_rows).unwrap_or_default());
        let Some(mut row) = rows.iter().find(|(counted, _)| *counted == resource).map(|(_, row)| *row) else {
            return Ok(None);
        };
        // That of the programs is up to two seconds old.
        if resource == Resource::Dcachesize
            && let Some(held) = self.stat()?.slab_reclaimable
        {
            row = Counter { held, maxheld: row.maxheld.max(held), ..row };
        }
        // The programs do not count the tables of iptables.
        if resource == Resource::Numiptent
            && let Some(entries) = self.sources.init.map(netfilter::of_iptables).transpose()?.flatten()
        {
            let held = row.held + entries;
            row = Counter { held, maxheld: row.maxheld.max(held), ..row };
        }
        Ok(Some(row))
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
mod tests;
