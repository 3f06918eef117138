//! Packages for containers, fetched on the host: a container need not have a network. apt's own machinery finds, fetches and
//! verifies them, over a directory that all containers of a release share; the container's dpkg then installs what it is handed.

mod apt;
mod status;

use std::io;

pub use apt::{Deb, Plan, Pm};
pub use status::{Installed, StatusError};

/// Why there are no packages.
#[derive(Debug, thiserror::Error)]
pub enum PmError {
    /// The release is none whose archive is known.
    #[error("no package archive is known for {id} {codename:?}; known are those of Debian")]
    UnknownRelease {
        /// `ID` of os-release(5).
        id: String,
        /// `VERSION_CODENAME`.
        codename: String,
    },
    /// The host has no Debian mirror configured.
    #[error("no Debian mirror in /etc/apt/sources.list or /etc/apt/sources.list.d")]
    NoMirror,
    /// A file operation; the error names call and path.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// apt is not there.
    #[error("run {program}")]
    Run {
        /// Which program.
        program: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It failed: the network, or packages that cannot be.
    #[error("{what} failed ({status}):\n{}", last_lines.join("\n"))]
    Failed {
        /// `apt-get update`, …
        what: String,
        /// Of the process.
        status: String,
        /// What it said last.
        last_lines: Vec<String>,
    },
    /// Others would have to go.
    #[error("{} would have to be removed for it", packages.join(", "))]
    Removes {
        /// Their names.
        packages: Vec<String>,
    },
    /// What apt said it would do is not understood.
    #[error("apt-get --simulate said {0:?}")]
    Simulation(String),
}
