//! Copies of images that take no more of the host than their originals, and images that take all of it at once.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{FallocateFlags, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use crate::call::Called;
use crate::image::Error;

/// Copies an image that nobody writes to, holes as holes: as a reference to the same blocks where the file system has those (xfs, btrfs),
/// elsewhere what holds data and nothing else. The copy is synced, and only root of the host may open it.
///
/// # Errors
/// [`Error::Call`]; `EEXIST` from open(2) where `to` is there.
pub fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let source = rustix::fs::open(from, flags, Mode::empty()).called(|| format!("open({})", from.display()))?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let target = rustix::fs::open(to, flags, Mode::RUSR | Mode::WUSR)
        .called(|| format!("open({}, O_CREAT|O_EXCL)", to.display()))?;
    match rustix::fs::ioctl_ficlone(&target, &source) {
        Ok(()) => {}
        // No such thing here, or not from that file system to this.
        Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY) => {
            copy_data(
                &File::from(source),
                &File::from(target.try_clone().map_err(errno).called(|| "dup()".to_owned())?),
            )
            .map_err(errno)
            .called(|| format!("copying {} to {}", from.display(), to.display()))?;
        }
        Err(e) => return Err(e).called(|| format!("ioctl({}, FICLONE, {})", to.display(), from.display()))?,
    }
    rustix::fs::fsync(&target).called(|| format!("fsync({})", to.display()))?;
    Ok(())
}

fn copy_data(source: &File, target: &File) -> io::Result<()> {
    let length = source.metadata()?.len();
    target.set_len(length)?;
    let mut at = 0;
    while at < length {
        let start = match rustix::fs::seek(source, SeekFrom::Data(at)) {
            // Nothing but a hole follows.
            Err(Errno::NXIO) => break,
            start => start?,
        };
        let end = rustix::fs::seek(source, SeekFrom::Hole(start))?;
        rustix::fs::seek(source, SeekFrom::Start(start))?;
        rustix::fs::seek(target, SeekFrom::Start(start))?;
        // By copy_file_range(2), where it can.
        let copied = io::copy(&mut source.take(end - start), &mut &*target)?;
        if copied < end - start {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        at = end;
    }
    Ok(())
}

/// Takes all the space of an image from the host now, so that it cannot be missing later. What the image holds stays.
///
/// # Errors
/// [`Error::Call`]: `ENOSPC` where the host has not as much.
pub fn preallocate(path: &Path) -> Result<(), Error> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).called(|| format!("open({})", path.display()))?;
    let length = rustix::fs::fstat(&file).called(|| format!("fstat({})", path.display()))?.st_size as u64;
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, length)
        .called(|| format!("fallocate({}, {length})", path.display()))?;
    Ok(())
}

fn errno(e: io::Error) -> Errno {
    Errno::from_io_error(&e).unwrap_or(Errno::IO)
}
