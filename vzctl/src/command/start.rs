//! `vzctl start` and `vzctl restart`.

use std::io::Write;
use std::time::Duration;

use vzrt::plan::Disk;
use vzrt::{Condition, Interrupt, Plan, Step};

use super::{Context, create, failed, interrupted, io, stop, system};
use crate::config::values::CpuLimit;
use crate::failure::Outcome;
use crate::subject::Subject;
use crate::{Exit, Failure, decide};

/// How long `--wait` waits where nobody says otherwise: longer than any boot that is going to end.
const DEFAULT_WAIT_S: u64 = 300;

pub(super) fn run(context: &Context) -> Outcome {
    if flag(context, "dry-run") {
        return dry_run(context, context.container()?);
    }
    context.container()?;
    let _lock = context.lock("starting")?;
    // Read under the lock: who held it may have converted the container.
    let container = context.container()?;
    let host = context.cgroups()?;
    match vzrt::settle(&context.run_dir(), &host).map_err(|e| failed(&e))? {
        Condition::Running(_) => Err(Failure::new(Exit::Running, "Container is already running")),
        Condition::Mounted(journal) => {
            // As the original: what was mounted before may have been mounted with other settings.
            if !flag(context, "skip-remount") {
                vzrt::unmount(&context.run_dir(), &journal).map_err(|e| failed(&e))?;
            }
            start(context, container, &host)
        }
        Condition::Stopped => start(context, container, &host),
    }
}

pub(super) fn restart(context: &Context) -> Outcome {
    context.container()?;
    let _lock = context.lock("restarting")?;
    let container = context.container()?;
    let host = context.cgroups()?;
    tracing::info!("Restarting container");
    restart_locked(context, container, &host)
}

/// Stops the container if it runs, and starts it.
pub(super) fn restart_locked(context: &Context, container: Subject, host: &vzrt::cgroup::Host) -> Outcome {
    match vzrt::settle(&context.run_dir(), host).map_err(|e| failed(&e))? {
        Condition::Running(running) => stop::stop(context, &container, *running, host)?,
        Condition::Mounted(journal) => vzrt::unmount(&context.run_dir(), &journal).map_err(|e| failed(&e))?,
        Condition::Stopped => {}
    }
    start(context, container, host)
}

fn start(context: &Context, container: Subject, host: &vzrt::cgroup::Host) -> Outcome {
    let quick_reboots = context.request.matches.try_get_one::<u32>("quick-reboots").ok().flatten().copied();
    // Whoever starts it, the start that a reboot asked for is not wanted any more. Called off before this, it never was.
    let wanted = vzrt::reboot::call_off(&context.run_dir()).map_err(|e| system(&e))?;
    if quick_reboots.is_some() && !wanted {
        tracing::info!("Container is not started again: it was stopped meanwhile");
        return Ok(Exit::Success);
    }
    if container.settings.disabled == Some(true) && !flag(context, "force") {
        return Err(Failure::new(Exit::Disabled, "Container start disabled").hint(format!(
            "`vzctl set {} --disabled no --save` enables it; `vzctl start --force` starts it once.",
            context.ctid
        )));
    }
    let dump = context.node.dump_file(context.ctid);
    if dump.exists() {
        tracing::warn!("Dump file {} exists, and restoring is not possible yet: starting afresh", dump.display());
    }
    container.own.require_valid(&context.node).map_err(|e| Failure::from_error(e.exit(), &e))?;
    create::accept(&container)?;
    decide::fits(&context.node, &container)?;
    let container = decide::prepare(&context.node, container)?;
    let mut plan = decide::plan(&context.node, &container)?;
    plan.vz.quick_reboots = quick_reboots.unwrap_or(0);
    if let (true, Disk::Image { fsck, .. }) = (flag(context, "skip-fsck"), &mut plan.vz.root.disk) {
        *fsck = false;
    }
    for absent in decide::gone(&container.settings)? {
        tracing::warn!("Warning: {absent}");
    }
    io::set_up(&context.node, &container, host)?;
    let host_net = decide::host_net(&context.node);
    let interrupt = context.interrupt()?;
    tracing::info!("Starting container...");
    vzrt::start(&plan, host, &host_net, &interrupt, &mut |step| match step {
        Step::Mounted => tracing::info!("Container is mounted"),
        Step::Started => tell_settings(&plan, &container),
    })
    .map_err(|e| failed(&e))?;
    if flag(context, "wait") {
        tracing::info!("Container start in progress, waiting ...");
        wait_until_up(context, &interrupt)?;
        tracing::info!("Container started successfully");
    } else {
        tracing::info!("Container start in progress...");
    }
    Ok(Exit::Success)
}

/// The lines the original printed while it set what is set.
fn tell_settings(plan: &Plan, container: &Subject) {
    if !plan.vz.net.addresses.is_empty() {
        let list: Vec<String> = plan.vz.net.addresses.iter().map(ToString::to_string).collect();
        tracing::info!("Adding IP address(es): {}", list.join(" "));
    }
    if let Some(limit) = container.settings.cpulimit.filter(|l| !matches!(l, CpuLimit::Percent(0) | CpuLimit::Mhz(0))) {
        tracing::info!("Setting CPU limit: {limit}");
    }
    if let Some(units) = container.settings.cpuunits {
        tracing::info!("Setting CPU units: {units}");
    }
    if let Some(cpus) = container.settings.cpus {
        tracing::info!("Setting CPUs: {cpus}");
    }
}

/// Waits for the container's own word that it is up: systemd's, where that is its init; elsewhere init itself running is all there is to
/// know.
fn wait_until_up(context: &Context, interrupt: &Interrupt) -> Result<(), Failure> {
    let failed = |why: String| Failure::new(Exit::StartWait, "Container wait failed").why(why);
    let timeout_s = context.request.matches.get_one::<u64>("wait-timeout").copied().unwrap_or(DEFAULT_WAIT_S);
    let run = context.run_dir();
    let host = context.cgroups()?;
    let (Some(running), Some(plan)) =
        (run.running().map_err(|e| failed(e.one_line()))?, run.plan().map_err(|e| failed(e.one_line()))?)
    else {
        return Err(failed("it has stopped already".into()));
    };
    // Asked again and again, for `systemctl --wait` goes by D-Bus, which comes late in the boot: before that it fails at once.
    let line = "case $(readlink /proc/1/exe) in */systemd) ;; *) exit 0 ;; esac; \
        until case $(systemctl is-system-running 2>/dev/null) in running|degraded|maintenance|stopping) ;; *) false ;; esac; \
        do sleep 0.1; done";
    let inside = vzrt::Inside::new(&running, &plan, &host);
    match inside.ask(line, Duration::from_secs(timeout_s), interrupt) {
        Ok(Some(vzrt::End::Exited(0))) => Ok(()),
        Ok(Some(end)) => Err(failed(format!("{end:?}"))),
        Ok(None) => {
            interrupt.check().map_err(interrupted)?;
            Err(Failure::new(Exit::StartWait, "Container wait failed - timeout expired")
                .hint("It goes on starting; `vzctl console` shows what it prints."))
        }
        Err(e) => Err(failed(crate::failure::chain(&e))),
    }
}

fn dry_run(context: &Context, container: Subject) -> Outcome {
    let plan = decide::plan(&context.node, &decide::with_prospective_ids(&context.node, container)?)?;
    let text = if context.request.json {
        serde_json::to_string_pretty(&plan).map_err(|e| Failure::from_error(Exit::System, &e))?
    } else {
        decide::describe(&plan)
    };
    writeln!(std::io::stdout(), "{text}").map_err(|e| Failure::from_error(Exit::System, &e))?;
    Ok(Exit::Success)
}

fn flag(context: &Context, name: &str) -> bool {
    context.request.matches.try_get_one::<bool>(name).ok().flatten().copied().unwrap_or(false)
}
