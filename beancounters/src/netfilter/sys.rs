//! What one table of iptables says of itself: `IPT_SO_GET_INFO` (linux/netfilter_ipv4/ip_tables.h).
#![expect(unsafe_code, reason = "a socket option that no dependency has; everything unsafe of this module is here")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `IPT_SO_GET_INFO` and `IP6T_SO_GET_INFO`.
const GET_INFO: i32 = 64;

#[derive(Debug, Clone, Copy)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// The file of `/proc/PID/net` that names its tables.
    pub(super) const fn list(self) -> &'static str {
        match self {
            Self::V4 => "ip_tables_names",
            Self::V6 => "ip6_tables_names",
        }
    }
}

/// `struct ipt_getinfo`, which is `struct ip6t_getinfo`.
#[repr(C)]
struct Info {
    name: [u8; 32],
    valid_hooks: u32,
    hook_entry: [u32; 5],
    underflow: [u32; 5],
    entries: u32,
    bytes: u32,
}

/// How many entries the table has.
///
/// # Errors
/// The kernel's.
pub(super) fn entries(socket: BorrowedFd<'_>, family: Family, table: &str) -> io::Result<u32> {
    let mut info = Info { name: [0; 32], valid_hooks: 0, hook_entry: [0; 5], underflow: [0; 5], entries: 0, bytes: 0 };
    let name = table.as_bytes().get(..table.len().min(31)).unwrap_or_default();
    info.name[..name.len()].copy_from_slice(name);
    let level = match family {
        Family::V4 => libc::SOL_IP,
        Family::V6 => libc::SOL_IPV6,
    };
    let mut length = size_of::<Info>() as libc::socklen_t;
    let place = (&raw mut info).cast();
    // SAFETY: the kernel reads the name from `info` and writes `length` bytes, all of it; every bit pattern is a value of its integers.
    let ret = unsafe { libc::getsockopt(socket.as_raw_fd(), level, GET_INFO, place, &raw mut length) };
    if ret == -1 { Err(io::Error::last_os_error()) } else { Ok(info.entries) }
}
