//! The container runtime: takes a [`Plan`] and makes it true.
//!
//! | module | what it is for |
//! |---|---|
//! | [`plan`] | the plan: data, made by somebody else |
//! | [`verbs`] | mount, start, stop: the sequences, and finding out what a container is doing |
//! | [`inside`] | doing something in a running container: exec, enter, editing its files |
//! | [`state`], [`lock`], [`interrupt`] | what the run directory says; one command at a time; stopping one half way |
//! | [`rootfs`], [`idmap`] | the root of a container, from layers with shifted ids |
//! | `launch`, `container`, `monitor` | from the clone to init's first instruction, seen from outside and from inside; and the process that stays |
//! | [`console`] | the administrator's side of a container's console |
//! | [`reboot`] | starting again a container that reboots, and making one that does so all the time wait |
//! | [`teardown`] | taking all of it away, from the journal |
//! | [`log`] | where messages go |
//! | [`cgroup`], [`net`], [`seccomp`] | one capability of the kernel each |
//! | [`disks`] | the disks below a directory, and who divides them by weights |
//! | [`policy`] | what a container's untrusted root may do, as data |
//! | [`counters`] | the beancounters of running containers, and the files that show them |
//! | [`guest`] | settings written into a container's own files |
//! | `userquota` | quotas of the users and groups inside a container |
//! | `view` | a container's own numbers in its `/proc` and `/sys` |
//! | [`support`] | what this kernel can do, for `vzctl check` |

pub mod cgroup;
mod channel;
pub mod console;
mod container;
pub mod counters;
pub mod ctid;
pub mod disks;
pub mod error;
pub mod guest;
pub mod hooks;
pub mod idmap;
pub mod inside;
pub mod interrupt;
mod launch;
pub mod lock;
pub mod log;
pub mod monitor;
pub mod net;
pub mod overdraft;
pub mod plan;
pub mod policy;
pub mod reboot;
pub mod remove;
pub mod rootfs;
pub mod seccomp;
pub mod state;
pub mod support;
mod sys;
pub mod teardown;
mod userquota;
pub mod verbs;
mod view;

pub use channel::Trouble;
pub use ctid::Ctid;
pub use inside::{End, Inside, InsideError, Program, Stream};
pub use interrupt::{Interrupt, Interrupted};
pub use monitor::title;
pub use plan::Plan;
pub use state::{RunDir, Running};
pub use verbs::{
    Condition, Step, StopMode, StopStep, VerbError, condition, look_after, mount, settle, start, stop, unmount,
    with_idle_init,
};
