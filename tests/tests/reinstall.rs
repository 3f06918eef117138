//! `vzctl reinstall`: a new root from the template, with what was to be kept of the old one.

use tests::containers::node_with;
use tests::node::Node;

/// A container with an account, files of its own, and without one of the template's.
fn lived_in(test: &str, create: &[&str]) -> Option<Node> {
    let node = node_with(test, "busybox")?;
    node.done([&["create", "101", "--ostemplate", "busybox", "--name", "one"], create].concat());
    node.done(["start", "101"]);
    node.inside(
        "set -e; mkdir -p /srv/www/site /home/ann; echo page > /srv/www/site/index; chmod 2750 /srv/www; \
         ln /srv/www/site/index /srv/www/hard; ln -s /etc/passwd /srv/www/site/link; echo mine > /home/ann/file; chown -R 1000:1000 /home/ann; \
         echo 'ann:x:1000:1000::/home/ann:/bin/sh' >> /etc/passwd; echo 'ann:x:1000:' >> /etc/group; \
         echo 'evil:x:0:0::/root:/bin/sh' >> /etc/passwd; echo changed > /etc/motd; rm /bin/ls",
    );
    node.done(["set", "101", "--userpasswd", "root:secret", "--save"]);
    node.done(["stop", "101", "--fast"]);
    Some(node)
}

fn fresh_with_old(node: &Node) {
    let said = node.done(["reinstall", "101", "--keep", "/srv/www/site"]);
    assert!(said.contains("account evil is not kept"), "{said}");
    node.done(["start", "one"]);
    assert_eq!(
        node.inside("ls -d /bin/ls; test -e /etc/motd && cat /etc/motd; test -e /home/ann || echo gone"),
        "/bin/ls\ngone"
    );
    assert_eq!(
        node.inside("cat /srv/www/site/index; readlink /srv/www/site/link; stat -c %a /srv/www"),
        "page\n/etc/passwd\n2750"
    );
    assert_eq!(
        node.inside("cat /old/etc/motd /old/home/ann/file; stat -c %u:%g /old/home/ann/file"),
        "changed\nmine\n1000:1000"
    );
    assert_eq!(
        node.inside("stat -c %h /old/srv/www/hard; test -e /old/bin/ls || echo removed; stat -c %a /old"),
        "2\nremoved\n700"
    );
    assert_eq!(
        node.inside("grep -c -e '^ann:' /etc/passwd /etc/group; grep -c evil /etc/passwd || true"),
        "/etc/passwd:1\n/etc/group:1\n0"
    );
    assert!(node.inside("grep ^root: /etc/shadow").starts_with("root:$"), "the password is kept");
    node.done(["stop", "one", "--fast"]);
    // Once more: the old root of the old root is not taken along, and nothing is kept that was not asked for.
    node.done(["reinstall", "101", "--resetpwdb"]);
    node.done(["start", "101"]);
    assert_eq!(
        node.inside(
            "ls -d /old/old /srv/www 2>/dev/null || true; cat /old/srv/www/site/index; grep -c ann /etc/passwd || true"
        ),
        "page\n0"
    );
    node.done(["stop", "101", "--fast"]);
    node.done(["reinstall", "101", "--skipbackup"]);
    node.done(["start", "101"]);
    assert_eq!(node.inside("test -e /old || echo none"), "none");
    node.done(["stop", "101", "--fast"]);
    let litter: Vec<_> =
        std::fs::read_dir(node.path("private")).expect("there").flatten().map(|e| e.file_name()).collect();
    assert_eq!(litter, ["101"]);
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn a_directory_is_reinstalled_with_what_is_kept() {
    if let Some(node) = lived_in("a_directory_is_reinstalled_with_what_is_kept", &["--diskspace", "64M"]) {
        fresh_with_old(&node);
    }
}

#[test]
fn a_container_without_limits_is_reinstalled() {
    if let Some(node) = lived_in("a_container_without_limits_is_reinstalled", &[]) {
        fresh_with_old(&node);
    }
}

#[test]
fn an_image_is_reinstalled_with_what_is_kept() {
    let create = ["--diskspace", "64M", "--layout", "ploop"];
    if let Some(node) = lived_in("an_image_is_reinstalled_with_what_is_kept", &create) {
        fresh_with_old(&node);
    }
}

#[test]
fn what_cannot_be_reinstalled_is_as_it_was() {
    let Some(node) = lived_in("what_cannot_be_reinstalled_is_as_it_was", &["--diskspace", "64M"]) else { return };
    for bad in ["home", "/", "/a/../b", "/old", "/no/such/thing"] {
        node.vzctl(["reinstall", "101", "--keep", bad]).fails_with(21);
    }
    node.vzctl(["reinstall", "101", "--ostemplate", "none-such"]).fails_with(91);
    node.vzctl(["reinstall", "999"]).fails_with(14);
    node.done(["start", "101"]);
    node.vzctl(["reinstall", "101"]).fails_with(32);
    // The old root does not fit beside the new one.
    node.inside("dd if=/dev/urandom of=/big bs=1M count=58 2>/dev/null; cp /bin/busybox /bin/copy");
    node.done(["stop", "101", "--fast"]);
    let refused = node.vzctl(["reinstall", "101", "--keep", "/big"]);
    assert!(refused.code == 46 && refused.stderr.contains("--skipbackup"), "{refused:?}");
    node.done(["start", "101"]);
    assert_eq!(node.inside("stat -c %s /big; cat /etc/motd"), format!("{}\nchanged", 58u64 << 20));
    node.done(["stop", "101", "--fast"]);
    node.done(["reinstall", "101", "--keep", "/big", "--skipbackup"]);
    node.done(["start", "101"]);
    assert_eq!(node.inside("stat -c %s /big"), (58u64 << 20).to_string());
    let full = node.vzctl(["exec2", "101", "dd if=/dev/zero of=/more bs=1M count=20 2>&1"]);
    assert!(full.code != 0, "its limit holds: {full:?}");
    node.done(["stop", "101", "--fast"]);
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}
