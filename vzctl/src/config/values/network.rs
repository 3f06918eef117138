//! Virtual Ethernet devices of a container: `NETIF` and `--netif_add`.

use std::fmt;
use std::str::FromStr;

use super::{BadValue, interface_name, on_off, on_off_text};

/// The hardware address of one interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl FromStr for Mac {
    type Err = BadValue;
    fn from_str(text: &str) -> Result<Self, BadValue> {
        let bad = || BadValue::new(text, "the hardware address of one interface, as 00:18:51:a0:b1:c2");
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|p| (1..=2).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_hexdigit()));
            *byte = part.and_then(|p| u8::from_str_radix(p, 16).ok()).ok_or_else(bad)?;
        }
        // A group address (lowest bit of the first byte), or none at all, cannot be an interface's own.
        if parts.next().is_some() || bytes[0] & 1 == 1 || bytes == [0; 6] { Err(bad()) } else { Ok(Self(bytes)) }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02X}:{b:02X}:{c:02X}:{d:02X}:{e:02X}:{g:02X}")
    }
}

/// A pair of interfaces, one inside and one on the host. Of an edit, what is `None` stays as it was.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Netif {
    /// Name inside.
    pub ifname: String,
    /// Bridge of the host that the outer end joins.
    pub bridge: Option<String>,
    /// Hardware address inside.
    pub mac: Option<Mac>,
    /// Name on the host.
    pub host_ifname: Option<String>,
    /// Hardware address on the host.
    pub host_mac: Option<Mac>,
    /// Whether frames from other hardware addresses are dropped.
    pub mac_filter: Option<bool>,
    /// Fields that other versions wrote (`gw=…`, `type=…`), kept as they are.
    pub other: Vec<String>,
}

impl Netif {
    /// `--netif_add ifname[,mac[,host_ifname[,host_mac[,bridge]]]]`; fields may be empty.
    pub(crate) fn parse_option(value: &str) -> Result<Self, BadValue> {
        let mut fields = value.split(',');
        let mut next = || fields.next().filter(|f| !f.is_empty());
        let ifname = interface_name(next().unwrap_or_default())?;
        let mac = next().map(str::parse).transpose()?;
        let host_ifname = next().map(interface_name).transpose()?;
        let host_mac = next().map(str::parse).transpose()?;
        let bridge = next().map(interface_name).transpose()?;
        match fields.next() {
            Some(_) => Err(BadValue::new(value, "IFNAME[,MAC[,HOST_IFNAME[,HOST_MAC[,BRIDGE]]]]")),
            None => Ok(Self { ifname, bridge, mac, host_ifname, host_mac, mac_filter: None, other: Vec::new() }),
        }
    }

    /// `NETIF="ifname=eth0,bridge=br0,…;ifname=eth1"`.
    pub(crate) fn parse_config(value: &str) -> Result<Vec<Self>, BadValue> {
        value.split(';').map(str::trim).filter(|v| !v.is_empty()).map(Self::parse_fields).collect()
    }

    fn parse_fields(value: &str) -> Result<Self, BadValue> {
        let mut netif = Self::default();
        for field in value.split(',').map(str::trim).filter(|f| !f.is_empty()) {
            match field.split_once('=').ok_or_else(|| BadValue::new(field, "a field of NETIF as in ifname=eth0"))? {
                (_, "") => {}
                ("ifname", v) => netif.ifname = interface_name(v)?,
                (name, v) => netif.set_field(name, v)?,
            }
        }
        if netif.ifname.is_empty() { Err(BadValue::new(value, "an interface with ifname=")) } else { Ok(netif) }
    }

    /// One field by its name, the same in files and options. Names of other versions are kept.
    pub(crate) fn set_field(&mut self, name: &str, value: &str) -> Result<(), BadValue> {
        match name {
            "bridge" => self.bridge = Some(interface_name(value)?),
            "mac" => self.mac = Some(value.parse()?),
            "host_ifname" => self.host_ifname = Some(interface_name(value)?),
            "host_mac" => self.host_mac = Some(value.parse()?),
            "mac_filter" => self.mac_filter = Some(on_off(value)?),
            _ => self.other.push(format!("{name}={value}")),
        }
        Ok(())
    }

    /// Takes over what an edit says.
    pub(crate) fn edit(&mut self, edit: &Self) {
        let edit = edit.clone();
        self.bridge = edit.bridge.or(self.bridge.take());
        self.mac = edit.mac.or(self.mac);
        self.host_ifname = edit.host_ifname.or(self.host_ifname.take());
        self.host_mac = edit.host_mac.or(self.host_mac);
        self.mac_filter = edit.mac_filter.or(self.mac_filter);
    }
}

/// As `NETIF` has it, in the order of vzctl 4.
impl fmt::Display for Netif {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ifname={}", self.ifname)?;
        let mut field = |name: &str, value: Option<String>| value.map_or(Ok(()), |v| write!(f, ",{name}={v}"));
        field("bridge", self.bridge.clone())?;
        field("mac", self.mac.map(|m| m.to_string()))?;
        field("host_ifname", self.host_ifname.clone())?;
        field("host_mac", self.host_mac.map(|m| m.to_string()))?;
        field("mac_filter", self.mac_filter.map(|on| on_off_text(on).to_owned()))?;
        self.other.iter().try_for_each(|other| write!(f, ",{other}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_may_leave_fields_empty() {
        let netif = Netif::parse_option("eth0,,veth101.0,,br0").unwrap();
        assert_eq!(netif.to_string(), "ifname=eth0,bridge=br0,host_ifname=veth101.0");
        let netif = Netif::parse_option("eth1,00:18:51:a0:b1:c2").unwrap();
        assert_eq!(netif.to_string(), "ifname=eth1,mac=00:18:51:A0:B1:C2");
        for bad in [
            "",
            ",00:18:51:a0:b1:c2",
            "eth0,01:00:5e:00:00:01",
            "eth0,zz",
            "eth0,,,,,x",
            "eth0,00:00:00:00:00:00",
            "eth0;ifname=eth1",
        ] {
            assert!(Netif::parse_option(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_configuration_is_written_as_it_was_read() {
        let text = "ifname=eth0,bridge=vmbr0,mac=00:18:51:A0:B1:C2,host_ifname=veth101.0,host_mac=00:18:51:A0:B1:C3,mac_filter=on,gw=10.0.0.1";
        let netifs = Netif::parse_config(&format!("{text};ifname=eth1")).unwrap();
        assert_eq!(netifs.iter().map(ToString::to_string).collect::<Vec<_>>(), [text, "ifname=eth1"]);
        assert!(Netif::parse_config("bridge=br0").is_err());
    }
}
