//! A cgroup with a process in it that takes things.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use beancounters::bpf::{Host, Standing};
use beancounters::{Bound, Counter, Resource, Set};
use tests::wait::wait_until;

/// The root of the host's cgroup2 tree.
pub(crate) fn cgroup2() -> PathBuf {
    let usual = Path::new("/sys/fs/cgroup");
    if usual.join("cgroup.controllers").exists() { usual.to_owned() } else { usual.join("unified") }
}

pub(crate) fn host() -> Host {
    Host::ensure(Path::new(env!("CARGO_BIN_EXE_vzubc-load"))).expect("the loader runs on every host")
}

/// Whether a resource is enforced here; if not, the test is skipped and says why.
pub(crate) fn enforced(test: &str, host: &Host, resource: Resource) -> bool {
    match host.standing(resource).expect("the report is readable") {
        Standing::Enforced => true,
        other => {
            // What it says has to be of use: the program, and the reason; or what is missing for any program.
            let text = other.to_string();
            let of_use = ["vz_", "memory controller"].iter().any(|word| text.contains(word));
            assert!(of_use && text.len() > 20, "{resource} is {text}");
            tests::skips::skip(test, &format!("{resource} is {text}"));
            false
        }
    }
}

/// A counted cgroup; with what is in it, it goes when the test does.
pub(crate) struct Container<'a> {
    pub(crate) host: &'a Host,
    pub(crate) id: u64,
    directory: PathBuf,
    children: Vec<Child>,
}

pub(crate) struct Taker {
    pub(crate) pid: u32,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl<'a> Container<'a> {
    pub(crate) fn new(host: &'a Host, name: &str) -> Self {
        let parent = cgroup2().join(format!("vz-ubc-{}", std::process::id()));
        let directory = parent.join(name);
        std::fs::create_dir_all(directory.join("below")).expect("root, and a cgroup2 tree");
        // Where the host's memory controller is in this tree, what is below has a memory cgroup of its own.
        for above in [&cgroup2(), &parent, &directory] {
            let controllers = std::fs::read_to_string(above.join("cgroup.controllers")).expect("a cgroup2 directory");
            if controllers.split_whitespace().any(|controller| controller == "memory") {
                std::fs::write(above.join("cgroup.subtree_control"), "+memory").expect("nobody is in it");
            }
        }
        let id = host.attach(&directory, &Set::default()).expect("there is room");
        Self { host, id, directory, children: Vec::new() }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn bound(&self, resource: Resource, barrier: u64) {
        self.host.set_bound(self.id, Bound::new(resource, barrier, barrier)).expect("it is counted");
    }

    pub(crate) fn row(&self, resource: Resource) -> Counter {
        let rows = self.host.read(self.id).expect("it is counted");
        rows.into_iter().find(|(r, _)| *r == resource).expect("one that programs count").1
    }

    /// In a cgroup below the container's, as its systemd would have it, and as root of a user namespace who is nobody on the host, with a network
    /// of its own.
    pub(crate) fn taker(&mut self) -> Taker {
        let mut command = Command::new("sh");
        let within =
            r#"echo $$ > "$0/cgroup.procs" && exec setpriv --reuid 65534 --clear-groups unshare -rn perl -e "$@""#;
        command.args(["-c", within]).arg(self.directory.join("below")).arg(include_str!("child.pl"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sh and perl are there");
        let (to, from) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let mut taker = Taker { pid: child.id(), to, from: BufReader::new(from) };
        self.children.push(child);
        assert_eq!(taker.line(), "ready");
        taker
    }

    /// Kills all that runs in it, as nothing can be done about.
    pub(crate) fn kill(&mut self) {
        std::fs::write(self.directory.join("cgroup.kill"), "1").expect("kernel 5.14");
        for mut child in self.children.drain(..) {
            child.wait().expect("ours");
        }
        let events = self.directory.join("cgroup.events");
        assert!(wait_until(Duration::from_secs(10), || {
            std::fs::read_to_string(&events).is_ok_and(|text| text.contains("populated 0"))
        }));
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        self.kill();
        self.host.detach(self.id).expect("the maps are there");
        let gone = |directory: &Path| wait_until(Duration::from_secs(10), || std::fs::remove_dir(directory).is_ok());
        assert!(gone(&self.directory.join("below")) && gone(&self.directory));
        let _ = std::fs::remove_dir(self.directory.parent().expect("ours")); // another test may still use it
    }
}

impl Taker {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).expect("the child speaks UTF-8");
        line.trim().to_owned()
    }

    /// Says what to take, and does not wait.
    pub(crate) fn tell(&mut self, what: &str, count: u32) {
        writeln!(self.to, "{what} {count}").expect("the child listens");
    }

    /// How many of `count` it got, and the error that ended it.
    pub(crate) fn take(&mut self, what: &str, count: u32) -> (u32, i32) {
        self.tell(what, count);
        self.got()
    }

    /// What came of what it was told.
    pub(crate) fn got(&mut self) -> (u32, i32) {
        let line = self.line();
        let (got, error) = line.split_once(' ').unwrap_or_else(|| panic!("the child said {line:?}"));
        (got.parse().expect("a number"), error.parse().expect("a number"))
    }

    /// Gives everything back.
    pub(crate) fn drop_all(&mut self) {
        self.take("drop", 0);
    }
}
