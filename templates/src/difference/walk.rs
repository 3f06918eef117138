//! Two trees side by side, directory by directory, each opened below its parent's descriptor.

use std::collections::{BTreeMap, HashSet};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::{Bounds, Change, DifferenceError, Entry, Kind, noise};

/// Extended attributes that are of the system and not of the host it lies on: file capabilities, the user's own, and access control lists.
const XATTRS: [&str; 4] = ["security.capability", "user.", "system.posix_acl_access", "system.posix_acl_default"];
/// XATTR_LIST_MAX and XATTR_SIZE_MAX of Linux.
const XATTR_BYTES: usize = 64 << 10;
const CHUNK_BYTES: usize = 128 << 10;

pub(super) const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);
pub(super) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What differs, parents first.
pub(super) fn compare(
    before: BorrowedFd<'_>,
    after: BorrowedFd<'_>,
    bounds: &Bounds,
) -> Result<Vec<Entry>, DifferenceError> {
    let mut walk = Walk { bounds, seen: 0, read: 0, links: HashSet::new(), path: Vec::new(), entries: Vec::new() };
    let open = |at| open_directory(at, b".").map_err(|e| DifferenceError::call("openat2", b"", e));
    walk.directory(Some(&open(before)?), &open(after)?, 0)?;
    Ok(walk.entries)
}

pub(super) fn open_directory(at: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    fs::openat2(at, name, DIRECTORY, Mode::empty(), BENEATH)
}

/// For reading; `NONBLOCK`, should it be a FIFO after all.
pub(super) fn open_file(at: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    fs::openat2(at, name, flags, Mode::empty(), BENEATH)
}

pub(super) fn kind(stat: &Stat) -> Kind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Directory,
        FileType::RegularFile => Kind::File,
        FileType::Symlink => Kind::Link,
        FileType::Fifo => Kind::Fifo,
        _ => Kind::Special,
    }
}

pub(super) fn stat(at: impl AsFd, name: &[u8]) -> Result<Stat, Errno> {
    fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// Those that belong to the system, with their values.
pub(super) fn xattrs(file: impl AsFd) -> Result<BTreeMap<CString, Vec<u8>>, Errno> {
    let mut names = vec![0; XATTR_BYTES];
    let length = match fs::flistxattr(&file, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        length => length?,
    };
    let mut found = BTreeMap::new();
    let mut value = vec![0; XATTR_BYTES];
    for name in names[..length].split(|&b| b == 0) {
        let wanted = |known: &str| match known.strip_suffix('.') {
            Some(_) => name.starts_with(known.as_bytes()),
            None => name == known.as_bytes(),
        };
        if !XATTRS.iter().any(|known| wanted(known)) {
            continue;
        }
        let Ok(name) = CString::new(name) else { continue };
        let length = fs::fgetxattr(&file, name.as_c_str(), &mut value[..])?;
        found.insert(name, value[..length].to_vec());
    }
    Ok(found)
}

struct Walk<'a> {
    bounds: &'a Bounds,
    seen: u64,
    read: u64,
    /// Inodes that were counted already, under another of their names.
    links: HashSet<(u64, u64)>,
    path: Vec<u8>,
    entries: Vec<Entry>,
}

impl Walk<'_> {
    fn directory(&mut self, before: Option<&OwnedFd>, after: &OwnedFd, depth: usize) -> Result<(), DifferenceError> {
        if depth > self.bounds.depth {
            let limit = self.bounds.depth as u64;
            return Err(DifferenceError::Bound { what: "levels of directories", limit });
        }
        let mut names: BTreeMap<Vec<u8>, (bool, bool)> = BTreeMap::new();
        if let Some(before) = before {
            self.names(before)?.into_iter().for_each(|name| names.entry(name).or_default().0 = true);
        }
        self.names(after)?.into_iter().for_each(|name| names.entry(name).or_default().1 = true);
        for (name, (was, is)) in names {
            let length = self.path.len();
            if length != 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(&name);
            self.one(before.filter(|_| was), Some(after).filter(|_| is), &name, depth)?;
            self.path.truncate(length);
        }
        Ok(())
    }

    fn names(&mut self, directory: &OwnedFd) -> Result<Vec<Vec<u8>>, DifferenceError> {
        let call = |e| DifferenceError::call("getdents64", &self.path, e);
        let mut names = Vec::new();
        for entry in Dir::read_from(directory).map_err(call)? {
            let entry = entry.map_err(call)?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            self.seen += 1;
            if self.seen > self.bounds.entries {
                return Err(DifferenceError::Bound { what: "entries", limit: self.bounds.entries });
            }
            names.push(name.to_vec());
        }
        Ok(names)
    }

    fn failed(&self, call: &'static str) -> impl FnOnce(Errno) -> DifferenceError + use<> {
        let path = self.path.clone();
        move |e| DifferenceError::call(call, &path, e)
    }

    fn one(
        &mut self,
        before: Option<&OwnedFd>,
        after: Option<&OwnedFd>,
        name: &[u8],
        depth: usize,
    ) -> Result<(), DifferenceError> {
        let look = |at: Option<&OwnedFd>| at.map(|at| stat(at, name)).transpose();
        let was = look(before).map_err(self.failed("fstatat"))?;
        let is = look(after).map_err(self.failed("fstatat"))?;
        let same_kind = matches!((&was, &is), (Some(was), Some(is)) if kind(was) == kind(is));
        if let (Some(was), false) = (&was, same_kind) {
            self.note(Change::Removed, kind(was), 0);
        }
        let (Some(after), Some(is)) = (after, is) else { return Ok(()) };
        let pair = before.zip(was).filter(|_| same_kind);
        if kind(&is) == Kind::Directory {
            let open = |at| open_directory(at, name);
            let now = open(after.as_fd()).map_err(self.failed("openat2"))?;
            let then = pair.map(|(at, _)| open(at.as_fd())).transpose().map_err(self.failed("openat2"))?;
            match (&then, &pair) {
                (Some(then), Some((_, was))) => {
                    if !same_owner(was, &is) || !self.same_xattrs(then, &now)? {
                        self.note(Change::Attributes, Kind::Directory, 0);
                    }
                }
                _ => self.note(Change::Added, Kind::Directory, 0),
            }
            return self.directory(then.as_ref(), &now, depth + 1);
        }
        match pair {
            None => {
                let bytes = self.size_of(&is);
                self.note(Change::Added, kind(&is), bytes);
            }
            // A container cannot set the time of an inode's last change.
            Some((_, was)) if untouched(&was, &is) => {}
            Some((before, was)) => self.changed(before, after, name, &was, &is)?,
        }
        Ok(())
    }

    /// Both are there, of one kind and no directories, and something was done to it.
    fn changed(
        &mut self,
        before: &OwnedFd,
        after: &OwnedFd,
        name: &[u8],
        was: &Stat,
        is: &Stat,
    ) -> Result<(), DifferenceError> {
        let (mut content, mut attributes) = (true, same_owner(was, is));
        match kind(is) {
            Kind::File => {
                let then = open_file(before, name).map_err(self.failed("openat2"))?;
                let now = open_file(after, name).map_err(self.failed("openat2"))?;
                content = was.st_size == is.st_size && self.same_content(&then, &now)?;
                attributes = attributes && self.same_xattrs(&then, &now)?;
            }
            Kind::Link => {
                let target = |at| fs::readlinkat(at, name, Vec::new());
                let then = target(before).map_err(self.failed("readlinkat"))?;
                content = then == target(after).map_err(self.failed("readlinkat"))?;
            }
            Kind::Directory | Kind::Fifo | Kind::Special => {}
        }
        let change = match (content, attributes) {
            (true, true) => return Ok(()),
            (true, false) => Change::Attributes,
            (false, _) => Change::Changed,
        };
        let bytes = self.size_of(is);
        self.note(change, kind(is), bytes);
        Ok(())
    }

    fn size_of(&mut self, is: &Stat) -> u64 {
        let counts = kind(is) == Kind::File && (is.st_nlink < 2 || self.links.insert((is.st_dev, is.st_ino)));
        // What it takes, not how far it reaches: a file may be all holes.
        if counts { (is.st_size as u64).min(is.st_blocks as u64 * 512) } else { 0 }
    }

    fn same_xattrs(&self, then: &OwnedFd, now: &OwnedFd) -> Result<bool, DifferenceError> {
        let read = |file| xattrs(file).map_err(self.failed("fgetxattr"));
        Ok(read(then)? == read(now)?)
    }

    fn same_content(&mut self, then: &OwnedFd, now: &OwnedFd) -> Result<bool, DifferenceError> {
        let (mut one, mut other) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
        let mut offset = 0;
        loop {
            let got = read_at(then, &mut one, offset).map_err(self.failed("pread"))?;
            let too = read_at(now, &mut other, offset).map_err(self.failed("pread"))?;
            if one[..got] != other[..too] {
                return Ok(false);
            }
            if got == 0 {
                return Ok(true);
            }
            offset += got as u64;
            self.read += got as u64;
            if self.read > self.bounds.bytes {
                return Err(DifferenceError::Bound { what: "bytes", limit: self.bounds.bytes });
            }
        }
    }

    fn note(&mut self, change: Change, kind: Kind, bytes: u64) {
        let noise = noise::reason(&self.path, kind);
        self.entries.push(Entry { path: self.path.clone(), change, kind, bytes, noise });
    }
}

/// As much as there is, up to the buffer's length.
pub(super) fn read_at(file: &OwnedFd, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut done = 0;
    while done < buffer.len() {
        match rustix::io::pread(file, &mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

fn same_owner(was: &Stat, is: &Stat) -> bool {
    // A link has no mode of its own.
    let mode = kind(is) == Kind::Link || was.st_mode == is.st_mode;
    mode && (was.st_uid, was.st_gid) == (is.st_uid, is.st_gid)
}

/// The same inode, which nobody has touched. A copy that overlay made has the number too, and a later time; where layers are on several file
/// systems the numbers differ, and contents are compared.
fn untouched(was: &Stat, is: &Stat) -> bool {
    let times = |s: &Stat| (s.st_ctime, s.st_ctime_nsec, s.st_mtime, s.st_mtime_nsec);
    was.st_ino == is.st_ino && same_owner(was, is) && was.st_size == is.st_size && times(was) == times(is)
}
