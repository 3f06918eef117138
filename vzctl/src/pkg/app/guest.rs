//! What is done in the container for its applications: always by a process that has gone in, with the container's own rights.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::pipe::PipeFlags;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use templates::app::{Check, System, Values, digest, fill};
use templates::pm::{Deb, Installed};
use templates::unpack::over::{self, BEFORE};
use templates::{Bar, Progress};
use vzrt::{End, Inside, Program, Stream, Trouble};

use super::record::Written;
use super::{Fail, because, fail};
use crate::command;
use crate::pkg::exit::PkgExit;

/// More than a template may write; larger files of the container are not looked at.
const MOST_FILE: u64 = 1 << 20;
/// What a program may say that is listened to; dpkg's list of packages is the longest.
const MOST_OUTPUT: usize = 64 << 20;
const LAST_LINES: usize = 8;
/// Where packages are handed in.
const DEBS: &str = "/var/cache/vz-packages";
/// What packages ask before they start something, and what it says while a template is installed (invoke-rc.d(8): 101 is "no").
const POLICY: &str = "/usr/sbin/policy-rc.d";
const POLICY_TEXT: &[u8] = b"#!/bin/sh\n# vz: nothing starts before its files are in place\nexit 101\n";

/// A container that can be worked in.
pub(super) struct Guest<'a> {
    pub(super) inside: &'a Inside<'a>,
    /// Whether its own init runs: services can then be started and asked.
    pub(super) runs: bool,
    pub(super) bar: RefCell<Option<Bar>>,
}

/// What is at a path.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Seen {
    /// Of a file that is not too large, or what a link says.
    pub(super) digest: Option<String>,
    pub(super) is_there: bool,
    /// The directories above it that are not.
    pub(super) missing: Vec<String>,
}

impl Guest<'_> {
    /// Shows a line of a long operation.
    fn line(&self, text: &str) {
        tracing::debug!("{text}");
        if let Some(bar) = self.bar.borrow_mut().as_mut() {
            bar.message(text);
        }
    }

    /// Runs a program, which must succeed; its standard output.
    pub(super) fn run(&self, argv: &[&str]) -> Result<Vec<u8>, Fail> {
        self.run_with(argv, &mut io::empty())
    }

    fn run_with(&self, argv: &[&str], input: &mut dyn Read) -> Result<Vec<u8>, Fail> {
        let (mut output, mut said) = (Vec::new(), Vec::new());
        let mut taken = |stream: Stream, bytes: &[u8]| {
            let text = if stream == Stream::Output { &mut output } else { &mut said };
            text.extend_from_slice(bytes);
            if let Some(line) = bytes.split(|b| *b == b'\n').rfind(|l| !l.is_empty()) {
                self.line(&shown(line));
            }
            text.len() <= MOST_OUTPUT
        };
        let program = Program::Argv(argv.iter().map(|a| (*a).to_owned()).collect());
        let end = self.inside.feed(&program, input, &mut taken).map_err(|e| (PkgExit::System, command::told(&e)))?;
        if end == End::Exited(0) {
            return Ok(output);
        }
        // dpkg says what went wrong on either.
        let lines: Vec<String> = [&output, &said]
            .iter()
            .flat_map(|t| t.split(|b| *b == b'\n'))
            .filter(|l| !l.is_empty())
            .map(shown)
            .collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
        let (exit, how) = match end {
            End::Exited(status) => (PkgExit::ProgramFailed, format!("ended with {status}")),
            End::Killed(signal) => (PkgExit::ProgramKilled, format!("was ended by signal {signal}")),
        };
        let (exit, failure) = fail(exit, format!("{} in the container {how}", argv.join(" ")));
        Err((exit, failure.why(last)))
    }

    /// Runs commands of a template, one after the other.
    pub(super) fn run_all<'c>(&self, commands: impl IntoIterator<Item = &'c Vec<String>>) -> Result<(), Fail> {
        commands.into_iter().try_for_each(|argv| self.run(&words(argv)).map(drop))
    }

    /// Its os-release(5).
    pub(super) fn system(&self) -> Result<System, Fail> {
        let text = self.edit(|| {
            let path = ["/etc/os-release", "/usr/lib/os-release"].into_iter().find(|p| Path::new(p).exists());
            path.map_or(Ok(Vec::new()), |path| read_bounded(path, 16 << 10))
        })?;
        Ok(System::parse(&String::from_utf8_lossy(&text)))
    }

    /// Whether the program is there.
    pub(super) fn has(&self, path: &'static str) -> Result<bool, Fail> {
        self.edit(|| Ok(Path::new(path).exists()))
    }

    /// Its packages.
    pub(super) fn packages(&self) -> Result<Installed, Fail> {
        let text = self.run(&["cat", "/var/lib/dpkg/status"])?;
        Installed::parse(&text).map_err(|e| because(PkgExit::PackageManager, "The list of packages is damaged", &e))
    }

    /// Its architecture, in Debian's spelling.
    pub(super) fn arch(&self) -> Result<String, Fail> {
        Ok(shown(self.run(&["dpkg", "--print-architecture"])?.trim_ascii()))
    }

    /// What is at these paths.
    pub(super) fn look(&self, paths: &[String]) -> Result<Vec<Seen>, Fail> {
        self.edit(|| paths.iter().map(|p| see(p)).collect())
    }

    /// Hands packages in and lets the container's own apt install them. `automatic` are those that nobody asked for.
    pub(super) fn install(&self, debs: &[Deb], automatic: &[&str]) -> Result<(), Fail> {
        if debs.is_empty() {
            return Ok(());
        }
        tracing::info!("Installing {} packages", debs.len());
        self.edit(|| fs_err::create_dir_all(DEBS))?;
        let mut tar = archive(debs).map_err(|e| because(PkgExit::System, "Packages could not be read", &e))?;
        self.run_with(&["tar", "--extract", "--no-same-owner", "--directory", DEBS, "--file=-"], &mut tar)?;
        let names: Vec<String> = (0..debs.len()).map(|number| format!("{DEBS}/{number}.deb")).collect();
        let mut argv = vec![
            "env",
            "DEBIAN_FRONTEND=noninteractive",
            "LC_ALL=C.UTF-8",
            "apt-get",
            "--yes",
            "--quiet",
            "--no-install-recommends",
        ];
        argv.extend([
            "--option",
            "Dpkg::Options::=--force-confold",
            "--option",
            "Dpkg::Use-Pty=0",
            "--option",
            "APT::Sandbox::User=root",
        ]);
        argv.extend([
            "--option",
            "DPkg::Lock::Timeout=120",
            "--option",
            "APT::Get::AutomaticRemove=false",
            "install",
            "--",
        ]);
        argv.extend(names.iter().map(String::as_str));
        self.run(&argv)?;
        if !automatic.is_empty() {
            let mark: Vec<&str> = ["apt-mark", "auto", "--"].iter().chain(automatic).copied().collect();
            self.run(&mark)?;
        }
        self.forget_debs()
    }

    /// Takes away what was handed in.
    pub(super) fn forget_debs(&self) -> Result<(), Fail> {
        self.edit(|| match fs_err::remove_dir_all(DEBS) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        })
    }

    /// Keeps packages from starting anything, or lets them again. A policy that the container has of its own stays.
    pub(super) fn hold_services(&self, hold: bool) -> Result<(), Fail> {
        self.edit(|| {
            let there = Path::new(POLICY).symlink_metadata().is_ok();
            match (hold, there) {
                (true, false) => write(POLICY, 0o755, POLICY_TEXT),
                (false, true) if read_bounded(POLICY, 4096)? == POLICY_TEXT => fs_err::remove_file(POLICY),
                _ => Ok(()),
            }
        })
    }

    /// Writes a file; what was there is kept beside it if `keep`.
    pub(super) fn write(&self, path: &str, mode: u32, content: &[u8], keep: bool) -> Result<(), Fail> {
        self.edit(|| {
            put_aside(path, keep)?;
            write(path, mode, content)
        })
    }

    /// Makes a link, as above.
    pub(super) fn link(&self, path: &str, target: &str, keep: bool) -> Result<(), Fail> {
        self.edit(|| {
            put_aside(path, keep)?;
            if let Some(parent) = Path::new(path).parent() {
                fs_err::create_dir_all(parent)?;
            }
            if Path::new(path).symlink_metadata().is_ok() {
                fs_err::remove_file(path)?;
            }
            std::os::unix::fs::symlink(target, path)
        })
    }

    /// Takes files away that are as they were written, the last first, and puts back what was there before. Those that were changed are moved
    /// aside: their paths.
    pub(super) fn take_back(&self, files: &[Written]) -> Result<Vec<String>, Fail> {
        self.stream(&mut io::empty(), |_| {
            let mut changed = Vec::new();
            for file in files.iter().rev() {
                if take_back(file)? {
                    changed.push(file.path.clone());
                }
            }
            Ok(changed)
        })
    }

    /// Removes directories that are empty, the deepest first.
    pub(super) fn remove_directories(&self, paths: &[String]) -> Result<(), Fail> {
        self.edit(|| {
            for path in paths.iter().rev() {
                // One with something in it is somebody's.
                let _ = std::fs::remove_dir(path);
            }
            Ok(())
        })
    }

    /// Takes packages away with their configuration; also from under others, if `though_needed`.
    pub(super) fn purge(&self, packages: &BTreeSet<String>, though_needed: bool) -> Result<(), Fail> {
        if packages.is_empty() {
            return Ok(());
        }
        tracing::info!("Removing {} packages", packages.len());
        let mut argv = vec!["env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8", "dpkg"];
        // One that an interrupted install has left half there can be removed too: it came with what is taken back.
        argv.extend(["--force-remove-reinstreq"].iter().chain(though_needed.then_some(&"--force-depends")));
        argv.extend(["--purge", "--"]);
        argv.extend(packages.iter().map(String::as_str));
        self.run(&argv).map(drop)
    }

    /// `systemctl`, or its work on files alone where no init runs.
    pub(super) fn systemctl(&self, verb: &str, units: &[String]) -> Result<(), Fail> {
        let offline = ["env", "SYSTEMD_OFFLINE=1"];
        let mut argv: Vec<&str> = if self.runs { Vec::new() } else { offline.to_vec() };
        argv.extend(["systemctl", "--quiet", verb]);
        argv.extend(units.iter().map(String::as_str));
        self.run(&argv).map(drop)
    }

    /// Tries a check until it is true or its time is over.
    pub(super) fn check(&self, app: &str, check: &Check, values: &Values) -> Result<(), Fail> {
        let until = Instant::now() + Duration::from_secs(check.seconds);
        loop {
            let Err((_, why)) = self.check_once(check, values) else { return Ok(()) };
            if Instant::now() > until {
                let (exit, failure) =
                    fail(PkgExit::ProgramFailed, format!("{app} does not work {} s after its start", check.seconds));
                return Err((exit, failure.why(why.to_string())));
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    fn check_once(&self, check: &Check, values: &Values) -> Result<(), Fail> {
        if !check.argv.is_empty() {
            let argv: Vec<String> = check.argv.iter().map(|a| fill(a, values)).collect();
            return self.run(&words(&argv)).map(drop);
        }
        let port = check.port.as_deref().map(|p| fill(p, values)).and_then(|p| p.parse::<u16>().ok());
        let port = port.ok_or_else(|| fail(PkgExit::Broken, "The check names no port"))?;
        let (send, expect) = (fill(&check.send, values), fill(&check.expect, values));
        self.edit(|| ask_port(port, &send, &expect))
    }

    /// Does something inside that reads `input`, and may take its time and bring back much.
    pub(super) fn stream<T: Serialize + DeserializeOwned>(
        &self,
        input: &mut dyn Read,
        work: impl Fn(&mut dyn Read) -> io::Result<T>,
    ) -> Result<T, Fail> {
        let (mut output, mut said) = (Vec::new(), Vec::new());
        let mut taken = |stream: Stream, bytes: &[u8]| {
            let text = if stream == Stream::Output { &mut output } else { &mut said };
            text.extend_from_slice(bytes);
            text.len() <= MOST_OUTPUT
        };
        let work = |input: &mut dyn Read, output: &mut dyn Write| {
            let found = work(input).map_err(|e| Trouble::Call(e.to_string()))?;
            let text = serde_json::to_vec(&found).map_err(|e| Trouble::Call(e.to_string()))?;
            output.write_all(&text).map_err(|e| Trouble::Call(format!("write(what was found): {e}")))
        };
        let end = self.inside.feed_files(input, &mut taken, work).map_err(|e| (PkgExit::System, command::told(&e)))?;
        if end != End::Exited(0) {
            let (exit, failure) = fail(PkgExit::CommandFailed, "Work in the container was not done");
            let why = if said.is_empty() { format!("{end:?}") } else { shown(said.trim_ascii()) };
            return Err((exit, failure.why(why)));
        }
        serde_json::from_slice(&output)
            .map_err(|e| because(PkgExit::Internal, "What was found inside is not understood", &e))
    }

    /// Does something inside, and brings back what it found. Files are those of the container, seen by its root, in its namespaces.
    fn edit<T: Serialize + DeserializeOwned>(&self, work: impl Fn() -> io::Result<T>) -> Result<T, Fail> {
        let cannot = |e: &io::Error| because(PkgExit::System, "pipe2()", e);
        let pipe = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| cannot(&e.into()))?;
        let (mut reader, writer) = (std::fs::File::from(pipe.0), std::fs::File::from(pipe.1));
        let told = self.inside.change_files(|| {
            let found = work().map_err(|e| Trouble::Call(e.to_string()))?;
            let text = serde_json::to_vec(&found).map_err(|e| Trouble::Call(e.to_string()))?;
            // What does not fit into the pipe would wait for a reader until its time is over.
            (&writer).write_all(&text).map_err(|e| Trouble::Call(format!("write(what was found): {e}")))
        });
        drop(writer);
        told.map_err(|e| {
            let exit = if crate::failure::is_disk_full(&e) { PkgExit::System } else { PkgExit::CommandFailed };
            (exit, command::told(&e))
        })?;
        let mut text = Vec::new();
        reader.read_to_end(&mut text).map_err(|e| cannot(&e))?;
        serde_json::from_slice(&text)
            .map_err(|e| because(PkgExit::Internal, "What was found inside is not understood", &e))
    }
}

fn words(argv: &[String]) -> Vec<&str> {
    argv.iter().map(String::as_str).collect()
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().map(|c| if c.is_control() { '?' } else { c }).take(400).collect()
}

/// A tar(5) of packages, read as it goes: a writer of its own would be a thread, which a process that forks can't have. apt knows packages by
/// what is in them, so their names are numbers.
fn archive(debs: &[Deb]) -> io::Result<Box<dyn Read>> {
    let mut all: Box<dyn Read> = Box::new(io::empty());
    for (number, deb) in debs.iter().enumerate() {
        let file = fs_err::File::open(&deb.file)?;
        let size = file.metadata()?.len();
        let mut header = tar::Header::new_ustar();
        header.set_path(format!("{number}.deb"))?;
        header.set_size(size);
        header.set_mode(0o644);
        header.set_cksum();
        let padding = size.next_multiple_of(BLOCK) - size;
        let head = io::Cursor::new(header.as_bytes().to_vec());
        all = Box::new(all.chain(head).chain(file.take(size)).chain(io::repeat(0).take(padding)));
    }
    Ok(Box::new(all.chain(io::repeat(0).take(2 * BLOCK))))
}

/// Of tar(5).
const BLOCK: u64 = 512;

fn read_bounded(path: &str, most: u64) -> io::Result<Vec<u8>> {
    let mut options = std::fs::OpenOptions::new();
    // A FIFO there would be waited for.
    let file = options.read(true).custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY).open(path)?;
    let mut text = Vec::new();
    file.take(most).read_to_end(&mut text)?;
    Ok(text)
}

/// See [`Guest::take_back`].
fn take_back(file: &Written) -> io::Result<bool> {
    let path = file.path.as_str();
    let (before, saved) = (format!("{path}{BEFORE}"), format!("{path}.vz-saved"));
    let kept = Path::new(&before).symlink_metadata().is_ok();
    // Not written yet, or put back already: what is there is the container's.
    if file.replaces && !kept {
        return Ok(false);
    }
    let is_there = Path::new(path).symlink_metadata().is_ok();
    let changed = is_there && digest_at(file)?.as_deref() != Some(&file.digest);
    if changed {
        fs_err::rename(path, saved)?;
    } else if is_there {
        fs_err::remove_file(path)?;
    }
    if kept {
        fs_err::rename(&before, path)?;
    }
    Ok(changed)
}

/// By which what is at the path of a file that was written is known.
fn digest_at(file: &Written) -> io::Result<Option<String>> {
    match file.size {
        None => Ok(see(&file.path)?.digest),
        Some(size) => {
            let root = fs_err::File::open("/")?;
            over::known(root.as_fd(), &file.path, size).map_err(io::Error::other)
        }
    }
}

fn see(path: &str) -> io::Result<Seen> {
    let above = Path::new(path).ancestors().skip(1).filter(|p| !p.exists());
    let mut missing: Vec<String> = above.map(|p| p.display().to_string()).collect();
    missing.reverse();
    let meta = match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Seen { digest: None, is_there: false, missing }),
        meta => meta?,
    };
    let digest = if meta.is_symlink() {
        Some(link_digest(&std::fs::read_link(path)?.display().to_string()))
    } else if meta.is_file() && meta.len() <= MOST_FILE {
        Some(digest(&read_bounded(path, MOST_FILE)?))
    } else {
        None
    };
    Ok(Seen { digest, is_there: true, missing })
}

/// By which a link is known again.
pub(super) fn link_digest(target: &str) -> String {
    format!("-> {target}")
}

fn put_aside(path: &str, keep: bool) -> io::Result<()> {
    let before = format!("{path}{BEFORE}");
    if keep && Path::new(&before).symlink_metadata().is_err() {
        fs_err::rename(path, before)?;
    }
    Ok(())
}

/// Never half there: written beside its place.
fn write(path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
    if let Some(parent) = Path::new(path).parent() {
        fs_err::create_dir_all(parent)?;
    }
    let temporary = format!("{path}.vz-new");
    let _ = std::fs::remove_file(&temporary);
    let mut file = fs_err::OpenOptions::new().write(true).create_new(true).open(&temporary)?;
    file.write_all(content)?;
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    drop(file);
    fs_err::rename(&temporary, path)
}

/// For an answer of a port.
const PATIENCE: Duration = Duration::from_secs(3);

fn ask_port(port: u16, send: &str, expect: &str) -> io::Result<()> {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = std::net::TcpStream::connect_timeout(&address, PATIENCE)
        .map_err(|e| io::Error::new(e.kind(), format!("connect({address}): {e}")))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(send.as_bytes())?;
    let (mut answer, mut buffer) = (Vec::new(), [0u8; 4096]);
    while answer.len() < 4096 && !String::from_utf8_lossy(&answer).contains(expect) {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => answer.extend_from_slice(&buffer[..n]),
            Err(e) => return Err(io::Error::new(e.kind(), format!("read({address}): {e}"))),
        }
    }
    let answer = String::from_utf8_lossy(&answer);
    if answer.contains(expect) {
        return Ok(());
    }
    Err(io::Error::other(format!("{address} answers {:?}, not {expect:?}", answer.lines().next().unwrap_or_default())))
}
