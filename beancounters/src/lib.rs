//! User beancounters: what a container may take of the machine, and what it has taken.
//!
//! OpenVZ described a container's share of a host with about twenty numbers: processes, open files, sockets, locked pages, kernel
//! memory … each with a **barrier** and a **limit** that the administrator sets, and with **held**, **maxheld** and **failcnt** that the
//! kernel counts. This crate is those numbers as types, without any container and without root:
//!
//! | module | what for |
//! |---|---|
//! | [`resource`] | [`Resource`]: names, configuration keys, options of `vzctl set`, units, the order of the tables |
//! | [`amount`] | [`Amount`]: a count that knows its [`Unit`], so that a page is never taken for a byte; the spellings `512M`, `1.5G`, `100P`, `unlimited` |
//! | [`bound`] | [`Bound`]: barrier and limit of one resource, read from and written as `bar:lim` |
//! | [`set`] | [`Set`]: the bounds that one configuration has |
//! | [`vswap`] | the simple mode: RAM and swap given, everything else derived from them |
//! | [`counter`] | [`Counter`] and [`Counters`]: the five numbers of a row, the rows of a container |
//! | [`format`](mod@format) | the writers of `user_beancounters`, `bc/resources` and `bc/<id>/resources`, byte for byte |
//! | [`parse`] | their readers |
//! | [`rules`] | whether the bounds of a configuration go together, and what mends it where they don't |
//! | [`overcommit`], [`scale`], [`split`] | what `vzmemcheck` and `vzcalc`, `vzcfgscale`, `vzsplit` compute |
//! | [`read`] | [`read::Reader`]: what can be counted of a container |
//! | [`peaks`] | the highest marks of what no kernel keeps one for |
//! | [`bpf`] | what the host's kernel counts and refuses itself: exact counters, refusals at the barrier, and who was refused |
//!
//! ```
//! use beancounters::{Bound, Resource, Set, vswap};
//!
//! let mut set = Set::default();
//! set.insert(Bound::parse(Resource::Numproc, "240")?);
//! set.insert(vswap::ram("512M")?);
//! set.insert(vswap::swap("1G")?);
//! assert_eq!(set.get(Resource::Numproc).unwrap().to_string(), "240:240");
//!
//! // Pages in the configuration, bytes in a cgroup: the amount knows.
//! let ram = set.get(Resource::Physpages).unwrap().limit();
//! assert_eq!(ram.in_bytes().and_then(|bytes| bytes.finite()), Some(512 << 20));
//!
//! let effective = vswap::fill(&set, None)?;
//! assert!(effective.get(Resource::Privvmpages).unwrap().limit().is_unlimited());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! "K6" in these pages is the OpenVZ kernel 2.6.32 (`kernel/bc/`), "V4" is vzctl 4.

pub mod amount;
pub mod bound;
pub mod bpf;
pub mod counter;
pub mod format;
mod listing;
mod netfilter;
pub mod overcommit;
pub mod parse;
pub mod peaks;
pub mod read;
pub mod resource;
pub mod rules;
pub mod scale;
pub mod set;
mod sockets;
pub mod split;
mod sys;
mod tasks;
mod terminals;
pub mod vswap;

pub use amount::{Amount, Unit};
pub use bound::Bound;
pub use counter::{Counter, Counters};
pub use resource::Resource;
pub use set::Set;
