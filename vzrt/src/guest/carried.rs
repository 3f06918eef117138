//! What a new root takes over from the old one: accounts, and directories for what is copied.
//!
//! Both are roots of a container that does not run, reached by descriptors. Who wrote the old one chose what is in it.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use rustix::fs::Mode;

use super::accounts::UserName;
use super::error::{Call, Error};
use super::hostname::appended;
use super::root::{Durability, Mounts, Owner, Root, give};

/// Ids from here on are people's (`UID_MIN` of login.defs); below, the distribution's own.
const PEOPLE: u32 = 1000;

/// `nobody`, and above it what is no account of a person.
const NOBODY: u32 = 65534;

/// A file of accounts: how many fields its lines have, and those in which an account of both roots stays as it was in the old one.
struct Format {
    name: &'static str,
    fields: usize,
    kept: &'static [usize],
    mode: u32,
}

/// The password and its ages in shadow, members in group; what a user is called by and where it lives is the new distribution's.
const FILES: [Format; 4] = [
    Format { name: "passwd", fields: 7, kept: &[], mode: 0o644 },
    Format { name: "group", fields: 4, kept: &[3], mode: 0o644 },
    Format { name: "shadow", fields: 9, kept: &[1, 2, 3, 4, 5, 6, 7], mode: 0o640 },
    Format { name: "gshadow", fields: 4, kept: &[1, 2, 3], mode: 0o640 },
];

/// Carries the users and groups of the old root into the new one: who is in both keeps password and members, who is not there yet is added. Gives
/// the names of the distribution's own accounts that stay behind, for their number is somebody else's now.
///
/// # Errors
/// A file of accounts can't be read or written.
pub fn carry_accounts(from: &Root, to: &Root) -> Result<Vec<String>, Error> {
    let (old, new) = (from.directory("/etc", Mounts::Refuse)?, to.directory("/etc", Mounts::Refuse)?);
    let mut behind = BTreeSet::new();
    for format in &FILES {
        let Some(contents) = old.read(format.name)? else { continue };
        new.edit(format.name, Owner::root(format.mode), Durability::Synced, |present| {
            let merged = merge(format, &contents.bytes, present, &behind);
            behind.extend(merged.behind);
            Ok(merged.text)
        })?;
    }
    Ok(behind.into_iter().collect())
}

struct Merged {
    text: Vec<u8>,
    behind: Vec<String>,
}

/// The new file with what the old one has over it. Lines that are none are left where they are.
fn merge(format: &Format, old: &[u8], new: &[u8], behind: &BTreeSet<String>) -> Merged {
    let mut lines: Vec<Vec<u8>> = new.split(|&b| b == b'\n').map(<[u8]>::to_vec).collect();
    let (mut added, mut stay) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    for line in old.split(|&b| b == b'\n') {
        let fields: Vec<&[u8]> = line.split(|&b| b == b':').collect();
        let name = std::str::from_utf8(fields[0]).ok().and_then(|name| name.parse::<UserName>().ok());
        // The first line of a name counts, as for the C library.
        let Some(name) = name.filter(|name| fields.len() == format.fields && seen.insert(name.to_string())) else {
            continue;
        };
        let begins = [name.as_str().as_bytes(), b":"].concat();
        if let Some(present) = lines.iter_mut().find(|line| line.starts_with(&begins)) {
            *present = kept(format, &fields, present);
        } else if behind.contains(name.as_str()) || is_taken(format, &fields, new) {
            stay.push(name.to_string());
        } else {
            added.extend_from_slice(line);
            added.push(b'\n');
        }
    }
    Merged { text: appended(&lines.join(&b'\n'), &added), behind: stay }
}

/// The new root's line, with those fields of the old one that are the account's own.
fn kept(format: &Format, old: &[&[u8]], new: &[u8]) -> Vec<u8> {
    let mut fields: Vec<&[u8]> = new.split(|&b| b == b':').collect();
    if fields.len() == format.fields {
        format.kept.iter().for_each(|&at| fields[at] = old[at]);
    }
    fields.join(&b':')
}

/// Whether the number of an account of the distribution's is that of another one in the new root. A person's is kept whoever has it: files are
/// that person's by it.
fn is_taken(format: &Format, fields: &[&[u8]], new: &[u8]) -> bool {
    if !matches!(format.name, "passwd" | "group") {
        return false;
    }
    let id = std::str::from_utf8(fields[2]).ok().and_then(|id| id.parse::<u32>().ok());
    let is_persons = id.is_some_and(|id| (PEOPLE..NOBODY).contains(&id));
    !is_persons
        && (id.is_none() || new.split(|&b| b == b'\n').any(|l| l.split(|&b| b == b':').nth(2) == Some(fields[2])))
}

/// The directories in which one path is, in both roots.
#[derive(Debug)]
pub struct Places {
    /// In the old root.
    pub from: OwnedFd,
    /// In the new one.
    pub to: OwnedFd,
}

/// The directory of `path` (which starts with a slash, and is not the root) in both roots; in the new one it is made where it is missing, with the
/// owners and modes of the old one's. `None` where the old root has nothing of that name.
///
/// # Errors
/// A directory can't be opened or made.
pub fn places(from: &Root, to: &Root, path: &str) -> Result<Option<Places>, Error> {
    let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
    let there = match from.directory(if above.is_empty() { "/" } else { above }, Mounts::Refuse) {
        Err(e) if e.is_absence() => return Ok(None),
        there => there?,
    };
    if there.stat(name)?.is_none() {
        return Ok(None);
    }
    let mut made = to.directory("/", Mounts::Refuse)?;
    for (end, _) in above.match_indices('/').skip(1).chain([(above.len(), "")]).filter(|(end, _)| *end > 0) {
        let here = &above[..end];
        made = match to.directory(here, Mounts::Refuse) {
            Err(e) if e.is_absence() => {
                let name = here.rsplit('/').next().unwrap_or_default();
                let like = rustix::fs::fstat(&from.directory(here, Mounts::Refuse)?.fd)
                    .map_err(Error::call(Call::Fstat, here))?;
                rustix::fs::mkdirat(&made.fd, name, Mode::from_raw_mode(0o700))
                    .map_err(Error::call(Call::Mkdirat, here))?;
                let new = made.subdirectory(name)?;
                give(&new.fd, Owner::of(&like), here)?;
                new
            }
            found => found?,
        };
    }
    Ok(Some(Places { from: there.fd, to: made.fd }))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that panics is a test that fails")]
mod tests {
    use super::*;

    fn merged(format: usize, old: &str, new: &str) -> (String, Vec<String>) {
        let merged = merge(&FILES[format], old.as_bytes(), new.as_bytes(), &BTreeSet::new());
        (String::from_utf8(merged.text).unwrap(), merged.behind)
    }

    #[test]
    fn people_come_along_and_accounts_of_the_distribution_only_with_a_number_of_their_own() {
        let old = "root:x:0:0::/r:/bin/zsh\nann:x:1000:1000::/home/ann:/bin/sh\nredis:x:105:110::/:/x\nmail2:x:8:8::/:/x\nbad:x\n";
        let new = "root:x:0:0:root:/root:/bin/sh\nmail:x:8:8::/:/x\n";
        let want = format!("{new}ann:x:1000:1000::/home/ann:/bin/sh\nredis:x:105:110::/:/x\n");
        assert_eq!(merged(0, old, new), (want, vec!["mail2".to_owned()]));
    }

    #[test]
    fn who_is_in_both_keeps_the_password_and_the_members() {
        let shadow = merged(2, "root:$6$a:1:0:9:7:::\n", "root:*:2:0:99999:7:::\nnew:!:2:0:9:7:::\n");
        assert_eq!(shadow.0, "root:$6$a:1:0:9:7:::\nnew:!:2:0:9:7:::\n");
        assert_eq!(merged(1, "adm:x:4:ann,bob\n", "adm:x:5:\n").0, "adm:x:5:ann,bob\n");
        // Without a line end, and with a line that is none.
        assert_eq!(merged(1, "a:x:1000:\n", "b:x:1:\nodd").0, "b:x:1:\nodd\na:x:1000:\n");
        assert_eq!(merged(1, "a:x:1000:\na:x:1001:\n", "").0, "a:x:1000:\n", "the first of a name counts");
    }

    #[test]
    fn what_is_to_be_copied_is_found_and_has_a_place_like_the_old_one() {
        use std::os::unix::fs::PermissionsExt;
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir_all(old.path().join("srv/www/site")).unwrap();
        std::fs::set_permissions(old.path().join("srv/www"), PermissionsExt::from_mode(0o2750)).unwrap();
        std::os::unix::fs::symlink("/outside", new.path().join("link")).unwrap();
        std::os::unix::fs::symlink("/outside", old.path().join("link")).unwrap();
        let roots = (Root::open(old.path()).unwrap(), Root::open(new.path()).unwrap());
        assert!(places(&roots.0, &roots.1, "/srv/www/site").unwrap().is_some());
        let made = std::fs::metadata(new.path().join("srv/www")).unwrap();
        assert_eq!(made.permissions().mode() & 0o7777, 0o2750);
        assert!(!new.path().join("srv/www/site").exists(), "its place, not itself");
        assert!(places(&roots.0, &roots.1, "/srv").unwrap().is_some());
        for absent in ["/srv/none", "/none/at/all", "/link/x"] {
            assert!(places(&roots.0, &roots.1, absent).unwrap().is_none(), "{absent}");
        }
        assert!(places(&roots.0, &roots.1, "/link").unwrap().is_some(), "a link is copied as one");
    }
}
