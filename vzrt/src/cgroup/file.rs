//! Control files: one open, one read or write, errors with the path.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::Error;

/// The whole text of a control file.
pub(super) fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(Error::call("read", path))
}

/// One value into a control file, in one write(2): the kernel takes each write as a whole command. Without `O_CREAT`, which on
/// cgroupfs would turn a missing file's ENOENT into EACCES.
pub(super) fn write(path: &Path, value: &str) -> Result<(), Error> {
    let written = OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(value.as_bytes()));
    written.map_err(|source| Error::Write { path: path.to_owned(), value: value.to_owned(), source })
}

/// A file with one number; `max` is `u64::MAX`.
pub(super) fn read_number(path: &Path) -> Result<u64, Error> {
    let text = read(path)?;
    match text.trim_end() {
        "max" => Ok(u64::MAX),
        digits => digits.parse().map_err(|_| Error::Format { path: path.to_owned(), text: digits.to_owned() }),
    }
}

/// The value of `key` in a file of `key value` lines.
pub(super) fn keyed<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
}

/// The cgroups right below one.
pub(super) fn children(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut children = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::call("opendir", dir))? {
        let entry = entry.map_err(Error::call("readdir", dir))?;
        children.extend(entry.file_type().is_ok_and(|kind| kind.is_dir()).then(|| entry.path()));
    }
    Ok(children)
}

/// mkdir that says whether it was needed.
pub(super) fn ensure_dir(path: &Path) -> Result<(), Error> {
    match fs::create_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(Error::call("mkdir", path)),
    }
}
