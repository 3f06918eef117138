//! Names of containers: `/etc/vz/names/NAME` is a link to a configuration, and true only while that configuration says `NAME="NAME"`.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use vzrt::Ctid;

use super::document::{self, DocumentError};
use super::node::{Node, ctid_of_file_name};
use crate::Exit;

/// A name that a container cannot have, or that means none.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// It breaks the rules of names.
    #[error("Invalid container name {name:?}: {rule}")]
    Invalid {
        /// The text.
        name: String,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// `vzctl` was given something that is neither a number nor a name.
    #[error("Bad CT ID {0}")]
    BadCtid(String),
    /// No container has this name.
    #[error("Unable to find container by name {0}")]
    Unknown(String),
    /// Another container has it.
    #[error("Conflict: name {name} already used by container {owner}")]
    Taken {
        /// The name.
        name: String,
        /// Who has it.
        owner: Ctid,
    },
    /// Reading or changing the directory of names failed.
    #[error("{call}({path:?})")]
    Io {
        /// The system call.
        call: &'static str,
        /// What it was called on.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl NameError {
    /// The code `vzctl` ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::BadCtid(_) | Self::Unknown(_) => Exit::InvalidValue,
            Self::Invalid { .. } | Self::Taken { .. } | Self::Io { .. } => Exit::SetName,
        }
    }
}

/// Checks a name: letters and digits of any script and `-+_.` and the blank (vzctl 4, `is_valid_name`). It is a file name and an argument
/// too, so it must not begin with `.` or `-`, and one made of digits would be a number.
///
/// # Errors
/// The rule it breaks.
pub fn check(name: &str) -> Result<(), NameError> {
    let rule = if name.is_empty() {
        "it is empty"
    } else if name.len() > 255 {
        "it is longer than 255 bytes"
    } else if name.starts_with(['.', '-']) {
        "it must not begin with . or -"
    } else if name.bytes().all(|b| b.is_ascii_digit()) {
        "it must not be a number"
    } else if !name.chars().all(|c| c.is_alphanumeric() || " -+_.".contains(c)) {
        "only letters, digits, blanks and - + _ . are allowed"
    } else {
        return Ok(());
    };
    Err(NameError::Invalid { name: name.to_owned(), rule })
}

/// What `vzctl start WHO` means: a number, or a name that a configuration confirms.
///
/// # Errors
/// Not a number of a container, or no container has the name.
pub fn resolve(node: &Node, who: &str) -> Result<Ctid, NameError> {
    if !who.is_empty() && who.bytes().all(|b| b.is_ascii_digit()) {
        return who.parse().map_err(|_| NameError::BadCtid(who.to_owned()));
    }
    if check(who).is_err() {
        return Err(NameError::BadCtid(who.to_owned()));
    }
    owner(node, who)?.ok_or_else(|| NameError::Unknown(who.to_owned()))
}

/// The container that a name belongs to. The link is only a hint: its target's last part says which configuration to ask.
fn owner(node: &Node, name: &str) -> Result<Option<Ctid>, NameError> {
    let Some(ctid) = link_target(&node.names_dir().join(name))? else { return Ok(None) };
    match name_in_conf(&node.container_conf(ctid)) {
        Ok(said) => Ok((said.as_deref() == Some(name)).then_some(ctid)),
        // A configuration that cannot be read does not confirm anything.
        Err(e) => {
            tracing::debug!(error = &e as &dyn std::error::Error, "name {name} not confirmed");
            Ok(None)
        }
    }
}

fn link_target(link: &Path) -> Result<Option<Ctid>, NameError> {
    match fs_err::read_link(link) {
        Ok(target) => Ok(target.file_name().and_then(|n| n.to_str()).and_then(ctid_of_file_name)),
        // Not there, or there and not a link.
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => Ok(None),
        Err(source) => Err(NameError::Io { call: "readlink", path: link.to_owned(), source }),
    }
}

fn name_in_conf(conf: &Path) -> Result<Option<String>, DocumentError> {
    let text = document::read(conf, OFlags::NOFOLLOW)?;
    let mut name = None;
    for pair in document::pairs(&text) {
        let (key, value) = pair.map_err(|bad| DocumentError::Bad { path: conf.to_owned(), bad })?;
        if key == "NAME" {
            name = Some(value.into_owned());
        }
    }
    Ok(name)
}

/// A name being taken: the node's names stay locked until it is kept or given up, because the link alone does not yet prove anything to
/// another command that wants the same name.
#[derive(Debug)]
#[must_use = "dropping it gives the name up again"]
pub struct Claim {
    link: PathBuf,
    ctid: Ctid,
    kept: bool,
    /// Held for its lock.
    _names: File,
}

impl Claim {
    /// The configuration that says `NAME=` is saved: the name is the container's, and the one it had before is free.
    ///
    /// # Errors
    /// The old link could not be removed; the new name holds anyway.
    pub fn keep(mut self, old: Option<&str>) -> Result<(), NameError> {
        self.kept = true;
        let dir = self.link.parent().expect("a link lies in the directory of names");
        match old.filter(|old| check(old).is_ok() && self.link != dir.join(old)) {
            Some(old) => remove_link(&dir.join(old), self.ctid),
            None => Ok(()),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.kept
            && let Err(e) = remove_link(&self.link, self.ctid)
        {
            tracing::debug!(error = &e as &dyn std::error::Error, "a name was not given up");
        }
    }
}

/// Takes a name for a container. Save the configuration with `NAME=` in it, then [`Claim::keep`].
///
/// # Errors
/// A bad name, one that another container has, or the directory cannot be changed.
pub fn claim(node: &Node, ctid: Ctid, name: &str) -> Result<Claim, NameError> {
    check(name)?;
    let dir = node.names_dir();
    let lock = lock_names(&dir)?;
    if let Some(owner) = owner(node, name)? {
        if owner != ctid {
            return Err(NameError::Taken { name: name.to_owned(), owner });
        }
        return Ok(Claim { link: dir.join(name), ctid, kept: true, _names: lock });
    }
    let link = dir.join(name);
    // A link whose target denies the name is a leftover; `rename` replaces it in one step. Names don't begin with a dot, so this is free.
    let temporary = dir.join(".new");
    let failed = |call, path: &Path| {
        let path = path.to_owned();
        move |source| NameError::Io { call, path, source }
    };
    match rustix::fs::unlink(&temporary) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(e) => return Err(failed("unlink", &temporary)(e.into())),
    }
    rustix::fs::symlink(node.container_conf(ctid), &temporary).map_err(|e| failed("symlink", &temporary)(e.into()))?;
    rustix::fs::rename(&temporary, &link).map_err(|e| failed("rename", &link)(e.into()))?;
    Ok(Claim { link, ctid, kept: false, _names: lock })
}

/// Gives a container's name up (`--name ''`, or it is destroyed). A link that belongs to somebody else is left alone.
///
/// # Errors
/// The directory cannot be changed.
pub fn release(node: &Node, ctid: Ctid, name: &str) -> Result<(), NameError> {
    if check(name).is_err() {
        return Ok(());
    }
    let dir = node.names_dir();
    let _lock = lock_names(&dir)?;
    remove_link(&dir.join(name), ctid)
}

fn remove_link(link: &Path, ctid: Ctid) -> Result<(), NameError> {
    if link_target(link)? != Some(ctid) {
        return Ok(());
    }
    fs_err::remove_file(link).map_err(|source| NameError::Io { call: "unlink", path: link.to_owned(), source })
}

/// The directory itself is the lock: nothing to create, nothing to leave behind, and the kernel lets go of it when its holder dies.
fn lock_names(dir: &Path) -> Result<File, NameError> {
    let failed = |call| move |source| NameError::Io { call, path: dir.to_owned(), source };
    fs_err::create_dir_all(dir).map_err(failed("mkdir"))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::open(dir, flags, Mode::empty()).map_err(|e| failed("open")(e.into()))?;
    rustix::fs::flock(&fd, FlockOperation::LockExclusive).map_err(|e| failed("flock")(e.into()))?;
    Ok(File::from(fd))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(confs: &[(u32, &str)]) -> (tempfile::TempDir, Node) {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join("vz.conf"), "").unwrap();
        fs_err::create_dir(dir.path().join("conf")).unwrap();
        for (ctid, text) in confs {
            fs_err::write(dir.path().join(format!("conf/{ctid}.conf")), text).unwrap();
        }
        let node = Node::open(dir.path()).unwrap();
        (dir, node)
    }

    fn ct(n: u32) -> Ctid {
        Ctid::try_from(n).unwrap()
    }

    #[test]
    fn names_that_could_be_taken_for_something_else_are_refused() {
        for good in ["web1", "a b", "münchen-7", "サーバ", "x.y_z+1", "1a"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in
            ["", "101", ".", "..", "../x", "a/b", "-f", ".new", "a\nb", "a\x1b[0m", "a\"b", "$(x)", "a;b", "a\u{202e}b"]
        {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        assert!(check(&"x".repeat(256)).is_err());
    }

    #[test]
    fn a_name_counts_only_while_its_configuration_says_so() {
        let (dir, node) = node(&[(101, "NAME=web"), (102, "NAME=other")]);
        let claimed = claim(&node, ct(101), "web").unwrap();
        claimed.keep(None).unwrap();
        assert_eq!(resolve(&node, "web").unwrap(), ct(101));
        assert_eq!(resolve(&node, "102").unwrap(), ct(102));
        std::os::unix::fs::symlink("../conf/102.conf", dir.path().join("names/false")).unwrap();
        assert!(matches!(resolve(&node, "false"), Err(NameError::Unknown(_))));
        assert_eq!(resolve(&node, "none").unwrap_err().to_string(), "Unable to find container by name none");
        for bad in ["../../etc/passwd", "-rf", "", "18446744073709551616", "0"] {
            assert_eq!(resolve(&node, bad).unwrap_err().exit(), Exit::InvalidValue, "{bad}");
        }
    }

    #[test]
    fn a_name_in_use_is_not_given_away_and_a_leftover_is_taken_over() {
        let (dir, node) = node(&[(101, "NAME=web"), (102, "")]);
        claim(&node, ct(101), "web").unwrap().keep(None).unwrap();
        assert!(matches!(claim(&node, ct(102), "web"), Err(NameError::Taken { owner, .. }) if owner == ct(101)));
        fs_err::write(dir.path().join("conf/101.conf"), "NAME=else").unwrap();
        fs_err::write(dir.path().join("conf/102.conf"), "NAME=web").unwrap();
        claim(&node, ct(102), "web").unwrap().keep(Some("old")).unwrap();
        assert_eq!(resolve(&node, "web").unwrap(), ct(102));
    }

    #[test]
    fn a_claim_that_is_not_kept_leaves_no_link() {
        let (dir, node) = node(&[(101, "")]);
        drop(claim(&node, ct(101), "web").unwrap());
        assert_eq!(fs_err::read_dir(dir.path().join("names")).unwrap().count(), 0);
    }

    #[test]
    fn renaming_frees_the_old_name_and_release_frees_only_ones_own() {
        let (dir, node) = node(&[(101, "NAME=one"), (102, "NAME=two")]);
        claim(&node, ct(101), "one").unwrap().keep(None).unwrap();
        let claimed = claim(&node, ct(101), "uno").unwrap();
        fs_err::write(dir.path().join("conf/101.conf"), "NAME=uno").unwrap();
        claimed.keep(Some("one")).unwrap();
        assert!(resolve(&node, "one").is_err());
        release(&node, ct(102), "uno").unwrap();
        assert_eq!(resolve(&node, "uno").unwrap(), ct(101));
        release(&node, ct(101), "uno").unwrap();
        assert!(resolve(&node, "uno").is_err());
    }
}
