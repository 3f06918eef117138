//! On the real cgroups of this machine, hybrid or unified, as root. The same tests run on both.

#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

mod effects;
mod life;
mod limits;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxResources;
use rustix::process::{Pid, WaitOptions, WaitStatus, waitpid};
use serde_json::{Value, json};

use super::*;
use crate::Ctid;
use crate::cgroup::sys::testing::spawn_sh;
use crate::plan::CpuShare;

const SOON: Duration = Duration::from_secs(10);
const UID: u32 = 1_010_000;

/// A container's cgroups under a parent of the test's own; both go when it ends, however it ends.
struct Scratch {
    ct: CtCgroup,
    name: String,
    host: Host,
}

impl Scratch {
    /// `None`, and says so, where cgroups cannot be made.
    fn new(test: &str) -> Option<Self> {
        let scratch = Self::absent(test)?;
        let missing = scratch.ct.create(&Delegation::to(UID, UID)).unwrap();
        assert_eq!(missing, [], "a controller that is listed can be enabled");
        Some(scratch)
    }

    fn absent(test: &str) -> Option<Self> {
        let host = match Host::detect(Path::new("/")) {
            Ok(host) if rustix::process::geteuid().is_root() => host,
            other => {
                eprintln!("skipped: {test}: needs root and cgroup2 ({:?})", other.err());
                return None;
            }
        };
        let probe = host.unified.join("cgroup.procs");
        if let Err(e) = fs::OpenOptions::new().write(true).open(&probe) {
            eprintln!("skipped: {test}: {} cannot be written: {e}", probe.display());
            return None;
        }
        let name = format!("vztest-{}-{test}", std::process::id());
        let ct = host.container(&name, Ctid::try_from(101).unwrap());
        Some(Self { ct, name, host })
    }

    /// The file of a controller, by its name in each version.
    fn file(&self, controller: Controller, v1: &str, v2: &str) -> PathBuf {
        let place = self.ct.place(controller).expect("the tests' machines have all controllers");
        place.dir.join(if place.v2 { v2 } else { v1 })
    }

    fn read(&self, controller: Controller, v1: &str, v2: &str) -> String {
        fs::read_to_string(self.file(controller, v1, v2)).unwrap().trim().to_owned()
    }

    fn run(&self, script: &str) -> i32 {
        self.wait(spawn_sh(&self.ct.entry().unwrap(), script).unwrap())
    }

    /// The exit status as a shell shows it.
    fn wait(&self, pid: Pid) -> i32 {
        let (_, status) = waitpid(Some(pid), WaitOptions::empty()).unwrap().expect("waited for");
        shell_status(status)
    }

    fn parents(&self) -> Vec<PathBuf> {
        self.ct.paths().iter().map(|p| p.parent().unwrap().to_owned()).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.ct.exists() {
            self.ct.kill().unwrap();
        }
        self.ct.remove(SOON).unwrap();
        for parent in self.parents() {
            crate::cgroup::life::remove_tree(&parent, SOON).unwrap();
        }
    }
}

fn shell_status(status: WaitStatus) -> i32 {
    status.exit_status().or_else(|| status.terminating_signal().map(|s| 128 + s)).expect("ended")
}

fn resources(json: Value) -> LinuxResources {
    serde_json::from_value(json).unwrap()
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
