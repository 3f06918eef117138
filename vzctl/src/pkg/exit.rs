//! The exit codes of `vzpkg`, those of vztt (`vztt_error.h`) that something here can end with.

use templates::{CacheError, RecipeError, StoreError};

/// What `vzpkg` ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum PkgExit {
    /// A system call.
    System = 1,
    /// A command that was run failed.
    CommandFailed = 8,
    /// Only root may.
    NotRoot = 10,
    /// There is no cache of that name.
    NotCached = 23,
    /// There is no template of that name.
    NotFound = 24,
    /// The archive is damaged or hostile.
    Broken = 25,
    /// The command line, or a container is on it.
    BadParameter = 35,
}

pub(super) fn of_store(error: &StoreError) -> PkgExit {
    match error {
        StoreError::NotFound { .. } | StoreError::NoLayer { .. } => PkgExit::NotCached,
        StoreError::InUse { .. } => PkgExit::BadParameter,
        StoreError::Unpack { .. } => PkgExit::Broken,
        _ => PkgExit::System,
    }
}

pub(super) fn of_cache(error: &CacheError) -> PkgExit {
    match error {
        CacheError::Recipe(RecipeError::NotFound { .. }) => PkgExit::NotFound,
        CacheError::Store(e) => of_store(e),
        CacheError::Oci(_) | CacheError::Unpack { .. } | CacheError::Hash { .. } | CacheError::NoSystem { .. } => {
            PkgExit::Broken
        }
        CacheError::Command { .. } | CacheError::Tar { .. } | CacheError::Debian(_) => PkgExit::CommandFailed,
        _ => PkgExit::System,
    }
}
