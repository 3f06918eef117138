//! Changing files of a system that lies in a directory: paths are those inside, and links in it are resolved inside.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;

use fs_err as fs;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// The root directory of a system in the making.
pub(crate) struct RootDir {
    fd: OwnedFd,
}

/// A failed change.
#[derive(Debug, thiserror::Error)]
#[error("{call}({path}) in the template")]
pub struct RootDirError {
    call: &'static str,
    path: String,
    #[source]
    source: std::io::Error,
}

const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

impl RootDir {
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        Ok(Self { fd: fs::File::open(path)?.into_file().into() })
    }

    /// The directory `path` and those above it; its mode is set even if it exists.
    pub(crate) fn directory(&self, path: &str, mode: u32) -> Result<(), RootDirError> {
        let fd = self.make_directories(path)?;
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode)).map_err(failed("fchmod", path))
    }

    /// The directory `path` and those above it, as they are if they are there.
    pub(crate) fn make_missing(&self, path: &str) -> Result<(), RootDirError> {
        self.make_directories(path).map(drop)
    }

    pub(crate) fn write(&self, path: &str, mode: u32, content: &[u8]) -> Result<(), RootDirError> {
        self.remove(path)?;
        let (parent, name) = self.parent(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&parent, name, flags, Mode::RUSR | Mode::WUSR).map_err(failed("openat", path))?;
        let mut file = std::fs::File::from(fd);
        file.write_all(content).map_err(|source| RootDirError { call: "write", path: path.to_owned(), source })?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(failed("fchmod", path))
    }

    pub(crate) fn link(&self, path: &str, target: &str) -> Result<(), RootDirError> {
        self.remove(path)?;
        let (parent, name) = self.parent(path)?;
        rustix::fs::symlinkat(target, &parent, name).map_err(failed("symlinkat", path))
    }

    /// A file, a link or an empty directory; that it is not there is fine.
    pub(crate) fn remove(&self, path: &str) -> Result<(), RootDirError> {
        let (parent, name) = self.parent(path)?;
        let removed = match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR),
            result => result,
        };
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(failed("unlinkat", path)(e)),
        }
    }

    fn parent<'p>(&self, path: &'p str) -> Result<(OwnedFd, &'p str), RootDirError> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.make_directories(parent)?, name))
    }

    fn make_directories(&self, path: &str) -> Result<OwnedFd, RootDirError> {
        let open = |path: &str| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::openat2(&self.fd, path, flags, Mode::empty(), INSIDE)
        };
        let mut done = String::from("/");
        let mut at = open(&done).map_err(failed("openat2", path))?;
        for part in path.split('/').filter(|p| !p.is_empty()) {
            done.push_str(part);
            at = match open(&done) {
                Err(Errno::NOENT) => make_directory(&at, part).and_then(|()| open(&done)),
                result => result,
            }
            .map_err(failed("openat2", path))?;
            done.push('/');
        }
        Ok(at)
    }
}

fn make_directory(parent: &OwnedFd, name: &str) -> Result<(), Errno> {
    rustix::fs::mkdirat(parent, name, Mode::RWXU)?;
    rustix::fs::chmodat(parent, name, Mode::from_raw_mode(0o755), AtFlags::empty())
}

fn failed<'a>(call: &'static str, path: &'a str) -> impl FnOnce(Errno) -> RootDirError + 'a {
    move |e| RootDirError { call, path: path.to_owned(), source: e.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn links_of_the_system_are_resolved_inside_it() {
        let dir = tempfile::tempdir().unwrap();
        let (root_path, outside) = (dir.path().join("root"), dir.path().join("outside"));
        fs::create_dir(&root_path).unwrap();
        fs::create_dir(&outside).unwrap();
        symlink(&outside, root_path.join("absolute")).unwrap();
        symlink("../outside", root_path.join("climbing")).unwrap();
        let root = RootDir::open(&root_path).unwrap();
        assert!(root.write("/absolute/a", 0o644, b"x").is_err(), "the link leads nowhere inside");
        assert!(root.write("/climbing/a", 0o644, b"x").is_err(), "the link leads nowhere inside");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }

    #[test]
    fn files_links_and_directories_replace_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let root = RootDir::open(dir.path()).unwrap();
        root.directory("/a/b", 0o1777).unwrap();
        root.write("/a/f", 0o4755, b"one").unwrap();
        root.link("/a/f", "elsewhere").unwrap();
        root.write("/a/f", 0o600, b"two").unwrap();
        root.remove("/a/none").unwrap();
        assert_eq!(fs::read(dir.path().join("a/f")).unwrap(), b"two");
        let mode = |p: &str| fs::metadata(dir.path().join(p)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("a"), mode("a/b"), mode("a/f")), (0o755, 0o1777, 0o600));
    }
}
