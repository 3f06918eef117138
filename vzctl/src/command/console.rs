//! `vzctl console`.

use std::io::{IsTerminal, Write};

use vzrt::console::{self, Change, Left};
use vzrt::log::visible;

use super::{Context, interrupted, system};
use crate::failure::Outcome;
use crate::logging::Talk;
use crate::{Exit, Failure};

/// How much of the log of a container that does not run is shown before it is waited for, in bytes.
const LAST_BYTES: u64 = 16 * 1024;

/// All that a log can hold.
const WHOLE_LOG: u64 = u64::MAX;

/// Takes no lock, and needs nothing of the container but its number: it may be started while we are here.
pub(super) fn run(context: &Context) -> Outcome {
    let run = context.run_dir();
    let running = run.running().map_err(|e| system(&e))?.is_some();
    if !running {
        // A container that runs need not have a configuration that can be read.
        context.container()?;
    }
    if context.request.matches.get_flag("log") {
        return print(&console::log(&run, WHOLE_LOG).map_err(|e| system(&e))?);
    }
    match context.request.matches.get_one::<u32>("ttynum") {
        None | Some(1) => {}
        Some(other) => {
            return Err(Failure::new(Exit::InvalidValue, format!("Container has no terminal {other}"))
                .hint("Its console is number 1, and the only one that can be attached to."));
        }
    }
    let talk = |text: String| {
        if context.request.talk != Talk::Quiet {
            // Not an error, but where vzctl 4 said it: standard output is the container's. In raw mode a line begins where one says so.
            let end = if std::io::stdin().is_terminal() { "\r\n" } else { "\n" };
            let _ = write!(std::io::stderr(), "{text}{end}");
        }
    };
    talk(format!("Attached to CT {} (ESC . to detach)", context.ctid));
    if !running {
        print(&console::log(&run, LAST_BYTES).map_err(|e| system(&e))?)?;
    }
    let left = console::attend(&run, &mut |change| {
        talk(match change {
            Change::Waiting => format!("CT {} does not run: waiting for its start", context.ctid),
            Change::Stopped => format!("CT {} has stopped: waiting for its next start", context.ctid),
        });
    });
    match left.map_err(|e| system(&e))? {
        Left::Detached | Left::Unread => {
            talk(String::new());
            Ok(Exit::Success)
        }
        Left::Interrupted(signal) => Err(interrupted(signal)),
    }
}

/// Prints a log. It may be the last words of a container whose root wanted to do something to whoever reads them: colours stay, everything
/// else that moves a terminal is shown instead of sent.
fn print(log: &[u8]) -> Outcome {
    let text = visible(log);
    std::io::stdout().write_all(text.as_bytes()).map_err(|e| Failure::from_error(Exit::System, &e))?;
    Ok(Exit::Success)
}
