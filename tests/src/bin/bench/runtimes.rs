//! The runtimes side by side: for each verb the command that a person would type, as data.

use std::error::Error;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use tests::node::Node;

use crate::root::{BASE_ID, ID_COUNT, Roots};

/// One way of running a container.
pub(crate) struct Runtime {
    pub(crate) name: &'static str,
    start: Vec<String>,
    stop: Vec<Vec<String>>,
    /// Runs `true` inside; a bare `unshare` has no such verb.
    exec: Option<Vec<String>>,
    environment: Vec<(&'static str, PathBuf)>,
    /// `unshare` stays for as long as its container; the others leave it behind.
    pub(crate) stays: bool,
}

impl Runtime {
    pub(crate) fn start(&self) -> Command {
        self.command(&self.start)
    }

    pub(crate) fn stop(&self) -> Vec<Command> {
        self.stop.iter().map(|words| self.command(words)).collect()
    }

    pub(crate) fn exec(&self) -> Option<Command> {
        self.exec.as_ref().map(|words| self.command(words))
    }

    fn command(&self, words: &[String]) -> Command {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

fn words<W: AsRef<OsStr>>(words: &[W]) -> Vec<String> {
    words.iter().map(|word| word.as_ref().to_string_lossy().into_owned()).collect()
}

/// Where a program is, if it is.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/bin".into()]);
    places.map(|place| place.join(program)).find(|file| file.is_file())
}

/// `vzctl`, on a node of its own with the archive as its template.
pub(crate) fn ours(node: &Node, roots: &Roots) -> Result<Option<Runtime>, Box<dyn Error>> {
    let binary = tests::node::binary();
    if !binary.is_file() {
        return Ok(None);
    }
    fs_err::copy(&roots.archive, node.path("template/cache/bench.tar"))?;
    let environment = vec![("VZ_CONFDIR", node.path("etc"))];
    let vzctl = |rest: &[&str]| {
        let mut all = words(&[&binary]);
        all.extend(words(rest));
        all
    };
    Ok(Some(Runtime {
        name: "vzctl",
        start: vzctl(&["start", "101"]),
        stop: vec![vzctl(&["stop", "101", "--fast"])],
        exec: Some(vzctl(&["exec", "101", "true"])),
        environment,
        stays: false,
    }))
}

/// LXC with the ids mapped as ours, and no network: it is not asked for more than it does well.
pub(crate) fn lxc(directory: &Path, roots: &Roots) -> Result<Option<Runtime>, Box<dyn Error>> {
    let Some(start) = find("lxc-start") else { return Ok(None) };
    let tool = |name: &str| start.with_file_name(name);
    let place = directory.join("lxc");
    fs_err::create_dir_all(place.join("bench"))?;
    let configuration = format!(
        "lxc.uts.name = bench\nlxc.rootfs.path = dir:{}\nlxc.idmap = u 0 {BASE_ID} {ID_COUNT}\n\
         lxc.idmap = g 0 {BASE_ID} {ID_COUNT}\nlxc.net.0.type = empty\nlxc.init.cmd = /sbin/init\n\
         lxc.mount.auto = proc:mixed sys:mixed\nlxc.tty.max = 0\nlxc.pty.max = 16\nlxc.apparmor.profile = unconfined\n",
        roots.shifted.display()
    );
    fs_err::write(place.join("bench/config"), configuration)?;
    let named = |tool: PathBuf, rest: &[&str]| {
        let mut all =
            words(&[tool.as_os_str(), OsStr::new("-P"), place.as_os_str(), OsStr::new("-n"), OsStr::new("bench")]);
        all.extend(words(rest));
        all
    };
    Ok(Some(Runtime {
        name: "lxc",
        start: named(start.clone(), &["-d"]),
        stop: vec![named(tool("lxc-stop"), &["-k"])],
        exec: Some(named(tool("lxc-attach"), &["--", "/bin/true"])),
        // Without newuidmap in sight it writes the map itself, as it may, being root; faster, and needs no /etc/subuid.
        environment: vec![("PATH", PathBuf::from("/usr/sbin:/sbin"))],
        stays: false,
    }))
}

/// runc with the specification it generates itself, the ids mapped as ours.
pub(crate) fn runc(directory: &Path, state: &Path, roots: &Roots) -> Result<Option<Runtime>, Box<dyn Error>> {
    let Some(runc) = find("runc") else { return Ok(None) };
    let bundle = directory.join("runc");
    fs_err::create_dir_all(&bundle)?;
    let mut spec = Command::new(&runc);
    spec.arg("spec").current_dir(&bundle);
    tests::program::run(spec)?;
    let file = bundle.join("config.json");
    let mut spec: serde_json::Value = serde_json::from_str(&fs_err::read_to_string(&file)?)?;
    spec["process"]["terminal"] = json!(false);
    spec["process"]["args"] = json!(["/sbin/init"]);
    spec["root"] = json!({ "path": roots.shifted, "readonly": false });
    let map = json!([{ "containerID": 0, "hostID": BASE_ID, "size": ID_COUNT }]);
    spec["linux"]["uidMappings"] = map.clone();
    spec["linux"]["gidMappings"] = map;
    let namespaces = spec["linux"]["namespaces"].as_array_mut().ok_or("runc spec without namespaces")?;
    namespaces.push(json!({ "type": "user" }));
    fs_err::write(file, spec.to_string())?;
    let with_state = |rest: &[&OsStr]| {
        let mut all = words(&[runc.as_os_str(), OsStr::new("--root"), state.as_os_str()]);
        all.extend(words(rest));
        all
    };
    let s = OsStr::new;
    Ok(Some(Runtime {
        name: "runc",
        start: with_state(&[s("run"), s("--detach"), s("--bundle"), bundle.as_os_str(), s("vzbench")]),
        stop: vec![with_state(&[s("delete"), s("--force"), s("vzbench")])],
        exec: Some(with_state(&[s("exec"), s("vzbench"), s("/bin/true")])),
        environment: vec![],
        stays: false,
    }))
}

/// The namespaces alone: what the kernel takes, below which nobody gets.
pub(crate) fn unshare(roots: &Roots) -> Option<Runtime> {
    let unshare = find("unshare")?;
    let mut start = words(&[unshare.as_os_str()]);
    start.extend(words(&["--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount", "--net", "--ipc"]));
    start.extend(words(&["--uts", "--cgroup", "--root"]));
    start.push(roots.plain.display().to_string());
    start.push("/sbin/init".to_owned());
    Some(Runtime { name: "unshare", start, stop: vec![], exec: None, environment: vec![], stays: true })
}

/// What LXC leaves in every hierarchy when its container has ended.
pub(crate) fn remove_lxc_cgroups() {
    let hierarchies = fs_err::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]) {
        for name in ["lxc.monitor.bench", "lxc.payload.bench", "lxc.pivot"] {
            // Absent, or in use by somebody's real container: either way not ours to remove.
            let _ = std::fs::remove_dir(hierarchy.join(name));
        }
    }
}
