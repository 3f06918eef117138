//! What the containers of a node use of their disk and may use, as `/proc/vz/vzquota` told it.
//!
//! Format and order of OpenVZ's kernel (K6, `vzdquota`): a heading, then for each quota that is on its number and the private area, and a row for
//! space in KiB and one for inodes. The kernel is asked for each when the file is read: nothing is counted for it, and no tree is looked at.

use std::fmt::Write;
use std::path::Path;

use quota::project::Project;
use quota::{Limit, image};
use rustix::fs::{Mode, OFlags, open};

use crate::Ctid;
use crate::error::{Call, Failed};
use crate::launch::chain;
use crate::plan::{Disk, RootPlan};
use crate::state::RunDir;

/// The largest number that leaves a blank before it in its column: no limit is this, as is one above it. Readers split at blanks.
const MOST: u64 = 99_999_999_999_999;

/// The first words of the file.
pub(super) fn heading() -> String {
    format!("{:<11}{:>15}{:>15}{:>15}{:>11}{:>11}\n", "qid: path", "usage", "softlimit", "hardlimit", "time", "expire")
}

/// One container's quota.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Quota {
    space_kib: Row,
    inodes: Row,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    usage: u64,
    soft: Limit,
    hard: Limit,
    /// When the soft limit becomes the hard one, in seconds since 1970; 0 while it is not exceeded.
    time: u64,
    /// How long it may be exceeded, in seconds; 0 where there is no such time.
    expire: u64,
}

/// What the file has of a container: nothing of one that is not mounted, or whose quota is off.
///
/// # Errors
/// Its run directory can't be read, or the kernel does not tell.
pub(super) fn record(node: &Path, ctid: Ctid) -> Result<String, Failed> {
    let run = RunDir::new(node.join(ctid.to_string()));
    let Some(journal) = run.journal()? else { return Ok(String::new()) };
    match quota(&journal.root) {
        Ok(quota) => Ok(quota.map(|quota| quota.text(ctid, &journal.root.private)).unwrap_or_default()),
        // It has been unmounted while it was being looked at.
        Err(_) if run.journal()?.is_none() => Ok(String::new()),
        Err(e) => Err(e),
    }
}

fn quota(root: &RootPlan) -> Result<Option<Quota>, Failed> {
    match &root.disk {
        Disk::Unbounded => Ok(None),
        Disk::Project { id, .. } => {
            // Through the directory above: what is in the private area is the container's.
            let above = root.private.parent().unwrap_or(Path::new("/"));
            let told = || {
                let project = Project::open(above, *id)?;
                Ok::<_, quota::project::Error>((project.status()?, project.grace()?))
            };
            let (status, grace) = told().map_err(|e| Failed::new("ask for the quota", chain(&e)))?;
            let row = |usage, limits: quota::SoftHard, ends: Option<u64>, expire| Row {
                usage,
                soft: limits.soft,
                hard: limits.hard,
                time: ends.unwrap_or(0),
                expire,
            };
            Ok(status.is_limited().then(|| Quota {
                space_kib: row(status.space_used_kib, status.space_kib, status.space_grace_ends_s, grace.space_s),
                inodes: row(status.inodes_used, status.inodes, status.inodes_grace_ends_s, grace.inodes_s),
            }))
        }
        Disk::Image { .. } => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mounted =
                open(&root.mountpoint, flags, Mode::empty()).call(|| format!("open({})", root.mountpoint.display()))?;
            let usage = image::usage(mounted).map_err(|e| Failed::new("ask for the image", chain(&e)))?;
            let row = |usage, total| Row { usage, soft: Limit::Of(total), hard: Limit::Of(total), time: 0, expire: 0 };
            Ok(Some(Quota {
                space_kib: row(usage.space_used_kib, usage.space_total_kib),
                inodes: row(usage.inodes_used, usage.inodes_total),
            }))
        }
    }
}

impl Quota {
    fn text(&self, ctid: Ctid, private: &Path) -> String {
        let mut out = format!("{ctid}: {}\n", private.display());
        for (name, row) in [("1k-blocks", self.space_kib), ("inodes", self.inodes)] {
            let Row { usage, soft, hard, time, expire } = row;
            let [soft, hard] = [soft, hard].map(|limit| match limit {
                Limit::Of(n) => n.min(MOST),
                Limit::Unlimited => MOST,
            });
            // Writing to a string can't fail.
            let _ = writeln!(out, "{name:>11}{usage:>15}{soft:>15}{hard:>15}{time:>11}{expire:>11}");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    #[test]
    fn a_record_is_that_of_openvz_and_its_columns_stay_apart() {
        let row = |usage, hard, time| Row { usage, soft: Limit::Of(1_048_576), hard, time, expire: 259_200 };
        let quota = Quota {
            space_kib: row(1_100_000, Limit::Of(1_153_434), 1_700_000_000),
            inodes: row(9, Limit::Unlimited, 0),
        };
        let text = heading() + &quota.text(Ctid::try_from(101).unwrap(), Path::new("/vz/private/101"));
        assert_eq!(
            text,
            "qid: path            usage      softlimit      hardlimit       time     expire\n\
             101: /vz/private/101\n  \
             1k-blocks        1100000        1048576        1153434 1700000000     259200\n     \
             inodes              9        1048576 99999999999999          0     259200\n"
        );
        assert!(text.lines().skip(2).all(|line| line.split_whitespace().count() == 6));
    }

    #[test]
    fn a_container_that_is_not_mounted_has_no_record() {
        let node = tempfile::tempdir().unwrap();
        assert_eq!(record(node.path(), Ctid::try_from(101).unwrap()).unwrap(), "");
    }
}
