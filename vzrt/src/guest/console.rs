//! A login on the container's console, where its init starts none by itself.
//!
//! systemd does: in a container its `systemd-getty-generator` starts `console-getty.service`. An init that reads `/etc/inittab` (sysvinit, busybox
//! with or without OpenRC) has lines for the terminals of a machine, which a container does not have; upstart has files for them.

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::hostname::appended;
use super::root::{Durability, Mounts, Owner, Root};

/// What is done for a login on the console (`SET_CONSOLE` of a distribution).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConsoleStyle {
    /// Nothing.
    #[default]
    Leave,
    /// A line in `/etc/inittab`, where there is one and none of its lines is about the console, or a file of upstart's.
    Auto,
}

/// Above the line that is ours.
const COMMENT: &str = "# vz: a login on the console of the container.";

/// Programs that ask for a login, the better known first.
const GETTY: [&str; 4] = ["/sbin/agetty", "/usr/sbin/agetty", "/sbin/getty", "/usr/sbin/getty"];

/// What all of them take, of whatever age.
const ARGUMENTS: &str = "-L 115200 console";

/// Where systemd is, which upstart may have been replaced by.
const SYSTEMD: [&str; 2] = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"];

/// Sees to it that an init that reads `/etc/inittab` starts a login on the console. A line that is there stays as it is, one that somebody has commented
/// out too.
///
/// # Errors
/// `/etc/inittab` is not a file, or can't be written.
pub fn set_console(root: &Root, style: ConsoleStyle) -> Result<(), Error> {
    if style == ConsoleStyle::Leave {
        return Ok(());
    }
    let etc = match root.directory("/etc", Mounts::Refuse) {
        Err(e) if e.is_absence() => return Ok(()),
        etc => etc?,
    };
    let Some(getty) = GETTY.into_iter().find(|path| root.has_file(path)) else { return Ok(()) };
    // With upstart there is an inittab too, of which it reads nothing but the first runlevel.
    if root.has_file("/sbin/initctl") && root.has_directory("/etc/init") && !SYSTEMD.iter().any(|p| root.has_file(p)) {
        return set_upstart(root, getty);
    }
    if etc.stat("inittab")?.is_none() {
        return Ok(());
    }
    etc.edit("inittab", Owner::root(0o644), Durability::Rewritten, |old| {
        Ok(with_console(old, getty).unwrap_or_else(|| old.to_vec()))
    })
}

/// A file of ours, made once: what becomes of it is the container's business, as of the line in `/etc/inittab`.
fn set_upstart(root: &Root, getty: &str) -> Result<(), Error> {
    let init = root.directory("/etc/init", Mounts::Refuse)?;
    for name in ["vz-console.conf", "console.conf"] {
        if init.stat(name)?.is_some() {
            return Ok(());
        }
    }
    let text = format!(
        "{COMMENT}\nstart on stopped rc RUNLEVEL=[2345]\nstop on runlevel [!2345]\nrespawn\nexec {getty} {ARGUMENTS}\n"
    );
    init.replace("vz-console.conf", text.as_bytes(), Owner::root(0o644), Durability::Rewritten)
}

/// `inittab` with a login on the console; none if it has one.
///
/// The first field is a name for sysvinit and the terminal itself for busybox; only sysvinit's has runlevels, and says which is the first.
pub(super) fn with_console(text: &[u8], getty: &str) -> Option<Vec<u8>> {
    let lines = || text.split(|&b| b == b'\n').map(|line| line.trim_ascii());
    let is_ours = |line: &[u8]| line == COMMENT.as_bytes();
    if lines().any(|line| is_ours(line) || is_login_on_console(line)) {
        return None;
    }
    let is_sysvinit = lines().any(|line| !line.starts_with(b"#") && fields(line).nth(2) == Some(b"initdefault"));
    let program = format!("{getty} {ARGUMENTS}");
    let line = if is_sysvinit { format!("vz:2345:respawn:{program}") } else { format!("console::respawn:{program}") };
    Some(appended(text, format!("{COMMENT}\n{line}\n").as_bytes()))
}

/// `id:runlevels:action:process`, inittab(5).
fn fields(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.splitn(4, |&b| b == b':')
}

/// Whether a line, commented out or not, has something started on the console. Busybox's without a terminal is of the console.
fn is_login_on_console(line: &[u8]) -> bool {
    let mut fields = fields(line.trim_ascii_start().strip_prefix(b"#").unwrap_or(line));
    let (Some(id), _, Some(action), Some(process)) = (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return false;
    };
    let is_login = action == b"respawn" || action == b"askfirst";
    let words = process.split(u8::is_ascii_whitespace);
    is_login && (id.is_empty() || id == b"console" || words.into_iter().any(|word| word == b"console"))
}
