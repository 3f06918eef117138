//! Limits of a configuration in OCI's words.

use std::path::Path;

use beancounters::{Resource, vswap};
use oci_spec::runtime::{
    LinuxBlockIo, LinuxBlockIoBuilder, LinuxCpu, LinuxCpuBuilder, LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory,
    LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder, LinuxThrottleDevice,
    LinuxThrottleDeviceBuilder,
};
use vzrt::cgroup::{self, DEFAULT_CPUUNITS, weights};
use vzrt::disks::{Device, Disks};
use vzrt::overdraft;
use vzrt::plan::CpuShare;

use super::{guarantee, masks};
use crate::config::global::Global;
use crate::config::settings::Settings;
use crate::config::values::CpuLimit;
use crate::{Exit, Failure};

/// The cgroup limits that these settings ask for. `private` is on the disk whose I/O is limited.
///
/// # Errors
/// Settings that contradict each other, or a device that is not there.
pub fn resources(settings: &Settings, private: &Path) -> Result<LinuxResources, Failure> {
    let bad = |e: oci_spec::OciSpecError| Failure::from_error(Exit::InvalidValue, &e);
    let mut builder = LinuxResourcesBuilder::default().cpu(cpu(settings)?).devices(devices(settings)?);
    if let Some(memory) = memory(settings)? {
        builder = builder.memory(memory);
    }
    let numproc = settings.bounds.get(Resource::Numproc).and_then(|b| b.limit().finite());
    let pids = LinuxPidsBuilder::default().limit(numproc.map_or(-1, saturate)).build().map_err(bad)?;
    builder = builder.pids(pids);
    builder.block_io(block_io(settings, private)?).build().map_err(bad)
}

fn saturate(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// RAM is physpages.limit; swap is swappages.limit, and OCI's swap is the sum of both. The barriers of these two mean nothing (always 0).
fn memory(settings: &Settings) -> Result<Option<LinuxMemory>, Failure> {
    let bytes = |r: Resource| settings.bounds.get(r).and_then(|b| b.limit().in_bytes()?.finite());
    let ram = bytes(Resource::Physpages);
    let swap = bytes(Resource::Swappages);
    let total = match (ram, swap) {
        (Some(ram), Some(swap)) => Some(saturate(ram.saturating_add(swap))),
        _ => None,
    };
    let mut builder = LinuxMemoryBuilder::default().limit(ram.map_or(-1, saturate)).swap(total.unwrap_or(-1));
    if let Some(guaranteed) = guaranteed_bytes(&bounds(settings)?) {
        builder = builder.reservation(saturate(guaranteed));
    }
    builder.build().map(Some).map_err(|e| Failure::from_error(Exit::InvalidValue, &e))
}

/// The bounds of all beancounters that are said or follow from what is said.
///
/// # Errors
/// RAM has a limit and nothing is said of swap.
pub fn bounds(settings: &Settings) -> Result<beancounters::Set, Failure> {
    let bounds = guarantee::promised(&settings.bounds, settings.memguarantee)?;
    vswap::fill(&bounds, settings.vm_overcommit).map_err(|_| {
        Failure::new(Exit::NotEnoughBeancounters, "Error: required UB parameter (swap) not set")
            .hint("Set it together with --ram: --swap 0 for none.")
    })
}

/// How much of its memory a container keeps when the host runs short: what is guaranteed to be there (vmguarpages) and what is guaranteed not to be
/// taken by the killer (oomguarpages) is the same memory, of which it can have no more than its RAM. `None`: nothing was promised.
pub(super) fn guaranteed_bytes(bounds: &beancounters::Set) -> Option<u64> {
    let bytes = |amount: beancounters::Amount| amount.in_bytes().map(beancounters::Amount::count);
    let barrier = |resource| bounds.get(resource).and_then(|bound| bytes(bound.barrier()));
    let ram = bounds.get(Resource::Physpages).and_then(|bound| bytes(bound.limit())).unwrap_or(u64::MAX);
    let promised = [Resource::Vmguarpages, Resource::Oomguarpages].into_iter().filter_map(barrier).max()?;
    Some(promised.min(ram))
}

/// What the processes of a container that holds nothing yet count for when the whole host is out of memory: less by what it is promised
/// (oomguarpages).
///
/// # Errors
/// As [`bounds`].
pub fn oom_score_adj(settings: &Settings, host_bytes: u64) -> Result<i32, Failure> {
    Ok(overdraft::adjustment(0, 0, overdraft::promised_bytes(&bounds(settings)?), host_bytes))
}

fn cpu(settings: &Settings) -> Result<LinuxCpu, Failure> {
    let percent = settings.cpulimit.map(cpulimit_percent).transpose()?.unwrap_or(0);
    let percent = u32::try_from(percent).unwrap_or(u32::MAX);
    let cpus = u32::try_from(settings.cpus.unwrap_or(0)).unwrap_or(u32::MAX);
    let quota_us = weights::cpu_quota_usec(percent, cpus).map_or(-1, saturate);
    let mut builder = LinuxCpuBuilder::default().quota(quota_us).period(weights::CPU_PERIOD_USEC);
    let (cpus, nodes) = masks::usable(settings)?;
    if let Some(cpus) = cpus {
        builder = builder.cpus(cpus);
    }
    if let Some(nodes) = nodes {
        builder = builder.mems(nodes);
    }
    builder.build().map_err(|e| Failure::from_error(Exit::SetCpu, &e))
}

/// A limit in percent of one of this host's processors; 0 is none.
///
/// # Errors
/// It is in megahertz, and the kernel does not tell those of this host.
pub fn cpulimit_percent(limit: CpuLimit) -> Result<u64, Failure> {
    let mhz = match limit {
        CpuLimit::Percent(percent) => return Ok(percent),
        CpuLimit::Mhz(0) => return Ok(0),
        CpuLimit::Mhz(mhz) => mhz,
    };
    let text = std::fs::read_to_string("/proc/cpuinfo")
        .map_err(|e| Failure::because(Exit::SetCpu, "Unable to read /proc/cpuinfo", &e))?;
    let host = fastest_mhz(&text).ok_or_else(|| {
        Failure::new(Exit::SetCpu, "Unable to limit to megahertz: /proc/cpuinfo does not tell those of this host")
            .hint("Set the limit in percent of one CPU.")
    })?;
    // At least a little: 0 would be no limit.
    Ok((mhz * 100 / host).max(1))
}

/// The clock rate of the fastest processor now. Without frequency scaling it is the same for all.
fn fastest_mhz(cpuinfo: &str) -> Option<u64> {
    let rate = |line: &str| {
        let (key, value) = line.split_once(':')?;
        let mhz = if key.trim() == "cpu MHz" { value.trim().split('.').next()?.parse().ok()? } else { return None };
        Some(mhz).filter(|mhz| *mhz > 0)
    };
    cpuinfo.lines().filter_map(rate).max()
}

/// The container's part of busy processors.
#[must_use]
pub fn cpu_share(settings: &Settings, global: &Global) -> CpuShare {
    let units = settings.cpuunits.or(settings.cpuweight).unwrap_or(DEFAULT_CPUUNITS);
    CpuShare { units, host_units: global.host_cpuunits }
}

/// The part of every container that is being stopped with the host (vzctl 4's boot script).
#[must_use]
pub fn shutdown_share(usual: CpuShare) -> CpuShare {
    CpuShare { units: 2000, ..usual }
}

/// Of limits in force those of rates, of CPU and block I/O: what [`without_rates`] changes.
///
/// # Errors
/// None that these could have.
pub fn only_rates(resources: &LinuxResources) -> Result<LinuxResources, Failure> {
    let mut builder = LinuxResourcesBuilder::default();
    if let Some(cpu) = resources.cpu() {
        builder = builder.cpu(cpu.clone());
    }
    if let Some(io) = resources.block_io() {
        builder = builder.block_io(io.clone());
    }
    builder.build().map_err(|e| Failure::from_error(Exit::InvalidValue, &e))
}

/// The same for a container that is being stopped with the host: no limit of CPU time and block I/O.
///
/// # Errors
/// None that these could have.
pub fn without_rates(resources: &LinuxResources) -> Result<LinuxResources, Failure> {
    let mut lifted = only_rates(resources)?;
    let cpu = LinuxCpuBuilder::default()
        .quota(-1)
        .period(weights::CPU_PERIOD_USEC)
        .build()
        .map_err(|e| Failure::from_error(Exit::SetCpu, &e))?;
    lifted.set_cpu(Some(cpu));
    if let Some(io) = lifted.block_io_mut() {
        let (read_bps, write_bps) =
            (unbounded(io.throttle_read_bps_device())?, unbounded(io.throttle_write_bps_device())?);
        let (read_iops, write_iops) =
            (unbounded(io.throttle_read_iops_device())?, unbounded(io.throttle_write_iops_device())?);
        io.set_throttle_read_bps_device(read_bps).set_throttle_write_bps_device(write_bps);
        io.set_throttle_read_iops_device(read_iops).set_throttle_write_iops_device(write_iops);
    }
    Ok(lifted)
}

/// The same disks with a rate of 0, which is none.
fn unbounded(devices: &Option<Vec<LinuxThrottleDevice>>) -> Result<Option<Vec<LinuxThrottleDevice>>, Failure> {
    let unbounded = |device: &LinuxThrottleDevice| {
        LinuxThrottleDeviceBuilder::default().major(device.major()).minor(device.minor()).rate(0u64).build()
    };
    let devices = devices.as_ref().map(|devices| devices.iter().map(unbounded).collect()).transpose();
    devices.map_err(|e| Failure::from_error(Exit::SetIo, &e))
}

/// Weight by priority, and throttling on what the private area lies on. 0 takes a limit away, so it is written too.
fn block_io(settings: &Settings, private: &Path) -> Result<LinuxBlockIo, Failure> {
    let bad = |e: oci_spec::OciSpecError| Failure::from_error(Exit::SetIo, &e);
    let priority = settings.ioprio.and_then(|priority| u8::try_from(priority).ok());
    let weight = priority.and_then(weights::ioprio_to_weight).unwrap_or(weights::ORDINARY_IO_WEIGHT);
    let mut builder = LinuxBlockIoBuilder::default().weight(weight);
    if settings.iolimit_bytes_s.is_none() && settings.iopslimit.is_none() {
        return builder.build().map_err(bad);
    }
    let disks = disks(private)?.limited;
    let limit = |rate: u64| {
        let one = |disk: &Device| {
            let (major, minor) = (i64::from(disk.major), i64::from(disk.minor));
            LinuxThrottleDeviceBuilder::default().major(major).minor(minor).rate(rate).build().map_err(bad)
        };
        disks.iter().map(one).collect::<Result<Vec<_>, _>>()
    };
    if let Some(rate) = settings.iolimit_bytes_s {
        builder = builder.throttle_read_bps_device(limit(rate)?).throttle_write_bps_device(limit(rate)?);
    }
    if let Some(rate) = settings.iopslimit {
        builder = builder.throttle_read_iops_device(limit(rate)?).throttle_write_iops_device(limit(rate)?);
    }
    builder.build().map_err(bad)
}

/// What a private area lies on.
///
/// # Errors
/// It is on no disk, as on a tmpfs: there is nothing to limit or to weigh.
pub fn disks(private: &Path) -> Result<Disks, Failure> {
    Disks::below(private).map_err(|e| {
        let what = format!("Unable to find the disk of {}", private.display());
        Failure::because(Exit::SetIo, what, &e)
            .hint("--iolimit and --iopslimit 0 is no limit; --ioprio means nothing there.")
    })
}

/// What every container has, and what this one is granted.
fn devices(settings: &Settings) -> Result<Vec<LinuxDeviceCgroup>, Failure> {
    let mut rules = cgroup::default_rules(false);
    for rule in &settings.devices {
        let kind = if rule.block { LinuxDeviceType::B } else { LinuxDeviceType::C };
        rules.push(cgroup::device_rule(
            true,
            Some(kind),
            rule.major.map(i64::from),
            rule.minor.map(i64::from),
            &access(rule.access.read, rule.access.write),
        ));
    }
    for node in settings.devnodes.iter().filter(|n| !n.access.is_none()) {
        let (kind, major, minor) = host_device(&node.name)?;
        rules.push(cgroup::device_rule(
            true,
            Some(kind),
            Some(major),
            Some(minor),
            &access(node.access.read, node.access.write),
        ));
    }
    Ok(rules)
}

fn access(read: bool, write: bool) -> String {
    format!("{}{}m", if read { "r" } else { "" }, if write { "w" } else { "" })
}

fn host_device(name: &str) -> Result<(LinuxDeviceType, i64, i64), Failure> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let path = format!("/dev/{name}");
    let meta = std::fs::symlink_metadata(&path)
        .map_err(|e| Failure::because(Exit::SetDevices, format!("Unable to grant the device {path}"), &e))?;
    let kind = match meta.file_type() {
        t if t.is_char_device() => LinuxDeviceType::C,
        t if t.is_block_device() => LinuxDeviceType::B,
        _ => return Err(Failure::new(Exit::SetDevices, format!("{path} is not a device"))),
    };
    let dev = meta.rdev();
    Ok((kind, rustix::fs::major(dev).into(), rustix::fs::minor(dev).into()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that fails here has failed")]
mod tests {
    use beancounters::Bound;

    use super::*;

    const GIB: u64 = 1 << 30;

    fn settings(bounds: &[(Resource, &str)]) -> Settings {
        let bounds = bounds.iter().map(|(resource, text)| Bound::parse(*resource, text).unwrap()).collect();
        Settings { bounds, ..Settings::default() }
    }

    #[test]
    fn what_is_promised_is_kept_free_of_reclaim_and_never_more_than_there_may_be() {
        let reserved = |bounds: &[_]| memory(&settings(bounds)).unwrap().unwrap().reservation();
        assert_eq!(reserved(&[]), None, "nothing was promised");
        assert_eq!(reserved(&[(Resource::Vmguarpages, "1000"), (Resource::Oomguarpages, "2000")]), Some(2000 * 4096));
        // The simple mode promises RAM and swap as address space; of memory there is no more than RAM.
        assert_eq!(reserved(&[(Resource::Physpages, "0:1G"), (Resource::Swappages, "0:1G")]), Some(GIB.cast_signed()));
    }

    #[test]
    fn a_process_is_taken_for_smaller_by_what_is_promised() {
        let adjusted = |bounds: &[_], host| oom_score_adj(&settings(bounds), host).unwrap();
        assert_eq!(adjusted(&[], 4 * GIB), 0);
        assert_eq!(adjusted(&[(Resource::Oomguarpages, "1G")], 4 * GIB), -250);
        assert_eq!(adjusted(&[(Resource::Oomguarpages, "unlimited")], 4 * GIB), -999);
        assert_eq!(adjusted(&[(Resource::Physpages, "0:1G"), (Resource::Swappages, "0:0")], 4 * GIB), -250);
    }
}
