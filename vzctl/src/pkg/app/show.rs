//! What is printed.

use std::fmt::Write as _;
use std::io::Write as _;

use clap::ArgMatches;
use serde_json::json;
use templates::app::{AppTemplate, Kind, Shelf};
use templates::pm::Deb;

use super::record::Record;
use super::{Fail, because};
use crate::pkg::exit::{self, PkgExit};

fn print(text: &str) -> Result<(), Fail> {
    std::io::stdout().lock().write_all(text.as_bytes()).map_err(|e| because(PkgExit::System, "Unable to print", &e))
}

fn print_json(value: &serde_json::Value) -> Result<(), Fail> {
    print(&format!("{value:#}\n"))
}

/// The templates there are. One with a mistake does not hide the others.
pub(super) fn templates(shelf: &Shelf, as_json: bool) -> Result<(), Fail> {
    let names = AppTemplate::names(shelf.directory())
        .map_err(|e| because(PkgExit::System, "Unable to list application templates", &e))?;
    let mut apps = Vec::new();
    for name in names {
        match shelf.load(&name) {
            Ok(app) => apps.push(app),
            Err(e) => because(PkgExit::Broken, format!("{name} is left out"), &e).1.tell(),
        }
    }
    if as_json {
        let rows = apps.iter().map(|a| json!({"name": a.name, "version": a.version, "description": a.description}));
        return print_json(&rows.collect());
    }
    print(&apps.iter().fold(String::new(), |t, a| t + &format!("{:<20} {:<8} {}\n", a.name, a.version, a.description)))
}

/// Those of a container. Secrets are not shown.
pub(super) fn installed(record: &Record, as_json: bool) -> Result<(), Fail> {
    if as_json {
        let rows = record.apps.iter().map(|a| {
            json!({"name": a.name, "version": a.version, "state": a.state, "packages": a.packages,
                   "files": a.files.iter().map(|f| &f.path).collect::<Vec<_>>(), "requires": a.requires})
        });
        return print_json(&rows.collect());
    }
    print(
        &record.apps.iter().fold(String::new(), |t, a| {
            t + &format!("{:<20} {:<8} {:>3} packages\n", a.name, a.version, a.packages.len())
        }),
    )
}

/// Packages that are out of date.
pub(super) fn outdated(plan: &[Deb], as_json: bool) -> Result<(), Fail> {
    if as_json {
        let rows = plan.iter().map(|d| json!({"name": d.name, "version": d.replaces, "available": d.version}));
        return print_json(&rows.collect());
    }
    print(&plan.iter().fold(String::new(), |t, d| {
        t + &format!("{:<32} {:<24} {}\n", d.name, d.replaces.as_deref().unwrap_or("-"), d.version)
    }))
}

/// All of one template.
pub(super) fn info(shelf: &Shelf, matches: &ArgMatches) -> Result<(), Fail> {
    let name = matches.get_one::<String>("name").map_or("", String::as_str);
    let parsed =
        name.parse().map_err(|e| because(PkgExit::BadParameter, format!("Bad application template {name}"), &e))?;
    let app = shelf.load(&parsed).map_err(|e| because(exit::of_app(&e), "No such application template", &e))?;
    let parameters = app.parameters.iter();
    if matches.get_flag("json") {
        let parameters: serde_json::Map<String, serde_json::Value> = parameters
            .map(|(n, p)| {
                (n.clone(), json!({"type": kind(p.kind), "default": p.default, "description": p.description}))
            })
            .collect();
        let systems: Vec<_> = (app.systems.iter())
            .map(|s| json!({"family": s.family, "releases": s.releases, "packages": s.packages}))
            .collect();
        return print_json(
            &json!({"name": app.name, "version": app.version, "description": app.description, "for": systems,
            "requires": app.requires, "conflicts": app.conflicts, "parameters": parameters, "services": app.services.enable, "captured": app.captured}),
        );
    }
    let mut text =
        format!("name:        {}\nversion:     {}\ndescription: {}\n", app.name, app.version, app.description);
    for system in &app.systems {
        let releases = if system.releases.is_empty() { "all".to_owned() } else { system.releases.join(" ") };
        let _ = writeln!(text, "for:         {} ({releases}): {}", system.family, system.packages.join(" "));
    }
    for (title, list) in
        [("requires", &app.requires), ("conflicts", &app.conflicts), ("services", &app.services.enable)]
    {
        if !list.is_empty() {
            let _ = writeln!(text, "{:<12} {}", format!("{title}:"), list.join(" "));
        }
    }
    if let Some(captured) = &app.captured {
        let names = |lines: &[String]| lines.iter().filter_map(|l| l.split(':').next()).collect::<Vec<_>>().join(" ");
        let (users, groups) = (names(&captured.users), names(&captured.groups));
        let packages = [captured.packages.join(" "), captured.packages_removed.join(" ")];
        let lists = [
            ("files", &captured.files),
            ("removed", &captured.removed.join(" ")),
            ("users", &users),
            ("groups", &groups),
            ("members", &captured.members.join(" ")),
            ("packages", &packages[0]),
            ("instead of", &packages[1]),
        ];
        for (title, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            let _ = writeln!(text, "{:<12} {list}", format!("{title}:"));
        }
    }
    for (name, parameter) in parameters {
        let default =
            parameter.default.as_deref().unwrap_or(if parameter.kind == Kind::Secret { "made up" } else { "none" });
        let _ = writeln!(
            text,
            "parameter:   {name} ({}, default {default}): {}",
            kind(parameter.kind),
            parameter.description
        );
    }
    print(&text)
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Port => "port",
        Kind::String => "string",
        Kind::Secret => "secret",
    }
}
