//! What changed files mean: packages, users, services, configuration.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use serde::Serialize;

use super::accounts::{self, Account, GROUPS, USERS};
use super::dpkg::{self, Package};
use super::{Change, DifferenceError, Entry, Kind, walk};

/// Larger files of accounts or packages are no such files.
const READ_BYTES: usize = 64 << 20;

/// The same difference in the words of the system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Meaning {
    /// Debian's packages that are new, or of another version.
    pub packages_added: Vec<Package>,
    /// Those that are gone, or were of another version.
    pub packages_removed: Vec<Package>,
    /// New users.
    pub users: Vec<Account>,
    /// New groups.
    pub groups: Vec<Account>,
    /// New members of groups, `GROUP:USER`.
    pub members: Vec<String>,
    /// Units of systemd that something wants now.
    pub services: Vec<String>,
    /// Files in `/etc` that are not as a package has them: changed ones, and new ones that are no package's configuration.
    pub configuration: Vec<String>,
}

impl Meaning {
    pub(super) fn of(
        before: BorrowedFd<'_>,
        after: BorrowedFd<'_>,
        entries: &[Entry],
    ) -> Result<Self, DifferenceError> {
        let status = |at| dpkg::parse(&read(at, dpkg::STATUS)?);
        let (packages_before, packages_after) = (status(before)?, status(after)?);
        let both = |format: &accounts::Format| -> Result<_, DifferenceError> {
            let parse = |at| accounts::parse(format, &read(at, format.path)?);
            Ok((parse(before)?, parse(after)?))
        };
        let ((users_before, users_after), (groups_before, groups_after)) = (both(&USERS)?, both(&GROUPS)?);
        let text = |entry: &Entry| String::from_utf8(entry.path.clone()).ok();
        let configuration = entries.iter().filter(|entry| entry.noise.is_none()).filter_map(|entry| {
            let path = text(entry).filter(|path| path.starts_with("etc/") && entry.kind == Kind::File)?;
            let own = entry.change != Change::Added || !packages_after.conffiles.contains(&path);
            own.then(|| entry.shown())
        });
        Ok(Self {
            packages_added: dpkg::only_in(&packages_after, &packages_before),
            packages_removed: dpkg::only_in(&packages_before, &packages_after),
            users: accounts::added(&users_before, &users_after),
            groups: accounts::added(&groups_before, &groups_after),
            members: accounts::joined(&groups_before, &groups_after),
            services: entries.iter().filter_map(|entry| enabled(entry, &text(entry)?)).collect(),
            configuration: configuration.collect(),
        })
    }
}

/// The unit that a new link in a directory `*.wants` or `*.requires` of the administrator's enables.
fn enabled(entry: &Entry, path: &str) -> Option<String> {
    let (directory, unit) = path.strip_prefix("etc/systemd/system/")?.split_once('/')?;
    let enables = directory.ends_with(".wants") || directory.ends_with(".requires");
    (enables && entry.kind == Kind::Link && entry.change == Change::Added).then(|| unit.escape_debug().to_string())
}

/// What a system says of itself, os-release(5); empty where it says nothing. `/etc/os-release` is often a link.
///
/// # Errors
/// It is there and cannot be read.
pub fn os_release(root: BorrowedFd<'_>) -> Result<String, DifferenceError> {
    let mut text = read(root, "etc/os-release")?;
    if text.is_empty() {
        text = read(root, "usr/lib/os-release")?;
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// A file that need not be there, through directories only.
fn read(root: BorrowedFd<'_>, path: &'static str) -> Result<Vec<u8>, DifferenceError> {
    let failed = |call| move |e| DifferenceError::call(call, path.as_bytes(), e);
    let file = match walk::open_file(root, path.as_bytes()) {
        // Its directory is a link: whatever it is, it is not a system of this kind.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Vec::new()),
        file => file.map_err(failed("openat2"))?,
    };
    let damaged = |reason: &str| DifferenceError::Damaged { path, line: 0, reason: reason.to_owned() };
    let stat = rustix::fs::fstat(&file).map_err(failed("fstat"))?;
    if walk::kind(&stat) != Kind::File {
        return Err(damaged("is not a file"));
    }
    let size = usize::try_from(stat.st_size).ok().filter(|size| *size <= READ_BYTES);
    let mut text = vec![0; size.ok_or_else(|| damaged("is too large"))?];
    let got = walk::read_at(&file, &mut text, 0).map_err(failed("pread"))?;
    text.truncate(got);
    Ok(text)
}
