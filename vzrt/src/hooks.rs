//! The administrator's scripts: on the host around mounting, and inside the container before its init and before its stop.

use std::ffi::CString;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::wait::{WaitStatus, waitpid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Signal, pidfd_send_signal};

use crate::channel::Trouble;
use crate::error::{Call, Failed};
use crate::inside::as_stdio;
use crate::interrupt::Interrupt;
use crate::plan::{Hooks, Plan};
use crate::{container, sys};

/// How long a script may take inside a container, as vzctl 4 allowed.
const INSIDE_TIMEOUT: Duration = Duration::from_secs(300);

/// Largest script that is carried inside, in bytes.
const MAX_SCRIPT_BYTES: u64 = 1 << 20;

/// `PATH` of every script.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Whether there is a script, in force: one without the right to execute is not, as in vzctl 4.
pub(crate) fn in_force(script: &Path) -> bool {
    std::fs::metadata(script).is_ok_and(|meta| meta.is_file() && meta.mode() & 0o111 != 0)
}

/// Runs scripts on the host, one after another; those that are not there, or not executable, are passed over.
///
/// # Errors
/// The first that fails, or that others than root could have written.
pub fn run_on_host(scripts: &[PathBuf], hooks: &Hooks) -> Result<(), Trouble> {
    for script in scripts.iter().filter(|s| in_force(s)) {
        let name = script.display().to_string();
        trusted(script)?;
        let status = Command::new(script)
            .env_clear()
            .env("PATH", PATH)
            .envs(hooks.env.iter().map(|(k, v)| (k, v)))
            .current_dir("/")
            .stdin(std::process::Stdio::null())
            .status()
            .call(|| format!("execve({name})"))?;
        if !status.success() {
            return Err(Trouble::Hook { script: name, end: status.to_string() });
        }
    }
    Ok(())
}

/// Only root's own scripts are run: one that others could write is theirs.
fn trusted(script: &Path) -> Result<(), Trouble> {
    let meta = std::fs::metadata(script).call(|| format!("stat({})", script.display()))?;
    if meta.uid() != 0 || meta.mode() & 0o022 != 0 {
        let end = format!(
            "not run: it is owned by uid {} with mode {:o}, so others than root may have written it",
            meta.uid(),
            meta.mode() & 0o7777
        );
        return Err(Trouble::Hook { script: script.display().to_string(), end });
    }
    Ok(())
}

/// A script that runs inside a container: its text is taken along, no descriptor of the host's file is.
#[derive(Debug)]
pub struct Script {
    name: String,
    text: Vec<u8>,
}

impl Script {
    /// Reads it on the host; `None` if there is no such file.
    ///
    /// # Errors
    /// It can't be read, is too long, or others than root could have written it.
    pub fn read(path: &Path) -> Result<Option<Self>, Trouble> {
        let name = path.display().to_string();
        let file = match std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
            Ok(f) => f,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Failed { call: format!("open({name})"), source: e }.into()),
        };
        trusted(path)?;
        let mut text = Vec::new();
        file.take(MAX_SCRIPT_BYTES + 1).read_to_end(&mut text).call(|| format!("read({name})"))?;
        if text.len() as u64 > MAX_SCRIPT_BYTES {
            return Err(Trouble::Hook { script: name, end: "not run: longer than 1 MiB".into() });
        }
        Ok(Some(Self { name, text }))
    }

    /// Runs it by the container's shell, in a process of its own; the caller is inside already, and fully root there.
    ///
    /// That shell is a program of the container's, and may be anything: it gets no descriptor of the command's (a terminal to listen on, a
    /// directory to climb out of), but an anonymous file, empty to read from, and what it writes is told afterwards.
    ///
    /// # Errors
    /// It failed, or did not end within five minutes.
    pub fn run_inside(&self, plan: &Plan, ve_state: &str) -> Result<(), Trouble> {
        let output = memfd_create("output", MemfdFlags::CLOEXEC).call(|| "memfd_create()")?;
        let failed = |end: String| {
            let said = last_words(&output);
            let end = if said.is_empty() { end } else { format!("{end}: {}", said.join("; ")) };
            Trouble::Hook { script: self.name.clone(), end }
        };
        let Some(child) = sys::clone3(&sys::Clone::default()).call(|| "clone3()")? else {
            let done = as_stdio(&output, &output, &output)
                .map_err(Trouble::from)
                .and_then(|()| self.exec(plan, ve_state, container::confine));
            let Err(trouble) = done;
            // Into the file: whoever waits reads it there.
            let _ = writeln!(std::io::stderr(), "{trouble}");
            sys::exit_now(127);
        };
        if !wait_for(&child.pidfd, INSIDE_TIMEOUT)? {
            pidfd_send_signal(&child.pidfd, Signal::KILL).call(|| "pidfd_send_signal(KILL)")?;
            waitpid(child.pid, None).call(|| "waitpid()")?;
            return Err(failed("timed out".into()));
        }
        match waitpid(child.pid, None).call(|| "waitpid()")? {
            WaitStatus::Exited(_, 0) => {
                last_words(&output).iter().for_each(|line| tracing::info!("{line}"));
                Ok(())
            }
            WaitStatus::Exited(_, code) => Err(failed(format!("exit status {code}"))),
            other => Err(failed(format!("{other:?}"))),
        }
    }

    /// Becomes the shell that runs it. The text is in an anonymous file made in here, so it belongs to the container's root.
    pub(crate) fn exec(
        &self,
        plan: &Plan,
        ve_state: &str,
        confine: impl FnOnce(&Plan) -> Result<(), Failed>,
    ) -> Result<std::convert::Infallible, Trouble> {
        let memory: OwnedFd = memfd_create("script", MemfdFlags::empty()).call(|| "memfd_create()")?;
        std::fs::File::from(memory.try_clone().call(|| "dup()")?).write_all(&self.text).call(|| "write(memfd)")?;
        let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
        let mut env =
            vec![format!("PATH={PATH}"), format!("VE_STATE={ve_state}"), "HOME=/".into(), "TERM=linux".into()];
        env.extend(plan.vz.hooks.env.iter().filter(|(k, _)| k == "VEID").map(|(k, v)| format!("{k}={v}")));
        sys::reset_signals().call(|| "sigprocmask()")?;
        confine(plan)?;
        exec_shell(&[path], &env, Some(memory.as_fd()))
    }
}

/// The end of what a script wrote, as lines.
fn last_words(output: &OwnedFd) -> Vec<String> {
    let mut bytes = [0u8; 2048];
    let size = rustix::fs::fstat(output).map_or(0, |st| st.st_size.unsigned_abs());
    let from = size.saturating_sub(bytes.len() as u64);
    let n = rustix::io::pread(output, &mut bytes, from).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..n]).lines().map(str::to_owned).collect()
}

/// Becomes `bash` with these arguments, or `sh` where there is no bash. Takes nothing along but the standard descriptors and `keep`, also where
/// it fails.
pub(crate) fn exec_shell(
    args: &[String],
    env: &[String],
    keep: Option<BorrowedFd>,
) -> Result<std::convert::Infallible, Trouble> {
    sys::close_above_stderr_but(keep).call(|| "close_range()")?;
    let c = |s: &str| CString::new(s).map_err(|e| Trouble::Call(e.to_string()));
    let env = env.iter().map(|e| c(e)).collect::<Result<Vec<_>, _>>()?;
    let mut why = String::new();
    for shell in ["/bin/bash", "/bin/sh"] {
        let mut argv = vec![c(shell.trim_start_matches("/bin/"))?];
        for a in args {
            argv.push(c(a)?);
        }
        let Err(e) = nix::unistd::execve(&c(shell)?, &argv, &env);
        why = e.to_string();
    }
    Err(Trouble::NoShell(why))
}

/// Waits until the process behind a pidfd ends; false when it did not in time.
pub(crate) fn wait_for(pidfd: &impl AsFd, timeout: Duration) -> Result<bool, Failed> {
    wait_for_either(pidfd, None, timeout)
}

/// The same, ending early (with false) when a signal of `interrupt` comes.
pub(crate) fn wait_for_either(
    pidfd: &impl AsFd,
    interrupt: Option<&Interrupt>,
    timeout: Duration,
) -> Result<bool, Failed> {
    let deadline = std::time::Instant::now() + timeout;
    loop {
        let left = Timespec::try_from(deadline.saturating_duration_since(std::time::Instant::now())).ok();
        let mut fds = vec![PollFd::new(pidfd, PollFlags::IN)];
        fds.extend(interrupt.map(|i| PollFd::new(i, PollFlags::IN)));
        match poll(&mut fds, left.as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(!fds[0].revents().is_empty()),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).call(|| "poll(pidfd)"),
        }
    }
}
