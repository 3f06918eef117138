//! What is known of containers, found out as cheaply as the chosen fields allow.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;

use beancounters::Resource;
use beancounters::read::{Reader, Usage};
use quota::SoftHard;
use rustix::fs::{Mode, OFlags};
use vzrt::plan::Disk;
use vzrt::{Condition, Ctid, RunDir};

use crate::config::document::{self, DocumentError, substitute_veid};
use crate::config::values::Layout;
use crate::config::{Node, Param, Settings, names, params};
use crate::decide;

/// What a container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Status {
    Running,
    Mounted,
    Suspended,
    Stopped,
}

impl Status {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Mounted => "mounted",
            Self::Suspended => "suspended",
            Self::Stopped => "stopped",
        }
    }
}

/// How much of its disk a container uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct DiskUsage {
    pub space_kib: u64,
    pub inodes: u64,
    /// Limits of space in KiB, and of inodes, that are in force and not those of the configuration: somebody has set others, or turned quota off.
    pub in_force: Option<(SoftHard, SoftHard)>,
}

/// One container. Only what was wanted is filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// Its number.
    pub ctid: Ctid,
    /// What it is doing.
    pub status: Status,
    /// What its configuration says.
    pub settings: Settings,
    /// `VE_ROOT`.
    pub root: String,
    /// `VE_PRIVATE`.
    pub private: String,
    /// Barriers and limits as they are in force, of a running container: those set without `--save` too, and none missing.
    pub bounds: Option<beancounters::Set>,
    /// Counters, while it runs.
    pub usage: BTreeMap<Resource, Usage>,
    /// Its disk.
    pub disk: Option<DiskUsage>,
    /// Seconds since its init was started.
    pub uptime_s: Option<f64>,
    /// Load average over 1, 5 and 15 minutes, of a running container.
    pub load: Option<[f64; 3]>,
}

/// What has to be found out.
#[derive(Default)]
pub(super) struct Wanted {
    params: Vec<&'static Param>,
    resources: Vec<Resource>,
    pub(super) suspended: bool,
    pub(super) disk: bool,
    pub(super) uptime: bool,
    /// Barriers and limits in force.
    pub(super) bounds: bool,
    /// The load average.
    pub(super) load: bool,
}

impl Wanted {
    pub(super) fn key(&mut self, key: &str) {
        let param = params::by_key(key).expect("a field names keys of the table");
        if !self.params.iter().any(|p| std::ptr::eq(*p, param)) {
            self.params.push(param);
        }
    }

    pub(super) fn resource(&mut self, resource: Resource) {
        if !self.resources.contains(&resource) {
            self.resources.push(resource);
        }
    }
}

/// Which containers are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope<'a> {
    /// Those that run.
    Running,
    /// Those that don't.
    NotRunning,
    /// All.
    All,
    /// These, whatever they are doing.
    These(&'a [Ctid]),
}

/// The containers behind numbers and names. A name nobody has is left out: it is not found, like a number nobody has.
///
/// # Errors
/// The first word that is neither.
pub(super) fn resolve(node: &Node, words: &[String]) -> Result<Vec<Ctid>, String> {
    let mut found = Vec::new();
    for word in words {
        match names::resolve(node, word) {
            Ok(ctid) => found.push(ctid),
            Err(names::NameError::Unknown(_)) => {}
            Err(_) => return Err(word.clone()),
        }
    }
    Ok(found)
}

/// Finds out about the containers in question; also complaints about configurations that cannot be read.
///
/// # Errors
/// The directory of configurations cannot be read.
pub(super) fn collect(node: &Node, wanted: &Wanted, scope: Scope<'_>) -> std::io::Result<(Vec<Facts>, Vec<String>)> {
    let active = numbers_in(&node.global.run_dir, |name| name.parse().ok())?;
    let dumped = if wanted.suspended { dumped(node)? } else { Vec::new() };
    let mut host = Host::default();
    let mut complaints = Vec::new();
    let mut rows = Vec::new();
    for ctid in candidates(node, scope, &active)? {
        let run = node.run_dir(ctid);
        let condition = match active.binary_search(&ctid) {
            Ok(_) => vzrt::condition(&RunDir::new(run)).unwrap_or_else(|e| {
                complaints.push(format!("CT {ctid}: {e}"));
                Condition::Stopped
            }),
            Err(_) => Condition::Stopped,
        };
        let status = match condition {
            Condition::Running(_) => Status::Running,
            Condition::Mounted(_) => Status::Mounted,
            Condition::Stopped if dumped.binary_search(&ctid).is_ok() => Status::Suspended,
            Condition::Stopped => Status::Stopped,
        };
        let skip = match scope {
            Scope::Running => status != Status::Running,
            Scope::NotRunning => status == Status::Running,
            Scope::All | Scope::These(_) => false,
        };
        if skip {
            continue;
        }
        let mut settings = Settings::default();
        // The directory was just read, but a number on the command line may be of no container.
        if !wanted.params.is_empty() || matches!(scope, Scope::These(_)) {
            match read_settings(&node.container_conf(ctid), &wanted.params, &mut settings) {
                Ok(()) => {}
                Err(e) if e.is_missing() && matches!(status, Status::Stopped | Status::Suspended) => continue,
                Err(e) if e.is_missing() => {}
                Err(e) => complaints.push(format!("CT {ctid}: {e}")),
            }
        }
        rows.push(facts(node, wanted, &mut host, ctid, status, settings, &condition, &mut complaints));
    }
    Ok((rows, complaints))
}

fn candidates(node: &Node, scope: Scope<'_>, active: &[Ctid]) -> std::io::Result<Vec<Ctid>> {
    let mut all = match scope {
        Scope::Running => active.to_vec(),
        Scope::NotRunning | Scope::All => [node.containers()?, active.to_vec()].concat(),
        Scope::These(these) => these.to_vec(),
    };
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

fn dumped(node: &Node) -> std::io::Result<Vec<Ctid>> {
    numbers_in(&node.global.dump_dir, |name| name.strip_prefix("Dump.")?.parse().ok())
}

/// Containers that a directory has entries for, in order. A directory that is not there has none.
fn numbers_in(dir: &Path, number: impl Fn(&str) -> Option<Ctid>) -> std::io::Result<Vec<Ctid>> {
    let mut found = Vec::new();
    match fs_err::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        entries => {
            for entry in entries? {
                found.extend(entry?.file_name().to_str().and_then(&number));
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Reads the wanted keys and no more. A value that cannot be read is left out: it shows as unset, and `start` says why.
fn read_settings(path: &Path, wanted: &[&'static Param], settings: &mut Settings) -> Result<(), DocumentError> {
    let text = document::read(path, OFlags::NOFOLLOW)?;
    let mut values: Vec<Option<std::borrow::Cow<'_, str>>> = vec![None; wanted.len()];
    for pair in document::pairs(&text) {
        let (key, value) = pair.map_err(|bad| DocumentError::Bad { path: path.to_owned(), bad })?;
        if let Some(at) = wanted.iter().position(|p| p.keys.contains(&key)) {
            values[at] = Some(value);
        }
    }
    for (param, value) in wanted.iter().zip(values) {
        if let Some(value) = value.filter(|v| !v.is_empty())
            && let Ok(change) = param.load(&value)
        {
            settings.apply(&change);
        }
    }
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "one place that puts a row together")]
fn facts(
    node: &Node,
    wanted: &Wanted,
    host: &mut Host,
    ctid: Ctid,
    status: Status,
    settings: Settings,
    condition: &Condition,
    complaints: &mut Vec<String>,
) -> Facts {
    let path = |own: &Option<String>, default: &str| {
        substitute_veid(own.as_deref().unwrap_or(default), ctid).to_string_lossy().into_owned()
    };
    let root = path(&settings.root, &node.global.ve_root);
    let private = path(&settings.private, &node.global.ve_private);
    let disk = if wanted.disk { disk_usage(node, ctid, condition, &settings, &private) } else { None };
    let mut row = Facts {
        ctid,
        status,
        settings,
        root,
        private,
        bounds: None,
        usage: BTreeMap::new(),
        disk,
        uptime_s: None,
        load: None,
    };
    if let Condition::Running(running) = condition {
        let run = RunDir::new(node.run_dir(ctid));
        if wanted.load {
            // One that is in its first five seconds has none yet.
            row.load = run.load().ok().flatten();
        }
        if wanted.bounds {
            match run.bounds() {
                Ok(bounds) => row.bounds = bounds.map(|bounds| vzrt::counters::in_force(&bounds)),
                Err(e) => complaints.push(format!("CT {ctid}: {e}")),
            }
        }
        if wanted.uptime {
            row.uptime_s = host.uptime_of(running.state.init_start_ticks);
        }
        match host.usage(&run, &running.state, &wanted.resources) {
            Ok(usage) => row.usage = usage,
            Err(e) => complaints.push(format!("CT {ctid}: {e}")),
        }
    }
    row
}

/// Where a running container is counted: found when the first one asks.
#[derive(Default)]
struct Host {
    cgroups: Option<vzrt::cgroup::Host>,
    uptime_s: Option<f64>,
}

impl Host {
    fn usage(
        &mut self,
        run: &RunDir,
        state: &vzrt::state::State,
        resources: &[Resource],
    ) -> Result<BTreeMap<Resource, Usage>, Box<dyn std::error::Error>> {
        if resources.is_empty() {
            return Ok(BTreeMap::new());
        }
        let host = match self.cgroups.take() {
            Some(host) => host,
            None => vzrt::cgroup::Host::detect(Path::new("/"))?,
        };
        let sources = vzrt::counters::sources(&host.container(&state.cgroup, state.ctid), state.init_pid, run);
        self.cgroups = Some(host);
        let mut reader = Reader::new(&sources);
        resources.iter().map(|r| Ok((*r, reader.usage(*r)?))).collect()
    }

    /// Seconds since init was started: both clocks count from boot.
    fn uptime_of(&mut self, start_ticks: u64) -> Option<f64> {
        if self.uptime_s.is_none() {
            let text = fs_err::read_to_string("/proc/uptime").ok()?;
            self.uptime_s = text.split_ascii_whitespace().next()?.parse().ok();
        }
        #[expect(clippy::cast_precision_loss, reason = "53 bits of clock ticks are three million years")]
        let started_s = start_ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
        self.uptime_s.map(|now| (now - started_s).max(0.0))
    }
}

/// What the kernel knows of the disk, without a look inside: a project is asked for through the directory *above* the private area, and
/// an image through the mount point of the root, which is the host's own directory and the file system that the runtime made.
fn disk_usage(node: &Node, ctid: Ctid, condition: &Condition, settings: &Settings, private: &str) -> Option<DiskUsage> {
    let disk = match condition {
        Condition::Stopped => None,
        Condition::Mounted(journal) => Some((journal.root.disk.clone(), journal.root.mountpoint.clone())),
        Condition::Running(_) => {
            let journal = RunDir::new(node.run_dir(ctid)).journal().ok().flatten()?;
            Some((journal.root.disk, journal.root.mountpoint))
        }
    };
    match disk {
        Some((Disk::Unbounded, _)) => None,
        Some((Disk::Image { file, .. }, mountpoint)) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = rustix::fs::open(&mountpoint, flags, Mode::empty()).ok()?;
            let usage = quota::image::usage(&fd).ok()?;
            let space_kib = usage.space_used_kib.saturating_sub(balloon_kib(&file, usage.space_total_kib, settings));
            Some(DiskUsage { space_kib, inodes: usage.inodes_used, in_force: None })
        }
        Some((Disk::Project { id, .. }, _)) => {
            let mut usage = project_usage(private, id)?;
            usage.in_force = decide::other_limits(Path::new(private), id, &settings.disk_limits()).ok()?;
            Some(usage)
        }
        None if settings.layout.is_none_or(|l| l == Layout::Simfs) => {
            project_usage(private, quota::owned::of(Path::new(private)).ok()??.id())
        }
        None => None,
    }
}

/// What an image of the simfs layout may be larger than its limit without a balloon (`Size::Usable`), in KiB.
const ROUNDED_KIB: u64 = 1024;

/// What of an image is used by its balloon: what it, or what is in it, is larger than its limit.
fn balloon_kib(file: &Path, total_kib: u64, settings: &Settings) -> u64 {
    match (settings.layout, settings.disk_limits().effective().space_kib.hard) {
        (Some(Layout::Ploop(_)), quota::Limit::Of(kib)) => {
            file.metadata().map_or(0, |meta| (meta.len() / 1024).saturating_sub(kib))
        }
        (_, quota::Limit::Of(kib)) if total_kib > kib.saturating_add(ROUNDED_KIB) => total_kib - kib,
        _ => 0,
    }
}

fn project_usage(private: &str, id: NonZeroU32) -> Option<DiskUsage> {
    let above = Path::new(private).parent()?;
    let status = quota::project::Project::open(above, id).ok()?.status().ok()?;
    // A project that holds not even its own directory is nobody's: the area is bounded in another way, or not at all.
    (status.inodes_used > 0).then_some(DiskUsage {
        space_kib: status.space_used_kib,
        inodes: status.inodes_used,
        in_force: None,
    })
}
