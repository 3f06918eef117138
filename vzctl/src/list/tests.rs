use std::collections::BTreeMap;

use beancounters::read::Usage;
use beancounters::{Amount, Resource, Unit};
use vzrt::Ctid;

use super::*;
use crate::config::values::Dns;
use crate::config::{Settings, params};

fn ct(n: u32) -> Ctid {
    Ctid::try_from(n).unwrap()
}

fn args(words: &str) -> Args {
    Args::parse(&words.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).unwrap()
}

fn facts(n: u32, status: Status, confs: &[(&str, &str)]) -> Facts {
    let mut settings = Settings::default();
    for (key, value) in confs {
        settings.apply(&params::by_key(key).unwrap().load(value).unwrap());
    }
    Facts {
        ctid: ct(n),
        status,
        settings,
        root: format!("/vz/root/{n}"),
        private: format!("/vz/private/{n}"),
        bounds: None,
        usage: BTreeMap::new(),
        disk: None,
        uptime_s: None,
        load: None,
    }
}

fn running() -> Facts {
    let confs = [
        ("HOSTNAME", "web1.example.com"),
        ("IP_ADDRESS", "10.0.0.101/24 2001:db8::101"),
        ("NUMPROC", "240:240"),
        ("KMEMSIZE", "14372700:14790164"),
        ("DISKSPACE", "2G:2.2G"),
        ("NAMESERVER", "8.8.8.8 8.8.4.4"),
        ("ONBOOT", "yes"),
        ("IOLIMIT", "1048576"),
    ];
    let mut facts = facts(101, Status::Running, &confs);
    let items = |n| Some(Amount::new(Unit::Items, n));
    facts
        .usage
        .insert(Resource::Numproc, Usage { held: items(23), maxheld: items(31), failcnt: Some(2), is_sampled: false });
    facts.usage.insert(Resource::Kmemsize, Usage { held: None, maxheld: None, failcnt: None, is_sampled: true });
    facts.disk = Some(DiskUsage { space_kib: 4242, inodes: 17, in_force: None });
    facts.uptime_s = Some(93_784.5);
    facts.load = Some([0.0, 0.01, 0.05]);
    facts
}

fn table(words: &str, rows: &[Facts]) -> String {
    let args = args(words);
    table::render(&args.fields, rows, args.header, args.trim)
}

#[test]
fn the_default_list_is_byte_for_byte_that_of_the_original() {
    let mut row = running();
    row.settings.addresses.truncate(1);
    let stopped = facts(2_000_000_000, Status::Stopped, &[("NUMPROC", "240")]);
    assert_eq!(
        table("-a", &[row, stopped]),
        "      CTID      NPROC STATUS    IP_ADDR         HOSTNAME\n\
         \x20      101         23 running   10.0.0.101      web1.example.com\n\
         2000000000          - stopped   -               -\n"
    );
}

#[test]
fn a_value_is_cut_unless_it_is_last_or_asked_for_whole() {
    let long = "a-host-name-that-is-longer-than-thirty-two.example.com";
    let row = facts(101, Status::Stopped, &[("HOSTNAME", long), ("IP_ADDRESS", "10.0.0.1 2001:db8:1:2:3:4:5:6")]);
    let rows = [row];
    assert_eq!(table("-H -o hostname,ctid", &rows), format!("{} {:>10}\n", &long[..32], 101));
    assert_eq!(table("-H -o ctid,hostname", &rows), format!("{:>10} {long}\n", 101));
    assert_eq!(table("-Ht -o hostname,ctid", &rows), format!("{long} {:>10}\n", 101));
    assert_eq!(table("-H -o ip,ctid", &rows), format!("{:<15} {:>10}\n", "10.0.0.1", 101));
    assert_eq!(table("-H -o ctid,ip", &rows), "       101 10.0.0.1 2001:db8:1:2:3:4:5:6\n");
}

#[test]
fn each_kind_of_value_has_its_form() {
    let rows = [running()];
    for (field, cell) in [
        ("numproc.m", "31"),
        ("numproc.b", "240"),
        ("numproc.f", "2"),
        ("kmemsize", "-"),
        ("kmemsize.l", "14790164"),
        ("numfile.l", "9223372036854775807"),
        ("vmguarpages.b", "0"),
        ("diskspace", "4242"),
        ("diskspace.h", "2306867"),
        ("diskinodes.s", "-"),
        ("uptime", "001d02h:03m:04s"),
        ("laverage", "0.00/0.01/0.05"),
        ("onboot", "yes"),
        ("disabled", "no"),
        ("vswap", "no"),
        ("ioprio", "-"),
        ("iolimit", "1048576"),
        ("layout", "simfs"),
        ("smart_name", "101"),
        ("private", "/vz/private/101"),
        ("VPSID", "101"),
    ] {
        assert_eq!(table(&format!("-H -o {field}"), &rows).trim(), cell, "{field}");
    }
    let stopped = [facts(5, Status::Stopped, &[("PHYSPAGES", "0:512M"), ("SWAPPAGES", "0:1G")])];
    for (field, cell) in [
        ("numproc", "-"),
        ("numproc.l", "-"),
        ("numproc.f", "-"),
        ("vswap", "yes"),
        ("lockedpages.l", "131072"),
        ("uptime", "-"),
    ] {
        assert_eq!(table(&format!("-H -o {field}"), &stopped).trim(), cell, "{field}");
    }
}

#[test]
fn json_has_the_layout_of_the_original() {
    let mut other = facts(7, Status::Stopped, &[("DESCRIPTION", "it's a \u{fc}ber server"), ("NUMPROC", "40")]);
    other.settings.description = Some("a \"quoted\" back\\slash \x1b]0;x\x07".to_owned());
    let fields = "-j -o ctid,ip,hostname,description,numproc,diskspace,laverage,uptime,onboot,ioprio,status";
    assert_eq!(
        json::render(&args(fields).fields, &[running(), other]),
        r#"[
  {
    "ctid": 101,
    "ip": ["10.0.0.101", "2001:db8::101"],
    "hostname": "web1.example.com",
    "description": null,
    "numproc": {
      "held": 23,
      "maxheld": 31,
      "barrier": 240,
      "limit": 240,
      "failcnt": 2
    },
    "diskspace": {
      "usage": 4242,
      "softlimit": 2097152,
      "hardlimit": 2306867
    },
    "laverage": [0.00, 0.01, 0.05],
    "uptime": 93784.500,
    "onboot": true,
    "ioprio": 0,
    "status": "running"
  },
  {
    "ctid": 7,
    "ip": [],
    "hostname": null,
    "description": "a \"quoted\" back\\slash \u001b]0;x\u0007",
    "numproc": {
      "held": 0,
      "maxheld": 0,
      "barrier": 40,
      "limit": 40,
      "failcnt": 0
    },
    "diskspace": {
      "usage": null,
      "softlimit": null,
      "hardlimit": null
    },
    "laverage": null,
    "uptime": 0.000,
    "onboot": null,
    "ioprio": 0,
    "status": "stopped"
  }
]
"#
    );
}

#[test]
fn json_without_fields_has_all_of_them_and_is_json() {
    let text = json::render(&args("-j").fields, &[running()]);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let row = value[0].as_object().unwrap();
    assert_eq!(row.keys().take(3).collect::<Vec<_>>(), ["ctid", "veid", "vpsid"]);
    assert_eq!(row["ctid"], row["vpsid"]);
    assert_eq!(row["nameserver"], serde_json::json!(["8.8.8.8", "8.8.4.4"]));
    for name in ["kmemsize", "swappages", "diskinodes", "capability", "netfilter", "vm_overcommit"] {
        assert!(row.contains_key(name), "{name}");
    }
    assert_eq!(row.len(), 16 + 21 + 2 + 17);
    assert!(row.keys().all(|name| !name.contains('.')));
}

#[test]
fn nothing_in_a_table_acts_on_the_terminal() {
    let mut row = facts(101, Status::Stopped, &[]);
    row.settings.hostname = Some("a\x1b]0;x\x07\nb\u{9b}31m\u{202e}gpj".to_owned());
    let line = table("-H -o hostname", &[row]);
    assert_eq!(line, "a?]0;x??b?31m?gpj\n");
}

#[test]
fn options_bundle_and_come_in_any_order() {
    let a = args("101 -Ho ctid,status 102 -s -hostname web1");
    assert_eq!(a.containers, ["101", "102", "web1"]);
    assert!(!a.header && a.descending);
    assert_eq!(a.sort.name, "hostname");
    let numbers = args("-a1");
    assert_eq!((numbers.fields.len(), numbers.header), (1, false));
    assert_eq!(args("-aovpsid,status").fields.len(), 2);
    assert_eq!(args("-aHoCTID,Status").fields[1].name, "status");
    assert_eq!(args("-s-bootorder").sort.name, "bootorder");
    assert_eq!(args("-an").fields[4].name, "name");
    assert!(args("-aj").json);
    assert!(!args("--no-trim --no-header -S").trim);
}

#[test]
fn wrong_fields_and_options_end_with_1_and_say_which() {
    for (words, message) in [
        ("-o ctid,nosuch", "Unknown field: nosuch"),
        ("-o a\x1bb", "Unknown field: a?b"),
        ("-s nosuch", "Invalid sort field name: nosuch"),
        ("-s -", "Invalid sort field name: "),
    ] {
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        let outcome = Args::parse(&words).unwrap_err();
        assert_eq!((outcome.stderr, outcome.exit), (vec![message.to_owned()], 1));
    }
    assert_eq!(Args::parse(&["--nosuch".to_owned()]).unwrap_err().exit, 1);
    let help = Args::parse(&["--help".to_owned()]).unwrap_err();
    assert_eq!(help.exit, 0);
    assert!(help.stdout.contains("--no-trim"));
    assert!(run(&["-L".to_owned()]).stdout.starts_with("ctid            CTID\n"));
}

#[test]
fn numbers_sort_as_numbers_and_unset_ones_come_last_going_down() {
    let rows = || {
        vec![
            facts(9, Status::Stopped, &[("BOOTORDER", "5"), ("IP_ADDRESS", "10.0.0.9")]),
            facts(100, Status::Stopped, &[("BOOTORDER", "10"), ("IP_ADDRESS", "10.0.0.10")]),
            facts(20, Status::Stopped, &[]),
            facts(3, Status::Stopped, &[("BOOTORDER", "5"), ("HOSTNAME", "a")]),
        ]
    };
    let order = |words: &str| {
        let args = args(words);
        sorted(rows(), &args.sort, args.descending).iter().map(|r| r.ctid.get()).collect::<Vec<_>>()
    };
    assert_eq!(order(""), [3, 9, 20, 100]);
    assert_eq!(order("-s -ctid"), [100, 20, 9, 3]);
    assert_eq!(order("-s -bootorder"), [100, 3, 9, 20]);
    assert_eq!(order("-s ip"), [3, 20, 9, 100]);
}

fn node(confs: &[(u32, &str)]) -> (tempfile::TempDir, Node) {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let vz_conf = format!("VZ_RUNDIR={}\nDUMPDIR={}\nLOCKDIR={}\n", at("run"), at("dump"), at("lock"));
    fs_err::write(dir.path().join("vz.conf"), vz_conf).unwrap();
    fs_err::create_dir(dir.path().join("conf")).unwrap();
    for (ctid, text) in confs {
        fs_err::write(dir.path().join(format!("conf/{ctid}.conf")), text).unwrap();
    }
    let node = Node::open(dir.path()).unwrap();
    (dir, node)
}

fn listed(node: &Node, words: &str) -> Outcome {
    list(node, &args(words))
}

#[test]
fn containers_are_chosen_by_state_number_name_and_pattern() {
    let (dir, node) = node(&[
        (101, "HOSTNAME=\"web1.example.com\"\nNAME=web\n"),
        (102, "HOSTNAME=db\nDESCRIPTION=\"the database\"\n"),
        (103, "HOSTNAME=web2.example.com\n"),
    ]);
    fs_err::create_dir(dir.path().join("dump")).unwrap();
    fs_err::write(dir.path().join("dump/Dump.103"), "").unwrap();
    crate::config::names::claim(&node, ct(101), "web").unwrap().keep(None).unwrap();
    for (words, lines) in [
        ("-a1", "       101\n       102\n       103\n"),
        ("-S1", "       101\n       102\n       103\n"),
        ("-Ho ctid,status 103 101", "       101 stopped\n       103 suspended\n"),
        ("-1 web", "       101\n"),
        ("-1 102 999", "       102\n"),
        ("-a1 -h web*", "       101\n       103\n"),
        ("-a1 -N w?b", "       101\n"),
        ("-a1 -d *base", "       102\n"),
        ("-aHo layout,ctid -s -ctid 102", "simfs         102\n"),
    ] {
        let outcome = listed(&node, words);
        assert_eq!((outcome.stdout.as_str(), outcome.exit), (lines, 0), "{words}");
        assert_eq!(outcome.stderr, [""; 0], "{words}");
    }
}

#[test]
fn nothing_to_list_is_an_error_only_where_it_was_asked_for() {
    let (_dir, node) = node(&[(101, "")]);
    let not_found = vec!["Container(s) not found".to_owned()];
    assert_eq!(listed(&node, ""), Outcome { stderr: not_found.clone(), ..Outcome::default() });
    for words in ["999", "-a nobody"] {
        assert_eq!(
            listed(&node, words),
            Outcome { stderr: not_found.clone(), exit: 1, ..Outcome::default() },
            "{words}"
        );
    }
    assert_eq!(listed(&node, "-j"), Outcome { stdout: "[]\n".into(), ..Outcome::default() });
    assert_eq!(listed(&node, "-j 999"), Outcome { stdout: "[]\n".into(), exit: 1, ..Outcome::default() });
    assert_eq!(listed(&node, "../etc").stderr, ["CT ID ../etc is invalid."]);
    assert_eq!(listed(&node, "0").exit, 1);
}

#[test]
fn a_broken_configuration_is_listed_and_complained_about() {
    let (dir, node) = node(&[(101, "HOSTNAME=\"web1\n"), (102, "HOSTNAME=db\nNUMPROC=many\n")]);
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("conf/103.conf"), rustix::fs::Mode::from_raw_mode(0o600))
        .unwrap();
    let outcome = listed(&node, "-aHo ctid,hostname,numproc");
    assert_eq!(outcome.stdout.lines().count(), 3);
    assert_eq!(outcome.stderr.len(), 2, "{:?}", outcome.stderr);
    assert!(outcome.stderr[0].contains("101.conf:1: the quote after HOSTNAME= is not closed"), "{:?}", outcome.stderr);
    assert_eq!(outcome.exit, 0);
}

#[test]
fn a_container_with_a_live_init_is_running() {
    let (_dir, node) = node(&[(101, "HOSTNAME=web1\nNUMPROC=40\n")]);
    let run = vzrt::RunDir::new(node.run_dir(ct(101)));
    run.create().unwrap();
    let me = i32::try_from(std::process::id()).unwrap();
    let state = vzrt::state::State {
        boot_id: vzrt::state::boot_id(),
        ctid: ct(101),
        init_pid: me,
        init_start_ticks: vzrt::state::start_ticks(me).unwrap(),
        monitor_pid: me,
        started_at_s: 0,
        cgroup: "vz-no-such/101".into(),
    };
    run.write_state(&state).unwrap();
    let outcome = listed(&node, "-Ho ctid,status,hostname");
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.len()), ("       101 running   web1\n", 0));
    let uptime = listed(&node, "-Ho uptime").stdout;
    assert!(uptime.trim().starts_with("000d0") && uptime.trim().ends_with('s'), "{uptime}");
    run.write_state(&vzrt::state::State { init_start_ticks: 1, ..state }).unwrap();
    assert_eq!(listed(&node, "-Ho status 101").stdout, "stopped\n");
    assert_eq!(listed(&node, "-S1").stdout, "       101\n");
}

#[test]
fn inherited_name_servers_are_a_word() {
    let mut row = facts(1, Status::Stopped, &[]);
    row.settings.nameserver = Some(Dns::Inherit);
    assert_eq!(
        json::render(&args("-j -o nameserver").fields, &[row]),
        "[\n  {\n    \"nameserver\": [\"inherit\"]\n  }\n]\n"
    );
}
