//! Who serves the host's files of beancounters: one process of a node, `vz-counters`, for as long as a container of it runs. The same process keeps the
//! order in which containers lose to the killer when the host is out of memory (`overdraft.rs`): it too is one for all of them.
//!
//! It is none of those that stay with a container: telling of a thousand containers takes a while, in which no container's own `/proc` is to wait,
//! and no container's end may take it along. Whoever starts a container, and every attendant every few seconds, sees to it that it is there;
//! the end of the last container ends it.
//!
//! That there is one and no more is a lock that the kernel lets go with its holder: `proc.lock` beside the mount point, with its process id.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use beancounters::Counters;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FlockOperation, flock};
use rustix::io::{Errno, FdFlags, fcntl_setfd, read, retry_on_intr};
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use super::disk;
use super::schedule::Schedule;
use super::table::{Register, Table};
use crate::error::{Call, Failed};
use crate::hooks::wait_for;
use crate::launch::chain;
use crate::monitor::{self, Work};
use crate::overdraft::{self, Order};
use crate::plan::IdRange;
use crate::state::RunDir;
use crate::view::fuse::Connection;
use crate::{Ctid, cgroup, log, sys};

/// How often the process looks whether anything runs at all: everybody who should have ended it may have been killed.
const LOOK: Duration = Duration::from_secs(10);

/// How long its end may take.
const END: Duration = Duration::from_secs(2);

/// How long a text is the truth: the moment between asking for a file's size and reading it.
const FRESH: Duration = Duration::from_millis(1);

/// What the process is called.
const NAME: &str = "vz-counters";

/// The files are the host's root's.
const ROOT: IdRange = IdRange { uid: 0, gid: 0, count: 1 };

/// What the process has to know: it is handed over as the monitor's is.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Desk {
    /// `VZ_RUNDIR`.
    node: PathBuf,
    /// Where messages go.
    log_file: Option<PathBuf>,
    device: RawFd,
    lock: RawFd,
}

/// Sees to it that the files are there below a node's run directory and that somebody serves them. When this returns they can be opened.
/// Gives the process where there was none: a caller that stays is to wait for its end. `birth` makes it, in the cgroup of the monitors: the
/// session or the service of whoever starts the first container may end before the last one does.
///
/// # Errors
/// The failed call; then the files are not there. A host without FUSE has none.
pub(crate) fn open(
    node: &Path,
    log_file: Option<&Path>,
    birth: impl FnOnce() -> Result<Option<sys::Cloned>, Failed>,
) -> Result<Option<sys::Cloned>, Failed> {
    let Some(mut lock) = take(node)? else { return Ok(None) };
    // Of one that was killed.
    take_away(node)?;
    let place = place(node);
    match std::fs::DirBuilder::new().mode(0o755).create(&place) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(e).call(|| format!("mkdir({})", place.display()));
        }
        _ => {}
    }
    let (connection, mount) = Connection::new()?;
    move_mount(&mount, "", CWD, &place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .call(|| format!("move_mount(fuse, {})", place.display()))?;
    let desk = Desk {
        node: node.to_owned(),
        log_file: log_file.map(Path::to_owned),
        device: connection.as_fd().as_raw_fd(),
        lock: lock.as_raw_fd(),
    };
    let go = || {
        let mut command = monitor::program(&format!("{NAME}: {}", node.display()), &Work::Counters(desk))?;
        // Who waits for the end of our output does not wait for the end of the last container.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let (told, done) = pipe_with(PipeFlags::CLOEXEC).call(|| "pipe()")?;
        if let Some(child) = birth()? {
            drop(done);
            // Nothing of the caller's (a lock, a pipe) stays open in there when the command ends.
            retry_on_intr(|| read(&told, &mut [0u8])).call(|| "read(pipe)")?;
            return Ok::<_, Failed>(child);
        }
        let become_it = || {
            sys::close_inherited().call(|| "readdir(/proc/self/fd)")?;
            for fd in [connection.as_fd(), lock.as_fd()] {
                fcntl_setfd(fd, FdFlags::empty()).call(|| "fcntl(F_SETFD)")?;
            }
            drop(done);
            Err::<std::convert::Infallible, _>(command.exec()).call(|| "execve(vzrt)")
        };
        let Err(error) = become_it();
        tracing::error!("beancounters: {}", error.one_line());
        sys::exit_now(1);
    };
    let child = go().or_else(|e| take_away(node).and(Err(e)))?;
    writeln!(lock, "{}", child.pid).call(|| format!("write({})", lock_file(node).display()))?;
    Ok(Some(child))
}

/// Takes the files away again if no container of the node runs. To be called whenever one has ended: two that end at once both see none.
/// One that is just starting sees to it that they come back.
pub(crate) fn close_if_idle(node: &Path) {
    if lock_file(node).exists()
        && !anything_runs(node)
        && let Err(e) = close(node)
    {
        tracing::warn!("Warning: the beancounters of no container stay: {}", e.one_line());
    }
}

fn close(node: &Path) -> Result<(), Failed> {
    let deadline = Instant::now() + END;
    loop {
        if let Some(lock) = take(node)? {
            return clear(node, &lock);
        }
        match server(node) {
            Some(server) => {
                // Asked to end it would have to be awake, and not reading.
                let _ends = pidfd_send_signal(&server, Signal::KILL);
                wait_for(&server, deadline.saturating_duration_since(Instant::now()))?;
            }
            // It is being started, or another command is doing this.
            None => std::thread::sleep(Duration::from_millis(1)),
        }
        if Instant::now() > deadline {
            return Err(Failed::new(format!("flock({})", lock_file(node).display()), "its holder does not end"));
        }
    }
}

/// The files, their directory and the lock, by the holder of the lock.
fn clear(node: &Path, _lock: &File) -> Result<(), Failed> {
    take_away(node)?;
    let (place, file) = (place(node), lock_file(node));
    absent_is_fine(std::fs::remove_dir(&place)).call(|| format!("rmdir({})", place.display()))?;
    absent_is_fine(std::fs::remove_file(&file)).call(|| format!("unlink({})", file.display()))
}

fn absent_is_fine(r: std::io::Result<()>) -> std::io::Result<()> {
    r.or_else(|e| if e.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
}

fn place(node: &Path) -> PathBuf {
    node.join("proc")
}

fn lock_file(node: &Path) -> PathBuf {
    node.join("proc.lock")
}

/// The lock with nothing in it; `None` while somebody has it.
fn take(node: &Path) -> Result<Option<File>, Failed> {
    let path = lock_file(node);
    let call = |what: &str| format!("{what}({})", path.display());
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let file = options.open(&path).call(|| call("open"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(None),
        r => r.call(|| call("flock"))?,
    }
    // One that was removed meanwhile is nobody's lock any more.
    let ours = file.metadata().call(|| call("fstat"))?;
    let same = |there: &std::fs::Metadata| (there.dev(), there.ino()) == (ours.dev(), ours.ino());
    if !path.symlink_metadata().is_ok_and(|there| same(&there)) {
        return Ok(None);
    }
    file.set_len(0).call(|| call("truncate"))?;
    Ok(Some(file))
}

/// Unmounts what is there, however often.
fn take_away(node: &Path) -> Result<(), Failed> {
    let place = place(node);
    loop {
        match unmount(&place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            // Nothing, or nothing any more, is mounted there.
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(e) => return Err(e).call(|| format!("umount({})", place.display())),
        }
    }
}

/// The process that has put its number into the lock, if that is what it is.
fn server(node: &Path) -> Option<OwnedFd> {
    let mut text = String::new();
    File::open(lock_file(node)).ok()?.take(16).read_to_string(&mut text).ok()?;
    let pid: i32 = text.trim().parse().ok().filter(|pid| *pid > 0)?;
    let server = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    // The name after the pidfd: it is then that of the process behind it, or of nobody. Until it has its own it has its program's.
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    [NAME, monitor::PROGRAM].contains(&name.trim()).then_some(server)
}

/// The containers of a node, by its run directory.
#[derive(Debug)]
struct All {
    node: PathBuf,
    /// Found when somebody asks: not while the first container is being started.
    host: Option<cgroup::Host>,
}

impl All {
    fn host(&mut self) -> Result<&cgroup::Host, Failed> {
        let host = match self.host.take() {
            Some(host) => host,
            None => cgroup::Host::detect(Path::new("/")).map_err(|e| Failed::new("find the cgroups", chain(&e)))?,
        };
        Ok(self.host.insert(host))
    }

    fn rows_of(&mut self, ctid: Ctid) -> Result<Option<Counters>, Failed> {
        let run = self.run_dir(ctid);
        let rows = super::running(&run, self.host()?).map_err(|e| Failed::new("count", chain(&e)))?;
        Ok(rows.map(|rows| rows.counters))
    }

    fn schedule_of(&mut self, ctid: Ctid) -> Result<Option<Schedule>, Failed> {
        let run = self.run_dir(ctid);
        let Some(running) = run.running()? else { return Ok(None) };
        let cgroup = self.host()?.container(&running.state.cgroup, ctid);
        match Schedule::of(&cgroup, running.state.init_start_ticks) {
            // It has ended while it was being looked at.
            Err(_) if run.running()?.is_none() => Ok(None),
            schedule => schedule.map(Some).map_err(|e| Failed::new("read the CPU time", chain(&e))),
        }
    }

    fn run_dir(&self, ctid: Ctid) -> RunDir {
        RunDir::new(self.node.join(ctid.to_string()))
    }
}

pub(crate) fn numbers(node: &Path) -> Vec<Ctid> {
    let entries = std::fs::read_dir(node).into_iter().flatten().flatten();
    let mut all: Vec<Ctid> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    all.sort_unstable();
    all
}

fn is_running(node: &Path, ctid: Ctid) -> bool {
    RunDir::new(node.join(ctid.to_string())).running().is_ok_and(|running| running.is_some())
}

fn anything_runs(node: &Path) -> bool {
    numbers(node).into_iter().any(|ctid| is_running(node, ctid))
}

impl Register for All {
    const OF_THE_HOST: bool = true;

    fn disks(&mut self) -> Option<String> {
        let told = |ctid: Ctid, e: &Failed| tracing::warn!("Warning: the disk quota of CT {ctid}: {}", e.one_line());
        let records = numbers(&self.node)
            .into_iter()
            .filter_map(|ctid| disk::record(&self.node, ctid).inspect_err(|e| told(ctid, e)).ok());
        Some(disk::heading() + &records.collect::<String>())
    }

    fn numbers(&mut self) -> Vec<Ctid> {
        numbers(&self.node)
    }

    fn is_running(&mut self, ctid: Ctid) -> bool {
        is_running(&self.node, ctid)
    }

    fn rows(&mut self, ctid: Ctid) -> Option<Counters> {
        let told = |e: &Failed| tracing::warn!("Warning: the beancounters of CT {ctid}: {}", e.one_line());
        self.rows_of(ctid).inspect_err(told).ok()?
    }

    fn schedule(&mut self, ctid: Ctid) -> Option<Schedule> {
        let told = |e: &Failed| tracing::warn!("Warning: the CPU time of CT {ctid}: {}", e.one_line());
        self.schedule_of(ctid).inspect_err(told).ok()?
    }
}

/// The life of the process.
///
/// # Errors
/// It can't begin. What it left is found by whoever sees to it that there is one.
pub(crate) fn serve(desk: Desk) -> Result<(), Failed> {
    let Desk { node, log_file, device, lock } = desk;
    log::to_file_only(log_file.as_deref(), None);
    let take = |number: RawFd| sys::inherited(number).call(|| format!("fcntl({number}, F_SETFD)"));
    let (connection, lock) = (Connection::over(take(device)?), File::from(take(lock)?));
    monitor::leave_caller()?;
    monitor::detach()?;
    monitor::title(&format!("{NAME}: {}", node.display()));
    let mut server = connection.serve(ROOT, FRESH)?;
    let mut table = Table::new(All { node: node.clone(), host: None });
    let mut order = Order::of(&node);
    let (mut looked, mut kept) = (Instant::now(), Instant::now());
    let patience = Timespec::try_from(overdraft::LOOK).unwrap_or_default();
    loop {
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            if !anything_runs(&node) {
                return clear(&node, &lock);
            }
        }
        if kept.elapsed() >= overdraft::LOOK {
            kept = Instant::now();
            order.keep().unwrap_or_else(|e| tracing::debug!("overdraft: {}", e.one_line()));
        }
        let mut fds = [PollFd::new(&server, PollFlags::IN)];
        match poll(&mut fds, Some(&patience)) {
            Err(Errno::INTR) | Ok(0) => {}
            Ok(_) => {
                if let Err(e) = server.serve(&mut table) {
                    // The administrator has unmounted them.
                    tracing::debug!("{}", e.one_line());
                    return clear(&node, &lock);
                }
            }
            Err(e) => return Err(e).call(|| "poll()"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    #[test]
    fn the_lock_is_one_holders_and_goes_with_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let _lock = take(dir.path()).unwrap().unwrap();
        assert!(take(dir.path()).unwrap().is_none());
        std::fs::remove_file(lock_file(dir.path())).unwrap();
        assert!(take(dir.path()).unwrap().is_some(), "a removed one locks nothing");
    }

    #[test]
    fn a_number_in_the_lock_that_is_another_processes_is_not_the_server() {
        let dir = tempfile::tempdir().unwrap();
        for text in [String::new(), "none".into(), "-1".into(), "0".into(), std::process::id().to_string()] {
            std::fs::write(lock_file(dir.path()), &text).unwrap();
            assert!(server(dir.path()).is_none(), "{text:?}");
        }
    }

    #[test]
    fn only_numbers_are_containers() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["103", "101", "101.console", "proc", "0"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let found: Vec<u32> = numbers(dir.path()).into_iter().map(Ctid::get).collect();
        assert_eq!(found, [101, 103]);
        assert!(!anything_runs(dir.path()));
    }
}
