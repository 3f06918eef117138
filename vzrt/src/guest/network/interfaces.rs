//! The block of ours in `/etc/network/interfaces`.

use std::fmt::Write as _;

use super::super::hostname::appended;
use super::text::{destinations, with_prefix};
use crate::net::Address;

const BEGIN: &[u8] = b"# BEGIN vz: venet0. Written at each start of the container: changes before END are lost.";
const END: &[u8] = b"# END vz: venet0";

/// What OpenVZ's scripts wrote at the top of a file that was all theirs.
const OPENVZ: &[u8] = b"# This configuration file is auto-generated.";

/// The block for these addresses, with its marks; empty for none.
///
/// The method `manual` does nothing but bring the interface up and run these lines, which say what is so already and may fail where they can't: `static`
/// adds an address and fails if it is there (ifupdown 0.8.41: `ip addr add`), and with it `networking.service`.
pub(super) fn block(addresses: &[Address]) -> String {
    if addresses.is_empty() {
        return String::new();
    }
    let mut text = String::from_utf8_lossy(BEGIN).into_owned() + "\nauto venet0\niface venet0 inet manual\n";
    for address in addresses {
        let _ = writeln!(text, "\tup ip addr replace {} dev venet0 || true", with_prefix(*address));
    }
    for destination in destinations(addresses) {
        let family = if destination == "::/0" { "-6 " } else { "" };
        let _ = writeln!(text, "\tup ip {family}route replace default dev venet0 || true");
    }
    text + &String::from_utf8_lossy(END) + "\n"
}

/// `text` with `block` in place of the one it has, or at its end. All other lines stay, but for a mark that has lost its other; of a file that OpenVZ
/// wrote, those about `venet0` go.
pub(super) fn with(text: &[u8], block: &str) -> Vec<u8> {
    let is = |line: &[u8], mark: &[u8]| line.trim_ascii_end() == mark;
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut begun = None;
    let mut placed = false;
    for line in text.split_inclusive(|&b| b == b'\n') {
        if is(line, BEGIN) {
            begun = Some(kept.len());
        }
        kept.push(line);
        // A block ends what began last, so that the lines between a lost mark and a later block are no part of it.
        if is(line, END)
            && let Some(begin) = begun.take()
        {
            kept.truncate(begin);
            if !placed {
                kept.push(block.as_bytes());
                placed = true;
            }
        }
    }
    kept.retain(|line| !is(line, BEGIN) && !is(line, END));
    let is_openvz = kept.iter().any(|line| is(line, OPENVZ));
    let rest = if is_openvz { without_openvz(&kept, block.as_bytes()) } else { kept.concat() };
    if placed || block.is_empty() { rest } else { appended(&rest, block.as_bytes()) }
}

/// What is left without the stanzas of `venet0` and its aliases, except in our own block.
fn without_openvz(lines: &[&[u8]], block: &[u8]) -> Vec<u8> {
    let mut inside = false;
    let is_of_venet = |word: &[u8]| word == b"venet0" || word.starts_with(b"venet0:");
    let mut kept = lines.to_vec();
    kept.retain(|line| {
        if *line == block {
            inside = false;
            return true;
        }
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let first = words.next().unwrap_or_default();
        // Blank lines and comments belong to nobody.
        if first.is_empty() || first.starts_with(b"#") {
            return true;
        }
        let begins = [&b"auto"[..], b"iface", b"mapping", b"source", b"source-directory"].contains(&first);
        if begins || first.starts_with(b"allow-") {
            inside = words.next().is_some_and(is_of_venet);
        }
        !inside
    });
    kept.concat()
}
