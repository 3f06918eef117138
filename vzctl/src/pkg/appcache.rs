//! Application layers: `list appcache`, `remove appcache`, and making one of what a temporary container has.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;

use clap::{Arg, ArgAction, ArgMatches, Command};
use templates::difference::{self, Bounds, Entry, Form};
use templates::{AppLayer, Store, TemplateName};

use super::PkgOutcome;
use super::exit::{self, PkgExit};
use super::temporary::{Taken, Temporary, failed, system};
use crate::config::Node;
use crate::config::container::Container;
use crate::{Exit, Failure};

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
) -> Result<AppLayer, (PkgExit, Failure)> {
    let work = temporary.work()?;
    let target = File::open(&work).map_err(|e| system("open", &work, e))?;
    let cannot = |e: &(dyn std::error::Error + 'static)| Failure::because(Exit::System, "No layer was made", e);
    let (after, bounds) = (taken.after.as_fd(), Bounds::default());
    let written = difference::write(chosen, after, target.as_fd(), Form::Layer, &bounds);
    let written = written.map_err(|e| (PkgExit::System, cannot(&e)))?;
    let layer = store.add_app_layer(apps, &taken.tree, &work, &written);
    layer.map_err(|e| (exit::of_store(&e), cannot(&e)))
}

pub(super) fn list(node: &Node, store: &Store, matches: &ArgMatches) -> PkgOutcome {
    let layers = store.app_layers().map_err(|e| failed(&e))?;
    let used = used(node)?;
    let containers = |layer: &AppLayer| used.iter().filter(|id| **id == layer.id).count();
    let text = if matches.get_flag("json") {
        let row = |layer: &AppLayer| {
            serde_json::json!({
                "id": layer.id, "apps": layer.apps, "tree": layer.tree, "bytes": layer.bytes, "containers": containers(layer),
            })
        };
        format!("{:#}\n", serde_json::Value::from(layers.iter().map(row).collect::<Vec<_>>()))
    } else {
        let row = |l: &AppLayer| {
            format!("{:<40} {:>8} KiB {:>5} containers, on {}\n", l.id, l.bytes.div_ceil(1024), containers(l), l.tree)
        };
        layers.iter().map(row).collect()
    };
    let written = std::io::stdout().lock().write_all(text.as_bytes());
    written.map_err(|e| system("write", std::path::Path::new("stdout"), e))
}

pub(super) fn remove(node: &Node, store: &Store, matches: &ArgMatches) -> PkgOutcome {
    let id: &String = matches.get_one("layer").expect("clap requires a layer");
    let used = used(node)?;
    store.remove_app_layer(id, &|id| used.iter().any(|u| u == id)).map_err(|e| {
        (
            exit::of_store(&e),
            Failure::because(Exit::System, format!("The layer {} was not removed", id.escape_debug()), &e),
        )
    })?;
    tracing::info!("The layer {id} was removed");
    Ok(())
}

/// The layers that containers are on. One whose configuration can't be read may be on any: then nothing is told.
fn used(node: &Node) -> Result<Vec<String>, (PkgExit, Failure)> {
    let mut used = Vec::new();
    for ctid in node.containers().map_err(|e| failed(&e))? {
        let conf = Container::load(node, ctid).map_err(|e| failed(&e))?;
        used.extend(conf.own.layers.iter().map(ToString::to_string));
    }
    Ok(used)
}
