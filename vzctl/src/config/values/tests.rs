use super::*;

fn texts<T: fmt::Display>(items: Result<Vec<T>, BadValue>) -> String {
    joined(items.unwrap(), " ")
}

#[test]
fn lists_are_read_with_blanks_or_commas_and_written_in_one_form() {
    assert_eq!(texts(CapabilitySwitch::parse_list("NET_ADMIN:on,sys_time:off")), "NET_ADMIN:on SYS_TIME:off");
    assert_eq!(texts(CapabilitySwitch::parse_list("cap_mknod:off ")), "MKNOD:off");
    assert_eq!(texts(DevNode::parse_list("net/tun:rw /dev/fuse:rwq")), "net/tun:rw fuse:rwq");
    assert_eq!(
        texts(DeviceRule::parse_list("c:10:200:rw b:8:all:r:q c:1:3:none")),
        "c:10:200:rw b:8:all:r:q c:1:3:none"
    );
    assert_eq!(texts(pci_list("1:0A.0 0000:02:00.1")), "0000:01:0a.0 0000:02:00.1");
    assert_eq!(Feature::parse_list("nfs:on,ppp:off").unwrap(), [(Feature::Nfs, true), (Feature::Ppp, false)]);
}

#[test]
fn what_is_not_a_value_of_its_kind_is_refused() {
    for bad in ["NET_ADMIN", "NET_ADMIN:yes", "ALL:on", "CAP_:on"] {
        assert!(CapabilitySwitch::parse_list(bad).is_err(), "{bad}");
    }
    for bad in ["../sda:rw", "net/tun", "tun:", "tun:rx", "/etc/passwd:r", "a//b:r", "a/../../b:rw"] {
        assert!(DevNode::parse_list(bad).is_err(), "{bad}");
    }
    for bad in ["c:10:200", "x:1:1:rw", "c:4096:0:rw", "c:-1:0:rw", "c:1:1:rw:z"] {
        assert!(DeviceRule::parse_list(bad).is_err(), "{bad}");
    }
    for bad in ["", "+1", "-1", "1.5", "1 ", "99999999999999999999"] {
        assert!(whole_number(bad).is_err(), "{bad}");
    }
    for bad in ["", "..", "a b", "eth0;x", "sixteencharacter", "-a", "a/b"] {
        assert!(interface_name(bad).is_err(), "{bad}");
    }
    for bad in ["nfs", "xfs:on", "nfs:maybe"] {
        assert!(Feature::parse_list(bad).is_err(), "{bad}");
    }
    for bad in ["1:0.0.0", "0:20.0", "00:1f.8", "g:0.0", "0:0"] {
        assert!(pci_list(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_host_name_carries_nothing_to_a_terminal_or_a_shell() {
    for good in ["web1", "web1.example.com", "under_score.example.com", "web1.example.com."] {
        assert!(hostname(good).is_ok(), "{good}");
    }
    let long = "a".repeat(65);
    for bad in ["", "a\x1b]0;x\x07", "a$(touch /root/P)", "a b", "a\nb", "-a", "a..b", "a\"b", &long] {
        assert!(hostname(bad).is_err(), "{bad:?}");
    }
    assert!(text("a\"\nONBOOT=yes").is_err());
    assert!(text("Kundenserver für Müller & Söhne; don't touch").is_ok());
}

#[test]
fn a_path_of_the_host_is_absolute_and_stays_where_it_says() {
    for good in ["/vz/private/101", "/vz/root/$VEID", "/vz/${VEID}/x"] {
        assert!(host_path(good).is_ok(), "{good}");
    }
    for bad in ["", "vz", "/", "//", "/vz/../etc", "/vz/$HOME", "/vz/`x`", "/a\nb"] {
        assert!(host_path(bad).is_err(), "{bad:?}");
    }
    for bad in ["", "../x", "-I touch", "a/b", "a..b", "a b"] {
        assert!(file_name(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn masks_are_written_in_order_and_without_overlap() {
    for (text, canonical) in
        [("3,0-1,2", "0-3"), ("8,0-3", "0-3,8"), ("5", "5"), ("all", "all"), ("auto", "auto"), ("0-2,1-4", "0-4")]
    {
        assert_eq!(Mask::parse(text).unwrap().to_string(), canonical);
    }
    for bad in ["", "3-1", "a", "0-", "0,,1", "0-9999999", "-1"] {
        assert!(Mask::parse(bad).is_err(), "{bad}");
    }
    assert!(Mask::parse_nodes("auto").is_err());
}

#[test]
fn name_servers_and_domains_may_be_the_hosts() {
    assert_eq!(Dns::parse("inherit").unwrap(), Dns::Inherit);
    assert_eq!(Dns::parse("8.8.8.8 2001:db8::1").unwrap().to_string(), "8.8.8.8 2001:db8::1");
    assert!(Dns::parse("8.8.8.8 example.com").is_err());
    assert_eq!(SearchDomains::parse("a.example, b.example").unwrap().to_string(), "a.example b.example");
    assert!(SearchDomains::parse("a.example\noptions x").is_err());
}
