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

use beancounters::bpf;
use beancounters::parse::{self, Block};
use serde::Serialize;

use self::args::Args;
use self::saved::Saved;
use self::table::Style;
use vzrt::Ctid;

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
        return events(args);
    }
    let (blocks, store) = match &args.file {
        Some(file) => (from_file(file, &args.containers)?, args.store.clone()),
        None => {
            let node = Node::open(node::config_dir(args.config_dir.as_deref())).map_err(|e| chain(&e))?;
            let store = args.store.clone().unwrap_or_else(|| node.global.run_dir.join("vzubc"));
            (running(&node, &args.containers)?, Some(store))
        }
    };
    if args.json {
        return serde_json::to_string_pretty(&blocks.iter().map(Shown::of).collect::<Vec<_>>())
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
    };
    let text = table::render(&blocks, &style);
    last.keep(args, &blocks)?;
    Ok(text)
}

/// What becomes of each beancounter of the containers that run.
fn enforcement(args: &Args) -> Result<String, Trouble> {
    let node = Node::open(node::config_dir(args.config_dir.as_deref())).map_err(|e| chain(&e))?;
    let host = vzrt::cgroup::Host::detect(Path::new("/")).map_err(|e| chain(&e))?;
    let mut tables = Vec::new();
    for block in running(&node, &args.containers)? {
        let ctid = Ctid::try_from(block.id).map_err(|e| e.to_string())?;
        let cgroup = host.container(&node.global.cgroup, ctid);
        let kernel = kernel(cgroup.cgroup2()).map_err(|e| chain(&e))?;
        let standing = |resource| {
            let counted = bpf::RESOURCES.iter().any(|counting| counting.resource == resource);
            kernel.as_ref().filter(|_| counted).and_then(|kernel| kernel.standing(resource).ok())
        };
        tables.push((block.id, enforcement::rows(&cgroup.sources(), standing)));
    }
    if args.json {
        let tables: std::collections::BTreeMap<_, _> = tables.into_iter().collect();
        return serde_json::to_string_pretty(&tables).map(|text| text + "\n").map_err(|e| e.to_string());
    }
    Ok(tables.iter().map(|(ctid, rows)| enforcement::render(*ctid, rows)).collect())
}

/// The last refusals of the containers that run.
fn events(args: &Args) -> Result<String, Trouble> {
    let node = Node::open(node::config_dir(args.config_dir.as_deref())).map_err(|e| chain(&e))?;
    let host = vzrt::cgroup::Host::detect(Path::new("/")).map_err(|e| chain(&e))?;
    let mut all = Vec::new();
    for block in running(&node, &args.containers)? {
        let ctid = Ctid::try_from(block.id).map_err(|e| e.to_string())?;
        let cgroup = host.container(&node.global.cgroup, ctid);
        let of = |kernel: bpf::Host| kernel.refusals(bpf::id(cgroup.cgroup2())?);
        let refusals = kernel(cgroup.cgroup2()).and_then(|kernel| kernel.map(of).transpose()).map_err(|e| chain(&e))?;
        all.push((block.id, refusals.unwrap_or_default()));
    }
    if args.json {
        let shown = |(ctid, refusals): &(u32, Vec<bpf::Refusal>)| {
            (
                *ctid,
                refusals.iter().map(|refusal| serde_json::json!(events::Event::of(*ctid, refusal))).collect::<Vec<_>>(),
            )
        };
        let all: std::collections::BTreeMap<_, _> = all.iter().map(shown).collect();
        return serde_json::to_string_pretty(&all).map(|text| text + "\n").map_err(|e| e.to_string());
    }
    Ok(all.iter().map(|(ctid, refusals)| events::render(*ctid, refusals)).collect())
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

/// A table that somebody else made. Names mean nothing there.
fn from_file(file: &Path, containers: &[String]) -> Result<Vec<Block>, Trouble> {
    let mut text = String::new();
    if file.as_os_str() == "-" {
        std::io::stdin().lock().read_to_string(&mut text).map_err(|e| format!("read(stdin): {e}"))?;
    } else {
        text = fs_err::read_to_string(file).map_err(|e| e.to_string())?;
    }
    let mut blocks = parse::tables(&text).map_err(|e| format!("{}: {e}", file.display()))?;
    blocks.retain(|block| containers.is_empty() || containers.contains(&block.id.to_string()));
    Ok(blocks)
}

/// The containers that run here. Those of no such number or name are left out, as vzubc does.
fn running(node: &Node, containers: &[String]) -> Result<Vec<Block>, Trouble> {
    if !rustix::process::geteuid().is_root() {
        return Err("This program can only be run under root.".to_owned());
    }
    let wanted: Vec<Ctid> = containers.iter().filter_map(|word| names::resolve(node, word).ok()).collect();
    let host = vzrt::cgroup::Host::detect(Path::new("/")).map_err(|e| chain(&e))?;
    let all = vzrt::counters::all(&node.global.run_dir, &host).map_err(|e| chain(&e))?;
    let rows =
        |(ctid, counters): (Ctid, beancounters::Counters)| Block { id: ctid.get(), rows: counters.iter().collect() };
    Ok(all.into_iter().filter(|(ctid, _)| containers.is_empty() || wanted.contains(ctid)).map(rows).collect())
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
}

impl Shown {
    fn of(block: &Block) -> Self {
        let row = |&(resource, counter): &(beancounters::Resource, beancounters::Counter)| ShownRow {
            resource: resource.name(),
            unit: resource.unit(),
            counter,
        };
        Self { ctid: block.id, beancounters: block.rows.iter().map(row).collect() }
    }
}
