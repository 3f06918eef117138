//! The fields of the list: their names, headers and widths, and what each shows of a container.

use std::cmp::Ordering;
use std::fmt::Write;

use beancounters::amount::UNLIMITED;
use beancounters::{Bound, Resource, vswap};
use quota::{Limit, SoftHard};
use vzrt::net::Address;

use super::facts::{Facts, Status, Wanted};
use crate::config::values::{Dns, SearchDomains};
use crate::decide;

/// What a field shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shows {
    Ctid,
    Private,
    Root,
    MountOpts,
    OriginSample,
    Hostname,
    Name,
    SmartName,
    Description,
    OsTemplate,
    Ip,
    Nameserver,
    Searchdomain,
    Status,
    Counter(Resource, Part),
    Space(QuotaPart),
    Inodes(QuotaPart),
    Laverage,
    Uptime,
    CpuLimit,
    CpuUnits,
    Cpus,
    IoPrio,
    IoLimit,
    IopsLimit,
    OnBoot,
    BootOrder,
    Layout,
    Features,
    Vswap,
    Disabled,
    VmOvercommit,
    Netfilter,
    Capability,
}

/// Which number of a counter. The whole of it is `held` in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    Maxheld,
    Barrier,
    Limit,
    Failcnt,
}

/// Which number of a quota. The whole of it is what is used, in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum QuotaPart {
    Whole,
    Soft,
    Hard,
}

/// One column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The name, in lower case.
    pub name: String,
    /// The column's title.
    pub header: String,
    /// Columns it takes; a negative width stands to the left.
    pub(super) width: isize,
    shows: Shows,
}

/// Name, title, width and meaning, in the order of vzctl 4 (`vzlist.c`); the counters stand behind `status`, the quotas before `laverage`.
const PLAIN: [(&str, &str, isize, Shows); 34] = [
    ("ctid", "CTID", 10, Shows::Ctid),
    ("veid", "CTID", 10, Shows::Ctid),
    ("vpsid", "CTID", 10, Shows::Ctid),
    ("private", "PRIVATE", -32, Shows::Private),
    ("root", "ROOT", -32, Shows::Root),
    ("mount_opts", "MOUNT_OPTS", -16, Shows::MountOpts),
    ("origin_sample", "ORIGIN_SAMPLE", 32, Shows::OriginSample),
    ("hostname", "HOSTNAME", -32, Shows::Hostname),
    ("name", "NAME", -32, Shows::Name),
    ("smart_name", "SMARTNAME", 10, Shows::SmartName),
    ("description", "DESCRIPTION", -32, Shows::Description),
    ("ostemplate", "OSTEMPLATE", -32, Shows::OsTemplate),
    ("ip", "IP_ADDR", -15, Shows::Ip),
    ("nameserver", "NAMESERVER", -15, Shows::Nameserver),
    ("searchdomain", "SEARCHDOMAIN", -15, Shows::Searchdomain),
    ("status", "STATUS", -9, Shows::Status),
    ("laverage", "LAVERAGE", 14, Shows::Laverage),
    ("uptime", "UPTIME", 15, Shows::Uptime),
    ("cpulimit", "CPULIM", 7, Shows::CpuLimit),
    ("cpuunits", "CPUUNI", 7, Shows::CpuUnits),
    ("cpus", "CPUS", 5, Shows::Cpus),
    ("ioprio", "IOP", 3, Shows::IoPrio),
    ("iolimit", "IOLIMIT", 10, Shows::IoLimit),
    ("iopslimit", "IOPS", 4, Shows::IopsLimit),
    ("onboot", "ONBOOT", 6, Shows::OnBoot),
    ("bootorder", "BOOTORDER", 10, Shows::BootOrder),
    ("layout", "LAYOUT", -6, Shows::Layout),
    ("features", "FEATURES", -15, Shows::Features),
    ("vswap", "VSWAP", 5, Shows::Vswap),
    ("disabled", "DISABL", 6, Shows::Disabled),
    ("vm_overcommit", "VM_OVC", 6, Shows::VmOvercommit),
    ("netfilter", "NETFILTER", -9, Shows::Netfilter),
    ("capability", "CAPABILITY", -15, Shows::Capability),
    ("cap", "CAPABILITY", -15, Shows::Capability),
];

const PARTS: [(&str, Part); 5] =
    [("", Part::Whole), (".m", Part::Maxheld), (".b", Part::Barrier), (".l", Part::Limit), (".f", Part::Failcnt)];

const QUOTA_PARTS: [(&str, QuotaPart); 3] = [("", QuotaPart::Whole), (".s", QuotaPart::Soft), (".h", QuotaPart::Hard)];

/// Every field, in order.
fn all() -> Vec<Field> {
    let plain = |(name, header, width, shows): &(&str, &str, isize, Shows)| Field {
        name: (*name).to_owned(),
        header: (*header).to_owned(),
        width: *width,
        shows: *shows,
    };
    let before = PLAIN.iter().position(|(name, ..)| *name == "laverage").expect("it is in the table");
    let mut fields: Vec<Field> = PLAIN[..before].iter().map(plain).collect();
    for resource in Resource::LIVE {
        fields.extend(PARTS.map(|(suffix, part)| {
            with_suffix(resource.name(), resource.header(), suffix, Shows::Counter(resource, part))
        }));
    }
    fields.extend(QUOTA_PARTS.map(|(suffix, part)| with_suffix("diskspace", "DSPACE", suffix, Shows::Space(part))));
    fields.extend(QUOTA_PARTS.map(|(suffix, part)| with_suffix("diskinodes", "DINODES", suffix, Shows::Inodes(part))));
    fields.extend(PLAIN[before..].iter().filter(|(name, ..)| *name != "cap").map(plain));
    fields
}

fn with_suffix(name: &str, header: &str, suffix: &str, shows: Shows) -> Field {
    Field {
        name: format!("{name}{suffix}"),
        header: format!("{header}{}", suffix.to_ascii_uppercase()),
        width: 10,
        shows,
    }
}

/// What `vzlist -L` prints.
pub(super) fn listing() -> String {
    let mut text = String::new();
    for field in all() {
        writeln!(text, "{:<15} {}", field.name, field.header).expect("a String takes everything");
    }
    text
}

/// One number of a counter or all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CounterCell {
    /// What the container has now, if it can be counted.
    pub held: Option<u64>,
    /// The most it had.
    pub maxheld: Option<u64>,
    /// As configured.
    pub barrier: u64,
    /// As configured.
    pub limit: u64,
    /// How often it was refused more.
    pub failcnt: Option<u64>,
    /// It does not run. It holds nothing then, which is known; of a running one what cannot be counted is not.
    pub stopped: bool,
}

/// What is used, and the two limits; of each what is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaCell {
    /// What is used.
    pub usage: Option<u64>,
    /// As configured.
    pub soft: Option<u64>,
    /// As configured.
    pub hard: Option<u64>,
}

/// What one field says about one container.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Words, if any.
    Text(Option<String>),
    /// Several words.
    List(Vec<String>),
    /// Addresses: words that sort as numbers.
    Addresses(Vec<Address>),
    /// A number, if it is known.
    Number(Option<u64>),
    /// A limit that is zero where there is none.
    Setting(Option<u64>),
    /// A fraction.
    Factor(Option<f64>),
    /// Yes or no.
    Switch(Option<bool>),
    /// A whole counter.
    Counter(Option<CounterCell>),
    /// A whole quota.
    Quota(QuotaCell),
    /// Averages over 1, 5 and 15 minutes.
    Load(Option<[f64; 3]>),
    /// Seconds since init was started.
    Uptime(Option<f64>),
}

impl Field {
    /// The field of a name, in any case.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        all().into_iter().find(|field| field.name == name)
    }

    /// What `vzlist -j` prints without `-o`: every field that is not a part of another.
    pub(super) fn whole() -> Vec<Self> {
        all().into_iter().filter(|field| !field.name.contains('.')).collect()
    }

    /// Whether a value too long for the column may be cut.
    pub(super) fn is_text(&self) -> bool {
        self.width < 0 || matches!(self.shows, Shows::OriginSample | Shows::SmartName)
    }

    /// Whether it tells of a beancounter.
    pub(super) fn is_counter(&self) -> bool {
        matches!(self.shows, Shows::Counter(..))
    }

    /// Notes what has to be found out for it.
    pub(super) fn wants(&self, wanted: &mut Wanted) {
        match self.shows {
            Shows::Ctid => {}
            Shows::Private => wanted.key("VE_PRIVATE"),
            Shows::Root => wanted.key("VE_ROOT"),
            Shows::MountOpts => wanted.key("MOUNT_OPTS"),
            Shows::OriginSample => wanted.key("ORIGIN_SAMPLE"),
            Shows::Hostname => wanted.key("HOSTNAME"),
            Shows::Name | Shows::SmartName => wanted.key("NAME"),
            Shows::Description => wanted.key("DESCRIPTION"),
            Shows::OsTemplate => wanted.key("OSTEMPLATE"),
            Shows::Ip => wanted.key("IP_ADDRESS"),
            Shows::Nameserver => wanted.key("NAMESERVER"),
            Shows::Searchdomain => wanted.key("SEARCHDOMAIN"),
            Shows::Status => wanted.suspended = true,
            Shows::Counter(resource, part) => {
                if matches!(part, Part::Whole | Part::Barrier | Part::Limit) {
                    wanted.bounds |= part != Part::Whole;
                    wanted.key(resource.config_key());
                    // What is not set may follow from these.
                    ["PHYSPAGES", "SWAPPAGES", "VM_OVERCOMMIT"].into_iter().for_each(|key| wanted.key(key));
                }
                if !matches!(part, Part::Barrier | Part::Limit) {
                    wanted.resource(resource);
                }
            }
            // Whether the limits of the configuration are those in force is seen from all of them.
            Shows::Space(_) | Shows::Inodes(_) => {
                ["DISKSPACE", "DISKINODES", "QUOTATIME", "VE_PRIVATE", "VE_LAYOUT"]
                    .into_iter()
                    .for_each(|key| wanted.key(key));
                wanted.disk = true;
            }
            Shows::Laverage => wanted.load = true,
            Shows::Uptime => wanted.uptime = true,
            Shows::CpuLimit => wanted.key("CPULIMIT"),
            Shows::CpuUnits => wanted.key("CPUUNITS"),
            Shows::Cpus => wanted.key("CPUS"),
            Shows::IoPrio => wanted.key("IOPRIO"),
            Shows::IoLimit => wanted.key("IOLIMIT"),
            Shows::IopsLimit => wanted.key("IOPSLIMIT"),
            Shows::OnBoot => wanted.key("ONBOOT"),
            Shows::BootOrder => wanted.key("BOOTORDER"),
            Shows::Layout => wanted.key("VE_LAYOUT"),
            Shows::Features => wanted.key("FEATURES"),
            Shows::Vswap => wanted.key("PHYSPAGES"),
            Shows::Disabled => wanted.key("DISABLED"),
            Shows::VmOvercommit => wanted.key("VM_OVERCOMMIT"),
            Shows::Netfilter => wanted.key("NETFILTER"),
            Shows::Capability => wanted.key("CAPABILITY"),
        }
    }

    /// What it says about a container.
    #[must_use]
    pub fn cell(&self, facts: &Facts) -> Cell {
        let settings = &facts.settings;
        let text = |value: &Option<String>| Cell::Text(value.clone());
        let words = |list: Vec<String>, separator: &str| Cell::Text((!list.is_empty()).then(|| list.join(separator)));
        match self.shows {
            Shows::Ctid => Cell::Number(Some(u64::from(facts.ctid.get()))),
            Shows::Private => Cell::Text(Some(facts.private.clone())),
            Shows::Root => Cell::Text(Some(facts.root.clone())),
            Shows::MountOpts => words(settings.mount_opts.clone(), ","),
            Shows::OriginSample => text(&settings.origin_sample),
            Shows::Hostname => text(&settings.hostname),
            Shows::Name => text(&settings.name),
            Shows::SmartName => Cell::Text(Some(settings.name.clone().unwrap_or_else(|| facts.ctid.to_string()))),
            Shows::Description => text(&settings.description),
            Shows::OsTemplate => text(&settings.ostemplate),
            Shows::Ip => Cell::Addresses(settings.addresses.clone()),
            Shows::Nameserver => Cell::List(match &settings.nameserver {
                None => Vec::new(),
                Some(Dns::Inherit) => vec!["inherit".to_owned()],
                Some(Dns::Servers(servers)) => servers.iter().map(ToString::to_string).collect(),
            }),
            Shows::Searchdomain => Cell::List(match &settings.searchdomain {
                None => Vec::new(),
                Some(SearchDomains::Inherit) => vec!["inherit".to_owned()],
                Some(SearchDomains::Names(names)) => names.clone(),
            }),
            Shows::Status => Cell::Text(Some(facts.status.name().to_owned())),
            Shows::Counter(resource, part) => counter_cell(facts, resource, part),
            Shows::Space(part) => {
                let other = facts.disk.and_then(|d| d.in_force).map(|(space_kib, _)| space_kib);
                quota_cell(other.or(settings.diskspace_kib), facts.disk.map(|d| d.space_kib), part)
            }
            Shows::Inodes(part) => {
                let other = facts.disk.and_then(|d| d.in_force).map(|(_, inodes)| inodes);
                quota_cell(other.or(settings.diskinodes), facts.disk.map(|d| d.inodes), part)
            }
            Shows::Laverage => Cell::Load(facts.load),
            Shows::Uptime => Cell::Uptime(facts.uptime_s),
            Shows::CpuLimit => Cell::Setting(settings.cpulimit.and_then(|limit| decide::cpulimit_percent(limit).ok())),
            Shows::CpuUnits => Cell::Setting(settings.cpuunits),
            Shows::Cpus => Cell::Setting(settings.cpus),
            Shows::IoPrio => Cell::Setting(settings.ioprio),
            Shows::IoLimit => Cell::Setting(settings.iolimit_bytes_s),
            Shows::IopsLimit => Cell::Setting(settings.iopslimit),
            Shows::OnBoot => Cell::Switch(settings.onboot),
            Shows::BootOrder => Cell::Number(settings.bootorder),
            Shows::Layout => Cell::Text(Some(settings.layout.map_or("simfs", |l| l.name()).to_owned())),
            Shows::Features => {
                let switch = |(f, on): (&crate::config::values::Feature, &bool)| {
                    format!("{}:{}", f.name(), if *on { "on" } else { "off" })
                };
                words(settings.features.iter().map(switch).collect(), ",")
            }
            Shows::Vswap => Cell::Switch(Some(vswap::is_vswap(&settings.bounds))),
            Shows::Disabled => Cell::Switch(Some(settings.disabled.unwrap_or(false))),
            Shows::VmOvercommit => Cell::Factor(settings.vm_overcommit),
            Shows::Netfilter => Cell::Text(settings.netfilter.map(|n| n.name().to_owned())),
            Shows::Capability => words(settings.capabilities.iter().map(ToString::to_string).collect(), ","),
        }
    }
}

/// A running container has every bound, in force whatever its file says now; of a stopped one only what its file says is known.
fn bound_of(facts: &Facts, resource: Resource) -> Option<Bound> {
    if let Some(bounds) = &facts.bounds {
        return bounds.get(resource);
    }
    let settings = &facts.settings;
    let derived = || vswap::fill(&settings.bounds, settings.vm_overcommit).ok().and_then(|set| set.get(resource));
    let set = settings.bounds.get(resource).or_else(derived);
    let none = || Bound::kernel_default(resource, 0);
    set.or_else(|| (facts.status == Status::Running).then(none))
}

fn counter_cell(facts: &Facts, resource: Resource, part: Part) -> Cell {
    let bound = bound_of(facts, resource);
    let usage = facts.usage.get(&resource);
    let count = |amount: Option<beancounters::Amount>| amount.map(beancounters::Amount::count);
    let (held, maxheld) = (usage.and_then(|u| count(u.held)), usage.and_then(|u| count(u.maxheld)));
    let failcnt = usage.and_then(|u| u.failcnt);
    let (barrier, limit) = (bound.map(|b| b.barrier().count()), bound.map(|b| b.limit().count()));
    match part {
        Part::Maxheld => Cell::Number(maxheld),
        Part::Barrier => Cell::Number(barrier),
        Part::Limit => Cell::Number(limit),
        Part::Failcnt => Cell::Number(failcnt),
        Part::Whole => Cell::Counter(barrier.zip(limit).map(|(barrier, limit)| {
            let stopped = facts.status != Status::Running;
            CounterCell { held, maxheld, barrier, limit, failcnt, stopped }
        })),
    }
}

fn quota_cell(limits: Option<SoftHard>, usage: Option<u64>, part: QuotaPart) -> Cell {
    let number = |limit: Limit| match limit {
        Limit::Of(n) => n,
        Limit::Unlimited => UNLIMITED,
    };
    let (soft, hard) = (limits.map(|l| number(l.soft)), limits.map(|l| number(l.hard)));
    match part {
        QuotaPart::Whole => Cell::Quota(QuotaCell { usage, soft, hard }),
        QuotaPart::Soft => Cell::Number(soft),
        QuotaPart::Hard => Cell::Number(hard),
    }
}

impl Cell {
    /// The order of two cells of one field: numbers as numbers, what is not known first.
    pub(super) fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::List(a), Self::List(b)) => a.cmp(b),
            (Self::Addresses(a), Self::Addresses(b)) => a.cmp(b),
            (Self::Number(a) | Self::Setting(a), Self::Number(b) | Self::Setting(b)) => a.cmp(b),
            (Self::Switch(a), Self::Switch(b)) => a.cmp(b),
            (Self::Counter(a), Self::Counter(b)) => a.map(|c| c.held).cmp(&b.map(|c| c.held)),
            (Self::Quota(a), Self::Quota(b)) => a.usage.cmp(&b.usage),
            (Self::Factor(a) | Self::Uptime(a), Self::Factor(b) | Self::Uptime(b)) => {
                a.unwrap_or(-1.0).total_cmp(&b.unwrap_or(-1.0))
            }
            (Self::Load(a), Self::Load(b)) => a.map_or(-1.0, |l| l[0]).total_cmp(&b.map_or(-1.0, |l| l[0])),
            // Cells of one field are of one kind.
            _ => Ordering::Equal,
        }
    }
}
