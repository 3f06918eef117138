//! A configuration file as its lines.
//!
//! The files look like shell (`KEY="value"`) and other programs do give them to one, so what is written here stays readable by `sh`;
//! reading never goes through a shell. Lines that mean nothing to us are kept byte for byte.

use std::borrow::Cow;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

/// The largest configuration file read. The real ones are a few KiB; a bound keeps a hostile or damaged one from costing memory.
pub const MAX_BYTES: u64 = 1 << 20;

/// A file that is not a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {fault}")]
pub struct BadLine {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What makes a line dangerous rather than merely strange.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A NUL byte: the file is damaged, or made to be read differently by different programs.
    #[error("a NUL byte")]
    Nul,
    /// A quote that is never closed. A shell would take the lines below as part of the value, and a file cut short looks like this, with
    /// half a number where a limit was.
    #[error("the quote after {0}= is not closed")]
    Unclosed(String),
}

/// A file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It could not be opened.
    #[error("open({path:?})")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// It is a symbolic link where a file must be.
    #[error("{0:?} is a symbolic link, which a container's configuration must not be")]
    Link(PathBuf),
    /// It is a FIFO, a device, a directory.
    #[error("{0:?} is not a regular file")]
    NotRegular(PathBuf),
    /// It is absurdly large.
    #[error("{0:?} is larger than {MAX_BYTES} bytes")]
    TooLarge(PathBuf),
    /// It could not be read.
    #[error("read({path:?})")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It has a line that must not be believed.
    #[error("{}:{}: {}", path.display(), bad.line, bad.fault)]
    Bad {
        /// The file.
        path: PathBuf,
        /// The line and what is wrong.
        bad: BadLine,
    },
    /// One step of writing it failed; what was there before is untouched.
    #[error("{call}({path:?})")]
    Save {
        /// The system call.
        call: &'static str,
        /// What it was called on.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl DocumentError {
    /// Whether the file simply is not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Open { source, .. } if *source == Errno::NOENT)
    }
}

/// A value that would not come back out of the file, or out of a shell, as it went in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the character {0:?} is not allowed in a value")]
pub struct BadCharacter(pub char);

/// Refuses what a double-quoted shell word does not keep as it is (`"`, `$`, backquote, backslash), line ends, and every other control
/// character: values end up on terminals and in logs.
///
/// # Errors
/// The first character that is not allowed.
pub fn check_value(value: &str) -> Result<(), BadCharacter> {
    match value.chars().find(|c| c.is_control() || matches!(c, '"' | '$' | '`' | '\\')) {
        Some(c) => Err(BadCharacter(c)),
        None => Ok(()),
    }
}

/// `check_value` for paths of which `$VEID` may be a part.
pub(crate) fn check_path_value(value: &str) -> Result<(), BadCharacter> {
    check_value(&value.replace("${VEID}", "").replace("$VEID", ""))
}

/// Puts a container's number where a path says `$VEID`.
#[must_use]
pub fn substitute_veid(value: &str, ctid: vzrt::Ctid) -> PathBuf {
    let number = ctid.to_string();
    PathBuf::from(value.replace("${VEID}", &number).replace("$VEID", &number))
}

/// A configuration file: all its lines, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Document {
    lines: Vec<Line>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    /// The bytes of the file, line end included.
    raw: Vec<u8>,
    pair: Option<(String, String)>,
}

/// Every `KEY=value` of a file in order, borrowed: for readers that need a few keys of a thousand files.
///
/// # Errors
/// As [`Document::parse`].
pub fn pairs(text: &[u8]) -> impl Iterator<Item = Result<(&str, Cow<'_, str>), BadLine>> {
    raw_lines(text).enumerate().filter_map(|(at, raw)| match pair_of(raw) {
        Ok(pair) => pair.map(Ok),
        Err(fault) => Some(Err(BadLine { line: at + 1, fault })),
    })
}

fn raw_lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|b| *b == b'\n')
}

/// The key and value of one line, by the rules of `parse_line` in `lib/util.c` of vzctl 4: blanks around the line don't count, the value
/// is the text between the first quote and the last one, or all of it without quotes. A comment after an unquoted value is left out, as
/// a shell would.
fn pair_of(raw: &[u8]) -> Result<Option<(&str, Cow<'_, str>)>, Fault> {
    if raw.contains(&0) {
        return Err(Fault::Nul);
    }
    let line = raw.trim_ascii();
    let Some(equals) = line.iter().position(|b| *b == b'=') else { return Ok(None) };
    let (key, value) = (&line[..equals], &line[equals + 1..]);
    let starts_well = key.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_');
    if !starts_well || !key.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_') {
        return Ok(None);
    }
    let key = std::str::from_utf8(key).expect("only ASCII letters, digits and _ were let through");
    let text = match value.first() {
        Some(quote @ (b'"' | b'\'')) => {
            let last = value.iter().rposition(|b| b == quote).expect("the first byte is one");
            if last == 0 {
                return Err(Fault::Unclosed(key.to_owned()));
            }
            &value[1..last]
        }
        _ => {
            let comment = value.windows(2).position(|w| w[0].is_ascii_whitespace() && w[1] == b'#');
            comment.map_or(value, |at| &value[..at]).trim_ascii_end()
        }
    };
    Ok(Some((key, String::from_utf8_lossy(text))))
}

impl Document {
    /// Takes a file apart. Junk is kept, not judged; text that is not UTF-8 is kept too, and reads with replacement characters.
    ///
    /// # Errors
    /// The first dangerous line.
    pub fn parse(text: &[u8]) -> Result<Self, BadLine> {
        let mut lines = Vec::new();
        for (at, raw) in raw_lines(text).enumerate() {
            let pair = pair_of(raw).map_err(|fault| BadLine { line: at + 1, fault })?;
            lines.push(Line { raw: raw.to_owned(), pair: pair.map(|(k, v)| (k.to_owned(), v.into_owned())) });
        }
        Ok(Self { lines })
    }

    /// Reads a container's configuration. A symbolic link is refused: vzctl 7 kept the file inside the private area and a link to it in
    /// `conf/`, but the private area is the container's to write, and its limits and mounts must not be.
    ///
    /// # Errors
    /// No file, not a regular file, too large, or a dangerous line.
    pub fn load(path: &Path) -> Result<Self, DocumentError> {
        Self::parse(&read(path, OFlags::NOFOLLOW)?).map_err(|bad| DocumentError::Bad { path: path.to_owned(), bad })
    }

    /// Reads a file of the host's administrator (`vz.conf`, samples, `dists/`), which may be a link.
    ///
    /// # Errors
    /// As [`Document::load`].
    pub fn load_linked(path: &Path) -> Result<Self, DocumentError> {
        Self::parse(&read(path, OFlags::empty())?).map_err(|bad| DocumentError::Bad { path: path.to_owned(), bad })
    }

    /// The value of a key: the last one, where it is there more than once.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.get_any(&[key])
    }

    /// The value of a key that has had several spellings: the last one in the file.
    #[must_use]
    pub fn get_any(&self, keys: &[&str]) -> Option<&str> {
        self.pairs().filter(|(k, _)| keys.contains(k)).last().map(|(_, v)| v)
    }

    /// All pairs in file order, duplicates included.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.lines.iter().filter_map(|l| l.pair.as_ref()).map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// Gives a key a value, in the place where the key is, or at the end. A line that says so already is left as it is.
    ///
    /// # Errors
    /// A character that the file cannot carry. `$VEID` may be part of `VE_ROOT` and `VE_PRIVATE`.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), BadCharacter> {
        let check = if matches!(key, "VE_ROOT" | "VE_PRIVATE") { check_path_value } else { check_value };
        check(value)?;
        let at = self.lines.iter().rposition(|l| l.pair.as_ref().is_some_and(|(k, _)| k == key));
        if at.is_some_and(|at| self.lines[at].pair.as_ref().is_some_and(|(_, v)| v == value)) {
            return Ok(());
        }
        let end = if self.lines.last().is_some_and(|l| l.raw.ends_with(b"\r\n")) { "\r\n" } else { "\n" };
        let raw = format!("{key}=\"{value}\"{end}").into_bytes();
        let line = Line { raw, pair: Some((key.to_owned(), value.to_owned())) };
        match at {
            Some(at) => self.lines[at] = line,
            None => {
                self.end_last_line();
                self.lines.push(line);
            }
        }
        Ok(())
    }

    /// Takes every line of a key out.
    pub fn remove(&mut self, key: &str) {
        self.lines.retain(|l| l.pair.as_ref().is_none_or(|(k, _)| k != key));
    }

    fn end_last_line(&mut self) {
        if let Some(last) = self.lines.last_mut()
            && !last.raw.ends_with(b"\n")
        {
            last.raw.push(b'\n');
        }
    }

    /// The bytes of the file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.lines.iter().flat_map(|l| l.raw.iter().copied()).collect()
    }

    /// Writes the file so that a reader, or a power cut at any moment, finds the old one or the new one.
    ///
    /// # Errors
    /// The step that failed; the old file is as it was.
    pub fn save(&self, path: &Path) -> Result<(), DocumentError> {
        replace(path, &self.to_bytes())
    }
}

/// A whole configuration file: regular, of sane size, and never waited for (a FIFO would block an open without `O_NONBLOCK`).
pub(crate) fn read(path: &Path, extra: OFlags) -> Result<Vec<u8>, DocumentError> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC | extra;
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|source| match source {
        Errno::LOOP if extra.contains(OFlags::NOFOLLOW) => DocumentError::Link(path.to_owned()),
        source => DocumentError::Open { path: path.to_owned(), source },
    })?;
    let stat = rustix::fs::fstat(&fd).map_err(|e| DocumentError::Read { path: path.to_owned(), source: e.into() })?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(DocumentError::NotRegular(path.to_owned()));
    }
    let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
    if size > MAX_BYTES {
        return Err(DocumentError::TooLarge(path.to_owned()));
    }
    let mut text = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
    // One byte more than allowed, to notice a file that grows while it is read.
    let got = File::from(fd).take(MAX_BYTES + 1).read_to_end(&mut text);
    got.map_err(|source| DocumentError::Read { path: path.to_owned(), source })?;
    if text.len() as u64 > MAX_BYTES { Err(DocumentError::TooLarge(path.to_owned())) } else { Ok(text) }
}

/// The name a new version of a file is written under. It is always the same one, so that what a killed command leaves is taken over by
/// the next save instead of piling up; two savers are kept apart by a lock on it.
#[must_use]
pub fn temporary_of(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), DocumentError> {
    let temporary = temporary_of(path);
    let failed = |call, at: &Path| {
        let path = at.to_owned();
        move |source: std::io::Error| DocumentError::Save { call, path, source }
    };
    let mut file = lock_temporary(&temporary)?;
    let written = write_out(&mut file, path, bytes)
        .map_err(|(call, e)| failed(call, &temporary)(e))
        .and_then(|()| rustix::fs::rename(&temporary, path).map_err(|e| failed("rename", &temporary)(e.into())));
    if written.is_err() {
        // The first error is the one to report; a temporary that cannot be removed is taken over by the next save.
        let _ = rustix::fs::unlink(&temporary);
        return written;
    }
    // Without this a power cut can bring the old name back, although the caller was told that the new file is there.
    let dir = path.parent().unwrap_or(Path::new("."));
    let fd = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    fd.and_then(|fd| rustix::fs::fsync(&fd)).map_err(|e| failed("fsync", dir)(e.into()))
}

/// Opens and locks the temporary. Whoever had it before us may have renamed it meanwhile, and then we hold the finished file: look again.
fn lock_temporary(temporary: &Path) -> Result<File, DocumentError> {
    let failed = |call| move |e: Errno| DocumentError::Save { call, path: temporary.to_owned(), source: e.into() };
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    loop {
        let fd = rustix::fs::open(temporary, flags, Mode::from_raw_mode(0o644)).map_err(failed("open"))?;
        rustix::fs::flock(fd.as_fd(), FlockOperation::LockExclusive).map_err(failed("flock"))?;
        let ours = rustix::fs::fstat(&fd).map_err(failed("fstat"))?;
        if FileType::from_raw_mode(ours.st_mode) != FileType::RegularFile {
            return Err(DocumentError::NotRegular(temporary.to_owned()));
        }
        match rustix::fs::statat(rustix::fs::CWD, temporary, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino) => return Ok(File::from(fd)),
            Ok(_) | Err(Errno::NOENT) => {}
            Err(e) => return Err(failed("stat")(e)),
        }
    }
}

/// Fills the temporary. The mode is that of the file it replaces: an administrator may have closed one with secrets in it.
fn write_out(file: &mut File, path: &Path, bytes: &[u8]) -> Result<(), (&'static str, std::io::Error)> {
    let mode = match rustix::fs::statat(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(old) => Mode::from_raw_mode(old.st_mode & 0o777),
        Err(_) => Mode::from_raw_mode(0o644),
    };
    rustix::fs::fchmod(&*file, mode).map_err(|e| ("fchmod", e.into()))?;
    file.set_len(0).map_err(|e| ("ftruncate", e))?;
    file.write_all(bytes).map_err(|e| ("write", e))?;
    file.sync_all().map_err(|e| ("fsync", e))
}

#[cfg(test)]
mod tests;
