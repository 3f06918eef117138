//! Where this host's apt gets Debian from: `sources.list(5)`, both formats, read for their Debian mirrors.

use std::path::Path;

use fs_err as fs;

/// One archive with one suite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) uri: String,
    pub(crate) suite: String,
    components: Vec<String>,
    /// Path of a keyring; a key inside the file or a fingerprint is not kept.
    pub(crate) signed_by: Option<String>,
}

/// The Debian archive and its security archive as this host reaches them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mirrors {
    pub(crate) main: Source,
    /// Absent where the host has none configured.
    pub(crate) updates: Option<Source>,
    pub(crate) security: Option<Source>,
}

impl Mirrors {
    /// Lines for `sources.list`, for another suite of the same mirrors.
    pub(crate) fn lines(&self, suite: &str, components: &[String]) -> Vec<String> {
        let main = line(&self.main, suite, components);
        let updates = self.updates.as_ref().map(|s| line(s, &format!("{suite}-updates"), components));
        let security = self.security.as_ref().map(|s| line(s, &format!("{suite}-security"), components));
        [Some(main), updates, security].into_iter().flatten().collect()
    }
}

fn line(source: &Source, suite: &str, components: &[String]) -> String {
    let options = source.signed_by.as_ref().map_or(String::new(), |k| format!("[signed-by={k}] "));
    format!("deb {options}{} {suite} {}", source.uri, components.join(" "))
}

/// Everything in `<apt>/sources.list`, `sources.list.d/*.list` and `*.sources`, files in the order apt reads them.
pub(crate) fn read_host(apt: &Path) -> std::io::Result<Vec<Source>> {
    let mut files = vec![apt.join("sources.list")];
    if let Ok(entries) = fs::read_dir(apt.join("sources.list.d")) {
        let mut parts = entries.map(|e| Ok(e?.path())).collect::<std::io::Result<Vec<_>>>()?;
        parts.sort();
        files.extend(parts);
    }
    let mut sources = Vec::new();
    for file in files {
        let extension = file.extension().and_then(|e| e.to_str());
        let parse: fn(&str) -> Vec<Source> = match extension {
            Some("list") => one_line_style,
            Some("sources") => deb822_style,
            _ => continue,
        };
        match fs::read_to_string(&file) {
            Ok(text) => sources.extend(parse(&text)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(sources)
}

/// The mirrors of Debian among `sources`. Other archives may have a suite of the same name; Debian's is the one that
/// has `<suite>-updates` at the same address, or Debian's own keyring, or an address that ends in `/debian`.
pub(crate) fn debian(sources: &[Source]) -> Option<Mirrors> {
    let has_main = |s: &&Source| s.components.iter().any(|c| c == "main");
    let base = |s: &&Source| !s.suite.contains(['-', '/']) && has_main(s);
    let twin = |s: &Source| sources.iter().find(|o| o.uri == s.uri && o.suite == format!("{}-updates", s.suite));
    let keyring = |s: &Source| s.signed_by.as_ref().is_some_and(|k| k.contains("debian-archive"));
    let address = |s: &Source| s.uri.trim_end_matches('/').ends_with("/debian");
    let main = (sources.iter().filter(base))
        .max_by_key(|s| (twin(s).is_some(), keyring(s), address(s)))
        .filter(|s| twin(s).is_some() || keyring(s) || address(s))?;
    let security = sources.iter().filter(has_main).find(|s| s.suite == format!("{}-security", main.suite));
    Some(Mirrors { main: main.clone(), updates: twin(main).cloned(), security: security.cloned() })
}

fn one_line_style(text: &str) -> Vec<Source> {
    text.lines().filter_map(one_line).collect()
}

/// `deb [ option=value … ] uri suite component…`
fn one_line(line: &str) -> Option<Source> {
    let line = line.split('#').next().unwrap_or_default();
    let rest = line.trim().strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let signed_by = options.split_whitespace().find_map(|o| o.strip_prefix("signed-by=")).and_then(keyring_path);
    let mut words = rest.split_whitespace().map(String::from);
    let source = Source { uri: words.next()?, suite: words.next()?, components: words.collect(), signed_by };
    usable(&source.uri).then_some(source)
}

/// Paragraphs of `Field: value`, continued by lines that start with a space.
fn deb822_style(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            sources.extend(paragraph(&fields));
            fields.clear();
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((field, value)) = line.split_once(':') {
            fields.push((field.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    sources
}

fn paragraph(fields: &[(String, String)]) -> Vec<Source> {
    let get = |name: &str| fields.iter().find(|(f, _)| f == name).map_or("", |(_, v)| v.as_str());
    let words = |name: &str| get(name).split_whitespace().map(String::from).collect::<Vec<_>>();
    if get("enabled").eq_ignore_ascii_case("no") || !words("types").iter().any(|t| t == "deb") {
        return Vec::new();
    }
    let signed_by = keyring_path(get("signed-by"));
    let uris = words("uris").into_iter().filter(|u| usable(u));
    let with_suites = |uri: String| {
        let (components, signed_by) = (words("components"), signed_by.clone());
        words("suites").into_iter().map(move |suite| Source {
            uri: uri.clone(),
            suite,
            components: components.clone(),
            signed_by: signed_by.clone(),
        })
    };
    uris.flat_map(with_suites).collect()
}

fn keyring_path(value: &str) -> Option<String> {
    (value.starts_with('/') && !value.contains(char::is_whitespace)).then(|| value.to_owned())
}

/// A CD is not there when a template is made, and a copy of a directory not in the container.
fn usable(uri: &str) -> bool {
    ["http://", "https://", "mirror+http", "tor+http", "file:/"].iter().any(|scheme| uri.starts_with(scheme))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEB822: &str = "\
Types: deb deb-src
# a remark
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
 contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: sid
Components: main
";
    const LINES: &str = "\
deb [arch=amd64 signed-by=/usr/share/keyrings/other.gpg] https://other.example/apt bookworm main
deb http://mirror.example/debian/ bookworm main # remark
#deb http://no.example/debian bookworm main
deb-src http://mirror.example/debian bookworm main
deb cdrom:[Debian] bookworm main
debian http://x.example/debian bookworm main
";

    #[test]
    fn the_mirrors_of_deb822_files_are_found_with_their_keyring() {
        let mirrors = debian(&deb822_style(DEB822)).unwrap();
        let lines = mirrors.lines("trixie", &[String::from("main")]);
        let key = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ";
        assert_eq!(
            lines,
            [
                format!("deb {key}http://mirror.example/debian trixie main"),
                format!("deb {key}http://mirror.example/debian trixie-updates main"),
                String::from("deb http://mirror.example/debian-security trixie-security main"),
            ]
        );
    }

    #[test]
    fn other_archives_with_the_same_suite_are_not_taken_for_debian() {
        let sources = one_line_style(LINES);
        assert_eq!(sources.len(), 2);
        let mirrors = debian(&sources).unwrap();
        assert_eq!(mirrors.main.uri, "http://mirror.example/debian/");
        assert_eq!((mirrors.updates, mirrors.security), (None, None));
        assert_eq!(debian(&sources[..1]), None);
    }

    #[test]
    fn a_host_without_apt_has_no_mirrors() {
        assert_eq!(read_host(Path::new("/nonexistent")).unwrap(), []);
    }
}
