//! The same archive in every compression, whole, cut, followed, and as a bomb.

use std::io::Write;
use std::time::{Duration, Instant};

use templates::unpack::{Refusal, UnpackError};
use templates::{Silent, StoreError};

use super::support::*;

pub(crate) const TESTS: &[Test] = &[
    ("every compression is unpacked", every_compression),
    ("gzip of several members is unpacked to its end", gzip_members),
    ("a compressed archive that is cut off is refused", cut_off),
    ("a compressed archive with garbage after it is refused", followed),
    ("a bomb ends at the limit of bytes", bomb),
    ("a stream that wants too much memory to decompress is refused", memory_hog),
    ("an archive that takes too long is given up", too_slow),
];

fn all(data: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    let mut bz = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    gz.write_all(data).unwrap();
    bz.write_all(data).unwrap();
    xz.write_all(data).unwrap();
    let zst = zstd::encode_all(data, 1).unwrap();
    vec![("gz", gz.finish().unwrap()), ("bz2", bz.finish().unwrap()), ("xz", xz.finish().unwrap()), ("zst", zst)]
}

fn noise(bytes: u32) -> Vec<u8> {
    (0..bytes).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn every_compression() {
    let place = Place::new();
    for (format, archive) in all(&tar(&[file("f", &noise(300_000))])) {
        let tree = place.try_archive(&archive).unwrap_or_else(|e| panic!("{format}: {e:?}"));
        assert!(std::fs::read(tree.layers[0].join("f")).unwrap() == noise(300_000), "{format}");
    }
}

fn gzip_members() {
    let place = Place::new();
    let archive = tar(&[file("f", &noise(100_000)), file("g", b"last")]);
    let (a, b) = archive.split_at(51_234);
    let mut two = all(a).swap_remove(0).1;
    two.extend(all(b).swap_remove(0).1);
    let tree = place.try_archive(&two).unwrap();
    assert_eq!(std::fs::read(tree.layers[0].join("g")).unwrap(), b"last");
}

fn cut_off() {
    let place = Place::new();
    for (format, archive) in all(&tar(&[file("f", &noise(300_000)), file("g", b"x")])) {
        for keep in [archive.len() - 1, archive.len() - 9, archive.len() / 2, 30, 5] {
            let refusal = place.refused(&archive[..keep]);
            assert!(matches!(refusal, Refusal::Damaged { .. }), "{format} cut to {keep}: {refusal}");
        }
    }
}

fn followed() {
    let place = Place::new();
    for (format, mut archive) in all(&tar(&[file("f", b"x")])) {
        archive.extend_from_slice(b"and now for something different");
        let refusal = place.refused(&archive);
        assert!(matches!(refusal, Refusal::Damaged { .. } | Refusal::TrailingGarbage), "{format}: {refusal}");
    }
}

fn bomb() {
    let mut place = Place::new();
    place.limits.bytes = 3 << 20;
    let zeros = vec![0; 1 << 20];
    // In files, behind the end mark, and as the data of a member that has none.
    let in_files: Vec<_> = (0..8).map(|n| file(&format!("f{n}"), &zeros)).collect();
    let behind = [tar(&[file("f", b"x")]), vec![0; 8 << 20]].concat();
    for (what, bomb) in [("in files", tar(&in_files)), ("behind the end", behind)] {
        for (format, archive) in all(&bomb) {
            let refusal = place.refused(&archive);
            assert!(matches!(refusal, Refusal::Limit { .. }), "{what}, {format}: {refusal}");
        }
    }
}

fn memory_hog() {
    let place = Place::new();
    // A frame whose header claims a window of 2 GiB (RFC 8878, 3.1.1.1.2: exponent 21 over 2^10).
    let window = [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3][..], &[0; 100]].concat();
    let refusal = place.refused(&window);
    assert!(matches!(refusal, Refusal::Damaged { .. }), "{refusal}");
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
    encoder.write_all(&tar(&[file("f", b"x")])).unwrap();
    let mut xz = encoder.finish().unwrap();
    // Only the header says so: an encoder with such a dictionary would take ten times its memory. After 12 bytes of the
    // stream comes the block's header: size, flags, LZMA2, one byte of properties, and that (36: 1 GiB); padding, CRC-32.
    let (header, crc) = (12..20, 20..24);
    assert_eq!(xz[12..16], [2, 0, 0x21, 1], "the header's layout");
    let mut sum = flate2::Crc::new();
    sum.update(&xz[header.clone()]);
    assert_eq!(xz[crc.clone()], sum.sum().to_le_bytes(), "where its checksum is");
    xz[16] = 36;
    sum.reset();
    sum.update(&xz[header]);
    xz[crc].copy_from_slice(&sum.sum().to_le_bytes());
    let refusal = place.refused(&xz);
    assert!(matches!(refusal, Refusal::Damaged { .. }), "{refusal}");
}

/// The archive is a FIFO's worth of nothing: a file that grows for ever would do the same.
fn too_slow() {
    let mut place = Place::new();
    place.limits.seconds = 0;
    std::fs::write(place.path().join("cache/t.tar"), tar(&[file("f", &noise(3_000_000))])).unwrap();
    let store = place.store();
    let begun = Instant::now();
    let result = store.tree(&store.find(&Place::name()).unwrap(), &mut Silent);
    let late = matches!(result, Err(StoreError::Unpack { source: UnpackError::TimedOut { .. }, .. }));
    assert!(late, "{result:?}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(place.in_trees(), ["t.lock"]);
}
