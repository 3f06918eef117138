//! `{name}` in texts. Only a lower case name right between braces is one: blocks of nginx, JSON and PHP stay as they are.

use super::Values;

pub(super) fn is_name(text: &str) -> bool {
    text.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// The names between braces, in order.
pub(super) fn names(text: &str) -> impl Iterator<Item = &str> {
    pieces(text).filter_map(|p| match p {
        Piece::Name(name) => Some(name),
        Piece::Text(_) => None,
    })
}

/// The text with the values in place. Names are checked when a template is read, so each has one.
pub fn fill(text: &str, values: &Values) -> String {
    pieces(text)
        .map(|piece| match piece {
            Piece::Text(text) => text.to_owned(),
            Piece::Name(name) => values.get(name).map_or_else(|| format!("{{{name}}}"), |v| (*v).clone()),
        })
        .collect()
}

enum Piece<'a> {
    Text(&'a str),
    Name(&'a str),
}

fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        if let Some(after) = rest.strip_prefix('{')
            && let Some((name, more)) = after.split_once('}')
            && is_name(name)
        {
            rest = more;
            return Some(Piece::Name(name));
        }
        // To the next brace after the first character, which was none of a name's.
        let first = rest.chars().next().map_or(1, char::len_utf8);
        let end = rest[first..].find('{').map_or(rest.len(), |at| at + first);
        let (text, more) = rest.split_at(end);
        rest = more;
        Some(Piece::Text(text))
    })
}
