//! What BPF programs in the host's kernel count and refuse for a container, where the node wants them (`UBC_ENFORCE`).

use beancounters::{Bound, Resource, bpf};

use super::in_force;
use crate::cgroup::CtCgroup;
use crate::error::Failed;
use crate::launch::chain;
use crate::monitor;
use crate::plan::Plan;

/// The program that loads them, beside us.
const LOADER: &str = "vzubc-load";

/// Has the kernel count the container from here on. A host that can't, or not all of it, still runs containers: it is told.
pub(crate) fn attach(plan: &Plan, cgroup: &CtCgroup) {
    if !plan.vz.enforce_bounds {
        return;
    }
    let attached = || {
        let loader = monitor::beside_us(LOADER)?;
        let failed = |e: bpf::Error| Failed::new("attach the container to the kernel's beancounters", chain(&e));
        let host = bpf::Host::ensure(&loader).map_err(failed)?;
        host.attach(cgroup.cgroup2(), &in_force(&plan.vz.bounds)).map_err(failed)
    };
    if let Err(e) = attached() {
        tracing::warn!("Warning: beancounters are counted and not refused by the kernel's programs: {}", e.one_line());
    }
}

/// No more. One that was not counted is well.
pub(crate) fn detach(cgroup: &CtCgroup) {
    let detached = || match bpf::Host::open()? {
        Some(host) => host.detach(bpf::id(cgroup.cgroup2())?),
        None => Ok(()),
    };
    if let Err(e) = detached() {
        tracing::warn!("Warning: the kernel goes on counting for a container that has ended: {}", chain(&e));
    }
}

/// Whether the container may have `wanted` more of what no program in the kernel is asked about. One that is not counted there may.
///
/// # Errors
/// The kernel's counters can't be used.
pub(crate) fn allows(cgroup: &CtCgroup, resource: Resource, wanted: u64, thread: u32) -> Result<bool, bpf::Error> {
    let Some(host) = bpf::Host::open()? else { return Ok(true) };
    let id = bpf::id(cgroup.cgroup2())?;
    Ok(!host.has(id)? || host.allows(id, resource, wanted, thread)?)
}

/// Other bounds for a container that runs; they hold at once.
///
/// # Errors
/// The kernel's counters can't be used.
pub fn rebound(cgroup: &CtCgroup, bounds: &beancounters::Set) -> Result<(), bpf::Error> {
    let Some(host) = bpf::Host::open()? else { return Ok(()) };
    let id = bpf::id(cgroup.cgroup2())?;
    if host.has(id)? {
        let bounds = in_force(bounds);
        let bound = |resource| bounds.get(resource).unwrap_or_else(|| Bound::unlimited(resource));
        Resource::LIVE.into_iter().try_for_each(|resource| host.set_bound(id, bound(resource)))?;
    }
    Ok(())
}
