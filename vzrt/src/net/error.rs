//! What can go wrong with a container's network.

use std::fmt;
use std::io;
use std::net::IpAddr;

use nix::errno::Errno;

use super::address::{Address, Unusable};

/// Who has an address that was wanted for a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// Another container of this host, by its host interface.
    Container {
        /// Its host interface.
        ifname: String,
    },
    /// The host itself.
    Host,
    /// A machine on the network.
    Neighbour {
        /// The host's interface it answered on.
        device: String,
        /// Its hardware address.
        mac: Vec<u8>,
    },
    /// A route of this host's, made by no container.
    Route,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Container { ifname } => write!(f, "another container, on {ifname}"),
            Self::Host => f.write_str("the host itself"),
            Self::Route => f.write_str("a route of the host"),
            Self::Neighbour { device, mac } => {
                write!(f, "a machine on {device} with the hardware address ")?;
                mac.iter()
                    .enumerate()
                    .try_for_each(|(i, byte)| write!(f, "{}{byte:02x}", if i == 0 { "" } else { ":" }))
            }
        }
    }
}

/// Why a container's network could not be made, changed or removed.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// An address no container may have.
    #[error("can't use the IP address {address}: {why}")]
    Unusable {
        /// The address.
        address: Address,
        /// The reason.
        why: Unusable,
    },
    /// A name in the host's settings can't be one.
    #[error("bad {what}: {name:?}")]
    BadName {
        /// What it would be the name of.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Someone has the address already (exit code 78 of vzctl).
    #[error("IP address {address} is already in use by {holder}")]
    AddressInUse {
        /// The address.
        address: IpAddr,
        /// Who has it.
        holder: Holder,
    },
    /// The neighbours could not be asked, and `ERROR_ON_ARPFAIL` makes that an error.
    #[error("can't find out whether a neighbour has one of {addresses:?}")]
    DetectionFailed {
        /// The addresses in question.
        addresses: Vec<IpAddr>,
        /// Why not.
        source: Box<NetError>,
    },
    /// The name of the host's end belongs to something that is not a container's interface.
    #[error("the interface {name} exists and is not a container's")]
    NameTaken {
        /// The interface.
        name: String,
    },
    /// An interface named in the configuration does not exist.
    #[error("no such network interface: {name}")]
    NoDevice {
        /// The interface.
        name: String,
    },
    /// The container has no network to change: its host interface is gone.
    #[error("the container's interface {name} does not exist")]
    NotUp {
        /// The interface.
        name: String,
    },
    /// The kernel refused a request.
    #[error("netlink: {request}")]
    Netlink {
        /// The request, as iproute2 would write it.
        request: String,
        /// The kernel's answer.
        source: Errno,
    },
    /// A system call failed.
    #[error("{call}")]
    Call {
        /// The call with its arguments.
        call: String,
        /// Its error.
        source: io::Error,
    },
    /// The kernel's answer was not understood.
    #[error("netlink: the answer to {request} can't be read")]
    Answer {
        /// The request.
        request: String,
    },
    /// The kernel did not finish an answer.
    #[error("netlink: no answer to {request} within {seconds} s")]
    NoAnswer {
        /// The request.
        request: String,
        /// How long was waited.
        seconds: i64,
    },
    /// `nft` refused the source check. Without it a container could send from any address.
    #[error("nft can't load the table {table}: {stderr}")]
    Nft {
        /// The table.
        table: String,
        /// What it said.
        stderr: String,
    },
    /// Something failed, and then cleaning up failed too.
    #[error("an error, and cleaning up after it failed too ({undo})")]
    Undo {
        /// What failed first, and is the reason.
        #[source]
        first: Box<NetError>,
        /// What failed while cleaning up.
        undo: Box<NetError>,
    },
}

impl NetError {
    /// What went wrong first: what an exit code is chosen by.
    #[must_use]
    pub fn reason(&self) -> &Self {
        match self {
            Self::Undo { first, .. } => first.reason(),
            other => other,
        }
    }

    /// The failure of a system call, for `map_err`.
    pub(super) fn call<E: Into<io::Error>>(call: impl Into<String>) -> impl FnOnce(E) -> Self {
        let call = call.into();
        move |source| Self::Call { call, source: source.into() }
    }

    /// This error, with what happened when its step was undone.
    pub(super) fn after_undo(self, undone: Result<(), Self>) -> Self {
        match undone {
            Ok(()) => self,
            Err(undo) => Self::Undo { first: Box::new(self), undo: Box::new(undo) },
        }
    }
}
