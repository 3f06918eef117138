//! `/proc/mounts` of a container whose root is an overlay over a file system with quotas.
//!
//! The tools look there for a file system that can have quotas, and an overlay can't. As OpenVZ's kernel did, the root is shown as the file
//! system that its files are kept on. `/proc/self/mountinfo`, which is what other programs read, tells of the overlay.

use std::io;

/// What the overlay of a container's root calls its source.
const SOURCE: &str = "vz";

/// Options of an overlay that are any mount's.
const COMMON: [&str; 8] = ["rw", "ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime"];

/// What a thread is shown, which the kernel tells of the mounts below the thread's own root.
///
/// # Errors
/// The thread is gone.
pub(crate) fn text(thread: u32, node: &str) -> io::Result<String> {
    let text = std::fs::read(format!("/proc/{thread}/mounts"))?;
    Ok(shown(&String::from_utf8_lossy(&text), node))
}

fn shown(mounts: &str, node: &str) -> String {
    mounts.lines().map(|line| root_of_quotas(line, node).unwrap_or_else(|| line.to_owned()) + "\n").collect()
}

/// The line of the root; `None` for any other.
fn root_of_quotas(line: &str, node: &str) -> Option<String> {
    let mut fields = line.split(' ');
    let (source, place, kind, options) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    if (source, place, kind) != (SOURCE, "/", "overlay") {
        return None;
    }
    let kept: Vec<&str> = options.split(',').filter(|option| COMMON.contains(option)).collect();
    Some(format!("/dev/{node} / ext4 {},quota,usrquota,grpquota 0 0", kept.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_shows_its_quotas_and_the_rest_is_as_it_is() {
        let mounts = "vz / overlay rw,nodev,relatime,lowerdir=/x,upperdir=/y,nouserxattr 0 0\n\
                      proc /proc proc rw,nosuid 0 0\n\
                      overlay /var/lib/c/merged overlay rw,lowerdir=l 0 0\n";
        let expected = "/dev/simfs / ext4 rw,nodev,relatime,quota,usrquota,grpquota 0 0\n\
                        proc /proc proc rw,nosuid 0 0\n\
                        overlay /var/lib/c/merged overlay rw,lowerdir=l 0 0\n";
        assert_eq!(shown(mounts, "simfs"), expected);
        assert_eq!(shown("", "simfs"), "");
        assert_eq!(shown("a line of another kind", "simfs"), "a line of another kind\n");
    }
}
