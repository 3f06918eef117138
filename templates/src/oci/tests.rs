use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::*;

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A layout in the making.
struct Made(tempfile::TempDir);

impl Made {
    fn new() -> Self {
        let made = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(made.path().join("blobs/sha256")).unwrap();
        fs::write(made.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        made
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn blob(&self, bytes: &[u8]) -> String {
        let digits = format!("{:x}", Sha256::digest(bytes));
        fs::write(self.path().join("blobs/sha256").join(&digits), bytes).unwrap();
        format!("sha256:{digits}")
    }

    fn document(&self, kind: &str, value: &Value) -> Value {
        let bytes = serde_json::to_vec(value).unwrap();
        json!({"mediaType": kind, "digest": self.blob(&bytes), "size": bytes.len()})
    }

    /// The descriptor of an image of this architecture.
    fn image(&self, arch: &str, config: &Value, kinds: &[&str]) -> Value {
        let config = json!({"architecture": arch, "os": "linux", "config": config, "rootfs": {"type": "layers", "diff_ids": []}});
        let config = self.document("application/vnd.oci.image.config.v1+json", &config);
        let layer = |(n, kind): (usize, &&str)| json!({"mediaType": kind, "digest": self.blob(&[n as u8]), "size": 1});
        let layers: Vec<_> = kinds.iter().enumerate().map(layer).collect();
        self.document(MANIFEST, &json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}))
    }

    fn index(&self, manifests: &[Value]) {
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        fs::write(self.path().join("index.json"), index.to_string()).unwrap();
    }

    fn read(&self, wanted: &Wanted) -> Result<Image, OciError> {
        Layout::open(self.path()).unwrap().read(wanted)
    }
}

fn tagged(mut descriptor: Value, tag: &str) -> Value {
    descriptor["annotations"] = json!({ TAG: tag });
    descriptor
}

fn tag(tag: &str) -> Wanted {
    Wanted { tag: Some(tag.to_owned()), digest: None }
}

fn here() -> String {
    architecture().to_string()
}

#[test]
fn an_image_is_read_with_what_it_wants_to_be_run() {
    let made = Made::new();
    let config = json!({"Entrypoint": ["/bin/a"], "Cmd": ["b"], "Env": ["X=1"], "WorkingDir": "/srv", "User": "www:33", "StopSignal": "SIGQUIT"});
    made.index(&[tagged(made.image(&here(), &config, &[LAYER, LAYER]), "latest")]);
    let image = made.read(&Wanted::default()).unwrap();
    let run = &image.run;
    assert_eq!((run.args.join(" "), run.env.join(" ")), ("/bin/a b".to_owned(), "X=1".to_owned()));
    assert_eq!((run.dir.as_str(), run.user.as_str(), run.stop_signal), ("/srv", "www:33", libc::SIGQUIT));
    assert_eq!(image.layers.len(), 2);
    assert_eq!(made.read(&tag("latest")).unwrap(), image);
    let by_digest = Wanted { tag: None, digest: Some(format!("sha256:{}", image.sha256)) };
    assert_eq!(made.read(&by_digest).unwrap(), image);
}

#[test]
fn signals_are_read_by_name_and_number_and_no_others_are_taken() {
    for (text, number) in [("SIGTERM", 15), ("TERM", 15), ("9", 9), ("SIGRTMIN+3", libc::SIGRTMIN() + 3)] {
        assert_eq!(signal_number(text), Some(number), "{text}");
    }
    for text in ["", "SIG", "0", "-1", "65", "SIGRTMIN+99", "RTMIN+", "sigterm"] {
        assert_eq!(signal_number(text), None, "{text}");
    }
}

#[test]
fn a_tag_chooses_among_several_and_none_or_a_wrong_one_is_refused_with_those_that_there_are() {
    let made = Made::new();
    let one = tagged(made.image(&here(), &json!({"Cmd": ["1"]}), &[LAYER]), "docker.io/library/x:1");
    let two = tagged(made.image(&here(), &json!({"Cmd": ["2"]}), &[LAYER]), "2");
    made.index(&[one, two]);
    assert_eq!(made.read(&tag("1")).unwrap().run.args, ["1"]);
    assert_eq!(made.read(&tag("2")).unwrap().run.args, ["2"]);
    assert!(matches!(made.read(&Wanted::default()), Err(OciError::Several(tags)) if tags.len() == 2));
    assert!(matches!(made.read(&tag("3")), Err(OciError::NotThere { found, .. }) if found.len() == 2));
}

#[test]
fn the_image_for_this_machine_is_taken_from_an_index_and_another_machines_is_refused_by_name() {
    let made = Made::new();
    let of = |arch: &str| {
        let mut image = made.image(arch, &json!({"Cmd": [arch]}), &[LAYER]);
        image["platform"] = json!({"architecture": arch, "os": "linux"});
        image
    };
    let all = json!({"schemaVersion": 2, "manifests": [of("s390x"), of(&here())]});
    made.index(&[made.document("application/vnd.oci.image.index.v1+json", &all)]);
    assert_eq!(made.read(&Wanted::default()).unwrap().run.args, [here()]);
    made.index(&[of("s390x")]);
    assert!(matches!(made.read(&Wanted::default()), Err(OciError::Architecture { found }) if found == "linux/s390x"));
    // The index says nothing, the configuration does.
    made.index(&[made.image("riscv64", &json!({}), &[LAYER])]);
    assert!(matches!(made.read(&Wanted::default()), Err(OciError::Architecture { found }) if found == "linux/riscv64"));
}

#[test]
fn blobs_that_are_not_what_their_names_say_are_refused() {
    let made = Made::new();
    let image = made.image(&here(), &json!({}), &[LAYER]);
    let file = made.path().join("blobs/sha256").join(&image["digest"].as_str().unwrap()[7..]);
    made.index(&[image]);
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{text} ")).unwrap();
    assert!(matches!(made.read(&Wanted::default()), Err(OciError::Digest { .. })));
    fs::write(&file, vec![b' '; MAX_DOCUMENT as usize + 1]).unwrap();
    assert!(matches!(made.read(&Wanted::default()), Err(OciError::TooLong { .. })));
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
    assert!(matches!(made.read(&Wanted::default()), Err(OciError::Read { .. })), "a link out of the image");
}

#[test]
fn digests_and_layers_that_are_not_known_are_refused_and_so_is_no_or_too_many_layers() {
    let made = Made::new();
    for kind in
        ["application/vnd.oci.image.layer.v1.tar+encrypted", "application/json", "application/vnd.oci.empty.v1+json"]
    {
        made.index(&[made.image(&here(), &json!({}), &[kind])]);
        assert!(matches!(made.read(&Wanted::default()), Err(OciError::LayerKind(k)) if k == kind), "{kind}");
    }
    made.index(&[made.image(&here(), &json!({}), &[])]);
    assert!(matches!(made.read(&Wanted::default()), Err(OciError::NoLayers)));
    made.index(&[made.image(&here(), &json!({}), &[LAYER; 51])]);
    assert!(matches!(made.read(&Wanted::default()), Err(OciError::TooManyLayers(51))));
    made.index(&[json!({"mediaType": MANIFEST, "size": 1, "digest": format!("sha512:{}", "0".repeat(128))})]);
    assert!(matches!(made.read(&Wanted::default()), Err(OciError::Algorithm(_))));
    made.index(&[json!({"mediaType": MANIFEST, "size": 1, "digest": "sha256:../../../etc/passwd"})]);
    assert!(made.read(&Wanted::default()).is_err());
}

#[test]
fn an_index_that_contains_itself_in_another_ends() {
    let made = Made::new();
    let index = "application/vnd.oci.image.index.v1+json";
    let mut inner = made.image(&here(), &json!({}), &[LAYER]);
    for _ in 0..6 {
        inner = made.document(index, &json!({"schemaVersion": 2, "manifests": [inner]}));
    }
    made.index(&[inner]);
    assert!(matches!(made.read(&Wanted::default()), Err(OciError::TooDeep)));
}

#[test]
fn what_docker_save_writes_is_read_with_the_digests_of_its_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let digits = format!("{:x}", Sha256::digest(b"layer"));
    let config = json!({"architecture": here(), "os": "linux", "config": {"Cmd": ["x"]}, "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digits}")]}});
    fs::write(dir.path().join("c.json"), config.to_string()).unwrap();
    let manifest = json!([{"Config": "c.json", "RepoTags": ["x:1"], "Layers": ["a/layer.tar"]}]);
    fs::write(dir.path().join("manifest.json"), manifest.to_string()).unwrap();
    let layout = Layout::open(dir.path()).unwrap();
    let image = layout.read(&tag("1")).unwrap();
    assert_eq!(image.layers, [LayerBlob { file: String::from("a/layer.tar"), sha256: digits }]);
    assert!(matches!(layout.read(&tag("2")), Err(OciError::NotThere { .. })));
    let manifest = json!([{"Config": "../c.json", "Layers": []}]);
    fs::write(dir.path().join("manifest.json"), manifest.to_string()).unwrap();
    assert!(matches!(layout.read(&Wanted::default()), Err(OciError::Read { .. })), "no name leads out");
}

/// Documents that were worth keeping; each of them is also what the mutations below begin with.
const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/oci");

fn corpus() -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(CORPUS).unwrap().map(|e| e.unwrap().path());
    let mut all: Vec<_> =
        entries.map(|p| (p.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(p).unwrap())).collect();
    all.sort();
    assert!(!all.is_empty());
    all
}

/// Puts the document in the place its name says, in an image that is else in order, and reads it: whatever comes of it, no file outside is read
/// and nothing panics.
fn read_with(kind: &str, document: &[u8]) -> Result<Image, OciError> {
    let made = Made::new();
    let descriptor =
        |bytes: &[u8], kind: &str| json!({"mediaType": kind, "digest": made.blob(bytes), "size": bytes.len()});
    let config =
        json!({"architecture": here(), "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}).to_string();
    match kind {
        "index" => fs::write(made.path().join("index.json"), document).unwrap(),
        "manifest" => {
            made.blob(config.as_bytes());
            made.index(&[descriptor(document, MANIFEST)]);
        }
        "config" => {
            let config = descriptor(document, "application/vnd.oci.image.config.v1+json");
            let layer = descriptor(b"x", LAYER);
            let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]}).to_string();
            made.index(&[descriptor(manifest.as_bytes(), MANIFEST)]);
        }
        "docker" => {
            fs::remove_file(made.path().join("oci-layout")).unwrap();
            fs::write(made.path().join("manifest.json"), document).unwrap();
        }
        other => panic!("a document of the corpus is named {other}-…"),
    }
    made.read(&Wanted::default())
}

#[test]
fn every_document_of_the_corpus_is_refused_or_taken_as_its_name_says() {
    for (name, document) in corpus() {
        let (kind, rest) = name.split_once('-').unwrap();
        let read = read_with(kind, &document);
        assert_eq!(read.is_ok(), rest.starts_with("good"), "{name}: {read:?}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn no_change_of_a_document_makes_the_reader_panic_or_leave_the_image(
        which in 0..1000usize,
        changes in proptest::collection::vec((0..4096usize, 0..8u8, proptest::num::u8::ANY), 1..6),
    ) {
        let all = corpus();
        let (name, document) = &all[which % all.len()];
        let mut bytes = document.clone();
        for (at, how, byte) in changes {
            let at = at % bytes.len().max(1);
            match how {
                0..=3 if !bytes.is_empty() => bytes[at] = byte,
                4 => bytes.truncate(at),
                5 if !bytes.is_empty() => drop(bytes.remove(at)),
                _ => bytes.insert(at.min(bytes.len()), byte),
            }
        }
        if let Ok(image) = read_with(name.split_once('-').unwrap().0, &bytes) {
            for layer in image.layers {
                proptest::prop_assert!(layer.sha256.len() == 64);
            }
        }
    }
}
