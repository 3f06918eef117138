//! Talking to the kernel: a blocking netlink socket that sends many requests in one datagram.
//!
//! The messages are rtnetlink's; its connection is not used. That one is a task on a tokio runtime which sends one request at a time: a runtime to
//! make and a dozen round trips through epoll where two system calls do. The kernel works through a datagram of requests in order and answers each
//! with its own sequence number (`netlink_rcv_skb`), going on after a failed one; so a batch is not a transaction, and its sender undoes it.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::{Socket, protocols};

use super::error::NetError;

/// The kernel answers in the system call that asks; a request that takes this long waits for a lock someone holds for good.
const ANSWER_TIMEOUT_SECONDS: i64 = 30;

/// Requests per datagram. Each answer takes up to 1 KiB of the socket's receive buffer (208 KiB by default), and what doesn't fit is lost.
const REQUESTS_PER_DATAGRAM: usize = 64;

/// The kernel fills a datagram of a dump up to 32 KiB.
const RECEIVE_BUFFER: usize = 64 * 1024;

/// The kinds of change one can listen to, by their numbers in linux/rtnetlink.h.
#[derive(Debug, Clone, Copy)]
pub(super) enum Group {
    /// `RTNLGRP_LINK`: interfaces.
    Links = 1,
    /// `RTNLGRP_NEIGH`: the neighbour table.
    Neighbours = 3,
}

/// One request, and how iproute2 would write it: what an error says.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) message: RouteNetlinkMessage,
    pub(super) flags: u16,
    pub(super) text: String,
}

impl Request {
    /// A request that changes or reads what exists.
    pub(super) fn new(message: RouteNetlinkMessage, text: impl Into<String>) -> Self {
        Self { message, flags: 0, text: text.into() }
    }

    /// A request that makes something, and fails with `EEXIST` if it is there.
    pub(super) fn create(message: RouteNetlinkMessage, text: impl Into<String>) -> Self {
        Self { message, flags: NLM_F_CREATE | NLM_F_EXCL, text: text.into() }
    }
}

/// What the kernel answered to one request: messages, or an error.
pub(super) type Answer = Result<Vec<RouteNetlinkMessage>, NetError>;

/// A netlink socket of one network namespace, whatever namespace its user is in later.
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// A socket of the calling thread's network namespace.
    pub(super) fn open() -> Result<Self, NetError> {
        let mut socket =
            Socket::new(protocols::NETLINK_ROUTE).map_err(NetError::call("socket(AF_NETLINK, NETLINK_ROUTE)"))?;
        socket.bind_auto().map_err(NetError::call("bind(AF_NETLINK)"))?;
        // Errors then carry the header of the request only, not all of it.
        socket.set_cap_ack(true).map_err(NetError::call("setsockopt(NETLINK_CAP_ACK)"))?;
        let timeout = TimeVal::new(ANSWER_TIMEOUT_SECONDS, 0);
        setsockopt(&socket.as_fd(), sockopt::ReceiveTimeout, &timeout)
            .map_err(NetError::call("setsockopt(SO_RCVTIMEO)"))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// A socket of another network namespace. The calling thread goes there and comes back.
    ///
    /// # Panics
    /// If the thread can't come back: going on would configure the container's network in the belief that it is the host's.
    pub(super) fn open_in(netns: BorrowedFd<'_>) -> Result<Self, NetError> {
        // Of the thread, not of the process: setns moves only the caller.
        let path = "/proc/thread-self/ns/net";
        let home = File::open(path).map_err(NetError::call(format!("open({path})")))?;
        setns(netns, CloneFlags::CLONE_NEWNET).map_err(NetError::call("setns(container's netns, CLONE_NEWNET)"))?;
        let socket = Self::open();
        setns(&home, CloneFlags::CLONE_NEWNET).expect("a thread may return to the network namespace it came from");
        socket
    }

    /// A socket of the calling thread's namespace that hears of every change of a kind: see [`Self::changes`].
    pub(super) fn open_for(group: Group) -> Result<Self, NetError> {
        let netlink = Self::open()?;
        let call = format!("setsockopt(NETLINK_ADD_MEMBERSHIP, {group:?})");
        netlink.socket.add_membership(group as u32).map_err(NetError::call(call))?;
        Ok(netlink)
    }

    /// The next changes, or `None` when the time is over. More changes than fit in the socket's buffer lose some: then it is an empty list.
    pub(super) fn changes(&self, until: Instant) -> Result<Option<Vec<RouteNetlinkMessage>>, NetError> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let mut ready = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        // Rounded up: poll counts in milliseconds, and a last one of zero would be a busy loop.
        let timeout = PollTimeout::from(u16::try_from(left.as_millis()).unwrap_or(u16::MAX).saturating_add(1));
        match poll(&mut ready, timeout) {
            Ok(0) | Err(Errno::EINTR) => return Ok(Some(Vec::new())),
            polled => polled.map_err(NetError::call("poll(AF_NETLINK)"))?,
        };
        let mut buffer = Vec::with_capacity(RECEIVE_BUFFER);
        match self.socket.recv(&mut buffer, 0) {
            Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => return Ok(Some(Vec::new())),
            received => received.map_err(NetError::call("recv(AF_NETLINK, monitor)"))?,
        };
        let changes = split(&buffer).filter_map(|message| match message.map(|m| m.payload) {
            Ok(NetlinkPayload::InnerMessage(inner)) => Some(Ok(inner)),
            Ok(_) => None,
            Err(()) => Some(Err(NetError::Answer { request: "monitor".to_owned() })),
        });
        changes.collect::<Result<_, _>>().map(Some)
    }

    /// Sends all requests and returns the answers in their order, or the first error. Later requests were carried out all the same.
    pub(super) fn all(&mut self, requests: Vec<Request>) -> Result<Vec<Vec<RouteNetlinkMessage>>, NetError> {
        self.each(requests)?.into_iter().collect()
    }

    /// Sends one request.
    pub(super) fn one(&mut self, request: Request) -> Answer {
        Ok(self.all(vec![request])?.pop().unwrap_or_default())
    }

    /// Sends all requests and returns each one's own answer, in their order.
    pub(super) fn each(&mut self, requests: Vec<Request>) -> Result<Vec<Answer>, NetError> {
        let mut answers = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter();
        loop {
            let datagram: Vec<Request> = requests.by_ref().take(REQUESTS_PER_DATAGRAM).collect();
            if datagram.is_empty() {
                return Ok(answers);
            }
            answers.append(&mut self.exchange(datagram, NLM_F_ACK)?);
        }
    }

    /// Reads everything of a kind. The kernel refuses a second dump while one runs, so they can't share a datagram.
    pub(super) fn dump(&mut self, request: Request) -> Answer {
        self.exchange(vec![request], NLM_F_DUMP)?.pop().unwrap_or_else(|| Ok(Vec::new()))
    }

    fn exchange(&mut self, requests: Vec<Request>, flags: u16) -> Result<Vec<Answer>, NetError> {
        let first = self.sequence.wrapping_add(1);
        let mut texts = Vec::with_capacity(requests.len());
        let mut datagram = Vec::new();
        for request in requests {
            self.sequence = self.sequence.wrapping_add(1);
            let flags = NLM_F_REQUEST | flags | request.flags;
            append(&mut datagram, request.message, flags, self.sequence);
            texts.push(request.text);
        }
        self.socket.send(&datagram, 0).map_err(NetError::call(format!("send(AF_NETLINK, {})", texts.join("; "))))?;
        self.collect(first, texts)
    }

    /// Receives until each of the requests `first..` has its acknowledgement, error or end of dump.
    fn collect(&self, first: u32, texts: Vec<String>) -> Result<Vec<Answer>, NetError> {
        let mut messages: Vec<Vec<RouteNetlinkMessage>> = texts.iter().map(|_| Vec::new()).collect();
        let mut done: Vec<Option<Result<(), Errno>>> = vec![None; texts.len()];
        let mut buffer = Vec::with_capacity(RECEIVE_BUFFER);
        while let Some(waiting) = done.iter().position(Option::is_none) {
            buffer.clear();
            self.socket.recv(&mut buffer, 0).map_err(|source| {
                match Errno::from_raw(source.raw_os_error().unwrap_or(0)) {
                    Errno::EAGAIN => {
                        NetError::NoAnswer { request: texts[waiting].clone(), seconds: ANSWER_TIMEOUT_SECONDS }
                    }
                    _ => NetError::Call { call: format!("recv(AF_NETLINK, {})", texts[waiting]), source },
                }
            })?;
            let unreadable = || NetError::Answer { request: texts[waiting].clone() };
            for message in split(&buffer) {
                let message: NetlinkMessage<RouteNetlinkMessage> = message.map_err(|()| unreadable())?;
                let index = message.header.sequence_number.wrapping_sub(first) as usize;
                if index >= texts.len() {
                    continue; // The tail of an earlier exchange that ended in an error.
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => messages[index].push(inner),
                    NetlinkPayload::Error(error) => done[index] = Some(errno(error.raw_code())),
                    NetlinkPayload::Done(end) => done[index] = Some(errno(end.code)),
                    _ => return Err(unreadable()),
                }
            }
        }
        let answers = messages.into_iter().zip(done).zip(texts);
        Ok(answers
            .map(|((messages, done), request)| match done {
                Some(Err(source)) => Err(NetError::Netlink { request, source }),
                _ => Ok(messages),
            })
            .collect())
    }
}

fn errno(code: i32) -> Result<(), Errno> {
    if code == 0 { Ok(()) } else { Err(Errno::from_raw(code.saturating_neg())) }
}

/// Adds one message to a datagram. Every netlink message starts on a multiple of 4 bytes, and rtnetlink's lengths are such multiples.
fn append(datagram: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16, sequence: u32) {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let start = datagram.len();
    datagram.resize((start + message.buffer_len()).next_multiple_of(4), 0);
    message.serialize(&mut datagram[start..]);
}

/// The messages of one received datagram.
fn split(mut datagram: &[u8]) -> impl Iterator<Item = Result<NetlinkMessage<RouteNetlinkMessage>, ()>> + '_ {
    std::iter::from_fn(move || {
        let header = datagram.first_chunk::<4>()?;
        let length = (u32::from_ne_bytes(*header) as usize).next_multiple_of(4).max(16).min(datagram.len());
        let (message, rest) = datagram.split_at(length);
        datagram = rest;
        Some(NetlinkMessage::deserialize(message).map_err(|_| ()))
    })
}

/// Takes one errno as success: what was to be removed is gone, what was to be there is there.
pub(super) fn tolerate(answer: Answer, expected: &[Errno]) -> Result<(), NetError> {
    match answer {
        Err(NetError::Netlink { source, .. }) if expected.contains(&source) => Ok(()),
        other => other.map(|_| ()),
    }
}
