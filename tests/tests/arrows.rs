//! Policy of the whole source tree, cheap enough to run always: who may use whom, where `unsafe` may stand,
//! how long a file may grow.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Longer than this and a file is two files.
const MAX_LINES: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests crate lies in the workspace").to_owned()
}

type Arrows = BTreeMap<String, BTreeSet<String>>;

/// The table "Rooms" of ARCHITECTURE.md: crate → the crates it may use.
fn arrows_allowed(architecture: &str) -> Arrows {
    let mut rooms = Arrows::new();
    for row in architecture.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let &[room, _, may_use] = cells.as_slice() else { panic!("a row of the table has three cells: {row}") };
        let room = room.trim_matches('`').trim_end_matches('/');
        let above: BTreeSet<String> = rooms.keys().cloned().collect();
        let allowed = match may_use {
            "nothing of ours" => BTreeSet::new(),
            "all of the above" => above,
            "the binaries, and the crates' types" => above,
            "the command lines" => continue, // examples/ is no crate
            list => list.split(',').map(|name| name.trim().to_owned()).collect(),
        };
        rooms.insert(room.to_owned(), allowed);
    }
    rooms
}

/// What cargo says: crate → the workspace's own crates it depends on. Tests of a crate may also use the crate `tests`.
fn arrows_drawn() -> Arrows {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let text = |value: &serde_json::Value| value.as_str().expect("a string").to_owned();
    let ours: BTreeSet<String> = packages.iter().map(|package| text(&package["name"])).collect();
    let uses = |package: &serde_json::Value| {
        let dependencies = package["dependencies"].as_array().expect("dependencies").iter();
        dependencies
            .filter(|d| !(d["kind"] == "dev" && d["name"] == "tests"))
            .map(|d| text(&d["name"]))
            .filter(|name| ours.contains(name))
            .collect()
    };
    packages.iter().map(|package| (text(&package["name"]), uses(package))).collect()
}

/// Every Rust file of the workspace, as (path, text).
fn sources() -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(dir).expect("readable").map(|entry| entry.expect("readable")) {
            let (path, name) = (entry.path(), entry.file_name());
            if entry.file_type().expect("typed").is_dir() {
                if name != "target" && name != ".git" {
                    walk(&path, found);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("UTF-8");
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    walk(&root(), &mut found);
    assert!(found.len() > 5, "the walk found the sources");
    found
}

/// The keyword, not the lint names it is part of, nor the word in a comment or a string on one line.
fn has_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "unsafe trait", "#[unsafe("]
        .iter()
        .any(|form| code.find(form).is_some_and(|at| code[..at].matches('"').count().is_multiple_of(2)))
}

fn in_a_sys_module(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem == "sys") || path.components().any(|part| part.as_os_str() == "sys")
}

#[test]
fn crates_depend_only_as_the_architecture_says() {
    let architecture = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let (allowed, drawn) = (arrows_allowed(&architecture), arrows_drawn());
    assert_eq!(
        allowed.keys().collect::<Vec<_>>(),
        drawn.keys().collect::<Vec<_>>(),
        "the table of rooms and the workspace name the same crates"
    );
    for (room, uses) in &drawn {
        let extra: Vec<_> = uses.difference(&allowed[room]).collect();
        assert!(extra.is_empty(), "{room} may not depend on {extra:?}: see the table in ARCHITECTURE.md");
    }
}

#[test]
fn unsafe_stands_only_in_modules_named_sys() {
    let mut found = Vec::new();
    for (path, text) in sources().iter().filter(|(path, _)| !in_a_sys_module(path)) {
        let lines = text.lines().enumerate().filter(|(_, line)| has_unsafe(line));
        found.extend(lines.map(|(number, line)| format!("{}:{}: {}", path.display(), number + 1, line.trim())));
    }
    assert!(found.is_empty(), "move these into a module named `sys`:\n{}", found.join("\n"));
}

#[test]
fn no_source_file_is_longer_than_one_sitting() {
    let long: Vec<String> = sources()
        .iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|&(_, lines)| lines > MAX_LINES)
        .map(|(path, lines)| format!("{}: {lines} lines", path.display()))
        .collect();
    assert!(long.is_empty(), "more than {MAX_LINES} lines:\n{}", long.join("\n"));
}

#[test]
fn the_checks_above_can_fail() {
    let table = "| `a/` | x | nothing of ours |\n| `b/` | x | a |\n| `c/` | x | all of the above |\n";
    let rooms = arrows_allowed(table);
    assert!(rooms["a"].is_empty());
    assert!(rooms["b"].contains("a") && rooms["c"].contains("b"));
    assert!(has_unsafe("let x = unsafe { f() };") && has_unsafe("#[unsafe(no_mangle)]"));
    assert!(!has_unsafe("#![expect(unsafe_code)]") && !has_unsafe("// unsafe { }") && !has_unsafe("\"unsafe {\""));
    assert!(in_a_sys_module(Path::new("vzrt/src/sys.rs")) && !in_a_sys_module(Path::new("vzrt/src/system.rs")));
}
