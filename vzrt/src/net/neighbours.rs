//! Who else has an address, and on which of the host's interfaces it has to be answered for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use nix::errno::Errno;
use rtnetlink::packet_route::RouteNetlinkMessage as Rtnl;
use rtnetlink::packet_route::address::{AddressAttribute, AddressScope};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, State};
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteType};

use super::error::{Holder, NetError};
use super::message;
use super::netlink::{Answer, Netlink};
use super::plan::{NeighbourDevs, NetPlan};

/// A network interface, as far as anything here wants to know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) flags: LinkFlags,
    pub(super) group: u32,
    /// The other end of a veth, by its number in the namespace where it is.
    pub(super) peer: Option<u32>,
    pub(super) is_veth: bool,
    pub(super) mac: Vec<u8>,
    /// The kernel has set it going: `operstate up`. The flag `IFF_RUNNING` won't do, it is also on in a state not known yet.
    pub(super) operates: bool,
}

impl Link {
    fn parse(message: &LinkMessage) -> Self {
        let mut link = Self { index: message.header.index, flags: message.header.flags, ..Self::default() };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Group(group) => link.group = *group,
                LinkAttribute::Link(peer) => link.peer = Some(*peer),
                LinkAttribute::Address(mac) => link.mac.clone_from(mac),
                LinkAttribute::OperState(state) => link.operates = *state == State::Up,
                LinkAttribute::LinkInfo(info) => link.is_veth = info.contains(&LinkInfo::Kind(InfoKind::Veth)),
                _ => {}
            }
        }
        link
    }

    /// The link in the answer to a `get_link`, `None` if there is no such one.
    pub(super) fn from_answer(answer: Answer) -> Result<Option<Self>, NetError> {
        match answer {
            Err(NetError::Netlink { source: Errno::ENODEV, .. }) => Ok(None),
            Err(error) => Err(error),
            Ok(messages) => Ok(messages.iter().find_map(|m| match m {
                Rtnl::NewLink(link) => Some(Self::parse(link)),
                _ => None,
            })),
        }
    }
}

/// An interface of the host with global addresses of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Uplink {
    pub(super) link: Link,
    pub(super) addresses: Vec<IpAddr>,
}

/// The host's interfaces with global addresses. Dumping addresses and not links keeps this independent of the number of containers: a
/// container's interface has no address on the host.
pub(super) fn uplinks(host: &mut Netlink) -> Result<Vec<Uplink>, NetError> {
    let mut by_index: BTreeMap<u32, Vec<IpAddr>> = BTreeMap::new();
    for answer in host.dump(message::list_addresses())? {
        let Rtnl::NewAddress(message) = answer else { continue };
        if message.header.scope != AddressScope::Universe {
            continue;
        }
        // IPv4 has its own address in Local (Address is the other end's, on a point-to-point link), IPv6 in Address alone.
        let local =
            message.attributes.iter().find_map(|a| if let AddressAttribute::Local(ip) = a { Some(*ip) } else { None });
        let plain = message
            .attributes
            .iter()
            .find_map(|a| if let AddressAttribute::Address(ip) = a { Some(*ip) } else { None });
        by_index.entry(message.header.index).or_default().extend(local.or(plain));
    }
    let requests = by_index.keys().map(|index| message::get_link_by_index(*index)).collect();
    let mut uplinks = Vec::with_capacity(by_index.len());
    for (answer, addresses) in host.each(requests)?.into_iter().zip(by_index.into_values()) {
        uplinks.extend(Link::from_answer(answer)?.map(|link| Uplink { link, addresses }));
    }
    Ok(uplinks)
}

/// The links with these numbers, each once; one that is gone by now is left out.
pub(super) fn links(host: &mut Netlink, indexes: impl Iterator<Item = u32>) -> Result<Vec<Link>, NetError> {
    let indexes: BTreeSet<u32> = indexes.collect();
    let answers = host.each(indexes.into_iter().map(message::get_link_by_index).collect())?;
    answers.into_iter().filter_map(|answer| Link::from_answer(answer).transpose()).collect()
}

/// OpenVZ's rule (`vps_get_neighbour_devs` of vps-functions): up, not a loopback, speaking ARP, not part of a bond, not a veth. A container's
/// own interface is a `NOARP` veth.
fn answers_arp(link: &Link) -> bool {
    link.flags.contains(LinkFlags::Up)
        && !link.flags.intersects(LinkFlags::Loopback | LinkFlags::Noarp | LinkFlags::Port)
        && !link.name.starts_with("veth")
}

/// The interfaces to answer on for an address that is directly on `direct`'s subnet, if on any.
fn choose<'a>(devs: &NeighbourDevs, uplinks: &'a [Uplink], listed: &'a [Link], direct: Option<u32>) -> Vec<&'a Link> {
    let all = uplinks.iter().map(|u| &u.link).filter(|link| answers_arp(link));
    match devs {
        NeighbourDevs::None => Vec::new(),
        NeighbourDevs::All => all.collect(),
        NeighbourDevs::Detect => all.filter(|link| Some(link.index) == direct).collect(),
        NeighbourDevs::List(_) => listed.iter().collect(),
    }
}

/// What the host knows about one address before it becomes a container's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Site {
    pub(super) ip: IpAddr,
    /// It is routed to this container already.
    pub(super) ours: bool,
    /// The interfaces to answer for it on.
    pub(super) neighbours: Vec<Link>,
    /// The host's address to talk to it from.
    pub(super) source: Option<IpAddr>,
}

/// Looks at the host for each address, and refuses those someone on this host has.
pub(super) fn survey(host: &mut Netlink, plan: &NetPlan, ips: &[IpAddr]) -> Result<Vec<Site>, NetError> {
    if ips.is_empty() {
        return Ok(Vec::new());
    }
    let wants_uplinks =
        matches!(plan.neighbour_devs, NeighbourDevs::All | NeighbourDevs::Detect) || plan.route_source_dev.is_some();
    let uplinks = if wants_uplinks { uplinks(host)? } else { Vec::new() };
    let listed = match &plan.neighbour_devs {
        NeighbourDevs::List(names) => named_links(host, names)?,
        _ => Vec::new(),
    };
    let mut sites = Vec::with_capacity(ips.len());
    for (ip, way) in ips.iter().copied().zip(ways(host, plan, ips)?) {
        let (ours, direct) = match way {
            Way::Ours => (true, None),
            Way::Direct(index) => (false, Some(index)),
            Way::Free => (false, None),
            Way::Taken(holder) => return Err(NetError::AddressInUse { address: ip, holder }),
        };
        let neighbours = choose(&plan.neighbour_devs, &uplinks, &listed, direct).into_iter().cloned().collect();
        sites.push(Site { ip, ours, neighbours, source: route_source(plan, &uplinks, ip) });
    }
    Ok(sites)
}

fn named_links(host: &mut Netlink, names: &[String]) -> Result<Vec<Link>, NetError> {
    let answers = host.each(names.iter().map(|name| message::get_link(name)).collect())?;
    let links = answers.into_iter().zip(names);
    links
        .map(|(answer, name)| Link::from_answer(answer)?.ok_or_else(|| NetError::NoDevice { name: name.clone() }))
        .collect()
}

/// The first global address of `VE_ROUTE_SRC_DEV` in the address's family; OpenVZ adds the route without a source if there is none.
fn route_source(plan: &NetPlan, uplinks: &[Uplink], ip: IpAddr) -> Option<IpAddr> {
    let name = plan.route_source_dev.as_ref()?;
    let uplink = uplinks.iter().find(|u| u.link.name == *name)?;
    uplink.addresses.iter().copied().find(|own| own.is_ipv4() == ip.is_ipv4())
}

/// Where the host would send a packet for an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// Into this very container.
    Ours,
    /// Someone of this host has it.
    Taken(Holder),
    /// To a machine on this interface's own subnet.
    Direct(u32),
    /// Somewhere behind a gateway, or nowhere.
    Free,
}

/// Asks the host's routing table about each address.
pub(super) fn ways(host: &mut Netlink, plan: &NetPlan, ips: &[IpAddr]) -> Result<Vec<Way>, NetError> {
    let answers = host.each(ips.iter().map(|ip| message::route_to(*ip)).collect())?;
    let mut ways = Vec::with_capacity(ips.len());
    for answer in answers {
        // No route, or one that refuses (unreachable, blackhole, prohibit): nobody has it.
        let messages = match answer {
            Err(NetError::Netlink {
                source: Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EINVAL | Errno::EACCES,
                ..
            }) => Vec::new(),
            answer => answer?,
        };
        let route = messages.into_iter().find_map(|m| if let Rtnl::NewRoute(route) = m { Some(route) } else { None });
        ways.push(match route {
            None => Way::Free,
            Some(route) => way(host, plan, &route)?,
        });
    }
    Ok(ways)
}

fn way(host: &mut Netlink, plan: &NetPlan, route: &RouteMessage) -> Result<Way, NetError> {
    let via = route.attributes.iter().any(|a| matches!(a, RouteAttribute::Gateway(_) | RouteAttribute::Via(_)));
    let device =
        route.attributes.iter().find_map(|a| if let RouteAttribute::Oif(index) = a { Some(*index) } else { None });
    Ok(match (route.header.kind, device) {
        (RouteType::Local | RouteType::Anycast, _) => Way::Taken(Holder::Host),
        (RouteType::Broadcast | RouteType::Multicast, _) => Way::Taken(Holder::Route),
        (RouteType::Unicast, Some(index)) if !via => {
            match Link::from_answer(host.one(message::get_link_by_index(index)))? {
                Some(link) if link.name == plan.host_ifname => Way::Ours,
                Some(link) if link.group == plan.group() => Way::Taken(Holder::Container { ifname: link.name }),
                _ => Way::Direct(index),
            }
        }
        _ => Way::Free,
    })
}

/// Every interface on which the host answers for one of these addresses now.
pub(super) fn proxies_of(host: &mut Netlink, ips: &[IpAddr]) -> Result<Vec<(u32, IpAddr)>, NetError> {
    let mut found = Vec::new();
    for answer in host.dump(message::list_proxies())? {
        let Rtnl::NewNeighbour(entry) = answer else { continue };
        let ip = entry.attributes.iter().find_map(|a| match a {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(IpAddr::from(*ip)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(IpAddr::from(*ip)),
            _ => None,
        });
        if let Some(ip) = ip.filter(|ip| entry.header.flags.contains(NeighbourFlags::Proxy) && ips.contains(ip)) {
            found.push((entry.header.ifindex, ip));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uplink(index: u32, name: &str, flags: LinkFlags) -> Uplink {
        Uplink { link: Link { index, name: name.into(), flags, ..Link::default() }, addresses: vec![] }
    }

    #[test]
    fn only_interfaces_that_speak_arp_answer_for_containers() {
        let uplinks = [
            uplink(1, "lo", LinkFlags::Up | LinkFlags::Loopback),
            uplink(2, "eth0", LinkFlags::Up),
            uplink(3, "eth1", LinkFlags::Up),
            uplink(4, "eth2", LinkFlags::empty()),
            uplink(5, "tun0", LinkFlags::Up | LinkFlags::Noarp),
            uplink(6, "veth7.0", LinkFlags::Up),
            uplink(7, "bond0p1", LinkFlags::Up | LinkFlags::Port),
        ];
        let listed = [Link { index: 4, name: "eth2".into(), ..Link::default() }];
        let chosen =
            |devs, direct| choose(&devs, &uplinks, &listed, direct).iter().map(|l| l.index).collect::<Vec<_>>();
        assert_eq!(chosen(NeighbourDevs::All, None), [2, 3]);
        assert_eq!(chosen(NeighbourDevs::Detect, Some(3)), [3]);
        assert_eq!(chosen(NeighbourDevs::Detect, Some(5)), [0; 0], "a tunnel has no neighbours");
        assert_eq!(chosen(NeighbourDevs::Detect, None), [0; 0]);
        assert_eq!(chosen(NeighbourDevs::None, Some(2)), [0; 0]);
        assert_eq!(chosen(NeighbourDevs::List(vec!["eth2".into()]), None), [4], "a list is taken at its word");
    }
}
