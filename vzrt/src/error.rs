//! How a failed call is told: the call with its arguments, and the kernel's reason as its source.

use std::io;

/// A call that failed. Displays as the call; the reason is its source.
#[derive(Debug, thiserror::Error)]
#[error("{call}")]
pub struct Failed {
    /// The call with its arguments, as a person would write it: `mount(overlay, /vz/root/101)`.
    pub call: String,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

impl Failed {
    /// A failure that has no system call of its own, put in the same form.
    pub fn new(call: impl Into<String>, why: impl Into<String>) -> Self {
        Self { call: call.into(), source: io::Error::other(why.into()) }
    }

    /// The call and its reason in one line, for places that carry text only (the pipe from a child to its parent).
    #[must_use]
    pub fn one_line(&self) -> String {
        format!("{}: {}", self.call, self.source)
    }
}

/// Puts the name of the call on an error as it leaves the call.
pub trait Call<T> {
    /// `call` is only evaluated on failure.
    fn call<S: Into<String>>(self, call: impl FnOnce() -> S) -> Result<T, Failed>;
}

impl<T, E: Into<io::Error>> Call<T> for Result<T, E> {
    fn call<S: Into<String>>(self, call: impl FnOnce() -> S) -> Result<T, Failed> {
        self.map_err(|e| Failed { call: call().into(), source: e.into() })
    }
}
