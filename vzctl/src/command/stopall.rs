//! `vzctl stopall`: every container, before the host goes down.

use std::path::Path;

use oci_spec::runtime::LinuxResources;
use vzrt::plan::CpuShare;
use vzrt::{Ctid, Interrupt, RunDir, cgroup};

use super::{interrupted, system};
use crate::boot::order::{self, Place};
use crate::boot::workers::{self, Event};
use crate::boot::{Up, at_once, failed_for, present, remembered};
use crate::config::Node;
use crate::config::global::StopMode;
use crate::config::settings::Settings;
use crate::failure::{Outcome, chain};
use crate::subject::Subject;
use crate::{Exit, Failure, decide};

/// How often each stage is tried with the containers that are left.
const ROUNDS: usize = 3;

pub(super) fn run(node: &Node) -> Outcome {
    let interrupt = Interrupt::watch().map_err(|e| system(&e))?;
    let first = with(Up::Running, present(node)?);
    // Before anything is stopped: a host that is cut off half way has them start again all the same.
    remembered::add(&node.global.reboot_dir, first.iter().copied())?;
    if node.global.stop_mode == StopMode::Suspend && !first.is_empty() {
        tracing::info!("VE_STOP_MODE=suspend: containers cannot be suspended yet, they are stopped");
    }
    let limits = Limits::of(node);
    first.iter().for_each(|&ctid| limits.lift(ctid));
    let done =
        stage(node, &interrupt, Up::Running, &STOP).and_then(|()| stage(node, &interrupt, Up::Mounted, &UNMOUNT));
    let left = with(Up::Running, present(node)?);
    left.iter().for_each(|&ctid| limits.put_back(ctid));
    done?;
    if left.is_empty() { Ok(Exit::Success) } else { Err(failed_for("stopped", left, first.len())) }
}

/// What is done to each, and how it is told.
struct Stage {
    command: &'static [&'static str],
    doing: &'static str,
    done: &'static str,
}

const STOP: Stage = Stage { command: &["stop"], doing: "Stopping", done: "stopped" };
const UNMOUNT: Stage = Stage { command: &["umount"], doing: "Unmounting", done: "unmounted" };

fn with(wanted: Up, all: Vec<(Ctid, Up)>) -> Vec<Ctid> {
    all.into_iter().filter(|&(_, up)| up == wanted).map(|(ctid, _)| ctid).collect()
}

/// Takes all containers that are so up down, as far as they let themselves be.
fn stage(node: &Node, interrupt: &Interrupt, of: Up, stage: &Stage) -> Result<(), Failure> {
    for _ in 0..ROUNDS {
        // Asked anew in each round: one may have rebooted in the last.
        let ctids = with(of, present(node)?);
        if ctids.is_empty() {
            return Ok(());
        }
        let places = ctids.into_iter().map(|ctid| Place::of(ctid, &settings(node, ctid))).collect();
        let ctids = order::for_stop(places).into_iter().map(|place| place.ctid);
        let signal = workers::run(node, stage.command, ctids, at_once(node), interrupt, &mut |event| {
            match event {
                Event::Begun(ctid) => tracing::info!("{} container {ctid}", stage.doing),
                Event::Ended(ctid, ended) if ended.code == 0 => tracing::info!("Container {ctid} was {}", stage.done),
                Event::Ended(ctid, ended) => {
                    tracing::error!("Container {ctid} was not {}: {}", stage.done, ended.why());
                }
            }
            Ok(())
        })?;
        if let Some(signal) = signal {
            return Err(interrupted(signal));
        }
    }
    Ok(())
}

/// What its configuration says; nothing, where it can't be read: it is stopped all the same.
fn settings(node: &Node, ctid: Ctid) -> Settings {
    Subject::load(node, ctid).map(|container| container.settings).unwrap_or_default()
}

/// The limits of containers that are being stopped: each gets the same share of the CPUs, and none is held back. What a container does to
/// stop would otherwise take as long as it has little.
struct Limits<'a> {
    node: &'a Node,
    host: Option<cgroup::Host>,
}

impl<'a> Limits<'a> {
    fn of(node: &'a Node) -> Self {
        Self { node, host: cgroup::Host::detect(Path::new("/")).ok() }
    }

    fn lift(&self, ctid: Ctid) {
        self.change(ctid, decide::without_rates, decide::shutdown_share);
    }

    /// For one that did not stop.
    fn put_back(&self, ctid: Ctid) {
        self.change(ctid, decide::only_rates, |usual| usual);
    }

    /// A container that can't be helped stops slowly: no reason not to stop it.
    fn change(
        &self,
        ctid: Ctid,
        to: fn(&LinuxResources) -> Result<LinuxResources, Failure>,
        share: fn(CpuShare) -> CpuShare,
    ) {
        let Some((host, plan)) = self.host.as_ref().zip(RunDir::new(self.node.run_dir(ctid)).plan().ok().flatten())
        else {
            return;
        };
        let Some(resources) = plan.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref()) else { return };
        let cgroup = decide::cgroup_of(self.node, host, ctid);
        let applied = to(resources).map(|to| cgroup.apply(&to).and_then(|_| cgroup.weigh(share(plan.vz.cpu))));
        match applied {
            Ok(Ok(_)) => {}
            Ok(Err(e)) => tracing::debug!("limits of container {ctid}: {}", chain(&e)),
            Err(e) => tracing::debug!("limits of container {ctid}: {e}"),
        }
    }
}
