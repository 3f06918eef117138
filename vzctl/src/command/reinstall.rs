//! `vzctl reinstall`: a stopped container gets a new root from a template, as Virtuozzo 7's does.
//!
//! It keeps its number, name, addresses, limits and ids; the users and groups with their passwords; the old root, in `/old`; and what was asked for
//! with `--keep`. Its application templates are installed again.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode};
use vzrt::guest::{self, Root};
use vzrt::rootfs;

use super::area::{self, AreaError};
use super::exchange::{self, Place};
use super::{Context, create, failed, interrupted, system};
use crate::config::settings::Change;
use crate::config::values::TemplateTree;
use crate::failure::Outcome;
use crate::pkg::app::Applications;
use crate::subject::Subject;
use crate::{Exit, Failure, decide};

/// Where the old root goes.
const OLD: &str = "old";

/// What is to be carried over.
struct Keep {
    backup: bool,
    accounts: bool,
    paths: Vec<String>,
}

pub(super) fn run(context: &Context) -> Outcome {
    let matches = &context.request.matches;
    let keep = Keep {
        backup: !matches.get_flag("skipbackup"),
        accounts: !matches.get_flag("resetpwdb"),
        paths: matches
            .get_many::<String>("keep")
            .into_iter()
            .flatten()
            .map(|p| kept_path(p))
            .collect::<Result<_, _>>()?,
    };
    if keep.backup
        && let Some(path) = keep.paths.iter().find(|path| Path::new(path).starts_with(Path::new("/").join(OLD)))
    {
        return Err(Failure::new(Exit::InvalidValue, format!("{path} can't be kept: the old root goes to /{OLD}"))
            .hint("`--skipbackup` does without."));
    }
    context.container()?;
    let _lock = context.lock("reinstalling")?;
    let container = context.container()?;
    let interrupt = context.interrupt()?;
    exchange::refuse_in_use(context)?;
    let applications =
        if matches.get_flag("skipapps") { None } else { Some(Applications::of(context)?).filter(|a| !a.is_empty()) };
    let container = decide::prepare(&context.node, container)?;
    let (target, tree) = target(context, &container)?;
    tracing::info!("Reinstalling the container from {}", target.settings.ostemplate.as_deref().unwrap_or_default());
    let place = Place::make(&container)?;
    let made = make(context, &container, &target, &tree, &place, &keep)
        .and_then(|()| interrupt.check().map_err(interrupted))
        .and_then(|()| {
            place.exchange(&target, true).map_err(|e| cannot(&e))?;
            target.own.save(&context.node).map_err(|e| Failure::from_error(e.exit(), &e))
        });
    // Whatever has happened: what is in force now stays, and the other goes.
    let settled = exchange::settle(context);
    made?;
    settled?;
    if let Some(applications) = applications {
        applications.install(context).map_err(|failure| Failure { exit: Exit::Reinstall, ..failure })?;
    }
    tracing::info!("Container was reinstalled");
    Ok(Exit::Success)
}

/// A path that can be kept: absolute, without `.` and `..`, and not the root.
fn kept_path(path: &str) -> Result<String, Failure> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if !path.starts_with('/') || parts.is_empty() || parts.iter().any(|part| matches!(*part, "." | "..")) {
        return Err(Failure::new(
            Exit::InvalidValue,
            format!("Bad parameter for --keep: {path:?}: a path from the container's root is expected, as /home"),
        ));
    }
    Ok(format!("/{}", parts.join("/")))
}

/// The container as it will be, and the tree that it will be on.
fn target(context: &Context, container: &Subject) -> Result<(Subject, TemplateTree), Failure> {
    let node = &context.node;
    let with = |s: &Subject, changes: &[Change]| s.with(node, changes).map_err(|e| Failure::from_error(e.exit(), &e));
    let asked = context.request.matches.get_one::<String>("ostemplate");
    let wanted = match asked {
        Some(name) => with(container, &[Change::OsTemplate(name.clone())])?,
        None => container.clone(),
    };
    let template = create::template_name(node, &wanted)?;
    let tree = create::tree(node, &template)?;
    let ploop = decide::is_ploop(&wanted);
    if ploop {
        area::image_bytes(&wanted)?;
        decide::refuse_without_init(node, &tree.to_string())?;
    }
    let changes = [
        Change::OsTemplate(template.to_string()),
        Change::Tree((!ploop).then(|| tree.clone())),
        Change::Layers(Vec::new()),
        Change::Templates(Vec::new()),
    ];
    Ok((with(&wanted, &changes)?, tree))
}

/// Makes the new area, with all that is carried over in it.
fn make(
    context: &Context,
    container: &Subject,
    target: &Subject,
    tree: &TemplateTree,
    place: &Place,
    keep: &Keep,
) -> Result<(), Failure> {
    let node = &context.node;
    let layers = |e: rootfs::RootError| failed(&vzrt::VerbError::Root(e));
    let bases = decide::ids(container)?;
    let old = rootfs::merged(&decide::root(node, container, bases)?).map_err(layers)?;
    let area = place.area();
    create::fill(node, target, tree, &area)?;
    let mut plan_of = target.clone();
    plan_of.ve_private.clone_from(&area);
    let new = rootfs::writable(&decide::root(node, &plan_of, bases)?).map_err(layers)?;
    carry(&old, &new, keep)?;
    exchange::sync(&area).map_err(|e| cannot(&e))?;
    // Of an image, its own file system.
    rustix::fs::syncfs(area::hold_at(&new, ".").map_err(|e| cannot(&e))?).map_err(|e| system(&e))?;
    drop(new);
    if let Some(image) = decide::image_of(&plan_of) {
        quota::image::wait_until_detached(&image).map_err(|e| cannot(&e.into()))?;
    }
    Ok(())
}

fn carry(old: &OwnedFd, new: &OwnedFd, keep: &Keep) -> Result<(), Failure> {
    let accounts = |e: guest::Error| Failure::because(Exit::Reinstall, "Unable to keep the container's files", &e);
    let root = |fd: &OwnedFd| Root::open(Path::new(&format!("/proc/self/fd/{}", fd.as_raw_fd()))).map_err(accounts);
    let (from, to) = (root(old)?, root(new)?);
    for path in &keep.paths {
        let Some(places) = guest::places(&from, &to, path).map_err(accounts)? else {
            return Err(Failure::new(Exit::InvalidValue, format!("{path} is not in the container: it can't be kept")));
        };
        let name = path.rsplit('/').next().unwrap_or_default();
        replace(&places, OsStr::new(name)).map_err(|e| cannot(&e))?;
    }
    if keep.accounts {
        for name in guest::carry_accounts(&from, &to).map_err(accounts)? {
            tracing::warn!("Warning: the account {name} is not kept: the new root has its number for another one");
        }
    }
    if keep.backup {
        tracing::info!("Copying the old root to /{OLD}");
        back_up(old, new).map_err(|e| {
            cannot(&e).hint("`--skipbackup` does without the old root, `--keep PATH` keeps parts of it.")
        })?;
    }
    Ok(())
}

/// Copies one entry over whatever is there.
fn replace(places: &guest::Places, name: &OsStr) -> Result<(), AreaError> {
    let shown = Path::new(name);
    match rustix::fs::unlinkat(&places.to, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(rustix::io::Errno::ISDIR) => {
            let path = PathBuf::from(format!("/proc/self/fd/{}", places.to.as_raw_fd())).join(name);
            vzrt::remove::remove_tree(&path).map_err(|e| std::io::Error::other(e.one_line()))?;
        }
        Err(e) => return Err(area::named("unlink", shown, e.into()).into()),
    }
    area::copy_entries(&places.from, &[name.to_owned()], &places.to)
}

/// How many names one cp is given; the kernel takes 2 MiB of arguments (execve(2)).
const NAMES_AT_ONCE: usize = 1000;

/// Copies the old root, but not what an earlier reinstallation has put there.
fn back_up(old: &OwnedFd, new: &OwnedFd) -> Result<(), AreaError> {
    let call = |call: &str, e: rustix::io::Errno| area::named(call, Path::new("/old"), e.into());
    match rustix::fs::mkdirat(new, OLD, Mode::RWXU) {
        Ok(()) => {}
        // A template's own, or kept.
        Err(rustix::io::Errno::EXIST) => return Err(call("mkdir", rustix::io::Errno::EXIST).into()),
        Err(e) => return Err(call("mkdir", e).into()),
    }
    let to = area::hold_at(new, OLD)?;
    let top = area::hold_at(old, ".")?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(&top).map_err(|e| call("readdir", e))? {
        let entry = entry.map_err(|e| call("readdir", e))?;
        let name = entry.file_name().to_bytes();
        if ![b".".as_slice(), b"..", OLD.as_bytes()].contains(&name) {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    names.chunks(NAMES_AT_ONCE).try_for_each(|names: &[OsString]| area::copy_entries(&top, names, &to))
}

fn cannot(e: &AreaError) -> Failure {
    e.failure(Exit::Reinstall, "Unable to reinstall the container".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_kept_is_a_path_below_the_root() {
        assert_eq!(kept_path("//var/lib//mysql/").unwrap(), "/var/lib/mysql");
        for bad in ["", "/", "home", "/home/../etc", "/./x"] {
            assert_eq!(kept_path(bad).unwrap_err().exit, Exit::InvalidValue, "{bad}");
        }
    }
}
