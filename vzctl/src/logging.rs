//! Where messages go: levels of talk to standard output, errors to standard error, all of it to the log file.
//!
//! `vzctl` is scripted by programs that take anything on standard error for a failure: only errors go there, warnings are talk.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// What the terminal shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Talk {
    /// `--quiet`: nothing. The log file is told all the same.
    Quiet,
    /// Messages.
    Normal,
    /// `--verbose`: also what is being done.
    Verbose,
}

struct Log {
    talk: Talk,
    program: &'static str,
    file: Mutex<Option<LogFile>>,
}

struct LogFile {
    path: PathBuf,
    file: Option<std::fs::File>,
    ctid: Option<vzrt::Ctid>,
}

/// A handle to tell the log later where it is and which container it is about.
static FILE: Mutex<Option<(PathBuf, Option<vzrt::Ctid>)>> = Mutex::new(None);

/// Sets up talk for this process. Called once; later calls change nothing.
pub fn init(program: &'static str, talk: Talk) {
    let log = Log { talk, program, file: Mutex::new(None) };
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(log));
}

/// From now on messages go to this file too, as lines about this container.
pub fn to_file(path: Option<&Path>, ctid: Option<vzrt::Ctid>) {
    if let Ok(mut file) = FILE.lock() {
        *file = path.map(|p| (p.to_owned(), ctid));
    }
}

impl<S: Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        // Libraries' own chatter is not ours to show.
        if !["vzctl", "vzrt", "quota", "templates", "beancounters"]
            .iter()
            .any(|c| event.metadata().target().starts_with(c))
        {
            return;
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        let text = printable(&message.0);
        let shown = match self.talk {
            Talk::Quiet => false,
            Talk::Normal => level <= Level::INFO,
            Talk::Verbose => level <= Level::DEBUG,
        };
        // A closed terminal or pipe must not end a command half way.
        if shown && level == Level::ERROR {
            let _ = writeln!(std::io::stderr(), "{text}");
        } else if shown {
            let _ = writeln!(std::io::stdout(), "{text}");
        }
        if level <= Level::INFO {
            self.write_file(&text);
        }
    }
}

impl Log {
    /// `2026-11-22T14:47:44+0000 vzctl : CT 101 : message`, as the original's log.
    fn write_file(&self, text: &str) {
        let Ok(Some((path, ctid))) = FILE.lock().map(|f| f.clone()) else { return };
        let Ok(mut slot) = self.file.lock() else { return };
        if slot.as_ref().is_none_or(|f| f.path != path || f.ctid != ctid) {
            let file = std::fs::OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .custom_flags(nix::libc::O_NOFOLLOW)
                .open(&path)
                .ok();
            *slot = Some(LogFile { path, file, ctid });
        }
        let Some(LogFile { file: Some(file), ctid, .. }) = slot.as_mut() else { return };
        let now = jiff::Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%z").to_string();
        let about = ctid.map(|c| format!(" : CT {c}")).unwrap_or_default();
        // One write for one line: several commands append to the same file.
        let _ = file.write_all(format!("{now} {}{about} : {text}\n", self.program).as_bytes());
    }
}

/// No control character of a container's or a caller's choosing reaches a terminal or begins a line of the log.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => out.push('\t'),
            c if c.is_control() => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.0, "{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn escape_sequences_and_line_breaks_are_shown_not_sent() {
        assert_eq!(printable("a\u{1b}]0;x\u{7}\nb\r"), "a\\x1b]0;x\\x07\\x0ab\\x0d");
    }
}
