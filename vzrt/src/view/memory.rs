//! `/proc/meminfo`, `/proc/swaps`, `/proc/vmstat`, and the memory of sysinfo(2): one set of numbers behind all of them.

use std::fmt::Write as _;

use procfs::{Current, Meminfo};

use crate::cgroup::{DeviceAccount, MemoryAccount};

/// What a container's memory looks like from inside, in bytes.
///
/// The parts are bounded by what they are parts of: the kernel counts them at different moments, and a difference below zero is what makes
/// `free` print nonsense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) total: u64,
    pub(super) free: u64,
    pub(super) available: u64,
    pub(super) cached: u64,
    pub(super) shared: u64,
    pub(super) swap_total: u64,
    pub(super) swap_free: u64,
    account: MemoryAccount,
}

impl Memory {
    /// `host_memory` and `host_swap`: all the host has. No container has more, whatever its limit.
    pub(super) fn new(account: MemoryAccount, host_memory: u64, host_swap: u64) -> Self {
        let mut account = account;
        let total = account.limit.map_or(host_memory, |limit| limit.min(host_memory));
        let used = account.used.min(total);
        account.file = account.file.min(used);
        account.shmem = account.shmem.min(account.file);
        account.slab_reclaimable = account.slab_reclaimable.min(used - account.file);
        account.slab_unreclaimable = account.slab_unreclaimable.min(used - account.file - account.slab_reclaimable);
        let free = total - used;
        // Page cache that is on no file's list (tmpfs) can't be given back.
        let reclaimable = (account.active_file + account.inactive_file).min(account.file) + account.slab_reclaimable;
        let swap_total = account.swap_limit.map_or(host_swap, |limit| limit.min(host_swap));
        let swap_used = account.swap_used.min(swap_total);
        Self {
            total,
            free,
            available: (free + reclaimable).min(total),
            cached: account.file,
            shared: account.shmem,
            swap_total,
            swap_free: swap_total - swap_used,
            account,
        }
    }

    /// `/proc/meminfo`: the fields of the kernel's own, in its order (proc_meminfo(5)), as far as they mean something for a container.
    pub(super) fn meminfo(&self) -> String {
        let a = &self.account;
        let rows = [
            ("MemTotal", self.total),
            ("MemFree", self.free),
            ("MemAvailable", self.available),
            // The cache of block devices belongs to nobody.
            ("Buffers", 0),
            ("Cached", self.cached),
            ("SwapCached", a.swap_cached),
            ("Active", a.active_anon + a.active_file),
            ("Inactive", a.inactive_anon + a.inactive_file),
            ("Active(anon)", a.active_anon),
            ("Inactive(anon)", a.inactive_anon),
            ("Active(file)", a.active_file),
            ("Inactive(file)", a.inactive_file),
            ("Unevictable", a.unevictable),
            ("Mlocked", 0),
            ("SwapTotal", self.swap_total),
            ("SwapFree", self.swap_free),
            ("Dirty", a.dirty),
            ("Writeback", a.writeback),
            ("AnonPages", a.anon),
            ("Mapped", a.mapped),
            ("Shmem", a.shmem),
            ("KReclaimable", a.slab_reclaimable),
            ("Slab", a.slab_reclaimable + a.slab_unreclaimable),
            ("SReclaimable", a.slab_reclaimable),
            ("SUnreclaim", a.slab_unreclaimable),
            ("KernelStack", a.kernel_stack),
            ("PageTables", a.page_tables),
        ];
        let mut text = String::with_capacity(rows.len() * 28);
        for (name, bytes) in rows {
            let _ = writeln!(text, "{name}:{:>width$} kB", bytes / 1024, width = 23 - name.len());
        }
        text
    }

    /// `/proc/swaps`: one line for all of it; which devices the host swaps to is no container's business.
    pub(super) fn swaps(&self) -> String {
        let mut text = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n".to_owned();
        if self.swap_total > 0 {
            let (size, used) = (self.swap_total / 1024, (self.swap_total - self.swap_free) / 1024);
            let _ = writeln!(text, "{:<40}{:<16}{size:<16}{used:<16}0", "none", "virtual");
        }
        text
    }

    /// `/proc/vmstat`: the keys that have a meaning for a container. Pages in and out are those of its block I/O, in KiB as everywhere.
    pub(super) fn vmstat(&self, devices: &[DeviceAccount], page_bytes: u64) -> String {
        let a = &self.account;
        let pages = |bytes: u64| bytes / page_bytes;
        let sum = |of: fn(&DeviceAccount) -> u64| devices.iter().map(of).sum::<u64>() / 1024;
        let rows = [
            ("nr_free_pages", pages(self.free)),
            ("nr_inactive_anon", pages(a.inactive_anon)),
            ("nr_active_anon", pages(a.active_anon)),
            ("nr_inactive_file", pages(a.inactive_file)),
            ("nr_active_file", pages(a.active_file)),
            ("nr_unevictable", pages(a.unevictable)),
            ("nr_slab_reclaimable", pages(a.slab_reclaimable)),
            ("nr_slab_unreclaimable", pages(a.slab_unreclaimable)),
            ("nr_anon_pages", pages(a.anon)),
            ("nr_mapped", pages(a.mapped)),
            ("nr_file_pages", pages(a.file)),
            ("nr_dirty", pages(a.dirty)),
            ("nr_writeback", pages(a.writeback)),
            ("nr_shmem", pages(a.shmem)),
            ("nr_kernel_stack", a.kernel_stack / 1024),
            ("nr_page_table_pages", pages(a.page_tables)),
            ("pgpgin", sum(|d| d.read_bytes)),
            ("pgpgout", sum(|d| d.written_bytes)),
            ("pswpin", 0),
            ("pswpout", 0),
            ("pgfault", a.faults),
            ("pgmajfault", a.major_faults),
        ];
        let mut text = String::new();
        for (name, value) in rows {
            let _ = writeln!(text, "{name} {value}");
        }
        text
    }
}

/// The account of a container whose memory nobody counts (a host without a memory controller): it can have what the host has, and has as much
/// left as there is. That of a host whose `/proc/meminfo` can't be read is empty.
pub(super) fn of_the_host() -> MemoryAccount {
    let host = Meminfo::current().inspect_err(|e| tracing::debug!("/proc/meminfo: {e}"));
    host.map_or_else(|_| MemoryAccount::default(), |host| whole(&host))
}

/// The whole machine as an account.
fn whole(host: &Meminfo) -> MemoryAccount {
    MemoryAccount {
        used: host.mem_total.saturating_sub(host.mem_free),
        swap_used: host.swap_total.saturating_sub(host.swap_free),
        anon: host.anon_pages.unwrap_or(0),
        file: host.cached + host.buffers,
        shmem: host.shmem.unwrap_or(0),
        mapped: host.mapped,
        dirty: host.dirty,
        writeback: host.writeback,
        swap_cached: host.swap_cached,
        active_anon: host.active_anon.unwrap_or(0),
        inactive_anon: host.inactive_anon.unwrap_or(0),
        active_file: host.active_file.unwrap_or(0),
        inactive_file: host.inactive_file.unwrap_or(0),
        unevictable: host.unevictable.unwrap_or(0),
        slab_reclaimable: host.s_reclaimable.unwrap_or(0),
        slab_unreclaimable: host.s_unreclaim.unwrap_or(0),
        kernel_stack: host.kernel_stack.unwrap_or(0),
        page_tables: host.page_tables.unwrap_or(0),
        ..MemoryAccount::default()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn field(text: &str, name: &str) -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }

    #[test]
    fn a_container_sees_its_limits_and_never_more_than_the_host_has() {
        let account = MemoryAccount {
            limit: Some(512 * MIB),
            swap_limit: Some(1024 * MIB),
            used: 100 * MIB,
            file: 60 * MIB,
            inactive_file: 50 * MIB,
            shmem: 10 * MIB,
            swap_used: MIB,
            ..MemoryAccount::default()
        };
        let text = Memory::new(account, 8192 * MIB, 2048 * MIB).meminfo();
        assert_eq!(field(&text, "MemTotal"), 512 * 1024);
        assert_eq!(field(&text, "MemFree"), 412 * 1024);
        assert_eq!(field(&text, "MemAvailable"), 462 * 1024);
        assert_eq!(field(&text, "SwapFree"), 1023 * 1024);
        let small = Memory::new(account, 256 * MIB, 0);
        assert_eq!((small.total, small.swap_total, small.swap_free), (256 * MIB, 0, 0));
        assert_eq!(small.swaps().lines().count(), 1, "a machine without swap lists none");
    }

    #[test]
    fn rows_are_laid_out_as_the_kernel_does() {
        let text = Memory::new(MemoryAccount::default(), 24_684_084 * 1024, 0).meminfo();
        assert!(text.starts_with("MemTotal:       24684084 kB\nMemFree:        24684084 kB\n"), "{text}");
    }

    proptest! {
        #[test]
        fn whatever_the_kernel_counts_nothing_is_below_zero_or_above_its_whole(
            n in proptest::collection::vec(0..(1u64 << 50), 12), limited in any::<bool>()
        ) {
            let account = MemoryAccount {
                limit: limited.then_some(n[0]), swap_limit: limited.then_some(n[1]), used: n[2], swap_used: n[3],
                file: n[4], shmem: n[5], active_file: n[6], inactive_file: n[7], slab_reclaimable: n[8],
                slab_unreclaimable: n[9], ..MemoryAccount::default()
            };
            let memory = Memory::new(account, n[10], n[11]);
            let text = memory.meminfo();
            let get = |name| field(&text, name);
            prop_assert!(get("MemFree") <= get("MemAvailable") && get("MemAvailable") <= get("MemTotal"));
            prop_assert!(get("MemFree") + get("Cached") + get("Slab") <= get("MemTotal"));
            prop_assert!(get("SwapFree") <= get("SwapTotal") && get("Shmem") <= get("Cached"));
        }
    }

    #[test]
    fn where_nobody_counts_memory_a_container_has_as_much_left_as_the_host() {
        let host = Meminfo::current().unwrap();
        let memory = Memory::new(whole(&host), host.mem_total, host.swap_total);
        assert_eq!((memory.total, memory.free), (host.mem_total, host.mem_free));
        assert_eq!((memory.swap_total, memory.swap_free), (host.swap_total, host.swap_free));
        assert_eq!(memory.cached, host.cached + host.buffers);
        // The kernel's own estimate keeps something back for its watermarks.
        assert!(memory.available >= memory.free && memory.available <= memory.total);
    }
}
