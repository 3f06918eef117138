//! quotactl(2) as somebody else asks it: what a command word means, who may give it, and what structure goes in or comes out.
//!
//! For whoever answers the call on behalf of the kernel. Numbers, sizes and rights are those of `uapi/linux/{quota,dqblk_xfs}.h` and of
//! `check_quotactl_permission` in `fs/quota/quota.c` (Linux 6.12; the same since 4.6). No effects here.

use rustix::io::Errno;

/// Whose quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Of users.
    User,
    /// Of groups.
    Group,
}

impl Kind {
    /// The number that the kernel has for it.
    pub(crate) const fn number(self) -> u32 {
        match self {
            Kind::User => 0,
            Kind::Group => 1,
        }
    }
}

/// Who may give a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// Everybody.
    Anybody,
    /// Whose quota it is, and the administrator.
    Owner,
    /// Who has `CAP_SYS_ADMIN`.
    Administrator,
}

/// Room for the largest structure of any command.
pub const LARGEST_BYTES: usize = 160;

/// What is the same for all calls of a command.
#[derive(Debug, PartialEq, Eq)]
struct Command {
    number: u32,
    rights: Rights,
    /// The third argument is the number of a user or a group.
    has_id: bool,
    /// Bytes that the kernel reads.
    reads: usize,
    /// Bytes that it writes.
    fills: usize,
}

const fn command(number: u32, rights: Rights, has_id: bool, reads: usize, fills: usize) -> Command {
    Command { number, rights, has_id, reads, fills }
}

const fn xfs(number: u32) -> u32 {
    ((b'X' as u32) << 8) + number
}

const SYNC: u32 = 0x80_0001;
pub(crate) const QUOTAON: u32 = 0x80_0002;
const SETQUOTA: u32 = 0x80_0008;
const GETNEXTQUOTA: u32 = 0x80_0009;
const XQUOTAON: u32 = xfs(1);
const XQUOTAOFF: u32 = xfs(2);
const XSETQLIM: u32 = xfs(4);
const XGETQSTAT: u32 = xfs(5);
const XGETNEXTQUOTA: u32 = xfs(9);

/// `struct if_dqblk`, and `struct if_nextdqblk`.
const DQBLK: usize = 72;
/// `struct if_dqinfo`.
const DQINFO: usize = 24;
/// `struct fs_disk_quota`.
const DISK_QUOTA: usize = 112;

const COMMANDS: &[Command] = {
    use Rights::{Administrator, Anybody, Owner};
    &[
        command(SYNC, Anybody, false, 0, 0),
        // What it reads is the path of a file, which a file system that keeps its quotas in itself does not look at.
        command(QUOTAON, Administrator, false, 0, 0),
        command(0x80_0003, Administrator, false, 0, 0),      // Q_QUOTAOFF
        command(0x80_0004, Anybody, false, 0, 4),            // Q_GETFMT
        command(0x80_0005, Anybody, false, 0, DQINFO),       // Q_GETINFO
        command(0x80_0006, Administrator, false, DQINFO, 0), // Q_SETINFO
        command(0x80_0007, Owner, true, 0, DQBLK),           // Q_GETQUOTA
        command(SETQUOTA, Administrator, true, DQBLK, 0),
        command(GETNEXTQUOTA, Administrator, true, 0, DQBLK),
        command(XQUOTAON, Administrator, false, 4, 0),
        command(XQUOTAOFF, Administrator, false, 4, 0),
        command(xfs(3), Owner, true, 0, DISK_QUOTA), // Q_XGETQUOTA
        command(XSETQLIM, Administrator, true, DISK_QUOTA, 0),
        command(XGETQSTAT, Anybody, false, 0, 80),
        command(xfs(6), Administrator, false, 4, 0), // Q_XQUOTARM
        command(xfs(7), Anybody, false, 0, 0),       // Q_XQUOTASYNC
        command(xfs(8), Anybody, false, 8, 160),     // Q_XGETQSTATV, which reads the version it is to fill
        command(XGETNEXTQUOTA, Administrator, true, 0, DISK_QUOTA),
    ]
};

/// What the kernel does with a command that it does not know: only the administrator is told so.
const UNKNOWN: Command = command(0, Rights::Administrator, false, 0, 0);

/// The flags of users and groups in what `Q_XQUOTAON` and `Q_XQUOTAOFF` read (`FS_QUOTA_{UDQ,GDQ}_{ACCT,ENFD}`).
const USERS_AND_GROUPS: u32 = 0xF;

/// The meaning of a command word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    command: &'static Command,
    kind: Kind,
}

impl Call {
    /// Takes a command word apart: `QCMD(command, kind)`.
    ///
    /// # Errors
    /// `EINVAL` for quotas of anything but users and groups.
    pub fn parse(word: u32) -> Result<Call, Errno> {
        let kind = match word & 0xFF {
            0 => Kind::User,
            1 => Kind::Group,
            _ => return Err(Errno::INVAL),
        };
        let command = COMMANDS.iter().find(|command| command.number == word >> 8).unwrap_or(&UNKNOWN);
        Ok(Call { command, kind })
    }

    /// The word again.
    pub(crate) fn word(&self) -> u32 {
        self.command.number << 8 | self.kind.number()
    }

    /// Whose quotas it is about.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Who may call.
    #[must_use]
    pub fn rights(&self) -> Rights {
        self.command.rights
    }

    /// Whether it is about one user or group, or begins with one.
    #[must_use]
    pub fn has_id(&self) -> bool {
        self.command.has_id
    }

    /// Whether it writes down what the kernel has in memory, which is the one thing that can be asked of no device in particular.
    #[must_use]
    pub fn is_sync(&self) -> bool {
        self.command.number == SYNC
    }

    /// Whether the kernel knows it, and an ext4 can do it for this caller.
    ///
    /// # Errors
    /// The errno that ext4 gives: `EINVAL` for no command, `ENOSYS` for freeing the space of switched off quotas. And `ENOSYS` for the one
    /// structure that 32-bit programs have in another layout: they all have the newer command for it.
    pub fn check(&self, is_32bit: bool) -> Result<(), Errno> {
        match self.command.number {
            0 => Err(Errno::INVAL),
            number if number == xfs(6) => Err(Errno::NOSYS),
            XGETQSTAT if is_32bit => Err(Errno::NOSYS),
            _ => Ok(()),
        }
    }

    /// Bytes of the caller's structure that are read. 32-bit x86 has no padding after the last field of `struct if_dqblk`.
    #[must_use]
    pub fn reads(&self, is_32bit: bool) -> usize {
        if is_32bit && self.command.number == SETQUOTA { DQBLK - 4 } else { self.command.reads }
    }

    /// Bytes that are written there.
    #[must_use]
    pub fn fills(&self, is_32bit: bool) -> usize {
        let padded = self.command.fills == DQBLK && self.command.number != GETNEXTQUOTA;
        if is_32bit && padded { DQBLK - 4 } else { self.command.fills }
    }

    /// Whether what the caller gave may go to the kernel: nobody but the host's administrator switches the quota of projects.
    ///
    /// # Errors
    /// `EINVAL`.
    pub fn check_input(&self, structure: &[u8]) -> Result<(), Errno> {
        match (self.command.number, u32_at(structure, 0)) {
            (XQUOTAON | XQUOTAOFF, flags) if flags & !USERS_AND_GROUPS != 0 => Err(Errno::INVAL),
            _ => Ok(()),
        }
    }

    /// Whether what the caller gave sets a limit, rather than takes one away or changes something else.
    #[must_use]
    pub fn limits(&self, structure: &[u8]) -> bool {
        let any = |fields: &[usize]| fields.iter().any(|at| u64_at(structure, *at) != 0);
        match self.command.number {
            SETQUOTA => any(&[0, 8, 24, 32]),
            XSETQLIM => any(&[8, 16, 24, 32]),
            _ => false,
        }
    }

    /// The user or group that was found, of a command that looks for the next one.
    #[must_use]
    pub fn found(&self, structure: &[u8]) -> Option<u32> {
        match self.command.number {
            GETNEXTQUOTA => Some(u32_at(structure, 68)),
            XGETNEXTQUOTA => Some(u32_at(structure, 4)),
            _ => None,
        }
    }
}

fn u32_at(structure: &[u8], at: usize) -> u32 {
    structure.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

fn u64_at(structure: &[u8], at: usize) -> u64 {
    structure.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_ne_bytes)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that fails here has failed")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn call(number: u32, kind: u32) -> Result<Call, Errno> {
        Call::parse(number << 8 | kind)
    }

    #[test]
    fn a_command_is_known_with_its_rights_and_sizes() {
        let get = call(0x80_0007, 1).unwrap();
        assert_eq!((get.kind(), get.rights(), get.has_id()), (Kind::Group, Rights::Owner, true));
        assert_eq!((get.reads(false), get.fills(false), get.fills(true)), (0, 72, 68));
        let set = call(SETQUOTA, 0).unwrap();
        assert_eq!(
            (set.rights(), set.reads(false), set.reads(true), set.fills(false)),
            (Rights::Administrator, 72, 68, 0)
        );
        assert_eq!(call(GETNEXTQUOTA, 0).unwrap().fills(true), 72, "its last field is where the other has padding");
        assert_eq!(set.word(), SETQUOTA << 8);
    }

    #[test]
    fn quotas_of_projects_are_not_to_be_had() {
        assert_eq!(call(0x80_0007, 2), Err(Errno::INVAL));
        assert_eq!(call(0x80_0007, 255), Err(Errno::INVAL));
        let on = call(XQUOTAON, 0).unwrap();
        assert_eq!(on.check_input(&0x3_u32.to_ne_bytes()), Ok(()));
        assert_eq!(on.check_input(&0x30_u32.to_ne_bytes()), Err(Errno::INVAL));
    }

    #[test]
    fn what_is_no_command_is_the_administrators_to_hear_of() {
        let unknown = call(0x80_0063, 0).unwrap();
        assert_eq!((unknown.rights(), unknown.check(false)), (Rights::Administrator, Err(Errno::INVAL)));
        assert_eq!(call(xfs(6), 0).unwrap().check(false), Err(Errno::NOSYS));
        assert_eq!(call(XGETQSTAT, 0).unwrap().check(true), Err(Errno::NOSYS));
    }

    #[test]
    fn a_limit_is_told_from_what_takes_one_away() {
        let set = call(SETQUOTA, 0).unwrap();
        let mut structure = [0; 72];
        assert!(!set.limits(&structure));
        structure[24] = 1;
        assert!(set.limits(&structure), "a hard limit of inodes");
        structure[24] = 0;
        structure[16] = 1;
        assert!(!set.limits(&structure), "space that is used");
    }

    proptest! {
        #[test]
        fn no_word_makes_a_call_that_does_not_fit(word: u32, structure: [u8; LARGEST_BYTES]) {
            if let Ok(call) = Call::parse(word) {
                prop_assert!(call.reads(false) <= LARGEST_BYTES && call.fills(false) <= LARGEST_BYTES);
                prop_assert!(call.check(false).is_err() || call.word() == word);
                let _ = (call.check_input(&structure), call.limits(&structure), call.found(&structure));
                prop_assert!(call.rights() != Rights::Owner || call.has_id());
            }
        }
    }
}
