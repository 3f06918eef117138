//! What the privileged tests share: a node of their own to work on ([`node`]) and [`containers`] on it, a picture of the machine before and
//! after ([`snapshot`]), a program to talk with ([`session`]), one that takes much of a resource ([`taking`]), waiting ([`wait`]), skipping ([`skips`]); and what runs them: the [`suite`] of test programs
//! on this host, and the same in a stock Debian [`machine`].

pub mod compiled;
pub mod containers;
pub mod machine;
pub mod node;
pub mod own_disk;
pub mod program;
pub mod session;
pub mod skips;
pub mod snapshot;
pub mod suite;
pub mod taking;
pub mod wait;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The root of this checkout.
pub fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests crate lies in the workspace")
}

/// Where cargo builds, and where machine images are kept.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| checkout().join("target"), PathBuf::from)
}

/// The machine in a line, above what was measured on it.
///
/// # Errors
/// A file of `/proc` can't be read.
pub fn machine_in_a_line() -> std::io::Result<String> {
    let read = |path: &str| fs_err::read_to_string(path).map(|text| text.trim().to_owned());
    let cpus = std::thread::available_parallelism()?;
    Ok(format!("Linux {}, {cpus} CPUs, load {}", read("/proc/sys/kernel/osrelease")?, read("/proc/loadavg")?))
}

/// How one of our programs ends: 0 if it is good, 1 if not, and the chain of causes on stderr if it could not tell.
pub fn verdict(result: Result<bool, Box<dyn Error>>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  because {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}
