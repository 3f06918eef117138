//! The kinds of values that configurations and command lines share, each with the one way it is read and written.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use vzrt::policy;

use super::document::{check_path_value, check_value};

pub use parts::{CpuLimit, MemGuarantee};
pub use vzrt::net::Address;

mod devices;
mod network;
mod parts;

pub(crate) use devices::pci_list;
pub use devices::{DevNode, DeviceAccess, DeviceRule};
pub use network::{Mac, Netif};

/// A text that does not say what its parameter needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not {expected}")]
pub struct BadValue {
    /// The text.
    pub value: String,
    /// What was expected, as the end of the sentence.
    pub expected: Cow<'static, str>,
}

impl BadValue {
    pub(crate) fn new(value: &str, expected: impl Into<Cow<'static, str>>) -> Self {
        Self { value: value.to_owned(), expected: expected.into() }
    }
}

/// Splits a value that may hold several: blanks, and commas where the values have none themselves.
fn words(value: &str) -> impl Iterator<Item = &str> {
    value.split([' ', '\t', ',']).filter(|w| !w.is_empty())
}

/// `yes` or `no`; `on`, `off`, `1` and `0` are what people also write.
pub(crate) fn yes_no(value: &str) -> Result<bool, BadValue> {
    match value {
        "yes" | "on" | "1" => Ok(true),
        "no" | "off" | "0" => Ok(false),
        other => Err(BadValue::new(other, "yes or no")),
    }
}

pub(crate) fn yes_no_text(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

fn on_off(value: &str) -> Result<bool, BadValue> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        other => Err(BadValue::new(other, "on or off")),
    }
}

fn on_off_text(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// Digits only: `parse` alone would take a `+`.
pub(crate) fn whole_number(value: &str) -> Result<u64, BadValue> {
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    value.parse().ok().filter(|_| digits).ok_or_else(|| BadValue::new(value, "a whole number"))
}

pub(crate) fn number_in(value: &str, range: std::ops::RangeInclusive<u64>) -> Result<u64, BadValue> {
    let expected = || format!("a whole number from {} to {}", range.start(), range.end());
    whole_number(value).ok().filter(|n| range.contains(n)).ok_or_else(|| BadValue::new(value, expected()))
}

/// One line of text for people.
pub(crate) fn text(value: &str) -> Result<String, BadValue> {
    check_value(value).map_err(|bad| BadValue::new(value, format!("usable text: {bad}")))?;
    Ok(value.to_owned())
}

/// An absolute path of the host, in which `$VEID` may stand for the number.
pub(crate) fn host_path(value: &str) -> Result<String, BadValue> {
    check_path_value(value).map_err(|bad| BadValue::new(value, format!("a usable path: {bad}")))?;
    let climbs = value.split('/').any(|part| part == "..");
    if !value.starts_with('/') || climbs || value.trim_end_matches('/').is_empty() {
        return Err(BadValue::new(value, "an absolute path without .. below /"));
    }
    Ok(value.to_owned())
}

/// A plain file name: of a sample configuration, of a template (which may have begun with a dot in old configurations).
pub(crate) fn file_name(value: &str) -> Result<String, BadValue> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-+_.".contains(c);
    if value.is_empty()
        || value.len() > 255
        || value.starts_with('-')
        || value.contains("..")
        || !value.chars().all(good)
    {
        return Err(BadValue::new(value, "a plain name of letters, digits and - + _ ."));
    }
    Ok(value.to_owned())
}

/// A host name: labels of letters, digits, `-` and (seen in the field) `_`, 64 bytes of it being what `sethostname` takes.
pub(crate) fn hostname(value: &str) -> Result<String, BadValue> {
    if domain_labels(value) && value.len() <= 64 {
        return Ok(value.to_owned());
    }
    Err(BadValue::new(value, "a host name: up to 64 letters, digits, - and . between labels"))
}

fn domain_labels(value: &str) -> bool {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && !l.starts_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    value.strip_suffix('.').unwrap_or(value).split('.').all(label)
}

/// The kernel's rule (`dev_valid_name`), and no character that means something to a shell or to our own lists.
pub(crate) fn interface_name(value: &str) -> Result<String, BadValue> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-_.@+".contains(&b);
    if (1..=15).contains(&value.len())
        && !matches!(value, "." | "..")
        && !value.starts_with('-')
        && value.bytes().all(good)
    {
        return Ok(value.to_owned());
    }
    Err(BadValue::new(value, "an interface name of up to 15 letters, digits and - _ . @ +"))
}

/// `--ipadd` and `IP_ADDRESS`: any number of addresses. `0.0.0.0` stood for "none" in old configurations.
pub(crate) fn addresses(value: &str) -> Result<Vec<Address>, BadValue> {
    let one = |w: &str| w.parse().map_err(|_| BadValue::new(w, "an address with or without /MASK"));
    words(value).filter(|w| *w != "0.0.0.0").map(one).collect()
}

/// What the private area is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A directory.
    Simfs,
    /// An image file.
    Ploop(ImageMode),
}

/// How the space of an image file is taken from the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageMode {
    /// As it is used.
    Expanded,
    /// All at once.
    Plain,
    /// All at once, and without a header of ploop's own.
    Raw,
}

impl Layout {
    pub(crate) fn parse(value: &str) -> Result<Self, BadValue> {
        match value {
            "simfs" => Ok(Self::Simfs),
            "ploop" | "ploop:expanded" => Ok(Self::Ploop(ImageMode::Expanded)),
            "ploop:plain" => Ok(Self::Ploop(ImageMode::Plain)),
            "ploop:raw" => Ok(Self::Ploop(ImageMode::Raw)),
            other => Err(BadValue::new(other, "simfs or ploop[:expanded|plain|raw]")),
        }
    }

    /// What `VE_LAYOUT` of a container says. The way of an image that takes its space at once has to be kept: what is free in it is not to be
    /// given back.
    pub(crate) fn stored(self) -> &'static str {
        match self {
            Self::Simfs => "simfs",
            Self::Ploop(ImageMode::Expanded) => "ploop",
            Self::Ploop(ImageMode::Plain) => "ploop:plain",
            Self::Ploop(ImageMode::Raw) => "ploop:raw",
        }
    }

    /// The word that `vzlist` has for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Simfs => "simfs",
            Self::Ploop(_) => "ploop",
        }
    }
}

/// `NAMESERVER`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dns {
    /// Those of the host.
    Inherit,
    /// These.
    Servers(Vec<IpAddr>),
}

impl Dns {
    pub(crate) fn parse(value: &str) -> Result<Self, BadValue> {
        if value == "inherit" {
            return Ok(Self::Inherit);
        }
        let server = |w: &str| w.parse().map_err(|_| BadValue::new(w, "the address of a name server"));
        Ok(Self::Servers(words(value).map(server).collect::<Result<_, _>>()?))
    }
}

impl fmt::Display for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inherit => f.write_str("inherit"),
            Self::Servers(servers) => f.write_str(&joined(servers, " ")),
        }
    }
}

/// `SEARCHDOMAIN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SearchDomains {
    /// Those of the host.
    Inherit,
    /// These.
    Names(Vec<String>),
}

impl SearchDomains {
    pub(crate) fn parse(value: &str) -> Result<Self, BadValue> {
        if value == "inherit" {
            return Ok(Self::Inherit);
        }
        let domain = |w: &str| {
            // A lone dot is the root: "search nothing".
            let good = w == "." || (domain_labels(w) && w.len() <= 253);
            if good { Ok(w.to_owned()) } else { Err(BadValue::new(w, "a domain name")) }
        };
        Ok(Self::Names(words(value).map(domain).collect::<Result<_, _>>()?))
    }
}

impl fmt::Display for SearchDomains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inherit => f.write_str("inherit"),
            Self::Names(names) => f.write_str(&names.join(" ")),
        }
    }
}

pub(crate) fn joined<T: fmt::Display>(items: impl IntoIterator<Item = T>, separator: &str) -> String {
    items.into_iter().map(|i| i.to_string()).collect::<Vec<_>>().join(separator)
}

/// Whether a capability is added to, or taken from, those a container has by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapabilitySwitch {
    /// The name in capitals, without `CAP_`.
    pub name: String,
    /// Added or taken.
    pub on: bool,
}

/// capabilities(7) up to Linux 5.9, in order of number, and OpenVZ's own `VE_ADMIN`.
const CAPABILITIES: &str = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE \
    NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT \
    SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP \
    MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE VE_ADMIN";

impl CapabilitySwitch {
    pub(crate) fn parse_list(value: &str) -> Result<Vec<Self>, BadValue> {
        words(value).map(Self::parse).collect()
    }

    fn parse(word: &str) -> Result<Self, BadValue> {
        let bad = || BadValue::new(word, "a capability and on or off, as in NET_ADMIN:on");
        let (name, switch) = word.split_once(':').ok_or_else(bad)?;
        let name = name.to_ascii_uppercase();
        let name = name.strip_prefix("CAP_").unwrap_or(&name);
        if !CAPABILITIES.split(' ').any(|known| known == name) {
            return Err(bad());
        }
        Ok(Self { name: name.to_owned(), on: on_off(switch).map_err(|_| bad())? })
    }
}

impl fmt::Display for CapabilitySwitch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, on_off_text(self.on))
    }
}

/// What `--features` switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// `/sys` is mounted inside.
    Sysfs,
    /// File systems of NFS servers may be mounted.
    Nfs,
    /// IPv6 in IPv4 tunnels.
    Sit,
    /// IPv4 in IPv4 tunnels.
    Ipip,
    /// PPP devices.
    Ppp,
    /// GRE tunnels.
    Ipgre,
    /// Ethernet bridges.
    Bridge,
    /// An NFS server.
    Nfsd,
    /// A door in the system call filter: ours, OpenVZ had no filter.
    Door(policy::Feature),
}

impl Feature {
    /// Those of vzctl 4, in the order of its table.
    const ORIGINAL: [Self; 8] =
        [Self::Sysfs, Self::Nfs, Self::Sit, Self::Ipip, Self::Ppp, Self::Ipgre, Self::Bridge, Self::Nfsd];

    /// All of them: vzctl 4's, then ours.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::ORIGINAL.into_iter().chain(policy::Feature::ALL.into_iter().map(Self::Door))
    }

    /// Whether it changes anything here. Those of OpenVZ were about devices and modules of the host.
    #[must_use]
    pub fn is_door(self) -> bool {
        matches!(self, Self::Door(_))
    }

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sysfs => "sysfs",
            Self::Nfs => "nfs",
            Self::Sit => "sit",
            Self::Ipip => "ipip",
            Self::Ppp => "ppp",
            Self::Ipgre => "ipgre",
            Self::Bridge => "bridge",
            Self::Nfsd => "nfsd",
            Self::Door(door) => door.name(),
        }
    }

    pub(crate) fn parse_list(value: &str) -> Result<Vec<(Self, bool)>, BadValue> {
        let one = |word: &str| {
            let expected = || {
                format!(
                    "a feature and on or off, as in nfs:on; there are {}",
                    joined(Self::all().map(Self::name), ", ")
                )
            };
            let bad = || BadValue::new(word, expected());
            let (name, switch) = word.split_once(':').ok_or_else(bad)?;
            let feature = Self::all().find(|f| f.name() == name).ok_or_else(bad)?;
            Ok((feature, on_off(switch).map_err(|_| bad())?))
        };
        words(value).map(one).collect()
    }
}

/// Which packet filters a container may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Netfilter {
    /// None.
    Disabled,
    /// Without connection tracking.
    Stateless,
    /// With connection tracking, without NAT.
    Stateful,
    /// All.
    Full,
}

impl Netfilter {
    pub(crate) fn parse(value: &str) -> Result<Self, BadValue> {
        [Self::Disabled, Self::Stateless, Self::Stateful, Self::Full]
            .into_iter()
            .find(|n| n.name() == value)
            .ok_or_else(|| BadValue::new(value, "disabled, stateless, stateful or full"))
    }

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Stateless => "stateless",
            Self::Stateful => "stateful",
            Self::Full => "full",
        }
    }
}

/// What `MemTotal` inside is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meminfo {
    /// The host's truth.
    None,
    /// So many pages.
    Pages(u64),
    /// So many times privvmpages.
    Privvmpages(u64),
}

impl Meminfo {
    pub(crate) fn parse(value: &str) -> Result<Self, BadValue> {
        let bad = || BadValue::new(value, "none, pages:N or privvmpages:N");
        match value.split_once(':') {
            None if value == "none" => Ok(Self::None),
            Some(("pages", n)) => whole_number(n).map(Self::Pages).map_err(|_| bad()),
            Some(("privvmpages", n)) => whole_number(n).map(Self::Privvmpages).map_err(|_| bad()),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Meminfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Pages(n) => write!(f, "pages:{n}"),
            Self::Privvmpages(n) => write!(f, "privvmpages:{n}"),
        }
    }
}

/// A set of CPUs or memory nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mask {
    /// All there are.
    All,
    /// Those near the memory nodes of `NODEMASK`; only for `CPUMASK`.
    Auto,
    /// These ranges, ascending and apart.
    Only(Vec<(u32, u32)>),
}

impl Mask {
    /// `all`, `auto`, or a list as `/sys/devices/system/cpu/online` writes them: `0-3,8`.
    pub(crate) fn parse(value: &str) -> Result<Self, BadValue> {
        match value {
            "all" => return Ok(Self::All),
            "auto" => return Ok(Self::Auto),
            _ => {}
        }
        let bad = || BadValue::new(value, "all or a list such as 0-3,8");
        let mut ranges = Vec::new();
        for part in value.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            // 8192 CPUs are the most a Linux kernel is built for (CONFIG_NR_CPUS).
            let number = |n: &str| number_in(n, 0..=8191).ok().and_then(|n| u32::try_from(n).ok()).ok_or_else(bad);
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(bad());
            }
            ranges.push((first, last));
        }
        ranges.sort_unstable();
        let mut apart: Vec<(u32, u32)> = Vec::new();
        for (first, last) in ranges {
            match apart.last_mut() {
                Some(previous) if first <= previous.1 + 1 => previous.1 = previous.1.max(last),
                _ => apart.push((first, last)),
            }
        }
        Ok(Self::Only(apart))
    }

    pub(crate) fn parse_nodes(value: &str) -> Result<Self, BadValue> {
        match Self::parse(value)? {
            Self::Auto => Err(BadValue::new(value, "all or a list of memory nodes such as 0,1")),
            mask => Ok(mask),
        }
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Auto => f.write_str("auto"),
            Self::Only(ranges) => {
                let range = |(a, b): &(u32, u32)| if a == b { a.to_string() } else { format!("{a}-{b}") };
                f.write_str(&joined(ranges.iter().map(range), ","))
            }
        }
    }
}

/// The tree of a template that a private area lies on: `VZ_TREE="debian-12-x86_64@DIGEST"`. Without one the private area is the whole tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateTree {
    /// The template.
    pub template: String,
    /// Which state of it, in hexadecimal.
    pub digest: String,
}

impl TemplateTree {
    pub(crate) fn parse(value: &str) -> Result<Self, BadValue> {
        let bad = || BadValue::new(value, "a template and the digest of its tree, as NAME@DIGEST");
        let (template, digest) = value.split_once('@').ok_or_else(bad)?;
        let hexadecimal = !digest.is_empty() && digest.len() <= 128 && digest.bytes().all(|b| b.is_ascii_hexdigit());
        if !hexadecimal {
            return Err(bad());
        }
        Ok(Self { template: file_name(template).map_err(|_| bad())?, digest: digest.to_owned() })
    }
}

impl fmt::Display for TemplateTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.template, self.digest)
    }
}

/// Layers over the tree: `VZ_LAYERS="redis@DIGEST nginx@DIGEST"`, the uppermost last.
pub(crate) fn layers(value: &str) -> Result<Vec<TemplateTree>, BadValue> {
    value.split_whitespace().map(TemplateTree::parse).collect()
}

/// Names of application templates: `TEMPLATES="nginx .redis"`. OpenVZ's EZ templates begin with a dot.
pub(crate) fn app_templates(value: &str) -> Vec<String> {
    value.split_whitespace().map(str::to_owned).collect()
}

/// Names of the host's network devices given to a container.
pub(crate) fn interface_list(value: &str) -> Result<Vec<String>, BadValue> {
    words(value).map(interface_name).collect()
}

/// Options for mounting the image: words joined by commas.
pub(crate) fn mount_options(value: &str) -> Result<Vec<String>, BadValue> {
    let one = |word: &str| {
        let good = word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_=.:/".contains(&b));
        if good { Ok(word.to_owned()) } else { Err(BadValue::new(word, "a mount option")) }
    };
    words(value).map(one).collect()
}

/// Old iptables module names, kept for configurations that have them.
pub(crate) fn module_names(value: &str) -> Result<Vec<String>, BadValue> {
    let one = |word: &str| {
        let good = word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if good { Ok(word.to_owned()) } else { Err(BadValue::new(word, "a module name")) }
    };
    words(value).map(one).collect()
}

#[cfg(test)]
mod tests;
