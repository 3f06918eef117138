//! The size of a container's private area, held to its limit by what the host has.
//!
//! * [`limits`] – `DISKSPACE`, `DISKINODES` and `QUOTATIME` as types, their spellings, and the limits that follow from them. No effects.
//! * [`project`] – project quota of ext4 and xfs: a limit on a directory tree of a shared file system.
//! * [`owned`] – which project a private area is, and a free number for a new one.
//! * [`image`] – a file system of the container's own, in a file, on a loop device. For the `ploop` layout, and for `simfs` where the
//!   host's kernel or file system has no project quota: the size of the image is then the limit.
//! * [`users`] – the second level: quotas of users and groups inside an area that is a file system of its own.
//! * [`journal`] – whether a file system keeps its counts through a power cut.
//! * [`quotactl`] – the system call by which somebody inside asks for those, as a value. No effects.
//!
//! Both ways of the first level count what is allocated, not what files claim to be long, so holes, hard links and files deleted while open are charged
//! as they are on disk; both bound the number of inodes as well.

mod balloon;
mod call;
mod copy;
mod geometry;
pub mod image;
pub mod journal;
pub mod limits;
mod loopdev;
pub mod owned;
pub mod project;
pub mod quotactl;
mod superblock;
mod sys;
mod tree;
pub mod users;

pub use call::CallError;
pub use limits::{DiskLimits, EffectiveLimits, Limit, SoftHard};
