//! How large an image must be for its files to have a given space: the layout of ext4, as far as it takes blocks from them.
//!
//! Per group of 128 MiB two bitmaps and a piece of the inode table; in some groups a copy of the superblock and of the group descriptors,
//! with room for these to grow; once the journal (kernel, `Documentation/filesystems/ext4/{group_descr,journal}.rst`).

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Block size of every image.
pub const BLOCK_BYTES: u64 = 4096;

const BLOCKS_PER_GROUP: u64 = 32_768;
const INODES_PER_BLOCK: u64 = BLOCK_BYTES / 256;
const DESCRIPTORS_PER_BLOCK: u64 = BLOCK_BYTES / 64;
/// mke2fs keeps room for descriptors of a file system 1024 times as large, within the reach of one indirect block.
const GROWTH: u64 = 1024;
const MAX_RESERVED_DESCRIPTOR_BLOCKS: u64 = 1024;
/// A last group with fewer blocks for files than this is left out (mke2fs and the kernel: 50).
const LAST_GROUP_FILES: u64 = 64;

/// How large an image is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Size {
    /// The image as a whole, in bytes: `DISKSPACE` of the `ploop` layout.
    Image(u64),
    /// What df(1) shows as the size, in KiB: `DISKSPACE` of the `simfs` layout, where a limit was on files alone. The image is larger, by
    /// the journal and tables of ext4.
    Usable(u64),
}

impl Size {
    /// Blocks of a new image.
    pub(crate) fn blocks(self, inodes: u64) -> u64 {
        match self {
            Size::Image(bytes) => bytes.div_ceil(BLOCK_BYTES),
            Size::Usable(kib) => image_blocks(kib.div_ceil(BLOCK_BYTES / 1024), inodes),
        }
    }

    /// Blocks of an image that exists.
    pub(crate) fn blocks_grown(self, now: &Layout) -> u64 {
        match self {
            Size::Image(bytes) => bytes.div_ceil(BLOCK_BYTES),
            Size::Usable(kib) => now.grown(kib.div_ceil(BLOCK_BYTES / 1024)),
        }
    }
}

/// Journal of an image, in MiB. As mke2fs has it up to 128 MiB; a GiB for a large disk, as mke2fs would take, no container needs.
pub(crate) fn journal_mib(blocks: u64) -> u64 {
    match blocks.saturating_mul(BLOCK_BYTES) >> 20 {
        0..128 => 4,
        128..1024 => 16,
        1024..2048 => 32,
        2048..4096 => 64,
        _ => 128,
    }
}

/// The smallest image whose files have so many blocks, or a little more.
fn image_blocks(usable: u64, inodes: u64) -> u64 {
    let blocks = settle(usable, |blocks| overhead(blocks, inodes));
    // mke2fs leaves out a last group without room for its tables and some files.
    let groups = blocks.div_ceil(BLOCKS_PER_GROUP);
    let last = groups.saturating_sub(1);
    let least = inode_table(blocks, inodes) + 2 + copies(last..groups) * copy_blocks(blocks) + LAST_GROUP_FILES;
    match blocks - last * BLOCKS_PER_GROUP {
        short if short < least => blocks + least - short,
        _ => blocks,
    }
}

/// Blocks of the inode table of each group; mke2fs rounds the inodes of a group up to whole blocks.
fn inode_table(blocks: u64, inodes: u64) -> u64 {
    inodes.min(blocks).div_ceil(blocks.div_ceil(BLOCKS_PER_GROUP).max(1)).div_ceil(INODES_PER_BLOCK)
}

/// The least number of blocks that is `usable` and what such a number needs for itself; that grows too, but much more slowly.
fn settle(usable: u64, overhead: impl Fn(u64) -> u64) -> u64 {
    let mut blocks = usable;
    loop {
        let needed = usable.saturating_add(overhead(blocks));
        if needed <= blocks {
            return blocks;
        }
        blocks = needed;
    }
}

fn overhead(blocks: u64, inodes: u64) -> u64 {
    let groups = blocks.div_ceil(BLOCKS_PER_GROUP);
    let journal = (journal_mib(blocks) << 20) / BLOCK_BYTES;
    journal + groups * (inode_table(blocks, inodes) + 2) + copies(0..groups) * copy_blocks(blocks)
}

/// How many of these groups have a copy of the superblock.
fn copies(groups: Range<u64>) -> u64 {
    groups.filter(|group| has_superblock(*group)).count() as u64
}

/// Blocks of a superblock with its descriptors.
fn copy_blocks(blocks: u64) -> u64 {
    let descriptor_blocks = |blocks: u64| blocks.div_ceil(BLOCKS_PER_GROUP).div_ceil(DESCRIPTORS_PER_BLOCK);
    let now = descriptor_blocks(blocks);
    let reserved = descriptor_blocks(blocks.saturating_mul(GROWTH)).saturating_sub(now);
    1 + now + reserved.min(MAX_RESERVED_DESCRIPTOR_BLOCKS)
}

/// `sparse_super`: groups 0, 1 and the powers of 3, 5 and 7 have a copy.
fn has_superblock(group: u64) -> bool {
    let is_power_of = |base: u64| {
        let mut power = base;
        while power < group {
            power *= base;
        }
        power == group
    };
    group <= 1 || [3, 5, 7].into_iter().any(is_power_of)
}

/// The layout of an image that exists, from its superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) blocks: u64,
    pub(crate) overhead_blocks: u64,
    pub(crate) blocks_per_group: u64,
    pub(crate) inodes_per_group: u64,
}

impl Layout {
    /// How many blocks the image needs for its files to have `usable`; no fewer than it has.
    fn grown(&self, usable: u64) -> u64 {
        let missing = usable.saturating_sub(self.blocks.saturating_sub(self.overhead_blocks));
        if missing == 0 {
            return self.blocks;
        }
        let per_group = self.blocks_per_group.max(1);
        let own = self.inodes_per_group.div_ceil(INODES_PER_BLOCK) + 2;
        let groups_now = self.blocks.div_ceil(per_group);
        settle(self.blocks.saturating_add(missing), |blocks| {
            let groups = blocks.div_ceil(per_group);
            LAST_GROUP_FILES + (groups - groups_now) * own + copies(groups_now..groups) * copy_blocks(blocks)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_the_superblock_are_where_ext4_has_them() {
        let with: Vec<u64> = (0..100).filter(|group| has_superblock(*group)).collect();
        assert_eq!(with, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81]);
    }

    #[test]
    fn overhead_is_what_mke2fs_reports() {
        // `dumpe2fs -h`: "Overhead clusters" of 576512 blocks with 8016 inodes in a group and a journal of 64 MiB.
        assert_eq!(overhead(576_512, 144_190), 27_136);
    }

    #[test]
    fn an_image_is_larger_than_what_its_files_have() {
        assert_eq!(Size::Image(1 << 30).blocks(1000), 262_144);
        assert_eq!(Size::Image((1 << 30) + 1).blocks(1000), 262_145);
        let blocks = Size::Usable(1 << 20).blocks(65_536);
        assert_eq!(blocks - overhead(blocks, 65_536), 262_144);
    }

    #[test]
    fn an_image_that_has_the_space_stays_as_it_is() {
        let now = Layout { blocks: 576_512, overhead_blocks: 27_136, blocks_per_group: 32_768, inodes_per_group: 8016 };
        assert_eq!(Size::Usable(549_376 * 4).blocks_grown(&now), 576_512);
        assert!(Size::Usable(549_377 * 4).blocks_grown(&now) > 576_512);
    }
}
