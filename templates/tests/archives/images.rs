//! Images of the Open Container Initiative, and systems that are given whole, as they lie in the store.

use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use templates::recipe::Bootstrap;
use templates::unpack::{Refusal, UnpackError};
use templates::{Archive, CacheError, OciError, Recipe, Silent, Tree};

use crate::support::{M, Place, Test, character_device, dir, file, hardlink, mode, symlink, tar, xattr};

pub(crate) const TESTS: &[Test] = &[
    ("an image becomes a tree of layers in overlay's words", layers_in_overlays_words),
    ("a directory that a layer makes unasked keeps the attributes it has below", unasked_directories),
    ("a layer is stored once and goes with the last tree that has it", stored_once),
    ("a layer with another digest is refused and leaves nothing", wrong_digest),
    ("hostile layers are refused", hostile_layers),
    ("a layer that writes through a link of a layer below is refused by name", through_link),
    ("archives of images are read as their directories are", archives_of_images),
    ("the bounds of a recipe hold for layers", bounds),
    ("a system is found in an archive, below rootfs and in a directory", systems),
    ("an archive with another hash than the recipe's is refused", wrong_hash),
];

/// A layout with one image of these layers, the lowest first, each a tar stream.
fn layout(place: &Place, name: &str, layers: &[Vec<u8>]) -> PathBuf {
    let path = place.path().join(name);
    std::fs::create_dir_all(path.join("blobs/sha256")).unwrap();
    let blob = |kind: &str, bytes: &[u8]| -> Value {
        let digits = format!("{:x}", Sha256::digest(bytes));
        std::fs::write(path.join("blobs/sha256").join(&digits), bytes).unwrap();
        json!({"mediaType": kind, "digest": format!("sha256:{digits}"), "size": bytes.len()})
    };
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({"architecture": arch, "os": "linux", "config": {"Cmd": ["/bin/x"], "WorkingDir": "/work/here"},
        "rootfs": {"type": "layers", "diff_ids": []}});
    let config = blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let layers: Vec<_> = layers.iter().map(|l| blob("application/vnd.oci.image.layer.v1.tar", l)).collect();
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
    let manifest = blob("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes());
    std::fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    std::fs::write(path.join("index.json"), json!({"schemaVersion": 2, "manifests": [manifest]}).to_string()).unwrap();
    path
}

fn make(place: &Place, name: &str, source: &Path) -> Result<(Archive, Tree), CacheError> {
    let name = name.parse().unwrap();
    let recipe = Recipe::of_source(&name, Bootstrap::of_path(source, None)?)?;
    place.store().create_cache_by(&recipe, &name, &mut Silent)
}

fn image(place: &Place, layers: &[Vec<u8>]) -> Result<Tree, CacheError> {
    make(place, "t", &layout(place, "image", layers)).map(|(_, tree)| tree)
}

fn is_whiteout(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_char_device() && m.rdev() == 0)
}

fn is_opaque(path: &Path) -> bool {
    xattr(path, "trusted.overlay.opaque").as_deref() == Some(b"y")
}

fn in_layers(place: &Place) -> Vec<String> {
    let entries = std::fs::read_dir(place.path().join("cache/.layers")).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|n| n != ".lock");
    names.sort();
    names
}

fn layers_in_overlays_words() {
    let place = Place::new();
    let low = tar(&[
        dir("bin/"),
        file("bin/x", b"x"),
        dir("a/"),
        file("a/f", b"1"),
        dir("old/"),
        file("old/f", b"1"),
        dir("l/"),
    ]);
    let high = tar(&[
        dir("bin/"),
        file("bin/.wh.gone", b""),
        dir("a/"),
        file("a/.wh..wh..opq", b""),
        file("a/new", b"2").with(|m| (m.uid, m.mode) = (33, 0o4755)),
        hardlink("a/same", "a/new"),
        // Gone and there again: what was in it stays gone. In either order, and with no member of its own.
        file(".wh.old", b""),
        file("old/g", b"2"),
        dir("again/"),
        file(".wh.again", b""),
        symlink("l", "a"),
        character_device("null"),
        file("bin/.wh..wh.plnk", b""),
    ]);
    let tree = image(&place, &[low, high]).unwrap();
    let [own, high, low] = tree.layers.as_slice() else { panic!("{:?}", tree.layers) };
    assert!(is_whiteout(&high.join("bin/gone")) && is_whiteout(&high.join("null")));
    assert!(is_opaque(&high.join("a")) && is_opaque(&high.join("old")) && is_opaque(&high.join("again")));
    assert!(!is_opaque(&high.join("bin")) && !high.join("bin/.wh..wh.plnk").exists());
    let meta = std::fs::metadata(high.join("a/same")).unwrap();
    assert_eq!((meta.uid(), meta.mode() & 0o7777, meta.nlink()), (33, 0o4755, 2));
    assert_eq!(std::fs::read_link(high.join("l")).unwrap(), Path::new("a"));
    assert_eq!(std::fs::read(low.join("old/f")).unwrap(), b"1");
    assert!(own.join("work/here").is_dir(), "what the program starts in");
    let run = place.store().run_of(&tree.id).unwrap().unwrap();
    assert_eq!((run.args.as_slice(), run.has_init), (&[String::from("/bin/x")][..], false));
    // The same once more: nothing is unpacked, nothing is new.
    let again = make(&place, "t", &place.path().join("image")).unwrap();
    assert_eq!(again.1.id, tree.id);
    assert_eq!(place.store().tree(&again.0, &mut Silent).unwrap().layers, tree.layers);
}

fn unasked_directories() {
    let place = Place::new();
    let low = tar(&[dir("tmp/").with(|m| (m.mode, m.uid) = (0o1777, 7)), dir("own/").with(|m| m.mode = 0o700)]);
    let high = tar(&[file("tmp/f", b""), file("own/.wh.x", b""), file("new/f", b"")]);
    let top = tar(&[dir("own/").with(|m| m.mode = 0o711)]);
    let tree = image(&place, &[low, high, top]).unwrap();
    let own = &tree.layers[0];
    let meta = std::fs::metadata(own.join("tmp")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o1777, 7));
    assert!(!own.join("own").exists(), "the uppermost layer has it as a member");
    assert_eq!(mode(&tree.layers[2].join("new")), 0o755);
}

fn stored_once() {
    let place = Place::new();
    let shared = tar(&[file("bin/x", b"x")]);
    let (one, two) = (tar(&[file("one", b"")]), tar(&[file("two", b"")]));
    make(&place, "one", &layout(&place, "i1", &[shared.clone(), one.clone(), shared.clone()])).unwrap();
    let tree = make(&place, "two", &layout(&place, "i2", &[shared, two])).unwrap().1;
    assert_eq!(in_layers(&place).iter().filter(|n| !n.ends_with(".marks")).count(), 3);
    let store = place.store();
    store.remove(&"one".parse().unwrap(), &|_| false).unwrap();
    assert_eq!(store.prune_layers().unwrap().len(), 1);
    assert!(tree.layers.iter().all(|l| l.is_dir()));
    store.remove(&"two".parse().unwrap(), &|_| false).unwrap();
    assert_eq!(store.prune_layers().unwrap().len(), 2);
    assert!(in_layers(&place).is_empty(), "{:?}", in_layers(&place));
}

fn wrong_digest() {
    let place = Place::new();
    let path = layout(&place, "image", &[tar(&[file("f", b"right")])]);
    let digits = format!("{:x}", Sha256::digest(tar(&[file("f", b"right")])));
    std::fs::write(path.join("blobs/sha256").join(&digits), tar(&[file("f", b"wrong")])).unwrap();
    assert!(
        matches!(make(&place, "t", &path), Err(CacheError::Oci(OciError::Digest { wanted, .. })) if wanted == digits)
    );
    assert!(in_layers(&place).is_empty());
    assert_eq!(place.in_trees(), ["t.lock"]);
}

/// What the unpacker says of an image's layer.
fn refused(place: &Place, members: &[M]) -> Refusal {
    match image(place, &[tar(&[dir("a/")]), tar(members)]) {
        Err(CacheError::Unpack { source: UnpackError::Refused(refusal), .. }) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn hostile_layers() {
    let place = Place::new();
    for name in ["a/.wh.", "a/.wh..", "a/.wh...", ".wh..."] {
        assert!(matches!(refused(&place, &[file(name, b"")]), Refusal::ImpossibleName { .. }), "{name}");
    }
    assert!(matches!(refused(&place, &[file("../.wh.x", b"")]), Refusal::ParentInName { .. }));
    let canary = place.canary();
    for name in ["l/.wh.secret", "l/.wh..wh..opq", "l/new"] {
        let refusal = refused(&place, &[symlink("l", &canary), file(name, b"")]);
        assert!(matches!(refusal, Refusal::NotThroughDirectory { .. }), "{name}: {refusal:?}");
    }
    let link_to_whiteout = refused(&place, &[file(".wh.x", b""), hardlink("y", "x")]);
    assert!(matches!(link_to_whiteout, Refusal::LinkTarget { .. }), "{link_to_whiteout:?}");
    assert!(Path::new(&canary).join("secret").exists());
}

fn through_link() {
    let place = Place::new();
    let low = tar(&[dir("usr/"), dir("usr/bin/"), file("usr/bin/x", b""), symlink("bin", "usr/bin")]);
    let error = image(&place, &[low, tar(&[file("bin/new", b"")])]).unwrap_err();
    assert!(error.to_string().contains("files below bin, which is a link"), "{error}");
}

fn archives_of_images() {
    let place = Place::new();
    let path = layout(&place, "image", &[tar(&[file("bin/x", b"x")])]);
    let of_directory = make(&place, "t", &path).unwrap().1;
    let pack = |options: &[&str], to: &str| {
        let to = place.path().join(to);
        let status = std::process::Command::new("tar").args(options).arg(&to).arg("-C").arg(&path).arg(".").status();
        assert!(status.unwrap().success());
        to
    };
    let of_archive = make(&place, "t", &pack(&["-cf"], "image.tar")).unwrap().1;
    assert_eq!(of_archive.id, of_directory.id);
    let compressed = pack(&["-czf"], "image.tar.gz");
    let tagged = Bootstrap::of_path(&compressed, Some(String::from("none"))).unwrap();
    let name = Place::name();
    let recipe = Recipe::of_source(&name, tagged).unwrap();
    let error = place.store().create_cache_by(&recipe, &name, &mut Silent).unwrap_err();
    assert!(
        matches!(error, CacheError::Oci(OciError::NotThere { .. })),
        "a tag makes it an image, and there is none of it: {error:?}"
    );
}

fn bounds() {
    let place = Place::new();
    let path = layout(&place, "image", &[tar(&[file("bin/x", &[0; 100_000]), file("b", b""), file("c", b"")])]);
    let recipe = |limits: &str| {
        let text = format!(
            "name='t'\ndescription=''\ndistribution='x'\n[bootstrap]\nmethod='oci'\nsource='{}'\n[limits]\n{limits}",
            path.display()
        );
        Recipe::parse(&text, &Place::name(), "t", Path::new("/nonexistent")).unwrap()
    };
    let store = place.store();
    for (limits, what) in [("entries=2", "members"), ("bytes=50_000", "bytes")] {
        let error = store.create_cache_by(&recipe(limits), &Place::name(), &mut Silent).unwrap_err();
        let CacheError::Unpack { source: UnpackError::Refused(refusal), .. } = error else { panic!("{error:?}") };
        assert!(matches!(&refusal, Refusal::Limit { what: w, .. } if w == what), "{refusal:?}");
    }
    store.create_cache_by(&recipe("entries=3"), &Place::name(), &mut Silent).unwrap();
}

fn systems() {
    let place = Place::new();
    let write = |name: &str, bytes: &[u8]| {
        let path = place.path().join(name);
        std::fs::File::create(&path).unwrap().write_all(bytes).unwrap();
        path
    };
    let plain = write("plain.tar", &tar(&[file("etc/x", b"1"), file("etc/X", b"2").with(|m| m.uid = 9)]));
    let tree = make(&place, "t", &plain).unwrap().1.layers.remove(0);
    assert_eq!(std::fs::read(tree.join("etc/X")).unwrap(), b"2", "names that differ in case are two names");
    let lxc = write("lxc.tar", &tar(&[file("metadata.yaml", b""), dir("rootfs/"), file("rootfs/etc/x", b"3")]));
    let tree = make(&place, "t", &lxc).unwrap().1.layers.remove(0);
    assert_eq!(std::fs::read(tree.join("etc/x")).unwrap(), b"3");
    let none = write("none.tar", &tar(&[file("x", b"")]));
    assert!(matches!(make(&place, "t", &none), Err(CacheError::NoSystem { .. })));
    let from = make(&place, "d", &tree).unwrap().1.layers.remove(0);
    assert_eq!(std::fs::read(from.join("etc/x")).unwrap(), b"3");
    assert!(matches!(make(&place, "t", Path::new("/proc/self/task")), Err(CacheError::NoSystem { .. })));
}

fn wrong_hash() {
    let place = Place::new();
    let path = place.path().join("a.tar");
    let bytes = tar(&[file("etc/x", b"")]);
    std::fs::write(&path, &bytes).unwrap();
    let made = |digits: &str| {
        let text = format!(
            "name='t'\ndescription=''\ndistribution='x'\n[bootstrap]\nmethod='archive'\nsource='{}'\nsha256='{digits}'",
            path.display()
        );
        place.store().create_cache_by(
            &Recipe::parse(&text, &Place::name(), "t", Path::new("/nonexistent")).unwrap(),
            &Place::name(),
            &mut Silent,
        )
    };
    assert!(matches!(made(&"0".repeat(64)), Err(CacheError::Hash { .. })));
    assert_eq!(place.in_trees(), ["t.lock"]);
    made(&format!("{:x}", Sha256::digest(&bytes))).unwrap();
}
