//! One node: a configuration directory and every directory that follows from it. Several can live on one machine.

use std::path::{Path, PathBuf};

use vzrt::Ctid;

use super::document::substitute_veid;
use super::global::{Global, GlobalError};

/// Where the configuration is when nobody says otherwise.
pub const DEFAULT_CONFIG_DIR: &str = "/etc/vz";

/// The environment variable that says otherwise; `--config-dir` wins over it.
pub const CONFIG_DIR_VARIABLE: &str = "VZ_CONFDIR";

/// The node's configuration directory and `vz.conf`.
#[derive(Debug, Clone)]
pub struct Node {
    config_dir: PathBuf,
    /// What `vz.conf` says.
    pub global: Global,
}

/// Picks the configuration directory: the option, then the environment, then `/etc/vz`.
#[must_use]
pub fn config_dir(option: Option<&Path>) -> PathBuf {
    let from_environment = || std::env::var_os(CONFIG_DIR_VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from);
    option.map(Path::to_owned).or_else(from_environment).unwrap_or_else(|| DEFAULT_CONFIG_DIR.into())
}

impl Node {
    /// Reads `vz.conf` of a configuration directory (see [`config_dir`]).
    ///
    /// # Errors
    /// `vz.conf` is missing or cannot be used.
    pub fn open(config_dir: impl Into<PathBuf>) -> Result<Self, GlobalError> {
        let config_dir = config_dir.into();
        let global = Global::load(&config_dir.join("vz.conf"))?;
        Ok(Self { config_dir, global })
    }

    /// `/etc/vz`.
    #[must_use]
    pub fn config_dir(&self) -> &Path {
        &self.config_dir
    }

    /// `/etc/vz/conf`: containers' configurations, samples, action scripts.
    #[must_use]
    pub fn conf_dir(&self) -> PathBuf {
        self.config_dir.join("conf")
    }

    /// `/etc/vz/names`.
    #[must_use]
    pub fn names_dir(&self) -> PathBuf {
        self.config_dir.join("names")
    }

    /// `/etc/vz/dists`.
    #[must_use]
    pub fn dists_dir(&self) -> PathBuf {
        self.config_dir.join("dists")
    }

    /// `/etc/vz/conf/CTID.conf`.
    #[must_use]
    pub fn container_conf(&self, ctid: Ctid) -> PathBuf {
        self.conf_dir().join(format!("{ctid}.conf"))
    }

    /// `/etc/vz/conf/ve-NAME.conf-sample`; none for a name that is not one plain file name.
    #[must_use]
    pub fn sample_conf(&self, name: &str) -> Option<PathBuf> {
        let plain = !name.is_empty() && !name.contains('/') && !name.contains(char::is_control);
        plain.then(|| self.conf_dir().join(format!("ve-{name}.conf-sample")))
    }

    /// `LOCKDIR/CTID.lck`.
    #[must_use]
    pub fn lock_file(&self, ctid: Ctid) -> PathBuf {
        self.global.lock_dir.join(format!("{ctid}.lck"))
    }

    /// `DUMPDIR/Dump.CTID`.
    #[must_use]
    pub fn dump_file(&self, ctid: Ctid) -> PathBuf {
        self.global.dump_dir.join(format!("Dump.{ctid}"))
    }

    /// `VZ_RUNDIR/CTID`.
    #[must_use]
    pub fn run_dir(&self, ctid: Ctid) -> PathBuf {
        self.global.run_dir.join(ctid.to_string())
    }

    /// `TEMPLATE/cache`.
    #[must_use]
    pub fn template_cache(&self) -> PathBuf {
        self.global.template_dir.join("cache")
    }

    /// Where a container's root is mounted, by `vz.conf` alone.
    #[must_use]
    pub fn default_root(&self, ctid: Ctid) -> PathBuf {
        substitute_veid(&self.global.ve_root, ctid)
    }

    /// A container's private area, by `vz.conf` alone.
    #[must_use]
    pub fn default_private(&self, ctid: Ctid) -> PathBuf {
        substitute_veid(&self.global.ve_private, ctid)
    }

    /// Every configured container, in order of number.
    ///
    /// # Errors
    /// The directory cannot be read. A missing one means no containers.
    pub fn containers(&self) -> std::io::Result<Vec<Ctid>> {
        let entries = match fs_err::read_dir(self.conf_dir()) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            found.extend(name.to_str().and_then(ctid_of_file_name));
        }
        found.sort_unstable();
        Ok(found)
    }
}

/// `101.conf` → 101. Only the canonical spelling: `0101.conf` would be a second file for the same container.
#[must_use]
pub fn ctid_of_file_name(name: &str) -> Option<Ctid> {
    let digits = name.strip_suffix(".conf")?;
    if digits.starts_with('0') { None } else { digits.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_file_names_are_containers() {
        assert!(ctid_of_file_name("101.conf").is_some());
        for other in [
            "0.conf",
            "0101.conf",
            ".101.conf.new",
            "101.conf.destroyed",
            "ve-basic.conf-sample",
            "101.conf~",
            "101.mount",
        ] {
            assert!(ctid_of_file_name(other).is_none(), "{other}");
        }
    }

    #[test]
    fn a_sample_is_a_plain_name() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join("vz.conf"), "").unwrap();
        let node = Node::open(dir.path()).unwrap();
        assert!(node.sample_conf("vswap-512m").unwrap().ends_with("conf/ve-vswap-512m.conf-sample"));
        for bad in ["", "../../x", "a/b"] {
            assert!(node.sample_conf(bad).is_none(), "{bad}");
        }
    }
}
