//! What an archive may try. [`Place::try_archive`] asserts for each that nothing outside changed and that a failure
//! leaves nothing; what is asserted here is how each ends.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use templates::unpack::Refusal;

use super::support::*;

pub(crate) const TESTS: &[Test] = &[
    ("a name with .. is refused", parent_in_name),
    ("an absolute name lands inside the tree", absolute_name),
    ("a link out of the tree is not written through", write_through_link),
    ("a link to the root is not written through", write_through_root_link),
    ("a file at the place of a link replaces the link", file_replaces_link),
    ("a directory at the place of a link replaces the link", directory_replaces_link),
    ("a directory replaced by a link is not written through", directory_becomes_link),
    ("a full directory is not replaced by a file", full_directory_stays),
    ("a hard link to a file of the host is refused", hard_link_to_host),
    ("a hard link through a link is refused", hard_link_through_link),
    ("a hard link to a link does not follow it", hard_link_to_link),
    ("a hard link to itself is refused", hard_link_to_itself),
    ("device nodes and links to them are counted and not made", devices),
    ("a whiteout of overlayfs is not made", whiteout),
    ("extended attributes of overlayfs are refused", overlay_xattrs),
    ("trusted attributes are refused", trusted_xattrs),
    ("file capabilities of a foreign root are refused", foreign_capability),
    ("owners outside a container are refused", foreign_owner),
    ("an owner in an extended header is checked too", foreign_owner_in_pax),
    ("a file larger than the limit is refused before it is read", huge_claim),
    ("a size that overflows is refused", overflowing_claim),
    ("a file of holes larger than the limit is refused", huge_sparse),
    ("maps of holes that overlap are refused", overlapping_sparse),
    ("more members than the limit are refused", many_members),
    ("a long name of a gigabyte is refused before it is read", huge_long_name),
    ("an extended header larger than the limit is refused", huge_pax),
    ("names longer than the system takes are refused", long_names),
    ("a tree deeper than the limit is refused", deep_tree),
    ("a name with a NUL in it is refused", nul_in_name),
    ("two extended headers for one member are refused", two_headers),
    ("an extended header without a member is refused", dangling_header),
    ("a malformed extended header is refused", malformed_header),
    ("a global header that renames members is refused", global_header),
    ("a member of unknown type is refused", unknown_type),
    ("a wrong checksum is refused", wrong_checksum),
    ("a truncated archive is refused wherever it is cut", truncated),
    ("an archive without its end mark is refused", no_end_mark),
    ("garbage after the end is refused", trailing_garbage),
    ("garbage instead of an archive is refused", garbage),
    ("an empty archive is refused", empty),
    ("a member named as the root is refused unless it is a directory", root_member),
    ("the root of the tree stays of root with 0755", root_attributes),
    ("a FIFO does not stop the unpacker", fifo_in_the_way),
    ("a link in place of /dev, /proc and /etc is only a link", links_for_system_directories),
];

fn parent_in_name() {
    for name in ["../canary/x", "a/../../canary/x", "./..", "a/.."] {
        let place = Place::new();
        let refusal = place.refused(&tar(&[dir("a"), file(name, b"x")]));
        assert!(matches!(refusal, Refusal::ParentInName { .. }), "{name}: {refusal}");
        let by_pax = place.refused(&tar(&[pax(&[("path", name.as_bytes())]), file("innocent", b"x")]));
        assert!(matches!(by_pax, Refusal::ParentInName { .. }), "{name}: {by_pax}");
        let by_gnu = place.refused(&tar(&[gnu_long(b'L', name), file("innocent", b"x")]));
        assert!(matches!(by_gnu, Refusal::ParentInName { .. }), "{name}: {by_gnu}");
    }
}

fn absolute_name() {
    let place = Place::new();
    let target = format!("{}/secret", place.canary());
    let tree = place.good(&[pax(&[("path", target.as_bytes())]), file("x", b"overwritten")]);
    assert_eq!(std::fs::read(tree.join(target.trim_start_matches('/'))).unwrap(), b"overwritten");
}

fn write_through_link() {
    let place = Place::new();
    let canary = place.canary();
    for target in [canary.as_str(), "../../../canary", "../../../../canary/sub"] {
        let refusal = place.refused(&tar(&[symlink("d", target), file("d/secret", b"x")]));
        assert!(matches!(refusal, Refusal::NotThroughDirectory { .. }), "{refusal}");
        let deeper = place.refused(&tar(&[symlink("d", target), file("d/sub/new/x", b"x")]));
        assert!(matches!(deeper, Refusal::NotThroughDirectory { .. }), "{deeper}");
    }
}

fn write_through_root_link() {
    let place = Place::new();
    for target in ["/", ".", "..", "/proc/self/root"] {
        let refusal = place.refused(&tar(&[symlink("d", target), file("d/etc/x", b"x")]));
        assert!(matches!(refusal, Refusal::NotThroughDirectory { .. }), "{target}: {refusal}");
    }
}

fn file_replaces_link() {
    let place = Place::new();
    let target = format!("{}/secret", place.canary());
    let tree = place.good(&[symlink("f", &target), file("f", b"mine")]);
    assert!(std::fs::symlink_metadata(tree.join("f")).unwrap().is_file());
    assert_eq!(std::fs::read(tree.join("f")).unwrap(), b"mine");
}

fn directory_replaces_link() {
    let place = Place::new();
    let canary = place.canary();
    let tree = place.good(&[symlink("d", &canary), dir("d").with(|m| m.mode = 0o700), file("d/secret", b"mine")]);
    assert!(std::fs::symlink_metadata(tree.join("d")).unwrap().is_dir());
    assert_eq!(std::fs::read(tree.join("d/secret")).unwrap(), b"mine");
}

fn directory_becomes_link() {
    let place = Place::new();
    let canary = place.canary();
    // The unpacker keeps the directory of the last member open: replacing it must not leave it with the old one.
    let members = [dir("d"), file("d/x", b""), hardlink("y", "d/x"), dir("e"), fifo("e/f"), file("e/f", b"")];
    place.good(&members);
    let refusal = place.refused(&tar(&[dir("d"), symlink("d", &canary), file("d/secret", b"x")]));
    assert!(matches!(refusal, Refusal::NotThroughDirectory { .. }), "{refusal}");
}

fn full_directory_stays() {
    let place = Place::new();
    let refusal = place.refused(&tar(&[dir("d"), file("d/x", b""), symlink("d", "/")]));
    assert!(matches!(refusal, Refusal::Syscall { errno: libc::ENOTEMPTY, .. }), "{refusal}");
}

fn hard_link_to_host() {
    let place = Place::new();
    let secret = format!("{}/secret", place.canary());
    let cases = [(secret.as_str(), false), ("/etc/shadow", false), ("../../canary/secret", true)];
    for (target, climbs) in cases {
        let refusal = place.refused(&tar(&[pax(&[("linkpath", target.as_bytes())]), hardlink("h", "")]));
        match refusal {
            Refusal::LinkTarget { .. } => assert!(!climbs, "{target}"),
            Refusal::ParentInName { .. } => assert!(climbs, "{target}"),
            other => panic!("{target}: {other}"),
        }
    }
}

fn hard_link_through_link() {
    let place = Place::new();
    let canary = place.canary();
    let refusal = place.refused(&tar(&[symlink("d", &canary), hardlink("h", "d/secret"), file("h", b"x")]));
    assert!(matches!(refusal, Refusal::NotThroughDirectory { .. }), "{refusal}");
}

fn hard_link_to_link() {
    let place = Place::new();
    let secret = format!("{}/secret", place.canary());
    let tree = place.good(&[symlink("s", &secret), hardlink("h", "s"), file("h", b"mine")]);
    assert!(std::fs::symlink_metadata(tree.join("s")).unwrap().is_symlink());
    assert_eq!(std::fs::read(tree.join("h")).unwrap(), b"mine");
}

fn hard_link_to_itself() {
    let place = Place::new();
    let refusal = place.refused(&tar(&[file("f", b"x"), hardlink("./f", "f")]));
    assert!(matches!(refusal, Refusal::LinkTarget { .. }), "{refusal}");
}

fn devices() {
    let place = Place::new();
    let members = [
        dir("dev"),
        character_device("dev/null"),
        of_kind(b'4', "dev/sda", b""),
        hardlink("dev/zero", "dev/null"),
        hardlink("dev/again", "dev/zero"),
    ];
    let tree = place.try_archive(&tar(&members)).unwrap();
    assert_eq!(tree.unpacked.unwrap().devices_skipped, 4);
    assert_eq!(std::fs::read_dir(tree.layers[0].join("dev")).unwrap().count(), 0);
}

fn whiteout() {
    let place = Place::new();
    // Device 0:0 in a lower layer hides the name below it; over a file of the same archive it removes the file.
    let tree = place.try_archive(&tar(&[file("f", b"x"), character_device("f"), character_device(".wh.g")])).unwrap();
    assert_eq!(std::fs::read_dir(&tree.layers[0]).unwrap().count(), 0);
    assert_eq!(tree.unpacked.unwrap().devices_skipped, 2);
}

fn overlay_xattrs() {
    let place = Place::new();
    for name in ["trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.opaque", "user.overlay.whiteout"] {
        let key = format!("SCHILY.xattr.{name}");
        for member in [dir("d"), file("f", b"")] {
            let refusal = place.refused(&tar(&[pax(&[(&key, b"y")]), member]));
            assert!(matches!(refusal, Refusal::Xattr { .. }), "{name}: {refusal}");
        }
    }
}

fn trusted_xattrs() {
    let place = Place::new();
    let refusal = place.refused(&tar(&[pax(&[("SCHILY.xattr.trusted.md5sum", b"x")]), file("f", b"")]));
    assert!(matches!(refusal, Refusal::Xattr { .. }), "{refusal}");
}

fn foreign_capability() {
    let place = Place::new();
    let mut v3 = [0u8; 24];
    (v3[0], v3[3], v3[5], v3[20]) = (1, 3, 0x20, 7);
    let refusal = place.refused(&tar(&[pax(&[("SCHILY.xattr.security.capability", &v3)]), file("f", b"")]));
    assert!(matches!(refusal, Refusal::Xattr { .. }), "{refusal}");
}

fn foreign_owner() {
    let place = Place::new();
    for (uid, gid) in [(65536, 0), (0, 65536), (1_879_048_192, 0), (u64::from(u32::MAX), 0), (u64::MAX >> 1, 0)] {
        let bad = file("f", b"").with(|m| (m.uid, m.gid, m.mode) = (uid, gid, 0o4755));
        let refusal = place.refused(&tar(&[bad]));
        assert!(matches!(refusal, Refusal::Owner { .. }), "{uid}:{gid}: {refusal}");
    }
}

fn foreign_owner_in_pax() {
    let place = Place::new();
    let refusal = place.refused(&tar(&[pax(&[("uid", b"100000")]), file("f", b"")]));
    assert!(matches!(refusal, Refusal::Owner { .. }), "{refusal}");
}

fn huge_claim() {
    let place = Place::new();
    for size in [place.limits.bytes + 1, 1 << 40, 1 << 62] {
        let refusal = place.refused(&tar(&[file("f", b"x").with(|m| m.claimed_size = Some(size))]));
        assert!(matches!(refusal, Refusal::Limit { .. }), "{size}: {refusal}");
    }
}

fn overflowing_claim() {
    let place = Place::new();
    for size in [b"18446744073709551615".as_slice(), b"18446744073709551616"] {
        let refusal = place.refused(&tar(&[pax(&[("size", size)]), hardlink("f", "g")]));
        assert!(matches!(refusal, Refusal::Limit { .. } | Refusal::Damaged { .. }), "{refusal}");
    }
}

/// A sparse member of the old GNU kind with one piece of data.
fn sparse(real_size: u64, pieces: &[(u64, u64)], data: &[u8]) -> Vec<u8> {
    let m = of_kind(b'S', "holes", data);
    let mut h = m.header();
    for (n, (offset, length)) in pieces.iter().enumerate() {
        h[386 + n * 24..][..12].copy_from_slice(&octal(*offset));
        h[386 + n * 24 + 12..][..12].copy_from_slice(&octal(*length));
    }
    h[483..495].copy_from_slice(&octal(real_size));
    sign(&mut h);
    let mut out = h.to_vec();
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(512) + 1024, 0);
    out
}

fn octal(value: u64) -> [u8; 12] {
    if value < 1 << 33 {
        return format!("{value:011o}\0").into_bytes().try_into().unwrap();
    }
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&value.to_be_bytes());
    bytes[0] = 0x80;
    bytes
}

fn huge_sparse() {
    let place = Place::new();
    for size in [place.limits.bytes + 1, 8 << 60, u64::MAX] {
        let refusal = place.refused(&sparse(size, &[(0, 4)], b"data"));
        assert!(matches!(refusal, Refusal::Limit { .. }), "{size}: {refusal}");
    }
    let honest = place.try_archive(&sparse(32 << 20, &[(0, 4), (32 << 20, 0)], b"data")).unwrap();
    let m = std::fs::metadata(honest.layers[0].join("holes")).unwrap();
    assert_eq!((m.len(), m.blocks() < 100), (32 << 20, true), "holes are kept");
}

fn overlapping_sparse() {
    let place = Place::new();
    for pieces in [&[(0, 4), (2, 4)][..], &[(10, 4), (0, 4)][..], &[(u64::MAX - 1, 8)][..], &[(0, 9)][..]] {
        let refusal = place.refused(&sparse(100, pieces, b"datadata"));
        assert!(matches!(refusal, Refusal::Sparse { .. }), "{pieces:?}: {refusal}");
    }
    for map in ["0,9", "0", "0,1,x,1", "5,-1"] {
        let keys = [("GNU.sparse.map", map.as_bytes()), ("GNU.sparse.size", b"100"), ("GNU.sparse.name", b"f")];
        let refusal = place.refused(&tar(&[pax(&keys), file("x", b"datadata")]));
        assert!(matches!(refusal, Refusal::Sparse { .. } | Refusal::Damaged { .. }), "{map}: {refusal}");
    }
    let keys = [("GNU.sparse.major", b"1".as_slice()), ("GNU.sparse.realsize", b"100")];
    for data in ["9999999999999999999999\n", "18446744073709551615\n", "2\n0\n1\n", "\n", "x\n", ""] {
        let refusal = place.refused(&tar(&[pax(&keys), file("x", data.as_bytes())]));
        assert!(
            matches!(refusal, Refusal::Sparse { .. } | Refusal::Limit { .. } | Refusal::Damaged { .. }),
            "{data:?}: {refusal}"
        );
    }
}

fn many_members() {
    let place = Place::new();
    let members: Vec<_> = (0..=place.limits.members).map(|n| file(&format!("f{n}"), b"")).collect();
    let refusal = place.refused(&tar(&members));
    assert!(matches!(refusal, Refusal::Limit { .. }), "{refusal}");
}

fn huge_long_name() {
    let place = Place::new();
    for kind in *b"LKxg" {
        let bomb = of_kind(kind, "x", b"aaaa").with(|m| m.claimed_size = Some(1 << 30));
        let refusal = place.refused(&tar(&[bomb, file("f", b"")]));
        assert!(matches!(refusal, Refusal::Limit { .. }), "{kind}: {refusal}");
    }
}

fn huge_pax() {
    let place = Place::new();
    let value = vec![b'a'; 5 << 20];
    let refusal = place.refused(&tar(&[pax(&[("SCHILY.xattr.user.big", &value)]), file("f", b"")]));
    assert!(matches!(refusal, Refusal::Limit { .. }), "{refusal}");
    let beyond_the_kernel = vec![b'a'; 70 << 10];
    let refusal = place.refused(&tar(&[pax(&[("SCHILY.xattr.user.big", &beyond_the_kernel)]), file("f", b"")]));
    assert!(matches!(refusal, Refusal::Syscall { .. }), "{refusal}");
}

fn long_names() {
    let place = Place::new();
    for name in ["a".repeat(256), "ab/".repeat(1400), format!("a/{}", "b".repeat(300))] {
        let refusal = place.refused(&tar(&[gnu_long(b'L', &name), file("x", b"")]));
        assert!(matches!(refusal, Refusal::NameTooLong { .. }), "{refusal}");
    }
    let refusal = place.refused(&tar(&[gnu_long(b'K', &"t".repeat(5000)), symlink("s", "")]));
    assert!(matches!(refusal, Refusal::Syscall { errno: libc::ENAMETOOLONG, .. }), "{refusal}");
    let fits = place.good(&[gnu_long(b'L', &"c".repeat(255)), file("x", b"long")]);
    assert_eq!(std::fs::read(fits.join("c".repeat(255))).unwrap(), b"long");
}

fn deep_tree() {
    let place = Place::new();
    let refusal = place.refused(&tar(&[gnu_long(b'L', &"d/".repeat(200)), dir("x")]));
    assert!(matches!(refusal, Refusal::NameTooLong { .. }), "{refusal}");
}

fn nul_in_name() {
    let place = Place::new();
    let refusal = place.refused(&tar(&[pax(&[("path", b"a\0b")]), file("x", b"")]));
    assert!(matches!(refusal, Refusal::ImpossibleName { .. }), "{refusal}");
    let refusal = place.refused(&tar(&[pax(&[("linkpath", b"a\0b")]), symlink("x", "")]));
    assert!(matches!(refusal, Refusal::ImpossibleName { .. }), "{refusal}");
}

fn two_headers() {
    let place = Place::new();
    let refusal = place.refused(&tar(&[pax(&[("path", b"a")]), pax(&[("path", b"../b")]), file("x", b"")]));
    assert!(matches!(refusal, Refusal::Damaged { .. }), "{refusal}");
}

fn dangling_header() {
    let place = Place::new();
    let refusal = place.refused(&tar(&[file("f", b""), pax(&[("path", b"a")])]));
    assert!(matches!(refusal, Refusal::Damaged { .. }), "{refusal}");
}

fn malformed_header() {
    let place = Place::new();
    for records in ["999 path=a\n", "path=a\n", "8 path=", "9 path=aa\n11 uid=1\n"] {
        let refusal = place.refused(&tar(&[of_kind(b'x', "x", records.as_bytes()), file("f", b"")]));
        assert!(matches!(refusal, Refusal::Damaged { .. }), "{records:?}: {refusal}");
    }
}

fn global_header() {
    let place = Place::new();
    let refusal = place.refused(&tar(&[of_kind(b'g', "x", b"16 path=../evil\n"), file("f", b"")]));
    assert!(matches!(refusal, Refusal::GlobalHeader { .. }), "{refusal}");
}

fn unknown_type() {
    let place = Place::new();
    for kind in *b"MDN8\xff" {
        let refusal = place.refused(&tar(&[of_kind(kind, "m", b"")]));
        assert!(matches!(refusal, Refusal::Type { .. }), "{kind}: {refusal}");
    }
}

fn wrong_checksum() {
    let place = Place::new();
    let mut archive = tar(&[file("f", b"x"), file("g", b"y")]);
    archive[1024] ^= 1;
    let refusal = place.refused(&archive);
    assert!(matches!(refusal, Refusal::Damaged { .. }), "{refusal}");
}

fn truncated() {
    let place = Place::new();
    let archive = tar(&[dir("d"), file("d/f", &[7; 5000]), symlink("s", "d")]);
    for cut in [1, 100, 512, 513, 1024, 1500, 1536, 4000, 6656] {
        let refusal = place.refused(&archive[..cut]);
        assert!(matches!(refusal, Refusal::Damaged { .. }), "cut at {cut}: {refusal}");
    }
}

fn no_end_mark() {
    let place = Place::new();
    let refusal = place.refused(&blocks(&[file("f", b"x")]));
    assert!(matches!(refusal, Refusal::Damaged { .. }), "{refusal}");
}

fn trailing_garbage() {
    let place = Place::new();
    let mut archive = tar(&[file("f", b"x")]);
    archive.extend_from_slice(&blocks(&[file("../g", b"x")]));
    assert_eq!(place.refused(&archive), Refusal::TrailingGarbage);
}

fn garbage() {
    let place = Place::new();
    let noise: Vec<u8> = (0..20_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for archive in [&noise[..], b"#!/bin/sh\ntouch /root/pwned\n", &noise[..3]] {
        let refusal = place.refused(archive);
        assert!(matches!(refusal, Refusal::Damaged { .. }), "{refusal}");
    }
}

fn empty() {
    let place = Place::new();
    assert_eq!(place.refused(&tar(&[])), Refusal::Empty);
    assert!(matches!(place.refused(b""), Refusal::Damaged { .. }));
}

fn root_member() {
    let place = Place::new();
    for m in [symlink("./", "/etc"), hardlink(".", "x"), fifo("/"), character_device(".")] {
        let refusal = place.refused(&tar(&[m]));
        assert!(matches!(refusal, Refusal::ImpossibleName { .. }), "{refusal}");
    }
}

fn root_attributes() {
    let place = Place::new();
    let tree = place.good(&[dir("./").with(|m| (m.mode, m.uid, m.gid) = (0o6777, 1000, 1000)), file("f", b"")]);
    let m = std::fs::metadata(&tree).unwrap();
    assert_eq!((m.mode() & 0o7777, m.uid(), m.gid()), (0o755, 0, 0));
    assert_eq!(mode(tree.parent().unwrap()), 0o700, "users of the host cannot reach the trees");
}

fn fifo_in_the_way() {
    let place = Place::new();
    let tree = place.good(&[fifo("p").with(|m| m.mode = 0o622), fifo("q"), file("q", b"now a file")]);
    assert!(std::fs::symlink_metadata(tree.join("p")).unwrap().file_type().is_fifo());
    assert_eq!(mode(&tree.join("p")), 0o622);
    assert_eq!(std::fs::read(tree.join("q")).unwrap(), b"now a file");
    let refusal = place.refused(&tar(&[fifo("p"), file("p/x", b"")]));
    assert!(matches!(refusal, Refusal::NotThroughDirectory { .. }), "{refusal}");
}

fn links_for_system_directories() {
    let place = Place::new();
    let canary = place.canary();
    for name in ["dev", "proc", "sys", "run", "tmp", "etc"] {
        let tree = place.good(&[symlink(name, &canary), file("x", name.as_bytes())]);
        assert!(std::fs::symlink_metadata(tree.join(name)).unwrap().is_symlink());
    }
}
