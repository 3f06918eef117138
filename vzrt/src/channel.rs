//! Messages between a process and the child that becomes (or enters) a container: small, typed, with at most one descriptor.

use std::io::{IoSlice, IoSliceMut};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Call, Failed};

/// One end of a connected pair, over which `M`s are said.
#[derive(Debug)]
pub(crate) struct Channel<M = Message>(OwnedFd, PhantomData<M>);

/// What is said over it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Message {
    /// Child: I have made a process, which is yours; the descriptor that comes along is its pidfd.
    Born {
        /// Its process id on the host.
        pid: i32,
    },
    /// Parent: your id maps are written.
    Mapped,
    /// Child: all is built; the descriptor that comes along is the master of my console or terminal.
    Ready,
    /// Child: the descriptor that comes along is where my system calls will ask.
    Asking,
    /// Parent: run what you are for.
    Go,
    /// Child: done, and nothing of it failed.
    Done,
    /// Child: this failed.
    Failed(Trouble),
}

/// A failure told from one process to another: the text survives, and of the kind what an exit code depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Trouble {
    /// No program to be init.
    #[error("none of {0} can be run")]
    NoInit(String),
    /// No shell to run a command line.
    #[error("neither /bin/bash nor /bin/sh can be run: {0}")]
    NoShell(String),
    /// A script of the administrator said no.
    #[error("action script {script}: {end}")]
    Hook {
        /// Which.
        script: String,
        /// How it ended.
        end: String,
    },
    /// An address belongs to another container or machine.
    #[error("{0}")]
    AddressInUse(String),
    /// The network.
    #[error("{0}")]
    Network(String),
    /// A limit could not be set.
    #[error("{0}")]
    Limits(String),
    /// A call.
    #[error("{0}")]
    Call(String),
}

impl From<Failed> for Trouble {
    fn from(f: Failed) -> Self {
        Self::Call(f.one_line())
    }
}

/// Largest message, in bytes.
const MAX_BYTES: usize = 8192;

impl<M: Serialize + DeserializeOwned> Channel<M> {
    /// Takes a connected `SOCK_SEQPACKET` socket for one.
    pub(crate) fn over(socket: OwnedFd) -> Self {
        Self(socket, PhantomData)
    }

    /// A connected pair, closed on exec: the end of the file at the other side is how a parent knows that execve succeeded.
    pub(crate) fn pair() -> Result<(Self, Self), Failed> {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .call(|| "socketpair()")?;
        Ok((Self::over(a), Self::over(b)))
    }

    pub(crate) fn send(&self, message: &M, fd: Option<BorrowedFd>) -> Result<(), Failed> {
        let mut bytes = serde_json::to_vec(message).map_err(|e| Failed::new("encode message", e.to_string()))?;
        bytes.truncate(MAX_BYTES);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = fd.map(|f| [f]);
        if let Some(fds) = &fds {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL).call(|| "sendmsg()").map(drop)
    }

    /// The next message; `None` when the other side is gone.
    pub(crate) fn receive(&self) -> Result<Option<(M, Option<OwnedFd>)>, Failed> {
        let mut bytes = [0u8; MAX_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = loop {
            match recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                r => break r.call(|| "recvmsg()")?,
            }
        };
        if got.bytes == 0 {
            return Ok(None);
        }
        let fd = control.drain().find_map(|m| match m {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let message = serde_json::from_slice(&bytes[..got.bytes])
            .map_err(|e| Failed::new("recvmsg()", format!("not a message: {e}")))?;
        Ok(Some((message, fd)))
    }
}

impl<M> From<Channel<M>> for OwnedFd {
    fn from(channel: Channel<M>) -> Self {
        channel.0
    }
}

impl<M> AsFd for Channel<M> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
