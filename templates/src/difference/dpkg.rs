//! What packages there are: `/var/lib/dpkg/status`, paragraphs of fields as deb822(5) has them.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::DifferenceError;

/// Below the root.
pub(super) const STATUS: &str = "var/lib/dpkg/status";

/// A package and its version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Package {
    /// With its architecture where several of them may be installed at once (`libc6:amd64`).
    pub name: String,
    /// As dpkg has it.
    pub version: String,
}

/// The packages that are installed, and their configuration files.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    /// Versions by names.
    pub(super) installed: BTreeMap<String, String>,
    /// Below the root.
    pub(super) conffiles: BTreeSet<String>,
}

/// Reads it strictly: a name or a version that cannot be one is damage.
pub(super) fn parse(text: &[u8]) -> Result<Status, DifferenceError> {
    let damaged =
        |line: usize, reason: &str| DifferenceError::Damaged { path: STATUS, line, reason: reason.to_owned() };
    let text = std::str::from_utf8(text).map_err(|_| damaged(0, "is not UTF-8"))?;
    let mut status = Status::default();
    let mut fields: BTreeMap<String, String> = BTreeMap::new();
    let mut last: Option<String> = None;
    let lines = text.lines().chain([""]).enumerate();
    for (number, line) in lines.map(|(at, line)| (at + 1, line)) {
        if line.is_empty() {
            if !fields.is_empty() {
                status.take(&fields).map_err(|reason| damaged(number, reason))?;
            }
            (fields, last) = (BTreeMap::new(), None);
        } else if line.starts_with([' ', '\t']) {
            let field = last.as_ref().and_then(|last| fields.get_mut(last));
            let field = field.ok_or_else(|| damaged(number, "a field is expected before what continues it"))?;
            field.push('\n');
            field.push_str(line.trim());
        } else {
            let (name, value) = line.split_once(':').ok_or_else(|| damaged(number, "`Field: value` is expected"))?;
            let name = name.to_ascii_lowercase();
            if fields.insert(name.clone(), value.trim().to_owned()).is_some() {
                return Err(damaged(number, "the field is there already"));
            }
            last = Some(name);
        }
    }
    Ok(status)
}

impl Status {
    fn take(&mut self, fields: &BTreeMap<String, String>) -> Result<(), &'static str> {
        let field = |name: &str| fields.get(name).map_or("", String::as_str);
        // `install ok installed`; what was removed and has left configuration behind is not installed.
        let state = field("status").split_whitespace().last().ok_or("a package has no `Status`")?;
        if matches!(state, "not-installed" | "config-files") {
            return Ok(());
        }
        let (name, version) = (field("package"), field("version"));
        let is_name = |s: &str| {
            s.len() > 1 && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b))
        };
        if !is_name(name) {
            return Err("a package has no name");
        }
        if version.is_empty() || !version.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.:~".contains(&b)) {
            return Err("a package has no version");
        }
        let key = match (field("multi-arch"), field("architecture")) {
            ("same", architecture) if is_name(architecture) => format!("{name}:{architecture}"),
            _ => name.to_owned(),
        };
        for line in field("conffiles").lines().filter(|line| !line.is_empty()) {
            let path = line.split(' ').next().and_then(|path| path.strip_prefix('/'));
            self.conffiles.insert(path.ok_or("a path is expected in `Conffiles`")?.to_owned());
        }
        match self.installed.insert(key, version.to_owned()) {
            None => Ok(()),
            Some(_) => Err("the package is there already"),
        }
    }
}

/// What is in the first and not, or in another version, in the second.
pub(super) fn only_in(these: &Status, those: &Status) -> Vec<Package> {
    let other = these.installed.iter().filter(|(name, version)| those.installed.get(*name) != Some(version));
    other.map(|(name, version)| Package { name: name.clone(), version: version.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nMulti-Arch: same\nVersion: 2.36-9\n\n\
        Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n";
    const AFTER: &str = "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nMulti-Arch: same\nVersion: 2.36-10\n\n\
        Package: nginx\nStatus: install ok installed\nVersion: 1.22.1-9+deb12u3\nConffiles:\n /etc/nginx/nginx.conf 0123\n /etc/nginx/mime.types 4567 obsolete\n\
        Description: web server\n more of it\n\n";

    #[test]
    fn packages_and_their_configuration_are_read() {
        let (before, after) = (parse(BEFORE.as_bytes()).unwrap(), parse(AFTER.as_bytes()).unwrap());
        let package = |name: &str, version: &str| Package { name: name.into(), version: version.into() };
        assert_eq!(only_in(&after, &before), [package("libc6:amd64", "2.36-10"), package("nginx", "1.22.1-9+deb12u3")]);
        assert_eq!(only_in(&before, &after), [package("libc6:amd64", "2.36-9")]);
        assert_eq!(after.conffiles.into_iter().collect::<Vec<_>>(), ["etc/nginx/mime.types", "etc/nginx/nginx.conf"]);
    }

    #[test]
    fn damage_is_refused_with_its_line() {
        for (text, line) in [
            ("Package: a b\nStatus: install ok installed\nVersion: 1\n", 4),
            ("Package: ab\nStatus: install ok installed\n", 3),
            ("Package: ab\nPackage: ab\n", 2),
            (" continued\n", 1),
            ("Package\n", 1),
            ("Package: ab\nStatus: install ok installed\nVersion: 1;id\n", 4),
        ] {
            assert!(
                matches!(parse(text.as_bytes()), Err(DifferenceError::Damaged { line: l, .. }) if l == line),
                "{text:?}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "(Package|Status|Version|Conffiles|[: \\n/a-z]){0,40}") {
            let _ = parse(text.as_bytes());
        }
    }
}
