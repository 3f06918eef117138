//! Everything behind the command lines: configuration, listing, and the mapping from a configuration to a plan.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that fails here has failed"))]

pub mod config;
pub mod exit;
pub mod list;

pub use exit::Exit;
