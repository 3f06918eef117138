//! What is installed in a container, beside its configuration: `CTID.apps`. It is also the journal: what is about to be there is in it,
//! synced, before it is there, so that the next command can undo what a killed one began.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use templates::app::Values;
use templates::app::merge::Edit;
use templates::unpack::over::Dress;
use vzrt::Ctid;

use super::{Fail, because};
use crate::config::Node;
use crate::pkg::exit::PkgExit;

/// The application templates of a container, in the order in which they were installed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) apps: Vec<App>,
}

/// How far one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// Begun: the next command takes away what there is of it.
    Installing,
    Installed,
    /// The next command goes on with it.
    Removing,
}

/// One application template. What its removal needs is all here: the template may be another by then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct App {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) state: State,
    pub(super) parameters: Values,
    pub(super) requires: Vec<String>,
    pub(super) conflicts: Vec<String>,
    /// That came with it, with their versions.
    pub(super) packages: BTreeMap<String, String>,
    pub(super) files: Vec<Written>,
    /// That were made for its files; the deepest last.
    pub(super) directories: Vec<String>,
    pub(super) services: Vec<String>,
    /// Whether its own commands have been run, so that those that undo them have something to undo.
    pub(super) commands_run: bool,
    pub(super) pre_remove: Vec<Vec<String>>,
    pub(super) post_remove: Vec<Vec<String>>,
    /// What only captured ones do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) captured: Option<Part>,
}

/// What a captured template does beside writing files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    /// Users, groups and packages, in order.
    pub(super) edits: Vec<Edit>,
    /// Directories that were there, and get another owner or other permissions.
    pub(super) dressed: Vec<Dressed>,
    /// Paths, and tokens of edits, that were there already: if another application brought them, they are this one's when that goes.
    pub(super) shares: BTreeSet<String>,
    /// Its packages as they came: dpkg is asked to take away what is another version by then.
    pub(super) versions: BTreeMap<String, String>,
    /// Whether the cache of libraries has to be made anew.
    pub(super) libraries: bool,
}

/// A directory that gets another owner or other permissions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Dressed {
    pub(super) path: String,
    pub(super) was: Dress,
    pub(super) is: Dress,
}

/// A file or link of a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Written {
    pub(super) path: String,
    /// By which it is known to be as it was written: SHA-256, or what the link says.
    pub(super) digest: String,
    /// Of a captured one, its size in bytes: what has another need not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) size: Option<u64>,
    /// Whether something was there before, which is kept beside it.
    pub(super) replaces: bool,
}

impl Record {
    fn path(node: &Node, ctid: Ctid) -> PathBuf {
        node.conf_dir().join(format!("{ctid}.apps"))
    }

    pub(super) fn load(node: &Node, ctid: Ctid) -> Result<Self, Fail> {
        let path = Self::path(node, ctid);
        let cannot = |e: &(dyn std::error::Error + 'static)| {
            because(PkgExit::System, format!("Unable to tell what is installed in CT {ctid} ({})", path.display()), e)
        };
        match fs_err::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(cannot(&e)),
            Ok(text) => serde_json::from_slice(&text).map_err(|e| cannot(&e)),
        }
    }

    /// Readable by root alone: there are secrets in it.
    pub(super) fn save(&self, node: &Node, ctid: Ctid) -> Result<(), Fail> {
        let path = Self::path(node, ctid);
        let save = || -> std::io::Result<()> {
            if self.apps.is_empty() {
                return match fs_err::remove_file(&path) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
                    _ => Ok(()),
                };
            }
            let mut file = tempfile::Builder::new().prefix(".apps.").tempfile_in(node.conf_dir())?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            std::fs::File::open(node.conf_dir())?.sync_all()
        };
        save().map_err(|e| because(PkgExit::System, format!("Unable to save {}", path.display()), &e))
    }

    pub(super) fn get(&self, name: &str) -> Option<&App> {
        self.apps.iter().find(|a| a.name == name)
    }

    /// Replaces the entry of the same name, or adds one.
    pub(super) fn put(&mut self, app: &App) {
        match self.apps.iter_mut().find(|a| a.name == app.name) {
            Some(entry) => entry.clone_from(app),
            None => self.apps.push(app.clone()),
        }
    }

    /// Names of those that are installed whole.
    pub(super) fn installed(&self) -> Vec<String> {
        self.apps.iter().filter(|a| a.state == State::Installed).map(|a| a.name.clone()).collect()
    }

    /// Those that require this one.
    pub(super) fn needed_by(&self, name: &str) -> Vec<&str> {
        let needs = |a: &&App| a.requires.iter().any(|r| r == name) && a.name != name;
        self.apps.iter().filter(needs).map(|a| a.name.as_str()).collect()
    }

    /// Packages that stay although the application that they came with goes are the next one's from then on; those that no application is left
    /// for are the container's own.
    pub(super) fn hand_on(&mut self, from: &str, staying: &BTreeSet<String>) {
        let Some(at) = self.apps.iter().position(|a| a.name == from) else { return };
        let packages = std::mem::take(&mut self.apps[at].packages);
        let kept: Vec<_> = packages.into_iter().filter(|(name, _)| staying.contains(name)).collect();
        if let Some(heir) = self.apps.iter_mut().find(|a| a.name != from) {
            heir.packages.extend(kept);
        }
    }

    /// What another captured application has found in place is its own once the one that brought it goes.
    pub(super) fn bequeath(&mut self, from: &str) {
        let Some(at) = self.apps.iter().position(|a| a.name == from) else { return };
        let mut app = self.apps.remove(at);
        for heir in &mut self.apps {
            let Some(part) = &mut heir.captured else { continue };
            let (shares, edits) = (&mut part.shares, &mut part.edits);
            heir.files.extend(take(&mut app.files, |f| shares.remove(&f.path)));
            heir.directories.extend(take(&mut app.directories, |d| shares.remove(d)));
            if let Some(mine) = &mut app.captured {
                let inherited = take(&mut mine.edits, |e| shares.remove(&e.token()));
                for (name, version) in inherited.iter().filter_map(templates::app::merge::package) {
                    mine.versions.remove(&name);
                    app.packages.remove(&name);
                    part.versions.insert(name.clone(), version.clone());
                    heir.packages.insert(name, version);
                }
                edits.extend(inherited);
            }
        }
        self.apps.insert(at, app);
    }
}

/// Those that fit leave the list, in their order.
fn take<T>(list: &mut Vec<T>, mut fits: impl FnMut(&T) -> bool) -> Vec<T> {
    let (taken, left) = std::mem::take(list).into_iter().partition(|one| fits(one));
    *list = left;
    taken
}
