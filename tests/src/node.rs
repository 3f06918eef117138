//! A node of a test's own: configuration, `/vz`, run directory, cgroup and interface names that no other has, so that
//! tests work beside each other and beside a real `/etc/vz`. What is left of it when it is dropped is torn down.

mod outcome;
mod teardown;

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub use outcome::Outcome;

/// For one command on an ordinary machine; a command that takes longer fails its test.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);

/// Where nodes are made: the reference machine names its disk with project quota.
pub const DIRECTORY_VARIABLE: &str = "VZ_TEST_DIR";

static NODES: AtomicU32 = AtomicU32::new(0);

/// A temporary node.
///
/// ```no_run
/// let node = tests::node::Node::new();
/// node.vzctl(["create", "101", "--ostemplate", "busybox"]).ok();
/// node.vzctl(["start", "101"]).ok();
/// assert_eq!(node.vzctl(["exec2", "101", "exit 3"]).code, 3);
/// ```
#[derive(Debug)]
pub struct Node {
    directory: tempfile::TempDir,
    name: String,
    binary: PathBuf,
}

/// The program under test: `VZ_BIN`, or the release build of this checkout.
pub fn binary() -> PathBuf {
    std::env::var_os("VZ_BIN").map_or_else(|| crate::target_dir().join("release/vzctl"), PathBuf::from)
}

impl Node {
    /// Makes one; its configuration is what `make install` would put into `/etc/vz`.
    ///
    /// # Panics
    /// Its directories cannot be made: the test can do nothing then.
    #[expect(clippy::new_without_default, reason = "it makes directories: nothing to have by default")]
    pub fn new() -> Self {
        Self::make().expect("a directory for a node")
    }

    fn make() -> io::Result<Self> {
        let base = std::env::var_os(DIRECTORY_VARIABLE).map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
        // Short: it is part of socket paths (108 bytes at most).
        let directory = tempfile::Builder::new().prefix("vzt").rand_bytes(4).tempdir_in(base)?;
        let number = NODES.fetch_add(1, Ordering::Relaxed);
        // Four letters, for an interface's name of 15 is this and a CTID: by the process and the node in it. The first
        // is one that no kernel's or daemon's interfaces begin with, for whatever bears the name is torn down; none is a
        // digit, for a CTID follows.
        let name = format!("q{}{}", letters(std::process::id(), 2), letters(number, 1));
        let node = Self { directory, name, binary: binary() };
        for part in ["etc/conf", "etc/names", "lock", "run", "root", "private", "dump", "template/cache"] {
            fs_err::create_dir_all(node.path(part))?;
        }
        copy_tree(&crate::checkout().join("vzctl/etc"), &node.path("etc"))?;
        fs_err::write(node.path("etc/vz.conf"), node.global_configuration())?;
        Ok(node)
    }

    fn global_configuration(&self) -> String {
        let vz = self.directory.path().display();
        format!(
            "LOCKDIR={vz}/lock\nDUMPDIR={vz}/dump\nLOGGING=yes\nLOGFILE={vz}/vzctl.log\nLOG_LEVEL=0\nVERBOSE=0\n\
             DISK_QUOTA=yes\nTEMPLATE={vz}/template\nVE_ROOT={vz}/root/$VEID\nVE_PRIVATE={vz}/private/$VEID\n\
             CONFIGFILE=\"basic\"\nDEF_OSTEMPLATE=\"busybox\"\nVE_LAYOUT=simfs\nLOCAL_UID=100000\nLOCAL_GID=100000\n\
             IPV6=\"yes\"\nVZ_RUNDIR={vz}/run\nVZ_CGROUP={name}\nVZ_IFPREFIX={name}\n",
            name = self.name
        )
    }

    /// A path in its directory: `etc`, `run`, `private/101`, …
    pub fn path(&self, part: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(part)
    }

    /// The configuration file of a container.
    pub fn configuration(&self, ctid: u32) -> PathBuf {
        self.path(format!("etc/conf/{ctid}.conf"))
    }

    /// Adds lines to `vz.conf`; later ones win.
    ///
    /// # Panics
    /// The file cannot be written.
    pub fn configure(&self, lines: &str) {
        let path = self.path("etc/vz.conf");
        let text = fs_err::read_to_string(&path).expect("vz.conf");
        fs_err::write(path, format!("{text}{lines}\n")).expect("vz.conf");
    }

    /// The name its cgroups have, and what its interfaces' names begin with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command of ours on this node, for a test that wants to start it itself.
    pub fn command<A: AsRef<OsStr>>(&self, name: &str, arguments: impl IntoIterator<Item = A>) -> Command {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(&self.binary);
        command.arg0(name).args(arguments);
        command.env("VZ_CONFDIR", self.path("etc"));
        command
    }

    /// Runs `vzctl`.
    pub fn vzctl<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Outcome {
        self.run("vzctl", arguments)
    }

    /// Runs `vzlist`.
    pub fn vzlist<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Outcome {
        self.run("vzlist", arguments)
    }

    /// Runs the binary under another of its names.
    pub fn run<A: AsRef<OsStr>>(&self, name: &str, arguments: impl IntoIterator<Item = A>) -> Outcome {
        Outcome::of(self.command(name, arguments), COMMAND_LIMIT)
    }

    /// Stops and destroys all containers, then removes by force what is still there, and says what that was.
    /// A test of clean-up asserts that this is empty.
    pub fn close(&self) -> Vec<String> {
        for ctid in self.containers() {
            // Whatever state a test left it in; what these cannot do is found below.
            for action in [&["stop", "--fast"][..], &["umount"], &["destroy"]] {
                self.vzctl(["--quiet", action[0], &ctid].iter().chain(&action[1..]));
            }
        }
        teardown::by_force(self.directory.path(), &self.name)
    }

    /// Those of its containers, and those that look after them.
    pub(crate) fn processes(&self) -> Vec<procfs::process::Process> {
        teardown::processes(self.directory.path(), &self.name)
    }

    fn containers(&self) -> Vec<String> {
        let entries = fs_err::read_dir(self.path("etc/conf")).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let ids = names.filter_map(|name| name.strip_suffix(".conf").map(str::to_owned));
        ids.filter(|id| id != "0" && id.bytes().all(|byte| byte.is_ascii_digit())).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for left in self.close() {
            eprintln!("node {} left behind: {left}", self.name);
        }
    }
}

/// The last `count` digits of a number to the base 26, as letters.
fn letters(number: u32, count: u32) -> String {
    (0..count).rev().filter_map(|place| char::from_digit(number / 26u32.pow(place) % 26 + 10, 36)).collect()
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs_err::create_dir_all(to)?;
    for entry in fs_err::read_dir(from).into_iter().flatten() {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &to)?;
        } else {
            fs_err::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
