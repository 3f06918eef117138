//! What the host needs once, for all of its containers.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use super::error::NetError;
use super::neighbours;
use super::netlink::Netlink;
use super::nft::{self, Table};
use super::plan::HostNet;

/// The network sysctls: of the network namespace of whoever opens a file here, whichever process mounted the procfs.
const SYSCTL: &str = "/proc/sys/net";

/// Makes the host ready: packets are forwarded, and the nft table is there. Costs about 0.1 ms if all is so already, and running it again is also
/// what repairs the table after an admin's `flush ruleset`.
///
/// # Errors
/// [`NetError::BadName`]; [`NetError::Nft`] if the source check can't be loaded: then no container may be given a network.
pub fn ensure_host(host: &HostNet) -> Result<Table, NetError> {
    host.check()?;
    // The table first: between the two, a host that forwards without checking would be the worse one.
    let table = nft::ensure(host)?;
    set(Path::new("ipv4/ip_forward"), "1")?;
    if host.ipv6 && has_ipv6() {
        forward_ipv6()?;
    }
    Ok(table)
}

/// The host's own global addresses: what [`super::check_address`] refuses.
///
/// # Errors
/// What the kernel refuses.
pub fn host_addresses() -> Result<Vec<IpAddr>, NetError> {
    let uplinks = neighbours::uplinks(&mut Netlink::open()?)?;
    Ok(uplinks.into_iter().flat_map(|uplink| uplink.addresses).collect())
}

/// Whether this kernel does IPv6 (it doesn't with `ipv6.disable=1`).
pub(super) fn has_ipv6() -> bool {
    Path::new(SYSCTL).join("ipv6").exists()
}

/// Lets the host answer neighbour solicitations for containers on one of its interfaces.
pub(super) fn allow_ndp_proxy(device: &str) -> Result<(), NetError> {
    set(&Path::new("ipv6/conf").join(device).join("proxy_ndp"), "1")
}

/// A router ignores router advertisements, and a host that got its own default route by one would lose it some minutes after its first container
/// started. `accept_ra=2` means "even when forwarding" (Documentation/networking/ip-sysctl.rst).
fn forward_ipv6() -> Result<(), NetError> {
    let forwarding = Path::new("ipv6/conf/all/forwarding");
    if get(forwarding)? != "0" {
        return Ok(());
    }
    let devices = Path::new(SYSCTL).join("ipv6/conf");
    for device in fs::read_dir(&devices).map_err(NetError::call(format!("readdir({})", devices.display())))? {
        let device = device.map_err(NetError::call(format!("readdir({})", devices.display())))?;
        let accept_ra = Path::new("ipv6/conf").join(device.file_name()).join("accept_ra");
        // `all` is not what interfaces look at, and setting it sets nothing.
        if device.file_name() != "all" && get(&accept_ra)? == "1" {
            set(&accept_ra, "2")?;
        }
    }
    set(forwarding, "1")
}

pub(super) fn get(sysctl: &Path) -> Result<String, NetError> {
    let path = Path::new(SYSCTL).join(sysctl);
    let value = fs::read_to_string(&path).map_err(NetError::call(format!("read({})", path.display())))?;
    Ok(value.trim().to_owned())
}

/// Writes only a value that differs: writing `forwarding` makes the kernel walk all interfaces.
fn set(sysctl: &Path, value: &str) -> Result<(), NetError> {
    if get(sysctl)? == value {
        return Ok(());
    }
    let path = Path::new(SYSCTL).join(sysctl);
    fs::write(&path, value).map_err(NetError::call(format!("write({}, {value})", path.display())))
}
