//! Exact counters and refusals at the barrier, by BPF programs in the host's kernel.
//!
//! A container is a cgroup2 directory and all below it, known by its id. The programs are loaded once for the host, by a program of its own
//! ([`Host::ensure`]), and stay: their maps and links are pinned below `/sys/fs/bpf`. From then on this module only looks into pinned maps, and
//! no daemon is in the loop. The counters are an array that is mapped into memory: reading all of a container costs one system call, and a
//! barrier is raised by one store, live.
//!
//! | resource | charged | refused with | given back |
//! |---|---|---|---|
//! | numfile | each open file | ENFILE | when the last descriptor of it goes |
//! | numpty | each open of a `ptmx` | ENOSPC | when that file goes |
//! | numtcpsock, numothersock | `socket`, `socketpair`, `accept` (from the call on, so a waiting accept holds one) | ENOBUFS | when the socket goes |
//! | numflock | each lock that is held, of flock, fcntl and leases; none for one that waits | ENOLCK | when it is gone, whoever does it |
//! | numsiginfo | by the kernel itself; the programs keep the most, and count refusals | EAGAIN, by a limit of the user namespace | – |
//! | lockedpages | `mlock` and its kin, `mmap` of what is locked, `shmctl(SHM_LOCK)`, of all processes together | `mmap` EAGAIN, `shmctl` ENOMEM; of `mlock` only failures are counted, refusing it is the caller's ([`Host::allows`]) | when it is unlocked or unmapped |
//! | tcpsndbuf, othersockbuf | memory of what was written and is not yet acknowledged, or read from a UNIX socket | ENOBUFS, before any of it is written | when it is |
//! | tcprcvbuf | memory of what has come and is not yet read | the segment is dropped and comes again; the next one that a reader waits for never is | when it is read |
//! | dgramrcvbuf | memory of datagrams not yet read, UNIX ones excepted | the datagram is dropped | when it is read |
//! | privvmpages | `mmap`, `brk`, `mremap`, `fork`; the growth of a stack, `exec` and `mprotect` at the limit only | ENOMEM | when it is unmapped |
//! | kmemsize | pages of kernel memory, as the memory cgroup counts them | ENOMEM for a new task, file, socket, inode or IPC object | when the kernel frees them |
//! | dcachesize | the kernel's own sum of memory it could give back, made every two seconds | ENOMEM for a new inode, at the limit | when it is |
//! | shmpages | System V and shared anonymous memory with its size, tmpfs and memfd with what is in them | ENOMEM; in tmpfs ENOSPC | when it is removed |
//! | numiptent | rules of nftables, in all network namespaces that it made; entries of iptables' tables are not counted | ENOMEM, for a batch or a table as a whole | when they are deleted, or their namespace goes |
//!
//! privvmpages is of processes: one that was moved into the cgroup counts from its next such call on. `vmguarpages` is what is not refused.
//!
//! Only what a container gets while it is attached is charged to it, and what outlives that is nobody's.

mod event;
mod layout;
mod standing;
mod sys;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use rustix::fs::{FlockOperation, flock};

pub use event::Refusal;
pub use layout::{LAYOUT, NAME_BYTES, VERDICT_BYTES};
pub use standing::{RESOURCES, Standing};

use crate::sys::Shared;
use crate::{Bound, Counter, Resource, Set};

/// The programs this was built with, by their contents. Two builds with the same programs share them.
pub const BUILD: &str = env!("VZ_BPF_BUILD");

/// Where BPF objects are pinned on every host.
pub const BPFFS: &str = "/sys/fs/bpf";

/// The directory of our pins: maps of another layout are in another one.
#[must_use]
pub fn directory() -> PathBuf {
    Path::new(BPFFS).join(format!("vz-{LAYOUT}"))
}

/// The programs could not be loaded or their maps not be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("run {}", program.display())]
    Run { program: PathBuf, source: io::Error },
    #[error("{} failed: {said}", program.display())]
    Loader { program: PathBuf, said: String },
    #[error("{what} {}", path.display())]
    Path { what: &'static str, path: PathBuf, source: io::Error },
    #[error("bpf({what})")]
    Map { what: &'static str, source: io::Error },
    #[error("{} is not a cgroup2 directory that can be seen from the root of its tree: is this a cgroup namespace?", path.display())]
    NotACgroup { path: PathBuf },
    #[error("cgroup {cgroup} is counted already: detach it first")]
    Attached { cgroup: u64 },
    #[error("cgroup {cgroup} is not counted: attach it first")]
    NotAttached { cgroup: u64 },
    #[error("{} containers are counted already, the most there can be", layout::SLOTS)]
    Full,
    #[error("containers lie at {} depths of the cgroup tree already, the most there can be", layout::LEVELS)]
    Levels,
}

/// The beancounters of this host's kernel.
pub struct Host {
    directory: PathBuf,
    report: OwnedFd,
    containers: OwnedFd,
    slots: Shared<layout::Slot>,
    host: Shared<layout::Host>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Host {
    /// The programs of this build, loaded by `loader` (`vzubc-load`) if they are not yet. Those of another build are replaced, and no count
    /// is lost. It takes a second or so, once.
    ///
    /// # Errors
    /// The loader cannot be run or cannot do anything at all here; single programs that this host refuses are no error, see [`Host::standing`].
    pub fn ensure(loader: &Path) -> Result<Self, Error> {
        if let Some(host) = Self::open()? {
            return Ok(host);
        }
        let run = Command::new(loader).stdin(Stdio::null()).output();
        let output = run.map_err(|source| Error::Run { program: loader.to_owned(), source })?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Error::Loader { program: loader.to_owned(), said });
        }
        Self::open()?.ok_or_else(|| Error::Loader {
            program: loader.to_owned(),
            said: "it has pinned nothing; is it of another version?".to_owned(),
        })
    }

    /// The programs of this build, if they are loaded.
    ///
    /// # Errors
    /// They are, but cannot be used.
    pub fn open() -> Result<Option<Self>, Error> {
        let directory = directory();
        let report = match sys::pinned(&directory.join(BUILD).join("report")) {
            Ok(report) => report,
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => return Ok(None),
            Err(source) => return Err(Error::Path { what: "open", path: directory, source }),
        };
        let map = |name| {
            let path = directory.join("maps").join(name);
            sys::pinned(&path).map_err(|source| Error::Path { what: "open", path, source })
        };
        let mapped = |source| Error::Map { what: "mmap", source };
        let slots = Shared::map(map("slots")?.as_fd(), layout::SLOTS).map_err(mapped)?;
        let host = Shared::map(map("host")?.as_fd(), 1).map_err(mapped)?;
        Ok(Some(Self { report, containers: map("containers")?, slots, host, directory }))
    }

    /// Starts to count a cgroup2 directory and all below it, from zero. Returns its id, by which it is known from here on. What `bounds` does
    /// not name is unlimited, and nothing is promised.
    ///
    /// # Errors
    /// It is no such directory, it is counted already, or there is no room.
    pub fn attach(&self, cgroup: &Path, bounds: &Set) -> Result<u64, Error> {
        let (id, level) = identify(cgroup)?;
        let _lock = self.lock()?;
        if self.number(id)?.is_some() {
            return Err(Error::Attached { cgroup: id });
        }
        let (number, slot) = (0..layout::SLOTS)
            .find_map(|number| {
                self.slots.get(number).filter(|slot| slot.cgroup.load(Acquire) == 0).map(|s| (number, s))
            })
            .ok_or(Error::Full)?;
        self.look_at(level)?;
        slot.clear();
        for resource in Resource::LIVE {
            slot.bound(bounds.get(resource).unwrap_or_else(|| Bound::kernel_default(resource, 0)));
        }
        // It is counted by differences; what the kernel has for it already is given back like all other.
        slot.counters[Resource::Kmemsize as usize].held.store(kernel_bytes(cgroup)?, Relaxed);
        slot.level.store(level, Relaxed);
        slot.cgroup.store(id, Release);
        sys::insert(self.containers.as_fd(), id, number as u32).map_err(|source| {
            slot.cgroup.store(0, Release);
            Error::Map { what: "BPF_MAP_UPDATE_ELEM", source }
        })?;
        Ok(id)
    }

    /// Stops counting it. What it still has is nobody's. That it is not counted is success.
    ///
    /// # Errors
    /// A map or the lock cannot be used.
    pub fn detach(&self, cgroup: u64) -> Result<(), Error> {
        let _lock = self.lock()?;
        let Some(slot) = self.slot(cgroup)? else { return Ok(()) };
        sys::remove(self.containers.as_fd(), cgroup)
            .map_err(|source| Error::Map { what: "BPF_MAP_DELETE_ELEM", source })?;
        slot.generation.fetch_add(1, Release);
        slot.cgroup.store(0, Release);
        self.look_no_more_at(slot.level.load(Relaxed));
        Ok(())
    }

    /// Changes one barrier and limit of a container that runs; the next charge is measured by it.
    ///
    /// # Errors
    /// It is not counted, or the resource never is.
    pub fn set_bound(&self, cgroup: u64, bound: Bound) -> Result<(), Error> {
        self.slot(cgroup)?.ok_or(Error::NotAttached { cgroup })?.bound(bound);
        Ok(())
    }

    /// Whether `wanted` more of a resource is within its bounds, for what no program is asked about. Nothing is held by it; a no counts as a
    /// refusal, of this thread.
    ///
    /// # Errors
    /// It is not counted.
    pub fn allows(&self, cgroup: u64, resource: Resource, wanted: u64, thread: u32) -> Result<bool, Error> {
        let slot = self.slot(cgroup)?.ok_or(Error::NotAttached { cgroup })?;
        let row = slot.row(resource);
        let (barrier, limit) = (row.barrier, row.limit);
        let allowed = row.held.saturating_add(wanted) <= barrier.min(limit);
        if !allowed {
            event::refuse(slot, resource, wanted, limit < barrier, thread);
        }
        Ok(allowed)
    }

    /// Whether a cgroup is counted.
    ///
    /// # Errors
    /// A map cannot be used.
    pub fn has(&self, cgroup: u64) -> Result<bool, Error> {
        Ok(self.number(cgroup)?.is_some())
    }

    /// The rows of those resources that are counted here, in the order of the tables; see [`Host::standing`] for which.
    ///
    /// # Errors
    /// It is not counted.
    pub fn read(&self, cgroup: u64) -> Result<Vec<(Resource, Counter)>, Error> {
        let slot = self.slot(cgroup)?.ok_or(Error::NotAttached { cgroup })?;
        let counted = RESOURCES.iter().map(|counting| counting.resource);
        Ok(counted.map(|resource| (resource, slot.row(resource))).collect())
    }

    /// Starts maxheld and failcnt anew; what is held stays.
    ///
    /// # Errors
    /// It is not counted.
    pub fn reset(&self, cgroup: u64) -> Result<(), Error> {
        let slot = self.slot(cgroup)?.ok_or(Error::NotAttached { cgroup })?;
        for counter in &slot.counters {
            counter.failcnt.store(0, Relaxed);
            counter.maxheld.store(counter.held(), Relaxed);
        }
        Ok(())
    }

    /// The last refusals, oldest first: at most 16, and at most one a second of each resource.
    ///
    /// # Errors
    /// It is not counted.
    pub fn refusals(&self, cgroup: u64) -> Result<Vec<Refusal>, Error> {
        Ok(event::read(self.slot(cgroup)?.ok_or(Error::NotAttached { cgroup })?))
    }

    /// How many objects were allowed without being counted because the host's table of them was full.
    ///
    /// # Errors
    /// It is not counted.
    pub fn uncharged(&self, cgroup: u64) -> Result<u64, Error> {
        Ok(self.slot(cgroup)?.ok_or(Error::NotAttached { cgroup })?.uncharged.load(Relaxed))
    }

    fn number(&self, cgroup: u64) -> Result<Option<usize>, Error> {
        let found = sys::lookup::<8, 4>(self.containers.as_fd(), &cgroup.to_ne_bytes());
        let found = found.map_err(|source| Error::Map { what: "BPF_MAP_LOOKUP_ELEM", source })?;
        Ok(found.map(|number| u32::from_ne_bytes(number) as usize))
    }

    fn slot(&self, cgroup: u64) -> Result<Option<&layout::Slot>, Error> {
        Ok(self.number(cgroup)?.and_then(|number| self.slots.get(number)))
    }

    /// Held while slots and depths change hands; the kernel releases it with its holder.
    fn lock(&self) -> Result<File, Error> {
        let failed = |source| Error::Path { what: "lock", path: self.directory.clone(), source };
        let directory = File::open(&self.directory).map_err(failed)?;
        flock(&directory, FlockOperation::LockExclusive).map_err(|errno| failed(errno.into()))?;
        Ok(directory)
    }

    /// Adds a depth to those at which programs look for containers.
    fn look_at(&self, level: u32) -> Result<(), Error> {
        let levels = &self.host.get(0).ok_or(Error::Levels)?.levels;
        if levels.iter().any(|known| known.load(Relaxed) == level) {
            return Ok(());
        }
        levels.iter().find(|known| known.load(Relaxed) == 0).ok_or(Error::Levels)?.store(level, Release);
        Ok(())
    }

    /// Takes a depth away if no container lies at it any more: each costs every charge on the host a lookup. The last one moves to its place.
    fn look_no_more_at(&self, level: u32) {
        let slots = (0..layout::SLOTS).filter_map(|number| self.slots.get(number));
        if slots.filter(|slot| slot.cgroup.load(Relaxed) != 0).any(|slot| slot.level.load(Relaxed) == level) {
            return;
        }
        let Some(host) = self.host.get(0) else { return };
        let used = host.levels.iter().take_while(|known| known.load(Relaxed) != 0).count();
        if let Some(place) = host.levels[..used].iter().position(|known| known.load(Relaxed) == level) {
            host.levels[place].store(host.levels[used - 1].load(Relaxed), Release);
            host.levels[used - 1].store(0, Release);
        }
    }
}

impl layout::Slot {
    /// As new, but for the generation.
    fn clear(&self) {
        for counter in &self.counters {
            for field in [&counter.held, &counter.maxheld, &counter.failcnt, &counter.told_ns] {
                field.store(0, Relaxed);
            }
        }
        for event in &self.ring {
            event.sequence.store(0, Relaxed);
        }
        self.uncharged.store(0, Relaxed);
        self.events.store(0, Relaxed);
    }

    /// The one that is not counted has no place, and nothing to bound.
    fn bound(&self, bound: Bound) {
        if let Some(counter) = self.counters.get(bound.resource() as usize) {
            counter.barrier.store(bound.barrier().count(), Relaxed);
            counter.limit.store(bound.limit().count(), Release);
        }
    }

    fn row(&self, resource: Resource) -> Counter {
        let counter = &self.counters[resource as usize];
        let bound = Bound::new(resource, counter.barrier.load(Relaxed), counter.limit.load(Relaxed));
        Counter::new(bound, counter.held(), counter.maxheld.load(Relaxed), counter.failcnt.load(Relaxed))
    }
}

impl layout::Counter {
    /// Below zero is none: somebody moved in with what was charged elsewhere, and has given it back.
    fn held(&self) -> u64 {
        let held = self.held.load(Relaxed);
        if held > i64::MAX as u64 { 0 } else { held }
    }
}

/// The kernel memory of a cgroup2 directory and all below it; none where it has no memory controller.
fn kernel_bytes(cgroup: &Path) -> Result<u64, Error> {
    let path = cgroup.join("memory.stat");
    match std::fs::read_to_string(&path) {
        Ok(stat) => Ok(stat.lines().find_map(|line| line.strip_prefix("kernel ")?.parse().ok()).unwrap_or(0)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(source) => Err(Error::Path { what: "read", path, source }),
    }
}

/// The id of a cgroup2 directory, by which an attached one is known.
///
/// # Errors
/// It is none.
pub fn id(cgroup: &Path) -> Result<u64, Error> {
    identify(cgroup).map(|(id, _)| id)
}

/// The id of a cgroup2 directory and how deep it lies: its inode number is the id (since 5.5, 64 bits), and the root's is 1.
fn identify(cgroup: &Path) -> Result<(u64, u32), Error> {
    let stat =
        |path: &Path| path.metadata().map_err(|source| Error::Path { what: "stat", path: path.to_owned(), source });
    let mut at =
        cgroup.canonicalize().map_err(|source| Error::Path { what: "find", path: cgroup.to_owned(), source })?;
    let own = stat(&at)?;
    let mut level = 0;
    let mut here = own.ino();
    while here != 1 {
        let up = at.parent().map(Path::to_owned).ok_or_else(|| Error::NotACgroup { path: cgroup.to_owned() })?;
        let above = stat(&up)?;
        if above.dev() != own.dev() {
            return Err(Error::NotACgroup { path: cgroup.to_owned() });
        }
        (at, here, level) = (up, above.ino(), level + 1);
    }
    let on = rustix::fs::statfs(cgroup).map_err(|e| Error::Path {
        what: "statfs",
        path: cgroup.to_owned(),
        source: e.into(),
    })?;
    if on.f_type != libc::CGROUP2_SUPER_MAGIC || level == 0 {
        return Err(Error::NotACgroup { path: cgroup.to_owned() });
    }
    Ok((own.ino(), level))
}
