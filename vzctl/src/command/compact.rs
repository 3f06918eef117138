//! `vzctl compact`: what was deleted inside an image is given back to the host.

use quota::image;

use super::{Context, failed};
use crate::failure::Outcome;
use crate::{Exit, Failure, decide};

pub(super) fn run(context: &Context) -> Outcome {
    context.container()?;
    let _lock = context.lock("compacting")?;
    let container = context.container()?;
    vzrt::settle(&context.run_dir(), &context.cgroups()?).map_err(|e| failed(&e))?;
    let Some(file) = decide::image_of(&container) else {
        return Err(Failure::new(Exit::Compact, "The private area is a directory, there is nothing to compact"));
    };
    if !file.exists() {
        return Err(Failure::new(Exit::NoImage, format!("Container image {} does not exist", file.display())));
    }
    if decide::is_preallocated(&container) {
        return Err(Failure::new(Exit::Compact, "The image has all its space from the beginning and keeps it")
            .hint(format!("`vzctl convert {} --layout ploop` makes it one that takes what it needs.", context.ctid)));
    }
    let image::Compacted { before_bytes, after_bytes } =
        image::compact(&file).map_err(|e| Failure::because(Exit::Compact, "Unable to compact the image", &e))?;
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    tracing::info!(
        "The image takes {} MiB of the host, it took {} MiB: {} MiB were given back",
        mib(after_bytes),
        mib(before_bytes),
        mib(before_bytes.saturating_sub(after_bytes))
    );
    Ok(Exit::Success)
}
