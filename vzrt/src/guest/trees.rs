//! Trees in the style of each distribution, and what is set in them.

#![expect(clippy::unwrap_used, reason = "a test that panics is a test that fails")]

use std::fs;
use std::os::unix::fs::symlink;

use proptest::prelude::*;
use tempfile::TempDir;

use super::console::with_console;
use super::family::parse_os_release;
use super::*;

/// A tree of these files, each with its text.
fn tree(files: &[(&str, &str)]) -> (TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("etc")).unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let root = Root::open(dir.path()).unwrap();
    (dir, root)
}

#[test]
fn a_tree_tells_where_its_host_name_is_kept() {
    let systemd = ("usr/lib/systemd/systemd", "");
    let trees: &[(&[(&str, &str)], &str)] = &[
        (&[("usr/lib/os-release", "ID=debian\n"), systemd], "etc/hostname"),
        (&[("usr/lib/os-release", "ID=\"rocky\"\n"), ("etc/redhat-release", ""), systemd], "etc/hostname"),
        (&[("etc/redhat-release", "CentOS release 6.10\n"), ("etc/sysconfig/network", "")], "etc/sysconfig/network"),
        (&[("etc/os-release", "ID=alpine\n"), ("etc/conf.d/hostname", "hostname=x\n")], "etc/hostname"),
        (&[("etc/os-release", "ID=arch\n"), systemd], "etc/hostname"),
        (&[("etc/os-release", "ID=opensuse-leap\nID_LIKE=\"suse opensuse\"\n"), systemd], "etc/hostname"),
        (&[("etc/SuSE-release", "SUSE Linux Enterprise Server 11\n")], "etc/HOSTNAME"),
        (&[("etc/os-release", "ID=slackware\n")], "etc/HOSTNAME"),
        (&[("etc/os-release", "ID=gentoo\n"), ("etc/conf.d/hostname", "")], "etc/conf.d/hostname"),
        (&[("etc/os-release", "ID=gentoo\n"), ("etc/conf.d/hostname", ""), systemd], "etc/hostname"),
        (&[], "etc/hostname"),
    ];
    for (files, expected) in trees {
        let (dir, root) = tree(files);
        set_hostname(&root, HostnameStyle::Auto, &"ct101.example.org".parse().unwrap()).unwrap();
        let text = fs::read_to_string(dir.path().join(expected)).unwrap();
        assert!(text.contains("ct101.example.org"), "{files:?}: {expected}: {text}");
    }
}

#[test]
fn os_release_gives_plain_names_the_nearest_first() {
    assert_eq!(parse_os_release("NAME=x\nID=ubuntu\nID_LIKE=debian\nVERSION_ID=24\n"), ["ubuntu", "debian"]);
    assert_eq!(parse_os_release("ID=\"rocky\"\nID_LIKE='rhel centos fedora'\n"), ["rocky", "rhel", "centos", "fedora"]);
    assert_eq!(parse_os_release("ID=a\nID=b\n"), ["b"], "as a shell takes it");
    assert_eq!(parse_os_release("ID=../../etc/passwd\nID_LIKE=\"A $(x) .. ok\u{1b}[2J fine\"\n"), ["fine"]);
    assert_eq!(parse_os_release(&format!("ID_LIKE={}", "a ".repeat(1000))).len(), 8);
}

proptest! {
    #[test]
    fn no_os_release_makes_the_reader_panic_or_give_a_path(text in "(ID|ID_LIKE|x)=[^\\n]{0,20}\\n[^$]{0,40}") {
        for name in parse_os_release(&text) {
            prop_assert!(!name.contains('/') && !name.starts_with('.') && name.is_ascii(), "{name:?}");
        }
    }
}

#[test]
fn os_release_is_read_through_links_inside_and_no_further() {
    let (dir, root) = tree(&[("usr/lib/os-release", "ID=debian\n")]);
    assert_eq!(distributions(&root).unwrap(), ["debian"]);
    symlink("../usr/lib/os-release", dir.path().join("etc/os-release")).unwrap();
    assert_eq!(distributions(&root).unwrap(), ["debian"]);
    let outside = tempfile::NamedTempFile::new().unwrap();
    fs::write(outside.path(), "ID=secret\n").unwrap();
    fs::remove_file(dir.path().join("etc/os-release")).unwrap();
    symlink(outside.path(), dir.path().join("etc/os-release")).unwrap();
    assert_eq!(distributions(&root).unwrap(), ["debian"], "a link out leads nowhere");
    fs::remove_file(dir.path().join("etc/os-release")).unwrap();
    nix::unistd::mkfifo(&dir.path().join("etc/os-release"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let error = distributions(&root).unwrap_err().to_string();
    assert_eq!(error, "/etc/os-release in the container is a FIFO, not a file");
}

#[test]
fn a_login_is_put_on_the_console_in_the_words_of_each_init() {
    let alpine =
        "::sysinit:/sbin/openrc sysinit\ntty1::respawn:/sbin/getty 38400 tty1\n#ttyS0::respawn:/sbin/getty -L ttyS0\n";
    let (dir, root) = tree(&[("etc/inittab", alpine), ("sbin/getty", "")]);
    for _ in 0..2 {
        set_console(&root, ConsoleStyle::Auto).unwrap();
        let text = fs::read_to_string(dir.path().join("etc/inittab")).unwrap();
        assert_eq!(
            text.strip_prefix(alpine),
            Some("# vz: a login on the console of the container.\nconsole::respawn:/sbin/getty -L 115200 console\n")
        );
    }
    let devuan = "id:2:initdefault:\nsi::sysinit:/etc/init.d/rcS\n1:2345:respawn:/sbin/getty 38400 tty1\n";
    let text = with_console(devuan.as_bytes(), "/sbin/agetty").unwrap();
    assert!(String::from_utf8(text).unwrap().ends_with("\nvz:2345:respawn:/sbin/agetty -L 115200 console\n"));
}

#[test]
fn an_inittab_that_has_a_login_on_the_console_stays_as_it_is() {
    let has = |text: &str| with_console(text.as_bytes(), "/sbin/getty").is_none();
    assert!(has("::sysinit:/etc/init.d/rcS\nconsole::respawn:-/bin/sh\n"));
    assert!(has("::askfirst:-/bin/sh\n"), "busybox: without a terminal it is the console's");
    assert!(has("c:2345:respawn:/sbin/agetty console 38400\n"));
    assert!(has("#console::respawn:/sbin/getty console\n"), "somebody did not want it");
    assert!(!has("::sysinit:/bin/echo console\ntty1::respawn:/sbin/getty 38400 tty1\n"));
    let (dir, root) = tree(&[("sbin/getty", "")]);
    set_console(&root, ConsoleStyle::Auto).unwrap();
    assert!(!dir.path().join("etc/inittab").exists(), "systemd reads none");
    fs::write(dir.path().join("etc/inittab"), "x").unwrap();
    set_console(&root, ConsoleStyle::Leave).unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("etc/inittab")).unwrap(), "x");
}

#[test]
fn upstart_has_a_file_for_the_console_once() {
    let files =
        [("sbin/initctl", ""), ("sbin/agetty", ""), ("etc/init/rc.conf", ""), ("etc/inittab", "id:3:initdefault:\n")];
    let (dir, root) = tree(&files);
    set_console(&root, ConsoleStyle::Auto).unwrap();
    let path = dir.path().join("etc/init/vz-console.conf");
    assert!(fs::read_to_string(&path).unwrap().ends_with("respawn\nexec /sbin/agetty -L 115200 console\n"));
    assert_eq!(fs::read_to_string(dir.path().join("etc/inittab")).unwrap(), "id:3:initdefault:\n");
    fs::write(&path, "# mine\n").unwrap();
    set_console(&root, ConsoleStyle::Auto).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "# mine\n");
    let (dir, root) =
        tree(&[("sbin/initctl", ""), ("sbin/agetty", ""), ("etc/init/rc.conf", ""), ("lib/systemd/systemd", "")]);
    set_console(&root, ConsoleStyle::Auto).unwrap();
    assert!(!dir.path().join("etc/init/vz-console.conf").exists(), "systemd has taken its place");
}

#[test]
fn nothing_is_put_on_the_console_of_a_tree_that_could_not_ask() {
    let (dir, root) = tree(&[("etc/inittab", "tty1::respawn:/x\n")]);
    set_console(&root, ConsoleStyle::Auto).unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("etc/inittab")).unwrap(), "tty1::respawn:/x\n");
}

#[test]
fn mtab_becomes_a_link_and_a_link_stays() {
    let (dir, root) = tree(&[("etc/mtab", "/dev/sda1 / ext3 rw 0 0\n")]);
    set_mtab(&root).unwrap();
    let target = || fs::read_link(dir.path().join("etc/mtab")).unwrap();
    assert_eq!(target().to_str(), Some("/proc/mounts"));
    fs::remove_file(dir.path().join("etc/mtab")).unwrap();
    symlink("../proc/self/mounts", dir.path().join("etc/mtab")).unwrap();
    set_mtab(&root).unwrap();
    assert_eq!(target().to_str(), Some("../proc/self/mounts"));
    fs::remove_file(dir.path().join("etc/mtab")).unwrap();
    fs::create_dir(dir.path().join("etc/mtab")).unwrap();
    assert_eq!(set_mtab(&root).unwrap_err().to_string(), "/etc/mtab in the container is a directory, not a file");
}
