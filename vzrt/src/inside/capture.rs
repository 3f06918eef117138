//! A program inside whose input and output are ours: what goes in is a stream of the host's, what comes out is looked at.

use std::fs::File;
use std::io::{Read, Write};

use nix::sys::wait::waitpid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, pidfd_send_signal};

use super::{End, Inside, InsideError, Program, drop_session, end_of, proxy};
use crate::channel::Trouble;
use crate::container;
use crate::error::{Call, Failed};
use crate::sys;

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
        attend(pipes, &child, input, taken)
    }

    /// Does something to the container's files, as its root, which may take as long as it takes: `work` reads what `input` gives and writes
    /// what `taken` gets, both through pipes. Its failure is what it says on [`Stream::Error`], and an end that is not 0. It dies with us.
    ///
    /// # Errors
    /// As [`Inside::feed`].
    pub fn feed_files(
        &self,
        input: &mut dyn Read,
        taken: &mut dyn FnMut(Stream, &[u8]) -> bool,
        work: impl Fn(&mut dyn Read, &mut dyn Write) -> Result<(), Trouble>,
    ) -> Result<End, InsideError> {
        let pipes = proxy::Pipes::new()?;
        let child = self.spawn(None, |_| {
            pipes.inner.as_stdio()?;
            drop_session()?;
            container::confine(self.plan)?;
            // Both after the last change of rights, which would clear the first. Among the descriptors are our ends of the pipes: while it
            // had them, it would wait for itself.
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).call(|| "prctl(PR_SET_PDEATHSIG)")?;
            sys::close_above_stderr_but(None).call(|| "close_range()")?;
            let standard = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().map(File::from);
            let mut input = standard(rustix::stdio::stdin()).call(|| "dup(standard input)")?;
            let mut output = standard(rustix::stdio::stdout()).call(|| "dup(standard output)")?;
            work(&mut input, &mut output)?;
            sys::exit_now(0)
        })?;
        attend(pipes, &child, input, taken)
    }
}

/// Copies until the process has ended; one that `taken` has had enough of, or that nothing can be read for, is killed.
fn attend(
    pipes: proxy::Pipes,
    child: &sys::Cloned,
    input: &mut dyn Read,
    taken: &mut dyn FnMut(Stream, &[u8]) -> bool,
) -> Result<End, InsideError> {
    let copied = copy(pipes, input, taken, &child.pidfd);
    if !matches!(copied, Ok(true)) {
        pidfd_send_signal(&child.pidfd, Signal::KILL).call(|| "pidfd_send_signal(KILL)")?;
    }
    match copied {
        Err(e) => {
            waitpid(child.pid, None).call(|| "waitpid()")?;
            Err(e.into())
        }
        Ok(_) => end_of(child),
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
