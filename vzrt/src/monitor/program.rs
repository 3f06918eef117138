//! The small program that a monitor becomes: `vzrt`, beside the command that starts containers.
//!
//! What is handed over is written down in a file that has no name and is its standard input; descriptors keep their numbers.

use std::convert::Infallible;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};
use serde::{Deserialize, Serialize};

use super::life::{self, Charge, Kit};
use super::{detach, ended};
use crate::counters::Desk;
use crate::error::{Call, Failed};
use crate::view::fuse::Connection;
use crate::{counters, log, sys};

/// What the program is called.
pub(crate) const NAME: &str = "vzrt";

/// What there is to do for the program.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Work {
    /// To stay with a container.
    Container(Handover),
    /// To tell of all that run.
    Counters(Desk),
}

/// A [`Kit`] on its way through execve(2).
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Handover {
    charge: Charge,
    init: RawFd,
    console: Option<RawFd>,
    connection: Option<RawFd>,
    alive: RawFd,
    listeners: Vec<RawFd>,
}

/// Becomes the program. Comes back with the reason if that can't be.
pub(super) fn become_(kit: &Kit) -> Failed {
    match try_to_become(kit) {
        Err(e) => e,
        Ok(never) => match never {},
    }
}

/// The program with its work; descriptors that belong to that are the caller's to leave open over execve(2).
///
/// # Errors
/// The failed call.
pub(crate) fn program(title: &str, work: &Work) -> Result<Command, Failed> {
    let text = serde_json::to_vec(work).map_err(|e| Failed::new("encode the handover", e.to_string()))?;
    let mut note = File::from(memfd_create("handover", MemfdFlags::CLOEXEC).call(|| "memfd_create()")?);
    note.write_all(&text).and_then(|()| note.rewind()).call(|| "write(memfd)")?;
    let mut command = Command::new(beside_us(NAME)?);
    command.arg0(title).stdin(note).env_clear().env("PATH", crate::hooks::PATH);
    Ok(command)
}

fn try_to_become(kit: &Kit) -> Result<Infallible, Failed> {
    let listeners = sys::listeners().call(|| "readdir(/proc/self/fd)")?;
    let number = |fd: BorrowedFd| fd.as_raw_fd();
    let handover = Handover {
        charge: kit.charge.clone(),
        init: number(kit.init.as_fd()),
        console: kit.console.as_ref().map(|fd| number(fd.as_fd())),
        connection: kit.connection.as_ref().map(|connection| number(connection.as_fd())),
        alive: number(kit.alive.as_fd()),
        listeners: listeners.clone(),
    };
    let mut command = program(&format!("vz-monitor: CT {}", kit.charge.ctid), &Work::Container(handover))?;
    let kept = [Some(kit.init.as_fd()), kit.console.as_ref().map(AsFd::as_fd), Some(kit.alive.as_fd())];
    for fd in kept.into_iter().flatten().chain(kit.connection.as_ref().map(AsFd::as_fd)) {
        fcntl_setfd(fd, FdFlags::empty()).call(|| "fcntl(F_SETFD)")?;
    }
    sys::keep_over_exec(&listeners).call(|| "fcntl(F_SETFD)")?;
    let error = command.exec();
    Err(error).call(|| format!("execve({})", command.get_program().to_string_lossy()))
}

/// A program of ours, in the directory of the command we are forked from.
pub(crate) fn beside_us(name: &str) -> Result<PathBuf, Failed> {
    let us = std::env::current_exe().call(|| "readlink(/proc/self/exe)")?;
    Ok(us.with_file_name(name))
}

/// The program: takes over a container and stays with it to its end, or serves the beancounters of all. Not for people to run.
pub fn main() -> ExitCode {
    let mut text = Vec::new();
    let read = std::io::stdin().take(1 << 20).read_to_end(&mut text);
    let work =
        read.map_err(|e| e.to_string()).and_then(|_| serde_json::from_slice::<Work>(&text).map_err(|e| e.to_string()));
    drop(text);
    let exit = |result| ExitCode::from(u8::try_from(ended(result)).unwrap_or(1));
    match work {
        Err(why) => {
            let _ = writeln!(std::io::stderr(), "{NAME} is what stays with a container that vzctl has started: {why}");
            ExitCode::from(20)
        }
        Ok(Work::Container(handover)) => exit(stay(handover)),
        Ok(Work::Counters(desk)) => exit(counters::serve(desk)),
    }
}

fn stay(handover: Handover) -> Result<(), Failed> {
    let Handover { charge, init, console, connection, alive, listeners } = handover;
    log::to_file_only(charge.log_file.as_deref(), Some(charge.ctid));
    let take = |number: RawFd| sys::inherited(number).call(|| format!("fcntl({number}, F_SETFD)"));
    let kit = Kit {
        init: take(init)?,
        console: console.map(take).transpose()?,
        connection: connection.map(take).transpose()?.map(Connection::over),
        alive: take(alive)?,
        charge,
    };
    // They stay in the table for whoever serves.
    for number in listeners {
        let _in_the_table = take(number)?.into_raw_fd();
    }
    nix::sys::prctl::set_name(c"vz-monitor").call(|| "prctl(PR_SET_NAME)")?;
    detach()?;
    life::watch(&kit)
}
