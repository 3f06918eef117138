//! The addresses a container may be given: how they are written, and which are refused.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One value of `--ipadd` and of `IP_ADDRESS`: an address and, where one was written, the length of its mask.
///
/// A venet address is one host (`/32`, `/128`) unless a mask says otherwise; the mask matters only inside the container. It prints as it was
/// written, with or without the mask, because that is what OpenVZ keeps in the configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    /// The address itself.
    pub ip: IpAddr,
    /// The mask's length in bits, if one was written.
    pub prefix: Option<u8>,
}

/// The text was not `address[/mask]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Invalid IP address: {0}")]
pub struct BadAddress(pub String);

impl Address {
    /// The mask's length as the container's own interface gets it.
    #[must_use]
    pub fn prefix_inside(self) -> u8 {
        self.prefix.unwrap_or(host_bits(self.ip))
    }
}

/// The number of bits of an address of this family.
pub(super) fn host_bits(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        Self { ip, prefix: None }
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    /// `10.0.0.1`, `10.0.0.1/24`, `10.0.0.1/255.255.255.0`, `2001:db8::1/64`. No zone (`%eth0`), no blanks, no leading zeros.
    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let bad = || BadAddress(text.to_owned());
        let (ip, mask) = match text.split_once('/') {
            Some((ip, mask)) => (ip, Some(mask)),
            None => (text, None),
        };
        let ip: IpAddr = ip.parse().map_err(|_| bad())?;
        let prefix = mask.map(|m| parse_mask(ip, m).ok_or_else(bad)).transpose()?;
        Ok(Self { ip, prefix })
    }
}

/// A length in digits (1 to the family's bits: a length of 0 would claim the whole world), or a contiguous dotted IPv4 mask.
fn parse_mask(ip: IpAddr, mask: &str) -> Option<u8> {
    let prefix = if ip.is_ipv4() && mask.contains('.') {
        let bits = u32::from(mask.parse::<Ipv4Addr>().ok()?);
        if bits.leading_ones() + bits.trailing_zeros() != 32 {
            return None;
        }
        u8::try_from(bits.leading_ones()).ok()?
    } else if !mask.is_empty() && mask.bytes().all(|b| b.is_ascii_digit()) {
        mask.parse().ok()?
    } else {
        return None;
    };
    (1..=host_bits(ip)).contains(&prefix).then_some(prefix)
}

impl TryFrom<String> for Address {
    type Error = BadAddress;
    fn try_from(text: String) -> Result<Self, BadAddress> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> String {
        address.to_string()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix {
            Some(prefix) => write!(f, "{}/{prefix}", self.ip),
            None => self.ip.fmt(f),
        }
    }
}

/// Why an address can't be a container's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// `0.0.0.0/8` or `::`.
    #[error("it is the unspecified address")]
    Unspecified,
    /// `127.0.0.0/8` or `::1`.
    #[error("it is a loopback address")]
    Loopback,
    /// `224.0.0.0/4` or `ff00::/8`.
    #[error("it is a multicast address")]
    Multicast,
    /// `240.0.0.0/4`, `255.255.255.255` included.
    #[error("it is a broadcast or reserved address")]
    Reserved,
    /// `169.254.0.0/16` or `fe80::/10`: means something else on every link, so it can't be routed to a container.
    #[error("it is a link-local address")]
    LinkLocal,
    /// An IPv4 address in IPv6 clothes (`::ffff:a.b.c.d`): it would never meet the IPv4 source check.
    #[error("it is an IPv4 address written as an IPv6 one")]
    Mapped,
    /// The first address of its own mask: the network's (IPv4), all routers' (IPv6).
    #[error("it is the network address of its mask")]
    Network,
    /// The last address of its own mask (IPv4).
    #[error("it is the broadcast address of its mask")]
    Broadcast,
    /// One of the host's own addresses.
    #[error("it is the host's own address")]
    HostOwn,
}

/// Whether a container may have this address, `host_addresses` being the host's own.
///
/// # Errors
/// The first reason found why it may not.
pub fn check_address(address: Address, host_addresses: &[IpAddr]) -> Result<(), Unusable> {
    match address.ip {
        IpAddr::V4(ip) => check_v4(ip, address.prefix)?,
        IpAddr::V6(ip) => check_v6(ip, address.prefix)?,
    }
    if host_addresses.contains(&address.ip) { Err(Unusable::HostOwn) } else { Ok(()) }
}

fn check_v4(ip: Ipv4Addr, prefix: Option<u8>) -> Result<(), Unusable> {
    match ip.octets() {
        [0, ..] => return Err(Unusable::Unspecified),
        [127, ..] => return Err(Unusable::Loopback),
        [169, 254, ..] => return Err(Unusable::LinkLocal),
        [224..=239, ..] => return Err(Unusable::Multicast),
        [240..=255, ..] => return Err(Unusable::Reserved),
        _ => {}
    }
    // A mask of 31 bits has two hosts and no network address (RFC 3021); 32 bits are one host.
    let host_part = u32::MAX.checked_shr(prefix.unwrap_or(32).into()).unwrap_or(0);
    match u32::from(ip) & host_part {
        _ if host_part <= 1 => Ok(()),
        0 => Err(Unusable::Network),
        part if part == host_part => Err(Unusable::Broadcast),
        _ => Ok(()),
    }
}

fn check_v6(ip: Ipv6Addr, prefix: Option<u8>) -> Result<(), Unusable> {
    if ip.is_unspecified() {
        return Err(Unusable::Unspecified);
    }
    if ip.is_loopback() {
        return Err(Unusable::Loopback);
    }
    if ip.is_multicast() {
        return Err(Unusable::Multicast);
    }
    if ip.segments()[0] & 0xffc0 == 0xfe80 {
        return Err(Unusable::LinkLocal);
    }
    if ip.to_ipv4().is_some() {
        return Err(Unusable::Mapped);
    }
    // 127 bits are a pair of hosts (RFC 6164).
    let host_part = u128::MAX.checked_shr(prefix.unwrap_or(128).into()).unwrap_or(0);
    if host_part > 1 && u128::from(ip) & host_part == 0 { Err(Unusable::Network) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that fails here has failed")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_prints_as_it_was_written() {
        for text in ["10.0.0.1", "10.0.0.1/24", "10.0.0.1/32", "2001:db8::1", "2001:db8::1/64"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!("10.0.0.1/255.255.255.0".parse::<Address>().unwrap().to_string(), "10.0.0.1/24");
        assert_eq!("2001:DB8:0::1".parse::<Address>().unwrap().to_string(), "2001:db8::1");
    }

    #[test]
    fn what_is_not_an_address_is_refused() {
        for text in [
            "",
            "/",
            "/24",
            "10.0.0",
            "10.0.0.1/",
            "10.0.0.1/0",
            "10.0.0.1/33",
            "10.0.0.1/+8",
            "10.0.0.1/24/24",
            "10.0.0.1/255.0.255.0",
            "10.0.0.1/0.0.0.0",
            "010.0.0.1",
            "10.0.0.1 ",
            "2001:db8::1/129",
            "2001:db8::1/255.255.0.0",
            "fe80::1%eth0",
            "all",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn an_address_no_container_may_have_is_refused_with_the_reason() {
        let own = ["192.0.2.1".parse().unwrap(), "2001:db8::ffff".parse().unwrap()];
        for (text, why) in [
            ("0.0.0.0", Unusable::Unspecified),
            ("0.1.2.3", Unusable::Unspecified),
            ("127.0.0.2", Unusable::Loopback),
            ("169.254.1.1", Unusable::LinkLocal),
            ("224.0.0.1", Unusable::Multicast),
            ("240.0.0.1", Unusable::Reserved),
            ("255.255.255.255", Unusable::Reserved),
            ("10.0.0.0/24", Unusable::Network),
            ("10.0.0.255/24", Unusable::Broadcast),
            ("192.0.2.1", Unusable::HostOwn),
            ("::", Unusable::Unspecified),
            ("::1", Unusable::Loopback),
            ("ff02::1", Unusable::Multicast),
            ("fe80::1", Unusable::LinkLocal),
            ("febf::1", Unusable::LinkLocal),
            ("::ffff:10.0.0.1", Unusable::Mapped),
            ("::10.0.0.1", Unusable::Mapped),
            ("2001:db8::/64", Unusable::Network),
            ("2001:db8::ffff", Unusable::HostOwn),
        ] {
            assert_eq!(check_address(text.parse().unwrap(), &own), Err(why), "{text}");
        }
        for text in [
            "10.0.0.0",
            "10.0.0.255",
            "10.0.0.0/31",
            "10.0.0.1/32",
            "2001:db8::",
            "2001:db8::/127",
            "fec0::1",
            "fd00::1/8",
        ] {
            assert_eq!(check_address(text.parse().unwrap(), &own), Ok(()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic_and_what_it_takes_it_prints_back(text in "[0-9a-f:./%]{0,24}") {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert_eq!(address.to_string().parse::<Address>(), Ok(address));
                let _ = check_address(address, &[]);
            }
        }
    }
}
