//! The name of a template: part of paths, and of command lines of programs, so it is checked once, here.

use std::fmt;
use std::str::FromStr;

/// A name such as `debian-12-x86_64`: one path component of `A-Z a-z 0-9 . _ + -` that starts with neither `-` (it
/// would be an option) nor `.`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TemplateName(String);

/// A name that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("template name {}: {why}", .name.escape_debug())]
pub struct NameError {
    name: String,
    why: &'static str,
}

/// The file name `<name>.tar.zst` and the tree `<name>@<digest>` must fit into the 255 bytes of a file name.
const MAX_LEN: usize = 200;

impl FromStr for TemplateName {
    type Err = NameError;

    fn from_str(s: &str) -> Result<Self, NameError> {
        let bad = |why| Err(NameError { name: s.chars().take(MAX_LEN).collect(), why });
        // EZ templates are named `.centos-6-x86_64` in OSTEMPLATE; vzctl strips the dot before it looks.
        let name = s.strip_prefix('.').unwrap_or(s);
        if name.is_empty() {
            return bad("is empty");
        }
        if name.len() > MAX_LEN {
            return bad("is longer than 200 characters");
        }
        if name.starts_with(['-', '.']) {
            return bad("may not start with '-' or '.'");
        }
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b)) {
            return bad("may hold only letters, digits and . _ + -");
        }
        Ok(Self(name.to_owned()))
    }
}

impl TemplateName {
    /// The name without the leading dot that it may have been given with.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TemplateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_real_templates_are_taken_and_the_dot_of_ez_names_is_stripped() {
        for name in ["debian-12-x86_64", "centos-6-x86_64-minimal", "suse-13.1-x86", "a+b_c.d"] {
            assert_eq!(name.parse::<TemplateName>().unwrap().as_str(), name);
        }
        assert_eq!(".centos-6-x86_64".parse::<TemplateName>().unwrap().as_str(), "centos-6-x86_64");
    }

    #[test]
    fn names_that_are_paths_options_or_shell_are_refused() {
        let long = "a".repeat(201);
        let bad = [
            "", ".", "..", "...a", "-I touch", "--x", ".-x", "a/b", "/a", "../a", "a b", "a\n", "a\0", "a;b", "$a",
            "ä", "a@b",
        ];
        for name in bad.into_iter().chain([long.as_str()]) {
            assert!(name.parse::<TemplateName>().is_err(), "{name:?} was accepted");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_name_that_is_taken_is_always_one_harmless_component(s in "\\PC{0,12}") {
            if let Ok(name) = s.parse::<TemplateName>() {
                let parts: Vec<_> = std::path::Path::new(name.as_str()).components().collect();
                proptest::prop_assert!(matches!(parts[..], [std::path::Component::Normal(p)] if p == name.as_str()));
            }
        }
    }
}
