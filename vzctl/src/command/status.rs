//! `vzctl status`: one line that scripts parse, with code 0 whatever it says.

use std::io::Write;

use vzrt::Condition;
use vzrt::plan::Disk;

use super::Context;
use crate::failure::Outcome;
use crate::{Exit, Failure, decide};

pub(super) fn run(context: &Context) -> Outcome {
    let ctid = context.ctid;
    let exists = context.node.container_conf(ctid).exists();
    let condition = vzrt::condition(&context.run_dir()).map_err(|e| Failure::from_error(Exit::System, &e))?;
    warn_of_limits(context, &condition);
    let (mounted, running) = match condition {
        Condition::Running(_) => (true, true),
        Condition::Mounted(_) => (true, false),
        Condition::Stopped => (false, false),
    };
    let suspended = !running && exists && context.node.dump_file(ctid).exists();
    let word = |yes: bool, a: &'static str, b: &'static str| if yes { a } else { b };
    let line = if context.request.json {
        let value = serde_json::json!({
            "ctid": ctid.get(), "exist": exists, "mounted": mounted, "running": running, "suspended": suspended,
        });
        value.to_string()
    } else {
        format!(
            "CTID {ctid} {} {} {}{}",
            word(exists, "exist", "deleted"),
            word(mounted, "mounted", "unmounted"),
            word(running, "running", "down"),
            word(suspended, " suspended", ""),
        )
    };
    writeln!(std::io::stdout(), "{line}").map_err(|e| Failure::from_error(Exit::System, &e))?;
    Ok(Exit::Success)
}

/// Tells, beside the line, of disk limits that are not those of the configuration: somebody has set others, or turned quota off. What can't be found
/// out is not told: the line has to come whatever else is wrong.
fn warn_of_limits(context: &Context, condition: &Condition) {
    let journal = match condition {
        Condition::Stopped => None,
        Condition::Mounted(journal) => Some(journal.as_ref().clone()),
        Condition::Running(_) => context.run_dir().journal().ok().flatten(),
    };
    let (Some(journal), Ok(container)) = (journal, context.container()) else { return };
    let Disk::Project { id, .. } = journal.root.disk else { return };
    let Ok(Some((space_kib, inodes))) =
        decide::other_limits(&journal.root.private, id, &container.settings.disk_limits())
    else {
        return;
    };
    // Warnings go to standard output, which is the line's alone here. Nobody can be told that standard error is closed.
    let _ = writeln!(
        std::io::stderr(),
        "Warning: the disk limits in force are not those of the configuration: space {space_kib} KiB, inodes {inodes} \
         (`vzctl quotaon {}` puts those in force)",
        context.ctid
    );
}
