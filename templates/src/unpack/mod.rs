//! Unpacking one archive into one empty directory.
//!
//! The parent reads the archive, hashes what it reads and feeds it to a child behind walls ([`sandbox`]), which
//! decompresses ([`decode`]), parses ([`reader`]) and makes files ([`extract`]). So what is hashed is what is unpacked,
//! the child holds no descriptor of the host's files, and hashing and decompression each have a CPU.

mod decode;
pub(crate) mod extract;
#[cfg(test)]
mod fuzzed;
mod layer;
pub(crate) mod member;
pub mod over;
mod pax;
mod reader;
mod sandbox;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::unistd::ForkResult;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use extract::Counts;
pub(crate) use layer::LayerMarks;
pub use member::Refusal;

use crate::progress::Progress;
use crate::sys::{self, Child, ForkError};

/// How much an archive may be. The defaults are about fifty times a large template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Members of the archive.
    pub members: u64,
    /// Bytes after decompression, headers included; also of one file with its holes.
    pub bytes: u64,
    /// Of the whole operation, and of CPU time of the child.
    pub seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { members: 2_000_000, bytes: 64 << 30, seconds: 3600 }
    }
}

/// What an archive is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// All of a system.
    Archive,
    /// What a layer of an OCI image changes of those below it: with whiteouts (image-spec, `layer.md`).
    Layer,
}

/// What the child says in the end.
#[derive(Serialize, Deserialize)]
struct Report {
    counts: Counts,
    marks: LayerMarks,
}

/// Of a report: paths of directories, of which an honest layer has a few.
const MAX_REPORT: usize = 16 << 20;

/// Whether one of these names, without `./` before and `/` behind, is among the first of a plain tar archive; never of one that is compressed
/// or damaged. To tell what it is, by the reader alone: no decompressor runs here.
pub(crate) fn begins_with(archive: File, names: &[&str]) -> bool {
    const ENOUGH: usize = 64;
    let mut reader = reader::Reader::new(io::BufReader::new(archive), &Limits::default());
    for _ in 0..ENOUGH {
        let Ok(Some(member)) = reader.next() else { return false };
        let path = member.path.strip_prefix(b"./").unwrap_or(&member.path);
        let path = path.strip_suffix(b"/").unwrap_or(path);
        if names.iter().any(|name| name.as_bytes() == path) {
            return true;
        }
    }
    false
}

/// Why unpacking failed.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// No child to do it.
    #[error("start the unpacker")]
    Fork(#[source] ForkError),
    /// A call of the parent.
    #[error("{call}")]
    Call {
        /// With its arguments.
        call: &'static str,
        /// Its error.
        #[source]
        source: io::Error,
    },
    /// The archive cannot be read.
    #[error("read the archive")]
    Read(#[source] io::Error),
    /// What the child said.
    #[error("unpack the archive")]
    Refused(#[source] Refusal),
    /// The child died without a word: killed, or out of the memory it is allowed.
    #[error("the unpacker died ({0}); a damaged or hostile archive")]
    Died(String),
    /// Over [`Limits::seconds`].
    #[error("unpacking took longer than the limit of {seconds} s")]
    TimedOut {
        /// The limit.
        seconds: u64,
    },
}

/// What was unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// SHA-256 of the archive as it is on disk, in hexadecimal.
    pub sha256: String,
    /// Its contents.
    pub counts: Counts,
    /// Of a layer: what is to be done with its directories, which only the host's root may.
    pub(crate) marks: LayerMarks,
}

/// Unpacks `archive` into the empty directory `target`. On an error the directory holds a part; removing it is the
/// caller's. Must be called by a process with one thread.
pub(crate) fn unpack(
    archive: &mut File,
    target: BorrowedFd<'_>,
    format: Format,
    limits: &Limits,
    progress: &mut dyn Progress,
) -> Result<Unpacked, UnpackError> {
    let call = |call: &'static str| move |e: Errno| UnpackError::Call { call, source: e.into() };
    // A socket for the data, not a pipe: writing to a child that gave up must be an error and not a SIGPIPE.
    let (data, child_data) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(call("socketpair()"))?;
    let (report, child_report) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(call("pipe2()"))?;
    match sys::fork_single_threaded().map_err(UnpackError::Fork)? {
        ForkResult::Child => {
            drop((data, report));
            child(target, child_data.as_fd(), child_report.as_fd(), format, limits)
        }
        ForkResult::Parent { child } => {
            drop((child_data, child_report));
            let child = Child::new(child);
            feed_and_listen(archive, data, &report, child, limits, progress)
        }
    }
}

/// The child from fork to exit. Its report is JSON, the result as it is.
fn child(target: BorrowedFd<'_>, data: BorrowedFd<'_>, report: BorrowedFd<'_>, format: Format, limits: &Limits) -> ! {
    let run = || match sandbox::enter(target, data, report, limits) {
        Err(refusal) => tell(report, &Err(refusal)),
        Ok(()) => tell(rustix::stdio::stdout(), &extract_stdin(format, limits)),
    };
    // A panic must not unwind into the parent's frames, of which this process has a copy.
    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or(false);
    sys::exit_child(i32::from(!told))
}

fn extract_stdin(format: Format, limits: &Limits) -> Result<Report, Refusal> {
    let input = io::BufReader::with_capacity(256 << 10, Stdin);
    let damaged = |e: io::Error| Refusal::Damaged { after: String::new(), reason: e.to_string() };
    let (counts, marks) =
        extract::extract(decode::decoder(input).map_err(damaged)?, sandbox::open_root()?.as_fd(), format, limits)?;
    Ok(Report { counts, marks })
}

/// A refusal is less than a pipe holds, so it waits for nobody; a longer report comes when all was read, and the parent listens.
fn tell(report: BorrowedFd<'_>, result: &Result<Report, Refusal>) -> bool {
    let json = serde_json::to_vec(result).unwrap_or_default();
    let mut left = json.as_slice();
    while !left.is_empty() {
        match rustix::io::write(report, left) {
            Ok(n) => left = &left[n..],
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    !json.is_empty()
}

struct Stdin;

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(rustix::stdio::stdin(), buffer)?)
    }
}

fn feed_and_listen(
    archive: &mut File,
    data: OwnedFd,
    report: &OwnedFd,
    child: Child,
    limits: &Limits,
    progress: &mut dyn Progress,
) -> Result<Unpacked, UnpackError> {
    let deadline = Instant::now() + Duration::from_secs(limits.seconds);
    let timed_out = || UnpackError::TimedOut { seconds: limits.seconds };
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let got = archive.read(&mut buffer).map_err(UnpackError::Read)?;
        if got == 0 {
            break;
        }
        hash.update(&buffer[..got]);
        match send(&data, &buffer[..got], deadline)? {
            Sent::All => progress.advance(got as u64),
            Sent::Refused => break,
            Sent::TimedOut => return Err(timed_out()),
        }
    }
    drop(data);
    let mut json = Vec::new();
    loop {
        if !ready(report.as_fd(), PollFlags::IN, deadline)? {
            return Err(timed_out());
        }
        let mut chunk = [0; 16 << 10];
        match rustix::io::read(report, &mut chunk) {
            Ok(0) => break,
            Ok(n) if json.len() < MAX_REPORT => json.extend_from_slice(&chunk[..n]),
            Ok(_) => return Err(UnpackError::Died(String::from("it talks nonsense"))),
            Err(Errno::INTR) => {}
            Err(e) => return Err(UnpackError::Call { call: "read(report)", source: e.into() }),
        }
    }
    let status = child.wait().map_err(|e| UnpackError::Call { call: "waitpid()", source: e.into() })?;
    let result: Result<Report, Refusal> =
        serde_json::from_slice(&json).map_err(|_| UnpackError::Died(describe(status)))?;
    let Report { counts, marks } = result.map_err(UnpackError::Refused)?;
    Ok(Unpacked { sha256: format!("{:x}", hash.finalize()), counts, marks })
}

fn describe(status: nix::sys::wait::WaitStatus) -> String {
    use nix::sys::wait::WaitStatus;
    match status {
        WaitStatus::Exited(_, code) => format!("exit code {code}"),
        WaitStatus::Signaled(_, signal, _) => signal.to_string(),
        other => format!("{other:?}"),
    }
}

enum Sent {
    All,
    /// The child closed its end; its report says why.
    Refused,
    TimedOut,
}

fn send(data: &OwnedFd, mut bytes: &[u8], deadline: Instant) -> Result<Sent, UnpackError> {
    while !bytes.is_empty() {
        if !ready(data.as_fd(), PollFlags::OUT, deadline)? {
            return Ok(Sent::TimedOut);
        }
        match rustix::net::send(data, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(Errno::PIPE | Errno::CONNRESET) => return Ok(Sent::Refused),
            Err(e) => return Err(UnpackError::Call { call: "send(data)", source: e.into() }),
        }
    }
    Ok(Sent::All)
}

/// Waits until `fd` is ready or broken; `false` when the deadline passes first.
fn ready(fd: BorrowedFd<'_>, events: PollFlags, deadline: Instant) -> Result<bool, UnpackError> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match rustix::event::poll(&mut [PollFd::from_borrowed_fd(fd, events)], Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(e) => return Err(UnpackError::Call { call: "poll()", source: e.into() }),
        }
    }
}
