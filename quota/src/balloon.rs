//! Space taken away from an image and given back: to the host by discarding what is free, from the container by a balloon.
//!
//! ext4 cannot shrink while it is mounted. So a smaller limit is made true by a file that takes the difference and is never written: blocks
//! that the file system has given away and the host has not. It lies in the image's top directory, while the container's root, or the upper
//! layer of it, is a directory beside it ([`ROOT`]) that alone is mounted for it: no path inside leads there.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FallocateFlags, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use crate::call::{CallError, Called};
use crate::image::{self, BLOCK_BYTES, Error, Grown, Size};
use crate::loopdev::{Image, Loop};
use crate::sys;

/// The directory of an image that is a container's root.
pub const ROOT: &str = "fs";

const BALLOON: &str = "balloon";

/// The first number beyond those of a container's users: quota of users inside does not count the balloon as somebody's.
const OWNER: u32 = 65_536;

/// How an image was fitted to a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// It had the limit already.
    Unchanged,
    /// The file system has grown.
    Grown,
    /// The balloon takes less than before.
    Deflated,
    /// The balloon takes more than before.
    Inflated,
}

/// Makes the limit of an image what `limit` says: what is there to be had, whether the image is mounted or not. What its files hold is never
/// touched. The image has that size then, or is larger and has a balloon of the difference.
///
/// # Errors
/// [`Error::Full`] where files take more than that; those of [`image::grow`] and [`image::mount`].
pub fn fit(path: &Path, limit: Size) -> Result<Fit, Error> {
    let image = Image::open_locked(path)?;
    // The image first: one that can't grow now keeps its balloon, and with it the limit that it has.
    let grown = match image::grow_image(&image, limit) {
        Err(Error::Shrink { .. }) => Grown::Unchanged,
        grown => grown?,
    };
    let device = image.attach()?;
    let fitted = hold_to(&device, image::mount(&device)?, limit).map_err(|e| match e {
        Error::Full { asked_bytes, .. } => Error::Full { path: path.to_owned(), asked_bytes },
        e => e,
    })?;
    Ok(if grown == Grown::Unchanged { fitted } else { Fit::Grown })
}

/// Makes the balloon of an image, which is at least as large as its limit, what the limit leaves of it. `mount` is one of its top directory.
///
/// # Errors
/// As [`fit`].
pub fn hold_to(device: &Loop, mount: impl AsFd, limit: Size) -> Result<Fit, Error> {
    Top::of(device, mount)?.hold_to(device, limit)
}

/// The same, where there is a balloon. An image is made a little larger than its files' limit ([`Size::Usable`]), which is nothing to have a
/// balloon for.
///
/// # Errors
/// As [`fit`].
pub fn hold_again(device: &Loop, mount: impl AsFd, limit: Size) -> Result<Fit, Error> {
    let top = Top::of(device, mount)?;
    if top.balloon_bytes()? == 0 { Ok(Fit::Unchanged) } else { top.hold_to(device, limit) }
}

/// Makes an image that nobody uses as short as its limit, so that no balloon is needed: resize2fs(8) moves what lies beyond.
///
/// Interrupted, it leaves a file system that `e2fsck` has to mend.
///
/// # Errors
/// [`Error::InUse`]; [`Error::Program`] where files take more; [`Error::Call`].
pub fn shrink(path: &Path, limit_bytes: u64) -> Result<(), Error> {
    let image = Image::open_locked(path)?;
    if let Some(device) = image.find()? {
        return Err(Error::InUse { path: path.to_owned(), number: device.number() });
    }
    {
        let top = Top::open(&image.attach()?)?;
        top.make_balloon(top.balloon_bytes()?, 0)?;
    }
    // The kernel lets go of the device in the last close, at times a moment later.
    image.wait_until_detached()?;
    let size_bytes = limit_bytes.next_multiple_of(BLOCK_BYTES);
    image::resize_by_program(&image, size_bytes)?;
    rustix::fs::ftruncate(&image.file, size_bytes).called(|| format!("ftruncate({}, {size_bytes})", path.display()))?;
    rustix::fs::fsync(&image.file).called(|| format!("fsync({})", path.display()))?;
    Ok(())
}

/// What [`compact`] has changed, in bytes that the image takes of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    /// Before.
    pub before_bytes: u64,
    /// After.
    pub after_bytes: u64,
}

/// Gives the host back what is free inside an image, mounted or not.
///
/// # Errors
/// [`Error::Call`], [`Error::Mount`].
pub fn compact(path: &Path) -> Result<Compacted, Error> {
    let image = Image::open_locked(path)?;
    let taken = || -> Result<u64, CallError> {
        let stat = rustix::fs::fstat(&image.file).called(|| format!("fstat({})", path.display()))?;
        Ok(stat.st_blocks as u64 * 512)
    };
    let before_bytes = taken()?;
    let top = Top::open(&image.attach()?)?;
    // What was deleted a moment ago is free once the journal has it.
    rustix::fs::syncfs(&top.directory).called(|| format!("syncfs({})", path.display()))?;
    trim(&top.directory)?;
    Ok(Compacted { before_bytes, after_bytes: taken()? })
}

/// Discards what is free on the file system of `directory`, which is open for reading: on a loop device, holes in its file.
///
/// # Errors
/// [`Error::Call`].
pub fn trim(directory: impl AsFd) -> Result<(), Error> {
    sys::trim(directory).called(|| "ioctl(FITRIM)".to_owned())?;
    Ok(())
}

/// The top directory of an image, held by a mount that nobody sees.
struct Top {
    directory: OwnedFd,
}

impl Top {
    fn open(device: &Loop) -> Result<Self, Error> {
        Self::of(device, image::mount(device)?)
    }

    /// fsmount(2) gives a descriptor without access (`O_PATH`), and ioctls want one.
    fn of(device: &Loop, mount: impl AsFd) -> Result<Self, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory =
            rustix::fs::openat(mount, ".", flags, Mode::empty()).called(|| format!("openat({}, .)", device.path()))?;
        Ok(Self { directory })
    }

    fn hold_to(&self, device: &Loop, limit: Size) -> Result<Fit, Error> {
        let (has, limit_bytes) = match limit {
            Size::Image(bytes) => (image::size_bytes(device)?, bytes),
            Size::Usable(kib) => (image::usable_bytes(device)?, kib.saturating_mul(1024)),
        };
        let wanted = has.saturating_sub(limit_bytes.next_multiple_of(BLOCK_BYTES));
        let had = self.balloon_bytes()?;
        if wanted > had {
            // What was freed and never discarded would go to the balloon, and the host would not see it again.
            trim(&self.directory)?;
        }
        self.make_balloon(had, wanted).map_err(|e| match e.errno {
            Errno::NOSPC => Error::Full { path: device.path().into(), asked_bytes: limit_bytes },
            _ => e.into(),
        })
    }

    fn balloon_bytes(&self) -> Result<u64, CallError> {
        match rustix::fs::statat(&self.directory, BALLOON, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(stat.st_size as u64),
            Err(Errno::NOENT) => Ok(0),
            Err(e) => Err(e).called(|| format!("fstatat({BALLOON})")),
        }
    }

    /// Brings the balloon from `had` to `wanted` bytes; on failure it has what it had.
    fn make_balloon(&self, had: u64, wanted: u64) -> Result<Fit, CallError> {
        if had == wanted {
            return Ok(Fit::Unchanged);
        }
        if wanted == 0 {
            rustix::fs::unlinkat(&self.directory, BALLOON, AtFlags::empty())
                .called(|| format!("unlinkat({BALLOON})"))?;
            return Ok(Fit::Deflated);
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let balloon = rustix::fs::openat(&self.directory, BALLOON, flags, Mode::empty())
            .called(|| format!("openat({BALLOON}, O_CREAT)"))?;
        rustix::fs::fchown(&balloon, Some(Uid::from_raw(OWNER)), Some(Gid::from_raw(OWNER)))
            .called(|| format!("fchown({BALLOON}, {OWNER})"))?;
        if wanted < had {
            rustix::fs::ftruncate(&balloon, wanted).called(|| format!("ftruncate({BALLOON}, {wanted})"))?;
            return Ok(Fit::Deflated);
        }
        let inflated = rustix::fs::fallocate(&balloon, FallocateFlags::empty(), had, wanted - had)
            .called(|| format!("fallocate({BALLOON}, {had}, {})", wanted - had))
            .and_then(|()| rustix::fs::fsync(&balloon).called(|| format!("fsync({BALLOON})")));
        if let Err(e) = inflated {
            // It holds what it got until there was no more.
            File::from(balloon)
                .set_len(had)
                .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))
                .called(|| format!("ftruncate({BALLOON}, {had}) after {e}"))?;
            return Err(e);
        }
        Ok(Fit::Inflated)
    }
}
