//! One command, run to its end.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use std::os::unix::process::{CommandExt, ExitStatusExt};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::wait::{scaled, wait_until};

/// What a command returned and said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Exit code; 128 + the signal's number if it was killed, as a shell shows it.
    pub code: i32,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
    command: String,
}

impl Outcome {
    /// Runs a command with no input.
    ///
    /// # Panics
    /// It cannot be started, runs longer than the limit, or ends while something it started holds its output: a script
    /// that says `$(vzctl start 101)` would hang for as long as the container lives.
    pub fn of(mut command: Command, limit: Duration) -> Self {
        let shown = format!("{command:?}");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run {shown}: {error}"));
        let stdout = read(child.stdout.take());
        let stderr = read(child.stderr.take());
        if !wait_until(limit, || child.try_wait().is_ok_and(|status| status.is_some())) {
            let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
            panic!("still running after {} s: {shown}", scaled(limit).as_secs());
        }
        let status = child.wait().expect("it has ended");
        let text = |from: mpsc::Receiver<String>, what: &str| {
            let all = from.recv_timeout(scaled(Duration::from_secs(5)));
            all.unwrap_or_else(|_| panic!("ended, but something it started holds its {what}: {shown}"))
        };
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Self { code, stdout: text(stdout, "stdout"), stderr: text(stderr, "stderr"), command: shown }
    }

    /// It succeeded.
    ///
    /// # Panics
    /// It did not; shows the command and all it said.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.fails_with(0)
    }

    /// It ended with this code.
    ///
    /// # Panics
    /// It did not; shows the command and all it said.
    #[track_caller]
    pub fn fails_with(self, code: i32) -> Self {
        let Self { code: was, stdout, stderr, command } = &self;
        assert!(*was == code, "{command}\nended with {was}, not {code}\nstdout: {stdout}\nstderr: {stderr}");
        self
    }
}

/// Reads to the end, beside us: a command that fills one pipe while we wait on another would never end.
fn read(from: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (send, all) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if from.is_some_and(|mut from| from.read_to_end(&mut bytes).is_ok()) {
            // Fails only if the test has given up.
            let _ = send.send(String::from_utf8_lossy(&bytes).into_owned());
        }
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Outcome {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Outcome::of(command, limit)
    }

    #[test]
    fn code_and_both_outputs_come_back() {
        let outcome = shell("echo out; echo err >&2; exit 7", Duration::from_secs(10)).fails_with(7);
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
        assert_eq!(shell("kill -TERM $$", Duration::from_secs(10)).code, 128 + 15);
    }

    #[test]
    #[should_panic(expected = "still running")]
    fn a_command_that_does_not_end_fails_its_test() {
        shell("sleep 1000", Duration::from_millis(50));
    }
}
