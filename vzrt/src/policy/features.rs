//! The doors an administrator may open for one container.

use std::fmt;
use std::str::FromStr;

/// A door in the system call filter, closed unless the container's configuration opens it by name (`--features NAME:on`).
///
/// The features that OpenVZ had (`nfs`, `ppp`, `bridge`, …) are about devices and modules of the host; they are not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// `socket(AF_ALG)`: the kernel's cryptography for user space.
    AfAlg,
    /// `bpf(2)`. The host's `kernel.unprivileged_bpf_disabled` still decides what it may do.
    Bpf,
    /// `io_uring_*`. It reaches the kernel past this filter, so it opens [`Feature::Vsock`] and every socket family too.
    IoUring,
    /// `keyctl`, `add_key`, `request_key`. Keys are counted per uid, so they belong to this container alone.
    Keyring,
    /// `modify_ldt`: 16-bit programs under Wine, and 32-bit programs older than NPTL (2003).
    ModifyLdt,
    /// What a container manager inside the container asks for: the keyring and `bpf`.
    Nesting,
    /// `perf_event_open`. The host's `kernel.perf_event_paranoid` still decides what it may see.
    Perf,
    /// `quotactl`, `quotactl_fd`: disk quota for the container's own users.
    Quota,
    /// `socketcall` for 32-bit programs: the C library of most 32-bit distributions makes every socket with it. Its arguments lie in memory,
    /// where a filter can't look, so it opens every socket family, [`Feature::Vsock`] with them.
    Sock32,
    /// The socket families that servers don't use (Bluetooth, CAN, TIPC, …).
    Sockets,
    /// `userfaultfd`.
    Userfaultfd,
    /// `socket(AF_VSOCK)`: talks to the hypervisor, past every network namespace.
    Vsock,
}

/// The text names no [`Feature`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown feature {0:?}")]
pub struct BadFeature(pub String);

impl Feature {
    /// Every feature, in the order of their names.
    pub const ALL: [Self; 12] = [
        Self::AfAlg,
        Self::Bpf,
        Self::IoUring,
        Self::Keyring,
        Self::ModifyLdt,
        Self::Nesting,
        Self::Perf,
        Self::Quota,
        Self::Sock32,
        Self::Sockets,
        Self::Userfaultfd,
        Self::Vsock,
    ];

    /// The name as written in `FEATURES`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AfAlg => "af_alg",
            Self::Bpf => "bpf",
            Self::IoUring => "io_uring",
            Self::Keyring => "keyring",
            Self::ModifyLdt => "modify_ldt",
            Self::Nesting => "nesting",
            Self::Perf => "perf",
            Self::Quota => "quota",
            Self::Sock32 => "sock32",
            Self::Sockets => "sockets",
            Self::Userfaultfd => "userfaultfd",
            Self::Vsock => "vsock",
        }
    }

    /// Whether opening `self` opens `door` as well.
    #[must_use]
    pub fn opens(self, door: Self) -> bool {
        self == door || (self == Self::Nesting && matches!(door, Self::Keyring | Self::Bpf))
    }
}

impl FromStr for Feature {
    type Err = BadFeature;
    fn from_str(name: &str) -> Result<Self, BadFeature> {
        Self::ALL.into_iter().find(|f| f.name() == name).ok_or_else(|| BadFeature(name.to_owned()))
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_is_read_back_from_the_name_it_prints() {
        for feature in Feature::ALL {
            assert_eq!(feature.to_string().parse(), Ok(feature));
        }
        assert_eq!("vsocks".parse::<Feature>(), Err(BadFeature("vsocks".into())));
    }
}
