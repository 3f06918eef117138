//! `vzctl exec`, `exec2`, `exec3` and `enter`.

use vzrt::{End, Inside, InsideError, Program, Trouble};

use super::{Context, exit_of_trouble};
use crate::failure::Outcome;
use crate::{Exit, Failure};

/// Joins the words with single blanks for a shell inside; any failure of the command is 8.
pub(super) fn exec(context: &Context) -> Outcome {
    match run(context, &program_of(context)) {
        Ok(End::Exited(0)) => Ok(Exit::Success),
        Ok(_) => Ok(Exit::ExecFailed),
        // `exec` has one code for all that goes wrong once its container is there.
        Err(mut failure) => {
            if matches!(failure.exit, Exit::NotRunning | Exit::BrokenTemplate) {
                failure.exit = Exit::ExecFailed;
            }
            Err(failure)
        }
    }
}

/// The same, with the command's own status.
pub(super) fn exec2(context: &Context) -> Outcome {
    let program = program_of(context);
    own_status(run(context, &program)?)
}

/// A program with its arguments, untouched by any shell.
pub(super) fn exec3(context: &Context) -> Outcome {
    own_status(run(context, &Program::Argv(words(context, "command")))?)
}

/// An interactive shell on a terminal of the container.
pub(super) fn enter(context: &Context) -> Outcome {
    let (running, plan, host) = entered(context)?;
    let inside = Inside::new(&running, &plan, &host);
    let words: Vec<String> =
        context.request.matches.get_many::<String>("exec").into_iter().flatten().cloned().collect();
    let program = if words.is_empty() { Program::LoginShell } else { Program::Line(join(&words)) };
    tracing::info!("entered into CT {}", context.ctid);
    let end = inside.enter(&program).map_err(|e| told(&e));
    tracing::info!("exited from CT {}", context.ctid);
    own_status(end?)
}

/// The program's own status becomes ours; a signal is told and is 3.
pub(super) fn own_status(end: End) -> Outcome {
    match end {
        End::Exited(0) => Ok(Exit::Success),
        End::Exited(status) => std::process::exit(status),
        End::Killed(signal) => {
            tracing::info!("Got signal {signal}");
            Ok(Exit::System)
        }
    }
}

fn words(context: &Context, id: &str) -> Vec<String> {
    context.request.matches.get_many::<String>(id).into_iter().flatten().cloned().collect()
}

fn program_of(context: &Context) -> Program {
    let words = words(context, "command");
    if words == ["-"] { Program::Stdin } else { Program::Line(join(&words)) }
}

/// The words as one line for the shell: single blanks between them, and an empty word kept as `''`.
fn join(words: &[String]) -> String {
    words.iter().map(|w| if w.is_empty() { "''" } else { w.as_str() }).collect::<Vec<_>>().join(" ")
}

fn run(context: &Context, program: &Program) -> Result<End, Failure> {
    if words(context, "command").is_empty() {
        return Err(Failure::new(Exit::InvalidSyntax, "No command line given for exec"));
    }
    let (running, plan, host) = entered(context)?;
    if let Program::Line(line) = program {
        tracing::debug!("Executing command: {line}");
    }
    Inside::new(&running, &plan, &host).exec(program).map_err(|e| told(&e))
}

/// The running container, for who wants in.
pub(super) fn entered(context: &Context) -> Result<(vzrt::Running, vzrt::Plan, vzrt::cgroup::Host), Failure> {
    let run = context.run_dir();
    let not_running = || Failure::new(Exit::NotRunning, "Container is not running");
    let running = run.running().map_err(|e| super::system(&e))?;
    let Some(running) = running else {
        // Only now: the file of a running container need not be read.
        context.container()?;
        return Err(not_running());
    };
    let plan = run.plan().map_err(|e| super::system(&e))?.ok_or_else(not_running)?;
    let host = context.cgroups()?;
    vzrt::look_after(&plan, &host, &running).map_err(|e| super::system(&e))?;
    Ok((running, plan, host))
}

/// A failure from inside.
pub(crate) fn told(error: &InsideError) -> Failure {
    match error {
        InsideError::Trouble(t @ Trouble::NoShell(_)) => {
            Failure::because(Exit::BrokenTemplate, "Unable to find a shell in the container", t)
        }
        InsideError::Trouble(t) => Failure::because(exit_of_trouble(t), "Unable to enter the container", t),
        InsideError::Failed(f) => Failure::because(Exit::System, "Unable to enter the container", f),
    }
}

#[cfg(test)]
mod tests {
    use super::join;

    #[test]
    fn words_are_joined_by_single_blanks_and_empty_ones_kept() {
        let words = |w: &[&str]| w.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        assert_eq!(join(&words(&["echo", "a  b", "", "$x"])), "echo a  b '' $x");
    }
}
