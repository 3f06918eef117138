//! Templates of several layers: application layers over an OS template, and images of OCI.

use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use tests::node::Node;
use tests::skips::skip;

/// A node with a template area of its own, and the busybox template in it.
fn node_of_its_own(test: &str) -> Option<Node> {
    if !nix::unistd::geteuid().is_root() {
        skip(test, "needs root");
        return None;
    }
    let node = Node::new();
    node.run("vzpkg", ["--quiet", "create", "cache", "busybox"]).ok();
    Some(node)
}

/// An empty layer in the store.
fn layer(node: &Node, id: &str) -> PathBuf {
    let layer = node.path("template/cache/.layers").join(id);
    fs_err::create_dir_all(&layer).expect("a layer");
    layer
}

fn whiteout(path: &Path) {
    rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).expect("a whiteout");
}

fn set_layers(node: &Node, layers: &str) {
    let path = node.configuration(101);
    let text = fs_err::read_to_string(&path).expect("101.conf");
    fs_err::write(path, format!("{text}VZ_LAYERS=\"{layers}\"\n")).expect("101.conf");
}

#[test]
fn a_container_has_application_layers_between_its_template_and_its_own_files() {
    let Some(node) = node_of_its_own("a_container_has_application_layers_between_its_template_and_its_own_files")
    else {
        return;
    };
    node.done(["create", "101", "--ostemplate", "busybox", "--diskspace", "64M"]);
    let (low, high) = (layer(&node, "low@0123456789abcdef"), layer(&node, "high@fedcba9876543210"));
    for (layer, text) in [(&low, "low"), (&high, "high")] {
        fs_err::create_dir_all(layer.join("srv")).expect("a directory");
        fs_err::write(layer.join("srv/name"), text).expect("a file");
        fs_err::write(layer.join("srv").join(text), text).expect("a file");
    }
    whiteout(&high.join("srv/low"));
    // A directory of the template, hidden with all that was in it.
    fs_err::create_dir_all(low.join("root/new")).expect("a directory");
    rustix::fs::setxattr(low.join("root"), "trusted.overlay.opaque", b"y", XattrFlags::empty()).expect("opaque");
    let many: Vec<String> = (0..50).map(|n| format!("many@{n:016x}")).collect();
    for id in &many {
        fs_err::write(layer(&node, id).join(id), "").expect("a file");
    }
    set_layers(&node, &format!("low@0123456789abcdef {} high@fedcba9876543210", many.join(" ")));
    let look = "cat /srv/name; ls /srv /root; ls / | grep -c many@; ls /bin | grep -cx sh";
    let seen = "high\nhigh\nname\n\nnew\n50\n1";
    let looks = |when: &str| {
        node.done(["start", "101"]);
        let found =
            node.inside(look).replace("/srv:\n", "\n").replace("/root:\n", "").replace("high\nname", "high\nname");
        assert_eq!(found.trim(), seen, "{when}");
        node.done(["stop", "101", "--fast"]);
    };
    looks("over a directory");
    node.done(["convert", "101", "--layout", "ploop"]);
    assert_eq!(node.configured(101, "VZ_LAYERS"), None, "the image has them");
    looks("in an image");
}

#[test]
fn a_container_whose_layer_is_gone_does_not_start_and_the_message_names_it() {
    let Some(node) = node_of_its_own("a_container_whose_layer_is_gone_does_not_start_and_the_message_names_it") else {
        return;
    };
    node.done(["create", "101", "--ostemplate", "busybox"]);
    set_layers(&node, "gone@0123456789abcdef");
    let refused = node.vzctl(["start", "101"]).fails_with(91);
    assert!(refused.stderr.contains("no layer gone@0123456789abcdef"), "{}", refused.stderr);
    let many: Vec<String> = (0..61).map(|n| format!("many@{n:016x}")).collect();
    many.iter().for_each(|id| drop(layer(&node, id)));
    set_layers(&node, &many.join(" "));
    let refused = node.vzctl(["start", "101"]);
    assert!(refused.code != 0 && refused.stderr.contains("has 62 layers"), "{}: {}", refused.code, refused.stderr);
}
