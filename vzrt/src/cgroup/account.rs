//! What the kernel accounts to a container, in the same words on both kinds of host: for the files that show a container its own machine.

use std::path::{Path, PathBuf};

use super::file;
use super::memory::limit_now;
use super::{Controller, CtCgroup, Error, Place};

/// Memory of a container, in bytes. What this kind of host does not count apart is 0 and part of what it belongs to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct MemoryAccount {
    /// Most it may use; `None`: no limit of its own.
    pub(crate) limit: Option<u64>,
    /// Most it may have in swap; `None`: no limit of its own.
    pub(crate) swap_limit: Option<u64>,
    /// Charged now, page cache and kernel memory included.
    pub(crate) used: u64,
    /// Charged now to swap.
    pub(crate) swap_used: u64,
    /// Anonymous pages.
    pub(crate) anon: u64,
    /// Page cache, `shmem` included.
    pub(crate) file: u64,
    /// Shared memory and tmpfs.
    pub(crate) shmem: u64,
    /// Page cache that is mapped.
    pub(crate) mapped: u64,
    /// Page cache to be written.
    pub(crate) dirty: u64,
    /// Page cache being written.
    pub(crate) writeback: u64,
    /// In swap and in memory at once.
    pub(crate) swap_cached: u64,
    /// LRU lists.
    pub(crate) active_anon: u64,
    /// LRU lists.
    pub(crate) inactive_anon: u64,
    /// LRU lists.
    pub(crate) active_file: u64,
    /// LRU lists.
    pub(crate) inactive_file: u64,
    /// LRU lists.
    pub(crate) unevictable: u64,
    /// Kernel objects that can be given back: dentries, inodes.
    pub(crate) slab_reclaimable: u64,
    /// Kernel objects that can't. On v1 all kernel memory, which is counted as one there.
    pub(crate) slab_unreclaimable: u64,
    /// Kernel stacks.
    pub(crate) kernel_stack: u64,
    /// Page tables.
    pub(crate) page_tables: u64,
    /// Page faults since the start.
    pub(crate) faults: u64,
    /// Page faults that had to read.
    pub(crate) major_faults: u64,
}

/// Which CPUs a container has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CpuGrant {
    /// The numbers of those it may run on, ascending; `None`: on all.
    pub(crate) allowed: Option<Vec<u32>>,
    /// How many CPUs' time it may use, in thousandths; `None`: all there is.
    pub(crate) quota_milli: Option<u64>,
}

/// Block I/O of a container with one device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct DeviceAccount {
    /// The device.
    pub(crate) major: u32,
    /// The device.
    pub(crate) minor: u32,
    /// Since the start.
    pub(crate) read_bytes: u64,
    /// Since the start.
    pub(crate) written_bytes: u64,
    /// Requests since the start.
    pub(crate) reads: u64,
    /// Requests since the start.
    pub(crate) writes: u64,
}

/// The resource whose shortage a `pressure` file tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pressure {
    /// Waiting for a CPU.
    Cpu,
    /// Waiting for block I/O.
    Io,
    /// Waiting for memory.
    Memory,
}

impl CtCgroup {
    /// Reads a container's memory: four small files.
    ///
    /// # Errors
    /// The cgroup is gone. `None` on a host that counts no memory.
    pub(crate) fn memory_account(&self) -> Result<Option<MemoryAccount>, Error> {
        self.place(Controller::Memory)
            .map(|place| if place.v2 { memory_v2(&place) } else { memory_v1(&place) })
            .transpose()
    }

    /// Which CPUs the container has.
    ///
    /// # Errors
    /// The cgroup is gone.
    pub(crate) fn cpu_grant(&self) -> Result<CpuGrant, Error> {
        let list = |place: Place| {
            let path = place.dir.join(if place.v2 { "cpuset.cpus.effective" } else { "cpuset.effective_cpus" });
            Ok::<_, Error>(parse_cpu_list(file::read(&path)?.trim()))
        };
        let quota = |place: Place| if place.v2 { quota_v2(&place.dir) } else { quota_v1(&place.dir) };
        Ok(CpuGrant {
            allowed: self.place(Controller::Cpuset).map(list).transpose()?.flatten(),
            quota_milli: self.place(Controller::Cpu).map(quota).transpose()?.flatten(),
        })
    }

    /// The container's block I/O, a row for each device it has used.
    ///
    /// # Errors
    /// The cgroup is gone.
    pub(crate) fn io_account(&self) -> Result<Vec<DeviceAccount>, Error> {
        let Some(place) = self.place(Controller::Io) else { return Ok(Vec::new()) };
        if place.v2 {
            return Ok(file::read(&place.dir.join("io.stat"))?.lines().filter_map(device_v2).collect());
        }
        let bytes = file::read(&place.dir.join("blkio.throttle.io_service_bytes_recursive"))?;
        let requests = file::read(&place.dir.join("blkio.throttle.io_serviced_recursive"))?;
        Ok(devices_v1(&bytes, &requests))
    }

    /// A `pressure` file of the container, as the kernel writes it; `None` where the kernel keeps none.
    #[must_use]
    pub(crate) fn pressure(&self, of: Pressure) -> Option<String> {
        let name = match of {
            Pressure::Cpu => "cpu.pressure",
            Pressure::Io => "io.pressure",
            Pressure::Memory => "memory.pressure",
        };
        std::fs::read_to_string(self.unified.join(name)).ok()
    }

    /// Up to `most` tasks of the container, as the host numbers them.
    ///
    /// # Errors
    /// The cgroup is gone.
    pub(crate) fn tasks(&self, most: usize) -> Result<Vec<i32>, Error> {
        let mut tasks = Vec::new();
        // On v1 all its tasks are in one directory, whatever tree the container makes for itself on cgroup2.
        if let Some(dir) = self.v1_dirs().next() {
            take_tasks(&dir.join("tasks"), most, &mut tasks)?;
            return Ok(tasks);
        }
        let mut dirs: Vec<PathBuf> = vec![self.unified.clone()];
        while let Some(dir) = dirs.pop().filter(|_| tasks.len() < most) {
            match take_tasks(&dir.join("cgroup.threads"), most, &mut tasks) {
                // Cgroups of the container come and go while we look.
                Err(e) if dir != self.unified && e.is_gone() => continue,
                other => other?,
            }
            let below = std::fs::read_dir(&dir).into_iter().flatten().flatten();
            dirs.extend(below.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
        }
        Ok(tasks)
    }
}

fn take_tasks(path: &Path, most: usize, tasks: &mut Vec<i32>) -> Result<(), Error> {
    let text = file::read(path)?;
    tasks.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).take(most - tasks.len()));
    Ok(())
}

/// 0 for a file that this kernel, or this boot of it, does not have: swap accounting may be off.
fn if_there<T: Default>(value: Result<T, Error>) -> Result<T, Error> {
    match value {
        Err(e) if e.is_gone() => Ok(T::default()),
        other => other,
    }
}

fn memory_v2(place: &Place) -> Result<MemoryAccount, Error> {
    let at = |name: &str| place.dir.join(name);
    let text = file::read(&at("memory.stat"))?;
    let stat = Keys(&text);
    Ok(MemoryAccount {
        limit: limit_now(&at("memory.max"))?,
        swap_limit: if_there(limit_now(&at("memory.swap.max")))?,
        used: file::read_number(&at("memory.current"))?,
        swap_used: if_there(file::read_number(&at("memory.swap.current")))?,
        anon: stat.get("anon"),
        file: stat.get("file"),
        shmem: stat.get("shmem"),
        mapped: stat.get("file_mapped"),
        dirty: stat.get("file_dirty"),
        writeback: stat.get("file_writeback"),
        swap_cached: stat.get("swapcached"),
        active_anon: stat.get("active_anon"),
        inactive_anon: stat.get("inactive_anon"),
        active_file: stat.get("active_file"),
        inactive_file: stat.get("inactive_file"),
        unevictable: stat.get("unevictable"),
        slab_reclaimable: stat.get("slab_reclaimable"),
        slab_unreclaimable: stat.get("slab_unreclaimable"),
        kernel_stack: stat.get("kernel_stack"),
        page_tables: stat.get("pagetables"),
        faults: stat.get("pgfault"),
        major_faults: stat.get("pgmajfault"),
    })
}

fn memory_v1(place: &Place) -> Result<MemoryAccount, Error> {
    let at = |name: &str| place.dir.join(name);
    let text = file::read(&at("memory.stat"))?;
    let stat = Keys(&text);
    let (limit, both) =
        (limit_now(&at("memory.limit_in_bytes"))?, if_there(limit_now(&at("memory.memsw.limit_in_bytes")))?);
    Ok(MemoryAccount {
        limit,
        swap_limit: both.map(|both| both.saturating_sub(limit.unwrap_or(0))),
        used: file::read_number(&at("memory.usage_in_bytes"))?,
        swap_used: stat.get("total_swap"),
        anon: stat.get("total_rss"),
        file: stat.get("total_cache"),
        shmem: stat.get("total_shmem"),
        mapped: stat.get("total_mapped_file"),
        dirty: stat.get("total_dirty"),
        writeback: stat.get("total_writeback"),
        swap_cached: stat.get("total_swapcached"),
        active_anon: stat.get("total_active_anon"),
        inactive_anon: stat.get("total_inactive_anon"),
        active_file: stat.get("total_active_file"),
        inactive_file: stat.get("total_inactive_file"),
        unevictable: stat.get("total_unevictable"),
        slab_unreclaimable: if_there(file::read_number(&at("memory.kmem.usage_in_bytes")))?,
        faults: stat.get("total_pgfault"),
        major_faults: stat.get("total_pgmajfault"),
        ..MemoryAccount::default()
    })
}

/// A file of `key number` lines. Kernels differ in the keys they have.
struct Keys<'a>(&'a str);

impl Keys<'_> {
    fn get(&self, key: &str) -> u64 {
        file::keyed(self.0, key).and_then(|value| value.parse().ok()).unwrap_or(0)
    }
}

fn quota_v2(dir: &Path) -> Result<Option<u64>, Error> {
    let text = file::read(&dir.join("cpu.max"))?;
    let mut words = text.split_whitespace().map(|word| word.parse::<u64>().ok());
    Ok(milli(words.next().flatten(), words.next().flatten()))
}

fn quota_v1(dir: &Path) -> Result<Option<u64>, Error> {
    let text = file::read(&dir.join("cpu.cfs_quota_us"))?;
    Ok(milli(text.trim().parse().ok(), Some(file::read_number(&dir.join("cpu.cfs_period_us"))?)))
}

/// `max`, and v1's -1, are no number: no quota.
fn milli(quota_us: Option<u64>, period_us: Option<u64>) -> Option<u64> {
    quota_us?.saturating_mul(1000).checked_div(period_us?)
}

/// `0-3,8` as numbers; `None` for an empty list. Bounded: no machine has more CPUs than 8192 (`CONFIG_NR_CPUS`).
pub(crate) fn parse_cpu_list(text: &str) -> Option<Vec<u32>> {
    let mut cpus = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cpus.extend(first.parse::<u32>().ok()?..=last.parse::<u32>().ok()?.min(8191));
    }
    (!cpus.is_empty()).then_some(cpus)
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`.
fn device_v2(line: &str) -> Option<DeviceAccount> {
    let (device, rest) = line.split_once(' ')?;
    let (major, minor) = device.split_once(':')?;
    let get = |key: &str| {
        let value = rest.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        value.and_then(|value| value.parse().ok()).unwrap_or(0)
    };
    Some(DeviceAccount {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        read_bytes: get("rbytes"),
        written_bytes: get("wbytes"),
        reads: get("rios"),
        writes: get("wios"),
    })
}

/// Lines of `8:0 Read 4096`, one file for bytes and one for requests.
fn devices_v1(bytes: &str, requests: &str) -> Vec<DeviceAccount> {
    let row = |line: &str| -> Option<(u32, u32, String, u64)> {
        let mut words = line.split(' ');
        let (major, minor) = words.next()?.split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?, words.next()?.to_owned(), words.next()?.parse().ok()?))
    };
    let mut devices: Vec<DeviceAccount> = Vec::new();
    let mut take = |text: &str, set: fn(&mut DeviceAccount, &str, u64)| {
        for (major, minor, what, value) in text.lines().filter_map(row) {
            let at = devices.iter().position(|d| (d.major, d.minor) == (major, minor)).unwrap_or_else(|| {
                devices.push(DeviceAccount { major, minor, ..DeviceAccount::default() });
                devices.len() - 1
            });
            set(&mut devices[at], &what, value);
        }
    };
    take(bytes, |device, what, value| match what {
        "Read" => device.read_bytes = value,
        "Write" => device.written_bytes = value,
        _ => {}
    });
    take(requests, |device, what, value| match what {
        "Read" => device.reads = value,
        "Write" => device.writes = value,
        _ => {}
    });
    devices
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    fn place(v2: bool, files: &[(&str, &str)]) -> (tempfile::TempDir, Place) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let place = Place { dir: dir.path().to_owned(), v2 };
        (dir, place)
    }

    #[test]
    fn memory_reads_alike_from_either_version() {
        let (_one, v1) = place(
            false,
            &[
                ("memory.limit_in_bytes", "536870912\n"),
                ("memory.memsw.limit_in_bytes", "1610612736\n"),
                ("memory.usage_in_bytes", "1000\n"),
                ("memory.stat", "cache 1\ntotal_cache 300\ntotal_rss 200\ntotal_swap 40\ntotal_pgfault 7\n"),
                ("memory.kmem.usage_in_bytes", "50\n"),
            ],
        );
        let (_two, v2) = place(
            true,
            &[
                ("memory.max", "536870912\n"),
                ("memory.swap.max", "1073741824\n"),
                ("memory.current", "1000\n"),
                ("memory.swap.current", "40\n"),
                ("memory.stat", "anon 200\nfile 300\nslab_unreclaimable 50\npgfault 7\n"),
            ],
        );
        assert_eq!(memory_v1(&v1).unwrap(), memory_v2(&v2).unwrap());
    }

    #[test]
    fn no_limit_is_none_and_a_kernel_without_swap_accounting_counts_none() {
        let (_dir, v2) = place(true, &[("memory.max", "max\n"), ("memory.current", "1\n"), ("memory.stat", "")]);
        let account = memory_v2(&v2).unwrap();
        assert_eq!((account.limit, account.swap_limit, account.swap_used), (None, None, 0));
        let (_dir, v1) = place(
            false,
            &[
                ("memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory.usage_in_bytes", "1\n"),
                ("memory.stat", ""),
            ],
        );
        assert_eq!(memory_v1(&v1).unwrap().limit, None);
    }

    #[test]
    fn quotas_are_thousandths_of_a_cpu() {
        let (dir, _) = place(true, &[("cpu.max", "150000 100000\n")]);
        assert_eq!(quota_v2(dir.path()).unwrap(), Some(1500));
        let (dir, _) = place(true, &[("cpu.max", "max 100000\n")]);
        assert_eq!(quota_v2(dir.path()).unwrap(), None);
        let (dir, _) = place(false, &[("cpu.cfs_quota_us", "-1\n"), ("cpu.cfs_period_us", "100000\n")]);
        assert_eq!(quota_v1(dir.path()).unwrap(), None);
    }

    #[test]
    fn lists_of_cpus_are_numbers() {
        assert_eq!(parse_cpu_list("0-2,5"), Some(vec![0, 1, 2, 5]));
        assert_eq!(parse_cpu_list(""), None);
        assert_eq!(parse_cpu_list("x"), None);
    }

    #[test]
    fn devices_read_alike_from_either_version() {
        let v2 = device_v2("254:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=9 dios=9");
        let v1 = devices_v1(
            "254:0 Read 4096\n254:0 Write 8192\n254:0 Total 12288\nTotal 12288\n",
            "254:0 Read 1\n254:0 Write 2\nTotal 3\n",
        );
        assert_eq!(v2.into_iter().collect::<Vec<_>>(), v1);
    }
}
