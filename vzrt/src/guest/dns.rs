//! Name servers and search domains.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use rustix::fs::FileType;

use super::error::Error;
use super::hostname::{Hostname, appended};
use super::root::{Durability, Mounts, Owner, Root};

/// What the host resolves names with, for `--nameserver inherit` and `--searchdomain inherit`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostResolv {
    /// In the order in which they are asked.
    pub nameservers: Vec<IpAddr>,
    /// In the order in which they are tried.
    pub search: Vec<Hostname>,
}

/// Writes name servers and search domains to `/etc/resolv.conf`. An empty list leaves the present lines of its kind; other lines (options,
/// comments) stay as they are.
///
/// A `resolv.conf` that is a symbolic link (systemd-resolved, resolvconf) is replaced by a file: the administrator of the host asked for these
/// servers, and a container has no DHCP to tell a resolver inside about them. systemd-resolved then takes its servers from the file, which
/// is the way its manual has for this. libvzctl leaves a link alone, because it would have written through it on the host's side; a rename
/// follows nothing.
///
/// # Errors
/// It is neither a file nor a link, or can't be written.
pub fn set_dns(root: &Root, nameservers: &[IpAddr], search: &[Hostname]) -> Result<(), Error> {
    let etc = root.directory("/etc", Mounts::Refuse)?;
    let (name, owner, durability) = ("resolv.conf", Owner::root(0o644), Durability::Rewritten);
    let present = etc.stat(name)?.map(|stat| FileType::from_raw_mode(stat.st_mode));
    if present == Some(FileType::Symlink) {
        return etc.replace(name, &with_dns(b"", nameservers, search), owner, durability);
    }
    etc.edit(name, owner, durability, |old| Ok(with_dns(old, nameservers, search)))
}

/// `resolv.conf` with the given servers and domains in place of its own.
pub(super) fn with_dns(text: &[u8], nameservers: &[IpAddr], search: &[Hostname]) -> Vec<u8> {
    let keyword = |line: &[u8]| {
        let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
        line[..end].to_vec()
    };
    let replaced = |line: &[u8]| match &keyword(line)[..] {
        b"nameserver" => !nameservers.is_empty(),
        // `domain` and `search` exclude each other, the last one wins.
        b"search" | b"domain" => !search.is_empty(),
        _ => false,
    };
    let mut kept = Vec::with_capacity(text.len());
    text.split_inclusive(|&b| b == b'\n').filter(|line| !replaced(line)).for_each(|line| kept.extend_from_slice(line));
    let mut ours = String::new();
    if !search.is_empty() {
        let domains: Vec<&str> = search.iter().map(Hostname::as_str).collect();
        ours += &format!("search {}\n", domains.join(" "));
    }
    for address in nameservers {
        ours += &format!("nameserver {address}\n");
    }
    if ours.is_empty() { text.to_vec() } else { appended(&kept, ours.as_bytes()) }
}

/// Reads the host's `/etc/resolv.conf`.
///
/// A resolver on the host's own loopback (systemd-resolved's 127.0.0.53) can't be reached from a container: it is left out, and if nothing
/// else is there, the servers come from where systemd-resolved writes those it asks itself.
///
/// # Errors
/// The file can't be read.
pub fn host_resolv() -> io::Result<HostResolv> {
    let mut resolv = parse_resolv_conf(&fs_err::read_to_string(Path::new("/etc/resolv.conf"))?);
    resolv.nameservers.retain(|address| !address.is_loopback());
    if resolv.nameservers.is_empty() {
        match fs_err::read_to_string(Path::new("/run/systemd/resolve/resolv.conf")) {
            Ok(text) => resolv.nameservers = parse_resolv_conf(&text).nameservers,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(resolv)
}

/// Reads a `resolv.conf` (resolv.conf(5)): what can't be read there, the C library ignores too.
#[must_use]
pub fn parse_resolv_conf(text: &str) -> HostResolv {
    let mut resolv = HostResolv::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("nameserver") => resolv.nameservers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok())),
            Some("search" | "domain") => resolv.search = words.filter_map(|word| word.parse().ok()).collect(),
            _ => {}
        }
    }
    resolv
}
