//! quotactl(2) and quotactl_fd(2), made inside, answered.
//!
//! All that the caller says is hostile: it can change its memory, its directory and its descriptors while we look. So what it gives is copied
//! before it is looked at, what the copy says is done to the container's own file system whatever the caller meant, and nothing is opened
//! that could keep us waiting.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};

use caps::Capability;
use quota::quotactl::{Call, Kind, LARGEST_BYTES, Rights};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags, fstat, open, openat2, statx};
use rustix::io::Errno;

use super::UserQuota;
use crate::plan::IdRange;

/// The names of the calls, for the filter.
pub(crate) const CALLS: [&str; 2] = ["quotactl", "quotactl_fd"];

/// A path may not be longer (`PATH_MAX`).
const MOST_PATH_BYTES: usize = 4096;

/// One of the calls, by its arguments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    /// The calling thread.
    pub(crate) thread: u32,
    word: u32,
    target: Target,
    id: u32,
    address: u64,
    is_32bit: bool,
}

/// How the file system is named.
#[derive(Debug, Clone, Copy)]
enum Target {
    /// Not at all.
    None,
    /// By a device, the path of which is at this address.
    Device(u64),
    /// By a file on it that is open.
    Descriptor(u32),
}

impl Asked {
    /// Takes the arguments of `name` apart: the kernel looks at the lower half of all that are `int`s.
    pub(crate) fn new(name: &str, thread: u32, args: [u64; 6], is_32bit: bool) -> Self {
        let (word, target) = match name {
            "quotactl_fd" => (args[1], Target::Descriptor(args[0] as u32)),
            _ if args[1] == 0 => (args[0], Target::None),
            _ => (args[0], Target::Device(args[1])),
        };
        Self { thread, word: word as u32, target, id: args[2] as u32, address: args[3], is_32bit }
    }
}

/// Whoever asks.
struct Caller {
    memory: File,
    root: OwnedFd,
    rights: Credentials,
}

/// What decides what a caller may do, as the kernel has it (`/proc/PID/status`, proc_pid_status(5)), with the numbers of the container.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Credentials {
    /// Of the container's user namespace, with `CAP_SYS_ADMIN` in it.
    is_administrator: bool,
    user: Option<u32>,
    groups: Vec<u32>,
}

impl UserQuota {
    /// Makes a call for a thread of the container, whose first process is `init`; `still_waits` tells whether the thread still is who called.
    ///
    /// # Errors
    /// What the caller is to be told.
    pub(crate) fn answer(&self, asked: &Asked, init: i32, still_waits: impl Fn() -> bool) -> Result<(), Errno> {
        let call = Call::parse(asked.word)?;
        let caller = Caller::of(asked.thread, self.ids, init).map_err(|_| Errno::SRCH)?;
        if !still_waits() {
            return Err(Errno::INTR);
        }
        match asked.target {
            // Everybody's file systems are to be written down: of all there are, one is the caller's.
            Target::None if call.is_sync() => {}
            Target::None => return Err(Errno::NODEV),
            Target::Device(address) => self.check_device(&caller, address)?,
            Target::Descriptor(number) => self.check_descriptor(asked.thread, number)?,
        }
        caller.rights.check(&call, asked.id)?;
        call.check(asked.is_32bit)?;
        if call.has_id() && asked.id >= self.ids.count {
            return Err(Errno::INVAL);
        }
        let mut structure = [0; LARGEST_BYTES];
        let given = &mut structure[..call.reads(asked.is_32bit)];
        caller.memory.read_exact_at(given, asked.address).map_err(|_| Errno::FAULT)?;
        call.check_input(&structure)?;
        if call.limits(&structure) {
            self.check_room(call.kind(), asked.id)?;
        }
        self.users().pass_on(&call, asked.id, &mut structure)?;
        if call.found(&structure).is_some_and(|id| id >= self.ids.count) {
            return Err(Errno::NOENT);
        }
        let filled = &structure[..call.fills(asked.is_32bit)];
        caller.memory.write_all_at(filled, asked.address).map_err(|_| Errno::FAULT)
    }

    /// What the kernel does with the path of a device (`quotactl_block`).
    fn check_device(&self, caller: &Caller, address: u64) -> Result<(), Errno> {
        let path = read_string(&caller.memory, address)?;
        // Only what the kernel has at hand is looked up: a lookup that a file system of the container's has to answer could keep us for
        // ever. Tools have looked at the file a moment before they name it.
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::CACHED;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let _owner = FileOwner::become_(self.ids.uid);
        let file = match openat2(&caller.root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => return Err(Errno::NOENT),
            r => r?,
        };
        let st = fstat(&file)?;
        match FileType::from_raw_mode(st.st_mode) {
            kind if self.is_node(kind, st.st_rdev) => Ok(()),
            FileType::BlockDevice => Err(Errno::NODEV),
            _ => Err(Errno::NOTBLK),
        }
    }

    /// What the kernel does with a descriptor. Of a file that is not on the container's root, whoever's it is, the quotas are not to be had here.
    fn check_descriptor(&self, thread: u32, number: u32) -> Result<(), Errno> {
        let path = format!("/proc/{thread}/fd/{number}");
        // What the file system of the file would have to be asked about is not wanted, so it is not asked.
        let st = statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::empty()).map_err(|_| Errno::BADF)?;
        if self.is_on_root(st.stx_dev_major, st.stx_dev_minor) { Ok(()) } else { Err(Errno::NOSYS) }
    }

    /// As on OpenVZ, only so many users and groups can have limits.
    fn check_room(&self, kind: Kind, id: u32) -> Result<(), Errno> {
        let users = self.users();
        let errno = |e: quota::CallError| e.errno;
        if users.status(kind, id).map_err(errno)?.is_limited() {
            return Ok(());
        }
        let most = u64::from(self.most);
        let limited = users.limited(Kind::User, most).map_err(errno)?;
        let limited = limited + users.limited(Kind::Group, most - limited).map_err(errno)?;
        if limited < most { Ok(()) } else { Err(Errno::DQUOT) }
    }
}

/// Takes the file ids of the container's root while it lives: of directories that are not its own, the kernel would first read the access lists,
/// which it has not at hand.
struct FileOwner;

impl FileOwner {
    fn become_(uid: u32) -> Self {
        nix::unistd::setfsuid(uid.into());
        Self
    }
}

impl Drop for FileOwner {
    fn drop(&mut self) {
        nix::unistd::setfsuid(0.into());
    }
}

impl Caller {
    fn of(thread: u32, owner: IdRange, init: i32) -> io::Result<Self> {
        let file = |name: &str| format!("/proc/{thread}/{name}");
        let memory = File::options().read(true).write(true).open(file("mem"))?;
        let root = open(file("root"), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let status = std::fs::read_to_string(file("status"))?;
        let user_namespace = |path: String| std::fs::metadata(path).map(|meta| meta.ino());
        let is_of_the_container = user_namespace(file("ns/user"))? == user_namespace(format!("/proc/{init}/ns/user"))?;
        let rights = Credentials::parse(&status, owner, is_of_the_container);
        Ok(Self { memory, root, rights })
    }
}

impl Credentials {
    /// Who lives in a namespace made inside is nobody here: his numbers are others than the container's, and the kernel would refuse him too.
    fn parse(status: &str, owner: IdRange, is_of_the_container: bool) -> Self {
        let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let inside = |word: &str, base: u32| {
            let number = word.parse::<u32>().ok()?.checked_sub(base)?;
            (is_of_the_container && number < owner.count).then_some(number)
        };
        let effective = u64::from_str_radix(line("CapEff:").trim(), 16).unwrap_or(0);
        let group = line("Gid:").split_whitespace().nth(1).into_iter();
        Self {
            is_administrator: is_of_the_container && effective & Capability::CAP_SYS_ADMIN.bitmask() != 0,
            user: line("Uid:").split_whitespace().nth(1).and_then(|word| inside(word, owner.uid)),
            groups: group
                .chain(line("Groups:").split_whitespace())
                .filter_map(|word| inside(word, owner.gid))
                .collect(),
        }
    }

    /// `check_quotactl_permission` of fs/quota/quota.c.
    fn check(&self, call: &Call, id: u32) -> Result<(), Errno> {
        let is_own = match call.kind() {
            Kind::User => self.user == Some(id),
            Kind::Group => self.groups.contains(&id),
        };
        match call.rights() {
            Rights::Anybody => Ok(()),
            Rights::Owner if is_own => Ok(()),
            _ if self.is_administrator => Ok(()),
            _ => Err(Errno::PERM),
        }
    }
}

/// A string in somebody's memory, with no more of that read than there is before its end.
fn read_string(memory: &File, address: u64) -> Result<Vec<u8>, Errno> {
    const PAGE_BYTES: u64 = 4096;
    let mut string = Vec::new();
    let mut at = address;
    while string.len() < MOST_PATH_BYTES {
        // Up to the end of a page: what comes after it may not be there.
        let mut chunk = vec![0; usize::try_from(PAGE_BYTES - at % PAGE_BYTES).map_err(|_| Errno::FAULT)?];
        memory.read_exact_at(&mut chunk, at).map_err(|_| Errno::FAULT)?;
        if let Some(end) = chunk.iter().position(|byte| *byte == 0) {
            string.extend_from_slice(&chunk[..end]);
            return match string.len() {
                0 => Err(Errno::NOENT),
                n if n < MOST_PATH_BYTES => Ok(string),
                _ => Err(Errno::NAMETOOLONG),
            };
        }
        at = at.checked_add(chunk.len() as u64).ok_or(Errno::FAULT)?;
        string.append(&mut chunk);
    }
    Err(Errno::NAMETOOLONG)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    const OWNER: IdRange = IdRange { uid: 100_000, gid: 200_000, count: 65_536 };
    const STATUS: &str = "Name:\tx\nUid:\t101000\t101001\t101000\t101000\nGid:\t200005\t200006\t200005\t200005\n\
                          Groups:\t200010 200011 7 \nCapEff:\t0000000000000000\n";

    fn get(kind: u32) -> Call {
        Call::parse(0x80_0007 << 8 | kind).unwrap()
    }

    #[test]
    fn a_user_may_look_at_his_own_and_his_groups() {
        let him = Credentials::parse(STATUS, OWNER, true);
        assert_eq!(him, Credentials { is_administrator: false, user: Some(1001), groups: vec![6, 10, 11] });
        assert_eq!(him.check(&get(0), 1001), Ok(()));
        assert_eq!(him.check(&get(0), 1000), Err(Errno::PERM));
        assert_eq!(him.check(&get(1), 11), Ok(()));
        assert_eq!(him.check(&get(1), 7), Err(Errno::PERM), "a group of the host's is none of the container's");
        assert_eq!(him.check(&Call::parse(0x80_0008 << 8).unwrap(), 1001), Err(Errno::PERM), "looking is not setting");
        assert_eq!(him.check(&Call::parse(0x80_0005 << 8).unwrap(), 0), Ok(()));
    }

    #[test]
    fn root_is_who_has_the_capability_in_the_containers_own_namespace() {
        let root = STATUS.replace("CapEff:\t0000000000000000", "CapEff:\t000001ffffffffff");
        assert!(Credentials::parse(&root, OWNER, true).is_administrator);
        let nested = Credentials::parse(&root, OWNER, false);
        assert_eq!(nested, Credentials { is_administrator: false, user: None, groups: vec![] });
        let without = STATUS.replace("CapEff:\t0000000000000000", "CapEff:\t000001ffffdfffff");
        assert!(!Credentials::parse(&without, OWNER, true).is_administrator);
    }

    #[test]
    fn a_string_is_read_to_its_end_and_no_further() {
        let mut memory = tempfile::tempfile().unwrap();
        let mut bytes = vec![0; 4090];
        bytes.extend_from_slice(b"/dev/simfs\0");
        bytes.resize(8192, b'x');
        memory.write_all(&bytes).unwrap();
        assert_eq!(read_string(&memory, 4090), Ok(b"/dev/simfs".to_vec()), "over the end of a page");
        assert_eq!(read_string(&memory, 0), Err(Errno::NOENT));
        assert_eq!(read_string(&memory, 5000), Err(Errno::FAULT), "its end is not there");
        assert_eq!(read_string(&memory, u64::MAX), Err(Errno::FAULT));
        memory.write_all(&[b'x'; 8192]).unwrap();
        assert_eq!(read_string(&memory, 5000), Err(Errno::NAMETOOLONG));
    }

    proptest! {
        #[test]
        fn no_status_makes_an_administrator_of_who_lacks_the_capability(text: String, uid: u32, gid: u32) {
            let seen = Credentials::parse(&text, IdRange { uid, gid, count: 65_536 }, true);
            prop_assert!(!seen.is_administrator || text.contains("CapEff:"));
            prop_assert!(seen.user.is_none_or(|id| id < 65_536) && seen.groups.iter().all(|id| *id < 65_536));
        }

        #[test]
        fn arguments_of_any_kind_are_taken_apart(args: [u64; 6], fd: bool, is_32bit: bool) {
            let asked = Asked::new(CALLS[usize::from(fd)], 1, args, is_32bit);
            prop_assert_eq!(asked.id, args[2] as u32);
            prop_assert!(!fd || matches!(asked.target, Target::Descriptor(_)));
        }
    }
}
