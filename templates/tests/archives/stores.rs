//! Trees: made once, whole or not at all, whoever asks and whoever dies.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};

use templates::unpack::UnpackError;
use templates::{ForkError, Progress, Silent, Stage, Store, StoreError};

use super::support::*;

pub(crate) const TESTS: &[Test] = &[
    ("an unchanged archive is unpacked once", once),
    ("a changed archive gives a new tree and keeps the old one", changed),
    ("a touched archive of the same bytes gives the same tree", touched),
    ("a damaged stamp only costs unpacking again", damaged_stamp),
    ("two processes that want a tree at once get the same one", concurrent),
    ("an unpacker killed at any stage leaves what the next call cleans up", killed),
    ("remove takes everything, but nothing while a tree is in use", remove),
    ("prune takes old trees that are not in use", prune),
    ("a threaded process is told that it cannot unpack", threaded),
    ("an archive that is a directory or a FIFO is refused", not_a_file),
    ("no mount, process or open file is left in the process", nothing_left),
    ("the unpacker is nobody on the host, sees only the tree and has no network", walls),
    ("the busybox template is made of this host's busybox and runs", busybox),
    ("a hostile link at the place of a leftover is not followed", planted_leftover),
];

fn put(place: &Place, members: &[M]) {
    std::fs::write(place.path().join("cache/t.tar"), tar(members)).unwrap();
}

fn tree(place: &Place) -> Result<templates::Tree, StoreError> {
    let store = place.store();
    store.tree(&store.find(&Place::name())?, &mut Silent)
}

fn once() {
    let place = Place::new();
    put(&place, &[file("f", b"x")]);
    let first = tree(&place).unwrap();
    let second = tree(&place).unwrap();
    assert_eq!((first.unpacked.is_some(), second.unpacked), (true, None));
    assert_eq!((&first.layers, &first.id), (&second.layers, &second.id));
    assert_eq!(place.store().tree_by_id(&first.id).unwrap().layers, first.layers);
    assert_eq!(place.in_trees(), ["t.lock", "t.stamp", &first.id]);
    let listed = place.store().list().unwrap();
    assert_eq!((listed.len(), &listed[0].trees), (1, &vec![first.id]));
}

fn changed() {
    let place = Place::new();
    put(&place, &[file("f", b"one")]);
    let old = tree(&place).unwrap();
    put(&place, &[file("f", b"two")]);
    let new = tree(&place).unwrap();
    assert_ne!(old.id, new.id);
    assert_eq!(std::fs::read(old.layers[0].join("f")).unwrap(), b"one");
    assert_eq!(std::fs::read(new.layers[0].join("f")).unwrap(), b"two");
}

fn touched() {
    let place = Place::new();
    put(&place, &[file("f", b"x")]);
    let first = tree(&place).unwrap();
    std::fs::rename(place.path().join("cache/t.tar"), place.path().join("cache/old")).unwrap();
    std::fs::copy(place.path().join("cache/old"), place.path().join("cache/t.tar")).unwrap();
    let second = tree(&place).unwrap();
    assert_eq!(first.id, second.id);
    assert!(second.unpacked.is_some() && tree(&place).unwrap().unpacked.is_none());
    assert_eq!(place.in_trees(), ["t.lock", "t.stamp", &first.id]);
}

fn damaged_stamp() {
    let place = Place::new();
    put(&place, &[file("f", b"x")]);
    let first = tree(&place).unwrap();
    for text in ["", "{", "{\"tree\":\"../../canary\"}"] {
        std::fs::write(place.path().join("cache/.trees/t.stamp"), text).unwrap();
        assert_eq!(tree(&place).unwrap().id, first.id, "{text:?}");
    }
}

/// This program again, as another process that wants the tree. `die` is a stage and a number of bytes to die at.
fn another(place: &Place, die: Option<(Stage, u64)>) -> Child {
    let mut program = Command::new("/proc/self/exe");
    program.arg("--another").arg(place.path());
    if let Some((stage, after_bytes)) = die {
        program.arg(format!("{stage:?}")).arg(after_bytes.to_string());
    }
    program.spawn().unwrap()
}

/// What [`another`] runs.
pub(crate) fn be_another(arguments: &[String]) -> std::process::ExitCode {
    let store = Store::open(&arguments[0]);
    let archive = store.find(&Place::name()).unwrap();
    let result = match arguments.get(1..3) {
        Some([stage, after_bytes]) => {
            let after_bytes = after_bytes.parse().unwrap();
            store.tree(&archive, &mut DieAt { stage: stage.clone(), after_bytes, seen: None, bytes: 0 })
        }
        _ => store.tree(&archive, &mut Silent),
    };
    std::process::ExitCode::from(u8::from(result.is_err()))
}

fn concurrent() {
    let place = Place::new();
    put(&place, &[file("f", &vec![1; 4 << 20])]);
    let children: Vec<_> = (0..4).map(|_| another(&place, None)).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let id = tree(&place).unwrap().id;
    assert_eq!(place.in_trees(), ["t.lock", "t.stamp", &id]);
}

/// Dies where it is told to, as by `kill -9`.
struct DieAt {
    stage: String,
    after_bytes: u64,
    seen: Option<Stage>,
    bytes: u64,
}

impl DieAt {
    fn check(&self) {
        if self.seen.is_some_and(|seen| format!("{seen:?}") == self.stage) && self.bytes >= self.after_bytes {
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
        }
    }
}

impl Progress for DieAt {
    fn stage(&mut self, stage: Stage, _total: Option<u64>) {
        self.seen = Some(stage);
        self.check();
    }
    fn advance(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.check();
    }
    fn message(&mut self, _line: &str) {}
}

fn killed() {
    let place = Place::new();
    put(&place, &[file("f", &vec![1; 1 << 20]), file("g", &vec![2; 8 << 20])]);
    for (stage, after_bytes) in
        [(Stage::Unpack, 0), (Stage::Unpack, 1 << 20), (Stage::Unpack, 6 << 20), (Stage::Sync, 0)]
    {
        let status = another(&place, Some((stage, after_bytes))).wait().unwrap();
        assert_eq!(status.signal(), Some(9), "{stage:?} {after_bytes}: {status:?}");
        assert_eq!(place.in_trees(), ["t.lock", "t.new"], "a tree without its last name");
    }
    let id = tree(&place).unwrap().id;
    assert_eq!(place.in_trees(), ["t.lock", "t.stamp", &id]);
}

fn remove() {
    let place = Place::new();
    put(&place, &[file("f", b"x"), dir("d").with(|m| m.mode = 0o500), symlink("s", &place.canary())]);
    let id = tree(&place).unwrap().id;
    let before = place.in_trees();
    let store = place.store();
    let refused = store.remove(&Place::name(), &|tree| tree == id);
    assert!(matches!(refused, Err(StoreError::InUse { .. })), "{refused:?}");
    assert_eq!(place.in_trees(), before);
    store.remove(&Place::name(), &|_| false).unwrap();
    assert_eq!(place.in_trees(), ["t.lock"]);
    assert!(matches!(store.remove(&Place::name(), &|_| false), Err(StoreError::NotFound { .. })));
    assert!(std::path::Path::new(&place.canary()).join("secret").exists());
}

fn prune() {
    let place = Place::new();
    let ids: Vec<_> = [b"one", b"two", b"333"]
        .iter()
        .map(|content| {
            put(&place, &[file("f", *content)]);
            tree(&place).unwrap().id
        })
        .collect();
    assert_eq!(place.store().prune(&Place::name(), &|id| id == ids[0]).unwrap(), [ids[1].clone()]);
    let mut left = vec!["t.lock".to_owned(), "t.stamp".to_owned(), ids[0].clone(), ids[2].clone()];
    left.sort();
    assert_eq!(place.in_trees(), left);
}

fn threaded() {
    let place = Place::new();
    put(&place, &[file("f", b"x")]);
    let (stop, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || wait.recv());
    let result = tree(&place);
    drop(stop);
    assert!(thread.join().unwrap().is_err(), "it waited until the sender was gone");
    let told =
        matches!(result, Err(StoreError::Unpack { source: UnpackError::Fork(ForkError::Threaded { threads: 2 }), .. }));
    assert!(told, "{result:?}");
}

fn not_a_file() {
    let place = Place::new();
    let path = place.path().join("cache/t.tar");
    std::fs::create_dir(&path).unwrap();
    assert!(tree(&place).is_err());
    std::fs::remove_dir(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    assert!(matches!(tree(&place), Err(StoreError::NotAFile { .. })));
    assert_eq!(place.in_trees(), ["t.lock"]);
}

fn nothing_left() {
    let state = || {
        let count = |dir: &str| std::fs::read_dir(dir).unwrap().count();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let children = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
        (mounts, children, count("/proc/self/fd"))
    };
    let place = Place::new();
    let before = state();
    place.good(&[file("f", b"x")]);
    place.refused(b"not a tar");
    assert_eq!(state(), before);
}

/// Looks at the unpacker while it works.
#[derive(Default)]
struct Look {
    bytes: u64,
    status: String,
    root: Vec<String>,
    namespaces: Vec<(&'static str, bool)>,
    files: Vec<String>,
    ids: String,
}

impl Progress for Look {
    fn stage(&mut self, _stage: Stage, _total: Option<u64>) {}
    fn message(&mut self, _line: &str) {}
    fn advance(&mut self, bytes: u64) {
        self.bytes += bytes;
        // More than the socket holds, so it reads, so its walls stand.
        if self.bytes < 8 << 20 || !self.status.is_empty() {
            return;
        }
        let children = std::fs::read_to_string("/proc/thread-self/children").unwrap();
        let process = std::path::Path::new("/proc").join(children.trim());
        let names = |dir: &str| std::fs::read_dir(process.join(dir)).unwrap().map(|e| e.unwrap().path());
        self.status = std::fs::read_to_string(process.join("status")).unwrap();
        self.ids = std::fs::read_to_string(process.join("uid_map")).unwrap();
        self.root = names("root").map(|p| p.file_name().unwrap().to_str().unwrap().to_owned()).collect();
        self.files = names("fd").map(|p| std::fs::read_link(p).unwrap().to_str().unwrap().to_owned()).collect();
        let shared = |ns| {
            let of = |who: &std::path::Path| std::fs::read_link(who.join("ns").join(ns)).unwrap();
            (ns, of(&process) == of(std::path::Path::new("/proc/self")))
        };
        self.namespaces = ["user", "mnt", "net", "ipc", "uts", "cgroup"].map(shared).to_vec();
    }
}

fn walls() {
    let place = Place::new();
    put(&place, &[file("f", &vec![1; 24 << 20])]);
    let store = place.store();
    let mut look = Look::default();
    store.tree(&store.find(&Place::name()).unwrap(), &mut look).unwrap();
    let field = |name: &str| {
        let line = look.status.lines().find(|l| l.starts_with(name)).unwrap();
        line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID (0, 1, 3, 4) and SETFCAP (31), in its own user namespace.
    let kept = "000000008000001b";
    assert_eq!(
        (field("Uid:").as_str(), field("Gid:").as_str()),
        (&*["1879048192"; 4].join(" "), &*["1879048192"; 4].join(" "))
    );
    assert_eq!((field("CapEff:").as_str(), field("CapPrm:").as_str(), field("CapBnd:").as_str()), (kept, kept, kept));
    assert_eq!((field("NoNewPrivs:").as_str(), field("Groups:").as_str()), ("1", ""));
    assert_eq!(look.ids.split_whitespace().collect::<Vec<_>>(), ["0", "1879048192", "65536"]);
    assert_eq!(look.root, ["f"]);
    assert!(look.namespaces.iter().all(|(_, shared)| !shared), "{:?}", look.namespaces);
    let host_files: Vec<_> =
        look.files.iter().filter(|f| f.starts_with('/') && *f != "/dev/null" && *f != "/" && *f != "/f").collect();
    assert!(host_files.is_empty() && look.files.len() <= 6, "{:?}", look.files);
}

fn busybox() {
    let place = Place::new();
    let store = place.store();
    let name = "busybox".parse().unwrap();
    let made = match store.create_cache(&name, &mut Silent) {
        Err(e @ templates::CacheError::Busybox(_)) => return eprintln!("skipped: busybox: {e}"),
        made => made.unwrap(),
    };
    let root = &made.1.layers[0];
    for file in ["etc/inittab", "etc/passwd", "etc/shadow", "etc/services", "etc/init.d/rcS", "var/www/index.html"] {
        assert!(root.join(file).is_file(), "{file}");
    }
    assert_eq!(mode(&root.join("etc/shadow")), 0o640);
    assert_eq!(mode(&root.join("tmp")), 0o1777);
    let mut shell = Command::new("chroot");
    shell.arg(root).args(["/bin/sh", "-c", "ls -l /sbin/init | grep -c busybox"]);
    let output = shell.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "1", "{output:?}");
    assert_eq!(store.create_cache(&name, &mut Silent).unwrap().1.id.split_once('@').unwrap().0, "busybox");
}

fn planted_leftover() {
    let place = Place::new();
    put(&place, &[file("secret", b"x")]);
    let trees = place.path().join("cache/.trees");
    std::fs::create_dir(&trees).unwrap();
    std::fs::set_permissions(&trees, PermissionsExt::from_mode(0o777)).unwrap();
    std::os::unix::fs::symlink(place.canary(), trees.join("t.new")).unwrap();
    let result = tree(&place);
    assert!(std::fs::read(std::path::Path::new(&place.canary()).join("secret")).unwrap() == b"of the host");
    assert!(result.is_ok(), "{result:?}");
    assert_eq!(mode(&trees), 0o700);
}
