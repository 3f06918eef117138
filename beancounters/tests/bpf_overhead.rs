//! What counting costs: the same calls inside a counted cgroup and outside. A program of its own, for it goes into the cgroup itself.
#![expect(clippy::unwrap_used, reason = "a test that fails here has failed")]

#[expect(dead_code, reason = "the other test program uses the rest")]
mod bpf_support;

use std::fs::File;
use std::hint::black_box;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use beancounters::Set;
use beancounters::bpf::Host;
use bpf_support::{cgroup2, host};

type Call = (&'static str, fn());

const CALLS: [Call; 6] = [
    ("open, close", || drop(File::open("/dev/null").unwrap())),
    ("socket, close (unix)", || drop(UnixDatagram::unbound().unwrap())),
    ("socket, bind, close (udp)", || drop(UdpSocket::bind("127.0.0.1:0").unwrap())),
    // Beyond the largest that malloc keeps (32 MiB): one mmap and one munmap.
    ("mmap, munmap", || drop(black_box(Vec::<u8>::with_capacity(64 << 20)))),
    ("stat, which nothing counts", || assert!(std::fs::metadata("/").unwrap().is_dir())),
    ("fork, exec, wait", || assert!(Command::new("/bin/true").status().unwrap().success())),
];

/// The fastest of several rounds, for what a machine does beside only makes it slower.
fn time_of(call: fn(), calls: u32) -> Duration {
    let round = || {
        let start = Instant::now();
        (0..calls).for_each(|_| call());
        start.elapsed() / calls
    };
    (0..12).map(|_| round()).min().unwrap()
}

fn measure() -> Vec<Duration> {
    CALLS.iter().map(|(name, call)| time_of(*call, if name.starts_with("fork") { 8 } else { 1500 })).collect()
}

fn enter(cgroup: &Path) {
    std::fs::write(cgroup.join("cgroup.procs"), "0").unwrap();
}

#[test]
fn counting_costs_little() {
    let without = Host::open().unwrap().is_none().then(measure);
    let host = host();
    let home = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let home = home.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
    let home = cgroup2().join(home);
    let counted = cgroup2().join(format!("vz-ubc-overhead-{}", std::process::id()));
    std::fs::create_dir(&counted).unwrap();
    let id = host.attach(&counted, &Set::default()).unwrap();

    let outside = measure();
    enter(&counted);
    let inside = measure();
    enter(&home);
    host.detach(id).unwrap();
    std::fs::remove_dir(&counted).unwrap();

    for (place, (name, _)) in CALLS.iter().enumerate() {
        let (outside, inside) = (outside[place], inside[place]);
        let before = without.as_ref().map_or(String::from("not measured"), |without| format!("{:?}", without[place]));
        eprintln!("{name}: {before} without programs, {outside:?} outside, {inside:?} inside");
        assert!(inside < outside * 3, "{name}: {inside:?} inside, {outside:?} outside");
    }
}
