//! What the runtime sets and what network managers inside read agree: no manager takes an address away, and none waits for ever.

use std::time::Duration;

use tests::containers::node_with;
use tests::node::Node;
use tests::wait::wait_until;

const NETWORKD: &str = "/etc/systemd/network/00-vz-venet0.network";

/// Addresses and default routes of `venet0`, without what changes by itself.
fn network(node: &Node) -> String {
    let words = "s/ proto [a-z]*//; s/ metric [0-9]*//; s/ pref [a-z]*//; s/ *$//";
    let show = "ip -o addr show dev venet0 scope global | sed 's/^.*inet/inet/; s/ valid_lft.*//'";
    let routes = format!("(ip route show default; ip -6 route show default) | sed '{words}'");
    node.inside(&format!("{show} | sort; {routes} | sort -u"))
}

fn networkd_is_done(node: &Node, state: &str) {
    let done =
        wait_until(Duration::from_secs(20), || node.inside("networkctl --no-legend list venet0").contains(state));
    assert!(done, "{:?}", node.vzctl(["exec2", "101", "networkctl status venet0; journalctl -u systemd-networkd"]));
}

#[test]
fn networkd_of_debian_finds_the_addresses_and_keeps_them() {
    let test = "networkd_of_debian_finds_the_addresses_and_keeps_them";
    let Some(node) = node_with(test, "debian-12-x86_64") else { return };
    let addresses = ["--ipadd", "10.84.9.1", "--ipadd", "10.84.9.2/24", "--ipadd", "2001:db8:84:9::1"];
    node.done(["create", "101", "--ostemplate", "debian-12-x86_64"].into_iter().chain(addresses));
    node.done(["start", "101", "--wait"]);
    let before = network(&node);
    assert_eq!(before.lines().count(), 5, "{before}");
    assert_eq!(node.inside(&format!("grep -c ^KeepConfiguration= {NETWORKD}")), "1");

    node.inside("systemctl --quiet enable --now systemd-networkd");
    networkd_is_done(&node, "configured");
    assert_eq!(network(&node), before, "as it begins");
    node.inside("timeout 20 /lib/systemd/systemd-networkd-wait-online -i venet0");

    node.done(["restart", "101", "--wait"]);
    networkd_is_done(&node, "configured");
    assert_eq!(network(&node), before, "with it from the start");
    node.inside("systemctl restart systemd-networkd");
    networkd_is_done(&node, "configured");
    assert_eq!(network(&node), before, "as it begins anew");

    node.done(["set", "101", "--ipdel", "10.84.9.1", "--ipadd", "10.84.9.3", "--save"]);
    let changed = network(&node);
    assert!(changed.contains("10.84.9.3/32") && !changed.contains("10.84.9.1/32"), "{changed}");
    node.inside("systemctl restart systemd-networkd");
    networkd_is_done(&node, "configured");
    assert_eq!(network(&node), changed, "and what was changed since");

    node.done(["set", "101", "--ipdel", "all", "--save"]);
    node.inside(&format!("test ! -e {NETWORKD}"));
    node.done(["stop", "101"]);
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn ifup_of_busybox_finds_the_addresses_and_keeps_them() {
    let Some(node) = node_with("ifup_of_busybox_finds_the_addresses_and_keeps_them", "busybox") else { return };
    node.done(["create", "101", "--ostemplate", "busybox", "--ipadd", "10.84.9.11", "--ipadd", "10.84.9.12/24"]);
    node.done(["start", "101", "--wait"]);
    node.inside("mkdir -p /etc/network/if-up.d /etc/network/if-pre-up.d");
    node.inside("printf 'auto lo\\niface lo inet loopback\\n# mine\\n' > /etc/network/interfaces");
    node.done(["restart", "101", "--wait"]);
    let before = network(&node);
    node.inside("ifup venet0");
    assert_eq!(network(&node), before);
    // What is taken away by hand comes back, for the file says what there is to be.
    node.inside("ip route del default dev venet0 && ip addr del 10.84.9.11/32 dev venet0 && ifup -f venet0");
    assert!(network(&node).contains("10.84.9.11/32") && network(&node).contains("default dev venet0"));
    node.done(["set", "101", "--ipdel", "all", "--save"]);
    assert_eq!(node.inside("cat /etc/network/interfaces"), "auto lo\niface lo inet loopback\n# mine");
    node.done(["stop", "101"]);
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}
