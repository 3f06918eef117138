//! In which order templates are installed, and which cannot be.

use std::path::PathBuf;

use super::{AppError, AppTemplate};
use crate::name::{NameError, TemplateName};

/// Where application templates are looked for: a directory, then what is built in.
#[derive(Debug, Clone)]
pub struct Shelf {
    directory: PathBuf,
}

/// Templates that cannot be together.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// One cannot be read.
    #[error(transparent)]
    App(#[from] AppError),
    /// A name in `requires`.
    #[error(transparent)]
    Name(#[from] NameError),
    /// They require each other.
    #[error("application templates require each other: {}", names.join(" requires "))]
    Circle {
        /// The first is also the last.
        names: Vec<String>,
    },
    /// They cannot be in one container.
    #[error("{app} cannot be in one container with {other}")]
    Conflict {
        /// One of those to be installed.
        app: String,
        /// Another, or one that is there.
        other: String,
    },
}

impl Shelf {
    /// Names the directory; nothing is read.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// The directory.
    pub fn directory(&self) -> &std::path::Path {
        &self.directory
    }

    /// A template by its name.
    pub fn load(&self, name: &TemplateName) -> Result<AppTemplate, AppError> {
        AppTemplate::load(name, &self.directory)
    }

    /// SHA-256 of a template's text, in hexadecimal: another where anything in it is.
    pub fn digest(&self, name: &TemplateName) -> Result<String, AppError> {
        AppTemplate::text(name, &self.directory).map(|(text, _)| super::digest(text.as_bytes()))
    }

    /// Those of `wanted` that are not among `installed`, with all they require, each after what it requires.
    pub fn order(&self, wanted: &[TemplateName], installed: &[String]) -> Result<Vec<AppTemplate>, OrderError> {
        let mut order = Vec::new();
        for name in wanted {
            self.visit(name, installed, &mut Vec::new(), &mut order)?;
        }
        Ok(order)
    }

    fn visit(
        &self,
        name: &TemplateName,
        installed: &[String],
        path: &mut Vec<String>,
        order: &mut Vec<AppTemplate>,
    ) -> Result<(), OrderError> {
        let there = installed.iter().any(|i| i == name.as_str());
        if there || order.iter().any(|a| a.name == name.as_str()) {
            return Ok(());
        }
        if let Some(at) = path.iter().position(|p| p == name.as_str()) {
            let mut names = path.split_off(at);
            names.push(name.to_string());
            return Err(OrderError::Circle { names });
        }
        path.push(name.to_string());
        let app = self.load(name)?;
        for required in &app.requires {
            self.visit(&required.parse()?, installed, path, order)?;
        }
        path.pop();
        order.push(app);
        Ok(())
    }
}

/// Refuses what cannot be together: among `new`, and of `new` with `installed`. Either side may say it.
pub fn refuse_conflicts<'a>(
    new: &'a [AppTemplate],
    installed: impl IntoIterator<Item = &'a AppTemplate>,
) -> Result<(), OrderError> {
    let others: Vec<&AppTemplate> = installed.into_iter().chain(new).collect();
    for app in new {
        let against = |other: &&&AppTemplate| {
            app.name != other.name && (app.conflicts.contains(&other.name) || other.conflicts.contains(&app.name))
        };
        if let Some(other) = others.iter().find(against) {
            return Err(OrderError::Conflict { app: app.name.clone(), other: other.name.clone() });
        }
    }
    Ok(())
}
