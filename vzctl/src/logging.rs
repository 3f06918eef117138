//! Where messages go: levels of talk to standard output, errors to standard error, all of it to the log file.
//!
//! `vzctl` is scripted by programs that take anything on standard error for a failure: only errors go there, warnings are talk.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use vzrt::log::{LogFile, text_of};

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
        let text = text_of(event);
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
    fn write_file(&self, text: &str) {
        let Ok(Some((path, ctid))) = FILE.lock().map(|f| f.clone()) else { return };
        let Ok(mut slot) = self.file.lock() else { return };
        if slot.as_ref().is_none_or(|file| !file.is(&path, ctid)) {
            *slot = Some(LogFile::open(&path, ctid));
        }
        if let Some(file) = slot.as_mut() {
            file.write(self.program, text);
        }
    }
}
