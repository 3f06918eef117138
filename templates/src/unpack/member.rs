//! What a member of an archive asks for, and whether it gets it: decisions only, no effects.

use serde::{Deserialize, Serialize};

/// Why an archive was given up. Crosses from the unpacking child to its parent as JSON, so a failed system call is its
/// text and its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The compressed stream or the tar structure is damaged or cut off.
    #[error("the archive is damaged or cut off after member {after:?}: {reason}")]
    Damaged {
        /// The last member whose header was read; empty before the first.
        after: String,
        /// In the words of the decoder.
        reason: String,
    },
    /// Something other than zeros follows the end of the archive.
    #[error("something follows the end of the archive")]
    TrailingGarbage,
    /// No member at all.
    #[error("the archive holds nothing")]
    Empty,
    /// `..` in a name.
    #[error("member {member:?} has '..' in its name")]
    ParentInName {
        /// The name.
        member: String,
    },
    /// A name with a NUL byte, an empty link target, a name that is the root itself.
    #[error("member {member:?} has a name that no file can have")]
    ImpossibleName {
        /// The name.
        member: String,
    },
    /// Over 4,095 bytes, over 255 in one component, or over 128 components.
    #[error("member {member:?}... has a name that is too long or too deep")]
    NameTooLong {
        /// The beginning of the name.
        member: String,
    },
    /// A symbolic link or a file is where the name needs a directory.
    #[error("member {member:?} would be written through something that is not a directory")]
    NotThroughDirectory {
        /// The name.
        member: String,
    },
    /// A hard link to what no earlier member made.
    #[error("member {member:?} is a link to {target:?}, which is not in the archive")]
    LinkTarget {
        /// The name.
        member: String,
        /// What it names.
        target: String,
    },
    /// A name that an earlier member has, where no member may replace another.
    #[error("member {member:?} is there twice")]
    Twice {
        /// The name.
        member: String,
    },
    /// Where no directory is made unasked, a member whose directory is no earlier member.
    #[error("member {member:?} is in no directory of the archive")]
    NoDirectory {
        /// The name.
        member: String,
    },
    /// Owner or group outside 0..=65535: such an id means nothing in a container.
    #[error("member {member:?} belongs to uid {uid}, gid {gid}; only 0 to 65535 exist in a container")]
    Owner {
        /// The name.
        member: String,
        /// Its owner.
        uid: u64,
        /// Its group.
        gid: u64,
    },
    /// An extended attribute that may not come from an archive.
    #[error("member {member:?} has the extended attribute {name:?}")]
    Xattr {
        /// The name.
        member: String,
        /// Of the attribute.
        name: String,
    },
    /// A kind of member no template has (multi-volume, incremental dump).
    #[error("member {member:?} is of the unsupported type {type_byte:?}")]
    Type {
        /// The name.
        member: String,
        /// The type byte of its header.
        type_byte: char,
    },
    /// A sparse map that contradicts itself.
    #[error("member {member:?} has a broken map of its holes")]
    Sparse {
        /// The name.
        member: String,
    },
    /// A global header that would change the meaning of all members after it.
    #[error("a global header sets {key:?}")]
    GlobalHeader {
        /// The key.
        key: String,
    },
    /// One of [`super::Limits`].
    #[error("the archive has more {what} than the limit of {limit}")]
    Limit {
        /// `members`, `bytes`, `bytes of metadata`.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// A system call.
    #[error("{call}: {}", std::io::Error::from_raw_os_error(*errno))]
    Syscall {
        /// With its arguments.
        call: String,
        /// Its error.
        errno: i32,
    },
}

impl Refusal {
    pub(super) fn syscall(call: impl Into<String>, errno: rustix::io::Errno) -> Self {
        Self::Syscall { call: call.into(), errno: errno.raw_os_error() }
    }
}

/// A name as shown to people: lossy, control characters escaped (it may go to a terminal or a log).
pub(crate) fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(&name[..name.len().min(300)])
        .chars()
        .flat_map(|c| {
            let (escaped, plain) = if c.is_control() { (Some(c.escape_default()), None) } else { (None, Some(c)) };
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

/// The depth is bounded so that removing a tree, which holds one descriptor per level, always succeeds.
const MAX_DEPTH: usize = 128;
const MAX_PATH: usize = 4095;
const MAX_COMPONENT: usize = 255;

/// Where a member goes: a normalised path below the root of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    path: Vec<u8>,
    /// Where the last component begins.
    name_at: usize,
}

impl Place {
    /// The root itself (`./`) is `None`. A leading `/` is dropped, as tar(1) does.
    pub(super) fn parse(raw: &[u8]) -> Result<Option<Self>, Refusal> {
        let member = || shown(raw);
        if raw.len() > MAX_PATH {
            return Err(Refusal::NameTooLong { member: shown(&raw[..80]) });
        }
        if raw.contains(&0) || raw.is_empty() {
            return Err(Refusal::ImpossibleName { member: member() });
        }
        let mut path = Vec::with_capacity(raw.len());
        let (mut name_at, mut depth) = (0, 0);
        for part in raw.split(|&b| b == b'/') {
            match part {
                b"" | b"." => continue,
                b".." => return Err(Refusal::ParentInName { member: member() }),
                _ => {}
            }
            depth += 1;
            if part.len() > MAX_COMPONENT || depth > MAX_DEPTH {
                return Err(Refusal::NameTooLong { member: shown(&raw[..raw.len().min(80)]) });
            }
            if !path.is_empty() {
                path.push(b'/');
            }
            name_at = path.len();
            path.extend_from_slice(part);
        }
        Ok((!path.is_empty()).then_some(Self { path, name_at }))
    }

    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    pub(super) fn name(&self) -> &[u8] {
        &self.path[self.name_at..]
    }

    /// Empty for a member directly below the root.
    pub(super) fn parent(&self) -> &[u8] {
        &self.path[..self.name_at.saturating_sub(1)]
    }

    pub(super) fn shown(&self) -> String {
        shown(&self.path)
    }
}

/// Owner, group, permission bits and time of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Permission, setuid, setgid and sticky bits only.
    pub(super) mode: u32,
    /// Seconds since 1970.
    pub(super) mtime_sec: i64,
    pub(super) mtime_nsec: u32,
}

/// Ids that exist in a container.
pub(super) fn owner(member: &[u8], uid: u64, gid: u64) -> Result<(u32, u32), Refusal> {
    match (u16::try_from(uid), u16::try_from(gid)) {
        (Ok(uid), Ok(gid)) => Ok((uid.into(), gid.into())),
        _ => Err(Refusal::Owner { member: shown(member), uid, gid }),
    }
}

/// The seconds and nanoseconds of a pax `mtime` record such as `1700000000.123456789`; `None` if it is not a number.
/// Times before 1970 and after the last that ext4 can keep (2446) are moved to that bound.
pub(super) fn pax_time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    Some(if seconds < 0 { (0, 0) } else { (clamp_time(seconds as u64), digits.parse().ok()?) })
}

/// See [`pax_time`].
pub(super) fn clamp_time(seconds: u64) -> i64 {
    const EXT4_LAST_SECOND: u64 = 0x3_7fff_ffff;
    seconds.min(EXT4_LAST_SECOND) as i64
}

/// What becomes of an extended attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum XattrFate {
    Set,
    /// Means something only on the machine it came from (an SELinux label, an IMA hash).
    Skip,
    /// `trusted.*`, and the `overlay.*` names by which overlayfs knows whiteouts, opaque directories and redirects: in
    /// a lower layer they would hide or move files of the tree.
    Refuse,
}

pub(super) fn xattr_fate(name: &[u8], value: &[u8]) -> XattrFate {
    match name {
        b"security.capability" => capability_fate(value),
        b"system.posix_acl_access" | b"system.posix_acl_default" => XattrFate::Set,
        _ if name.starts_with(b"user.overlay.") || name.starts_with(b"trusted.") => XattrFate::Refuse,
        _ if name.starts_with(b"user.") => XattrFate::Set,
        _ => XattrFate::Skip,
    }
}

/// Revision 2 has no id of a root user; revision 3 (linux/capability.h) has, in its last four bytes, and only 0, the
/// root of the container, means the same everywhere.
fn capability_fate(value: &[u8]) -> XattrFate {
    const REVISION_3: u8 = 3;
    match value {
        [.., a, b, c, d] if value.len() == 24 && value[3] == REVISION_3 && [*a, *b, *c, *d] != [0; 4] => {
            XattrFate::Refuse
        }
        _ => XattrFate::Set,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(raw: &str) -> Option<(String, String)> {
        let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
        Place::parse(raw.as_bytes()).unwrap().map(|p| (text(p.parent()), text(p.name())))
    }

    #[test]
    fn names_are_normalised_to_a_place_below_the_root() {
        let some = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        assert_eq!(place("./"), None);
        assert_eq!(place("."), None);
        assert_eq!(place("etc/"), some("", "etc"));
        assert_eq!(place("./etc/./passwd"), some("etc", "passwd"));
        assert_eq!(place("//usr//bin/su"), some("usr/bin", "su"));
        assert_eq!(place("..."), some("", "..."));
    }

    #[test]
    fn names_that_climb_or_cannot_be_are_refused() {
        assert!(matches!(Place::parse(b"a/../../b"), Err(Refusal::ParentInName { .. })));
        assert!(matches!(Place::parse(b".."), Err(Refusal::ParentInName { .. })));
        assert!(matches!(Place::parse(b"a\0b"), Err(Refusal::ImpossibleName { .. })));
        assert!(matches!(Place::parse(b""), Err(Refusal::ImpossibleName { .. })));
        assert!(matches!(Place::parse(&[b'a'; 256]), Err(Refusal::NameTooLong { .. })));
        assert!(matches!(Place::parse("a/".repeat(129).as_bytes()), Err(Refusal::NameTooLong { .. })));
        assert!(matches!(Place::parse("ab/".repeat(2000).as_bytes()), Err(Refusal::NameTooLong { .. })));
    }

    #[test]
    fn ids_outside_a_container_are_refused() {
        assert_eq!(owner(b"x", 65535, 0), Ok((65535, 0)));
        assert!(owner(b"x", 65536, 0).is_err());
        assert!(owner(b"x", 0, u64::from(u32::MAX)).is_err());
    }

    #[test]
    fn pax_times_are_read_and_kept_within_what_ext4_stores() {
        assert_eq!(pax_time(b"1700000000.5"), Some((1_700_000_000, 500_000_000)));
        assert_eq!(pax_time(b"1"), Some((1, 0)));
        assert_eq!(pax_time(b"-7.25"), Some((0, 0)));
        assert_eq!(pax_time(b"9999999999999"), Some((0x3_7fff_ffff, 0)));
        assert_eq!(pax_time(b"1.x"), None);
        assert_eq!(pax_time(b""), None);
    }

    #[test]
    fn overlay_and_trusted_attributes_are_refused_and_labels_of_other_machines_skipped() {
        for name in ["trusted.overlay.opaque", "trusted.x", "user.overlay.whiteout", "user.overlay.redirect"] {
            assert_eq!(xattr_fate(name.as_bytes(), b"y"), XattrFate::Refuse, "{name}");
        }
        assert_eq!(xattr_fate(b"security.selinux", b"y"), XattrFate::Skip);
        assert_eq!(xattr_fate(b"user.comment", b"y"), XattrFate::Set);
        assert_eq!(xattr_fate(b"system.posix_acl_access", b""), XattrFate::Set);
    }

    #[test]
    fn file_capabilities_bound_to_a_foreign_root_are_refused() {
        let mut v3 = [0u8; 24];
        v3[3] = 3;
        assert_eq!(xattr_fate(b"security.capability", &v3), XattrFate::Set);
        v3[21] = 1;
        assert_eq!(xattr_fate(b"security.capability", &v3), XattrFate::Refuse);
        let mut v2 = [0u8; 20];
        v2[3] = 2;
        assert_eq!(xattr_fate(b"security.capability", &v2), XattrFate::Set);
    }

    #[test]
    fn names_are_shown_without_control_characters() {
        assert_eq!(shown(b"a\x1b]0;x\nb"), "a\\u{1b}]0;x\\nb");
    }
}
