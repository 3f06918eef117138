//! OS templates: recipes, caches, and the trees that containers share.

mod name;
pub mod progress;
mod store;
mod sys;
pub mod unpack;

pub use name::{NameError, TemplateName};
pub use progress::{Bar, Progress, Silent, Stage};
pub use store::{Archive, Store, StoreError, Template, Tree};
