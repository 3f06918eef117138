//! `make install` into an empty directory, again over a changed configuration, and `make uninstall`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The program to install: what the other tests run, or where nothing has been built yet, a debug build.
fn binary() -> PathBuf {
    let built = tests::node::binary();
    if built.is_file() {
        return built;
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--locked", "--package=vzctl", "--package=vzrt", "--package=beancounters"])
        .current_dir(tests::checkout())
        .status()
        .expect("cargo runs");
    assert!(status.success(), "cargo build");
    tests::target_dir().join("debug/vzctl")
}

fn make(target: &str, root: &Path, binary: &Path) -> String {
    let output = Command::new("make")
        .current_dir(tests::checkout())
        .arg("--no-print-directory")
        .arg(target)
        .arg(format!("DESTDIR={}", root.display()))
        .arg(format!("VZCTL={}", binary.display()))
        // As from an installation's own shell: whatever `make test` hands down is not meant for this one.
        .env_remove("MAKEFLAGS")
        .output()
        .expect("make");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "make {target}:\n{text}");
    text
}

fn says(program: &Path, option: &str) -> String {
    let output = Command::new(program).arg(option).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn files(root: &Path) -> BTreeSet<String> {
    fn walk(dir: &Path, root: &Path, found: &mut BTreeSet<String>) {
        for entry in fs_err::read_dir(dir).expect("readable").map(|e| e.expect("readable")) {
            if entry.file_type().expect("typed").is_dir() {
                walk(&entry.path(), root, found);
            } else {
                found.insert(entry.path().strip_prefix(root).expect("below").display().to_string());
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(root, root, &mut found);
    found
}

#[test]
fn installing_twice_keeps_what_the_owner_changed() {
    let binary = binary();
    let root = tempfile::tempdir().expect("a directory");
    let root = root.path();
    make("install", root, &binary);
    let first = files(root);
    for file in [
        "usr/sbin/vzctl",
        "usr/sbin/vzrt",
        "usr/sbin/vzubc-load",
        "usr/sbin/vzlist",
        "usr/sbin/vzpkg",
        "usr/sbin/vzcfgvalidate",
        "usr/sbin/vzcfgscale",
        "usr/sbin/vzsplit",
        "usr/sbin/vzcalc",
        "usr/sbin/vzmemcheck",
        "usr/sbin/vzcpucheck",
        "usr/sbin/vzpid",
        "usr/sbin/vzps",
        "usr/sbin/vztop",
        "usr/sbin/vzquota",
        "etc/vz/vz.conf",
        "etc/vz/conf/ve-basic.conf-sample",
        "etc/vz/dists/default",
        "etc/init.d/vz",
        "usr/share/man/man8/vzctl.8",
        "usr/share/man/man8/vzctl-start.8",
        "usr/share/man/man8/vzcfgvalidate.8",
        "usr/share/man/man8/vzpid.8",
        "usr/share/bash-completion/completions/vzctl",
        "usr/share/doc/vz/docs/commands.md",
        "usr/share/doc/vz/docs/tools.md",
        "usr/lib/systemd/system/vz.service",
    ] {
        assert!(first.contains(file), "{file} was not installed");
    }
    assert!(root.join("etc/vz/names").is_dir(), "where names are kept");
    assert_eq!(fs_err::read_link(root.join("usr/sbin/vzlist")).expect("a link"), Path::new("vzctl"));
    assert!(!first.iter().any(|file| file.ends_with(".new")), "nothing was there to keep");
    assert!(says(&root.join("usr/sbin/vzctl"), "--version").starts_with("vzctl version "), "scripts look for this");
    assert!(says(&root.join("usr/sbin/vzlist"), "-L").contains("hostname"), "it is vzlist by its name");

    assert!(!make("install", root, &binary).contains("kept "), "what is the same is not worth a word");
    assert_eq!(files(root), first);

    let conf = root.join("etc/vz/vz.conf");
    fs_err::write(&conf, "VE_ROOT=/mine/$VEID\n").expect("written");
    let said = make("install", root, &binary);
    assert!(said.contains(&format!("kept {0}, the new one is {0}.new", conf.display())), "{said}");
    assert_eq!(fs_err::read_to_string(&conf).expect("there"), "VE_ROOT=/mine/$VEID\n");
    let ours = fs_err::read(tests::checkout().join("vzctl/etc/vz.conf")).expect("there");
    assert_eq!(fs_err::read(root.join("etc/vz/vz.conf.new")).expect("there"), ours);

    make("uninstall", root, &binary);
    let left = files(root);
    assert!(left.iter().all(|file| file.starts_with("etc/vz/")), "{left:?}");
    assert!(left.contains("etc/vz/vz.conf"), "the configuration stays");
}
