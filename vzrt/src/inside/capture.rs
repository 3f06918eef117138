//! A program inside whose input and output are ours: what goes in is a stream of the host's, what comes out is looked at.

use std::io::Read;

use nix::sys::wait::waitpid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, pidfd_send_signal};

use super::{End, Inside, InsideError, Program, end_of, proxy};
use crate::error::{Call, Failed};

/// Which of a program's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

impl Inside<'_> {
    /// Runs a program with `input` as its standard input; `taken` gets what it writes, as it comes, and says whether to go on: otherwise
    /// the program is killed, for it may write without end. The descriptors inside are pipes.
    ///
    /// # Errors
    /// The container could not be entered, or `input` could not be read: the program is killed then.
    pub fn feed(
        &self,
        program: &Program,
        input: &mut dyn Read,
        taken: &mut dyn FnMut(Stream, &[u8]) -> bool,
    ) -> Result<End, InsideError> {
        let (pipes, child) = self.start_on_pipes(program)?;
        let copied = copy(pipes, input, taken, &child.pidfd);
        if !matches!(copied, Ok(true)) {
            pidfd_send_signal(&child.pidfd, Signal::KILL).call(|| "pidfd_send_signal(KILL)")?;
        }
        match copied {
            Err(e) => {
                waitpid(child.pid, None).call(|| "waitpid()")?;
                Err(e.into())
            }
            Ok(_) => end_of(&child),
        }
    }
}

/// Until the program has ended and what it wrote is through; false if `taken` has had enough.
fn copy(
    pipes: proxy::Pipes,
    source: &mut dyn Read,
    taken: &mut dyn FnMut(Stream, &[u8]) -> bool,
    program: &std::os::fd::OwnedFd,
) -> Result<bool, Failed> {
    let proxy::Stdio { input, output, error } = pipes.outer();
    let mut input = Some(input);
    let mut outputs = [(Stream::Output, Some(output)), (Stream::Error, Some(error))];
    let (mut pending, mut buffer, mut ended) = (Vec::new(), vec![0u8; 65536], false);
    while !ended || outputs.iter().any(|(_, fd)| fd.is_some()) {
        if input.is_some() && pending.is_empty() {
            let n = source.read(&mut buffer).map_err(|source| Failed { call: "read(what goes in)".into(), source })?;
            pending.extend_from_slice(&buffer[..n]);
            if n == 0 {
                input = None;
            }
        }
        let mut fds = vec![PollFd::new(program, if ended { PollFlags::empty() } else { PollFlags::IN })];
        fds.extend(outputs.iter().filter_map(|(_, fd)| fd.as_ref()).map(|fd| PollFd::new(fd, PollFlags::IN)));
        fds.extend(input.as_ref().map(|fd| PollFd::new(fd, PollFlags::OUT)));
        // After its end only what is in the pipes already is fetched: what it left in the background may hold them.
        let patience = ended.then_some(rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 });
        match poll(&mut fds, patience.as_ref()) {
            Ok(0) => break,
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => return Err(e).call(|| "poll()"),
        }
        let over = !ended && !fds[0].revents().is_empty();
        let ready: Vec<bool> = fds[1..].iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        let mut ready = ready.into_iter();
        for (stream, fd) in outputs.iter_mut().filter(|(_, fd)| fd.is_some()) {
            if ready.next() != Some(true) {
                continue;
            }
            let read = fd.as_ref().map_or(Ok(0), |fd| rustix::io::read(fd, &mut buffer));
            match read.call(|| "read(a program's output)")? {
                0 => *fd = None,
                n if !taken(*stream, &buffer[..n]) => return Ok(false),
                _ => {}
            }
        }
        if ready.next() == Some(true) && !proxy::feed(&mut pending, input.as_ref()) {
            input = None;
        }
        if over {
            (ended, input) = (true, None);
        }
    }
    Ok(true)
}
