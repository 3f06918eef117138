//! Telling the neighbours where an address is now: what `arpsend -U` and `ndsend` of OpenVZ did.
//!
//! A neighbour that knew the address on another machine (the container was migrated, or restarted after one) would otherwise go on sending there
//! until its entry expires.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::error::NetError;
use super::neighbours::{self, Link};
use super::netlink::Netlink;
use super::plan::NetPlan;
use super::sys;

/// Announces addresses of a container that is up, on the interfaces the host answers for them on. Nothing depends on it, and closing a packet socket
/// makes the kernel wait for all its processors, so it belongs after the container has started, not into its start.
///
/// # Errors
/// What the kernel refuses; the container's network works all the same.
pub fn announce(plan: &NetPlan, ips: &[IpAddr]) -> Result<(), NetError> {
    let mut host = Netlink::open()?;
    // From what is there and not from the configuration: an address is announced exactly where it is answered for.
    let proxies = neighbours::proxies_of(&mut host, ips)?;
    if proxies.is_empty() {
        return Ok(());
    }
    let links = neighbours::links(&mut host, proxies.iter().map(|(device, _)| *device))?;
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)
        .map_err(NetError::call("socket(AF_PACKET, SOCK_RAW)"))?;
    for (device, ip) in proxies {
        let Some(frame) = links.iter().find(|l| l.index == device).and_then(|link| frame_for(link, ip)) else {
            continue;
        };
        sys::send_frame(socket.as_fd(), device, &frame)
            .map_err(NetError::call(format!("sendto({ip} is at {} for {})", device, plan.host_ifname)))?;
    }
    Ok(())
}

/// The announcement of an address behind an interface; `None` if it is no Ethernet.
fn frame_for(link: &Link, ip: IpAddr) -> Option<Vec<u8>> {
    let mac: [u8; 6] = link.mac.as_slice().try_into().ok()?;
    Some(match ip {
        IpAddr::V4(ip) => gratuitous_arp(mac, ip),
        IpAddr::V6(ip) => unsolicited_advertisement(mac, ip),
    })
}

/// An ARP request for its own sender (RFC 5227, 3): what every system updates its entry from.
fn gratuitous_arp(mac: [u8; 6], ip: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet([0xff; 6], mac, 0x0806);
    // Ethernet, IPv4, their lengths, request.
    frame.extend([0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(ip.octets());
    frame.extend([0; 6]);
    frame.extend(ip.octets());
    frame
}

/// A neighbour advertisement to all nodes, overriding what they knew (RFC 4861, 7.2.6).
fn unsolicited_advertisement(mac: [u8; 6], ip: Ipv6Addr) -> Vec<u8> {
    const OVERRIDE: u8 = 0x20;
    const ICMPV6: u8 = 58;
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut advertisement = vec![136, 0, 0, 0, OVERRIDE, 0, 0, 0];
    advertisement.extend(ip.octets());
    advertisement.extend([2, 1]); // Option: target link-layer address, one unit of 8 bytes.
    advertisement.extend(mac);

    let length = u8::try_from(advertisement.len()).expect("32 bytes");
    let mut pseudo_header = [ip.octets(), all_nodes.octets()].concat();
    pseudo_header.extend([0, 0, 0, length, 0, 0, 0, ICMPV6]);
    let checksum = internet_checksum([pseudo_header.as_slice(), &advertisement].concat().as_slice());
    advertisement[2..4].copy_from_slice(&checksum.to_be_bytes());

    let mut frame = ethernet([0x33, 0x33, 0, 0, 0, 1], mac, 0x86dd);
    // Version 6; the hop limit of 255 proves that no router forwarded it.
    frame.extend([0x60, 0, 0, 0, 0, length, ICMPV6, 255]);
    frame.extend(ip.octets());
    frame.extend(all_nodes.octets());
    frame.extend(advertisement);
    frame
}

fn ethernet(to: [u8; 6], from: [u8; 6], kind: u16) -> Vec<u8> {
    [to.as_slice(), &from, &kind.to_be_bytes()].concat()
}

/// RFC 1071, of an even number of bytes.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that fails here has failed")]

    use super::*;

    #[test]
    fn an_announcement_has_the_shape_its_rfc_gives_it() {
        let mac = [2, 0, 0, 0, 0, 1];
        let arp = gratuitous_arp(mac, "192.0.2.1".parse().unwrap());
        assert_eq!(arp.len(), 42);
        assert_eq!(arp[28..32], arp[38..42], "sender and target are one");

        let na = unsolicited_advertisement(mac, "2001:db8::1".parse().unwrap());
        assert_eq!(na.len(), 14 + 40 + 32);
        // The sum over everything, checksum included, is zero when inverted.
        let mut all = na[22..54].to_vec();
        all.extend([0, 0, 0, 32, 0, 0, 0, 58]);
        all.extend(&na[54..]);
        assert_eq!(internet_checksum(&all), 0);
    }
}
