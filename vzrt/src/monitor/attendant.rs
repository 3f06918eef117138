//! The attendant: the monitor's child that serves the container while it runs.
//!
//! Everything a container or a command can say to us, it says to this process; the monitor itself reads nothing. Both have one table of
//! descriptors, so whichever is killed, the other still has what the kernel would not give a second time, and makes itself a new partner.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::Kit;
use super::console::Console;
use super::door::{Ask, Visit};
use crate::error::{Call, Failed};

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
    /// Somebody attached to the console, by his place in its list.
    Attached(usize),
    /// Somebody who has come in by the door, by his place in ours.
    Visit(usize),
}

/// Serves until init or the monitor is gone.
///
/// # Errors
/// Nothing can be waited for any more, or the console's log not be written.
pub(super) fn attend(kit: &Kit, monitor: &OwnedFd) -> Result<Over, Failed> {
    let console = kit.console.as_ref().map(|master| Console::take(master, &kit.run)).transpose()?;
    let mut attendant = Attendant { kit, monitor, console, visits: Vec::new(), no_room: false };
    loop {
        for source in attendant.wait()? {
            if let Some(over) = attendant.hear(source) {
                return Ok(over);
            }
        }
        attendant.forget_the_gone();
    }
}

struct Attendant<'a> {
    kit: &'a Kit,
    monitor: &'a OwnedFd,
    console: Option<Console<'a>>,
    /// `None`: has left.
    visits: Vec<Option<Visit>>,
    no_room: bool,
}

impl Attendant<'_> {
    /// Those who have something, init and the monitor last: what a container printed before its end is still heard.
    fn wait(&self) -> Result<Vec<Source>, Failed> {
        let mut sources = Vec::new();
        let mut fds = Vec::new();
        let mut watch = |source, fd| {
            sources.push(source);
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        };
        if let Some(console) = &self.console {
            if let Some(master) = console.descriptor() {
                watch(Source::Console, master);
            }
            console.attached().enumerate().for_each(|(i, fd)| watch(Source::Attached(i), fd));
        }
        for (i, visit) in self.visits.iter().enumerate().filter_map(|(i, v)| Some((i, v.as_ref()?))) {
            watch(Source::Visit(i), visit.as_fd());
        }
        if !self.no_room {
            watch(Source::Door, self.kit.door.as_fd());
        }
        watch(Source::Init, self.kit.init.as_fd());
        watch(Source::Monitor, self.monitor.as_fd());
        match poll(&mut fds, self.patience().as_ref()) {
            // Time has passed: whoever was left alone for it may be asked again.
            Ok(0) if self.no_room => return Ok(vec![Source::Door]),
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e).call(|| "poll()"),
        }
        let heard = sources.into_iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(heard.map(|(source, _)| source).collect())
    }

    fn patience(&self) -> Option<Timespec> {
        let quiet = self.console.as_ref().and_then(Console::patience);
        let patience = quiet.into_iter().chain(self.no_room.then_some(NO_ROOM)).min()?;
        Timespec::try_from(patience).ok()
    }

    fn hear(&mut self, source: Source) -> Option<Over> {
        match (source, &mut self.console) {
            (Source::Init, console) => {
                if let Some(console) = console {
                    console.printed();
                }
                return Some(Over::Init);
            }
            (Source::Monitor, _) => return Some(Over::Monitor),
            (Source::Door, _) => self.open_door(),
            (Source::Visit(i), _) => self.listen(i),
            (Source::Console, Some(console)) => console.printed(),
            (Source::Attached(i), Some(console)) => console.typed(i),
            (Source::Console | Source::Attached(_), None) => {}
        }
        None
    }

    fn open_door(&mut self) {
        let admitted = self.kit.door.admit();
        self.no_room = admitted.is_err();
        match admitted {
            Ok(visit) => self.visits.extend(visit.map(Some)),
            Err(e) => tracing::warn!("Warning: {}", e.one_line()),
        }
    }

    /// Does what a visitor asks for. One who makes no sense is shown out.
    fn listen(&mut self, i: usize) {
        let Some(visit) = &self.visits[i] else { return };
        let done = match (visit.receive(), &mut self.console) {
            (Ok(Some((Ask::Console, Some(stream)))), Some(console)) => console.attach(stream),
            (Ok(Some((Ask::WindowSize { rows, columns }, _))), Some(console)) => console.resize(rows, columns),
            (Ok(Some((ask, _))), _) => Err(Failed::new(format!("{ask:?}"), "not to be had")),
            (Ok(None), _) => {
                self.visits[i] = None;
                return;
            }
            (Err(e), _) => Err(e),
        };
        if let Err(e) = done {
            tracing::debug!("a visitor: {}", e.one_line());
            self.visits[i] = None;
        }
    }

    fn forget_the_gone(&mut self) {
        self.visits.retain(Option::is_some);
        if let Some(console) = &mut self.console {
            console.forget_the_gone();
        }
    }
}
