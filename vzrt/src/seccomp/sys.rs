//! The system call that installs a filter.
#![expect(unsafe_code, reason = "seccomp(2) takes a pointer, and no safe wrapper takes a whole program")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use super::Program;

/// The kernel did not take the filter.
#[derive(Debug, thiserror::Error)]
#[error("seccomp(SECCOMP_SET_MODE_FILTER, {flags:#x}, {instructions} instructions)")]
pub struct LoadError {
    /// Flags given.
    pub flags: u32,
    /// Length of the program.
    pub instructions: usize,
    /// What the kernel said. `EACCES`: no `CAP_SYS_ADMIN` in the caller's user namespace, and `no_new_privs` not set.
    pub source: io::Error,
}

/// Puts the calling thread, and all it will start, under `program`, for good.
///
/// `no_new_privs` is not set: it would break `sudo` and `su` inside. The caller has `CAP_SYS_ADMIN` in its user namespace instead, so this
/// comes before capabilities are dropped.
///
/// Gives the listener of a program that [asks](Program::asks).
///
/// # Errors
/// The system call failed: nothing is installed. `EBUSY` for a program that asks where one that asks is in force already: who runs a container
/// inside a container has to load it [without questions](Program::without_questions).
pub fn load(program: &Program) -> Result<Option<OwnedFd>, LoadError> {
    let failed = |source| LoadError { flags: program.flags, instructions: program.instructions.len(), source };
    let length = u16::try_from(program.instructions.len()).map_err(|_| failed(io::ErrorKind::InvalidInput.into()))?;
    let filter = libc::sock_fprog { len: length, filter: program.instructions.as_ptr().cast_mut().cast() };
    // SAFETY: `filter` points to `length` instructions laid out as `sock_filter` (asserted below); both outlive the call, which only reads.
    let installed =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, program.flags, &raw const filter) };
    match installed {
        -1 => Err(failed(io::Error::last_os_error())),
        fd if program.asks() => {
            let fd = i32::try_from(fd).map_err(|e| failed(io::Error::other(e)))?;
            // SAFETY: the kernel has just made this descriptor (close-on-exec), which nobody else owns.
            Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
        }
        0 => Ok(None),
        // TSYNC: the number of the thread that could not follow.
        _ => Err(failed(io::Error::from_raw_os_error(libc::ESRCH))),
    }
}

const _: () = assert!(
    size_of::<super::Instruction>() == size_of::<libc::sock_filter>()
        && align_of::<super::Instruction>() == align_of::<libc::sock_filter>()
);

#[cfg(test)]
mod tests {
    use std::io::Error;
    use std::thread;

    use nix::sys::prctl::set_no_new_privs;

    use super::super::{Machine, Program};
    use super::load;
    use crate::policy::{self, Feature};

    /// Runs `calls` in a thread of its own under the container's filter. A filter and `no_new_privs` belong to a thread, so nothing else
    /// in this process is touched, and nobody forks.
    fn under_filter<T: Send + 'static>(features: &'static [Feature], calls: impl FnOnce() -> T + Send + 'static) -> T {
        let inside = thread::spawn(move || {
            let program = Program::compile(&policy::seccomp(features, policy::Asks::default()), Machine::NATIVE)
                .expect("the policy compiles");
            set_no_new_privs().expect("prctl(PR_SET_NO_NEW_PRIVS)");
            load(&program).expect("the kernel takes the filter");
            calls()
        });
        inside.join().expect("the filter let the thread live")
    }

    fn call(number: libc::c_long, args: [u64; 3]) -> Option<i32> {
        // SAFETY: only used with calls and arguments that have no effect on this process: sockets, or null pointers.
        let result = unsafe { libc::syscall(number, args[0], args[1], args[2]) };
        (result == -1).then(|| Error::last_os_error().raw_os_error().expect("an error of the kernel"))
    }

    fn socket(family: u64) -> Option<i32> {
        call(libc::SYS_socket, [family, libc::SOCK_STREAM as u64 | libc::SOCK_CLOEXEC as u64, 0])
    }

    #[test]
    fn a_thread_under_the_filter_gets_the_errors_of_the_policy() {
        let got = under_filter(&[], || {
            [
                call(libc::SYS_keyctl, [0; 3]),
                call(libc::SYS_io_uring_setup, [0; 3]),
                call(libc::SYS_bpf, [0; 3]),
                call(libc::SYS_open_by_handle_at, [0; 3]),
                call(libc::SYS_finit_module, [u64::MAX, 0, 0]),
                call(libc::SYS_settimeofday, [0; 3]),
            ]
        });
        let expected = [libc::ENOSYS, libc::ENOSYS, libc::EPERM, libc::EPERM, libc::EPERM, libc::EPERM];
        assert_eq!(got, expected.map(Some));
    }

    #[test]
    fn a_vsock_socket_is_refused_whatever_is_in_the_upper_half_of_the_register() {
        let got = under_filter(&[], || {
            (
                socket(40),
                socket(1 << 32 | 40),
                socket(libc::AF_UNIX as u64),
                socket(u64::MAX << 32 | libc::AF_INET as u64),
            )
        });
        assert_eq!(got, (Some(libc::EAFNOSUPPORT), Some(libc::EAFNOSUPPORT), None, None));
    }

    #[test]
    fn a_feature_opens_its_door_only() {
        let (keyctl, io_uring) = under_filter(&[Feature::Keyring], || {
            (call(libc::SYS_keyctl, [u64::MAX, 0, 0]), call(libc::SYS_io_uring_setup, [0; 3]))
        });
        assert_ne!(keyctl, Some(libc::ENOSYS), "keyctl reaches the kernel");
        assert_eq!(io_uring, Some(libc::ENOSYS));
    }

    #[test]
    fn without_privilege_the_kernel_refuses_and_the_error_shows_the_call() {
        let refused = thread::spawn(|| {
            // A program that does not end in a return is refused whoever asks.
            let program = Program {
                instructions: vec![super::super::Instruction { code: 0x20, jt: 0, jf: 0, k: 0 }],
                flags: 0,
                unknown: vec![],
            };
            set_no_new_privs().expect("prctl(PR_SET_NO_NEW_PRIVS)");
            load(&program).expect_err("not a program")
        });
        let error = refused.join().expect("the thread lives");
        assert_eq!(error.source.raw_os_error(), Some(libc::EINVAL));
        assert_eq!(error.to_string(), "seccomp(SECCOMP_SET_MODE_FILTER, 0x0, 1 instructions)");
    }

    /// System calls as a 32-bit program makes them.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_32_bit_program_is_under_the_same_policy() {
        use std::arch::asm;

        fn int80(number: i32, arg: i32) -> i32 {
            let result: i32;
            // SAFETY: the 32-bit entry of the kernel; null or number arguments only, no memory is touched. rbx is LLVM's, so it is swapped in.
            unsafe {
                asm!("xchg rbx, {arg:r}", "int 0x80", "xchg rbx, {arg:r}", arg = inout(reg) i64::from(arg) => _,
                     inlateout("eax") number => result, in("ecx") 1, in("edx") 0, lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _);
            }
            result
        }
        if !std::path::Path::new("/proc/sys/abi/vsyscall32").exists() {
            eprintln!("skipped: a_32_bit_program_is_under_the_same_policy: this kernel runs no 32-bit programs");
            return;
        }
        const GETPID: i32 = 20;
        const SOCKETCALL: i32 = 102;
        const SOCKET: i32 = 359;
        let (getpid, socketcall, vsock) =
            under_filter(&[], || (int80(GETPID, 0), int80(SOCKETCALL, 1), int80(SOCKET, 40)));
        assert_eq!(getpid, i32::try_from(std::process::id()).expect("a pid"));
        assert_eq!((socketcall, vsock), (-libc::ENOSYS, -libc::EAFNOSUPPORT));
        let opened = under_filter(&[Feature::Sock32], || int80(SOCKETCALL, 99));
        assert_eq!(opened, -libc::EINVAL, "the kernel's own answer to an unknown socketcall");
    }
}
