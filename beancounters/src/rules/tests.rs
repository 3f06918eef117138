use super::*;
use proptest::prelude::*;

/// More than any sample asks for.
const HOST: Host = Host { ram_pages: 4 << 20, swap_pages: 4 << 20 };

fn set(lines: &str) -> Set {
    let pair = |line: &str| {
        let (key, value) = line.split_once('=').expect("KEY=value");
        let resource = Resource::from_config_key(key).expect("the key of a resource");
        Bound::parse(resource, value.trim_matches('"')).expect("a bound")
    };
    lines.lines().map(str::trim).filter(|line| line.contains('=')).map(pair).collect()
}

fn basic() -> Set {
    set("KMEMSIZE=14372700:14790164\nLOCKEDPAGES=2048:2048\nPRIVVMPAGES=65536:69632\nSHMPAGES=21504:21504
         NUMPROC=240:240\nPHYSPAGES=0:unlimited\nVMGUARPAGES=33792:unlimited\nOOMGUARPAGES=26112:unlimited
         NUMTCPSOCK=360:360\nNUMFLOCK=188:206\nNUMPTY=16:16\nNUMSIGINFO=256:256\nTCPSNDBUF=1720320:2703360
         TCPRCVBUF=1720320:2703360\nOTHERSOCKBUF=1126080:2097152\nDGRAMRCVBUF=262144:262144\nNUMOTHERSOCK=360:360
         DCACHESIZE=3409920:3624960\nNUMFILE=9312:9312\nAVNUMPROC=180:180\nNUMIPTENT=128:128")
}

fn said(set: &Set) -> Vec<String> {
    let show = |finding: Finding| match finding.fix {
        Some(fix) => format!("{finding} -> {fix}"),
        None => finding.to_string(),
    };
    check(rules_for(set), set, &HOST).into_iter().map(show).collect()
}

/// `basic` with other bounds in place of its own.
fn with(lines: &str) -> Set {
    let mut changed = basic();
    changed.extend(set(lines).iter());
    changed
}

#[test]
fn a_consistent_configuration_breaks_no_rule() {
    assert_eq!(said(&basic()), [""; 0]);
    assert_eq!(said(&set("PHYSPAGES=0:512M\nSWAPPAGES=0:1G")), [""; 0]);
}

#[test]
fn each_way_to_break_a_rule_has_its_line_and_its_fix() {
    for (lines, line) in [
        ("NUMPROC=240:250", "Error: barrier should be equal to limit for numproc (currently, 240:250) -> 250:250"),
        ("NUMPTY=20:16", "Error: barrier should be equal to limit for numpty (currently, 20:16) -> 20:20"),
        ("NUMFLOCK=300:206", "Error: barrier should be <= limit for numflock (currently, 300:206) -> 300:300"),
        (
            "VMGUARPAGES=33792:40000",
            "Error: limit should be = LONG_MAX for vmguarpages (currently, 40000) -> 33792:unlimited",
        ),
        ("PHYSPAGES=7:unlimited", "Error: barrier should be = 0 for physpages (currently, 7) -> 0:unlimited"),
        (
            "DCACHESIZE=3409920:3500000",
            "Warning: dcachesize.lim should be > 3575808 (currently, 3500000) -> 3409920:3575808",
        ),
        (
            "KMEMSIZE=10000000:10100000",
            "Error: kmemsize.bar should be > 10997760 (currently, 10000000) -> 10997760:11097760",
        ),
        ("PRIVVMPAGES=30000:31000", "Warning: privvmpages.bar should be > 33792 (currently, 30000) -> 33792:34792"),
        (
            "TCPSNDBUF=1720320:1800000",
            "Error: tcpsndbuf.lim-tcpsndbuf.bar should be > 921600 (currently, 1800000-1720320) -> 1720320:2641920",
        ),
        (
            "TCPRCVBUF=1720320:1800000",
            "Warning: tcprcvbuf.lim-tcprcvbuf.bar should be > 921600 (currently, 1800000-1720320) -> 1720320:2641920",
        ),
        ("TCPRCVBUF=65535:2703360", "Warning: tcprcvbuf.bar should be > 65536 (currently, 65535) -> 65536:2703361"),
        ("DGRAMRCVBUF=1000:262144", "Warning: dgramrcvbuf.bar should be > 32768 (currently, 1000) -> 32768:293912"),
        (
            "DGRAMRCVBUF=32768:262144",
            "Recommendation: dgramrcvbuf.bar should be > 132096 (currently, 32768) -> 132096:361472",
        ),
        ("AVNUMPROC=291:291\nKMEMSIZE=16M:17M", "Warning: numfile.bar should be > 9312 (currently, 9000) -> 9312:9312"),
    ] {
        let mut set = with(lines);
        if lines.starts_with("AVNUMPROC") {
            set.insert(Bound::new(Resource::Numfile, 9000, 9000));
        }
        assert_eq!(said(&set), [line], "{lines}");
    }
}

#[test]
fn a_simple_configuration_has_only_ram_and_swap_to_be_wrong() {
    assert_eq!(
        said(&set("PHYSPAGES=5:32G\nSWAPPAGES=1:32G\nNUMPROC=1:2")),
        [
            "Error: barrier should be = 0 for physpages (currently, 5) -> 0:8388608",
            "Error: barrier should be = 0 for swappages (currently, 1) -> 0:8388608",
            "Warning: physpages.lim should be <= 4194304 (currently, 8388608) -> 5:4194304",
            "Warning: swappages.lim should be <= 4194304 (currently, 8388608) -> 1:4194304",
        ]
    );
    assert_eq!(said(&set("PHYSPAGES=0:1G")), ["Error: parameter swappages not found"]);
}

#[test]
fn what_is_required_and_missing_is_named_and_has_no_fix() {
    let all: Vec<String> =
        "numproc numtcpsock numothersock oomguarpages vmguarpages kmemsize tcpsndbuf tcprcvbuf othersockbuf \
        dgramrcvbuf privvmpages numfile dcachesize physpages numpty"
            .split(' ')
            .map(|name| format!("Error: parameter {name} not found"))
            .collect();
    assert_eq!(said(&Set::default()), all);
    let mut without = basic();
    for optional in ["lockedpages", "shmpages", "numflock", "numsiginfo", "numiptent", "avnumproc"] {
        without.remove(optional.parse().expect("a resource"));
    }
    assert_eq!(said(&without), [""; 0]);
}

#[test]
fn without_an_expected_number_of_processes_it_is_half_of_those_allowed() {
    let mut set = with("KMEMSIZE=4915200:16M\nDCACHESIZE=0:0\nNUMFILE=3840:3840\nNUMTCPSOCK=1:1\nNUMOTHERSOCK=1:1");
    set.remove(Resource::Avnumproc);
    set.insert(Bound::new(Resource::Dcachesize, 0, 3840 * 384));
    assert_eq!(said(&set), ["Error: kmemsize.bar should be > 6389760 (currently, 4915200) -> 6389760:18251776"]);
}

/// Applies the first fix there is until there is none; how many that were.
fn mended(set: &Set, host: &Host, rules: &[Rule]) -> (Set, usize) {
    let mut set = set.clone();
    for steps in 0..200 {
        let Some(fix) = check(rules, &set, host).iter().find_map(|finding| finding.fix) else { return (set, steps) };
        assert_ne!(set.insert(fix), Some(fix), "a fix changes something");
    }
    panic!("fixes without end: {set:?}");
}

/// Numbers of every size, the extremes and what samples have among them.
fn count() -> impl Strategy<Value = u64> {
    prop_oneof![0..100_u64, 0..10_000_000_u64, any::<u64>(), Just(UNLIMITED), Just(UNLIMITED - 1), Just(0)]
}

fn some_set() -> impl Strategy<Value = Set> {
    let bound = proptest::option::weighted(0.9, (count(), count()));
    proptest::collection::vec(bound, Resource::ALL.len()).prop_map(|bounds| {
        let said = Resource::ALL.into_iter().zip(bounds);
        said.filter_map(|(resource, bound)| bound.map(|(b, l)| Bound::new(resource, b, l))).collect()
    })
}

proptest! {
    #[test]
    fn fixes_come_to_an_end_and_leave_only_what_is_missing(set in some_set(), ram in count(), swap in count(), simple: bool) {
        let host = Host { ram_pages: ram.min(UNLIMITED), swap_pages: swap.min(UNLIMITED) };
        let rules = if simple { VSWAP } else { CLASSIC };
        let (after, _) = mended(&set, &host, rules);
        for finding in check(rules, &after, &host) {
            prop_assert!(set.get(finding.resource).is_none(), "{finding}");
        }
    }

    #[test]
    fn in_any_order_fixes_come_to_an_end(set in some_set(), order: [u8; 32]) {
        let mut other = set;
        let mut turn = order.into_iter().cycle();
        for step in 0.. {
            prop_assert!(step < 500, "fixes without end");
            let fixes: Vec<Bound> = check(CLASSIC, &other, &HOST).iter().filter_map(|f| f.fix).collect();
            if fixes.is_empty() { break }
            let chosen = usize::from(turn.next().expect("a cycle")) % fixes.len();
            other.insert(fixes[chosen]);
        }
        prop_assert_eq!(check(CLASSIC, &other, &HOST).iter().filter(|f| f.fix.is_some()).count(), 0);
    }

    #[test]
    fn a_classic_configuration_only_ever_gets_more(set in some_set()) {
        let (after, _) = mended(&set, &HOST, CLASSIC);
        for bound in set.iter().filter(|bound| bound.resource() != Resource::Physpages) {
            let raised = after.get(bound.resource()).expect("nothing is taken away");
            prop_assert!(raised.barrier() >= bound.barrier() && raised.limit() >= bound.limit(), "{} {}", bound, raised);
        }
    }
}
