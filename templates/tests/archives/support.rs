//! Archives that are meant to do harm, byte by byte, and a place to try them in.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use templates::unpack::{Limits, Refusal, UnpackError};
use templates::{Silent, Store, StoreError, TemplateName, Tree};

/// A member in the making. Nothing is checked: that is the point.
#[derive(Clone)]
pub(crate) struct M {
    pub(crate) kind: u8,
    pub(crate) name: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u64,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: u64,
    pub(crate) data: Vec<u8>,
    /// What the header says, if not the truth.
    pub(crate) claimed_size: Option<u64>,
}

fn member(kind: u8, name: &str) -> M {
    M {
        kind,
        name: name.into(),
        link: Vec::new(),
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: 1_700_000_000,
        data: Vec::new(),
        claimed_size: None,
    }
}

pub(crate) fn file(name: &str, data: &[u8]) -> M {
    M { data: data.to_vec(), ..member(b'0', name) }
}
pub(crate) fn dir(name: &str) -> M {
    M { mode: 0o755, ..member(b'5', name) }
}
pub(crate) fn symlink(name: &str, target: &str) -> M {
    M { link: target.into(), mode: 0o777, ..member(b'2', name) }
}
pub(crate) fn hardlink(name: &str, target: &str) -> M {
    M { link: target.into(), ..member(b'1', name) }
}
pub(crate) fn fifo(name: &str) -> M {
    member(b'6', name)
}
pub(crate) fn character_device(name: &str) -> M {
    member(b'3', name)
}
pub(crate) fn of_kind(kind: u8, name: &str, data: &[u8]) -> M {
    M { data: data.to_vec(), ..member(kind, name) }
}

/// An `x` member with these records.
pub(crate) fn pax(records: &[(&str, &[u8])]) -> M {
    let mut data = Vec::new();
    for (key, value) in records {
        let body = key.len() + value.len() + 3;
        let mut length = body + body.to_string().len();
        length = body + length.to_string().len();
        write!(data, "{length} {key}=").unwrap();
        data.extend_from_slice(value);
        data.push(b'\n');
    }
    of_kind(b'x', "PaxHeaders/x", &data)
}

/// A GNU long name (`L`) or long link target (`K`).
pub(crate) fn gnu_long(kind: u8, text: &str) -> M {
    let mut data = text.as_bytes().to_vec();
    data.push(0);
    of_kind(kind, "././@LongLink", &data)
}

impl M {
    pub(crate) fn with(self, change: impl FnOnce(&mut Self)) -> Self {
        let mut changed = self;
        change(&mut changed);
        changed
    }

    /// The 512 bytes of its header, checksum right.
    pub(crate) fn header(&self) -> [u8; 512] {
        let mut h = [0u8; 512];
        let put = |h: &mut [u8; 512], at: usize, width: usize, text: &[u8]| {
            let n = text.len().min(width);
            h[at..at + n].copy_from_slice(&text[..n]);
        };
        put(&mut h, 0, 100, &self.name);
        put(&mut h, 100, 8, format!("{:07o}\0", self.mode).as_bytes());
        put(&mut h, 108, 8, &number(self.uid, 8));
        put(&mut h, 116, 8, &number(self.gid, 8));
        put(&mut h, 124, 12, &number(self.claimed_size.unwrap_or(self.data.len() as u64), 12));
        put(&mut h, 136, 12, &number(self.mtime, 12));
        h[156] = self.kind;
        put(&mut h, 157, 100, &self.link);
        if matches!(self.kind, b'L' | b'K' | b'S') {
            put(&mut h, 257, 8, b"ustar  \0");
        } else {
            put(&mut h, 257, 8, b"ustar\x0000");
        }
        sign(&mut h);
        h
    }
}

/// Octal where it fits, else base 256, as GNU tar writes it.
fn number(value: u64, width: usize) -> Vec<u8> {
    let octal = format!("{value:0w$o}\0", w = width - 1);
    if octal.len() <= width {
        return octal.into_bytes();
    }
    let mut bytes = vec![0; width];
    bytes[width - 8..].copy_from_slice(&value.to_be_bytes());
    bytes[0] |= 0x80;
    bytes
}

/// Puts the checksum in.
pub(crate) fn sign(h: &mut [u8; 512]) {
    h[148..156].fill(b' ');
    let sum: u32 = h.iter().map(|&b| u32::from(b)).sum();
    h[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// The members, padded, without an end.
pub(crate) fn blocks(members: &[M]) -> Vec<u8> {
    let mut out = Vec::new();
    for m in members {
        out.extend_from_slice(&m.header());
        out.extend_from_slice(&m.data);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out
}

pub(crate) fn tar(members: &[M]) -> Vec<u8> {
    let mut out = blocks(members);
    out.resize((out.len() + 1024).next_multiple_of(10240), 0);
    out
}

/// A template area with something precious beside it.
pub(crate) struct Place {
    dir: tempfile::TempDir,
    precious: BTreeMap<PathBuf, String>,
    pub(crate) limits: Limits,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("vz-templates-").tempdir_in("/var/tmp").unwrap();
        let canary = dir.path().join("canary");
        std::fs::create_dir_all(canary.join("sub")).unwrap();
        std::fs::write(canary.join("secret"), "of the host").unwrap();
        std::fs::create_dir(dir.path().join("cache")).unwrap();
        let precious = snapshot(&canary);
        Self { dir, precious, limits: Limits { members: 5_000, bytes: 64 << 20, seconds: 60 } }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Absolute path of the directory that no archive may reach.
    pub(crate) fn canary(&self) -> String {
        self.path().join("canary").to_str().unwrap().to_owned()
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(self.path()).with_limits(self.limits)
    }

    pub(crate) fn name() -> TemplateName {
        "t".parse().unwrap()
    }

    /// Unpacks `archive`, and asserts what holds for every archive: the canary is as it was, and a failure leaves
    /// nothing but the archive and the lock.
    pub(crate) fn try_archive(&self, archive: &[u8]) -> Result<Tree, StoreError> {
        std::fs::write(self.path().join("cache/t.tar"), archive).unwrap();
        let mut before = self.in_trees();
        if before.is_empty() {
            before.push(String::from("t.lock"));
        }
        let store = self.store();
        let result = store.tree(&store.find(&Self::name()).unwrap(), &mut Silent);
        assert_eq!(snapshot(&self.path().join("canary")), self.precious, "the archive reached outside");
        if let Err(e) = &result {
            assert_eq!(self.in_trees(), before, "left behind after {e:?}");
        }
        result
    }

    /// The tree of an archive that must unpack.
    pub(crate) fn good(&self, members: &[M]) -> PathBuf {
        self.try_archive(&tar(members)).unwrap_or_else(|e| panic!("{e:?}")).layers.remove(0)
    }

    /// The refusal of an archive that must not.
    pub(crate) fn refused(&self, archive: &[u8]) -> Refusal {
        match self.try_archive(archive) {
            Err(StoreError::Unpack { source: UnpackError::Refused(refusal), .. }) => refusal,
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    pub(crate) fn in_trees(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path().join("cache/.trees")).into_iter().flatten();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Every file below `path` with all that could have been changed on it.
pub(crate) fn snapshot(path: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![path.to_owned()];
    while let Some(path) = todo.pop() {
        let m = std::fs::symlink_metadata(&path).unwrap();
        let content = if m.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        let facts = (m.mode(), m.uid(), m.gid(), m.nlink(), m.mtime_nsec(), m.ctime(), m.ctime_nsec(), content);
        if m.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
        found.insert(path, format!("{facts:?}"));
    }
    found
}

pub(crate) fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

pub(crate) fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = [0; 4096];
    rustix::fs::lgetxattr(path, name, &mut value[..]).ok().map(|n| value[..n].to_vec())
}

/// Arguments that select tests: no options, nor the values of those that cargo-nextest and people give a harness.
fn filters(arguments: &[String]) -> impl Iterator<Item = &String> {
    let mut previous = "";
    arguments.iter().filter(move |argument| {
        let is_value = ["--format", "--test-threads", "--color"].contains(&previous);
        previous = argument;
        !argument.starts_with('-') && !is_value
    })
}

/// A test: a sentence and what shows it.
pub(crate) type Test = (&'static str, fn());

/// Runs the tests one after the other on the one thread that forking allows, which cargo's own harness does not.
/// Arguments not starting with `-` select by substring; `--list` lists.
pub(crate) fn run(tests: &[Test]) -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<_> = filters(&arguments).collect();
    let chosen =
        tests.iter().filter(|(name, _)| filters.is_empty() || filters.iter().any(|f| name.contains(f.as_str())));
    if arguments.iter().any(|a| a == "--list") {
        // None is ignored, which `--ignored` asks for.
        chosen.filter(|_| !arguments.iter().any(|a| a == "--ignored")).for_each(|(name, _)| println!("{name}: test"));
        return std::process::ExitCode::SUCCESS;
    }
    let chosen: Vec<_> = chosen.collect();
    // The words of cargo's harness: whoever reads it reads this one.
    println!("\nrunning {} tests", chosen.len());
    let mut failed = 0;
    for (name, test) in &chosen {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: {name}: needs root");
            continue;
        }
        let passed = std::panic::catch_unwind(test).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += usize::from(!passed);
    }
    let result = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {result}. {} passed; {failed} failed\n", chosen.len() - failed);
    std::process::ExitCode::from(u8::from(failed > 0))
}
