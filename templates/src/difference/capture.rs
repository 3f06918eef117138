//! An application template made of a difference: `NAME.toml`, and the archive beside it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{Bounds, Change, Difference, DifferenceError, Entry, Form, Package, Written, write};
use crate::app::{AppError, AppTemplate, Captured, System};
use crate::cache::{CacheError, pack};
use crate::name::TemplateName;
use crate::progress::{Progress, Stage};

/// Of these a template has the lines that are new and not the files: a container has other users of its own.
const ACCOUNTS: [&[u8]; 4] = [b"etc/passwd", b"etc/group", b"etc/shadow", b"etc/gshadow"];

/// Why there is no template.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// Without `ID` nobody could tell where it may be installed.
    #[error("the container's /etc/os-release does not say which system it is (ID)")]
    NoSystem,
    /// Nothing to install.
    #[error("nothing has changed that a template could hold")]
    Nothing,
    /// A path that a text file cannot carry.
    #[error("{0:?} was removed, and its name cannot be written into a template")]
    Name(String),
    /// The files.
    #[error(transparent)]
    Difference(#[from] DifferenceError),
    /// The archive.
    #[error("pack the files")]
    Pack(#[source] Box<CacheError>),
    /// What was written is no template: a bug, or a name that no template may have.
    #[error(transparent)]
    App(#[from] AppError),
    /// A file operation; the error names call and path.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A template that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// `NAME.toml`.
    pub template: PathBuf,
    /// `NAME.tar.zst`.
    pub archive: PathBuf,
    /// Size of the archive in bytes.
    pub archive_bytes: u64,
    /// What is in it.
    pub written: Written,
}

/// The file, in the order it is read.
#[derive(Serialize)]
struct File<'a> {
    name: &'a str,
    description: String,
    version: &'static str,
    #[serde(rename = "for")]
    systems: [For<'a>; 1],
    services: Services,
    captured: Captured,
}

#[derive(Serialize)]
struct For<'a> {
    family: &'a str,
    releases: Vec<&'a str>,
}

#[derive(Serialize)]
struct Services {
    enable: Vec<String>,
}

/// Writes what was `chosen` as the template `name` into `directory`; it is for `system` only, which came from `origin`. Works in the empty
/// directory `work` on the same file system. Neither file is in its place before both are whole, the template last.
///
/// # Errors
/// Nothing to write, or it could not be written.
#[expect(clippy::too_many_arguments, reason = "each is a different thing, and it is called once")]
pub fn save<'e>(
    name: &TemplateName,
    directory: &Path,
    work: &Path,
    system: &System,
    origin: &str,
    difference: &Difference,
    chosen: impl IntoIterator<Item = &'e Entry>,
    after: BorrowedFd<'_>,
    progress: &mut dyn Progress,
) -> Result<Saved, CaptureError> {
    if system.id.is_empty() {
        return Err(CaptureError::NoSystem);
    }
    let chosen: Vec<&Entry> = chosen.into_iter().filter(|e| !ACCOUNTS.contains(&e.path.as_slice())).collect();
    let meaning = &difference.meaning;
    if chosen.is_empty() && meaning.users.is_empty() && meaning.groups.is_empty() && meaning.members.is_empty() {
        return Err(CaptureError::Nothing);
    }
    let (tree, packed, text_file) = (work.join("tree"), work.join("files"), work.join("template"));
    fs::create_dir(&tree)?;
    let target = fs::File::open(&tree)?.into_file();
    let written = write(chosen.iter().copied(), after, target.as_fd(), Form::Files, &Bounds::default())?;
    progress.stage(Stage::Pack, None);
    pack(&tree, &packed, None, progress).map_err(|e| CaptureError::Pack(Box::new(e)))?;
    let archive = format!("{name}.tar.zst");
    let file = File {
        name: name.as_str(),
        description: format!("Captured on {origin}"),
        version: "1",
        systems: [For { family: &system.id, releases: release(system) }],
        services: Services { enable: meaning.services.iter().filter(|unit| taken(&chosen, unit)).cloned().collect() },
        captured: Captured {
            files: archive.clone(),
            sha256: digest(&packed)?,
            removed: removed(&chosen)?,
            groups: meaning.groups.iter().map(|group| group.line.clone()).collect(),
            users: meaning.users.iter().map(|user| user.line.clone()).collect(),
            members: meaning.members.clone(),
            packages: meaning.packages_added.iter().map(Package::pinned).collect(),
            packages_removed: meaning.packages_removed.iter().map(Package::pinned).collect(),
        },
    };
    let text = toml::to_string_pretty(&file).map_err(io::Error::other)?;
    let (template, archive) = (directory.join(format!("{name}.toml")), directory.join(archive));
    AppTemplate::parse(&text, name, &template.display().to_string())?;
    fs::write(&text_file, &text)?;
    // Among the files may be secrets, such as a key or a password of the application's.
    fs::set_permissions(&packed, PermissionsExt::from_mode(0o600))?;
    for (from, to) in [(&packed, &archive), (&text_file, &template)] {
        fs::File::open(from)?.sync_all()?;
        fs::rename(from, to)?;
    }
    fs::File::open(directory)?.sync_all()?;
    let archive_bytes = fs::metadata(&archive)?.len();
    Ok(Saved { template, archive, archive_bytes, written })
}

fn release(system: &System) -> Vec<&str> {
    [system.release.as_str()].into_iter().filter(|release| !release.is_empty()).collect()
}

/// Whether the link that enables a unit is among what was chosen.
fn taken(chosen: &[&Entry], unit: &str) -> bool {
    let name = |entry: &Entry| entry.path.rsplit(|&b| b == b'/').next().map(<[u8]>::to_vec);
    let is_word = crate::app::is_word(unit, b"._@-:\\");
    is_word && chosen.iter().any(|entry| name(entry).as_deref() == Some(unit.as_bytes()))
}

fn removed(chosen: &[&Entry]) -> Result<Vec<String>, CaptureError> {
    let gone = chosen.iter().filter(|entry| entry.change == Change::Removed);
    gone.map(|entry| match std::str::from_utf8(&entry.path) {
        Ok(path) if !path.contains(char::is_control) => Ok(format!("/{path}")),
        _ => Err(CaptureError::Name(entry.shown())),
    })
    .collect()
}

fn digest(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut fs::File::open(path)?, &mut hash)?;
    Ok(format!("{:x}", hash.finalize()))
}

impl Package {
    /// As apt takes it.
    fn pinned(&self) -> String {
        format!("{}={}", self.name, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    #[test]
    fn a_captured_template_is_one_that_can_be_read_and_has_what_was_chosen() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for path in ["before/etc", "after/etc", "after/opt", "work", "apps"] {
            fs::create_dir_all(at(path)).unwrap();
        }
        fs::write(at("before/etc/gone"), "").unwrap();
        fs::write(at("after/opt/app"), "hello").unwrap();
        fs::write(at("after/etc/passwd"), "app:x:100:100::/opt:/bin/false\n").unwrap();
        let (before, after) = (fs::File::open(at("before")).unwrap(), fs::File::open(at("after")).unwrap());
        let difference = super::super::take(before.as_fd(), after.as_fd(), &Bounds::default()).unwrap();
        let name: TemplateName = "app".parse().unwrap();
        let system = System::parse("ID=debian\nVERSION_ID=12\n");
        let go = |system: &System, chosen: Vec<&Entry>, difference: &Difference| {
            let _ = fs::remove_dir_all(at("work/tree"));
            save(&name, &at("apps"), &at("work"), system, "debian-12", difference, chosen, after.as_fd(), &mut Silent)
        };
        let all = difference.suggested().collect();
        let saved = go(&system, all, &difference).unwrap();
        let read = AppTemplate::load(&name, &at("apps")).unwrap();
        let captured = read.captured.clone().unwrap();
        assert_eq!(captured.removed, ["/etc/gone"]);
        assert_eq!(captured.users, ["app:x:100:100::/opt:/bin/false"]);
        assert_eq!(captured.sha256, digest(&saved.archive).unwrap());
        assert!(read.for_system(&system).is_some());
        assert!(read.for_system(&System::parse("ID=debian\nVERSION_ID=13\n")).is_none());
        assert!(read.for_system(&System::parse("ID=other\nID_LIKE=debian\nVERSION_ID=12\n")).is_none());
        assert!(matches!(go(&System::default(), Vec::new(), &difference), Err(CaptureError::NoSystem)));
        assert!(matches!(go(&system, Vec::new(), &Difference::default()), Err(CaptureError::Nothing)));
    }
}
