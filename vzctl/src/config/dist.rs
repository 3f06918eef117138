//! How a distribution keeps its host name, resolver, passwords and addresses: `/etc/vz/dists/NAME.conf`.
//!
//! The original named scripts there, run by a shell inside the container. Here a value names one of the ways built into the runtime:
//! `SET_HOSTNAME="builtin:etc-hostname"`.

use std::path::{Path, PathBuf};

use vzrt::guest::{AddressStyle, ConsoleStyle, Manager};

use super::document::{Document, DocumentError};
use crate::Exit;

/// The ways of `ADD_IP` and `DEL_IP`.
const ADDRESS: [(&str, AddressStyle); 7] = [
    ("builtin:auto", AddressStyle::Auto),
    ("builtin:venet", AddressStyle::Venet),
    ("builtin:networkd", AddressStyle::Of(Manager::Networkd)),
    ("builtin:networkmanager", AddressStyle::Of(Manager::NetworkManager)),
    ("builtin:ifcfg", AddressStyle::Of(Manager::Ifcfg)),
    ("builtin:suse-ifcfg", AddressStyle::Of(Manager::SuseIfcfg)),
    ("builtin:ifupdown", AddressStyle::Of(Manager::Ifupdown)),
];

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
    /// Where its own tree says (`builtin:auto`).
    Auto,
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

/// The ways of one distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dist {
    /// `SET_HOSTNAME`.
    pub hostname: HostnameStyle,
    /// `SET_DNS`.
    pub dns: DnsStyle,
    /// `SET_USERPASS`.
    pub password: PasswordStyle,
    /// `ADD_IP`. `DEL_IP` is the same work: what is written is all addresses there are.
    pub address: AddressStyle,
    /// `SET_CONSOLE`; `builtin:auto` where it is not set, as in files older than it.
    pub console: ConsoleStyle,
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

/// Which file of `dists` is meant for a template (vzctl 4, `lib/dist.c`): by what its recipe says it is of, by its name, and at last by what its tree calls
/// itself, the nearest name first.
pub fn choose(
    dists: &Path,
    recipe: Option<&str>,
    ostemplate: Option<&str>,
    tree: impl FnOnce() -> Vec<String>,
    exists: impl Fn(&Path) -> bool,
) -> Choice {
    let file = |name: &str| candidates(name).map(|n| dists.join(format!("{n}.conf"))).find(|p| exists(p));
    let ostemplate = ostemplate.filter(|t| !t.is_empty());
    let named = recipe.and_then(file).or_else(|| ostemplate.and_then(file));
    if let Some(path) = named.or_else(|| tree().iter().find_map(|name| file(name))) {
        return Choice { path, warning: None };
    }
    let default = dists.join("default");
    let warning = match ostemplate {
        None => format!("distribution not specified in CT config, using defaults from {}", default.display()),
        Some(ostemplate) => format!(
            "configuration file for distribution {ostemplate} not found, using defaults from {}",
            default.display()
        ),
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
        way(path, &document, "DEL_IP", &ADDRESS)?;
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
                    ("builtin:auto", HostnameStyle::Auto),
                ],
            )?,
            dns: way(path, &document, "SET_DNS", &[("builtin:resolv-conf", DnsStyle::ResolvConf)])?,
            password: way(
                path,
                &document,
                "SET_USERPASS",
                &[("builtin:chpasswd", PasswordStyle::Chpasswd), ("builtin:busybox", PasswordStyle::Busybox)],
            )?,
            address: way(path, &document, "ADD_IP", &ADDRESS)?,
            console: match document.get("SET_CONSOLE") {
                None => ConsoleStyle::Auto,
                Some(_) => way(
                    path,
                    &document,
                    "SET_CONSOLE",
                    &[("builtin:auto", ConsoleStyle::Auto), ("builtin:leave", ConsoleStyle::Leave)],
                )?,
            },
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
        choose(Path::new("/d"), None, ostemplate, Vec::new, |p| there.iter().any(|t| p == Path::new("/d").join(t)))
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
    fn a_recipe_comes_before_the_name_and_the_tree_after_it() {
        let chosen = |recipe, ostemplate, tree: &[&str]| {
            let tree = || tree.iter().map(|name| (*name).to_owned()).collect();
            let there = ["/d/debian.conf", "/d/fedora.conf", "/d/suse.conf"];
            choose(Path::new("/d"), recipe, ostemplate, tree, |p| there.iter().any(|t| p == Path::new(t))).path
        };
        assert_eq!(chosen(Some("debian"), Some("fedora-40"), &["suse"]), Path::new("/d/debian.conf"));
        assert_eq!(chosen(Some("plan9"), Some("fedora-40"), &["suse"]), Path::new("/d/fedora.conf"));
        assert_eq!(chosen(None, Some("mine"), &["opensuse-leap", "suse"]), Path::new("/d/suse.conf"));
        assert_eq!(chosen(None, None, &["debian"]), Path::new("/d/debian.conf"));
        assert_eq!(chosen(None, None, &["../../etc/debian", ""]), Path::new("/d/debian.conf"), "only a plain name");
        assert_eq!(chosen(None, None, &["plan9"]), Path::new("/d/default"));
    }

    #[test]
    fn one_manager_can_be_named_and_an_unknown_one_is_refused() {
        let load = |address: &str| {
            let file = tempfile::NamedTempFile::new().unwrap();
            let text = fs_err::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/dists/default")).unwrap();
            fs_err::write(file.path(), format!("{text}ADD_IP=\"{address}\"\n")).unwrap();
            Dist::load(file.path()).map(|dist| dist.address)
        };
        assert_eq!(load("builtin:networkd").unwrap(), AddressStyle::Of(Manager::Networkd));
        assert_eq!(load("builtin:venet").unwrap(), AddressStyle::Venet);
        let error = load("builtin:connman").unwrap_err();
        assert!(error.to_string().contains("builtin:auto, builtin:venet, builtin:networkd"), "{error}");
        assert_eq!(error.exit(), Exit::NoDistAction);
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
