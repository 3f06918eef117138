#![expect(clippy::unwrap_used, reason = "a test that panics is a test that fails")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// A tree made small, with what tells which managers it has.
struct Tree {
    dir: TempDir,
    root: Root,
}

impl Tree {
    fn with(files: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let tree = Self { dir, root };
        files.iter().for_each(|file| tree.write(file, ""));
        tree
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.dir.path().join(path)).unwrap()
    }

    fn has(&self, path: &str) -> bool {
        self.dir.path().join(path).symlink_metadata().is_ok()
    }

    fn tell(&self, addresses: &[&str]) {
        set_network(&self.root, AddressStyle::Auto, &list(addresses)).unwrap();
    }

    /// Every file below `etc`.
    fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut rest = vec![self.dir.path().join("etc")];
        while let Some(path) = rest.pop() {
            for entry in fs::read_dir(path).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_dir() {
                    rest.push(entry.path());
                } else {
                    let path = entry.path();
                    found.push(path.strip_prefix(self.dir.path()).unwrap().display().to_string());
                }
            }
        }
        found.sort();
        found
    }
}

fn list(addresses: &[&str]) -> Vec<Address> {
    addresses.iter().map(|a| a.parse().unwrap()).collect()
}

const NETWORKD: &str = "etc/systemd/network/00-vz-venet0.network";
const KEYFILE: &str = "etc/NetworkManager/system-connections/vz-venet0.nmconnection";
const TWO: [&str; 3] = ["10.0.0.1", "10.0.0.2/24", "2001:db8::1"];

#[test]
fn a_debian_style_tree_has_both_its_managers_told() {
    let tree = Tree::with(&["usr/lib/systemd/systemd-networkd", "usr/sbin/ifup"]);
    tree.write("etc/network/interfaces", "auto lo\niface lo inet loopback\n");
    tree.tell(&TWO);
    assert_eq!(tree.files(), ["etc/network/interfaces", NETWORKD]);
    assert_eq!(
        tree.read("etc/network/interfaces"),
        "auto lo\niface lo inet loopback\n\
         # BEGIN vz: venet0. Written at each start of the container: changes before END are lost.\n\
         auto venet0\niface venet0 inet manual\n\
         \tup ip addr replace 10.0.0.1/32 dev venet0 || true\n\
         \tup ip addr replace 10.0.0.2/24 dev venet0 || true\n\
         \tup ip addr replace 2001:db8::1/128 dev venet0 || true\n\
         \tup ip route replace default dev venet0 || true\n\
         \tup ip -6 route replace default dev venet0 || true\n\
         # END vz: venet0\n"
    );
    let network = tree.read(NETWORKD);
    let body = network.split_once('\n').unwrap().1;
    assert_eq!(
        body,
        "[Match]\nName=venet0\n\n\
         [Network]\nLinkLocalAddressing=no\nIPv6AcceptRA=no\nLLDP=no\nKeepConfiguration=yes\n"
    );
}

#[test]
fn addresses_that_go_are_taken_out_and_with_the_last_all_that_was_ours() {
    let tree = Tree::with(&["usr/lib/systemd/systemd-networkd", "usr/sbin/ifup", "usr/sbin/NetworkManager"]);
    let own = "auto lo\niface lo inet loopback\n\n# mine\niface eth9 inet dhcp\n";
    tree.write("etc/network/interfaces", own);
    tree.tell(&TWO);
    tree.tell(&["10.0.0.2/24"]);
    for file in ["etc/network/interfaces", KEYFILE] {
        let text = tree.read(file);
        assert!(text.contains("10.0.0.2/24") && !text.contains("10.0.0.1") && !text.contains("::"), "{file}: {text}");
    }
    tree.tell(&[]);
    assert_eq!(tree.files(), ["etc/network/interfaces"]);
    assert_eq!(tree.read("etc/network/interfaces"), own);
}

#[test]
fn a_red_hat_style_tree_before_network_manager_has_its_scripts_told() {
    let scripts = "etc/sysconfig/network-scripts";
    let tree = Tree::with(&["sbin/ifup", "usr/sbin/NetworkManager", "etc/sysconfig/network-scripts/ifup-eth"]);
    // As OpenVZ left it.
    tree.write(&format!("{scripts}/ifcfg-venet0"), "DEVICE=venet0\nIPADDR=127.0.0.1\n");
    tree.write(&format!("{scripts}/ifcfg-venet0:3"), "DEVICE=venet0:3\nIPADDR=10.9.9.9\n");
    tree.write(&format!("{scripts}/ifcfg-eth0"), "DEVICE=eth0\n");
    tree.tell(&["10.0.0.1", "10.0.0.2/24", "2001:db8::1", "2001:db8::2/64"]);
    assert_eq!(
        tree.files(),
        ["ifcfg-eth0", "ifcfg-venet0", "ifup-eth"].map(|name| format!("{scripts}/{name}")),
        "NetworkManager leaves the interface to the scripts, and the alias of an old address is gone"
    );
    let text = tree.read(&format!("{scripts}/ifcfg-venet0"));
    let (_, body) = text.split_once('\n').unwrap();
    assert_eq!(
        body,
        "DEVICE=venet0\nONBOOT=yes\nBOOTPROTO=none\nNM_CONTROLLED=no\nUSERCTL=no\nARPCHECK=no\n\
         IPADDR0=10.0.0.1\nPREFIX0=32\nIPADDR1=10.0.0.2\nPREFIX1=24\nGATEWAYDEV=venet0\n\
         IPV6INIT=yes\nIPV6_AUTOCONF=no\nIPV6ADDR=2001:db8::1/128\nIPV6ADDR_SECONDARIES=\"2001:db8::2/64\"\n\
         IPV6_DEFAULTDEV=venet0\n"
    );
    tree.tell(&[]);
    assert!(!tree.has(&format!("{scripts}/ifcfg-venet0")) && tree.has(&format!("{scripts}/ifcfg-eth0")));
}

#[test]
fn a_red_hat_style_tree_of_today_has_a_keyfile_that_only_root_reads() {
    let tree = Tree::with(&["usr/bin/NetworkManager", "etc/sysconfig/network-scripts/readme-ifcfg-rh.txt"]);
    symlink("bin", tree.dir.path().join("usr/sbin")).unwrap();
    tree.tell(&["10.0.0.1", "10.0.0.2/24"]);
    assert_eq!(tree.files(), [KEYFILE, "etc/sysconfig/network-scripts/readme-ifcfg-rh.txt"]);
    let mode = fs::metadata(tree.dir.path().join(KEYFILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = tree.read(KEYFILE);
    assert!(
        text.ends_with(
            "interface-name=venet0\nautoconnect=true\n\n\
             [ipv4]\nmethod=manual\naddress1=10.0.0.1/32\naddress2=10.0.0.2/24\nroute1=0.0.0.0/0\n\n\
             [ipv6]\nmethod=ignore\n"
        ),
        "{text}"
    );
    tree.tell(&["2001:db8::1"]);
    let text = tree.read(KEYFILE);
    let ends = "[ipv4]\nmethod=disabled\n\n[ipv6]\nmethod=manual\naddress1=2001:db8::1/128\nroute1=::/0\n";
    assert!(text.ends_with(ends), "{text}");
}

#[test]
fn an_alpine_style_tree_has_its_interfaces_told_and_they_are_made_if_need_be() {
    let tree = Tree::with(&["bin/busybox"]);
    fs::create_dir_all(tree.dir.path().join("sbin")).unwrap();
    symlink("/bin/busybox", tree.dir.path().join("sbin/ifup")).unwrap();
    tree.tell(&TWO);
    assert_eq!(tree.files(), [""; 0], "without /etc/network nothing reads such a file");
    fs::create_dir(tree.dir.path().join("etc/network")).unwrap();
    tree.tell(&[]);
    assert_eq!(tree.files(), [""; 0]);
    tree.tell(&TWO);
    assert!(tree.read("etc/network/interfaces").contains("addr replace 10.0.0.1/32 dev venet0"));
}

#[test]
fn a_suse_style_tree_has_addresses_and_routes() {
    let tree = Tree::with(&["etc/sysconfig/network/config", "usr/sbin/ifup"]);
    tree.tell(&TWO);
    let body = |name: &str| {
        let text = tree.read(&format!("etc/sysconfig/network/{name}"));
        text.split_once('\n').unwrap().1.to_owned()
    };
    assert_eq!(
        body("ifcfg-venet0"),
        "STARTMODE='auto'\nBOOTPROTO='static'\nIPADDR_0='10.0.0.1/32'\nIPADDR_1='10.0.0.2/24'\nIPADDR_2='2001:db8::1/128'\n"
    );
    assert_eq!(body("ifroute-venet0"), "0.0.0.0/0 - - venet0\n::/0 - - venet0\n");
    tree.tell(&[]);
    assert_eq!(tree.files(), ["etc/sysconfig/network/config"]);
}

#[test]
fn an_ubuntu_style_tree_has_networkd_told_before_what_netplan_makes() {
    let tree = Tree::with(&["usr/sbin/netplan", "usr/lib/systemd/systemd-networkd"]);
    tree.tell(&TWO);
    assert_eq!(tree.files(), [NETWORKD]);
    assert!("00-vz-venet0.network" < "10-netplan-venet0.network");
}

#[test]
fn what_is_told_by_one_way_is_not_left_told_by_another() {
    let tree = Tree::with(&["usr/sbin/NetworkManager"]);
    tree.tell(&["10.0.0.1"]);
    tree.write("etc/sysconfig/network-scripts/ifup-eth", "");
    tree.tell(&["10.0.0.1"]);
    let scripts = ["ifcfg-venet0", "ifup-eth"].map(|name| format!("etc/sysconfig/network-scripts/{name}"));
    assert_eq!(tree.files(), scripts);
    set_network(&tree.root, AddressStyle::Venet, &list(&["10.0.0.9"])).unwrap();
    assert!(tree.read(&scripts[0]).contains("10.0.0.1"), "builtin:venet looks at nothing");
}

#[test]
fn a_manager_that_is_named_is_told_in_any_tree() {
    let tree = Tree::with(&[]);
    set_network(&tree.root, AddressStyle::Of(Manager::Networkd), &list(&TWO)).unwrap();
    assert_eq!(tree.files(), [NETWORKD]);
    let tree = Tree::with(&["usr/lib/systemd/systemd-networkd"]);
    tree.tell(&TWO);
    set_network(&tree.root, AddressStyle::Of(Manager::Ifupdown), &list(&TWO)).unwrap();
    assert_eq!(tree.files(), ["etc/network/interfaces"]);
}

#[test]
fn a_file_of_ours_that_is_masked_stays_so_and_a_link_out_is_not_written_through() {
    let tree = Tree::with(&["usr/lib/systemd/systemd-networkd", "usr/sbin/ifup"]);
    let outside = tempfile::NamedTempFile::new().unwrap();
    fs::create_dir_all(tree.dir.path().join("etc/systemd/network")).unwrap();
    symlink("/dev/null", tree.dir.path().join(NETWORKD)).unwrap();
    fs::create_dir_all(tree.dir.path().join("etc/network")).unwrap();
    symlink(outside.path(), tree.dir.path().join("etc/network/interfaces")).unwrap();
    let error = set_network(&tree.root, AddressStyle::Auto, &list(&TWO)).unwrap_err();
    assert_eq!(error.to_string(), "/etc/network/interfaces in the container is a symbolic link, not a file");
    assert_eq!(fs::read_link(tree.dir.path().join(NETWORKD)).unwrap().to_str(), Some("/dev/null"));
    assert_eq!(fs::read_to_string(outside.path()).unwrap(), "");
    set_network(&tree.root, AddressStyle::Auto, &[]).unwrap_err();
    assert!(tree.has(NETWORKD), "it is not ours to take away");
}

#[test]
fn what_is_in_the_way_of_one_manager_does_not_concern_the_others() {
    let tree = Tree::with(&["usr/lib/systemd/systemd-networkd", "usr/sbin/ifup"]);
    fs::create_dir_all(tree.dir.path().join(NETWORKD)).unwrap();
    tree.write("etc/network/interfaces", "");
    let error = set_network(&tree.root, AddressStyle::Auto, &list(&TWO)).unwrap_err();
    assert!(error.to_string().contains("is a directory, not a file"), "{error}");
    assert!(tree.read("etc/network/interfaces").contains("iface venet0"));
}

#[test]
fn of_a_file_that_openvz_wrote_only_its_lines_about_venet_go() {
    let tree = Tree::with(&["usr/sbin/ifup"]);
    tree.write(
        "etc/network/interfaces",
        "# This configuration file is auto-generated.\n#\n\n# Auto generated lo interface\nauto lo\niface lo inet loopback\n\n\
         # Auto generated venet0 interface\nauto venet0\niface venet0 inet manual\n\tup ifconfig venet0 127.0.0.2\n\
         \tup route add default dev venet0\n\niface venet0 inet6 manual\n\tup route -A inet6 add default dev venet0\n\n\
         auto venet0:0\niface venet0:0 inet static\n\taddress 10.9.9.9\n\tnetmask 255.255.255.255\n\n\
         # mine\nauto eth9\niface eth9 inet static\n\taddress 10.8.8.8\n",
    );
    for _ in 0..2 {
        tree.tell(&["10.0.0.1"]);
        let text = tree.read("etc/network/interfaces");
        assert!(!text.contains("10.9.9.9") && !text.contains("127.0.0.2") && !text.contains("route -A"), "{text}");
        assert!(text.contains("auto lo\niface lo inet loopback\n"), "{text}");
        assert!(text.contains("# mine\nauto eth9\niface eth9 inet static\n\taddress 10.8.8.8\n"), "{text}");
        assert_eq!(text.matches("iface venet0").count(), 1, "{text}");
        assert!(text.contains("addr replace 10.0.0.1/32"), "{text}");
    }
    let own = "iface venet0 inet static\n\taddress 10.9.9.9\n";
    tree.write("etc/network/interfaces", own);
    tree.tell(&["10.0.0.1"]);
    assert!(tree.read("etc/network/interfaces").starts_with(own), "what a person wrote stays");
}

proptest! {
    #[test]
    fn a_block_is_put_in_and_taken_out_and_every_other_line_stays(
        parts in prop::collection::vec(prop_oneof![
            Just("# BEGIN vz: venet0. Written at each start of the container: changes before END are lost.\n".to_owned()),
            Just("# END vz: venet0\n".to_owned()),
            "[a-z\t# ]{0,8}\n",
        ], 0..12),
    ) {
        let text = parts.concat();
        let block = interfaces::block(&list(&["10.0.0.1"]));
        let once = interfaces::with(text.as_bytes(), &block);
        prop_assert_eq!(&interfaces::with(&once, &block), &once, "written twice it is the same");
        let count = once.windows(block.len()).filter(|part| *part == block.as_bytes()).count();
        prop_assert_eq!(count, 1);
        if !text.contains("vz: venet0") {
            prop_assert_eq!(interfaces::with(&once, ""), text.as_bytes(), "and taken out it is as before");
        }
    }
}
