//! What can go wrong inside a container's root.

use std::fmt;
use std::io;

/// A setting was not written; the file it belongs in is as it was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("{call}({path})")]
    Call {
        /// Which.
        call: Call,
        /// On what, as seen inside the container.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Something that is not a file is where a file belongs.
    #[error("{path} in the container is a {kind}, not a file")]
    NotAFile {
        /// Where.
        path: String,
        /// What it is instead.
        kind: Kind,
    },
    /// Larger than any such file has reason to be.
    #[error("{path} in the container has {bytes} bytes, more than 1 MiB")]
    TooLarge {
        /// Where.
        path: String,
        /// Its size, at least.
        bytes: u64,
    },
    /// Some process in the container holds the lock of the password files.
    #[error("{0} in the container is locked")]
    Locked(String),
    /// The line of this user does not have the fields it must have.
    #[error("{path} in the container has a malformed line for {user}")]
    Malformed {
        /// Which file.
        path: &'static str,
        /// Whose line.
        user: String,
    },
    /// Every id from 1000 to 59999 is taken.
    #[error("{0} in the container has no free id from 1000 to 59999")]
    NoFreeId(&'static str),
    /// More, or deeper, than a new home directory has reason to hold.
    #[error("/etc/skel in the container holds more than {0}")]
    SkeletonTooLarge(&'static str),
}

/// The system calls made here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is named after its system call")]
pub enum Call {
    Fchmod,
    Fchown,
    Fcntl,
    Fstat,
    Fsync,
    Getdents,
    Mkdirat,
    Openat2,
    Read,
    Readlinkat,
    Renameat,
    Symlinkat,
    Unlinkat,
    Write,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fchmod => "fchmod",
            Self::Fchown => "fchown",
            Self::Fcntl => "fcntl(F_SETLK)",
            Self::Fstat => "fstat",
            Self::Fsync => "fsync",
            Self::Getdents => "getdents",
            Self::Mkdirat => "mkdirat",
            Self::Openat2 => "openat2",
            Self::Read => "read",
            Self::Readlinkat => "readlinkat",
            Self::Renameat => "renameat",
            Self::Symlinkat => "symlinkat",
            Self::Unlinkat => "unlinkat",
            Self::Write => "write",
        })
    }
}

/// What was found in place of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is named after the kind of file")]
pub enum Kind {
    Directory,
    Symlink,
    Fifo,
    Socket,
    Device,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory => "directory",
            Self::Symlink => "symbolic link",
            Self::Fifo => "FIFO",
            Self::Socket => "socket",
            Self::Device => "device",
        })
    }
}

impl Error {
    /// Whether something on the way to a file is not there, or is no directory.
    pub(super) fn is_absence(&self) -> bool {
        matches!(self, Self::Call { call: Call::Openat2, source, .. }
            if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory))
    }

    /// For `map_err`: a failed system call on `path`.
    pub(super) fn call<E: Into<io::Error>>(call: Call, path: impl Into<String>) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::Call { call, path, source: source.into() }
    }
}
