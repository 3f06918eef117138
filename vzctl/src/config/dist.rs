//! How a distribution keeps its host name, resolver and passwords: `/etc/vz/dists/NAME.conf`.
//!
//! The original named scripts there, run by a shell inside the container. Here a value names one of the ways built into the runtime:
//! `SET_HOSTNAME="builtin:etc-hostname"`.

use std::path::{Path, PathBuf};

use super::document::{Document, DocumentError};
use crate::Exit;

/// Where the host name is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostnameStyle {
    /// `/etc/hostname`, one line (`builtin:etc-hostname`): Debian, Arch, Alpine and everything with systemd.
    EtcHostname,
    /// `/etc/HOSTNAME`, one line (`builtin:etc-HOSTNAME`): Slackware, older SUSE.
    EtcHostnameUpper,
    /// `HOSTNAME=` in `/etc/sysconfig/network` (`builtin:sysconfig-network`): Red Hat up to 6.
    SysconfigNetwork,
    /// `hostname="…"` in `/etc/conf.d/hostname` (`builtin:confd-hostname`): Gentoo, Funtoo.
    ConfdHostname,
    /// `HOSTNAME="…"` in `/etc/rc.conf` (`builtin:rc-conf`): Arch before systemd.
    RcConf,
}

/// Where name servers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DnsStyle {
    /// `/etc/resolv.conf` (`builtin:resolv-conf`).
    ResolvConf,
}

/// How a password is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasswordStyle {
    /// `useradd` if there is no such user, then the hash through `chpasswd -e` (`builtin:chpasswd`).
    Chpasswd,
    /// As above with busybox's `adduser` (`builtin:busybox`).
    Busybox,
}

/// How addresses come to the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressStyle {
    /// The runtime sets them on `venet0` itself; the container's files stay as they are (`builtin:venet`).
    Venet,
}

/// The ways of one distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dist {
    /// `SET_HOSTNAME`.
    pub hostname: HostnameStyle,
    /// `SET_DNS`.
    pub dns: DnsStyle,
    /// `SET_USERPASS`.
    pub password: PasswordStyle,
    /// `ADD_IP` and `DEL_IP`.
    pub address: AddressStyle,
}

/// A distribution's file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DistError {
    /// It, and the default, cannot be read.
    #[error("distribution configuration {} cannot be read", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: DocumentError,
    },
    /// It says nothing about an action.
    #[error("{}: {key} is not set", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The action.
        key: &'static str,
    },
    /// It names a way that does not exist: a script of the original, for example.
    #[error("{}: {key}={value:?} is not a built-in way; there are {known}", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The action.
        key: &'static str,
        /// What it names.
        value: String,
        /// The ways there are.
        known: String,
    },
}

impl DistError {
    /// The code `vzctl` ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::File { .. } => Exit::NoDistConfig,
            Self::Missing { .. } | Self::Unknown { .. } => Exit::NoDistAction,
        }
    }
}

/// A distribution's file, and what to tell the user if it is not the container's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The file to read.
    pub path: PathBuf,
    /// Why it is the default one.
    pub warning: Option<String>,
}

/// The names to look for, longest first: `centos-7-x86_64-minimal`, `centos-7-x86_64`, `centos-7`, `centos`. The template may have been
/// written with a leading dot (a precreated one) or, wrongly, with a path; only a plain name is ever looked for.
pub fn candidates(ostemplate: &str) -> impl Iterator<Item = &str> {
    let name = ostemplate.rsplit('/').next().unwrap_or("").trim_start_matches('.');
    let first = (!name.is_empty()).then_some(name);
    std::iter::successors(first, |name| name.rsplit_once('-').map(|(base, _)| base)).filter(|name| !name.is_empty())
}

/// Which file of `dists` is meant for a template (vzctl 4, `lib/dist.c`).
pub fn choose(dists: &Path, ostemplate: Option<&str>, exists: impl Fn(&Path) -> bool) -> Choice {
    let default = dists.join("default");
    let warning = match ostemplate.filter(|t| !t.is_empty()) {
        None => format!("distribution not specified in CT config, using defaults from {}", default.display()),
        Some(ostemplate) => {
            if let Some(path) = candidates(ostemplate).map(|n| dists.join(format!("{n}.conf"))).find(|p| exists(p)) {
                return Choice { path, warning: None };
            }
            format!(
                "configuration file for distribution {ostemplate} not found, using defaults from {}",
                default.display()
            )
        }
    };
    Choice { path: default, warning: Some(warning) }
}

impl Dist {
    /// Reads a distribution's file.
    ///
    /// # Errors
    /// It cannot be read, or does not say everything.
    pub fn load(path: &Path) -> Result<Self, DistError> {
        let document =
            Document::load_linked(path).map_err(|source| DistError::File { path: path.to_owned(), source })?;
        let address = [("builtin:venet", AddressStyle::Venet)];
        way(path, &document, "DEL_IP", &address)?;
        Ok(Self {
            hostname: way(
                path,
                &document,
                "SET_HOSTNAME",
                &[
                    ("builtin:etc-hostname", HostnameStyle::EtcHostname),
                    ("builtin:etc-HOSTNAME", HostnameStyle::EtcHostnameUpper),
                    ("builtin:sysconfig-network", HostnameStyle::SysconfigNetwork),
                    ("builtin:confd-hostname", HostnameStyle::ConfdHostname),
                    ("builtin:rc-conf", HostnameStyle::RcConf),
                ],
            )?,
            dns: way(path, &document, "SET_DNS", &[("builtin:resolv-conf", DnsStyle::ResolvConf)])?,
            password: way(
                path,
                &document,
                "SET_USERPASS",
                &[("builtin:chpasswd", PasswordStyle::Chpasswd), ("builtin:busybox", PasswordStyle::Busybox)],
            )?,
            address: way(path, &document, "ADD_IP", &address)?,
        })
    }
}

fn way<T: Copy>(path: &Path, document: &Document, key: &'static str, ways: &[(&str, T)]) -> Result<T, DistError> {
    let value = document.get(key).ok_or_else(|| DistError::Missing { path: path.to_owned(), key })?;
    ways.iter().find(|(name, _)| *name == value).map(|(_, way)| *way).ok_or_else(|| DistError::Unknown {
        path: path.to_owned(),
        key,
        value: value.to_owned(),
        known: ways.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(ostemplate: Option<&str>, there: &[&str]) -> Choice {
        choose(Path::new("/d"), ostemplate, |p| there.iter().any(|t| p == Path::new("/d").join(t)))
    }

    #[test]
    fn the_longest_name_that_has_a_file_wins() {
        let there = ["centos.conf", "centos-6.conf", "debian.conf"];
        assert_eq!(chosen(Some("centos-6-x86"), &there).path, Path::new("/d/centos-6.conf"));
        assert_eq!(chosen(Some("centos-7-x86_64-minimal"), &there).path, Path::new("/d/centos.conf"));
        assert_eq!(chosen(Some(".debian-12-x86_64"), &there).path, Path::new("/d/debian.conf"));
        assert_eq!(chosen(Some("../../etc/debian"), &there).path, Path::new("/d/debian.conf"));
    }

    #[test]
    fn a_template_without_a_file_gets_the_default_and_a_warning() {
        let choice = chosen(Some("plan9-4"), &[]);
        assert_eq!(choice.path, Path::new("/d/default"));
        assert_eq!(
            choice.warning.unwrap(),
            "configuration file for distribution plan9-4 not found, using defaults from /d/default"
        );
        assert_eq!(
            chosen(None, &[]).warning.unwrap(),
            "distribution not specified in CT config, using defaults from /d/default"
        );
    }

    #[test]
    fn every_file_we_ship_is_understood() {
        let dists = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/dists");
        let mut seen = 0;
        for entry in fs_err::read_dir(dists).unwrap() {
            Dist::load(&entry.unwrap().path()).unwrap();
            seen += 1;
        }
        assert!(seen >= 18, "{seen}");
    }

    #[test]
    fn a_script_of_the_original_is_refused_by_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs_err::write(file.path(), "DEL_IP=builtin:venet\nADD_IP=builtin:venet\nSET_HOSTNAME=redhat-set_hostname.sh\n")
            .unwrap();
        let error = Dist::load(file.path()).unwrap_err();
        assert_eq!(error.exit(), Exit::NoDistAction);
        assert!(error.to_string().contains("redhat-set_hostname.sh"), "{error}");
        assert_eq!(Dist::load(Path::new("/nonexistent")).unwrap_err().exit(), Exit::NoDistConfig);
    }
}
