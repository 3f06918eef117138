//! The files that are ours alone, as text.
//!
//! Each says of `venet0` what the runtime has made: the addresses, and one default route for each of their families that leaves by the interface
//! without a gateway.

use std::fmt::Write as _;

use crate::net::Address;

/// The first line of each of them.
const HEADER: &str = "# Written by vz from the configuration of the container, at each start: changes are lost.\n";

/// As every manager takes it: with the length of its mask.
pub(super) fn with_prefix(address: Address) -> String {
    format!("{}/{}", address.ip, address.prefix_inside())
}

fn of_family(addresses: &[Address], v4: bool) -> Vec<Address> {
    addresses.iter().copied().filter(|a| a.ip.is_ipv4() == v4).collect()
}

/// Everything, of the families that have an address.
pub(super) fn destinations(addresses: &[Address]) -> impl Iterator<Item = &'static str> {
    let has = |v4| addresses.iter().any(|a| a.ip.is_ipv4() == v4);
    let (v4, v6) = (has(true), has(false));
    v4.then_some("0.0.0.0/0").into_iter().chain(v6.then_some("::/0"))
}

/// systemd.network(5). The name sorts before what netplan and most people write, and the first file that matches is the one.
///
/// It names no address. networkd is to manage the interface, so that it counts as configured, and to keep what it finds. Of an address of its own that
/// somebody else has set in another way (a label) networkd 252 asks the kernel again and again, without end.
pub(super) fn networkd(_: &[Address]) -> String {
    format!(
        "{HEADER}[Match]\nName=venet0\n\n\
         [Network]\nLinkLocalAddressing=no\nIPv6AcceptRA=no\nLLDP=no\nKeepConfiguration=yes\n"
    )
}

/// nm-settings-keyfile(5).
pub(super) fn keyfile(addresses: &[Address]) -> String {
    let mut text = format!(
        "{HEADER}[connection]\nid=venet0\nuuid=7f3c1f0e-5a0b-4c52-9d0e-76656e657430\ntype=ethernet\n\
         interface-name=venet0\nautoconnect=true\n"
    );
    for (section, v4, everything) in [("ipv4", true, "0.0.0.0/0"), ("ipv6", false, "::/0")] {
        let own = of_family(addresses, v4);
        let method = match (own.is_empty(), v4) {
            (false, _) => "manual",
            (true, true) => "disabled",
            (true, false) => "ignore",
        };
        let _ = write!(text, "\n[{section}]\nmethod={method}\n");
        for (number, address) in (1..).zip(&own) {
            let _ = writeln!(text, "address{number}={}", with_prefix(*address));
        }
        if !own.is_empty() {
            let _ = writeln!(text, "route1={everything}");
        }
    }
    text
}

/// Red Hat's sysconfig.txt. NetworkManager, where it reads these files, is told to leave the interface to the scripts.
pub(super) fn ifcfg(addresses: &[Address]) -> String {
    let (v4, v6) = (of_family(addresses, true), of_family(addresses, false));
    let mut text =
        format!("{HEADER}DEVICE=venet0\nONBOOT=yes\nBOOTPROTO=none\nNM_CONTROLLED=no\nUSERCTL=no\nARPCHECK=no\n");
    for (number, address) in v4.iter().enumerate() {
        let _ = write!(text, "IPADDR{number}={}\nPREFIX{number}={}\n", address.ip, address.prefix_inside());
    }
    if !v4.is_empty() {
        text += "GATEWAYDEV=venet0\n";
    }
    if let [first, others @ ..] = &v6[..] {
        let others: Vec<String> = others.iter().copied().map(with_prefix).collect();
        let _ = write!(
            text,
            "IPV6INIT=yes\nIPV6_AUTOCONF=no\nIPV6ADDR={}\nIPV6ADDR_SECONDARIES=\"{}\"\nIPV6_DEFAULTDEV=venet0\n",
            with_prefix(*first),
            others.join(" ")
        );
    }
    text
}

/// SUSE's ifcfg(5).
pub(super) fn suse_ifcfg(addresses: &[Address]) -> String {
    let mut text = format!("{HEADER}STARTMODE='auto'\nBOOTPROTO='static'\n");
    for (number, address) in addresses.iter().enumerate() {
        let _ = writeln!(text, "IPADDR_{number}='{}'", with_prefix(*address));
    }
    text
}

/// SUSE's routes(5): destination, gateway, mask, interface.
pub(super) fn suse_routes(addresses: &[Address]) -> String {
    let line = |destination| format!("{destination} - - venet0\n");
    HEADER.to_owned() + &destinations(addresses).map(line).collect::<String>()
}
