//! The container runtime: takes a plan and makes it true.

pub mod ctid;
pub mod net;

pub use ctid::Ctid;
