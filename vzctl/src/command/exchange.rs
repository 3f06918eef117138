//! One private area takes the place of another: what `convert` and `reinstall` have in common.
//!
//! The new area is made beside the old one, and synced. Then the two directories change places in one step, and the configuration, saved, says
//! that it is done. Until then the old area is all there: [`settle`], which every command calls under the container's lock, puts it back. From
//! then on the old area is litter, and `settle` removes it. `state` tells which of the two directories is the new one.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};
use serde::{Deserialize, Serialize};
use vzrt::Condition;

use super::area::{self, AreaError};
use super::{Context, destroy, failed, system};
use crate::subject::Subject;
use crate::{Exit, Failure, decide};

/// Refuses a container that runs or is mounted.
pub(super) fn refuse_in_use(context: &Context) -> Result<(), Failure> {
    match vzrt::settle(&context.run_dir(), &context.cgroups()?).map_err(|e| failed(&e))? {
        Condition::Running(_) => Err(Failure::new(Exit::Running, "Container is running -- stop it first")),
        Condition::Mounted(_) => Err(Failure::new(Exit::Mounted, "Container is currently mounted (umount first)")),
        Condition::Stopped => Ok(()),
    }
}

/// Where the new area is made: beside the private area, and named by its container.
pub(super) struct Place {
    pub(super) private: PathBuf,
    directory: PathBuf,
}

/// What has to be known of an exchange that was killed.
#[derive(Serialize, Deserialize)]
struct State {
    /// The inode of the new area's directory, wherever it is now.
    new_inode: u64,
    /// Whether that is of the ploop layout.
    ploop: bool,
    /// The template's tree that it lies on.
    tree: Option<String>,
    /// The applications of the old area are not in the new one.
    forgets_applications: bool,
}

impl State {
    fn is_of(&self, container: &Subject) -> bool {
        self.ploop == decide::is_ploop(container) && self.tree == tree_of(container)
    }
}

fn tree_of(container: &Subject) -> Option<String> {
    container.settings.tree.as_ref().map(ToString::to_string)
}

impl Place {
    fn of(container: &Subject) -> Result<Self, Failure> {
        let private = container.ve_private.clone();
        let parent = private.parent().ok_or_else(|| {
            Failure::new(Exit::InvalidConfig, format!("The private area {} is no place for files", private.display()))
        })?;
        let directory = parent.join(format!(".vz-converting-{}", container.ctid));
        Ok(Self { private, directory })
    }

    /// The new area's directory, made; with a private area that it can take the place of.
    pub(super) fn make(container: &Subject) -> Result<Self, Failure> {
        let place = Self::of(container)?;
        let path = place.private.display();
        match std::fs::symlink_metadata(&place.private) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Err(Failure::new(Exit::Convert, format!("The private area {path} is not a directory"))),
            Err(_) => {
                return Err(Failure::new(Exit::NoPrivateArea, format!("Container private area {path} does not exist")));
            }
        }
        vzrt::rootfs::make_private(&place.directory).map_err(|e| system(&e))?;
        vzrt::rootfs::make_private(&place.area()).map_err(|e| system(&e))?;
        Ok(place)
    }

    pub(super) fn area(&self) -> PathBuf {
        self.directory.join("area")
    }

    /// The old area out, the new one in, which is to be `target`'s. Neither is ever not there.
    pub(super) fn exchange(&self, target: &Subject, forgets_applications: bool) -> Result<(), AreaError> {
        let (area, new, path) = (self.area(), self.directory.join("state.new"), self.directory.join("state"));
        let meta = std::fs::symlink_metadata(&area).map_err(|e| area::named("stat", &area, e))?;
        let state = State {
            new_inode: meta.ino(),
            ploop: decide::is_ploop(target),
            tree: tree_of(target),
            forgets_applications,
        };
        let text = serde_json::to_vec(&state).map_err(|e| area::named("write", &path, e.into()))?;
        std::fs::write(&new, text).map_err(|e| area::named("write", &new, e))?;
        sync_file(&new)?;
        std::fs::rename(&new, &path).map_err(|e| area::named("rename", &new, e))?;
        sync_file(&self.directory)?;
        self.swap()
    }

    fn state(&self) -> Result<Option<State>, AreaError> {
        let path = self.directory.join("state");
        match std::fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            // Written under another name and renamed, so it is whole.
            text => Ok(Some(
                serde_json::from_slice(&text.map_err(|e| area::named("read", &path, e))?)
                    .map_err(|e| area::named("read", &path, e.into()))?,
            )),
        }
    }

    fn swap(&self) -> Result<(), AreaError> {
        let area = self.area();
        rustix::fs::renameat_with(CWD, &area, CWD, &self.private, RenameFlags::EXCHANGE)
            .map_err(|e| area::named("renameat2(RENAME_EXCHANGE)", &area, e.into()))?;
        sync_file(&self.directory)?;
        sync_file(self.private.parent().unwrap_or(Path::new("/")))
    }
}

/// Clears up after an exchange, finished or killed: the area that the configuration tells of is in its place, and the other one is removed.
/// To be called under the container's lock.
///
/// # Errors
/// What could not be cleared up.
pub(super) fn settle(context: &Context) -> Result<(), Failure> {
    // Without a configuration there is no container, and nothing to put right.
    let Ok(container) = Subject::load(&context.node, context.ctid) else { return Ok(()) };
    let place = Place::of(&container)?;
    match std::fs::symlink_metadata(&place.directory) {
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => return Ok(()),
        other => other.map_err(|e| system(&e))?,
    };
    if let Some(state) = place.state().map_err(|e| cannot(&e))? {
        let mut is_new = std::fs::symlink_metadata(&place.private).is_ok_and(|meta| meta.ino() == state.new_inode);
        if !state.is_of(&container) && is_new {
            place.swap().map_err(|e| cannot(&e))?;
            is_new = false;
        }
        if is_new && state.forgets_applications {
            crate::pkg::app::forget(&context.node, context.ctid)?;
        }
    }
    let area = place.area();
    if area.try_exists().map_err(|e| system(&e))? {
        destroy::remove_area(&area)?;
    }
    vzrt::remove::remove_tree(&place.directory).map_err(|e| system(&e))
}

/// All of an area on disk.
pub(super) fn sync(area: &Path) -> Result<(), AreaError> {
    rustix::fs::syncfs(area::hold(area)?).map_err(|e| area::named("syncfs", area, e.into()))?;
    Ok(())
}

fn sync_file(path: &Path) -> Result<(), AreaError> {
    std::fs::File::open(path).and_then(|file| file.sync_all()).map_err(|e| area::named("fsync", path, e))?;
    Ok(())
}

fn cannot(e: &AreaError) -> Failure {
    e.failure(Exit::Convert, "Unable to exchange the private area".to_owned())
}
