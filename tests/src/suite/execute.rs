//! Running test programs one after the other, each bounded in time, and reading what they say.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::Program;
use crate::skips::{self, Known, Skip};
use crate::wait::scaled;

/// How one run is done.
#[derive(Debug, Default)]
pub struct Options {
    /// Only tests whose name contains this.
    pub filter: Option<String>,
    /// For one program on an ordinary machine; scaled to this one's speed.
    pub limit: Duration,
}

/// How it ended.
#[derive(Debug, Default)]
pub struct Report {
    /// Tests that ran, skipped ones included.
    pub tests: usize,
    /// Programs that failed, with how.
    pub failed: Vec<String>,
    /// Programs that failed at first and then passed, with how they had failed: told at the end, for somebody should look.
    pub unsteady: Vec<String>,
    /// In order of appearance.
    pub skips: Vec<Skip>,
}

impl Report {
    /// Says how it ended, keeps the skips for the end of `make test`, and judges: nothing failed, nothing skipped that
    /// is not known to on this kind of host.
    ///
    /// # Errors
    /// The list of known skips cannot be read, or the skips not be kept.
    pub fn close(&self, label: &str, host: &str, out: &mut dyn Write) -> io::Result<bool> {
        let known = Known::read(host)?;
        let unexpected = known.unexpected(&self.skips);
        let list: String = self.skips.iter().map(|skip| format!("{label} on {host}: {skip}\n")).collect();
        let dir = crate::target_dir().join("skips");
        fs_err::create_dir_all(&dir)?;
        fs_err::write(dir.join(label), list)?;

        let (tests, skipped, failed) = (self.tests, self.skips.len(), self.failed.len());
        writeln!(out, "== {label} on {host}: {tests} tests ran, {skipped} skipped, {failed} programs failed")?;
        self.unsteady.iter().try_for_each(|how| writeln!(out, "   passed only at the second attempt: {how}"))?;
        self.failed.iter().try_for_each(|how| writeln!(out, "   FAILED {how}"))?;
        unexpected.iter().try_for_each(|skip| writeln!(out, "   FAILED: {skip} (not in known-skips/{host})"))?;
        Ok(self.failed.is_empty() && unexpected.is_empty())
    }
}

/// After a program has ended, something it started may still hold its output; wait this long for it.
const GRACE: Duration = Duration::from_secs(3);

/// Runs the programs, writes what a person wants to see of them, and counts. A program that fails is run once more, and fails if it does so
/// again: what a busy or emulated machine does to time is no fault of what is tested. Tests asked for by name have one attempt.
///
/// # Errors
/// Only if the output cannot be written or a program cannot be started; a failing test is in the report.
pub fn run(programs: &[Program], options: &Options, out: &mut dyn Write) -> io::Result<Report> {
    let mut report = Report::default();
    for program in programs {
        let mut ended = execute(program, options, out)?;
        if let Some(how) = ended.failure.clone().filter(|_| options.filter.is_none()) {
            writeln!(out, "FAILED {}: {how}; once more", program.name)?;
            ended = execute(program, options, out)?;
            if ended.failure.is_none() {
                report.unsteady.push(format!("{}: {how}", program.name));
            }
        }
        report.tests += ended.tests;
        // Two programs may have tests of one name.
        report.skips.extend(ended.skips.into_iter().map(|skip| skip.of(&program.name)));
        if let Some(how) = ended.failure {
            writeln!(out, "FAILED {}: {how}", program.name)?;
            report.failed.push(format!("{}: {how}", program.name));
        }
    }
    if options.filter.is_some() && report.tests == 0 {
        report.failed.push("no test has that name".to_owned());
    }
    Ok(report)
}

struct Ended {
    tests: usize,
    skips: Vec<Skip>,
    failure: Option<String>,
}

fn execute(program: &Program, options: &Options, out: &mut dyn Write) -> io::Result<Ended> {
    let limit = scaled(options.limit);
    let (mut child, lines) = start(program, options)?;
    let end = Instant::now() + limit;
    let mut heard = Heard::new(program.in_turn, &program.name);
    let mut ended: Option<(ExitStatus, Instant)> = None;
    let failure = loop {
        match lines.recv_timeout(Duration::from_millis(50)) {
            Ok(line) => heard.hear(&line, out)?,
            Err(RecvTimeoutError::Disconnected) => break how(child.wait()?),
            Err(RecvTimeoutError::Timeout) => match ended {
                Some((_, at)) if at.elapsed() > GRACE => {
                    break Some("left a process behind that holds its output".to_owned());
                }
                Some(_) => {}
                None => ended = child.try_wait()?.map(|status| (status, Instant::now())),
            },
        }
        if Instant::now() > end && ended.is_none() {
            let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
            child.wait()?;
            break Some(format!("still running after {} s, killed", limit.as_secs()));
        }
    };
    if failure.is_some() {
        heard.flush(out)?;
    }
    Ok(Ended { tests: heard.tests, skips: heard.skips, failure })
}

fn how(status: ExitStatus) -> Option<String> {
    match (status.success(), status.signal()) {
        (true, _) => None,
        (false, Some(signal)) => Some(format!("killed by signal {signal}")),
        (false, None) => Some(format!("exit code {}", status.code().unwrap_or(-1))),
    }
}

/// In a process group of its own, so that what is killed is the program with its children.
fn start(program: &Program, options: &Options) -> io::Result<(Child, Receiver<String>)> {
    let (from_program, to_us) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let mut command = Command::new(&program.path);
    command.args(&options.filter);
    // Beside each other their outputs would mix: then only that of failures is shown, after them.
    command.args(if program.in_turn { &["--nocapture", "--test-threads=1"][..] } else { &["--show-output"] });
    // As cargo would: the directory, and what `insta` asks cargo for otherwise.
    command.current_dir(&program.manifest_dir).env("CARGO_MANIFEST_DIR", &program.manifest_dir);
    command.env("INSTA_WORKSPACE_ROOT", crate::checkout()).env("INSTA_UPDATE", "no");
    command.stdin(Stdio::null()).stdout(to_us.try_clone()?).stderr(to_us).process_group(0);
    let child = command.spawn()?;
    drop(command); // and with it our copies of the pipe's writing end
    let (send, lines) = mpsc::channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(std::fs::File::from(from_program));
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            if send.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break; // nobody listens any more
            }
            line.clear();
        }
    });
    Ok((child, lines))
}

/// What a test program has said so far.
struct Heard {
    live: bool,
    heading: Option<String>,
    tests: usize,
    skips: Vec<Skip>,
    kept: Vec<String>,
}

impl Heard {
    fn new(live: bool, name: &str) -> Self {
        Self { live, heading: Some(format!("== {name}\n")), tests: 0, skips: Vec::new(), kept: Vec::new() }
    }

    fn hear(&mut self, line: &str, out: &mut dyn Write) -> io::Result<()> {
        let count = line.strip_prefix("running ").and_then(|rest| rest.split(' ').next()?.parse::<usize>().ok());
        if let Some(count) = count {
            self.tests += count;
        }
        self.skips.extend(skips::parse(line.trim_end()));
        let telling = ["test ", "running ", crate::wait::ROUNDS].iter().any(|word| line.starts_with(word));
        if !(self.live || telling) {
            self.kept.push(line.to_owned());
        } else if self.tests > 0 {
            // A program none of whose tests was asked for is not worth a line.
            out.write_all(self.heading.take().unwrap_or_default().as_bytes())?;
            out.write_all(line.as_bytes())?;
            out.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(self.heading.take().unwrap_or_default().as_bytes())?;
        self.kept.iter().try_for_each(|line| out.write_all(line.as_bytes()))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that fails here has failed")]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    fn run_script(script: &str, options: &Options) -> (Report, String) {
        run_script_as(true, script, options)
    }

    fn run_script_as(in_turn: bool, script: &str, options: &Options) -> (Report, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        fs_err::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs_err::set_permissions(&path, PermissionsExt::from_mode(0o700)).unwrap();
        let program = Program {
            name: "a::b".into(),
            package: "a".into(),
            integration: true,
            path,
            manifest_dir: Path::new("/").into(),
            in_turn,
        };
        let programs = [program];
        loop {
            let mut out = Vec::new();
            match run(&programs, options, &mut out) {
                // A child that another test has just forked has it open for writing until it executes its own.
                Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy => continue,
                report => return (report.unwrap(), String::from_utf8(out).unwrap()),
            }
        }
    }

    fn options() -> Options {
        Options { limit: Duration::from_secs(20), ..Options::default() }
    }

    #[test]
    fn a_passing_program_is_counted_with_its_skips() {
        let script = "echo 'running 2 tests'; echo 'skipped: x: y' >&2; echo 'test result: ok'";
        let (report, out) = run_script(script, &options());
        assert_eq!((report.tests, report.failed.len(), report.skips.len()), (2, 0, 1));
        assert!(out.contains("== a::b\n") && out.contains("test result: ok"));
    }

    #[test]
    fn a_failing_program_fails_the_run_and_shows_what_it_said() {
        let (report, out) = run_script_as(false, "echo 'running 1 tests'; echo because; exit 101", &options());
        assert_eq!(report.failed, ["a::b: exit code 101"]);
        assert!(out.contains("because"));
    }

    #[test]
    fn a_program_that_passes_at_the_second_attempt_passes_and_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("mark").display().to_string();
        let script = format!("echo 'running 1 tests'; test -e {mark} || {{ touch {mark}; exit 101; }}");
        let (report, _) = run_script(&script, &options());
        assert_eq!((report.tests, report.failed.len()), (1, 0));
        assert_eq!(report.unsteady, ["a::b: exit code 101"]);
        fs_err::remove_file(&mark).unwrap();
        let named = Options { filter: Some("x".into()), ..options() };
        assert_eq!(run_script(&script, &named).0.failed, ["a::b: exit code 101"]);
    }

    #[test]
    fn a_hanging_program_is_killed_with_its_children() {
        let short = Options { limit: Duration::from_millis(300), ..options() };
        let (report, _) = run_script("sleep 1000 & sleep 1000", &short);
        assert!(report.failed[0].contains("still running"), "{:?}", report.failed);
    }

    #[test]
    fn a_program_that_leaves_a_process_with_its_output_fails() {
        let (report, _) = run_script("echo 'running 1 tests'; setsid sleep 6 & exit 0", &options());
        assert!(report.failed[0].contains("left a process behind"), "{:?}", report.failed);
    }

    #[test]
    fn a_name_that_no_test_has_fails_the_run() {
        let named = Options { filter: Some("nothing".into()), ..options() };
        let (report, out) = run_script("echo 'running 0 tests'", &named);
        assert_eq!(report.failed, ["no test has that name"]);
        assert_eq!(out, "");
    }
}
