//! The container runtime: takes a plan and makes it true.

pub mod cgroup;
pub mod ctid;

pub use ctid::Ctid;
