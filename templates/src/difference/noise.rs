//! What an installation leaves behind that no other container should get: one table, with a reason for each.
//!
//! A pattern is a path inside, without a slash in front. `*` and `?` stand for characters of one component, `**` for anything. A pattern that
//! matches a directory matches all below it.

use super::Kind;

/// One line of the table.
struct Rule {
    pattern: &'static str,
    why: &'static str,
    /// Directories are kept: programs expect them, and their owner is the package's choice.
    keeps_directories: bool,
}

const fn all(pattern: &'static str, why: &'static str) -> Rule {
    Rule { pattern, why, keeps_directories: false }
}

const fn files(pattern: &'static str, why: &'static str) -> Rule {
    Rule { pattern, why, keeps_directories: true }
}

const TEMPORARY: &str = "temporary";
const RUNTIME: &str = "made anew at each start";
const LOG: &str = "a log";
const CACHE: &str = "a cache";
const BACKUP: &str = "a backup of what was before";
const IDENTITY: &str = "each system has its own";
const SETTING: &str = "a setting of the container's, written by the runtime";
const HISTORY: &str = "what somebody typed";
const LOCK: &str = "a lock";
const STATE: &str = "tells when something ran last";

/// The first that matches counts.
const RULES: &[Rule] = &[
    all("tmp/*", TEMPORARY),
    all("var/tmp/*", TEMPORARY),
    all("run/*", RUNTIME),
    all("dev/*", RUNTIME),
    all("proc/*", RUNTIME),
    all("sys/*", RUNTIME),
    files("var/log/**", LOG),
    all("var/lib/apt/lists/*", CACHE),
    files("var/cache/**", CACHE),
    all("**/__pycache__", CACHE),
    all("root/.cache", CACHE),
    all("home/*/.cache", CACHE),
    all("var/lib/dpkg/*-old", BACKUP),
    all("var/backups/*", BACKUP),
    all("etc/passwd-", BACKUP),
    all("etc/group-", BACKUP),
    all("etc/shadow-", BACKUP),
    all("etc/gshadow-", BACKUP),
    all("etc/subuid-", BACKUP),
    all("etc/subgid-", BACKUP),
    all("etc/machine-id", IDENTITY),
    all("var/lib/dbus/machine-id", IDENTITY),
    all("etc/ssh/ssh_host_*", IDENTITY),
    files("etc/ssl/private/**", IDENTITY),
    all("var/lib/systemd/random-seed", IDENTITY),
    all("var/lib/systemd/credential.secret", IDENTITY),
    all("var/lib/urandom/random-seed", IDENTITY),
    all("var/lib/dhcp/*", IDENTITY),
    all("etc/hostname", SETTING),
    all("etc/hosts", SETTING),
    all("etc/mailname", SETTING),
    all("etc/resolv.conf", SETTING),
    all("etc/network/interfaces", SETTING),
    all("root/.*_history", HISTORY),
    all("home/*/.*_history", HISTORY),
    all("root/.lesshst", HISTORY),
    all("root/.viminfo", HISTORY),
    all("root/.wget-hsts", HISTORY),
    all("etc/.pwd.lock", LOCK),
    all("var/lib/dpkg/lock*", LOCK),
    all("var/lib/dpkg/triggers/Lock", LOCK),
    all("var/lib/apt/daily_lock", LOCK),
    all("etc/.updated", STATE),
    all("var/.updated", STATE),
    all("var/lib/apt/periodic/*", STATE),
    all("var/lib/logrotate/status", STATE),
    all("var/lib/systemd/timers/*", STATE),
    all("lost+found", RUNTIME),
];

/// Why a path should be left out; `None` if it should not.
pub fn reason(path: &[u8], kind: Kind) -> Option<&'static str> {
    if kind == Kind::Special {
        return Some("a socket or a device");
    }
    let fits = |rule: &&Rule| !(rule.keeps_directories && kind == Kind::Directory) && matches(rule.pattern, path);
    RULES.iter().find(fits).map(|rule| rule.why)
}

/// Whether a pattern matches a path or a directory above it. A slash in front of either means nothing.
pub fn matches(pattern: &str, path: &[u8]) -> bool {
    let pattern = pattern.trim_start_matches('/').trim_end_matches('/').as_bytes();
    let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
    !pattern.is_empty() && ends.chain([path.len()]).any(|end| fits(pattern, &path[..end]))
}

/// Without recursion but for `**`, and each `*` goes back to itself only: the time is bounded by the product of both lengths for each `**`.
fn fits(pattern: &[u8], path: &[u8]) -> bool {
    let (mut p, mut s) = (0, 0);
    // Where the last star was, and how much it took; and the same of the last double star.
    let mut star: Option<(usize, usize)> = None;
    let mut stars = star;
    loop {
        if pattern[p..].starts_with(b"**") {
            p += 2;
            (stars, star) = (Some((p, s)), None);
            continue;
        }
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            star = Some((p, s));
            continue;
        }
        if p == pattern.len() && s == path.len() {
            return true;
        }
        let here = path.get(s);
        if here.is_some_and(|&c| pattern.get(p).is_some_and(|&w| w == c || w == b'?' && c != b'/')) {
            (p, s) = (p + 1, s + 1);
            continue;
        }
        match (star, stars) {
            (Some((after, taken)), _) if path.get(taken).is_some_and(|&c| c != b'/') => {
                star = Some((after, taken + 1));
                (p, s) = (after, taken + 1);
            }
            (_, Some((after, taken))) if taken < path.len() => {
                (stars, star) = (Some((after, taken + 1)), None);
                (p, s) = (after, taken + 1);
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stay_within_a_component_unless_they_say_otherwise() {
        for (pattern, path, expected) in [
            ("tmp/*", "tmp/a", true),
            ("tmp/*", "tmp/a/b", true),
            ("tmp/*", "tmp", false),
            ("/etc/*.conf", "etc/a.conf", true),
            ("etc/*.conf", "etc/a/b.conf", false),
            ("etc/**.conf", "etc/a/b.conf", true),
            ("**/__pycache__", "usr/lib/__pycache__/a.pyc", true),
            ("etc/?", "etc/ab", false),
            ("etc", "etcetera", false),
            ("", "a", false),
            ("*", "a/b", true),
            ("a*b*c", "aXbYbZc", true),
        ] {
            assert_eq!(matches(pattern, path.as_bytes()), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn every_rule_has_a_path_of_its_own_that_it_is_for() {
        for rule in RULES {
            let example = rule.pattern.replace("**", "x").replace('*', "y");
            assert_eq!(reason(example.as_bytes(), Kind::File), Some(rule.why), "{example}");
        }
    }

    #[test]
    fn what_programs_need_is_kept_and_what_they_wrote_is_not() {
        assert_eq!(reason(b"var/log/nginx", Kind::Directory), None);
        assert_eq!(reason(b"var/log/nginx/access.log", Kind::File), Some(LOG));
        assert_eq!(reason(b"etc/nginx/nginx.conf", Kind::File), None);
        assert_eq!(reason(b"var/lib/x/socket", Kind::Special), Some("a socket or a device"));
    }

    proptest::proptest! {
        #[test]
        fn a_path_without_wildcards_matches_itself_and_what_is_below_and_nothing_beside(path in "[a-z]{1,4}(/[a-z]{1,4}){0,3}") {
            let (below, beside) = (format!("{path}/x"), format!("{path}x"));
            let found = [path.as_str(), &below, &beside].map(|other| matches(&path, other.as_bytes()));
            proptest::prop_assert_eq!(found, [true, true, false]);
            proptest::prop_assert!(matches("**", path.as_bytes()));
        }
    }
}
