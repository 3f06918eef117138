//! Applications that were installed once, into a layer below the private areas of many containers: what is recorded beside the layer, and
//! which layer is the one that a container asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use templates::app::{Kind, Values};
use templates::{AppLayer, Hold, Store, TemplateName};
use vzrt::Ctid;

use super::record::Record;
use super::{Fail, because, fail, install, requests, shelf};
use crate::config::Node;
use crate::config::settings::Change;
use crate::config::values::TemplateTree;
use crate::pkg::exit::{self, PkgExit};
use crate::{Exit, Failure};

/// What would be installed if somebody asked for these words: everything that makes one layer another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::pkg) struct Stack {
    words: Vec<String>,
    /// In the order of installation, what others require included.
    names: Vec<TemplateName>,
    values: BTreeMap<String, Values>,
    /// SHA-256 of the text of each template.
    templates: BTreeMap<String, String>,
    /// The templates with a secret among their parameters, and its name.
    secrets: Vec<(String, String)>,
}

/// What is recorded beside a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::pkg) struct Baked {
    /// Seconds since 1970: of several layers of the same the last one counts.
    made: u64,
    /// As they were asked for, to ask again.
    pub(in crate::pkg) words: Vec<String>,
    templates: BTreeMap<String, String>,
    /// What a container on the layer has from its beginning.
    record: Record,
}

impl Stack {
    /// Reads the templates; nothing is installed.
    pub(in crate::pkg) fn of(node: &Node, words: &[String]) -> Result<Self, Fail> {
        let (shelf, requests) = (shelf(node), requests(words)?);
        let wanted = install::decide(&shelf, &Record::default(), &requests)?;
        let mut stack = Self {
            words: words.iter().flat_map(|w| w.split(',')).filter(|w| !w.is_empty()).map(str::to_owned).collect(),
            names: Vec::new(),
            values: BTreeMap::new(),
            templates: BTreeMap::new(),
            secrets: Vec::new(),
        };
        for (app, values) in wanted.0 {
            let cannot = |e: &(dyn std::error::Error + 'static)| {
                because(PkgExit::Broken, format!("Application template {} can't be read", app.name), e)
            };
            let name: TemplateName = app.name.parse().map_err(|e| cannot(&e))?;
            let digest =
                shelf.digest(&name).map_err(|e| because(exit::of_app(&e), "No such application template", &e))?;
            let secrets = app.parameters.iter().filter(|(_, p)| p.kind == Kind::Secret);
            stack.secrets.extend(secrets.map(|(parameter, _)| (app.name.clone(), parameter.clone())));
            stack.templates.insert(app.name.clone(), digest);
            stack.values.insert(app.name, values);
            stack.names.push(name);
        }
        Ok(stack)
    }

    /// A layer is read by all containers on it, and by whoever gets root in one of them.
    pub(in crate::pkg) fn refuse_secrets(&self) -> Result<(), Fail> {
        let Some((app, parameter)) = self.secrets.first() else { return Ok(()) };
        let what = format!("{app} has a secret, {parameter}, which all containers on one layer would share");
        let (exit, failure) = fail(PkgExit::Unavailable, what);
        Err((exit, failure.hint("Leave it out here, and `vzpkg install` it into each container.")))
    }

    /// As they were asked for.
    pub(in crate::pkg) fn words(&self) -> impl Iterator<Item = &str> {
        self.words.iter().map(String::as_str)
    }

    /// What is chosen of each.
    pub(in crate::pkg) fn values(&self) -> &BTreeMap<String, Values> {
        &self.values
    }

    /// In the order of installation.
    pub(in crate::pkg) fn names(&self) -> &[TemplateName] {
        &self.names
    }
}

impl Baked {
    /// What has just been installed into a container, for a layer made of it.
    pub(in crate::pkg) fn of(node: &Node, ctid: Ctid, stack: &Stack) -> Result<Self, Fail> {
        let record = Record::load(node, ctid)?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(Self { made: now.as_secs(), words: stack.words.clone(), templates: stack.templates.clone(), record })
    }

    /// That of a layer; `None` of one that was captured.
    pub(in crate::pkg) fn read(layer: &AppLayer) -> Option<Self> {
        let baked = serde_json::from_value(layer.installed.clone()?);
        baked.inspect_err(|e| tracing::warn!("Warning: the record of the layer {} is damaged: {e}", layer.id)).ok()
    }

    /// As [`AppLayer`] keeps it.
    pub(in crate::pkg) fn written(&self) -> Result<serde_json::Value, Fail> {
        serde_json::to_value(self)
            .map_err(|e| because(PkgExit::Internal, "The record of the layer can't be written", &e))
    }

    /// Whether just this was installed, by these templates.
    fn fits(&self, stack: &Stack) -> bool {
        self.templates == stack.templates && self.values() == stack.values
    }

    /// What was chosen of each: layers of the same values are versions of one another.
    pub(in crate::pkg) fn values(&self) -> BTreeMap<String, Values> {
        self.record.apps.iter().map(|app| (app.name.clone(), app.parameters.clone())).collect()
    }

    /// Whether a container on either would have the same templates, packages and files of templates.
    pub(in crate::pkg) fn is_same_as(&self, other: &Self) -> bool {
        (&self.templates, &self.record) == (&other.templates, &other.record)
    }

    /// By which the latest of several is found.
    pub(in crate::pkg) fn age(&self) -> u64 {
        self.made
    }
}

/// The latest layer on a tree that has what is asked for, and nothing else.
pub(in crate::pkg) fn find(store: &Store, tree: &str, stack: &Stack) -> Result<Option<(AppLayer, Baked)>, Fail> {
    let names: BTreeSet<&str> = stack.names.iter().map(TemplateName::as_str).collect();
    let layers = store.app_layers_for(tree, &names.into_iter().collect::<Vec<_>>());
    let layers = layers.map_err(|e| because(exit::of_store(&e), "Unable to look for application layers", &e))?;
    let baked = layers.into_iter().filter_map(|layer| Baked::read(&layer).map(|baked| (layer, baked)));
    Ok(baked.filter(|(_, baked)| baked.fits(stack)).max_by(|a, b| (a.1.made, &a.0.id).cmp(&(b.1.made, &b.0.id))))
}

/// The layer of a container that is being created.
pub(crate) struct AtCreate {
    layer: TemplateTree,
    record: Record,
    /// Until the container's configuration is saved.
    _hold: Hold,
}

/// For `vzctl create`: the layer that has what would be installed, if there is one.
pub(crate) fn at_create(node: &Node, tree: &TemplateTree, words: &[String]) -> Result<Option<AtCreate>, Failure> {
    if words.is_empty() {
        return Ok(None);
    }
    let store = Store::open(&node.global.template_dir);
    let go = || -> Result<Option<AtCreate>, Fail> {
        let stack = Stack::of(node, words)?;
        let hold = store.hold_app_layers();
        let hold = hold.map_err(|e| because(PkgExit::System, "Unable to look for application layers", &e))?;
        let Some((layer, baked)) = find(&store, &tree.to_string(), &stack)? else { return Ok(None) };
        let id = TemplateTree::parse(&layer.id);
        let id = id.map_err(|e| because(PkgExit::Internal, format!("The layer {} has no name", layer.id), &e))?;
        tracing::info!("{} come from the layer {id}: nothing is installed", layer.apps.join(", "));
        Ok(Some(AtCreate { layer: id, record: baked.record, _hold: hold }))
    };
    go().map_err(|(_, mut failure)| {
        failure.exit = Exit::NoSuchTemplate;
        failure
    })
}

impl AtCreate {
    /// What the configuration says of it.
    pub(crate) fn changes(&self) -> [Change; 2] {
        [Change::Layers(vec![self.layer.clone()]), Change::Templates(self.record.installed())]
    }

    /// Records what the container has; before its configuration says so, for a container that lies on a layer and does not know it could never
    /// get rid of it.
    pub(crate) fn save(&self, node: &Node, ctid: Ctid) -> Result<(), Failure> {
        self.record.save(node, ctid).map_err(|(_, failure)| failure)
    }
}

/// The container has no root, or lost it: it has no applications, whatever was recorded.
pub(crate) fn forget(node: &Node, ctid: Ctid) -> Result<(), Failure> {
    Record::default().save(node, ctid).map_err(|(_, failure)| failure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pkg::app::record::{App, State};

    fn app(name: &str, port: &str) -> App {
        App {
            name: name.into(),
            version: "1".into(),
            state: State::Installed,
            parameters: Values::from([("port".to_owned(), port.to_owned())]),
            requires: Vec::new(),
            conflicts: Vec::new(),
            packages: BTreeMap::from([(name.to_owned(), "1.0".to_owned())]),
            files: Vec::new(),
            directories: Vec::new(),
            services: Vec::new(),
            commands_run: true,
            captured: None,
            pre_remove: Vec::new(),
            post_remove: Vec::new(),
        }
    }

    fn stack(apps: &[(&str, &str)], text: &str) -> Stack {
        Stack {
            words: Vec::new(),
            names: apps.iter().map(|(name, _)| name.parse().unwrap()).collect(),
            values: apps.iter().map(|(name, port)| ((*name).to_owned(), app(name, port).parameters)).collect(),
            templates: apps.iter().map(|(name, _)| ((*name).to_owned(), text.to_owned())).collect(),
            secrets: Vec::new(),
        }
    }

    fn baked() -> Baked {
        let record = Record { apps: vec![app("web", "80"), app("db", "3306")] };
        let templates = stack(&[("web", "80"), ("db", "3306")], "text").templates;
        Baked { made: 1, words: vec!["web,db".into()], templates, record }
    }

    #[test]
    fn a_layer_fits_what_has_the_same_templates_and_values_in_any_order_and_nothing_else() {
        let fits = |apps: &[(&str, &str)], text: &str| baked().fits(&stack(apps, text));
        assert!(fits(&[("web", "80"), ("db", "3306")], "text"));
        assert!(fits(&[("db", "3306"), ("web", "80")], "text"));
        assert!(!fits(&[("db", "3306"), ("web", "81")], "text"), "another value");
        assert!(!fits(&[("db", "3306"), ("web", "80")], "changed"), "another template");
        assert!(!fits(&[("web", "80")], "text"), "less");
        assert!(!fits(&[("web", "80"), ("db", "3306"), ("more", "1")], "text"), "more");
    }

    #[test]
    fn another_version_of_a_package_makes_another_layer_and_another_time_does_not() {
        let mut other = baked();
        other.made = 2;
        assert!(other.is_same_as(&baked()));
        other.record.apps[0].packages.insert("web".into(), "1.1".into());
        assert!(!other.is_same_as(&baked()));
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_a_captured_layer_has_none() {
        let installed = baked().written().map_err(|(exit, _)| exit).unwrap();
        let layer = |installed| AppLayer {
            id: "web@0123456789abcdef".into(),
            apps: vec!["web".into()],
            tree: "os@0123456789abcdef".into(),
            bytes: 0,
            installed,
        };
        assert_eq!(Baked::read(&layer(Some(installed))), Some(baked()));
        assert_eq!(Baked::read(&layer(None)), None);
        assert_eq!(Baked::read(&layer(Some(serde_json::json!({"made": "x"})))), None);
    }
}
