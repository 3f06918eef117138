//! The command line of ps(1), as far as to tell options that choose processes from those that choose what is shown of them: the two are given to
//! different runs of it. Pure.

/// A command line of `ps` in its parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Words {
    /// Which processes.
    pub(super) selection: Vec<String>,
    /// What of them, and in which order.
    pub(super) format: Vec<String>,
    /// Without titles.
    pub(super) headless: bool,
    /// How long lines are was said.
    pub(super) wide: bool,
}

/// What a letter or a word is for, and whether a value follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Selection { value: bool },
    Format { value: bool },
    Headless,
}

use Kind::{Format, Headless, Selection};

/// What a letter is, if it is known.
type Letters = fn(char) -> Option<Kind>;

/// `-e`, as procps-ng 4 has them.
fn unix(letter: char) -> Option<Kind> {
    Some(match letter {
        'A' | 'a' | 'd' | 'e' | 'N' => Selection { value: false },
        'C' | 'G' | 'g' | 'p' | 'q' | 's' | 't' | 'U' | 'u' => Selection { value: true },
        'c' | 'f' | 'F' | 'H' | 'j' | 'l' | 'L' | 'm' | 'M' | 'P' | 'T' | 'w' | 'y' | 'Z' => Format { value: false },
        'o' | 'O' => Format { value: true },
        _ => return None,
    })
}

/// `e`, without a dash.
fn bsd(letter: char) -> Option<Kind> {
    Some(match letter {
        'a' | 'g' | 'r' | 'T' | 'x' => Selection { value: false },
        'p' | 'q' | 't' | 'U' => Selection { value: true },
        'c' | 'e' | 'f' | 'H' | 'j' | 'l' | 'L' | 'm' | 'M' | 'n' | 's' | 'S' | 'u' | 'v' | 'w' | 'X' | 'Z' => {
            Format { value: false }
        }
        'k' | 'o' | 'O' => Format { value: true },
        'h' => Headless,
        _ => return None,
    })
}

/// `--pid`, without the dashes.
fn long(name: &str) -> Option<Kind> {
    Some(match name {
        "deselect" => Selection { value: false },
        "Group" | "User" | "group" | "pid" | "ppid" | "quick-pid" | "sid" | "tty" | "user" => Selection { value: true },
        "context" | "cumulative" | "forest" => Format { value: false },
        "cols" | "columns" | "format" | "lines" | "rows" | "sort" | "width" => Format { value: true },
        "no-heading" | "no-headings" | "no-headers" | "noheader" | "noheaders" | "noheading" | "noheadings" => Headless,
        _ => return None,
    })
}

impl Words {
    /// Takes a command line apart.
    ///
    /// # Errors
    /// The first word that is not known: to which run it would belong is not either.
    pub(super) fn of(words: &[String]) -> Result<Self, String> {
        let mut parts = Self::default();
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            let unknown = || word.clone();
            let mut following = || rest.next().cloned().ok_or_else(unknown);
            if let Some(option) = word.strip_prefix("--") {
                let (name, said) = option.split_once('=').map_or((option, None), |(name, said)| (name, Some(said)));
                let kind = long(name).ok_or_else(unknown)?;
                let value = match (kind, said) {
                    (Selection { value: true } | Format { value: true }, Some(said)) => Some(said.to_owned()),
                    (Selection { value: true } | Format { value: true }, None) => Some(following()?),
                    (_, Some(_)) => return Err(unknown()),
                    (_, None) => None,
                };
                parts.wide |= ["cols", "columns", "width"].contains(&name);
                parts.add(kind, &format!("--{name}"), value);
                continue;
            }
            let (letters, kind_of, dash): (&str, Letters, &str) = match word.strip_prefix('-') {
                Some(letters) => (letters, unix, "-"),
                // Numbers of processes.
                None if word.starts_with(|c: char| c.is_ascii_digit()) => {
                    parts.add(Selection { value: true }, "-p", Some(word.clone()));
                    continue;
                }
                None => (word, bsd, ""),
            };
            if letters.is_empty() {
                return Err(unknown());
            }
            for (at, letter) in letters.char_indices() {
                let kind = kind_of(letter).ok_or_else(unknown)?;
                parts.wide |= letter == 'w';
                let option = format!("{dash}{letter}");
                if matches!(kind, Selection { value: true } | Format { value: true }) {
                    let said = &letters[at + letter.len_utf8()..];
                    let value = if said.is_empty() { following()? } else { said.to_owned() };
                    parts.add(kind, &option, Some(value));
                    break;
                }
                parts.add(kind, &option, None);
            }
        }
        Ok(parts)
    }

    fn add(&mut self, kind: Kind, option: &str, value: Option<String>) {
        let words = match kind {
            Selection { .. } => &mut self.selection,
            Format { .. } => &mut self.format,
            Headless => {
                self.headless = true;
                return;
            }
        };
        words.push(option.to_owned());
        words.extend(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(line: &str) -> Result<(String, String), String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Words::of(&words).map(|parts| (parts.selection.join(" "), parts.format.join(" ")))
    }

    #[test]
    fn what_chooses_processes_is_told_from_what_chooses_columns() {
        for (line, selection, format) in [
            ("", "", ""),
            ("aux", "a x", "u"),
            ("-ef", "-e", "-f"),
            ("-eo pid,comm", "-e", "-o pid,comm"),
            ("-eopid,comm", "-e", "-o pid,comm"),
            ("axo user,pid k -rss", "a x", "o user,pid k -rss"),
            ("-u root -l", "-u root", "-l"),
            ("-C httpd --sort=-rss", "-C httpd", "--sort -rss"),
            ("--pid 1 --forest", "--pid 1", "--forest"),
            ("1 2,3 u", "-p 1 -p 2,3", "u"),
        ] {
            assert_eq!(parts(line), Ok((selection.to_owned(), format.to_owned())), "{line}");
        }
    }

    #[test]
    fn titles_and_width_are_noticed() {
        let of = |words: &[&str]| Words::of(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>()).unwrap();
        assert!(of(&["auxh"]).headless && of(&["-e", "--no-headers"]).headless && !of(&["aux"]).headless);
        assert!(of(&["auxww"]).wide && of(&["--cols", "80"]).wide && !of(&["-ef"]).wide);
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        for bad in ["-Q", "--frobnicate", "-", "a?", "--forest=yes", "-o", "k", "--sort", "--", "-e\u{1b}"] {
            assert_eq!(parts(bad), Err(bad.to_owned()), "{bad:?}");
        }
    }
}
