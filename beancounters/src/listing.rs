//! Files of `/proc` that the kernel makes for whoever reads them.
//!
//! Some cost by the read(2), not by the byte: each one of `/proc/net/tcp` walks the hash table of all connections of the host (a quarter of a million
//! buckets on a machine of 24 GiB), each one of `/proc/locks` waits for every processor. `std::fs::read` takes five for a short file, the last to
//! be told that there is no more. These take one.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The kernel gives a page at a time (seq_read_iter() of fs/seq_file.c), or more if one line needs it.
const PAGE: usize = 4096;

/// It gives less only at the end, or where the next line has no room: none of these files has a longer one, beside a `/proc/PID/status` with
/// hundreds of groups, which is one piece.
const LONGEST_LINE: usize = 1024;

/// The whole text.
///
/// # Errors
/// The file can't be opened or read.
pub(crate) fn read(path: impl AsRef<Path>) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut bytes = vec![0; 2 * PAGE];
    let mut filled = 0;
    loop {
        let got = match file.read(&mut bytes[filled..]) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            got => got?,
        };
        filled += got;
        if got + LONGEST_LINE <= PAGE {
            bytes.truncate(filled);
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
        if bytes.len() - filled < PAGE {
            bytes.resize(2 * bytes.len(), 0);
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that fails here has failed")]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn a_list_is_whole_whether_it_takes_one_read_or_many() {
        // A process has one line for each of its mappings, and one for each bound socket of its network.
        let directory = tempfile::tempdir().unwrap();
        for bound in [0, 10, 30, 100, 300] {
            let socket = |at: usize| UnixDatagram::bind(directory.path().join(format!("{bound}-{at}"))).unwrap();
            let _sockets: Vec<UnixDatagram> = (0..bound).map(socket).collect();
            let text = read("/proc/self/net/unix").unwrap();
            let here = format!("{}/{bound}-", directory.path().display());
            assert_eq!(text.lines().filter(|line| line.contains(&here)).count(), bound);
            assert!(text.ends_with('\n'));
        }
        let (ours, usual) = (read("/proc/self/limits").unwrap(), std::fs::read_to_string("/proc/self/limits").unwrap());
        assert_eq!(ours, usual);
        assert_eq!(read("/proc/self/nothing").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
