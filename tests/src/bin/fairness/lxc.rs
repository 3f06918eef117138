//! LXC, told the same weights by `lxc.cgroup`: what its users can have.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tests::wait::wait_until;

use crate::Outcome;
use crate::competing::{Arena, Load};

/// Application containers on the host's own root: only their cgroups matter here.
pub(crate) struct Lxc {
    directory: tempfile::TempDir,
    name: String,
    count: usize,
    running: Vec<Child>,
}

impl Lxc {
    /// `None` where it is not installed.
    pub(crate) fn find() -> Outcome<Option<Self>> {
        if Command::new("lxc-execute").arg("--version").stdout(Stdio::null()).status().is_err() {
            return Ok(None);
        }
        let name = format!("vzfair-{}", std::process::id());
        Ok(Some(Self { directory: tempfile::tempdir()?, name, count: 0, running: Vec::new() }))
    }

    fn number(&self, at: usize) -> String {
        format!("{}-{at}", self.name)
    }

    fn tool(&self, tool: &str, at: usize) -> Command {
        let mut command = Command::new(tool);
        command.arg("-P").arg(self.directory.path()).args(["-n", &self.number(at)]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Where its cgroup is in each hierarchy.
    fn dirs(&self, at: usize) -> Vec<PathBuf> {
        let top = Path::new("/sys/fs/cgroup");
        let below = std::fs::read_dir(top).into_iter().flatten().flatten().map(|entry| entry.path());
        let of = |kind: &str| format!("lxc.{kind}.{}", self.number(at));
        let both = |top: PathBuf| [top.join(of("payload")), top.join(of("monitor"))];
        below.chain([top.to_owned()]).flat_map(both).filter(|dir| dir.is_dir()).collect()
    }

    fn cgroup(&self, at: usize) -> Option<PathBuf> {
        let payload = |dir: &PathBuf| dir.to_string_lossy().contains("lxc.payload");
        self.dirs(at).into_iter().find(|dir| payload(dir) && dir.join("cgroup.freeze").exists())
    }
}

impl Arena for Lxc {
    fn name(&self) -> &'static str {
        "lxc"
    }

    fn begin(&mut self, units: &[u64], load: Load) -> Outcome<()> {
        for (at, units) in units.iter().enumerate() {
            let weights =
                format!("lxc.cgroup2.cpu.weight = {units}\nlxc.cgroup.cpu.shares = {}\n", units * 1024 / 1000);
            let file = self.directory.path().join(format!("{at}.conf"));
            fs_err::write(&file, weights + "lxc.net.0.type = empty\nlxc.apparmor.profile = unconfined\n")?;
            let mut execute = self.tool("lxc-execute", at);
            execute.arg("-f").arg(file).args(["--", "busybox", "sh", "-c", &format!("{} wait", load.script())]);
            self.count = at + 1;
            self.running.push(execute.spawn()?);
        }
        let all = || (0..self.count).all(|at| self.cgroup(at).is_some());
        if wait_until(Duration::from_secs(30), all) { Ok(()) } else { Err("lxc-execute: not all came up".into()) }
    }

    fn cgroups(&self) -> Vec<PathBuf> {
        (0..self.count).filter_map(|at| self.cgroup(at)).collect()
    }

    fn end(&mut self) -> Outcome<()> {
        for at in 0..self.count {
            self.tool("lxc-stop", at).arg("-k").status()?;
        }
        for mut child in self.running.drain(..) {
            child.wait()?;
        }
        // What LXC leaves of them in every hierarchy.
        for dir in (0..self.count).flat_map(|at| self.dirs(at)).collect::<Vec<_>>() {
            if !wait_until(Duration::from_secs(10), || !dir.exists() || std::fs::remove_dir(&dir).is_ok()) {
                return Err(format!("{} stays", dir.display()).into());
            }
        }
        self.count = 0;
        Ok(())
    }
}

impl Drop for Lxc {
    fn drop(&mut self) {
        if let Err(e) = self.end() {
            eprintln!("{}: {e}", self.name);
        }
    }
}
