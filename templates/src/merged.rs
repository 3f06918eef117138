//! Several layers as one file system while a tree is made of them: what is changed in it goes into the tree's own directory.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::fs::{FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen};

use crate::store::StoreError;
use crate::unpack::LayerMarks;
use crate::unpack::member::shown;

/// Of a file of accounts in an image.
const MAX_ACCOUNTS: u64 = 1 << 20;

/// A mount that is nowhere in any directory, and gone when this is.
pub(crate) struct Merged(OwnedFd);

impl Merged {
    /// Layers (the uppermost first) below the directory `own`; `work` is made, on the same file system.
    pub(crate) fn mount(layers: &[PathBuf], own: &Path, work: &Path) -> Result<Self, StoreError> {
        fs::create_dir(work)?;
        let call =
            |call: &'static str| move |e: Errno| StoreError::Call { call, path: own.to_owned(), source: e.into() };
        // By descriptors: a value of fsconfig(2) has 255 bytes.
        let hold = |path: &Path| Ok::<_, io::Error>(OwnedFd::from(fs::File::open(path)?.into_file()));
        let held = layers.iter().map(|l| hold(l)).collect::<io::Result<Vec<_>>>()?;
        let (own_fd, work_fd) = (hold(own)?, hold(work)?);
        let lowers: Vec<String> = held.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
        let before = hold(Path::new("."))?;
        rustix::process::chdir("/proc/self/fd").map_err(call("chdir(/proc/self/fd)"))?;
        let mounted = (|| {
            let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(call("fsopen(overlay)"))?;
            let values = [
                ("source", String::from("vz-template")),
                ("lowerdir", lowers.join(":")),
                ("upperdir", own_fd.as_raw_fd().to_string()),
                ("workdir", work_fd.as_raw_fd().to_string()),
                ("redirect_dir", String::from("on")),
            ];
            for (key, value) in &values {
                fsconfig_set_string(overlay.as_fd(), *key, value).map_err(call("fsconfig(overlay)"))?;
            }
            fsconfig_create(overlay.as_fd()).map_err(call("fsconfig(overlay, create)"))?;
            fsmount(overlay.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NODEV)
                .map_err(call("fsmount(overlay)"))
        })();
        rustix::process::fchdir(&before).map_err(call("fchdir(the directory before)"))?;
        mounted.map(Self)
    }

    /// For programs that are started now, and for [`crate::rootdir::RootDir`].
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()))
    }

    /// Whether one of these is a program, its links resolved inside.
    pub(crate) fn has_program(&self, paths: &[&str]) -> Result<bool, StoreError> {
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        for path in paths {
            let failed = |e: Errno| StoreError::Call { call: "openat2", path: path.into(), source: e.into() };
            match rustix::fs::openat2(&self.0, *path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), inside) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                fd => {
                    let stat = rustix::fs::fstat(fd.map_err(failed)?).map_err(failed)?;
                    if FileType::from_raw_mode(stat.st_mode).is_file() && stat.st_mode & 0o111 != 0 {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), inside)
    }
}

/// Gives directories back what they have below. A layer with `a/b/file` and no member for `a/b` has made `a/b`, and overlay shows the
/// uppermost's owner and mode; in the image those of the layer that has it as a member count.
///
/// # Errors
/// A layer writes through what is a link below: overlay would show a directory in the link's place.
pub(crate) fn restore_directories(root: &Merged, layers: &[(PathBuf, LayerMarks)]) -> Result<(), StoreError> {
    let mut seen = std::collections::BTreeSet::new();
    for (at, (_, marks)) in layers.iter().enumerate() {
        for path in &marks.unasked {
            if marks.opaque.contains(path) || !seen.insert(path) {
                continue;
            }
            // Above, somebody has it as a member: that counts.
            if layers[..at].iter().any(|(layer, _)| look(layer, path).is_ok_and(|found| found.is_some())) {
                continue;
            }
            if let Some(stat) = member_below(&layers[at + 1..], path)? {
                give(root, path, &stat)?;
            }
        }
    }
    Ok(())
}

fn member_below(layers: &[(PathBuf, LayerMarks)], path: &Vec<u8>) -> Result<Option<Stat>, StoreError> {
    for (layer, marks) in layers {
        let Some(stat) = look(layer, path)? else { continue };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if marks.opaque.contains(path) && marks.unasked.contains(path) => return Ok(None),
            FileType::Directory if marks.unasked.contains(path) => {}
            FileType::Directory => return Ok(Some(stat)),
            FileType::Symlink => return Err(StoreError::ThroughLink { path: shown(path) }),
            // Replaced, or gone.
            _ => return Ok(None),
        }
    }
    Ok(None)
}

fn look(layer: &Path, path: &[u8]) -> Result<Option<Stat>, StoreError> {
    let failed = |e: Errno| StoreError::Call { call: "openat2", path: layer.join(shown(path)), source: e.into() };
    let layer = fs::File::open(layer)?;
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat2(&layer, path, flags, Mode::empty(), inside) {
        Ok(fd) => rustix::fs::fstat(&fd).map(Some).map_err(failed),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(e) => Err(failed(e)),
    }
}

fn give(root: &Merged, path: &[u8], stat: &Stat) -> Result<(), StoreError> {
    let failed = |call: &'static str| {
        move |e: Errno| StoreError::Call { call, path: PathBuf::from(shown(path)), source: e.into() }
    };
    let fd = match root.open(path, OFlags::RDONLY | OFlags::DIRECTORY) {
        // Hidden by a layer above.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        fd => fd.map_err(failed("openat2"))?,
    };
    rustix::fs::fchown(&fd, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
        .map_err(failed("fchown"))?;
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(stat.st_mode & 0o7777)).map_err(failed("fchmod"))
}

/// The numbers of an image's user, `USER[:GROUP]` by name or number: looked up in the image's own files. A user given by number alone has the
/// group that its line says, else 0 (image-spec, `config.md`).
pub(crate) fn ids_of(root: &Merged, text: &str) -> Result<(u32, u32), StoreError> {
    let (user, group) = text.split_once(':').map_or((text, None), |(u, g)| (u, Some(g)));
    if user.is_empty() {
        return Ok((0, 0));
    }
    let unknown = |what: &str| StoreError::NoUser { name: shown(what.as_bytes()) };
    let passwd = accounts(root, "etc/passwd")?;
    let line = find(&passwd, user);
    let number = |field: Option<&str>| field.and_then(|f| f.parse::<u16>().ok()).map(u32::from);
    let field = |line: &Option<Vec<&str>>, at: usize| number(line.as_ref().and_then(|l| l.get(at).copied()));
    let uid = number(Some(user)).or_else(|| field(&line, 2)).ok_or_else(|| unknown(user))?;
    let gid = match group {
        None => field(&line, 3).unwrap_or(0),
        Some(group) => {
            let groups = accounts(root, "etc/group")?;
            number(Some(group)).or_else(|| field(&find(&groups, group), 2)).ok_or_else(|| unknown(group))?
        }
    };
    Ok((uid, gid))
}

/// The fields of the line whose name or number is this.
fn find<'a>(text: &'a str, wanted: &str) -> Option<Vec<&'a str>> {
    let fields = |line: &'a str| line.split(':').collect::<Vec<_>>();
    text.lines().map(fields).find(|f| f.first() == Some(&wanted) || f.get(2) == Some(&wanted))
}

fn accounts(root: &Merged, file: &str) -> Result<String, StoreError> {
    use std::io::Read;
    let fd = match root.open(file.as_bytes(), OFlags::RDONLY | OFlags::NONBLOCK) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(String::new()),
        fd => fd.map_err(|e| StoreError::Call { call: "openat2", path: file.into(), source: e.into() })?,
    };
    let mut bytes = Vec::new();
    std::fs::File::from(fd).take(MAX_ACCOUNTS).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
