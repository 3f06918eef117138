//! Loading and attaching, one file of programs at a time, and what became of each.

use std::error::Error;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Mutex;

use beancounters::bpf::{self, NAME_BYTES, VERDICT_BYTES};
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, ObjectBuilder, OpenObject, PrintLevel, libbpf_sys, set_print};

static OBJECTS: &[&[u8]] = include!(concat!(env!("OUT_DIR"), "/objects.rs"));

/// One program: attached, or why not.
pub(crate) struct Verdict {
    name: String,
    refused: Option<String>,
}

/// What libbpf says while it works. Of a failure its error has the number only, these lines have the reason.
static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn listen(_: PrintLevel, line: String) {
    if let Ok(mut said) = SAID.lock() {
        said.push(line.trim().trim_start_matches("libbpf: ").to_owned());
    }
}

/// Loads every program; those of a file together, and each alone if not all of them can be.
pub(crate) fn all(maps: &Path, links: &Path) -> Result<Vec<Verdict>, Box<dyn Error>> {
    set_print(Some((PrintLevel::Warn, listen)));
    if let Some(any) = OBJECTS.first() {
        // The maps first, without any program: they are there even on a host that refuses all of these.
        attach(any, &|_| false, maps, links)?;
    }
    let mut verdicts = Vec::new();
    for object in OBJECTS {
        let names = names(object)?;
        if attach(object, &|_| true, maps, links).is_ok() {
            verdicts.extend(names.into_iter().map(|name| Verdict { name, refused: None }));
            continue;
        }
        for name in names {
            let refused = attach(object, &|one| one == OsStr::new(&name), maps, links).err();
            verdicts.push(Verdict { name, refused });
        }
    }
    Ok(verdicts)
}

fn names(object: &[u8]) -> Result<Vec<String>, libbpf_rs::Error> {
    let opened = ObjectBuilder::default().open_memory(object)?;
    Ok(opened.progs().map(|program| program.name().to_string_lossy().into_owned()).collect())
}

/// Loads and attaches the chosen programs of one file and pins their links; an error says which of them and why.
fn attach(object: &[u8], chosen: &dyn Fn(&OsStr) -> bool, maps: &Path, links: &Path) -> Result<(), String> {
    if let Ok(mut said) = SAID.lock() {
        said.clear();
    }
    let mut opened = ObjectBuilder::default().open_memory(object).map_err(why)?;
    for mut program in opened.progs_mut() {
        let load = chosen(program.name());
        program.set_autoload(load);
    }
    share_maps(&mut opened, maps).map_err(why)?;
    let mut loaded = opened.load().map_err(why)?;
    // A name with a dot is the compiler's (constants), of this file alone.
    for mut map in loaded.maps_mut().filter(|map| !map.name().as_encoded_bytes().contains(&b'.')) {
        let pin = maps.join(map.name());
        if !pin.exists() {
            map.pin(&pin).map_err(why)?;
        }
    }
    // Pinned only when all are attached: what is not pinned goes with this function.
    let programs = loaded.progs_mut().filter(|program| chosen(program.name()));
    let attached: Vec<_> = programs
        .map(|program| Ok((links.join(program.name()), program.attach()?)))
        .collect::<Result<_, libbpf_rs::Error>>()
        .map_err(why)?;
    for (pin, mut link) in attached {
        link.pin(&pin).map_err(why)?;
    }
    Ok(())
}

/// The maps are those that are pinned; the tables of what is charged are made for this host's memory.
fn share_maps(opened: &mut OpenObject, maps: &Path) -> Result<(), libbpf_rs::Error> {
    for mut map in opened.maps_mut() {
        let pin = maps.join(map.name());
        if pin.exists() {
            map.reuse_pinned_map(&pin)?;
        } else if let Some((_, objects)) = SIZES.iter().find(|(name, _)| map.name() == OsStr::new(name)) {
            map.set_max_entries(most_charges() / objects)?;
        }
    }
    Ok(())
}

/// Entries of each table (`bpf/table.h`), in so many charges of all that there may be. A line has 128 bytes whether or not something is in it, and
/// place for five charges: they take a two-thousandth of the RAM, and hold a third of what may be.
const SIZES: [(&str, u32); 4] = [("charges", 16), ("charges_spilled", 1), ("buffers", 64), ("buffers_spilled", 1)];

/// One for each 16 KiB of RAM. A file costs the kernel about 1 KiB, and as many as this are a sixteenth of all; the empty map of what spills takes
/// 16 bytes for each, a thousandth.
fn most_charges() -> u32 {
    let page_kib = rustix::param::page_size() as u64 / 1024;
    let ram_kib = procfs_ram_kib().unwrap_or(1 << 20).max(page_kib);
    u32::try_from((ram_kib / 16).next_power_of_two()).unwrap_or(u32::MAX).clamp(1 << 16, 1 << 22)
}

fn procfs_ram_kib() -> Option<u64> {
    let info = rustix::system::sysinfo();
    Some(info.totalram.checked_mul(u64::from(info.mem_unit))? / 1024)
}

/// The error, and the last thing libbpf said, which is nearest to the cause; the kernel's log of a whole program is no reason to read.
fn why(error: libbpf_rs::Error) -> String {
    let said = SAID.lock().map(|said| said.clone()).unwrap_or_default();
    let reason = said.iter().find(|line| line.contains("failed") || line.contains("not found"));
    reason.map_or_else(|| error.to_string(), Clone::clone)
}

/// From here on the programs of this build count what is counted by differences (`bpf/kmem.bpf.c`), and those of another no more. Without the map
/// there are no such programs.
pub(crate) fn count(maps: &Path) -> Result<(), Box<dyn Error>> {
    let pin = maps.join("counting");
    if pin.exists() {
        let build = u64::from_str_radix(bpf::BUILD, 16)?;
        MapHandle::from_pinned_path(&pin)?.update(&0u32.to_ne_bytes(), &build.to_ne_bytes(), MapFlags::ANY)?;
    }
    Ok(())
}

/// Pins the report, whose presence says that all is done.
pub(crate) fn publish(verdicts: &[Verdict], pin: &Path) -> Result<(), Box<dyn Error>> {
    let options =
        libbpf_sys::bpf_map_create_opts { sz: size_of::<libbpf_sys::bpf_map_create_opts>() as _, ..Default::default() };
    let (key, value) = (NAME_BYTES as u32, VERDICT_BYTES as u32);
    let mut map = MapHandle::create(MapType::Hash, Some("vz_report"), key, value, 256, &options)?;
    for verdict in verdicts {
        let (mut name, mut text) = ([0u8; NAME_BYTES], [0u8; VERDICT_BYTES]);
        copy(&mut name, verdict.name.as_bytes());
        match &verdict.refused {
            None => text[0] = 1,
            Some(why) => copy(&mut text[1..], why.as_bytes()),
        }
        map.update(&name, &text, MapFlags::ANY)?;
    }
    map.pin(pin)?;
    Ok(())
}

/// As much as fits, and a NUL.
fn copy(to: &mut [u8], from: &[u8]) {
    let length = from.len().min(to.len() - 1);
    to[..length].copy_from_slice(&from[..length]);
}
