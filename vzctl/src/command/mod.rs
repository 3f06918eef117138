//! The commands of `vzctl`, one file each.

mod area;
mod check;
mod compact;
mod console;
mod convert;
mod create;
mod destroy;
mod exchange;
mod exec;
mod io;
mod mount;
mod quota;
mod reinstall;
mod runscript;
mod set;
mod start;
mod startall;
mod status;
mod stop;
mod stopall;

use std::ffi::OsString;

use vzrt::cgroup;
use vzrt::lock::{Lock, LockError};
use vzrt::state::RunDir;
use vzrt::{Ctid, Interrupt};

use crate::cli::{self, Request};
use crate::config::{Node, names, node};
use crate::failure::{Outcome, chain};
use crate::subject::Subject;
use crate::{Exit, Failure, logging};

pub(crate) use exec::told;

/// Runs a command line; the process's exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    let request = match cli::parse(args) {
        Ok(request) => request,
        Err(failure) => {
            logging::init("vzctl", logging::Talk::Normal);
            failure.tell();
            return failure.exit as u8;
        }
    };
    logging::init("vzctl", request.talk);
    match run(request) {
        Ok(exit) => exit as u8,
        Err(failure) => {
            failure.tell();
            failure.exit as u8
        }
    }
}

fn run(request: Request) -> Outcome {
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::new(Exit::PermissionDenied, "vzctl can only be used by root"));
    }
    // Whoever runs us may have blocked signals for itself; this command can be ended by them.
    nix::sys::signal::SigSet::empty().thread_set_mask().map_err(|e| system(&e))?;
    let node = Node::open(node::config_dir(request.config_dir.as_deref())).map_err(|e| {
        Failure::from_error(e.exit(), &e).hint("`make install` puts a vz.conf in place; `--config-dir` names another.")
    })?;
    logging::to_file(node.global.log_file.as_deref(), None);
    match request.verb.as_str() {
        "check" => return check::run(&node, request.json),
        "startall" => return startall::run(&node),
        "stopall" => return stopall::run(&node),
        _ => {}
    }
    let ctid = match request.who.as_str() {
        // The host itself can be named, and then refused as the original did.
        "0" => return Err(Failure::new(Exit::InvalidValue, "Only set actions are allowed for CT0")),
        who => names::resolve(&node, who).map_err(|e| Failure::from_error(e.exit(), &e))?,
    };
    logging::to_file(node.global.log_file.as_deref(), Some(ctid));
    let context = Context { node, ctid, request };
    match context.request.verb.as_str() {
        "create" => create::run(&context),
        "destroy" => destroy::run(&context),
        "mount" => mount::mount(&context),
        "umount" => mount::umount(&context),
        "start" => start::run(&context),
        "stop" => stop::run(&context),
        "restart" => start::restart(&context),
        "status" => status::run(&context),
        "set" => set::run(&context),
        "compact" => compact::run(&context),
        "convert" => convert::run(&context),
        "reinstall" => reinstall::run(&context),
        "enter" => exec::enter(&context),
        "console" => console::run(&context),
        "exec" => exec::exec(&context),
        "exec2" => exec::exec2(&context),
        "exec3" => exec::exec3(&context),
        "quotaon" => quota::on(&context),
        "quotaoff" => quota::off(&context),
        "quotainit" => quota::init(&context),
        "runscript" => runscript::run(&context),
        other => Err(Failure::new(Exit::InvalidSyntax, format!("Bad command: {other}"))),
    }
}

/// A command on one container.
pub(crate) struct Context {
    pub(crate) node: Node,
    pub(crate) ctid: Ctid,
    pub(crate) request: Request,
}

impl Context {
    /// The container's configuration; 14 where it has none.
    pub(crate) fn container(&self) -> Result<Subject, Failure> {
        Subject::load(&self.node, self.ctid).map_err(|e| {
            let failure = Failure::from_error(e.exit(), &e);
            match e.exit() {
                Exit::NoContainerConfig => {
                    failure.hint(format!("`vzctl create {}` makes it; `vzlist -a` shows what there is.", self.ctid))
                }
                _ => failure,
            }
        })
    }

    /// The container's lock, unless `--skiplock`, and what an exchange of its private area that was killed has left is cleared away. Commands that only look take
    /// none.
    pub(crate) fn lock(&self, doing: &str) -> Result<Option<Lock>, Failure> {
        if self.request.skip_lock {
            return Ok(None);
        }
        let lock = match Lock::take(&self.node.lock_file(self.ctid), doing, self.request.wait_lock) {
            Ok(lock) => Some(lock),
            Err(e @ LockError::Held { .. }) => {
                let failure = Failure::from_error(Exit::Locked, &e).hint("`--wait-lock SEC` waits for it.");
                return Err(match e {
                    LockError::Held { pid: Some(pid), cmdline } => {
                        failure.why(format!("Locked by: pid {pid}, cmdline {cmdline}"))
                    }
                    _ => failure,
                });
            }
            Err(e) => return Err(Failure::from_error(Exit::System, &e)),
        };
        exchange::settle(self)?;
        Ok(lock)
    }

    /// From here on signals do not end the command, but come out where stopping is safe.
    pub(crate) fn interrupt(&self) -> Result<Interrupt, Failure> {
        Interrupt::watch().map_err(|e| system(&e))
    }

    /// Where its run state is.
    pub(crate) fn run_dir(&self) -> RunDir {
        RunDir::new(self.node.run_dir(self.ctid))
    }

    /// The host's cgroups.
    pub(crate) fn cgroups(&self) -> Result<cgroup::Host, Failure> {
        cgroup::Host::detect(std::path::Path::new("/")).map_err(|e| {
            Failure::because(Exit::UnusableKernel, "This host has no cgroups to run containers in", &e)
                .hint("`vzctl check` tells what is missing.")
        })
    }
}

/// The exit code of a failure that came out of a container's start or from inside it.
pub(crate) fn exit_of_trouble(trouble: &vzrt::Trouble) -> Exit {
    use vzrt::Trouble;
    match trouble {
        Trouble::NoInit(_) | Trouble::NoShell(_) => Exit::BrokenTemplate,
        Trouble::Hook { .. } => Exit::ActionScript,
        Trouble::AddressInUse(_) => Exit::AddressInUse,
        Trouble::Network(_) => Exit::AddAddress,
        Trouble::Limits(_) => Exit::SetBeancounters,
        Trouble::Call(_) => Exit::CreateEnvironment,
    }
}

/// A verb's error as the command line tells it.
pub(crate) fn failed(error: &vzrt::VerbError) -> Failure {
    use vzrt::VerbError as E;
    use vzrt::rootfs::RootError as R;
    match error {
        E::Start(trouble) => {
            let exit = exit_of_trouble(trouble);
            let what = match exit {
                Exit::BrokenTemplate => "Unable to start init, probably incorrect template",
                Exit::ActionScript => "Container start failed: an action script returned an error",
                _ => "Container start failed",
            };
            Failure::because(exit, what, trouble)
        }
        E::Hook(trouble) => Failure::from_error(exit_of_trouble(trouble), trouble),
        E::Root(root) | E::Teardown(vzrt::teardown::TeardownError::Root(root)) => {
            let exit = match root {
                R::NoPrivate(_) => Exit::NoPrivateArea,
                R::MountPoint(..) => Exit::CreateMountPoint,
                R::Busy(_) => Exit::Umount,
                R::NoImage(_) => Exit::NoImage,
                R::Disk(vzrt::rootfs::DiskError::Image(_)) => Exit::MountImage,
                _ => Exit::Mount,
            };
            let failure = Failure::from_error(exit, root);
            match root {
                R::Busy(path) => failure.hint(format!("`fuser -vm {path}` shows which processes of the host use it.")),
                R::NoTree(_) => failure.hint("`vzpkg create cache` makes it anew."),
                _ => failure,
            }
        }
        E::Teardown(vzrt::teardown::TeardownError::Hook(trouble)) => Failure::from_error(Exit::ActionScript, trouble),
        E::Address(e) => {
            let exit = match e.reason() {
                vzrt::net::NetError::AddressInUse { .. } => Exit::AddressInUse,
                _ => Exit::AddAddress,
            };
            Failure::because(exit, "Unable to use the addresses of the container", e)
        }
        E::Network(e) => Failure::because(Exit::AddAddress, "Unable to prepare the network of this host", e),
        E::StopTimeout => Failure::from_error(Exit::Stop, error),
        E::Interrupted(signal) => interrupted(*signal),
        E::Teardown(_) | E::Failed(_) => Failure::from_error(Exit::System, error),
    }
}

/// A command that a signal has ended.
pub(crate) fn interrupted(signal: vzrt::Interrupted) -> Failure {
    Failure::new(Exit::System, "Cancelling...").why(signal.to_string())
}

/// A small error of a small call.
pub(crate) fn system(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure { exit: Exit::System, what: chain(error), why: None, hint: None }
}
