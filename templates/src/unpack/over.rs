//! An archive of files laid over a system that is there: what a captured application's installation is.
//!
//! Both halves run inside the container that it is installed into, as its root and behind its walls: what reads the archive can reach no more
//! than the application could. [`survey`] changes nothing and tells what would; [`lay`] does of that what it is told to. Directories are
//! opened from the root without following links, so that a link in the container leads nothing to another place.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tar::EntryType;

use super::extract::{set_xattrs, times, wanted_xattrs, write_data};
use super::member::{self, Attributes, Place, Refusal};
use super::reader::{Member, Reader};
use super::{Limits, decode};

/// What is behind the name of what was there before, while the application is.
pub const BEFORE: &str = ".vz-before";
/// What is written has this name until it is whole, in its own directory.
pub const NEW: &str = ".vz-new";

/// Of a text that is merged; dpkg's list of packages is the longest.
const MOST_TEXT: u64 = 64 << 20;

/// A mount of the container's own may be anywhere below, so other than in a tree of ours, file systems may be crossed.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// Numbers of users and groups that are others in the container than in the archive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// Of users.
    pub users: BTreeMap<u32, u32>,
    /// Of groups.
    pub groups: BTreeMap<u32, u32>,
}

/// Owner and permission bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dress {
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Permission, setuid, setgid and sticky bits.
    pub mode: u32,
}

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// A directory.
    Directory,
    /// Anything else, by which it is known again: see [`known`].
    Leaf {
        /// SHA-256 of a file's contents in hexadecimal, `-> TARGET` of a link, `fifo`.
        digest: String,
        /// Size of a file in bytes.
        size: u64,
    },
}

/// What lies in the container where a member is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum There {
    /// Nothing.
    Nothing,
    /// The same, with the same owner and permissions.
    Same,
    /// A directory, of another owner or other permissions.
    Directory(Dress),
    /// Something else.
    Other,
}

/// A member, and what is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Inside, from `/`.
    pub path: String,
    /// What it is.
    pub what: What,
    /// Owner and permissions that it will have, in the container's numbers.
    pub dress: Dress,
    /// What is in its place.
    pub there: There,
    /// Whether something has the name that what is there would be kept under.
    pub before: bool,
}

/// All that [`survey`] finds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    /// In the archive's order.
    pub found: Vec<Found>,
    /// Contents of the files that were asked for; they are not in `found`.
    pub texts: BTreeMap<String, String>,
}

/// What [`lay`] does at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Makes it; nothing is there.
    Make,
    /// Keeps what is there under its name with [`BEFORE`], then makes it.
    Replace,
    /// Gives a directory owner and permissions.
    Dress,
}

/// Tells what an archive holds and what is in its place below `root`, changing nothing. Of the files `texts` (paths from `/`) it brings the
/// contents instead.
///
/// # Errors
/// The archive is none that can be laid over a system: damaged, over `limits`, with a name that is not UTF-8 or comes twice, or a member that is
/// in no directory of the archive.
pub fn survey(
    input: impl BufRead,
    root: BorrowedFd<'_>,
    ids: &Ids,
    texts: &[&str],
    limits: &Limits,
) -> Result<Survey, Refusal> {
    let mut all = Survey::default();
    let (mut paths, mut directories) = (BTreeSet::new(), BTreeSet::new());
    let mut leaves: BTreeMap<Vec<u8>, (What, Dress)> = BTreeMap::new();
    each(input, limits, |reader, member, place| {
        let path = named(&place)?;
        if !paths.insert(path.clone()) {
            return Err(Refusal::Twice { member: path });
        }
        if !place.parent().is_empty() && !directories.contains(place.parent()) {
            return Err(Refusal::NoDirectory { member: path });
        }
        // Looked at now: what cannot be set is refused before anything is changed.
        wanted_xattrs(member, &mut 0)?;
        if texts.contains(&path.as_str()) && member.kind.is_file() {
            all.texts.insert(path, text(reader, member)?);
            return Ok(());
        }
        let dress = dress(member, ids)?;
        let (what, dress) = match member.kind {
            EntryType::Directory => {
                directories.insert(place.path().to_vec());
                (What::Directory, dress)
            }
            EntryType::Regular | EntryType::Continuous => (content(reader, member)?, dress),
            EntryType::Symlink => (leaf(link_digest(&member.link), 0), dress),
            EntryType::Fifo => (leaf("fifo".to_owned(), 0), dress),
            EntryType::Link => {
                let missing = || Refusal::LinkTarget { member: place.shown(), target: member::shown(&member.link) };
                let to = Place::parse(&member.link)?.ok_or_else(missing)?;
                leaves.get(to.path()).cloned().ok_or_else(missing)?
            }
            // No system's files: a container gets its `/dev` from the runtime.
            other => return Err(Refusal::Type { member: place.shown(), type_byte: other.as_byte().into() }),
        };
        if what != What::Directory {
            leaves.insert(place.path().to_vec(), (what.clone(), dress));
        }
        let there = there(root, &place, &what, dress)?;
        let before = there == There::Other && is_there(root, &place, BEFORE)?;
        all.found.push(Found { path, what, dress, there, before });
        Ok(())
    })?;
    Ok(all)
}

/// Makes of an archive what `orders` say of its paths (from `/`), and nothing else of it.
///
/// # Errors
/// As [`survey`]; a call that failed. A part of it is there then, each file whole; one may be in its directory under the name [`NEW`].
pub fn lay(
    input: impl BufRead,
    root: BorrowedFd<'_>,
    ids: &Ids,
    orders: &BTreeMap<String, Order>,
    limits: &Limits,
) -> Result<(), Refusal> {
    // Set last: making something in a directory changes its time, and a default ACL would be inherited.
    let mut late = Vec::new();
    each(input, limits, |reader, member, place| {
        let Some(order) = orders.get(&named(&place)?) else { return Ok(()) };
        let at =
            Attributes { mtime_sec: member.mtime.0, mtime_nsec: member.mtime.1, ..attributes(dress(member, ids)?) };
        let xattrs = wanted_xattrs(member, &mut 0)?;
        let parent = open_directory(root, place.parent()).map_err(|e| failed("openat2", &place, e))?;
        if *order == Order::Replace {
            fs::renameat(&parent, place.name(), &parent, with(place.name(), BEFORE).as_slice())
                .map_err(|e| failed("renameat(to .vz-before)", &place, e))?;
        }
        if member.kind == EntryType::Directory {
            if *order != Order::Dress {
                fs::mkdirat(&parent, place.name(), Mode::RWXU).map_err(|e| failed("mkdirat", &place, e))?;
                late.push((place.path().to_vec(), at, xattrs));
            }
            let made = open_directory(root, place.path()).map_err(|e| failed("openat2", &place, e))?;
            return put_on(&made, &place, at);
        }
        make(root, &parent, reader, member, &place, at, &xattrs)?;
        fs::renameat(&parent, NEW, &parent, place.name()).map_err(|e| failed("renameat(from .vz-new)", &place, e))
    })?;
    for (path, at, xattrs) in &late {
        let failed = |call: &str, e| Refusal::syscall(format!("{call}({})", member::shown(path)), e);
        let directory = open_directory(root, path).map_err(|e| failed("openat2", e))?;
        set_xattrs(directory.as_fd(), path, xattrs)?;
        fs::futimens(&directory, &times(*at)).map_err(|e| failed("futimens", e))?;
    }
    Ok(())
}

/// Anything but a directory, under the name [`NEW`].
fn make<R: Read>(
    root: BorrowedFd<'_>,
    parent: &OwnedFd,
    reader: &mut Reader<R>,
    member: &Member,
    place: &Place,
    at: Attributes,
    xattrs: &[(std::ffi::CString, Vec<u8>)],
) -> Result<(), Refusal> {
    match fs::unlinkat(parent, NEW, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(e) => return Err(failed("unlinkat(.vz-new)", place, e)),
    }
    let own = || {
        let (uid, gid) = (Some(Uid::from_raw(at.uid)), Some(Gid::from_raw(at.gid)));
        fs::chownat(parent, NEW, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| failed("fchownat", place, e))?;
        fs::utimensat(parent, NEW, &times(at), AtFlags::SYMLINK_NOFOLLOW).map_err(|e| failed("utimensat", place, e))
    };
    match member.kind {
        EntryType::Symlink => {
            fs::symlinkat(member.link.as_slice(), parent, NEW).map_err(|e| failed("symlinkat", place, e))?;
            own()
        }
        EntryType::Fifo => {
            fs::mknodat(parent, NEW, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
                .map_err(|e| failed("mknodat", place, e))?;
            own()?;
            fs::chmodat(parent, NEW, Mode::from_raw_mode(at.mode), AtFlags::empty())
                .map_err(|e| failed("fchmodat", place, e))
        }
        EntryType::Link => {
            let missing = || Refusal::LinkTarget { member: place.shown(), target: member::shown(&member.link) };
            let to = Place::parse(&member.link)?.ok_or_else(missing)?;
            let from = open_directory(root, to.parent()).map_err(|e| failed("openat2", &to, e))?;
            // No flag: a link as target is linked itself, not followed.
            fs::linkat(from, to.name(), parent, NEW, AtFlags::empty()).map_err(|e| failed("linkat", place, e))
        }
        _ => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = fs::openat2(parent, NEW, flags, Mode::RUSR | Mode::WUSR, BENEATH)
                .map_err(|e| failed("openat2", place, e))?;
            write_data(reader, member, &file, place)?;
            // In this order: a write or a change of owner clears setuid bits and file capabilities.
            put_on(&file, place, at)?;
            set_xattrs(file.as_fd(), place.path(), xattrs)?;
            fs::futimens(&file, &times(at)).map_err(|e| failed("futimens", place, e))
        }
    }
}

/// By which what lies at a path is known again, as [`What::Leaf`] has it; of a file only where it has this `size`. `None` where it is something
/// else, or nothing.
///
/// # Errors
/// A call that failed.
pub fn known(root: BorrowedFd<'_>, path: &str, size: u64) -> Result<Option<String>, Refusal> {
    match Place::parse(path.as_bytes())? {
        Some(place) => {
            Ok(look(root, &place)?.and_then(|stat| digest_of(root, &place, &stat, size).transpose()).transpose()?)
        }
        None => Ok(None),
    }
}

/// Owner and permissions of a directory, or `None` where there is none.
///
/// # Errors
/// A call that failed.
pub fn dress_of(root: BorrowedFd<'_>, path: &str) -> Result<Option<Dress>, Refusal> {
    let Some(place) = Place::parse(path.as_bytes())? else { return Ok(None) };
    let stat = look(root, &place)?.filter(|stat| FileType::from_raw_mode(stat.st_mode).is_dir());
    Ok(stat.map(|stat| Dress { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777 }))
}

/// Reads an archive to its end.
fn each<'a, R: BufRead + 'a>(
    input: R,
    limits: &Limits,
    mut work: impl FnMut(&mut Reader<Box<dyn Read + 'a>>, &Member, Place) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let damaged = |e: std::io::Error| Refusal::Damaged { after: String::new(), reason: e.to_string() };
    let mut reader = Reader::new(decode::decoder(input).map_err(damaged)?, limits);
    let mut members = 0;
    while let Some(member) = reader.next()? {
        members += 1;
        if members > limits.members {
            return Err(Refusal::Limit { what: String::from("members"), limit: limits.members });
        }
        if member.size > limits.bytes {
            return Err(Refusal::Limit { what: String::from("bytes"), limit: limits.bytes });
        }
        // The root itself is the container's.
        if let Some(place) = Place::parse(&member.path)? {
            work(&mut reader, &member, place)?;
        }
    }
    Ok(())
}

fn leaf(digest: String, size: u64) -> What {
    What::Leaf { digest, size }
}

/// Also of what a declared template links.
fn link_digest(target: &[u8]) -> String {
    format!("-> {}", String::from_utf8_lossy(target))
}

/// For records and messages: what they cannot carry is refused.
fn named(place: &Place) -> Result<String, Refusal> {
    match std::str::from_utf8(place.path()) {
        Ok(path) if !path.contains(char::is_control) => Ok(format!("/{path}")),
        _ => Err(Refusal::ImpossibleName { member: place.shown() }),
    }
}

fn dress(member: &Member, ids: &Ids) -> Result<Dress, Refusal> {
    let (uid, gid) = member::owner(&member.path, member.uid, member.gid)?;
    let other = |ids: &BTreeMap<u32, u32>, id| ids.get(&id).copied().unwrap_or(id);
    Ok(Dress { uid: other(&ids.users, uid), gid: other(&ids.groups, gid), mode: member.mode })
}

fn attributes(dress: Dress) -> Attributes {
    Attributes { uid: dress.uid, gid: dress.gid, mode: dress.mode, mtime_sec: 0, mtime_nsec: 0 }
}

fn put_on(file: &OwnedFd, place: &Place, at: Attributes) -> Result<(), Refusal> {
    fs::fchown(file, Some(Uid::from_raw(at.uid)), Some(Gid::from_raw(at.gid)))
        .map_err(|e| failed("fchown", place, e))?;
    fs::fchmod(file, Mode::from_raw_mode(at.mode)).map_err(|e| failed("fchmod", place, e))
}

/// The digest of a member's data, with its holes.
fn content<R: Read>(reader: &mut Reader<R>, member: &Member) -> Result<What, Refusal> {
    let (mut hash, mut at) = (Sha256::new(), 0);
    let zeros = [0; 16 << 10];
    let hole = |hash: &mut Sha256, mut length: u64| {
        while length > 0 {
            let now = length.min(zeros.len() as u64);
            hash.update(&zeros[..now as usize]);
            length -= now;
        }
    };
    let mut buffer = vec![0; 64 << 10];
    for &(offset, length) in member.segments.as_deref().unwrap_or(&[(0, member.size)]) {
        hole(&mut hash, offset - at);
        let mut left = length;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let got = reader.read_data(&mut buffer[..want])?;
            hash.update(&buffer[..got]);
            left -= got as u64;
        }
        at = offset + length;
    }
    hole(&mut hash, member.size - at);
    Ok(leaf(format!("{:x}", hash.finalize()), member.size))
}

fn text<R: Read>(reader: &mut Reader<R>, member: &Member) -> Result<String, Refusal> {
    let limit = || Refusal::Limit { what: String::from("bytes of a text"), limit: MOST_TEXT };
    if member.size > MOST_TEXT || member.segments.is_some() {
        return Err(limit());
    }
    let mut bytes = vec![0; usize::try_from(member.size).map_err(|_| limit())?];
    let mut done = 0;
    while done < bytes.len() {
        done += reader.read_data(&mut bytes[done..])?;
    }
    String::from_utf8(bytes)
        .map_err(|_| Refusal::Damaged { after: member::shown(&member.path), reason: String::from("it is not UTF-8") })
}

fn there(root: BorrowedFd<'_>, place: &Place, what: &What, dress: Dress) -> Result<There, Refusal> {
    let Some(stat) = look(root, place)? else { return Ok(There::Nothing) };
    let is = Dress { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777 };
    let kind = FileType::from_raw_mode(stat.st_mode);
    Ok(match what {
        What::Directory if kind.is_dir() && is == dress => There::Same,
        What::Directory if kind.is_dir() => There::Directory(is),
        // Whoever put the link there wants the files elsewhere; that is not ours to decide.
        What::Directory if kind.is_symlink() => return Err(Refusal::NotThroughDirectory { member: place.shown() }),
        What::Directory => There::Other,
        What::Leaf { digest, size } => {
            // A link has no permissions.
            let dressed = (is.uid, is.gid) == (dress.uid, dress.gid) && (kind.is_symlink() || is.mode == dress.mode);
            let same = dressed && digest_of(root, place, &stat, *size)?.as_ref() == Some(digest);
            if same { There::Same } else { There::Other }
        }
    })
}

fn look(root: BorrowedFd<'_>, place: &Place) -> Result<Option<Stat>, Refusal> {
    let parent = match open_directory(root, place.parent()) {
        // It is not there yet, or is a file that will be put aside.
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(Errno::LOOP) => return Err(Refusal::NotThroughDirectory { member: place.shown() }),
        parent => parent.map_err(|e| failed("openat2", place, e))?,
    };
    match fs::statat(&parent, place.name(), AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(None),
        stat => stat.map(Some).map_err(|e| failed("fstatat", place, e)),
    }
}

fn is_there(root: BorrowedFd<'_>, place: &Place, suffix: &str) -> Result<bool, Refusal> {
    let parent = open_directory(root, place.parent()).map_err(|e| failed("openat2", place, e))?;
    match fs::statat(&parent, with(place.name(), suffix).as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(false),
        stat => stat.map(|_| true).map_err(|e| failed("fstatat(.vz-before)", place, e)),
    }
}

fn digest_of(root: BorrowedFd<'_>, place: &Place, stat: &Stat, size: u64) -> Result<Option<String>, Refusal> {
    let parent = open_directory(root, place.parent()).map_err(|e| failed("openat2", place, e))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => {
            let target = fs::readlinkat(&parent, place.name(), Vec::new());
            Ok(Some(link_digest(target.map_err(|e| failed("readlinkat", place, e))?.as_bytes())))
        }
        FileType::Fifo => Ok(Some("fifo".to_owned())),
        FileType::RegularFile if u64::try_from(stat.st_size) == Ok(size) => {
            // A FIFO that has taken its place would be waited for.
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = fs::openat2(&parent, place.name(), flags, Mode::empty(), BENEATH)
                .map_err(|e| failed("openat2", place, e))?;
            let mut hash = Sha256::new();
            // No further than it was long: somebody may be writing to it without end.
            let mut file = std::fs::File::from(file).take(size);
            std::io::copy(&mut file, &mut hash)
                .map_err(|e| failed("read", place, Errno::from_io_error(&e).unwrap_or(Errno::IO)))?;
            Ok(Some(format!("{:x}", hash.finalize())))
        }
        _ => Ok(None),
    }
}

/// Empty: the root.
fn open_directory(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    fs::openat2(root, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), BENEATH)
}

fn with(name: &[u8], suffix: &str) -> Vec<u8> {
    [name, suffix.as_bytes()].concat()
}

fn failed(call: &str, place: &Place, errno: Errno) -> Refusal {
    Refusal::syscall(format!("{call}({})", place.shown()), errno)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::path::Path;

    use super::*;

    /// Members `path`, kind, contents or target, of the owner that the test has.
    fn archive(members: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, text) in members {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(if kind.is_dir() { 0o755 } else { 0o640 });
            header.set_uid(rustix::process::getuid().as_raw().into());
            header.set_gid(rustix::process::getgid().as_raw().into());
            header.set_mtime(1_700_000_000);
            match kind {
                EntryType::Symlink | EntryType::Link => {
                    header.set_size(0);
                    builder.append_link(&mut header, path, text).unwrap();
                }
                _ => {
                    header.set_size(text.len() as u64);
                    builder.append_data(&mut header, path, text.as_bytes()).unwrap();
                }
            }
        }
        builder.into_inner().unwrap()
    }

    fn look(archive: &[u8], at: &Path) -> Result<Survey, Refusal> {
        let root = fs_err::File::open(at).unwrap();
        survey(archive, root.as_fd(), &Ids::default(), &["/text"], &Limits::default())
    }

    const FILE: EntryType = EntryType::Regular;
    const DIRECTORY: EntryType = EntryType::Directory;

    #[test]
    fn an_archive_is_told_beside_what_is_there_and_laid_as_ordered() {
        let system = tempfile::tempdir().unwrap();
        let at = |path: &str| system.path().join(path);
        fs_err::create_dir(at("etc")).unwrap();
        for (path, text, mode) in
            [("etc/same", "same", 0o640), ("etc/mode", "mode", 0o600), ("etc/other", "before", 0o640)]
        {
            fs_err::write(at(path), text).unwrap();
            fs_err::set_permissions(at(path), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        fs_err::set_permissions(at("etc"), std::fs::Permissions::from_mode(0o700)).unwrap();
        let archive = archive(&[
            ("etc/", DIRECTORY, ""),
            ("etc/same", FILE, "same"),
            ("etc/mode", FILE, "mode"),
            ("etc/other", FILE, "after"),
            ("opt/", DIRECTORY, ""),
            ("opt/link", EntryType::Symlink, "../etc"),
            ("opt/new", FILE, "new"),
            ("opt/hard", EntryType::Link, "opt/new"),
            ("text", FILE, "a text"),
        ]);
        let survey = look(&archive, system.path()).unwrap();
        assert_eq!(survey.texts["/text"], "a text");
        let there: Vec<(&str, There)> = survey.found.iter().map(|f| (f.path.as_str(), f.there)).collect();
        let was = Dress { mode: 0o700, ..survey.found[0].dress };
        assert_eq!(
            there,
            [
                ("/etc", There::Directory(was)),
                ("/etc/same", There::Same),
                ("/etc/mode", There::Other),
                ("/etc/other", There::Other),
                ("/opt", There::Nothing),
                ("/opt/link", There::Nothing),
                ("/opt/new", There::Nothing),
                ("/opt/hard", There::Nothing),
            ]
        );
        let what = |path: &str| survey.found.iter().find(|f| f.path == path).unwrap().what.clone();
        assert_eq!(what("/opt/hard"), what("/opt/new"));
        let orders = [
            ("/etc", Order::Dress),
            ("/etc/other", Order::Replace),
            ("/opt", Order::Make),
            ("/opt/link", Order::Make),
            ("/opt/new", Order::Make),
            ("/opt/hard", Order::Make),
        ];
        let orders = orders.iter().map(|(path, order)| ((*path).to_owned(), *order)).collect();
        let root = fs_err::File::open(system.path()).unwrap();
        lay(archive.as_slice(), root.as_fd(), &Ids::default(), &orders, &Limits::default()).unwrap();
        let read = |path: &str| fs_err::read_to_string(at(path)).unwrap();
        assert_eq!([read("etc/other"), read("etc/other.vz-before"), read("opt/new")], ["after", "before", "new"]);
        let mode = |path: &str| fs_err::metadata(at(path)).unwrap().mode() & 0o7777;
        assert_eq!([mode("etc"), mode("etc/mode"), mode("opt/new")], [0o755, 0o600, 0o640]);
        assert_eq!(fs_err::metadata(at("opt/new")).unwrap().nlink(), 2);
        assert_eq!(fs_err::metadata(at("opt")).unwrap().mtime(), 1_700_000_000);
        assert!(!at("text").exists() && !at("opt/.vz-new").exists());
        for found in &survey.found {
            let What::Leaf { digest, size } = &found.what else { continue };
            assert_eq!(known(root.as_fd(), &found.path, *size).unwrap().as_ref(), Some(digest), "{}", found.path);
        }
    }

    #[test]
    fn what_cannot_be_laid_is_refused_before_anything_is_changed() {
        let system = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/", system.path().join("link")).unwrap();
        let refused = |members: &[(&str, EntryType, &str)]| look(&archive(members), system.path()).unwrap_err();
        let twice = refused(&[("a", FILE, ""), ("./a", FILE, "")]);
        assert!(matches!(twice, Refusal::Twice { .. }), "{twice}");
        let alone = refused(&[("opt/a", FILE, "")]);
        assert!(matches!(alone, Refusal::NoDirectory { .. }), "{alone}");
        let through = refused(&[("link/", DIRECTORY, ""), ("link/a", FILE, "")]);
        assert!(matches!(through, Refusal::NotThroughDirectory { .. }), "{through}");
        let away = refused(&[("a", EntryType::Link, "/etc/passwd")]);
        assert!(matches!(away, Refusal::LinkTarget { .. }), "{away}");
        let device = refused(&[("a", EntryType::Char, "")]);
        assert!(matches!(device, Refusal::Type { .. }), "{device}");
        let cut = archive(&[("a", FILE, "text")]);
        assert!(matches!(look(&cut[..600], system.path()), Err(Refusal::Damaged { .. })));
        assert!(!system.path().join("a").exists());
    }
}
