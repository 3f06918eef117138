//! The one nft table of a host: what a container may send, and behind which address it leaves.
//!
//! The table is static: it knows containers by the group of their interfaces and their addresses by the host's routes, so starting and stopping
//! containers never changes it, and there is no rule of a dead container to forget.

use std::io::Write as _;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;
use rtnetlink::sys::{Socket, protocols};

use super::error::NetError;
use super::plan::{HostNet, fnv1a};

/// The table's text.
///
/// `raw` comes before connection tracking, so a forged packet costs the host no tracked connection. `fib saddr . iif oif` asks the routing table,
/// for both families alike, whether the host would send an answer back into the interface the packet came from; an address that is another
/// container's, the host's or the world's fails. `0.0.0.0` is named because the kernel's fib lookup lets it pass towards broadcast (DHCP
/// clients); no container's DHCP is the host's business.
///
/// Not here: frames other than IP. A `NOARP` interface ignores ARP, the kernel has no other protocol on it, and programs that read raw frames on
/// the host see them before any nft or tc hook.
pub(super) fn ruleset(host: &HostNet) -> String {
    let HostNet { table, tracked_connections_max: tracked, .. } = host;
    let group = host.group();
    let mut text = format!(
        r#"
	chain prerouting {{
		type filter hook prerouting priority raw; policy accept;
		iifgroup {group} goto from_container
	}}
	chain from_container {{
		ip saddr 0.0.0.0/8 counter drop
		fib saddr . iif oif missing counter drop
	}}
"#
    );
    if host.masquerade {
        text += &format!(
            r#"	set tracked {{
		type ifname
		size 65535
		flags dynamic
	}}
	chain connections {{
		type filter hook prerouting priority mangle; policy accept;
		iifgroup {group} ct state new add @tracked {{ iifname ct count over {tracked} }} counter drop
	}}
	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		iifgroup {group} oifgroup != {group} ip saddr {{ 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 }} masquerade
		iifgroup {group} oifgroup != {group} ip6 saddr fc00::/7 masquerade
	}}
"#
        );
    }
    // Declared and deleted first: a table of other settings goes away in the same transaction in which this one comes.
    let version = version_chain(&text);
    format!(
        "table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n\tchain {version} {{\n\t}}{text}}}\n"
    )
}

/// An empty chain whose name says what rules the table has. A comment would do the same, but kernels before 5.10 have none.
fn version_chain(rules: &str) -> String {
    format!("rules_{:08x}", fnv1a(rules.as_bytes()))
}

/// The name of the version chain in a text made by [`ruleset`].
fn version_of(ruleset: &str) -> &str {
    ruleset.split_whitespace().find(|word| word.starts_with("rules_")).unwrap_or_default()
}

/// What [`ensure`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// It was as it should be.
    Present,
    /// It was not there, or was another version, and has been loaded.
    Loaded,
}

/// Makes the table be there as `host` wants it. One netlink request if it is; the program `nft` if it is not.
pub(super) fn ensure(host: &HostNet) -> Result<Table, NetError> {
    if is_loaded(host)? {
        return Ok(Table::Present);
    }
    run(host, &["-f", "-"], &ruleset(host))?;
    Ok(Table::Loaded)
}

/// Whether the table is there with exactly these rules.
pub(super) fn is_loaded(host: &HostNet) -> Result<bool, NetError> {
    chain_exists(&host.table, version_of(&ruleset(host)))
}

/// Whether nft and the kernel would take the rules, masquerade included; loads nothing.
pub(super) fn check(host: &HostNet) -> Result<(), NetError> {
    run(host, &["--check", "-f", "-"], &ruleset(&HostNet { masquerade: true, ..host.clone() }))
}

/// Removes the table, if it is there: for a host that is given back, and for tests.
///
/// # Errors
/// [`NetError::Nft`].
pub fn remove(host: &HostNet) -> Result<(), NetError> {
    run(host, &["-f", "-"], &format!("table inet {0}\ndelete table inet {0}\n", host.table))
}

/// `nft` and not netlink, because the encoding of rules is nft's own business and changes with it; it runs once per boot.
fn run(host: &HostNet, arguments: &[&str], text: &str) -> Result<(), NetError> {
    let call = || format!("exec(nft {})", arguments.join(" "));
    let mut nft = Command::new("nft")
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(NetError::call(call()))?;
    // A text is smaller than a pipe's buffer, so this can't wait for an nft that waits for us; if nft is gone already its status says why.
    let written = nft.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(text.as_bytes()));
    let output = nft.wait_with_output().map_err(NetError::call(call()))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(NetError::Nft { table: host.table.clone(), stderr });
    }
    written.map_err(NetError::call("write(nft's stdin)"))
}

// linux/netfilter/nfnetlink.h and nf_tables.h; libc has none of the latter.
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_GETCHAIN: u16 = 4;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFPROTO_INET: u8 = 1;

/// Asks the kernel for one chain: about 20 µs, where `nft list` is a program to start and 5 ms.
fn chain_exists(table: &str, chain: &str) -> Result<bool, NetError> {
    let request = format!("nft list chain inet {table} {chain}");
    let socket =
        Socket::new(protocols::NETLINK_NETFILTER).map_err(NetError::call("socket(AF_NETLINK, NETLINK_NETFILTER)"))?;
    setsockopt(&socket.as_fd(), sockopt::ReceiveTimeout, &TimeVal::new(30, 0))
        .map_err(NetError::call("setsockopt(SO_RCVTIMEO)"))?;
    socket.send(&get_chain(table, chain), 0).map_err(NetError::call(format!("send(AF_NETLINK, {request})")))?;
    let mut answer = Vec::with_capacity(8192);
    socket.recv(&mut answer, 0).map_err(NetError::call(format!("recv(AF_NETLINK, {request})")))?;
    match answer_of(&answer) {
        Some(Ok(())) => Ok(true),
        Some(Err(Errno::ENOENT)) => Ok(false),
        Some(Err(source)) => Err(NetError::Netlink { request, source }),
        None => Err(NetError::Answer { request }),
    }
}

/// `NFT_MSG_GETCHAIN`: netlink header, netfilter header, two strings.
fn get_chain(table: &str, chain: &str) -> Vec<u8> {
    let mut message = vec![0; 16];
    message.extend([NFPROTO_INET, 0, 0, 0]);
    for (kind, text) in [(NFTA_CHAIN_TABLE, table), (NFTA_CHAIN_NAME, chain)] {
        let length = u16::try_from(4 + text.len() + 1).expect("a name of at most 31 characters: HostNet::check");
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(text.as_bytes());
        message.push(0);
        message.resize(message.len().next_multiple_of(4), 0);
    }
    let length = u32::try_from(message.len()).expect("two short names");
    message[0..4].copy_from_slice(&length.to_ne_bytes());
    message[4..6].copy_from_slice(&(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN).to_ne_bytes());
    let flags = u16::try_from(libc::NLM_F_REQUEST).expect("it is 1");
    message[6..8].copy_from_slice(&flags.to_ne_bytes());
    message
}

/// An answer is the chain itself, or an error message; `None` if it is too short to be either.
fn answer_of(answer: &[u8]) -> Option<Result<(), Errno>> {
    let kind = u16::from_ne_bytes(*answer.get(4..)?.first_chunk()?);
    if i32::from(kind) != libc::NLMSG_ERROR {
        return Some(Ok(()));
    }
    match i32::from_ne_bytes(*answer.get(16..)?.first_chunk()?) {
        0 => Some(Ok(())),
        error => Some(Err(Errno::from_raw(error.saturating_neg()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_settings_are_another_version() {
        let plain = ruleset(&HostNet::default());
        let masquerade = ruleset(&HostNet { masquerade: true, ..HostNet::default() });
        assert!(version_of(&plain).len() == "rules_".len() + 8);
        assert_ne!(version_of(&plain), version_of(&masquerade));
        assert_eq!(version_of(&plain), version_of(&ruleset(&HostNet::default())));
        assert!(!plain.contains("ct "), "without masquerade the host tracks no connection for us");
    }

    #[test]
    fn an_answer_cut_short_is_no_answer() {
        assert_eq!(answer_of(&[]), None);
        assert_eq!(answer_of(&[0, 0, 0, 0, 2, 0]), None);
        let mut error = vec![0; 20];
        error[4] = 2;
        error[16..20].copy_from_slice(&(-libc::ENOENT).to_ne_bytes());
        assert_eq!(answer_of(&error), Some(Err(Errno::ENOENT)));
    }
}
