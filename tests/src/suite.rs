//! The test programs of the workspace: what cargo built, which of them run where, and how one run ends.
//!
//! The same [`run`] works on this host and inside the reference machine, so a test cannot pass by being run differently.

mod execute;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

pub use execute::{Options, Report, run};

/// Cargo could not build, or said something unexpected.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or a pipe.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// `suite.toml` is wrong.
    #[error("tests/reference/suite.toml")]
    Policy(#[from] toml::de::Error),
    /// Cargo's messages are not what they were.
    #[error("cargo's JSON: {line}")]
    Message {
        /// The line that was not understood.
        line: String,
        /// Why.
        source: serde_json::Error,
    },
    /// It does not compile.
    #[error("cargo test --no-run failed: see above")]
    Build,
}

/// A test program that cargo built.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Program {
    /// `crate::target`, or only `crate` for the unit tests of a library.
    pub name: String,
    /// The crate it belongs to.
    pub package: String,
    /// Whether it is one of a crate's `tests/*.rs`; otherwise unit tests.
    pub integration: bool,
    /// The program.
    pub path: PathBuf,
    /// Where cargo would run it.
    pub manifest_dir: PathBuf,
    /// Its tests run in turn, for what one does shows in what another looks at.
    pub in_turn: bool,
}

/// All that one build gave.
#[derive(Debug)]
pub struct Built {
    /// The test programs.
    pub programs: Vec<Program>,
    /// The ordinary programs that they run.
    pub binaries: Vec<PathBuf>,
}

/// Which programs run where: `tests/reference/suite.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Integration tests that run with the unit tests.
    pure: Vec<String>,
    /// Programs whose tests run in turn.
    in_turn: Vec<String>,
    /// Crates whose unit tests run in the reference machine too.
    kernel_units: Vec<String>,
    /// For one program, on an ordinary machine.
    pub limit_seconds: u64,
}

impl Policy {
    /// Reads it from the checkout.
    ///
    /// # Errors
    /// The file cannot be read or understood.
    pub fn read() -> Result<Self, Error> {
        let path = crate::checkout().join("tests/reference/suite.toml");
        Ok(toml::from_str(&fs_err::read_to_string(path)?)?)
    }

    fn is_pure(&self, program: &Program) -> bool {
        !program.integration || self.pure.contains(&program.name)
    }

    fn chosen(&self, programs: &[Program], is: impl Fn(&Program) -> bool) -> Vec<Program> {
        let chosen = programs.iter().filter(|program| is(program)).cloned();
        chosen.map(|program| Program { in_turn: self.in_turn.contains(&program.name), ..program }).collect()
    }

    /// Unit tests and policy tests: `make test-fast`.
    pub fn fast(&self, programs: &[Program]) -> Vec<Program> {
        self.chosen(programs, |program| self.is_pure(program))
    }

    /// What needs root and a kernel, and has not run with the fast ones on this host: `make test-host`.
    pub fn privileged(&self, programs: &[Program]) -> Vec<Program> {
        self.chosen(programs, |program| !self.is_pure(program))
    }

    /// What asks a kernel anything at all: `make test-reference`.
    pub fn for_another_kernel(&self, programs: &[Program]) -> Vec<Program> {
        self.chosen(programs, |program| {
            if program.integration { !self.is_pure(program) } else { self.kernel_units.contains(&program.package) }
        })
    }
}

/// One line of `cargo --message-format=json`, as far as it is ours.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    profile: Option<Profile>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// Builds all test programs of the workspace, or of some of its crates, or finds them built.
///
/// # Errors
/// Something does not compile (cargo has said what, on stderr).
pub fn build(packages: &[String]) -> Result<Built, Error> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["test", "--no-run", "--locked", "--lib", "--bins", "--tests"]);
    command.args(if packages.is_empty() { &["--workspace"][..] } else { &[] });
    command.args(packages.iter().flat_map(|package| ["--package", package]));
    command.arg("--message-format=json-render-diagnostics").current_dir(crate::checkout());
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(Error::Build);
    }
    let mut built = Built { programs: Vec::new(), binaries: Vec::new() };
    for line in String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.starts_with('{')) {
        let message: Message =
            serde_json::from_str(line).map_err(|source| Error::Message { line: line.to_owned(), source })?;
        built.add(message);
    }
    built.programs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(built)
}

impl Built {
    fn add(&mut self, message: Message) {
        let Message {
            executable: Some(path),
            manifest_path: Some(manifest),
            target: Some(target),
            profile: Some(profile),
        } = message
        else {
            return; // a library, a build script, the end of the build
        };
        if !profile.test {
            return self.binaries.push(path);
        }
        let manifest_dir = manifest.parent().unwrap_or(Path::new("/")).to_owned();
        let package = manifest_dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = if target.name == package { package.clone() } else { format!("{package}::{}", target.name) };
        let integration = target.kind.iter().any(|kind| kind == "test");
        self.programs.push(Program { name, package, integration, path, manifest_dir, in_turn: false });
    }
}

/// What this machine is to the tests: `hybrid`, or a Debian release with a unified hierarchy.
pub fn kind_of_host() -> String {
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        return "hybrid".to_owned();
    }
    let release = fs_err::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |key: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or("unknown").trim_matches('"').to_owned()
    };
    format!("{}-{}", field("ID"), field("VERSION_ID"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(name: &str, package: &str, integration: bool) -> Program {
        let (path, manifest_dir) = (PathBuf::new(), PathBuf::new());
        Program { name: name.into(), package: package.into(), integration, path, manifest_dir, in_turn: false }
    }

    fn policy() -> Policy {
        let words = |word: &str| vec![word.to_owned()];
        Policy {
            pure: words("tests::arrows"),
            in_turn: words("tests::soak"),
            kernel_units: words("vzrt"),
            limit_seconds: 1,
        }
    }

    #[test]
    fn only_tests_that_would_see_each_other_run_in_turn() {
        let all = [program("tests::soak", "tests", true), program("tests::set", "tests", true)];
        let in_turn = |programs: Vec<Program>| programs.iter().map(|p| p.in_turn).collect::<Vec<_>>();
        assert_eq!(in_turn(policy().privileged(&all)), [true, false]);
        assert_eq!(in_turn(policy().for_another_kernel(&all)), [true, false]);
    }

    #[test]
    fn every_program_runs_on_this_host_exactly_once() {
        let policy = policy();
        let all = [
            program("vzrt", "vzrt", false),
            program("vzctl", "vzctl", false),
            program("tests::arrows", "tests", true),
            program("vzrt::cgroup", "vzrt", true),
        ];
        let names = |programs: Vec<Program>| programs.into_iter().map(|p| p.name).collect::<Vec<_>>();
        assert_eq!(names(policy.fast(&all)), ["vzrt", "vzctl", "tests::arrows"]);
        assert_eq!(names(policy.privileged(&all)), ["vzrt::cgroup"]);
        assert_eq!(names(policy.for_another_kernel(&all)), ["vzrt", "vzrt::cgroup"]);
    }
}
