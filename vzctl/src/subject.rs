//! A container as the commands see it: its own configuration, and what holds for it with the node's defaults.

use std::path::PathBuf;

use vzrt::Ctid;
use vzrt::policy;

use crate::config::Node;
use crate::config::container::{Container, ContainerError};
use crate::config::idrange::Bases;
use crate::config::settings::{Change, Settings};
use crate::config::values::Feature;

/// A container's configuration, resolved on a node.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Its number.
    pub ctid: Ctid,
    /// Its own file.
    pub own: Container,
    /// Its own file over the node's defaults.
    pub settings: Settings,
    /// `VE_ROOT`.
    pub ve_root: PathBuf,
    /// `VE_PRIVATE`.
    pub ve_private: PathBuf,
}

impl Subject {
    /// Reads the configuration of a container.
    ///
    /// # Errors
    /// It is missing or no configuration.
    pub fn load(node: &Node, ctid: Ctid) -> Result<Self, ContainerError> {
        Ok(Self::new(node, Container::load(node, ctid)?))
    }

    /// The same of a configuration that is in memory already.
    #[must_use]
    pub fn new(node: &Node, own: Container) -> Self {
        Self {
            ctid: own.ctid,
            settings: own.effective(&node.global),
            ve_root: own.root(node),
            ve_private: own.private(node),
            own,
        }
    }

    /// The same container with these changes.
    ///
    /// # Errors
    /// A value that a configuration file can't carry.
    pub fn with(&self, node: &Node, changes: &[Change]) -> Result<Self, ContainerError> {
        let mut own = self.own.clone();
        own.apply(changes)?;
        Ok(Self::new(node, own))
    }

    /// The same with an id range.
    ///
    /// # Errors
    /// As [`Subject::with`].
    pub fn with_ids(&self, node: &Node, bases: Bases) -> Result<Self, ContainerError> {
        self.with(node, &[Change::LocalUid(bases.uid), Change::LocalGid(bases.gid)])
    }

    /// The id range that its configuration gives it.
    #[must_use]
    pub fn bases(&self) -> Option<Bases> {
        Some(Bases { uid: self.settings.local_uid?, gid: self.settings.local_gid? })
    }

    /// The doors in the system call filter that its features open. A 32-bit template gets the one that its C library can't do without.
    #[must_use]
    pub fn doors(&self) -> Vec<policy::Feature> {
        let open = self.settings.features.iter().filter_map(|(feature, on)| match feature {
            Feature::Door(door) if *on => Some(*door),
            _ => None,
        });
        let mut doors: Vec<policy::Feature> = open.collect();
        let is_32_bit =
            |t: &String| ["-x86", "-i386", "-i686"].iter().any(|s| t.ends_with(s) || t.contains(&format!("{s}-")));
        if self.settings.ostemplate.as_ref().is_some_and(is_32_bit) {
            doors.push(policy::Feature::Sock32);
        }
        doors
    }
}
