//! The sockets of a container's network namespace and what is in their buffers, from `/proc/PID/net` of its init.
//!
//! These lists have what is bound, connected or listening; a socket that is none of it is in no list, and neither is any of a network namespace
//! that the container made itself. Only the kernel's own count (BPF) has those.
//!
//! Sources: the `seq_show` functions of net/ipv4/tcp_ipv4.c, udp.c, raw.c, net/unix/af_unix.c, net/netlink/af_netlink.c, net/packet/af_packet.c.

use std::path::PathBuf;

use crate::listing;
use crate::read::ReadError;

/// What a container's sockets are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sockets {
    /// TCP sockets that a program has.
    pub(crate) tcp: u64,
    /// All others.
    pub(crate) other: u64,
    /// Bytes written to TCP sockets and not yet acknowledged.
    pub(crate) tcp_send_bytes: u64,
    /// Bytes received by TCP sockets and not yet read.
    pub(crate) tcp_receive_bytes: u64,
    /// Bytes written to the other sockets and not yet delivered.
    pub(crate) other_send_bytes: u64,
    /// Bytes received by datagram sockets and not yet read.
    pub(crate) datagram_receive_bytes: u64,
}

/// How a list of `/proc/PID/net` is laid out.
#[derive(Debug, Clone, Copy)]
enum Layout {
    /// `sl local remote st tx:rx …`, hexadecimal: TCP.
    Tcp,
    /// The same of UDP, UDP-Lite, raw and ping sockets.
    Datagram,
    /// One line for each and nothing of its buffers.
    Unix,
    /// `sk Eth Pid Groups Rmem Wmem …`, decimal.
    Netlink,
    /// `sk RefCnt Type Proto Iface R Rmem …`, decimal.
    Packet,
}

const LISTS: [(&str, Layout); 13] = [
    ("tcp", Layout::Tcp),
    ("tcp6", Layout::Tcp),
    ("udp", Layout::Datagram),
    ("udp6", Layout::Datagram),
    ("udplite", Layout::Datagram),
    ("udplite6", Layout::Datagram),
    ("raw", Layout::Datagram),
    ("raw6", Layout::Datagram),
    ("icmp", Layout::Datagram),
    ("icmp6", Layout::Datagram),
    ("unix", Layout::Unix),
    ("netlink", Layout::Netlink),
    ("packet", Layout::Packet),
];

/// States of TCP that no program has a socket for any more, or yet (net/tcp_states.h).
const TIME_WAIT: u64 = 6;
const NEW_SYN_RECV: u64 = 12;

/// Reads the lists as the process `pid` sees them.
///
/// # Errors
/// One is there and can't be read. A protocol that the kernel does not have has none.
pub(crate) fn of(pid: u32) -> Result<Sockets, ReadError> {
    let mut sockets = Sockets::default();
    let in_use = list(pid, "sockstat")?.unwrap_or_default() + &list(pid, "sockstat6")?.unwrap_or_default();
    for (name, layout) in LISTS {
        // What nobody uses is not asked for its list: the kernel looks for those of one namespace among those of all.
        if !is_unused(&in_use, name)
            && let Some(text) = list(pid, name)?
        {
            sockets.add(&text, layout);
        }
    }
    Ok(sockets)
}

/// A file of the process's network; `None`: the kernel does not have the protocol, or the process is gone.
fn list(pid: u32, name: &str) -> Result<Option<String>, ReadError> {
    let path = PathBuf::from(format!("/proc/{pid}/net/{name}"));
    match listing::read(&path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH | libc::EINVAL)) => Ok(None),
        Err(source) => Err(ReadError::Read { path, source }),
    }
}

/// Whether `sockstat` says that nothing is in the list of this name (`TCP6: inuse 0 …`): it counts what is bound, listens or is connected in the
/// namespace (sockstat_seq_show() of net/ipv4/proc.c). Of some protocols it says nothing.
fn is_unused(sockstat: &str, name: &str) -> bool {
    sockstat.lines().any(|line| {
        let mut words = line.split_ascii_whitespace();
        let protocol = words.next().and_then(|word| word.strip_suffix(':'));
        protocol.is_some_and(|protocol| protocol.eq_ignore_ascii_case(name))
            && (words.next(), words.next()) == (Some("inuse"), Some("0"))
    })
}

impl Sockets {
    fn add(&mut self, text: &str, layout: Layout) {
        for line in text.lines().skip(1) {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let decimal = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
            match layout {
                Layout::Tcp => {
                    let state = words.get(3).and_then(|word| u64::from_str_radix(word, 16).ok()).unwrap_or(0);
                    if matches!(state, TIME_WAIT | NEW_SYN_RECV) {
                        continue;
                    }
                    let (send, receive) = queues(&words);
                    self.tcp += 1;
                    self.tcp_send_bytes += send;
                    // A listener's queue is of connections, not of bytes.
                    self.tcp_receive_bytes += if state == LISTEN { 0 } else { receive };
                }
                Layout::Datagram => {
                    let (send, receive) = queues(&words);
                    self.other += 1;
                    self.other_send_bytes += send;
                    self.datagram_receive_bytes += receive;
                }
                Layout::Unix => self.other += 1,
                // The kernel's own ends have no number.
                Layout::Netlink if decimal(2) == 0 => {}
                Layout::Netlink => {
                    self.other += 1;
                    self.datagram_receive_bytes += decimal(4);
                    self.other_send_bytes += decimal(5);
                }
                Layout::Packet => {
                    self.other += 1;
                    self.datagram_receive_bytes += decimal(6);
                }
            }
        }
    }
}

const LISTEN: u64 = 10;

/// Bytes to be sent and to be read, of a line of TCP or UDP.
fn queues(words: &[&str]) -> (u64, u64) {
    let hex = |word: &str| u64::from_str_radix(word, 16).unwrap_or(0);
    words.get(4).and_then(|word| word.split_once(':')).map_or((0, 0), |(send, receive)| (hex(send), hex(receive)))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that fails here has failed")]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    #[test]
    fn lines_are_read_by_their_layout() {
        let mut sockets = Sockets::default();
        let tcp = "  sl  local_address rem_address   st tx_queue rx_queue\n\
            0: 00000000:0016 00000000:0000 0A 00000000:00000002 00:00000000 00000000 0 0 1 1\n\
            1: 0100007F:0016 0100007F:D431 01 00000010:00000020 00:00000000 00000000 0 0 2 1\n\
            2: 0100007F:0016 0100007F:D432 06 00000000:00000000 03:00000000 00000000 0 0 0 3\n";
        sockets.add(tcp, Layout::Tcp);
        sockets.add("head\n 5: 0:0 0:0 07 00000001:00000300 0 0\n", Layout::Datagram);
        sockets
            .add("Num RefCount Protocol Flags Type St Inode Path\n0: 2 0 0 1 3 9\n0: 2 0 0 1 3 9 /a b\n", Layout::Unix);
        sockets.add("sk Eth Pid Groups Rmem Wmem Dump\n0 15 1 0 512 64 0\n0 15 0 0 1 1 0\n", Layout::Netlink);
        sockets.add("sk RefCnt Type Proto Iface R Rmem User Inode\n0 3 3 0003 1 1 100 0 1\n", Layout::Packet);
        let want = Sockets {
            tcp: 2,
            other: 5,
            tcp_send_bytes: 16,
            tcp_receive_bytes: 32,
            other_send_bytes: 65,
            datagram_receive_bytes: 0x300 + 512 + 100,
        };
        assert_eq!(sockets, want);
    }

    #[test]
    fn a_list_is_left_out_only_if_sockstat_says_it_is_empty() {
        let sockstat =
            "sockets: used 12\nTCP: inuse 0 orphan 0 tw 9 alloc 3 mem 0\nUDP: inuse 4 mem 0\nTCP6: inuse 1\n";
        let unused = |name| is_unused(sockstat, name);
        assert!(unused("tcp"));
        assert!(!["tcp6", "udp", "udp6", "icmp", "unix", "sockets"].into_iter().any(unused));
    }

    #[test]
    fn sockets_of_this_namespace_are_counted_with_what_is_in_them() {
        let pid = std::process::id();
        let before = of(pid).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut writer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_reader, _) = listener.accept().unwrap();
        writer.write_all(&[0; 4096]).unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.send_to(&[0; 100], udp.local_addr().unwrap()).unwrap();
        let after = of(pid).unwrap();
        // The namespace is the host's: others have sockets too, and some of them close meanwhile.
        assert!(after.tcp >= 3 && after.other >= 1, "{before:?} {after:?}");
        assert!(after.tcp_receive_bytes >= 4096, "{after:?}");
        assert!(after.datagram_receive_bytes >= 100, "{after:?}");
    }
}
