//! What a real template holds must arrive as it was.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use super::support::*;

pub(crate) const TESTS: &[Test] = &[
    ("ids, modes and times arrive unshifted, setuid included", attributes),
    ("an old tar without directory members and with ./ works", old_style),
    ("a file of before ustar whose name ends in a slash is a directory", v7_directory),
    ("hard links are one file", hard_links),
    ("a later member replaces an earlier one of the same name", duplicates),
    ("extended attributes arrive, those of other machines are skipped", xattrs),
    ("file capabilities give their power to the root of a container only", capabilities),
    ("a default ACL is not inherited by what is unpacked later", default_acl),
    ("GNU and pax long names and fractions of seconds arrive", long_names),
    ("pax sparse files of format 0.1 and 1.0 arrive", pax_sparse),
    ("what tar(1) writes in three formats is unpacked the same", tar_program),
];

fn attributes() {
    let place = Place::new();
    let tree = place.good(&[
        dir("home/").with(|m| (m.mode, m.uid, m.gid) = (0o2750, 1000, 100)),
        file("home/su", b"#!").with(|m| (m.mode, m.uid, m.gid) = (0o4755, 0, 0)),
        file("home/mine", b"x").with(|m| (m.mode, m.uid, m.gid) = (0o600, 65535, 65534)),
        symlink("home/link", "mine").with(|m| (m.uid, m.gid) = (1000, 1000)),
        dir("home/late").with(|m| m.mode = 0o1777),
        fifo("home/pipe").with(|m| (m.mode, m.uid) = (0o620, 7)),
    ]);
    let facts = |name: &str| {
        let m = std::fs::symlink_metadata(tree.join(name)).unwrap();
        (m.mode() & 0o7777, m.uid(), m.gid(), m.mtime())
    };
    let then = 1_700_000_000;
    assert_eq!(
        facts("home"),
        (0o2750, 1000, 100, then),
        "its time is that of the archive although files were made in it"
    );
    assert_eq!(facts("home/su"), (0o4755, 0, 0, then));
    assert_eq!(facts("home/mine"), (0o600, 65535, 65534, then));
    assert_eq!(facts("home/link"), (0o777, 1000, 1000, then));
    assert_eq!(facts("home/late"), (0o1777, 0, 0, then), "the group of a setgid directory is not inherited");
    assert_eq!(facts("home/pipe"), (0o620, 7, 0, then));
}

fn old_style() {
    let place = Place::new();
    let tree = place.good(&[file("./etc/rc.d/rc", b"#!/bin/sh"), file("./etc/motd", b"hi")]);
    assert_eq!(std::fs::read(tree.join("etc/motd")).unwrap(), b"hi");
    assert_eq!((mode(&tree.join("etc")), mode(&tree.join("etc/rc.d"))), (0o755, 0o755));
}

fn v7_directory() {
    let place = Place::new();
    let tree = place.good(&[of_kind(0, "old/", b"").with(|m| m.mode = 0o700), of_kind(0, "old/f", b"x")]);
    assert_eq!(mode(&tree.join("old")), 0o700);
    assert_eq!(std::fs::read(tree.join("old/f")).unwrap(), b"x");
}

fn hard_links() {
    let place = Place::new();
    let tree = place.good(&[file("a/f", b"x"), hardlink("b/g", "./a/f"), hardlink("b/h", "/a/f")]);
    let inode = |name: &str| std::fs::metadata(tree.join(name)).unwrap().ino();
    assert_eq!((inode("a/f"), inode("a/f")), (inode("b/g"), inode("b/h")));
}

fn duplicates() {
    let place = Place::new();
    let tree = place.good(&[
        file("f", b"one").with(|m| m.mode = 0o4755),
        hardlink("kept", "f"),
        file("f", b"two"),
        dir("d").with(|m| m.mode = 0o700),
        file("d/x", b""),
        dir("d").with(|m| m.mode = 0o711),
    ]);
    assert_eq!(std::fs::read(tree.join("f")).unwrap(), b"two");
    assert_eq!(std::fs::read(tree.join("kept")).unwrap(), b"one", "replaced, not written into");
    assert_eq!((mode(&tree.join("f")), mode(&tree.join("d"))), (0o644, 0o711));
}

fn xattrs() {
    let place = Place::new();
    let keys = [("SCHILY.xattr.user.note", b"a\nb=\0c".as_slice()), ("SCHILY.xattr.security.selinux", b"x")];
    let tree = place.try_archive(&tar(&[pax(&keys), file("f", b""), pax(&keys), dir("d")])).unwrap();
    for name in ["f", "d"] {
        assert_eq!(xattr(&tree.layers[0].join(name), "user.note").as_deref(), Some(b"a\nb=\0c".as_slice()), "{name}");
        assert_ne!(xattr(&tree.layers[0].join(name), "security.selinux").as_deref(), Some(b"x".as_slice()), "{name}");
    }
    assert_eq!(tree.unpacked.unwrap().xattrs_skipped, 2);
}

/// `cap_net_raw=ep` as setcap(8) writes it: revision 2, effective, bit 13.
fn net_raw() -> [u8; 20] {
    let mut v2 = [0u8; 20];
    (v2[0], v2[3], v2[5]) = (1, 2, 0x20);
    v2
}

fn capabilities() {
    let place = Place::new();
    let mut v3 = [0u8; 24];
    v3[..20].copy_from_slice(&net_raw());
    v3[3] = 3;
    let key = "SCHILY.xattr.security.capability";
    let executable = |name| file(name, b"#!").with(|m| m.mode = 0o755);
    let tree = place.good(&[pax(&[(key, &net_raw())]), executable("ping"), pax(&[(key, &v3)]), executable("ping3")]);
    for name in ["ping", "ping3"] {
        // Seen from the host, whose ids the root of these capabilities is 0 of: revision 2 again.
        assert_eq!(xattr(&tree.join(name), "security.capability").as_deref(), Some(net_raw().as_slice()), "{name}");
    }
}

fn default_acl() {
    let place = Place::new();
    // acl(5) in its xattr form: version 2, then tag, permissions, id. u::rwx, u:1000:rwx, g::r-x, m::rwx, o::r-x.
    let mut acl = vec![2, 0, 0, 0];
    for (tag, permissions, id) in
        [(1u16, 7u16, u32::MAX), (2, 7, 1000), (4, 5, u32::MAX), (0x10, 7, u32::MAX), (0x20, 5, u32::MAX)]
    {
        acl.extend([tag.to_le_bytes(), permissions.to_le_bytes()].concat());
        acl.extend(id.to_le_bytes());
    }
    let tree = place.good(&[pax(&[("SCHILY.xattr.system.posix_acl_default", &acl)]), dir("d"), file("d/f", b"")]);
    assert_eq!(xattr(&tree.join("d"), "system.posix_acl_default"), Some(acl), "with the container's own ids");
    assert_eq!(xattr(&tree.join("d/f"), "system.posix_acl_access"), None);
}

fn long_names() {
    let place = Place::new();
    let name = format!("usr/share/{}/file", "n".repeat(200));
    let target = "t".repeat(200);
    let tree = place.good(&[
        gnu_long(b'L', &name),
        file("short", b"gnu"),
        gnu_long(b'L', "gnulink"),
        gnu_long(b'K', &target),
        symlink("short", "short"),
        pax(&[("path", "p\u{e4}x\n".as_bytes()), ("mtime", b"1600000000.25"), ("uid", b"42"), ("comment", b"x")]),
        file("short", b"pax"),
        pax(&[("linkpath", target.as_bytes())]),
        symlink("paxlink", "short"),
    ]);
    assert_eq!(std::fs::read(tree.join(&name)).unwrap(), b"gnu");
    for link in ["gnulink", "paxlink"] {
        assert_eq!(std::fs::read_link(tree.join(link)).unwrap(), Path::new(&target));
    }
    let m = std::fs::metadata(tree.join("p\u{e4}x\n")).unwrap();
    assert_eq!((m.mtime(), m.mtime_nsec(), m.uid()), (1_600_000_000, 250_000_000, 42));
}

fn pax_sparse() {
    let place = Place::new();
    let old = [
        ("GNU.sparse.size", b"100000".as_slice()),
        ("GNU.sparse.name", b"d/old"),
        ("GNU.sparse.map", b"0,3,50000,2,100000,0"),
    ];
    let new = [
        ("GNU.sparse.major", b"1".as_slice()),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.realsize", b"100000"),
        ("GNU.sparse.name", b"d/new"),
    ];
    let mut data = b"2\n0\n3\n50000\n2\n".to_vec();
    data.resize(512, 0);
    data.extend_from_slice(b"abcde");
    let tree =
        place.good(&[pax(&old), file("GNUSparseFile.0/old", b"abcde"), pax(&new), file("GNUSparseFile.0/new", &data)]);
    let mut wanted = vec![0; 100_000];
    wanted[..3].copy_from_slice(b"abc");
    wanted[50_000..50_002].copy_from_slice(b"de");
    for name in ["d/old", "d/new"] {
        assert!(std::fs::read(tree.join(name)).unwrap() == wanted, "{name}");
    }
}

fn tar_program() {
    let place = Place::new();
    let source = place.path().join("source");
    std::fs::create_dir_all(source.join("usr/bin")).unwrap();
    std::fs::write(source.join("usr/bin/a"), [1; 3000]).unwrap();
    std::fs::hard_link(source.join("usr/bin/a"), source.join("usr/bin/b")).unwrap();
    std::os::unix::fs::symlink("usr/bin", source.join("bin")).unwrap();
    std::fs::create_dir(source.join("d".repeat(150))).unwrap();
    let holes = std::fs::File::create(source.join("holes")).unwrap();
    holes.set_len(1 << 20).unwrap();
    std::os::unix::fs::FileExt::write_at(&holes, b"middle", 500_000).unwrap();
    for (format, sparse) in [("gnu", "1.0"), ("posix", "1.0"), ("posix", "0.1"), ("posix", "0.0"), ("oldgnu", "1.0")] {
        let mut tar = Command::new("tar");
        tar.args(["-c", "-S", "--numeric-owner"]).arg(format!("--format={format}"));
        tar.arg(format!("--sparse-version={sparse}"));
        let output = tar.arg("-C").arg(&source).arg(".").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let tree = place.try_archive(&output.stdout).unwrap_or_else(|e| panic!("{format}: {e:?}")).layers.remove(0);
        let diff = Command::new("diff").args(["-r", "--no-dereference"]).arg(&source).arg(&tree).output().unwrap();
        assert!(diff.status.success(), "{format}: {diff:?}");
        let inode = |name: &str| std::fs::metadata(tree.join(name)).unwrap().ino();
        assert_eq!(inode("usr/bin/a"), inode("usr/bin/b"), "{format}");
        assert!(std::fs::metadata(tree.join("holes")).unwrap().blocks() < 100, "{format}: holes are kept");
    }
}
