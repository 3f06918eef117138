//! What containers are promised of the host's memory, on cgroup v2: protection from reclaim.
//!
//! A cgroup is protected by no more than its part of what the cgroup above it is protected by. Of that, what no child claims is shared among all
//! children by what they use, where cgroup2 is mounted with `memory_recursiveprot` (Linux 5.7, `effective_protection()` of mm/memcontrol.c; systemd
//! mounts it so). If the cgroup of all containers claimed everything, every container would be protected alike, and none from another:
//! it claims what its containers claim together.
//!
//! `memory.low` alone is overridden as soon as one round of reclaim frees nothing, which is the rule while pages are on their way to swap. What
//! programs hold (that can't be read from a disk again) is therefore kept by `memory.min` while the host is short of memory; page cache is not,
//! or the host would kill somebody for the sake of a cache.

use std::path::Path;

use super::memory::limit_now;
use super::{Controller, CtCgroup, Error, Host, Place, file};

/// Of the host's memory, the part that may be kept from reclaim at any price: 3 of 4, as much as OpenVZ's kernel guaranteed a new beancounter.
/// If the containers claim more, each has its share of that.
const KEPT: (u64, u64) = (3, 4);

/// How much of so much memory may be kept.
pub(crate) fn kept_at_most(host_ram_bytes: u64) -> u64 {
    host_ram_bytes / KEPT.1 * KEPT.0
}

impl Host {
    /// Has the cgroup of all containers (`name`) claim what they claim together: of `memory.low`, and of `memory.min` up to the host's part.
    ///
    /// # Errors
    /// A claim can't be read or written.
    pub(crate) fn share_promises(&self, name: &str, host_ram_bytes: u64) -> Result<(), Error> {
        let Some(place) = self.top(Controller::Memory).filter(|place| place.v2) else { return Ok(()) };
        let dir = place.dir.join(name);
        // Not there: the kernel would not hand the controller down, which has been told.
        if dir.join("memory.low").exists() {
            write(&dir, "memory.low", claimed(&dir, "memory.low")?)?;
            write(&dir, "memory.min", claimed(&dir, "memory.min")?.min(kept_at_most(host_ram_bytes)))?;
        }
        Ok(())
    }
}

impl CtCgroup {
    /// Has the kernel reclaim nothing of so many bytes at any price, as far as they are promised (`memory.low`). Nothing on v1, which has no such word.
    ///
    /// # Errors
    /// The promise can't be read, or the kernel refuses.
    pub(crate) fn keep(&self, held: u64) -> Result<(), Error> {
        let Some(Place { dir, .. }) = self.place(Controller::Memory).filter(|place| place.v2) else { return Ok(()) };
        let promised = limit_now(&dir.join("memory.low"))?.unwrap_or(u64::MAX);
        write(&dir, "memory.min", promised.min(held))
    }
}

/// The sum of a file over the cgroups in `dir`; one that is removed meanwhile claims nothing.
fn claimed(dir: &Path, name: &str) -> Result<u64, Error> {
    let mut sum: u64 = 0;
    for child in file::children(dir)? {
        match file::read_number(&child.join(name)) {
            Err(e) if e.is_gone() => {}
            claim => sum = sum.saturating_add(claim?),
        }
    }
    Ok(sum)
}

/// What no host has is all.
fn write(dir: &Path, name: &str, bytes: u64) -> Result<(), Error> {
    let value = i64::try_from(bytes).map_or_else(|_| "max".to_owned(), |bytes| bytes.to_string());
    file::write(&dir.join(name), &value)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;
    use crate::Ctid;

    const MIB: u64 = 1 << 20;

    /// A tree as of a host with cgroup v2, and two containers that claim this much.
    fn tree(claims: [(&str, &str); 2]) -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        let host =
            Host { unified: root.path().to_owned(), unified_controllers: vec![Controller::Memory], v1: Vec::new() };
        for (dir, (low, min)) in ["vz", "vz/101", "vz/102"].into_iter().zip([("0", "0"), claims[0], claims[1]]) {
            std::fs::create_dir(root.path().join(dir)).unwrap();
            std::fs::write(root.path().join(dir).join("memory.low"), low).unwrap();
            std::fs::write(root.path().join(dir).join("memory.min"), min).unwrap();
        }
        (root, host)
    }

    fn get(root: &tempfile::TempDir, path: &str) -> String {
        std::fs::read_to_string(root.path().join(path)).unwrap()
    }

    #[test]
    fn the_cgroup_of_all_claims_what_they_claim_and_leaves_the_host_its_part() {
        let (root, host) = tree([("1000", "500"), ("2000", "700")]);
        host.share_promises("vz", 4096).unwrap();
        assert_eq!((get(&root, "vz/memory.low"), get(&root, "vz/memory.min")), ("3000".into(), "1200".into()));
        let (root, host) = tree([("1000", "500"), ("2000", "700")]);
        host.share_promises("vz", 1200).unwrap();
        assert_eq!(get(&root, "vz/memory.min"), "900");
        let (root, host) = tree([("1000", "0"), ("max", "0")]);
        host.share_promises("vz", 4096).unwrap();
        assert_eq!((get(&root, "vz/memory.low"), get(&root, "vz/memory.min")), ("max".into(), "0".into()));
    }

    #[test]
    fn what_is_held_is_kept_as_far_as_it_is_promised() {
        let (root, host) = tree([("1048576", "0"), ("max", "0")]);
        let keep = |ctid: u32, held: u64| {
            host.container("vz", Ctid::try_from(ctid).unwrap()).keep(held).unwrap();
            get(&root, &format!("vz/{ctid}/memory.min"))
        };
        assert_eq!(keep(101, 4096), "4096");
        assert_eq!(keep(101, 3 * MIB), MIB.to_string());
        assert_eq!(keep(102, 3 * MIB), (3 * MIB).to_string());
    }
}
