//! The exit codes of `vzpkg`, those of vztt (`vztt_error.h`) that something here can end with.

use templates::app::{AppError, OrderError};
use templates::pm::PmError;
use templates::{CacheError, RecipeError, StoreError};

/// What `vzpkg` ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum PkgExit {
    /// A system call.
    System = 1,
    /// Something that cannot be.
    Internal = 2,
    /// A command of `vzctl`'s kind: the container could not be entered.
    Vzctl = 5,
    /// A command that was run failed.
    CommandFailed = 8,
    /// A file of the command line is not there.
    FileNotFound = 9,
    /// Only root may.
    NotRoot = 10,
    /// The container runs no more.
    NotRunning = 15,
    /// There is no such container.
    NoContainer = 16,
    /// Another command works on the container.
    CannotLock = 21,
    /// There is no cache of that name.
    NotCached = 23,
    /// There is no template of that name.
    NotFound = 24,
    /// The archive is damaged or hostile.
    Broken = 25,
    /// It is not installed.
    NotInstalled = 26,
    /// It is installed.
    AlreadyInstalled = 27,
    /// It is not for this container, or not beside what is there.
    Unavailable = 28,
    /// There is one already.
    CacheExists = 29,
    /// The container's system has no package manager that is known.
    NotEz = 33,
    /// The command line, or a container is on it.
    BadParameter = 35,
    /// apt or dpkg, or what they keep.
    PackageManager = 45,
    /// Packages could not be fetched.
    Fetch = 52,
    /// A program inside failed.
    ProgramFailed = 63,
    /// A program inside was killed.
    ProgramKilled = 64,
    /// Other applications require it.
    HasApps = 65,
}

/// What a `vzpkg` of ours has ended with, for its caller to end with too.
pub(super) fn of_vzpkg(code: i32) -> PkgExit {
    use PkgExit as P;
    let may = [
        P::System,
        P::Internal,
        P::Vzctl,
        P::NotRunning,
        P::NoContainer,
        P::CannotLock,
        P::NotFound,
        P::Broken,
        P::AlreadyInstalled,
        P::Unavailable,
        P::NotEz,
        P::BadParameter,
        P::PackageManager,
        P::Fetch,
        P::ProgramFailed,
        P::ProgramKilled,
    ];
    may.into_iter().find(|exit| i32::from(*exit as u8) == code).unwrap_or(P::CommandFailed)
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

pub(super) fn of_app(error: &AppError) -> PkgExit {
    match error {
        AppError::NotFound { .. } => PkgExit::NotFound,
        AppError::Read(_) => PkgExit::System,
        AppError::Parse { .. } | AppError::Invalid { .. } => PkgExit::Broken,
    }
}

pub(super) fn of_order(error: &OrderError) -> PkgExit {
    match error {
        OrderError::App(e) => of_app(e),
        OrderError::Name(_) | OrderError::Circle { .. } => PkgExit::Broken,
        OrderError::Conflict { .. } => PkgExit::Unavailable,
    }
}

pub(super) fn of_pm(error: &PmError) -> PkgExit {
    match error {
        PmError::UnknownRelease { .. } => PkgExit::NotEz,
        PmError::NoMirror | PmError::Failed { .. } => PkgExit::Fetch,
        PmError::Removes { .. } | PmError::Simulation(_) => PkgExit::PackageManager,
        PmError::Io(_) | PmError::Run { .. } => PkgExit::System,
    }
}
