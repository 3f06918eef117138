//! What a configuration says about a container, and one change to it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;

use beancounters::Bound;
use quota::{DiskLimits, SoftHard};

use super::values::{
    Address, CapabilitySwitch, CpuLimit, DevNode, DeviceRule, Dns, Feature, Layout, Mask, MemGuarantee, Meminfo,
    Netfilter, Netif, SearchDomains, TemplateTree,
};

/// Everything a container's configuration can say. `None`, or an empty list, is "not said".
#[derive(Debug, Clone, Default, PartialEq)]
#[expect(missing_docs, reason = "each field is the parameter of its name, which `params` describes")]
pub struct Settings {
    pub onboot: Option<bool>,
    pub bootorder: Option<u64>,
    pub disabled: Option<bool>,
    /// `VE_ROOT`, possibly with `$VEID` in it.
    pub root: Option<String>,
    /// `VE_PRIVATE`, possibly with `$VEID` in it.
    pub private: Option<String>,
    pub mount_opts: Vec<String>,
    pub name: Option<String>,
    pub description: Option<String>,
    pub ostemplate: Option<String>,
    pub origin_sample: Option<String>,
    pub stop_timeout_s: Option<u64>,
    pub layout: Option<Layout>,
    pub tree: Option<TemplateTree>,
    /// Application layers over the tree, the uppermost last.
    pub layers: Vec<TemplateTree>,
    /// Application templates that are installed (`TEMPLATES`).
    pub templates: Vec<String>,
    pub local_uid: Option<u32>,
    pub local_gid: Option<u32>,

    pub addresses: Vec<Address>,
    pub hostname: Option<String>,
    pub nameserver: Option<Dns>,
    pub searchdomain: Option<SearchDomains>,
    pub netifs: Vec<Netif>,
    pub netdevs: Vec<String>,

    pub bounds: beancounters::Set,
    pub vm_overcommit: Option<f64>,
    pub memguarantee: Option<MemGuarantee>,

    pub cpuunits: Option<u64>,
    pub cpuweight: Option<u64>,
    pub cpulimit: Option<CpuLimit>,
    pub cpus: Option<u64>,
    pub cpumask: Option<Mask>,
    pub nodemask: Option<Mask>,

    pub ioprio: Option<u64>,
    /// Bytes a second; 0 is no limit.
    pub iolimit_bytes_s: Option<u64>,
    /// 0 is no limit.
    pub iopslimit: Option<u64>,

    /// In KiB.
    pub diskspace_kib: Option<SoftHard>,
    pub diskinodes: Option<SoftHard>,
    pub quotatime_s: Option<u64>,
    pub quotaugidlimit: Option<u64>,
    pub diskquota: Option<bool>,

    pub capabilities: Vec<CapabilitySwitch>,
    pub devices: Vec<DeviceRule>,
    pub devnodes: Vec<DevNode>,
    pub pci: Vec<String>,
    pub features: BTreeMap<Feature, bool>,
    pub meminfo: Option<Meminfo>,
    pub iptables: Vec<String>,
    pub netfilter: Option<Netfilter>,
}

/// Which of several things an option takes away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal<T> {
    /// Every one.
    All,
    /// These.
    These(Vec<T>),
}

/// One thing that `vzctl set` or `create` was told, or that a line of a configuration says. `None` takes the setting away.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each variant is the parameter of its name, which `params` describes")]
pub enum Change {
    OnBoot(bool),
    BootOrder(Option<u64>),
    Disabled(bool),
    Root(String),
    Private(String),
    MountOpts(Vec<String>),
    Name(Option<String>),
    Description(Option<String>),
    OsTemplate(String),
    OriginSample(String),
    StopTimeout(u64),
    Layout(Layout),
    Tree(Option<TemplateTree>),
    Layers(Vec<TemplateTree>),
    Templates(Vec<String>),
    LocalUid(u32),
    LocalGid(u32),
    /// Never saved.
    UserPassword {
        user: String,
        password: Password,
    },

    AddAddresses(Vec<Address>),
    RemoveAddresses(Removal<IpAddr>),
    Hostname(Option<String>),
    Nameserver(Dns),
    Searchdomain(SearchDomains),
    AddNetif(Vec<Netif>),
    EditNetif(Netif),
    RemoveNetif(Removal<String>),
    AddNetdev(Vec<String>),
    RemoveNetdev(Vec<String>),

    Bound(Bound),
    VmOvercommit(f64),
    MemGuarantee(MemGuarantee),

    CpuUnits(u64),
    CpuWeight(u64),
    CpuLimit(CpuLimit),
    Cpus(u64),
    CpuMask(Mask),
    NodeMask(Mask),

    IoPrio(u64),
    IoLimit {
        bytes_s: u64,
    },
    IopsLimit(u64),

    DiskSpace(SoftHard),
    DiskInodes(SoftHard),
    QuotaTime(u64),
    QuotaUgidLimit(u64),
    DiskQuota(bool),

    Capabilities(Vec<CapabilitySwitch>),
    Devices(Vec<DeviceRule>),
    DevNodes(Vec<DevNode>),
    AddPci(Vec<String>),
    RemovePci(Vec<String>),
    Features(Vec<(Feature, bool)>),
    Meminfo(Meminfo),
    Iptables(Vec<String>),
    Netfilter(Netfilter),
}

/// A password on its way into a container. Its `Debug` does not show it: changes are logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    pub(crate) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The password itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

impl Settings {
    /// What the configuration says about the disk, absent limits being none.
    #[must_use]
    pub fn disk_limits(&self) -> DiskLimits {
        DiskLimits {
            space_kib: self.diskspace_kib.unwrap_or(SoftHard::UNLIMITED),
            inodes: self.diskinodes.unwrap_or(SoftHard::UNLIMITED),
            grace_s: self.quotatime_s,
        }
    }

    /// How many users and groups inside may have limits of their own; `None` where none may, which is also what 0 says.
    #[must_use]
    pub fn user_quota(&self) -> Option<NonZeroU32> {
        let count = self.quotaugidlimit?;
        NonZeroU32::new(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// Takes a change over.
    pub fn apply(&mut self, change: &Change) {
        match change.clone() {
            Change::OnBoot(yes) => self.onboot = Some(yes),
            Change::BootOrder(order) => self.bootorder = order,
            Change::Disabled(yes) => self.disabled = Some(yes),
            Change::Root(path) => self.root = Some(path),
            Change::Private(path) => self.private = Some(path),
            Change::MountOpts(options) => self.mount_opts = options,
            Change::Name(name) => self.name = name,
            Change::Description(text) => self.description = text,
            Change::OsTemplate(name) => self.ostemplate = Some(name),
            Change::OriginSample(name) => self.origin_sample = Some(name),
            Change::StopTimeout(seconds) => self.stop_timeout_s = Some(seconds),
            Change::Layout(layout) => self.layout = Some(layout),
            Change::Tree(tree) => self.tree = tree,
            Change::Layers(layers) => self.layers = layers,
            Change::Templates(names) => self.templates = names,
            Change::LocalUid(uid) => self.local_uid = Some(uid),
            Change::LocalGid(gid) => self.local_gid = Some(gid),
            Change::UserPassword { .. } => {}
            Change::AddAddresses(new) => replace_by(&mut self.addresses, new, |a| a.ip),
            Change::RemoveAddresses(Removal::All) => self.addresses.clear(),
            Change::RemoveAddresses(Removal::These(ips)) => self.addresses.retain(|a| !ips.contains(&a.ip)),
            Change::Hostname(name) => self.hostname = name,
            Change::Nameserver(dns) => self.nameserver = Some(dns).filter(|d| *d != Dns::Servers(Vec::new())),
            Change::Searchdomain(names) => {
                self.searchdomain = Some(names).filter(|n| *n != SearchDomains::Names(Vec::new()));
            }
            Change::AddNetif(new) => replace_by(&mut self.netifs, new, |n| n.ifname.clone()),
            Change::EditNetif(edit) => {
                self.netifs.iter_mut().filter(|n| n.ifname == edit.ifname).for_each(|n| n.edit(&edit))
            }
            Change::RemoveNetif(Removal::All) => self.netifs.clear(),
            Change::RemoveNetif(Removal::These(names)) => self.netifs.retain(|n| !names.contains(&n.ifname)),
            Change::AddNetdev(new) => replace_by(&mut self.netdevs, new, String::clone),
            Change::RemoveNetdev(names) => self.netdevs.retain(|n| !names.contains(n)),
            Change::Bound(bound) => drop(self.bounds.insert(bound)),
            Change::VmOvercommit(factor) => self.vm_overcommit = Some(factor),
            Change::MemGuarantee(guarantee) => self.memguarantee = Some(guarantee),
            Change::CpuUnits(units) => self.cpuunits = Some(units),
            Change::CpuWeight(weight) => self.cpuweight = Some(weight),
            Change::CpuLimit(limit) => self.cpulimit = Some(limit),
            Change::Cpus(count) => self.cpus = Some(count),
            Change::CpuMask(mask) => self.cpumask = Some(mask),
            Change::NodeMask(mask) => self.nodemask = Some(mask),
            Change::IoPrio(priority) => self.ioprio = Some(priority),
            Change::IoLimit { bytes_s } => self.iolimit_bytes_s = Some(bytes_s),
            Change::IopsLimit(limit) => self.iopslimit = Some(limit),
            Change::DiskSpace(kib) => self.diskspace_kib = Some(kib),
            Change::DiskInodes(count) => self.diskinodes = Some(count),
            Change::QuotaTime(seconds) => self.quotatime_s = Some(seconds),
            Change::QuotaUgidLimit(count) => self.quotaugidlimit = Some(count),
            Change::DiskQuota(yes) => self.diskquota = Some(yes),
            Change::Capabilities(new) => replace_by(&mut self.capabilities, new, |c| c.name.clone()),
            Change::Devices(new) => {
                replace_by(&mut self.devices, new, |d| (d.block, d.major, d.minor));
                self.devices.retain(|d| !d.access.is_none());
            }
            Change::DevNodes(new) => {
                replace_by(&mut self.devnodes, new, |d| d.name.clone());
                self.devnodes.retain(|d| !d.access.is_none());
            }
            Change::AddPci(new) => replace_by(&mut self.pci, new, String::clone),
            Change::RemovePci(gone) => self.pci.retain(|p| !gone.contains(p)),
            Change::Features(new) => self.features.extend(new),
            Change::Meminfo(meminfo) => self.meminfo = Some(meminfo),
            Change::Iptables(modules) => self.iptables = modules,
            Change::Netfilter(netfilter) => self.netfilter = Some(netfilter),
        }
    }
}

/// Adds to a list in which a later word about the same thing replaces the earlier one, in its place.
fn replace_by<T, K: PartialEq>(list: &mut Vec<T>, new: Vec<T>, key: impl Fn(&T) -> K) {
    for item in new {
        match list.iter_mut().find(|old| key(old) == key(&item)) {
            Some(old) => *old = item,
            None => list.push(item),
        }
    }
}
