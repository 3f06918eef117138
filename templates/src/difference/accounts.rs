//! Users and groups: `/etc/passwd` and `/etc/group`, as passwd(5) and group(5) have them.

use std::collections::BTreeMap;

use serde::Serialize;

use super::DifferenceError;

/// A line of `/etc/passwd` or `/etc/group`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Account {
    /// The name.
    pub name: String,
    /// Of the user or of the group.
    pub id: u32,
    /// The whole line; of a group without its members.
    pub line: String,
    /// Those of a group.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
}

/// A file of accounts: which one, and how many fields its lines have. The third is the number in both.
pub(super) struct Format {
    pub(super) path: &'static str,
    fields: usize,
}

pub(super) const USERS: Format = Format { path: "etc/passwd", fields: 7 };
pub(super) const GROUPS: Format = Format { path: "etc/group", fields: 4 };

/// Names and numbers, strictly: nothing of what is damaged is guessed.
pub(super) fn parse(format: &Format, text: &[u8]) -> Result<BTreeMap<String, Account>, DifferenceError> {
    let mut accounts = BTreeMap::new();
    for (number, line) in text.split(|&b| b == b'\n').enumerate() {
        let damaged =
            |reason: &str| DifferenceError::Damaged { path: format.path, line: number + 1, reason: reason.to_owned() };
        // Blank lines and the `+` of NIS name nobody.
        if line.is_empty() || line.starts_with(b"+") || line.starts_with(b"-") {
            continue;
        }
        let line = std::str::from_utf8(line).map_err(|_| damaged("is not UTF-8"))?;
        let fields: Vec<&str> = line.split(':').collect();
        if fields.len() != format.fields {
            return Err(damaged(&format!("{} fields with a colon between them are expected", format.fields)));
        }
        let name = fields[0];
        if line.contains(char::is_control) {
            return Err(damaged("a control character"));
        }
        if name.is_empty() || name.len() > 255 || name.chars().any(|c| c.is_whitespace() || c == '/') {
            return Err(damaged("a name without blanks is expected"));
        }
        let digits = !fields[2].is_empty() && fields[2].bytes().all(|b| b.is_ascii_digit());
        let id = fields[2].parse().ok().filter(|id| digits && *id <= 65535);
        let id = id.ok_or_else(|| damaged("a number from 0 to 65535 is expected as the third field"))?;
        let list = if format.fields == GROUPS.fields { fields[3] } else { "" };
        let members = list.split(',').filter(|member| !member.is_empty()).map(String::from).collect();
        let line = line[..line.len() - list.len()].to_owned();
        let account = Account { name: name.to_owned(), id, line, members };
        if accounts.insert(name.to_owned(), account).is_some() {
            return Err(damaged("the name is there already"));
        }
    }
    Ok(accounts)
}

/// Those that are in the second and not in the first.
pub(super) fn added(before: &BTreeMap<String, Account>, after: &BTreeMap<String, Account>) -> Vec<Account> {
    let new = after.iter().filter(|(name, _)| !before.contains_key(*name));
    new.map(|(_, account)| account.clone()).collect()
}

/// Who is a member after and was not before, as `GROUP:USER`.
pub(super) fn joined(before: &BTreeMap<String, Account>, after: &BTreeMap<String, Account>) -> Vec<String> {
    let was = |group: &str, user: &String| before.get(group).is_some_and(|group| group.members.contains(user));
    let all = after.values().flat_map(|group| group.members.iter().map(move |user| (&group.name, user)));
    all.filter(|(group, user)| !was(group, user)).map(|(group, user)| format!("{group}:{user}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_that_were_not_there_are_added() {
        let before = parse(&USERS, b"root:x:0:0:root:/root:/bin/sh\n").unwrap();
        let after =
            parse(&USERS, b"root:x:0:0::/:/bin/sh\nredis:x:105:110::/var/lib/redis:/usr/sbin/nologin\n").unwrap();
        let line = "redis:x:105:110::/var/lib/redis:/usr/sbin/nologin".to_owned();
        assert_eq!(added(&before, &after), [Account { name: "redis".into(), id: 105, line, members: Vec::new() }]);
        assert_eq!(added(&after, &before), []);
        let groups = parse(&GROUPS, b"staff:x:50:root,me\n").unwrap();
        assert_eq!(groups["staff"].line, "staff:x:50:");
        let fewer = parse(&GROUPS, b"staff:x:50:me\n").unwrap();
        assert_eq!(joined(&fewer, &groups), ["staff:root"]);
        assert_eq!(joined(&groups, &fewer), [""; 0]);
    }

    #[test]
    fn what_is_no_line_of_the_file_is_refused_with_its_number() {
        for text in [
            "a:x:1\n",
            ":x:1:\n",
            "a b:x:1:\n",
            "a:x:+1:\n",
            "a:x:65536:\n",
            "a:x::\n",
            "a:x:1:\u{1b}:\n",
            "a:x:1:\na:x:2:\n",
        ] {
            assert!(matches!(parse(&GROUPS, text.as_bytes()), Err(DifferenceError::Damaged { .. })), "{text:?}");
        }
        let damaged = parse(&GROUPS, b"a:x:1:\n\nb\n").unwrap_err().to_string();
        assert_eq!(damaged, "/etc/group, line 3: 4 fields with a colon between them are expected");
    }
}
