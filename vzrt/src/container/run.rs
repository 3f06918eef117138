//! `/run`: a tmpfs of ours, so that what is put there stays. Every init takes it as it finds it: systemd mounts nothing where something is mounted
//! already (its container interface asks managers to do this), others only remount.

use std::os::fd::{AsFd, BorrowedFd};

use oci_spec::runtime::MountBuilder;

use super::mounts::{attach, new_file_system, target_dir};
use crate::error::Failed;
use crate::rootfs;

/// As systemd mounts it; what is in it counts as the container's memory.
const OPTIONS: [&str; 5] = ["nosuid", "nodev", "mode=755", "size=20%", "nr_inodes=800k"];

/// Makes it, with an empty directory of this path below `/`, where nothing of the container's has run yet. One that the administrator's scripts have mounted there
/// is kept. A container that has something else in its place, or a root that nobody can write, does without.
pub(super) fn make(root: BorrowedFd, path: &str) {
    let made = tmpfs(root).and_then(|()| target_dir(root, path.as_ref()));
    if let Err(e) = made {
        tracing::debug!("/{path} of the container: {}", e.one_line());
    }
}

fn tmpfs(root: BorrowedFd) -> Result<(), Failed> {
    if rootfs::is_mounted("/run".as_ref())? {
        return Ok(());
    }
    let target = target_dir(root, "/run".as_ref())?;
    let options: Vec<String> = OPTIONS.map(str::to_owned).to_vec();
    let mount = MountBuilder::default().destination("/run").typ("tmpfs").source("tmpfs").options(options);
    let mount = mount.build().map_err(|e| Failed::new("describe /run", e.to_string()))?;
    attach(&new_file_system(&mount)?, target.as_fd(), "/run".as_ref())
}
