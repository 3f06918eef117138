//! What a container printed on its console, the last of it: two files beside the run directory, so that they are still there when the
//! container has ended, and go with the host's next boot (or with `destroy`).

use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::error::{Call, Failed};
use crate::state::RunDir;

/// Size at which the log is put aside and a new one begun; two are kept, so a container can fill no more than twice this, in bytes.
const LOG_BYTES: u64 = 64 * 1024;

/// The log being written.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: std::fs::File,
    bytes: u64,
}

impl Log {
    /// Goes on with the log that is there.
    ///
    /// # Errors
    /// It can't be opened.
    pub(super) fn open(run: &RunDir) -> Result<Self, Failed> {
        let path = run.console_log();
        let open = || {
            let file = open_options().append(true).create(true).open(&path)?;
            let bytes = file.metadata()?.len();
            Ok::<_, std::io::Error>((file, bytes))
        };
        let (file, bytes) = open().call(|| format!("open({})", path.display()))?;
        Ok(Self { path, file, bytes })
    }

    /// A full disk loses console output; it must not lose the container.
    pub(super) fn append(&mut self, text: &[u8]) {
        if self.bytes + text.len() as u64 > LOG_BYTES {
            let _ = std::fs::rename(&self.path, before(&self.path));
            if let Ok(file) = open_options().write(true).create(true).truncate(true).open(&self.path) {
                self.file = file;
            }
            self.bytes = 0;
        }
        if self.file.write_all(text).is_ok() {
            self.bytes += text.len() as u64;
        }
    }
}

fn open_options() -> std::fs::OpenOptions {
    let mut options = std::fs::OpenOptions::new();
    options.mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options
}

/// Where the one before is put aside.
fn before(path: &Path) -> PathBuf {
    path.with_extension("console.1")
}

/// The last `bytes` of what a container printed, in this run or an earlier one; nothing where there is no log.
///
/// # Errors
/// It can't be read.
pub(crate) fn last(run: &RunDir, bytes: u64) -> Result<Vec<u8>, Failed> {
    let path = run.console_log();
    let mut text = tail(&path, bytes)?;
    let missing = bytes.saturating_sub(text.len() as u64);
    if missing > 0 {
        text.splice(0..0, tail(&before(&path), missing)?);
    }
    Ok(text)
}

fn tail(path: &Path, bytes: u64) -> Result<Vec<u8>, Failed> {
    let mut text = Vec::new();
    let mut read = || {
        let mut file = open_options().read(true).open(path)?;
        let from = file.metadata()?.len().saturating_sub(bytes);
        file.seek(SeekFrom::Start(from))?;
        file.take(bytes).read_to_end(&mut text)
    };
    match read() {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).call(|| format!("read({})", path.display())),
        _ => Ok(text),
    }
}

/// Removes it, for a container that is no more.
///
/// # Errors
/// The failed call.
pub(crate) fn remove(run: &RunDir) -> Result<(), Failed> {
    let path = run.console_log();
    for path in [before(&path), path] {
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(e).call(|| format!("unlink({})", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    #[test]
    fn a_flood_fills_two_files_and_no_more_and_its_end_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::new(dir.path().join("101"));
        assert_eq!(last(&run, 100).unwrap(), b"");
        let mut log = Log::open(&run).unwrap();
        for n in 0..100_000 {
            log.append(format!("line {n}\n").as_bytes());
        }
        let sizes = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len());
        let sizes: Vec<u64> = sizes.collect();
        assert!(sizes.len() == 2 && sizes.iter().all(|&s| s <= LOG_BYTES), "{sizes:?}");
        let text = String::from_utf8(last(&run, 70_000).unwrap()).unwrap();
        assert_eq!(text.len(), 70_000);
        let numbers: Vec<u32> = text.lines().skip(1).map(|l| l["line ".len()..].parse().unwrap()).collect();
        assert!(numbers.windows(2).all(|w| w[1] == w[0] + 1), "the two files are one text");
        assert_eq!(numbers.last(), Some(&99_999));
        remove(&run).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_log_is_gone_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::new(dir.path().join("101"));
        Log::open(&run).unwrap().append(b"one ");
        Log::open(&run).unwrap().append(b"two");
        assert_eq!(last(&run, 100).unwrap(), b"one two");
        assert_eq!(last(&run, 5).unwrap(), b"e two");
    }
}
