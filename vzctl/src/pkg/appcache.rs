//! Application layers: `create`, `update`, `list` and `remove appcache`, and making one of what a temporary container has.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;

use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, value_parser};
use templates::app::Values;
use templates::difference::{self, Bounds, Change, Entry, Form, Kind, noise};
use templates::{AppLayer, Silent, Store, StoreError, TemplateName};
use vzrt::Interrupt;

use super::PkgOutcome;
use super::app::{Baked, Stack, find_layer};
use super::exit::{self, PkgExit};
use super::temporary::{Taken, Temporary, failed, system};
use crate::config::Node;
use crate::config::container::Container;
use crate::{Exit, Failure};

type Made<T> = Result<T, (PkgExit, Failure)>;

/// What debconf(7) knows: a cache by its directory only, for a package without its questions can't be removed. Not its file of passwords.
const DEBCONF: [&str; 2] = ["var/cache/debconf/config.dat", "var/cache/debconf/templates.dat"];
/// Where Debian's packages put keys that they make.
const KEYS: &str = "etc/ssl/private/**";

/// `create appcache`.
pub(super) fn create_definition() -> Command {
    asked(Command::new("appcache").about("Install applications once, into a layer that new containers share"), true)
}

/// `update appcache`.
pub(super) fn update_definition() -> Command {
    let about = "Make new versions of application layers whose OS template, packages or templates have changed";
    asked(Command::new("appcache").about(about), false)
}

/// The OS template, in Virtuozzo's spelling or in that of `create cache`, and the applications.
fn asked(command: Command, required: bool) -> Command {
    let os = |id: &'static str| Arg::new(id).value_name("OSTEMPLATE").value_parser(value_parser!(TemplateName));
    command
        .args([
            os("os").help("On which OS template"),
            os("ostemplate").long("ostemplate").help("The same"),
            Arg::new("apptemplate")
                .long("apptemplate")
                .value_name("APP[:PARAMETER=VALUE][,APP…]")
                .action(ArgAction::Append)
                .required(required)
                .help("Which applications"),
        ])
        .group(ArgGroup::new("on").args(["os", "ostemplate"]).required(required))
}

/// `list appcache`.
pub(super) fn list_definition() -> Command {
    Command::new("appcache")
        .about("List application layers, and how many containers are on each")
        .arg(Arg::new("json").short('j').long("json").action(ArgAction::SetTrue).help("As JSON"))
}

/// `remove appcache`.
pub(super) fn remove_definition() -> Command {
    Command::new("appcache")
        .about("Remove an application layer that no container is on")
        .arg(Arg::new("layer").value_name("NAME@DIGEST").required(true).help("As `vzpkg list appcache` shows it"))
}

/// Makes a layer of what was chosen of a temporary container's difference.
pub(super) fn make<'e>(
    store: &Store,
    temporary: &Temporary,
    apps: &[TemplateName],
    taken: &Taken,
    chosen: impl IntoIterator<Item = &'e Entry>,
    installed: Option<serde_json::Value>,
) -> Made<AppLayer> {
    let work = temporary.work()?;
    let target = File::open(&work).map_err(|e| system("open", &work, e))?;
    let cannot = |e: &(dyn std::error::Error + 'static)| Failure::because(Exit::System, "No layer was made", e);
    let (after, bounds) = (taken.after.as_fd(), Bounds::default());
    let written = difference::write(chosen, after, target.as_fd(), Form::Layer, &bounds);
    let written = written.map_err(|e| (PkgExit::System, cannot(&e)))?;
    let layer = store.add_app_layer(apps, &taken.tree, &work, &written, installed);
    layer.map_err(|e| (exit::of_store(&e), cannot(&e)))
}

/// The latest tree of an OS template.
fn tree(store: &Store, os: &TemplateName) -> Result<String, StoreError> {
    store.tree(&store.find(os)?, &mut Silent).map(|tree| tree.id)
}

fn named(matches: &ArgMatches) -> (Option<&TemplateName>, Vec<String>) {
    let os = matches.get_one("os").or_else(|| matches.get_one("ostemplate"));
    (os, matches.get_many::<String>("apptemplate").into_iter().flatten().cloned().collect())
}

pub(super) fn create(node: &Node, store: &Store, matches: &ArgMatches) -> PkgOutcome {
    let (os, words) = named(matches);
    let os = os.expect("clap requires an OS template");
    let stack = Stack::of(node, &words)?;
    stack.refuse_secrets()?;
    let tree = tree(store, os).map_err(|e| (exit::of_store(&e), Failure::from_error(Exit::System, &e)))?;
    if let Some((layer, _)) = find_layer(store, &tree, &stack)? {
        let failure = Failure::new(Exit::System, format!("The layer {} has just these applications", layer.id));
        return Err((
            PkgExit::CacheExists,
            failure.hint("`vzpkg update appcache` makes a new one if they have changed."),
        ));
    }
    let interrupt = Interrupt::watch().map_err(|e| failed(&e))?;
    let built = Built::of(node, &interrupt, os, &stack, matches.get_flag("quiet"))?;
    let layer = built.into_layer(store, &stack)?;
    tracing::info!(
        "The layer {} ({} KiB) is ready: `vzctl create --ostemplate {os} --apptemplate {}` takes it",
        layer.id,
        layer.bytes.div_ceil(1024),
        words.join(",")
    );
    Ok(())
}

/// A temporary container with applications in it.
struct Built<'a> {
    temporary: Temporary<'a>,
    taken: Taken,
    baked: Baked,
}

impl<'a> Built<'a> {
    /// By `vzpkg install`, as into any container that does not run.
    fn of(node: &'a Node, interrupt: &'a Interrupt, os: &TemplateName, stack: &Stack, quiet: bool) -> Made<Self> {
        tracing::info!("Creating a temporary container of {os}");
        let temporary = Temporary::create(node, interrupt, &super::apps_dir(node), os.as_str(), &[])?;
        let ctid = temporary.ctid().to_string();
        let words: Vec<&str> =
            quiet.then_some("--quiet").into_iter().chain(["install", &ctid]).chain(stack.words()).collect();
        match temporary.vzpkg(&words)? {
            0 => {}
            code => {
                let what = format!("No layer was made: vzpkg install into the temporary container ended with {code}");
                return Err((exit::of_vzpkg(code), Failure::new(Exit::System, what)));
            }
        }
        let baked = Baked::of(node, temporary.ctid(), stack)?;
        tracing::info!("Comparing");
        let taken = temporary.take()?;
        Ok(Self { temporary, taken, baked })
    }

    fn into_layer(self, store: &Store, stack: &Stack) -> Made<AppLayer> {
        let entries = &self.taken.difference.entries;
        if let Some(key) = entries.iter().find(|e| is_key(e)) {
            let what = format!(
                "{} is a key that the packages have made: all containers on one layer would share it",
                key.shown()
            );
            let hint = "`vzpkg install` and `vzctl create --apptemplate` make one for each container.";
            return Err((PkgExit::Unavailable, Failure::new(Exit::System, what).hint(hint)));
        }
        let chosen = entries.iter().filter(|e| is_taken(e));
        make(store, &self.temporary, stack.names(), &self.taken, chosen, Some(self.baked.written()?))
    }
}

/// Whether something of what an installation has changed goes into a layer.
fn is_taken(entry: &Entry) -> bool {
    entry.noise.is_none() || DEBCONF.iter().any(|pattern| noise::matches(pattern, &entry.path))
}

fn is_key(entry: &Entry) -> bool {
    entry.change != Change::Removed && entry.kind == Kind::File && noise::matches(KEYS, &entry.path)
}

/// Layers that are versions of one another.
struct Versions {
    os: TemplateName,
    values: BTreeMap<String, Values>,
    /// The latest last.
    layers: Vec<(AppLayer, Baked)>,
}

/// All that were installed, not captured.
fn versions(store: &Store) -> Made<Vec<Versions>> {
    let mut all: Vec<Versions> = Vec::new();
    for layer in store.app_layers().map_err(|e| failed(&e))? {
        let os = layer.tree.split_once('@').and_then(|(os, _)| os.parse::<TemplateName>().ok());
        let (Some(os), Some(baked)) = (os, Baked::read(&layer)) else { continue };
        let values = baked.values();
        match all.iter_mut().find(|v| v.os == os && v.values == values) {
            Some(versions) => versions.layers.push((layer, baked)),
            None => all.push(Versions { os, values, layers: vec![(layer, baked)] }),
        }
    }
    for versions in &mut all {
        versions.layers.sort_by(|a, b| (a.1.age(), &a.0.id).cmp(&(b.1.age(), &b.0.id)));
    }
    Ok(all)
}

pub(super) fn update(node: &Node, store: &Store, matches: &ArgMatches) -> PkgOutcome {
    let (os, words) = named(matches);
    let stack = if words.is_empty() { None } else { Some(Stack::of(node, &words)?) };
    let mut all = versions(store)?;
    all.retain(|v| os.is_none_or(|os| v.os == *os) && stack.as_ref().is_none_or(|s| v.values == *s.values()));
    if all.is_empty() && (os.is_some() || stack.is_some()) {
        let what = "There is no such application layer";
        return Err((
            PkgExit::NotCached,
            Failure::new(Exit::System, what).hint("`vzpkg list appcache` tells which there are."),
        ));
    }
    let interrupt = Interrupt::watch().map_err(|e| failed(&e))?;
    let mut outcome = Ok(());
    for versions in &all {
        // One that can't be made anew keeps no other from it; a signal ends all.
        match renew(node, store, &interrupt, versions, matches.get_flag("quiet")) {
            Err((exit, failure)) if !interrupt.has_come() => {
                failure.tell();
                outcome = Err((exit, Failure::new(Exit::System, "Not all application layers were updated")));
            }
            ended => ended?,
        }
    }
    outcome
}

/// Makes a new version of a layer if it would be another, and removes the old ones that no container is on.
fn renew(node: &Node, store: &Store, interrupt: &Interrupt, versions: &Versions, quiet: bool) -> PkgOutcome {
    let Some((latest, baked)) = versions.layers.last() else { return Ok(()) };
    let current = match tree(store, &versions.os) {
        Ok(tree) => {
            tracing::info!("Updating the layer {}", latest.id);
            let stack = Stack::of(node, &baked.words)?;
            stack.refuse_secrets()?;
            let built = Built::of(node, interrupt, &versions.os, &stack, quiet)?;
            if latest.tree == tree && built.baked.is_same_as(baked) {
                tracing::info!("{} is as it was", latest.id);
                latest.id.clone()
            } else {
                let layer = built.into_layer(store, &stack)?;
                tracing::info!("The layer {} is ready; containers stay on what they are on", layer.id);
                layer.id
            }
        }
        Err(StoreError::NotFound { name, .. }) => {
            tracing::info!("There is no cache of {name} for the layer {}", latest.id);
            String::new()
        }
        Err(e) => return Err((exit::of_store(&e), Failure::from_error(Exit::System, &e))),
    };
    for (layer, _) in versions.layers.iter().filter(|(layer, _)| layer.id != current) {
        match remove_unused(node, store, &layer.id) {
            Ok(()) => tracing::info!("{} was removed: no container was on it", layer.id),
            Err((_, _, true)) => {}
            Err((exit, failure, false)) => return Err((exit, failure)),
        }
    }
    Ok(())
}

pub(super) fn list(node: &Node, store: &Store, matches: &ArgMatches) -> PkgOutcome {
    let layers = store.app_layers().map_err(|e| failed(&e))?;
    let used = used(node)?;
    let containers = |layer: &AppLayer| used.iter().filter(|id| **id == layer.id).count();
    let text = if matches.get_flag("json") {
        let row = |layer: &AppLayer| {
            let baked = Baked::read(layer);
            serde_json::json!({
                "id": layer.id, "apps": layer.apps, "tree": layer.tree, "bytes": layer.bytes, "containers": containers(layer),
                "asked": baked.as_ref().map(|b| &b.words), "made": baked.as_ref().map(Baked::age),
            })
        };
        format!("{:#}\n", serde_json::Value::from(layers.iter().map(row).collect::<Vec<_>>()))
    } else {
        let row = |l: &AppLayer| {
            let (kib, on) = (l.bytes.div_ceil(1024), super::counted(containers(l), "container"));
            let what = Baked::read(l).map_or_else(|| "captured".to_owned(), |b| b.words.join(","));
            format!("{:<40} {kib:>8} KiB {on:>14}, on {}: {what}\n", l.id, l.tree)
        };
        layers.iter().map(row).collect()
    };
    let written = std::io::stdout().lock().write_all(text.as_bytes());
    written.map_err(|e| system("write", std::path::Path::new("stdout"), e))
}

pub(super) fn remove(node: &Node, store: &Store, matches: &ArgMatches) -> PkgOutcome {
    let id: &String = matches.get_one("layer").expect("clap requires a layer");
    remove_unused(node, store, id).map_err(|(exit, failure, _)| (exit, failure))?;
    tracing::info!("The layer {id} was removed");
    Ok(())
}

/// Removes a layer that no container is on. The error also tells whether it was that one is.
fn remove_unused(node: &Node, store: &Store, id: &str) -> Result<(), (PkgExit, Failure, bool)> {
    let unknown = RefCell::new(None);
    // Asked when no container that could be on it is being created.
    let in_use = |id: &str| match used(node) {
        Ok(used) => used.iter().any(|u| u == id),
        Err(failure) => {
            *unknown.borrow_mut() = Some(failure);
            true
        }
    };
    store.remove_app_layer(id, &in_use).map_err(|e| match unknown.take() {
        Some((exit, failure)) => (exit, failure, false),
        None => {
            let what = format!("The layer {} was not removed", id.escape_debug());
            let is_used = matches!(e, StoreError::InUse { .. });
            (exit::of_store(&e), Failure::because(Exit::System, what, &e), is_used)
        }
    })
}

/// The layers that containers are on. One whose configuration can't be read may be on any: then nothing is told.
fn used(node: &Node) -> Made<Vec<String>> {
    let mut used = Vec::new();
    for ctid in node.containers().map_err(|e| failed(&e))? {
        let conf = Container::load(node, ctid).map_err(|e| failed(&e))?;
        used.extend(conf.own.layers.iter().map(ToString::to_string));
    }
    Ok(used)
}
