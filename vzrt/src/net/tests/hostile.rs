//! What the root of a container tries, and does not get.

use super::*;

#[test]
fn a_container_cannot_send_from_an_address_that_is_not_its_own() {
    on_a_host("spoof", HostNet::default(), |host| {
        for own in ["192.0.2.1/32", "192.0.2.2/32", "2001:db8:1::1/128", "2001:db8:1::2/128"] {
            run("ip", &format!("addr add {own} dev lo"));
        }
        let evil = Ct::up(host, 101, &["10.0.0.101", "2001:db8::101"]);
        let victim = Ct::up(host, 102, &["10.0.0.102", "2001:db8::102"]);
        let third = Ct::up(host, 103, &["10.0.0.103", "2001:db8::103"]);
        // Its neighbour's, the host's, the world's, link-local, private.
        let forged4 = ["10.0.0.102", "192.0.2.2", "8.8.8.8", "169.254.1.1", "10.99.0.1"];
        let forged6 = ["2001:db8::102", "2001:db8:1::2", "2001:4860::8", "fd00::1"];
        for (forged, own, target) in [
            (&forged4[..], "10.0.0.101", socket(&third.netns, third.ip())),
            (&forged6[..], "2001:db8::101", socket(&third.netns, "2001:db8::103".parse().unwrap())),
            (&forged4[..], "10.0.0.101", UdpSocket::bind("192.0.2.1:0").unwrap()),
            (&forged6[..], "2001:db8::101", UdpSocket::bind("[2001:db8:1::1]:0").unwrap()),
        ] {
            target.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut sources: Vec<IpAddr> = forged.iter().map(|f| f.parse().unwrap()).collect();
            for ip in &sources {
                let bits = if ip.is_ipv6() { "128 nodad" } else { "32" };
                evil.netns.ip(&format!("addr replace {ip}/{bits} dev venet0"));
            }
            sources.push(own.parse().unwrap());
            assert_eq!(arrives(&evil.netns, &sources, &target), [own.parse::<IpAddr>().unwrap()]);
        }
        assert_eq!(arrives(&victim.netns, &[victim.ip()], &socket(&third.netns, third.ip())), [victim.ip()]);
    });
}

#[test]
fn without_the_table_the_reverse_path_filter_still_stops_forged_ipv4() {
    on_a_host("second wall", HostNet::default(), |host| {
        let evil = Ct::up(host, 101, &["10.0.0.101"]);
        let target = Ct::up(host, 102, &["10.0.0.102"]);
        run("nft", "flush ruleset");
        evil.netns.ip("addr add 10.0.0.103/32 dev venet0");
        let sources = ["10.0.0.103".parse().unwrap(), evil.ip()];
        assert_eq!(arrives(&evil.netns, &sources, &socket(&target.netns, target.ip())), [evil.ip()]);
        assert_eq!(ensure_host(host).unwrap(), Table::Loaded, "the next command loads the table again");
        assert_eq!(ensure_host(host).unwrap(), Table::Present);
    });
}

#[test]
fn another_mac_or_arp_breaks_only_the_container_that_does_it() {
    on_a_host("mac", HostNet::default(), |host| {
        let evil = Ct::up(host, 101, &["10.0.0.101"]);
        let (two, three) = (Ct::up(host, 102, &["10.0.0.102"]), Ct::up(host, 103, &["10.0.0.103"]));
        let target = socket(&three.netns, three.ip());
        for change in ["arp on", &format!("address {}", mac_text(two.plan.mac())), "address 02:00:00:00:00:01"] {
            evil.netns.ip(&format!("link set venet0 {change}"));
            let _ = socket(&evil.netns, evil.ip()).send_to(b"evil", target.local_addr().unwrap());
            assert_eq!(arrives(&two.netns, &[two.ip()], &target), [two.ip()], "{change}");
        }
        evil.netns.ip(&format!("link set venet0 arp off address {}", mac_text(evil.plan.mac())));
        assert_eq!(arrives(&evil.netns, &[evil.ip()], &target), [evil.ip()]);
    });
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[test]
fn a_container_without_an_address_cannot_talk_to_the_hosts_dhcp_server() {
    on_a_host("dhcp", HostNet::default(), |host| {
        let evil = Ct::up(host, 101, &[]);
        let honest = Ct::up(host, 102, &["10.0.0.102"]);
        evil.netns.ip("route add default dev venet0");
        let server = UdpSocket::bind("0.0.0.0:0").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let to = SocketAddr::new("255.255.255.255".parse().unwrap(), server.local_addr().unwrap().port());
        for ct in [&evil, &honest] {
            let client = socket(&ct.netns, "0.0.0.0".parse().unwrap());
            client.set_broadcast(true).unwrap();
            nix::sys::socket::setsockopt(&client, nix::sys::socket::sockopt::BindToDevice, &"venet0".into()).unwrap();
            client.send_to(b"discover", to).unwrap();
        }
        let (_, from) = server.recv_from(&mut [0; 16]).unwrap();
        assert_eq!(from.ip(), honest.ip(), "only the one with an address is heard");
        assert!(run("nft", "list table inet vz").contains("ip saddr 0.0.0.0/8 counter packets 1"));
    });
}

#[test]
fn a_flood_of_connections_is_cut_off_at_the_containers_own_limit() {
    let settings = HostNet { masquerade: true, tracked_connections_max: 20, ..HostNet::default() };
    on_a_host("conntrack", settings, |host| {
        let world = outside();
        let evil = Ct::up(host, 101, &["10.0.0.101"]);
        let other = Ct::up(host, 102, &["10.0.0.102"]);
        let server = socket(&world, "192.0.2.2".parse().unwrap());
        let clients: Vec<UdpSocket> = (0..60).map(|_| socket(&evil.netns, evil.ip())).collect();
        for client in &clients {
            client.send_to(b"evil", server.local_addr().unwrap()).unwrap();
        }
        socket(&other.netns, other.ip()).send_to(b"other", server.local_addr().unwrap()).unwrap();
        let mut flood = 0;
        loop {
            let mut packet = [0; 16];
            let length = server.recv(&mut packet).unwrap();
            if &packet[..length] == b"other" {
                break;
            }
            flood += 1;
        }
        assert_eq!(flood, 20);
    });
}

#[test]
fn a_flood_of_destinations_leaves_the_other_containers_their_network() {
    on_a_host("neighbours", HostNet::default(), |host| {
        let evil = Ct::up(host, 101, &["10.0.0.101"]);
        let (two, three) = (Ct::up(host, 102, &["10.0.0.102"]), Ct::up(host, 103, &["10.0.0.103"]));
        let client = socket(&evil.netns, evil.ip());
        for n in 0..5000_u32 {
            let to = std::net::Ipv4Addr::from(0x0a63_0000 + n);
            let _ = client.send_to(b"x", (to, 9));
        }
        assert_eq!(arrives(&two.netns, &[two.ip()], &socket(&three.netns, three.ip())), [two.ip()]);
    });
}
