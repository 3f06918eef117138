//! Who divides a busy disk by weights: the bfq scheduler, or on cgroup v2 the I/O cost model (io.cost). Without either weights mean nothing.
//!
//! bfq gives a container that is alone the whole disk, and orders what is asked inside by `ionice`, which is the second level; it costs some
//! microseconds of each request. io.cost costs less and knows no `ionice`; its idea of what a disk can do is a guess unless someone measured it
//! (`io.cost.model`, Documentation/admin-guide/cgroup-v2.rst).

use std::io;
use std::path::{Path, PathBuf};

use super::{Device, Error};
use crate::cgroup::Host;

/// What of `vz.conf`'s `IO_SCHEDULER` is to be done with the disks of private areas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Choice {
    /// They are the administrator's.
    #[default]
    Keep,
    /// bfq, or io.cost where a disk can't have bfq; what divides already stays.
    Auto,
    /// bfq.
    Bfq,
    /// io.cost.
    IoCost,
}

/// Whether the kernel may be asked for a scheduler that it has not loaded: it would load a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Module {
    /// It may.
    MayLoad,
    /// Only what a disk offers already.
    Loaded,
}

/// Who divides a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Weigher {
    /// bfq.
    Bfq,
    /// io.cost.
    IoCost,
    /// Nobody: the scheduler that it has, and those it offers.
    Nobody {
        /// The one in use, `none` included.
        scheduler: String,
        /// All.
        offered: Vec<String>,
    },
}

impl std::fmt::Display for Weigher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bfq => f.write_str("bfq"),
            Self::IoCost => f.write_str("io.cost"),
            Self::Nobody { scheduler, .. } => f.write_str(scheduler),
        }
    }
}

/// What was changed of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// The disk's name.
    pub disk: String,
    /// Who divides it now.
    pub by: Weigher,
}

impl Weigher {
    /// Of a disk.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn of(host: &Host, disk: &Device) -> Result<Self, Error> {
        let cost = match host.io_cost_file() {
            Some(path) => read(&path)?,
            None => String::new(),
        };
        let path = queue(disk).join("scheduler");
        let text = match std::fs::read_to_string(&path) {
            // A device without a queue of its own, such as a zram.
            Err(e) if e.kind() == io::ErrorKind::NotFound => "[none]".to_owned(),
            text => text.map_err(Error::call("read", &path))?,
        };
        Ok(found(&text, &cost, disk))
    }
}

fn found(scheduler: &str, cost: &str, disk: &Device) -> Weigher {
    let (active, offered) = schedulers(scheduler);
    let number = format!("{}:{} ", disk.major, disk.minor);
    let enabled = |line: &str| line.strip_prefix(&number).is_some_and(|rest| rest.split(' ').any(|w| w == "enable=1"));
    match active.as_str() {
        "bfq" => Weigher::Bfq,
        _ if cost.lines().any(enabled) => Weigher::IoCost,
        _ => Weigher::Nobody { scheduler: active, offered },
    }
}

/// `none [mq-deadline] bfq`: the one in use, and all.
fn schedulers(text: &str) -> (String, Vec<String>) {
    let bare = |word: &str| word.trim_matches(['[', ']']).to_owned();
    let active = text.split_whitespace().find(|word| word.starts_with('[')).map_or_else(|| "none".to_owned(), bare);
    (active, text.split_whitespace().map(bare).collect())
}

/// What is tried for a disk, one after the other until one works. Nothing: it is as it is to be.
fn tries(choice: Choice, now: &Weigher, module: Module, has_io_cost: bool) -> Vec<Weigher> {
    let offers_bfq = || match now {
        Weigher::Nobody { offered, .. } => module == Module::MayLoad || offered.iter().any(|name| name == "bfq"),
        _ => module == Module::MayLoad,
    };
    let bfq = || offers_bfq().then_some(Weigher::Bfq);
    let cost = || has_io_cost.then_some(Weigher::IoCost);
    match (choice, now) {
        (Choice::Keep, _)
        | (Choice::Auto, Weigher::Bfq | Weigher::IoCost)
        | (Choice::Bfq, Weigher::Bfq)
        | (Choice::IoCost, Weigher::IoCost) => Vec::new(),
        (Choice::Auto, Weigher::Nobody { .. }) => bfq().into_iter().chain(cost()).collect(),
        (Choice::Bfq, _) => bfq().into_iter().collect(),
        (Choice::IoCost, _) => cost().into_iter().collect(),
    }
}

/// Does with these disks what is chosen, and says what it changed. That a disk can have neither is no error: [`Weigher::of`] tells.
///
/// # Errors
/// The kernel does not tell what a disk has, or refuses a change for a reason other than that it has no such scheduler.
pub fn set_up(host: &Host, disks: &[Device], choice: Choice, module: Module) -> Result<Vec<Set>, Error> {
    let mut changed = Vec::new();
    if choice == Choice::Keep {
        return Ok(changed);
    }
    for disk in disks {
        let now = Weigher::of(host, disk)?;
        for by in tries(choice, &now, module, host.io_cost_file().is_some()) {
            if set(host, disk, &by)? {
                changed.push(Set { disk: disk.name.clone(), by });
                break;
            }
        }
    }
    Ok(changed)
}

/// False: the kernel has no such scheduler for this disk.
fn set(host: &Host, disk: &Device, by: &Weigher) -> Result<bool, Error> {
    match (by, host.io_cost_file()) {
        (Weigher::Bfq, _) => {
            let is_set = write(&queue(disk).join("scheduler"), "bfq")?;
            if is_set {
                // Its guesses at who is interactive are for desktops, and bend what weights say (Documentation/block/bfq-iosched.rst, low_latency).
                write(&queue(disk).join("iosched/low_latency"), "0")?;
            }
            Ok(is_set)
        }
        (Weigher::IoCost, Some(file)) => write(&file, &format!("{}:{} enable=1", disk.major, disk.minor)),
        (Weigher::IoCost, None) | (Weigher::Nobody { .. }, _) => Ok(false),
    }
}

fn queue(disk: &Device) -> PathBuf {
    Path::new("/sys/dev/block").join(format!("{}:{}", disk.major, disk.minor)).join("queue")
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(Error::call("read", path))
}

/// One word to the kernel. EINVAL: it knows no such word; EOPNOTSUPP: it knows it, but not of such a device; ENOENT: there is no such file.
fn write(path: &Path, word: &str) -> Result<bool, Error> {
    let written = std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut f| io::Write::write_all(&mut f, word.as_bytes()));
    match written {
        Ok(()) => Ok(true),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOENT)) => Ok(false),
        Err(e) => Err(Error::call("write", path)(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VDA: fn() -> Device = || Device { name: "vda".into(), major: 254, minor: 0 };

    fn nobody(scheduler: &str, offered: &[&str]) -> Weigher {
        Weigher::Nobody { scheduler: scheduler.into(), offered: offered.iter().map(|&one| one.into()).collect() }
    }

    #[test]
    fn the_scheduler_in_use_is_the_one_in_brackets_and_io_cost_is_by_disk() {
        assert_eq!(found("none mq-deadline [bfq]\n", "", &VDA()), Weigher::Bfq);
        let deadline = nobody("mq-deadline", &["none", "mq-deadline"]);
        assert_eq!(found("none [mq-deadline]\n", "", &VDA()), deadline);
        assert_eq!(found("none [mq-deadline]\n", "254:0 enable=1 ctrl=auto rpct=0.00\n", &VDA()), Weigher::IoCost);
        assert_eq!(found("none [mq-deadline]\n", "254:0 enable=0 ctrl=auto\n254:01 enable=1\n", &VDA()), deadline);
        assert_eq!(found("none\n", "", &VDA()), nobody("none", &["none"]));
    }

    #[test]
    fn auto_prefers_bfq_and_leaves_alone_what_divides_already() {
        let (has, none) = (nobody("none", &["none", "bfq"]), nobody("none", &["none"]));
        let auto = |now: &Weigher, module| tries(Choice::Auto, now, module, true);
        assert_eq!(auto(&has, Module::Loaded), [Weigher::Bfq, Weigher::IoCost]);
        assert_eq!(auto(&none, Module::MayLoad), [Weigher::Bfq, Weigher::IoCost], "a module may have it");
        assert_eq!(auto(&none, Module::Loaded), [Weigher::IoCost]);
        assert_eq!(auto(&Weigher::IoCost, Module::MayLoad), []);
        assert_eq!(auto(&Weigher::Bfq, Module::MayLoad), []);
        assert_eq!(tries(Choice::Auto, &none, Module::Loaded, false), [], "there is neither");
    }

    #[test]
    fn what_is_named_is_set_whatever_divides_and_keep_sets_nothing() {
        assert_eq!(tries(Choice::Bfq, &Weigher::IoCost, Module::MayLoad, true), [Weigher::Bfq]);
        assert_eq!(tries(Choice::IoCost, &Weigher::Bfq, Module::Loaded, true), [Weigher::IoCost]);
        assert_eq!(tries(Choice::IoCost, &Weigher::IoCost, Module::Loaded, true), []);
        assert_eq!(tries(Choice::Keep, &nobody("none", &["bfq"]), Module::MayLoad, true), []);
    }
}
