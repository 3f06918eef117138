//! What the machine is made of (`tests/reference/machine.toml`), and from which mirror.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::Error;

/// `machine.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Memory of the machine.
    pub memory_mib: u32,
    /// Processors of the machine.
    pub cpus: u32,
    /// Size of the file system mounted at `/vz`.
    pub vz_disk_gib: u32,
    /// Suite QEMU comes from.
    pub qemu_suite: String,
    /// Packages inside.
    pub packages: Vec<String>,
    /// Units that never start.
    pub masked_units: Vec<String>,
    debian: BTreeMap<String, Release>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Release {
    suite: String,
}

/// The directory of `machine.toml` and `root/`, the files laid over the packages.
pub fn directory() -> PathBuf {
    crate::checkout().join("tests/reference")
}

impl Recipe {
    /// Reads it from the checkout.
    ///
    /// # Errors
    /// The file cannot be read or understood.
    pub fn read() -> Result<Self, Error> {
        Ok(toml::from_str(&fs_err::read_to_string(directory().join("machine.toml"))?)?)
    }

    /// The suite of a release: `trixie` for `13`.
    ///
    /// # Errors
    /// A release that is not in the recipe.
    pub fn suite(&self, release: &str) -> Result<&str, Error> {
        let found = self.debian.get(release).ok_or_else(|| Error::Release { release: release.to_owned() })?;
        Ok(&found.suite)
    }
}

/// A short name for all that an image depends on: the recipe, the files under `root/`, and `more`.
///
/// # Errors
/// A file cannot be read.
pub fn fingerprint(more: &[&str]) -> Result<String, Error> {
    let mut files = vec![directory().join("machine.toml")];
    list(&directory().join("root"), &mut files)?;
    files.sort();
    let mut hash = Sha256::new();
    for file in &files {
        hash.update(file.strip_prefix(directory()).unwrap_or(file).as_os_str().as_encoded_bytes());
        hash.update(fs_err::read(file)?);
    }
    more.iter().for_each(|text| hash.update(text));
    Ok(short(hash))
}

/// A short name for some words, when no file matters.
pub fn fingerprint_of(words: &[&str]) -> String {
    let mut hash = Sha256::new();
    words.iter().for_each(|word| hash.update(word));
    short(hash)
}

fn short(hash: Sha256) -> String {
    hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

fn list(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), Error> {
    for entry in fs_err::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { list(&path, files)? } else { files.push(path) }
    }
    Ok(())
}

/// The Debian mirror that this host's own apt is configured with.
///
/// # Errors
/// None is, or apt's configuration cannot be read.
pub fn mirror() -> Result<String, Error> {
    let apt = Path::new("/etc/apt");
    let mut files = vec![apt.join("sources.list")];
    if let Ok(entries) = fs_err::read_dir(apt.join("sources.list.d")) {
        files.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
    }
    files.sort();
    let texts = files.iter().filter_map(|file| std::fs::read_to_string(file).ok());
    let uris: Vec<String> = texts.flat_map(|text| uris(&text)).collect();
    let archive = uris.into_iter().find(|uri| uri.trim_end_matches('/').ends_with("/debian"));
    archive.ok_or_else(|| Error::NoMirror {
        looked_in: files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", "),
    })
}

/// All archives in one of apt's files, in either of its formats (sources.list(5)).
fn uris(text: &str) -> Vec<String> {
    let one_line = |line: &str| {
        let rest = line.strip_prefix("deb ")?.trim_start();
        let rest = if rest.starts_with('[') { rest.split_once(']')?.1 } else { rest };
        rest.split_whitespace().next().map(str::to_owned)
    };
    let deb822 = |line: &str| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case("URIs").then(|| value.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    };
    text.lines()
        .flat_map(|line| one_line(line).map(|uri| vec![uri]).or_else(|| deb822(line)).unwrap_or_default())
        .collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that fails here has failed")]
mod tests {
    use super::*;

    #[test]
    fn both_formats_of_apts_sources_are_read() {
        let old = "# deb http://a/debian x\ndeb [arch=amd64 signed-by=/k] http://b/debian trixie main\ndeb http://c/debian/ x";
        assert_eq!(uris(old), ["http://b/debian", "http://c/debian/"]);
        let new = "Types: deb\n# URIs: http://no\nURIs: http://d/debian http://e/debian\nSuites: trixie\n";
        assert_eq!(uris(new), ["http://d/debian", "http://e/debian"]);
    }

    #[test]
    fn the_recipe_is_understood_and_knows_both_releases() {
        let recipe = Recipe::read().unwrap();
        assert_eq!((recipe.suite("13").unwrap(), recipe.suite("12").unwrap()), ("trixie", "bookworm"));
        assert!(matches!(recipe.suite("99"), Err(Error::Release { .. })));
    }

    #[test]
    fn a_fingerprint_changes_with_what_it_is_made_of() {
        assert_eq!(fingerprint(&["a"]).unwrap(), fingerprint(&["a"]).unwrap());
        assert_ne!(fingerprint(&["a"]).unwrap(), fingerprint(&["b"]).unwrap());
    }
}
