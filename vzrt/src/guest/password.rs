//! Setting a password, and making the user if there is none.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

use super::accounts::{UserName, entry, free_gid, free_uid, gid_of, with_fields, with_line};
use super::error::{Call, Error};
use super::home;
use super::root::{Directory, Durability, Mounts, Owner, Root, regular};
use super::secret::SecretHash;

/// How long to wait for the lock of the password files. A `passwd` inside holds it for milliseconds; who holds it longer means to.
const LOCK_PATIENCE: Duration = Duration::from_millis(800);

/// Gives `user` the password, as root's `passwd` inside would; a user that does not exist is made as `useradd -m` would make it.
///
/// The line in `passwd` is written last: until then the account is not there, and after a failure the same call finishes the work. A container
/// without `/etc/shadow` gets one, for this user: a hash in `passwd` is one that everybody inside can read.
///
/// # Errors
/// A file of the container is not what it has to be, is locked, or can't be written.
pub fn set_password(root: &Root, user: &UserName, hash: &SecretHash) -> Result<(), Error> {
    let etc = root.directory("/etc", Mounts::Refuse)?;
    let lock = lock(&etc)?;
    let passwd = etc.read("passwd")?.map(|contents| contents.bytes).unwrap_or_default();
    let new = match entry(&passwd, user) {
        Some(_) => None,
        None => Some(new_account(root, &etc, user, &passwd)?),
    };
    set_shadow(&etc, user, hash)?;
    etc.edit("passwd", Owner::root(0o644), Durability::Synced, |old| match &new {
        Some(line) => Ok(with_line(old, line)),
        // "x": look in shadow.
        None => with_fields(old, user, &[(1, b"x")])
            .ok_or_else(|| Error::Malformed { path: "/etc/passwd", user: user.to_string() }),
    })?;
    drop(lock);
    Ok(())
}

/// The lock of lckpwdf(3), which `passwd`, `useradd` and their like take. Released when dropped.
fn lock(etc: &Directory) -> Result<OwnedFd, Error> {
    const NAME: &str = ".pwd.lock";
    let path = etc.path(NAME);
    let fd =
        etc.open(NAME, OFlags::WRONLY | OFlags::CREATE, 0o600).map_err(Error::call(Call::Openat2, path.clone()))?;
    let stat = rustix::fs::fstat(&fd).map_err(Error::call(Call::Fstat, path.clone()))?;
    regular(&stat, &path)?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match rustix::fs::fcntl_lock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(fd),
            // The kernel has no lock with a timeout, and lckpwdf's way, an alarm, is not for a library.
            Err(Errno::AGAIN | Errno::ACCESS) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(Errno::AGAIN | Errno::ACCESS) => return Err(Error::Locked(path)),
            Err(error) => return Err(Error::call(Call::Fcntl, path)(error)),
        }
    }
}

fn set_shadow(etc: &Directory, user: &UserName, hash: &SecretHash) -> Result<(), Error> {
    // The day of the change; a clock before 1970 says day 0, which would mean "must be changed at once".
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let day = (since_epoch.as_secs() / 86400).max(1).to_string();
    etc.edit("shadow", Owner::root(0o600), Durability::Synced, |old| match entry(old, user) {
        // Ages and expiry stay as they are; the hash replaces a lock ("!") too, as passwd does.
        Some(_) => with_fields(old, user, &[(1, hash.expose().as_bytes()), (2, day.as_bytes())])
            .ok_or_else(|| Error::Malformed { path: "/etc/shadow", user: user.to_string() }),
        None => Ok(with_line(old, &format!("{user}:{}:{day}:0:99999:7:::", hash.expose()))),
    })
}

/// Makes the group and the home directory of a user, and returns its line for `passwd`.
fn new_account(root: &Root, etc: &Directory, user: &UserName, passwd: &[u8]) -> Result<String, Error> {
    let uid = free_uid(passwd).ok_or(Error::NoFreeId("/etc/passwd"))?;
    let group = etc.read("group")?.map(|contents| contents.bytes).unwrap_or_default();
    let gid = match gid_of(&group, user) {
        Some(gid) => gid,
        None => {
            let gid = free_gid(&group, uid).ok_or(Error::NoFreeId("/etc/group"))?;
            let line = format!("{user}:x:{gid}:");
            etc.edit("group", Owner::root(0o644), Durability::Synced, |old| Ok(with_line(old, &line)))?;
            gid
        }
    };
    if let Some(gshadow) = etc.read("gshadow")?
        && entry(&gshadow.bytes, user).is_none()
    {
        let line = format!("{user}:!::");
        etc.edit("gshadow", Owner::root(0o600), Durability::Synced, |old| Ok(with_line(old, &line)))?;
    }
    home::create(root, user, uid, gid)?;
    let shell = if root.has_file("/bin/bash") { "/bin/bash" } else { "/bin/sh" };
    Ok(format!("{user}:x:{uid}:{gid}::/home/{user}:{shell}"))
}
