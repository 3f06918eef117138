//! Application templates: what is installed into a container over its OS template, as data. A file of one is the
//! administrator's; still nothing in one is given to a shell, and no value of a parameter can be more than a word.

mod check;
pub mod merge;
mod order;
mod parameter;
mod text;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::name::TemplateName;
use crate::recipe::{Command, Link};

pub use order::{OrderError, Shelf, refuse_conflicts};
pub use parameter::{Kind, Parameter, ParameterError, Request, RequestError, Values};
pub use text::fill;

/// An application template: a file `NAME.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppTemplate {
    /// Of the template; also of its file.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// Of the template itself, not of what it installs; a container's record has it.
    pub version: String,
    /// The systems it is for, the first that fits counts.
    #[serde(rename = "for", default)]
    pub systems: Vec<ForSystem>,
    /// Application templates that have to be installed before it.
    #[serde(default)]
    pub requires: Vec<String>,
    /// Application templates that cannot be in the same container.
    #[serde(default)]
    pub conflicts: Vec<String>,
    /// What may be chosen for each container; used as `{name}` in files, arguments and the check.
    #[serde(default)]
    pub parameters: BTreeMap<String, Parameter>,
    /// Files written once the packages are there, before anything is started.
    #[serde(default)]
    pub files: Vec<AppFile>,
    /// Symbolic links made then.
    #[serde(default)]
    pub links: Vec<Link>,
    /// systemd units.
    #[serde(default)]
    pub services: AppServices,
    /// Programs run inside.
    #[serde(default)]
    pub commands: AppCommands,
    /// How one sees that it works.
    #[serde(default)]
    pub check: Option<Check>,
    /// Of a captured template: what an archive beside the file holds.
    #[serde(default)]
    pub captured: Option<Captured>,
}

/// What the template needs on one kind of system.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForSystem {
    /// `ID` of os-release(5), or one of `ID_LIKE`: `debian` is Ubuntu too.
    pub family: String,
    /// `VERSION_ID`s; empty for all. Only of a distribution that is called as the family.
    #[serde(default)]
    pub releases: Vec<String>,
    /// Packages in the names of that family.
    #[serde(default)]
    pub packages: Vec<String>,
}

/// A file of root's, with `{name}` for the value of a parameter.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppFile {
    /// In the container.
    pub path: String,
    /// Permission bits, 0644 if absent.
    #[serde(default = "mode_644")]
    pub mode: u32,
    /// Whether it is written before the packages come: for what their own scripts read.
    #[serde(default)]
    pub early: bool,
    /// Its text.
    pub content: String,
}

fn mode_644() -> u32 {
    0o644
}

/// systemd units of an application. Packages start nothing by themselves while a template is installed: what is to run
/// is named here, and starts once, with its files in place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppServices {
    /// Enabled, and started where the container runs.
    #[serde(default)]
    pub enable: Vec<String>,
    /// Disabled, and stopped.
    #[serde(default)]
    pub disable: Vec<String>,
}

/// Programs with their arguments, run inside by no shell, in the order of a template's life.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppCommands {
    /// Before the packages come.
    #[serde(default)]
    pub pre_install: Vec<Command>,
    /// After packages and files, before the services start.
    #[serde(default)]
    pub post_install: Vec<Command>,
    /// Before anything goes.
    #[serde(default)]
    pub pre_remove: Vec<Command>,
    /// After all has gone.
    #[serde(default)]
    pub post_remove: Vec<Command>,
}

/// What says that the application is healthy, tried inside until it does or the time is over. Either `argv`, which has
/// to end with 0, or `port`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// A program and its arguments.
    #[serde(default)]
    pub argv: Vec<String>,
    /// A TCP port on 127.0.0.1: a number, or `{name}` of a parameter.
    #[serde(default)]
    pub port: Option<String>,
    /// Said to the port before it is listened to.
    #[serde(default)]
    pub send: String,
    /// What has to be in the first 4 KiB that the port answers; empty where being taken is enough.
    #[serde(default)]
    pub expect: String,
    /// How long it is tried, in seconds.
    #[serde(default = "half_a_minute")]
    pub seconds: u64,
}

fn half_a_minute() -> u64 {
    30
}

/// What a captured template has beside its file. All of it was looked at by the one who captured it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Captured {
    /// The archive with its files, a plain name in the template's directory.
    pub files: String,
    /// SHA-256 of the archive, in hexadecimal.
    pub sha256: String,
    /// Paths that the application takes away.
    #[serde(default)]
    pub removed: Vec<String>,
    /// Lines for `/etc/group`, without the members.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Lines for `/etc/passwd`.
    #[serde(default)]
    pub users: Vec<String>,
    /// New members of groups, `GROUP:USER`.
    #[serde(default)]
    pub members: Vec<String>,
    /// Debian's packages among its files, `NAME=VERSION`.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Packages of the OS template that it takes away, or has in another version, `NAME=VERSION`.
    #[serde(default)]
    pub packages_removed: Vec<String>,
}

/// Why there is no application template.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Neither built in nor in the directory.
    #[error("no application template {name}: not one of {}, and no {}", builtin.join(", "), file.display())]
    NotFound {
        /// The template.
        name: String,
        /// What is built in.
        builtin: Vec<String>,
        /// The file that would be read.
        file: PathBuf,
    },
    /// It cannot be read; the error names the path.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// It is not a template: file, line, and what was expected.
    #[error("application template {origin}")]
    Parse {
        /// File, or name of a built-in one.
        origin: String,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// It is a template, of something that cannot be.
    #[error("application template {origin}, line {line}: {problem}")]
    Invalid {
        /// File, or name of a built-in one.
        origin: String,
        /// The first line with the value that is wrong; 1 where it is something that is missing.
        line: usize,
        /// What is wrong, and what was expected.
        problem: Problem,
    },
}

/// A value that a template cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {value:?}: expected {expected}")]
pub struct Problem {
    /// Which field.
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// What may be there.
    pub expected: &'static str,
}

const BUILTIN: [(&str, &str); 6] = [
    ("apache-php", include_str!("../../recipes/apps/apache-php.toml")),
    ("mariadb", include_str!("../../recipes/apps/mariadb.toml")),
    ("nginx", include_str!("../../recipes/apps/nginx.toml")),
    ("postgresql", include_str!("../../recipes/apps/postgresql.toml")),
    ("redis", include_str!("../../recipes/apps/redis.toml")),
    ("ssh-bastion", include_str!("../../recipes/apps/ssh-bastion.toml")),
];

/// The system of a container, as its os-release(5) tells it. The container wrote that: words, and believed no further
/// than which packages its own root is offered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct System {
    /// `ID`.
    pub id: String,
    /// `ID_LIKE`.
    pub like: Vec<String>,
    /// `VERSION_ID`.
    pub release: String,
    /// `VERSION_CODENAME`.
    pub codename: String,
}

impl System {
    /// Reads os-release(5); what is no word there is nothing.
    pub fn parse(text: &str) -> Self {
        let mut system = Self::default();
        for line in text.lines().take(200) {
            let Some((key, value)) = line.split_once('=') else { continue };
            let value = value.trim().trim_matches(['"', '\'']);
            let word = || if is_word(value, b".-_+~") { value.to_owned() } else { String::new() };
            match key.trim() {
                "ID" => system.id = word(),
                "VERSION_ID" => system.release = word(),
                "VERSION_CODENAME" => system.codename = word(),
                "ID_LIKE" => {
                    system.like = value.split_whitespace().filter(|w| is_word(w, b".-_+~")).map(String::from).collect();
                }
                _ => {}
            }
        }
        system
    }

    /// Whether it is of this family.
    pub fn is_like(&self, family: &str) -> bool {
        self.id == family || self.like.iter().any(|l| l == family)
    }
}

impl AppTemplate {
    /// Names of the built-in templates.
    pub fn builtin() -> impl Iterator<Item = &'static str> {
        BUILTIN.iter().map(|(name, _)| *name)
    }

    /// The names of all templates there are: built in, and files of `directory`.
    pub fn names(directory: &Path) -> io::Result<Vec<TemplateName>> {
        let mut names: Vec<TemplateName> = Self::builtin().filter_map(|n| n.parse().ok()).collect();
        match fs::read_dir(directory) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
            Ok(entries) => {
                for entry in entries {
                    let file = entry?.file_name();
                    names.extend(file.to_str().and_then(|f| f.strip_suffix(".toml")?.parse().ok()));
                }
            }
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// The template `name`: `<directory>/<name>.toml`, else the built-in one.
    pub fn load(name: &TemplateName, directory: &Path) -> Result<Self, AppError> {
        let (text, origin) = Self::text(name, directory)?;
        Self::parse(&text, name, &origin)
    }

    /// Its text, and where that is from.
    pub(crate) fn text(name: &TemplateName, directory: &Path) -> Result<(String, String), AppError> {
        let file = directory.join(format!("{name}.toml"));
        match fs::read_to_string(&file) {
            Ok(text) => return Ok((text, file.display().to_string())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(AppError::Read(e)),
        }
        match BUILTIN.iter().find(|(builtin, _)| *builtin == name.as_str()) {
            Some((builtin, text)) => Ok(((*text).to_owned(), (*builtin).to_owned())),
            None => Err(AppError::NotFound {
                name: name.to_string(),
                builtin: Self::builtin().map(String::from).collect(),
                file,
            }),
        }
    }

    /// Reads and checks a template for `name`; `origin` is for messages.
    pub fn parse(text: &str, name: &TemplateName, origin: &str) -> Result<Self, AppError> {
        let parsed = toml::from_str::<Self>(text);
        let app = parsed.map_err(|e| AppError::Parse { origin: origin.to_owned(), source: Box::new(e) })?;
        match app.problem(name) {
            None => Ok(app),
            Some(problem) => {
                let at = text.lines().position(|l| !problem.value.is_empty() && l.contains(&problem.value));
                Err(AppError::Invalid { origin: origin.to_owned(), line: at.map_or(1, |l| l + 1), problem })
            }
        }
    }

    /// What it needs on this system; `None` where it is not for it.
    pub fn for_system(&self, system: &System) -> Option<&ForSystem> {
        self.systems.iter().find(|s| {
            let release = s.releases.is_empty() || (system.id == s.family && s.releases.contains(&system.release));
            system.is_like(&s.family) && release
        })
    }
}

/// The same as [`digest`], of what comes in pieces.
#[derive(Debug, Clone, Default)]
pub struct Digester(sha2::Sha256);

impl Digester {
    /// Takes a piece.
    pub fn update(&mut self, bytes: &[u8]) {
        sha2::Digest::update(&mut self.0, bytes);
    }

    /// Of all pieces, in hexadecimal.
    pub fn finish(self) -> String {
        format!("{:x}", sha2::Digest::finalize(self.0))
    }
}

/// SHA-256 in hexadecimal: by which a file that was written is known again.
pub fn digest(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

pub(crate) fn is_word(text: &str, also: &[u8]) -> bool {
    text.len() <= 255
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || also.contains(&b))
}

#[cfg(test)]
mod tests;
