//! The walls around the child that reads an archive.
//!
//! The strongest wall is the user namespace: the child is an unprivileged uid of the host that nobody else uses, so a
//! parser taken over by its input may do with the host what `nobody` may, and through the idmapped mount the files it
//! makes still carry the archive's own ids. The alternative, real root with few capabilities in a chroot, was
//! rejected: a uid 0 can signal and trace root's processes, make device nodes if one capability slips, and set
//! `trusted.*` attributes; here the kernel refuses these by construction.
//!
//! Around it: the tree is all there is of the file system, mounted without setuid, devices, executables or the
//! following of links; no network; five capabilities, inside the namespace only; no new processes; bounded memory.
//!
//! Needs Linux 5.12 and a file system with idmapped mounts, as the containers themselves do.

use std::fs::File;
use std::io::Write;
use std::os::fd::{BorrowedFd, OwnedFd};

use caps::{CapSet, Capability, CapsHashSet};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{ForkResult, Gid, Uid, pipe2, setgroups, setresgid, setresuid};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use super::Limits;
use super::member::Refusal;
use crate::sys;

/// Where the child's ids 0..=65535 are on the host. Below it (524288 to 1879048191) is what systemd's `UIDS-GIDS.md`
/// gives to containers; this is in the range it leaves free, and nothing on a disk ever carries these ids.
const BASE_ID: u32 = 0x7000_0000;
const IDS: u32 = 65536;

/// What making a file of any owner, mode and capability needs.
const KEPT: [Capability; 5] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_SETFCAP,
];

/// xz takes up to 256 MiB, zstd 128 MiB, lists of directories the rest.
const ADDRESS_SPACE: u64 = 1 << 30;

/// Puts the calling process, a forked child, behind the walls, with `target` as its root. `data` and `report` become
/// descriptors 0 and 1; no other stays open but 2, on `/dev/null`.
pub(super) fn enter(
    target: BorrowedFd<'_>,
    data: BorrowedFd<'_>,
    report: BorrowedFd<'_>,
    limits: &Limits,
) -> Result<(), Refusal> {
    // A parent that is killed takes the child with it; set again below, for a change of ids clears it.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(nix_failed("prctl(PR_SET_PDEATHSIG)"))?;
    stdio(data, report)?;
    let userns = user_namespace()?;
    // Before the mount namespace is left that `target` was opened in: only there may it be cloned.
    let mount = idmapped(target, &userns)?;
    // The mount, network, … namespaces belong to the host's user namespace: what the child is in its own gives it no
    // say over them.
    let others = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    unshare(others).map_err(nix_failed("unshare(NEWNS|NEWNET|NEWIPC|NEWUTS|NEWCGROUP)"))?;
    root(&mount)?;
    drop(mount);
    setns(&userns, CloneFlags::CLONE_NEWUSER).map_err(nix_failed("setns(userns)"))?;
    drop(userns);
    become_namespace_root()?;
    drop_capabilities()?;
    limit_resources(limits)?;
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(nix_failed("prctl(PR_SET_PDEATHSIG)"))?;
    // Last: it also closes the parent's descriptors, the lock among them, which were open until here.
    sys::close_from(3).map_err(|e| io_failed("close_range(3)", &e))
}

fn stdio(data: BorrowedFd<'_>, report: BorrowedFd<'_>) -> Result<(), Refusal> {
    let failed = |call: &'static str| move |e| Refusal::syscall(call, e);
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed("open(/dev/null)"))?;
    // Copies above 2 first: `data` or `report` may be 0, 1 or 2 in a parent that was started without them.
    let data = rustix::io::fcntl_dupfd_cloexec(data, 3).map_err(failed("fcntl(F_DUPFD)"))?;
    let report = rustix::io::fcntl_dupfd_cloexec(report, 3).map_err(failed("fcntl(F_DUPFD)"))?;
    rustix::stdio::dup2_stdin(&data).map_err(failed("dup2(0)"))?;
    rustix::stdio::dup2_stdout(&report).map_err(failed("dup2(1)"))?;
    rustix::stdio::dup2_stderr(&null).map_err(failed("dup2(2)"))
}

/// A user namespace of `IDS` ids, created by `BASE_ID`: what the kernel charges per user is charged to the creator, so
/// never to the host's root. It lives by its descriptor; the process that made it is gone when this returns.
fn user_namespace() -> Result<OwnedFd, Refusal> {
    let (ready, ready_w) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(nix_failed("pipe2()"))?;
    let (hold, hold_w) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(nix_failed("pipe2()"))?;
    let fork = sys::fork_single_threaded().map_err(|_| Refusal::syscall("fork()", rustix::io::Errno::AGAIN))?;
    let ForkResult::Parent { child } = fork else {
        drop((ready, hold_w));
        let made = create_as_base().is_ok() && rustix::io::write(&ready_w, b"1").is_ok();
        // Until the parent has opened the namespace, or is gone.
        let _ = rustix::io::read(&hold, &mut [0; 1]);
        sys::exit_child(i32::from(!made));
    };
    let holder = sys::Child::new(child);
    drop((ready_w, hold));
    if rustix::io::read(&ready, &mut [0; 1]).unwrap_or(0) == 0 {
        return Err(Refusal::syscall("unshare(NEWUSER)", rustix::io::Errno::PERM));
    }
    let map = format!("0 {BASE_ID} {IDS}\n");
    for file in ["gid_map", "uid_map"] {
        let path = format!("/proc/{child}/{file}");
        let open = File::options().write(true).open(&path);
        // One write: the kernel takes the map whole, once.
        open.and_then(|mut f| f.write_all(map.as_bytes())).map_err(|e| io_failed(&format!("write({path})"), &e))?;
    }
    let path = format!("/proc/{child}/ns/user");
    let userns = File::open(&path).map_err(|e| io_failed(&format!("open({path})"), &e))?;
    drop(hold_w);
    holder.wait().map_err(nix_failed("waitpid()"))?;
    Ok(userns.into())
}

/// Keeps CAP_SYS_ADMIN across the change of uid: where `kernel.unprivileged_userns_clone` is 0 (Debian), creating a
/// user namespace asks for it.
fn create_as_base() -> nix::Result<()> {
    nix::sys::prctl::set_keepcaps(true)?;
    setgroups(&[])?;
    let (uid, gid) = (Uid::from_raw(BASE_ID), Gid::from_raw(BASE_ID));
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    caps::raise(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).map_err(|_| nix::Error::EPERM)?;
    unshare(CloneFlags::CLONE_NEWUSER)
}

/// A detached mount of `target` that shows ids through `userns`.
fn idmapped(target: BorrowedFd<'_>, userns: &OwnedFd) -> Result<OwnedFd, Refusal> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let mount = rustix::mount::open_tree(target, "", flags);
    let mount = mount.map_err(|e| Refusal::syscall("open_tree(tree, OPEN_TREE_CLONE)", e))?;
    sys::idmap(&mount, userns).map_err(|e| io_failed("mount_setattr(tree, MOUNT_ATTR_IDMAP)", &e))?;
    Ok(mount)
}

/// Makes `mount` the root, and drops every other mount from sight.
fn root(mount: &OwnedFd) -> Result<(), Refusal> {
    let failed = |call: &'static str| move |e| Refusal::syscall(call, e);
    // First, or what follows would be seen by the host.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).map_err(failed("mount(/, MS_REC|MS_PRIVATE)"))?;
    // On top of the old root: no path of the host has to be there for it.
    let from_fd = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", rustix::fs::CWD, "/", from_fd).map_err(failed("move_mount(tree, /)"))?;
    rustix::process::fchdir(mount).map_err(failed("fchdir(tree)"))?;
    // New root and old at the same place, then the old one, now on top, is taken off (pivot_root(2), NOTES).
    rustix::process::pivot_root(".", ".").map_err(failed("pivot_root(., .)"))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(failed("umount2(., MNT_DETACH)"))?;
    rustix::process::chdir("/").map_err(failed("chdir(/)"))
}

fn become_namespace_root() -> Result<(), Refusal> {
    setgroups(&[]).map_err(nix_failed("setgroups(0)"))?;
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    setresgid(gid, gid, gid).map_err(nix_failed("setresgid(0, 0, 0)"))?;
    setresuid(uid, uid, uid).map_err(nix_failed("setresuid(0, 0, 0)"))?;
    // After the change of ids, which sets it anew. Another unpacker has the same uid; it shall not trace this one.
    nix::sys::prctl::set_dumpable(false).map_err(nix_failed("prctl(PR_SET_DUMPABLE, 0)"))?;
    rustix::process::umask(Mode::empty());
    Ok(())
}

fn drop_capabilities() -> Result<(), Refusal> {
    let failed = |_| Refusal::syscall("capset()", rustix::io::Errno::PERM);
    let kept = CapsHashSet::from(KEPT);
    // The bounding set while CAP_SETPCAP is still there.
    for capability in caps::read(None, CapSet::Bounding).map_err(failed)?.difference(&kept) {
        caps::drop(None, CapSet::Bounding, *capability).map_err(failed)?;
    }
    caps::clear(None, CapSet::Inheritable).map_err(failed)?;
    caps::set(None, CapSet::Effective, &kept).map_err(failed)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(failed)?;
    nix::sys::prctl::set_no_new_privs().map_err(nix_failed("prctl(PR_SET_NO_NEW_PRIVS)"))
}

fn limit_resources(limits: &Limits) -> Result<(), Refusal> {
    let bounds = [
        (Resource::RLIMIT_AS, ADDRESS_SPACE),
        (Resource::RLIMIT_CPU, limits.seconds),
        (Resource::RLIMIT_FSIZE, limits.bytes),
        (Resource::RLIMIT_NPROC, 0),
        (Resource::RLIMIT_CORE, 0),
    ];
    for (resource, bound) in bounds {
        setrlimit(resource, bound, bound).map_err(nix_failed("setrlimit()"))?;
    }
    Ok(())
}

fn nix_failed(call: &str) -> impl FnOnce(nix::Error) -> Refusal + '_ {
    move |e| Refusal::Syscall { call: call.to_owned(), errno: e as i32 }
}

fn io_failed(call: &str, error: &std::io::Error) -> Refusal {
    Refusal::Syscall { call: call.to_owned(), errno: error.raw_os_error().unwrap_or(libc::EIO) }
}

/// The root of the process, for [`super::extract`].
pub(super) fn open_root() -> Result<OwnedFd, Refusal> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open("/", flags, Mode::empty()).map_err(|e| Refusal::syscall("open(/)", e))
}
