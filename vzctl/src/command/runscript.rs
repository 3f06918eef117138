//! `vzctl runscript`: a script of the host's, run inside; in a container that is not running, with an idle init for as long as it takes.

use std::path::PathBuf;

use vzrt::{Condition, Inside};

use super::{Context, exec, failed};
use crate::failure::Outcome;
use crate::{Exit, Failure, decide};

pub(super) fn run(context: &Context) -> Outcome {
    let container = context.container()?;
    let Some(path) = context.request.matches.get_one::<PathBuf>("script") else {
        return Err(Failure::new(Exit::NotEnoughParameters, "No script given"));
    };
    let missing = || Failure::new(Exit::NoScript, format!("Script not found: {}", path.display()));
    let script = vzrt::hooks::Script::read(path)
        .map_err(|e| Failure::because(Exit::NoScript, format!("Script {} can't be run", path.display()), &e))?
        .ok_or_else(missing)?;
    let _lock = context.lock("running a script")?;
    let host = context.cgroups()?;
    let run = |inside: &Inside| inside.exec_script(&script).map_err(|e| exec::told(&e));
    let end = match vzrt::settle(&context.run_dir(), &host).map_err(|e| failed(&e))? {
        Condition::Running(running) => {
            let plan = context.run_dir().plan().map_err(|e| super::system(&e))?;
            let plan = plan.ok_or_else(|| Failure::new(Exit::NotRunning, "Container is not running"))?;
            run(&Inside::new(&running, &plan, &host))?
        }
        condition => {
            if let Condition::Mounted(journal) = condition {
                vzrt::unmount(&context.run_dir(), &journal).map_err(|e| failed(&e))?;
            }
            let container = decide::prepare(&context.node, container)?;
            let plan = decide::plan(&context.node, &container)?;
            vzrt::with_idle_init(&plan, &host, Some(&decide::host_net(&context.node)), run)
                .map_err(|e| failed(&e))??
        }
    };
    exec::own_status(end)
}
