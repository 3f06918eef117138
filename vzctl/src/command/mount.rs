//! `vzctl mount` and `vzctl umount`.

use vzrt::Condition;

use super::{Context, create, failed};
use crate::failure::Outcome;
use crate::{Exit, Failure, decide};

pub(super) fn mount(context: &Context) -> Outcome {
    context.container()?;
    let _lock = context.lock("mounting")?;
    let container = context.container()?;
    let host = context.cgroups()?;
    match vzrt::settle(&context.run_dir(), &host).map_err(|e| failed(&e))? {
        Condition::Stopped => {}
        Condition::Mounted(_) | Condition::Running(_) => {
            tracing::info!("Container is already mounted");
            return Ok(Exit::Success);
        }
    }
    create::accept(&container)?;
    let container = decide::prepare(&context.node, container)?;
    let plan = decide::plan(&context.node, &container)?;
    vzrt::mount(&plan, &host).map_err(|e| failed(&e))?;
    tracing::info!("Container is mounted");
    Ok(Exit::Success)
}

pub(super) fn umount(context: &Context) -> Outcome {
    context.container()?;
    let _lock = context.lock("unmounting")?;
    let run = context.run_dir();
    match vzrt::settle(&run, &context.cgroups()?).map_err(|e| failed(&e))? {
        Condition::Stopped => Err(Failure::new(Exit::NotMounted, "CT is not mounted")),
        Condition::Running(_) => Err(Failure::new(Exit::Running, "Container is running -- stop it first")),
        Condition::Mounted(journal) => {
            vzrt::unmount(&run, &journal).map_err(|e| failed(&e))?;
            tracing::info!("Container is unmounted");
            Ok(Exit::Success)
        }
    }
}
