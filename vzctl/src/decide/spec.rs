//! The OCI part of the plan.

use beancounters::Resource;
use oci_spec::runtime::{
    LinuxBuilder, LinuxCapabilitiesBuilder, LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespaceBuilder,
    LinuxNamespaceType, Mount, MountBuilder, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, ProcessBuilder,
    RootBuilder, Spec, SpecBuilder, UserBuilder,
};
use vzrt::plan::IdRange;
use vzrt::policy;

use super::resources::{bounds, oom_score_adj, resources};
use crate::config::Node;
use crate::subject::Subject;
use crate::{Exit, Failure};

/// Devices of the host that every container has: those that do nothing to the host.
pub(super) const BASE_NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// How many pseudo-terminals a container may have where `numpty` does not say. The host's 4096 are for everybody.
const DEFAULT_PTYS: u64 = 256;

/// Files of proc and sysfs that tell of the host and of other containers, and have no use inside.
const MASKED: [&str; 7] = [
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/sys/firmware",
    "/sys/kernel/slab",
];

/// Files of proc that do something to the whole machine. Their owner is the host's root; this is the second wall.
const READ_ONLY: [&str; 4] = ["/proc/bus", "/proc/irq", "/proc/sysrq-trigger", "/proc/fs"];

pub(super) fn spec(node: &Node, container: &Subject, ids: IdRange) -> Result<Spec, Failure> {
    let settings = &container.settings;
    let bad = |e: oci_spec::OciSpecError| Failure::from_error(Exit::InvalidValue, &e);
    let capabilities = capabilities(container)?;
    let process = ProcessBuilder::default()
        .terminal(true)
        .user(UserBuilder::default().uid(0u32).gid(0u32).build().map_err(bad)?)
        .cwd("/")
        .args(["init", "-z", "      "].map(str::to_owned).to_vec())
        .env(["HOME=/", "TERM=linux", "container=openvz", vz_path()].map(str::to_owned).to_vec())
        .capabilities(
            LinuxCapabilitiesBuilder::default()
                .bounding(capabilities.clone())
                .effective(capabilities.clone())
                .permitted(capabilities)
                .inheritable(policy_none())
                .ambient(policy_none())
                .build()
                .map_err(bad)?,
        )
        .rlimits(rlimits(settings)?)
        .oom_score_adj(oom_score_adj(settings, vzrt::overdraft::host_bytes())?)
        .no_new_privileges(false)
        .build()
        .map_err(bad)?;
    let namespaces = [
        LinuxNamespaceType::User,
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Network,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Cgroup,
        LinuxNamespaceType::Time,
    ]
    .into_iter()
    .map(|t| LinuxNamespaceBuilder::default().typ(t).build())
    .collect::<Result<Vec<_>, _>>()
    .map_err(bad)?;
    let asks =
        policy::Asks { before_locking: node.global.enforce_bounds, for_user_quota: settings.user_quota().is_some() };
    let linux = LinuxBuilder::default()
        .namespaces(namespaces)
        .uid_mappings(vec![mapping(ids.uid, ids.count).map_err(bad)?])
        .gid_mappings(vec![mapping(ids.gid, ids.count).map_err(bad)?])
        .resources(resources(settings, &container.ve_private)?)
        .cgroups_path(format!("/{}/{}", node.global.cgroup, container.ctid))
        .seccomp(policy::seccomp(&container.doors(), asks))
        .masked_paths(MASKED.map(str::to_owned).to_vec())
        .readonly_paths(READ_ONLY.map(str::to_owned).to_vec())
        .build()
        .map_err(bad)?;
    let mut spec = SpecBuilder::default()
        .version("1.2.0")
        .root(RootBuilder::default().path(container.ve_root.clone()).readonly(false).build().map_err(bad)?)
        .process(process)
        .mounts(mounts(settings).map_err(bad)?)
        .linux(linux);
    if let Some(name) = &settings.hostname {
        spec = spec.hostname(name.clone());
    }
    spec.build().map_err(bad)
}

pub(super) fn vz_path() -> &'static str {
    concat!("PATH=", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
}

fn policy_none() -> oci_spec::runtime::Capabilities {
    oci_spec::runtime::Capabilities::new()
}

/// The default set with the switches of `CAPABILITY`.
fn capabilities(container: &Subject) -> Result<oci_spec::runtime::Capabilities, Failure> {
    let switches = container
        .settings
        .capabilities
        .iter()
        .map(|switch| switch.to_string().parse())
        .collect::<Result<Vec<policy::CapabilitySwitch>, _>>()
        .map_err(|e| Failure::because(Exit::SetCapability, "Unable to set capabilities", &e))?;
    Ok(policy::capabilities(&switches))
}

fn mapping(base: u32, count: u32) -> Result<LinuxIdMapping, oci_spec::OciSpecError> {
    LinuxIdMappingBuilder::default().container_id(0u32).host_id(base).size(count).build()
}

/// What a process of a freshly booted Debian has, whatever shell the container was started from; the number of processes is the cgroup's.
///
/// Two beancounters are among them. `lockedpages` bounds each process by itself. `numsiginfo` bounds the container: the user namespace keeps the
/// limit of the process that made it, for all of its users together (user_namespaces(7), Linux 5.14).
///
/// # Errors
/// Bounds that contradict each other.
pub fn rlimits(settings: &crate::config::settings::Settings) -> Result<Vec<PosixRlimit>, Failure> {
    use PosixRlimitType as T;
    const UNLIMITED: u64 = u64::MAX;
    let bounds = bounds(settings)?;
    let barrier = |resource| bounds.get(resource).map(beancounters::Bound::barrier);
    let locked_bytes = match barrier(Resource::Lockedpages) {
        Some(pages) => pages.in_bytes().and_then(beancounters::Amount::finite).unwrap_or(UNLIMITED),
        None => DEFAULT_LOCKED_BYTES,
    };
    // Where nothing is said the kernel's own, by the size of the machine.
    let signals = barrier(Resource::Numsiginfo).and_then(beancounters::Amount::finite);
    let unlimited =
        [T::RlimitCpu, T::RlimitFsize, T::RlimitData, T::RlimitRss, T::RlimitAs, T::RlimitLocks, T::RlimitRttime];
    let limited = [
        (T::RlimitNofile, 1024, 524_288),
        (T::RlimitCore, 0, UNLIMITED),
        (T::RlimitStack, 8 << 20, UNLIMITED),
        (T::RlimitMemlock, locked_bytes, locked_bytes),
        (T::RlimitMsgqueue, 819_200, 819_200),
        (T::RlimitNice, 0, 0),
        (T::RlimitRtprio, 0, 0),
    ];
    unlimited
        .map(|typ| (typ, UNLIMITED, UNLIMITED))
        .into_iter()
        .chain(limited)
        .chain(signals.map(|signals| (T::RlimitSigpending, signals, signals)))
        .map(|(typ, soft, hard)| PosixRlimitBuilder::default().typ(typ).soft(soft).hard(hard).build())
        .collect::<Result<_, _>>()
        .map_err(|e| Failure::from_error(Exit::InvalidValue, &e))
}

/// What systemd lets a service lock.
const DEFAULT_LOCKED_BYTES: u64 = 8 << 20;

/// The file systems of a container, in the order they are mounted.
fn mounts(settings: &crate::config::settings::Settings) -> Result<Vec<Mount>, oci_spec::OciSpecError> {
    let ptys =
        settings.bounds.get(beancounters::Resource::Numpty).and_then(|b| b.limit().finite()).unwrap_or(DEFAULT_PTYS);
    let devpts = format!("max={}", ptys.clamp(1, 4096));
    let mount = |destination: &str, kind: &str, options: &[&str]| {
        MountBuilder::default()
            .destination(destination)
            .typ(kind)
            .source(kind)
            .options(options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>())
            .build()
    };
    Ok(vec![
        mount("/proc", "proc", &["nosuid", "nodev", "noexec"])?,
        // Read-only says to systemd that there is no udev to run; what can be written there belongs to the host's root anyway.
        mount("/sys", "sysfs", &["nosuid", "nodev", "noexec", "ro"])?,
        mount("/sys/fs/cgroup", "cgroup", &["nosuid", "nodev", "noexec"])?,
        mount("/dev", "tmpfs", &["nosuid", "mode=755", "size=4m", "nr_inodes=4096"])?,
        mount(
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "gid=5", "mode=620", "ptmxmode=666", &devpts],
        )?,
        mount("/dev/shm", "tmpfs", &["nosuid", "nodev", "mode=1777"])?,
        // Proc and sysfs once more, with nothing mounted over their files and writable as far as their files are. What covers files of /proc
        // and /sys is locked to them in a namespace that a user makes inside, and the kernel gives that namespace a proc or sysfs of its own
        // only while it has an uncovered one already (mount_too_revealing() in fs/namespace.c): `unshare --mount-proc`, bwrap and podman
        // live by this. They show what the container's root sees when it takes our covers off.
        mount("/dev/.vz/proc", "proc", &["nosuid", "nodev", "noexec"])?,
        mount("/dev/.vz/sys", "sysfs", &["nosuid", "nodev", "noexec"])?,
        // The kernel counts mounts, not paths, so nobody need find them: not users, and not programs that walk through all of /dev, as
        // `podman run --privileged` does.
        mount("/dev/.vz", "tmpfs", &["nosuid", "nodev", "noexec", "ro", "mode=700", "size=0", "nr_inodes=1"])?,
    ])
}
