//! A container's `/var/lib/dpkg/status`, which its root can write: read by us, strictly, and written anew for the host's apt
//! with nothing in it but fields that decide what fits together.

use std::collections::{BTreeMap, BTreeSet};

/// More than any distribution has packages.
const MOST_PACKAGES: usize = 100_000;
/// Bytes of the whole file; a full desktop has 5 MiB.
pub(crate) const MOST_BYTES: usize = 64 << 20;
/// Bytes of one field: the longest `Provides` of Debian has 20 KiB.
const MOST_FIELD: usize = 256 << 10;

/// What apt's resolver looks at.
const FIELDS: [&str; 14] = [
    "Package",
    "Status",
    "Architecture",
    "Multi-Arch",
    "Essential",
    "Priority",
    "Version",
    "Depends",
    "Pre-Depends",
    "Provides",
    "Conflicts",
    "Breaks",
    "Replaces",
    "Source",
];

/// A file that is no dpkg status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("/var/lib/dpkg/status of the container, line {line}: {why}")]
pub struct StatusError {
    line: usize,
    why: &'static str,
}

/// The packages of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Installed {
    packages: Vec<BTreeMap<&'static str, String>>,
}

impl Installed {
    /// Reads the file.
    pub fn parse(bytes: &[u8]) -> Result<Self, StatusError> {
        let mut packages = Vec::new();
        let mut package = BTreeMap::new();
        if bytes.len() > MOST_BYTES {
            return Err(StatusError { line: 0, why: "is larger than 64 MiB" });
        }
        for (at, line) in bytes.split(|b| *b == b'\n').chain([&b""[..]]).enumerate() {
            let bad = |why| StatusError { line: at + 1, why };
            if line.is_empty() {
                if !package.is_empty() {
                    packages.push(checked(std::mem::take(&mut package)).map_err(bad)?);
                }
                if packages.len() > MOST_PACKAGES {
                    return Err(bad("there are more than 100000 packages"));
                }
                continue;
            }
            // Descriptions and lists of files: none of them is looked at.
            if line.starts_with(b" ") || line.starts_with(b"\t") {
                continue;
            }
            let colon = line.iter().position(|b| *b == b':').ok_or_else(|| bad("has no field"))?;
            let Some(field) = FIELDS.iter().find(|f| f.as_bytes() == &line[..colon]) else { continue };
            let value = line[colon + 1..].trim_ascii();
            if value.len() > MOST_FIELD || !value.iter().all(|b| (b' '..=b'~').contains(b)) {
                return Err(bad("has a value that is too long or not printable"));
            }
            if package.insert(*field, String::from_utf8_lossy(value).into_owned()).is_some() {
                return Err(bad("has a field twice"));
            }
        }
        packages.retain(|p| {
            p.get("Status").is_some_and(|s| !s.ends_with(" not-installed") && !s.ends_with(" config-files"))
        });
        Ok(Self { packages })
    }

    /// Whether a package is there, whole or not.
    pub fn has(&self, name: &str) -> bool {
        self.packages.iter().any(|p| p["Package"] == name)
    }

    /// The architecture of the system, in Debian's spelling: that of its package manager.
    pub fn architecture(&self) -> Option<&str> {
        let dpkg = self.packages.iter().find(|p| p["Package"] == "dpkg")?;
        dpkg.get("Architecture").map(String::as_str)
    }

    /// Names and versions of the packages that are installed whole.
    pub fn versions(&self) -> BTreeMap<&str, &str> {
        let whole = self.packages.iter().filter(|p| p["Status"].ends_with(" ok installed"));
        whole.map(|p| (p["Package"].as_str(), p["Version"].as_str())).collect()
    }

    /// The file for apt.
    pub(crate) fn rewritten(&self) -> String {
        let mut text = String::new();
        for package in &self.packages {
            for field in FIELDS {
                if let Some(value) = package.get(field) {
                    text.extend([field, ": ", value, "\n"]);
                }
            }
            text.push('\n');
        }
        text
    }

    /// Those of `came` that nothing else needs: what may go with an application. A package is needed if one that stays depends on
    /// it, or on something it provides, and nothing that stays will do instead.
    pub fn removable(&self, came: &BTreeSet<String>) -> BTreeSet<String> {
        let mut going: BTreeSet<String> = came.iter().filter(|c| self.has(c)).cloned().collect();
        loop {
            let (leaving, staying): (Vec<_>, Vec<_>) =
                self.packages.iter().partition(|p| going.contains(&p["Package"]));
            let there: BTreeSet<&str> = staying.iter().flat_map(|p| answers_to(p)).collect();
            let lists = staying.iter().flat_map(|p| [p.get("Depends"), p.get("Pre-Depends")]).flatten();
            let unmet = lists.flat_map(|list| list.split(',')).filter(|one| !names(one).any(|n| there.contains(n)));
            let needs: BTreeSet<&str> = unmet.flat_map(names).collect();
            let needed = leaving.iter().filter(|p| answers_to(p).any(|n| needs.contains(n)));
            let needed: BTreeSet<String> = needed.map(|p| p["Package"].clone()).collect();
            if needed.is_empty() {
                return going;
            }
            going.retain(|g| !needed.contains(g));
        }
    }
}

/// What a package is in the dependencies of others: its name, and what it provides.
fn answers_to<'a>(package: &'a BTreeMap<&'static str, String>) -> impl Iterator<Item = &'a str> {
    let provides = package.get("Provides").into_iter().flat_map(|list| names(list));
    std::iter::once(package["Package"].as_str()).chain(provides)
}

/// The names in a list of dependencies, without versions and architectures.
fn names(list: &str) -> impl Iterator<Item = &str> {
    list.split([',', '|']).filter_map(|one| one.split_whitespace().next()?.split([':', '(']).next())
}

fn checked(package: BTreeMap<&'static str, String>) -> Result<BTreeMap<&'static str, String>, &'static str> {
    let name = package.get("Package").ok_or("ends a package without a name")?;
    if !is_name(name) {
        return Err("ends a package whose name is none");
    }
    let status = package.get("Status").ok_or("ends a package without a status")?;
    if status.split(' ').count() != 3 || !status.bytes().all(|b| b.is_ascii_lowercase() || b == b' ' || b == b'-') {
        return Err("ends a package whose status is not three words");
    }
    let version = |v: &String| v.bytes().all(|b| b.is_ascii_alphanumeric() || b".+-~:".contains(&b));
    let gone = status.ends_with(" not-installed") || status.ends_with(" config-files");
    if !gone && !package.get("Version").is_some_and(version) {
        return Err("ends a package without a version");
    }
    Ok(package)
}

/// deb-control(5): at least two of these, the first no sign.
pub(crate) fn is_name(name: &str) -> bool {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (2..=200).contains(&name.len())
        && name.bytes().next().is_some_and(good)
        && name.bytes().all(|b| good(b) || b"+-.".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, more: &str) -> String {
        format!(
            "Package: {name}\nStatus: install ok installed\nArchitecture: all\nVersion: 1:2-3\n{more}Description: x\n a line\n .\n\n"
        )
    }

    #[test]
    fn only_fields_that_decide_are_written_anew() {
        let text = package("aa", "Depends: bb (>= 1) | cc\nConffiles:\n /etc/x 123\n") + &package("bb", "");
        let installed = Installed::parse(text.as_bytes()).unwrap();
        let expected = "Package: aa\nStatus: install ok installed\nArchitecture: all\nVersion: 1:2-3\nDepends: bb (>= 1) | cc\n\n\
                        Package: bb\nStatus: install ok installed\nArchitecture: all\nVersion: 1:2-3\n\n";
        assert_eq!(installed.rewritten(), expected);
        assert_eq!(installed.versions()["aa"], "1:2-3");
    }

    #[test]
    fn what_is_no_status_is_refused_with_its_line() {
        let cases = [
            "Package: ../x\nStatus: install ok installed\nVersion: 1\n",
            "Package: aa\nStatus: install ok\nVersion: 1\n",
            "Package: aa\nStatus: install ok installed\nVersion: $(x)\n",
            "Package: aa\nPackage: bb\nStatus: install ok installed\nVersion: 1\n",
            "Package: aa\nStatus: install ok installed\nVersion: 1\nDepends: \u{7f}\n",
            "no field\n",
            "Version: 1\n",
        ];
        for text in cases {
            assert!(Installed::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn what_others_need_stays() {
        let text = package("app", "Depends: lib, data\n")
            + &package("lib", "Depends: deep\n")
            + &package("deep", "")
            + &package("data", "")
            + &package("mail", "Provides: mta\n")
            + &package("other", "Pre-Depends: lib:any (>= 1)\nDepends: x | mta\n");
        let installed = Installed::parse(text.as_bytes()).unwrap();
        let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
        let came = set(&["app", "lib", "deep", "data", "mail", "gone"]);
        assert_eq!(installed.removable(&came), set(&["app", "data"]));
        // gawk came with an application; mawk was there, and will do.
        let text = package("base", "Pre-Depends: awk\n")
            + &package("mawk", "Provides: awk\n")
            + &package("gawk", "Provides: awk\n");
        let installed = Installed::parse(text.as_bytes()).unwrap();
        assert_eq!(installed.removable(&set(&["gawk"])), set(&["gawk"]));
        assert_eq!(installed.removable(&set(&["gawk", "mawk"])), set(&[]), "one has to stay");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_fall_over_and_what_is_written_reads_the_same(bytes in "(Package: [a-z]{2}\n|Status: install ok installed\n|Version: 1\n|\n| x\n|[A-Z]: \\PC\n){0,12}") {
            if let Ok(installed) = Installed::parse(bytes.as_bytes()) {
                proptest::prop_assert_eq!(Installed::parse(installed.rewritten().as_bytes()).unwrap(), installed);
            }
        }
    }
}
