//! What becomes of each beancounter on this host: refused, counted, or neither; and by what.

use std::fmt::Write as _;

use beancounters::read::{CgroupVersion, Sources};
use beancounters::{Resource, bpf};
use serde::Serialize;

/// What this host does about a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Standing {
    /// More than the limit can't be had.
    Enforced,
    /// What is held is known; nothing is refused.
    Counted,
    /// Nothing is refused ever: it is a promise, and the host keeps it.
    Guaranteed,
    /// Nothing is known.
    Absent,
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Row {
    resource: &'static str,
    standing: Standing,
    how: String,
}

/// All rows, for a container that is counted by `sources`; `kernel` is what BPF programs do for it, and how much they let pass uncounted.
pub(super) fn rows(sources: &Sources, kernel: impl Fn(Resource) -> Option<bpf::Standing>, uncharged: u64) -> Vec<Row> {
    let without_room = match uncharged {
        0 => String::new(),
        n => format!("; {n} things were allowed uncounted, for the host's table of them was full"),
    };
    let row = |resource: Resource| {
        let (standing, how) = match kernel(resource) {
            Some(bpf::Standing::Enforced) => (Standing::Enforced, format!("BPF: {}{without_room}", refusal(resource))),
            Some(bpf::Standing::Counted(why)) => (Standing::Counted, format!("BPF; not refused: {why}")),
            Some(bpf::Standing::Absent(why)) => {
                let (standing, how) = standing(resource, sources);
                (standing, format!("{how} (no BPF: {why})"))
            }
            None => {
                let (standing, how) = standing(resource, sources);
                (standing, how.to_owned())
            }
        };
        Row { resource: resource.name(), standing, how }
    };
    Resource::LIVE.map(row).to_vec()
}

/// What a program inside is told at the barrier.
fn refusal(resource: Resource) -> &'static str {
    match resource {
        Resource::Kmemsize => "new tasks, files, sockets, inodes and IPC objects fail with ENOMEM at the barrier",
        Resource::Dcachesize => "new inodes fail with ENOMEM at the limit, by the kernel's sum of every two seconds",
        Resource::Shmpages => "shmget and shared mappings fail with ENOMEM, tmpfs with ENOSPC, at the barrier",
        Resource::Privvmpages => "mmap, brk and fork fail with ENOMEM at the barrier",
        Resource::Numfile => "open and its like fail with ENFILE at the barrier",
        Resource::Lockedpages => {
            "mlock (but with the feature nesting) and SHM_LOCK fail with ENOMEM at the barrier, mmap with EAGAIN"
        }
        Resource::Numflock => "flock and fcntl fail with ENOLCK at the barrier, a change of a lock too",
        Resource::Numsiginfo => {
            "counts refusals; RLIMIT_SIGPENDING of the user namespace refuses: sigqueue fails with EAGAIN at the barrier"
        }
        Resource::Numpty => "opening a terminal fails with ENOSPC at the barrier",
        Resource::Numtcpsock | Resource::Numothersock => "socket and accept fail with ENOBUFS at the barrier",
        Resource::Othersockbuf => {
            "sending fails with ENOBUFS at the barrier; one write of a stream may go on into its socket's buffer"
        }
        Resource::Tcpsndbuf => {
            "writing fails with ENOBUFS at the barrier; a write once begun may go on into its socket's buffer"
        }
        Resource::Numiptent => {
            "a batch of nftables' rules, or a table of iptables, fails with ENOMEM as a whole at the barrier; one that replaces others may pass it"
        }
        Resource::Dgramrcvbuf => {
            "datagrams that come at the barrier are dropped; packet sockets only count, each up to its own buffer"
        }
        Resource::Tcprcvbuf => {
            "segments that come at the barrier are dropped and sent again, but for the next one of an empty socket"
        }
        _ => "refused at the barrier",
    }
}

fn standing(resource: Resource, sources: &Sources) -> (Standing, &'static str) {
    use CgroupVersion::{V1, V2};
    use Standing::{Absent, Counted, Enforced, Guaranteed};
    const NO_MEMORY: (Standing, &str) = (Absent, "this host has no memory controller");
    let memory = sources.memory.is_some();
    match (resource, sources.version) {
        (Resource::Numproc, _) if sources.pids.is_some() => {
            (Enforced, "pids.max: fork and clone fail with EAGAIN at the limit")
        }
        (Resource::Numproc, _) => (Absent, "this host has no pids controller"),
        (Resource::Physpages, V1) if memory => {
            (Enforced, "memory.limit_in_bytes: reclaim, then the killer, in the container")
        }
        (Resource::Physpages, V2) if memory => (Enforced, "memory.max: reclaim, then the killer, in the container"),
        (Resource::Swappages, V1) if memory => (Enforced, "memory.memsw.limit_in_bytes, together with physpages"),
        (Resource::Swappages, V2) if memory => (Enforced, "memory.swap.max: no more is swapped out"),
        (Resource::Vmguarpages | Resource::Oomguarpages, V1) if memory => (
            Guaranteed,
            "memory.soft_limit_in_bytes; out of memory, containers are killed by how far they are beyond oomguarpages",
        ),
        (Resource::Vmguarpages | Resource::Oomguarpages, V2) if memory => (
            Guaranteed,
            "memory.low, memory.min; out of memory, containers are killed by how far they are beyond oomguarpages",
        ),
        (Resource::Kmemsize, _) if memory => (Counted, "what the kernel charges to the cgroup"),
        (Resource::Shmpages, _) if memory => (Counted, "memory.stat"),
        (Resource::Dcachesize, V2) if memory => (Counted, "memory.stat: slab that can be given back"),
        (Resource::Dcachesize, V1) if memory => (Absent, "cgroup v1 counts kernel memory as one"),
        (
            Resource::Physpages
            | Resource::Swappages
            | Resource::Vmguarpages
            | Resource::Oomguarpages
            | Resource::Kmemsize
            | Resource::Shmpages
            | Resource::Dcachesize,
            _,
        ) => NO_MEMORY,
        (Resource::Lockedpages, _) => {
            (Enforced, "RLIMIT_MEMLOCK of each process by itself: mlock fails with ENOMEM at the barrier")
        }
        (Resource::Numsiginfo, _) => {
            (Enforced, "RLIMIT_SIGPENDING of the user namespace: sigqueue fails with EAGAIN at the barrier")
        }
        (Resource::Numpty, _) => (
            Enforced,
            "max= of the container's devpts: ENOSPC at the limit; one that its root mounts anew is only counted",
        ),
        (Resource::Privvmpages, _) => (Counted, "address space of its processes, summed"),
        (Resource::Numfile, _) => (Counted, "descriptors of its processes; one shared by two counts twice"),
        (Resource::Numflock, _) => (Counted, "/proc/locks; those of open file descriptions are not in it"),
        (Resource::Numtcpsock | Resource::Numothersock, _) => {
            (Counted, "lists of its network namespace; sockets that are neither bound nor connected are not in them")
        }
        (Resource::Tcpsndbuf | Resource::Tcprcvbuf | Resource::Othersockbuf | Resource::Dgramrcvbuf, _) => {
            (Counted, "bytes queued, by the lists of its network namespace; their memory is part of physpages")
        }
        (Resource::Numiptent, _) => (Counted, "rules of nftables and entries of iptables in its network namespace"),
        (Resource::Avnumproc, _) => (Absent, "only vzcfgvalidate and vzsplit use it"),
    }
}

/// As a table.
pub(super) fn render(ctid: u32, rows: &[Row]) -> String {
    let mut text = format!("CT {ctid}\n");
    for Row { resource, standing, how } in rows {
        let standing = match standing {
            Standing::Enforced => "enforced",
            Standing::Counted => "counted",
            Standing::Guaranteed => "guaranteed",
            Standing::Absent => "absent",
        };
        let _ = writeln!(text, "{resource:>13}  {standing:<10}  {how}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(version: CgroupVersion, controllers: bool) -> Sources {
        let directory = controllers.then(|| "/sys/fs/cgroup/vz/101".into());
        Sources { memory: directory.clone(), pids: directory, version, processes: None, init: None, peaks: None }
    }

    #[test]
    fn what_is_said_follows_from_the_controllers() {
        let standing = |resource, version, controllers| standing(resource, &sources(version, controllers)).0;
        for version in [CgroupVersion::V1, CgroupVersion::V2] {
            assert_eq!(standing(Resource::Numproc, version, true), Standing::Enforced);
            assert_eq!(standing(Resource::Numproc, version, false), Standing::Absent);
            assert_eq!(standing(Resource::Physpages, version, false), Standing::Absent);
            assert_eq!(standing(Resource::Numfile, version, false), Standing::Counted);
            assert_eq!(rows(&sources(version, true), |_| None, 0).len(), 21);
        }
        assert_eq!(standing(Resource::Dcachesize, CgroupVersion::V1, true), Standing::Absent);
        assert_eq!(standing(Resource::Dcachesize, CgroupVersion::V2, true), Standing::Counted);
    }

    #[test]
    fn what_the_kernels_programs_do_comes_first() {
        let kernel = |resource| match resource {
            Resource::Numfile => Some(bpf::Standing::Enforced),
            Resource::Numpty => Some(bpf::Standing::Absent("vz_pty_open: EPERM".into())),
            _ => None,
        };
        let rows = rows(&sources(CgroupVersion::V2, true), kernel, 3);
        let of = |name| rows.iter().find(|row| row.resource == name).unwrap();
        assert_eq!((of("numfile").standing, of("numothersock").standing), (Standing::Enforced, Standing::Counted));
        assert!(of("numfile").how.contains("3 things were allowed uncounted"), "{:?}", of("numfile"));
        assert!(of("numpty").how.ends_with("(no BPF: vz_pty_open: EPERM)"), "{:?}", of("numpty"));
    }

    #[test]
    fn the_table_has_a_line_for_each() {
        let text = render(101, &rows(&sources(CgroupVersion::V2, true), |_| None, 0));
        assert!(text.starts_with("CT 101\n     kmemsize  counted     what the kernel"), "{text}");
        assert_eq!(text.lines().count(), 22);
    }
}
