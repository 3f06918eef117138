//! `vzubc-load`: puts the BPF programs of the beancounters into the host's kernel, once, and pins them.
//!
//! A program of its own, because libbpf and libelf take longer to link than `vzctl` to run.

mod load;
mod nftables;
mod pins;

use std::error::Error;
use std::process::ExitCode;

use beancounters::bpf;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vzubc-load: {error}");
            let mut cause = error.source();
            while let Some(why) = cause {
                eprintln!("  {why}");
                cause = why.source();
            }
            ExitCode::FAILURE
        }
    }
}

/// New programs are attached before old ones are let go: what both see is charged once (see `bpf/charge.h`), so nothing is lost or doubled.
fn run() -> Result<(), Box<dyn Error>> {
    pins::mount()?;
    let directory = bpf::directory();
    let _lock = pins::lock(&directory)?;
    let own = directory.join(bpf::BUILD);
    if own.join("report").exists() {
        return Ok(()); // somebody was faster
    }
    pins::clear(&own)?; // somebody was killed
    let maps = pins::make(&directory.join("maps"))?;
    let links = pins::make(&own)?;
    if let Err(error) = nftables::ensure() {
        // The report then says what is missing for which resource.
        eprintln!("vzubc-load: no nftables: {error}");
    }
    let report = load::all(&maps, &links)?;
    load::count(&maps)?;
    load::publish(&report, &own.join("report"))?;
    pins::clear_others(&directory, &["maps", bpf::BUILD])?;
    Ok(())
}
