//! The few facts of an ext4 superblock that decide what may be done with an image (kernel, `Documentation/filesystems/ext4/super.rst`).

use std::os::fd::AsFd;

use rustix::io::Errno;

use crate::geometry::Layout;

const OFFSET: u64 = 1024;
const LENGTH: usize = 1024;
const MAGIC: u16 = 0xEF53;
const STATE_ERROR: u16 = 2;
const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_64BIT: u32 = 0x80;
const RO_COMPAT_QUOTA: u32 = 0x100;

/// What a superblock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) block_size: u64,
    pub(crate) layout: Layout,
    /// The kernel found an inconsistency and nobody has checked since. Not the same as "not cleanly unmounted": the journal heals that.
    pub(crate) has_errors: bool,
    /// There is something in the journal, and programs that change the file system want it replayed first.
    pub(crate) needs_recovery: bool,
    /// It keeps the usage and limits of its users and groups in hidden files.
    pub(crate) has_quota: bool,
}

impl Superblock {
    /// Reads the superblock of an image file, or of the device it is attached to; `Ok(None)` when there is no ext4.
    pub(crate) fn read(image: impl AsFd) -> Result<Option<Superblock>, Errno> {
        let mut bytes = [0; LENGTH];
        let length = rustix::io::pread(image, &mut bytes, OFFSET)?;
        Ok(if length == LENGTH { Superblock::parse(&bytes) } else { None })
    }

    fn parse(bytes: &[u8; LENGTH]) -> Option<Superblock> {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        let log_block_size = u32_at(0x18);
        // Block sizes go from 1 to 64 KiB.
        if u16_at(0x38) != MAGIC || log_block_size > 6 {
            return None;
        }
        let incompat = u32_at(0x60);
        let high = if incompat & INCOMPAT_64BIT == 0 { 0 } else { u64::from(u32_at(0x150)) };
        Some(Superblock {
            block_size: 1024 << log_block_size,
            layout: Layout {
                blocks: high << 32 | u64::from(u32_at(0x04)),
                overhead_blocks: u64::from(u32_at(0x248)),
                blocks_per_group: u64::from(u32_at(0x20)),
                inodes_per_group: u64::from(u32_at(0x28)),
            },
            has_errors: u16_at(0x3A) & STATE_ERROR != 0 || u32_at(0x194) != 0,
            needs_recovery: incompat & INCOMPAT_RECOVER != 0,
            has_quota: u32_at(0x64) & RO_COMPAT_QUOTA != 0,
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that fails here has failed")]
mod tests {
    use super::*;

    fn superblock() -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[0x04..0x08].copy_from_slice(&0x8000_u32.to_le_bytes());
        bytes[0x18] = 2;
        bytes[0x38..0x3A].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[0x3A] = 1;
        bytes[0x20..0x24].copy_from_slice(&32_768_u32.to_le_bytes());
        bytes[0x28..0x2C].copy_from_slice(&800_u32.to_le_bytes());
        bytes[0x248] = 77;
        bytes
    }

    #[test]
    fn a_superblock_gives_the_size() {
        let parsed = Superblock::parse(&superblock()).unwrap();
        let layout = Layout { blocks: 0x8000, overhead_blocks: 77, blocks_per_group: 32_768, inodes_per_group: 800 };
        let plain = Superblock { block_size: 4096, layout, has_errors: false, needs_recovery: false, has_quota: false };
        assert_eq!(parsed, plain);
    }

    #[test]
    fn the_upper_half_of_the_size_counts_only_with_the_64bit_feature() {
        let mut bytes = superblock();
        bytes[0x150] = 1;
        assert_eq!(Superblock::parse(&bytes).unwrap().layout.blocks, 0x8000);
        bytes[0x60] = 0x80;
        assert_eq!(Superblock::parse(&bytes).unwrap().layout.blocks, (1 << 32) | 0x8000);
    }

    #[test]
    fn errors_are_seen_in_the_state_and_in_the_counter() {
        let mut state = superblock();
        state[0x3A] = 1 | 2;
        let mut counter = superblock();
        counter[0x194] = 1;
        assert!(Superblock::parse(&state).unwrap().has_errors);
        assert!(Superblock::parse(&counter).unwrap().has_errors);
    }

    #[test]
    fn a_journal_to_replay_and_quotas_are_seen_in_the_features() {
        let mut bytes = superblock();
        bytes[0x60] = 0x4;
        bytes[0x65] = 0x1;
        let parsed = Superblock::parse(&bytes).unwrap();
        assert!(parsed.needs_recovery && parsed.has_quota);
    }

    #[test]
    fn what_is_no_ext4_is_none() {
        let mut odd = superblock();
        odd[0x18] = 7;
        assert_eq!(Superblock::parse(&odd), None);
        assert_eq!(Superblock::parse(&[0; LENGTH]), None);
    }
}
