//! `vzubc`: the beancounters of running containers for a person to read.

mod args;
mod enforcement;
mod events;
mod saved;
mod table;

use std::ffi::OsString;
use std::io::{IsTerminal, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;

use beancounters::parse::{self, Block};
use beancounters::{Resource, bpf};
use serde::Serialize;

use self::args::Args;
use self::saved::Saved;
use self::table::Style;
use vzrt::{Ctid, RunDir};

use crate::boot::{self, Up};
use crate::config::{Node, names, node};
use crate::failure::chain;

pub use args::command;

/// Why nothing is shown, in a line.
type Trouble = String;

/// The program: `argv` begins with its own name. Returns the exit code: 0, or 1.
#[must_use]
pub fn main(argv: Vec<OsString>) -> u8 {
    let argv = args::spelled(argv);
    let matches = match command().try_get_matches_from(&argv) {
        Ok(matches) => matches,
        Err(e) => {
            let _ = e.print();
            return u8::from(e.use_stderr());
        }
    };
    if let Some(words) = args::watched(&matches, &argv) {
        let error = std::process::Command::new("watch").args(words).exec();
        eprintln!("vzubc: execve(watch): {error} (Debian has it in procps)");
        return 1;
    }
    match run(&Args::of(&matches)) {
        Ok(text) => match std::io::stdout().lock().write_all(text.as_bytes()) {
            Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
                eprintln!("vzubc: write(stdout): {e}");
                1
            }
            _ => 0,
        },
        Err(trouble) => {
            eprintln!("vzubc: {trouble}");
            1
        }
    }
}

fn run(args: &Args) -> Result<String, Trouble> {
    if args.enforcement {
        return enforcement(args);
    }
    if args.events {
        let node = open(args)?;
        if args.follow {
            return events::follow(&node, &args.containers, args.json, std::io::stdout()).map(|()| String::new());
        }
        return events::remembered(&node, &args.containers, args.json);
    }
    let (Tables { blocks, sampled }, store) = match &args.file {
        Some(file) => (from_file(file, &args.containers)?, args.store.clone()),
        None => {
            let node = open(args)?;
            let store = args.store.clone().unwrap_or_else(|| node.global.run_dir.join("vzubc"));
            (running(&node, &args.containers)?, Some(store))
        }
    };
    if args.json {
        return serde_json::to_string_pretty(
            &blocks.iter().map(|block| Shown::of(block, &sampled)).collect::<Vec<_>>(),
        )
        .map(|text| text + "\n")
        .map_err(|e| e.to_string());
    }
    let last = Last::read(args, store.as_deref())?;
    let style = Style {
        quiet: args.quiet,
        verbose: args.verbose,
        colour: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        failures_since: args.relative.then_some(&last.saved),
        held_since: args.incremental.then_some(&last.saved),
        sampled: &sampled,
    };
    let text = table::render(&blocks, &style);
    last.keep(args, &blocks)?;
    Ok(text)
}

fn open(args: &Args) -> Result<Node, Trouble> {
    Node::open(node::config_dir(args.config_dir.as_deref())).map_err(|e| chain(&e))
}

/// What becomes of each beancounter of the containers that run.
fn enforcement(args: &Args) -> Result<String, Trouble> {
    let node = open(args)?;
    let host = vzrt::cgroup::Host::detect(Path::new("/")).map_err(|e| chain(&e))?;
    let mut tables = Vec::new();
    for ctid in chosen(&node, &args.containers)? {
        let cgroup = host.container(&node.global.cgroup, ctid);
        let kernel = kernel(cgroup.cgroup2()).map_err(|e| chain(&e))?;
        let standing = |resource| {
            let counted = bpf::RESOURCES.iter().any(|counting| counting.resource == resource);
            kernel.as_ref().filter(|_| counted).and_then(|kernel| kernel.standing(resource).ok())
        };
        let uncharged = |kernel: &bpf::Host| kernel.uncharged(bpf::id(cgroup.cgroup2())?);
        let uncharged = kernel.as_ref().map_or(Ok(0), uncharged).map_err(|e| chain(&e))?;
        tables.push((ctid.get(), enforcement::rows(&cgroup.sources(), standing, uncharged)));
    }
    if args.json {
        let tables: std::collections::BTreeMap<_, _> = tables.into_iter().collect();
        return serde_json::to_string_pretty(&tables).map(|text| text + "\n").map_err(|e| e.to_string());
    }
    Ok(tables.iter().map(|(ctid, rows)| enforcement::render(*ctid, rows)).collect())
}

/// The kernel's beancounters, if this container is attached to them.
fn kernel(cgroup: &Path) -> Result<Option<bpf::Host>, bpf::Error> {
    let Some(host) = bpf::Host::open()? else { return Ok(None) };
    Ok(host.has(bpf::id(cgroup)?)?.then_some(host))
}

/// What was seen the last time, where that matters.
struct Last<'a> {
    saved: Saved,
    store: Option<&'a Path>,
}

impl<'a> Last<'a> {
    fn read(args: &Args, store: Option<&'a Path>) -> Result<Self, Trouble> {
        let matters = args.relative || args.incremental || args.clear_failures || args.clear_held;
        if !matters {
            return Ok(Self { saved: Saved::default(), store: None });
        }
        let store = store.ok_or("with --file, --store must say where the last time is remembered")?;
        let mut saved = Saved::read(store).map_err(|e| e.to_string())?;
        if args.clear_failures {
            saved.forget_failures();
        }
        if args.clear_held {
            saved.forget_held();
        }
        Ok(Self { saved, store: Some(store) })
    }

    fn keep(mut self, args: &Args, blocks: &[Block]) -> Result<(), Trouble> {
        let Some(store) = self.store else { return Ok(()) };
        if args.relative {
            self.saved.keep_failures(blocks);
        }
        if args.incremental {
            self.saved.keep_held(blocks);
        }
        self.saved.write(store).map_err(|e| format!("{}: {e}", store.display()))
    }
}

/// The containers' tables.
#[derive(Default)]
struct Tables {
    blocks: Vec<Block>,
    /// Rows whose maxheld is only the most that anybody has seen.
    sampled: Vec<(u32, Resource)>,
}

/// A table that somebody else made. Names mean nothing there, and it does not say what is sampled.
fn from_file(file: &Path, containers: &[String]) -> Result<Tables, Trouble> {
    let mut text = String::new();
    if file.as_os_str() == "-" {
        std::io::stdin().lock().read_to_string(&mut text).map_err(|e| format!("read(stdin): {e}"))?;
    } else {
        text = fs_err::read_to_string(file).map_err(|e| e.to_string())?;
    }
    let mut blocks = parse::tables(&text).map_err(|e| format!("{}: {e}", file.display()))?;
    blocks.retain(|block| containers.is_empty() || containers.contains(&block.id.to_string()));
    Ok(Tables { blocks, sampled: Vec::new() })
}

/// The containers that run here, of these only if any are named. Those of no such number or name are left out, as vzubc does.
fn chosen(node: &Node, containers: &[String]) -> Result<Vec<Ctid>, Trouble> {
    if !rustix::process::geteuid().is_root() {
        return Err("This program can only be run under root.".to_owned());
    }
    let wanted: Vec<Ctid> = containers.iter().filter_map(|word| names::resolve(node, word).ok()).collect();
    let mut chosen = Vec::new();
    for (ctid, up) in boot::present(node).map_err(|e| e.to_string())? {
        if up == Up::Running && (containers.is_empty() || wanted.contains(&ctid)) {
            chosen.push(ctid);
        }
    }
    Ok(chosen)
}

/// Their rows.
fn running(node: &Node, containers: &[String]) -> Result<Tables, Trouble> {
    let host = vzrt::cgroup::Host::detect(Path::new("/")).map_err(|e| chain(&e))?;
    let mut tables = Tables::default();
    for ctid in chosen(node, containers)? {
        let rows = vzrt::counters::running(&RunDir::new(node.run_dir(ctid)), &host).map_err(|e| chain(&e))?;
        let Some(rows) = rows else { continue };
        tables.blocks.push(Block { id: ctid.get(), rows: rows.counters.iter().collect() });
        tables.sampled.extend(rows.sampled.into_iter().map(|resource| (ctid.get(), resource)));
    }
    Ok(tables)
}

/// A container in JSON. Numbers are in the resource's own unit.
#[derive(Serialize)]
struct Shown {
    ctid: u32,
    beancounters: Vec<ShownRow>,
}

#[derive(Serialize)]
struct ShownRow {
    resource: &'static str,
    unit: beancounters::Unit,
    #[serde(flatten)]
    counter: beancounters::Counter,
    /// Nobody watches the most it has: maxheld is the most that anybody has seen.
    maxheld_sampled: bool,
}

impl Shown {
    fn of(block: &Block, sampled: &[(u32, Resource)]) -> Self {
        let row = |&(resource, counter): &(Resource, beancounters::Counter)| ShownRow {
            resource: resource.name(),
            unit: resource.unit(),
            counter,
            maxheld_sampled: sampled.contains(&(block.id, resource)),
        };
        Self { ctid: block.id, beancounters: block.rows.iter().map(row).collect() }
    }
}
