//! What the network managers of a container read about `venet0`.
//!
//! The runtime sets the addresses itself, from outside, and that is what counts. A manager inside that knows nothing of them would take them
//! away, or wait for a network that never comes (`network-online.target`); one that is told the same finds everything as it should be. So each
//! manager that the container has is told, in a file of ours or a marked block in one of the container's, and what others wrote there stays.

mod interfaces;
mod text;

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::root::{Durability, Mounts, Owner, Root};
use crate::net::Address;

/// How a container's files are told of its addresses (`ADD_IP` and `DEL_IP` of a distribution).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AddressStyle {
    /// Not at all.
    #[default]
    Venet,
    /// In the files of each manager that is there.
    Auto,
    /// In the files of this one, there or not.
    Of(Manager),
}

/// A program inside that sets addresses by its own files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Manager {
    /// `systemd-networkd`, also where netplan writes its other files.
    Networkd,
    /// With keyfiles.
    NetworkManager,
    /// The scripts of Red Hat's relatives, `/etc/sysconfig/network-scripts`.
    Ifcfg,
    /// SUSE's, `/etc/sysconfig/network`: its scripts, and wicked.
    SuseIfcfg,
    /// `/etc/network/interfaces`: Debian's ifupdown, ifupdown2, ifupdown-ng, busybox.
    Ifupdown,
}

impl Manager {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Networkd, Self::NetworkManager, Self::Ifcfg, Self::SuseIfcfg, Self::Ifupdown];

    fn is_in(self, root: &Root) -> bool {
        let any = |paths: &[&str]| paths.iter().any(|path| root.has_file(path));
        match self {
            Self::Networkd => any(&["/usr/lib/systemd/systemd-networkd", "/lib/systemd/systemd-networkd"]),
            Self::NetworkManager => any(&["/usr/sbin/NetworkManager", "/usr/bin/NetworkManager"]),
            // Red Hat's has an `ifup` too, and no /etc/network.
            Self::Ifupdown => any(&["/sbin/ifup", "/usr/sbin/ifup"]) && root.has_directory("/etc/network"),
            Self::Ifcfg => any(&["/etc/sysconfig/network-scripts/ifup-eth"]),
            Self::SuseIfcfg => any(&["/etc/sysconfig/network/config"]),
        }
    }
}

impl AddressStyle {
    /// The managers to be told, of those that `is_there` knows.
    fn told(self, is_there: impl Fn(Manager) -> bool) -> Vec<Manager> {
        let told = |manager| match (self, manager) {
            (Self::Venet, _) => false,
            (Self::Of(only), _) => only == manager,
            // Told twice, it would have two files about one interface.
            (Self::Auto, Manager::NetworkManager) => is_there(manager) && !is_there(Manager::Ifcfg),
            (Self::Auto, _) => is_there(manager),
        };
        Manager::ALL.into_iter().filter(|manager| told(*manager)).collect()
    }
}

/// A file of a manager and what becomes of it.
#[derive(Debug, PartialEq, Eq)]
struct File {
    directory: &'static str,
    name: &'static str,
    mode: u32,
    wanted: Wanted,
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// All of it is ours.
    Whole(String),
    /// It is ours and not needed.
    Gone,
    /// The block of ours in it; empty for none.
    Block(String),
}

/// What is to be done for `addresses` when these managers are to be told: files of the others are not to tell of what may not be true any more.
fn files(told: &[Manager], addresses: &[Address]) -> Vec<File> {
    let of = |manager| if told.contains(&manager) { addresses } else { &[] };
    let whole = |directory, name, mode, text: fn(&[Address]) -> String, manager| {
        let addresses = of(manager);
        let wanted = if addresses.is_empty() { Wanted::Gone } else { Wanted::Whole(text(addresses)) };
        File { directory, name, mode, wanted }
    };
    vec![
        whole("/etc/systemd/network", "00-vz-venet0.network", 0o644, text::networkd, Manager::Networkd),
        // NetworkManager takes no other mode: a keyfile may hold secrets.
        whole(
            "/etc/NetworkManager/system-connections",
            "vz-venet0.nmconnection",
            0o600,
            text::keyfile,
            Manager::NetworkManager,
        ),
        whole("/etc/sysconfig/network-scripts", "ifcfg-venet0", 0o644, text::ifcfg, Manager::Ifcfg),
        whole("/etc/sysconfig/network", "ifcfg-venet0", 0o644, text::suse_ifcfg, Manager::SuseIfcfg),
        whole("/etc/sysconfig/network", "ifroute-venet0", 0o644, text::suse_routes, Manager::SuseIfcfg),
        File {
            directory: "/etc/network",
            name: "interfaces",
            mode: 0o644,
            wanted: Wanted::Block(interfaces::block(of(Manager::Ifupdown))),
        },
    ]
}

/// OpenVZ had a file for each further address; any that is left would bring back an address of then.
const OLD_ALIASES: std::ops::Range<u32> = 0..256;

/// Tells the network managers in `root` that `addresses` are on `venet0`, and nothing else of ours.
///
/// A link in the place of one of our own files stays, and so does what it leads to: it is how the container's root keeps a manager from being told
/// (systemd.network(5): a file linked to `/dev/null` is masked).
///
/// # Errors
/// Something that is no file is where one belongs, or can't be written. The other managers are told all the same.
pub fn set_network(root: &Root, style: AddressStyle, addresses: &[Address]) -> Result<(), Error> {
    if style == AddressStyle::Venet {
        return Ok(());
    }
    let told = style.told(|manager| manager.is_in(root));
    let mut done = Ok(());
    for file in files(&told, addresses) {
        done = done.and(put(root, &file));
    }
    if told.contains(&Manager::Ifcfg) {
        done = done.and(remove_old_aliases(root));
    }
    done
}

fn put(root: &Root, file: &File) -> Result<(), Error> {
    let is_nothing = matches!(&file.wanted, Wanted::Gone) || file.wanted == Wanted::Block(String::new());
    let directory = match root.directory(file.directory, Mounts::Refuse) {
        Err(e) if is_nothing && e.is_absence() => return Ok(()),
        Err(e) if e.is_absence() => root.make_directory(file.directory)?,
        found => found?,
    };
    let (owner, durability) = (Owner::root(file.mode), Durability::Rewritten);
    match &file.wanted {
        Wanted::Block(block) if block.is_empty() && directory.stat(file.name)?.is_none() => Ok(()),
        Wanted::Block(block) => directory.edit(file.name, owner, durability, |old| Ok(interfaces::with(old, block))),
        Wanted::Whole(_) | Wanted::Gone if directory.is_link(file.name)? => Ok(()),
        Wanted::Whole(text) => directory.edit(file.name, owner, durability, |_| Ok(text.clone().into_bytes())),
        Wanted::Gone => directory.remove(file.name),
    }
}

fn remove_old_aliases(root: &Root) -> Result<(), Error> {
    let directory = root.directory("/etc/sysconfig/network-scripts", Mounts::Refuse)?;
    let mut numbers = OLD_ALIASES;
    numbers.try_for_each(|number| directory.remove(&format!("ifcfg-venet0:{number}")))
}

#[cfg(test)]
mod tests;
