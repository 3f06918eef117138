//! Containers' networks for real: each test makes a host in a network namespace of its own, and containers in others.
#![expect(clippy::unwrap_used, reason = "a test that fails here has failed")]

use std::fs::File;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};

use super::*;
use crate::Ctid;

mod hostile;

/// A network namespace, kept by its file descriptor.
struct Netns(File);

impl Netns {
    fn new() -> Self {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            Self(File::open("/proc/thread-self/ns/net").unwrap())
        });
        let netns = made.join().unwrap();
        netns.ip("link set lo up");
        netns
    }

    /// Runs something in it, on a thread of its own.
    fn inside<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let there = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
                run()
            });
            there.join().unwrap()
        })
    }

    fn ip(&self, arguments: &str) -> String {
        self.inside(|| run("ip", arguments))
    }
}

/// A container as these tests need one: a network namespace and its plan.
struct Ct {
    netns: Netns,
    plan: NetPlan,
}

impl Ct {
    fn up(host: &HostNet, ctid: u32, addresses: &[&str]) -> Self {
        let plan = plan(host, ctid, addresses);
        let ct = Self { netns: Netns::new(), plan };
        up(ct.netns.0.as_fd(), &ct.plan).unwrap();
        ct
    }

    fn ip(&self) -> IpAddr {
        self.plan.addresses[0].ip
    }
}

fn plan(host: &HostNet, ctid: u32, addresses: &[&str]) -> NetPlan {
    let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
    NetPlan::new(host, Ctid::try_from(ctid).unwrap(), addresses)
}

fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a test on a host of its own: a fresh network namespace, entered by a fresh thread.
fn on_a_host(test: &str, settings: HostNet, body: impl FnOnce(&HostNet) + Send) {
    thread::scope(|scope| {
        let host = scope.spawn(|| {
            // A file table too, so that one test can count its files while others run.
            if let Err(why) = unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_FILES) {
                eprintln!("skipped: {test}: no network namespace: {why}");
                return;
            }
            run("ip", "link set lo up");
            ensure_host(&settings).unwrap();
            body(&settings);
        });
        host.join().unwrap();
    });
}

/// A UDP socket of a namespace, that gives up after a second.
fn socket(netns: &Netns, ip: IpAddr) -> UdpSocket {
    let socket = netns.inside(|| UdpSocket::bind(SocketAddr::new(ip, 0))).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    socket
}

/// Sends from each of these addresses in turn, and returns from which something arrived. The last must arrive: nothing else says when to stop.
/// On a busy machine one may be lost, so that is sent again.
fn arrives(from: &Netns, sources: &[IpAddr], to: &UdpSocket) -> Vec<IpAddr> {
    // A host that refuses in the sender's own stack is a refusal like any other.
    let send = |source: &IpAddr| drop(socket(from, *source).send_to(b"vz", to.local_addr().unwrap()));
    sources.iter().for_each(send);
    let (last, mut seen, mut again) = (*sources.last().unwrap(), Vec::new(), 0);
    while seen.last() != Some(&last) {
        match to.recv_from(&mut [0; 16]) {
            Ok((_, from)) => seen.push(from.ip()),
            Err(e) => {
                again += 1;
                assert!(again < 6, "the packet that is allowed arrives: {e}");
                send(&last);
            }
        }
    }
    seen
}

#[test]
fn two_containers_reach_each_other_and_the_host_in_both_families() {
    on_a_host("reach", HostNet::default(), |host| {
        run("ip", "addr add 192.0.2.1/32 dev lo");
        let one = Ct::up(host, 101, &["10.0.0.101", "10.0.0.201/24", "2001:db8::101"]);
        let two = Ct::up(host, 102, &["10.0.0.102", "2001:db8::102/64"]);
        for (from, to) in [(0, 0), (2, 1)] {
            let (from, to) = (one.plan.addresses[from].ip, two.plan.addresses[to].ip);
            assert_eq!(arrives(&one.netns, &[from], &socket(&two.netns, to)), [from]);
            assert_eq!(arrives(&two.netns, &[to], &socket(&one.netns, from)), [to]);
        }
        let at_host = UdpSocket::bind("192.0.2.1:0").unwrap();
        assert_eq!(arrives(&one.netns, &[one.ip()], &at_host), [one.ip()]);
        let shown = one.netns.ip("-o addr show dev venet0");
        assert!(shown.contains("10.0.0.101/32 scope global venet0:0"), "{shown}");
        assert!(shown.contains("10.0.0.201/24 scope global venet0:1"), "{shown}");
        assert!(!shown.contains("fe80"), "{shown}");
    });
}

/// A machine beyond the host, on an ordinary network: `eth0` here, `peer0` there, which knows no way to any container.
fn outside() -> Netns {
    let world = Netns::new();
    run("ip", "link add eth0 type veth peer name peer0");
    let pid_path = format!("/proc/{}/fd/{}", nix::unistd::gettid(), world.0.as_raw_fd());
    run("ip", &format!("link set peer0 netns {pid_path}"));
    // Nobody else is here: no second of duplicate detection before an address may be used.
    std::fs::write("/proc/sys/net/ipv6/conf/eth0/accept_dad", "0").unwrap();
    world.inside(|| std::fs::write("/proc/sys/net/ipv6/conf/peer0/accept_dad", "0").unwrap());
    run("ip", "addr add 192.0.2.1/24 dev eth0");
    run("ip", "-6 addr add 2001:db8:2::1/64 dev eth0 nodad");
    run("ip", "link set eth0 up");
    world.ip("addr add 192.0.2.2/24 dev peer0");
    world.ip("-6 addr add 2001:db8:2::2/64 dev peer0 nodad");
    world.ip("link set peer0 up");
    // The first end up is set going by a kernel thread, as in `wait_until_running`.
    let deadline = Instant::now() + Duration::from_secs(5);
    while !run("ip", "link show eth0").contains("state UP") {
        assert!(Instant::now() < deadline);
    }
    world
}

#[test]
fn masquerade_lets_a_private_address_reach_the_outside_as_the_host() {
    on_a_host("masquerade", HostNet { masquerade: true, ..HostNet::default() }, |host| {
        let world = outside();
        let ct = Ct::up(host, 101, &["10.0.0.101", "fd00::101"]);
        for (own, there, seen) in
            [("10.0.0.101", "192.0.2.2", "192.0.2.1"), ("fd00::101", "2001:db8:2::2", "2001:db8:2::1")]
        {
            let server = socket(&world, there.parse().unwrap());
            let client = socket(&ct.netns, own.parse().unwrap());
            client.send_to(b"ping", server.local_addr().unwrap()).unwrap();
            let (_, from) = server.recv_from(&mut [0; 16]).unwrap();
            assert_eq!(from.ip(), seen.parse::<IpAddr>().unwrap());
            server.send_to(b"pong", from).unwrap();
            assert_eq!(client.recv(&mut [0; 16]).unwrap(), 4, "the answer finds its way back");
        }
        let two = Ct::up(host, 102, &["10.0.0.102"]);
        assert_eq!(
            arrives(&ct.netns, &[ct.ip()], &socket(&two.netns, two.ip())),
            [ct.ip()],
            "between containers nothing is translated"
        );
    });
}

#[test]
fn an_address_of_the_uplinks_subnet_is_answered_for_with_arp_and_ndp() {
    on_a_host("proxy", HostNet::default(), |host| {
        let world = outside();
        let ct = Ct::up(host, 101, &["192.0.2.101", "2001:db8:2::101"]);
        for (ip, there) in [("192.0.2.101", "192.0.2.2"), ("2001:db8:2::101", "2001:db8:2::2")] {
            let there = there.parse().unwrap();
            assert_eq!(arrives(&world, &[there], &socket(&ct.netns, ip.parse().unwrap())), [there]);
        }
        let proxies = run("ip", "neigh show proxy");
        assert!(proxies.contains("192.0.2.101 dev eth0") && proxies.contains("2001:db8:2::101 dev eth0"), "{proxies}");
        down(&ct.plan).unwrap();
        assert_nothing_left();
    });
}

fn assert_nothing_left() {
    assert_eq!(run("ip", "neigh show proxy"), "");
    assert_eq!(run("ip", "-6 neigh show proxy"), "");
    let links = run("ip", "-o link show");
    assert!(!links.contains(": vz"), "{links}");
    let routes = run("ip", "route show") + &run("ip", "-6 route show");
    assert!(!routes.contains("vz"), "{routes}");
}

#[test]
fn addresses_come_and_go_while_the_container_runs() {
    on_a_host("live", HostNet::default(), |host| {
        let _world = outside();
        let ct = Ct::up(host, 101, &["192.0.2.101"]);
        let two = Ct::up(host, 102, &["192.0.2.102", "2001:db8::102"]);
        let more: Vec<Address> = vec!["192.0.2.201/24".parse().unwrap(), "2001:db8::201".parse().unwrap()];
        for _ in 0..2 {
            add(ct.netns.0.as_fd(), &ct.plan, &more).unwrap();
            add(ct.netns.0.as_fd(), &ct.plan, &more).unwrap();
            assert_eq!(arrives(&ct.netns, &[more[0].ip], &socket(&two.netns, two.ip())), [more[0].ip]);
            let six = "2001:db8::102".parse().unwrap();
            assert_eq!(arrives(&ct.netns, &[more[1].ip], &socket(&two.netns, six)), [more[1].ip]);
            assert!(
                ct.netns.ip("-4 -o addr show dev venet0").contains("192.0.2.201/24 brd")
                    || ct.netns.ip("-4 -o addr show dev venet0").contains("venet0:1")
            );
            remove(ct.netns.0.as_fd(), &ct.plan, &more).unwrap();
            remove(ct.netns.0.as_fd(), &ct.plan, &more).unwrap();
            assert!(!ct.netns.ip("-o addr show dev venet0").contains("201"));
            assert!(!run("ip", "neigh show proxy").contains("201"));
            assert!(!run("ip", "route show").contains("192.0.2.201"));
        }
        assert_eq!(
            arrives(&ct.netns, &[ct.ip()], &socket(&two.netns, two.ip())),
            [ct.ip()],
            "the first address stayed"
        );
    });
}

#[test]
fn an_address_someone_has_is_refused_and_nothing_is_left() {
    on_a_host("in use", HostNet::default(), |host| {
        let _world = outside();
        let first = Ct::up(host, 101, &["192.0.2.101"]);
        let before = run("ip", "neigh show proxy");
        let netns = Netns::new();
        for (address, holder) in [
            ("192.0.2.101", Holder::Container { ifname: "vz101".into() }),
            ("192.0.2.1", Holder::Host),
            ("192.0.2.255", Holder::Route),
        ] {
            let error = up(netns.0.as_fd(), &plan(host, 102, &["192.0.2.102", address])).unwrap_err();
            match error.reason() {
                NetError::AddressInUse { address: which, holder: who } => {
                    assert_eq!((which.to_string().as_str(), who), (address, &holder))
                }
                other => panic!("{other}"),
            }
            assert_eq!(run("ip", "neigh show proxy"), before);
            assert!(!run("ip", "link show").contains("vz102"));
        }
        let clash: Vec<Address> = vec!["192.0.2.103".parse().unwrap(), "192.0.2.101".parse().unwrap()];
        let two = Ct::up(host, 102, &["192.0.2.102"]);
        assert!(matches!(add(two.netns.0.as_fd(), &two.plan, &clash), Err(NetError::AddressInUse { .. })));
        assert!(!two.netns.ip("-o addr show").contains("192.0.2.103"));
        // A plan that lists an address its container never got takes nothing from the one that has it.
        down(&plan(host, 102, &["192.0.2.102", "192.0.2.101"])).unwrap();
        assert_eq!(run("ip", "neigh show proxy"), before);
        down(&first.plan).unwrap();
        assert_nothing_left();
    });
}

#[test]
fn what_a_failed_start_made_is_gone_after_it() {
    on_a_host("undo", HostNet::default(), |host| {
        let _world = outside();
        let netns = Netns::new();
        // The kernel takes no such packet size, no such interface exists, and the address is a duplicate inside: three different steps fail.
        let mut plans = vec![plan(host, 101, &["192.0.2.101"]); 3];
        plans[0].mtu = Some(40);
        plans[1].neighbour_devs = NeighbourDevs::List(vec!["eth9".into()]);
        plans[2].addresses.push("192.0.2.101".parse().unwrap());
        for plan in plans {
            assert!(up(netns.0.as_fd(), &plan).is_err());
            assert_nothing_left();
            assert!(!netns.ip("link show").contains("venet0"));
        }
    });
}

#[test]
fn down_after_the_namespace_died_leaves_nothing_and_may_be_repeated() {
    on_a_host("died", HostNet::default(), |host| {
        let _world = outside();
        let ct = Ct::up(host, 101, &["192.0.2.101", "2001:db8:2::101"]);
        let plan = ct.plan.clone();
        drop(ct);
        down(&plan).unwrap();
        down(&plan).unwrap();
        assert_nothing_left();
    });
}

#[test]
fn up_takes_away_what_a_crashed_start_left_but_no_interface_of_someone_else() {
    on_a_host("stale", HostNet::default(), |host| {
        let _world = outside();
        let stale = Ct::up(host, 101, &["192.0.2.101"]);
        let fresh = Ct::up(host, 101, &["192.0.2.101", "192.0.2.103"]);
        assert!(!stale.netns.ip("link show").contains("venet0"));
        let two = Ct::up(host, 102, &["192.0.2.102"]);
        assert_eq!(arrives(&fresh.netns, &[fresh.ip()], &socket(&two.netns, two.ip())), [fresh.ip()]);
        run("ip", "link add vz104 type bridge");
        let netns = Netns::new();
        assert!(matches!(up(netns.0.as_fd(), &plan(host, 104, &[])), Err(NetError::NameTaken { .. })));
        assert!(matches!(down(&plan(host, 104, &[])), Err(NetError::NameTaken { .. })));
        assert!(run("ip", "link show").contains("vz104"));
    });
}

#[test]
fn fifty_starts_and_stops_change_no_count_and_are_quick() {
    on_a_host("cycles", HostNet::default(), |host| {
        let _world = outside();
        // The kernel is still making eth0's own IPv6 routes.
        let count = || {
            (run("ip", "-o link show") + &run("ip", "route show table all"))
                .lines()
                .filter(|l| !l.contains("eth0"))
                .count()
        };
        let (before, fds) = (count(), open_files());
        let netns: Vec<Netns> = (0..50).map(|_| Netns::new()).collect();
        let plan = plan(host, 101, &["192.0.2.101", "2001:db8:2::101"]);
        let (mut ups, mut downs) = (Duration::ZERO, Duration::ZERO);
        for netns in &netns {
            let start = Instant::now();
            up(netns.0.as_fd(), &plan).unwrap();
            ups += start.elapsed();
            let start = Instant::now();
            down(&plan).unwrap();
            downs += start.elapsed();
        }
        eprintln!("up {:?}, down {:?} each", ups / 50, downs / 50);
        drop(netns);
        assert_eq!(count(), before);
        assert_eq!(open_files(), fds);
        assert_nothing_left();
    });
}

fn open_files() -> Vec<String> {
    let files = std::fs::read_dir("/proc/thread-self/fd").unwrap();
    files.filter_map(|f| Some(std::fs::read_link(f.unwrap().path()).ok()?.display().to_string())).collect()
}

#[test]
fn a_neighbour_that_has_the_address_is_found_and_a_free_one_costs_only_the_wait() {
    on_a_host("probe", HostNet::default(), |host| {
        let world = outside();
        world.ip("addr add 192.0.2.50/24 dev peer0");
        world.ip("-6 addr add 2001:db8:2::50/64 dev peer0 nodad");
        for taken in ["192.0.2.50", "2001:db8:2::50"] {
            let plan = plan(host, 101, &["192.0.2.101", taken]);
            let ips: Vec<IpAddr> = plan.ips().collect();
            match Probe::send(&plan, &ips).unwrap().finish(Duration::from_secs(5)) {
                Err(NetError::AddressInUse { address, holder: Holder::Neighbour { device, mac } }) => {
                    assert_eq!((address.to_string().as_str(), device.as_str(), mac.len()), (taken, "eth0", 6));
                }
                other => panic!("{taken}: {other:?}"),
            }
        }
        let mut free = plan(host, 101, &["192.0.2.101", "2001:db8:2::101"]);
        let ips: Vec<IpAddr> = free.ips().collect();
        let start = Instant::now();
        let probe = Probe::send(&free, &ips).unwrap();
        eprintln!("send {:?}", start.elapsed());
        probe.finish(PROBE_WAIT).unwrap();
        assert!(start.elapsed() >= PROBE_WAIT);
        let known = run("ip", "neigh show");
        assert!(
            !known.contains("192.0.2.101") && !known.contains("2001:db8:2::101"),
            "the question is forgotten: {known}"
        );
        free.neighbour_devs = NeighbourDevs::List(vec!["eth9".into()]);
        Probe::send(&free, &ips).unwrap().finish(PROBE_WAIT).unwrap();
        free.error_on_arpfail = true;
        assert!(matches!(Probe::send(&free, &ips), Err(NetError::DetectionFailed { .. })));
    });
}

#[test]
fn an_announcement_reaches_the_neighbours_that_knew_the_address_elsewhere() {
    on_a_host("announce", HostNet::default(), |host| {
        let world = outside();
        let ct = Ct::up(host, 101, &["192.0.2.101", "2001:db8:2::101"]);
        for ip in ct.plan.ips() {
            world.ip(&format!("neigh add {ip} lladdr 02:00:00:00:00:99 nud stale dev peer0"));
        }
        let ips: Vec<IpAddr> = ct.plan.ips().collect();
        let start = Instant::now();
        announce(&ct.plan, &ips).unwrap();
        eprintln!("announce {:?}", start.elapsed());
        let deadline = Instant::now() + Duration::from_secs(5);
        while world.ip("neigh show").contains("00:99") {
            assert!(Instant::now() < deadline, "{}", world.ip("neigh show"));
        }
        assert_eq!(world.ip("neigh show").matches("2001:db8:2::101").count(), 1);
    });
}

#[test]
fn two_nodes_on_one_machine_keep_their_containers_and_rules_apart() {
    on_a_host("two nodes", HostNet::default(), |host| {
        let other = HostNet { prefix: "va".into(), table: "va".into(), masquerade: true, ..HostNet::default() };
        ensure_host(&other).unwrap();
        let (ours, theirs) = (Ct::up(host, 101, &["10.0.0.101"]), Ct::up(&other, 101, &["10.0.1.101"]));
        assert_eq!(arrives(&ours.netns, &[ours.ip()], &socket(&theirs.netns, theirs.ip())), [ours.ip()]);
        down(&ours.plan).unwrap();
        remove_table(host).unwrap();
        assert_eq!(ensure_host(&other).unwrap(), Table::Present);
        assert!(run("ip", "link show").contains("va101"));
    });
}

#[test]
fn the_support_table_tells_what_is_there_and_changes_nothing() {
    on_a_host("support", HostNet::default(), |host| {
        let before = run("ip", "link show") + &run("nft", "list ruleset");
        let lines = support(host);
        let available = |feature: &str| lines.iter().find(|l| l.feature == feature).unwrap().available;
        assert!(
            available("veth") && available("nft with fib lookups") && available("source check loaded"),
            "{lines:#?}"
        );
        assert!(available("IPv4 forwarding") && available("strict reverse path filter"), "{lines:#?}");
        remove_table(host).unwrap();
        std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "2").unwrap();
        let lines = support(host);
        let available = |feature: &str| lines.iter().find(|l| l.feature == feature).unwrap().available;
        assert!(!available("source check loaded") && !available("strict reverse path filter"), "{lines:#?}");
        ensure_host(host).unwrap();
        assert_eq!(run("ip", "link show") + &run("nft", "list ruleset"), before);
    });
}

#[test]
fn forwarding_ipv6_does_not_cost_the_host_its_own_default_route() {
    on_a_host("accept_ra", HostNet { ipv6: false, ..HostNet::default() }, |host| {
        run("ip", "link add eth0 type bridge");
        let accept_ra = || std::fs::read_to_string("/proc/sys/net/ipv6/conf/eth0/accept_ra").unwrap();
        assert_eq!(accept_ra().trim(), "1");
        ensure_host(&HostNet { ipv6: true, ..host.clone() }).unwrap();
        assert_eq!(accept_ra().trim(), "2");
    });
}

#[test]
fn the_hosts_own_addresses_are_found() {
    on_a_host("own", HostNet::default(), |_| {
        let _world = outside();
        let own = host_addresses().unwrap();
        assert_eq!(check_address("192.0.2.1".parse().unwrap(), &own), Err(Unusable::HostOwn));
        assert_eq!(check_address("2001:db8:2::1".parse().unwrap(), &own), Err(Unusable::HostOwn));
        assert_eq!(check_address("192.0.2.9".parse().unwrap(), &own), Ok(()));
    });
}
