//! How a failed system call is told.

use rustix::io::Errno;

/// A system call that failed: the call with its arguments, and as its source what the kernel said.
#[derive(Debug, thiserror::Error)]
#[error("{call}")]
pub struct CallError {
    /// The call as strace would show it, shortened to what matters.
    pub call: String,
    /// The kernel's answer.
    #[source]
    pub errno: Errno,
}

/// Gives a failed call its name; the text is only made when there is a failure.
pub(crate) trait Called<T> {
    fn called(self, call: impl FnOnce() -> String) -> Result<T, CallError>;
}

impl<T> Called<T> for Result<T, Errno> {
    fn called(self, call: impl FnOnce() -> String) -> Result<T, CallError> {
        self.map_err(|errno| CallError { call: call(), errno })
    }
}
