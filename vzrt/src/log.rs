//! The log file: a line for each message, as the original's.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use jiff::tz::TimeZone;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::Ctid;

/// Where lines go, and which container they are about.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: Option<File>,
    ctid: Option<Ctid>,
}

impl LogFile {
    /// Opens it to append. A file that can't be opened takes what is written and keeps nothing: no command fails for its log.
    #[must_use]
    pub fn open(path: &Path, ctid: Option<Ctid>) -> Self {
        let file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
            .ok();
        Self { path: path.to_owned(), file, ctid }
    }

    /// Whether it is this file, about this container.
    #[must_use]
    pub fn is(&self, path: &Path, ctid: Option<Ctid>) -> bool {
        self.path == path && self.ctid == ctid
    }

    /// `2026-11-22T14:47:44+0000 vzctl : CT 101 : message`, in one write: several processes append to the same file.
    pub fn write(&mut self, program: &str, text: &str) {
        let Some(file) = &mut self.file else { return };
        let now = jiff::Timestamp::now().to_zoned(zone()).strftime("%Y-%m-%dT%H:%M:%S%z").to_string();
        let about = self.ctid.map(|c| format!(" : CT {c}")).unwrap_or_default();
        // A full disk loses lines, not containers.
        let _ = file.write_all(format!("{now} {program}{about} : {text}\n").as_bytes());
    }
}

/// The time zone of the host (localtime(5)), or the one of `TZ`.
///
/// The library's own way to the host's looks through all of `/usr/share/zoneinfo` for the zone's name, which took a twentieth of a start; a line
/// of the log needs no name.
fn zone() -> TimeZone {
    let host = || TimeZone::tzif("", &std::fs::read("/etc/localtime").ok()?).ok();
    match std::env::var_os("TZ") {
        Some(_) => TimeZone::system(),
        None => host().unwrap_or(TimeZone::UTC),
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

/// What a container printed on its console, for a terminal: line ends and colours (SGR, ECMA-48) stay, other controls are made visible. Colours are
/// put back at the end.
#[must_use]
pub fn visible(log: &[u8]) -> String {
    let text = String::from_utf8_lossy(log);
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_ref();
    let mut coloured = false;
    while let Some(c) = rest.chars().next() {
        if let Some(colour) = colour(rest) {
            out.push_str(colour);
            rest = &rest[colour.len()..];
            coloured = true;
            continue;
        }
        rest = &rest[c.len_utf8()..];
        match c {
            '\n' | '\t' => out.push(c),
            '\r' => {}
            c if c.is_control() => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    if coloured {
        out.push_str("\u{1b}[0m");
    }
    out
}

/// The colour sequence that a text begins with.
fn colour(text: &str) -> Option<&str> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let length = parameters.find(|c: char| !(c.is_ascii_digit() || c == ';'))?;
    parameters[length..].starts_with('m').then(|| &text[..2 + length + 1])
}

/// The text of an event, ready to be shown.
#[must_use]
pub fn text_of(event: &Event<'_>) -> String {
    struct Message(String);
    impl Visit for Message {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            if field.name() == "message" {
                let _ = write!(self.0, "{value:?}");
            }
        }
    }
    let mut message = Message(String::new());
    event.record(&mut message);
    printable(&message.0)
}

/// From now on messages of this process go to this file and nowhere else, as lines of `vzctl` about this container, or about none.
pub(crate) fn to_file_only(path: Option<&Path>, ctid: Option<Ctid>) {
    let Some(path) = path else { return };
    // Opened when there is something to say, which for most containers is their end.
    let lines = Lines { path: path.to_owned(), ctid, file: Mutex::new(None) };
    // One is set for a process; this is the first thing it does.
    let _ = tracing::subscriber::set_global_default(lines);
}

struct Lines {
    path: PathBuf,
    ctid: Option<Ctid>,
    file: Mutex<Option<LogFile>>,
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO && metadata.is_event()
    }

    fn event(&self, event: &Event<'_>) {
        if let Ok(mut file) = self.file.lock() {
            file.get_or_insert_with(|| LogFile::open(&self.path, self.ctid)).write("vzctl", &text_of(event));
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    #[test]
    fn a_containers_log_keeps_its_lines_and_colours_and_nothing_else_that_moves_a_terminal() {
        let green = "[\u{1b}[0;32m  OK  \u{1b}[0m] Started\r\n";
        assert_eq!(visible(green.as_bytes()), "[\u{1b}[0;32m  OK  \u{1b}[0m] Started\n\u{1b}[0m");
        assert_eq!(visible(b"\x1b]0;title\x07\x1b[2J\x1b[21t\x1b[1;"), "\\x1b]0;title\\x07\\x1b[2J\\x1b[21t\\x1b[1;");
        assert_eq!(visible("\u{9b}6n \u{e4}\u{7f}".as_bytes()), "\\x9b6n \u{e4}\\x7f");
        assert_eq!(visible(b"a\xffb\n"), "a\u{fffd}b\n");
    }

    #[test]
    fn escape_sequences_and_line_breaks_are_shown_not_sent() {
        assert_eq!(printable("a\u{1b}]0;x\u{7}\nb\r"), "a\\x1b]0;x\\x07\\x0ab\\x0d");
    }

    #[test]
    fn a_line_says_when_who_and_about_whom() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        LogFile::open(&path, Some("101".parse().unwrap())).write("vzctl", "hello");
        let line = std::fs::read_to_string(&path).unwrap();
        assert!(line.ends_with(" vzctl : CT 101 : hello\n"), "{line}");
        assert_eq!(line.split(' ').next().unwrap().len(), "2026-11-22T14:47:44+0000".len());
    }
}
