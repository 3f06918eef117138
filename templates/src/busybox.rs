//! The first files of the busybox template: the host's static busybox and a link for each of its applets.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;

use crate::rootdir::{RootDir, RootDirError};

/// Where Debian's busybox-static (usrmerged or not) and others put it.
const PLACES: [&str; 3] = ["/bin/busybox", "/usr/bin/busybox", "/sbin/busybox"];

/// Why there is no busybox.
#[derive(Debug, thiserror::Error)]
pub enum BusyboxError {
    /// None on this host.
    #[error("no busybox on this host (looked for {}); install the package busybox-static", PLACES.join(", "))]
    Missing,
    /// It needs libraries, which a container does not have.
    #[error("{} is not a static program ({why}); install the package busybox-static", path.display())]
    NotStatic {
        /// The one found.
        path: PathBuf,
        /// What it is.
        why: &'static str,
    },
    /// It lacks what the template is made of.
    #[error("{} has no applet {applet}", path.display())]
    NoApplet {
        /// The one found.
        path: PathBuf,
        /// The applet.
        applet: &'static str,
    },
    /// `busybox --list-full` failed.
    #[error("{} --list-full", path.display())]
    List {
        /// The one found.
        path: PathBuf,
        /// How.
        #[source]
        source: io::Error,
    },
    /// A file operation; the error names the path.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// In the template.
    #[error(transparent)]
    RootDir(#[from] RootDirError),
}

/// Fills the empty directory `root`.
pub(crate) fn bootstrap(root: &Path) -> Result<(), BusyboxError> {
    let busybox = PLACES.iter().map(Path::new).find(|p| p.is_file()).ok_or(BusyboxError::Missing)?;
    let program = fs::read(busybox)?;
    needs_interpreter(&program).map_or(Ok(()), |why| Err(BusyboxError::NotStatic { path: busybox.to_owned(), why }))?;
    let applets = applets(busybox)?;
    for applet in ["sbin/init", "bin/sh", "sbin/syslogd", "usr/sbin/crond", "usr/sbin/httpd", "sbin/halt"] {
        if !applets.iter().any(|a| a == applet) {
            return Err(BusyboxError::NoApplet { path: busybox.to_owned(), applet });
        }
    }
    let dir = RootDir::open(root)?;
    // Not setuid, though su and passwd would need it: a busybox built without FEATURE_SUID would not drop it for its
    // other applets, and a shell is one of them.
    dir.write("/bin/busybox", 0o755, &program)?;
    for applet in applets.iter().filter(|a| *a != "bin/busybox") {
        dir.link(&format!("/{applet}"), "/bin/busybox")?;
    }
    Ok(())
}

/// Paths of the applets, relative to the root.
fn applets(busybox: &Path) -> Result<Vec<String>, BusyboxError> {
    let failed = |source| BusyboxError::List { path: busybox.to_owned(), source };
    let output = Command::new(busybox).arg("--list-full").env_clear().output().map_err(failed)?;
    if !output.status.success() {
        return Err(failed(io::Error::other(output.status.to_string())));
    }
    let text = String::from_utf8(output.stdout).map_err(|e| failed(io::Error::other(e)))?;
    let plain =
        |line: &&str| !line.is_empty() && !line.starts_with('/') && !line.split('/').any(|p| p == ".." || p.is_empty());
    Ok(text.lines().filter(plain).map(String::from).collect())
}

/// Why `program` is not a static ELF program; `None` if it is. Offsets are those of elf(5), 64-bit little-endian:
/// x86_64 and aarch64, the machines this runs on.
fn needs_interpreter(program: &[u8]) -> Option<&'static str> {
    const PT_INTERP: u32 = 3;
    let u16_at = |at: usize| Some(u16::from_le_bytes(program.get(at..at + 2)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(program.get(at..at.checked_add(4)?)?.try_into().ok()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(program.get(at..at + 8)?.try_into().ok()?));
    if !program.starts_with(b"\x7fELF\x02\x01") {
        return Some("not a 64-bit ELF file");
    }
    let headers = || {
        let (table, size, count) = (u64_at(32)?, u16_at(54)?, u16_at(56)?);
        (0..usize::from(count))
            .map(|n| u32_at(usize::try_from(table).ok()?.checked_add(n * usize::from(size))?))
            .collect::<Option<Vec<_>>>()
    };
    match headers() {
        None => Some("its program headers are cut off"),
        Some(types) if types.contains(&PT_INTERP) => Some("it is dynamically linked"),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dynamic_programs_and_other_files_are_no_static_busybox() {
        let this_test = fs::read("/proc/self/exe").unwrap();
        assert_eq!(needs_interpreter(&this_test), Some("it is dynamically linked"));
        assert_eq!(needs_interpreter(&this_test[..100]), Some("its program headers are cut off"));
        assert_eq!(needs_interpreter(b"#!/bin/sh\n"), Some("not a 64-bit ELF file"));
    }
}
