//! What is wanted: the host's part, one container's part.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::address::Address;
use super::error::NetError;
use crate::Ctid;

/// The name of the interface inside every container.
pub const INSIDE_NAME: &str = "venet0";

/// How this host does the network of its containers: the same for all of them.
///
/// Two of these with different `prefix` and `table` can live on one machine without touching each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostNet {
    /// What the host's interfaces are named: `vz` makes `vz101`. At most 5 characters, so that any CTID fits in the kernel's 15.
    pub prefix: String,
    /// The name of the one nft table, family `inet`.
    pub table: String,
    /// Whether containers' private addresses leave the host behind the host's own (`nft` masquerade).
    pub masquerade: bool,
    /// How many connections of one container the host tracks at most, if it tracks any: tracking is only on with `masquerade`.
    pub tracked_connections_max: u32,
    /// Whether IPv6 is forwarded too (`IPV6=` of vz.conf).
    pub ipv6: bool,
}

impl Default for HostNet {
    fn default() -> Self {
        Self { prefix: "vz".into(), table: "vz".into(), masquerade: false, tracked_connections_max: 8192, ipv6: true }
    }
}

impl HostNet {
    /// Whether the names can be used: they become names of interfaces and part of a text for nft.
    ///
    /// # Errors
    /// [`NetError::BadName`] with the one that can't.
    pub fn check(&self) -> Result<(), NetError> {
        let word = |name: &str, max: usize| {
            name.starts_with(|c: char| c.is_ascii_alphabetic())
                && name.len() <= max
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        // A digit at its end would run into the number of the container: vz1 + 01 is vz + 101.
        if !word(&self.prefix, 5) || self.prefix.ends_with(|c: char| c.is_ascii_digit()) {
            return Err(NetError::BadName { what: "interface prefix", name: self.prefix.clone() });
        }
        if !word(&self.table, 31) {
            return Err(NetError::BadName { what: "nft table", name: self.table.clone() });
        }
        Ok(())
    }

    /// The interface group of all host ends: what the nft rules match, as one number. Names would be matched as `vz*`, and `vzbr0` is what
    /// many OpenVZ hosts call their bridge. A hash of the prefix, so that two nodes on one machine don't share it.
    #[must_use]
    pub fn group(&self) -> u32 {
        interface_group(&self.prefix)
    }

    /// The name of a container's interface on the host.
    #[must_use]
    pub fn ifname(&self, ctid: Ctid) -> String {
        format!("{}{ctid}", self.prefix)
    }
}

/// Which of the host's interfaces answer ARP and NDP for a container's address (`NEIGHBOUR_DEVS`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NeighbourDevs {
    /// Every interface that is up, has a global address and speaks ARP. OpenVZ's default.
    #[default]
    All,
    /// Of these, only the one on whose own subnet the address is.
    Detect,
    /// Exactly these.
    List(Vec<String>),
    /// None: the addresses are routed to this host.
    None,
}

/// The network of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetPlan {
    /// The host's end of the pair: `vz101`.
    pub host_ifname: String,
    /// [`HostNet::prefix`].
    pub prefix: String,
    /// The container's addresses, in the order of the configuration: the first of a family is what the container sends from.
    pub addresses: Vec<Address>,
    /// The interface whose first address the host uses when it talks to the container (`VE_ROUTE_SRC_DEV`).
    pub route_source_dev: Option<String>,
    /// `NEIGHBOUR_DEVS`.
    pub neighbour_devs: NeighbourDevs,
    /// Whether neighbours are asked if they have the address already (`SKIP_ARPDETECT`, negated).
    pub arp_detect: bool,
    /// Whether not being able to ask is an error (`ERROR_ON_ARPFAIL`).
    pub error_on_arpfail: bool,
    /// Bytes per packet; `None` leaves the kernel's 1500.
    pub mtu: Option<u32>,
}

impl NetPlan {
    /// The plan of a container with these addresses, everything else as OpenVZ's defaults.
    #[must_use]
    pub fn new(host: &HostNet, ctid: Ctid, addresses: Vec<Address>) -> Self {
        Self {
            host_ifname: host.ifname(ctid),
            prefix: host.prefix.clone(),
            addresses,
            route_source_dev: None,
            neighbour_devs: NeighbourDevs::All,
            arp_detect: true,
            error_on_arpfail: false,
            mtu: None,
        }
    }

    /// [`HostNet::group`].
    #[must_use]
    pub fn group(&self) -> u32 {
        interface_group(&self.prefix)
    }

    /// The hardware address of *both* ends.
    ///
    /// With `NOARP` the kernel sends every packet to the sending device's own address; the other end takes it because it has the same one. So no
    /// end ever asks who has what: nothing to spoof. Derived from the name, so a container keeps it from start to start.
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        let [a, b, c, d] = fnv1a(self.host_ifname.as_bytes()).to_be_bytes();
        // The second bit of the first byte: locally administered.
        [0x02, 0x76, a, b, c, d]
    }

    /// The plan's addresses without their masks.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> + Clone + '_ {
        self.addresses.iter().map(|a| a.ip)
    }
}

/// Group 0 is every other interface's, and iproute2 prints numbers up to 2^31 readably.
fn interface_group(prefix: &str) -> u32 {
    (fnv1a(prefix.as_bytes()) & 0x7fff_ffff).max(1)
}

/// FNV-1a, 32 bits: stable over time and versions, which the standard library's hasher does not promise.
pub(super) fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that fails here has failed")]

    use super::*;

    #[test]
    fn the_name_of_any_container_fits_in_an_interface_name() {
        let host = HostNet { prefix: "vzxyz".into(), ..HostNet::default() };
        assert_eq!(host.ifname(Ctid::try_from(Ctid::MAX).unwrap()).len(), 15);
    }

    #[test]
    fn names_that_would_not_be_names_are_refused() {
        let check = |prefix: &str, table: &str| {
            HostNet { prefix: prefix.into(), table: table.into(), ..HostNet::default() }.check()
        };
        assert!(check("vz", "vz").is_ok());
        for (prefix, table) in
            [("", "vz"), ("vzabcd", "vz"), ("vz1", "vz"), ("v/", "vz"), ("vz", ""), ("vz", "vz { }"), ("vz", "vz\n")]
        {
            assert!(check(prefix, table).is_err(), "{prefix:?} {table:?}");
        }
    }

    #[test]
    fn nodes_with_different_prefixes_have_different_groups_and_containers_different_macs() {
        let plan = |prefix: &str, n: u32| {
            let host = HostNet { prefix: prefix.into(), ..HostNet::default() };
            NetPlan::new(&host, Ctid::try_from(n).unwrap(), vec![])
        };
        assert_ne!(plan("va", 101).group(), plan("vb", 101).group());
        assert_eq!(plan("va", 101).group(), plan("va", 102).group());
        let macs: std::collections::BTreeSet<_> = (1..3000).map(|n| plan("vz", n).mac()).collect();
        assert_eq!(macs.len(), 2999);
        assert_eq!(plan("vz", 1).mac()[0] & 3, 2, "unicast, locally administered");
    }

    #[test]
    fn a_plan_survives_the_journal() {
        let mut plan = NetPlan::new(
            &HostNet::default(),
            Ctid::try_from(101).unwrap(),
            vec!["10.0.0.1/24".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        );
        plan.neighbour_devs = NeighbourDevs::List(vec!["eth0".into()]);
        let json = serde_json::to_string(&plan).unwrap();
        assert!(json.contains(r#""addresses":["10.0.0.1/24","2001:db8::1"]"#), "{json}");
        assert_eq!(serde_json::from_str::<NetPlan>(&json).unwrap(), plan);
    }
}
