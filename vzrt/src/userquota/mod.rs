//! The second level of disk quota: the users and groups inside a container have limits of their own, which its root sets with the ordinary
//! tools.
//!
//! The quotas are the kernel's, of the file system that the container's private area is ([`quota::users`]). What keeps the container's root
//! from them is that quotactl(2) wants a capability over the whole machine. So the container's filter hands the call to its attendant, which
//! looks at who asks for what and makes it on this one file system ([`answer`]). Tools find that file system by `/proc/mounts` and by the device
//! named there; where the root is an overlay, which has no quotas of its own, both are shown as OpenVZ's kernel showed them ([`mounts`]).

pub(crate) mod answer;
pub(crate) mod mounts;

use std::path::Path;

use quota::quotactl::Kind;
use quota::users::Users;
use rustix::fs::{FileType, makedev, stat};
use serde::{Deserialize, Serialize};

use crate::error::{Call, Failed};
use crate::launch::chain;
use crate::plan::{Disk, IdRange, Layers, Plan};

/// What the device under an overlay is called inside, as on OpenVZ.
const SIMFS: &str = "simfs";

/// What the quotas of a running container are about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UserQuota {
    /// N of the host's `/dev/loopN`.
    loop_number: u32,
    /// The file below the container's `/dev` that tools name the file system by.
    pub(crate) node: String,
    /// The device number of that file, which is also the one that files of the root show.
    pub(crate) device: u64,
    /// Whether the container is to be told that its overlay is this file system.
    pub(crate) is_under_overlay: bool,
    /// How many users and groups together may have limits (`QUOTAUGIDLIMIT`).
    most: u32,
    /// The ids of the container.
    ids: IdRange,
}

impl UserQuota {
    /// That of a container whose root is mounted. `None` where none is wanted, or there can be none: then it has been said at the mount.
    pub(crate) fn of(plan: &Plan) -> Option<Self> {
        let most = plan.vz.root.user_quota?.get();
        let Disk::Image { file, .. } = &plan.vz.root.disk else { return None };
        Self::find(file, plan, most)
            .inspect_err(|e| {
                tracing::warn!("Warning: the container has no quotas of users and groups: {}", e.one_line())
            })
            .ok()
            .flatten()
    }

    fn find(file: &Path, plan: &Plan, most: u32) -> Result<Option<Self>, Failed> {
        let root = &plan.vz.root;
        let attached = quota::image::attached(file).map_err(|e| Failed::new("find the loop device", chain(&e)))?;
        let Some(loop_number) = attached.map(|device| device.number()) else { return Ok(None) };
        if Users::on(loop_number).grace(Kind::User).is_err() {
            return Ok(None);
        }
        let device = stat(&root.mountpoint).call(|| format!("stat({})", root.mountpoint.display()))?.st_dev;
        let is_under_overlay = matches!(root.layers, Layers::OverTree(_));
        let node = if is_under_overlay { SIMFS.to_owned() } else { format!("loop{loop_number}") };
        Ok(Some(Self { loop_number, node, device, is_under_overlay, most, ids: plan.vz.ids }))
    }

    fn users(&self) -> Users {
        Users::on(self.loop_number)
    }

    /// Whether a file is the one that tools name the file system by.
    fn is_node(&self, kind: FileType, device: u64) -> bool {
        kind == FileType::BlockDevice && device == self.device
    }

    /// Whether a file lies on the container's root.
    fn is_on_root(&self, major: u32, minor: u32) -> bool {
        makedev(major, minor) == self.device
    }
}
