//! Templates of several layers: application layers over an OS template, and images of OCI.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use sha2::{Digest, Sha256};
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
    let look = "echo $(cat /srv/name) / $(ls /srv) / $(ls /root) / $(ls / | grep -c many@) / $(ls /bin | grep -cx sh)";
    let looks = |when: &str| {
        node.done(["start", "101"]);
        assert_eq!(node.inside(look), "high / high name / new / 50 / 1", "{when}");
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

/// What `podman` and `umoci` write: an image of these directories, the lowest first, as layers compressed by gzip. A file named `.wh.NAME` in one
/// is a whiteout in it.
fn layout(path: &Path, tag: &str, config: &serde_json::Value, layers: &[&Path]) {
    use serde_json::json;
    fs_err::create_dir_all(path.join("blobs/sha256")).expect("a directory");
    let blob = |kind: &str, bytes: &[u8]| {
        let digits = format!("{:x}", Sha256::digest(bytes));
        fs_err::write(path.join("blobs/sha256").join(&digits), bytes).expect("a blob");
        json!({"mediaType": kind, "digest": format!("sha256:{digits}"), "size": bytes.len()})
    };
    let layers: Vec<_> = layers
        .iter()
        .map(|directory| {
            let packed = path.join("packed");
            let status = Command::new("tar")
                .args(["--numeric-owner", "-czf"])
                .arg(&packed)
                .arg("-C")
                .arg(directory)
                .arg(".")
                .status();
            assert!(status.expect("tar").success());
            let bytes = fs_err::read(&packed).expect("a layer");
            fs_err::remove_file(&packed).expect("a layer");
            blob("application/vnd.oci.image.layer.v1.tar+gzip", &bytes)
        })
        .collect();
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config =
        json!({"architecture": arch, "os": "linux", "config": config, "rootfs": {"type": "layers", "diff_ids": []}});
    let config = blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers}).to_string();
    let mut manifest = blob("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
    fs_err::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a file");
    fs_err::write(path.join("index.json"), json!({"schemaVersion": 2, "manifests": [manifest]}).to_string())
        .expect("a file");
}

/// Two layers: busybox with its applets, and over it one that removes an applet and has a program to be run.
fn two_layers(node: &Node, program: &str) -> [PathBuf; 2] {
    let (low, high) = (node.path("low"), node.path("high"));
    for directory in ["bin", "etc", "srv", "proc", "sys", "dev", "run", "tmp"] {
        fs_err::create_dir_all(low.join(directory)).expect("a directory");
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|p| Path::new(p).exists()).expect("busybox");
    fs_err::copy(busybox, low.join("bin/busybox")).expect("busybox");
    for applet in ["sh", "ls", "cat", "sleep", "id", "awk", "rm", "test"] {
        std::os::unix::fs::symlink("busybox", low.join("bin").join(applet)).expect("an applet");
    }
    fs_err::write(low.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nweb:x:33:44::/:/bin/sh\n").expect("accounts");
    fs_err::create_dir_all(high.join("bin")).expect("a directory");
    fs_err::write(high.join("bin/.wh.awk"), "").expect("a whiteout");
    fs_err::write(high.join("bin/program"), program).expect("a program");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs_err::set_permissions(high.join("bin/program"), mode).expect("a mode");
    [low, high]
}

const PROGRAM: &str =
    "#!/bin/sh\ntrap 'exit 0' QUIT\necho \"$$ $(id -u):$(id -g) $PWD $X $1\" >/tmp/told\nwhile :; do sleep 0.1; done\n";

#[test]
fn an_image_without_init_becomes_a_template_and_its_program_runs_as_the_container() {
    let Some(node) = node_of_its_own("an_image_without_init_becomes_a_template_and_its_program_runs_as_the_container")
    else {
        return;
    };
    let [low, high] = two_layers(&node, PROGRAM);
    fs_err::set_permissions(low.join("tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o1777)).expect("a mode");
    let config = serde_json::json!({"Entrypoint": ["program"], "Cmd": ["said"], "Env": ["X=set", "PATH=/bin"], "WorkingDir": "/srv/new",
        "User": "web", "StopSignal": "SIGQUIT"});
    let image = node.path("image");
    layout(&image, "1.0", &config, &[&low, &high]);
    let from = format!("{}:1.0", image.display());
    node.run("vzpkg", ["create", "cache", "app-1.0", "--from", &from]).ok();
    let refused =
        node.run("vzpkg", ["create", "cache", "app-2.0", "--from", &format!("{}:2.0", image.display())]).fails_with(25);
    assert!(refused.stderr.contains("there are: 1.0"), "{}", refused.stderr);
    node.done(["create", "101", "--ostemplate", "app-1.0", "--diskspace", "64M"]);
    node.done(["start", "101"]);
    let told = || node.vzctl(["exec2", "101", "cat /tmp/told"]).stdout;
    assert!(tests::wait::wait_until(std::time::Duration::from_secs(10), || !told().is_empty()), "the program runs");
    assert_eq!(told().trim(), "1 33:44 /srv/new set said");
    let applets = node.inside("ls /bin");
    assert!(
        applets.contains("sleep") && !applets.contains("awk") && !applets.contains("wh"),
        "the whiteout: {applets}"
    );
    let info = node.run("vzpkg", ["info", "app-1.0"]).ok().stdout;
    assert!(
        info.contains("3 layers, containers 101") && info.contains("[\"program\", \"said\"] in /srv/new as 33:44"),
        "{info}"
    );
    let before = std::time::Instant::now();
    node.done(["stop", "101"]);
    assert!(
        before.elapsed() < std::time::Duration::from_secs(20),
        "it took the image's own signal: {:?}",
        before.elapsed()
    );
    let refused = node.run("vzpkg", ["remove", "cache", "app-1.0"]).fails_with(35);
    assert!(refused.stderr.contains("Containers on it: 101"), "{}", refused.stderr);
    node.vzctl(["create", "102", "--ostemplate", "app-1.0", "--layout", "ploop", "--diskspace", "64M"]).fails_with(47);
    node.vzctl(["convert", "101", "--layout", "ploop"]).fails_with(47);
}

#[test]
fn an_update_is_for_new_containers_and_what_nobody_is_on_goes() {
    let Some(node) = node_of_its_own("an_update_is_for_new_containers_and_what_nobody_is_on_goes") else { return };
    let [low, high] = two_layers(&node, PROGRAM);
    let config = serde_json::json!({"Cmd": ["/bin/program"]});
    let image = node.path("image");
    let make = |what: &str| {
        layout(&image, "x", &config, &[&low, &high]);
        node.run("vzpkg", [what, "cache", "app", "--from", image.to_str().expect("a path")]).ok().stdout
    };
    let layers = || {
        let entries = fs_err::read_dir(node.path("template/cache/.layers")).expect("layers");
        entries.filter(|e| e.as_ref().is_ok_and(|e| e.path().is_dir())).count()
    };
    make("create");
    node.done(["create", "101", "--ostemplate", "app"]);
    let first = node.configured(101, "VZ_TREE");
    fs_err::write(high.join("bin/second"), "").expect("a file");
    make("update");
    node.done(["create", "102", "--ostemplate", "app"]);
    assert_ne!(node.configured(102, "VZ_TREE"), first);
    assert_eq!(layers(), 3, "the lower one once, the upper one in two versions");
    for ctid in ["101", "102"] {
        node.done(["start", ctid]);
    }
    node.vzctl(["exec2", "101", "test -e /bin/second"]).fails_with(1);
    node.vzctl(["exec2", "102", "test -e /bin/second"]).ok();
    for ctid in ["101", "102"] {
        node.done(["stop", ctid, "--fast"]);
    }
    node.done(["destroy", "101"]);
    make("update");
    assert_eq!(layers(), 2, "what only the destroyed one was on is gone");
    node.done(["destroy", "102"]);
    node.run("vzpkg", ["remove", "cache", "app"]).ok();
    assert_eq!(layers(), 0);
}
