//! The cgroups of a container, on both kinds of host; nothing outside this module knows which.
//!
//! - *unified*: `/sys/fs/cgroup` is cgroup2 and has every controller;
//! - *hybrid*: controllers are v1 hierarchies, mounted anywhere, beside a cgroup2 tree with few controllers or none.
//!
//! The model is cgroup v2. A container is `<name>/<CTID>` in the cgroup2 tree: that directory is its cgroup namespace's root, is frozen,
//! killed, emptied and filtered (devices), and is delegated to the container's root user, whose systemd builds its own tree in it. On a
//! hybrid host `<name>/<CTID>` is also made in each v1 hierarchy that limits or counts something ([`Controller`]), where the container
//! cannot reach it: v1 is never delegated nor mounted inside (a v1 `release_agent` runs as root on the host, CVE-2022-0492).
//! Each controller is looked up where the host has it ([`Place`]), so a host with some in v1 and some in cgroup2 works as well.
//!
//! Entering costs microseconds: see [`Entry`]. What the host cannot do comes back as [`Unsupported`], next to what was done.
//!
//! # What cgroups-rs does here, and what not
//! Values are written by the controllers of cgroups-rs (its `fs` module), built on directories this module has found. Not used:
//! - its `Cgroup` and manager: they read mountinfo and all of `/sys/fs/cgroup` again for each handle, know one version at a time (on a
//!   hybrid host the cgroup2 tree does not exist for them), and attach by writing a pid to `cgroup.procs`, which on v1 waits for an RCU
//!   grace period (15 ms);
//! - its creation of cpusets, which logs and drops the error that makes every later entry fail with ENOSPC;
//! - `set_weight` (names `blkio.weight`, gone since kernel 5.0), `set_swappiness` on v2 (writes `memory.swap.max`), `set_soft_limit(-1)`
//!   and a throttle of 0 on v2 (written as numbers where the kernel wants `max`);
//! - its CPU shares, whose formula makes 39 of the ordinary weight (see `share.rs`), and its readers, which take an unreadable file for 0.

pub(crate) mod account;
mod activity;
mod ct;
mod devices;
mod entitled;
mod entry;
mod error;
mod file;
mod host;
mod io;
mod life;
mod limits;
mod memory;
mod processes;
mod promise;
mod share;
mod support;
mod sys;
#[cfg(test)]
mod tests;
mod usage;
pub mod weights;

pub(crate) use account::{CpuGrant, DeviceAccount, MemoryAccount, Pressure};
pub use activity::{Activity, BlockIo, Waiting};
pub use ct::{CtCgroup, Delegation};
pub use devices::{default_rules, rule as device_rule};
pub use entitled::{Competitor, entitled};
pub use entry::{EnterError, Entry};
pub use error::{Error, Unsupported, What, Why};
pub use host::{Controller, Host, Place};
pub(crate) use promise::kept_at_most;
pub use share::DEFAULT_CPUUNITS;
pub use support::{Fact, Support};
pub use usage::Usage;
