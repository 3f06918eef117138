//! The attendant: the monitor's child that serves the container while it runs.
//!
//! Everything a container or a command can say to us, it says to this process; the monitor itself reads nothing. Both have one table of
//! descriptors, so whichever is killed, the other still has what the kernel would not give a second time, and makes itself a new partner.

use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::console::Console;
use super::door::{self, Ask, Door, Visit};
use super::life::Kit;
use super::life::LAST_WORDS;
use crate::cgroup::CtCgroup;
use crate::channel::Channel;
use crate::error::{Call, Failed};
use crate::hooks::wait_for;
use crate::launch::chain;
use crate::view::answers::Listener;
use crate::view::fuse::{FRESH, Server};
use crate::view::tree::Own;
use crate::{counters, sys, view};

/// Why there is nothing more to attend to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// The container's init has ended.
    Init,
    /// The monitor has.
    Monitor,
}

/// How long the door stays shut when there is no descriptor left for a visitor: he goes on waiting, and we must not spin.
const NO_ROOM: Duration = Duration::from_secs(1);

/// Who may have something for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Init,
    Monitor,
    Door,
    Console,
    /// A reader in the container's `/proc`.
    Files,
    /// A system call, by its listener's place in our list; or the end of all that could ask there.
    Call(usize),
    CallsEnd(usize),
    /// Somebody attached to the console, by his place in its list.
    Attached(usize),
    /// Somebody who has come in by the door, by his place in ours.
    Visit(usize),
}

/// Serves until init or the monitor is gone. The monitor says over `word` what became of init, for those at the console.
///
/// # Errors
/// Nothing can be waited for any more, or the console's log not be written.
pub(super) fn attend(
    kit: &Kit,
    door: &Door,
    cgroup: &CtCgroup,
    monitor: &OwnedFd,
    word: &Channel<String>,
) -> Result<Over, Failed> {
    let console = Console::take(kit.console.as_ref(), kit.run())?;
    let files = kit.connection.as_ref().map(|connection| connection.serve(kit.charge.ids, FRESH)).transpose()?;
    let left = sys::take_what_is_left(door::NAME).call(|| "readdir(/proc/self/fd)")?;
    let mut attendant = Attendant {
        kit,
        door,
        monitor,
        console,
        files,
        own: Own::new(kit.charge.ctid, &kit.charge.run_dir, cgroup, kit.charge.init_pid, kit.charge.user_quota.clone()),
        listeners: left.listeners.into_iter().map(|fd| Some(fd.into())).collect(),
        visits: left.visits.into_iter().map(|fd| Some(Visit::over(fd))).collect(),
        no_room: false,
        desk: None,
    };
    attendant.see_to_counters();
    loop {
        for source in attendant.wait()? {
            if let Some(over) = attendant.hear(source) {
                if over == Over::Init {
                    attendant.last_words(word)?;
                }
                attendant.leave();
                return Ok(over);
            }
        }
        attendant.forget_the_gone();
        attendant.count_load();
    }
}

struct Attendant<'a> {
    kit: &'a Kit,
    door: &'a Door,
    monitor: &'a OwnedFd,
    console: Console<'a>,
    /// `None`: nobody has a file of it mounted any more, or this host has no FUSE.
    files: Option<Server>,
    own: Own,
    /// `None`: nobody can ask there any more.
    listeners: Vec<Option<Listener>>,
    /// `None`: has left.
    visits: Vec<Option<Visit>>,
    no_room: bool,
    /// Who serves the host's beancounters, if it was started here.
    desk: Option<sys::Cloned>,
}

impl Attendant<'_> {
    /// Those who have something, init and the monitor last: what a container printed before its end is still heard.
    fn wait(&self) -> Result<Vec<Source>, Failed> {
        let mut sources = Vec::new();
        let mut fds = Vec::new();
        let mut watch_for = |source, fd, flags| {
            sources.push(source);
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        };
        if let Some(master) = self.console.descriptor() {
            let room = if self.console.wants_room() { PollFlags::OUT } else { PollFlags::empty() };
            watch_for(Source::Console, master, PollFlags::IN | room);
        }
        let mut watch = |source, fd| watch_for(source, fd, PollFlags::IN);
        self.console.attached().for_each(|(i, fd)| watch(Source::Attached(i), fd));
        if let Some(files) = &self.files {
            watch(Source::Files, files.as_fd());
        }
        for (i, listener) in self.listeners.iter().enumerate().filter_map(|(i, l)| Some((i, l.as_ref()?))) {
            watch(Source::Call(i), listener.as_fd());
        }
        for (i, visit) in self.visits.iter().enumerate().filter_map(|(i, v)| Some((i, v.as_ref()?))) {
            watch(Source::Visit(i), visit.as_fd());
        }
        if !self.no_room {
            watch(Source::Door, self.door.as_fd());
        }
        watch(Source::Init, self.kit.init.as_fd());
        watch(Source::Monitor, self.monitor.as_fd());
        match poll(&mut fds, Some(&self.patience())) {
            // Time has passed: whoever was left alone for it may be asked again.
            Ok(0) if self.no_room => return Ok(vec![Source::Door]),
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e).call(|| "poll()"),
        }
        let heard = sources.into_iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(heard
            .map(|(source, fd)| match source {
                Source::Call(i) if !fd.revents().contains(PollFlags::IN) => Source::CallsEnd(i),
                source => source,
            })
            .collect())
    }

    /// At the latest the load is to be counted.
    fn patience(&self) -> Timespec {
        let load = self.own.view.load_due();
        let patience =
            self.console.patience().into_iter().chain(self.no_room.then_some(NO_ROOM)).fold(load, Duration::min);
        Timespec::try_from(patience).unwrap_or_default()
    }

    /// Every five seconds. A monitor that somebody has stopped is then made to go on as well.
    fn count_load(&mut self) {
        if !self.own.view.load_due().is_zero() {
            return;
        }
        if let Some(means) = self.own.view.count_load()
            && let Err(e) = self.kit.run().write_load(means)
        {
            tracing::debug!("the load average: {}", e.one_line());
        }
        if let Err(e) = self.own.counters().look() {
            tracing::debug!("the most that the container holds: {}", chain(&e));
        }
        self.see_to_counters();
        if view::is_stopped(nix::unistd::getppid().as_raw()) {
            tracing::warn!("Warning: the monitor of the container was stopped; it goes on");
            if let Err(e) = rustix::process::pidfd_send_signal(self.monitor, rustix::process::Signal::CONT) {
                tracing::warn!("Warning: pidfd_send_signal(monitor, CONT): {e}");
            }
        }
    }

    /// Whoever served the host's beancounters may have been killed. A host without FUSE has none.
    fn see_to_counters(&mut self) {
        if let Some(desk) = &self.desk
            && !matches!(waitpid(desk.pid, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive))
        {
            self.desk = None;
        }
        if self.kit.connection.is_none() {
            return;
        }
        // In the cgroup of the monitors, for this one is.
        let birth = || sys::clone3(&sys::Clone::default()).call(|| "clone3(vz-counters)");
        match counters::open(self.kit.run().node(), self.kit.charge.log_file.as_deref(), birth) {
            Ok(None) => {}
            Ok(started) => {
                tracing::info!("Nobody served the beancounters of this host; somebody does again");
                self.desk = started;
            }
            Err(e) => tracing::debug!("beancounters: {}", e.one_line()),
        }
    }

    fn hear(&mut self, source: Source) -> Option<Over> {
        match source {
            Source::Init => return Some(Over::Init),
            Source::Monitor => return Some(Over::Monitor),
            Source::Door => self.open_door(),
            Source::Visit(i) => self.listen(i),
            Source::Files => self.serve_files(),
            Source::Call(i) => self.answer(i),
            Source::CallsEnd(i) => self.listeners[i] = None,
            Source::Console => self.console.printed(),
            Source::Attached(i) => self.console.typed(i),
        }
        None
    }

    /// What the container printed before its end, and what the monitor has to say of it.
    fn last_words(&mut self, word: &Channel<String>) -> Result<(), Failed> {
        self.console.printed();
        if wait_for(word, LAST_WORDS / 2)?
            && let Some((word, _)) = word.receive()?
        {
            self.console.say(&word);
        }
        Ok(())
    }

    /// What the kernel gives no second time, and who has come in, stays in the table for the next.
    fn leave(self) {
        let listeners = self.listeners.into_iter().flatten().map(OwnedFd::from);
        let visits = self.visits.into_iter().flatten().map(OwnedFd::from);
        listeners.chain(visits).for_each(|fd| {
            let _in_the_table = fd.into_raw_fd();
        });
    }

    fn serve_files(&mut self) {
        if let Some(files) = &mut self.files
            && let Err(e) = files.serve(&mut self.own)
        {
            // The last of them was unmounted: the container is ending, or its root would rather see the host's numbers.
            tracing::debug!("/proc of the container: {}", e.one_line());
            self.files = None;
        }
    }

    fn answer(&mut self, i: usize) {
        if let Some(listener) = &self.listeners[i]
            && let Err(e) = listener.answer(&self.own.view)
        {
            tracing::debug!("system calls of the container: {}", e.one_line());
            self.listeners[i] = None;
        }
    }

    fn open_door(&mut self) {
        let admitted = self.door.admit();
        self.no_room = admitted.is_err();
        match admitted {
            Ok(visit) => self.visits.extend(visit.map(Some)),
            Err(e) => tracing::warn!("Warning: {}", e.one_line()),
        }
    }

    /// Does what a visitor asks for. One who makes no sense is shown out.
    fn listen(&mut self, i: usize) {
        let Some(visit) = &self.visits[i] else { return };
        let done = match visit.receive() {
            Ok(Some((Ask::Console, Some(stream)))) => self.console.attach(stream),
            Ok(Some((Ask::Answer, Some(listener)))) => {
                self.listeners.push(Some(listener.into()));
                Ok(())
            }
            Ok(Some((Ask::WindowSize { rows, columns }, _))) => self.console.resize(rows, columns),
            Ok(Some((Ask::Attention, _))) => self.console.attention(),
            Ok(Some((ask @ (Ask::Console | Ask::Answer), None))) => {
                Err(Failed::new(format!("{ask:?}"), "without a descriptor"))
            }
            Ok(None) => {
                self.visits[i] = None;
                return;
            }
            Err(e) => Err(e),
        };
        if let Err(e) = done {
            tracing::debug!("a visitor: {}", e.one_line());
            self.visits[i] = None;
        }
    }

    fn forget_the_gone(&mut self) {
        self.visits.retain(Option::is_some);
        self.listeners.retain(Option::is_some);
        self.console.forget_the_gone();
    }
}
