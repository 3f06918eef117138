//! The network of a container: `venet0`, as OpenVZ had it, on a stock kernel.
//!
//! OpenVZ's venet is a point-to-point interface between the container and its host: no hardware addresses, no ARP, no bridge; the host routes each
//! address into the container, and answers its neighbours' ARP and NDP in its name. Here it is a pair of veth ends, both without ARP, with the
//! *same* hardware address ([`NetPlan::mac`] says why that works). What a container can do to its own end breaks only that end:
//!
//! | the container's root | and then |
//! |---|---|
//! | sends from an address not its own | the host drops it: one nft table asks the routing table where the answer would go |
//! | turns ARP on, or takes another hardware address | nobody answers, or the frames are not for the host; its own traffic stops |
//! | sends ARP, router advertisements, DHCP, VLAN tags | the host's end ignores the first, the table drops the others, no VLAN exists |
//! | sends to a million addresses | its entries in the kernel's neighbour table are of the kind that is thrown out first |
//! | renames or deletes `venet0` | the pair goes, and the host's routes with it |
//!
//! The host's side is kept in three places: routes and the interface, which die with the container's network namespace, and proxy neighbour
//! entries, which don't: [`down`] finds those by address.
//!
//! Everything works in the calling thread's network namespace as the host's, so tests make a host of their own.

mod address;
mod announce;
mod error;
mod host;
mod message;
mod neighbours;
mod netlink;
mod nft;
mod plan;
mod probe;
mod support;
mod sys;
mod venet;

pub use address::{Address, BadAddress, Unusable, check_address};
pub use announce::announce;
pub use error::{Holder, NetError};
pub use host::{ensure_host, host_addresses};
pub use nft::{Table, remove as remove_table};
pub use plan::{HostNet, INSIDE_NAME, NeighbourDevs, NetPlan};
pub use probe::{PROBE_WAIT, Probe};
pub use support::{Feature, support};
pub use venet::{add, down, remove, up};

#[cfg(test)]
mod tests;
