//! The door of a container's attendant: the socket `monitor.sock` in the run directory, where commands ask for what only a living process can
//! give them. The directory is closed to all but the host's root, and so is the socket; who comes is looked at all the same.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
};
use serde::{Deserialize, Serialize};

use crate::channel::Channel;
use crate::error::{Call, Failed};
use crate::state::RunDir;

/// What can be asked for. The first of a connection decides what it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// Attach me to the console: the descriptor that comes along is the other end of my stream of what is printed and typed.
    Console,
    /// Answer the system calls that ask at the descriptor which comes along.
    Answer,
    /// The window of who is attached has this size.
    WindowSize {
        /// Lines.
        rows: u16,
        /// Characters in one.
        columns: u16,
    },
    /// Take the console away from all that have it open inside.
    Attention,
}

/// A connection of the attendant with a command.
pub(crate) type Visit = Channel<Ask>;

/// How many may wait to be let in.
const BACKLOG: i32 = 16;

/// What the socket is called in the run directory.
pub(super) const NAME: &str = "monitor.sock";

/// The socket that listens.
#[derive(Debug)]
pub(super) struct Door(OwnedFd);

impl Door {
    /// Opens it anew, in place of one that a dead process has left.
    ///
    /// # Errors
    /// The failed call.
    pub(super) fn open(run: &RunDir) -> Result<Self, Failed> {
        let (place, address) = address(run)?;
        match std::fs::remove_file(path(run)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e).call(|| "unlink(monitor.sock)"),
            _ => {}
        }
        let socket = seqpacket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        bind(&socket, &address).call(|| format!("bind({})", path(run).display()))?;
        drop(place);
        listen(&socket, BACKLOG).call(|| "listen(monitor.sock)")?;
        Ok(Self(socket))
    }

    /// Lets in who stands before it; `None` when that is nobody any more, or not the host's root.
    ///
    /// # Errors
    /// The failed call: `EMFILE` when there is no room, and then the visitor goes on waiting.
    pub(super) fn admit(&self) -> Result<Option<Visit>, Failed> {
        use rustix::io::Errno;
        match accept_with(&self.0, SocketFlags::CLOEXEC) {
            Ok(socket) => {
                let root = socket_peercred(&socket).is_ok_and(|peer| peer.uid.is_root());
                Ok(root.then(|| Visit::over(socket)))
            }
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Ok(None),
            Err(e) => Err(e).call(|| "accept(monitor.sock)"),
        }
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A command's way in. `None` when nobody listens there, or when so many wait before it that it would have to.
///
/// # Errors
/// The failed call.
pub(crate) fn visit(run: &RunDir) -> Result<Option<Visit>, Failed> {
    use rustix::io::Errno;
    let (_place, address) = match address(run) {
        Err(e) if e.source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let socket = seqpacket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    match connect(&socket, &address) {
        Ok(()) => {
            rustix::io::ioctl_fionbio(&socket, false).call(|| "ioctl(visit, FIONBIO)")?;
            Ok(Some(Visit::over(socket)))
        }
        Err(Errno::NOENT | Errno::CONNREFUSED | Errno::AGAIN) => Ok(None),
        Err(e) => Err(e).call(|| format!("connect({})", path(run).display())),
    }
}

fn seqpacket(flags: SocketFlags) -> Result<OwnedFd, Failed> {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).call(|| "socket(AF_UNIX, SOCK_SEQPACKET)")
}

fn path(run: &RunDir) -> PathBuf {
    run.path().join(NAME)
}

/// The address by way of a descriptor of the directory, to be kept until it is used: the address of a socket has room for 107 bytes only.
fn address(run: &RunDir) -> Result<(OwnedFd, SocketAddrUnix), Failed> {
    use std::os::fd::AsRawFd;
    let place = crate::rootfs::hold_dir(rustix::fs::CWD, run.path())?;
    let address =
        SocketAddrUnix::new(format!("/proc/self/fd/{}/{NAME}", place.as_raw_fd())).call(|| "sockaddr(monitor.sock)")?;
    Ok((place, address))
}
