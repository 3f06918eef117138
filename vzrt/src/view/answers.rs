//! System calls that tell of the machine, answered for a container: sysinfo(2) and sched_getaffinity(2). And those that lock memory, refused
//! when its processes together would have more than `lockedpages`: no other hook of the kernel's is asked before it locks. quotactl(2) is
//! `userquota`'s to answer.
//!
//! The container's filter hands them to us (seccomp_unotify(2), Linux 5.5). What is told decides nothing about what the caller may do, and
//! what is decided follows from registers, so it does not matter that its memory can change under us. A container all of whose
//! processes of ours were killed gets `ENOSYS`.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::io::Errno;

use beancounters::Resource;

use super::View;
use super::sys::{self, Answer, Asked};
use crate::counters;
use crate::error::{Call, Failed};
use crate::seccomp::{Width, names_call};
use crate::userquota::answer::{self as quotactl, CALLS};

/// The names of the calls answered here, for the filter.
pub(crate) const ANSWERED: [&str; 2] = ["sysinfo", "sched_getaffinity"];

/// Those asked about before they lock memory, where bounds are enforced.
pub(crate) const LOCKING: [&str; 3] = ["mlock", "mlock2", "mlockall"];

/// The end of a filter where its questions arrive.
#[derive(Debug)]
pub(crate) struct Listener(OwnedFd);

impl From<OwnedFd> for Listener {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<Listener> for OwnedFd {
    fn from(listener: Listener) -> Self {
        listener.0
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Listener {
    /// Answers one system call; to be called when there is one.
    ///
    /// # Errors
    /// The listener is of no use any more.
    pub(crate) fn answer(&self, view: &View) -> Result<(), Failed> {
        let asked = match sys::receive(self.0.as_fd()) {
            Err(e) if gone(&e) => return Ok(()),
            r => r.call(|| "ioctl(SECCOMP_IOCTL_NOTIF_RECV)")?,
        };
        match sys::respond(self.0.as_fd(), asked.id, self.decide(&asked, view)) {
            Err(e) if gone(&e) => Ok(()),
            r => r.call(|| "ioctl(SECCOMP_IOCTL_NOTIF_SEND)"),
        }
    }

    /// Where we can't tell, the kernel does.
    fn decide(&self, asked: &Asked, view: &View) -> Answer {
        match names_call(asked.arch, asked.number, &ANSWERED) {
            Some(("sysinfo", width)) => match view.memory().map(|memory| sysinfo(view, &memory, width)) {
                Ok(bytes) => self.hand_over(asked, asked.args[0], &bytes, 0),
                Err(_) => Answer::Proceed,
            },
            Some(("sched_getaffinity", width)) => self.affinity(asked, view, width),
            _ => match names_call(asked.arch, asked.number, &LOCKING) {
                Some((name, _)) => lock(asked, view, name),
                None => self.quotactl(asked, view),
            },
        }
    }

    /// Where there turned out to be no quotas of users and groups, it is as if the kernel had none.
    fn quotactl(&self, asked: &Asked, view: &View) -> Answer {
        let Some((name, width)) = names_call(asked.arch, asked.number, &CALLS) else { return Answer::Proceed };
        let Some(quotas) = &view.user_quota else { return Answer::Fail(libc::ENOSYS) };
        let call = quotactl::Asked::new(name, asked.thread, asked.args, width == Width::Four);
        let still_waits = || sys::still_waits(self.0.as_fd(), asked.id);
        match quotas.answer(&call, view.init_pid, still_waits) {
            Ok(()) => Answer::Return(0),
            Err(errno) => Answer::Fail(errno.raw_os_error()),
        }
    }

    /// Those CPUs of the caller's own mask that the container sees; of other processes the kernel tells.
    fn affinity(&self, asked: &Asked, view: &View, width: Width) -> Answer {
        let whole = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(asked.thread as i32));
        let (Ok(own), Ok(visible), 0) = (whole, view.cpus(), asked.args[0] as u32) else { return Answer::Proceed };
        let seen: Vec<u32> = visible.into_iter().filter(|&cpu| own.is_set(cpu as usize) == Ok(true)).collect();
        let (word, room) = (width.bytes(), asked.args[1] as u32 as usize);
        let Some(bytes) = mask(&seen, view.possible_cpus(), word).filter(|mask| mask.len() <= room && room % word == 0)
        else {
            return Answer::Proceed;
        };
        self.hand_over(asked, asked.args[2], &bytes, bytes.len() as i64)
    }

    /// Writes a result into the caller's memory.
    fn hand_over(&self, asked: &Asked, address: u64, bytes: &[u8], value: i64) -> Answer {
        let Ok(memory) = OpenOptions::new().write(true).open(format!("/proc/{}/mem", asked.thread)) else {
            return Answer::Proceed;
        };
        // Only now: if it still waits, what was opened is its memory and not that of a later process of the same number.
        if !sys::still_waits(self.0.as_fd(), asked.id) {
            return Answer::Fail(libc::EINTR);
        }
        match memory.write_all_at(bytes, address) {
            Ok(()) => Answer::Return(value),
            Err(_) => Answer::Fail(libc::EFAULT),
        }
    }
}

/// What of a range is locked already is asked for anew: it is not known here.
fn lock(asked: &Asked, view: &View, name: &str) -> Answer {
    let (start, length) = (asked.args[0], asked.args[1]);
    let wanted = match name {
        "mlockall" if start & libc::MCL_CURRENT as u64 == 0 => return Answer::Proceed,
        "mlockall" => unlocked_bytes(asked.thread) / view.page_bytes,
        _ => length.saturating_add(start % view.page_bytes).div_ceil(view.page_bytes),
    };
    match counters::allows(&view.cgroup, Resource::Lockedpages, wanted, asked.thread) {
        Ok(false) => Answer::Fail(libc::ENOMEM),
        Ok(true) | Err(_) => Answer::Proceed,
    }
}

/// The address space of a process that is not locked; none of one that is gone.
fn unlocked_bytes(process: u32) -> u64 {
    let status = std::fs::read(format!("/proc/{process}/status")).unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    let kib = |name| status.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse().ok());
    let bytes = |name| kib(name).map_or(0, |kib: u64| kib.saturating_mul(1024));
    bytes("VmSize:").saturating_sub(bytes("VmLck:"))
}

fn gone(e: &std::io::Error) -> bool {
    let errno = e.raw_os_error();
    [Errno::NOENT, Errno::INTR, Errno::AGAIN].iter().any(|gone| errno == Some(gone.raw_os_error()))
}

/// A CPU mask as the kernel writes it: words of the caller's, enough for all CPUs the machine may have. `None` for no CPU at all: a thread
/// that has bound itself to what the container does not see.
fn mask(seen: &[u32], possible: u32, word: usize) -> Option<Vec<u8>> {
    let words = (possible as usize).div_ceil(word * 8).max(1);
    let mut bytes = vec![0u8; words * word];
    for &cpu in seen {
        *bytes.get_mut(cpu as usize / 8)? |= 1 << (cpu % 8);
    }
    (!seen.is_empty()).then_some(bytes)
}

/// `struct sysinfo` (sysinfo(2)) in the layout of the caller's ABI.
fn sysinfo(view: &View, memory: &super::memory::Memory, width: Width) -> Vec<u8> {
    let loads = view.load.means().map(|mean| (mean * 65536.0) as u64);
    let tasks = view.cgroup.usage().ok().and_then(|usage| usage.pids).unwrap_or(1);
    // 32-bit programs count in pages, as the kernel does for them where bytes do not fit.
    let unit = if width == Width::Four { view.page_bytes } else { 1 };
    let sizes = [memory.total, memory.free, memory.shared, 0, memory.swap_total, memory.swap_free];
    let longs = [view.uptime().as_secs()].into_iter().chain(loads).chain(sizes.map(|bytes| bytes / unit));
    let mut out = Vec::with_capacity(112);
    let long = |out: &mut Vec<u8>, n: u64| out.extend_from_slice(&n.to_ne_bytes()[..width.bytes()]);
    longs.for_each(|n| long(&mut out, n));
    out.extend(u16::try_from(tasks).unwrap_or(u16::MAX).to_ne_bytes());
    out.resize(out.len().next_multiple_of(width.bytes()), 0);
    // No high memory.
    long(&mut out, 0);
    long(&mut out, 0);
    out.extend(u32::try_from(unit).unwrap_or(1).to_ne_bytes());
    out.resize(if width == Width::Four { 64 } else { 112 }, 0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_has_whole_words_and_the_bits_of_what_is_seen() {
        assert_eq!(mask(&[0, 9], 2, 8), Some(vec![1, 2, 0, 0, 0, 0, 0, 0]));
        assert_eq!(mask(&[33], 64, 4), Some(vec![0, 0, 0, 0, 2, 0, 0, 0]));
        assert_eq!(mask(&[], 2, 8), None);
        assert_eq!(mask(&[700], 2, 8), None, "a CPU beyond the last possible one is no bit of it");
    }
}
