//! OS templates: `create cache`, `remove cache`, `list`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use clap::{Arg, ArgAction, ArgMatches, Command};
use templates::recipe::Bootstrap;
use templates::{
    AppLayer, Archive, CacheError, Progress, Recipe, Silent, Stage, Store, StoreError, TemplateName, Tree,
};

use super::PkgOutcome;
use super::exit::{self, PkgExit};
use crate::config::Node;
use crate::config::container::Container;
use crate::{Failure, terminal_progress};

/// The command line of what makes a cache.
pub(super) fn create_command(name: &'static str, about: &'static str) -> Command {
    Command::new(name).about(about).args([
        Arg::new("from").long("from").value_name("PATH[:TAG]").help(
            "Not by a recipe, but of an OCI image (layout or archive; docker save's too), a tar archive, or a directory",
        ),
        Arg::new("locked")
            .long("locked")
            .action(ArgAction::SetTrue)
            .conflicts_with("from")
            .help("With the packages, in the versions, that NAME.lock.json beside the cache lists"),
    ])
}

/// A path, with a tag behind it unless there is a file of all of it.
fn source(text: &str) -> Result<Bootstrap, CacheError> {
    match text.rsplit_once(':') {
        Some((path, tag)) if !Path::new(text).exists() => Bootstrap::of_path(Path::new(path), Some(tag.to_owned())),
        _ => Bootstrap::of_path(Path::new(text), None),
    }
}

/// Makes a cache by its recipe, or of what `--from` says.
fn make(store: &Store, m: &ArgMatches) -> Result<(Archive, Tree), (PkgExit, Failure)> {
    let name: &TemplateName = m.get_one("name").expect("clap requires a name");
    let failed = |e: CacheError| {
        (exit::of_cache(&e), Failure::because(crate::Exit::System, format!("The cache of {name} was not made"), &e))
    };
    let from = m.get_one::<String>("from").map(|text| source(text)).transpose().map_err(failed)?;
    let mut lines = Lines;
    let mut bar = terminal_progress(name.as_str());
    let progress: &mut dyn Progress = bar.as_mut().map_or(&mut lines, |bar| bar);
    let made = match from {
        None if m.get_flag("locked") => store.create_cache_locked(name, progress),
        None => store.create_cache(name, progress),
        Some(from) => Recipe::of_source(name, from)
            .map_err(CacheError::from)
            .and_then(|recipe| store.create_cache_by(&recipe, name, progress)),
    };
    made.map_err(failed)
}

pub(super) fn create(store: &Store, m: &ArgMatches) -> PkgOutcome {
    let name: &TemplateName = m.get_one("name").expect("clap requires a name");
    tracing::info!("Creating the cache of {name}");
    let (archive, tree) = make(store, m)?;
    tracing::info!("{} ({} MiB) is ready, its tree is {}", archive.path.display(), archive.size() >> 20, tree.id);
    Ok(())
}

/// A new version beside the old ones; those that no container is on go.
pub(super) fn update(node: &Node, store: &Store, m: &ArgMatches) -> PkgOutcome {
    let name: &TemplateName = m.get_one("name").expect("clap requires a name");
    let failed = |e: &StoreError| {
        (exit::of_store(e), Failure::because(crate::Exit::System, format!("The cache of {name} was not updated"), e))
    };
    let before = store.find(name).map_err(|e| failed(&e))?;
    let before = store.tree(&before, &mut Silent).map_err(|e| failed(&e))?;
    tracing::info!("Updating the cache of {name}");
    let (_, tree) = make(store, m)?;
    if tree.id == before.id {
        tracing::info!("{name} is as it was: {}", tree.id);
    } else {
        tracing::info!("{name} is now {}; containers stay on what they are on", tree.id);
    }
    let layers = store.app_layers().map_err(|e| failed(&e))?;
    if layers.iter().any(|layer| layer.tree != tree.id && is_on(layer, name)) {
        tracing::info!(
            "There are application layers on an older version: `vzpkg update appcache {name}` makes new ones"
        );
    }
    let users = users(node)?;
    let gone = store.prune(name, &|id| users.contains_key(id)).map_err(|e| failed(&e))?;
    let layers = store.prune_layers().map_err(|e| failed(&e))?;
    for id in &gone {
        tracing::info!("{id} was removed: no container was on it");
    }
    if !layers.is_empty() {
        tracing::info!("Removed, for nothing was on them: {}", super::counted(layers.len(), "layer"));
    }
    Ok(())
}

/// Whether an application layer lies on a version of this OS template.
fn is_on(layer: &AppLayer, name: &TemplateName) -> bool {
    layer.tree.split_once('@').is_some_and(|(os, _)| os == name.as_str())
}

/// Trees and layers that containers are on, each with those containers. A container whose configuration can't be read may be on any: then
/// nothing is to be removed.
fn users(node: &Node) -> Result<BTreeMap<String, Vec<String>>, (PkgExit, Failure)> {
    let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let unreadable = |e: &(dyn std::error::Error + 'static)| {
        (PkgExit::System, Failure::because(crate::Exit::System, "Unable to tell which templates are in use", e))
    };
    for ctid in node.containers().map_err(|e| unreadable(&e))? {
        let conf = Container::load(node, ctid).map_err(|e| unreadable(&e))?;
        for id in conf.own.tree.iter().chain(&conf.own.layers) {
            users.entry(id.to_string()).or_default().push(ctid.to_string());
        }
    }
    Ok(users)
}

/// Progress where nobody watches a terminal: one line a stage.
struct Lines;

impl Progress for Lines {
    fn stage(&mut self, stage: Stage, _: Option<u64>) {
        tracing::info!("  {}", stage.describe());
    }
    fn advance(&mut self, _: u64) {}
    fn message(&mut self, line: &str) {
        tracing::debug!("{line}");
    }
}

pub(super) fn remove(node: &Node, store: &Store, name: &TemplateName) -> PkgOutcome {
    let users = users(node)?;
    let failed = |e: &StoreError| {
        let what = format!("The cache of {name} was not removed");
        let failure = Failure::because(crate::Exit::System, what, e);
        let StoreError::InUse { trees, .. } = e else { return (exit::of_store(e), failure) };
        let on: Vec<&str> = trees.iter().filter_map(|id| users.get(id)).flatten().map(String::as_str).collect();
        (exit::of_store(e), failure.hint(format!("Containers on it: {}.", on.join(", "))))
    };
    store.remove(name, &|id| users.contains_key(id)).map_err(|e| failed(&e))?;
    store.prune_layers().map_err(|e| failed(&e))?;
    tracing::info!("The cache of {name} was removed");
    Ok(())
}

/// What there is to know of one template.
pub(super) fn info(node: &Node, store: &Store, name: &str, json: bool) -> PkgOutcome {
    let name: TemplateName = name.parse().map_err(|e| {
        (PkgExit::BadParameter, Failure::because(crate::Exit::System, format!("Bad OS template name {name}"), &e))
    })?;
    let failed = |e: &StoreError| (exit::of_store(e), Failure::from_error(crate::Exit::System, e));
    let system = |e: &(dyn std::error::Error + 'static)| (PkgExit::System, Failure::from_error(crate::Exit::System, e));
    let all = store.list().map_err(|e| failed(&e))?;
    let Some(template) = all.into_iter().find(|t| t.name == name) else {
        return Err(failed(&StoreError::NotFound { name: name.to_string(), cache: store.cache_dir() }));
    };
    let users = users(node)?;
    let archive = template.archive.as_ref();
    let image = archive.map(|a| store.image_of(a)).transpose().map_err(|e| failed(&e))?.flatten();
    let applications = store.app_layers().map_err(|e| failed(&e))?;
    let mut versions = Vec::new();
    for id in &template.trees {
        let run = store.run_of(id).map_err(|e| failed(&e))?;
        let layers = store.tree_by_id(id).map_err(|e| failed(&e))?.layers.len();
        versions.push((id, layers, run, users.get(id).cloned().unwrap_or_default()));
    }
    let mut out = std::io::stdout().lock();
    if json {
        let row = |(id, layers, run, on): &(&String, usize, Option<templates::Run>, Vec<String>)| {
            let with: Vec<&str> = applications.iter().filter(|l| l.tree == **id).map(|l| l.id.as_str()).collect();
            serde_json::json!({"tree": id, "layers": layers, "run": run, "containers": on, "appcache": with})
        };
        let versions: Vec<_> = versions.iter().map(row).collect();
        let text = serde_json::json!({
            "name": name.as_str(), "archive": archive.map(|a| &a.path), "bytes": archive.map(Archive::size),
            "mtime": archive.map(Archive::mtime), "image": image, "versions": versions,
        });
        let text = serde_json::to_string_pretty(&text).map_err(|e| system(&e))?;
        return writeln!(out, "{text}").map_err(|e| system(&e));
    }
    let mut lines = vec![format!("Name:       {name}")];
    if let Some(archive) = archive {
        lines.push(format!("Cache:      {} ({} KiB)", archive.path.display(), archive.size().div_ceil(1024)));
    }
    if let Some(image) = &image {
        lines.push(format!("Image:      {} of {}", image.manifest, image.source.display()));
    }
    for (id, layers, run, on) in &versions {
        let containers =
            if on.is_empty() { String::from("no container") } else { format!("containers {}", on.join(", ")) };
        lines.push(format!("Version:    {id}, {}, {containers}", super::counted(*layers, "layer")));
        for layer in applications.iter().filter(|layer| layer.tree == **id) {
            lines.push(format!("  with      {}, {} KiB", layer.id, layer.bytes.div_ceil(1024)));
        }
        if let Some(run) = run.as_ref().filter(|run| !run.has_init) {
            lines.push(format!("  starts    {:?} in {} as {}:{}", run.args, run.dir, run.ids.0, run.ids.1));
        }
    }
    writeln!(out, "{}", lines.join("\n")).map_err(|e| system(&e))
}

pub(super) fn list(store: &Store, json: bool) -> PkgOutcome {
    let system = |e: &(dyn std::error::Error + 'static)| (PkgExit::System, Failure::from_error(crate::Exit::System, e));
    let here = store.list().map_err(|e| system(&e))?;
    let layers = store.app_layers().map_err(|e| system(&e))?;
    let on = |t: &templates::Template| {
        layers.iter().filter(|l| is_on(l, &t.name)).map(|l| l.id.as_str()).collect::<Vec<_>>()
    };
    let missing = templates::Recipe::builtin().filter(|r| !here.iter().any(|t| t.name.as_str() == *r));
    let mut out = std::io::stdout().lock();
    let text = if json {
        let rows: Vec<_> = here
            .iter()
            .map(|t| {
                let archive = t.archive.as_ref();
                serde_json::json!({
                    "name": t.name.as_str(), "cached": archive.is_some(), "bytes": archive.map(templates::Archive::size),
                    "mtime": archive.map(templates::Archive::mtime), "trees": t.trees, "appcache": on(t),
                })
            })
            .chain(missing.map(|r| serde_json::json!({"name": r, "cached": false, "bytes": null, "mtime": null, "trees": [], "appcache": []})))
            .collect();
        serde_json::to_string_pretty(&rows).map_err(|e| system(&e))?
    } else {
        let line = |t: &templates::Template| {
            let own = match &t.archive {
                Some(a) => format!("{:<32} {:>6} MiB", t.name.as_str(), a.size() >> 20),
                None => format!("{:<32} only trees that containers are on", t.name.as_str()),
            };
            on(t).iter().fold(own, |text, layer| text + "\n  with " + layer)
        };
        let lines: Vec<String> = here
            .iter()
            .map(line)
            .chain(missing.map(|r| format!("{r:<32} can be made: vzpkg create cache {r}")))
            .collect();
        lines.join("\n")
    };
    writeln!(out, "{text}").map_err(|e| system(&e))
}
