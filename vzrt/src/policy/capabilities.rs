//! The capabilities of a container's root.
//!
//! All of them are capabilities *in the container's own user namespace*. The kernel asks for most of the dangerous ones in the host's
//! namespace (`capable()`, not `ns_capable()`), where a container has none: turning those on gives nothing. Those asked for in the
//! namespace are power over the container's own mounts, network and processes.

use std::str::FromStr;

use oci_spec::runtime::{Capabilities, Capability};

/// What is on unless the configuration says otherwise, together with [`VE_ADMIN`]: the mask of OpenVZ (`CAPDEFAULTMASK` of vzctl 4).
const DEFAULT: [Capability; 25] = [
    Capability::Chown,
    Capability::DacOverride,
    // Reading past permissions. What made it an escape, open_by_handle_at, is closed by the system call filter as well.
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    // ping, tcpdump, DHCP clients.
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysChroot,
    // Tracing the container's own processes; those of the host are in another user namespace.
    Capability::SysPtrace,
    // reboot(2) in a pid namespace ends that namespace only.
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTtyConfig,
    // Without effect in a user namespace (mknod of a device is refused there), but package managers test for it.
    Capability::Mknod,
    Capability::Lease,
    // sshd, login and PAM write audit records and treat a refusal as fatal.
    Capability::AuditWrite,
    Capability::Setfcap,
];

/// What OpenVZ's VE_ADMIN was: power over the container's own addresses, routes and netfilter, and over its own mounts, host name and
/// namespaces. systemd does not boot without.
const VE_ADMIN: [Capability; 2] = [Capability::NetAdmin, Capability::SysAdmin];

/// Capabilities that a container can be given but that the kernel honours in the host's user namespace only.
///
/// Off by default, each for that reason: a program that sees the bit believes in it and fails later and worse. Two more are off although
/// they would work: `CHECKPOINT_RESTORE` (choosing pids: only CRIU inside a container needs it) and `SYS_TIME` when a time namespace is
/// made inside the container.
const HOST_ONLY: [Capability; 13] = [
    // Loads code into the one kernel.
    Capability::SysModule,
    // iopl, /dev/mem, SCSI commands.
    Capability::SysRawio,
    // Process accounting writes a file for the whole machine.
    Capability::SysPacct,
    // The clock is everyone's.
    Capability::SysTime,
    // Waking the machine from suspend, and keeping it from suspending.
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    // The policy of the host's security module.
    Capability::MacAdmin,
    Capability::MacOverride,
    // The kernel's log and addresses.
    Capability::Syslog,
    // Performance counters and BPF see the whole machine.
    Capability::Perfmon,
    Capability::Bpf,
    // Rules and log of the one audit system.
    Capability::AuditControl,
    Capability::AuditRead,
];

/// One entry of `CAPABILITY="NET_ADMIN:off SYS_TIME:on"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapabilitySwitch {
    /// What the name stands for: one capability, or two for OpenVZ's `VE_ADMIN`.
    pub capabilities: Vec<Capability>,
    /// `on` or `off`.
    pub on: bool,
}

/// A capability switch could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCapability {
    /// No `:on` or `:off` at the end.
    #[error("capability {0:?} is neither :on nor :off")]
    NotASwitch(String),
    /// No such capability.
    #[error("unknown capability {0:?}")]
    Unknown(String),
}

impl CapabilitySwitch {
    /// Reads the value of `CAPABILITY`: entries separated by blanks or commas.
    ///
    /// # Errors
    /// The first entry that is not a switch.
    pub fn parse_list(value: &str) -> Result<Vec<Self>, BadCapability> {
        value.split([' ', '\t', ',']).filter(|entry| !entry.is_empty()).map(str::parse).collect()
    }
}

/// `NAME:on` or `NAME:off`; the name in any case, with or without `CAP_`, as vzctl took it. `VE_ADMIN`, which no upstream kernel has, is
/// `SYS_ADMIN` and `NET_ADMIN` in the container's own namespaces.
impl FromStr for CapabilitySwitch {
    type Err = BadCapability;
    fn from_str(text: &str) -> Result<Self, BadCapability> {
        let not_a_switch = || BadCapability::NotASwitch(text.to_owned());
        let (name, state) = text.split_once(':').ok_or_else(not_a_switch)?;
        let on = match state {
            "on" => true,
            "off" => false,
            _ => return Err(not_a_switch()),
        };
        let name = name.to_ascii_uppercase();
        let name = name.strip_prefix("CAP_").unwrap_or(&name);
        let capabilities = match name {
            "VE_ADMIN" => VE_ADMIN.to_vec(),
            _ => vec![Capability::from_str(name).map_err(|_| BadCapability::Unknown(name.to_owned()))?],
        };
        Ok(Self { capabilities, on })
    }
}

/// The capabilities of a container: bounding, effective and permitted set alike. Inheritable and ambient sets are to be empty: a file
/// capability must not find in them what its program was not given (CVE-2022-24769).
///
/// Later switches win over earlier ones.
#[must_use]
pub fn capabilities(switches: &[CapabilitySwitch]) -> Capabilities {
    let mut set: Capabilities = DEFAULT.into_iter().chain(VE_ADMIN).collect();
    for switch in switches {
        for &capability in &switch.capabilities {
            if switch.on {
                set.insert(capability)
            } else {
                set.remove(&capability)
            };
        }
    }
    set
}

/// Whether turning `capability` on in a container changes nothing, because the kernel asks for it in the host's user namespace. To be said
/// to the administrator who turns it on.
#[must_use]
pub fn has_no_effect(capability: Capability) -> bool {
    HOST_ONLY.contains(&capability)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(value: &str) -> Capabilities {
        capabilities(&CapabilitySwitch::parse_list(value).expect("a good list"))
    }

    #[test]
    fn systemd_has_what_it_needs_and_the_machine_stays_out_of_reach() {
        let set = with("");
        assert!(set.contains(&Capability::SysAdmin) && set.contains(&Capability::NetAdmin));
        assert_eq!(set.len(), 27);
        for capability in HOST_ONLY {
            assert!(!set.contains(&capability), "{capability}");
        }
        assert!(!set.contains(&Capability::CheckpointRestore));
    }

    #[test]
    fn switches_add_and_remove_and_the_last_one_wins() {
        assert!(with("SYS_TIME:on").contains(&Capability::SysTime));
        assert!(!with("net_raw:off,cap_mknod:off").contains(&Capability::NetRaw));
        assert!(with("NET_RAW:off NET_RAW:on").contains(&Capability::NetRaw));
    }

    #[test]
    fn ve_admin_stands_for_sys_admin_and_net_admin() {
        assert_eq!(with("VE_ADMIN:on"), with(""));
        let off = with("VE_ADMIN:off");
        assert!(!off.contains(&Capability::SysAdmin) && !off.contains(&Capability::NetAdmin));
    }

    #[test]
    fn what_is_not_a_capability_switch_is_refused() {
        assert_eq!("NET_ADMIN".parse::<CapabilitySwitch>(), Err(BadCapability::NotASwitch("NET_ADMIN".into())));
        assert_eq!("NET_ADMIN:yes".parse::<CapabilitySwitch>(), Err(BadCapability::NotASwitch("NET_ADMIN:yes".into())));
        assert_eq!("FLY:on".parse::<CapabilitySwitch>(), Err(BadCapability::Unknown("FLY".into())));
    }

    #[test]
    fn capabilities_of_the_host_are_reported_as_without_effect() {
        assert!(has_no_effect(Capability::SysTime) && has_no_effect(Capability::AuditRead));
        assert!(!has_no_effect(Capability::NetAdmin) && !has_no_effect(Capability::CheckpointRestore));
    }
}
