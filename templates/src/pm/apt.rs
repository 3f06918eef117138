//! The host's apt, told to look at nothing of the host but its mirrors, its keys, and how it gets to the network.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use fs_err as fs;
use nix::fcntl::{Flock, FlockArg};
use rustix::pipe::PipeFlags;

use super::PmError;
use super::status::{Installed, is_name};
use crate::app::{System, is_word};
use crate::progress::Progress;
use crate::sources;
use crate::unpack::member::shown;

/// How long the lists of an archive are believed: vztt's METADATA_EXPIRE.
const EXPIRE: Duration = Duration::from_secs(86_400);
const LAST_LINES: usize = 8;
/// The releases whose archives the host's Debian mirrors have.
const SUITES: [(&str, &str); 2] = [("12", "bookworm"), ("13", "trixie")];

/// The packages of one release for one architecture: lists and archives, shared by all its containers.
#[derive(Debug)]
pub struct Pm {
    directory: PathBuf,
    suite: &'static str,
    arch: String,
}

/// A package that is to be installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deb {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The version that is there.
    pub replaces: Option<String>,
    /// Its file in the shared directory, or where a fetch will put it.
    pub file: PathBuf,
}

/// What comes into a container, everything that others need included.
pub type Plan = Vec<Deb>;

/// What apt is asked for.
enum Ask<'a> {
    Install(&'a [String]),
    Upgrade,
}

impl Pm {
    /// The packages for a system; `arch` in Debian's spelling. Below `template_area` there is a directory for each release.
    pub fn open(template_area: &Path, system: &System, arch: &str) -> Result<Self, PmError> {
        let known = SUITES.iter().find(|(release, _)| system.id == "debian" && system.release == *release);
        let unknown = || PmError::UnknownRelease { id: system.id.clone(), codename: system.codename.clone() };
        let (release, suite) = known.ok_or_else(unknown)?;
        if !is_word(arch, b"-") {
            return Err(unknown());
        }
        let directory = template_area.join("debian").join(release).join(arch).join("pm");
        for part in ["lists/partial", "archives/partial", "etc"] {
            fs::create_dir_all(directory.join(part))?;
        }
        Ok(Self { directory, suite, arch: arch.to_owned() })
    }

    /// What has to come for `packages` to be there.
    pub fn plan(
        &self,
        installed: &Installed,
        packages: &[String],
        progress: &mut dyn Progress,
    ) -> Result<Plan, PmError> {
        let _lock = self.lock()?;
        self.simulate(installed, &Ask::Install(packages), progress)
    }

    /// What of a container is out of date.
    pub fn upgrades(&self, installed: &Installed, progress: &mut dyn Progress) -> Result<Plan, PmError> {
        let _lock = self.lock()?;
        self.simulate(installed, &Ask::Upgrade, progress)
    }

    /// Fetches what of a plan is not here. What was cut off is resumed; apt verifies all of it.
    pub fn fetch(&self, installed: &Installed, plan: &Plan, progress: &mut dyn Progress) -> Result<(), PmError> {
        let _lock = self.lock()?;
        // What has a package's name here was verified when it came.
        if plan.iter().all(|deb| deb.file.exists()) {
            return Ok(());
        }
        let exact: Vec<String> = plan.iter().map(|deb| format!("{}={}", deb.name, deb.version)).collect();
        let scratch = self.scratch(installed)?;
        let mut command = self.apt_get(scratch.path());
        command.args(["--download-only", "--yes", "--no-install-recommends", "install", "--"]).args(exact);
        run(command, "apt-get --download-only install", progress)?;
        match plan.iter().find(|deb| !deb.file.exists()) {
            None => Ok(()),
            Some(deb) => Err(io::Error::new(io::ErrorKind::NotFound, deb.file.display().to_string()).into()),
        }
    }

    /// Removes all packages that were fetched; how many bytes they had.
    pub fn clean(template_area: &Path) -> io::Result<u64> {
        let mut bytes = 0;
        for (release, _) in SUITES {
            let Ok(arches) = fs::read_dir(template_area.join("debian").join(release)) else { continue };
            for arch in arches {
                let directory = arch?.path().join("pm");
                let Ok(_lock) = lock(&directory) else { continue };
                for entry in fs::read_dir(directory.join("archives"))? {
                    let entry = entry?;
                    if entry.file_type()?.is_file() && entry.path().extension().is_some_and(|e| e == "deb") {
                        bytes += entry.metadata()?.len();
                        fs::remove_file(entry.path())?;
                    }
                }
            }
        }
        Ok(bytes)
    }

    fn lock(&self) -> io::Result<Flock<std::fs::File>> {
        lock(&self.directory)
    }

    /// Lists that are a day old are fetched anew. Without a network old ones are better than none.
    fn refresh(&self, scratch: &Path, progress: &mut dyn Progress) -> Result<(), PmError> {
        let stamp = self.directory.join("updated");
        let age = fs::metadata(&stamp).ok().and_then(|m| SystemTime::now().duration_since(m.modified().ok()?).ok());
        if age.is_some_and(|age| age < EXPIRE) {
            return Ok(());
        }
        let mut command = self.apt_get(scratch);
        command.args(["--error-on=any", "update"]);
        match run(command, "apt-get update", progress) {
            Ok(_) => fs::write(&stamp, "").map_err(PmError::Io),
            Err(e) if age.is_none() => Err(e),
            Err(e) => {
                progress.message(&format!("the lists of packages are old: {e}"));
                Ok(())
            }
        }
    }

    fn simulate(&self, installed: &Installed, ask: &Ask, progress: &mut dyn Progress) -> Result<Plan, PmError> {
        let scratch = self.scratch(installed)?;
        self.refresh(scratch.path(), progress)?;
        let mut command = self.apt_get(scratch.path());
        command.args(["--simulate", "--no-install-recommends"]);
        match ask {
            Ask::Install(packages) => command.args(["install", "--"]).args(*packages),
            Ask::Upgrade => command.args(["upgrade", "--with-new-pkgs"]),
        };
        let said = run(command, "apt-get --simulate", &mut crate::progress::Silent)?;
        let removed: Vec<String> =
            (said.iter()).filter_map(|line| line.strip_prefix("Remv ")?.split(' ').next().map(str::to_owned)).collect();
        if !removed.is_empty() {
            return Err(PmError::Removes { packages: removed });
        }
        let archives = self.directory.join("archives");
        let lines = said.iter().filter(|line| line.starts_with("Inst "));
        lines.map(|line| inst(line, &archives).ok_or_else(|| PmError::Simulation(line.clone()))).collect()
    }

    /// A directory with apt's configuration and the container's packages as they are now.
    fn scratch(&self, installed: &Installed) -> Result<tempfile::TempDir, PmError> {
        let scratch = tempfile::Builder::new().prefix("apt.").tempdir_in(&self.directory)?;
        let host = sources::read_host(Path::new("/etc/apt"))?;
        let mirrors = sources::debian(&host).ok_or(PmError::NoMirror)?;
        let lines = mirrors.lines(self.suite, &[String::from("main")]);
        fs::write(scratch.path().join("sources.list"), lines.join("\n") + "\n")?;
        fs::write(scratch.path().join("status"), installed.rewritten())?;
        fs::write(scratch.path().join("extended_states"), "")?;
        fs::write(scratch.path().join("apt.conf"), self.configuration(scratch.path())?)?;
        Ok(scratch)
    }

    /// apt reads this first. The host's own configuration is not read, for it may run programs; how the host gets to the network
    /// is taken over from it.
    fn configuration(&self, scratch: &Path) -> Result<String, PmError> {
        let mut dump = Command::new("apt-config");
        dump.args(["dump", "Acquire"]).stdin(Stdio::null());
        let output = dump.output().map_err(|source| PmError::Run { program: "apt-config", source })?;
        let mut text: String = String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter(|l| ["Acquire::http", "Acquire::https", "Acquire::ftp"].iter().any(|p| l.starts_with(p)))
            .fold(String::new(), |text, line| text + line + "\n");
        let (here, own) = (self.directory.display(), scratch.display());
        let paths = [
            ("Dir::Etc::main", "/nonexistent".into()),
            ("Dir::Etc::parts", "/nonexistent".into()),
            ("Dir::Etc::sourcelist", format!("{own}/sources.list")),
            ("Dir::Etc::sourceparts", "/nonexistent".into()),
            ("Dir::Etc::preferences", "/nonexistent".into()),
            ("Dir::Etc::preferencesparts", "/nonexistent".into()),
            ("Dir::State::status", format!("{own}/status")),
            ("Dir::State::extended_states", format!("{own}/extended_states")),
            ("Dir::State::lists", format!("{here}/lists")),
            ("Dir::Cache::archives", format!("{here}/archives")),
            ("Dir::Cache::pkgcache", String::new()),
            ("Dir::Cache::srcpkgcache", String::new()),
            ("Dir::Log", "/nonexistent".into()),
            ("APT::Architecture", self.arch.clone()),
            ("APT::Architectures", self.arch.clone()),
            ("APT::Keep-Downloaded-Packages", "true".into()),
            ("APT::Get::AutomaticRemove", "false".into()),
            ("Acquire::Languages", "none".into()),
            ("Acquire::Retries", "3".into()),
            // Our own lock holds for the whole of it.
            ("Debug::NoLocking", "true".into()),
        ];
        for (key, value) in paths {
            let _ = writeln!(text, "{key} \"{value}\";");
        }
        Ok(text)
    }

    fn apt_get(&self, scratch: &Path) -> Command {
        let mut command = Command::new("apt-get");
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8");
        command.env("APT_CONFIG", scratch.join("apt.conf")).env("DEBIAN_FRONTEND", "noninteractive");
        let proxies = ["http_proxy", "https_proxy", "no_proxy"];
        command.envs(proxies.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command
    }
}

fn lock(directory: &Path) -> io::Result<Flock<std::fs::File>> {
    let file = fs::File::create(directory.join("lock"))?;
    Flock::lock(file.into_parts().0, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
}

/// `Inst NAME [OLD] (VERSION Archive:… [ARCH]) [more]`.
fn inst(line: &str, archives: &Path) -> Option<Deb> {
    let rest = line.strip_prefix("Inst ")?;
    let (head, tail) = rest.split_once('(')?;
    let mut head = head.split_whitespace();
    let name = head.next()?.split(':').next()?.to_owned();
    let replaces = head.next().and_then(|old| Some(old.strip_prefix('[')?.strip_suffix(']')?.to_owned()));
    let inner = tail.split_once(')')?.0;
    let version = inner.split_whitespace().next()?.to_owned();
    let arch = inner.split_whitespace().last()?.strip_prefix('[')?.strip_suffix(']')?;
    if !is_name(&name) || !is_word(&version, b".+-~:") || !is_word(arch, b"-") {
        return None;
    }
    // apt's own way of writing a version in the name of a file.
    let file = archives.join(format!("{name}_{}_{arch}.deb", version.replace(':', "%3a")));
    Some(Deb { name, version, replaces, file })
}

/// Runs apt, showing its lines; they come back.
fn run(mut command: Command, what: &str, progress: &mut dyn Progress) -> Result<Vec<String>, PmError> {
    // One pipe for both: in the order it said things, and nothing to wait for on the other.
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from)?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().map_err(|source| PmError::Run { program: "apt-get", source })?;
    // The command holds the pipe's other end too.
    drop(command);
    let mut lines = Vec::new();
    for line in BufReader::new(std::fs::File::from(reader)).split(b'\n') {
        let line = shown(line?.trim_ascii());
        progress.message(&line);
        lines.push(line);
    }
    let status = child.wait()?;
    if status.success() {
        return Ok(lines);
    }
    let last_lines = lines.split_off(lines.len().saturating_sub(LAST_LINES));
    Err(PmError::Failed { what: what.to_owned(), status: status.to_string(), last_lines })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_apt_would_do_is_read_with_the_file_it_would_fetch() {
        let archives = Path::new("/a");
        let deb =
            inst("Inst redis-server (5:7.0.15-1~deb12u5 Debian:12.11/oldstable, x:y/z [amd64])", archives).unwrap();
        assert_eq!(deb.file, Path::new("/a/redis-server_5%3a7.0.15-1~deb12u5_amd64.deb"));
        assert_eq!((deb.version.as_str(), deb.replaces), ("5:7.0.15-1~deb12u5", None));
        let deb = inst("Inst libc6 [2.36-9] (2.36-10 Debian:12/stable [amd64]) []", archives).unwrap();
        assert_eq!((deb.name.as_str(), deb.replaces.as_deref()), ("libc6", Some("2.36-9")));
        assert_eq!(inst("Inst ../x (1 D [amd64])", archives), None);
        assert_eq!(inst("Inst aa (1/../2 D [amd64])", archives), None);
    }
}
