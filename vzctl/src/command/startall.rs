//! `vzctl startall`: every container that starts with the host.

use std::collections::BTreeSet;

use vzrt::{Ctid, Interrupt};

use super::{interrupted, system};
use crate::boot::order::{self, Place};
use crate::boot::workers::{self, Ended, Event};
use crate::boot::{at_once, failed_for, remembered};
use crate::config::Node;
use crate::failure::{Outcome, chain};
use crate::subject::Subject;
use crate::{Exit, Failure};

pub(super) fn run(node: &Node) -> Outcome {
    let interrupt = Interrupt::watch().map_err(|e| system(&e))?;
    let (places, mut failed) = candidates(node)?;
    let count = places.len() + failed.len();
    let ctids = order::for_start(places).into_iter().map(|place| place.ctid);
    let signal = workers::run(node, &["start"], ctids, at_once(node), &interrupt, &mut |event| {
        match event {
            Event::Begun(ctid) => tracing::info!("Starting container {ctid}"),
            Event::Ended(ctid, ended) => {
                if !told(ctid, &ended) {
                    failed.push(ctid);
                }
                // Whether it came up or not: the next boot is for what runs then.
                remembered::forget(&node.global.reboot_dir, ctid)?;
            }
        }
        Ok(())
    })?;
    match signal {
        Some(signal) => Err(interrupted(signal)),
        None if failed.is_empty() => Ok(Exit::Success),
        None => Err(failed_for("started", failed, count)),
    }
}

/// Those to start, and those that can't even be asked whether they are.
fn candidates(node: &Node) -> Result<(Vec<Place>, Vec<Ctid>), Failure> {
    let mut ran: BTreeSet<Ctid> = remembered::list(&node.global.reboot_dir)?.into_iter().collect();
    let (mut places, mut failed) = (Vec::new(), Vec::new());
    for ctid in node.containers().map_err(|e| system(&e))? {
        let ran = ran.remove(&ctid);
        match Subject::load(node, ctid) {
            Ok(container) if order::starts(&container.settings, ran) => {
                places.push(Place::of(ctid, &container.settings));
            }
            Ok(_) if ran => remembered::forget(&node.global.reboot_dir, ctid)?,
            Ok(_) => {}
            Err(e) => {
                tracing::error!("Container {ctid} was not started: {}", chain(&e));
                failed.push(ctid);
            }
        }
    }
    // Destroyed since.
    ran.into_iter().try_for_each(|ctid| remembered::forget(&node.global.reboot_dir, ctid))?;
    Ok((places, failed))
}

/// Says what became of it; false if it should run and does not.
fn told(ctid: Ctid, ended: &Ended) -> bool {
    const RUNNING: i32 = Exit::Running as i32;
    const DISABLED: i32 = Exit::Disabled as i32;
    match ended.code {
        0 => tracing::info!("Container {ctid} was started"),
        RUNNING => tracing::info!("Container {ctid} runs already"),
        DISABLED => tracing::info!("Container {ctid} is disabled"),
        _ => {
            tracing::error!("Container {ctid} was not started: {}", ended.why());
            return false;
        }
    }
    true
}
