//! The container runtime: takes a plan and makes it true.

pub mod cgroup;
pub mod ctid;
pub mod net;

pub use ctid::Ctid;
