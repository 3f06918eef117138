//! `vzctl status`: one line that scripts parse, with code 0 whatever it says.

use std::io::Write;

use vzrt::Condition;

use super::Context;
use crate::failure::Outcome;
use crate::{Exit, Failure};

pub(super) fn run(context: &Context) -> Outcome {
    let ctid = context.ctid;
    let exists = context.node.container_conf(ctid).exists();
    let condition = vzrt::condition(&context.run_dir()).map_err(|e| Failure::from_error(Exit::System, &e))?;
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
