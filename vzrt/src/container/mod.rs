//! What runs between the clone and the container's init: the new process makes the inside of the container around itself.
//!
//! It holds every capability over its own user namespace and none over the host, so whatever the files of the container have been prepared
//! to do to it, they do to the container.

mod dev;
mod mounts;
mod run;

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use oci_spec::runtime::{Process, Spec};
use rustix::fs::{Mode, OFlags};

use crate::error::{Call, Failed};
use crate::guest;
use crate::plan::{GuestPlan, Plan};
use crate::{seccomp, sys, view};

pub(crate) use dev::{HostNodes, bind_into_running, make_name_of_file_system, open_pty, own_nodes};

/// Where the root is put for a moment, to become `/`: a directory that every host has and that is not needed any more once the device nodes
/// are in hand. Not `/proc` or `/sys`: while those are covered, the kernel gives a user namespace no new ones.
const PLACE: &str = "/dev";

/// Becomes root of the new user namespace, by whose maps the parent has just made it one.
pub(crate) fn become_root() -> Result<(), Failed> {
    setgroups(&[]).call(|| "setgroups()")?;
    setresgid(Gid::from_raw(0), Gid::from_raw(0), Gid::from_raw(0)).call(|| "setresgid(0)")?;
    setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).call(|| "setresuid(0)")?;
    // Named by the container's root and counted as its.
    match sys::join_session_keyring() {
        // A kernel without keys; or a host that is itself a container and may not use any, which then nobody in this one may either.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {}
        joined => joined.call(|| "keyctl(KEYCTL_JOIN_SESSION_KEYRING)")?,
    }
    // Until it is a program of the container's nobody inside may trace it or look at its descriptors; changing ids may have made it
    // dumpable, where the host's fs.suid_dumpable says so.
    nix::sys::prctl::set_dumpable(false).call(|| "prctl(PR_SET_DUMPABLE)")
}

/// Lets go of the priority and the resource limits of whoever ran the command: a container started by a service that the OOM killer must
/// spare, or by a backup job with `nice` and `ulimit`, is not to live like it. To be called while still the host's root, for it takes that
/// to raise a limit or a priority; what this host's root may not raise stays.
pub(crate) fn forget_caller(spec: &Spec) -> Result<(), Failed> {
    let promised = spec.process().as_ref().and_then(|process| process.oom_score_adj()).unwrap_or(0);
    // What is promised last: a root without CAP_SYS_RESOURCE may not make a process safer than it was, but it may let go of the caller's.
    for adjustment in [0, promised] {
        match std::fs::write("/proc/self/oom_score_adj", adjustment.to_string()) {
            Err(e) if e.kind() != std::io::ErrorKind::PermissionDenied => {
                return Err(e).call(|| format!("write(/proc/self/oom_score_adj, {adjustment})"));
            }
            _ => {}
        }
    }
    match rustix::process::setpriority_process(None, 0) {
        Err(e) if e != rustix::io::Errno::ACCESS && e != rustix::io::Errno::PERM => {
            return Err(e).call(|| "setpriority(0)");
        }
        _ => {}
    }
    spec.process().as_ref().map_or(Ok(()), limits)
}

/// Builds the inside: cgroup namespace, host name, mounts, `/dev`, the root. Afterwards `/` is the container's, and nothing of the host's
/// file system can be reached. With `files`, `/proc` tells of the container. Gives the master side of `/dev/console`.
pub(crate) fn build(
    plan: &Plan,
    root: &OwnedFd,
    granted: &HostNodes,
    files: Option<&OwnedFd>,
    tells_of_quotas: bool,
) -> Result<OwnedFd, Failed> {
    let spec = &plan.spec;
    // After the process is in its cgroup: the namespace's root is wherever its maker is.
    unshare(CloneFlags::CLONE_NEWCGROUP).call(|| "unshare(CLONE_NEWCGROUP)")?;
    if let Some(name) = spec.hostname() {
        nix::unistd::sethostname(name).call(|| format!("sethostname({name})"))?;
    }
    nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    sys::make_all_private().call(|| "mount_setattr(/, private, recursive)")?;
    // Host devices are taken hold of before the host's tree is gone; proc and sysfs must be mounted before it is, too: the kernel gives them
    // to a user namespace only while a full view of the host's is there to compare with.
    let nodes = dev::hold_host_nodes(&plan.vz.dev_nodes)?;
    mounts::attach_at(root, PLACE)?;
    mounts::mount_all(root.as_fd(), spec)?;
    dev::bind_nodes(root.as_fd(), &nodes)?;
    dev::bind_nodes(root.as_fd(), granted)?;
    dev::links(root.as_fd())?;
    let console = dev::console(root.as_fd())?;
    pivot(root)?;
    mounts::mask(spec)?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    settle(plan);
    // Last of all, for who serves the files is making the network meanwhile.
    if let Some(files) = files {
        run::make(root.as_fd(), view::tree::BEANCOUNTERS.1);
        view::place::at_start(files, tells_of_quotas)?;
    }
    // As systemd makes it on a machine, and in a container leaves to who made it: what is mounted inside later shows in services that have a
    // mount namespace of their own, and `podman` asks for it.
    sys::make_all_shared().call(|| "mount_setattr(/, shared, recursive)")?;
    Ok(console)
}

/// Makes the mounted root `/` and lets go of the host's tree (pivot_root(2), "pivot_root(\".\", \".\")": the old root ends up on top of the
/// new one and is then detached, so no directory inside is needed for it).
fn pivot(root: &OwnedFd) -> Result<(), Failed> {
    nix::unistd::fchdir(root).call(|| "fchdir(root)")?;
    nix::unistd::pivot_root(".", ".").call(|| "pivot_root(., .)")?;
    nix::mount::umount2(".", nix::mount::MntFlags::MNT_DETACH).call(|| "umount(old root)")?;
    nix::unistd::chdir("/").call(|| "chdir(/)")
}

/// Host name, name servers, addresses and console into the container's files. A container that has planted something in their place starts all the same: these
/// files are its own business, and the administrator is told.
fn settle(plan: &Plan) {
    let tell = |e: guest::Error| {
        tracing::warn!("Warning: settings were not written into the container: {}", crate::launch::chain(&e));
    };
    match guest::Root::open(Path::new("/")) {
        Ok(root) => {
            let settings = &plan.vz.guest;
            // What is in the way of one does not concern the other.
            write_hostname(&root, settings).unwrap_or_else(tell);
            write_dns(&root, settings).unwrap_or_else(tell);
            guest::set_network(&root, settings.addresses, &plan.vz.net.addresses).unwrap_or_else(tell);
            guest::set_console(&root, settings.console).unwrap_or_else(tell);
            if plan.vz.root.user_quota.is_some() {
                guest::set_mtab(&root).unwrap_or_else(tell);
            }
        }
        Err(e) => tell(e),
    }
}

fn write_hostname(root: &guest::Root, settings: &GuestPlan) -> Result<(), guest::Error> {
    settings.hostname.as_ref().map_or(Ok(()), |name| guest::set_hostname(root, settings.hostname_style, name))
}

fn write_dns(root: &guest::Root, settings: &GuestPlan) -> Result<(), guest::Error> {
    if settings.nameservers.is_empty() && settings.search.is_empty() {
        return Ok(());
    }
    guest::set_dns(root, &settings.nameservers, &settings.search)
}

/// Puts on what every process that runs inside must wear: limits, capabilities, the system call filter. The last step before execve.
///
/// For a process whose filter's questions nobody would answer: it has none.
pub(crate) fn confine(plan: &Plan) -> Result<(), Failed> {
    put_on(plan, |program| seccomp::load(&program.without_questions())).map(drop)
}

/// The same, with the questions left to the container's attendant, to whom `pass_on` gives the listener.
pub(crate) fn confine_asking(plan: &Plan, pass_on: impl FnOnce(OwnedFd) -> Result<(), Failed>) -> Result<(), Failed> {
    let load = |program: &seccomp::Program| match seccomp::load(program) {
        // This whole machine is somebody's container, and he answers.
        Err(e) if e.source.raw_os_error() == Some(libc::EBUSY) => seccomp::load(&program.without_questions()),
        r => r,
    };
    put_on(plan, load)?.map_or(Ok(()), pass_on)
}

/// The order matters: taking a filter without giving up set-user-id programs needs CAP_SYS_ADMIN, which the plan may take away, and cutting
/// the bounding set needs CAP_SETPCAP.
fn put_on(
    plan: &Plan,
    load: impl FnOnce(&seccomp::Program) -> Result<Option<OwnedFd>, seccomp::LoadError>,
) -> Result<Option<OwnedFd>, Failed> {
    let process = plan.spec.process().as_ref();
    process.map_or(Ok(()), limits)?;
    let listener = match plan.seccomp()? {
        Some(program) => {
            load(&program).map_err(|e| Failed::new("seccomp(SECCOMP_SET_MODE_FILTER)", crate::launch::chain(&e)))?
        }
        None => None,
    };
    process.map_or(Ok(()), capabilities)?;
    Ok(listener)
}

/// Resource limits of the plan, not of whoever called us. Raising a hard limit takes CAP_SYS_RESOURCE of the *host*, which only
/// [`forget_caller`] may still have, and which some hosts' root never had: what can't be raised stays.
fn limits(process: &Process) -> Result<(), Failed> {
    for limit in process.rlimits().iter().flatten() {
        let resource = rlimit_of(limit.typ());
        let as_option = |v: u64| (v != u64::MAX).then_some(v);
        let set = |hard: u64| {
            let (current, maximum) = (as_option(limit.soft().min(hard)), as_option(hard));
            rustix::process::setrlimit(resource, rustix::process::Rlimit { current, maximum })
        };
        let done = match set(limit.hard()) {
            Err(rustix::io::Errno::PERM) => set(rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX)),
            r => r,
        };
        done.call(|| format!("setrlimit({:?})", limit.typ()))?;
    }
    Ok(())
}

fn rlimit_of(t: oci_spec::runtime::PosixRlimitType) -> rustix::process::Resource {
    use oci_spec::runtime::PosixRlimitType as T;
    use rustix::process::Resource as R;
    match t {
        T::RlimitNofile => R::Nofile,
        T::RlimitCore => R::Core,
        T::RlimitNproc => R::Nproc,
        T::RlimitMemlock => R::Memlock,
        T::RlimitStack => R::Stack,
        T::RlimitMsgqueue => R::Msgqueue,
        T::RlimitSigpending => R::Sigpending,
        T::RlimitCpu => R::Cpu,
        T::RlimitFsize => R::Fsize,
        T::RlimitData => R::Data,
        T::RlimitRss => R::Rss,
        T::RlimitAs => R::As,
        T::RlimitLocks => R::Locks,
        T::RlimitNice => R::Nice,
        T::RlimitRtprio => R::Rtprio,
        T::RlimitRttime => R::Rttime,
    }
}

/// Bounding, effective and permitted as planned; inheritable and ambient empty (CVE-2022-24769 was a set left full).
fn capabilities(process: &Process) -> Result<(), Failed> {
    let Some(planned) = process.capabilities() else { return Ok(()) };
    let wanted: caps::CapsHashSet = planned
        .bounding()
        .iter()
        .flatten()
        .map(|c| format!("CAP_{c}").parse().map_err(|_| Failed::new(format!("capability {c}"), "unknown to us")))
        .collect::<Result<_, _>>()?;
    let go = || {
        caps::clear(None, caps::CapSet::Ambient)?;
        for cap in caps::runtime::thread_all_supported().into_iter().filter(|c| !wanted.contains(c)) {
            caps::drop(None, caps::CapSet::Bounding, cap)?;
        }
        caps::set(None, caps::CapSet::Effective, &wanted)?;
        caps::set(None, caps::CapSet::Permitted, &wanted)?;
        caps::clear(None, caps::CapSet::Inheritable)
    };
    go().map_err(|e: caps::errors::CapsError| Failed::new("capset()", e.to_string()))
}

/// Standard input, output and error are the container's own console.
pub(crate) fn console_as_stdio() -> Result<(), Failed> {
    let console = rustix::fs::open("/dev/console", OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())
        .call(|| "open(/dev/console)")?;
    rustix::stdio::dup2_stdin(&console)
        .and_then(|()| rustix::stdio::dup2_stdout(&console))
        .and_then(|()| rustix::stdio::dup2_stderr(&console))
        .call(|| "dup2(/dev/console)")
}
