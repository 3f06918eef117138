//! OS templates: recipes, caches, and the trees that containers share; and application templates over them ([`app`]).
//!
//! A [`Recipe`] becomes an [`Archive`] in the cache ([`Store::create_cache`]); an archive, ours or one made by OpenVZ,
//! becomes a [`Tree`] ([`Store::tree`]), unpacked once and the lower layer of every container created from it.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = templates::Store::open("/vz/template");
//! let archive = store.find(&"debian-12-x86_64".parse()?)?;
//! let tree = store.tree(&archive, &mut templates::Bar::new("debian-12-x86_64"))?;
//! println!("lowerdir={}", tree.layers[0].display());
//! # Ok(()) }
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod app;
mod appcache;
mod busybox;
mod cache;
mod debian;
pub mod difference;
mod given;
mod layers;
mod made;
mod merged;
mod name;
mod oci;
pub mod pm;
pub mod progress;
pub mod recipe;
mod rootdir;
mod sources;
mod store;
mod sys;
pub mod unpack;

pub use appcache::{AppLayer, Hold};
pub use busybox::BusyboxError;
pub use cache::CacheError;
pub use debian::DebianError;
pub use name::{NameError, TemplateName};
pub use oci::{OciError, Pointer, Run, Wanted};
pub use progress::{Bar, Progress, Silent, Stage};
pub use recipe::{Recipe, RecipeError};
pub use rootdir::RootDirError;
pub use store::{Archive, Store, StoreError, Template, Tree};
pub use sys::ForkError;
