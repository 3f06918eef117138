//! The system call tables of the machines we run on.

use std::str::FromStr;

use oci_spec::runtime::Arch;
use syscalls::{aarch64, arm, x86, x86_64};

/// A kind of machine: the ABIs its kernel takes system calls in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// 64-bit x86, with 32-bit programs.
    X86_64,
    /// 64-bit ARM, with 32-bit programs.
    Aarch64,
}

impl Machine {
    /// The machine this program was built for.
    #[cfg(target_arch = "x86_64")]
    pub const NATIVE: Self = Self::X86_64;
    /// The machine this program was built for.
    #[cfg(target_arch = "aarch64")]
    pub const NATIVE: Self = Self::Aarch64;

    /// Its ABIs, the native one first.
    pub(super) const fn abis(self) -> [Abi; 2] {
        match self {
            Self::X86_64 => [Abi::X86_64, Abi::X86],
            Self::Aarch64 => [Abi::Aarch64, Abi::Arm],
        }
    }
}

/// One way to number system calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Abi {
    X86_64,
    X86,
    Aarch64,
    Arm,
}

/// The size of a `long` for a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    /// 32-bit programs.
    Four,
    /// 64-bit programs.
    Eight,
}

impl Width {
    /// In bytes.
    pub(crate) const fn bytes(self) -> usize {
        match self {
            Self::Four => 4,
            Self::Eight => 8,
        }
    }
}

/// Which of `names` a system call is that arrived as `number` in the ABI that the kernel calls `arch`, and that ABI's `long`.
pub(crate) fn names_call<'a>(arch: u32, number: u32, names: &[&'a str]) -> Option<(&'a str, Width)> {
    let abi = Machine::NATIVE.abis().into_iter().find(|abi| abi.audit_arch() == arch)?;
    let name = names.iter().find(|name| abi.number(name) == Some(number))?;
    Some((name, if matches!(abi, Abi::X86_64 | Abi::Aarch64) { Width::Eight } else { Width::Four }))
}

impl Abi {
    /// What the kernel puts in `seccomp_data.arch` (`AUDIT_ARCH_*` of linux/audit.h).
    pub(super) const fn audit_arch(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// The number of the system call called `name` here; none if this ABI never had it.
    pub(super) fn number(self, name: &str) -> Option<u32> {
        let number = match self {
            Self::X86_64 => x86_64::Sysno::from_str(name).ok()?.id(),
            Self::X86 => x86::Sysno::from_str(name).ok()?.id(),
            Self::Aarch64 => aarch64::Sysno::from_str(name).ok()?.id(),
            Self::Arm => arm::Sysno::from_str(name).ok()?.id(),
        };
        u32::try_from(number).ok()
    }

    /// Whether a filter for `architectures` (as the OCI spec names them) answers for this ABI.
    pub(super) fn is_in(self, architectures: &[Arch], is_native: bool) -> bool {
        let own = match self {
            Self::X86_64 => Arch::ScmpArchX86_64,
            Self::X86 => Arch::ScmpArchX86,
            Self::Aarch64 => Arch::ScmpArchAarch64,
            Self::Arm => Arch::ScmpArchArm,
        };
        architectures.contains(&own) || (is_native && architectures.contains(&Arch::ScmpArchNative))
    }
}
