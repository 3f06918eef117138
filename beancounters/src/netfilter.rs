//! The packet filter of a container's network namespace: rules of nftables, iptables-nft among them, and entries of iptables' own tables, as
//! far as this kernel has either.
//!
//! The kernel is asked, in that namespace, and its answer is counted and not read: what a rule says is the container's, and means nothing here.
//! A rule is one message of the dump (net/netfilter/nf_tables_api.c); a table says itself how many entries it has, its chains' policies among
//! them, as K6 counted.

mod sys;

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, netlink, recv, send, socket_with,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::listing;
use crate::read::ReadError;

/// Answers are taken up to this many, 32 KiB each: a container may have more rules than anybody wants to wait for. Those beyond do not count.
const MOST_ANSWERS: usize = 1024;

// linux/netlink.h, linux/netfilter/nfnetlink.h and nf_tables.h
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const NFT_MSG_NEWRULE: u16 = (10 << 8) | 6;
const NFT_MSG_GETRULE: u16 = (10 << 8) | 7;
const HEADER_BYTES: usize = 16;

/// How many entries the packet filters of the process `pid` have. `None`: it is gone, or we may not ask.
///
/// # Errors
/// They are there and can't be counted.
pub(crate) fn entries(pid: u32) -> Result<Option<u64>, ReadError> {
    counted(pid, |netns| {
        // A kernel without a filter is not asked for it: that would load one.
        let rules = if has_nfnetlink(pid)? { rules(&inside(netns, nfnetlink)?)? } else { 0 };
        Ok(rules + in_tables(pid, netns)?)
    })
}

/// How many of them are in iptables' own tables.
///
/// # Errors
/// Those of [`entries`].
pub(crate) fn of_iptables(pid: u32) -> Result<Option<u64>, ReadError> {
    counted(pid, |netns| in_tables(pid, netns))
}

/// What `count` counts in the network namespace of a process, if that is there.
fn counted(pid: u32, count: impl FnOnce(&fs::File) -> io::Result<u64>) -> Result<Option<u64>, ReadError> {
    let path = format!("/proc/{pid}/ns/net");
    match fs::File::open(&path).and_then(|netns| count(&netns)) {
        Ok(sum) => Ok(Some(sum)),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH | libc::EACCES | libc::EPERM)) => Ok(None),
        Err(source) => Err(ReadError::Read { path: path.into(), source }),
    }
}

fn in_tables(pid: u32, netns: &fs::File) -> io::Result<u64> {
    let mut sum = 0;
    for family in [sys::Family::V4, sys::Family::V6] {
        let names = tables(pid, family)?;
        if !names.is_empty() {
            let socket = inside(netns, || raw(family))?;
            for name in names {
                sum += u64::from(sys::entries(socket.as_fd(), family, &name)?);
            }
        }
    }
    Ok(sum)
}

/// Whether there is a kernel's end (port 0) of this protocol in the namespace.
fn has_nfnetlink(pid: u32) -> io::Result<bool> {
    let list = listing::read(format!("/proc/{pid}/net/netlink"))?;
    let protocol = libc::NETLINK_NETFILTER.to_string();
    Ok(list.lines().any(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        words.next() == Some(&protocol) && words.next() == Some("0")
    }))
}

/// Those of iptables that are in use; none where it is not in the kernel.
fn tables(pid: u32, family: sys::Family) -> io::Result<Vec<String>> {
    match fs::read_to_string(format!("/proc/{pid}/net/{}", family.list())) {
        Ok(names) => Ok(names.lines().map(str::to_owned).collect()),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// What `open` opens in that namespace. The calling thread goes there and comes back.
#[expect(clippy::expect_used, reason = "going on would do in the container's namespace what is meant for the host's")]
fn inside(netns: &fs::File, open: impl FnOnce() -> Result<OwnedFd, Errno>) -> io::Result<OwnedFd> {
    let home = fs::File::open("/proc/thread-self/ns/net")?;
    let network = Some(LinkNameSpaceType::Network);
    move_into_link_name_space(netns.as_fd(), network)?;
    let opened = open();
    move_into_link_name_space(home.as_fd(), network).expect("a thread may return to the namespace it came from");
    Ok(opened?)
}

fn nfnetlink() -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::NETFILTER))
}

fn raw(family: sys::Family) -> Result<OwnedFd, Errno> {
    let (family, protocol): (_, Protocol) = match family {
        sys::Family::V4 => (AddressFamily::INET, ipproto::RAW),
        sys::Family::V6 => (AddressFamily::INET6, ipproto::RAW),
    };
    socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))
}

/// Asks for all rules, of every family and table.
fn rules(socket: &OwnedFd) -> io::Result<u64> {
    let mut request = [0u8; HEADER_BYTES + 4];
    request[..4].copy_from_slice(&((HEADER_BYTES + 4) as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&NFT_MSG_GETRULE.to_ne_bytes());
    request[6..8].copy_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    send(socket, &request, SendFlags::empty())?;
    let mut answer = vec![0u8; 32 << 10];
    let mut sum = 0;
    for _ in 0..MOST_ANSWERS {
        let (length, _) = recv(socket, &mut answer[..], RecvFlags::empty())?;
        let (rules, last) = in_answer(&answer[..length])?;
        sum += rules;
        if last {
            break;
        }
    }
    Ok(sum)
}

/// How many rules are in one answer, and whether it is the last.
fn in_answer(mut bytes: &[u8]) -> io::Result<(u64, bool)> {
    let mut rules = 0;
    while let Some((header, body)) = bytes.split_first_chunk::<HEADER_BYTES>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        match u16::from_ne_bytes([header[4], header[5]]) {
            NFT_MSG_NEWRULE => rules += 1,
            NLMSG_DONE => return Ok((rules, true)),
            NLMSG_ERROR => {
                let error = body.first_chunk::<4>().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
                // It has no nftables.
                return if [libc::EOPNOTSUPP, libc::EINVAL].contains(&-error) {
                    Ok((rules, true))
                } else {
                    Err(io::Error::from_raw_os_error(-error))
                };
            }
            _ => {}
        }
        bytes = bytes.get(length.max(HEADER_BYTES).next_multiple_of(4)..).unwrap_or_default();
    }
    Ok((rules, false))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that fails here has failed")]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = (HEADER_BYTES + body.len()) as u32;
        let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], body].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn rules_are_counted_up_to_the_end_whatever_is_in_them() {
        let rule = message(NFT_MSG_NEWRULE, &[0xff; 37]);
        let answer = [rule.clone(), message(7, b"another kind"), rule.clone()].concat();
        assert_eq!(in_answer(&answer).unwrap(), (2, false));
        let last = [rule.clone(), message(NLMSG_DONE, &[0; 4]), rule].concat();
        assert_eq!(in_answer(&last).unwrap(), (1, true));
        assert_eq!(in_answer(&[0; 15]).unwrap(), (0, false));
        assert_eq!(in_answer(&[0; 64]).unwrap(), (0, false), "lengths that can't be end too");
    }

    #[test]
    fn a_kernel_without_nftables_has_no_rules_and_another_error_is_one() {
        let error = |errno: i32| message(NLMSG_ERROR, &(-errno).to_ne_bytes());
        assert_eq!(in_answer(&error(libc::EOPNOTSUPP)).unwrap(), (0, true));
        assert_eq!(in_answer(&error(libc::ENOBUFS)).unwrap_err().raw_os_error(), Some(libc::ENOBUFS));
    }

    #[test]
    fn the_filter_of_this_namespace_is_counted_and_a_process_that_is_gone_has_none() {
        let home = fs::read_link("/proc/thread-self/ns/net").unwrap();
        entries(std::process::id()).unwrap();
        assert_eq!(fs::read_link("/proc/thread-self/ns/net").unwrap(), home, "the thread is where it was");
        assert_eq!(entries(u32::try_from(i32::MAX).unwrap()).unwrap(), None);
    }
}
