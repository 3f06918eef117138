//! A program that is talked with: typed to, and watched for what it shows.

use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::wait::wait_until;

/// How long something may take to be shown.
const PATIENCE: Duration = Duration::from_secs(60);

type Text = Arc<Mutex<Vec<u8>>>;

/// The program; killed when dropped.
#[derive(Debug)]
pub struct Session {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Text,
    stderr: Text,
    /// How much of what was shown has been waited for already.
    seen: usize,
}

impl Session {
    /// Starts it with pipes for everything.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn new(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        let stdin = child.stdin.take();
        let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
        Self { child, stdin, stdout, stderr, seen: 0 }
    }

    /// Types this.
    ///
    /// # Panics
    /// It has closed its input.
    #[track_caller]
    pub fn types(&mut self, text: &str) {
        self.stdin.as_mut().expect("open").write_all(text.as_bytes()).expect("it reads");
    }

    /// Closes its input.
    pub fn says_no_more(&mut self) {
        self.stdin = None;
    }

    /// Waits until this is shown, after what was waited for before.
    ///
    /// # Panics
    /// It is not.
    #[track_caller]
    pub fn shows(&mut self, text: &str) {
        let found = || {
            let shown = self.shown();
            shown.get(self.seen..)?.find(text).map(|at| self.seen + at + text.len())
        };
        let mut end = None;
        let there = wait_until(PATIENCE, || {
            end = found();
            end.is_some()
        });
        assert!(there, "{text:?} is not shown, but (beginning at {}):\n{}\n{}", self.seen, self.shown(), self.told());
        self.seen = end.unwrap_or(self.seen);
    }

    /// Waits until what it has said on standard error ends with this.
    ///
    /// # Panics
    /// It does not.
    #[track_caller]
    pub fn tells(&self, end: &str) {
        let there = wait_until(PATIENCE, || self.told().ends_with(end));
        assert!(there, "{end:?} is not told, but:\n{}\n{}", self.told(), self.shown());
    }

    /// All that it has shown.
    pub fn shown(&self) -> String {
        text_of(&self.stdout)
    }

    /// All that it has said on standard error.
    pub fn told(&self) -> String {
        text_of(&self.stderr)
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// It has ended.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("it runs");
    }

    /// Waits for its end; its exit code, 128 + the signal's number if it was killed.
    ///
    /// # Panics
    /// It does not end.
    #[track_caller]
    pub fn ends(&mut self) -> i32 {
        let ended = wait_until(PATIENCE, || self.child.try_wait().is_ok_and(|status| status.is_some()));
        assert!(ended, "it does not end; it has shown:\n{}\n{}", self.shown(), self.told());
        let status = self.child.wait().expect("it has ended");
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            // It and what it has started, all in a group of their own.
            let _ = killpg(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

fn text_of(text: &Text) -> String {
    String::from_utf8_lossy(&text.lock().expect("no panic")).into_owned()
}

/// Reads beside us to the end.
fn collect(from: Option<impl Read + Send + 'static>) -> Text {
    let text = Text::default();
    let into = Arc::clone(&text);
    thread::spawn(move || {
        let mut buffer = [0u8; 65536];
        let Some(mut from) = from else { return };
        while let Ok(n) = from.read(&mut buffer) {
            if n == 0 {
                return;
            }
            into.lock().expect("no panic").extend_from_slice(&buffer[..n]);
        }
    });
    text
}
