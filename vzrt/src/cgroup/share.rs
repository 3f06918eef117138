//! The first level of fair CPU time: what part of busy processors each container has, and what part the host's own processes have beside all of them.
//!
//! `cpuunits` reach from 8 to 500000 (vzctl(8)), 1 to 62500; the kernel's weights on cgroup v2 from 1 to 10000. Only their ratio counts, and only
//! among the cgroups of one parent. So all containers of a node are weighed on one scale, which has room for the heaviest of them that runs: of
//! two containers none is clamped for the other's sake while 10000 : 1 is enough, and no ratio is off by more than half of the lighter one's weight.
//!
//! The cgroup that all containers are in competes with the host's own. Its weight is the sum of theirs, on the scale on which an ordinary cgroup
//! of the host has `VE0CPUUNITS`: if everybody is busy, each has its units of the sum of all, as on one level. But never more than [`MOST_OF_ALL`]
//! for each processor: the lighter something is than its neighbours, the longer the kernel lets it wait after each moment it has run.
//!
//! The units of a container are an extended attribute of its cgroup, which goes with it. Whoever has added, changed or removed one does the sums anew.

use std::fs::File;
use std::path::Path;

use nix::unistd::{SysconfVar, sysconf};
use rustix::fs::{FlockOperation, XattrFlags, flock, getxattr, setxattr};
use rustix::io::Errno;

use super::{Controller, CtCgroup, Error, Host, Place, Unsupported, What, Why, file};
use crate::Ctid;
use crate::plan::CpuShare;

/// Of a container that has none set, and of the host: one standard share.
pub const DEFAULT_CPUUNITS: u64 = 1000;

/// On a container's cgroup2 directory: its units, and the top of the scale on which they were weighed. On their parent's: the host's units.
const NOTE: &str = "trusted.vz.cpuunits";

/// While no container has more, the scale ends here: none is weighed anew because another one starts, and 8 units are 39 of 10000.
const USUAL_TOP: u64 = 2048;

/// The most that all containers together weigh, in ordinary cgroups for each processor. Without an end, processes of the host (its shells, and the
/// kernel's own threads, on which the end of a container waits) woke up 90 ms late in the median and 1.6 s in one case of a hundred, beside 64 busy
/// containers on two processors of Linux 6.18; with this one 9 ms and 35 ms.
const MOST_OF_ALL: u64 = 4;

/// The weights that a kernel takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Weights {
    file: &'static str,
    least: u64,
    most: u64,
    /// Of a cgroup that nobody has weighed.
    ordinary: u64,
}

/// `MIN_SHARES`, `MAX_SHARES` and `NICE_0_LOAD` of kernel/sched/.
const V1: Weights = Weights { file: "cpu.shares", least: 2, most: 262_144, ordinary: 1024 };

/// `CGROUP_WEIGHT_MIN`, `_MAX` and `_DFL` of include/linux/cgroup.h.
const V2: Weights = Weights { file: "cpu.weight", least: 1, most: 10_000, ordinary: 100 };

impl Weights {
    fn of(place: &Place) -> Self {
        if place.v2 { V2 } else { V1 }
    }

    /// The weight of so many units on a scale that ends at `top`.
    fn weight(self, units: u64, top: u64) -> u64 {
        proportion(units, self.most, top).clamp(self.least, self.most)
    }

    /// The weight of the cgroup of all containers, beside the host's own cgroups.
    fn of_all(self, units: u64, host_units: u64, processors: u64) -> u64 {
        let most = self.ordinary.saturating_mul(MOST_OF_ALL).saturating_mul(processors).min(self.most);
        proportion(units.max(1), self.ordinary, host_units).clamp(self.least, most)
    }
}

/// The scale for containers of which the heaviest has so many units: in powers of two, so that it seldom changes.
fn top(heaviest: u64) -> u64 {
    heaviest.checked_next_power_of_two().unwrap_or(u64::MAX).max(USUAL_TOP)
}

/// `a * b / c`, to the nearest.
fn proportion(a: u64, b: u64, c: u64) -> u64 {
    let c = u128::from(c.max(1));
    u64::try_from((u128::from(a) * u128::from(b) + c / 2) / c).unwrap_or(u64::MAX)
}

/// What is noted of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Note {
    units: u64,
    /// 0: not weighed yet.
    top: u64,
}

impl Note {
    fn parse(text: &str) -> Option<Self> {
        let (units, top) = text.split_once(' ')?;
        Some(Self { units: units.parse().ok()?, top: top.parse().ok()? })
    }

    /// What nobody has noted anything of, as the monitors, is weighed as a container that has nothing set.
    fn of(dir: &Path) -> Result<Self, Error> {
        let note = read_note(dir, NOTE)?;
        Ok(note.as_deref().and_then(Self::parse).unwrap_or(Self { units: DEFAULT_CPUUNITS, top: 0 }))
    }

    fn write(self, dir: &Path) -> Result<(), Error> {
        write_note(dir, NOTE, &format!("{} {}", self.units, self.top))
    }
}

/// What is noted on a cgroup2 directory, as an extended attribute, which goes with it.
pub(super) fn read_note(dir: &Path, name: &str) -> Result<Option<String>, Error> {
    let mut value = [0u8; 64];
    match getxattr(dir, name, &mut value[..]) {
        Ok(length) => Ok(value.get(..length).and_then(|text| std::str::from_utf8(text).ok()).map(str::to_owned)),
        Err(Errno::NODATA | Errno::NOENT) => Ok(None),
        Err(e) => Err(Error::call("getxattr", dir)(e)),
    }
}

pub(super) fn write_note(dir: &Path, name: &str, text: &str) -> Result<(), Error> {
    setxattr(dir, name, text.as_bytes(), XattrFlags::empty()).map_err(Error::call("setxattr", dir))
}

impl CtCgroup {
    /// Gives the container its part of busy processors: its units beside the other containers, all of which have theirs beside the host's own
    /// processes, an ordinary cgroup of which has the host's units. In force when this returns.
    ///
    /// # Errors
    /// The cgroup does not exist, or the kernel refuses. That the host has no CPU weights is no error.
    pub fn weigh(&self, share: CpuShare) -> Result<Option<Unsupported>, Error> {
        Note { units: share.units, top: 0 }.write(&self.unified)?;
        write_note(&self.host.unified.join(&self.parent), NOTE, &share.host_units.to_string())?;
        self.host.share_cpu(&self.parent)
    }

    /// The units that the container was given. `None`: nobody gave it any.
    ///
    /// # Errors
    /// When the cgroup does not exist.
    pub fn cpuunits(&self) -> Result<Option<u64>, Error> {
        std::fs::symlink_metadata(&self.unified).map_err(Error::call("lstat", &self.unified))?;
        Ok(read_note(&self.unified, NOTE)?.as_deref().and_then(Note::parse).map(|note| note.units))
    }
}

impl Host {
    /// Weighs the containers below `name` and their parent; to be called when one has gone. What weighs what it should is not written.
    ///
    /// # Errors
    /// A cgroup can't be read or weighed. One that is removed meanwhile is none.
    pub(crate) fn share_cpu(&self, name: &str) -> Result<Option<Unsupported>, Error> {
        let missing = |why| Ok(Some(Unsupported { what: What::CpuShares, why }));
        let Some(place) = self.top(Controller::Cpu) else { return missing(Why::NoController(Controller::Cpu)) };
        let (noted, weighed, weights) = (self.unified.join(name), place.dir.join(name), Weights::of(&place));
        let own = weighed.join(weights.file);
        if !own.exists() {
            return missing(Why::NoFile(own));
        }
        // One at a time: of two that add a container each, one would not see the other's.
        let parent = File::open(&noted).map_err(Error::call("open", &noted))?;
        flock(&parent, FlockOperation::LockExclusive).map_err(Error::call("flock", &noted))?;
        let members = members(&noted)?;
        let of_containers =
            || members.iter().filter(|(leaf, _)| leaf.parse::<Ctid>().is_ok()).map(|(_, note)| note.units);
        let top = top(of_containers().max().unwrap_or(DEFAULT_CPUUNITS));
        for (leaf, note) in members.iter().filter(|(_, note)| note.top != top) {
            let file = weighed.join(leaf).join(weights.file);
            gone_is_fine(file::write(&file, &weights.weight(note.units, top).to_string()))?;
            gone_is_fine(Note { top, ..*note }.write(&noted.join(leaf)))?;
        }
        let host_units = read_note(&noted, NOTE)?.and_then(|text| text.parse().ok()).unwrap_or(DEFAULT_CPUUNITS);
        let all = weights.of_all(of_containers().fold(0, u64::saturating_add), host_units, processors()?);
        if file::read_number(&own)? != all {
            file::write(&own, &all.to_string())?;
        }
        Ok(None)
    }
}

/// Those of the host that are online.
fn processors() -> Result<u64, Error> {
    let online =
        sysconf(SysconfVar::_NPROCESSORS_ONLN).map_err(Error::call("sysconf", Path::new("online processors")))?;
    Ok(online.and_then(|count| u64::try_from(count).ok()).unwrap_or(1).max(1))
}

/// The cgroups in `dir`, by name.
fn members(dir: &Path) -> Result<Vec<(String, Note)>, Error> {
    let mut members = Vec::new();
    for child in file::children(dir)? {
        if let Some(leaf) = child.file_name().and_then(|name| name.to_str()) {
            members.push((leaf.to_owned(), Note::of(&child)?));
        }
    }
    Ok(members)
}

fn gone_is_fine(done: Result<(), Error>) -> Result<(), Error> {
    match done {
        Err(e) if e.is_gone() => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_ordinary_node_is_weighed_finely_and_seldom_anew() {
        assert_eq!([8, 500, 1000, 2048].map(top), [2048; 4]);
        assert_eq!([8, 500, 1000, 2048].map(|units| V2.weight(units, 2048)), [39, 2441, 4883, 10_000]);
        assert_eq!([8, 500, 1000, 2048].map(|units| V1.weight(units, 2048)), [1024, 64_000, 128_000, 262_144]);
    }

    #[test]
    fn the_whole_range_fits_and_only_what_the_kernel_has_no_weight_for_is_clamped() {
        let top = top(500_000);
        assert_eq!((V2.weight(500_000, top), V2.weight(1000, top), V2.weight(8, top)), (9537, 19, 1));
        assert_eq!((V1.weight(500_000, top), V1.weight(1000, top), V1.weight(8, top)), (250_000, 500, 4));
    }

    #[test]
    fn all_containers_beside_the_host_weigh_what_they_would_on_one_level() {
        assert_eq!(
            (V2.of_all(1000, 1000, 2), V1.of_all(1000, 1000, 2)),
            (100, 1024),
            "one of them is an ordinary cgroup"
        );
        assert_eq!((V2.of_all(64_000, 1000, 16), V1.of_all(64_000, 1000, 16)), (6400, 65_536));
        assert_eq!(V2.of_all(64_000, 8000, 16), 800, "VE0CPUUNITS=8000");
        assert_eq!((V2.of_all(1_000_000_000, 1, 1000), V2.of_all(0, 1000, 16)), (10_000, 1));
    }

    #[test]
    fn all_containers_leave_the_host_a_fifth_of_each_processor_where_it_is_busy() {
        assert_eq!((V2.of_all(64_000, 1000, 2), V1.of_all(64_000, 1000, 2)), (800, 8192));
        assert_eq!(V2.of_all(4000, 1000, 1), 400, "four on one processor are as many as they are");
    }

    #[test]
    fn what_is_noted_is_understood_and_nothing_else_is() {
        assert_eq!(Note::parse("1000 2048"), Some(Note { units: 1000, top: 2048 }));
        for strange in ["", "1000", "1000 ", " 2048", "-1 0", "1 2 3"] {
            assert_eq!(Note::parse(strange), None, "{strange:?}");
        }
    }

    proptest! {
        #[test]
        fn ratios_are_those_of_the_units_to_half_of_the_lighter_weight(units in prop::collection::vec(8u64..=500_000, 2..40)) {
            let top = top(units.iter().copied().max().unwrap_or(1));
            for weights in [V1, V2] {
                for &one in &units {
                    let weight = weights.weight(one, top);
                    prop_assert!((weights.least..=weights.most).contains(&weight));
                    let exact = one as f64 * weights.most as f64 / top as f64;
                    let off = (weight as f64 - exact).abs();
                    prop_assert!(off <= 0.5 || (exact < weights.least as f64 && weight == weights.least), "{one} of {top}: {weight} for {exact}");
                }
            }
        }

        #[test]
        fn who_has_more_never_weighs_less(mut units in prop::collection::vec(8u64..=500_000, 2..40)) {
            units.sort_unstable();
            let top = top(units.last().copied().unwrap_or(1));
            for weights in [V1, V2] {
                prop_assert!(units.is_sorted_by_key(|one| weights.weight(*one, top)));
            }
        }
    }
}
