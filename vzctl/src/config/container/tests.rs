use std::path::Path;

use beancounters::Resource;

use super::*;
use crate::config::values::{CpuLimit, Dns, Feature, Netfilter};

const CENTOS5: &str = include_str!("tests/101-centos5.conf");
const DEBIAN6_VETH: &str = include_str!("tests/102-debian6-veth.conf");
const VSWAP_PLOOP: &str = include_str!("tests/103-vswap-ploop.conf");

fn ct(n: u32) -> Ctid {
    Ctid::try_from(n).unwrap()
}

fn container(text: &str) -> Container {
    Container::from_document(ct(101), Document::parse(text.as_bytes()).unwrap())
}

fn node(confs: &[(u32, &str)]) -> (tempfile::TempDir, Node) {
    let dir = tempfile::tempdir().unwrap();
    fs_err::write(dir.path().join("vz.conf"), "NAMESERVER=inherit\nSTOP_TIMEOUT=30\nLOCAL_UID=200000\nCPUUNITS=500\n")
        .unwrap();
    fs_err::create_dir(dir.path().join("conf")).unwrap();
    for (ctid, text) in confs {
        fs_err::write(dir.path().join(format!("conf/{ctid}.conf")), text).unwrap();
    }
    let node = Node::open(dir.path()).unwrap();
    (dir, node)
}

#[test]
fn configurations_of_real_hosts_load_whole_and_stay_as_they_are() {
    for text in [CENTOS5, DEBIAN6_VETH, VSWAP_PLOOP] {
        let mut container = container(text);
        assert_eq!(container.problems, []);
        container.apply(&[]).unwrap();
        assert_eq!(container.document().to_bytes(), text.as_bytes());
    }
}

#[test]
fn a_host_of_2010_says_what_it_says() {
    let own = container(CENTOS5).own;
    assert_eq!(own.bounds.iter().count(), 21, "all but swappages, avnumproc included");
    assert_eq!(own.bounds.get(Resource::Dcachesize).unwrap().to_string(), "3409920:3624960", "under its old key");
    assert_eq!(own.bounds.get(Resource::Vmguarpages).unwrap().to_string(), "33792:unlimited");
    assert_eq!(own.addresses.len(), 3);
    assert_eq!(own.hostname.as_deref(), Some("web1.example.com"));
    assert_eq!(own.capabilities.len(), 2);
    assert_eq!(own.iptables.len(), 18);
    assert_eq!(own.devnodes[0].name, "net/tun");

    let own = container(DEBIAN6_VETH).own;
    assert_eq!(own.netifs.len(), 2);
    assert_eq!(own.features.get(&Feature::Nfs), Some(&true));
    assert_eq!(own.devices.len(), 2);
    assert_eq!(
        own.nameserver,
        Some(Dns::Servers(vec!["8.8.8.8".parse().unwrap(), "2001:4860:4860::8888".parse().unwrap()]))
    );
    assert_eq!((own.cpulimit, own.cpus, own.ioprio), (Some(CpuLimit::Percent(400)), Some(4), Some(6)));

    let own = container(VSWAP_PLOOP).own;
    assert!(beancounters::vswap::is_vswap(&own.bounds));
    assert_eq!(own.layout.map(Layout::name), Some("ploop"));
    assert_eq!(own.netfilter, Some(Netfilter::Stateless));
    assert_eq!(own.disk_limits().effective().grace_s, None);
}

#[test]
fn every_sample_we_ship_is_understood() {
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/conf");
    let mut seen = 0;
    for entry in fs_err::read_dir(conf).unwrap() {
        let path = entry.unwrap().path();
        let container = Container::from_document(ct(1), Document::load(&path).unwrap());
        assert_eq!(container.problems, [], "{}", path.display());
        seen += 1;
    }
    assert_eq!(seen, 9);
    let vz_conf = Global::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/vz.conf")).unwrap();
    assert_eq!(vz_conf.unknown, [""; 0]);
    assert_eq!(vz_conf.default_ostemplate.as_deref(), Some("debian-12-x86_64"));
}

#[test]
fn a_change_touches_its_own_lines_only() {
    let text = "# made by hand\nKMEMSIZE=\"1.5M:2M\"\n#KMEMSIZE: note\nDCACHE=\"1:2\"\nX_PANEL_ID=\"7\"\nIP_ADDRESS=\"10.0.0.1\"\n";
    let mut container = container(text);
    let change = |option: &str, value: &str| params::by_option(option).unwrap().parse(value).unwrap();
    container
        .apply(&[
            change("ipdel", "all"),
            change("ipadd", "10.0.0.9/24"),
            change("ipadd", "10.0.0.9/25 10.0.0.8"),
            change("dcachesize", "5:6"),
            change("onboot", "yes"),
        ])
        .unwrap();
    let expected = "# made by hand\nKMEMSIZE=\"1.5M:2M\"\n#KMEMSIZE: note\nX_PANEL_ID=\"7\"\nIP_ADDRESS=\"10.0.0.9/25 10.0.0.8\"\nONBOOT=\"yes\"\nDCACHESIZE=\"5:6\"\n";
    assert_eq!(String::from_utf8(container.document().to_bytes()).unwrap(), expected);
    container.apply(&[change("ipdel", "all"), change("userpasswd", "root:x")]).unwrap();
    assert_eq!(container.document().get("IP_ADDRESS"), None);
    assert!(!container.document().to_bytes().windows(6).any(|w| w == b"passwd"));
}

#[test]
fn a_bad_value_is_a_problem_for_start_and_for_nobody_else() {
    let (_dir, node) = node(&[(101, "NUMPROC=\"many\"\nHOSTNAME=\"web1\"\n")]);
    let mut container = Container::load(&node, ct(101)).unwrap();
    assert_eq!(container.own.hostname.as_deref(), Some("web1"));
    let error = container.require_valid(&node).unwrap_err();
    assert_eq!(error.exit(), Exit::InvalidConfig);
    assert!(error.to_string().contains("NUMPROC=many"), "{error}");
    container.apply(&[params::by_option("numproc").unwrap().parse("40").unwrap()]).unwrap();
    container.require_valid(&node).unwrap();
    container.save(&node).unwrap();
    assert_eq!(fs_err::read_to_string(node.container_conf(ct(101))).unwrap(), "NUMPROC=\"40:40\"\nHOSTNAME=\"web1\"\n");
}

#[test]
fn a_container_without_a_word_of_its_own_gets_the_hosts() {
    let (_dir, node) = node(&[(101, "CPUUNITS=1000\nVE_PRIVATE=/big/$VEID\n"), (102, "")]);
    let first = Container::load(&node, ct(101)).unwrap();
    let effective = first.effective(&node.global);
    assert_eq!(
        (effective.cpuunits, effective.stop_timeout_s, effective.nameserver),
        (Some(1000), Some(30), Some(Dns::Inherit))
    );
    assert_eq!(effective.local_uid, None, "where ranges begin is nobody's range");
    assert_eq!(first.private(&node), Path::new("/big/101"));
    assert_eq!(first.root(&node), Path::new("/vz/root/101"));
    assert_eq!(Container::load(&node, ct(102)).unwrap().effective(&node.global).cpuunits, Some(500));
}

#[test]
fn a_missing_and_a_broken_file_end_differently() {
    let (_dir, node) = node(&[(101, "A=\"1\nB=2\n")]);
    assert_eq!(Container::load(&node, ct(7)).unwrap_err().exit(), Exit::NoContainerConfig);
    let error = Container::load(&node, ct(101)).unwrap_err();
    assert_eq!(error.exit(), Exit::NoGlobalConfig);
    assert_eq!(Node::open("/nonexistent").unwrap_err().exit(), Exit::NoGlobalConfig);
}

#[test]
fn injected_lines_are_values_or_refused() {
    for option in ["hostname", "description", "name", "nameserver", "searchdomain", "netif_add"] {
        for value in ["a\"\nONBOOT=yes\nX=\"", "a$(touch /root/P)", "a`id`", "a\\", "a\rb"] {
            assert!(params::by_option(option).unwrap().parse(value).is_err(), "--{option} {value:?}");
        }
    }
}
