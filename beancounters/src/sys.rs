//! mmap(2).
#![expect(
    unsafe_code,
    reason = "memory that others change meanwhile has no safe form; everything unsafe of it is here"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

/// `T`s in a file or an array map of BPF, mapped into memory: all who have it mapped see one and the same, and so do BPF programs.
pub(crate) struct Shared<T> {
    start: NonNull<T>,
    count: usize,
}

// SAFETY: the mapping is nobody's in particular, and what lies in it may be used by several at once (`T: Sync`).
unsafe impl<T: Sync> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// Maps all `count` elements. The kernel refuses if an array is smaller than that; of a file, the caller has looked.
    pub(crate) fn map(from: BorrowedFd<'_>, count: usize) -> io::Result<Self> {
        let bytes = count * size_of::<T>();
        // SAFETY: a new mapping at a place of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                from.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Self { start, count })
    }

    /// One element.
    pub(crate) fn get(&self, number: usize) -> Option<&T> {
        // SAFETY: within the mapping, which lives as long as `self`; any bytes are a valid `T`, and changes by others are to atomics.
        (number < self.count).then(|| unsafe { self.start.add(number).as_ref() })
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: what `map` has mapped, and no reference into it outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.count * size_of::<T>()) };
    }
}
