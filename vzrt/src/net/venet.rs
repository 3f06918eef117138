//! One container's network made, changed and removed.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use rtnetlink::packet_route::RouteNetlinkMessage as Rtnl;
use rtnetlink::packet_route::address::AddressAttribute;

use super::address::Address;
use super::error::{Holder, NetError};
use super::host;
use super::message;
use super::neighbours::{self, Link, Site, Way};
use super::netlink::{Group, Netlink, tolerate};
use super::plan::{INSIDE_NAME, NetPlan};

/// `linkwatch` runs at least once a second. A machine busier than that has other worries than a container's first packets: no error.
const LINKWATCH_PATIENCE: Duration = Duration::from_secs(1);

/// The two ends of a container's pair, each by its number in its own namespace.
#[derive(Debug, Clone, Copy)]
struct Pair {
    outer: u32,
    inner: u32,
}

/// Gives a container its network: `venet0` with its addresses inside `netns`, routes and proxy neighbour entries on the host.
///
/// The calling thread's network namespace is the host's; [`super::ensure_host`] comes first. Whatever a crashed start of this container left is
/// removed. With no addresses there is an interface all the same, for [`add`].
///
/// # Errors
/// [`NetError::AddressInUse`] if this host has one of the addresses elsewhere; anything else the kernel refuses. Nothing is left then.
pub fn up(netns: BorrowedFd<'_>, plan: &NetPlan) -> Result<(), NetError> {
    let mut host = Netlink::open()?;
    // First, because a stale route to ourselves would hide on which subnet an address really is.
    remove_link(&mut host, plan)?;
    let ips: Vec<IpAddr> = plan.ips().collect();
    let sites = neighbours::survey(&mut host, plan, &ips)?;
    raise(&mut host, netns, plan, &sites).map_err(|error| {
        let undone = remove_proxies(&mut host, plan, &ips).and_then(|()| remove_link(&mut host, plan));
        error.after_undo(undone)
    })
}

/// The addresses go in first and out last: a host that answers for an address its container doesn't have yet would refuse connections in its name.
fn raise(host: &mut Netlink, netns: BorrowedFd<'_>, plan: &NetPlan, sites: &[Site]) -> Result<(), NetError> {
    let ipv6 = host::has_ipv6();
    let made = host.all(vec![
        message::create_pair(plan, netns),
        message::configure_host_end(plan, ipv6),
        message::host_end_up(plan),
        message::get_link(&plan.host_ifname),
    ])?;
    let link = made.into_iter().last().map(|answer| Link::from_answer(Ok(answer))).transpose()?.flatten();
    let pair = pair_of(plan, link)?;

    let mut requests =
        vec![message::configure_inner_end(pair.inner, ipv6), message::inner_end_up(pair.inner), message::loopback_up()];
    let mut labels = Labels::default();
    requests.extend(plan.addresses.iter().map(|a| message::add_address(pair.inner, *a, labels.next(a.ip).as_deref())));
    requests.extend(one_per_family(plan.ips()).map(|ip| message::default_route(pair.inner, ip)));
    Netlink::open_in(netns)?.all(requests)?;

    add_routes(host, plan, pair, sites)?;
    add_proxies(host, sites)?;
    wait_until_running(host, plan)
}

/// The second end to come up runs at once; the first, the host's, was up without a carrier and is set going by a kernel thread (`linkwatch`), which drops
/// what is sent until then. On an idle machine it is done before this looks; on a busy one the container's first answers would be lost.
fn wait_until_running(host: &mut Netlink, plan: &NetPlan) -> Result<(), NetError> {
    let mut running = || {
        let link = Link::from_answer(host.one(message::get_link(&plan.host_ifname)))?;
        Ok(link.is_some_and(|link| link.operates))
    };
    if running()? {
        return Ok(());
    }
    let changes = Netlink::open_for(Group::Links)?;
    let until = Instant::now() + LINKWATCH_PATIENCE;
    // Listening first and looking then, so that no change is between the two.
    while !running()? && changes.changes(until)?.is_some() {}
    Ok(())
}

/// Asks the kernel for a pair it must refuse: for its name (`EINVAL`) if it knows veth, for its kind (`EOPNOTSUPP`) if it doesn't.
pub(super) fn kernel_has_veth() -> Result<bool, NetError> {
    match Netlink::open()?.one(message::impossible_pair()) {
        Err(NetError::Netlink { source: Errno::EINVAL, .. }) => Ok(true),
        Err(NetError::Netlink { source: Errno::EOPNOTSUPP, .. }) => Ok(false),
        answer => answer.map(|_| true),
    }
}

fn pair_of(plan: &NetPlan, link: Option<Link>) -> Result<Pair, NetError> {
    let link = link.ok_or_else(|| NetError::NotUp { name: plan.host_ifname.clone() })?;
    match link.peer {
        Some(inner) if is_container_end(&link, plan) => Ok(Pair { outer: link.index, inner }),
        _ => Err(NetError::NameTaken { name: plan.host_ifname.clone() }),
    }
}

fn is_container_end(link: &Link, plan: &NetPlan) -> bool {
    link.is_veth && link.group == plan.group()
}

/// The first address of each family.
fn one_per_family(ips: impl Iterator<Item = IpAddr> + Clone) -> impl Iterator<Item = IpAddr> {
    let first = |v4: bool| ips.clone().find(move |ip| ip.is_ipv4() == v4);
    [first(true), first(false)].into_iter().flatten()
}

/// The kernel refuses a second route to an address, so this decides a race of two starts; the survey only says it more kindly.
fn add_routes(host: &mut Netlink, plan: &NetPlan, pair: Pair, sites: &[Site]) -> Result<(), NetError> {
    let new: Vec<&Site> = sites.iter().filter(|s| !s.ours).collect();
    let requests = new.iter().map(|s| message::host_route(plan, pair.outer, s.ip, s.source)).collect();
    let answers = host.each(requests)?;
    for (site, answer) in new.into_iter().zip(answers) {
        match answer {
            Err(NetError::Netlink { source: Errno::EEXIST, .. }) => {
                let holder = match neighbours::ways(host, plan, &[site.ip])?.pop() {
                    Some(Way::Taken(holder)) => holder,
                    _ => Holder::Route,
                };
                return Err(NetError::AddressInUse { address: site.ip, holder });
            }
            answer => answer?,
        };
    }
    Ok(())
}

fn add_proxies(host: &mut Netlink, sites: &[Site]) -> Result<(), NetError> {
    for site in sites.iter().filter(|s| s.ip.is_ipv6()) {
        // IPv4 answers for what it forwards elsewhere; IPv6 has a switch of its own, per interface.
        site.neighbours.iter().try_for_each(|device| host::allow_ndp_proxy(&device.name))?;
    }
    host.all(proxies(sites).map(|(device, ip)| message::add_proxy(device, ip)).collect()).map(|_| ())
}

fn proxies(sites: &[Site]) -> impl Iterator<Item = (u32, IpAddr)> {
    sites.iter().flat_map(|site| site.neighbours.iter().map(|device| (device.index, site.ip)))
}

/// Removes a container's network: its host interface with its routes, and the proxy neighbour entries, which are all that can outlive a container.
///
/// Works from the plan alone, after any crash, whether the container's network namespace still exists or not; doing it again does nothing.
///
/// # Errors
/// [`NetError::NameTaken`] if the interface is not a container's; what the kernel refuses.
pub fn down(plan: &NetPlan) -> Result<(), NetError> {
    let mut host = Netlink::open()?;
    let ips: Vec<IpAddr> = plan.ips().collect();
    // Proxies first: stop drawing traffic before there is nowhere to send it.
    remove_proxies(&mut host, plan, &ips)?;
    remove_link(&mut host, plan)
}

/// Removes the proxy neighbour entries of these addresses from whatever interface they are on: the configuration that chose it may be another now.
/// Entries of an address that is routed to another container stay: they are that container's, and a plan may list an address it never got.
///
/// The entries are read before the routes. A container gets its route first, so one whose entry was seen has its route by now.
fn remove_proxies(host: &mut Netlink, plan: &NetPlan, ips: &[IpAddr]) -> Result<(), NetError> {
    let found = neighbours::proxies_of(host, ips)?;
    let ips: Vec<IpAddr> = found.iter().map(|(_, ip)| *ip).collect();
    let ways = neighbours::ways(host, plan, &ips)?;
    let ours = found.into_iter().zip(ways).filter(|(_, way)| !matches!(way, Way::Taken(Holder::Container { .. })));
    let requests = ours.map(|((device, ip), _)| message::delete_proxy(device, ip)).collect();
    host.each(requests)?.into_iter().try_for_each(|answer| tolerate(answer, &[Errno::ENOENT, Errno::ENODEV]))
}

/// Removes the pair, and with it every route through it. Gone already is fine: it dies with the container's network namespace.
fn remove_link(host: &mut Netlink, plan: &NetPlan) -> Result<(), NetError> {
    let Some(link) = Link::from_answer(host.one(message::get_link(&plan.host_ifname)))? else { return Ok(()) };
    if !is_container_end(&link, plan) {
        return Err(NetError::NameTaken { name: link.name });
    }
    tolerate(host.one(message::delete_link(link.index, &link.name)), &[Errno::ENODEV])
}

/// Gives a running container more addresses. One it has already is left as it is.
///
/// `netns` may be in the hands of a hostile root: nothing it does there is trusted, and an address it has put there itself is no error.
///
/// # Errors
/// As [`up`]; the container is then as it was.
pub fn add(netns: BorrowedFd<'_>, plan: &NetPlan, addresses: &[Address]) -> Result<(), NetError> {
    let mut host = Netlink::open()?;
    let pair = pair_of(plan, Link::from_answer(host.one(message::get_link(&plan.host_ifname)))?)?;
    let ips: Vec<IpAddr> = addresses.iter().map(|a| a.ip).collect();
    let sites = neighbours::survey(&mut host, plan, &ips)?;
    let new: Vec<Site> = sites.into_iter().filter(|s| !s.ours).collect();
    let new_addresses: Vec<Address> = addresses.iter().copied().filter(|a| new.iter().any(|s| s.ip == a.ip)).collect();
    let mut inside = Netlink::open_in(netns)?;
    let added = add_inside(&mut inside, pair.inner, &new_addresses)
        .and_then(|()| add_routes(&mut host, plan, pair, &new))
        .and_then(|()| add_proxies(&mut host, &new));
    added.map_err(|error| error.after_undo(take_away(&mut host, &mut inside, plan, pair, &new_addresses)))
}

fn add_inside(inside: &mut Netlink, index: u32, addresses: &[Address]) -> Result<(), NetError> {
    let mut labels = Labels::of(inside, index)?;
    let mut requests: Vec<_> =
        addresses.iter().map(|a| message::add_address(index, *a, labels.next(a.ip).as_deref())).collect();
    requests.extend(one_per_family(addresses.iter().map(|a| a.ip)).map(|ip| message::default_route(index, ip)));
    inside.each(requests)?.into_iter().try_for_each(|answer| tolerate(answer, &[Errno::EEXIST]))
}

/// Takes addresses from a running container. Those it doesn't have are no error.
///
/// # Errors
/// [`NetError::NotUp`] if the container has no interface on the host; what the kernel refuses.
pub fn remove(netns: BorrowedFd<'_>, plan: &NetPlan, addresses: &[Address]) -> Result<(), NetError> {
    let mut host = Netlink::open()?;
    let pair = pair_of(plan, Link::from_answer(host.one(message::get_link(&plan.host_ifname)))?)?;
    let mut inside = Netlink::open_in(netns)?;
    take_away(&mut host, &mut inside, plan, pair, addresses)
}

/// The order of [`add`] backwards. Each step is tried whatever became of the one before; the first error is returned.
fn take_away(
    host: &mut Netlink,
    inside: &mut Netlink,
    plan: &NetPlan,
    pair: Pair,
    addresses: &[Address],
) -> Result<(), NetError> {
    let ips: Vec<IpAddr> = addresses.iter().map(|a| a.ip).collect();
    let proxies = remove_proxies(host, plan, &ips);
    let routes = ips.iter().map(|ip| message::delete_host_route(plan, pair.outer, *ip)).collect();
    let routes = host.each(routes).and_then(|answers| {
        answers.into_iter().try_for_each(|answer| tolerate(answer, &[Errno::ESRCH, Errno::ENODEV]))
    });
    let requests = addresses.iter().map(|a| message::delete_address(pair.inner, *a)).collect();
    let gone = [Errno::EADDRNOTAVAIL, Errno::ENODEV, Errno::EAFNOSUPPORT];
    let inner =
        inside.each(requests).and_then(|answers| answers.into_iter().try_for_each(|answer| tolerate(answer, &gone)));
    proxies.and(routes).and(inner)
}

/// The names of a container's IPv4 addresses, as OpenVZ gave them: the lowest free `venet0:N`.
#[derive(Debug, Default)]
struct Labels {
    taken: BTreeSet<String>,
    next: u32,
}

impl Labels {
    /// Those in use on an interface inside a container.
    fn of(inside: &mut Netlink, index: u32) -> Result<Self, NetError> {
        let mut labels = Self::default();
        for answer in inside.dump(message::list_addresses())? {
            if let Rtnl::NewAddress(address) = answer
                && address.header.index == index
            {
                labels.taken.extend(address.attributes.into_iter().filter_map(|a| match a {
                    AddressAttribute::Label(label) => Some(label),
                    _ => None,
                }));
            }
        }
        Ok(labels)
    }

    fn next(&mut self, ip: IpAddr) -> Option<String> {
        if ip.is_ipv6() {
            return None;
        }
        loop {
            let label = format!("{INSIDE_NAME}:{}", self.next);
            self.next += 1;
            if !self.taken.contains(&label) {
                return Some(label);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that fails here has failed")]

    use super::*;

    #[test]
    fn labels_fill_the_gaps_and_ipv6_has_none() {
        let mut labels = Labels { taken: ["venet0".into(), "venet0:1".into()].into(), next: 0 };
        let v4 = "10.0.0.1".parse().unwrap();
        assert_eq!(labels.next(v4).as_deref(), Some("venet0:0"));
        assert_eq!(labels.next("2001:db8::1".parse().unwrap()), None);
        assert_eq!(labels.next(v4).as_deref(), Some("venet0:2"));
    }

    #[test]
    fn one_default_route_per_family_that_has_an_address() {
        let ips = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<IpAddr>>();
        let routes = |texts: &[&str]| one_per_family(ips(texts).into_iter()).count();
        assert_eq!(routes(&[]), 0);
        assert_eq!(routes(&["10.0.0.1", "10.0.0.2"]), 1);
        assert_eq!(routes(&["2001:db8::1", "10.0.0.2", "10.0.0.3"]), 2);
    }
}
