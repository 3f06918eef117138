//! A configuration file that was named on the command line: of a container, or a sample.

use std::path::{Path, PathBuf};

use super::Trouble;
use crate::config::container::{overlay, rewritten};
use crate::config::{Document, Settings};

/// The file, and what it says.
#[derive(Debug, Clone)]
pub(super) struct File {
    path: PathBuf,
    pub(super) document: Document,
    pub(super) settings: Settings,
}

/// Whether the file will be written too, and so may not be a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

impl File {
    /// Reads it. A known key with a value it can't have is an error: what is computed from a guess is one. `tolerated` keys are left to the
    /// caller.
    pub(super) fn open(path: &Path, access: Access, tolerated: &[&str]) -> Result<Self, Trouble> {
        let document = match access {
            Access::Read => Document::load_linked(path),
            Access::Write => Document::load(path),
        };
        let document = document.map_err(|e| Trouble::from_error(&e))?;
        let mut settings = Settings::default();
        let problems = overlay(&mut settings, &document);
        let problems: Vec<String> = problems
            .into_iter()
            .filter(|problem| !tolerated.contains(&problem.key))
            .map(|problem| format!("{}: {problem}", path.display()))
            .collect();
        if problems.is_empty() {
            Ok(Self { path: path.to_owned(), document, settings })
        } else {
            Err(Trouble(problems))
        }
    }

    /// Takes other settings over. Lines of keys that stay the same stay as they were written.
    pub(super) fn change(&mut self, settings: Settings) -> Result<(), Trouble> {
        self.document = rewritten(&self.document, &self.settings, &settings).map_err(|e| Trouble::from_error(&e))?;
        self.settings = settings;
        Ok(())
    }

    /// Writes it back.
    pub(super) fn save(&self) -> Result<(), Trouble> {
        self.document.save(&self.path).map_err(|e| Trouble::from_error(&e))
    }
}
