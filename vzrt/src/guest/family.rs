//! Which distribution a tree is of, by what it says of itself and by what it has.

use super::error::Error;
use super::hostname::HostnameStyle;
use super::root::Root;

/// More names than `os-release` has reason to give.
const MAX_NAMES: usize = 8;

/// What a tree calls itself in `os-release` (os-release(5)): `ID`, then `ID_LIKE`, the nearest relative first. Only plain names are given: what can be part of
/// a path, or of a line, is left out.
///
/// # Errors
/// The file is no file, or larger than any such file has reason to be.
pub fn distributions(root: &Root) -> Result<Vec<String>, Error> {
    for path in ["/etc/os-release", "/usr/lib/os-release"] {
        if let Some(text) = root.read_through(path)? {
            return Ok(parse_os_release(&String::from_utf8_lossy(&text)));
        }
    }
    Ok(Vec::new())
}

/// The names in the text of an `os-release`. Of a variable that is set twice the last counts, as in a shell.
pub(super) fn parse_os_release(text: &str) -> Vec<String> {
    let value = |key: &str| {
        let assigned = |line: &'_ str| line.trim().strip_prefix(key)?.strip_prefix('=').map(str::to_owned);
        text.lines().filter_map(assigned).next_back().unwrap_or_default()
    };
    let values = [value("ID"), value("ID_LIKE")];
    let words = values.iter().flat_map(|value| value.trim_matches(['"', '\'']).split_ascii_whitespace());
    let is_plain = |word: &&str| {
        let is_of_names = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        word.len() <= 64 && word.bytes().all(is_of_names) && !word.starts_with('.')
    };
    words.filter(is_plain).take(MAX_NAMES).map(str::to_owned).collect()
}

/// Where a distribution without a file of its own keeps its host name.
///
/// # Errors
/// As [`distributions`].
pub(super) fn hostname_style(root: &Root) -> Result<HostnameStyle, Error> {
    let any = |paths: &[&str]| paths.iter().any(|path| root.has_file(path));
    // It reads nothing else, whoever made the distribution.
    if any(&["/usr/lib/systemd/systemd", "/lib/systemd/systemd"]) {
        return Ok(HostnameStyle::EtcHostname);
    }
    let names = distributions(root)?;
    let is = |name: &str| names.iter().any(|n| n == name);
    Ok(match () {
        () if is("gentoo") || is("funtoo") || any(&["/etc/gentoo-release"]) => HostnameStyle::ConfdHostname,
        () if is("slackware") || any(&["/etc/slackware-version", "/etc/SuSE-release"]) => {
            HostnameStyle::EtcHostnameUpper
        }
        () if any(&["/etc/redhat-release"]) => HostnameStyle::SysconfigNetwork,
        () => HostnameStyle::EtcHostname,
    })
}
