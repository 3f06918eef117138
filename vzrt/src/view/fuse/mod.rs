//! A FUSE file system of a few files that are read and nothing else, served without a thread.
//!
//! Why not a library: those that exist begin every session with the kernel's greeting (`FUSE_INIT`), which is said once in the life of a
//! connection; ours is handed from process to process when one is killed. And they serve from threads, which a process that forks can't have.
//!
//! Protocol: linux/fuse.h, fuse(4). A file is opened with `FOPEN_DIRECT_IO`: every read(2) of the container comes here, the kernel keeps
//! nothing. Its size is told as that of the text, unlike procfs's 0: sendfile(2), with which `cat` copies, goes no further than a file's size.

mod wire;

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};

pub(crate) use self::wire::ROOT;
use self::wire::{Attributes, Reply, Request, What};
use super::sys;
use crate::error::{Call, Failed};
use crate::plan::IdRange;

/// Where the kernel's requests come from.
const DEVICE: &str = "/dev/fuse";

/// Readings that are kept for readers who have read the beginning and not yet the rest. A container can open more files than these; the
/// oldest is then made anew, in the middle of somebody's reading.
const MOST_KEPT: usize = 16;

/// How long a text is to tell a container the truth. Who asks for a file's size and then reads it finds what he was told, and a container that does nothing but
/// read makes its attendant work no more than this often.
pub(crate) const FRESH: Duration = Duration::from_millis(20);

/// How long to look for the next request before sleeping: opening a file and reading it are three of them, each sent when the one before has been
/// answered, and to be woken takes longer than to answer.
const LOOK_AGAIN: Duration = Duration::from_micros(30);

/// What a file system has in it. Its numbers are the tree's own; that of its root is [`ROOT`].
pub(crate) trait Tree {
    /// What bears a number; `None` when nothing does.
    fn node(&self, number: u64) -> Option<Node>;

    /// The names in a directory and their numbers, by ascending numbers.
    fn entries(&mut self, directory: u64) -> Vec<(String, u64)>;

    /// The number that a name in a directory stands for.
    fn find(&mut self, directory: u64, name: &[u8]) -> Option<u64> {
        self.entries(directory).into_iter().find_map(|(known, number)| (known.as_bytes() == name).then_some(number))
    }

    /// The text of a file as it is now; `None` when what it tells of has ended.
    fn text(&mut self, file: u64) -> Option<String>;

    /// That of a file whose text is not to be kept even for a moment: it tells each thread, as the host numbers them, something else, or knows
    /// itself how long it is true.
    fn text_for(&mut self, _file: u64, _reader: u32) -> Option<String> {
        None
    }
}

/// A file or a directory, as `stat` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Node {
    /// If not, it is a file.
    pub(crate) directory: bool,
    /// Permissions: the lower nine bits of its mode.
    pub(crate) mode: u16,
    /// Its name will always be there, so the kernel may remember it.
    pub(crate) stays: bool,
}

impl Node {
    /// Of a directory that is always there.
    pub(crate) const fn directory(mode: u16) -> Self {
        Self { directory: true, mode, stays: true }
    }

    /// Of a file that is always there.
    pub(crate) const fn file(mode: u16) -> Self {
        Self { directory: false, mode, stays: true }
    }
}

/// A connection with the kernel: as long as it is open somewhere, the mounts of it live.
#[derive(Debug)]
pub(crate) struct Connection(OwnedFd);

impl Connection {
    /// A new connection and the file system at its other end, as a detached mount. Called by the host's root.
    ///
    /// # Errors
    /// The failed call; a host without FUSE has no `/dev/fuse`, or no such file system.
    pub(crate) fn new() -> Result<(Self, OwnedFd), Failed> {
        let device = open_device()?;
        let fs = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC).call(|| "fsopen(fuse)")?;
        let number = std::os::fd::AsRawFd::as_raw_fd(&device).to_string();
        // The container's users are no users of the host's, whose root mounts this: all of them may look, and modes decide.
        for (key, value) in
            [("source", "vz"), ("fd", &number), ("rootmode", "40555"), ("user_id", "0"), ("group_id", "0")]
        {
            fsconfig_set_string(fs.as_fd(), key, value).call(|| format!("fsconfig(fuse, {key}={value})"))?;
        }
        for flag in ["allow_other", "default_permissions"] {
            fsconfig_set_flag(fs.as_fd(), flag).call(|| format!("fsconfig(fuse, {flag})"))?;
        }
        fsconfig_create(fs.as_fd()).call(|| "fsconfig(fuse, create)")?;
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let mount = fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).call(|| "fsmount(fuse)")?;
        Ok((Self(device), mount))
    }

    /// Takes up a connection that another process of ours has made.
    pub(crate) fn over(device: OwnedFd) -> Self {
        Self(device)
    }

    /// A further end of the same connection, for one process: what that has taken and not answered fails when the end is closed, and the
    /// reader inside does not wait for ever for the dead (`FUSE_DEV_IOC_CLONE`, Linux 4.2).
    ///
    /// # Errors
    /// The failed call.
    pub(crate) fn serve(&self, owner: IdRange, fresh_for: Duration) -> Result<Server, Failed> {
        let device = open_device()?;
        sys::fuse_clone(device.as_fd(), self.0.as_fd()).call(|| "ioctl(FUSE_DEV_IOC_CLONE)")?;
        Ok(Server { device, owner, fresh_for, fresh: Vec::new(), kept: VecDeque::new(), next_handle: 1 })
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn open_device() -> Result<OwnedFd, Failed> {
    openat(CWD, DEVICE, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
        .call(|| format!("open({DEVICE})"))
}

/// One process's end of a connection.
#[derive(Debug)]
pub(crate) struct Server {
    device: OwnedFd,
    /// Whom the files belong to.
    owner: IdRange,
    /// For how long what a file has said is its text.
    fresh_for: Duration,
    /// What files have said a moment ago, and when.
    fresh: Vec<(u64, Instant, Rc<str>)>,
    /// What is being read by those who have begun to.
    kept: VecDeque<(u64, Rc<str>)>,
    next_handle: u64,
}

impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

impl Server {
    /// Answers what has been asked, up to a few requests, so that no reader keeps us from the others.
    ///
    /// # Errors
    /// The connection has ended: nobody has a file of it mounted any more.
    pub(crate) fn serve(&mut self, tree: &mut impl Tree) -> Result<(), Failed> {
        let mut buffer = [0u8; wire::MOST_BYTES];
        let (mut answered, mut looking) = (0, None::<Instant>);
        while answered < 16 {
            match rustix::io::read(&self.device, &mut buffer) {
                Ok(n) => {
                    self.answer(&buffer[..n], tree)?;
                    (answered, looking) = (answered + 1, None);
                }
                // ENOENT: whoever asked was killed meanwhile.
                Err(Errno::INTR | Errno::NOENT) => {}
                Err(Errno::AGAIN) if looking.get_or_insert_with(Instant::now).elapsed() < LOOK_AGAIN => {}
                Err(Errno::AGAIN) => break,
                Err(e) => return Err(e).call(|| format!("read({DEVICE})")),
            }
        }
        Ok(())
    }

    fn answer(&mut self, bytes: &[u8], tree: &mut impl Tree) -> Result<(), Failed> {
        let Some(request) = Request::parse(bytes) else { return Ok(()) };
        let Some(reply) = self.reply(&request, tree) else { return Ok(()) };
        match rustix::io::write(&self.device, &reply.bytes(request.unique)) {
            // ENOENT: interrupted, nobody waits for it.
            Ok(_) | Err(Errno::NOENT | Errno::INTR) => Ok(()),
            Err(e) => Err(e).call(|| format!("write({DEVICE})")),
        }
    }

    /// `None`: the kernel waits for no answer.
    fn reply(&mut self, request: &Request, tree: &mut impl Tree) -> Option<Reply> {
        let node = tree.node(request.node);
        let (directory, file) = (node.filter(|node| node.directory), node.filter(|node| !node.directory));
        Some(match &request.what {
            What::Init { major, minor } => Reply::init(*major, *minor),
            What::Lookup { name } if directory.is_some() => {
                let found = tree.find(request.node, name).and_then(|number| Some((number, tree.node(number)?)));
                found.map_or(Reply::Error(Errno::NOENT), |(number, node)| Reply::entry(&self.unread(number, node)))
            }
            What::List { from } if directory.is_some() => {
                let entries = tree.entries(request.node).into_iter();
                let known = entries.filter_map(|(name, number)| Some((name, self.unread(number, tree.node(number)?))));
                Reply::list(known, *from)
            }
            What::Attributes => self.look_at(request.node, request.caller, tree),
            What::Open { for_writing: false } if file.is_some() => {
                self.next_handle += 1;
                Reply::opened(self.next_handle)
            }
            What::Open { .. } => Reply::Error(Errno::ACCESS),
            What::Read { handle, offset, bytes } if file.is_some() => {
                self.read(tree, request, *handle, *offset, *bytes)
            }
            What::Release { handle } => {
                self.kept.retain(|(kept, _)| kept != handle);
                Reply::Data(Vec::new())
            }
            What::Statfs => Reply::statfs(),
            What::Destroy => Reply::Data(Vec::new()),
            What::Forget => return None,
            _ => Reply::Error(Errno::NOSYS),
        })
    }

    fn look_at(&mut self, number: u64, reader: u32, tree: &mut impl Tree) -> Reply {
        match tree.node(number) {
            Some(node) if node.directory => Reply::attributes(&self.attributes(number, node, 0, wire::ALWAYS)),
            Some(node) => match self.text(number, reader, tree) {
                Some((text, fresh)) => Reply::attributes(&self.attributes(number, node, text.len() as u64, fresh)),
                None => Reply::Error(Errno::IO),
            },
            None => Reply::Error(Errno::NOENT),
        }
    }

    /// A reading from the beginning is made anew; what follows is of the same reading.
    fn read(&mut self, tree: &mut impl Tree, request: &Request, handle: u64, offset: u64, bytes: u32) -> Reply {
        let kept = self.kept.iter().position(|(kept, _)| *kept == handle);
        let text = match kept.filter(|_| offset > 0) {
            Some(at) => Rc::clone(&self.kept[at].1),
            None => {
                kept.map(|at| self.kept.remove(at));
                // The container has ended, or is about to.
                let Some((text, _)) = self.text(request.node, request.caller, tree) else {
                    return Reply::Error(Errno::IO);
                };
                self.kept.truncate(MOST_KEPT - 1);
                self.kept.push_front((handle, Rc::clone(&text)));
                text
            }
        };
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
        let end = start.saturating_add(bytes as usize).min(text.len());
        Reply::Data(text.as_bytes()[start..end].to_vec())
    }

    /// The text, and for how long it will still be the same.
    fn text(&mut self, file: u64, reader: u32, tree: &mut impl Tree) -> Option<(Rc<str>, Duration)> {
        if let Some(text) = tree.text_for(file, reader) {
            return Some((text.into(), Duration::ZERO));
        }
        self.fresh.retain(|(_, made, _)| made.elapsed() < self.fresh_for);
        if let Some((_, made, text)) = self.fresh.iter().find(|(known, ..)| *known == file) {
            return Some((Rc::clone(text), self.fresh_for.saturating_sub(made.elapsed())));
        }
        let text: Rc<str> = tree.text(file)?.into();
        self.fresh.push((file, Instant::now(), Rc::clone(&text)));
        Some((text, self.fresh_for))
    }

    fn attributes(&self, number: u64, node: Node, bytes: u64, valid: Duration) -> Attributes {
        Attributes { number, node, bytes, valid, uid: self.owner.uid, gid: self.owner.gid }
    }

    /// Of what nobody has looked at yet: that of a file whose size nobody has asked for is good for nothing.
    fn unread(&self, number: u64, node: Node) -> Attributes {
        self.attributes(number, node, 0, if node.directory { wire::ALWAYS } else { Duration::ZERO })
    }
}
