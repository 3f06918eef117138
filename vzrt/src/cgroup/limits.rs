//! Applying OCI resources, at creation and to a running container alike.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use cgroups_rs::fs::MaxValue;
use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::cpuset::CpuSetController;
use cgroups_rs::fs::error::ErrorKind;
use cgroups_rs::fs::pid::PidController;
use oci_spec::runtime::{LinuxCpu, LinuxDeviceCgroup, LinuxPids, LinuxResources};
use rustix::io::Errno;

use super::{Controller, CtCgroup, Error, Place, Unsupported, What, Why};
use super::{devices, entry, file, sys};

impl CtCgroup {
    /// Sets what `resources` names and leaves the rest as it is. `-1` is no limit, an empty list of CPUs or nodes is all of them. May be
    /// repeated on a running container, up and down.
    ///
    /// Returns what this host cannot give. That is not fatal; the rest is in force.
    ///
    /// # Errors
    /// A value that makes no sense or that the kernel refuses, and [`Error::InUse`] for a memory limit below what cannot be reclaimed.
    /// What comes before it in the order memory, tasks, CPU, I/O, devices, `unified` is then in force already.
    pub fn apply(&self, resources: &LinuxResources) -> Result<Vec<Unsupported>, Error> {
        let mut missing = Missing::default();
        if let Some(memory) = resources.memory() {
            self.apply_memory(memory, &mut missing)?;
        }
        if let Some(pids) = resources.pids() {
            self.apply_pids(*pids, &mut missing)?;
        }
        if let Some(cpu) = resources.cpu() {
            self.apply_cpu(cpu, &mut missing)?;
            self.apply_cpuset(cpu, &mut missing)?;
        }
        if let Some(io) = resources.block_io() {
            self.apply_io(io, &mut missing)?;
        }
        if let Some(rules) = resources.devices() {
            self.apply_devices(rules, &mut missing)?;
        }
        let mut unified: Vec<_> = resources.unified().iter().flatten().collect();
        unified.sort();
        for (name, value) in unified {
            self.apply_unified(name, value, &mut missing)?;
        }
        for (name, present) in [
            ("hugepageLimits", resources.hugepage_limits().as_ref().is_some_and(|l| !l.is_empty())),
            ("network", resources.network().is_some()),
            ("rdma", resources.rdma().as_ref().is_some_and(|l| !l.is_empty())),
        ] {
            missing.not_managed(name, present);
        }
        Ok(missing.0)
    }

    fn apply_pids(&self, pids: LinuxPids, missing: &mut Missing) -> Result<(), Error> {
        let Some(place) = self.wanted(Controller::Pids, What::PidsLimit, missing) else { return Ok(()) };
        let limit = if pids.limit() > 0 { MaxValue::Value(pids.limit()) } else { MaxValue::Max };
        let pids = PidController::new(place.dir.clone(), place.dir.clone(), place.v2);
        written(&place.dir, pids.set_pid_max(limit))
    }

    fn apply_cpu(&self, cpu: &LinuxCpu, missing: &mut Missing) -> Result<(), Error> {
        missing.not_managed("cpu.realtimeRuntime", cpu.realtime_runtime().is_some());
        missing.not_managed("cpu.realtimePeriod", cpu.realtime_period().is_some());
        missing.not_managed("cpu.burst", cpu.burst().is_some());
        missing.not_managed("cpu.idle", cpu.idle().is_some());
        // A part of what others have as well: see `share.rs`.
        missing.not_managed("cpu.shares", cpu.shares().is_some());
        if cpu.quota().is_none() && cpu.period().is_none() {
            return Ok(());
        }
        let Some(place) = self.wanted(Controller::Cpu, What::CpuQuota, missing) else { return Ok(()) };
        let controller = CpuController::new(place.dir.clone(), place.dir.clone(), place.v2);
        // Without CONFIG_CFS_BANDWIDTH there is a cpu controller without these.
        let file = if place.v2 { "cpu.max" } else { "cpu.cfs_quota_us" };
        let quota = cpu.quota().map(|usec| if usec > 0 { usec } else { -1 }); // v1 takes no 0 for no limit.
        let set = || written(&place.dir, controller.set_cfs_quota_and_period(quota, cpu.period()));
        missing.unless_there(What::CpuQuota, &place.dir, file, set)
    }

    fn apply_cpuset(&self, cpu: &LinuxCpu, missing: &mut Missing) -> Result<(), Error> {
        if cpu.cpus().is_none() && cpu.mems().is_none() {
            return Ok(());
        }
        let Some(place) = self.wanted(Controller::Cpuset, What::CpuSet, missing) else { return Ok(()) };
        let controller = CpuSetController::new(place.dir.clone(), place.dir.clone(), place.v2);
        if let Some(cpus) = cpu.cpus() {
            written(&place.dir, controller.set_cpus(&self.all_if_empty(cpus, "cpus", &place)?))?;
        }
        if let Some(mems) = cpu.mems() {
            written(&place.dir, controller.set_mems(&self.all_if_empty(mems, "mems", &place)?))?;
        }
        Ok(())
    }

    /// No list is all that the host has: neither version takes an empty list from a cgroup with tasks that has one (ENOSPC, `validate_change` of
    /// kernel/cgroup/cpuset.c).
    fn all_if_empty(&self, list: &str, which: &str, place: &Place) -> Result<String, Error> {
        let name = if place.v2 { format!("cpuset.{which}.effective") } else { format!("cpuset.effective_{which}") };
        match (list.trim(), self.host.top(Controller::Cpuset)) {
            ("", Some(top)) => file::read(&top.dir.join(name)).map(|all| all.trim().to_owned()),
            (list, _) => Ok(list.to_owned()),
        }
    }

    /// Compiles, loads and swaps in a program; the old rules hold until the new ones do.
    fn apply_devices(&self, rules: &[LinuxDeviceCgroup], missing: &mut Missing) -> Result<(), Error> {
        let program = devices::compile(rules)?;
        let loaded = match sys::load(&program) {
            // A kernel without CONFIG_CGROUP_BPF. A program of ours it would refuse for another reason is a fault of ours: EACCES.
            Err(e @ Error::Bpf { .. }) if matches!(e.errno(), Some(Errno::INVAL | Errno::NOSYS)) => {
                missing.0.extend(e.errno().map(|errno| Unsupported { what: What::Devices, why: Why::Refused(errno) }));
                return Ok(());
            }
            other => other?,
        };
        let dir = entry::open_dir(&self.unified)?;
        sys::attach(dir.as_fd(), &loaded)
    }

    /// A file of cgroup v2 by name, such as `memory.high`. Files of the core (`cgroup.*`) hold the container in place: not by name.
    fn apply_unified(&self, name: &str, value: &str, missing: &mut Missing) -> Result<(), Error> {
        let controllers = Controller::ALL.into_iter();
        let of = |c: &Controller| c.v2_name().is_some_and(|n| name.split_once('.').is_some_and(|(head, _)| head == n));
        let Some(controller) = controllers.into_iter().find(of).filter(|_| !name.contains('/')) else {
            return Err(Error::Value { what: "unified", value: name.to_owned() });
        };
        let what = What::Named(name.to_owned());
        match self.place(controller) {
            Some(Place { dir, v2: true }) => {
                missing.unless_there(what, &dir, name, || file::write(&dir.join(name), value))
            }
            _ => {
                missing.0.push(Unsupported { what, why: Why::NoController(controller) });
                Ok(())
            }
        }
    }

    /// The place of a controller needed for `what`; that it has none is noted.
    pub(super) fn wanted(&self, controller: Controller, what: What, missing: &mut Missing) -> Option<Place> {
        let place = self.place(controller);
        if place.is_none() {
            missing.0.push(Unsupported { what, why: Why::NoController(controller) });
        }
        place
    }
}

/// What the host cannot give, so far.
#[derive(Debug, Default)]
pub(super) struct Missing(pub(super) Vec<Unsupported>);

impl Missing {
    /// Does `set` if `dir` has `file`, else notes that it has not. Asked before and not told from the error: cgroups-rs opens with
    /// `O_CREAT`, and creating is EACCES on cgroupfs.
    pub(super) fn unless_there(
        &mut self,
        what: What,
        dir: &Path,
        file: &str,
        set: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let path = dir.join(file);
        if !path.exists() {
            self.no_file(what, path);
            return Ok(());
        }
        match set() {
            Err(e) if e.errno() == Some(Errno::OPNOTSUPP) => {
                self.0.push(Unsupported { what, why: Why::Refused(Errno::OPNOTSUPP) });
                Ok(())
            }
            other => other,
        }
    }

    pub(super) fn no_file(&mut self, what: What, path: PathBuf) {
        self.0.push(Unsupported { what, why: Why::NoFile(path) });
    }

    pub(super) fn not_managed(&mut self, name: &str, asked: bool) {
        if asked {
            self.0.push(Unsupported { what: What::Named(name.to_owned()), why: Why::NotManaged });
        }
    }
}

/// A result of cgroups-rs as one of ours, with the file's whole path and the error number.
pub(super) fn written(dir: &Path, result: cgroups_rs::fs::error::Result<()>) -> Result<(), Error> {
    use std::error::Error as _;
    result.map_err(|e| {
        let errno = e.source().and_then(|s| s.downcast_ref::<std::io::Error>()).and_then(std::io::Error::raw_os_error);
        match (e.kind(), errno) {
            (ErrorKind::WriteFailed(file, value), Some(errno)) => Error::Write {
                path: dir.join(file),
                value: value.clone(),
                source: std::io::Error::from_raw_os_error(errno),
            },
            _ => Error::Controller { dir: dir.to_owned(), source: e },
        }
    })
}
