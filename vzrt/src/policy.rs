//! What a container's root may ask of the kernel, as data.
//!
//! The user namespace with an id range of its own is the wall: nothing here is needed for a container to be contained on a kernel without
//! bugs. This is the second wall, for kernels that have them. It takes away what a server has no use for, and keeps what its systemd,
//! package manager and daemons were built to expect.

mod capabilities;
mod features;
mod syscalls;

pub use capabilities::{BadCapability, CapabilitySwitch, capabilities, has_no_effect};
pub use features::{BadFeature, Feature};
pub use syscalls::{Asks, seccomp};
