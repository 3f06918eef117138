use std::collections::BTreeSet;

use super::*;
use crate::config::document::check_value;

#[test]
fn no_option_letter_or_key_is_given_twice() {
    let (mut options, mut letters, mut keys) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for param in all() {
        for option in param.option.iter().chain(param.aliases) {
            assert!(options.insert(*option), "--{option}");
        }
        assert!(param.short.is_none_or(|letter| letters.insert(letter)), "-{:?}", param.short);
        for key in param.keys {
            assert!(keys.insert(*key), "{key}");
        }
        assert!(param.option.is_none() || !param.help.is_empty(), "{:?} has no help", param.option);
    }
}

#[test]
fn every_option_of_the_reference_is_there() {
    let reference = "onboot bootorder root private mount_opts userpasswd disabled name description ostemplate stop-timeout ipadd ip ipdel \
        hostname nameserver searchdomain netif_add netif_del netdev_add netdev_del numproc numtcpsock numothersock vmguarpages kmemsize \
        tcpsndbuf tcprcvbuf othersockbuf dgramrcvbuf oomguarpages lockedpages privvmpages shmpages numfile numflock numpty numsiginfo \
        dcachesize numiptent physpages avnumproc swappages ram swap vm_overcommit memguarantee cpuunits cpuweight cpulimit cpus cpumask nodemask ioprio \
        iolimit iopslimit diskspace diskinodes quotatime quotaugidlimit diskquota capability devices devnodes pci_add pci_del features \
        meminfo iptables netfilter";
    for option in reference.split_ascii_whitespace() {
        assert!(by_option(option).is_some(), "--{option}");
    }
    for (letter, option) in "p numproc k kmemsize b tcprcvbuf l lockedpages n numfile f numflock t numpty i numsiginfo x dcachesize e numiptent"
        .split(' ')
        .collect::<Vec<_>>()
        .chunks(2)
        .map(|c| (c[0], c[1]))
    {
        assert_eq!(by_option(option).unwrap().short.map(String::from).as_deref(), Some(letter), "{option}");
    }
}

/// Option, value, key, what the file then says.
const WRITTEN: &[(&str, &str, &str, &str)] = &[
    ("onboot", "yes", "ONBOOT", "yes"),
    ("bootorder", "10", "BOOTORDER", "10"),
    ("root", "/vz/root/$VEID", "VE_ROOT", "/vz/root/$VEID"),
    ("mount_opts", "noatime,nodiratime", "MOUNT_OPTS", "noatime,nodiratime"),
    ("name", "web 1", "NAME", "web 1"),
    ("description", "Kunde: Müller & Söhne", "DESCRIPTION", "Kunde: Müller & Söhne"),
    ("ipadd", "10.0.0.1 2001:db8::1/64", "IP_ADDRESS", "10.0.0.1 2001:db8::1/64"),
    ("hostname", "web1.example.com", "HOSTNAME", "web1.example.com"),
    ("nameserver", "inherit", "NAMESERVER", "inherit"),
    ("netif_add", "eth0,,,,br0", "NETIF", "ifname=eth0,bridge=br0"),
    ("numproc", "40", "NUMPROC", "40:40"),
    ("vmguarpages", "33792", "VMGUARPAGES", "33792:unlimited"),
    ("kmemsize", "1.5M:2M", "KMEMSIZE", "1572864:2097152"),
    ("swappages", "0:unlimited", "SWAPPAGES", "0:unlimited"),
    ("vm_overcommit", "1.5", "VM_OVERCOMMIT", "1.5"),
    ("memguarantee", "30%", "MEMGUARANTEE", "30"),
    ("memguarantee", "auto", "MEMGUARANTEE", "auto"),
    ("cpulimit", "50%", "CPULIMIT", "50"),
    ("cpulimit", "2000M", "CPULIMIT", "2000m"),
    ("cpumask", "3,0-1", "CPUMASK", "0-1,3"),
    ("iolimit", "10", "IOLIMIT", "10485760"),
    ("iolimit", "512K", "IOLIMIT", "524288"),
    ("iolimit", "unlimited", "IOLIMIT", "0"),
    ("diskspace", "10.0G", "DISKSPACE", "10485760:10485760"),
    ("diskspace", "unlimited", "DISKSPACE", "unlimited:unlimited"),
    ("diskinodes", "131072:144179", "DISKINODES", "131072:144179"),
    ("diskquota", "no", "DISK_QUOTA", "no"),
    ("capability", "net_admin:on", "CAPABILITY", "NET_ADMIN:on"),
    ("devices", "c:10:200:rw", "DEVICES", "c:10:200:rw"),
    ("devnodes", "net/tun:rw", "DEVNODES", "net/tun:rw"),
    ("features", "nfs:on,ppp:off", "FEATURES", "nfs:on ppp:off"),
    ("meminfo", "privvmpages:1", "MEMINFO", "privvmpages:1"),
    ("netfilter", "full", "NETFILTER", "full"),
];

#[test]
fn a_value_is_written_in_one_form_and_read_back_from_it() {
    for (option, value, key, written) in WRITTEN {
        let param = by_option(option).unwrap();
        assert!(param.keys.contains(key), "--{option} is kept under {key}");
        let mut settings = Settings::default();
        settings.apply(&param.parse(value).unwrap());
        assert_eq!(param.render(&settings).as_deref(), Some(*written), "--{option} {value}");
        check_value(written).or_else(|_| crate::config::document::check_path_value(written)).unwrap();
        let mut again = Settings::default();
        again.apply(&param.load(written).unwrap());
        assert_eq!(again, settings, "{key}={written}");
    }
}

#[test]
fn ram_and_swap_are_kept_as_pages() {
    let mut settings = Settings::default();
    for (option, value) in [("ram", "512M"), ("swap", "1G")] {
        settings.apply(&by_option(option).unwrap().parse(value).unwrap());
    }
    let pages = |key| by_key(key).unwrap().render(&settings).unwrap();
    assert_eq!((pages("PHYSPAGES").as_str(), pages("SWAPPAGES").as_str()), ("0:131072", "0:262144"));
}

#[test]
fn a_bad_value_ends_with_the_code_of_its_parameter() {
    for (option, value, exit) in [
        ("ipadd", "300.1.1.1", Exit::BadAddress),
        ("ipdel", "none", Exit::BadAddress),
        ("hostname", "a$(touch /root/P)", Exit::Hostname),
        ("nameserver", "dns", Exit::Nameserver),
        ("searchdomain", "a b;c", Exit::Searchdomain),
        ("name", "../x", Exit::SetName),
        ("name", "-f", Exit::SetName),
        ("name", "a\"\nONBOOT=yes\nX=\"", Exit::SetName),
        ("description", "x`y`", Exit::InvalidValue),
        ("onboot", "maybe", Exit::InvalidValue),
        ("numproc", "-1", Exit::InvalidValue),
        ("numproc", "1:2:3", Exit::InvalidValue),
        ("kmemsize", "99999999999999999999", Exit::InvalidValue),
        ("cpuunits", "7", Exit::InvalidValue),
        ("cpulimit", "-1", Exit::InvalidValue),
        ("cpulimit", "+5m", Exit::InvalidValue),
        ("memguarantee", "101", Exit::InvalidValue),
        ("cpus", "0", Exit::InvalidValue),
        ("ioprio", "8", Exit::InvalidValue),
        ("iolimit", "3G", Exit::InvalidValue),
        ("diskspace", "2G:1G", Exit::InvalidValue),
        ("vm_overcommit", "NaN", Exit::InvalidValue),
        ("userpasswd", "nopassword", Exit::InvalidValue),
        ("userpasswd", "root:", Exit::InvalidValue),
        ("userpasswd", "ro ot:x", Exit::InvalidValue),
        ("root", "vz/root", Exit::InvalidValue),
    ] {
        let param = by_option(option).unwrap();
        assert!(param.parse(value).is_err(), "--{option} {value:?}");
        assert_eq!(param.bad_value, exit, "--{option}");
    }
}

#[test]
fn a_password_is_in_no_message_and_no_file() {
    let param = by_option("userpasswd").unwrap();
    let change = param.parse("root:s3cr\"et:$x").unwrap();
    assert!(!format!("{change:?}").contains("s3cr"), "{change:?}");
    assert!(param.keys.is_empty());
    assert!(!param.parse("s3cret").unwrap_err().to_string().contains("s3cret"));
}
