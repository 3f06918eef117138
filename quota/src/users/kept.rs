//! The limits of users and groups of an image whose host can't keep them, in a text beside it: a line each, `user 1000 SOFT HARD SOFT HARD`, of
//! space in KiB and of inodes, 0 being none.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::image::{self, Error};
use crate::quotactl::Kind;
use crate::{Limit, SoftHard};

/// Whose limits, and what they are: of space in KiB, of inodes.
pub(super) type Line = (Kind, u32, SoftHard, SoftHard);

/// Writes down the limits of an image that nobody uses. Complete and synced, or not at all.
pub(super) fn write(file: &Path) -> Result<(), Error> {
    let mut text = String::new();
    for kind in [Kind::User, Kind::Group] {
        let mut debugfs = image::program("debugfs");
        debugfs.arg("-R").arg(format!("list_quota {}", name(kind))).arg(file);
        let (status, said) = image::run("debugfs", &mut debugfs)?;
        if !status.success() {
            return Err(Error::Program { program: "debugfs", path: file.to_owned(), status, stderr: said });
        }
        // The words of one line are on one line; those of several are joined by semicolons.
        said.split("; ").filter_map(|line| listed(kind, line)).for_each(|line| text.push_str(&line));
    }
    let path = path_of(file);
    let failed = |source| Error::Kept { path: path.clone(), source };
    if text.is_empty() {
        return Ok(());
    }
    let new = path.with_extension("new");
    let write = || {
        let mut file = fs::File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &path)
    };
    write().map_err(failed)
}

/// The limits that are written down.
pub(super) fn read(file: &Path) -> Result<Vec<Line>, Error> {
    let path = path_of(file);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().filter_map(parse).collect()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(Error::Kept { path, source }),
    }
}

/// Removes the text.
pub(super) fn forget(file: &Path) -> Result<(), Error> {
    let path = path_of(file);
    match fs::remove_file(&path) {
        Err(source) if source.kind() != ErrorKind::NotFound => Err(Error::Kept { path, source }),
        _ => Ok(()),
    }
}

fn path_of(file: &Path) -> PathBuf {
    file.with_extension("users")
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::User => "user",
        Kind::Group => "group",
    }
}

/// A line of debugfs(8)'s `list_quota`: id; space in bytes, soft and hard limit in KiB; inodes, soft and hard limit. `None` for headings, and for
/// who has no limit.
fn listed(kind: Kind, line: &str) -> Option<String> {
    let numbers: Vec<u64> = line.split_whitespace().map(|word| word.parse().ok()).collect::<Option<_>>()?;
    let &[id, _, space_soft, space_hard, _, inodes_soft, inodes_hard] = numbers.as_slice() else { return None };
    let limits = [space_soft, space_hard, inodes_soft, inodes_hard];
    let [a, b, c, d] = limits;
    limits.iter().any(|limit| *limit != 0).then(|| format!("{} {id} {a} {b} {c} {d}\n", name(kind)))
}

fn parse(line: &str) -> Option<Line> {
    let mut words = line.split(' ');
    let kind = [Kind::User, Kind::Group].into_iter().find({
        let word = words.next()?;
        move |kind| name(*kind) == word
    })?;
    let id = words.next()?.parse().ok()?;
    let mut limit = || {
        let amount = words.next()?.parse().ok()?;
        Some(if amount == 0 { Limit::Unlimited } else { Limit::Of(amount) })
    };
    let space_kib = SoftHard { soft: limit()?, hard: limit()? };
    Some((kind, id, space_kib, SoftHard { soft: limit()?, hard: limit()? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_debugfs_lists_is_written_and_read_again() {
        let heading = "   user id     blocks    quota    limit      inodes    quota    limit";
        assert_eq!(listed(Kind::User, heading), None);
        assert_eq!(listed(Kind::User, "         0       20480        0        0           2        0        0"), None);
        let line = listed(Kind::Group, "      1000     1048576      100      200           3        0       40");
        assert_eq!(line.as_deref(), Some("group 1000 100 200 0 40\n"));
        let space = SoftHard { soft: Limit::Of(100), hard: Limit::Of(200) };
        let inodes = SoftHard { soft: Limit::Unlimited, hard: Limit::Of(40) };
        assert_eq!(parse("group 1000 100 200 0 40"), Some((Kind::Group, 1000, space, inodes)));
        assert_eq!(parse("project 1 1 1 1 1"), None);
        assert_eq!(parse("user x 1 1 1 1"), None);
    }
}
