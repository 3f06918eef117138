//! Settings written inside a container's root file system: host name, name servers, addresses, passwords, the
//! console.
//!
//! The caller is a process that has already entered the container's user and mount namespaces as its root, so the worst that can happen is
//! that a container harms itself. What is found there was still written by an attacker, and must neither hang us, nor fill our memory, nor
//! have us write to a place of its choice: every file is reached from a descriptor of the root, must be a regular file of at most 1 MiB, and
//! is replaced by a rename, never written through. OpenVZ ran shell scripts inside for this; their file formats are kept, so that a
//! container that comes from there, or goes back, is edited in the same places.
//!
//! Nothing here writes to the host.

mod accounts;
mod carried;
mod console;
mod dns;
mod error;
mod family;
mod home;
mod hostname;
mod mtab;
mod network;
mod password;
mod root;
mod secret;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod trees;

pub use accounts::{BadUserName, UserName};
pub use carried::{Places, carry_accounts, places};
pub use console::{ConsoleStyle, set_console};
pub use dns::{HostResolv, host_resolv, parse_resolv_conf, set_dns};
pub use error::{Call, Error, Kind};
pub use family::distributions;
pub use hostname::{BadHostname, Hostname, HostnameStyle, set_hostname};
pub use mtab::set_mtab;
pub use network::{AddressStyle, Manager, set_network};
pub use password::set_password;
pub use root::Root;
pub use secret::{BadSecret, Password, SecretHash, hash_password, split_user_password};
