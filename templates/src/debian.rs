//! The first files of a Debian template, by `mmdebstrap(1)`.

use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::progress::Progress;
use crate::recipe::Mmdebstrap;
use crate::sources;
use crate::unpack::member::shown;

/// How many of its last lines a failure shows.
const LAST_LINES: usize = 8;

/// Why there is no Debian.
#[derive(Debug, thiserror::Error)]
pub enum DebianError {
    /// The host has no Debian mirror configured and the recipe names none.
    #[error("no Debian mirror in /etc/apt/sources.list or /etc/apt/sources.list.d; name one as 'mirror' in the recipe")]
    NoMirror,
    /// The files of apt cannot be read; the error names the path.
    #[error(transparent)]
    Sources(io::Error),
    /// What was installed can't be told.
    #[error("read the list of packages of the template")]
    Packages(#[source] io::Error),
    /// Other packages went in than the lock file lists: the mirror has no longer those.
    #[error("other packages than the lock file lists: {}", other.join(", "))]
    Other {
        /// The first of them, with their versions.
        other: Vec<String>,
    },
    /// The program is not there.
    #[error("run mmdebstrap; install the package mmdebstrap")]
    Run(#[source] io::Error),
    /// It failed.
    #[error("mmdebstrap failed ({status}):\n{}", last_lines.join("\n"))]
    Failed {
        /// Of the process.
        status: String,
        /// What it said last.
        last_lines: Vec<String>,
    },
}

/// Exactly what went into a template: enough to make it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Locked {
    /// Of the template.
    pub(crate) suite: String,
    pub(crate) arch: String,
    /// Seconds since 1970: no file in it is younger (reproducible-builds.org, `SOURCE_DATE_EPOCH`).
    pub(crate) epoch: u64,
    /// `name=version`, sorted.
    pub(crate) packages: Vec<String>,
    /// apt's file of which of them were asked for by nobody, as it was: given all by name, apt would take all for asked for.
    pub(crate) extended_states: String,
}

/// Fills the empty directory `root`; temporary files go to `scratch`. With `wanted`, with those packages and no others; what went in.
pub(crate) fn bootstrap(
    recipe: &Mmdebstrap,
    wanted: Option<&Locked>,
    root: &Path,
    scratch: &Path,
    progress: &mut dyn Progress,
) -> Result<Locked, DebianError> {
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let epoch = wanted.map_or_else(now, |locked| locked.epoch);
    let lines = match &recipe.mirror {
        Some(mirror) => vec![own_mirror(recipe, mirror)],
        None => {
            let host = sources::read_host(Path::new("/etc/apt")).map_err(DebianError::Sources)?;
            sources::debian(&host).ok_or(DebianError::NoMirror)?.lines(&recipe.suite, &recipe.components)
        }
    };
    let mut command = Command::new("mmdebstrap");
    command.args(arguments(recipe, wanted)).arg(root).args(lines);
    // Only what names a proxy is passed on; the rest would be the administrator's shell in a template.
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8").env("TMPDIR", scratch);
    command.env("SOURCE_DATE_EPOCH", epoch.to_string());
    let proxies = ["http_proxy", "https_proxy", "no_proxy"];
    command.envs(proxies.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    run(command, progress)?;
    let packages = installed(root).map_err(DebianError::Packages)?;
    let states = root.join("var/lib/apt/extended_states");
    let extended_states = match wanted {
        Some(wanted) => fs_err::write(&states, &wanted.extended_states).map(|()| wanted.extended_states.clone()),
        None => fs_err::read_to_string(&states),
    };
    let extended_states = extended_states.map_err(DebianError::Packages)?;
    let locked = Locked { suite: recipe.suite.clone(), arch: recipe.arch.clone(), epoch, packages, extended_states };
    match wanted {
        Some(wanted) if wanted.packages != locked.packages => {
            let differs = |p: &&String| !wanted.packages.contains(p);
            let other = locked.packages.iter().filter(differs).take(LAST_LINES).cloned().collect();
            Err(DebianError::Other { other })
        }
        _ => Ok(locked),
    }
}

/// The packages of a system, from dpkg's own list of them (deb-control(5) paragraphs), each with its version.
fn installed(root: &Path) -> io::Result<Vec<String>> {
    let status = fs_err::read_to_string(root.join("var/lib/dpkg/status"))?;
    let package = |paragraph: &str| {
        let field = |name: &str| paragraph.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "));
        let there = field("Status")?.ends_with(" installed");
        there.then(|| Some(format!("{}={}", field("Package")?, field("Version")?)))?
    };
    let mut packages: Vec<String> = status.split("\n\n").filter_map(package).collect();
    packages.sort();
    Ok(packages)
}

/// `suite`, target and sources come after; all are checked words or absolute paths.
fn arguments(recipe: &Mmdebstrap, wanted: Option<&Locked>) -> Vec<String> {
    // apt takes `name-` in a list of packages to install as one not to install (apt-get(8)).
    let exclude = recipe.exclude.iter().map(|name| format!("{name}-"));
    let packages: Vec<_> = match wanted {
        Some(locked) => locked.packages.clone(),
        None => recipe.include.iter().cloned().chain(exclude).collect(),
    };
    let mut arguments = vec![
        String::from("--mode=root"),
        String::from("--format=directory"),
        format!("--variant={}", recipe.variant),
        format!("--architectures={}", recipe.arch),
        format!("--components={}", recipe.components.join(",")),
        String::from("--aptopt=Apt::Install-Recommends \"false\""),
    ];
    if !packages.is_empty() {
        arguments.push(format!("--include={}", packages.join(",")));
    }
    arguments.extend([String::from("--"), recipe.suite.clone()]);
    arguments
}

fn own_mirror(recipe: &Mmdebstrap, mirror: &str) -> String {
    let keyring = recipe.keyring.as_ref().map_or(String::new(), |k| format!("[signed-by={}] ", k.display()));
    format!("deb {keyring}{mirror} {} {}", recipe.suite, recipe.components.join(" "))
}

fn run(mut command: Command, progress: &mut dyn Progress) -> Result<(), DebianError> {
    let mut child = command.spawn().map_err(DebianError::Run)?;
    let mut last_lines = std::collections::VecDeque::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).split(b'\n') {
            // Talk of hundreds of programs, not all of it UTF-8.
            let Ok(line) = line else { break };
            let line = shown(line.trim_ascii());
            progress.message(&line);
            if last_lines.len() == LAST_LINES {
                last_lines.pop_front();
            }
            last_lines.push_back(line);
        }
    }
    let status = child.wait().map_err(DebianError::Run)?;
    if !status.success() {
        return Err(DebianError::Failed { status: status.to_string(), last_lines: last_lines.into() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mmdebstrap_gets_checked_words_after_its_options() {
        let recipe = Mmdebstrap {
            suite: String::from("bookworm"),
            arch: String::from("amd64"),
            variant: String::from("apt"),
            components: vec![String::from("main")],
            include: vec![String::from("systemd"), String::from("dbus")],
            exclude: vec![String::from("udev")],
            mirror: None,
            keyring: None,
        };
        let arguments = arguments(&recipe, None);
        assert_eq!(arguments.last_chunk::<3>().unwrap(), &["--include=systemd,dbus,udev-", "--", "bookworm"]);
        assert!(arguments[..arguments.len() - 2].iter().all(|a| a.starts_with("--")));
    }
}
