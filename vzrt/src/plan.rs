//! The plan: everything `start` is going to make true, as a value that can be printed, compared and tested without root.
//!
//! What OCI has words for is in [`Plan::spec`]; the rest is in [`Plan::vz`].

use std::borrow::Cow;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use oci_spec::runtime::Spec;
use serde::{Deserialize, Deserializer, Serialize};

use crate::Ctid;
use crate::cgroup::DEFAULT_CPUUNITS;
use crate::error::Failed;
use crate::guest::{AddressStyle, ConsoleStyle, Hostname, HostnameStyle};
use crate::net::NetPlan;
use crate::seccomp;

/// A container about to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Its number.
    pub ctid: Ctid,
    /// Namespaces, id maps, mounts, capabilities, seccomp, cgroup limits: an OCI runtime configuration.
    pub spec: Spec,
    /// What OCI has no words for.
    pub vz: Extras,
}

impl Plan {
    /// The same plan with its system call filter compiled, once for all processes that will run inside: `vz.filter` takes the place of
    /// `spec.linux.seccomp`, so that there are never two that could differ.
    ///
    /// # Errors
    /// The filter has what this runtime or the kernel can't do.
    pub(crate) fn compiled(&self) -> Result<Self, Failed> {
        let mut plan = self.clone();
        if let Some(program) = self.seccomp()? {
            plan.vz.filter = Some(program.into_owned());
            if let Some(linux) = plan.spec.linux_mut() {
                linux.set_seccomp(None);
            }
        }
        Ok(plan)
    }

    /// The system call filter, compiled by now if it was not before.
    ///
    /// # Errors
    /// As [`Plan::compiled`].
    pub(crate) fn seccomp(&self) -> Result<Option<Cow<'_, seccomp::Program>>, Failed> {
        if let Some(program) = &self.vz.filter {
            return Ok(Some(Cow::Borrowed(program)));
        }
        let filter = self.spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        let compile = |filter| seccomp::Program::compile(filter, seccomp::Machine::NATIVE).map(Cow::Owned);
        filter.map(compile).transpose().map_err(|e| Failed::new("compile the system call filter", e.to_string()))
    }
}

/// The part of a plan that is ours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Extras {
    /// Directory for this container's run state, `/run/vz/101`.
    pub run_dir: PathBuf,
    /// The lock file of this container, `/vz/lock/101.lck`.
    pub lock_file: PathBuf,
    /// The cgroup that all containers of this node live in, `vz`; each is a child of it named by its number, in every hierarchy.
    pub cgroup: String,
    /// Host ids of the container's ids 0 and up.
    pub ids: IdRange,
    /// Barriers and limits of its beancounters, those that follow from others included.
    #[serde(default)]
    pub bounds: beancounters::Set,
    /// Whether the kernel is to count and refuse what it can by BPF programs.
    #[serde(default)]
    pub enforce_bounds: bool,
    /// Its part of busy processors.
    #[serde(default)]
    pub cpu: CpuShare,
    /// Private area and root.
    pub root: RootPlan,
    /// `venet0`.
    pub net: NetPlan,
    /// Scripts of the host's administrator.
    pub hooks: Hooks,
    /// What is written into the container's own files before its init runs.
    pub guest: GuestPlan,
    /// Devices of the host bound into the container's `/dev`: paths under `/dev`, without it.
    pub dev_nodes: Vec<String>,
    /// Devices granted to this container: paths below the host's `/dev`, without it. It gets nodes of its own for them.
    #[serde(default)]
    pub granted_nodes: Vec<String>,
    /// Programs to try as init, in order; the arguments are `spec.process.args`.
    pub init: Vec<String>,
    /// The signal that asks the program to end which is this container's init, of an image without one (its number); `None`: it is an init, and
    /// has a `halt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<i32>,
    /// The system call filter as the kernel takes it, in the plan of a started container; a plan that was only decided has it in its spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<seccomp::Program>,
    /// The file that messages about the container go to.
    #[serde(default)]
    pub log_file: Option<PathBuf>,
    /// What the monitor runs after the container asked for a reboot: the command line that starts it again. It adds how often in a row the
    /// container has rebooted soon after its start.
    pub restart_argv: Vec<String>,
    /// How often that was before this start.
    #[serde(default, skip_serializing_if = "is_none")]
    pub quick_reboots: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn is_none(count: &u32) -> bool {
    *count == 0
}

/// A contiguous range of host ids that a container's ids 0..count are mapped to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// Host uid of the container's root. Also the uid that creates the user namespace, so that what the kernel charges per user is charged to it.
    pub uid: u32,
    /// Host gid of the container's group 0.
    pub gid: u32,
    /// How many ids follow.
    pub count: u32,
}

/// A part of busy processors, beside all others who have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuShare {
    /// The container's, `CPUUNITS`: 8..=500000.
    pub units: u64,
    /// What the host's own processes have beside all containers, `VE0CPUUNITS`.
    pub host_units: u64,
}

impl Default for CpuShare {
    fn default() -> Self {
        Self { units: DEFAULT_CPUUNITS, host_units: DEFAULT_CPUUNITS }
    }
}

/// Where the container's files are, and how they become one root.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RootPlan {
    /// `VE_ROOT`: where the root is mounted on the host.
    pub mountpoint: PathBuf,
    /// `VE_PRIVATE`: what belongs to this container alone.
    pub private: PathBuf,
    /// How the root is put together.
    pub layers: Layers,
    /// What bounds the private area.
    pub disk: Disk,
    /// Ids on disk are the container's own; mounts shift them to this range.
    pub ids: IdRange,
    /// Mount read-only or without access times, and the like (`MOUNT_OPTS`).
    pub options: Vec<String>,
    /// How many users and groups inside may have limits of their own, if any (`QUOTAUGIDLIMIT`).
    #[serde(default)]
    pub user_quota: Option<NonZeroU32>,
}

/// How a root is put together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layers {
    /// The private area is the whole tree, as on every OpenVZ host with `VE_LAYOUT=simfs`.
    Whole,
    /// An overlay: these trees below, the uppermost first, shared with other containers and never written; the private area on top.
    /// At most [`crate::rootfs::MAX_LAYERS`]. A plan written when there was only one has it without brackets.
    OverTree(#[serde(deserialize_with = "one_or_several")] Vec<PathBuf>),
    /// The root is a directory of the image that is the private area ([`quota::image::ROOT`]): `VE_LAYOUT=ploop`.
    InImage,
}

fn one_or_several<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<PathBuf>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Paths {
        One(PathBuf),
        Several(Vec<PathBuf>),
    }
    Ok(match Paths::deserialize(input)? {
        Paths::One(path) => vec![path],
        Paths::Several(paths) => paths,
    })
}

/// What bounds a private area.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Disk {
    /// Nothing: `DISK_QUOTA=no`.
    Unbounded,
    /// Project quota of the file system under `VE_PRIVATE`.
    Project {
        /// The project id; the CTID.
        id: NonZeroU32,
        /// What it may hold.
        limits: quota::DiskLimits,
    },
    /// The private area is this ext4 image.
    Image {
        /// The image file.
        file: PathBuf,
        /// How large it should be: a smaller one is grown before it is mounted.
        #[serde(default)]
        size: Option<quota::image::Size>,
        /// Whether it has taken all its space from the host, and keeps it.
        #[serde(default)]
        keeps_space: bool,
        /// Whether a file system that has found errors in itself is checked before it is mounted.
        #[serde(default)]
        fsck: bool,
    },
}

/// Scripts of the administrator, by the moment they run. An absent file is no script.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    /// On the host before the root is mounted: `vps.premount`, `CTID.premount`.
    pub premount: Vec<PathBuf>,
    /// On the host after the root is mounted: `vps.mount`, `CTID.mount`.
    pub mount: Vec<PathBuf>,
    /// Inside, before init: `CTID.start`.
    pub start: Option<PathBuf>,
    /// Inside, before stop: `CTID.stop`.
    pub stop: Option<PathBuf>,
    /// On the host before the root is unmounted: `CTID.umount`, `vps.umount` (in this order).
    pub umount: Vec<PathBuf>,
    /// On the host after it: `CTID.postumount`, `vps.postumount`.
    pub postumount: Vec<PathBuf>,
    /// `VEID` and `VE_CONFFILE`, for all of them.
    pub env: Vec<(String, String)>,
}

/// Settings written into the container's own files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestPlan {
    /// `HOSTNAME`.
    pub hostname: Option<Hostname>,
    /// Where its distribution keeps it.
    pub hostname_style: HostnameStyle,
    /// `NAMESERVER`, `inherit` already replaced.
    pub nameservers: Vec<IpAddr>,
    /// `SEARCHDOMAIN`, `inherit` already replaced.
    pub search: Vec<Hostname>,
    /// How its files are told of the addresses of [`Extras::net`].
    #[serde(default)]
    pub addresses: AddressStyle,
    /// What is done for a login on the console.
    #[serde(default)]
    pub console: ConsoleStyle,
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;
    use crate::policy;

    fn plan() -> Plan {
        let range = r#"{"uid":100000,"gid":100000,"count":65536}"#;
        let text = format!(
            r#"{{"ctid":101,"spec":{{"ociVersion":"1.0.2","linux":{{}}}},"vz":{{"run_dir":"/run/vz/101",
            "lock_file":"/vz/lock/101.lck","cgroup":"vz","ids":{range},"root":{{"mountpoint":"/vz/root/101",
            "private":"/vz/private/101","layers":"whole","disk":"unbounded","ids":{range},"options":[]}},
            "net":{},"hooks":{},"guest":{},"dev_nodes":[],"init":[],"restart_argv":[]}}}}"#,
            r#"{"host_ifname":"vz101","prefix":"vz","addresses":[],"route_source_dev":null,"neighbour_devs":"all",
            "arp_detect":true,"error_on_arpfail":false,"mtu":null}"#,
            serde_json::to_string(&Hooks::default()).unwrap(),
            serde_json::to_string(&GuestPlan::default()).unwrap(),
        );
        let mut plan: Plan = serde_json::from_str(&text).unwrap();
        plan.spec.linux_mut().as_mut().unwrap().set_seccomp(Some(policy::seccomp(&[], policy::Asks::default())));
        plan
    }

    #[test]
    fn a_started_containers_plan_has_its_filter_once_and_as_it_was_compiled() {
        let decided = plan();
        let compiled = decided.compiled().unwrap();
        assert_eq!(compiled.spec.linux().as_ref().unwrap().seccomp(), &None);
        let read: Plan = serde_json::from_slice(&serde_json::to_vec(&compiled).unwrap()).unwrap();
        assert_eq!(read, compiled);
        assert_eq!(read.seccomp().unwrap(), decided.seccomp().unwrap(), "compiled at need it is the same");
        assert!(!read.seccomp().unwrap().unwrap().instructions.is_empty());
    }

    #[test]
    fn a_plan_with_one_tree_reads_as_it_was_written_before_there_were_several() {
        let old: Layers = serde_json::from_str(r#"{"over-tree":"/t/a@1"}"#).unwrap();
        assert_eq!(old, Layers::OverTree(vec!["/t/a@1".into()]));
        let new = Layers::OverTree(vec!["/t/b".into(), "/t/a".into()]);
        assert_eq!(serde_json::from_str::<Layers>(&serde_json::to_string(&new).unwrap()).unwrap(), new);
    }

    #[test]
    fn compiling_twice_changes_nothing_and_a_plan_without_filter_stays_one() {
        let compiled = plan().compiled().unwrap();
        assert_eq!(compiled.compiled().unwrap(), compiled);
        let mut without = plan();
        without.spec.linux_mut().as_mut().unwrap().set_seccomp(None);
        assert_eq!(without.compiled().unwrap().seccomp().unwrap(), None);
    }
}
