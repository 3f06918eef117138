//! The table of every parameter: what it is called on the command line and in a file, how it is read, written, and put into force.
//! The options of `vzctl set` and `create`, the reading and the writing of `CTID.conf`, and the command reference are made from it.

use std::sync::LazyLock;

use beancounters::{Bound, Resource, vswap};

use super::names;
use super::settings::{Change, Password, Removal, Settings};
use super::values::{
    self, BadValue, CapabilitySwitch, CpuLimit, DevNode, DeviceRule, Dns, Feature, Layout, Mask, MemGuarantee, Meminfo,
    Netfilter, Netif, SearchDomains, TemplateTree, file_name, host_path, joined, number_in, text, whole_number, yes_no,
    yes_no_text,
};
use crate::Exit;

type Parse = Box<dyn Fn(&str) -> Result<Change, BadValue> + Send + Sync>;
type Render = Box<dyn Fn(&Settings) -> Option<String> + Send + Sync>;

/// When a changed parameter takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Live {
    /// At once, on a running container too.
    Now,
    /// A running container has to be restarted: `Unable to set X on a running container`, see `--setmode`.
    Restart,
    /// It may not be changed while the container runs (exit code 32).
    Stopped,
    /// It is only ever stored: it matters to a later command.
    Stored,
}

/// The heading under which help shows a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Group {
    General,
    Network,
    Beancounters,
    Cpu,
    Io,
    Disk,
    Access,
}

impl Group {
    /// The heading.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::General => "General",
            Self::Network => "Network",
            Self::Beancounters => "Beancounters (BARRIER[:LIMIT]; suffixes T G M K P, unlimited)",
            Self::Cpu => "CPU",
            Self::Io => "Disk input and output",
            Self::Disk => "Disk space",
            Self::Access => "Devices and kernel access",
        }
    }
}

/// One parameter.
pub struct Param {
    /// The long option without its dashes; none for what only files say.
    pub option: Option<&'static str>,
    /// Other spellings of the option.
    pub aliases: &'static [&'static str],
    /// The short option.
    pub short: Option<char>,
    /// The key it is kept under, and older spellings of that which are read too; none for what is never stored.
    pub keys: &'static [&'static str],
    /// Whether `vzctl set` has the option.
    pub at_set: bool,
    /// Whether `vzctl create` has the option.
    pub at_create: bool,
    /// When it takes effect.
    pub live: Live,
    /// The code `vzctl` ends with on a bad value.
    pub bad_value: Exit,
    /// Where help shows it.
    pub group: Group,
    /// What help calls its value.
    pub metavar: &'static str,
    /// What help says about it.
    pub help: String,
    parse: Parse,
    load: Option<Parse>,
    render: Option<Render>,
}

impl Param {
    /// Reads the option's value.
    ///
    /// # Errors
    /// It is not a value of this parameter.
    pub fn parse(&self, value: &str) -> Result<Change, BadValue> {
        (self.parse)(value)
    }

    /// Reads the key's value from a file, where a few have another form than the option.
    ///
    /// # Errors
    /// As [`Param::parse`].
    pub fn load(&self, value: &str) -> Result<Change, BadValue> {
        self.load.as_ref().unwrap_or(&self.parse)(value)
    }

    /// The key's value for a file; `None` where there is nothing to keep.
    #[must_use]
    pub fn render(&self, settings: &Settings) -> Option<String> {
        self.render.as_ref().and_then(|render| render(settings))
    }

    /// An option that is not stored under a key of its own.
    fn option(
        group: Group,
        option: &'static str,
        metavar: &'static str,
        help: &str,
        parse: impl Fn(&str) -> Result<Change, BadValue> + Send + Sync + 'static,
    ) -> Self {
        Self {
            option: Some(option),
            aliases: &[],
            short: None,
            keys: &[],
            at_set: true,
            at_create: false,
            live: Live::Now,
            bad_value: Exit::InvalidValue,
            group,
            metavar,
            help: help.to_owned(),
            parse: Box::new(parse),
            load: None,
            render: None,
        }
    }

    fn stored(
        self,
        keys: &'static [&'static str],
        render: impl Fn(&Settings) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self { keys, render: Some(Box::new(render)), ..self }
    }

    fn loaded(self, load: impl Fn(&str) -> Result<Change, BadValue> + Send + Sync + 'static) -> Self {
        Self { load: Some(Box::new(load)), ..self }
    }

    fn aliases(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    fn at_create(self) -> Self {
        Self { at_create: true, ..self }
    }

    /// What is decided once, when the container is made.
    fn only_at_create(self) -> Self {
        Self { at_set: false, at_create: true, live: Live::Stored, ..self }
    }

    fn live(self, live: Live) -> Self {
        Self { live, ..self }
    }

    fn bad_value(self, exit: Exit) -> Self {
        Self { bad_value: exit, ..self }
    }

    /// Only files say it.
    fn key_only(self) -> Self {
        Self { option: None, live: Live::Stored, ..self }
    }
}

/// Every parameter, in the order of the help.
pub fn all() -> &'static [Param] {
    static TABLE: LazyLock<Vec<Param>> = LazyLock::new(|| {
        let mut table = general();
        table.extend(network());
        table.extend(bounds());
        table.extend(cpu_and_io());
        table.extend(disk());
        table.extend(access());
        table
    });
    &TABLE
}

/// The parameter that is kept under a key.
#[must_use]
pub fn by_key(key: &str) -> Option<&'static Param> {
    all().iter().find(|p| p.keys.contains(&key))
}

/// The parameter with a long option.
#[must_use]
pub fn by_option(option: &str) -> Option<&'static Param> {
    all().iter().find(|p| p.option == Some(option) || p.aliases.contains(&option))
}

fn general() -> Vec<Param> {
    use Group::General as G;
    let none_if_empty = |v: String| (!v.is_empty()).then_some(v);
    let name = |v: &str| match names::check(v) {
        Err(names::NameError::Invalid { rule, .. }) if !v.is_empty() => {
            Err(BadValue::new(v, format!("a name for a container: {rule}")))
        }
        _ => Ok(Change::Name((!v.is_empty()).then(|| v.to_owned()))),
    };
    vec![
        Param::option(G, "onboot", "yes|no", "Start it when the host boots", |v| yes_no(v).map(Change::OnBoot))
            .stored(&["ONBOOT"], |s| s.onboot.map(yes_no_text)),
        Param::option(G, "bootorder", "N", "Start it before those with a lower number, stop it after them", |v| {
            if v.is_empty() { Ok(Change::BootOrder(None)) } else { whole_number(v).map(|n| Change::BootOrder(Some(n))) }
        })
        .stored(&["BOOTORDER"], |s| s.bootorder.map(|n| n.to_string())),
        Param::option(G, "root", "PATH", "Where its root is mounted", |v| host_path(v).map(Change::Root))
            .stored(&["VE_ROOT"], |s| s.root.clone())
            .at_create()
            .live(Live::Stopped),
        Param::option(G, "private", "PATH", "Its private area", |v| host_path(v).map(Change::Private))
            .stored(&["VE_PRIVATE"], |s| s.private.clone())
            .at_create()
            .live(Live::Stopped),
        Param::option(G, "mount_opts", "OPTION[,OPTION…]", "How its image is mounted", |v| {
            values::mount_options(v).map(Change::MountOpts)
        })
        .stored(&["MOUNT_OPTS"], |s| list(&s.mount_opts, ","))
        .live(Live::Restart),
        Param::option(
            G,
            "userpasswd",
            "USER:PASSWORD",
            "Set a password inside, making the user where needed; never saved",
            user_password,
        ),
        Param::option(G, "disabled", "yes|no", "Whether start is refused", |v| yes_no(v).map(Change::Disabled))
            .stored(&["DISABLED"], |s| s.disabled.map(yes_no_text)),
        Param::option(G, "name", "NAME", "A name to use instead of the number; empty takes it away", name)
            .stored(&["NAME"], |s| s.name.clone())
            .at_create()
            .live(Live::Stored)
            .bad_value(Exit::SetName),
        Param::option(G, "description", "TEXT", "A line about it", move |v| {
            text(v).map(|v| Change::Description(none_if_empty(v)))
        })
        .stored(&["DESCRIPTION"], |s| s.description.clone())
        .at_create()
        .live(Live::Stored),
        Param::option(G, "ostemplate", "NAME", "The OS template it was made from", |v| {
            file_name(v).map(Change::OsTemplate)
        })
        .stored(&["OSTEMPLATE"], |s| s.ostemplate.clone())
        .at_create()
        .live(Live::Stored),
        Param::option(G, "stop-timeout", "SECONDS", "How long stop waits for init before killing", |v| {
            number_in(v, 0..=86_400).map(Change::StopTimeout)
        })
        .stored(&["STOP_TIMEOUT"], |s| s.stop_timeout_s.map(|n| n.to_string()))
        .live(Live::Stored),
        Param::option(G, "layout", "simfs|ploop[:MODE]", "What its private area is: a directory or an image", |v| {
            Layout::parse(v).map(Change::Layout)
        })
        .stored(&["VE_LAYOUT"], |s| s.layout.map(|l| l.stored().to_owned()))
        .aliases(&["velayout", "ve_layout"])
        .only_at_create()
        .bad_value(Exit::UnknownMountType),
        Param::option(G, "origin_sample", "NAME", "", |v| file_name(v).map(Change::OriginSample))
            .stored(&["ORIGIN_SAMPLE"], |s| s.origin_sample.clone())
            .key_only(),
        Param::option(G, "local_uid", "UID", "The first of its 65536 user numbers on the host", |v| {
            id(v).map(Change::LocalUid)
        })
        .stored(&["LOCAL_UID"], |s| s.local_uid.map(|n| n.to_string()))
        .only_at_create(),
        Param::option(G, "local_gid", "GID", "The first of its 65536 group numbers on the host", |v| {
            id(v).map(Change::LocalGid)
        })
        .stored(&["LOCAL_GID"], |s| s.local_gid.map(|n| n.to_string()))
        .only_at_create(),
        Param::option(G, "templates", "NAME …", "", |v| Ok(Change::Templates(values::app_templates(v))))
            .stored(&["TEMPLATES"], |s| list(&s.templates, " "))
            .key_only(),
        Param::option(G, "tree", "NAME@DIGEST", "", |v| TemplateTree::parse(v).map(|tree| Change::Tree(Some(tree))))
            .stored(&["VZ_TREE"], |s| s.tree.as_ref().map(ToString::to_string))
            .key_only(),
        Param::option(G, "layers", "NAME@DIGEST …", "", |v| values::layers(v).map(Change::Layers))
            .stored(&["VZ_LAYERS"], |s| list(&s.layers, " "))
            .key_only(),
    ]
}

fn network() -> Vec<Param> {
    use Group::Network as G;
    let hostname = |v: &str| {
        if v.is_empty() { Ok(Change::Hostname(None)) } else { values::hostname(v).map(|v| Change::Hostname(Some(v))) }
    };
    let removed_ips = |v: &str| match v {
        "all" => Ok(Change::RemoveAddresses(Removal::All)),
        v => values::addresses(v).map(|a| Change::RemoveAddresses(Removal::These(a.iter().map(|a| a.ip).collect()))),
    };
    let removed_netifs = |v: &str| match v {
        "all" => Ok(Change::RemoveNetif(Removal::All)),
        v => values::interface_list(v).map(|names| Change::RemoveNetif(Removal::These(names))),
    };
    vec![
        Param::option(G, "ipadd", "ADDRESS[/MASK]", "Add addresses", |v| {
            values::addresses(v).map(Change::AddAddresses)
        })
        .stored(&["IP_ADDRESS"], |s| list(&s.addresses, " "))
        .aliases(&["ip"])
        .at_create()
        .bad_value(Exit::BadAddress),
        Param::option(G, "ipdel", "ADDRESS|all", "Take addresses away", removed_ips).bad_value(Exit::BadAddress),
        Param::option(G, "hostname", "NAME", "Its host name", hostname)
            .stored(&["HOSTNAME"], |s| s.hostname.clone())
            .at_create()
            .bad_value(Exit::Hostname),
        Param::option(G, "nameserver", "ADDRESS|inherit", "Its name servers; inherit takes those of the host", |v| {
            Dns::parse(v).map(Change::Nameserver)
        })
        .stored(&["NAMESERVER"], |s| s.nameserver.as_ref().map(ToString::to_string))
        .bad_value(Exit::Nameserver),
        Param::option(G, "searchdomain", "NAME|inherit", "Domains it looks names up in", |v| {
            SearchDomains::parse(v).map(Change::Searchdomain)
        })
        .stored(&["SEARCHDOMAIN"], |s| s.searchdomain.as_ref().map(ToString::to_string))
        .bad_value(Exit::Searchdomain),
        Param::option(
            G,
            "netif_add",
            "IFNAME[,MAC,HOST_IFNAME,HOST_MAC,BRIDGE]",
            "Add a virtual Ethernet device",
            |v| Netif::parse_option(v).map(|n| Change::AddNetif(vec![n])),
        )
        .loaded(|v| Netif::parse_config(v).map(Change::AddNetif))
        .stored(&["NETIF"], |s| list(&s.netifs, ";")),
        Param::option(G, "netif_del", "IFNAME|all", "Take virtual Ethernet devices away", removed_netifs),
        Param::option(G, "netdev_add", "IFNAME", "Move a network device of the host into it", |v| {
            values::interface_list(v).map(Change::AddNetdev)
        })
        .stored(&["NETDEV"], |s| list(&s.netdevs, " ")),
        Param::option(G, "netdev_del", "IFNAME", "Move it back", |v| {
            values::interface_list(v).map(Change::RemoveNetdev)
        }),
    ]
}

fn bounds() -> Vec<Param> {
    let mut table: Vec<Param> = Resource::ALL.into_iter().map(bound).collect();
    let simple = |option, help, parse: fn(&str) -> Result<Bound, beancounters::bound::BadBound>| {
        Param::option(Group::Beancounters, option, "SIZE", help, move |v| {
            parse(v).map(Change::Bound).map_err(|bad| BadValue::new(v, format!("a size: {}", bad.source)))
        })
    };
    table.push(simple("ram", "Memory: physpages 0:SIZE", vswap::ram));
    table.push(simple("swap", "Swap space: swappages 0:SIZE", vswap::swap));
    let overcommit = |v: &str| {
        let factor = v.parse::<f64>().ok().filter(|f| f.is_finite() && *f >= 0.0 && *f <= 1_000_000.0);
        factor.map(Change::VmOvercommit).ok_or_else(|| BadValue::new(v, "a factor such as 1.5"))
    };
    table.push(
        Param::option(
            Group::Beancounters,
            "vm_overcommit",
            "FACTOR",
            "privvmpages as a multiple of memory and swap",
            overcommit,
        )
        .stored(&["VM_OVERCOMMIT"], |s| s.vm_overcommit.map(|f| f.to_string())),
    );
    table.push(
        Param::option(
            Group::Beancounters,
            "memguarantee",
            "auto|PERCENT",
            "How much of its RAM it keeps when the host runs short",
            |v| MemGuarantee::parse(v).map(Change::MemGuarantee),
        )
        .stored(&["MEMGUARANTEE"], |s| s.memguarantee.map(|guarantee| guarantee.to_string())),
    );
    table
}

fn bound(resource: Resource) -> Param {
    let parse = move |v: &str| {
        let expected = |bad: beancounters::bound::BadBound| format!("a barrier and a limit: {}", bad.source);
        Bound::parse(resource, v).map(Change::Bound).map_err(|bad| BadValue::new(v, expected(bad)))
    };
    let keys = match resource {
        // Spellings of vzctl 2.
        Resource::Dcachesize => &["DCACHESIZE", "DCACHE"],
        Resource::Numiptent => &["NUMIPTENT", "IPTENTRIES"],
        _ => KEYS[resource as usize].as_slice(),
    };
    let live = if resource.is_live() { Live::Now } else { Live::Stored };
    let param = Param::option(Group::Beancounters, resource.option(), "BAR[:LIM]", resource.describe(), parse)
        .stored(keys, move |s| s.bounds.get(resource).map(|b| b.to_string()))
        .live(live);
    Param { short: resource.short_option(), ..param }
}

/// The key of each resource as a list of one.
const KEYS: [[&str; 1]; Resource::ALL.len()] = {
    let mut keys = [[""]; Resource::ALL.len()];
    let mut at = 0;
    while at < keys.len() {
        keys[at] = [Resource::ALL[at].config_key()];
        at += 1;
    }
    keys
};

fn cpu_and_io() -> Vec<Param> {
    use Group::{Cpu, Io};
    let rate = |v: &str| match v {
        "unlimited" => Ok(Change::IopsLimit(0)),
        v => number_in(v, 0..=u64::from(u32::MAX)).map(Change::IopsLimit),
    };
    vec![
        Param::option(Cpu, "cpuunits", "N", "Its share of busy CPUs, 8 to 500000; others have 1000", |v| {
            number_in(v, 8..=500_000).map(Change::CpuUnits)
        })
        .stored(&["CPUUNITS"], |s| s.cpuunits.map(|n| n.to_string())),
        Param::option(Cpu, "cpuweight", "N", "The share as the kernel's own weight", |v| {
            number_in(v, 1..=500_000).map(Change::CpuWeight)
        })
        .stored(&["CPUWEIGHT", "CPUUWEIGHT"], |s| s.cpuweight.map(|n| n.to_string())),
        Param::option(
            Cpu,
            "cpulimit",
            "PERCENT[%]|MHZm",
            "At most so much of one CPU: 200 is two CPUs, 0 is no limit",
            |v| CpuLimit::parse(v).map(Change::CpuLimit),
        )
        .stored(&["CPULIMIT"], |s| s.cpulimit.map(|limit| limit.to_string())),
        Param::option(Cpu, "cpus", "N", "At most so many CPUs", |v| number_in(v, 1..=8192).map(Change::Cpus))
            .stored(&["CPUS"], |s| s.cpus.map(|n| n.to_string()))
            .loaded(|v| number_in(v, 0..=8192).map(Change::Cpus)),
        Param::option(Cpu, "cpumask", "LIST|all|auto", "The CPUs it runs on; auto takes those of nodemask", |v| {
            Mask::parse(v).map(Change::CpuMask)
        })
        .stored(&["CPUMASK"], |s| s.cpumask.as_ref().map(ToString::to_string)),
        Param::option(Cpu, "nodemask", "LIST|all", "The memory nodes it uses", |v| {
            Mask::parse_nodes(v).map(Change::NodeMask)
        })
        .stored(&["NODEMASK"], |s| s.nodemask.as_ref().map(ToString::to_string)),
        Param::option(Io, "ioprio", "0..7", "Its share of a busy disk; others have 4", |v| {
            number_in(v, 0..=7).map(Change::IoPrio)
        })
        .stored(&["IOPRIO"], |s| s.ioprio.map(|n| n.to_string())),
        Param::option(
            Io,
            "iolimit",
            "BYTES",
            "At most so much a second; M where no suffix is given, 0 is no limit",
            |v| io_limit(v, 1 << 20),
        )
        .stored(&["IOLIMIT"], |s| s.iolimit_bytes_s.map(|n| n.to_string()))
        .loaded(|v| io_limit(v, 1)),
        Param::option(Io, "iopslimit", "N", "At most so many operations a second, 0 is no limit", rate)
            .stored(&["IOPSLIMIT"], |s| s.iopslimit.map(|n| n.to_string())),
    ]
}

/// Bytes a second up to `INT_MAX`, the most the original took. `unit` is what a number without a suffix counts.
fn io_limit(value: &str, unit: u64) -> Result<Change, BadValue> {
    let bad = |why: String| BadValue::new(value, format!("a number of bytes a second: {why}"));
    if value == "unlimited" {
        return Ok(Change::IoLimit { bytes_s: 0 });
    }
    let plain = value.bytes().last().is_some_and(|b| b.is_ascii_digit());
    let count = beancounters::amount::parse_count(value, Some(1)).map_err(|e| bad(e.to_string()))?;
    let bytes_s = count.saturating_mul(if plain { unit } else { 1 });
    if bytes_s > i32::MAX as u64 {
        Err(bad("it is more than 2 GB".to_owned()))
    } else {
        Ok(Change::IoLimit { bytes_s })
    }
}

fn disk() -> Vec<Param> {
    use Group::Disk as G;
    let limit = |v: &str, e: quota::limits::ParseError| BadValue::new(v, format!("a soft and a hard limit: {e}"));
    vec![
        Param::option(G, "diskspace", "SOFT[:HARD]", "Disk space; KiB where no suffix is given", move |v| {
            quota::limits::parse_space_kib(v).map(Change::DiskSpace).map_err(|e| limit(v, e))
        })
        .stored(&["DISKSPACE"], |s| s.diskspace_kib.map(|l| l.to_string()))
        .at_create(),
        Param::option(G, "diskinodes", "SOFT[:HARD]", "Number of files and directories", move |v| {
            quota::limits::parse_inodes(v).map(Change::DiskInodes).map_err(|e| limit(v, e))
        })
        .stored(&["DISKINODES"], |s| s.diskinodes.map(|l| l.to_string()))
        .at_create(),
        Param::option(G, "quotatime", "SECONDS", "How long a soft limit may stay exceeded", |v| {
            whole_number(v).map(Change::QuotaTime)
        })
        .stored(&["QUOTATIME"], |s| s.quotatime_s.map(|n| n.to_string())),
        Param::option(
            G,
            "quotaugidlimit",
            "N",
            "How many users and groups inside have quotas of their own; 0 is none",
            |v| number_in(v, 0..=u64::from(u32::MAX)).map(Change::QuotaUgidLimit),
        )
        .stored(&["QUOTAUGIDLIMIT"], |s| s.quotaugidlimit.map(|n| n.to_string()))
        .at_create()
        .live(Live::Restart),
        Param::option(G, "diskquota", "yes|no", "Whether disk limits are in force", |v| {
            yes_no(v).map(Change::DiskQuota)
        })
        .stored(&["DISK_QUOTA"], |s| s.diskquota.map(yes_no_text))
        .live(Live::Restart),
    ]
}

fn access() -> Vec<Param> {
    use Group::Access as G;
    let features = |s: &Settings| {
        let switches = s.features.iter().map(|(f, on)| format!("{}:{}", f.name(), if *on { "on" } else { "off" }));
        list(&switches.collect::<Vec<_>>(), " ")
    };
    vec![
        Param::option(G, "capability", "NAME:on|off", "Grant or withdraw a capability", |v| {
            CapabilitySwitch::parse_list(v).map(Change::Capabilities)
        })
        .stored(&["CAPABILITY"], |s| list(&s.capabilities, " "))
        .live(Live::Restart),
        Param::option(G, "devices", "b|c:MAJOR:MINOR|all:r|w|rw|none[:q]", "Grant devices by number", |v| {
            DeviceRule::parse_list(v).map(Change::Devices)
        })
        .stored(&["DEVICES"], |s| list(&s.devices, " ")),
        Param::option(G, "devnodes", "NAME:r|w|rw|none", "Grant a device by its name below /dev", |v| {
            DevNode::parse_list(v).map(Change::DevNodes)
        })
        .stored(&["DEVNODES"], |s| list(&s.devnodes, " ")),
        Param::option(G, "pci_add", "[DOMAIN:]BUS:SLOT.FUNC", "Grant a PCI device", |v| {
            values::pci_list(v).map(Change::AddPci)
        })
        .stored(&["PCI"], |s| list(&s.pci, " ")),
        Param::option(G, "pci_del", "[DOMAIN:]BUS:SLOT.FUNC", "Take it away", |v| {
            values::pci_list(v).map(Change::RemovePci)
        }),
        Param::option(
            G,
            "features",
            "NAME:on|off[,…]",
            &format!("Switch {}", values::joined(Feature::all().map(Feature::name), ", ")),
            |v| Feature::parse_list(v).map(Change::Features),
        )
        .stored(&["FEATURES"], features)
        .live(Live::Restart),
        Param::option(G, "meminfo", "none|pages:N|privvmpages:N", "How much memory it sees", |v| {
            Meminfo::parse(v).map(Change::Meminfo)
        })
        .stored(&["MEMINFO"], |s| s.meminfo.map(|m| m.to_string())),
        Param::option(G, "iptables", "NAME…", "Old form of netfilter: names of modules", |v| {
            values::module_names(v).map(Change::Iptables)
        })
        .stored(&["IPTABLES"], |s| list(&s.iptables, " "))
        .live(Live::Restart),
        Param::option(G, "netfilter", "disabled|stateless|stateful|full", "Which packet filters it may use", |v| {
            Netfilter::parse(v).map(Change::Netfilter)
        })
        .stored(&["NETFILTER"], |s| s.netfilter.map(|n| n.name().to_owned()))
        .live(Live::Restart),
    ]
}

fn list<T: std::fmt::Display>(items: &[T], separator: &str) -> Option<String> {
    (!items.is_empty()).then(|| joined(items, separator))
}

fn id(value: &str) -> Result<u32, BadValue> {
    let range = 0..=u64::from(u32::MAX - 1);
    number_in(value, range).and_then(|n| u32::try_from(n).map_err(|_| BadValue::new(value, "a user or group number")))
}

/// `user:password`. The password may hold anything but a line end: it never meets a file of ours or a shell.
fn user_password(value: &str) -> Result<Change, BadValue> {
    // The value is not repeated in the error: it may be a password with its user forgotten.
    let bad =
        || BadValue::new("…", "USER:PASSWORD with a user of letters, digits and - _ . and a password of one line");
    let (user, password) = value.split_once(':').ok_or_else(bad)?;
    let user_good = (1..=32).contains(&user.len())
        && !user.starts_with('-')
        && user.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if !user_good || password.is_empty() || password.len() > 512 || password.contains(['\n', '\r', '\0']) {
        return Err(bad());
    }
    Ok(Change::UserPassword { user: user.to_owned(), password: Password::new(password) })
}

#[cfg(test)]
mod tests;
