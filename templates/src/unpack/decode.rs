//! Decompression. The format is told by the first bytes, not by the file's name: names of caches lie.

use std::io::{self, BufRead, Cursor, Read};

/// More than `xz -9` needs (65 MiB); the address space limit of the child is above it.
const XZ_MEMORY: u64 = 256 << 20;

/// The plain tar stream of `raw`. Concatenated gzip, bzip2, xz and zstd streams are read to the end; what follows the
/// last is an error of the decoder.
pub(super) fn decoder<'a, R: BufRead + 'a>(mut raw: R) -> io::Result<Box<dyn Read + 'a>> {
    let mut magic = Vec::with_capacity(6);
    raw.by_ref().take(6).read_to_end(&mut magic)?;
    let kind = magic.clone();
    let input = Cursor::new(magic).chain(raw);
    Ok(match kind.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
        }
        // A frame, or a skippable frame as pzstd(1) writes first. The window stays within the library's 128 MiB.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            Box::new(zstd::stream::read::Decoder::with_buffer(input)?)
        }
        _ => Box::new(input),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// What each compressor makes of `data`, and a name for messages.
    fn compressed(data: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut bz = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        gz.write_all(data).unwrap();
        bz.write_all(data).unwrap();
        xz.write_all(data).unwrap();
        vec![
            ("gzip", gz.finish().unwrap()),
            ("bzip2", bz.finish().unwrap()),
            ("xz", xz.finish().unwrap()),
            ("zstd", zstd::encode_all(data, 1).unwrap()),
        ]
    }

    fn decode(raw: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decoder(raw)?.read_to_end(&mut out)?;
        Ok(out)
    }

    fn sample() -> Vec<u8> {
        (0..100_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
    }

    #[test]
    fn every_format_is_known_by_its_first_bytes_and_concatenations_are_read_to_the_end() {
        let data = sample();
        for (name, one) in compressed(&data) {
            assert_eq!(decode(&one).unwrap(), data, "{name}");
            let two = decode(&[one.clone(), one].concat()).unwrap();
            assert_eq!(two.len(), 2 * data.len(), "two streams of {name}");
        }
        assert_eq!(decode(&data).unwrap(), data, "plain");
    }

    #[test]
    fn truncated_and_followed_streams_are_errors_in_every_format() {
        for (name, one) in compressed(&sample()) {
            for cut in [one.len() - 1, one.len() / 2, 20] {
                assert!(decode(&one[..cut]).is_err(), "{name} cut at {cut} of {} was taken", one.len());
            }
            let followed = [one.as_slice(), b"garbage after the end of the stream"].concat();
            assert!(decode(&followed).is_err(), "{name} with garbage after it was taken");
        }
    }
}
