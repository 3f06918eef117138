//! Configuration: the files under `/etc/vz`, the parameters they and the command lines share, and the node they describe.
//!
//! Nothing here runs a shell, touches a container's files, or prints. Reading a file, deciding what a change means and writing it back
//! are apart: [`document`] knows lines, [`params`] knows what each parameter is, [`Container`] holds the outcome.

pub mod container;
pub mod dist;
pub mod document;
pub mod global;
pub mod hooks;
pub mod idrange;
pub mod names;
pub mod node;
pub mod params;
pub mod request;
pub mod settings;
pub mod values;

pub use container::Container;
pub use document::Document;
pub use global::Global;
pub use node::Node;
pub use params::Param;
pub use request::{SetMode, SetRequest};
pub use settings::{Change, Settings};
