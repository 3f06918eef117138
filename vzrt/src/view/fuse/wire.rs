//! Requests and replies as bytes: linux/fuse.h, protocol 7.31 and what later kernels make of it.

use std::time::Duration;

use rustix::io::Errno;

use super::Node;

/// The number of the root directory.
pub(crate) const ROOT: u64 = 1;

/// Room for the largest request: `FUSE_MIN_READ_BUFFER`, below which the kernel gives none.
pub(super) const MOST_BYTES: usize = 8192;

/// The version spoken: all that is used here is in it (Linux 5.4).
const VERSION: (u32, u32) = (7, 31);

/// `struct fuse_in_header`.
const IN_HEADER: usize = 40;

/// Largest write we would take, were there any: the kernel sizes its buffers by it.
const MAX_WRITE: u32 = 4096;

/// `FUSE_DO_READDIRPLUS`: who lists the directory has then looked up all of it.
const LISTS_LOOK_UP: u32 = 1 << 13;

/// For how long the kernel may remember a name and a directory: these never change.
pub(super) const ALWAYS: Duration = Duration::from_secs(86_400);

/// What the kernel wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum What<'a> {
    Init {
        major: u32,
        minor: u32,
    },
    Lookup {
        name: &'a [u8],
    },
    Attributes,
    Open {
        for_writing: bool,
    },
    Read {
        handle: u64,
        offset: u64,
        bytes: u32,
    },
    Release {
        handle: u64,
    },
    /// All names of the directory with what is known of each, from this place in the list on.
    List {
        from: u64,
    },
    Statfs,
    Destroy,
    /// Nobody waits for an answer: forget, batch_forget, interrupt.
    Forget,
    Other,
}

/// A request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request<'a> {
    pub(super) unique: u64,
    pub(super) node: u64,
    /// The thread that wants it, as the host numbers threads.
    pub(super) caller: u32,
    pub(super) what: What<'a>,
}

impl<'a> Request<'a> {
    /// `None` for what is shorter than it has to be: nothing can be answered to that.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let body = bytes.get(IN_HEADER..)?;
        let u32_at = |at: usize| Some(u32::from_ne_bytes(body.get(at..at + 4)?.try_into().ok()?));
        let u64_at = |at: usize| Some(u64::from_ne_bytes(body.get(at..at + 8)?.try_into().ok()?));
        let what = match u32::from_ne_bytes(bytes[4..8].try_into().ok()?) {
            1 => What::Lookup { name: body.strip_suffix(&[0])? },
            2 | 36 | 42 => What::Forget,
            3 => What::Attributes,
            14 => What::Open { for_writing: u32_at(0)? & libc::O_ACCMODE.unsigned_abs() != 0 },
            15 => What::Read { handle: u64_at(0)?, offset: u64_at(8)?, bytes: u32_at(16)? },
            17 => What::Statfs,
            18 => What::Release { handle: u64_at(0)? },
            26 => What::Init { major: u32_at(0)?, minor: u32_at(4)? },
            38 => What::Destroy,
            44 => What::List { from: u64_at(8)? },
            _ => What::Other,
        };
        let word = |at: usize| Some(u64::from_ne_bytes(bytes[at..at + 8].try_into().ok()?));
        let caller = u32::from_ne_bytes(bytes[32..36].try_into().ok()?);
        Some(Self { unique: word(8)?, node: word(16)?, caller, what })
    }
}

/// What `stat` shows of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes {
    pub(super) number: u64,
    pub(super) node: Node,
    pub(super) bytes: u64,
    /// For how long the kernel need not ask again.
    pub(super) valid: Duration,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Attributes {
    fn kind(&self) -> u32 {
        if self.node.directory { libc::S_IFDIR } else { libc::S_IFREG }
    }

    /// `struct fuse_attr`.
    fn bytes(&self) -> Vec<u8> {
        let mode = self.kind() | u32::from(self.node.mode);
        let mut out = Out::default();
        out.u64s(&[self.number, self.bytes, 0, 0, 0, 0]).u32s(&[0, 0, 0]);
        // A directory with one link is one whose subdirectories nobody has counted.
        out.u32s(&[mode, 1, self.uid, self.gid, 0, 4096, 0]);
        out.0
    }
}

/// An answer.
#[derive(Debug)]
pub(super) enum Reply {
    Error(Errno),
    Data(Vec<u8>),
}

impl Reply {
    /// `struct fuse_init_out`. A kernel of another major version asks again when it has seen ours.
    pub(super) fn init(major: u32, minor: u32) -> Self {
        let minor = if major == VERSION.0 { minor.min(VERSION.1) } else { VERSION.1 };
        let mut out = Out::default();
        // Version, read-ahead, flags; then two halves of background requests (none here), largest write, granularity of time, pages.
        out.u32s(&[VERSION.0, minor, 0, LISTS_LOOK_UP, 0, MAX_WRITE, 1, 1]).u32s(&[0; 8]);
        Self::Data(out.0)
    }

    /// `struct fuse_entry_out`.
    pub(super) fn entry(attributes: &Attributes) -> Self {
        let mut out = Out::default();
        let (name, all) = (if attributes.node.stays { ALWAYS } else { Duration::ZERO }, attributes.valid);
        out.u64s(&[attributes.number, 0, name.as_secs(), all.as_secs()])
            .u32s(&[name.subsec_nanos(), all.subsec_nanos()]);
        out.0.extend(attributes.bytes());
        Self::Data(out.0)
    }

    /// A list of `struct fuse_direntplus`: as many as go into a page, the least that is asked for. The number of the last one says where the
    /// next page begins, whatever has come and gone meanwhile; 0, where the first one does, is nobody's.
    pub(super) fn list(entries: impl Iterator<Item = (String, Attributes)>, from: u64) -> Self {
        let mut list = Vec::with_capacity(4096);
        for (name, attributes) in entries.skip_while(|(_, attributes)| attributes.number <= from) {
            let Self::Data(entry) = Self::entry(&attributes) else { continue };
            let mut out = Out(entry);
            let length = u32::try_from(name.len()).expect("names of ours are short");
            out.u64s(&[attributes.number, attributes.number]).u32s(&[length, attributes.kind() >> 12]);
            out.0.extend_from_slice(name.as_bytes());
            out.0.resize(out.0.len().next_multiple_of(8), 0);
            if list.len() + out.0.len() > 4096 {
                break;
            }
            list.extend(out.0);
        }
        Self::Data(list)
    }

    /// `struct fuse_attr_out`.
    pub(super) fn attributes(attributes: &Attributes) -> Self {
        let mut out = Out::default();
        out.u64s(&[attributes.valid.as_secs()]).u32s(&[attributes.valid.subsec_nanos(), 0]);
        out.0.extend(attributes.bytes());
        Self::Data(out.0)
    }

    /// `struct fuse_open_out`, with `FOPEN_DIRECT_IO`.
    pub(super) fn opened(handle: u64) -> Self {
        let mut out = Out::default();
        out.u64s(&[handle]).u32s(&[1, 0]);
        Self::Data(out.0)
    }

    /// `struct fuse_kstatfs`: a file system without blocks, which `df` leaves out.
    pub(super) fn statfs() -> Self {
        let mut out = Out::default();
        out.u64s(&[0; 5]).u32s(&[4096, 255, 4096, 0]).u32s(&[0; 6]);
        Self::Data(out.0)
    }

    /// With `struct fuse_out_header` before it.
    pub(super) fn bytes(&self, unique: u64) -> Vec<u8> {
        let (error, data): (i32, &[u8]) = match self {
            Self::Error(errno) => (-errno.raw_os_error(), &[]),
            Self::Data(data) => (0, data),
        };
        let mut out = Out(Vec::with_capacity(16 + data.len()));
        let length = u32::try_from(16 + data.len()).expect("a reply is no longer than the read it answers");
        out.u32s(&[length, error as u32]).u64s(&[unique]);
        out.0.extend_from_slice(data);
        out.0
    }
}

/// Numbers in the machine's byte order, one after the other.
#[derive(Default)]
struct Out(Vec<u8>);

impl Out {
    fn u64s(&mut self, numbers: &[u64]) -> &mut Self {
        numbers.iter().for_each(|n| self.0.extend(n.to_ne_bytes()));
        self
    }

    fn u32s(&mut self, numbers: &[u32]) -> &mut Self {
        numbers.iter().for_each(|n| self.0.extend(n.to_ne_bytes()));
        self
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(opcode: u32, body: &[u8]) -> Vec<u8> {
        let mut out = Out::default();
        out.u32s(&[0, opcode]).u64s(&[7, 3]).u32s(&[0, 0, 5, 0]);
        out.0.extend_from_slice(body);
        out.0
    }

    #[test]
    fn requests_are_read_by_their_layout() {
        let bytes = request(1, b"proc.stat\0");
        let want = Request { unique: 7, node: 3, caller: 5, what: What::Lookup { name: b"proc.stat" } };
        assert_eq!(Request::parse(&bytes), Some(want));
        let mut read = Out::default();
        read.u64s(&[9, 4096]).u32s(&[100, 0]);
        let bytes = request(15, &read.0);
        let want = What::Read { handle: 9, offset: 4096, bytes: 100 };
        assert_eq!(Request::parse(&bytes).map(|r| r.what), Some(want));
        assert_eq!(Request::parse(&request(999, &[])).map(|r| r.what), Some(What::Other));
    }

    #[test]
    fn replies_have_the_sizes_of_the_kernels_structures() {
        let a = Attributes { number: 2, node: Node::file(0o444), bytes: 0, valid: ALWAYS, uid: 1, gid: 1 };
        let size = |reply: Reply| reply.bytes(1).len() - 16;
        assert_eq!(size(Reply::init(7, 40)), 64);
        assert_eq!(size(Reply::entry(&a)), 128);
        assert_eq!(size(Reply::attributes(&a)), 104);
        assert_eq!(size(Reply::opened(1)), 16);
        assert_eq!(size(Reply::statfs()), 80);
        let error = Reply::Error(Errno::NOENT).bytes(5);
        assert_eq!((error.len(), &error[4..8]), (16, &(-2i32).to_ne_bytes()[..]));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange_to_be_looked_at(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let request = Request::parse(&bytes);
            prop_assert!(request.is_some() <= (bytes.len() >= IN_HEADER));
        }
    }
}
