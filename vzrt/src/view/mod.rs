//! A container's own truth: what its `/proc` and `/sys` tell of memory, CPUs, load, disks and time is the container's, not the machine's.
//!
//! The kernel gives those numbers of the whole machine whoever asks. Here they are made anew from what it accounts to the container, and
//! served through FUSE over the files that exist, by the container's own attendant. What programs ask by a system call instead,
//! sysinfo(2) and sched_getaffinity(2), is answered from the same numbers ([`answers`]).
//!
//! | module | what it is for |
//! |---|---|
//! | `memory`, `cpu`, `load`, `disk` | the text of the files, from numbers: no system call |
//! | [`tree`] | what the file system of a container has in it |
//! | [`fuse`] | the file system: the protocol, one request at a time |
//! | [`place`] | putting the files over those of a container, at its start and again after both its processes were killed |
//! | [`answers`] | system calls answered by seccomp notification |

pub(crate) mod answers;
mod cpu;
mod disk;
pub(crate) mod fuse;
mod load;
mod memory;
pub(crate) mod place;
mod sys;
pub(crate) mod tree;

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use self::cpu::{Clock, Spent};
use self::load::Load;
pub(crate) use self::load::is_stopped;
use self::memory::Memory;
use crate::cgroup::{CtCgroup, Error, Pressure};
use crate::userquota::{UserQuota, mounts};

/// A file that tells a container of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum File {
    Meminfo,
    Swaps,
    Vmstat,
    Cpuinfo,
    Stat,
    Uptime,
    Loadavg,
    Diskstats,
    PressureCpu,
    PressureIo,
    PressureMemory,
    CpusOnline,
    CpusPossible,
    CpusPresent,
}

impl File {
    /// All of them.
    pub(crate) const ALL: [Self; 14] = [
        Self::Meminfo,
        Self::Swaps,
        Self::Vmstat,
        Self::Cpuinfo,
        Self::Stat,
        Self::Uptime,
        Self::Loadavg,
        Self::Diskstats,
        Self::PressureCpu,
        Self::PressureIo,
        Self::PressureMemory,
        Self::CpusOnline,
        Self::CpusPossible,
        Self::CpusPresent,
    ];

    /// The file it takes the place of, from the container's root.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Meminfo => "proc/meminfo",
            Self::Swaps => "proc/swaps",
            Self::Vmstat => "proc/vmstat",
            Self::Cpuinfo => "proc/cpuinfo",
            Self::Stat => "proc/stat",
            Self::Uptime => "proc/uptime",
            Self::Loadavg => "proc/loadavg",
            Self::Diskstats => "proc/diskstats",
            Self::PressureCpu => "proc/pressure/cpu",
            Self::PressureIo => "proc/pressure/io",
            Self::PressureMemory => "proc/pressure/memory",
            Self::CpusOnline => "sys/devices/system/cpu/online",
            Self::CpusPossible => "sys/devices/system/cpu/possible",
            Self::CpusPresent => "sys/devices/system/cpu/present",
        }
    }
}

/// One container's numbers, and what has to be remembered between two readings of them.
#[derive(Debug)]
pub(crate) struct View {
    cgroup: CtCgroup,
    /// What the host's boot clock shows at the container's zero.
    zero: Duration,
    clock: Option<Clock>,
    load: Load,
    /// The load that was told last.
    told: Option<[f64; 3]>,
    page_bytes: u64,
    init_pid: i32,
    user_quota: Option<UserQuota>,
}

impl View {
    /// Takes up the view of a running container.
    pub(crate) fn new(cgroup: CtCgroup, init_pid: i32, user_quota: Option<UserQuota>) -> Self {
        let zero = zero_of(init_pid).unwrap_or_else(now);
        let page_bytes = rustix::param::page_size() as u64;
        Self { cgroup, zero, clock: None, load: Load::new(), told: None, page_bytes, init_pid, user_quota }
    }

    /// How long until the load is to be counted.
    pub(crate) fn load_due(&self) -> Duration {
        self.load.patience()
    }

    /// Counts the load if it is time; gives the means if they are news.
    pub(crate) fn count_load(&mut self) -> Option<[f64; 3]> {
        self.load.keep_up(&self.cgroup);
        let means = self.load.means();
        (self.told != Some(means)).then(|| {
            self.told = Some(means);
            means
        })
    }

    /// How long the container has been up.
    pub(crate) fn uptime(&self) -> Duration {
        now().saturating_sub(self.zero)
    }

    /// The CPUs it sees.
    ///
    /// # Errors
    /// The cgroup is gone.
    pub(crate) fn cpus(&self) -> Result<Vec<u32>, Error> {
        let online = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
        let host = crate::cgroup::account::parse_cpu_list(online.trim()).unwrap_or_else(|| vec![0]);
        Ok(cpu::visible(&self.cgroup.cpu_grant()?, &host))
    }

    fn memory(&self) -> Result<Memory, Error> {
        let host = rustix::system::sysinfo();
        let unit = u64::from(host.mem_unit).max(1);
        let account = self.cgroup.memory_account()?.unwrap_or_else(memory::of_the_host);
        Ok(Memory::new(account, host.totalram * unit, host.totalswap * unit))
    }

    /// How many CPUs the machine may ever have: the width of its masks.
    fn possible_cpus(&self) -> u32 {
        let possible = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
        crate::cgroup::account::parse_cpu_list(possible.trim()).and_then(|cpus| cpus.last().copied()).unwrap_or(0) + 1
    }

    fn idle(&mut self, spent: Spent, cpus: usize) -> Duration {
        let uptime = self.uptime();
        self.clock.get_or_insert_with(|| Clock::new(uptime, spent, cpus)).advance(uptime, spent, cpus)
    }

    fn spent(&self) -> Result<Spent, Error> {
        let usage = self.cgroup.usage()?;
        Ok(Spent { user: usage.cpu_user, system: usage.cpu_system })
    }

    /// The text of a file as it is now.
    ///
    /// # Errors
    /// The container's cgroup is gone: it has ended.
    pub(crate) fn text(&mut self, file: File) -> Result<String, Error> {
        Ok(match file {
            File::Meminfo => self.memory()?.meminfo(),
            File::Swaps => self.memory()?.swaps(),
            File::Vmstat => self.memory()?.vmstat(&self.cgroup.io_account()?, self.page_bytes),
            File::Cpuinfo => cpu::cpuinfo(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default(), &self.cpus()?),
            File::Stat => self.stat()?,
            File::Uptime => {
                let idle = self.idle(self.spent()?, self.cpus()?.len());
                cpu::uptime(self.uptime(), idle)
            }
            File::Loadavg => {
                self.load.keep_up(&self.cgroup);
                self.load.text(self.cgroup.usage()?.pids.unwrap_or(1))
            }
            File::Diskstats => disk::diskstats(&self.cgroup.io_account()?),
            File::PressureCpu => self.cgroup.pressure(Pressure::Cpu).unwrap_or_default(),
            File::PressureIo => self.cgroup.pressure(Pressure::Io).unwrap_or_default(),
            File::PressureMemory => self.cgroup.pressure(Pressure::Memory).unwrap_or_default(),
            File::CpusOnline | File::CpusPossible | File::CpusPresent => format!("{}\n", cpu::list(&self.cpus()?)),
        })
    }

    /// `/proc/mounts` for one thread. A reader that is gone reads nothing more.
    pub(crate) fn mounts(&self, reader: u32) -> String {
        self.user_quota.as_ref().and_then(|quota| mounts::text(reader, &quota.node).ok()).unwrap_or_default()
    }

    fn stat(&mut self) -> Result<String, Error> {
        let (visible, spent) = (self.cpus()?, self.spent()?);
        let idle = self.idle(spent, visible.len());
        let counted = self.load.counted();
        let boot_s = unix_seconds().saturating_sub(self.uptime().as_secs());
        let (running, blocked) = (counted.running, counted.blocked);
        Ok(cpu::Stat { visible: &visible, spent, idle, boot_s, running, blocked }.text())
    }
}

/// The host's boot clock (`CLOCK_BOOTTIME`: time asleep counts).
fn now() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

fn unix_seconds() -> u64 {
    u64::try_from(clock_gettime(ClockId::Realtime).tv_sec).unwrap_or_default()
}

/// What the host's boot clock shows when a process's own shows zero: the offset of its time namespace (time_namespaces(7)), negative for a
/// container that was started after its host.
fn zero_of(pid: i32) -> Option<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/timens_offsets")).ok()?;
    let mut words = text.lines().find_map(|line| line.strip_prefix("boottime"))?.split_whitespace();
    let seconds: i64 = words.next()?.parse().ok()?;
    Some(Duration::from_secs(seconds.checked_neg()?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_has_a_place_of_its_own() {
        let mut paths: Vec<&str> = File::ALL.iter().map(|f| f.path()).collect();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), File::ALL.len());
    }

    #[test]
    fn a_process_of_the_host_has_the_hosts_zero() {
        let me = i32::try_from(std::process::id()).unwrap_or(0);
        assert_eq!(zero_of(me), Some(Duration::ZERO));
        assert_eq!(zero_of(-1), None);
    }
}
