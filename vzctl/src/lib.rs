//! Everything behind the command lines: configuration, listing, and the mapping from a configuration to a plan.
//!
//! | module | what it is for |
//! |---|---|
//! | [`cli`], [`command`] | `vzctl`: its command line as data, and a file for each command |
//! | [`list`] | `vzlist` |
//! | [`pkg`] | `vzpkg` |
//! | [`ubc`] | `vzubc` |
//! | [`tools`] | `vzcfgvalidate`, `vzcalc` and the other small programs about beancounters and CPU |
//! | `boot` | all containers at once: order, memory and workers of `vzctl startall` and `stopall` |
//! | [`config`] | the files below `/etc/vz`, typed |
//! | [`subject`] | one container's configuration, resolved |
//! | [`decide`] | from configuration and host to a plan |
//! | [`exit`], [`failure`], [`logging`] | exit codes, what a failure says, where messages go |

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that fails here has failed"))]

use std::io::IsTerminal;

mod boot;
pub mod cli;
pub mod command;
pub mod config;
pub mod decide;
pub mod exit;
pub mod failure;
pub mod list;
pub mod logging;
pub mod pkg;
pub mod subject;
pub mod tools;
pub mod ubc;

pub use exit::Exit;
pub use failure::Failure;

/// A progress bar for something long, where somebody is looking.
pub(crate) fn terminal_progress(name: &str) -> Option<templates::Bar> {
    std::io::stderr().is_terminal().then(|| templates::Bar::new(name))
}
