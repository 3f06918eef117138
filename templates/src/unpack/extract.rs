//! Makes files of members. Runs in the child, whose root is the tree ([`super::sandbox`]); still no name is resolved
//! by string: the directory of every member is opened below the root without following any link, and the member is
//! made relative to it. The sandbox and this are two walls, each enough alone.

use std::collections::{BTreeMap, HashSet};
use std::ffi::CString;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tar::EntryType;

use super::layer::{Hidden, LayerMarks, Special};
use super::member::{self, Attributes, Place, Refusal, XattrFate, shown};
use super::reader::{Member, Reader};
use super::{Format, Limits};

/// What an archive held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Everything, skipped members included.
    pub members: u64,
    /// Bytes of file data written, without holes.
    pub bytes: u64,
    /// Device nodes, and links to them: a container gets its `/dev` from the runtime.
    pub devices_skipped: u64,
    /// Extended attributes that mean nothing on another machine.
    pub xattrs_skipped: u64,
}

const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Unpacks the plain tar stream `input` into the directory `root`.
pub(super) fn extract(
    input: impl Read,
    root: BorrowedFd<'_>,
    format: Format,
    limits: &Limits,
) -> Result<(Counts, LayerMarks), Refusal> {
    let mut reader = Reader::new(input, limits);
    let mut tree = Tree {
        root,
        parent: None,
        directories: BTreeMap::new(),
        devices: HashSet::new(),
        hidden: (format == Format::Layer).then(Hidden::default),
        counts: Counts::default(),
    };
    while let Some(member) = reader.next()? {
        tree.counts.members += 1;
        if tree.counts.members > limits.members {
            return Err(Refusal::Limit { what: String::from("members"), limit: limits.members });
        }
        if member.size > limits.bytes {
            return Err(Refusal::Limit { what: String::from("bytes"), limit: limits.bytes });
        }
        tree.add(&mut reader, &member)?;
    }
    // A layer may be one that changes nothing.
    if tree.counts.members == 0 && format == Format::Archive {
        return Err(Refusal::Empty);
    }
    tree.finish()?;
    Ok((tree.counts, tree.hidden.map(Hidden::marks).unwrap_or_default()))
}

/// What is set on a directory only when nothing will be made in it any more: its time, which making changes, and its
/// attributes, for a default ACL is inherited by what is made.
struct Deferred {
    times: Timestamps,
    xattrs: Vec<(CString, Vec<u8>)>,
}

struct Tree<'a> {
    root: BorrowedFd<'a>,
    /// The directory of the last member: neighbours come one after the other.
    parent: Option<(Vec<u8>, OwnedFd)>,
    directories: BTreeMap<Vec<u8>, Deferred>,
    /// Names of device nodes not made, for the hard links to them.
    devices: HashSet<Vec<u8>>,
    /// What a layer says of those below it; `None` where the archive is no layer.
    hidden: Option<Hidden>,
    counts: Counts,
}

impl Tree<'_> {
    fn add<R: Read>(&mut self, reader: &mut Reader<R>, member: &Member) -> Result<(), Refusal> {
        let Some(place) = Place::parse(&member.path)? else {
            // The root of the tree is ours: 0755, root, whatever the archive says of it.
            return match member.kind {
                EntryType::Directory => Ok(()),
                _ => Err(Refusal::ImpossibleName { member: shown(&member.path) }),
            };
        };
        if self.hidden.is_some() {
            match Special::of(&place, &member.path)? {
                Special::No => {}
                Special::Nothing => return Ok(()),
                Special::Opaque => {
                    self.parent_of(&place)?;
                    self.hide(|hidden| hidden.set_opaque(place.parent()));
                    return Ok(());
                }
                Special::Whiteout(gone) => return self.whiteout(&gone),
            }
        }
        let (uid, gid) = member::owner(&member.path, member.uid, member.gid)?;
        let (mtime_sec, mtime_nsec) = member.mtime;
        let attributes = Attributes { uid, gid, mode: member.mode, mtime_sec, mtime_nsec };
        let xattrs = wanted_xattrs(member, &mut self.counts.xattrs_skipped)?;
        self.devices.remove(place.path());
        let is_directory = member.kind == EntryType::Directory;
        self.hide(|hidden| hidden.replaced(place.path(), is_directory));
        match member.kind {
            EntryType::Directory => self.directory(&place, attributes, xattrs),
            EntryType::Regular | EntryType::Continuous => self.file(reader, member, &place, attributes, &xattrs),
            EntryType::Symlink => self.symlink(&place, &member.link, attributes),
            EntryType::Link => self.hard_link(&place, &member.link),
            EntryType::Fifo => self.fifo(&place, attributes),
            // Among them the character device 0:0, which is overlayfs's whiteout.
            EntryType::Char | EntryType::Block => {
                self.clear_way(&place, false)?;
                self.devices.insert(place.path().to_vec());
                self.counts.devices_skipped += 1;
                // What is not made still replaces what is below.
                if self.hidden.is_some() { self.whiteout(&place) } else { Ok(()) }
            }
            other => Err(Refusal::Type { member: place.shown(), type_byte: other.as_byte().into() }),
        }
    }

    fn hide(&mut self, change: impl FnOnce(&mut Hidden)) {
        if let Some(hidden) = &mut self.hidden {
            change(hidden);
        }
    }

    /// Hides what layers below have here: a character device 0:0, which since Linux 5.8 takes no capability. It hides nothing of its own layer:
    /// over a directory of it, it makes that opaque, and over a file nothing is left to do.
    fn whiteout(&mut self, place: &Place) -> Result<(), Refusal> {
        let parent = self.parent_of(place)?;
        match fs::statat(parent, place.name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => self.hide(|h| h.set_opaque(place.path())),
            Ok(_) => {}
            Err(Errno::NOENT) => {
                fs::mknodat(parent, place.name(), FileType::CharacterDevice, Mode::empty(), 0)
                    .map_err(|e| failed("mknodat(whiteout)", place, e))?;
                self.hide(|h| h.whited_out(place.path()));
            }
            Err(e) => return Err(failed("fstatat", place, e)),
        }
        Ok(())
    }

    fn directory(&mut self, place: &Place, at: Attributes, xattrs: Vec<(CString, Vec<u8>)>) -> Result<(), Refusal> {
        self.clear_way(place, true)?;
        let parent = self.parent_of(place)?;
        match fs::mkdirat(parent, place.name(), Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(failed("mkdirat", place, e)),
        }
        let fd = fs::openat2(parent, place.name(), DIRECTORY, Mode::empty(), BENEATH)
            .map_err(|e| failed("openat2", place, e))?;
        own(&fd, at).map_err(|e| failed("fchown, fchmod", place, e))?;
        self.directories.insert(place.path().to_vec(), Deferred { times: times(at), xattrs });
        Ok(())
    }

    fn file<R: Read>(
        &mut self,
        reader: &mut Reader<R>,
        member: &Member,
        place: &Place,
        at: Attributes,
        xattrs: &[(CString, Vec<u8>)],
    ) -> Result<(), Refusal> {
        self.clear_way(place, false)?;
        let parent = self.parent_of(place)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat2(parent, place.name(), flags, Mode::RUSR | Mode::WUSR, BENEATH)
            .map_err(|e| failed("openat2", place, e))?;
        self.counts.bytes += write_data(reader, member, &fd, place)?;
        // In this order: a write or a change of owner clears setuid bits and file capabilities.
        own(&fd, at).map_err(|e| failed("fchown, fchmod", place, e))?;
        set_xattrs(fd.as_fd(), place.path(), xattrs)?;
        fs::futimens(&fd, &times(at)).map_err(|e| failed("futimens", place, e))
    }

    fn symlink(&mut self, place: &Place, target: &[u8], at: Attributes) -> Result<(), Refusal> {
        if target.is_empty() || target.contains(&0) {
            return Err(Refusal::ImpossibleName { member: place.shown() });
        }
        self.clear_way(place, false)?;
        let parent = self.parent_of(place)?;
        fs::symlinkat(target, parent, place.name()).map_err(|e| failed("symlinkat", place, e))?;
        own_at(parent, place, at)
    }

    fn fifo(&mut self, place: &Place, at: Attributes) -> Result<(), Refusal> {
        self.clear_way(place, false)?;
        let parent = self.parent_of(place)?;
        fs::mknodat(parent, place.name(), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .map_err(|e| failed("mknodat", place, e))?;
        own_at(parent, place, at)?;
        // chmod has no way not to follow a link; this name was made a line above by the only process in this mount.
        fs::chmodat(parent, place.name(), Mode::from_raw_mode(at.mode), AtFlags::empty())
            .map_err(|e| failed("fchmodat", place, e))
    }

    fn hard_link(&mut self, place: &Place, target: &[u8]) -> Result<(), Refusal> {
        let missing = || Refusal::LinkTarget { member: place.shown(), target: shown(target) };
        let to = Place::parse(target)?.ok_or_else(missing)?;
        if self.devices.contains(to.path()) {
            self.clear_way(place, false)?;
            self.devices.insert(place.path().to_vec());
            self.counts.devices_skipped += 1;
            return Ok(());
        }
        if to == *place || self.hidden.as_ref().is_some_and(|h| h.is_whiteout(to.path())) {
            return Err(missing());
        }
        self.clear_way(place, false)?;
        let from = open_below(self.root, to.parent(), &to, self.hidden.as_mut())?;
        let parent = self.parent_of(place)?;
        // No flag: a link as target is linked itself, not followed.
        fs::linkat(from, to.name(), parent, place.name(), AtFlags::empty()).map_err(|e| match e {
            Errno::NOENT => missing(),
            e => failed("linkat", place, e),
        })
    }

    /// Removes what an earlier member made at `place`, except a directory where one is wanted again.
    fn clear_way(&mut self, place: &Place, directory_wanted: bool) -> Result<(), Refusal> {
        let parent = self.parent_of(place)?;
        let is_directory = match fs::statat(parent, place.name(), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            Err(e) => return Err(failed("fstatat", place, e)),
            Ok(stat) => FileType::from_raw_mode(stat.st_mode).is_dir(),
        };
        if is_directory && directory_wanted {
            return Ok(());
        }
        let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        fs::unlinkat(parent, place.name(), flags).map_err(|e| failed("unlinkat", place, e))?;
        if is_directory {
            self.directories.remove(place.path());
            self.hide(|hidden| hidden.removed(place.path()));
            self.parent = None;
        }
        Ok(())
    }

    /// The directory that holds `place`, made if no member made it.
    fn parent_of(&mut self, place: &Place) -> Result<BorrowedFd<'_>, Refusal> {
        let wanted = place.parent();
        if wanted.is_empty() {
            return Ok(self.root);
        }
        if self.parent.as_ref().is_none_or(|(path, _)| path != wanted) {
            self.make_way_through_whiteouts(place)?;
            let fd = open_below(self.root, wanted, place, self.hidden.as_mut())?;
            self.parent = Some((wanted.to_vec(), fd));
        }
        Ok(self.parent.as_ref().expect("set a line above").1.as_fd())
    }

    /// A layer that removes a directory and has files in a new one of its name: the new one is opaque.
    fn make_way_through_whiteouts(&mut self, place: &Place) -> Result<(), Refusal> {
        let Some(hidden) = &mut self.hidden else { return Ok(()) };
        for path in hidden.whiteouts_above(place.path()) {
            fs::unlinkat(self.root, path.as_slice(), AtFlags::empty()).map_err(|e| failed("unlinkat", place, e))?;
            hidden.replaced(&path, true);
        }
        Ok(())
    }

    fn finish(&self) -> Result<(), Refusal> {
        for (path, deferred) in &self.directories {
            let call = |e| Refusal::syscall(format!("openat2({})", shown(path)), e);
            let fd = fs::openat2(self.root, path.as_slice(), DIRECTORY, Mode::empty(), BENEATH).map_err(call)?;
            set_xattrs(fd.as_fd(), path, &deferred.xattrs)?;
            fs::futimens(&fd, &deferred.times)
                .map_err(|e| Refusal::syscall(format!("futimens({})", shown(path)), e))?;
        }
        Ok(())
    }
}

/// The extended attributes that a member gets; counts those that mean nothing here.
pub(super) fn wanted_xattrs(member: &Member, skipped: &mut u64) -> Result<Vec<(CString, Vec<u8>)>, Refusal> {
    let mut wanted = Vec::new();
    for (name, value) in &member.xattrs {
        let refused = || Refusal::Xattr { member: shown(&member.path), name: shown(name) };
        match member::xattr_fate(name, value) {
            XattrFate::Set => wanted.push((CString::new(name.as_slice()).map_err(|_| refused())?, value.clone())),
            XattrFate::Skip => *skipped += 1,
            XattrFate::Refuse => return Err(refused()),
        }
    }
    Ok(wanted)
}

/// Opens the directory `path` (empty: the root), making what is missing of it with 0755 of root.
fn open_below(
    root: BorrowedFd<'_>,
    path: &[u8],
    member: &Place,
    mut hidden: Option<&mut Hidden>,
) -> Result<OwnedFd, Refusal> {
    let whole: &[u8] = if path.is_empty() { b"." } else { path };
    let open = || fs::openat2(root, whole, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), BENEATH);
    let through = |e| match e {
        Errno::LOOP | Errno::NOTDIR => Refusal::NotThroughDirectory { member: member.shown() },
        e => failed("openat2", member, e),
    };
    match open() {
        Err(Errno::NOENT) => {}
        done => return done.map_err(through),
    }
    let mut at = fs::openat2(root, ".", DIRECTORY, Mode::empty(), BENEATH).map_err(through)?;
    let mut done = 0;
    for part in path.split(|&b| b == b'/') {
        done += part.len() + usize::from(done > 0);
        match fs::mkdirat(&at, part, Mode::RWXU) {
            Ok(()) => {
                if let Some(hidden) = hidden.as_mut() {
                    hidden.made_unasked(&path[..done]);
                }
                let new = fs::openat2(&at, part, DIRECTORY, Mode::empty(), BENEATH).map_err(through)?;
                fs::fchmod(&new, Mode::from_raw_mode(0o755)).map_err(|e| failed("fchmod", member, e))?;
                at = new;
            }
            Err(Errno::EXIST) => at = fs::openat2(&at, part, DIRECTORY, Mode::empty(), BENEATH).map_err(through)?,
            Err(e) => return Err(failed("mkdirat", member, e)),
        }
    }
    Ok(at)
}

/// Writes the data of `member` and returns how much that was; holes are left.
pub(super) fn write_data<R: Read>(
    reader: &mut Reader<R>,
    member: &Member,
    fd: &OwnedFd,
    place: &Place,
) -> Result<u64, Refusal> {
    let whole = [(0, member.size)];
    let segments = member.segments.as_deref().unwrap_or(&whole);
    let mut buffer = [0; 64 << 10];
    let mut written = 0;
    for &(offset, length) in segments {
        let mut done = 0;
        while done < length {
            let want = usize::try_from(length - done).unwrap_or(usize::MAX).min(buffer.len());
            let got = reader.read_data(&mut buffer[..want])?;
            write_all_at(fd, &buffer[..got], offset + done).map_err(|e| failed("pwrite", place, e))?;
            done += got as u64;
        }
        written += length;
    }
    if member.segments.is_some() {
        fs::ftruncate(fd, member.size).map_err(|e| failed("ftruncate", place, e))?;
    }
    Ok(written)
}

/// All of `data`, interrupted or not.
pub(crate) fn write_all_at(fd: &OwnedFd, mut data: &[u8], mut offset: u64) -> Result<(), Errno> {
    while !data.is_empty() {
        match rustix::io::pwrite(fd, data, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(n) => (data, offset) = (&data[n..], offset + n as u64),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn own(fd: &OwnedFd, at: Attributes) -> Result<(), Errno> {
    fs::fchown(fd, Some(Uid::from_raw(at.uid)), Some(Gid::from_raw(at.gid)))?;
    fs::fchmod(fd, Mode::from_raw_mode(at.mode))
}

/// Owner and time of what cannot be opened for it: a link, a FIFO.
fn own_at(parent: BorrowedFd<'_>, place: &Place, at: Attributes) -> Result<(), Refusal> {
    let (uid, gid) = (Some(Uid::from_raw(at.uid)), Some(Gid::from_raw(at.gid)));
    fs::chownat(parent, place.name(), uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| failed("fchownat", place, e))?;
    fs::utimensat(parent, place.name(), &times(at), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|e| failed("utimensat", place, e))
}

pub(super) fn times(at: Attributes) -> Timestamps {
    let time = Timespec { tv_sec: at.mtime_sec, tv_nsec: at.mtime_nsec.into() };
    Timestamps { last_access: time, last_modification: time }
}

pub(super) fn set_xattrs(fd: BorrowedFd<'_>, path: &[u8], xattrs: &[(CString, Vec<u8>)]) -> Result<(), Refusal> {
    for (name, value) in xattrs {
        let call = |e| Refusal::syscall(format!("fsetxattr({}, {})", shown(path), shown(name.as_bytes())), e);
        fs::fsetxattr(fd, name.as_c_str(), value, XattrFlags::empty()).map_err(call)?;
    }
    Ok(())
}

fn failed(call: &str, place: &Place, errno: Errno) -> Refusal {
    Refusal::syscall(format!("{call}({})", place.shown()), errno)
}
