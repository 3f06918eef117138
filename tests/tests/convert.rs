//! `vzctl convert`: a private area becomes another kind of area, and its files stay what they are.

use tests::containers::node_with;
use tests::node::Node;

/// Everything that can be seen of the files of a root, but for what a start writes.
fn fingerprint(node: &Node) -> String {
    node.inside(
        "{ find / -xdev ! -type d -exec stat -c '%n %a %u:%g %h %s %F %Y' {} \\; ; find / -xdev -type d -exec stat -c '%n %a %u:%g' {} \\; ; \
           find / -xdev -type f -exec md5sum {} \\; ; find / -xdev -type l -exec readlink {} \\; ; } \
         | grep -v -e /etc/hostname -e /etc/hosts -e /etc/resolv.conf | sort",
    )
}

/// An extended attribute, and how many blocks of 512 bytes a file of 20 MiB takes: on the host, for busybox has no tools for that.
fn attribute_and_blocks(node: &Node) -> (String, u64) {
    use std::os::unix::fs::MetadataExt;
    node.done(["mount", "101"]);
    let root = node.path("root/101/root");
    let mut value = [0; 16];
    let length = rustix::fs::getxattr(root.join("hard"), "user.vz", &mut value).expect("it has one");
    let sparse = root.join("sparse").metadata().expect("there");
    assert_eq!(sparse.len(), (20 << 20) + 1);
    node.done(["umount", "101"]);
    (String::from_utf8_lossy(&value[..length]).into_owned(), sparse.blocks())
}

/// Both are as they were; a block of zeros may have become a hole.
#[track_caller]
fn assert_same_for_the_host(node: &Node) {
    let (attribute, blocks) = attribute_and_blocks(node);
    assert!(attribute == "kept" && blocks <= 16, "{attribute:?}, {blocks} blocks");
}

#[test]
fn a_container_is_the_same_in_an_image_and_in_a_directory_again() {
    let Some(node) = node_with("a_container_is_the_same_in_an_image_and_in_a_directory_again", "busybox") else {
        return;
    };
    node.done(["create", "101", "--ostemplate", "busybox", "--diskspace", "64M"]);
    node.done(["start", "101"]);
    // Owners, modes, links, a fifo, holes; what of the template is gone, replaced, renamed, and made anew under the name of something gone.
    node.inside(
        "set -e; cd /root; echo mine > file; ln file hard; ln -s file soft; mkfifo fifo; chown 1234:4321 file; chmod 4711 file; \
         dd if=/dev/zero of=sparse bs=1 count=1 seek=20M 2>/dev/null; cp /bin/busybox capable; mkdir -p a/b; chmod 1777 a; \
         rm -f /bin/ls; echo replaced > /etc/passwd.new; mv /etc/network /etc/net 2>/dev/null || mv /usr /usr.moved; \
         rm -rf /var/tmp; mkdir -p /var/tmp/new; touch -d '2001-02-03 04:05:06' file",
    );
    let before = fingerprint(&node);
    assert!(before.contains("/root/file 4711 1234:4321 2 5 regular file 981173106"), "{before}");
    node.done(["stop", "101", "--fast"]);
    node.done(["mount", "101"]);
    let file = node.path("root/101/root/file");
    rustix::fs::setxattr(&file, "user.vz", b"kept", rustix::fs::XattrFlags::CREATE).expect("an attribute");
    node.done(["umount", "101"]);
    assert_same_for_the_host(&node);
    node.done(["convert", "101", "--layout", "ploop"]);
    assert_eq!(node.configured(101, "VE_LAYOUT").as_deref(), Some("ploop"));
    assert_eq!(node.configured(101, "VZ_TREE"), None, "it does not need its template any more");
    assert!(node.path("private/101/root.hdd/root.hds").is_file());
    assert_same_for_the_host(&node);
    node.done(["start", "101"]);
    assert_eq!(fingerprint(&node), before);
    assert!(node.inside("cat /proc/mounts").contains("/dev/loop"));
    node.vzctl(["convert", "101", "--layout", "simfs"]).fails_with(32);
    node.done(["stop", "101", "--fast"]);
    node.done(["convert", "101", "--velayout", "simfs"]);
    assert_eq!(node.configured(101, "VE_LAYOUT").as_deref(), Some("simfs"));
    assert!(!node.path("private/101/root.hdd").exists());
    assert_same_for_the_host(&node);
    node.done(["start", "101"]);
    assert_eq!(fingerprint(&node), before);
    let full = node.vzctl(["exec2", "101", "dd if=/dev/zero of=/big bs=1M count=100 2>&1"]);
    assert!(full.code != 0, "its limit holds: {full:?}");
    node.inside("rm /big");
    node.done(["stop", "101", "--fast"]);
    // What was never started has no upper layer yet.
    node.done(["create", "102", "--ostemplate", "busybox", "--diskspace", "64M"]);
    node.done(["convert", "102"]);
    node.done(["start", "102"]);
    assert_eq!(node.done(["exec2", "102", "echo works"]), "works\n");
    node.done(["stop", "102", "--fast"]);
    for ctid in ["101", "102"] {
        node.done(["destroy", ctid]);
    }
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn a_conversion_that_cannot_be_is_refused_and_changes_nothing() {
    let Some(node) = node_with("a_conversion_that_cannot_be_is_refused_and_changes_nothing", "busybox") else { return };
    node.done(["create", "101", "--ostemplate", "busybox", "--diskspace", "64M"]);
    node.vzctl(["convert", "101", "--layout", "zfs"]).fails_with(21);
    node.vzctl(["convert", "999"]).fails_with(14);
    assert!(node.done(["convert", "101", "--layout", "simfs"]).contains("already"));
    node.done(["mount", "101"]);
    node.vzctl(["convert", "101"]).fails_with(41);
    node.done(["umount", "101"]);
    let conf = std::fs::read_to_string(node.configuration(101)).expect("a configuration");
    // More than the image would hold.
    node.done(["start", "101"]);
    node.inside("dd if=/dev/urandom of=/big bs=1M count=40 2>/dev/null");
    node.done(["stop", "101", "--fast"]);
    let small = conf.lines().map(|l| if l.starts_with("DISKSPACE") { "DISKSPACE=\"32768:32768\"" } else { l });
    std::fs::write(node.configuration(101), small.collect::<Vec<_>>().join("\n") + "\n").expect("written");
    node.vzctl(["convert", "101"]).fails_with(46);
    assert_eq!(node.configured(101, "VE_LAYOUT").as_deref(), Some("simfs"));
    node.done(["start", "101"]);
    assert_eq!(node.inside("stat -c %s /big"), (40u64 << 20).to_string());
    node.done(["stop", "101", "--fast"]);
    // To take all its space at once is a conversion too.
    std::fs::write(node.configuration(101), conf).expect("written");
    node.done(["convert", "101", "--layout", "ploop"]);
    node.done(["convert", "101", "--layout", "ploop:plain"]);
    assert_eq!(node.configured(101, "VE_LAYOUT").as_deref(), Some("ploop:plain"));
    node.done(["start", "101"]);
    assert_eq!(node.inside("stat -c %s /big"), (40u64 << 20).to_string());
}
