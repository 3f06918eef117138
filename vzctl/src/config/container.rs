//! `CTID.conf`: one container's configuration, typed, with the file it came from.

use std::path::PathBuf;

use vzrt::Ctid;

use super::document::{BadCharacter, Document, DocumentError, substitute_veid};
use super::global::Global;
use super::node::Node;
use super::params;
use super::settings::{Change, Settings};
use super::values::{BadValue, Layout};
use crate::Exit;

/// A container's configuration could not be read, believed or written.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// There is none.
    #[error("Container config file does not exist")]
    Missing(PathBuf),
    /// It is there and no configuration.
    #[error("Container config file {} cannot be read", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: DocumentError,
    },
    /// It could not be written; the old one is as it was.
    #[error("Container config file {} cannot be saved", path.display())]
    Save {
        /// The file.
        path: PathBuf,
        /// Why.
        source: DocumentError,
    },
    /// It holds values that cannot be: a container must not run on guesses.
    #[error("Container config file {} is invalid: {}", path.display(), list(problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problems: Vec<Problem>,
    },
    /// A value cannot be written.
    #[error("{key} cannot be saved")]
    Unwritable {
        /// The key.
        key: &'static str,
        /// Why.
        source: BadCharacter,
    },
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl ContainerError {
    /// The code `vzctl` ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Missing(_) => Exit::NoContainerConfig,
            Self::File { .. } => Exit::NoGlobalConfig,
            Self::Save { .. } => Exit::SaveConfig,
            Self::Invalid { .. } => Exit::InvalidConfig,
            Self::Unwritable { .. } => Exit::InvalidValue,
        }
    }
}

/// A known key with a value it cannot have. Reading goes on: `stop`, `set` and `vzlist` must work on such a container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}={}: {bad}", bad.value)]
pub struct Problem {
    /// The key.
    pub key: &'static str,
    /// What is wrong.
    pub bad: BadValue,
}

/// The configuration of one container.
#[derive(Debug, Clone)]
pub struct Container {
    /// Whose it is.
    pub ctid: Ctid,
    /// What the file itself says, without the defaults of `vz.conf`.
    pub own: Settings,
    /// Known keys with bad values.
    pub problems: Vec<Problem>,
    document: Document,
}

impl Container {
    /// Reads `CTID.conf`.
    ///
    /// # Errors
    /// It is missing, or no configuration.
    pub fn load(node: &Node, ctid: Ctid) -> Result<Self, ContainerError> {
        let path = node.container_conf(ctid);
        match Document::load(&path) {
            Ok(document) => Ok(Self::from_document(ctid, document)),
            Err(e) if e.is_missing() => Err(ContainerError::Missing(path)),
            Err(source) => Err(ContainerError::File { path, source }),
        }
    }

    /// A configuration from lines that are not (yet) in the container's file: a sample, or none at all.
    #[must_use]
    pub fn from_document(ctid: Ctid, document: Document) -> Self {
        let mut own = Settings::default();
        let problems = overlay(&mut own, &document);
        Self { ctid, own, problems, document }
    }

    /// The lines.
    #[must_use]
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// What holds for the container: its own file over the defaults of `vz.conf`.
    #[must_use]
    pub fn effective(&self, global: &Global) -> Settings {
        let mut settings = global.defaults.clone();
        overlay(&mut settings, &self.document);
        settings
    }

    /// Refuses to go on with a configuration that is partly not understood. For `start`: a limit with a typing error would be no limit.
    ///
    /// # Errors
    /// Every bad value at once.
    pub fn require_valid(&self, node: &Node) -> Result<(), ContainerError> {
        if self.problems.is_empty() {
            return Ok(());
        }
        Err(ContainerError::Invalid { path: node.container_conf(self.ctid), problems: self.problems.clone() })
    }

    /// Takes changes over, into the settings and the lines. Lines of keys that stay the same stay as they were written.
    ///
    /// # Errors
    /// A value that the file cannot carry; nothing is changed.
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), ContainerError> {
        let mut own = self.own.clone();
        changes.iter().for_each(|change| own.apply(change));
        let document = rewritten(&self.document, &self.own, &own)?;
        let same = |param: &params::Param| param.render(&self.own) == param.render(&own);
        self.problems.retain(|p| params::by_key(p.key).is_none_or(same));
        (self.own, self.document) = (own, document);
        Ok(())
    }

    /// Writes `CTID.conf`, atomically.
    ///
    /// # Errors
    /// It could not be written.
    pub fn save(&self, node: &Node) -> Result<(), ContainerError> {
        let path = node.container_conf(self.ctid);
        self.document.save(&path).map_err(|source| ContainerError::Save { path, source })
    }

    /// Where the root is mounted.
    #[must_use]
    pub fn root(&self, node: &Node) -> PathBuf {
        self.own.root.as_deref().map_or_else(|| node.default_root(self.ctid), |path| substitute_veid(path, self.ctid))
    }

    /// The private area.
    #[must_use]
    pub fn private(&self, node: &Node) -> PathBuf {
        self.own
            .private
            .as_deref()
            .map_or_else(|| node.default_private(self.ctid), |path| substitute_veid(path, self.ctid))
    }

    /// The layout of the private area. A configuration older than layouts is of a directory.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.own.layout.unwrap_or(Layout::Simfs)
    }
}

/// The lines of a file after its settings have changed. Lines of keys that stay the same stay as they were written.
///
/// # Errors
/// A value that the file cannot carry.
pub(crate) fn rewritten(document: &Document, before: &Settings, after: &Settings) -> Result<Document, ContainerError> {
    let mut document = document.clone();
    for param in params::all() {
        let Some((key, older)) = param.keys.split_first() else { continue };
        let value = param.render(after);
        if value == param.render(before) {
            continue;
        }
        older.iter().for_each(|older| document.remove(older));
        match value {
            Some(value) => {
                document.set(key, &value).map_err(|source| ContainerError::Unwritable { key, source })?;
            }
            None => document.remove(key),
        }
    }
    Ok(document)
}

/// Takes over every pair of a file that a parameter knows, and says which it could not. Empty values say nothing. Within a file the last
/// of several lines for a key is the only one that counts, so lists do not add up over duplicates.
pub(crate) fn overlay(settings: &mut Settings, document: &Document) -> Vec<Problem> {
    let mut problems = Vec::new();
    for param in params::all() {
        let Some(value) = document.get_any(param.keys).filter(|v| !v.is_empty()) else { continue };
        match param.load(value) {
            Ok(change) => settings.apply(&change),
            Err(bad) => problems.push(Problem { key: param.keys[0], bad }),
        }
    }
    problems
}

#[cfg(test)]
mod tests;
