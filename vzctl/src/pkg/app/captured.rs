//! What captured templates do beside the others: their files come from an archive, with the users, groups and packages that belong to them.
//!
//! The archive is read twice, by a process inside: first to tell what is in it and what is in its place, then, when all that will be done is in
//! the record, to make it. What is merged into files of the container's own (`/etc/passwd`, dpkg's list) is the record's edits.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};
use templates::app::merge::{self, Edit, Entry, MERGED, Texts};
use templates::app::{AppTemplate, Captured, Digester};
use templates::unpack::over::{self, BEFORE, Dress, Ids, NEW, Order, There, What};
use templates::unpack::{Limits, Refusal};
use templates::{Progress, Stage};

use super::guest::Guest;
use super::record::{App, Dressed, Part, Record, Written};
use super::{Fail, because, fail};
use crate::command::Context;
use crate::pkg::exit::PkgExit;

/// Made anew by `ldconfig` from the libraries that are there, so no archive's is taken.
const LIBRARIES: &str = "/etc/ld.so.cache";
const LDCONFIG: &str = "/sbin/ldconfig";

/// For what is a directory, or nothing, after an installation; nothing that is written has such a digest.
const DIRECTORY: &str = "directory";
const GONE: &str = "gone";

/// What was found, and what is decided from it.
pub(super) struct Survey {
    archive: File,
    sha256: String,
    ids: Ids,
    accounts: merge::Merge,
    packages: merge::Merge,
    found: Vec<over::Found>,
    removed: Vec<Removed>,
    orders: BTreeMap<String, Order>,
}

/// A path that the application takes away, and is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Removed {
    path: String,
    /// Whether something has the name that it would be kept under.
    before: bool,
}

/// Reads archive and container, and changes nothing. `None` for a template that was not captured.
pub(super) fn survey(context: &Context, guest: &Guest, template: &AppTemplate) -> Result<Option<Survey>, Fail> {
    let Some(captured) = &template.captured else { return Ok(None) };
    let path = crate::pkg::apps_dir(&context.node).join(&captured.files);
    let cannot = |e: &(dyn std::error::Error + 'static)| {
        because(PkgExit::System, format!("The files of {} can't be read", template.name), e)
    };
    let mut archive = fs_err::File::open(&path).map_err(|e| cannot(&e))?.into_file();
    let there = guest.stream(&mut io::empty(), |_| texts())?;
    let (ids, accounts) = merge::accounts(captured, &there).map_err(|e| refused(template, &e))?;
    let mut input = Hashed::new(guest, &mut archive, Stage::Bootstrap).map_err(|e| cannot(&e))?;
    let look = |input: &mut dyn Read| {
        let root = fs_err::File::open("/")?;
        let survey = over::survey(BufReader::new(input), root.as_fd(), &ids, &MERGED, &Limits::default());
        Ok((survey, removed(captured)?))
    };
    let told = guest.stream(&mut input, look)?;
    let (survey, removed): (Result<over::Survey, Refusal>, Vec<Removed>) = told;
    let sha256 = input.rest().map_err(|e| cannot(&e))?;
    if !sha256.eq_ignore_ascii_case(&captured.sha256) {
        let what = format!("{} is not what {} was captured as", path.display(), template.name);
        let (exit, failure) = fail(PkgExit::Broken, what);
        return Err((exit, failure.why(format!("Its SHA-256 is {sha256}, not {}", captured.sha256))));
    }
    let survey = survey.map_err(|e| {
        let exit = if matches!(e, Refusal::Syscall { .. }) { PkgExit::System } else { PkgExit::Broken };
        because(exit, format!("The files of {} can't be laid over the container's", template.name), &e)
    })?;
    let packages = merge::texts(captured, &accounts, &survey.texts, &there).map_err(|e| refused(template, &e))?;
    let (found, orders) = (survey.found, BTreeMap::new());
    Ok(Some(Survey { archive, sha256, ids, accounts, packages, found, removed, orders }))
}

fn refused(template: &AppTemplate, error: &merge::MergeError) -> Fail {
    let exit = match error {
        merge::MergeError::Account { .. } | merge::MergeError::NoPackage(_) => PkgExit::Broken,
        _ => PkgExit::Unavailable,
    };
    because(exit, format!("Application template {} can't be installed", template.name), error)
}

/// Writes into the record's entry all that will be done, or refuses it.
pub(super) fn decide(record: &Record, app: &mut App, survey: &mut Survey) -> Result<(), Fail> {
    let mut part = Part::default();
    let owner = |path: &str| record.apps.iter().find(|a| a.name != app.name && a.files.iter().any(|f| f.path == path));
    let in_archive: BTreeSet<&str> = survey.found.iter().map(|f| f.path.as_str()).collect();
    let way = |path: &str, before: bool| {
        if let Some(other) = owner(path) {
            let what = format!("{} and {} both have {path}, and it differs", app.name, other.name);
            return Err(fail(PkgExit::Unavailable, what));
        }
        if before {
            let what = format!("{path} would be kept as {path}{BEFORE}, which is there already");
            let (exit, failure) = fail(PkgExit::Unavailable, what);
            return Err((exit, failure.hint("Move it away in the container.")));
        }
        Ok(())
    };
    for found in &survey.found {
        let path = &found.path;
        if MERGED.contains(&path.as_str()) {
            continue;
        }
        if path == LIBRARIES {
            part.libraries = true;
            continue;
        }
        let is_directory = found.what == What::Directory;
        let order = match found.there {
            There::Same => {
                part.shares.insert(path.clone());
                continue;
            }
            There::Directory(was) => {
                part.dressed.push(Dressed { path: path.clone(), was, is: found.dress });
                survey.orders.insert(path.clone(), Order::Dress);
                continue;
            }
            There::Nothing => Order::Make,
            There::Other => {
                way(path, found.before)?;
                Order::Replace
            }
        };
        let replaces = order == Order::Replace;
        match &found.what {
            What::Leaf { digest, size } => {
                app.files.push(Written { path: path.clone(), digest: digest.clone(), size: Some(*size), replaces });
            }
            What::Directory if replaces => app.files.push(standing_for(path, DIRECTORY)),
            What::Directory => {}
        }
        if is_directory {
            app.directories.push(path.clone());
        }
        survey.orders.insert(path.clone(), order);
    }
    for gone in survey.removed.iter().filter(|gone| !in_archive.contains(gone.path.as_str())) {
        way(&gone.path, gone.before)?;
        app.files.push(standing_for(&gone.path, GONE));
    }
    part.versions = survey.packages.edits.iter().filter_map(merge::package).collect();
    app.packages.extend(part.versions.clone());
    part.shares.extend(survey.accounts.shares.iter().chain(&survey.packages.shares).cloned());
    part.edits = survey.accounts.edits.iter().chain(&survey.packages.edits).cloned().collect();
    app.captured = Some(part);
    Ok(())
}

/// What is kept from a path where no file of the template is.
fn standing_for(path: &str, digest: &str) -> Written {
    Written { path: path.to_owned(), digest: digest.to_owned(), size: None, replaces: true }
}

/// Does what the record's entry says.
pub(super) fn lay(guest: &Guest, app: &App, mut survey: Survey) -> Result<(), Fail> {
    let Some(part) = &app.captured else { return Ok(()) };
    let cannot = |e: &(dyn std::error::Error + 'static)| because(PkgExit::System, "The archive can't be read", e);
    edit(guest, &survey.accounts.edits, true)?;
    let (ids, orders) = (&survey.ids, &survey.orders);
    let mut input = Hashed::new(guest, &mut survey.archive, Stage::Unpack).map_err(|e| cannot(&e))?;
    guest.stream(&mut input, |input| {
        let root = fs_err::File::open("/")?;
        over::lay(BufReader::new(input), root.as_fd(), ids, orders, &Limits::default()).map_err(io::Error::other)
    })?;
    let sha256 = input.rest().map_err(|e| cannot(&e))?;
    if sha256 != survey.sha256 {
        return Err(fail(PkgExit::Broken, "The archive was changed while it was unpacked"));
    }
    let gone: Vec<&str> = app.files.iter().filter(|f| f.digest == GONE).map(|f| f.path.as_str()).collect();
    guest.stream(&mut io::empty(), |_| {
        gone.iter().try_for_each(|path| match std::fs::rename(path, format!("{path}{BEFORE}")) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            renamed => renamed.map_err(|e| io::Error::new(e.kind(), format!("rename({path}): {e}"))),
        })
    })?;
    edit(guest, &survey.packages.edits, true)?;
    libraries(guest, part)
}

/// Takes back what was laid: returns the paths of files that were changed, and are kept aside. Each step takes what it finds undone for success.
pub(super) fn undo(guest: &Guest, app: &App) -> Result<Vec<String>, Fail> {
    let part = app.captured.clone().unwrap_or_default();
    purge_others(guest, &part)?;
    let paths = app.files.iter().map(|f| &f.path).chain(part.edits.iter().map(|e| &e.path));
    let directories: BTreeSet<&Path> = paths.filter_map(|path| Path::new(path).parent()).collect();
    guest.stream(&mut io::empty(), |_| directories.iter().try_for_each(|directory| forget(&directory.join(NEW))))?;
    // What a directory has taken the place of can only come back when that is empty.
    let (behind, files): (Vec<Written>, Vec<Written>) = app.files.iter().cloned().partition(|f| f.digest == DIRECTORY);
    let mut changed = guest.take_back(&files)?;
    guest.remove_directories(&app.directories)?;
    changed.extend(guest.take_back(&behind)?);
    guest.stream(&mut io::empty(), |_| part.dressed.iter().rev().try_for_each(undress))?;
    edit(guest, &part.edits, false)?;
    libraries(guest, &part)?;
    Ok(changed)
}

/// Packages that the container has brought to another version are dpkg's to take away.
fn purge_others(guest: &Guest, part: &Part) -> Result<(), Fail> {
    if part.versions.is_empty() {
        return Ok(());
    }
    let installed = guest.packages()?;
    let now = installed.versions();
    // Where nothing was laid yet, or it is taken back already, what was there before is there.
    let before: BTreeSet<(String, String)> = part.edits.iter().filter_map(merge::package_before).collect();
    let is_other = |(name, version): &(&String, &String)| {
        let now = now.get(name.as_str());
        now.is_some_and(|now| now != *version && !before.contains(&((*name).clone(), (*now).to_owned())))
    };
    let others: BTreeSet<String> = part.versions.iter().filter(is_other).map(|(name, _)| name.clone()).collect();
    guest.purge(&others, true)
}

/// Refuses to take packages away that others need.
pub(super) fn refuse_needed(guest: &Guest, app: &App) -> Result<(), Fail> {
    let Some(part) = app.captured.as_ref().filter(|part| !part.versions.is_empty()) else { return Ok(()) };
    let installed = guest.packages()?;
    let came: BTreeSet<String> = part.versions.keys().cloned().collect();
    let going = installed.removable(&came);
    let needed: Vec<&str> =
        came.iter().filter(|c| installed.has(c) && !going.contains(*c)).map(String::as_str).collect();
    if needed.is_empty() {
        return Ok(());
    }
    let what = format!("Packages of {} are needed by others in the container: {}", app.name, needed.join(", "));
    Err(fail(PkgExit::HasApps, what))
}

fn undress(directory: &Dressed) -> io::Result<()> {
    let root = fs_err::File::open("/")?;
    let Some(now) = over::dress_of(root.as_fd(), &directory.path).map_err(io::Error::other)? else { return Ok(()) };
    // Changed since, it is the container's.
    if now == directory.is { dress(Path::new(&directory.path), directory.was) } else { Ok(()) }
}

fn dress(path: &Path, dress: Dress) -> io::Result<()> {
    std::os::unix::fs::chown(path, Some(dress.uid), Some(dress.gid))?;
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(dress.mode))
}

fn libraries(guest: &Guest, part: &Part) -> Result<(), Fail> {
    if part.libraries && guest.has(LDCONFIG)? {
        guest.run(&[LDCONFIG])?;
    }
    Ok(())
}

/// Applies edits in their order, or undoes them in the other, each file at once.
fn edit(guest: &Guest, edits: &[Edit], apply: bool) -> Result<(), Fail> {
    let mut files: Vec<(&str, Vec<&Edit>)> = Vec::new();
    for edit in edits {
        match files.iter_mut().find(|(path, _)| *path == edit.path) {
            Some((_, list)) => list.push(edit),
            None => files.push((&edit.path, vec![edit])),
        }
    }
    guest.stream(&mut io::empty(), |_| {
        files.iter().try_for_each(|(path, edits)| {
            edit_file(path, edits, apply).map_err(|e| io::Error::new(e.kind(), format!("{path}: {e}")))
        })
    })
}

/// By whom a file is locked while it is written: lckpwdf(3), and dpkg.
fn lock_of(path: &str) -> Option<&'static str> {
    match path {
        _ if path.starts_with("/var/lib/dpkg/") => Some("/var/lib/dpkg/lock"),
        _ if path.starts_with("/etc/") => Some("/etc/.pwd.lock"),
        _ => None,
    }
}

fn edit_file(path: &str, edits: &[&Edit], apply: bool) -> io::Result<()> {
    let _lock = lock_of(path).map(lock).transpose()?;
    let before = read(path)?;
    if before.is_none() && !apply {
        return Ok(());
    }
    let present = before.clone().unwrap_or_default();
    let text = if apply {
        edits.iter().fold(present.clone(), |text, edit| edit.done(&text))
    } else {
        edits.iter().rev().fold(present.clone(), |text, edit| edit.undone(&text))
    };
    if !apply && text.is_empty() && edits.iter().any(|e| e.entry == Entry::Made) {
        return fs_err::remove_file(path);
    }
    if before.is_some() && text == present {
        return Ok(());
    }
    replace(path, &text)
}

/// Held until it is dropped. A container that has no such file has nobody who looks at it.
fn lock(path: &str) -> io::Result<Option<File>> {
    let file = match File::options().write(true).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK).open(path)
    {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    match rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => {
            Err(io::Error::other(format!("somebody in the container holds {path}")))
        }
        locked => locked.map(|()| Some(file)).map_err(io::Error::from),
    }
}

/// At once or not at all, with the owner and permissions of what was there.
fn replace(path: &str, text: &str) -> io::Result<()> {
    let new = Path::new(path).with_file_name(NEW);
    forget(&new)?;
    // Nobody's to read before it has its owner: it may be the shadow.
    File::options().write(true).create_new(true).mode(0o600).open(&new)?.write_all(text.as_bytes())?;
    let is = match std::fs::symlink_metadata(path) {
        Ok(meta) => Dress { uid: meta.uid(), gid: meta.gid(), mode: meta.mode() & 0o7777 },
        Err(_) => Dress { uid: 0, gid: 0, mode: 0o644 },
    };
    dress(&new, is)?;
    fs_err::rename(&new, path)
}

/// What was not whole yet.
fn forget(new: &Path) -> io::Result<()> {
    match std::fs::remove_file(new) {
        Err(e) if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err(io::Error::new(e.kind(), format!("unlink({}): {e}", new.display())))
        }
        _ => Ok(()),
    }
}

/// Larger ones are no such files.
const MOST_TEXT: u64 = 64 << 20;

fn read(path: &str) -> io::Result<Option<String>> {
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY | nix::libc::O_NOFOLLOW;
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|e| io::Error::new(e.kind(), format!("open({path}): {e}")))?,
    };
    let mut text = String::new();
    let read = file.take(MOST_TEXT + 1).read_to_string(&mut text);
    let got = read.map_err(|e| io::Error::new(e.kind(), format!("read({path}): {e}")))?;
    if got as u64 > MOST_TEXT {
        return Err(io::Error::other(format!("{path} is larger than {} MiB", MOST_TEXT >> 20)));
    }
    Ok(Some(text))
}

fn texts() -> io::Result<Texts> {
    let texts = MERGED.iter().map(|path| Ok(read(path)?.map(|text| ((*path).to_owned(), text))));
    Ok(texts.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
}

fn removed(captured: &Captured) -> io::Result<Vec<Removed>> {
    let is_there = |path: &str| Path::new(path).symlink_metadata().is_ok();
    let there = captured.removed.iter().filter(|path| is_there(path));
    Ok(there.map(|path| Removed { path: path.clone(), before: is_there(&format!("{path}{BEFORE}")) }).collect())
}

/// An archive from its beginning, digested as it is read, with its progress.
struct Hashed<'a> {
    guest: &'a Guest<'a>,
    archive: &'a mut File,
    digest: Digester,
}

impl<'a> Hashed<'a> {
    fn new(guest: &'a Guest<'a>, archive: &'a mut File, stage: Stage) -> io::Result<Self> {
        archive.rewind()?;
        if let Some(bar) = guest.bar.borrow_mut().as_mut() {
            bar.stage(stage, Some(archive.metadata()?.len()));
        }
        Ok(Self { guest, archive, digest: Digester::default() })
    }

    /// The digest of all of it, also of what nobody wanted.
    fn rest(mut self) -> io::Result<String> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(self.digest.finish())
    }
}

impl Read for Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.archive.read(buffer)?;
        self.digest.update(&buffer[..got]);
        if let Some(bar) = self.guest.bar.borrow_mut().as_mut() {
            bar.advance(got as u64);
        }
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::State;
    use super::*;

    fn app(name: &str, files: &[&str]) -> App {
        let written = |path: &&str| Written { size: Some(1), ..standing_for(path, "x") };
        App {
            name: name.to_owned(),
            version: "1".to_owned(),
            state: State::Installed,
            parameters: BTreeMap::new(),
            requires: Vec::new(),
            conflicts: Vec::new(),
            packages: BTreeMap::new(),
            files: files.iter().map(written).collect(),
            directories: Vec::new(),
            services: Vec::new(),
            commands_run: false,
            pre_remove: Vec::new(),
            post_remove: Vec::new(),
            captured: Some(Part::default()),
        }
    }

    const IS: Dress = Dress { uid: 0, gid: 0, mode: 0o755 };
    const WAS: Dress = Dress { uid: 0, gid: 0, mode: 0o700 };

    fn found(path: &str, there: There) -> over::Found {
        let what = if path.ends_with('/') { What::Directory } else { What::Leaf { digest: "digest".into(), size: 6 } };
        over::Found { path: path.trim_end_matches('/').to_owned(), what, dress: IS, there, before: false }
    }

    fn survey(found: Vec<over::Found>, removed: &[&str]) -> Survey {
        let removed = removed.iter().map(|path| Removed { path: (*path).to_owned(), before: false });
        Survey {
            archive: tempfile::tempfile().unwrap(),
            sha256: String::new(),
            ids: Ids::default(),
            accounts: merge::Merge::default(),
            packages: merge::Merge::default(),
            found,
            removed: removed.collect(),
            orders: BTreeMap::new(),
        }
    }

    #[test]
    fn all_that_will_be_done_is_in_the_record_and_no_more_is_ordered() {
        let mut survey = survey(
            vec![
                found("/etc/", There::Directory(WAS)),
                found("/etc/same", There::Same),
                found("/etc/other", There::Other),
                found("/etc/passwd", There::Other),
                found(LIBRARIES, There::Other),
                found("/opt/", There::Nothing),
                found("/opt/new", There::Nothing),
                found("/srv/", There::Other),
            ],
            &["/etc/gone", "/srv"],
        );
        let mut app = app("app", &[]);
        decide(&Record::default(), &mut app, &mut survey).unwrap();
        let files: Vec<_> = app.files.iter().map(|f| (f.path.as_str(), f.digest.as_str(), f.replaces)).collect();
        let leaf = |path, replaces| (path, "digest", replaces);
        assert_eq!(
            files,
            [leaf("/etc/other", true), leaf("/opt/new", false), ("/srv", DIRECTORY, true), ("/etc/gone", GONE, true)]
        );
        assert_eq!(app.directories, ["/opt", "/srv"]);
        let part = app.captured.unwrap();
        assert_eq!(part.dressed, [Dressed { path: "/etc".into(), was: WAS, is: IS }]);
        assert!(part.libraries && part.shares.contains("/etc/same"));
        let orders: Vec<_> = survey.orders.iter().map(|(path, order)| (path.as_str(), *order)).collect();
        let (replace, make) = (Order::Replace, Order::Make);
        assert_eq!(
            orders,
            [("/etc", Order::Dress), ("/etc/other", replace), ("/opt", make), ("/opt/new", make), ("/srv", replace)]
        );
    }

    #[test]
    fn what_is_in_the_way_refuses_it() {
        let record = Record { apps: vec![app("other", &["/etc/other"])] };
        let refusal = |found: over::Found, removed: &[&str]| {
            let refused = decide(&record, &mut app("app", &[]), &mut survey(vec![found], removed));
            let (exit, failure) = refused.unwrap_err();
            assert_eq!(exit, PkgExit::Unavailable);
            failure.what
        };
        let both = "app and other both have /etc/other, and it differs";
        assert_eq!(refusal(found("/etc/other", There::Other), &[]), both);
        assert_eq!(refusal(found("/etc/", There::Same), &["/etc/other"]), both);
        let kept = over::Found { before: true, ..found("/etc/x", There::Other) };
        assert_eq!(refusal(kept, &[]), "/etc/x would be kept as /etc/x.vz-before, which is there already");
    }

    #[test]
    fn what_another_application_has_found_in_place_stays_with_it() {
        let line = |path: &str, line: &str| Edit { path: path.into(), entry: Entry::Named(line.into()) };
        let (passwd, shadow) = (line("/etc/passwd", "u:x:1:1::/:/bin/sh"), line("/etc/shadow", "u:!:::::::"));
        let (mut one, mut two) = (app("one", &["/opt/both", "/opt/one"]), app("two", &["/opt/two"]));
        one.directories = vec!["/opt".into()];
        one.captured = Some(Part { edits: vec![passwd.clone(), shadow.clone()], ..Part::default() });
        let shares = ["/opt", "/opt/both", "/etc/passwd u"].map(String::from).into();
        two.captured = Some(Part { shares, ..Part::default() });
        let mut record = Record { apps: vec![one, two] };
        record.bequeath("one");
        let paths = |app: &App| app.files.iter().map(|f| f.path.clone()).collect::<Vec<_>>();
        let [one, two] = &record.apps[..] else { panic!("{record:?}") };
        assert_eq!((paths(one), paths(two)), (vec!["/opt/one".into()], vec!["/opt/two".into(), "/opt/both".into()]));
        assert_eq!((one.directories.len(), two.directories.len()), (0, 1));
        assert_eq!(one.captured.as_ref().unwrap().edits, [shadow]);
        assert_eq!(two.captured.as_ref().unwrap().edits, [passwd]);
    }

    #[test]
    fn a_file_that_is_edited_keeps_its_permissions_and_one_that_was_made_goes_when_it_is_empty() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let (there, made) = (path("there"), path("made"));
        fs_err::write(&there, "a:1\n").unwrap();
        fs_err::set_permissions(&there, std::fs::Permissions::from_mode(0o640)).unwrap();
        let edits =
            |path: &str| [Entry::Made, Entry::Named("b:2".into())].map(|entry| Edit { path: path.into(), entry });
        let go = |path: &str, apply| edit_file(path, &edits(path).iter().collect::<Vec<_>>(), apply).unwrap();
        for path in [&there, &made] {
            go(path, true);
            go(path, true);
            assert!(fs_err::read_to_string(path).unwrap().ends_with("b:2\n"));
        }
        assert_eq!(fs_err::metadata(&there).unwrap().mode() & 0o7777, 0o640);
        for path in [&there, &made, &made] {
            go(path, false);
        }
        assert_eq!(fs_err::read_to_string(&there).unwrap(), "a:1\n");
        assert!(!Path::new(&made).exists() && !directory.path().join(NEW).exists());
    }
}
