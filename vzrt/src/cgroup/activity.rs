//! What a container does: the counters of its work in one reading, for who looks again and again. Only files that the kernel answers without
//! adding anything up are read; `memory.stat`, which it does for, is none of them.

use std::time::Duration;

use super::memory::limit_now;
use super::{Controller, CtCgroup, DeviceAccount, Error, Pressure, file};

/// Block I/O of all devices together, since the cgroup was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlockIo {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Requests to read.
    pub reads: u64,
    /// Requests to write.
    pub writes: u64,
}

/// How much of the last ten seconds some task of the container waited for something, in percent. `None`: this kernel keeps no such account.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Waiting {
    /// For a CPU.
    pub cpu_percent: Option<f64>,
    /// For block I/O.
    pub io_percent: Option<f64>,
    /// For memory.
    pub memory_percent: Option<f64>,
}

/// A reading of a container. `None`: this host does not count it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Activity {
    /// CPU time since the cgroup was made.
    pub cpu: Duration,
    /// The part of it in user mode.
    pub cpu_user: Duration,
    /// The part of it in the kernel.
    pub cpu_system: Duration,
    /// For how long its CPUs, taken together, were kept from it by its limit.
    pub throttled: Option<Duration>,
    /// Its weight, in `cpuunits`.
    pub cpuunits: Option<u64>,
    /// Most of CPU time that it may use, thousandths of one CPU; `None`: no limit.
    pub cpu_limit_milli: Option<u64>,
    /// Block I/O.
    pub io: Option<BlockIo>,
    /// Memory charged, page cache included, bytes.
    pub memory_bytes: Option<u64>,
    /// Most of it, bytes; `None`: no limit.
    pub memory_limit_bytes: Option<u64>,
    /// What is swapped out, bytes.
    pub swap_bytes: Option<u64>,
    /// Processes and threads.
    pub tasks: Option<u64>,
    /// Pressure.
    pub waiting: Waiting,
}

impl CtCgroup {
    /// Reads a container: a dozen small files.
    ///
    /// # Errors
    /// The cgroup is gone, or says what is no number.
    pub fn activity(&self) -> Result<Activity, Error> {
        let usage = self.usage()?;
        let (memory_limit_bytes, swap_bytes) = self.memory_bounds(usage.memory_bytes)?;
        let waiting = |of| self.pressure(of).as_deref().and_then(some_avg10);
        Ok(Activity {
            cpu: usage.cpu,
            cpu_user: usage.cpu_user,
            cpu_system: usage.cpu_system,
            throttled: self.throttled()?,
            cpuunits: self.cpuunits()?,
            cpu_limit_milli: self.cpu_grant()?.quota_milli,
            io: self.place(Controller::Io).map(|_| self.io_account()).transpose()?.as_deref().map(total),
            memory_bytes: usage.memory_bytes,
            memory_limit_bytes,
            swap_bytes,
            tasks: usage.pids,
            waiting: Waiting {
                cpu_percent: waiting(Pressure::Cpu),
                io_percent: waiting(Pressure::Io),
                memory_percent: waiting(Pressure::Memory),
            },
        })
    }

    /// v2 tells it in microseconds, v1 in nanoseconds, in a file of the same name.
    fn throttled(&self) -> Result<Option<Duration>, Error> {
        let Some(place) = self.place(Controller::Cpu) else { return Ok(None) };
        let text = file::read(&place.dir.join("cpu.stat"))?;
        let number = |key| file::keyed(&text, key).and_then(|value| value.trim().parse().ok());
        Ok(match place.v2 {
            true => number("throttled_usec").map(Duration::from_micros),
            false => number("throttled_time").map(Duration::from_nanos),
        })
    }

    /// The limit of memory, and what is in swap. v1 counts swap with memory, by numbers that are each a moment's.
    fn memory_bounds(&self, memory_bytes: Option<u64>) -> Result<(Option<u64>, Option<u64>), Error> {
        let Some(place) = self.place(Controller::Memory) else { return Ok((None, None)) };
        let at = |name: &str| place.dir.join(name);
        // Accounting of swap may be off.
        let number = |name: &str| at(name).exists().then(|| file::read_number(&at(name))).transpose();
        Ok(match place.v2 {
            true => (limit_now(&at("memory.max"))?, number("memory.swap.current")?),
            false => {
                let both = number("memory.memsw.usage_in_bytes")?;
                let swap = both.zip(memory_bytes).map(|(both, memory)| both.saturating_sub(memory));
                (limit_now(&at("memory.limit_in_bytes"))?, swap)
            }
        })
    }
}

fn total(devices: &[DeviceAccount]) -> BlockIo {
    devices.iter().fold(BlockIo::default(), |sum, device| BlockIo {
        read_bytes: sum.read_bytes.saturating_add(device.read_bytes),
        written_bytes: sum.written_bytes.saturating_add(device.written_bytes),
        reads: sum.reads.saturating_add(device.reads),
        writes: sum.writes.saturating_add(device.writes),
    })
}

/// `some avg10=1.25 avg60=…` of a `pressure` file.
fn some_avg10(text: &str) -> Option<f64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    some.split(' ').find_map(|word| word.strip_prefix("avg10="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_the_ten_seconds_of_some() {
        let text = "some avg10=1.25 avg60=0.50 avg300=0.10 total=9\nfull avg10=7.00 avg60=0.00 avg300=0.00 total=0\n";
        assert_eq!(some_avg10(text), Some(1.25));
        assert_eq!(some_avg10("full avg10=7.00\n"), None);
        assert_eq!(some_avg10(""), None);
    }

    #[test]
    fn devices_are_added_up() {
        let one = DeviceAccount { read_bytes: 1, written_bytes: 2, reads: 3, writes: 4, ..DeviceAccount::default() };
        let all = BlockIo { read_bytes: 2, written_bytes: 4, reads: 6, writes: 8 };
        assert_eq!(total(&[one, one]), all);
        assert_eq!(total(&[]), BlockIo::default());
    }
}
