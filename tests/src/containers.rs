//! Nodes with containers on them: OS templates that are made once and kept, and what tests of containers ask again and
//! again.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use crate::node::{DIRECTORY_VARIABLE, Node, Outcome};
use crate::skips::skip;
use crate::wait::wait_until;

/// Making a Debian template takes about 40 s on an ordinary machine with near mirrors.
const MAKING_LIMIT: Duration = Duration::from_secs(500);

/// Debian 12 with [`TOOLS_PACKAGES`].
pub const DEBIAN_12_TOOLS: &str = "debian-12-tools";

/// Containers and sandboxes, FUSE, and tools for networks: what OpenVZ's containers could not run. And for disk quota, which they could.
const TOOLS_PACKAGES: [&str; 17] = [
    "aardvark-dns",
    "bubblewrap",
    "busybox-static",
    "catatonit",
    "crun",
    "dbus-user-session",
    "fuse-overlayfs",
    "iptables",
    "netavark",
    "nftables",
    "podman",
    "quota",
    "slirp4netns",
    "squashfs-tools",
    "squashfuse",
    "tcpdump",
    "uidmap",
];

/// Debian 12 with [`PROGRAMS_PACKAGES`]: carried into the reference machine if asked (`reference --template`), for it is large.
pub const DEBIAN_12_PROGRAMS: &str = "debian-12-programs";

/// What people run in containers, by `examples/programs.sh`: servers in C, Go (caddy) and Java (tomcat), and all that sets packet filters.
const PROGRAMS_PACKAGES: [&str; 10] = [
    "apache2",
    "apache2-utils",
    "arptables",
    "caddy",
    "curl",
    "ebtables",
    "iptables",
    "mariadb-server",
    "nftables",
    "tomcat10",
];

/// The templates that tests make from packages.
pub const DEBIAN: [&str; 3] = ["debian-12-x86_64", "debian-13-x86_64", DEBIAN_12_TOOLS];

/// A node on which `create` finds this template; `None`, with the reason printed, where there can be none.
pub fn node_with(test: &str, template: &str) -> Option<Node> {
    if !nix::unistd::geteuid().is_root() {
        skip(test, "needs root");
        return None;
    }
    let node = Node::new();
    let store = store();
    node.configure(&format!("TEMPLATE={}", store.display()));
    if let Err(reason) = make_template(&node, &store, template) {
        // The embedded template needs nothing of the network: then it is a bug.
        assert_ne!(template, "busybox", "the busybox template cannot be made: {reason}");
        skip(test, &reason);
        return None;
    }
    Some(node)
}

/// The same with a store of the test's own, with the archives of these templates in it: application templates lie in the store.
///
/// # Panics
/// The archives cannot be copied.
pub fn node_with_own_store(test: &str, templates: &[&str]) -> Option<Node> {
    let mut node = None;
    for template in templates {
        node = Some(node_with(test, template)?);
    }
    let node = node?;
    let own = node.path("template/cache");
    for entry in fs_err::read_dir(store().join("cache")).expect("a store").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if templates.iter().any(|template| name.starts_with(&format!("{template}.tar"))) {
            fs_err::copy(entry.path(), own.join(name)).expect("a copy of the archive");
        }
    }
    share_trees(&node, templates, &own.join(".trees"));
    node.configure(&format!("TEMPLATE={}", node.path("template").display()));
    Some(node)
}

/// Unpacking a distribution takes minutes in an emulated machine: it is done once, in the store that all tests share, and linked from there.
fn share_trees(node: &Node, templates: &[&str], to: &Path) {
    fs_err::create_dir_all(to).expect("a directory");
    for template in templates {
        node.done(["create", "999", "--ostemplate", template]);
        let tree = node.configured(999, "VZ_TREE").expect("a tree");
        node.done(["destroy", "999"]);
        let mut cp = std::process::Command::new("cp");
        cp.args(["-al", "--"]).arg(store().join("cache/.trees").join(tree)).arg(to);
        Outcome::of(cp, Duration::from_secs(120)).ok();
    }
}

/// Disk blocks of a directory and all below it, in KiB; a file with several names counts once.
///
/// # Panics
/// du(1) fails.
pub fn disk_kib(path: &Path) -> u64 {
    let mut du = std::process::Command::new("du");
    du.args(["-sk", "--"]).arg(path);
    let said = Outcome::of(du, Duration::from_secs(60)).ok().stdout;
    said.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number")
}

/// A node with container 101 of the busybox template running.
pub fn running_busybox(test: &str) -> Option<Node> {
    let node = node_with(test, "busybox")?;
    node.done(["create", "101", "--ostemplate", "busybox"]);
    node.done(["start", "101"]);
    Some(node)
}

/// The archive of a template, made on this host if it is not there: what the reference machine, which has no network, is
/// given.
///
/// # Errors
/// It cannot be made, with the last thing that was said about it.
pub fn archive_of(template: &str) -> Result<PathBuf, String> {
    let node = Node::new();
    let store = store();
    node.configure(&format!("TEMPLATE={}", store.display()));
    make_template(&node, &store, template)
}

/// Where templates are kept between runs. Never one that a node of an administrator uses.
fn store() -> PathBuf {
    std::env::var_os(DIRECTORY_VARIABLE)
        .map_or_else(|| crate::target_dir().join("templates"), |base| store_below(Path::new(&base)))
}

/// Where the templates of [`node_with`] are.
pub fn templates() -> PathBuf {
    store()
}

/// The same for nodes that are made in a directory of one's choice.
pub fn store_below(base: &Path) -> PathBuf {
    base.join("vz-test-templates")
}

/// Several test programs may find it missing at once; one makes it. Returns the archive.
fn make_template(node: &Node, store: &Path, template: &str) -> Result<PathBuf, String> {
    let said = |error: std::io::Error| error.to_string();
    let cache = store.join("cache");
    fs_err::create_dir_all(&cache).map_err(said)?;
    let file = File::create(store.join("lock")).map_err(said)?;
    let _lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno.to_string())?;
    let start = format!("{template}.tar");
    let find = || -> std::io::Result<Option<PathBuf>> {
        let paths = fs_err::read_dir(&cache)?.flatten().map(|entry| entry.path());
        Ok(paths.into_iter().find(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&start))))
    };
    if let Some(archive) = find().map_err(said)? {
        return Ok(archive);
    }
    let recipes = store.join("recipes");
    if template == DEBIAN_12_TOOLS {
        // With it the package looks, at the first boot, for file systems to count, and fails where there are none.
        write_recipe(&recipes, template, &TOOLS_PACKAGES, &["/var/lib/quota/new"]).map_err(said)?;
    } else if template == DEBIAN_12_PROGRAMS {
        write_recipe(&recipes, template, &PROGRAMS_PACKAGES, &[]).map_err(said)?;
    }
    let made = Outcome::of(node.command("vzpkg", ["create", "cache", template]), MAKING_LIMIT);
    let last = made.stderr.lines().last().unwrap_or_default();
    let cannot = || format!("no template {template} can be made here: {last}");
    if made.code == 0 { find().map_err(said)?.ok_or_else(cannot) } else { Err(cannot()) }
}

/// Our recipe of Debian 12 under another name, with more packages and less files.
fn write_recipe(recipes: &Path, name: &str, packages: &[&str], less: &[&str]) -> std::io::Result<()> {
    let text = fs_err::read_to_string(crate::checkout().join("templates/recipes/debian-12-x86_64.toml"))?;
    let mut recipe: toml::Table = text.parse().expect("a recipe of this checkout");
    recipe.insert("name".into(), name.into());
    let bootstrap = recipe.get_mut("bootstrap").and_then(toml::Value::as_table_mut).expect("a recipe has one");
    let include = bootstrap.get_mut("include").and_then(toml::Value::as_array_mut).expect("packages");
    include.extend(packages.iter().copied().map(toml::Value::from));
    let remove = recipe.get_mut("remove").and_then(toml::Value::as_array_mut).expect("files to remove");
    remove.extend(less.iter().copied().map(toml::Value::from));
    fs_err::create_dir_all(recipes)?;
    fs_err::write(recipes.join(format!("{name}.toml")), recipe.to_string())
}

impl Node {
    /// `vzctl`, which must succeed and say nothing on stderr: what scripts take for success. Returns its stdout.
    ///
    /// # Panics
    /// It failed, or complained.
    #[track_caller]
    pub fn done<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> String {
        let arguments: Vec<&str> = arguments.into_iter().collect();
        let outcome = self.vzctl(&arguments).ok();
        assert_eq!(outcome.stderr, "", "vzctl {arguments:?} complained");
        outcome.stdout
    }

    /// A command line in container 101, which must succeed; its output without the last line break.
    ///
    /// # Panics
    /// It failed.
    #[track_caller]
    pub fn inside(&self, line: &str) -> String {
        self.done(["exec2", "101", line]).trim_end().to_owned()
    }

    /// The line of `vzctl status`.
    ///
    /// # Panics
    /// It failed.
    #[track_caller]
    pub fn status(&self, ctid: u32) -> String {
        self.done(["status", &ctid.to_string()]).trim_end().to_owned()
    }

    /// Waits until the status of a container ends with these words.
    ///
    /// # Panics
    /// It did not come to that.
    #[track_caller]
    pub fn wait_for_status(&self, ctid: u32, words: &str) {
        let there = wait_until(Duration::from_secs(30), || self.status(ctid).ends_with(words));
        assert!(there, "CT {ctid} is not {words:?} but: {}", self.status(ctid));
    }

    /// What is in the configuration file of a container under this key, without its quotes.
    pub fn configured(&self, ctid: u32, key: &str) -> Option<String> {
        let text = fs_err::read_to_string(self.configuration(ctid)).ok()?;
        let line = text.lines().rev().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(line.trim_matches('"').to_owned())
    }

    /// The first of these files that there is in a cgroup of a container, without its line break: cgroup v1's name for
    /// it, then v2's.
    ///
    /// # Panics
    /// There is none.
    #[track_caller]
    pub fn cgroup_file(&self, ctid: u32, names: &[&str]) -> String {
        let found = self
            .cgroups(ctid)
            .into_iter()
            .find_map(|directory| names.iter().find_map(|name| fs_err::read_to_string(directory.join(name)).ok()));
        found.unwrap_or_else(|| panic!("no {names:?} in a cgroup of CT {ctid}")).trim_end().to_owned()
    }

    /// The cgroups of a container, in every hierarchy.
    pub fn cgroups(&self, ctid: u32) -> Vec<PathBuf> {
        let tops = fs_err::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
        let tops = tops.chain([PathBuf::from("/sys/fs/cgroup")]);
        tops.map(|top| top.join(self.name()).join(ctid.to_string())).filter(|path| path.is_dir()).collect()
    }

    /// The process id, on the host, of a container's init or of its monitor.
    ///
    /// # Panics
    /// It is not running.
    #[track_caller]
    pub fn process(&self, ctid: u32, which: &str) -> i32 {
        let text = fs_err::read(self.path(format!("run/{ctid}/state.json"))).expect("it runs");
        let state: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        i32::try_from(state[format!("{which}_pid")].as_i64().expect("a number")).expect("a process id")
    }

    /// The attendant of a container: the child of its monitor that is not its init.
    pub fn attendant(&self, ctid: u32) -> Option<i32> {
        let monitor = self.process(ctid, "monitor");
        let children = fs_err::read_to_string(format!("/proc/{monitor}/task/{monitor}/children")).ok()?;
        children.split_whitespace().find_map(|pid| {
            let name = fs_err::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            (name.trim() == "vz-attendant").then(|| pid.parse().ok())?
        })
    }

    /// What of its containers is still there when none should be: files and directories, kernel objects, processes. What ends by itself with the
    /// last of them (monitors, and who shows the counters of all) may take a moment, more of it on a busy machine.
    pub fn leftovers(&self) -> Vec<String> {
        let files = || -> Vec<String> {
            let parts = ["run", "lock", "private", "root", "etc/names"].into_iter();
            let entries = parts.flat_map(|part| fs_err::read_dir(self.path(part)).into_iter().flatten().flatten());
            entries.map(|entry| format!("file {}", entry.path().display())).collect()
        };
        let is_quiet = || files().is_empty() && self.processes().is_empty();
        // If it does not end, it is what is left.
        let _ = wait_until(Duration::from_secs(10), is_quiet);
        let mut left = files();
        // The parent of all containers' cgroups, that of their monitors in it, and the table for their packets are the node's, and stay
        // for the next.
        let (parent, table) = (format!("/{}", self.name()), format!("nft table inet {}", self.name()));
        let cgroup = |line: &str| line.trim_end_matches("/monitors").ends_with(&parent);
        let nodes = |line: &String| line.starts_with("cgroup ") && cgroup(line) || *line == table;
        left.extend(self.close().into_iter().filter(|line| !nodes(line)));
        left
    }
}
