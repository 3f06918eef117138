use clap::Command;

use super::*;
use crate::config::values::Address;

fn command() -> Command {
    Command::new("set").args(set_args()).arg(Arg::new("ctid").index(1)).infer_long_args(true)
}

fn request(words: &[&str]) -> Result<SetRequest, RequestError> {
    let matches = command().try_get_matches_from(["set"].iter().chain(words)).unwrap();
    SetRequest::from_matches(&matches)
}

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

#[test]
fn the_options_make_a_sound_command_line() {
    command().debug_assert();
    Command::new("create").args(create_args()).debug_assert();
    assert_eq!(create_args().len(), 13);
}

#[test]
fn changes_come_in_the_order_they_were_given() {
    let request = request(&[
        "--ipdel",
        "all",
        "--ipadd",
        "10.0.0.2",
        "--onboot",
        "yes",
        "--ipadd",
        "10.0.0.3 10.0.0.4",
        "--save",
    ])
    .unwrap();
    assert!(request.save);
    assert_eq!(
        request.changes,
        [
            Change::RemoveAddresses(crate::config::settings::Removal::All),
            Change::AddAddresses(vec![address("10.0.0.2")]),
            Change::OnBoot(true),
            Change::AddAddresses(vec![address("10.0.0.3"), address("10.0.0.4")]),
        ]
    );
}

#[test]
fn letters_abbreviations_and_equals_signs_work() {
    let all = request(&["-p", "40", "--kmem", "1M", "--ip=10.0.0.1", "101", "--diskspace=10.0G"]).unwrap();
    assert_eq!(all.changes.len(), 4);
}

#[test]
fn repeated_name_servers_are_all_meant() {
    let request = request(&["--nameserver", "8.8.8.8", "--nameserver", "8.8.4.4 1.1.1.1"]).unwrap();
    let [Change::Nameserver(dns)] = &request.changes[..] else { panic!("{request:?}") };
    assert_eq!(dns.to_string(), "8.8.8.8 8.8.4.4 1.1.1.1");
}

#[test]
fn fields_belong_to_the_interface_before_them() {
    let words = ["--ifname", "eth0", "--bridge", "br0", "--mac_filter", "off", "--ifname", "eth1", "--bridge", "br1"];
    let edits: Vec<String> = request(&words)
        .unwrap()
        .changes
        .iter()
        .map(|c| match c {
            Change::EditNetif(n) => n.to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(edits, ["ifname=eth0,bridge=br0,mac_filter=off", "ifname=eth1,bridge=br1"]);
    assert_eq!(request(&["--bridge", "br0"]).unwrap_err().exit(), Exit::InvalidSyntax);
}

#[test]
fn what_needs_save_or_company_is_refused_without_it() {
    for (words, exit) in [
        (&["--name", "x"][..], Exit::SetName),
        (&["--ostemplate", "debian-12-x86_64"], Exit::InvalidSyntax),
        (&["--stop-timeout", "5"], Exit::InvalidSyntax),
        (&["--onboot", "yes", "--force"], Exit::InvalidSyntax),
        (&["--features", "nfs:on", "--setmode", "restart"], Exit::InvalidSyntax),
        (&["--reset_ub", "--save"], Exit::InvalidSyntax),
        (&["--reset_ub", "--numproc", "5"], Exit::InvalidSyntax),
        (&["--offline-resize", "--save"], Exit::InvalidSyntax),
    ] {
        assert_eq!(request(words).unwrap_err().exit(), exit, "{words:?}");
    }
    assert!(request(&["--reset_ub", "101"]).unwrap().reset_ub);
    assert!(request(&["--name", "x", "--save"]).is_ok());
    assert!(request(&["--offline", "--diskspace", "5G", "--save"]).unwrap().offline_resize);
}

#[test]
fn node_masks_need_cpu_masks() {
    let configured = Settings::default();
    let both = request(&["--nodemask", "0", "--cpumask", "auto"]).unwrap();
    assert_eq!(both.check_masks(&configured), Ok(()));
    for words in [["--nodemask", "0"], ["--cpumask", "auto"]] {
        assert_eq!(request(&words).unwrap().check_masks(&configured).unwrap_err().exit(), Exit::InvalidSyntax);
    }
    let with_mask = Settings { cpumask: Some(Mask::All), ..Settings::default() };
    assert_eq!(request(&["--nodemask", "0"]).unwrap().check_masks(&with_mask), Ok(()));
}

#[test]
fn what_a_running_container_cannot_take_over_is_named() {
    let request =
        request(&["--features", "nfs:on", "--numproc", "5", "--capability", "sys_time:on", "--root", "/vz/r"]).unwrap();
    assert_eq!(request.need_restart, ["features", "capability"]);
    assert_eq!(request.need_stopped, ["root"]);
}

#[test]
fn an_error_names_option_value_and_kind() {
    let error = request(&["--hostname", "a b"]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Bad parameter for --hostname: \"a b\" is not a host name: up to 64 letters, digits, - and . between labels"
    );
    assert_eq!(error.exit(), Exit::Hostname);
}
