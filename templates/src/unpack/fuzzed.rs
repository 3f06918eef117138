//! The reader of archives, fed with archives of every kind and with what becomes of them when they are changed.

use std::path::Path;

use fs_err as fs;

use super::reader::Reader;
use super::{Limits, Refusal};

/// Archives that were worth keeping, small ones of each format among them; each is also what the mutations begin with.
const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/tar");

/// Far above what any archive of the corpus holds, holes included.
const LIMITS: Limits = Limits { members: 1000, bytes: 16 << 20, seconds: 60 };

fn corpus() -> Vec<(String, Vec<u8>)> {
    let mut names: Vec<_> =
        fs::read_dir(CORPUS).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names.len() > 10);
    names.into_iter().map(|name| (name.clone(), fs::read(Path::new(CORPUS).join(name)).unwrap())).collect()
}

/// Reads it to its end, as unpacking does. What holds of every member, however the archive came about, is asserted.
fn read(archive: &[u8]) -> Result<usize, Refusal> {
    let mut reader = Reader::new(archive, &LIMITS);
    let (mut members, mut bytes) = (0, 0);
    let mut buffer = [0; 4096];
    while let Some(member) = reader.next()? {
        members += 1;
        let mut at = 0;
        for (offset, length) in member.segments.iter().flatten() {
            assert!(*offset >= at && *length > 0, "pieces ascend");
            at = offset + length;
            assert!(at <= member.size, "and are within the file");
        }
        loop {
            match reader.read_data(&mut buffer)? {
                0 => break,
                got => bytes += got,
            }
        }
        assert!(bytes <= archive.len() && members <= archive.len() / 512, "nothing is read that is not there");
    }
    Ok(members)
}

#[test]
fn every_archive_of_the_corpus_is_refused_or_read_as_its_name_says() {
    for (name, archive) in corpus() {
        let read = read(&archive);
        assert_eq!(read.is_ok(), name.starts_with("good"), "{name}: {read:?}");
        assert!(read.is_err() || read.is_ok_and(|members| members > 3), "{name}");
    }
}

/// Gives every header its right checksum again: without it a change of a header is refused before anything looks at it.
fn mend_checksums(archive: &mut [u8]) {
    for block in archive.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

proptest::proptest! {
    /// `PROPTEST_CASES=1000000 cargo test --release -p templates no_change_of_an_archive` goes on for longer.
    #[test]
    fn no_change_of_an_archive_makes_the_reader_panic_or_believe_what_is_not_there(
        which in 0..1000usize,
        changes in proptest::collection::vec((0..1_000_000usize, 0..10u8, proptest::num::u8::ANY), 1..8),
        is_mended in proptest::bool::weighted(0.9),
    ) {
        let all = corpus();
        let mut bytes = all[which % all.len()].1.clone();
        for (at, how, byte) in changes {
            let at = at % bytes.len().max(1);
            let block = at / 512 * 512;
            match how {
                0..=3 if !bytes.is_empty() => bytes[at] = byte,
                // Numbers of a header, and its kind.
                4 if bytes.len() >= block + 512 => bytes[block + 124 + at % 12] = b'0' + byte % 8,
                5 if bytes.len() >= block + 512 => bytes[block + 156] = b"0123456789xgLKSVDMN"[usize::from(byte) % 19],
                6 => bytes.truncate(at),
                7 if bytes.len() >= block + 512 => drop(bytes.drain(block..block + 512)),
                8 if bytes.len() >= block + 512 => {
                    let again = bytes[block..block + 512].to_vec();
                    bytes.splice(block..block, again);
                }
                _ => bytes.insert(at.min(bytes.len()), byte),
            }
        }
        if is_mended {
            mend_checksums(&mut bytes);
        }
        // Refused or not: it comes to an end, and what it says of members holds.
        drop(read(&bytes));
    }
}
