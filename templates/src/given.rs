//! Systems that are given whole: an archive, as OpenVZ and LXC have them, or a directory.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fs_err as fs;

use crate::cache::CacheError;
use crate::oci::Layout;
use crate::progress::{Progress, Stage};
use crate::recipe::{Bootstrap, Image, SystemArchive, SystemDirectory};
use crate::unpack::member::shown;
use crate::unpack::{self, Format, Limits};

/// One of these makes a directory a system.
const SIGNS: [&str; 4] = ["etc", "bin", "usr", "sbin"];

impl Bootstrap {
    /// What a path is: a directory with a system or an image in it, an archive of either. A tag makes it an image.
    ///
    /// # Errors
    /// It is not there, or can't be read.
    pub fn of_path(path: &Path, tag: Option<String>) -> Result<Self, CacheError> {
        let source = fs::canonicalize(path)?;
        let is_directory = fs::metadata(&source)?.is_dir();
        let is_image = match is_directory {
            true => Layout::open(&source)?.is_image()?,
            false => unpack::begins_with(fs::File::open(&source)?.into_file(), &Layout::SIGNS),
        };
        Ok(if is_image || tag.is_some() {
            Self::Oci(Image { source, tag, digest: None })
        } else if is_directory {
            Self::Directory(SystemDirectory { source })
        } else {
            Self::Archive(SystemArchive { source, sha256: None, root: None })
        })
    }
}

/// Unpacks an archive into the empty directory `to`; which directory in it is the system's root.
pub(crate) fn unpack(
    archive: &SystemArchive,
    to: &Path,
    limits: &Limits,
    progress: &mut dyn Progress,
) -> Result<PathBuf, CacheError> {
    let path = &archive.source;
    let mut file = fs::File::open(path)?.into_file();
    progress.stage(Stage::Unpack, Some(file.metadata()?.len()));
    let unpacked = unpack::unpack(&mut file, fs::File::open(to)?.as_fd(), Format::Archive, limits, progress)
        .map_err(|source| CacheError::Unpack { path: path.clone(), source })?;
    if let Some(wanted) = archive.sha256.as_ref().filter(|wanted| **wanted != unpacked.sha256) {
        return Err(CacheError::Hash { path: path.clone(), wanted: wanted.clone(), found: unpacked.sha256 });
    }
    let root = match &archive.root {
        Some(root) => below(to, root)?,
        None if !to.join("etc").exists() && to.join("rootfs").symlink_metadata().is_ok_and(|m| m.is_dir()) => {
            to.join("rootfs")
        }
        None => to.to_owned(),
    };
    if SIGNS.iter().any(|sign| root.join(sign).symlink_metadata().is_ok()) {
        return Ok(root);
    }
    Err(CacheError::NoSystem { path: path.clone(), root: archive.root.clone().unwrap_or_default() })
}

/// A directory of the archive, through no link of it.
fn below(to: &Path, root: &str) -> Result<PathBuf, CacheError> {
    let mut path = to.to_owned();
    for part in root.split('/').filter(|p| !p.is_empty() && *p != ".") {
        path.push(part);
        if !fs::symlink_metadata(&path)?.is_dir() {
            return Err(CacheError::NoSystem { path: to.to_owned(), root: root.to_owned() });
        }
    }
    Ok(path)
}

/// Copies a system as it is: owners, modes, times, extended attributes, hard links and holes.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), CacheError> {
    if !SIGNS.iter().any(|sign| from.join(sign).symlink_metadata().is_ok()) {
        return Err(CacheError::NoSystem { path: from.to_owned(), root: String::new() });
    }
    let mut command = Command::new("cp");
    command.args(["-dR", "--one-file-system", "--preserve=mode,ownership,timestamps,links,xattr", "-T", "--"]);
    command.arg(from.join(".")).arg(to.join("."));
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").stdin(Stdio::null());
    let output = command.output()?;
    if !output.status.success() {
        let argv = vec![String::from("cp"), from.display().to_string()];
        let stderr = shown(output.stderr.split(|b| *b == b'\n').next().unwrap_or_default());
        return Err(CacheError::Copy { argv, status: output.status.to_string(), stderr });
    }
    Ok(())
}
