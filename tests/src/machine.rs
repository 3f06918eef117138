//! The reference machine: a stock Debian, built from packages, booted by QEMU, so that what this host's kernel lacks
//! (a unified hierarchy with controllers, project quota, BPF LSM) is tested all the same.
//!
//! [`recipe`] says what it is made of, [`image`] builds and keeps that, [`payload`] carries this checkout in,
//! [`qemu`] runs it, and [`guest`] is what then happens inside. Nothing is installed on this host: QEMU too lives in a
//! tree of its own under `target/`, and the machine has no network card.

pub mod accelerator;
pub mod disk;
pub mod guest;
pub mod image;
pub mod payload;
pub mod power_cut;
pub mod qemu;
pub mod recipe;

use std::io;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// The machine could not be built, booted, or heard.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or a pipe.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A program we use.
    #[error(transparent)]
    Program(#[from] crate::program::Error),
    /// `machine.toml` is wrong.
    #[error("tests/reference/machine.toml")]
    Recipe(#[from] toml::de::Error),
    /// Not a release that `machine.toml` knows.
    #[error("tests/reference/machine.toml knows no Debian {release}")]
    Release {
        /// As asked for.
        release: String,
    },
    /// This host is not a Debian whose mirror could be used.
    #[error("no Debian mirror among the apt sources of this host ({looked_in})")]
    NoMirror {
        /// The files that were read.
        looked_in: String,
    },
    /// What goes in or comes out of the machine is not ours.
    #[error("{what}")]
    Json {
        /// Which message.
        what: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// No network, no mirror, or a package it does not have.
    #[error("the Debian packages for {what} cannot be had from {mirror}, so the reference machine cannot be tested in")]
    Packages {
        /// What is built from them.
        what: String,
        /// From where.
        mirror: String,
        /// Which program failed; it has said why.
        source: crate::program::Error,
    },
    /// What was made here for the machine could not be made.
    #[error("{what} cannot be made for the reference machine: {why}")]
    Carried {
        /// Such as a template.
        what: &'static str,
        /// What was said about it.
        why: String,
    },
    /// It was asked for a port that QEMU did not give it.
    #[error("no virtio port named {name}")]
    NoPort {
        /// Of the port.
        name: &'static str,
    },
    /// It said nothing in time; its console is kept.
    #[error("the machine {what} within {} s; its console is in {console}", limit.as_secs())]
    Silent {
        /// Did not boot, did not end.
        what: &'static str,
        /// What it was given.
        limit: Duration,
        /// Where to look.
        console: String,
    },
    /// Not as it should be after a power cut.
    #[error("{0}")]
    Wrong(String),
    /// It ended without a result.
    #[error("the machine ended without a result ({status}); its console is in {console}")]
    Died {
        /// QEMU's.
        status: std::process::ExitStatus,
        /// Where to look.
        console: String,
    },
}

/// What the machine is told to do, on its payload disk.
#[derive(Debug, Serialize, Deserialize)]
pub struct Job {
    /// A shell instead of tests, on a terminal of this many rows and columns.
    pub shell: Option<(u16, u16)>,
    /// One command for bash instead of tests.
    pub command: Option<String>,
    /// Writing until power is cut, instead of tests.
    pub power_cut: bool,
    /// Only tests whose name contains this.
    pub filter: Option<String>,
    /// What to run.
    pub programs: Vec<crate::suite::Program>,
    /// For one program, on an ordinary machine.
    pub limit_seconds: u64,
    /// Where the checkout lies on the host, and must lie in the machine: paths are compiled into test programs.
    pub checkout: std::path::PathBuf,
    /// The release binary under test.
    pub vz_bin: std::path::PathBuf,
    /// Archives of OS templates, which the machine has no network to make.
    pub templates: Vec<std::path::PathBuf>,
}

/// What [`pace`] is on the ordinary machine that time limits are meant for.
const ORDINARY_PACE: Duration = Duration::from_millis(6);

/// How many times slower than an ordinary machine this one is, at least 1.
///
/// # Errors
/// There is no `true` to run.
pub fn time_factor() -> io::Result<f64> {
    Ok((pace()?.as_secs_f64() / ORDINARY_PACE.as_secs_f64()).max(1.0))
}

/// The time this machine takes to start and reap a small program ten times: the work that tests consist of.
fn pace() -> io::Result<Duration> {
    let mut best = Duration::MAX;
    for _ in 0..8 {
        let start = Instant::now();
        for _ in 0..10 {
            Command::new("/bin/true").status()?;
        }
        best = best.min(start.elapsed());
    }
    Ok(best)
}
