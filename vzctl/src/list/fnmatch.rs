//! Patterns as fnmatch(3) takes them, without flags: `*` and `?` match slashes and leading dots too.

/// Whether the whole text matches. Time grows with pattern times text at most: there is one place to go back to, the last `*`.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p + 1, t));
            p += 1;
        } else if let Some(next) = one(&pattern, p, text[t]) {
            (p, t) = (next, t + 1);
        } else if let Some((after, from)) = star {
            star = Some((after, from + 1));
            (p, t) = (after, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Matches one character at `p`; the place after the matched part of the pattern.
fn one(pattern: &[char], p: usize, c: char) -> Option<usize> {
    match *pattern.get(p)? {
        '?' => Some(p + 1),
        '\\' => match pattern.get(p + 1) {
            Some(escaped) => (*escaped == c).then_some(p + 2),
            None => None,
        },
        '[' => match bracket(pattern, p + 1) {
            Some((set, next)) => set.contains(c).then_some(next),
            // Not closed: an ordinary character.
            None => (c == '[').then_some(p + 1),
        },
        literal => (literal == c).then_some(p + 1),
    }
}

type Class = fn(char) -> bool;

#[derive(Default)]
struct Set {
    negated: bool,
    ranges: Vec<(char, char)>,
    classes: Vec<Class>,
}

impl Set {
    fn contains(&self, c: char) -> bool {
        let found =
            self.ranges.iter().any(|(a, b)| (*a..=*b).contains(&c)) || self.classes.iter().any(|class| class(c));
        found != self.negated
    }
}

/// A bracket expression from behind its `[`; the place behind its `]`.
fn bracket(pattern: &[char], start: usize) -> Option<(Set, usize)> {
    let mut set = Set::default();
    let mut p = start;
    if matches!(pattern.get(p), Some('!' | '^')) {
        set.negated = true;
        p += 1;
    }
    let first = p;
    loop {
        let c = *pattern.get(p)?;
        if c == ']' && p > first {
            return Some((set, p + 1));
        }
        if let Some((class, next)) = class_at(pattern, p) {
            set.classes.push(class);
            p = next;
            continue;
        }
        let (low, next) = member(pattern, p)?;
        match (pattern.get(next), pattern.get(next + 1)) {
            (Some('-'), Some(end)) if *end != ']' => {
                let (high, after) = member(pattern, next + 1)?;
                set.ranges.push((low, high));
                p = after;
            }
            _ => {
                set.ranges.push((low, low));
                p = next;
            }
        }
    }
}

fn member(pattern: &[char], p: usize) -> Option<(char, usize)> {
    match *pattern.get(p)? {
        '\\' => Some((*pattern.get(p + 1)?, p + 2)),
        c => Some((c, p + 1)),
    }
}

fn class_at(pattern: &[char], p: usize) -> Option<(Class, usize)> {
    let rest = pattern.get(p..)?.strip_prefix(&['[', ':'])?;
    let end = rest.windows(2).position(|w| w == [':', ']'])?;
    let class: Class = match rest[..end].iter().collect::<String>().as_str() {
        "alpha" => char::is_alphabetic,
        "digit" => |c| c.is_ascii_digit(),
        "alnum" => char::is_alphanumeric,
        "upper" => char::is_uppercase,
        "lower" => char::is_lowercase,
        "space" => char::is_whitespace,
        "punct" => |c| c.is_ascii_punctuation(),
        "xdigit" => |c| c.is_ascii_hexdigit(),
        _ => return None,
    };
    Some((class, p + 2 + end + 2))
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;

    use super::matches;

    #[test]
    fn the_shapes_of_patterns() {
        for (pattern, text) in [
            ("web*", "web1.example.com"),
            ("*.example.com", "a.b.example.com"),
            ("*", ""),
            ("**a**", "a"),
            ("w?b[0-9]", "web1"),
            ("[!a]eb", "web"),
            ("[]x]", "]"),
            ("[a-]", "-"),
            ("[[:digit:]x]", "7"),
            ("\\*", "*"),
            ("[", "["),
            ("*/x", "a/b/x"),
            ("*ab*ab*c", "abababc"),
            ("m?ller", "müller"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("web", "web1"),
            ("web1", "web"),
            ("[!w]eb", "web"),
            ("?", ""),
            ("", "a"),
            ("a*b", "ac"),
            ("\\a", "b"),
            ("[a-c]", "d"),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn a_hostile_pattern_costs_no_more_than_its_length_times_the_texts() {
        assert!(!matches(&"*a".repeat(60), &("a".repeat(59) + &"b".repeat(4000))));
    }

    #[test]
    fn the_shell_agrees() {
        let patterns = ["*", "a*", "*b", "a?c", "[a-c]*", "[!a]*", "*[0-9]", "a\\*c", "[]a]b", "**", "?*?"];
        let texts = ["", "a", "ab", "abc", "a*c", "b1", "]b", "ab9", "-"];
        for pattern in patterns {
            for text in texts {
                let script = format!("case \"$0\" in {pattern}) exit 0;; esac; exit 1");
                let args = ["-c", &script, text].map(|a| CString::new(a).unwrap().into_string().unwrap());
                let said = std::process::Command::new("sh").args(args).status().unwrap().success();
                assert_eq!(matches(pattern, text), said, "{pattern} {text:?}");
            }
        }
    }
}
