//! Devices of the host that a container may use.

use std::fmt;

use super::{BadValue, number_in, words};

/// What may be done with a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceAccess {
    /// Reading.
    pub read: bool,
    /// Writing.
    pub write: bool,
    /// Setting quotas on it.
    pub quota: bool,
}

impl DeviceAccess {
    fn parse(text: &str) -> Option<Self> {
        let mut access = Self { read: false, write: false, quota: false };
        if text == "none" {
            return Some(access);
        }
        for letter in text.chars() {
            let flag = match letter {
                'r' => &mut access.read,
                'w' => &mut access.write,
                'q' => &mut access.quota,
                _ => return None,
            };
            *flag = true;
        }
        (!text.is_empty()).then_some(access)
    }

    /// Whether it takes access away.
    #[must_use]
    pub fn is_none(self) -> bool {
        !(self.read || self.write || self.quota)
    }
}

impl fmt::Display for DeviceAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = [(self.read, "r"), (self.write, "w"), (self.quota, "q")];
        let letters: String = letters.iter().filter(|(on, _)| *on).map(|(_, l)| *l).collect();
        f.write_str(if letters.is_empty() { "none" } else { &letters })
    }
}

/// `--devnodes`: a device of the host by its name below `/dev`, made inside too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevNode {
    /// The name, such as `net/tun`.
    pub name: String,
    /// What may be done with it.
    pub access: DeviceAccess,
}

impl DevNode {
    pub(crate) fn parse_list(value: &str) -> Result<Vec<Self>, BadValue> {
        let one = |word: &str| {
            let bad = || BadValue::new(word, "a name below /dev and r, w, q or none, as in net/tun:rw");
            let (name, access) = word.rsplit_once(':').ok_or_else(bad)?;
            let name = name.strip_prefix("/dev/").unwrap_or(name);
            let part = |p: &str| {
                !matches!(p, "" | "." | "..") && p.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:@+".contains(&b))
            };
            if !name.split('/').all(part) || name.len() > 64 {
                return Err(bad());
            }
            Ok(Self { name: name.to_owned(), access: DeviceAccess::parse(access).ok_or_else(bad)? })
        };
        words(value).map(one).collect()
    }
}

impl fmt::Display for DevNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.access)
    }
}

/// `--devices`: devices by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRule {
    /// `b` for block, `c` for character devices.
    pub block: bool,
    /// The major number; `None` is every one.
    pub major: Option<u32>,
    /// The minor number; `None` is every one.
    pub minor: Option<u32>,
    /// What may be done with them.
    pub access: DeviceAccess,
}

impl DeviceRule {
    pub(crate) fn parse_list(value: &str) -> Result<Vec<Self>, BadValue> {
        words(value).map(Self::parse).collect()
    }

    fn parse(word: &str) -> Result<Self, BadValue> {
        let bad = || BadValue::new(word, "b|c:MAJOR:MINOR|all:r|w|rw|none[:q], as in c:10:200:rw");
        let parts: Vec<&str> = word.split(':').collect();
        let (kind, major, minor, access, quota) = match parts[..] {
            [kind, major, minor, access] => (kind, major, minor, access, ""),
            [kind, major, minor, access, "q"] => (kind, major, minor, access, "q"),
            _ => return Err(bad()),
        };
        let number = |text: &str, most: u64| match text {
            "all" | "*" => Ok(None),
            n => number_in(n, 0..=most).ok().and_then(|n| u32::try_from(n).ok()).map(Some).ok_or_else(bad),
        };
        let mut access = DeviceAccess::parse(access).ok_or_else(bad)?;
        access.quota |= quota == "q";
        let block = match kind {
            "b" => true,
            "c" => false,
            _ => return Err(bad()),
        };
        // 12 and 20 bits: dev_t as the kernel has it since 2.6.
        Ok(Self { block, major: number(major, 0xfff)?, minor: number(minor, 0xf_ffff)?, access })
    }
}

impl fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |n: Option<u32>| n.map_or_else(|| "all".to_owned(), |n| n.to_string());
        let access = DeviceAccess { quota: false, ..self.access };
        let kind = if self.block { 'b' } else { 'c' };
        write!(f, "{kind}:{}:{}:{access}", number(self.major), number(self.minor))?;
        if self.access.quota { f.write_str(":q") } else { Ok(()) }
    }
}

/// A PCI function, `[domain:]bus:slot.function`, in lower case with its domain.
pub(crate) fn pci_list(value: &str) -> Result<Vec<String>, BadValue> {
    let one = |word: &str| {
        let bad = || BadValue::new(word, "a PCI device as [DOMAIN:]BUS:SLOT.FUNCTION");
        let hex = |text: &str, digits: usize| {
            let good = (1..=digits).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
            u32::from_str_radix(text, 16).ok().filter(|_| good).ok_or_else(bad)
        };
        let (rest, function) = word.rsplit_once('.').ok_or_else(bad)?;
        let parts: Vec<&str> = rest.split(':').collect();
        let (domain, bus, slot) = match parts[..] {
            [bus, slot] => ("0", bus, slot),
            [domain, bus, slot] => (domain, bus, slot),
            _ => return Err(bad()),
        };
        let (domain, bus, slot, function) = (hex(domain, 4)?, hex(bus, 2)?, hex(slot, 2)?, hex(function, 1)?);
        if slot > 0x1f || function > 7 {
            Err(bad())
        } else {
            Ok(format!("{domain:04x}:{bus:02x}:{slot:02x}.{function}"))
        }
    };
    words(value).map(one).collect()
}
