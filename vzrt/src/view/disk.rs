//! `/proc/diskstats`.

use std::fmt::Write as _;

use crate::cgroup::DeviceAccount;

/// Bytes of a sector, whatever the device's own.
const SECTOR: u64 = 512;

/// `/proc/diskstats` (its 14 oldest fields) for the devices the container has used. Times and merges are not kept for a container: 0.
pub(super) fn diskstats(devices: &[DeviceAccount]) -> String {
    let mut text = String::new();
    for d in devices {
        let Some(name) = name(d.major, d.minor) else { continue };
        let (read, written) = (d.read_bytes / SECTOR, d.written_bytes / SECTOR);
        let _ = writeln!(
            text,
            "{:>4} {:>7} {name} {} 0 {read} 0 {} 0 {written} 0 0 0 0",
            d.major, d.minor, d.reads, d.writes
        );
    }
    text
}

/// The kernel's name of a block device.
fn name(major: u32, minor: u32) -> Option<String> {
    let link = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    Some(link.file_name()?.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    #[test]
    fn a_device_that_is_there_has_a_row_of_fourteen_fields_and_one_that_is_not_has_none() {
        let (device, numbers) = std::fs::read_dir("/sys/block")
            .unwrap()
            .flatten()
            .find_map(|entry| {
                let numbers = std::fs::read_to_string(entry.path().join("dev")).ok()?;
                Some((entry.file_name().into_string().ok()?, numbers))
            })
            .unwrap();
        let (major, minor) = numbers.trim().split_once(':').unwrap();
        let used = DeviceAccount {
            major: major.parse().unwrap(),
            minor: minor.parse().unwrap(),
            read_bytes: 4096,
            written_bytes: 1024,
            reads: 3,
            writes: 2,
        };
        let gone = DeviceAccount { major: 4095, minor: 1, ..used };
        let text = diskstats(&[used, gone]);
        assert_eq!(text.lines().count(), 1);
        let fields: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(fields[2..], [&device, "3", "0", "8", "0", "2", "0", "2", "0", "0", "0", "0"]);
    }
}
