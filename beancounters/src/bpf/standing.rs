//! What this host's kernel does for each resource, and why not more.

use std::fmt;
use std::os::fd::AsFd;

use super::{Error, Host, NAME_BYTES, VERDICT_BYTES, sys};
use crate::Resource;

/// Which programs a resource needs.
#[derive(Debug)]
pub struct Counting {
    /// The resource.
    pub resource: Resource,
    /// To be counted.
    pub counted_by: &'static [&'static str],
    /// To be refused as well.
    pub refused_by: &'static [&'static str],
}

/// All that the programs count, in the order of the tables.
pub const RESOURCES: &[Counting] = &[
    Counting {
        resource: Resource::Kmemsize,
        counted_by: &["vz_kmem_count"],
        refused_by: &[
            "vz_kmem_task",
            "vz_kmem_inode",
            "vz_file_alloc",
            "vz_socket_create",
            "vz_socket_accept",
            "vz_kmem_queue",
            "vz_kmem_semaphores",
            "vz_kmem_segment",
        ],
    },
    Counting {
        resource: Resource::Lockedpages,
        counted_by: &[
            "vz_memory_mlock",
            "vz_memory_mlock2",
            "vz_memory_mlockall",
            "vz_memory_munlock",
            "vz_memory_munlockall",
            "vz_memory_mmap",
            "vz_memory_munmap",
            "vz_memory_mremap",
            "vz_memory_brk",
            "vz_memory_exit",
            "vz_memory_segment",
        ],
        refused_by: &["vz_memory_map_locked", "vz_memory_lock_segment"],
    },
    Counting {
        resource: Resource::Privvmpages,
        counted_by: &[
            "vz_memory_ask",
            "vz_memory_exit",
            "vz_memory_fork",
            "vz_memory_exec",
            "vz_memory_mmap",
            "vz_memory_munmap",
            "vz_memory_mremap",
            "vz_memory_mprotect",
            "vz_memory_brk",
        ],
        refused_by: &[],
    },
    Counting {
        resource: Resource::Shmpages,
        counted_by: &["vz_shared_setup", "vz_shared_change", "vz_shared_gone"],
        refused_by: &["vz_memory_ask", "vz_tmpfs_write_begin", "vz_tmpfs_fallocate", "vz_tmpfs_fault"],
    },
    Counting {
        resource: Resource::Numtcpsock,
        counted_by: &["vz_socket_create", "vz_socket_accept", "vz_socket_free"],
        refused_by: &[],
    },
    Counting {
        resource: Resource::Numflock,
        counted_by: &["vz_lock_take", "vz_lock_lease", "vz_lock_give_back"],
        refused_by: &["vz_lock_ask"],
    },
    Counting {
        resource: Resource::Numpty,
        counted_by: &["vz_pty_open", "vz_file_alloc", "vz_file_free"],
        refused_by: &[],
    },
    Counting { resource: Resource::Numsiginfo, counted_by: &["vz_signal_queue"], refused_by: &[] },
    Counting {
        resource: Resource::Tcpsndbuf,
        counted_by: TCP_BUFFERS,
        refused_by: &["vz_buffer_send", "vz_buffer_force"],
    },
    Counting {
        resource: Resource::Tcprcvbuf,
        counted_by: TCP_BUFFERS,
        refused_by: &["vz_buffer_receive", "vz_buffer_force"],
    },
    Counting {
        resource: Resource::Othersockbuf,
        counted_by: &[
            "vz_buffer_create",
            "vz_buffer_clone",
            "vz_buffer_connect",
            "vz_buffer_free",
            "vz_buffer_delivered",
            "vz_buffer_sent_inet",
            "vz_buffer_sent_inet6",
            "vz_buffer_sent_unix_stream",
            "vz_buffer_sent_unix_datagram",
            "vz_buffer_sent_unix_seqpacket",
            "vz_buffer_sent_packet",
            "vz_buffer_sent_packet_old",
        ],
        refused_by: &["vz_buffer_send", "vz_buffer_force"],
    },
    Counting {
        resource: Resource::Dgramrcvbuf,
        counted_by: &[
            "vz_buffer_create",
            "vz_buffer_clone",
            "vz_buffer_free",
            "vz_buffer_udp",
            "vz_buffer_readable",
            "vz_buffer_read",
            "vz_buffer_read_inet",
            "vz_buffer_read_inet6",
        ],
        refused_by: &["vz_buffer_receive", "vz_buffer_force"],
    },
    Counting {
        resource: Resource::Numothersock,
        counted_by: &["vz_socket_create", "vz_socket_accept", "vz_socket_free"],
        refused_by: &[],
    },
    Counting { resource: Resource::Dcachesize, counted_by: &["vz_dcache_count"], refused_by: &["vz_kmem_inode"] },
    Counting { resource: Resource::Numfile, counted_by: &["vz_file_alloc", "vz_file_free"], refused_by: &[] },
    Counting {
        resource: Resource::Numiptent,
        counted_by: &["vz_filter_commit", "vz_filter_failed", "vz_filter_socket", "vz_filter_exit"],
        refused_by: &["vz_filter_send", "vz_filter_sent", "vz_filter_table"],
    },
];

const TCP_BUFFERS: &[&str] = &[
    "vz_buffer_create",
    "vz_buffer_clone",
    "vz_buffer_free",
    "vz_buffer_readable",
    "vz_buffer_segment_established",
    "vz_buffer_segment_other",
    "vz_buffer_read",
    "vz_buffer_read_inet",
    "vz_buffer_read_inet6",
    "vz_buffer_sent_inet",
    "vz_buffer_sent_inet6",
];

/// How a resource stands on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Counted exactly, and refused at its barrier.
    Enforced,
    /// Counted exactly, but not refused.
    Counted(String),
    /// Not counted by the kernel's programs.
    Absent(String),
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enforced => f.write_str("enforced"),
            Self::Counted(why) => write!(f, "counted: {why}"),
            Self::Absent(why) => write!(f, "absent: {why}"),
        }
    }
}

impl Host {
    /// How a resource stands here.
    ///
    /// # Errors
    /// The loader's report cannot be read.
    pub fn standing(&self, resource: Resource) -> Result<Standing, Error> {
        let Some(counting) = RESOURCES.iter().find(|counting| counting.resource == resource) else {
            return Ok(Standing::Absent("no program counts it".to_owned()));
        };
        if matches!(resource, Resource::Kmemsize | Resource::Dcachesize) && memory_is_in_v1() {
            return Ok(Standing::Absent("the memory controller of this host is in cgroup v1".to_owned()));
        }
        if let Some(why) = self.missing(counting.counted_by)? {
            return Ok(Standing::Absent(why));
        }
        Ok(self.missing(counting.refused_by)?.map_or(Standing::Enforced, Standing::Counted))
    }

    /// The first of these programs that is not attached, and why.
    fn missing(&self, programs: &[&str]) -> Result<Option<String>, Error> {
        for program in programs {
            let mut key = [0u8; NAME_BYTES];
            key[..program.len()].copy_from_slice(program.as_bytes());
            let verdict = sys::lookup::<NAME_BYTES, VERDICT_BYTES>(self.report.as_fd(), &key)
                .map_err(|source| Error::Map { what: "BPF_MAP_LOOKUP_ELEM", source })?;
            match verdict {
                Some(verdict) if verdict[0] == 1 => {}
                Some(verdict) => {
                    let text: Vec<u8> = verdict[1..].iter().copied().take_while(|&byte| byte != 0).collect();
                    return Ok(Some(format!("{program}: {}", String::from_utf8_lossy(&text))));
                }
                None => return Ok(Some(format!("{program} was not loaded"))),
            }
        }
        Ok(None)
    }
}

/// Then a container's memory is counted in a cgroup that the programs do not know.
fn memory_is_in_v1() -> bool {
    let hierarchy = |line: &str| line.strip_prefix("memory")?.split_whitespace().next()?.parse::<u32>().ok();
    let controllers = std::fs::read_to_string("/proc/cgroups").unwrap_or_default();
    controllers.lines().find_map(hierarchy).is_some_and(|hierarchy| hierarchy != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_that_is_asked_for_is_in_the_sources_and_its_name_fits() {
        let sources = [
            include_str!("../../bpf/file.bpf.c"),
            include_str!("../../bpf/socket.bpf.c"),
            include_str!("../../bpf/memory.bpf.c"),
            include_str!("../../bpf/kmem.bpf.c"),
            include_str!("../../bpf/shared.bpf.c"),
            include_str!("../../bpf/tmpfs.bpf.c"),
            include_str!("../../bpf/lock.bpf.c"),
            include_str!("../../bpf/signal.bpf.c"),
            include_str!("../../bpf/buffer.bpf.c"),
            include_str!("../../bpf/filter.bpf.c"),
        ]
        .concat();
        for program in RESOURCES.iter().flat_map(|counting| counting.counted_by.iter().chain(counting.refused_by)) {
            let made = [
                ("vz_memory_", "AFTER(", ','),
                ("vz_tmpfs_", "AFTER(", ','),
                ("vz_buffer_segment_", "SEGMENT(", ','),
                ("vz_buffer_read_", "READ(", ','),
                ("vz_buffer_sent_", "SENT(", ','),
            ];
            let by_macro = made.iter().filter_map(|(prefix, call, end)| {
                program.strip_prefix(prefix).map(|name| format!("{call}{name}{end}"))
            });
            let written: Vec<String> =
                by_macro.chain([format!("BPF_PROG({program},"), format!("BPF_PROG({program})")]).collect();
            assert!(written.iter().any(|form| sources.contains(form)), "{program}");
            assert!(program.len() < NAME_BYTES, "{program}");
        }
    }
}
