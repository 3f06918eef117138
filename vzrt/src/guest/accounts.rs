//! `/etc/passwd`, `/etc/shadow` and `/etc/group` as bytes: passwd(5), shadow(5), group(5).
//!
//! Pure. Only the line of the user in question is taken apart; all others are copied byte for byte, whatever is in them.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::hostname::appended;

/// A user as `useradd` would let one be called: letters, digits, `_`, `-`, `.`, not starting with a digit, `-` or `.`; at most 32 bytes.
///
/// A name of digits would be taken for a uid by half of the programs that see it (CVE-2016-3697).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserName(String);

/// The text is not a user name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad user name {0:?}")]
pub struct BadUserName(pub String);

impl FromStr for UserName {
    type Err = BadUserName;
    fn from_str(text: &str) -> Result<Self, BadUserName> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if starts && text.len() <= 32 && text.bytes().all(legal) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadUserName(text.to_owned()))
        }
    }
}

impl UserName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Ids that `useradd` gives to people (`UID_MIN`, `UID_MAX` of login.defs). Above are ids of containers inside and of systemd.
const IDS: std::ops::Range<u32> = 1000..60000;

/// The fields of the line that starts with `name:`, without the line end. The first such line counts, as for the C library.
pub(super) fn entry<'a>(file: &'a [u8], name: &UserName) -> Option<Vec<&'a [u8]>> {
    let line = file.split(|&b| b == b'\n').find(|line| is_of(line, name))?;
    Some(line.split(|&b| b == b':').collect())
}

fn is_of(line: &[u8], name: &UserName) -> bool {
    line.strip_prefix(name.as_str().as_bytes()).is_some_and(|rest| rest.starts_with(b":"))
}

/// `file` with the fields (counted from zero) of the user's line changed. None if there is no such line or it is too short.
pub(super) fn with_fields(file: &[u8], name: &UserName, fields: &[(usize, &[u8])]) -> Option<Vec<u8>> {
    let mut lines: Vec<&[u8]> = file.split(|&b| b == b'\n').collect();
    let at = lines.iter().position(|line| is_of(line, name))?;
    let mut parts: Vec<&[u8]> = lines[at].split(|&b| b == b':').collect();
    for &(field, value) in fields {
        *parts.get_mut(field)? = value;
    }
    let line = parts.join(&b':');
    lines[at] = &line;
    Some(lines.join(&b'\n'))
}

/// `file` with one more line, which has no line end yet.
pub(super) fn with_line(file: &[u8], line: &str) -> Vec<u8> {
    appended(file, format!("{line}\n").as_bytes())
}

/// The third field of every line that has a number there: uids of `passwd`, gids of `group`.
fn ids(file: &[u8]) -> BTreeSet<u32> {
    let id = |line: &[u8]| std::str::from_utf8(line.split(|&b| b == b':').nth(2)?).ok()?.parse().ok();
    file.split(|&b| b == b'\n').filter_map(id).collect()
}

/// A uid for a new user, the next above all of theirs as long as there is one; a gap otherwise.
pub(super) fn free_uid(passwd: &[u8]) -> Option<u32> {
    free(&ids(passwd))
}

/// A gid for the new user's own group: `wanted`, the uid, if nobody has it.
pub(super) fn free_gid(group: &[u8], wanted: u32) -> Option<u32> {
    let taken = ids(group);
    if taken.contains(&wanted) { free(&taken) } else { Some(wanted) }
}

/// Above the highest in use, as `useradd` does: an id that was somebody's may still own files.
fn free(taken: &BTreeSet<u32>) -> Option<u32> {
    let above = taken.range(IDS).next_back().map_or(IDS.start, |highest| highest + 1);
    if IDS.contains(&above) { Some(above) } else { IDS.into_iter().find(|id| !taken.contains(id)) }
}

/// The gid of the group called as the user.
pub(super) fn gid_of(group: &[u8], name: &UserName) -> Option<u32> {
    std::str::from_utf8(entry(group, name)?.get(2)?).ok()?.parse().ok()
}
