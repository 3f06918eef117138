//! The directories in bpffs.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use beancounters::bpf::BPFFS;
use rustix::fs::{FlockOperation, flock, statfs};
use rustix::mount::{MountFlags, mount as mount_at};

/// linux/magic.h
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

fn at(what: &str, path: &Path, source: impl Into<io::Error>) -> io::Error {
    let source = source.into();
    io::Error::new(source.kind(), format!("{what} {}: {source}", path.display()))
}

/// Mounts bpffs where systemd would, if nobody has.
pub(crate) fn mount() -> io::Result<()> {
    let path = Path::new(BPFFS);
    // Two that begin at once must not mount one over the other: the directory above is there before either.
    let above = path.parent().unwrap_or(path);
    let lock = File::open(above).map_err(|error| at("open", above, error))?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|error| at("lock", above, error))?;
    let there = statfs(path).map_err(|error| at("statfs", path, error))?;
    if there.f_type as u64 == BPF_FS_MAGIC {
        return Ok(());
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RELATIME;
    mount_at("bpf", path, "bpf", flags, Some(c"mode=700")).map_err(|error| at("mount bpffs on", path, error))
}

/// Makes our directory and takes its lock, which the kernel releases with its holder.
pub(crate) fn lock(directory: &Path) -> io::Result<File> {
    make(directory)?;
    let opened = File::open(directory).map_err(|error| at("open", directory, error))?;
    flock(&opened, FlockOperation::LockExclusive).map_err(|error| at("lock", directory, error))?;
    Ok(opened)
}

/// Makes a directory for root only, if it is not there.
pub(crate) fn make(directory: &Path) -> io::Result<PathBuf> {
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(at("mkdir", directory, error)),
        _ => Ok(directory.to_owned()),
    }
}

/// Removes a directory of pins, and with a pin what only it held: a program is detached.
pub(crate) fn clear(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", directory, error)),
        _ => Ok(()),
    }
}

/// Removes what else is in `directory`: the programs of other builds.
pub(crate) fn clear_others(directory: &Path, keep: &[&str]) -> io::Result<()> {
    for entry in fs::read_dir(directory).map_err(|error| at("read", directory, error))? {
        let path = entry?.path();
        if !keep.iter().any(|name| path.file_name() == Some(OsStr::new(name))) {
            clear(&path)?;
        }
    }
    Ok(())
}
