//! OS templates: `create cache`, `remove cache`, `list`.

use std::io::Write;

use templates::{Progress, Stage, Store, TemplateName};

use super::PkgOutcome;
use super::exit::{self, PkgExit};
use crate::config::Node;
use crate::config::container::Container;
use crate::{Failure, terminal_progress};

pub(super) fn create(store: &Store, name: &TemplateName) -> PkgOutcome {
    tracing::info!("Creating the cache of {name}");
    let mut lines = Lines;
    let mut bar = terminal_progress(name.as_str());
    let progress: &mut dyn Progress = bar.as_mut().map_or(&mut lines, |bar| bar);
    let (archive, tree) = store.create_cache(name, progress).map_err(|e| {
        (exit::of_cache(&e), Failure::because(crate::Exit::System, format!("The cache of {name} was not made"), &e))
    })?;
    drop(bar);
    tracing::info!("{} ({} MiB) is ready, its tree is {}", archive.path.display(), archive.size() >> 20, tree.id);
    Ok(())
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
    // A container whose configuration can't be read may be on the tree: then nothing is removed.
    let mut used = Vec::new();
    let unreadable = |e: &(dyn std::error::Error + 'static)| {
        (PkgExit::System, Failure::because(crate::Exit::System, "Unable to tell which templates are in use", e))
    };
    for ctid in node.containers().map_err(|e| unreadable(&e))? {
        let conf = Container::load(node, ctid).map_err(|e| unreadable(&e))?;
        used.extend(conf.own.tree.iter().chain(&conf.own.layers).map(ToString::to_string));
    }
    store.remove(name, &|id| used.iter().any(|u| u == id)).map_err(|e| {
        (exit::of_store(&e), Failure::because(crate::Exit::System, format!("The cache of {name} was not removed"), &e))
    })?;
    tracing::info!("The cache of {name} was removed");
    Ok(())
}

pub(super) fn list(store: &Store, json: bool) -> PkgOutcome {
    let system = |e: &(dyn std::error::Error + 'static)| (PkgExit::System, Failure::from_error(crate::Exit::System, e));
    let here = store.list().map_err(|e| system(&e))?;
    let missing = templates::Recipe::builtin().filter(|r| !here.iter().any(|t| t.name.as_str() == *r));
    let mut out = std::io::stdout().lock();
    let text = if json {
        let rows: Vec<_> = here
            .iter()
            .map(|t| {
                let archive = t.archive.as_ref();
                serde_json::json!({
                    "name": t.name.as_str(), "cached": archive.is_some(), "bytes": archive.map(templates::Archive::size),
                    "mtime": archive.map(templates::Archive::mtime), "trees": t.trees,
                })
            })
            .chain(missing.map(|r| serde_json::json!({"name": r, "cached": false, "bytes": null, "mtime": null, "trees": []})))
            .collect();
        serde_json::to_string_pretty(&rows).map_err(|e| system(&e))?
    } else {
        let line = |t: &templates::Template| match &t.archive {
            Some(a) => format!("{:<32} {:>6} MiB", t.name.as_str(), a.size() >> 20),
            None => format!("{:<32} only trees that containers are on", t.name.as_str()),
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
