//! Running other programs, with an error that says which.

use std::io;
use std::process::{Command, ExitStatus, Stdio};

/// A program that did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It never ran.
    #[error("cannot run {command}")]
    Start {
        /// With its arguments.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// It ran and failed; what it said is on our stderr, or here if it was captured.
    #[error("{command}: {status}{}{stderr}", if stderr.is_empty() { "" } else { ": " })]
    Failed {
        /// With its arguments.
        command: String,
        /// Its exit status.
        status: ExitStatus,
        /// What it said, if captured.
        stderr: String,
    },
}

/// Runs to its end; its output goes where ours does, and it is given no input.
pub fn run(mut command: Command) -> Result<(), Error> {
    match command.stdin(Stdio::null()).status() {
        Err(source) => Err(Error::Start { command: shown(&command), source }),
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Error::Failed { command: shown(&command), status, stderr: String::new() }),
    }
}

/// Runs to its end and returns what it wrote to stdout.
pub fn capture(mut command: Command) -> Result<String, Error> {
    match command.stdin(Stdio::null()).output() {
        Err(source) => Err(Error::Start { command: shown(&command), source }),
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => {
            let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(Error::Failed { command: shown(&command), status: output.status, stderr })
        }
    }
}

fn shown(command: &Command) -> String {
    format!("{command:?}")
}
