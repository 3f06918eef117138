//! Which virtual hardware runs a stock kernel fastest here.
//!
//! `/dev/kvm` alone says little: some hosts offer one that runs only kernels written for it. So a kernel is booted with
//! it, as far as it gets without a disk, within a limit.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use super::Error;
use super::image::Image;
use super::qemu::{BARE, Running, unpacked};
use crate::wait::wait_until;

/// From power on to the panic for want of a root: about a second where it works.
const PROBE_LIMIT: Duration = Duration::from_secs(10);

/// How QEMU runs the machine's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor itself.
    Kvm,
    /// Translated, a thread for each processor.
    Tcg,
}

impl Accelerator {
    /// The fastest that works here. `directory` is for the probe's console.
    ///
    /// # Errors
    /// QEMU cannot be run at all.
    pub fn find(qemu: &Path, image: &Image, directory: &Path) -> Result<Self, Error> {
        let kvm = Path::new("/dev/kvm").exists() && boots(qemu, image, directory)?;
        Ok(if kvm { Self::Kvm } else { Self::Tcg })
    }

    /// For QEMU's command line.
    pub fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"],
        }
    }
}

/// Whether the image's kernel comes up under KVM. What QEMU says when it does not is of no use to anybody.
fn boots(qemu: &Path, image: &Image, directory: &Path) -> Result<bool, Error> {
    let console = directory.join("kvm-probe");
    let mut command = unpacked(&qemu.join("tree"));
    command.args(Accelerator::Kvm.arguments()).args(BARE).args(["-m", "256M"]).arg("-kernel").arg(image.kernel());
    command
        .args(["-append", "console=ttyS0 edd=off panic=-1"])
        .arg("-serial")
        .arg(format!("file:{}", console.display()));
    let mut child = Running(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    let ended = wait_until(PROBE_LIMIT, || child.0.try_wait().is_ok_and(|status| status.is_some()));
    drop(child);
    // No console file: QEMU did not get that far.
    Ok(ended && std::fs::read(&console).is_ok_and(|said| came_up(&String::from_utf8_lossy(&said))))
}

fn came_up(console: &str) -> bool {
    console.contains("Kernel panic") && console.contains("Unable to mount root fs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_has_come_up_when_it_misses_nothing_but_its_root() {
        assert!(came_up("[0.9] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\r\n"));
        assert!(!came_up(""));
        assert!(!came_up("[0.1] Linux version 6.12\r\n[0.2] Kernel panic - not syncing: stack-protector\r\n"));
    }
}
