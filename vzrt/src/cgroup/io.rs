//! Block I/O: weights and throttles.
//!
//! On v1 throttles see reads and direct writes; writes through the page cache are done by the kernel later, in nobody's name. v2 sees all.
//!
//! The file of a weight is a scheduler's, and is there only once that is loaded. So the weight of a container is also an extended attribute of its
//! cgroup: when the disks are given another scheduler, all that run are weighed for it.

use std::path::PathBuf;

use cgroups_rs::fs::blkio::BlkIoController;
use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice};

use super::limits::{Missing, written};
use super::share::{read_note, write_note};
use super::weights::ORDINARY_IO_WEIGHT;
use super::{Controller, CtCgroup, Error, Host, Place, What, file};

/// On a container's cgroup2 directory: its weight on disks.
const NOTE: &str = "trusted.vz.ioweight";

/// The four throttles of OCI.
#[derive(Debug, Clone, Copy)]
enum Throttle {
    ReadBps,
    WriteBps,
    ReadIops,
    WriteIops,
}

impl CtCgroup {
    pub(super) fn apply_io(&self, io: &LinuxBlockIo, missing: &mut Missing) -> Result<(), Error> {
        // Gone with the CFQ scheduler (kernel 5.0); v2 never had it.
        missing.not_managed("blockIO.leafWeight", io.leaf_weight().is_some());
        let weights = weights(io);
        let throttles = [
            (Throttle::ReadBps, io.throttle_read_bps_device()),
            (Throttle::WriteBps, io.throttle_write_bps_device()),
            (Throttle::ReadIops, io.throttle_read_iops_device()),
            (Throttle::WriteIops, io.throttle_write_iops_device()),
        ];
        let throttled = throttles.iter().any(|(_, devices)| devices.as_ref().is_some_and(|d| !d.is_empty()));
        if weights.is_empty() && !throttled {
            return Ok(());
        }
        if let Some(weight) = io.weight() {
            write_note(&self.unified, NOTE, &weight.to_string())?;
        }
        // Who has the ordinary weight has what all have where there are none: not worth a word.
        if !throttled && weights == [(None, ORDINARY_IO_WEIGHT)] && self.place(Controller::Io).is_none() {
            return Ok(());
        }
        let what = if throttled { What::IoThrottle } else { What::IoWeight };
        let Some(place) = self.wanted(Controller::Io, what, missing) else { return Ok(()) };
        set_weights(&place, &weights, missing)?;
        for (throttle, devices) in throttles {
            for device in devices.iter().flatten() {
                set_throttle(&place, throttle, device, missing)?;
            }
        }
        Ok(())
    }
}

impl Host {
    /// Weighs all containers below `name` once more, for a scheduler that was not there before. Those that nobody has weighed are left as they are.
    ///
    /// # Errors
    /// A cgroup can't be read or weighed. One that is removed meanwhile is none.
    pub fn weigh_io(&self, name: &str) -> Result<(), Error> {
        let Some(place) = self.top(Controller::Io) else { return Ok(()) };
        for container in file::children(&self.unified.join(name))? {
            let Some(weight) = read_note(&container, NOTE)?.and_then(|text| text.parse().ok()) else { continue };
            let leaf = container.file_name().unwrap_or_default();
            let place = Place { dir: place.dir.join(name).join(leaf), v2: place.v2 };
            match set_weights(&place, &[(None, weight)], &mut Missing::default()) {
                Err(e) if e.is_gone() => {}
                done => done?,
            }
        }
        Ok(())
    }

    /// Where the I/O cost model is switched on for a disk; `None`: this kernel has none, or the controller is v1's.
    pub(crate) fn io_cost_file(&self) -> Option<PathBuf> {
        let top = self.top(Controller::Io).filter(|place| place.v2)?;
        Some(top.dir.join("io.cost.qos")).filter(|path| path.exists())
    }

    /// Whether what a container writes through the page cache is written to the disk in its name: on cgroup v2, where memory and I/O are one tree
    /// (`inode_cgwb_enabled` of include/linux/backing-dev.h).
    #[must_use]
    pub fn writes_back_in_its_name(&self) -> bool {
        [Controller::Io, Controller::Memory].into_iter().all(|one| self.top(one).is_some_and(|place| place.v2))
    }
}

/// A weight, and the device (`major:minor`) it is for.
type Weight = (Option<String>, u16);

fn weights(io: &LinuxBlockIo) -> Vec<Weight> {
    let common = io.weight().map(|weight| (None, weight));
    let devices = io.weight_device().iter().flatten();
    let devices = devices.filter_map(|d| Some((Some(format!("{}:{}", d.major(), d.minor())), d.weight()?)));
    common.into_iter().chain(devices).collect()
}

/// The weight files, one per scheduler that has weights: bfq, and on v2 also the I/O cost model. Both take the number as it is: what
/// counts is the ratio between containers, which runc's stretching of 10..1000 onto 1..10000 would bend.
fn set_weights(place: &Place, weights: &[Weight], missing: &mut Missing) -> Result<(), Error> {
    for (device, weight) in weights {
        let files: &[&str] = match (place.v2, device) {
            (true, _) => &["io.bfq.weight", "io.weight"],
            (false, None) => &["blkio.bfq.weight"],
            (false, Some(_)) => &["blkio.bfq.weight_device"],
        };
        let value = device.as_ref().map_or_else(|| weight.to_string(), |device| format!("{device} {weight}"));
        let there: Vec<_> = files.iter().map(|f| place.dir.join(f)).filter(|path| path.exists()).collect();
        if there.is_empty() && *weight != ORDINARY_IO_WEIGHT {
            missing.no_file(What::IoWeight, place.dir.join(files[0]));
        }
        there.iter().try_for_each(|path| file::write(path, &value))?;
    }
    Ok(())
}

fn set_throttle(
    place: &Place,
    throttle: Throttle,
    device: &LinuxThrottleDevice,
    missing: &mut Missing,
) -> Result<(), Error> {
    let number = |n: i64| u64::try_from(n).map_err(|_| Error::Value { what: "blockIO device", value: n.to_string() });
    let (major, minor, rate) = (number(device.major())?, number(device.minor())?, device.rate());
    let (v1, v2) = match throttle {
        Throttle::ReadBps => ("blkio.throttle.read_bps_device", "rbps"),
        Throttle::WriteBps => ("blkio.throttle.write_bps_device", "wbps"),
        Throttle::ReadIops => ("blkio.throttle.read_iops_device", "riops"),
        Throttle::WriteIops => ("blkio.throttle.write_iops_device", "wiops"),
    };
    let file = if place.v2 { "io.max" } else { v1 };
    missing.unless_there(What::IoThrottle, &place.dir, file, || {
        if rate == 0 && place.v2 {
            // No limit is 0 to OCI and v1, `max` to v2.
            return file::write(&place.dir.join(file), &format!("{major}:{minor} {v2}=max"));
        }
        let io = BlkIoController::new(place.dir.clone(), place.dir.clone(), place.v2);
        let set = match throttle {
            Throttle::ReadBps => BlkIoController::throttle_read_bps_for_device,
            Throttle::WriteBps => BlkIoController::throttle_write_bps_for_device,
            Throttle::ReadIops => BlkIoController::throttle_read_iops_for_device,
            Throttle::WriteIops => BlkIoController::throttle_write_iops_for_device,
        };
        written(&place.dir, set(&io, major, minor, rate))
    })
}
