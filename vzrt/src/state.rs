//! What is known of a container while it exists as kernel objects: the files in its run directory.
//!
//! * `journal.json` – what is about to exist, synced before the first of it does. Clean-up after any end works from it.
//! * `state.json` – the running container: its init, its monitor.
//! * `plan.json` – the plan it was started with, its system call filter compiled; `exec`, `set` and `stop` take capabilities, filter and hooks
//!   from it.
//! * `load.json` – its load average, counted by the attendant.
//! * `monitor` – locked by the monitor and its attendant for as long as one of them lives.
//! * `monitor.sock` – where the attendant hears commands.
//! * `handover` – present while `stop` waits: the monitor then leaves the unmounting to it.
//!
//! Beside it, what outlives the run: `101.console`, the last of what the container printed, and `101.reboot`, while a container that reboots
//! too often is made to wait. And what is the node's: `proc`, the files of beancounters, with `proc.lock`, while a container runs.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Ctid;
use crate::error::{Call, Failed};
use crate::net::NetPlan;
use crate::plan::{Hooks, Plan, RootPlan};

/// What may exist in the kernel on behalf of a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Journal {
    /// The boot it was written in: in another one, nothing of it exists any more.
    pub boot_id: String,
    /// Whose it is.
    pub ctid: Ctid,
    /// The mount.
    pub root: RootPlan,
    /// The hooks of unmounting.
    pub hooks: Hooks,
    /// The parent of its cgroup, if the container was being started and not only mounted.
    pub cgroup: Option<String>,
    /// The network, likewise.
    pub net: Option<NetPlan>,
}

/// A running container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The boot it runs in.
    pub boot_id: String,
    /// Its number.
    pub ctid: Ctid,
    /// Process id of its init on the host.
    pub init_pid: i32,
    /// When that process started, in clock ticks since boot (field 22 of /proc/PID/stat): tells it from a later process of the same number.
    pub init_start_ticks: u64,
    /// Process id of its monitor.
    pub monitor_pid: i32,
    /// When it was started, in seconds since 1970.
    pub started_at_s: u64,
    /// The parent of its cgroup in every hierarchy.
    pub cgroup: String,
}

/// What is in the run directory, in the order in which it is removed.
const FILES: [&str; 8] =
    ["state.json", "plan.json", "load.json", "peaks", "handover", "monitor.sock", "monitor", "journal.json"];

/// The run directory of one container.
#[derive(Debug, Clone)]
pub struct RunDir(PathBuf);

impl RunDir {
    /// Names it; nothing is touched.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The log of its console, beside the directory: it is still there when the container has ended.
    #[must_use]
    pub fn console_log(&self) -> PathBuf {
        self.0.with_extension("console")
    }

    /// The mark of a container that is going to be started again, beside the directory, which comes and goes meanwhile.
    #[must_use]
    pub fn reboot_mark(&self) -> PathBuf {
        self.0.with_extension("reboot")
    }

    /// Makes it, readable by root alone, parents included.
    ///
    /// # Errors
    /// The failed mkdir.
    pub fn create(&self) -> Result<(), Failed> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .call(|| format!("mkdir({})", self.0.display()))
    }

    /// Writes the journal and sees it on disk before returning.
    ///
    /// # Errors
    /// The failed call; then nothing may be made.
    pub fn write_journal(&self, journal: &Journal) -> Result<(), Failed> {
        self.create()?;
        self.write("journal.json", journal, true)
    }

    /// The journal, if the container has one. One of an earlier boot counts as none.
    ///
    /// # Errors
    /// It is there and can't be read.
    pub fn journal(&self) -> Result<Option<Journal>, Failed> {
        let journal: Option<Journal> = self.read("journal.json")?;
        Ok(journal.filter(|j| j.boot_id == boot_id()))
    }

    /// Writes the state of a running container.
    ///
    /// # Errors
    /// The failed call.
    pub fn write_state(&self, state: &State) -> Result<(), Failed> {
        self.write("state.json", state, false)
    }

    /// The running container: `None` when there is no state, it is of an earlier boot, or its init is gone.
    ///
    /// # Errors
    /// The state is there and can't be read.
    pub fn running(&self) -> Result<Option<Running>, Failed> {
        let state = match self.read::<State>("state.json") {
            // It is not synced, as the journal before it is: where a run directory outlives the host, a power cut leaves it empty, and no journal
            // of this boot.
            Err(e) => return if self.journal()?.is_some() { Err(e) } else { Ok(None) },
            Ok(None) => return Ok(None),
            Ok(Some(state)) => state,
        };
        if state.boot_id != boot_id() {
            return Ok(None);
        }
        let Some(pid) = rustix::process::Pid::from_raw(state.init_pid) else { return Ok(None) };
        let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else { return Ok(None) };
        // The pidfd is taken first: what the start time says afterwards is said of the process behind it, or of nobody.
        match start_ticks(state.init_pid) {
            Some(ticks) if ticks == state.init_start_ticks => Ok(Some(Running { state, init: pidfd })),
            _ => Ok(None),
        }
    }

    /// Keeps the plan for the commands to come.
    ///
    /// # Errors
    /// The failed call.
    pub fn write_plan(&self, plan: &Plan) -> Result<(), Failed> {
        self.write("plan.json", plan, false)
    }

    /// The plan the container was started with.
    ///
    /// # Errors
    /// It can't be read.
    pub fn plan(&self) -> Result<Option<Plan>, Failed> {
        self.read("plan.json")
    }

    /// The bounds of its beancounters in that plan, the rest of which is not looked at.
    ///
    /// # Errors
    /// It can't be read.
    pub fn bounds(&self) -> Result<Option<beancounters::Set>, Failed> {
        #[derive(Deserialize)]
        struct PlanPart {
            vz: ExtrasPart,
        }
        #[derive(Deserialize)]
        struct ExtrasPart {
            #[serde(default)]
            bounds: beancounters::Set,
        }
        Ok(self.read::<PlanPart>("plan.json")?.map(|plan| plan.vz.bounds))
    }

    /// What tells this plan from an earlier or a later one of the same container; `None` when there is none.
    pub(crate) fn plan_stamp(&self) -> Result<Option<PlanStamp>, Failed> {
        let path = self.0.join("plan.json");
        match std::fs::metadata(&path) {
            Ok(plan) => Ok(Some(PlanStamp { inode: plan.ino(), modified: (plan.mtime(), plan.mtime_nsec()) })),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).call(|| format!("stat({})", path.display())),
        }
    }

    /// The run directory of a node that this one lies in.
    pub(crate) fn node(&self) -> &Path {
        self.0.parent().unwrap_or(Path::new("/"))
    }

    /// Tells the monitor that a command holding the container's lock will finish what it started.
    ///
    /// # Errors
    /// The failed call.
    pub fn hand_over(&self) -> Result<(), Failed> {
        let path = self.0.join("handover");
        File::create(&path).map(drop).call(|| format!("open({})", path.display()))
    }

    /// Takes that back: the command gives up.
    ///
    /// # Errors
    /// The failed call.
    pub fn take_back(&self) -> Result<(), Failed> {
        ok_if_absent(std::fs::remove_file(self.0.join("handover")))
            .call(|| format!("unlink({}/handover)", self.0.display()))
    }

    /// Whether such a command is there.
    #[must_use]
    pub fn is_handed_over(&self) -> bool {
        self.0.join("handover").exists()
    }

    /// Takes the monitor's own lock, if no monitor lives.
    ///
    /// # Errors
    /// The file can't be opened.
    pub fn monitor_lock(&self) -> Result<Option<OwnedFd>, Failed> {
        let path = self.0.join("monitor");
        let file = File::create(&path).call(|| format!("open({})", path.display()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file.into())),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(e).call(|| format!("flock({})", path.display())),
        }
    }

    /// Notes the load average, for `vzlist`; three numbers as in `/proc/loadavg`.
    ///
    /// # Errors
    /// The failed call.
    pub(crate) fn write_load(&self, means: [f64; 3]) -> Result<(), Failed> {
        self.write("load.json", &means, false)
    }

    /// The load average of a running container, over 1, 5 and 15 minutes; `None` before the first count.
    ///
    /// # Errors
    /// It can't be read.
    pub fn load(&self) -> Result<Option<[f64; 3]>, Failed> {
        self.read("load.json")
    }

    /// The highest marks of its beancounters that no kernel keeps: [`beancounters::peaks`].
    #[must_use]
    pub fn peaks(&self) -> PathBuf {
        self.0.join("peaks")
    }

    /// Removes the directory and all in it: nothing is left in the kernel that it could describe. The files go one by one and the journal
    /// last, so that an interruption leaves a journal of what is (at most) there.
    ///
    /// # Errors
    /// The failed call.
    pub fn remove(&self) -> Result<(), Failed> {
        for name in FILES {
            ok_if_absent(std::fs::remove_file(self.0.join(name)))
                .call(|| format!("unlink({}/{name})", self.0.display()))?;
        }
        match ok_if_absent(std::fs::remove_dir_all(&self.0)) {
            Ok(()) => Ok(()),
            Err(e) => Err(e).call(|| format!("rmdir({})", self.0.display())),
        }
    }

    fn write<T: Serialize>(&self, name: &str, value: &T, sync: bool) -> Result<(), Failed> {
        let (path, temp) = (self.0.join(name), self.0.join(format!("{name}.new")));
        let bytes = serde_json::to_vec(value).map_err(|e| Failed::new(format!("encode {name}"), e.to_string()))?;
        let go = || {
            let mut file = File::create(&temp)?;
            file.write_all(&bytes)?;
            if sync {
                file.sync_data()?;
            }
            std::fs::rename(&temp, &path)?;
            if sync {
                File::open(&self.0)?.sync_all()?;
            }
            Ok::<(), std::io::Error>(())
        };
        go().call(|| format!("write({})", path.display()))
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Failed> {
        let path = self.0.join(name);
        let bytes = match std::fs::read(&path) {
            Ok(b) => b,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).call(|| format!("read({})", path.display())),
        };
        // Written whole by rename, so what doesn't parse was written by another version of ours, or by hand.
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| Failed::new(format!("read({})", path.display()), e.to_string()))
    }
}

/// A plan is written anew as a whole, never changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlanStamp {
    inode: u64,
    /// Seconds and nanoseconds since 1970.
    modified: (i64, i64),
}

/// A container whose init lives, with a handle on that init.
#[derive(Debug)]
pub struct Running {
    /// Who and where.
    pub state: State,
    /// pidfd of its init.
    pub init: OwnedFd,
}

fn ok_if_absent(r: std::io::Result<()>) -> std::io::Result<()> {
    match r {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        r => r,
    }
}

/// This boot's id: a new one after every start of the host.
#[must_use]
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|s| s.trim().to_owned()).unwrap_or_default()
}

/// When a process started, in clock ticks since boot; `None` if it is gone or a zombie.
#[must_use]
pub fn start_ticks(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything, parentheses and blanks included: what follows is counted from the last one.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let status = fields.next()?;
    if status == "Z" || status == "X" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    #[test]
    fn own_start_time_is_told_and_that_of_no_process_is_not() {
        assert!(start_ticks(i32::try_from(std::process::id()).unwrap()).is_some());
        assert_eq!(start_ticks(-1), None);
    }

    #[test]
    fn a_state_of_an_earlier_boot_or_a_reused_pid_is_not_running() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::new(dir.path().join("101"));
        run.create().unwrap();
        let me = i32::try_from(std::process::id()).unwrap();
        let mut state = State {
            boot_id: boot_id(),
            ctid: "101".parse().unwrap(),
            init_pid: me,
            init_start_ticks: start_ticks(me).unwrap(),
            monitor_pid: me,
            started_at_s: 0,
            cgroup: "vz".into(),
        };
        run.write_state(&state).unwrap();
        assert!(run.running().unwrap().is_some());
        state.init_start_ticks += 1;
        run.write_state(&state).unwrap();
        assert!(run.running().unwrap().is_none());
        state.init_start_ticks -= 1;
        state.boot_id = "another".into();
        run.write_state(&state).unwrap();
        assert!(run.running().unwrap().is_none());
        run.remove().unwrap();
        assert!(!run.path().exists());
    }

    #[test]
    fn a_state_that_a_power_cut_has_left_empty_is_none_and_one_that_is_not_ours_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::new(dir.path().join("101"));
        run.create().unwrap();
        std::fs::write(run.path().join("state.json"), "").unwrap();
        assert!(run.running().unwrap().is_none());
        let journal = |boot_id: &str| {
            let root = RootPlan {
                mountpoint: PathBuf::new(),
                private: PathBuf::new(),
                layers: crate::plan::Layers::Whole,
                disk: crate::plan::Disk::Unbounded,
                ids: crate::plan::IdRange { uid: 0, gid: 0, count: 1 },
                options: Vec::new(),
                user_quota: None,
            };
            let (boot_id, ctid) = (boot_id.to_owned(), "101".parse().unwrap());
            run.write_journal(&Journal { boot_id, ctid, root, hooks: Hooks::default(), cgroup: None, net: None })
                .unwrap();
        };
        journal("another");
        assert!(run.running().unwrap().is_none());
        journal(&boot_id());
        assert!(run.running().is_err());
    }
}
