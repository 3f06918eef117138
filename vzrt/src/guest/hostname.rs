//! The host name, where each distribution keeps it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::family;
use super::root::{Durability, Mounts, Owner, Root};

/// A name a machine can have: labels of letters, digits, `-` and `_`, between dots; at most 64 bytes, the kernel's limit.
///
/// Underscores are against RFC 1123 and common among those who come from OpenVZ, which did not look at the name at all.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hostname(String);

/// The text is not a host name (exit code 70 of vzctl).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad host name {0:?}")]
pub struct BadHostname(pub String);

impl FromStr for Hostname {
    type Err = BadHostname;
    fn from_str(text: &str) -> Result<Self, BadHostname> {
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if text.len() <= 64 && text.split('.').all(label) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadHostname(text.to_owned()))
        }
    }
}

impl TryFrom<String> for Hostname {
    type Error = BadHostname;
    fn try_from(text: String) -> Result<Self, BadHostname> {
        text.parse()
    }
}

impl From<Hostname> for String {
    fn from(name: Hostname) -> Self {
        name.0
    }
}

impl Hostname {
    /// The whole name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Up to the first dot.
    fn short(&self) -> &str {
        self.0.split('.').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a distribution keeps its host name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostnameStyle {
    /// `/etc/hostname`: Debian, Ubuntu, Alpine, Arch, and everything with systemd.
    #[default]
    EtcHostname,
    /// `/etc/HOSTNAME`: Slackware, older SUSE.
    EtcHostnameUpper,
    /// `HOSTNAME=` in `/etc/sysconfig/network`: Red Hat before systemd.
    SysconfigNetwork,
    /// `hostname=` in `/etc/conf.d/hostname`: Gentoo and OpenRC.
    ConfdHostname,
    /// `HOSTNAME=` in `/etc/rc.conf`: Arch before systemd.
    RcConf,
    /// Where the container's own tree says.
    Auto,
}

/// What stands above the line of `/etc/hosts` that is ours: OpenVZ's, to the letter.
const COMMENT: &[u8] = b"# Auto-generated hostname. Please do not remove this comment.";

/// Writes the host name where `style` says, and its line in `/etc/hosts`; other lines stay as they are.
///
/// # Errors
/// A file is not a file (links included: these have no reason to be any), or can't be written.
pub fn set_hostname(root: &Root, style: HostnameStyle, name: &Hostname) -> Result<(), Error> {
    let style = match style {
        HostnameStyle::Auto => family::hostname_style(root)?,
        style => style,
    };
    let (directory, file, variable) = match style {
        HostnameStyle::EtcHostname | HostnameStyle::Auto => ("/etc", "hostname", None),
        HostnameStyle::EtcHostnameUpper => ("/etc", "HOSTNAME", None),
        HostnameStyle::SysconfigNetwork => ("/etc/sysconfig", "network", Some("HOSTNAME")),
        HostnameStyle::ConfdHostname => ("/etc/conf.d", "hostname", Some("hostname")),
        HostnameStyle::RcConf => ("/etc", "rc.conf", Some("HOSTNAME")),
    };
    let etc = root.directory("/etc", Mounts::Refuse)?;
    let directory = root.directory(directory, Mounts::Refuse)?;
    let (owner, durability) = (Owner::root(0o644), Durability::Rewritten);
    directory.edit(file, owner, durability, |old| {
        Ok(match variable {
            Some(variable) => with_variable(old, variable, name.as_str()),
            None => format!("{name}\n").into_bytes(),
        })
    })?;
    etc.edit("hosts", owner, durability, |old| Ok(with_host(old, name)))
}

/// `text` with `variable="value"` in place of its last assignment, or at its end. A shell takes the last one; earlier ones stay.
pub(super) fn with_variable(text: &[u8], variable: &str, value: &str) -> Vec<u8> {
    let assignment = format!("{variable}=\"{value}\"\n").into_bytes();
    let assigns = |line: &[u8]| line.strip_prefix(variable.as_bytes()).is_some_and(|rest| rest.starts_with(b"="));
    let mut lines: Vec<&[u8]> = text.split_inclusive(|&b| b == b'\n').collect();
    match lines.iter().rposition(|line| assigns(line)) {
        Some(at) => {
            lines[at] = &assignment;
            lines.concat()
        }
        None => appended(text, &assignment),
    }
}

/// `/etc/hosts` with the line for `name` under its comment: where that comment is, or at the end.
///
/// The address is that of the loopback interface, so that the name resolves before and without any other. Template files have
/// `127.0.0.1 localhost` further up, which stays what the address is called.
pub(super) fn with_host(text: &[u8], name: &Hostname) -> Vec<u8> {
    let short = if name.short() == name.as_str() { String::new() } else { format!(" {}", name.short()) };
    let ours = [COMMENT, format!("\n127.0.0.1 {name}{short} localhost\n").as_bytes()].concat();
    let is_comment = |line: &[u8]| line.trim_ascii_end() == COMMENT;
    let is_entry = |line: &[u8]| line.first().is_some_and(|b| b.is_ascii_hexdigit() || *b == b':');
    let mut out = Vec::with_capacity(text.len() + ours.len());
    let mut placed = false;
    let mut lines = text.split_inclusive(|&b| b == b'\n').peekable();
    while let Some(line) = lines.next() {
        if !is_comment(line) {
            out.extend_from_slice(line);
            continue;
        }
        lines.next_if(|next| is_entry(next));
        if !placed {
            out.extend_from_slice(&ours);
            placed = true;
        }
    }
    if placed { out } else { appended(text, &ours) }
}

/// `text` and then `line`, on a line of its own.
pub(super) fn appended(text: &[u8], line: &[u8]) -> Vec<u8> {
    let newline: &[u8] = if text.is_empty() || text.ends_with(b"\n") { b"" } else { b"\n" };
    [text, newline, line].concat()
}
