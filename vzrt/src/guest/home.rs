//! The home directory of a new user.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, Uid};
use rustix::io::Errno;

use super::accounts::UserName;
use super::error::{Call, Error};
use super::root::{Directory, Durability, Mounts, Owner, Root, give};

/// Deeper than any skeleton; a copy of a deeper one would be an attack on our stack.
const MAX_DEPTH: u32 = 8;
/// What all of it may hold.
const MAX_ENTRIES: u32 = 500;
const MAX_BYTES: usize = 16 << 20;

/// Makes `/home/USER` with what `/etc/skel` has. One that is there stays as it is, contents and owner: it may be somebody's.
///
/// Links are copied as links, FIFOs, sockets and devices not at all.
pub(super) fn create(root: &Root, user: &UserName, uid: u32, gid: u32) -> Result<(), Error> {
    let homes = homes(root)?;
    match rustix::fs::mkdirat(&homes.fd, user.as_str(), Mode::from_raw_mode(0o700)) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(()),
        Err(error) => return Err(Error::call(Call::Mkdirat, homes.path(user.as_str()))(error)),
    }
    let home = homes.subdirectory(user.as_str())?;
    // Before it is filled: if the skeleton is one we refuse, the next call finds a home that is the user's, and goes on without.
    give(&home.fd, Owner { uid, gid, mode: 0o700 }, &homes.path(user.as_str()))?;
    match root.directory("/etc/skel", Mounts::Refuse) {
        Ok(skeleton) => Copy { uid, gid, entries: 0, bytes: 0 }.directory(&skeleton, &home, 0),
        // No skeleton: an empty home.
        Err(Error::Call { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// `/home`, made if need be.
fn homes(root: &Root) -> Result<Directory, Error> {
    match root.directory("/home", Mounts::Cross) {
        Err(Error::Call { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            let top = root.directory("/", Mounts::Refuse)?;
            rustix::fs::mkdirat(&top.fd, "home", Mode::from_raw_mode(0o755))
                .map_err(Error::call(Call::Mkdirat, "/home"))?;
            top.subdirectory("home")
        }
        found => found,
    }
}

struct Copy {
    uid: u32,
    gid: u32,
    entries: u32,
    bytes: usize,
}

impl Copy {
    fn directory(&mut self, from: &Directory, to: &Directory, depth: u32) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::SkeletonTooLarge("8 levels"));
        }
        for name in self.names(from)? {
            // Gone since it was listed.
            let Some(stat) = from.stat(&name)? else { continue };
            // Nothing set-id, whoever left it there.
            let owner = Owner { uid: self.uid, gid: self.gid, mode: stat.st_mode & 0o777 };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => {
                    if let Some(contents) = from.read(&name)? {
                        self.bytes += contents.bytes.len();
                        if self.bytes > MAX_BYTES {
                            return Err(Error::SkeletonTooLarge("16 MiB"));
                        }
                        to.create(&name, &contents.bytes, owner, Durability::Rewritten)?;
                    }
                }
                FileType::Directory => {
                    rustix::fs::mkdirat(&to.fd, &name, Mode::from_raw_mode(0o700))
                        .map_err(Error::call(Call::Mkdirat, to.path(&name)))?;
                    let inner = to.subdirectory(&name)?;
                    self.directory(&from.subdirectory(&name)?, &inner, depth + 1)?;
                    give(&inner.fd, owner, &to.path(&name))?;
                }
                FileType::Symlink => self.link(from, to, &name)?,
                FileType::Fifo
                | FileType::Socket
                | FileType::CharacterDevice
                | FileType::BlockDevice
                | FileType::Unknown => {}
            }
        }
        Ok(())
    }

    fn link(&self, from: &Directory, to: &Directory, name: &str) -> Result<(), Error> {
        let target = rustix::fs::readlinkat(&from.fd, name, Vec::new())
            .map_err(Error::call(Call::Readlinkat, from.path(name)))?;
        rustix::fs::symlinkat(&target, &to.fd, name).map_err(Error::call(Call::Symlinkat, to.path(name)))?;
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        rustix::fs::chownat(&to.fd, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(Error::call(Call::Fchown, to.path(name)))
    }

    /// The names in a directory. Those that are not UTF-8 are left out: no skeleton that a distribution ships has any.
    fn names(&mut self, from: &Directory) -> Result<Vec<String>, Error> {
        let failed = |error| Error::call(Call::Getdents, from.path(""))(error);
        let fd: OwnedFd = from.fd.try_clone().map_err(Error::call(Call::Fcntl, from.path("")))?;
        let mut names = Vec::new();
        for entry in Dir::new(fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            match entry.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => names.push(name.to_owned()),
            }
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(Error::SkeletonTooLarge("500 entries"));
            }
        }
        Ok(names)
    }
}
