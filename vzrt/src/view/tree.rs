//! What the file system of one container has in it: the files that go over those of its `/proc` and `/sys`, side by side, and its
//! beancounters in a directory of their own.

use std::path::Path;

use super::fuse::{self, Node, Tree};
use super::{File, View};
use crate::Ctid;
use crate::cgroup::CtCgroup;
use crate::counters::{One, Table};
use crate::userquota::UserQuota;

/// What the directory of beancounters is called in the file system, and where it goes inside.
pub(crate) const BEANCOUNTERS: (&str, &str) = ("beancounters", "run/vz/proc");

/// The same of the file that shows a root of quotas: it tells each reader of his own mounts.
pub(crate) const MOUNTS: (&str, &str) = ("mounts", "proc/mounts");

/// The number of the first file.
const FIRST: u64 = fuse::ROOT + 1;

/// The number of [`MOUNTS`].
const SHOWN_MOUNTS: u64 = FIRST + File::ALL.len() as u64;

/// What is to be added to a number in the table of beancounters, so that its root comes after the last file.
const TABLE: u64 = SHOWN_MOUNTS + 1 - fuse::ROOT;

/// The files of one container.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) view: View,
    counters: Table<One>,
}

impl Own {
    /// Takes up the files of a running container.
    pub(crate) fn new(
        ctid: Ctid,
        run_dir: &Path,
        cgroup: &CtCgroup,
        init_pid: i32,
        user_quota: Option<UserQuota>,
    ) -> Self {
        let counters = Table::new(One::new(ctid, run_dir, cgroup, init_pid));
        Self { view: View::new(cgroup.clone(), init_pid, user_quota), counters }
    }

    /// The container's beancounters.
    pub(crate) fn counters(&mut self) -> &mut One {
        self.counters.register()
    }
}

impl Tree for Own {
    fn node(&self, number: u64) -> Option<Node> {
        match number {
            fuse::ROOT => Some(Node::directory(0o555)),
            _ if number == SHOWN_MOUNTS || file_of(number).is_some() => Some(Node::file(0o444)),
            _ => self.counters.node(in_table(number)?),
        }
    }

    fn entries(&mut self, directory: u64) -> Vec<(String, u64)> {
        if directory == fuse::ROOT {
            let files = File::ALL.into_iter().zip(FIRST..).map(|(file, number)| (name_of(file), number));
            let others = [(MOUNTS.0.to_owned(), SHOWN_MOUNTS), (BEANCOUNTERS.0.to_owned(), fuse::ROOT + TABLE)];
            return files.chain(others).collect();
        }
        let Some(directory) = in_table(directory) else { return Vec::new() };
        self.counters.entries(directory).into_iter().map(|(name, number)| (name, number + TABLE)).collect()
    }

    fn text(&mut self, file: u64) -> Option<String> {
        // Its cgroup is gone: the container has ended, or is about to.
        self.view.text(file_of(file)?).ok()
    }

    fn text_for(&mut self, file: u64, reader: u32) -> Option<String> {
        match in_table(file) {
            // They keep their rows for as long as these are good for, and a `set` shows at once.
            Some(file) => self.counters.text(file),
            None => (file == SHOWN_MOUNTS).then(|| self.view.mounts(reader)),
        }
    }
}

/// What a file is called in the file system: only [`super::place`] ever sees these names.
pub(super) fn name_of(file: File) -> String {
    file.path().replace('/', ".")
}

fn file_of(number: u64) -> Option<File> {
    File::ALL.get(usize::try_from(number.checked_sub(FIRST)?).ok()?).copied()
}

fn in_table(number: u64) -> Option<u64> {
    number.checked_sub(TABLE).filter(|number| *number >= fuse::ROOT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_a_files_or_the_tables_or_nobodys() {
        for (file, number) in File::ALL.into_iter().zip(FIRST..) {
            assert_eq!((file_of(number), in_table(number)), (Some(file), None));
        }
        let root = fuse::ROOT + TABLE;
        assert_eq!((file_of(root), in_table(root)), (None, Some(fuse::ROOT)));
        assert_eq!((file_of(SHOWN_MOUNTS), in_table(SHOWN_MOUNTS)), (None, None));
        assert_eq!((file_of(0), file_of(fuse::ROOT), file_of(u64::MAX)), (None, None, None));
        assert_eq!((in_table(0), in_table(fuse::ROOT)), (None, None));
    }
}
