//! bpf(2): loading a device program and putting it on a cgroup.
#![expect(
    unsafe_code,
    reason = "bpf(2) has no safe wrapper among the dependencies; everything unsafe of this module is here"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::Error;
use super::devices::Insn;

// linux/bpf.h
const BPF_PROG_LOAD: i32 = 5;
const BPF_PROG_ATTACH: i32 = 8;
const BPF_PROG_GET_FD_BY_ID: i32 = 13;
const BPF_PROG_QUERY: i32 = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 1 << 1;
const BPF_F_REPLACE: u32 = 1 << 2;

/// `union bpf_attr`, as 32-bit words, larger than any kernel's: `BPF_PROG_QUERY` writes fields back, newer kernels (6.17:
/// `query.revision`) beyond what older headers know, whatever size they are told.
#[repr(C, align(8))]
struct Attr([u32; 64]);

impl Attr {
    fn new(words: &[(usize, u32)]) -> Self {
        let mut attr = Self([0; 64]);
        for &(at, value) in words {
            attr.0[at] = value;
        }
        attr
    }

    /// A 64-bit field at word `at`.
    fn set_pointer<T>(&mut self, at: usize, pointer: *const T) {
        let value = pointer.addr() as u64;
        let bytes = value.to_ne_bytes();
        for (i, half) in bytes.chunks_exact(4).enumerate() {
            self.0[at + i] = u32::from_ne_bytes([half[0], half[1], half[2], half[3]]);
        }
    }
}

/// # Safety
/// Every pointer in `attr` must be good for what `command` does with it.
unsafe fn bpf(command: i32, name: &'static str, attr: &mut Attr, size: usize) -> Result<i64, Error> {
    // SAFETY: `attr` is larger than the kernel's union and writable; the caller answers for pointers inside it.
    let ret = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size) };
    if ret < 0 { Err(Error::Bpf { command: name, source: io::Error::last_os_error() }) } else { Ok(ret) }
}

fn fd_of(ret: i64) -> OwnedFd {
    let fd = i32::try_from(ret).expect("the kernel returns descriptors as int");
    // SAFETY: bpf(2) has just returned this descriptor (close-on-exec) and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn word(fd: &impl AsRawFd) -> u32 {
    fd.as_raw_fd() as u32
}

/// Loads a program that decides on devices.
pub(super) fn load(program: &[Insn]) -> Result<OwnedFd, Error> {
    let count = u32::try_from(program.len()).expect("a program of billions of instructions does not fit in memory");
    let mut attr = Attr::new(&[(0, BPF_PROG_TYPE_CGROUP_DEVICE), (1, count)]);
    attr.set_pointer(2, program.as_ptr());
    attr.set_pointer(4, c"Apache-2.0".as_ptr());
    // prog_name, 16 bytes from word 12: what `bpftool prog` shows.
    attr.0[12] = u32::from_ne_bytes(*b"vz_d");
    attr.0[13] = u32::from_ne_bytes(*b"evic");
    attr.0[14] = u32::from_ne_bytes(*b"es\0\0");
    // SAFETY: both pointers outlive the call, which only reads: `insn_cnt` instructions laid out as `struct bpf_insn`, and a C string.
    unsafe { bpf(BPF_PROG_LOAD, "BPF_PROG_LOAD", &mut attr, 72) }.map(fd_of)
}

/// Puts `program` on a cgroup2 directory in place of the device program that is there, if any: in one step, at no moment without.
pub(super) fn attach(cgroup: BorrowedFd<'_>, program: &OwnedFd) -> Result<(), Error> {
    let base = [(0, word(&cgroup)), (1, word(program)), (2, BPF_CGROUP_DEVICE)];
    let mut attr = Attr::new(&base);
    let old = attached(cgroup)?;
    attr.0[3] = BPF_F_ALLOW_MULTI;
    if let Some(old) = &old {
        attr.0[3] |= BPF_F_REPLACE;
        attr.0[4] = word(old);
    }
    // SAFETY: this command has no pointers.
    unsafe { bpf(BPF_PROG_ATTACH, "BPF_PROG_ATTACH", &mut attr, 20) }.map(|_| ())
}

/// The device program on this cgroup itself. A container's cgroup has one at most: only we put any there.
pub(super) fn attached(cgroup: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Error> {
    let mut ids = [0u32; 16];
    let mut attr = Attr::new(&[(0, word(&cgroup)), (1, BPF_CGROUP_DEVICE), (6, 16)]);
    attr.set_pointer(4, ids.as_mut_ptr());
    // SAFETY: `ids` has room for the `prog_cnt` (word 6) identifiers announced and outlives the call.
    unsafe { bpf(BPF_PROG_QUERY, "BPF_PROG_QUERY", &mut attr, 32) }?;
    if attr.0[6] == 0 {
        return Ok(None);
    }
    let mut attr = Attr::new(&[(0, ids[0])]);
    // SAFETY: this command has no pointers.
    unsafe { bpf(BPF_PROG_GET_FD_BY_ID, "BPF_PROG_GET_FD_BY_ID", &mut attr, 12) }.map(|fd| Some(fd_of(fd)))
}

#[cfg(test)]
pub(super) mod testing {
    //! A child process born in a cgroup, without a shell in between.

    use std::ffi::CString;
    use std::ptr;

    use super::super::Entry;
    use super::{AsRawFd, io};

    /// `clone3` into the entry's cgroup, the v1 hierarchies, then exec of `/bin/sh -c script`; the child exits 126 if it cannot enter.
    pub(in super::super) fn spawn_sh(entry: &Entry, script: &str) -> io::Result<rustix::process::Pid> {
        let argv = ["/bin/sh", "-c", script].map(|a| CString::new(a).expect("no NUL in a test's script"));
        let pointers = [argv[0].as_ptr(), argv[1].as_ptr(), argv[2].as_ptr(), ptr::null()];
        let env = [ptr::null::<libc::c_char>()];
        let mut args = [0u64; 11]; // struct clone_args
        args[0] = 0x2_0000_0000; // CLONE_INTO_CGROUP
        args[4] = u64::from(libc::SIGCHLD as u32);
        args[10] = u64::from(entry.cgroup2().as_raw_fd() as u32);
        // SAFETY: as fork: the child gets a copy of the memory. It has one thread and only makes system calls (write, execve, _exit) on
        // memory prepared above, so locks held by other threads of the parent do not matter.
        unsafe {
            let pid = libc::syscall(libc::SYS_clone3, args.as_mut_ptr(), size_of_val(&args));
            if pid == 0 {
                if entry.enter_self().is_ok() {
                    libc::execve(pointers[0], pointers.as_ptr(), env.as_ptr());
                }
                libc::_exit(126);
            }
            let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
            pid.filter(|p| p.as_raw_nonzero().get() > 0).ok_or_else(io::Error::last_os_error)
        }
    }
}
