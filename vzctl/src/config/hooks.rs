//! Action scripts: programs of the administrator that run around a container's life.

use std::path::PathBuf;

use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use vzrt::Ctid;

use super::node::Node;
use crate::Exit;

/// A moment at which scripts run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Before the root is mounted, on the host.
    PreMount,
    /// After it is mounted, on the host.
    Mount,
    /// In the container, before its init.
    Start,
    /// In the container, before it is stopped.
    Stop,
    /// Before the root is unmounted, on the host.
    Umount,
    /// After it is unmounted, on the host.
    PostUmount,
    /// After a container is created, on the host.
    Create,
}

/// Whose script it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Every,
    One,
}

impl Moment {
    fn suffix(self) -> &'static str {
        match self {
            Self::PreMount => "premount",
            Self::Mount => "mount",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Umount => "umount",
            Self::PostUmount => "postumount",
            Self::Create => "create",
        }
    }

    /// The order of vzctl 4's code (`lib/fs.c`, `lib/env.c`), which on the way down differs from its manual: what came last goes first.
    fn order(self) -> &'static [Whose] {
        match self {
            Self::PreMount | Self::Mount => &[Whose::Every, Whose::One],
            Self::Start | Self::Stop => &[Whose::One],
            Self::Umount | Self::PostUmount => &[Whose::One, Whose::Every],
            Self::Create => &[Whose::Every],
        }
    }
}

/// A script that must not be run as root, or cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// Somebody other than root could have written it.
    #[error("Action script {} is not run: {why}", path.display())]
    Unsafe {
        /// The script.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It could not be looked at.
    #[error("{call}({path:?})")]
    Io {
        /// The system call.
        call: &'static str,
        /// The script.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
}

impl HookError {
    /// The code `vzctl` ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        Exit::ActionScript
    }
}

/// The scripts to run at a moment, in order. One without the right to execute is not a script in force, as in vzctl 4.
///
/// # Errors
/// One that anybody but its owner root could write, or that is not a plain file: running it would hand root to whoever wrote it.
pub fn scripts(node: &Node, ctid: Ctid, moment: Moment) -> Result<Vec<PathBuf>, HookError> {
    let mut found = Vec::new();
    for path in places(node, ctid, moment) {
        if usable(&path)? {
            found.push(path);
        }
    }
    Ok(found)
}

/// Where the scripts of a moment are looked for, in order: for moments to come, when there may be others than now.
#[must_use]
pub fn places(node: &Node, ctid: Ctid, moment: Moment) -> Vec<PathBuf> {
    let stem = |whose: &Whose| match whose {
        Whose::Every => "vps".to_owned(),
        Whose::One => ctid.to_string(),
    };
    moment.order().iter().map(|whose| node.conf_dir().join(format!("{}.{}", stem(whose), moment.suffix()))).collect()
}

fn usable(path: &PathBuf) -> Result<bool, HookError> {
    let io = |call| move |source| HookError::Io { call, path: path.clone(), source };
    let refuse = |why| Err(HookError::Unsafe { path: path.clone(), why });
    let fd = match rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(false),
        fd => fd.map_err(io("open"))?,
    };
    let stat = rustix::fs::fstat(&fd).map_err(io("fstat"))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return refuse("it is not a regular file");
    }
    if stat.st_uid != 0 && stat.st_uid != rustix::process::geteuid().as_raw() {
        return refuse("it does not belong to root");
    }
    if stat.st_mode & 0o022 != 0 {
        return refuse("its group or everybody may write it (chmod go-w)");
    }
    match rustix::fs::accessat(rustix::fs::CWD, path, Access::EXEC_OK, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::ACCESS) => Ok(false),
        Err(e) => Err(io("access")(e)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn node_with(files: &[(&str, u32)]) -> (tempfile::TempDir, Node) {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join("vz.conf"), "").unwrap();
        fs_err::create_dir(dir.path().join("conf")).unwrap();
        for (name, mode) in files {
            let path = dir.path().join("conf").join(name);
            fs_err::write(&path, "#!/bin/sh\n").unwrap();
            fs_err::set_permissions(&path, std::fs::Permissions::from_mode(*mode)).unwrap();
        }
        let node = Node::open(dir.path()).unwrap();
        (dir, node)
    }

    fn names(node: &Node, moment: Moment) -> Vec<String> {
        let found = scripts(node, Ctid::try_from(101).unwrap(), moment).unwrap();
        found.iter().map(|p| p.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn the_hosts_scripts_come_first_on_the_way_up_and_last_on_the_way_down() {
        let all =
            ["vps.mount", "101.mount", "vps.umount", "101.umount", "101.start", "vps.start", "vps.create", "102.mount"];
        let (_dir, node) = node_with(&all.map(|n| (n, 0o755)));
        assert_eq!(names(&node, Moment::Mount), ["vps.mount", "101.mount"]);
        assert_eq!(names(&node, Moment::Umount), ["101.umount", "vps.umount"]);
        assert_eq!(names(&node, Moment::Start), ["101.start"]);
        assert_eq!(names(&node, Moment::Create), ["vps.create"]);
        assert!(names(&node, Moment::Stop).is_empty());
    }

    #[test]
    fn a_script_that_others_may_write_or_a_link_is_refused() {
        let (dir, node) = node_with(&[("101.mount", 0o777), ("101.umount", 0o644)]);
        let ct = Ctid::try_from(101).unwrap();
        assert_eq!(scripts(&node, ct, Moment::Mount).unwrap_err().exit(), Exit::ActionScript);
        assert!(names(&node, Moment::Umount).is_empty(), "a file without x is not in force");
        std::os::unix::fs::symlink("/bin/true", dir.path().join("conf/101.premount")).unwrap();
        assert!(matches!(scripts(&node, ct, Moment::PreMount), Err(HookError::Unsafe { .. })));
    }
}
