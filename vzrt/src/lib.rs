//! The container runtime: takes a plan and makes it true.

pub mod ctid;
pub mod policy;
pub mod seccomp;

pub use ctid::Ctid;
