//! The kernel's module of nftables. Programs can be attached to it only when it is there, and then it stays; a container would have the kernel load it
//! by its first message as well.

use std::io;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};

// linux/netlink.h, linux/netfilter/nf_tables.h
const LENGTH: u32 = 20;
const NFT_MSG_GETGEN: u16 = (10 << 8) | 16;
const NLM_F_REQUEST_ACK: u16 = 5;

/// Asks for the generation of the host's rules: the kernel loads the module to answer (`nfnetlink_rcv_msg`).
///
/// # Errors
/// This kernel has no netfilter; without nftables it answers, with an error.
pub(crate) fn ensure() -> io::Result<()> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::NETFILTER))?;
    let mut request = [0u8; LENGTH as usize];
    request[..4].copy_from_slice(&LENGTH.to_ne_bytes());
    request[4..6].copy_from_slice(&NFT_MSG_GETGEN.to_ne_bytes());
    request[6..8].copy_from_slice(&NLM_F_REQUEST_ACK.to_ne_bytes());
    send(&socket, &request, SendFlags::empty())?;
    recv(&socket, &mut [0u8; 256][..], RecvFlags::empty())?;
    Ok(())
}
