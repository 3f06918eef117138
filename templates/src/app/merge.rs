//! What of a captured application goes into files that a container has of its own: users and groups, dpkg's list of packages. Texts and
//! decisions only; who reads and writes the files is elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Captured;
use crate::unpack::over::Ids;

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
const SHADOW: &str = "/etc/shadow";
const GSHADOW: &str = "/etc/gshadow";
const SUBIDS: [&str; 2] = ["/etc/subuid", "/etc/subgid"];
const STATUS: &str = "/var/lib/dpkg/status";
const STATES: &str = "/var/lib/apt/extended_states";
/// Of these dpkg reads each line by itself.
const OF_LINES: [&str; 2] = ["/var/lib/dpkg/triggers/File", "/var/lib/dpkg/statoverride"];

/// Files that are merged: read in the container, and never replaced by an archive's.
pub const MERGED: [&str; 10] =
    [PASSWD, GROUP, SHADOW, GSHADOW, SUBIDS[0], SUBIDS[1], STATUS, STATES, OF_LINES[0], OF_LINES[1]];

/// useradd(8) gives these to users of programs, from the last down; those of people begin after.
const LAST_OF_SYSTEM: u32 = 999;
const FIRST_OF_SYSTEM: u32 = 100;
const LAST_OF_PEOPLE: u32 = 60_000;

/// Contents by path; without those that are not there.
pub type Texts = BTreeMap<String, String>;

/// Why an application cannot come into a container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// A line of the template.
    #[error("the template's line {line:?} is none of passwd(5) or group(5) for a user or group of an application")]
    Account {
        /// The line.
        line: String,
    },
    /// No number is left.
    #[error("no number is free for {name}")]
    NoNumber {
        /// The user or group.
        name: String,
    },
    /// It is there, and was not when the template was captured.
    #[error("the package {name} is there in version {there}; the template has {wanted}")]
    Package {
        /// Its name.
        name: String,
        /// The container's version.
        there: String,
        /// The template's.
        wanted: String,
    },
    /// The archive's list of packages has not what the template says.
    #[error("the archive has no package {0}")]
    NoPackage(String),
}

/// One change of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edit {
    /// The file, from `/`.
    pub path: String,
    /// The change.
    pub entry: Entry,
}

/// What is changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Entry {
    /// The file is made; it goes again when it is empty.
    Made,
    /// A line is added.
    Line(String),
    /// A line is added that begins with a name and a colon; by that it is known afterwards.
    Named(String),
    /// A user becomes a member of a group: `GROUP:USER`.
    Member(String),
    /// A paragraph about a package is added, or comes in place of what is there about it.
    Paragraph(String),
    /// A paragraph goes; it comes back when the change is undone.
    Without(String),
}

/// What is decided about users, groups and packages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Merge {
    /// In order.
    pub edits: Vec<Edit>,
    /// Tokens ([`Edit::token`]) of what is there already.
    pub shares: BTreeSet<String>,
}

impl Edit {
    fn new(path: &str, entry: Entry) -> Self {
        Self { path: path.to_owned(), entry }
    }

    /// By which the same thing is known in another application.
    pub fn token(&self) -> String {
        let what = match &self.entry {
            Entry::Made => "",
            Entry::Line(line) | Entry::Member(line) => line,
            Entry::Named(line) => name_of(line),
            Entry::Paragraph(text) | Entry::Without(text) => return token(&self.path, &key(text)),
        };
        token(&self.path, what)
    }

    /// The text with the change in it; twice is once.
    pub fn done(&self, text: &str) -> String {
        match &self.entry {
            Entry::Made => text.to_owned(),
            Entry::Line(line) if text.lines().any(|l| l == line) => text.to_owned(),
            Entry::Named(line) if text.lines().any(|l| name_of(l) == name_of(line)) => text.to_owned(),
            Entry::Line(line) | Entry::Named(line) => with_line(text, line),
            Entry::Member(member) => with_members(text, member, |list, user| {
                if !list.contains(&user) {
                    list.push(user);
                }
            }),
            Entry::Paragraph(paragraph) => with_paragraph(&without(text, paragraph), paragraph),
            Entry::Without(paragraph) => without(text, paragraph),
        }
    }

    /// The text without it; also where it never was in it.
    pub fn undone(&self, text: &str) -> String {
        let all_but = |gone: &dyn Fn(&str) -> bool| {
            text.split_inclusive('\n').filter(|l| !gone(l.trim_end_matches('\n'))).collect()
        };
        match &self.entry {
            Entry::Made => text.to_owned(),
            Entry::Line(line) => all_but(&|l| l == line),
            Entry::Named(line) => all_but(&|l| name_of(l) == name_of(line)),
            Entry::Member(member) => with_members(text, member, |list, user| list.retain(|m| *m != user)),
            Entry::Paragraph(paragraph) => without(text, paragraph),
            Entry::Without(paragraph) => with_paragraph(&without(text, paragraph), paragraph),
        }
    }
}

fn token(path: &str, what: &str) -> String {
    format!("{path} {what}")
}

/// Decides about users and groups: those that are there by name are taken as they are, those that are not get their number, or where that is
/// another's, a free one.
///
/// # Errors
/// A line that is none; no number is free.
pub fn accounts(captured: &Captured, there: &Texts) -> Result<(Ids, Merge), MergeError> {
    let (mut ids, mut merge) = (Ids::default(), Merge::default());
    let (users, groups) = (numbers(text(there, PASSWD)), numbers(text(there, GROUP)));
    let new_users = captured.users.iter().map(|l| account(l, 7)).collect::<Result<Vec<_>, _>>()?;
    let new_groups = captured.groups.iter().map(|l| account(l, 4)).collect::<Result<Vec<_>, _>>()?;
    // One number for a user and his group, as useradd(8) has it: so neither may be anybody's.
    let mut taken: BTreeSet<u32> = users.values().chain(groups.values()).copied().collect();
    let mut given: BTreeMap<u32, u32> = BTreeMap::new();
    let mut number = |name: &str, id: u32, of_kind: &BTreeMap<String, u32>, wanted: &BTreeSet<u32>| {
        if let Some(&id) = given.get(&id).filter(|new| !of_kind.values().any(|there| there == *new)) {
            return Ok(id);
        }
        let new = if of_kind.values().any(|there| *there == id) {
            free(id, &taken, wanted).ok_or_else(|| MergeError::NoNumber { name: name.to_owned() })?
        } else {
            id
        };
        taken.insert(new);
        given.insert(id, new);
        Ok(new)
    };
    let all: BTreeSet<u32> = new_users.iter().chain(&new_groups).map(|(_, id, _)| *id).collect();
    for (name, id, _) in &new_groups {
        let new = match groups.get(*name) {
            Some(there) => {
                merge.shares.extend([GROUP, GSHADOW].map(|path| token(path, name)));
                *there
            }
            None => {
                let new = number(name, *id, &groups, &all)?;
                merge.edits.push(Edit::new(GROUP, Entry::Named(format!("{name}:x:{new}:"))));
                if there.contains_key(GSHADOW) {
                    merge.edits.push(Edit::new(GSHADOW, Entry::Named(format!("{name}:!::"))));
                }
                new
            }
        };
        differs(&mut ids.groups, *id, new);
    }
    for (name, id, fields) in &new_users {
        let new = match users.get(*name) {
            Some(there) => {
                merge.shares.extend([PASSWD, SHADOW, SUBIDS[0], SUBIDS[1]].map(|path| token(path, name)));
                *there
            }
            None => {
                let new = number(name, *id, &users, &all)?;
                let group: u32 = fields[3].parse().map_err(|_| MergeError::Account { line: fields.join(":") })?;
                let group = ids.groups.get(&group).copied().unwrap_or(group);
                let [_, _, _, _, comment, home, shell] = fields[..] else { unreachable!("account() counts them") };
                let line = format!("{name}:x:{new}:{group}:{comment}:{home}:{shell}");
                merge.edits.push(Edit::new(PASSWD, Entry::Named(line)));
                if there.contains_key(SHADOW) {
                    merge.edits.push(Edit::new(SHADOW, Entry::Named(format!("{name}:!:::::::"))));
                }
                new
            }
        };
        differs(&mut ids.users, *id, new);
    }
    for member in &captured.members {
        for path in [GROUP, GSHADOW].into_iter().filter(|path| there.contains_key(*path)) {
            let edit = Edit::new(path, Entry::Member(member.clone()));
            if is_member(text(there, path), member) {
                merge.shares.insert(edit.token());
            } else {
                merge.edits.push(edit);
            }
        }
    }
    Ok((ids, merge))
}

fn differs(ids: &mut BTreeMap<u32, u32>, id: u32, new: u32) {
    if id != new {
        ids.insert(id, new);
    }
}

/// Decides about packages and what else is merged: `archive` has the files as they were captured, `there` as they are in the container.
///
/// # Errors
/// A package that is there in a version that the template does not know of.
pub fn texts(captured: &Captured, users: &Merge, archive: &Texts, there: &Texts) -> Result<Merge, MergeError> {
    let mut merge = Merge::default();
    let (from, to) = (paragraphs(text(archive, STATUS)), text(there, STATUS));
    let present: BTreeMap<String, &str> = paragraphs(to).into_iter().map(|p| (key(p), p)).collect();
    let gone: BTreeMap<&str, &str> = captured.packages_removed.iter().filter_map(|p| p.split_once('=')).collect();
    let mut came = BTreeSet::new();
    for pinned in &captured.packages {
        let (name, version) = pinned.split_once('=').unwrap_or((pinned, ""));
        let is_it = |p: &&&str| {
            let key = key(p);
            (key == name || key.split_once(':').is_some_and(|(short, _)| short == name))
                && field(p, "Version") == version
        };
        let paragraph = from.iter().find(is_it).ok_or_else(|| MergeError::NoPackage(pinned.clone()))?;
        came.insert(key(paragraph));
        match present.get(&key(paragraph)).filter(|p| !field(p, "Status").ends_with(" config-files")) {
            Some(other) if field(other, "Version") == version => {
                merge.shares.extend([STATUS, STATES].map(|path| token(path, &key(paragraph))));
                continue;
            }
            Some(other) if gone.get(name) != Some(&field(other, "Version")) => {
                let there = field(other, "Version").to_owned();
                return Err(MergeError::Package { name: name.to_owned(), there, wanted: version.to_owned() });
            }
            _ => {}
        }
        // First what goes: it comes back last.
        if let Some(other) = present.get(&key(paragraph)) {
            merge.edits.push(Edit::new(STATUS, Entry::Without((*other).to_owned())));
        }
        merge.edits.push(Edit::new(STATUS, Entry::Paragraph((*paragraph).to_owned())));
    }
    for (key, paragraph) in &present {
        let name = key.split_once(':').map_or(key.as_str(), |(name, _)| name);
        let version = gone.get(key.as_str()).or_else(|| gone.get(name));
        if version == Some(&field(paragraph, "Version")) && !came.contains(key) {
            merge.edits.push(Edit::new(STATUS, Entry::Without((*paragraph).to_owned())));
        }
    }
    let (from, to) = (text(archive, STATES), text(there, STATES));
    let known: BTreeSet<String> = paragraphs(to).into_iter().map(key).collect();
    for paragraph in paragraphs(from).into_iter().filter(|p| came.contains(&key(p)) && !known.contains(&key(p))) {
        merge.edits.push(Edit::new(STATES, Entry::Paragraph(paragraph.to_owned())));
    }
    for path in OF_LINES {
        let (from, to) = (text(archive, path), text(there, path));
        for line in from.lines().filter(|l| !l.is_empty()) {
            let edit = Edit::new(path, Entry::Line(line.to_owned()));
            if to.lines().any(|t| t == line) {
                merge.shares.insert(edit.token());
            } else {
                merge.edits.push(edit);
            }
        }
    }
    for path in SUBIDS {
        merge.edits.extend(ranges(users, path, text(archive, path), text(there, path)));
    }
    let missing: BTreeSet<&str> =
        merge.edits.iter().map(|e| e.path.as_str()).filter(|p| !there.contains_key(*p)).collect();
    let made: Vec<Edit> = missing.into_iter().map(|path| Edit::new(path, Entry::Made)).collect();
    merge.edits.splice(0..0, made);
    Ok(merge)
}

/// Ranges of subuid(5) for users that are new, where they are nobody's.
fn ranges(users: &Merge, path: &str, archive: &str, there: &str) -> Vec<Edit> {
    let parse = |line: &str| -> Option<(String, u64, u64)> {
        let mut fields = line.split(':');
        Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    let mut all: Vec<(u64, u64)> = there.lines().filter_map(parse).map(|(_, at, count)| (at, count)).collect();
    let is_new = |name: &str| users.edits.iter().any(|e| e.path == PASSWD && e.token() == token(PASSWD, name));
    let mut edits = Vec::new();
    for (name, mut at, count) in archive.lines().filter_map(parse).filter(|(name, ..)| is_new(name)) {
        if all.iter().any(|(other, length)| at < other.saturating_add(*length) && *other < at.saturating_add(count)) {
            at = all.iter().map(|(other, length)| other.saturating_add(*length)).max().unwrap_or(at);
        }
        all.push((at, count));
        edits.push(Edit::new(path, Entry::Named(format!("{name}:{at}:{count}"))));
    }
    edits
}

/// Names and numbers of a container's file; a line that is none names nobody.
fn numbers(text: &str) -> BTreeMap<String, u32> {
    let one = |line: &str| {
        let mut fields = line.split(':');
        Some((fields.next()?.to_owned(), fields.nth(1)?.parse().ok()?))
    };
    text.lines().filter_map(one).collect()
}

/// A line of the template: name, number, fields.
fn account(line: &str, count: usize) -> Result<(&str, u32, Vec<&str>), MergeError> {
    let bad = || MergeError::Account { line: line.to_owned() };
    let fields: Vec<&str> = line.split(':').collect();
    let name = fields[0];
    let id = fields.get(2).and_then(|f| f.parse().ok()).filter(|id| (1..=65_533).contains(id)).ok_or_else(bad)?;
    let is_name = !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c == '/');
    if fields.len() == count && is_name { Ok((name, id, fields)) } else { Err(bad()) }
}

/// A number of the same kind that is neither taken nor wanted by others.
fn free(id: u32, taken: &BTreeSet<u32>, wanted: &BTreeSet<u32>) -> Option<u32> {
    let is_free = |id: &u32| !taken.contains(id) && !wanted.contains(id);
    if id <= LAST_OF_SYSTEM {
        (FIRST_OF_SYSTEM..=LAST_OF_SYSTEM).rev().find(is_free)
    } else {
        (LAST_OF_SYSTEM + 1..=LAST_OF_PEOPLE).find(is_free)
    }
}

fn text<'t>(texts: &'t Texts, path: &str) -> &'t str {
    texts.get(path).map_or("", String::as_str)
}

fn name_of(line: &str) -> &str {
    line.split(':').next().unwrap_or_default()
}

/// The text with another list of members in the line of the group of `GROUP:USER`.
fn with_members(text: &str, member: &str, change: impl Fn(&mut Vec<String>, String)) -> String {
    let (group, user) = member.split_once(':').unwrap_or((member, ""));
    let line = |line: &str| match line.rsplit_once(':').filter(|_| name_of(line) == group) {
        None => line.to_owned(),
        Some((head, list)) => {
            let mut list: Vec<String> = list.split(',').filter(|m| !m.is_empty()).map(String::from).collect();
            change(&mut list, user.to_owned());
            format!("{head}:{}", list.join(","))
        }
    };
    text.split_inclusive('\n')
        .map(|l| line(l.trim_end_matches('\n')) + if l.ends_with('\n') { "\n" } else { "" })
        .collect()
}

fn is_member(text: &str, member: &str) -> bool {
    let (group, user) = member.split_once(':').unwrap_or((member, ""));
    let mut lists = text.lines().filter(|l| name_of(l) == group).filter_map(|l| l.rsplit_once(':'));
    lists.any(|(_, list)| list.split(',').any(|m| m == user))
}

fn with_line(text: &str, line: &str) -> String {
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{end}{line}\n")
}

/// Of a file of deb822(5).
fn paragraphs(text: &str) -> Vec<&str> {
    text.split("\n\n").map(|p| p.trim_matches('\n')).filter(|p| !p.is_empty()).collect()
}

fn field<'p>(paragraph: &'p str, name: &str) -> &'p str {
    let value = paragraph.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
    value.map_or("", str::trim)
}

/// Which package a paragraph is about: of one name there may be one of each architecture.
fn key(paragraph: &str) -> String {
    format!("{}:{}", field(paragraph, "Package"), field(paragraph, "Architecture"))
}

fn without(text: &str, paragraph: &str) -> String {
    let gone = key(paragraph);
    paragraphs(text).into_iter().filter(|p| key(p) != gone).map(|p| format!("{p}\n\n")).collect()
}

fn with_paragraph(text: &str, paragraph: &str) -> String {
    format!("{text}{paragraph}\n\n")
}

/// The name and version of the package that comes by a change of dpkg's list.
pub fn package(edit: &Edit) -> Option<(String, String)> {
    match &edit.entry {
        Entry::Paragraph(text) if edit.path == STATUS => Some(versioned(text)),
        _ => None,
    }
}

/// Of the package that goes by it.
pub fn package_before(edit: &Edit) -> Option<(String, String)> {
    match &edit.entry {
        Entry::Without(text) if edit.path == STATUS => Some(versioned(text)),
        _ => None,
    }
}

fn versioned(paragraph: &str) -> (String, String) {
    (field(paragraph, "Package").to_owned(), field(paragraph, "Version").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(users: &[&str], groups: &[&str], packages: &[&str], removed: &[&str]) -> Captured {
        let list = |l: &[&str]| l.iter().map(ToString::to_string).collect();
        let (files, sha256) = (String::new(), String::new());
        let (users, groups, packages, packages_removed) = (list(users), list(groups), list(packages), list(removed));
        let members = vec!["root:app".to_owned()];
        Captured { files, sha256, removed: Vec::new(), groups, users, members, packages, packages_removed }
    }

    fn given(texts: &[(&str, &str)]) -> Texts {
        texts.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
    }

    /// The file after all edits of it, and whether undoing them gives the text again.
    fn edited(merge: &Merge, path: &str, text: &str) -> String {
        let edits: Vec<&Edit> = merge.edits.iter().filter(|e| e.path == path).collect();
        let done = edits.iter().fold(text.to_owned(), |text, edit| edit.done(&text));
        assert_eq!(edits.iter().fold(done.clone(), |text, edit| edit.done(&text)), done, "twice is once");
        let undone = |text: &str| edits.iter().rev().fold(text.to_owned(), |text, edit| edit.undone(&text));
        let sorted = |text: &str| paragraphs(text).into_iter().map(String::from).collect::<BTreeSet<_>>();
        assert_eq!(sorted(&undone(&done)), sorted(text));
        assert_eq!(sorted(&undone(text)), sorted(text), "what was not done needs no undoing");
        done
    }

    #[test]
    fn a_user_gets_his_number_or_where_that_is_anothers_a_free_one_for_him_and_his_group() {
        let app = captured(&["app:x:150:150:an app:/opt:/bin/false"], &["app:x:150:"], &[], &[]);
        let passwd = "root:x:0:0::/root:/bin/sh\n";
        let there = given(&[(PASSWD, passwd), (GROUP, "root:x:0:\n"), (SHADOW, "root:*:1::::::\n")]);
        let (ids, merge) = accounts(&app, &there).unwrap();
        assert_eq!(ids, Ids::default());
        let line = "app:x:150:150:an app:/opt:/bin/false\n";
        assert_eq!(edited(&merge, PASSWD, passwd), format!("{passwd}{line}"));
        assert_eq!(edited(&merge, SHADOW, "root:*:1::::::\n"), "root:*:1::::::\napp:!:::::::\n");
        assert_eq!(edited(&merge, GROUP, "root:x:0:\n"), "root:x:0:app\napp:x:150:\n");
        assert!(merge.edits.iter().all(|e| e.path != GSHADOW), "there is none");

        let there = given(&[(PASSWD, "mine:x:150:1::/:/bin/sh\nhigh:x:999:1::/:/bin/sh\n"), (GROUP, "")]);
        let (ids, merge) = accounts(&app, &there).unwrap();
        let one = |from: u32, to: u32| BTreeMap::from([(from, to)]);
        assert_eq!(ids, Ids { users: one(150, 998), groups: BTreeMap::new() });
        assert!(edited(&merge, PASSWD, &there[PASSWD]).ends_with("app:x:998:150:an app:/opt:/bin/false\n"));

        let there = given(&[(PASSWD, "app:x:7:8::/:/bin/sh\n"), (GROUP, "app:x:8:mine\n")]);
        let (ids, mut merge) = accounts(&app, &there).unwrap();
        merge.edits.retain(|e| !matches!(e.entry, Entry::Member(_)));
        assert_eq!((ids, merge.edits), (Ids { users: one(150, 7), groups: one(150, 8) }, Vec::new()));
        assert!(["/etc/group app", "/etc/passwd app", "/etc/shadow app"].iter().all(|t| merge.shares.contains(*t)));
    }

    #[test]
    fn roots_number_and_what_is_no_line_is_refused() {
        for line in ["app:x:0:0::/:/bin/sh", "app:x:70000:1::/:/bin/sh", "a b:x:1:1::/:/bin/sh", "app:x:1:1:/:/bin/sh"]
        {
            let refused = accounts(&captured(&[line], &[], &[], &[]), &Texts::new());
            assert_eq!(refused, Err(MergeError::Account { line: line.to_owned() }));
        }
    }

    fn package(name: &str, version: &str) -> String {
        format!(
            "Package: {name}\nStatus: install ok installed\nArchitecture: all\nVersion: {version}\nDescription: x\n y"
        )
    }

    #[test]
    fn packages_come_and_go_beside_those_of_the_container() {
        let (new, own) = (package("app", "1"), package("own", "3"));
        let archive = given(&[(STATUS, &format!("{}\n\n{new}\n\n{}\n", package("lib", "2"), package("dash", "1")))]);
        let present = format!("{own}\n\n{}\n\n{}\n\n", package("lib", "1"), package("gone", "4"));
        let there = given(&[(STATUS, &present)]);
        let app = captured(&[], &[], &["app=1", "lib=2"], &["gone=4", "lib=1"]);
        let merge = texts(&app, &Merge::default(), &archive, &there).unwrap();
        let expected = format!("{own}\n\n{new}\n\n{}\n\n", package("lib", "2"));
        assert_eq!(edited(&merge, STATUS, &present), expected);

        // Not the version that it was captured beside.
        let there = given(&[(STATUS, &format!("{}\n\n", package("lib", "1+security")))]);
        let (name, wanted) = ("lib".to_owned(), "2".to_owned());
        let refused = MergeError::Package { name, there: "1+security".into(), wanted };
        assert_eq!(texts(&app, &Merge::default(), &archive, &there), Err(refused));
        // The same version is another application's or the container's, and stays.
        let there = given(&[(STATUS, &format!("{}\n\n", package("lib", "2")))]);
        let merge = texts(&app, &Merge::default(), &archive, &there).unwrap();
        assert!(merge.shares.contains("/var/lib/dpkg/status lib:all"), "{:?}", merge.shares);
        let missing = captured(&[], &[], &["no=1"], &[]);
        assert_eq!(texts(&missing, &Merge::default(), &archive, &there), Err(MergeError::NoPackage("no=1".into())));
    }

    #[test]
    fn ranges_of_a_new_user_are_nobodys_and_a_file_that_was_made_is_known() {
        let there = given(&[(PASSWD, ""), (GROUP, ""), ("/etc/subuid", "me:100000:65536\n")]);
        let app = captured(&["app:x:150:150::/:/bin/sh"], &[], &[], &[]);
        let (_, users) = accounts(&app, &there).unwrap();
        let archive = given(&[
            ("/etc/subuid", "app:100000:65536\nother:1:2\n"),
            ("/var/lib/dpkg/triggers/File", "/usr/lib/x app\n"),
        ]);
        let merge = texts(&app, &users, &archive, &there).unwrap();
        let edit = |path: &str, entry: Entry| Edit::new(path, entry);
        assert_eq!(
            merge.edits,
            [
                edit("/var/lib/dpkg/triggers/File", Entry::Made),
                edit("/var/lib/dpkg/triggers/File", Entry::Line("/usr/lib/x app".into())),
                edit("/etc/subuid", Entry::Named("app:165536:65536".into())),
            ]
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_of_a_container_makes_the_readers_panic(
            text in "(Package: a\n|Status: x ok installed\n|Version: 1\n|Architecture: all\n|\n|app:x:[0-9]{1,12}:|[: \n/a-z]){0,30}",
        ) {
            let there: Texts = MERGED.iter().map(|path| ((*path).to_owned(), text.clone())).collect();
            let app = captured(&["app:x:150:150::/:/bin/sh"], &["app:x:150:"], &["app=1"], &["b=1"]);
            if let Ok((_, users)) = accounts(&app, &there) {
                let _ = texts(&app, &users, &there, &there);
            }
        }
    }
}
