//! What an installation has changed: a container's root before it and after it, compared.
//!
//! Both are given as directories of mounts that show whole systems, so that overlay's own format (whiteouts, opaque and redirected directories)
//! is read by nobody but the kernel. The later one was written by a container's root and is hostile: it is read by descriptors, following
//! nothing, within [`Bounds`].
//!
//! [`take`] finds what differs, [`Difference::suggested`] what of it is not [`noise`], and [`write()`] makes a tree of what was chosen: files to pack,
//! or a layer in overlay's format.

mod accounts;
mod capture;
mod dpkg;
pub mod noise;
mod system;
mod walk;
mod write;

use std::io;
use std::os::fd::BorrowedFd;

use serde::Serialize;

use crate::unpack::member::shown;

pub use accounts::Account;
pub use capture::{CaptureError, Saved, save};
pub use dpkg::Package;
pub use system::{Meaning, os_release};
pub use write::{Form, Written, write};

/// How much may be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Entries of directories, of both trees together.
    pub entries: u64,
    /// Directories below each other. [`crate::Store`] removes trees with a descriptor for each.
    pub depth: usize,
    /// Bytes that are read to compare files, and again of those that are written.
    pub bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { entries: 4_000_000, depth: 128, bytes: 64 << 30 }
    }
}

/// Why there is no difference to be had.
#[derive(Debug, thiserror::Error)]
pub enum DifferenceError {
    /// One of [`Bounds`].
    #[error("the container has more {what} than the limit of {limit}")]
    Bound {
        /// `entries`, `levels of directories`, `bytes`.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A file that is read for its meaning is not what it should be.
    #[error("/{path}, line {line}: {reason}")]
    Damaged {
        /// Inside.
        path: &'static str,
        /// From 1 on; 0 where it is about the whole file.
        line: usize,
        /// What was expected.
        reason: String,
    },
    /// An owner no container has.
    #[error("/{path} belongs to uid {uid}, gid {gid}; only 0 to 65535 exist in a container")]
    Owner {
        /// Inside.
        path: String,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// A call on a file of one of the trees.
    #[error("{call}(/{path})")]
    Call {
        /// Its name.
        call: &'static str,
        /// Inside.
        path: String,
        /// Its error.
        #[source]
        source: io::Error,
    },
}

impl DifferenceError {
    fn call(call: &'static str, path: &[u8], errno: rustix::io::Errno) -> Self {
        Self::Call { call, path: shown(path), source: errno.into() }
    }
}

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It is new.
    Added,
    /// Its content is another; or what was no file is one, after an entry that says [`Change::Removed`].
    Changed,
    /// Its mode, owner or extended attributes are others; of a file, its content is the same.
    Attributes,
    /// It is gone, with all below it.
    Removed,
}

/// What lies at a path, after the installation; of a removed one, before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A directory.
    Directory,
    /// A file.
    File,
    /// A symbolic link.
    Link,
    /// A FIFO.
    Fifo,
    /// A socket or a device: nothing that can be kept.
    Special,
}

/// One path that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Without a slash in front. Bytes as the container wrote them: see [`Entry::shown`].
    pub path: Vec<u8>,
    /// What happened to it.
    pub change: Change,
    /// What it is.
    pub kind: Kind,
    /// Of a file that is to be copied, its size; else 0.
    pub bytes: u64,
    /// Why it should be left out, if it should.
    pub noise: Option<&'static str>,
}

impl Entry {
    /// The path for people, with a slash in front and control characters escaped.
    pub fn shown(&self) -> String {
        format!("/{}", shown(&self.path))
    }
}

/// All that differs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Parents before what is in them.
    pub entries: Vec<Entry>,
    /// What these files mean to the system.
    pub meaning: Meaning,
}

impl Difference {
    /// What is not noise.
    pub fn suggested(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.noise.is_none())
    }
}

/// Compares a system `before` an installation with the same one `after` it. Neither may be written to meanwhile.
///
/// # Errors
/// Over `bounds`; a file of accounts or packages that is damaged; a call that failed.
pub fn take(before: BorrowedFd<'_>, after: BorrowedFd<'_>, bounds: &Bounds) -> Result<Difference, DifferenceError> {
    let entries = walk::compare(before, after, bounds)?;
    let meaning = Meaning::of(before, after, &entries)?;
    Ok(Difference { entries, meaning })
}

#[cfg(test)]
mod tests;
