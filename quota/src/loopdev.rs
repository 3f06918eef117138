//! Loop devices: one image, one device.
//!
//! An ext4 mounted through two loop devices destroys itself, and the kernel does not prevent it. So whoever attaches holds a lock on the
//! image file while looking for a device that already has it, by device and inode number: names lie once a file is renamed or linked.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Access, AtFlags, Dir, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::call::{CallError, Called};
use crate::sys::{self, LoopInfo};

/// Device sector size. Our images have 4 KiB blocks, and direct I/O needs sectors no smaller than those of the disk below: with 4 KiB it
/// works on every disk.
const SECTOR_BYTES: u32 = 4096;

/// How often another process may take "the free device" before us: as often as containers start at once, and then some.
const RACES: u32 = 128;

/// How long the kernel may take to detach a device that nobody uses; milliseconds are usual.
const DETACHING: Duration = Duration::from_secs(10);

/// An image attached to a loop device. The kernel detaches it when the last user is gone: this value, and mounts made from it.
#[derive(Debug)]
pub struct Loop {
    device: OwnedFd,
    number: u32,
    reused: bool,
}

impl Loop {
    /// The device's number N of `/dev/loopN`.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Path of the block device.
    pub fn path(&self) -> String {
        format!("/dev/loop{}", self.number)
    }

    /// Whether the image was attached already, by another process or a mount.
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    pub(crate) fn update_capacity(&self) -> Result<(), CallError> {
        sys::loop_set_capacity(self).called(|| format!("ioctl({}, LOOP_SET_CAPACITY)", self.path()))
    }
}

impl AsFd for Loop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

/// An image file. Opened with the lock, nobody else attaches, checks or resizes it while this value lives.
pub(crate) struct Image<'a> {
    pub(crate) file: OwnedFd,
    pub(crate) path: &'a Path,
    device: u64,
    inode: u64,
}

impl<'a> Image<'a> {
    /// Without the lock: for looking only.
    pub(crate) fn open(path: &'a Path) -> Result<Image<'a>, CallError> {
        // A symbolic link would be another file tomorrow.
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = rustix::fs::open(path, flags, Mode::empty())
            .called(|| format!("open({}, O_RDWR|O_NOFOLLOW)", path.display()))?;
        Image::of(file, path)
    }

    /// A file that is open already; `path` is what it is called.
    pub(crate) fn of(file: OwnedFd, path: &'a Path) -> Result<Image<'a>, CallError> {
        let stat = rustix::fs::fstat(&file).called(|| format!("fstat({})", path.display()))?;
        Ok(Image { file, path, device: stat.st_dev, inode: stat.st_ino })
    }

    /// With the lock; waits for whoever has it.
    pub(crate) fn open_locked(path: &'a Path) -> Result<Image<'a>, CallError> {
        let image = Image::open(path)?;
        rustix::fs::flock(&image.file, FlockOperation::LockExclusive)
            .called(|| format!("flock({}, LOCK_EX)", path.display()))?;
        Ok(image)
    }

    /// The device that has this image, if one has.
    pub(crate) fn find(&self) -> Result<Option<Loop>, CallError> {
        // A loop device keeps its file open. Asking first spares a host with hundreds of containers the search, 20 µs for each of them.
        if sys::is_open_only_here(self.file.as_fd()) == Some(true) {
            return Ok(None);
        }
        // The directory `loop` exists below attached devices only, so idle ones cost no open.
        let block = rustix::fs::open("/sys/block", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .called(|| "open(/sys/block)".to_owned())?;
        for entry in Dir::read_from(&block).called(|| "open(/sys/block)".to_owned())? {
            let entry = entry.called(|| "getdents64(/sys/block)".to_owned())?;
            let number = entry.file_name().to_str().ok().and_then(|name| name.strip_prefix("loop")?.parse().ok());
            let Some(number) = number else { continue };
            if rustix::fs::accessat(&block, format!("loop{number}/loop"), Access::EXISTS, AtFlags::empty()).is_err() {
                continue;
            }
            // Between the listing and here a device may be detached: then there is nothing to open, or no status.
            let device = match open_device(number, OFlags::RDONLY) {
                Ok(device) => device,
                Err(CallError { errno: Errno::NXIO | Errno::NOENT, .. }) => continue,
                Err(error) => return Err(error),
            };
            match sys::loop_status(&device) {
                Ok(info) if info.device == self.device && info.inode == self.inode => {
                    return Ok(Some(Loop { device, number, reused: true }));
                }
                Ok(_) | Err(Errno::NXIO) => {}
                Err(errno) => return Err(errno).called(|| format!("ioctl(/dev/loop{number}, LOOP_GET_STATUS64)")),
            }
        }
        Ok(None)
    }

    /// Waits until no device has this image, for who has just let go of the last: the kernel detaches it in the close, at times a moment
    /// later.
    pub(crate) fn wait_until_detached(&self) -> Result<(), CallError> {
        match self.still_attached(DETACHING)? {
            None => Ok(()),
            Some(device) => {
                Err(Errno::BUSY).called(|| format!("detaching {} from {}", self.path.display(), device.path()))
            }
        }
    }

    /// The device that still has this image after so long; `None` as soon as none has.
    pub(crate) fn still_attached(&self, patience: Duration) -> Result<Option<Loop>, CallError> {
        let deadline = Instant::now() + patience;
        while let Some(device) = self.find()? {
            if Instant::now() > deadline {
                return Ok(Some(device));
            }
            drop(device);
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(None)
    }

    /// The same file through a description of its own: a loop device keeps the one it is given, and a lock on it, while it is attached.
    fn reopen(&self) -> Result<OwnedFd, CallError> {
        let link = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        rustix::fs::open(&link, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .called(|| format!("open({link}, O_RDWR)"))
    }

    /// The device that has this image, or a free one that now has it.
    pub(crate) fn attach(&self) -> Result<Loop, CallError> {
        if let Some(attached) = self.find()? {
            return Ok(attached);
        }
        let control = rustix::fs::open("/dev/loop-control", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .called(|| "open(/dev/loop-control, O_RDWR)".to_owned())?;
        let backing = self.reopen()?;
        let info = LoopInfo::new(sys::LO_FLAGS_AUTOCLEAR | sys::LO_FLAGS_DIRECT_IO, shown_name(self.path));
        let mut races = 0;
        loop {
            let number =
                sys::loop_ctl_get_free(&control).called(|| "ioctl(/dev/loop-control, LOOP_CTL_GET_FREE)".to_owned())?;
            let configured = open_device(number, OFlags::RDWR).and_then(|writable| {
                sys::loop_configure(&writable, backing.as_fd(), SECTOR_BYTES, info)
                    .called(|| format!("ioctl(/dev/loop{number}, LOOP_CONFIGURE, {})", self.path.display()))?;
                // A kernel without CONFIG_BLK_DEV_WRITE_MOUNTED (6.8) mounts no device that somebody may write to. Opened again before
                // the first descriptor goes, or the device would detach itself.
                open_device(number, OFlags::RDONLY)
            });
            match configured {
                Ok(device) => return Ok(Loop { device, number, reused: false }),
                Err(CallError { errno: Errno::BUSY | Errno::NXIO, .. }) if races < RACES => races += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

fn open_device(number: u32, access: OFlags) -> Result<OwnedFd, CallError> {
    rustix::fs::open(format!("/dev/loop{number}"), access | OFlags::CLOEXEC, Mode::empty())
        .called(|| format!("open(/dev/loop{number}, {access:?})"))
}

/// What `losetup` shows, and nothing depends on: the start of the path, zero-terminated.
fn shown_name(path: &Path) -> [u8; 64] {
    let mut name = [0; 64];
    for (to, from) in name.iter_mut().take(63).zip(path.as_os_str().as_bytes()) {
        *to = *from;
    }
    name
}
