//! The first files of a Debian template, by `mmdebstrap(1)`.

use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

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

/// Fills the empty directory `root`; temporary files go to `scratch`.
pub(crate) fn bootstrap(
    recipe: &Mmdebstrap,
    root: &Path,
    scratch: &Path,
    progress: &mut dyn Progress,
) -> Result<(), DebianError> {
    let lines = match &recipe.mirror {
        Some(mirror) => vec![own_mirror(recipe, mirror)],
        None => {
            let host = sources::read_host(Path::new("/etc/apt")).map_err(DebianError::Sources)?;
            sources::debian(&host).ok_or(DebianError::NoMirror)?.lines(&recipe.suite, &recipe.components)
        }
    };
    let mut command = Command::new("mmdebstrap");
    command.args(arguments(recipe)).arg(root).args(lines);
    // Only what names a proxy is passed on; the rest would be the administrator's shell in a template.
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8").env("TMPDIR", scratch);
    let proxies = ["http_proxy", "https_proxy", "no_proxy"];
    command.envs(proxies.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    run(command, progress)
}

/// `suite`, target and sources come after; all are checked words or absolute paths.
fn arguments(recipe: &Mmdebstrap) -> Vec<String> {
    // apt takes `name-` in a list of packages to install as one not to install (apt-get(8)).
    let exclude = recipe.exclude.iter().map(|name| format!("{name}-"));
    let packages: Vec<_> = recipe.include.iter().cloned().chain(exclude).collect();
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
        let arguments = arguments(&recipe);
        assert_eq!(arguments.last_chunk::<3>().unwrap(), &["--include=systemd,dbus,udev-", "--", "bookworm"]);
        assert!(arguments[..arguments.len() - 2].iter().all(|a| a.starts_with("--")));
    }
}
