//! On directories that stand for what the kernel's overlay shows; `tests/tests/capture.rs` has the real ones.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::*;

/// A system before, one after, and an empty directory.
struct Trees {
    directory: tempfile::TempDir,
}

impl Trees {
    /// Both have the same files: path and content, a directory where it ends with a slash.
    fn new(files: &[(&str, &str)]) -> Self {
        let trees = Self { directory: tempfile::tempdir().unwrap() };
        for tree in ["before", "after", "target"] {
            fs::create_dir(trees.at(tree)).unwrap();
        }
        for tree in ["before", "after"] {
            files.iter().for_each(|(path, content)| put(&trees.at(tree).join(path), content));
        }
        trees
    }

    fn at(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn open(&self, path: &str) -> File {
        File::open(self.at(path)).unwrap()
    }

    fn take_within(&self, bounds: &Bounds) -> Result<Difference, DifferenceError> {
        take(self.open("before").as_fd(), self.open("after").as_fd(), bounds)
    }

    fn take(&self) -> Difference {
        self.take_within(&Bounds::default()).unwrap()
    }

    fn write(&self, difference: &Difference, form: Form) -> Written {
        fs::remove_dir_all(self.at("target")).unwrap();
        fs::create_dir(self.at("target")).unwrap();
        let (after, target) = (self.open("after"), self.open("target"));
        write(difference.suggested(), after.as_fd(), target.as_fd(), form, &Bounds::default()).unwrap()
    }
}

fn put(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    if path.to_string_lossy().ends_with('/') {
        fs::create_dir_all(path).unwrap();
    } else {
        fs::write(path, content).unwrap();
    }
}

/// `kind change path`, one a line.
fn told(difference: &Difference) -> Vec<String> {
    let line = |e: &Entry| format!("{:?} {:?} {}", e.change, e.kind, e.shown());
    difference.entries.iter().map(line).collect()
}

#[test]
fn what_was_added_changed_and_removed_is_found_and_nothing_else() {
    let trees = Trees::new(&[
        ("etc/same", "1"),
        ("etc/other", "1"),
        ("etc/mode", "1"),
        ("usr/gone/a", "1"),
        ("usr/gone/b", "2"),
        ("was/dir/x", ""),
    ]);
    put(&trees.at("after/etc/other"), "2");
    put(&trees.at("after/etc/new"), "12345");
    put(&trees.at("after/srv/www/index"), "hello");
    fs::set_permissions(trees.at("after/etc/mode"), PermissionsExt::from_mode(0o4755)).unwrap();
    fs::remove_dir_all(trees.at("after/usr/gone")).unwrap();
    fs::remove_dir_all(trees.at("after/was/dir")).unwrap();
    symlink("../etc", trees.at("after/was/dir")).unwrap();
    let difference = trees.take();
    assert_eq!(
        told(&difference),
        [
            "Attributes File /etc/mode",
            "Added File /etc/new",
            "Changed File /etc/other",
            "Added Directory /srv",
            "Added Directory /srv/www",
            "Added File /srv/www/index",
            "Removed Directory /usr/gone",
            "Removed Directory /was/dir",
            "Added Link /was/dir",
        ]
    );
    assert_eq!(trees.write(&difference, Form::Files).bytes, 5 + 5 + 1 + 1);
    assert_eq!(difference.meaning.configuration, ["/etc/mode", "/etc/new", "/etc/other"]);
}

#[test]
fn a_system_does_not_differ_from_itself() {
    let trees = Trees::new(&[("a/b/c", "1"), ("a/d/", "")]);
    assert_eq!(trees.take(), Difference::default());
    let written = trees.write(&trees.take(), Form::Layer);
    assert_eq!((written.entries, fs::read_dir(trees.at("target")).unwrap().count()), (0, 0));
}

#[test]
fn what_is_written_is_what_was_there_with_links_modes_and_whiteouts() {
    let trees = Trees::new(&[("usr/lib/gone", "1"), ("etc/", ""), ("kept/deep/x", "1")]);
    put(&trees.at("after/usr/bin/one"), "content");
    fs::set_permissions(trees.at("after/usr/bin/one"), PermissionsExt::from_mode(0o6755)).unwrap();
    fs::hard_link(trees.at("after/usr/bin/one"), trees.at("after/usr/bin/two")).unwrap();
    symlink("/nowhere", trees.at("after/etc/link")).unwrap();
    put(&trees.at("after/kept/deep/y"), "");
    fs::set_permissions(trees.at("after/kept/deep"), PermissionsExt::from_mode(0o1777)).unwrap();
    fs::remove_file(trees.at("after/usr/lib/gone")).unwrap();
    let difference = trees.take();
    let layer = trees.write(&difference, Form::Layer);
    let meta = |path: &str| fs::symlink_metadata(trees.at("target").join(path)).unwrap();
    assert_eq!((meta("usr/bin/one").mode() & 0o7777, meta("usr/bin/one").nlink()), (0o6755, 2));
    assert_eq!(meta("usr/bin/one").ino(), meta("usr/bin/two").ino());
    assert_eq!(meta("usr/bin/one").mtime_nsec(), fs::metadata(trees.at("after/usr/bin/one")).unwrap().mtime_nsec());
    assert_eq!(meta("usr/bin").mtime_nsec(), fs::metadata(trees.at("after/usr/bin")).unwrap().mtime_nsec());
    assert_eq!(fs::read_link(trees.at("target/etc/link")).unwrap(), Path::new("/nowhere"));
    assert_eq!(meta("kept/deep").mode() & 0o7777, 0o1777, "a directory that is only on the way is as it is");
    assert!(!trees.at("target/kept/deep/x").exists());
    assert!(meta("usr/lib/gone").file_type().is_char_device() && meta("usr/lib/gone").rdev() == 0);
    assert_eq!(layer.bytes, 7, "a file with two names is written once");
    let again = trees.write(&trees.take(), Form::Layer);
    assert_eq!(again.sha256, layer.sha256);
    let files = trees.write(&difference, Form::Files);
    assert!(fs::symlink_metadata(trees.at("target/usr/lib/gone")).is_err());
    assert_ne!(files.sha256, layer.sha256);
}

#[test]
fn holes_stay_holes() {
    let trees = Trees::new(&[]);
    let file = File::create(trees.at("after/sparse")).unwrap();
    file.set_len(1 << 32).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"x", 1 << 31).unwrap();
    let difference = trees.take();
    assert!(difference.entries[0].bytes < 1 << 20);
    assert!(trees.write(&difference, Form::Files).bytes < 1 << 20);
    let written = fs::metadata(trees.at("target/sparse")).unwrap();
    assert!(written.len() == 1 << 32 && written.blocks() < 1 << 11);
}

#[test]
fn packages_users_services_and_configuration_are_named() {
    let status = |packages: &[&str]| -> String {
        let paragraph = |p: &&str| {
            format!("Package: {p}\nStatus: install ok installed\nVersion: 1\nConffiles:\n /etc/{p}.conf 00\n\n")
        };
        packages.iter().map(paragraph).collect()
    };
    let root = "root:x:0:0::/root:/bin/sh\n";
    let trees = Trees::new(&[
        ("var/lib/dpkg/status", &status(&["old", "both"])),
        ("etc/passwd", root),
        ("etc/group", "root:x:0:\n"),
    ]);
    put(&trees.at("after/var/lib/dpkg/status"), &status(&["both", "web"]));
    put(&trees.at("after/etc/passwd"), &format!("{root}web:x:100:101::/:/bin/false\n"));
    put(&trees.at("after/etc/group"), "root:x:0:\nweb:x:101:web\n");
    put(&trees.at("after/etc/web.conf"), "as the package has it");
    put(&trees.at("after/etc/web.d/own.conf"), "our own");
    put(&trees.at("after/etc/systemd/system/multi-user.target.wants/x"), "no link, so nothing is enabled");
    symlink(
        "/lib/systemd/system/web.service",
        trees.at("after/etc/systemd/system/multi-user.target.wants/web.service"),
    )
    .unwrap();
    let meaning = trees.take().meaning;
    let package = |name: &str| Package { name: name.into(), version: "1".into() };
    assert_eq!((meaning.packages_added, meaning.packages_removed), (vec![package("web")], vec![package("old")]));
    assert_eq!((meaning.users[0].line.as_str(), meaning.users.len()), ("web:x:100:101::/:/bin/false", 1));
    assert_eq!((meaning.groups[0].line.as_str(), meaning.groups.len()), ("web:x:101:", 1));
    assert_eq!(meaning.services, ["web.service"]);
    assert!(meaning.configuration.contains(&"/etc/web.d/own.conf".to_owned()));
    assert!(!meaning.configuration.contains(&"/etc/web.conf".to_owned()));
}

#[test]
fn a_hostile_system_is_read_within_bounds_and_never_outside() {
    let trees = Trees::new(&[]);
    let outside = trees.at("outside");
    put(&outside.join("passwd"), "root:x:0:0::/:/bin/sh\n");
    symlink(&outside, trees.at("after/etc")).unwrap();
    put(&trees.at("after/a\u{1b}[31m"), "");
    let difference = trees.take();
    assert_eq!(told(&difference), ["Added File /a\\u{1b}[31m", "Added Link /etc"]);
    assert!(difference.meaning.users.is_empty(), "no link is followed to a file of accounts");
    rustix::fs::mknodat(rustix::fs::CWD, trees.at("after/fifo"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    std::os::unix::net::UnixListener::bind(trees.at("after/socket")).unwrap();
    assert_eq!(trees.take().suggested().count(), 3, "a socket is left out, and a FIFO is not waited for");
    fs::create_dir_all(trees.at(&format!("after/{}", "d/".repeat(20)))).unwrap();
    let refused = |bounds: Bounds| trees.take_within(&bounds).unwrap_err().to_string();
    let bounds = Bounds { depth: 10, ..Bounds::default() };
    assert_eq!(refused(bounds), "the container has more levels of directories than the limit of 10");
    assert_eq!(
        refused(Bounds { entries: 5, ..Bounds::default() }),
        "the container has more entries than the limit of 5"
    );
    fs::remove_file(trees.at("after/etc")).unwrap();
    put(&trees.at("after/etc/passwd/"), "");
    assert_eq!(refused(Bounds::default()), "/etc/passwd, line 0: is not a file");
}

#[test]
fn comparing_and_writing_end_at_the_bound_of_bytes() {
    let trees = Trees::new(&[("a", "0123456789")]);
    put(&trees.at("after/a"), "0123456789");
    let bounds = Bounds { bytes: 9, ..Bounds::default() };
    assert!(matches!(trees.take_within(&bounds), Err(DifferenceError::Bound { what: "bytes", .. })));
    put(&trees.at("after/b"), "0123456789");
    let (difference, after, target) = (trees.take(), trees.open("after"), trees.open("target"));
    let written = write(difference.suggested(), after.as_fd(), target.as_fd(), Form::Files, &bounds);
    assert!(matches!(written, Err(DifferenceError::Bound { what: "bytes", .. })));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]
    /// What is written, laid over what was there before, is what was there afterwards.
    #[test]
    fn a_difference_laid_over_the_one_gives_the_other(
        before in proptest::collection::btree_map("[ab](/[ab]){0,2}", "[xy]{0,2}", 0..6),
        after in proptest::collection::btree_map("[ab](/[ab]){0,2}", "[xy]{0,2}", 0..6),
    ) {
        let trees = Trees::new(&[]);
        for (tree, files) in [("before", &before), ("after", &after)] {
            for (path, content) in files {
                // A file where another path needs a directory, or the other way round: the first one stays.
                let path = trees.at(tree).join(path);
                if fs::create_dir_all(path.parent().unwrap()).is_ok() && !path.is_dir() {
                    fs::write(path, content).unwrap();
                }
            }
        }
        let difference = trees.take();
        trees.write(&difference, Form::Files);
        for entry in difference.entries.iter().filter(|e| e.change == Change::Removed) {
            let path = trees.at("before").join(std::str::from_utf8(&entry.path).unwrap());
            if entry.kind == Kind::Directory { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
        }
        lay(&trees.at("target"), &trees.at("before"));
        proptest::prop_assert_eq!(trees.take().entries, []);
    }
}

fn lay(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let (entry, to) = (entry.as_ref().unwrap().path(), to.join(entry.as_ref().unwrap().file_name()));
        if entry.is_dir() {
            fs::create_dir_all(&to).unwrap();
            lay(&entry, &to);
        } else {
            fs::write(&to, fs::read(&entry).unwrap()).unwrap();
        }
    }
}
