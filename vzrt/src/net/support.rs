//! What this host can do for containers' networks: lines for `vzctl check`.

use std::path::Path;
use std::process::Command;

use super::error::NetError;
use super::host;
use super::nft;
use super::plan::HostNet;

/// One line of the table `vzctl check` prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// What it is.
    pub feature: &'static str,
    /// Whether this host has it.
    pub available: bool,
    /// What needs it.
    pub needed_by: &'static str,
    /// What happens without.
    pub without: &'static str,
    /// What was seen.
    pub found: String,
}

/// Looks at the host, and changes nothing.
#[must_use]
pub fn support(host: &HostNet) -> Vec<Feature> {
    vec![
        network_namespaces(),
        veth(),
        source_check(host),
        table(host),
        forwarding(),
        ipv6(),
        reverse_path(),
        neighbour_table(),
    ]
}

fn network_namespaces() -> Feature {
    Feature {
        feature: "network namespaces",
        available: Path::new("/proc/self/ns/net").exists(),
        needed_by: "every container",
        without: "containers can't start",
        found: String::new(),
    }
}

/// The kernel is asked for a pair it must refuse: with `EINVAL`, for the name, if it knows the kind, and with `EOPNOTSUPP` if not.
fn veth() -> Feature {
    let (available, found) = match super::venet::kernel_has_veth() {
        Ok(available) => (available, String::new()),
        Err(error) => (false, full(&error)),
    };
    Feature { feature: "veth", available, needed_by: "venet0", without: "containers can't have addresses", found }
}

/// Whether nft would take the rules, source check and all: `--check` asks the kernel and loads nothing.
fn source_check(host: &HostNet) -> Feature {
    let (available, found) = match nft::check(host) {
        Ok(()) => (true, nft_version()),
        Err(error) => (false, full(&error)),
    };
    Feature {
        feature: "nft with fib lookups",
        available,
        needed_by: "the check that a container sends from its own addresses only, and masquerade",
        without: "containers with addresses don't start",
        found,
    }
}

fn table(host: &HostNet) -> Feature {
    let (available, found) = match nft::is_loaded(host) {
        Ok(true) => (true, format!("table inet {}", host.table)),
        Ok(false) => (false, format!("no table inet {} of this version", host.table)),
        Err(error) => (false, full(&error)),
    };
    Feature {
        feature: "source check loaded",
        available,
        needed_by: "running containers",
        without: "until the next start loads it, only rp_filter stops forged addresses, and only in IPv4",
        found,
    }
}

fn forwarding() -> Feature {
    let value = host::get(Path::new("ipv4/ip_forward"));
    Feature {
        feature: "IPv4 forwarding",
        available: value.as_deref().is_ok_and(|v| v == "1"),
        needed_by: "reaching containers from outside",
        without: "the first start turns it on",
        found: shown("net.ipv4.ip_forward", value),
    }
}

fn ipv6() -> Feature {
    let value = host::get(Path::new("ipv6/conf/all/forwarding"));
    Feature {
        feature: "IPv6 forwarding",
        available: value.as_deref().is_ok_and(|v| v == "1"),
        needed_by: "IPv6 addresses",
        without: "the first start turns it on, if the kernel has IPv6 and vz.conf says IPV6=yes",
        found: shown("net.ipv6.conf.all.forwarding", value),
    }
}

/// The kernel takes the larger of `all` and the interface's own 1, and 2 is the loose check that forged addresses pass.
fn reverse_path() -> Feature {
    let value = host::get(Path::new("ipv4/conf/all/rp_filter"));
    Feature {
        feature: "strict reverse path filter",
        available: value.as_deref().is_ok_and(|v| v != "2"),
        needed_by: "a second wall against forged IPv4 addresses",
        without: "the nft table is the only wall: don't flush it",
        found: shown("net.ipv4.conf.all.rp_filter", value),
    }
}

/// One table for the whole machine, containers included. 1024 is the kernel's default and was chosen for one host.
fn neighbour_table() -> Feature {
    let value = host::get(Path::new("ipv4/neigh/default/gc_thresh3"));
    Feature {
        feature: "large neighbour table",
        available: value.as_deref().is_ok_and(|v| v.parse::<u32>().is_ok_and(|n| n >= 8192)),
        needed_by: "many containers that talk to many machines",
        without: "old entries are thrown out early: set net.ipv4.neigh.default.gc_thresh3 and net.ipv6's to 8192 or more",
        found: shown("net.ipv4.neigh.default.gc_thresh3", value),
    }
}

fn shown(name: &str, value: Result<String, NetError>) -> String {
    match value {
        Ok(value) => format!("{name}={value}"),
        Err(error) => full(&error),
    }
}

/// An error with its cause: the table has one line for both.
fn full(error: &NetError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn nft_version() -> String {
    match Command::new("nft").arg("--version").output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(error) => error.to_string(),
    }
}
