//! Busy containers, and the same made by hand: plain cgroups with the kernel's own weights. Both are read alike.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tests::node::Node;

type Outcome<T> = Result<T, Box<dyn Error>>;

const FIRST: u32 = 401;

/// What the processes of a competitor do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// So many that do nothing but count.
    Busy(u32),
    /// So many that do nothing but start others.
    Forking(u32),
    /// So many that count, and three times as many that wake up, work a little and sleep again.
    Mixed(u32),
}

/// Each ends by itself after so many seconds, should everything that is to end it be killed.
const AT_MOST_S: u32 = 100;

impl Load {
    /// How many processors it can use.
    pub(crate) fn most(self) -> f64 {
        match self {
            Self::Busy(count) | Self::Forking(count) | Self::Mixed(count) => f64::from(count),
        }
    }

    /// For a shell. Nothing of it stays with whoever starts it.
    pub(crate) fn script(self) -> String {
        let each = |count: u32, body: &str| {
            let run =
                format!("busybox timeout -s KILL {AT_MOST_S} busybox sh -c '{body}' </dev/null >/dev/null 2>&1 &");
            format!("i=0; while [ $i -lt {count} ]; do {run} i=$((i+1)); done;")
        };
        let (busy, sleeper) =
            ("while :; do :; done", "while :; do j=0; while [ $j -lt 500 ]; do j=$((j+1)); done; sleep 0.01; done");
        match self {
            Self::Busy(count) => each(count, busy),
            Self::Forking(count) => each(count, "while :; do (:); done"),
            Self::Mixed(count) => each(count, busy) + &each(3 * count, sleeper),
        }
    }
}

/// Those who compete, each in a cgroup of its own.
pub(crate) trait Arena {
    /// What it is called in a table.
    fn name(&self) -> &'static str;

    /// Has so many competitors do this, with these weights (of which 1000 is ordinary).
    fn begin(&mut self, units: &[u64], load: Load) -> Outcome<()>;

    /// The cgroup2 directory of each.
    fn cgroups(&self) -> Vec<PathBuf>;

    /// Ends them all.
    fn end(&mut self) -> Outcome<()>;
}

/// The processor time that a cgroup has had.
pub(crate) fn used(cgroup: &Path) -> Outcome<Duration> {
    let path = cgroup.join("cpu.stat");
    let text = fs_err::read_to_string(&path)?;
    let usec = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
    let usec = usec.ok_or_else(|| format!("{}: no usage_usec", path.display()))?;
    Ok(Duration::from_micros(usec.trim().parse()?))
}

/// Ours.
pub(crate) struct Containers<'a> {
    node: &'a Node,
    running: u32,
}

impl<'a> Containers<'a> {
    pub(crate) fn of(node: &'a Node) -> Self {
        Self { node, running: 0 }
    }

    /// What is done with one of them from outside.
    pub(crate) fn number(at: usize) -> String {
        (FIRST + u32::try_from(at).unwrap_or(u32::MAX)).to_string()
    }
}

impl Arena for Containers<'_> {
    fn name(&self) -> &'static str {
        "vz"
    }

    fn begin(&mut self, units: &[u64], load: Load) -> Outcome<()> {
        for (at, units) in units.iter().enumerate() {
            let (number, units) = (Self::number(at), units.to_string());
            if !self.node.configuration(number.parse()?).exists() {
                self.node.vzctl(["create", &number, "--ostemplate", "busybox"]).ok();
            }
            self.node.vzctl(["set", &number, "--cpuunits", &units, "--save"]).ok();
            self.node.vzctl(["start", &number]).ok();
            self.running += 1;
        }
        for at in 0..units.len() {
            self.node.vzctl(["exec2", &Self::number(at), &load.script()]).ok();
        }
        Ok(())
    }

    fn cgroups(&self) -> Vec<PathBuf> {
        let of = |at| self.node.cgroups(FIRST + at).into_iter().find(|path| path.join("cgroup.freeze").exists());
        (0..self.running).filter_map(of).collect()
    }

    fn end(&mut self) -> Outcome<()> {
        for at in 0..self.running as usize {
            self.node.vzctl(["stop", &Self::number(at), "--fast"]).ok();
        }
        self.running = 0;
        Ok(())
    }
}

/// Directories in the cgroup file systems, and nothing else.
pub(crate) struct Plain {
    /// The cgroup2 tree, and where the weights are, if that is another one.
    tops: Vec<PathBuf>,
    v2: bool,
    name: String,
    count: usize,
    shells: Vec<Child>,
}

impl Plain {
    pub(crate) fn new() -> Outcome<Self> {
        let unified = Path::new("/sys/fs/cgroup");
        let name = format!("vzfair-{}", std::process::id());
        if unified.join("cgroup.controllers").exists() {
            return Ok(Self { tops: vec![unified.to_owned()], v2: true, name, count: 0, shells: Vec::new() });
        }
        let mounts = procfs::process::Process::myself()?.mountinfo()?;
        let place = |wanted: &dyn Fn(&procfs::process::MountInfo) -> bool| {
            mounts.0.iter().find(|mount| wanted(mount)).map(|mount| mount.mount_point.clone())
        };
        let cgroup2 = place(&|mount| mount.fs_type == "cgroup2").ok_or("no cgroup2 is mounted")?;
        let cpu = place(&|mount| mount.fs_type == "cgroup" && mount.super_options.contains_key("cpu"));
        let tops = vec![cgroup2, cpu.ok_or("there is no cpu controller")?];
        Ok(Self { tops, v2: false, name, count: 0, shells: Vec::new() })
    }

    fn dirs(&self, at: usize) -> impl Iterator<Item = PathBuf> {
        self.tops.iter().map(move |top| top.join(&self.name).join(at.to_string()))
    }

    fn weigh(&self, at: usize, units: u64) -> Outcome<()> {
        // As precise as the kernel lets it be while the heaviest has eight times the ordinary.
        let (file, weight) = if self.v2 { ("cpu.weight", units) } else { ("cpu.shares", units * 1024 / 1000) };
        let dir = self.dirs(at).last().ok_or("no cgroups")?;
        Ok(fs_err::write(dir.join(file), weight.to_string())?)
    }
}

impl Arena for Plain {
    fn name(&self) -> &'static str {
        "plain cgroups"
    }

    fn begin(&mut self, units: &[u64], load: Load) -> Outcome<()> {
        for top in &self.tops {
            let parent = top.join(&self.name);
            fs_err::create_dir(&parent)?;
            if self.v2 {
                fs_err::write(parent.join("cgroup.subtree_control"), "+cpu")?;
            }
        }
        for (at, units) in units.iter().enumerate() {
            self.count = at + 1;
            self.dirs(at).try_for_each(fs_err::create_dir)?;
            self.weigh(at, *units)?;
            let enter = self.dirs(at).map(|dir| format!("echo $$ > {}/cgroup.procs; ", dir.display()));
            let script = format!("{}{} wait", enter.collect::<String>(), load.script());
            let mut shell = Command::new("busybox");
            shell.args(["sh", "-c", &script]).stdin(Stdio::null());
            self.shells.push(shell.spawn()?);
        }
        Ok(())
    }

    fn cgroups(&self) -> Vec<PathBuf> {
        (0..self.count).filter_map(|at| self.dirs(at).next()).collect()
    }

    fn end(&mut self) -> Outcome<()> {
        for cgroup in self.cgroups() {
            fs_err::write(cgroup.join("cgroup.kill"), "1")?;
        }
        for mut shell in self.shells.drain(..) {
            shell.wait()?;
        }
        let parents = self.tops.iter().map(|top| top.join(&self.name));
        let all = (0..self.count).flat_map(|at| self.dirs(at)).chain(parents);
        for dir in all.collect::<Vec<_>>() {
            let gone = || !dir.exists() || std::fs::remove_dir(&dir).is_ok();
            if !tests::wait::wait_until(Duration::from_secs(10), gone) {
                return Err(format!("{} stays", dir.display()).into());
            }
        }
        self.count = 0;
        Ok(())
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        if let Err(e) = self.end() {
            eprintln!("{}: {e}", self.name);
        }
    }
}
