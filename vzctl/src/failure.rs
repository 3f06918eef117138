//! What a command ends with when it fails: an exit code, and up to three lines: what failed, why, what to do.

use std::fmt;

use crate::Exit;

/// A command's failure.
#[derive(Debug)]
pub struct Failure {
    /// The code scripts look at.
    pub exit: Exit,
    /// What failed: the line scripts match on, where the original had one.
    pub what: String,
    /// Why: the call and what the kernel said, or the rule that was broken.
    pub why: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure that explains itself.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), why: None, hint: None }
    }

    /// A failure caused by an error: its message, and the chain of its sources as the reason.
    pub fn from_error(exit: Exit, error: &(dyn std::error::Error + 'static)) -> Self {
        Self { exit, what: error.to_string(), why: error.source().map(chain), hint: None }
    }

    /// The same with a line of its own in front; the whole error is the reason.
    pub fn because(exit: Exit, what: impl Into<String>, error: &(dyn std::error::Error + 'static)) -> Self {
        Self { exit, what: what.into(), why: Some(chain(error)), hint: None }
    }

    /// Says what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says why.
    #[must_use]
    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    /// Tells the user and the log.
    pub fn tell(&self) {
        if !self.what.is_empty() {
            tracing::error!("{}", self.what);
        }
        for line in [&self.why, &self.hint].into_iter().flatten() {
            tracing::error!("{line}");
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.why {
            Some(why) => write!(f, ": {why}"),
            None => Ok(()),
        }
    }
}

/// An error and its sources in one line.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(s) = source {
        let line = s.to_string();
        // An error that shows its source itself is not shown twice.
        if !text.ends_with(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        source = s.source();
    }
    text
}

/// What every command returns: its exit code.
pub type Outcome = Result<Exit, Failure>;

/// Whether an error, or one it comes from, is a file system that is full.
#[must_use]
pub fn is_disk_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(e) = next {
        if let Some(io) = e.downcast_ref::<std::io::Error>()
            && matches!(io.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
        {
            return true;
        }
        next = e.source();
    }
    // A program's own words, where the failure was the program's.
    chain(error).contains("No space left on device")
}
