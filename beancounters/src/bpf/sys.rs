//! bpf(2): finding pinned maps, and what is in those that are not mapped into memory.
#![expect(
    unsafe_code,
    reason = "bpf(2) has no safe wrapper among the dependencies; everything unsafe of this module is here"
)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

// linux/bpf.h
const BPF_MAP_LOOKUP_ELEM: i32 = 1;
const BPF_MAP_UPDATE_ELEM: i32 = 2;
const BPF_MAP_DELETE_ELEM: i32 = 3;
const BPF_OBJ_GET: i32 = 7;
const BPF_NOEXIST: u64 = 1;

/// `union bpf_attr` as far as these commands go, the rest of the kernel's union zero.
#[repr(C, align(8))]
struct Attr([u64; 16]);

/// # Safety
/// Every pointer in `attr` must be good for what `command` does with it.
unsafe fn bpf(command: i32, attr: &Attr) -> io::Result<i32> {
    // SAFETY: the kernel reads `size` bytes of `attr`; the caller answers for the pointers in it.
    let ret = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<Attr>()) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret as i32) }
}

fn address<T: ?Sized>(pointer: *const T) -> u64 {
    pointer.cast::<u8>().addr() as u64
}

/// The map pinned at `path`.
pub(super) fn pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = Attr([0; 16]);
    attr.0[0] = address(path.as_ptr());
    // SAFETY: a C string that outlives the call.
    let fd = unsafe { bpf(BPF_OBJ_GET, &attr) }?;
    // SAFETY: bpf(2) has just returned this descriptor (close-on-exec) and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn element(map: BorrowedFd<'_>, key: u64, value: u64, flags: u64) -> Attr {
    let mut attr = Attr([0; 16]);
    attr.0[..4].copy_from_slice(&[map.as_raw_fd() as u64, key, value, flags]);
    attr
}

/// The value at `key` in a map whose keys have `K` bytes and whose values have `V`; `None` if there is none.
pub(super) fn lookup<const K: usize, const V: usize>(
    map: BorrowedFd<'_>,
    key: &[u8; K],
) -> io::Result<Option<[u8; V]>> {
    let mut value = [0u8; V];
    let attr = element(map, address(key), address(value.as_mut_ptr()), 0);
    // SAFETY: callers pass the key's and the value's size of the layout whose version is in the path of the pin; both outlive the call.
    match unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &attr) } {
        Ok(_) => Ok(Some(value)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Adds a pair to `containers`; an error if the key is there.
pub(super) fn insert(map: BorrowedFd<'_>, key: u64, value: u32) -> io::Result<()> {
    let attr = element(map, address(&raw const key), address(&raw const value), BPF_NOEXIST);
    // SAFETY: keys of `containers` have 8 bytes, values 4; both outlive the call.
    unsafe { bpf(BPF_MAP_UPDATE_ELEM, &attr) }.map(|_| ())
}

/// Takes a key out of `containers`; whether it was there.
pub(super) fn remove(map: BorrowedFd<'_>, key: u64) -> io::Result<bool> {
    let attr = element(map, address(&raw const key), 0, 0);
    // SAFETY: keys of `containers` have 8 bytes; it outlives the call.
    match unsafe { bpf(BPF_MAP_DELETE_ELEM, &attr) } {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}
