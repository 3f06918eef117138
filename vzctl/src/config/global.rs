//! `vz.conf`: what holds for every container of a node.

use std::path::{Path, PathBuf};

use super::container;
use super::document::{Document, DocumentError};
use super::params;
use super::settings::Settings;
use super::values::{BadValue, Layout, yes_no};
use crate::Exit;

/// `vz.conf` could not be used.
#[derive(Debug, thiserror::Error)]
pub enum GlobalError {
    /// It is missing, unreadable or no configuration.
    #[error("Global configuration file {} cannot be read", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: DocumentError,
    },
    /// A key holds a value it cannot have.
    #[error("{}: bad value for {key}: {bad}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong.
        bad: BadValue,
    },
}

impl GlobalError {
    /// The code `vzctl` ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        Exit::NoGlobalConfig
    }
}

/// Which network devices of the host learn of a container's addresses (`NEIGHBOUR_DEVS`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NeighbourDevices {
    /// Every device that can have neighbours.
    All,
    /// Those on whose own network the address lies.
    Detect,
    /// These.
    List(Vec<String>),
}

/// What happens to running containers when the host goes down (`VE_STOP_MODE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// They are checkpointed, and stopped where that fails.
    Suspend,
    /// They are stopped.
    Stop,
}

/// `vz.conf`, typed, with the defaults of vzctl 4 where a key is missing. Keys named `VZ_…` are ours.
#[derive(Debug, Clone, PartialEq)]
pub struct Global {
    /// `LOCKDIR`.
    pub lock_dir: PathBuf,
    /// `DUMPDIR`: checkpoint images.
    pub dump_dir: PathBuf,
    /// `TEMPLATE`: recipes, caches and template trees.
    pub template_dir: PathBuf,
    /// `VE_ROOT`, with `$VEID` in it.
    pub ve_root: String,
    /// `VE_PRIVATE`, with `$VEID` in it.
    pub ve_private: String,
    /// `VE0CPUUNITS`: the CPU weight of the host's own processes.
    pub host_cpuunits: u64,
    /// `IO_SCHEDULER`: what becomes of the scheduler of the disks below private areas. Ours.
    pub io_scheduler: vzrt::disks::Choice,
    /// `VE_STOP_MODE`.
    pub stop_mode: StopMode,
    /// `VE_PARALLEL`: how many containers are started at once at boot; unset means four for each CPU.
    pub parallel: Option<u64>,
    /// `VZREBOOTDIR`: which containers ran when the host went down.
    pub reboot_dir: PathBuf,
    /// `LOGGING` and `LOGFILE`: where the log goes, if anywhere.
    pub log_file: Option<PathBuf>,
    /// `LOG_LEVEL`.
    pub log_level: i32,
    /// `VERBOSE`: what the terminal shows.
    pub verbose: i32,
    /// `DISK_QUOTA`.
    pub disk_quota: bool,
    /// `VE_ROUTE_SRC_DEV`: the device whose address the host uses towards its containers.
    pub route_source_device: Option<String>,
    /// `NEIGHBOUR_DEVS`.
    pub neighbour_devices: NeighbourDevices,
    /// `SKIP_ARPDETECT`: don't ask the network whether an address is taken.
    pub skip_arpdetect: bool,
    /// `ERROR_ON_ARPFAIL`: an address that could not be asked for is an error.
    pub error_on_arpfail: bool,
    /// `CONFIGFILE`: the sample a new container's configuration starts from.
    pub config_sample: Option<String>,
    /// `DEF_OSTEMPLATE`.
    pub default_ostemplate: Option<String>,
    /// `VE_LAYOUT` of a new container.
    pub layout: Layout,
    /// `LOCAL_UID`: the lowest uid given to a container.
    pub local_uid: u32,
    /// `LOCAL_GID`: the lowest gid given to a container.
    pub local_gid: u32,
    /// `IPV6`.
    pub ipv6: bool,
    /// `MODULES_DISABLED`: load no kernel modules for containers.
    pub modules_disabled: bool,
    /// `VZ_RUNDIR`: run state, on a file system that does not outlive the boot where there is one.
    pub run_dir: PathBuf,
    /// `VZ_CGROUP`: the cgroup that all containers of this node live in.
    pub cgroup: String,
    /// `VZ_IFPREFIX`: what the names of host-side interfaces begin with.
    pub interface_prefix: String,
    /// `VZ_MASQUERADE`: private addresses reach the outside as the host.
    pub masquerade: bool,
    /// `UBC_ENFORCE`: BPF programs in the host's kernel count and refuse what they can. Ours; no unless it says yes.
    pub enforce_bounds: bool,
    /// `VZ_PROJECT_IDS`: the project ids that private areas get.
    pub project_ids: quota::owned::Ids,
    /// What containers get where their own file says nothing: `NAMESERVER`, `STOP_TIMEOUT`, and whatever else of theirs is in `vz.conf`.
    pub defaults: Settings,
    /// Names of keys that mean nothing here, for a diagnosis of typing errors.
    pub unknown: Vec<String>,
}

/// Keys of old hosts that need no answer from us: watchdog, kernel modules, boot tuning of the OpenVZ kernel.
const WITHOUT_EFFECT: &str = "VIRTUOZZO VZFASTBOOT VZWDOG IPTABLES_MODULES IPTABLES IP6TABLES VEFORMAT VZ_TOOLS_BCID VZ_TOOLS_IOLIMIT \
    TECHNOLOGIES SERVICE_VE BURST_CPU_AVG_USAGE BURST_CPULIMIT";

impl Global {
    /// Reads `vz.conf`.
    ///
    /// # Errors
    /// The file, or the first key with a bad value: a node half understood is not one to run containers on.
    pub fn load(path: &Path) -> Result<Self, GlobalError> {
        let document =
            Document::load_linked(path).map_err(|source| GlobalError::File { path: path.to_owned(), source })?;
        Self::from_document(&document).map_err(|(key, bad)| GlobalError::Value {
            path: path.to_owned(),
            key: key.to_owned(),
            bad,
        })
    }

    /// The typed form of a parsed `vz.conf`; also checks it.
    ///
    /// # Errors
    /// The first key with a bad value.
    pub fn from_document(document: &Document) -> Result<Self, (&'static str, BadValue)> {
        let keys = Keys(document);
        Ok(Self {
            lock_dir: keys.path("LOCKDIR", "/vz/lock")?,
            dump_dir: keys.path("DUMPDIR", "/vz/dump")?,
            template_dir: keys.path("TEMPLATE", "/vz/template")?,
            ve_root: keys.per_container("VE_ROOT", "/vz/root/$VEID")?,
            ve_private: keys.per_container("VE_PRIVATE", "/vz/private/$VEID")?,
            host_cpuunits: keys.number("VE0CPUUNITS")?.unwrap_or(1000),
            io_scheduler: keys.parsed("IO_SCHEDULER", io_scheduler)?.unwrap_or_default(),
            stop_mode: match keys.text("VE_STOP_MODE") {
                None | Some("suspend") => StopMode::Suspend,
                Some("stop") => StopMode::Stop,
                Some(other) => return Err(("VE_STOP_MODE", BadValue::new(other, "suspend or stop"))),
            },
            parallel: keys.number("VE_PARALLEL")?,
            reboot_dir: keys.path("VZREBOOTDIR", "/var/lib/vzctl/vzreboot")?,
            log_file: if keys.yes("LOGGING", true)? { Some(keys.path("LOGFILE", "/var/log/vzctl.log")?) } else { None },
            log_level: keys.level("LOG_LEVEL")?,
            verbose: keys.level("VERBOSE")?,
            disk_quota: keys.yes("DISK_QUOTA", true)?,
            route_source_device: keys.text("VE_ROUTE_SRC_DEV").map(str::to_owned),
            neighbour_devices: neighbours(keys.text("NEIGHBOUR_DEVS")).map_err(|bad| ("NEIGHBOUR_DEVS", bad))?,
            skip_arpdetect: keys.yes("SKIP_ARPDETECT", false)?,
            error_on_arpfail: keys.yes("ERROR_ON_ARPFAIL", false)?,
            config_sample: keys.text("CONFIGFILE").map(str::to_owned),
            default_ostemplate: keys.text("DEF_OSTEMPLATE").map(str::to_owned),
            layout: keys.parsed("VE_LAYOUT", Layout::parse)?.unwrap_or(Layout::Simfs),
            local_uid: keys.id("LOCAL_UID")?,
            local_gid: keys.id("LOCAL_GID")?,
            ipv6: keys.yes("IPV6", true)?,
            modules_disabled: keys.yes("MODULES_DISABLED", false)?,
            run_dir: keys.path("VZ_RUNDIR", "/run/vz")?,
            cgroup: keys.parsed("VZ_CGROUP", cgroup_name)?.unwrap_or_else(|| "vz".to_owned()),
            interface_prefix: keys.parsed("VZ_IFPREFIX", interface_prefix)?.unwrap_or_else(|| "vz".to_owned()),
            masquerade: keys.yes("VZ_MASQUERADE", false)?,
            enforce_bounds: keys.yes("UBC_ENFORCE", false)?,
            project_ids: project_ids(keys.text("VZ_PROJECT_IDS").unwrap_or(DEFAULT_PROJECT_IDS))
                .map_err(|bad| ("VZ_PROJECT_IDS", bad))?,
            defaults: defaults(document)?,
            unknown: unknown_keys(document),
        })
    }
}

/// Far from where people and other programs begin to count (1 by hand, 1048577 of Kubernetes).
const DEFAULT_PROJECT_IDS: &str = "2000000000:2099999999";

const KNOWN: &str = "LOCKDIR DUMPDIR TEMPLATE VE_ROOT VE_PRIVATE VE0CPUUNITS VE_STOP_MODE VE_PARALLEL VZREBOOTDIR STOP_TIMEOUT LOGGING LOGFILE \
    LOG_LEVEL VERBOSE DISK_QUOTA VE_ROUTE_SRC_DEV NEIGHBOUR_DEVS SKIP_ARPDETECT ERROR_ON_ARPFAIL CONFIGFILE \
    DEF_OSTEMPLATE NAMESERVER SEARCHDOMAIN VE_LAYOUT LOCAL_UID LOCAL_GID IPV6 MODULES_DISABLED VZ_RUNDIR VZ_CGROUP \
    UBC_ENFORCE IO_SCHEDULER VZ_IFPREFIX VZ_MASQUERADE VZ_PROJECT_IDS";

/// `LOCAL_UID` is here where the numbers of all containers begin, not the range of one; and no name is everybody's.
fn defaults(document: &Document) -> Result<Settings, Bad> {
    let mut settings = Settings::default();
    match container::overlay(&mut settings, document).pop() {
        Some(problem) => Err((problem.key, problem.bad)),
        None => Ok(Settings { local_uid: None, local_gid: None, name: None, ..settings }),
    }
}

fn unknown_keys(document: &Document) -> Vec<String> {
    let listed = |key: &str| KNOWN.split(' ').chain(WITHOUT_EFFECT.split(' ')).any(|k| k == key);
    let known = |key: &&str| listed(key) || params::by_key(key).is_some();
    document.pairs().map(|(k, _)| k).filter(|k| !known(k)).map(str::to_owned).collect()
}

/// Typed look-ups that name the key they failed on. An empty value is an unset one.
struct Keys<'a>(&'a Document);

type Bad = (&'static str, BadValue);

impl<'a> Keys<'a> {
    fn text(&self, key: &str) -> Option<&'a str> {
        self.0.get(key).filter(|v| !v.is_empty())
    }

    fn parsed<T>(&self, key: &'static str, parse: impl Fn(&str) -> Result<T, BadValue>) -> Result<Option<T>, Bad> {
        self.text(key).map(parse).transpose().map_err(|bad| (key, bad))
    }

    fn yes(&self, key: &'static str, default: bool) -> Result<bool, Bad> {
        Ok(self.parsed(key, yes_no)?.unwrap_or(default))
    }

    fn number(&self, key: &'static str) -> Result<Option<u64>, Bad> {
        self.parsed(key, super::values::whole_number)
    }

    fn level(&self, key: &'static str) -> Result<i32, Bad> {
        let level = |v: &str| v.parse::<i32>().map_err(|_| BadValue::new(v, "a number"));
        Ok(self.parsed(key, level)?.unwrap_or(0))
    }

    fn id(&self, key: &'static str) -> Result<u32, Bad> {
        let id = |v: &str| v.parse::<u32>().map_err(|_| BadValue::new(v, "a user or group number"));
        Ok(self.parsed(key, id)?.unwrap_or(super::idrange::DEFAULT_FIRST))
    }

    fn path(&self, key: &'static str, default: &str) -> Result<PathBuf, Bad> {
        let value = self.text(key).unwrap_or(default);
        absolute(value).map(PathBuf::from).map_err(|bad| (key, bad))
    }

    /// Without the number two containers would share one directory.
    fn per_container(&self, key: &'static str, default: &str) -> Result<String, Bad> {
        let value = self.text(key).unwrap_or(default);
        absolute(value).map_err(|bad| (key, bad))?;
        if !value.contains("$VEID") && !value.contains("${VEID}") {
            return Err((key, BadValue::new(value, "a path with $VEID in it")));
        }
        Ok(value.to_owned())
    }
}

fn absolute(value: &str) -> Result<&str, BadValue> {
    let climbs = value.split('/').any(|part| part == "..");
    if value.starts_with('/') && !climbs { Ok(value) } else { Err(BadValue::new(value, "an absolute path without ..")) }
}

fn cgroup_name(value: &str) -> Result<String, BadValue> {
    let good = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.@".contains(&b))
    };
    if value.split('/').all(good) {
        Ok(value.to_owned())
    } else {
        Err(BadValue::new(value, "a cgroup's name: letters, digits, -, _, . and / between levels"))
    }
}

/// What the runtime takes: it is also the name of the nft table. Asked here, so that a typing error shows when the file is read and not
/// when the first container gets an address.
fn interface_prefix(value: &str) -> Result<String, BadValue> {
    let host = vzrt::net::HostNet { prefix: value.to_owned(), table: value.to_owned(), ..Default::default() };
    match host.check() {
        Ok(()) => Ok(value.to_owned()),
        Err(_) => Err(BadValue::new(value, "up to five letters and digits, a letter first and no digit last")),
    }
}

fn io_scheduler(value: &str) -> Result<vzrt::disks::Choice, BadValue> {
    use vzrt::disks::Choice;
    match value {
        "keep" => Ok(Choice::Keep),
        "auto" => Ok(Choice::Auto),
        "bfq" => Ok(Choice::Bfq),
        "iocost" => Ok(Choice::IoCost),
        other => Err(BadValue::new(other, "keep, auto, bfq or iocost")),
    }
}

fn project_ids(value: &str) -> Result<quota::owned::Ids, BadValue> {
    let ids = value.split_once(':').and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
    ids.and_then(|(first, last)| quota::owned::Ids::new(first, last))
        .ok_or_else(|| BadValue::new(value, "FIRST:LAST, numbers from 1 to 4294967294"))
}

fn neighbours(value: Option<&str>) -> Result<NeighbourDevices, BadValue> {
    match value {
        None | Some("all") => Ok(NeighbourDevices::All),
        Some("detect") => Ok(NeighbourDevices::Detect),
        Some(value) => match value.strip_prefix("list:") {
            Some(list) => {
                let names: Result<_, _> = list.split_whitespace().map(super::values::interface_name).collect();
                Ok(NeighbourDevices::List(names?))
            }
            None => Err(BadValue::new(value, "all, detect or list:DEVICE…")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn global(text: &str) -> Result<Global, (&'static str, BadValue)> {
        Global::from_document(&Document::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn an_empty_file_means_the_defaults_of_the_original() {
        let g = global("").unwrap();
        assert_eq!(g.lock_dir, Path::new("/vz/lock"));
        assert_eq!(g.ve_root, "/vz/root/$VEID");
        assert_eq!((g.local_uid, g.local_gid), (100_000, 100_000));
        assert_eq!(g.log_file.as_deref(), Some(Path::new("/var/log/vzctl.log")));
        assert_eq!(g.neighbour_devices, NeighbourDevices::All);
        assert_eq!(
            (g.run_dir.as_path(), g.cgroup.as_str(), g.interface_prefix.as_str()),
            (Path::new("/run/vz"), "vz", "vz")
        );
    }

    #[test]
    fn a_bad_value_is_named_with_its_key() {
        for (text, key) in [
            ("IPV6=perhaps", "IPV6"),
            ("VE_ROOT=/vz/root", "VE_ROOT"),
            ("LOCKDIR=vz/lock", "LOCKDIR"),
            ("VZ_RUNDIR=/run/../etc", "VZ_RUNDIR"),
            ("VZ_CGROUP=../system.slice", "VZ_CGROUP"),
            ("VZ_IFPREFIX=toolong", "VZ_IFPREFIX"),
            ("VZ_IFPREFIX=vz1", "VZ_IFPREFIX"),
            ("NEIGHBOUR_DEVS=\"eth0\"", "NEIGHBOUR_DEVS"),
            ("LOCAL_UID=-1", "LOCAL_UID"),
            ("VE_LAYOUT=zfs", "VE_LAYOUT"),
            ("VZ_PROJECT_IDS=0:5", "VZ_PROJECT_IDS"),
            ("VZ_PROJECT_IDS=7", "VZ_PROJECT_IDS"),
        ] {
            assert_eq!(global(text).map_err(|(k, _)| k), Err(key), "{text}");
        }
    }

    #[test]
    fn a_mistyped_key_is_reported_and_old_ones_are_not() {
        assert_eq!(global("VZWDOG=no\nLOCKDRI=/x\n").unwrap().unknown, ["LOCKDRI"]);
    }
}
