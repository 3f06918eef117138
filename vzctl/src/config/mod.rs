//! Configuration: the files under `/etc/vz`, the parameters they and the command lines share, and the node they describe.
//!

pub mod dist;
pub mod document;
pub mod global;
pub mod hooks;
pub mod idrange;
pub mod names;
pub mod node;
pub mod values;

pub use document::Document;
pub use global::Global;
pub use node::Node;
