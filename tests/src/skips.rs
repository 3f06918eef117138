//! Tests that cannot run here say so in one form, and only those known to may.

use std::path::Path;
use std::{fmt, io};

const MARK: &str = "skipped: ";

/// Says that a test cannot run here and why: `skipped: <name>: <reason>`. The test returns right after.
///
/// ```no_run
/// # fn not_root() -> bool { true }
/// if not_root() {
///     return tests::skips::skip("a_container_starts", "needs root");
/// }
/// ```
pub fn skip(name: &str, reason: &str) {
    eprintln!("{MARK}{name}: {reason}");
}

/// A test that did not run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Skip {
    /// Of the test.
    pub name: String,
    /// What is missing.
    pub reason: String,
}

impl Skip {
    /// The same, named with the program it was in, as known skips are.
    #[must_use]
    pub fn of(self, program: &str) -> Self {
        Self { name: format!("{program}::{}", self.name), ..self }
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MARK}{}: {}", self.name, self.reason)
    }
}

/// The skip on one line of a test program's output, which may begin with libtest's own `test NAME ... `.
pub fn parse(line: &str) -> Option<Skip> {
    let at = line.find(MARK)?;
    let before = &line[..at];
    if !(before.is_empty() || before.starts_with("test ") && before.ends_with(" ... ")) {
        return None;
    }
    let (name, reason) = line[at + MARK.len()..].split_once(": ")?;
    Some(Skip { name: name.to_owned(), reason: reason.trim_end().to_owned() })
}

/// The tests that are known not to run on one kind of host: a file of `crate::program::test: reason` lines, where a
/// `*` at the end of the name stands for all tests of a program.
#[derive(Debug, Default)]
pub struct Known(Vec<String>);

impl Known {
    /// Reads `tests/reference/known-skips/<host>`.
    ///
    /// # Errors
    /// The file cannot be read: a kind of host nobody has listed yet.
    pub fn read(host: &str) -> io::Result<Self> {
        let path = crate::checkout().join("tests/reference/known-skips").join(host);
        Ok(Self::parse(&fs_err::read_to_string(Path::new(&path))?))
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(lines.filter_map(|line| line.split_once(": ")).map(|(name, _)| name.to_owned()).collect())
    }

    fn covers(&self, name: &str) -> bool {
        self.0.iter().any(|known| known.strip_suffix('*').map_or(known == name, |start| name.starts_with(start)))
    }

    /// Those that nobody has accounted for: they fail the run.
    pub fn unexpected<'a>(&self, skips: &'a [Skip]) -> Vec<&'a Skip> {
        skips.iter().filter(|skip| !self.covers(&skip.name)).collect()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that fails here has failed")]
mod tests {
    use super::*;

    #[test]
    fn a_skip_is_found_with_and_without_libtests_prefix() {
        let skip = Skip { name: "quota::holds".into(), reason: "no ext4 quota: kernel".into() };
        assert_eq!(parse("skipped: quota::holds: no ext4 quota: kernel"), Some(skip.clone()));
        assert_eq!(parse("test project ... skipped: quota::holds: no ext4 quota: kernel"), Some(skip));
        assert_eq!(parse("the steps skipped: two: three"), None);
    }

    #[test]
    fn a_skip_that_is_not_listed_is_unexpected() {
        let known = Known::parse("# comment\na::b::known: reason\nall::*: reason\n");
        let skip = |program: &str, line: &str| parse(line).unwrap().of(program);
        let skips =
            [skip("a::b", "skipped: known: x"), skip("a::c", "skipped: known: x"), skip("all", "skipped: any: x")];
        assert_eq!(known.unexpected(&skips), [&skips[1]]);
    }
}
