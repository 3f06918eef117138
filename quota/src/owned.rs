//! Which project a private area is, and a number for one that is none yet.
//!
//! The area's own directory is the record: it has the id, and the flag that makes new files inherit it is put there last, when the whole tree
//! has the id. So no second record can disagree with the first, the id moves with the directory, a copy (cp, rsync, tar) begins without one,
//! and what an interrupted [`own`] has left is seen. Who has an id already is told by the file system, to all who use it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::call::Called;
use crate::project::{Error, FS_XFLAG_PROJINHERIT, Project, open_directory};
use crate::sys;

/// Where xfs_quota(8) and others keep the projects that an administrator has made (projects(5)).
const PROJECTS: &str = "/etc/projects";

/// How often a number is drawn before all are gone through.
const DRAWS: u32 = 32;

/// The ids that are given to areas; both ends belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    first: NonZeroU32,
    last: u32,
}

impl Ids {
    /// From `first` to `last`; `None` when there is none between them, or 0 is one: that is the project of all that has none.
    #[must_use]
    pub fn new(first: u32, last: u32) -> Option<Ids> {
        let first = NonZeroU32::new(first)?;
        // u32::MAX is "no id" to the kernel (`projid_valid`).
        (first.get() <= last && last < u32::MAX).then_some(Ids { first, last })
    }

    /// Drawn, and not counted up: an id that has become free is not given to the next at once, and two hosts that share a file system hardly
    /// ever reach for the same.
    fn draw(self) -> u32 {
        let many = u64::from(self.last - self.first.get()) + 1;
        // The standard library seeds each state from the kernel's random numbers.
        let offset = RandomState::new().build_hasher().finish() % many;
        self.first.get() + u32::try_from(offset).unwrap_or(0)
    }
}

/// The project whose tree `area` is; `None` for a directory that has no id, has that of the directory it lies in, or was not wholly given one.
///
/// # Errors
/// [`Error::Call`]. A file system without project ids is no error.
pub fn of(area: &Path) -> Result<Option<Project>, Error> {
    Ok(match held(area)? {
        Held::Whole(project) => Some(project),
        Held::Partly(_) | Held::Nothing => None,
    })
}

/// Sees to it that `area` is a project of its own, with all that is in it: one that is none gets a free id, one that an interrupted call has left is
/// finished. To be called while nothing else changes the tree.
///
/// Looking takes three calls, whatever the size of the tree; giving an id goes through the tree once.
///
/// # Errors
/// [`Error::Call`]; [`Error::TreeChanged`]; [`Error::NoFreeId`].
pub fn own(area: &Path, ids: Ids) -> Result<Project, Error> {
    let others = projects_of_others(area)?;
    match held(area)? {
        Held::Whole(project) if !others.contains(&project.id()) => return Ok(project),
        Held::Partly(project) if !others.contains(&project.id()) => {
            project.assign()?;
            return Ok(project);
        }
        _ => {}
    }
    renew(area, ids)
}

/// Gives `area` a new id, whatever it has.
///
/// # Errors
/// As [`own`].
pub fn renew(area: &Path, ids: Ids) -> Result<Project, Error> {
    let others = projects_of_others(area)?;
    for _ in 0..DRAWS {
        let project = Project::open(area, free(area, ids, &others)?)?;
        project.mark_root()?;
        // Whoever else has taken it since it was free shows in what it uses; both then draw again.
        if project.status()?.inodes_used <= 1 {
            project.assign()?;
            return Ok(project);
        }
    }
    Err(Error::NoFreeId { first: ids.first.get(), last: ids.last })
}

/// An id that nobody uses on the file system of `area`. It is not taken: the next call may give the same.
///
/// # Errors
/// [`Error::Call`]; [`Error::NoFreeId`].
pub fn prospective(area: &Path, ids: Ids) -> Result<NonZeroU32, Error> {
    free(area, ids, &projects_of_others(area)?)
}

/// Makes an id free again whose tree is gone: takes the limits away, which is what keeps a record alive that has no files. `beside` is a
/// directory of the same file system. False when there are files of it still (somebody has them open): then the limits stay.
///
/// # Errors
/// [`Error::Call`].
pub fn release(beside: &Path, id: NonZeroU32) -> Result<bool, Error> {
    let project = Project::open(beside, id)?;
    let unused = project.status()?.inodes_used == 0;
    if unused {
        project.clear_limits()?;
    }
    Ok(unused)
}

enum Held {
    Whole(Project),
    Partly(Project),
    Nothing,
}

fn held(area: &Path) -> Result<Held, Error> {
    let directory = open_directory(area)?;
    let Some((id, flags)) = project_of(directory.as_fd(), area)? else { return Ok(Held::Nothing) };
    let open = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let above = rustix::fs::openat(&directory, "..", open, Mode::empty())
        .called(|| format!("openat({}, ..)", area.display()))?;
    // A directory that has inherited its id is a part of somebody else's project.
    let inherited = project_of(above.as_fd(), area)?.is_some_and(|(parents, _)| parents == id);
    let project = Project::with(directory, area, id);
    Ok(match (inherited, flags & FS_XFLAG_PROJINHERIT != 0) {
        (true, _) => Held::Nothing,
        (false, true) => Held::Whole(project),
        (false, false) => Held::Partly(project),
    })
}

/// Id and flags; `None` without an id, and where the file system has none.
fn project_of(directory: BorrowedFd<'_>, path: &Path) -> Result<Option<(NonZeroU32, u32)>, Error> {
    match sys::fsxattr(directory) {
        Ok(attributes) => Ok(NonZeroU32::new(attributes.project_id).map(|id| (id, attributes.xflags))),
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(None),
        Err(errno) => Err(errno).called(|| format!("ioctl({}, FS_IOC_FSGETXATTR)", path.display()))?,
    }
}

fn free(area: &Path, ids: Ids, others: &[NonZeroU32]) -> Result<NonZeroU32, Error> {
    // The kernel may still have a record of one that nobody uses any more: it writes those back when it has time.
    let is_used = |id: NonZeroU32| {
        let status = Project::open(area, id)?.status()?;
        Ok::<_, Error>(status.is_limited() || status.inodes_used > 0 || status.space_used_kib > 0)
    };
    let is_free = |id: u32| -> Result<Option<NonZeroU32>, Error> {
        match NonZeroU32::new(id).filter(|id| !others.contains(id)) {
            Some(id) if !is_used(id)? => Ok(Some(id)),
            _ => Ok(None),
        }
    };
    for _ in 0..DRAWS {
        if let Some(id) = is_free(ids.draw())? {
            return Ok(id);
        }
    }
    for id in ids.first.get()..=ids.last {
        if let Some(id) = is_free(id)? {
            return Ok(id);
        }
    }
    Err(Error::NoFreeId { first: ids.first.get(), last: ids.last })
}

/// The projects that `/etc/projects` gives to other directories.
fn projects_of_others(area: &Path) -> Result<Vec<NonZeroU32>, Error> {
    match std::fs::read_to_string(PROJECTS) {
        Ok(text) => Ok(projects(&text).filter(|(_, path)| path != area).map(|(id, _)| id).collect()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(Errno::from_io_error(&e).unwrap_or(Errno::IO)).called(|| format!("read({PROJECTS})"))?,
    }
}

/// Lines `id:path`, `#` begins a comment. What is no such line is nobody's project.
fn projects(text: &str) -> impl Iterator<Item = (NonZeroU32, PathBuf)> {
    text.lines().map(str::trim).filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (id, path) = line.split_once(':')?;
        Some((id.trim().parse().ok()?, PathBuf::from(path)))
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that fails here has failed")]
mod tests {
    use super::*;

    #[test]
    fn ids_have_a_first_and_a_last_and_none_is_0() {
        for (first, last) in [(0, 5), (6, 5), (1, u32::MAX)] {
            assert_eq!(Ids::new(first, last), None, "{first}:{last}");
        }
        let ids = Ids::new(7, 9).unwrap();
        let mut drawn: Vec<u32> = (0..200).map(|_| ids.draw()).collect();
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn, [7, 8, 9]);
    }

    #[test]
    fn projects_of_the_administrator_are_read_and_comments_are_not() {
        let text = "# 1:/no\n10:/srv/log\n\n11 : /x\nname:/y\n0:/z\n12:/with:colon\n";
        let found: Vec<(u32, String)> =
            projects(text).map(|(id, path)| (id.get(), path.display().to_string())).collect();
        assert_eq!(found, [(10, "/srv/log".into()), (11, " /x".into()), (12, "/with:colon".into())]);
    }

    #[test]
    fn a_directory_without_an_id_is_no_project() {
        assert!(of(Path::new("/proc")).unwrap().is_none());
        assert!(of(tempfile::tempdir().unwrap().path()).unwrap().is_none());
    }
}
