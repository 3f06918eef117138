//! Files of a container, by descriptors from its root.

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid};
use rustix::io::Errno;

use super::error::{Call, Error, Kind};

/// The largest file read: a thousand times the size of any real one.
pub(super) const MAX_BYTES: u64 = 1 << 20;

/// The root directory of a container.
#[derive(Debug)]
pub struct Root(OwnedFd);

/// A directory inside a root, opened.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) fd: OwnedFd,
    path: String,
}

/// A regular file as it was read.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) bytes: Vec<u8>,
    /// Owner and mode, for its successor.
    pub(super) owner: Owner,
}

/// Whom a file belongs to, and who may do what with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
}

/// Whether a path may lead through a mount point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mounts {
    /// `/etc` has no reason to be one, and a FUSE file system there could keep us waiting for ever.
    Refuse,
    /// `/home` often is one.
    Cross,
}

/// Whether a file must survive a power cut in its new form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// Written again at every start: a sync would only make the start slow.
    Rewritten,
    /// Nobody writes it again.
    Synced,
}

impl Owner {
    /// A file of the container's root.
    pub(super) const fn root(mode: u32) -> Self {
        Self { uid: 0, gid: 0, mode }
    }

    pub(super) fn of(stat: &Stat) -> Self {
        Self { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777 }
    }
}

impl Root {
    /// The root of the calling process, which has entered the container; or any directory to be treated as one.
    ///
    /// # Errors
    /// `path` can't be opened as a directory.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::empty());
        fd.map(Self).map_err(Error::call(Call::Openat2, path.to_string_lossy()))
    }

    /// The directory at `path`, which starts with a slash. Links on the way are followed, inside this root only.
    pub(super) fn directory(&self, path: &str, mounts: Mounts) -> Result<Directory, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::openat2(&self.0, below(path), flags, Mode::empty(), inside(mounts));
        Ok(Directory { fd: fd.map_err(Error::call(Call::Openat2, path))?, path: path.to_owned() })
    }

    /// The directory at `path`, made with those above it as far as they are missing.
    pub(super) fn make_directory(&self, path: &str) -> Result<Directory, Error> {
        let mut made = self.directory("/", Mounts::Refuse)?;
        for (end, _) in path.match_indices('/').skip(1).chain([(path.len(), "")]) {
            let here = &path[..end];
            made = match self.directory(here, Mounts::Refuse) {
                Err(e) if e.is_absence() => {
                    let name = here.rsplit('/').next().unwrap_or_default();
                    rustix::fs::mkdirat(&made.fd, name, Mode::from_raw_mode(0o755))
                        .map_err(Error::call(Call::Mkdirat, here))?;
                    made.subdirectory(name)?
                }
                found => found?,
            };
        }
        Ok(made)
    }

    /// Whether `path` leads to a regular file inside this root.
    pub(super) fn has_file(&self, path: &str) -> bool {
        self.kind(path) == Some(FileType::RegularFile)
    }

    /// Whether `path` leads to a directory inside this root.
    pub(super) fn has_directory(&self, path: &str) -> bool {
        self.kind(path) == Some(FileType::Directory)
    }

    fn kind(&self, path: &str) -> Option<FileType> {
        let stat = self.take(path).and_then(rustix::fs::fstat).ok()?;
        Some(FileType::from_raw_mode(stat.st_mode))
    }

    /// What `path` leads to, not opened yet.
    fn take(&self, path: &str) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        rustix::fs::openat2(&self.0, below(path), flags, Mode::empty(), inside(Mounts::Refuse))
    }

    /// The regular file that `path` leads to inside this root, through links; none if there is nothing. For what is only read: what is written is
    /// never written through a link.
    ///
    /// What was looked at is what is opened, so that this is safe on the host too, where opening a device would do something.
    pub(super) fn read_through(&self, path: &str) -> Result<Option<Vec<u8>>, Error> {
        let fd = match self.take(path) {
            Err(Errno::NOENT) => return Ok(None),
            taken => taken.map_err(Error::call(Call::Openat2, path))?,
        };
        regular(&rustix::fs::fstat(&fd).map_err(Error::call(Call::Fstat, path))?, path)?;
        let opened = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let fd = rustix::fs::open(opened, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(Error::call(Call::Openat2, path))?;
        Ok(Some(bounded(fd, path)?))
    }
}

/// `path` relative to the descriptor of the root. The kernel would do the same with a leading slash because of `IN_ROOT`; without that one
/// flag it would take the slash for the caller's own root, which in a test is the host.
fn below(path: &str) -> &str {
    match path.trim_start_matches('/') {
        "" => ".",
        relative => relative,
    }
}

/// Absolute paths and links start at the root, `..` stays in it, `/proc/PID/root` and its like lead nowhere.
fn inside(mounts: Mounts) -> ResolveFlags {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match mounts {
        Mounts::Refuse => resolve | ResolveFlags::NO_XDEV,
        Mounts::Cross => resolve,
    }
}

/// How an entry of a directory is opened: it and nothing else.
const ENTRY: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

impl Directory {
    /// The path of an entry, for messages.
    pub(super) fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.path.trim_end_matches('/'))
    }

    /// One of its entries; a name is never a path, and a link is never followed.
    pub(super) fn open(&self, name: &str, flags: OFlags, mode: u32) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        rustix::fs::openat2(&self.fd, name, flags, Mode::from_raw_mode(mode), ENTRY)
    }

    /// What an entry is, a link itself and not where it leads; none if there is nothing.
    ///
    /// Not by fstatat, which would go through a mount point and ask whatever file system is there.
    pub(super) fn stat(&self, name: &str) -> Result<Option<Stat>, Error> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat2(&self.fd, name, flags, Mode::empty(), ENTRY) {
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(Error::call(Call::Openat2, self.path(name))(error)),
            Ok(fd) => rustix::fs::fstat(fd).map(Some).map_err(Error::call(Call::Fstat, self.path(name))),
        }
    }

    /// The directory called `name` in this one.
    pub(super) fn subdirectory(&self, name: &str) -> Result<Self, Error> {
        let path = self.path(name);
        match self.open(name, OFlags::RDONLY | OFlags::DIRECTORY, 0) {
            Ok(fd) => Ok(Self { fd, path }),
            Err(error) => Err(Error::call(Call::Openat2, path)(error)),
        }
    }

    /// The regular file called `name`; none if there is nothing.
    pub(super) fn read(&self, name: &str) -> Result<Option<Contents>, Error> {
        let path = self.path(name);
        // Looked at before it is opened: opening a device or a socket may fail in ways that say less.
        let Some(found) = self.stat(name)? else { return Ok(None) };
        regular(&found, &path)?;
        let fd = self.open(name, OFlags::RDONLY, 0).map_err(Error::call(Call::Openat2, path.clone()))?;
        // And again when opened: it may be another one by now.
        let stat = rustix::fs::fstat(&fd).map_err(Error::call(Call::Fstat, path.clone()))?;
        regular(&stat, &path)?;
        Ok(Some(Contents { bytes: bounded(fd, &path)?, owner: Owner::of(&stat) }))
    }

    /// Puts `edit` of the present contents in place of them; a missing file is taken as empty, with `owner` for the new one. Does nothing
    /// if nothing changes.
    pub(super) fn edit(
        &self,
        name: &str,
        owner: Owner,
        durability: Durability,
        edit: impl FnOnce(&[u8]) -> Result<Vec<u8>, Error>,
    ) -> Result<(), Error> {
        let present = self.read(name)?;
        let owner = present.as_ref().map_or(owner, |contents| contents.owner);
        let bytes = edit(present.as_ref().map_or(&[], |contents| &contents.bytes))?;
        if present.is_some_and(|contents| contents.bytes == bytes) {
            return Ok(());
        }
        self.replace(name, &bytes, owner, durability)
    }

    /// Puts a new file at `name`, over whatever file or link has that name, at once or not at all.
    ///
    /// The temporary file has a fixed name, so that the next run removes what a killed one left. A name that starts with a dot is ignored by
    /// everything that reads directories of configuration.
    pub(super) fn replace(&self, name: &str, bytes: &[u8], owner: Owner, durability: Durability) -> Result<(), Error> {
        let temporary = format!(".{name}.vz-new");
        self.remove(&temporary)?;
        let written = self.create(&temporary, bytes, owner, durability).and_then(|()| {
            rustix::fs::renameat(&self.fd, &temporary, &self.fd, name)
                .map_err(Error::call(Call::Renameat, self.path(name)))
        });
        if let Err(error) = written {
            // What was left behind is removed by the next run if it can't be removed now; the first error is the one to report.
            drop(self.remove(&temporary));
            return Err(error);
        }
        if durability == Durability::Synced {
            rustix::fs::fsync(&self.fd).map_err(Error::call(Call::Fsync, self.path.clone()))?;
        }
        Ok(())
    }

    /// Puts a symbolic link at `name`, over whatever file has that name, at once or not at all.
    pub(super) fn link(&self, name: &str, target: &str) -> Result<(), Error> {
        let temporary = format!(".{name}.vz-new");
        self.remove(&temporary)?;
        rustix::fs::symlinkat(target, &self.fd, &temporary).map_err(Error::call(Call::Symlinkat, self.path(name)))?;
        rustix::fs::renameat(&self.fd, &temporary, &self.fd, name).map_err(Error::call(Call::Renameat, self.path(name)))
    }

    /// A new file, which must not exist.
    pub(super) fn create(&self, name: &str, bytes: &[u8], owner: Owner, durability: Durability) -> Result<(), Error> {
        let path = self.path(name);
        let fd = self
            .open(name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, 0o600)
            .map_err(Error::call(Call::Openat2, path.clone()))?;
        let mut file = std::fs::File::from(fd);
        file.write_all(bytes).map_err(Error::call(Call::Write, path.clone()))?;
        give(&file, owner, &path)?;
        if durability == Durability::Synced {
            file.sync_all().map_err(Error::call(Call::Fsync, path))?;
        }
        Ok(())
    }

    /// Whether an entry is a symbolic link.
    pub(super) fn is_link(&self, name: &str) -> Result<bool, Error> {
        Ok(self.stat(name)?.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink))
    }

    /// Takes an entry away that is no directory; one that is not there is gone already.
    pub(super) fn remove(&self, name: &str) -> Result<(), Error> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(Error::call(Call::Unlinkat, self.path(name))(error)),
        }
    }
}

/// All of a file, which may grow while it is read.
fn bounded(fd: OwnedFd, path: &str) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let mut file = std::fs::File::from(fd).take(MAX_BYTES + 1);
    file.read_to_end(&mut bytes).map_err(Error::call(Call::Read, path))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::TooLarge { path: path.to_owned(), bytes: bytes.len() as u64 });
    }
    Ok(bytes)
}

/// Owner first: changing it clears set-id bits.
pub(super) fn give(fd: impl AsFd, owner: Owner, path: &str) -> Result<(), Error> {
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    rustix::fs::fchown(&fd, Some(uid), Some(gid)).map_err(Error::call(Call::Fchown, path))?;
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(owner.mode)).map_err(Error::call(Call::Fchmod, path))
}

/// Refuses what is not a regular file of a sane size.
pub(super) fn regular(stat: &Stat, path: &str) -> Result<(), Error> {
    let path = path.to_owned();
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let bytes = stat.st_size.unsigned_abs();
            return if bytes > MAX_BYTES { Err(Error::TooLarge { path, bytes }) } else { Ok(()) };
        }
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::CharacterDevice | FileType::BlockDevice | FileType::Unknown => Kind::Device,
    };
    Err(Error::NotAFile { path, kind })
}
