//! The netlink messages of a container's network, as data.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InetDevConf, InfoData, InfoVeth, LinkAttribute,
};
use rtnetlink::packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use rtnetlink::packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage as Rtnl};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::address::{Address, host_bits};
use super::netlink::Request;
use super::plan::{INSIDE_NAME, NetPlan};

/// The loopback interface is the first of every network namespace, by this number.
pub(super) const LOOPBACK_INDEX: u32 = 1;

/// The pair, the inner end born in the container: it never exists on the host under any name, and can't clash with one.
pub(super) fn create_pair(plan: &NetPlan, netns: BorrowedFd<'_>) -> Request {
    let inside = end(LinkUnspec::new_with_name(INSIDE_NAME), plan).setns_by_fd(netns.as_raw_fd()).build();
    let pair = end(LinkVeth::new(&plan.host_ifname, INSIDE_NAME), plan)
        .link_group(plan.group())
        .set_info_data(InfoData::Veth(InfoVeth::Peer(inside)))
        .build();
    let text = format!("link add {} type veth peer {INSIDE_NAME} in the container", plan.host_ifname);
    Request::create(Rtnl::NewLink(pair), text)
}

/// A pair that can't be: its inner end has a slash in its name, and is the end that the kernel registers first.
pub(super) fn impossible_pair() -> Request {
    let pair = LinkVeth::new("vz/", "vz/").build();
    Request::create(Rtnl::NewLink(pair), "link add vz/ type veth peer vz/")
}

/// What both ends have in common: see [`NetPlan::mac`].
fn end<T>(message: LinkMessageBuilder<T>, plan: &NetPlan) -> LinkMessageBuilder<T> {
    let message = message.address(plan.mac().to_vec()).arp(false);
    match plan.mtu {
        Some(mtu) => message.mtu(mtu),
        None => message,
    }
}

/// The host's end, before it is up: the kernel turns an interface on before it reads the rest of the same message, and an interface that comes up
/// without `addrgenmode none` gives itself a link-local address.
///
/// `rp_filter` is the second wall behind the nft table (an admin's `flush ruleset` takes that one away), for IPv4: strict reverse path. The kernel
/// takes the larger of this and `all`, so on a host with `all=2` the table is the only wall.
pub(super) fn configure_host_end(plan: &NetPlan, ipv6: bool) -> Request {
    let mut conf = InetDevConf::default();
    conf.rp_filter = 1;
    let mut families = vec![AfSpecUnspec::Inet(vec![AfSpecInet::DevConfRequest(conf)])];
    families.extend(no_own_address(ipv6));
    let mut message = LinkUnspec::new_with_name(&plan.host_ifname).build();
    message.attributes.push(LinkAttribute::AfSpecUnspec(families));
    Request::new(Rtnl::SetLink(message), format!("link set {} addrgenmode none rp_filter 1", plan.host_ifname))
}

pub(super) fn host_end_up(plan: &NetPlan) -> Request {
    let message = LinkUnspec::new_with_name(&plan.host_ifname).up().build();
    Request::new(Rtnl::SetLink(message), format!("link set {} up", plan.host_ifname))
}

/// The container's end likewise, by number: its root may have renamed it.
pub(super) fn configure_inner_end(index: u32, ipv6: bool) -> Request {
    let mut message = LinkUnspec::new_with_index(index).build();
    message.attributes.push(LinkAttribute::AfSpecUnspec(no_own_address(ipv6).into_iter().collect()));
    Request::new(Rtnl::SetLink(message), format!("link set {INSIDE_NAME} addrgenmode none, in the container"))
}

pub(super) fn inner_end_up(index: u32) -> Request {
    let message = LinkUnspec::new_with_index(index).up().build();
    Request::new(Rtnl::SetLink(message), format!("link set {INSIDE_NAME} up, in the container"))
}

/// A kernel booted with `ipv6.disable=1` refuses the whole message for this (`EAFNOSUPPORT`), and needs none.
fn no_own_address(ipv6: bool) -> Option<AfSpecUnspec> {
    ipv6.then(|| AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]))
}

pub(super) fn loopback_up() -> Request {
    Request::new(
        Rtnl::SetLink(LinkUnspec::new_with_index(LOOPBACK_INDEX).up().build()),
        "link set lo up, in the container",
    )
}

pub(super) fn get_link(name: &str) -> Request {
    Request::new(Rtnl::GetLink(LinkUnspec::new_with_name(name).build()), format!("link show {name}"))
}

pub(super) fn get_link_by_index(index: u32) -> Request {
    Request::new(Rtnl::GetLink(LinkUnspec::new_with_index(index).build()), format!("link show {index}"))
}

pub(super) fn delete_link(index: u32, name: &str) -> Request {
    Request::new(Rtnl::DelLink(LinkUnspec::new_with_index(index).build()), format!("link del {name}"))
}

/// The address, and for IPv4 the label under which `ifconfig` and old scripts look for it: `venet0:0`, `venet0:1`, …
pub(super) fn inner_address(index: u32, address: Address, label: Option<&str>) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.family = family(address.ip);
    message.header.prefix_len = address.prefix_inside();
    message.header.scope = AddressScope::Universe;
    message.attributes.push(AddressAttribute::Local(address.ip));
    message.attributes.push(AddressAttribute::Address(address.ip));
    if address.ip.is_ipv6() {
        // Nobody on the other end could answer; without it the address would be unusable for the first second.
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    message.attributes.extend(label.map(|l| AddressAttribute::Label(l.to_owned())));
    message
}

pub(super) fn add_address(index: u32, address: Address, label: Option<&str>) -> Request {
    let message = inner_address(index, address, label);
    Request::create(Rtnl::NewAddress(message), format!("addr add {address} dev {INSIDE_NAME}, in the container"))
}

pub(super) fn delete_address(index: u32, address: Address) -> Request {
    let mut message = inner_address(index, address, None);
    if address.ip.is_ipv4() {
        // With it the kernel would also compare the mask, which the container's root may have changed.
        message.attributes.retain(|a| !matches!(a, AddressAttribute::Address(_)));
    }
    Request::new(Rtnl::DelAddress(message), format!("addr del {address} dev {INSIDE_NAME}, in the container"))
}

pub(super) fn list_addresses() -> Request {
    Request::new(Rtnl::GetAddress(AddressMessage::default()), "addr show")
}

/// Everything goes out of `venet0`; there is no gateway to name.
pub(super) fn default_route(index: u32, like: IpAddr) -> Request {
    let mut message = RouteMessageBuilder::<IpAddr>::new().output_interface(index).build();
    message.header = route_header(like, 0);
    let dash6 = if like.is_ipv6() { "-6 " } else { "" };
    Request::create(Rtnl::NewRoute(message), format!("{dash6}route add default dev {INSIDE_NAME}, in the container"))
}

/// The host's way to one address. It is also what makes an address belong to one container only: the kernel refuses a second route (`EEXIST`).
pub(super) fn host_route(plan: &NetPlan, index: u32, ip: IpAddr, source: Option<IpAddr>) -> Request {
    Request::create(
        Rtnl::NewRoute(host_route_message(index, ip, source)),
        format!("route add {ip} dev {}{}", plan.host_ifname, source.map(|s| format!(" src {s}")).unwrap_or_default()),
    )
}

pub(super) fn delete_host_route(plan: &NetPlan, index: u32, ip: IpAddr) -> Request {
    Request::new(
        Rtnl::DelRoute(host_route_message(index, ip, None)),
        format!("route del {ip} dev {}", plan.host_ifname),
    )
}

fn host_route_message(index: u32, ip: IpAddr, source: Option<IpAddr>) -> RouteMessage {
    let mut message = RouteMessageBuilder::<IpAddr>::new().output_interface(index).build();
    message.header = route_header(ip, host_bits(ip));
    message.attributes.push(RouteAttribute::Destination(ip.into()));
    message.attributes.extend(source.map(|s| RouteAttribute::PrefSource(s.into())));
    message
}

fn route_header(like: IpAddr, bits: u8) -> RouteHeader {
    RouteHeader {
        address_family: family(like),
        destination_prefix_length: bits,
        table: RouteHeader::RT_TABLE_MAIN,
        // What iproute2 writes for `ip route add` without a protocol, as OpenVZ's scripts did: routing daemons tell it from their own.
        protocol: RouteProtocol::Boot,
        scope: if like.is_ipv4() { RouteScope::Link } else { RouteScope::Universe },
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    }
}

/// Where the host would send a packet for this address: `ip route get`.
pub(super) fn route_to(ip: IpAddr) -> Request {
    let mut message = RouteMessage::default();
    message.header.address_family = family(ip);
    message.header.destination_prefix_length = host_bits(ip);
    message.attributes.push(RouteAttribute::Destination(ip.into()));
    Request::new(Rtnl::GetRoute(message), format!("route get {ip}"))
}

/// The host answers for `ip` on the interface `device`.
pub(super) fn add_proxy(device: u32, ip: IpAddr) -> Request {
    // Not EXCL: the kernel keeps one entry per address and interface, and having it already is as good.
    let mut request =
        Request::create(Rtnl::NewNeighbour(proxy(device, ip)), format!("neigh add proxy {ip} dev {device}"));
    request.flags = rtnetlink::packet_core::NLM_F_CREATE;
    request
}

pub(super) fn delete_proxy(device: u32, ip: IpAddr) -> Request {
    Request::new(Rtnl::DelNeighbour(proxy(device, ip)), format!("neigh del proxy {ip} dev {device}"))
}

pub(super) fn list_proxies() -> Request {
    let mut message = NeighbourMessage::default();
    message.header.flags = NeighbourFlags::Proxy;
    Request::new(Rtnl::GetNeighbour(message), "neigh show proxy")
}

fn proxy(device: u32, ip: IpAddr) -> NeighbourMessage {
    let mut message = neighbour(device, ip);
    message.header.flags = NeighbourFlags::Proxy;
    message.header.state = NeighbourState::Permanent;
    message
}

pub(super) fn neighbour(device: u32, ip: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(ip);
    message.header.ifindex = device;
    message.attributes.push(NeighbourAttribute::Destination(ip.into()));
    message
}

pub(super) fn family(ip: IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
