//! What the security tests share: a node with a container, the attacker's tool in it, and things of the host that no attack may change.
#![allow(dead_code, reason = "each test program uses a part")]

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use tests::node::{Node, Outcome};
use tests::skips::skip;
use tests::snapshot::Snapshot;
use tests::wait::wait_until;

/// For any one command of the administrator's, whatever the container has prepared.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A node with the busybox template; `None`, and a skip, where there can be none.
pub(crate) fn node(test: &str) -> Option<Node> {
    tests::containers::node_with(test, "busybox")
}

/// A node with a running container 101.
pub(crate) fn running(test: &str) -> Option<Node> {
    let node = node(test)?;
    create(&node, 101);
    node.vzctl(["start", "101"]).ok();
    Some(node)
}

pub(crate) fn create(node: &Node, ctid: u32) {
    node.vzctl(["create", &ctid.to_string(), "--ostemplate", "busybox", "--hostname", "victim"]).ok();
}

/// Runs a line inside; its exit code is the outcome's.
pub(crate) fn inside(node: &Node, ctid: u32, line: &str) -> Outcome {
    node.vzctl(["exec2", &ctid.to_string(), line])
}

/// A command that must come back soon, whatever its result.
pub(crate) fn bounded(node: &Node, arguments: &[&str]) -> Outcome {
    Outcome::of(node.command("vzctl", arguments), PATIENCE)
}

/// Puts the attacker's tool into a running container as `/attack`. Says false, and skips, where there is no C compiler.
pub(crate) fn arm(test: &str, node: &Node, ctid: u32) -> bool {
    let Some(tool) = attack_tool() else {
        skip(test, "needs a C compiler (cc) and static libraries");
        return false;
    };
    put(node, ctid, &tool, "/attack");
    inside(node, ctid, "chmod 755 /attack").ok();
    true
}

/// The attacker's tool; none without a C compiler.
pub(crate) fn attack_tool() -> Option<PathBuf> {
    static TOOL: OnceLock<Option<PathBuf>> = OnceLock::new();
    TOOL.get_or_init(|| tests::compiled::ATTACK.compiled().inspect_err(|error| eprintln!("{error}")).ok()).clone()
}

/// Copies a file of the host into a running container, through `exec`'s standard input.
pub(crate) fn put(node: &Node, ctid: u32, from: &Path, to: &str) {
    let mut command = node.command("vzctl", ["exec2", &ctid.to_string(), &format!("cat > {to}")]);
    let status = command.stdin(File::open(from).expect("the file")).stdout(Stdio::null()).status().expect("vzctl");
    assert!(status.success(), "copying {} into the container: {status}", from.display());
}

/// Of a node's container 101 nothing is left that was not there before. Of the rest of the machine others may be making use.
#[track_caller]
pub(crate) fn assert_nothing_left(node: &Node, before: &Snapshot) {
    let (name, directory) = (node.name(), node.path("").display().to_string());
    let marks = [format!("{name}/101"), format!("{name}101"), directory];
    let mut left = String::new();
    let clean = wait_until(Duration::from_secs(5), || {
        let all = before.difference(&before.again()).to_string();
        let ours = all.lines().filter(|line| line.starts_with('+') && marks.iter().any(|mark| line.contains(mark)));
        left = ours.collect::<Vec<_>>().join("\n");
        left.is_empty()
    });
    assert!(clean, "left behind:\n{left}");
}

/// A directory of the host with a file in it, to see that nobody touched either.
pub(crate) struct Canary {
    directory: tempfile::TempDir,
    picture: Vec<String>,
}

impl Canary {
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("vzcanary").tempdir_in("/var/tmp").expect("a directory");
        let mut file = File::create(directory.path().join("file")).expect("a file");
        file.write_all(b"precious\n").expect("written");
        file.set_permissions(std::fs::Permissions::from_mode(0o640)).expect("its mode");
        let picture = picture(directory.path());
        Self { directory, picture }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    #[track_caller]
    pub(crate) fn assert_untouched(&self, by: &str) {
        assert_eq!(picture(self.path()), self.picture, "the canary was touched by {by}");
    }
}

fn picture(directory: &Path) -> Vec<String> {
    let entries = fs_err::read_dir(directory).expect("the canary").map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<PathBuf> = entries.chain([directory.to_owned()]).collect();
    paths.sort();
    let line = |path: &PathBuf| {
        let m = fs_err::symlink_metadata(path).expect("there");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let name = path.display();
        format!("{name} {:o} {}:{} {} {}.{} {text}", m.mode(), m.uid(), m.gid(), m.nlink(), m.mtime(), m.mtime_nsec())
    };
    paths.iter().map(line).collect()
}
