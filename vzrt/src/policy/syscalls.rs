//! The system calls that a container does not have.
//!
//! A deny list: a server runs software nobody here has heard of, and a new system call is for its C library to try. What is on it, and
//! why, starts from the list of systemd-nspawn. `ENOSYS` says "not there", so that programs fall back to what there was before; `EPERM`
//! says "forbidden", for calls that have always been there and that programs expect to be refused.

use libc::{EAFNOSUPPORT, ENOSYS, EPERM};
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArgBuilder, LinuxSeccompOperator, LinuxSyscall};

use super::Feature;
use crate::userquota::answer::CALLS;
use crate::view::answers::{ANSWERED, LOCKING};

/// System calls that are refused alike, for one reason.
struct Denied {
    names: &'static [&'static str],
    errno: i32,
    /// The feature that opens them, if any does.
    unless: Option<Feature>,
}

const DENIED: &[Denied] = &[
    // The machine's clock. Needs SYS_TIME on the host; in a container these only ever fail, here before any kernel code runs.
    Denied {
        names: &[
            "settimeofday",
            "stime",
            "clock_settime",
            "clock_settime64",
            "adjtimex",
            "clock_adjtime",
            "clock_adjtime64",
        ],
        errno: EPERM,
        unless: None,
    },
    // Code for the one kernel, and another kernel.
    Denied { names: &["init_module", "finit_module", "delete_module"], errno: EPERM, unless: None },
    Denied { names: &["kexec_load", "kexec_file_load"], errno: EPERM, unless: None },
    // Swap, process accounting and I/O ports are the machine's.
    Denied { names: &["swapon", "swapoff", "acct", "iopl", "ioperm"], errno: EPERM, unless: None },
    // The kernel's log has the secrets of every container (when the host forgot dmesg_restrict).
    Denied { names: &["syslog"], errno: EPERM, unless: None },
    // A file by its handle is a file past every mount and root: CVE-2014-3519. The kernel asked for a capability on the host until 6.10,
    // and is content with less since. name_to_handle_at stays: udev and systemd tell mount points by it, and it opens nothing.
    Denied { names: &["open_by_handle_at"], errno: EPERM, unless: None },
    // EPERM is what unprivileged_bpf_disabled answers: systemd takes it as "no device or address filters here" and carries on.
    Denied { names: &["bpf"], errno: EPERM, unless: Some(Feature::Bpf) },
    // As perf_event_paranoid=3 and vm.unprivileged_userfaultfd=0 answer: a history of holes, and of making other holes usable.
    Denied { names: &["perf_event_open"], errno: EPERM, unless: Some(Feature::Perf) },
    Denied { names: &["userfaultfd"], errno: EPERM, unless: Some(Feature::Userfaultfd) },
    // No key namespace exists. systemd, PAM and runc take ENOSYS as a kernel without keys; EPERM some of them take as an error.
    Denied { names: &["add_key", "request_key", "keyctl"], errno: ENOSYS, unless: Some(Feature::Keyring) },
    // Five holes in 2022 alone, and a way to every other system call past this filter. Libraries fall back to epoll.
    Denied {
        names: &["io_uring_setup", "io_uring_enter", "io_uring_register"],
        errno: ENOSYS,
        unless: Some(Feature::IoUring),
    },
    // On the host's file system it would tell about, or act on, everyone's quota: CVE-2013-2239.
    Denied { names: &CALLS, errno: ENOSYS, unless: Some(Feature::Quota) },
    // Segment descriptors: CVE-2015-5157 and a few more.
    Denied { names: &["modify_ldt"], errno: ENOSYS, unless: Some(Feature::ModifyLdt) },
    // 16-bit DOS machines inside 32-bit programs.
    Denied { names: &["vm86", "vm86old"], errno: ENOSYS, unless: None },
    // Gone from current kernels or from every C library; the older kernels that still have them should not offer them.
    Denied {
        names: &["uselib", "ustat", "sysfs", "_sysctl", "lookup_dcookie", "nfsservctl"],
        errno: ENOSYS,
        unless: None,
    },
    // 32-bit programs only (other architectures have no such call): see Feature::Sock32.
    Denied { names: &["socketcall"], errno: ENOSYS, unless: Some(Feature::Sock32) },
];

/// Socket families that answer as if the kernel was built without them.
struct DeniedFamilies {
    families: &'static [i32],
    unless: Feature,
}

const DENIED_FAMILIES: &[DeniedFamilies] = &[
    // No network namespace holds it: a container would talk to the hypervisor.
    DeniedFamilies { families: &[libc::AF_VSOCK], unless: Feature::Vsock },
    // Servers have cryptography in user space; this is a parser of hostile input with a history.
    DeniedFamilies { families: &[libc::AF_ALG], unless: Feature::AfAlg },
    // What is left is UNIX, INET, INET6, NETLINK, PACKET, KEY (IPsec) and PPPOX. Asking for any of the others loads its module on the host,
    // whoever asks.
    DeniedFamilies {
        families: &[
            libc::AF_AX25,
            libc::AF_IPX,
            libc::AF_APPLETALK,
            libc::AF_NETROM,
            libc::AF_BRIDGE,
            libc::AF_ATMPVC,
            libc::AF_X25,
            libc::AF_ROSE,
            libc::AF_DECnet,
            libc::AF_NETBEUI,
            libc::AF_SECURITY,
            libc::AF_ASH,
            libc::AF_ECONET,
            libc::AF_ATMSVC,
            libc::AF_RDS,
            libc::AF_IRDA,
            libc::AF_WANPIPE,
            libc::AF_LLC,
            libc::AF_IB,
            libc::AF_MPLS,
            libc::AF_CAN,
            libc::AF_TIPC,
            libc::AF_BLUETOOTH,
            libc::AF_IUCV,
            libc::AF_RXRPC,
            libc::AF_ISDN,
            libc::AF_PHONET,
            libc::AF_IEEE802154,
            libc::AF_CAIF,
            libc::AF_NFC,
            41, // AF_KCM, which libc does not name
            42, // AF_QIPCRTR
            43, // AF_SMC
            libc::AF_XDP,
            45, // AF_MCTP
        ],
        unless: Feature::Sockets,
    },
];

/// What a container's filter leaves to its attendant, besides what is answered for every container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asks {
    /// Locking memory (`UBC_ENFORCE`).
    pub before_locking: bool,
    /// Quotas of its users and groups (`QUOTAUGIDLIMIT`).
    pub for_user_quota: bool,
}

/// The system call filter of a container with `features` opened, for [`crate::seccomp::Program::compile`] and for the printed plan.
#[must_use]
pub fn seccomp(features: &[Feature], asks: Asks) -> LinuxSeccomp {
    let open = |door: Feature| features.iter().any(|f| f.opens(door));
    // Who runs containers inside may want to be asked himself, and the kernel has one to be asked for all that runs below a filter.
    let asked = if open(Feature::Nesting) { Vec::new() } else { asked(asks, open(Feature::Quota)) };
    let calls = DENIED
        .iter()
        .filter(|d| !d.unless.is_some_and(open) && !d.names.iter().any(|name| asked.contains(name)))
        .map(|d| denied(d.names, d.errno, None));
    let families = DENIED_FAMILIES
        .iter()
        .filter(|d| !open(d.unless))
        .flat_map(|d| d.families)
        .map(|&family| denied(&["socket", "socketpair"], EAFNOSUPPORT, Some(family)));
    let notified = (!asked.is_empty()).then(|| notified(&asked));
    let mut filter = LinuxSeccomp::default();
    filter.set_default_action(LinuxSeccompAction::ScmpActAllow);
    filter.set_syscalls(Some(calls.chain(families).chain(notified).collect()));
    filter
}

/// What tells of the machine is answered for the container (`view`), what locks memory is measured by what all of it has locked, and quotas of
/// users and groups are those of its own file system (`userquota`).
fn asked(asks: Asks, has_quotactl: bool) -> Vec<&'static str> {
    let mut names = ANSWERED.to_vec();
    if asks.before_locking {
        names.extend(LOCKING);
    }
    if asks.for_user_quota && !has_quotactl {
        names.extend(CALLS);
    }
    names
}

fn notified(names: &[&str]) -> LinuxSyscall {
    let mut call = LinuxSyscall::default();
    call.set_names(names.iter().map(|&name| name.to_owned()).collect());
    call.set_action(LinuxSeccompAction::ScmpActNotify);
    call
}

/// One entry of the filter; with `family`, only for that first argument.
///
/// The kernel takes the family as an `int` and never looks at the upper half of the register, so neither must the comparison: a plain
/// "equals" lets `socket(AF_VSOCK | 1 << 32, …)` through.
fn denied(names: &[&str], errno: i32, family: Option<i32>) -> LinuxSyscall {
    let mut call = LinuxSyscall::default();
    call.set_names(names.iter().map(|&n| n.to_owned()).collect());
    call.set_action(LinuxSeccompAction::ScmpActErrno);
    call.set_errno_ret(Some(errno.unsigned_abs()));
    call.set_args(family.map(|family| {
        let family = LinuxSeccompArgBuilder::default()
            .index(0_usize)
            .op(LinuxSeccompOperator::ScmpCmpMaskedEq)
            .value(u64::from(u32::MAX))
            .value_two(u64::from(family.unsigned_abs()));
        vec![family.build().expect("every field has a default")]
    }));
    call
}
