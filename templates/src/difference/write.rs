//! A tree made of what was chosen of a difference: of files to pack, or a layer in overlay's format.

use std::collections::{BTreeMap, BTreeSet};

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::walk::{BENEATH, kind, open_directory, open_file, read_at, stat, xattrs};
use super::{Bounds, Change, DifferenceError, Entry, Kind};
use crate::unpack::extract::write_all_at;
use crate::unpack::member::shown;

/// What the tree is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// To be packed: what was removed is not in it.
    Files,
    /// To lie over the tree before: what was removed is a whiteout (a character device 0:0, overlayfs.rst of the kernel).
    Layer,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Files, links and directories, without the directories that were there before.
    pub entries: u64,
    /// Bytes of files, without holes.
    pub bytes: u64,
    /// SHA-256 of all of it but times, in hexadecimal: the same files give the same digest.
    pub sha256: String,
}

/// Writes what was `chosen` of a difference into the empty directory `target`, as it lies in `after`. On an error the directory holds a part;
/// removing it is the caller's.
///
/// # Errors
/// Over `bounds`; an owner that no container has; a call that failed.
pub fn write<'e>(
    chosen: impl IntoIterator<Item = &'e Entry>,
    after: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    form: Form,
    bounds: &Bounds,
) -> Result<Written, DifferenceError> {
    let mut writer = Writer {
        after,
        target,
        bounds,
        bytes: 0,
        hash: Sha256::new(),
        directories: BTreeMap::new(),
        links: BTreeMap::new(),
    };
    let chosen: Vec<&Entry> = chosen.into_iter().collect();
    let there: BTreeSet<&[u8]> =
        chosen.iter().filter(|entry| entry.change != Change::Removed).map(|entry| entry.path.as_slice()).collect();
    let mut entries = 0;
    for entry in &chosen {
        match entry.change {
            // What takes its place hides it.
            Change::Removed if form == Form::Layer && !there.contains(entry.path.as_slice()) => {
                writer.whiteout(&entry.path)?;
            }
            Change::Removed => continue,
            _ if entry.kind == Kind::Special => continue,
            _ => writer.copy(&entry.path)?,
        }
        entries += 1;
    }
    // Last, for making something in a directory changes its time.
    for (path, times) in &writer.directories {
        let directory = open_directory(target, path).map_err(|e| DifferenceError::call("openat2", path, e))?;
        fs::futimens(&directory, times).map_err(|e| DifferenceError::call("futimens", path, e))?;
    }
    Ok(Written { entries, bytes: writer.bytes, sha256: format!("{:x}", writer.hash.finalize()) })
}

struct Writer<'a> {
    after: BorrowedFd<'a>,
    target: BorrowedFd<'a>,
    bounds: &'a Bounds,
    bytes: u64,
    hash: Sha256,
    /// Those that were made, with their times.
    directories: BTreeMap<Vec<u8>, Timestamps>,
    /// The first path of each inode that has several.
    links: BTreeMap<(u64, u64), Vec<u8>>,
}

impl Writer<'_> {
    fn whiteout(&mut self, path: &[u8]) -> Result<(), DifferenceError> {
        let parent = self.parents(path)?;
        self.tell(path, b"removed", &[]);
        let (_, name) = split(path);
        // As overlay makes them itself.
        fs::mknodat(&parent, name, FileType::CharacterDevice, Mode::empty(), 0)
            .map_err(|e| DifferenceError::call("mknodat", path, e))
    }

    /// The directory of a path, made like those in `after` where it is not there.
    fn parents(&mut self, path: &[u8]) -> Result<OwnedFd, DifferenceError> {
        let (above, _) = split(path);
        let ends = above.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
        let missing: Vec<usize> = ends
            .chain([above.len()])
            .filter(|end| *end != 0 && !self.directories.contains_key(&above[..*end]))
            .collect();
        for end in missing {
            self.directory(&above[..end])?;
        }
        let above = if above.is_empty() { b"." } else { above };
        open_directory(self.target, above).map_err(|e| DifferenceError::call("openat2", path, e))
    }

    fn copy(&mut self, path: &[u8]) -> Result<(), DifferenceError> {
        let is = stat(self.after, path).map_err(|e| DifferenceError::call("fstatat", path, e))?;
        if kind(&is) == Kind::Directory {
            self.parents(path)?;
            return if self.directories.contains_key(path) { Ok(()) } else { self.directory(path) };
        }
        let parent = self.parents(path)?;
        let (_, name) = split(path);
        let inode = (is.st_dev, is.st_ino);
        if is.st_nlink > 1 {
            if let Some(first) = self.links.get(&inode) {
                let linked = fs::linkat(self.target, first.as_slice(), &parent, name, AtFlags::empty());
                linked.map_err(|e| DifferenceError::call("linkat", path, e))?;
                let first = first.clone();
                self.tell(path, b"the same as", &[&first]);
                return Ok(());
            }
            self.links.insert(inode, path.to_vec());
        }
        self.one(path, &is, &parent, name)
    }

    /// Anything but a directory.
    fn one(&mut self, path: &[u8], is: &Stat, parent: &OwnedFd, name: &[u8]) -> Result<(), DifferenceError> {
        let failed = |call| move |e| DifferenceError::call(call, path, e);
        let (uid, gid) = owner(path, is)?;
        match kind(is) {
            Kind::File => {
                let from = open_file(self.after, path).map_err(failed("openat2"))?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let to = fs::openat2(parent, name, flags, Mode::RUSR | Mode::WUSR, BENEATH);
                let to = to.map_err(failed("openat2"))?;
                self.tell(path, b"file", &[&attributes(is)]);
                self.content(path, &from, &to)?;
                // In this order: a write or a change of owner clears setuid bits and file capabilities.
                dress(&to, is, uid, gid).map_err(failed("fchown, fchmod"))?;
                self.xattrs(path, &from, &to)?;
                fs::futimens(&to, &times(is)).map_err(failed("futimens"))
            }
            Kind::Link => {
                let target = fs::readlinkat(self.after, path, Vec::new()).map_err(failed("readlinkat"))?;
                fs::symlinkat(&target, parent, name).map_err(failed("symlinkat"))?;
                self.tell(path, b"link", &[&attributes(is), target.as_bytes()]);
                fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("fchownat"))?;
                fs::utimensat(parent, name, &times(is), AtFlags::SYMLINK_NOFOLLOW).map_err(failed("utimensat"))
            }
            Kind::Fifo => {
                let mode = Mode::from_raw_mode(is.st_mode & 0o7777);
                fs::mknodat(parent, name, FileType::Fifo, Mode::empty(), 0).map_err(failed("mknodat"))?;
                self.tell(path, b"fifo", &[&attributes(is)]);
                fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("fchownat"))?;
                // The name was made two lines above, in a directory that only the host's root can enter.
                fs::chmodat(parent, name, mode, AtFlags::empty()).map_err(failed("fchmodat"))?;
                fs::utimensat(parent, name, &times(is), AtFlags::SYMLINK_NOFOLLOW).map_err(failed("utimensat"))
            }
            Kind::Directory | Kind::Special => Ok(()),
        }
    }

    fn directory(&mut self, path: &[u8]) -> Result<(), DifferenceError> {
        let failed = |call| move |e| DifferenceError::call(call, path, e);
        let from = open_directory(self.after, path).map_err(failed("openat2"))?;
        let is = fs::fstat(&from).map_err(failed("fstat"))?;
        let (uid, gid) = owner(path, &is)?;
        fs::mkdirat(self.target, path, Mode::RWXU).map_err(failed("mkdirat"))?;
        let to = open_directory(self.target, path).map_err(failed("openat2"))?;
        self.tell(path, b"directory", &[&attributes(&is)]);
        dress(&to, &is, uid, gid).map_err(failed("fchown, fchmod"))?;
        self.xattrs(path, &from, &to)?;
        self.directories.insert(path.to_vec(), times(&is));
        Ok(())
    }

    /// The data, and the holes between them.
    fn content(&mut self, path: &[u8], from: &OwnedFd, to: &OwnedFd) -> Result<(), DifferenceError> {
        let failed = |call| move |e| DifferenceError::call(call, path, e);
        let size = fs::fstat(from).map_err(failed("fstat"))?.st_size as u64;
        fs::ftruncate(to, size).map_err(failed("ftruncate"))?;
        self.hash.update(size.to_le_bytes());
        let mut buffer = vec![0; 256 << 10];
        let mut offset = 0;
        while offset < size {
            offset = match fs::seek(from, SeekFrom::Data(offset)) {
                // Nothing but a hole is left.
                Err(Errno::NXIO) => break,
                data => data.map_err(failed("lseek"))?,
            };
            let end = fs::seek(from, SeekFrom::Hole(offset)).map_err(failed("lseek"))?.min(size);
            while offset < end {
                let want = usize::try_from(end - offset).unwrap_or(usize::MAX).min(buffer.len());
                let got = read_at(from, &mut buffer[..want], offset).map_err(failed("pread"))?;
                if got == 0 {
                    return Err(failed("pread")(Errno::IO));
                }
                self.bytes += got as u64;
                if self.bytes > self.bounds.bytes {
                    return Err(DifferenceError::Bound { what: "bytes", limit: self.bounds.bytes });
                }
                // Zeros may be data in one copy and a hole in another, so where they begin is not told.
                if buffer[..got].iter().any(|b| *b != 0) {
                    self.hash.update(offset.to_le_bytes());
                    self.hash.update(&buffer[..got]);
                }
                write_all_at(to, &buffer[..got], offset).map_err(failed("pwrite"))?;
                offset += got as u64;
            }
        }
        Ok(())
    }

    fn xattrs(&mut self, path: &[u8], from: impl AsFd, to: impl AsFd) -> Result<(), DifferenceError> {
        for (name, value) in xattrs(from).map_err(|e| DifferenceError::call("fgetxattr", path, e))? {
            self.tell(path, name.as_bytes(), &[&value]);
            let set = fs::fsetxattr(&to, name.as_c_str(), &value, XattrFlags::empty());
            set.map_err(|e| DifferenceError::call("fsetxattr", path, e))?;
        }
        Ok(())
    }

    /// Each with its length, so that two different trees never give the same bytes.
    fn tell(&mut self, path: &[u8], what: &[u8], values: &[&[u8]]) {
        for part in [path, what].iter().chain(values) {
            self.hash.update((part.len() as u64).to_le_bytes());
            self.hash.update(part);
        }
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

fn owner(path: &[u8], is: &Stat) -> Result<(Option<Uid>, Option<Gid>), DifferenceError> {
    if is.st_uid > 65535 || is.st_gid > 65535 {
        return Err(DifferenceError::Owner { path: shown(path), uid: is.st_uid, gid: is.st_gid });
    }
    Ok((Some(Uid::from_raw(is.st_uid)), Some(Gid::from_raw(is.st_gid))))
}

fn attributes(is: &Stat) -> Vec<u8> {
    [is.st_mode, is.st_uid, is.st_gid].iter().flat_map(|n| n.to_le_bytes()).collect()
}

fn dress(file: &OwnedFd, is: &Stat, uid: Option<Uid>, gid: Option<Gid>) -> Result<(), Errno> {
    fs::fchown(file, uid, gid)?;
    fs::fchmod(file, Mode::from_raw_mode(is.st_mode & 0o7777))
}

fn times(is: &Stat) -> Timestamps {
    let time = Timespec { tv_sec: is.st_mtime, tv_nsec: is.st_mtime_nsec as _ };
    Timestamps { last_access: time, last_modification: time }
}
