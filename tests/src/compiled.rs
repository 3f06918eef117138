//! The tools that tests put into containers: each is one C file, compiled once, static. The reference machine has no compiler; there
//! they are found compiled.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::machine::recipe::fingerprint_of;
use crate::node::Node;
use crate::program;

/// A tool: its name and its source, below the checkout.
#[derive(Debug, Clone, Copy)]
pub struct Tool(&'static str, &'static str);

/// What an attacker does.
pub const ATTACK: Tool = Tool("attack", "tests/tests/security_support/attack.c");
/// Takes so many of a resource, and keeps them.
pub const TAKE: Tool = Tool("take", "tests/tests/beancounters/take.c");
/// Fills a file system and says how far it came.
pub const DISK: Tool = Tool("disk", "tests/tests/diskquota/disk.c");
/// Does some work and says how long it took: for `bench`.
pub const WORK: Tool = Tool("work", "tests/src/bin/bench/work.c");
/// An init that tells when it ran: for `bench`.
pub const TICK: Tool = Tool("tick", "tests/src/bin/bench/tick.c");

/// Sleeps, works a little and says how late it woke up: for `fairness`.
pub const WAKE: Tool = Tool("wake", "tests/src/bin/fairness/wake.c");

/// Keeps a disk busy: for `fairness`.
pub const IO: Tool = Tool("io", "tests/src/bin/fairness/io.c");

/// All of them.
pub const ALL: [Tool; 7] = [ATTACK, TAKE, DISK, WORK, TICK, WAKE, IO];

impl Tool {
    /// The compiled tool, made if this source has not been compiled yet.
    ///
    /// # Errors
    /// There is no C compiler, or no static C library (the compiler has said so on stderr).
    pub fn compiled(self) -> Result<PathBuf, Box<dyn std::error::Error>> {
        self.compiled_in(&crate::target_dir().join("tools"))
    }

    /// Puts it into a running container, as `/NAME`.
    ///
    /// # Panics
    /// It can't be.
    pub fn put(self, node: &Node, ctid: u32) {
        let tool = File::open(self.compiled().expect("the tool")).expect("the tool");
        let name = self.0;
        let mut put =
            node.command("vzctl", ["exec2", &ctid.to_string(), &format!("cat > /{name} && chmod 755 /{name}")]);
        let status = put.stdin(tool).stdout(Stdio::null()).status().expect("vzctl");
        assert!(status.success(), "copying {name} into the container: {status}");
    }

    fn compiled_in(self, directory: &Path) -> Result<PathBuf, Box<dyn std::error::Error>> {
        // One at a time within this program: its tests are threads, and share the new file's name below.
        static COMPILING: Mutex<()> = Mutex::new(());
        let _compiling = COMPILING.lock().unwrap_or_else(PoisonError::into_inner);
        let Self(name, source) = self;
        let source = crate::checkout().join(source);
        let tool = directory.join(format!("{name}-{}", fingerprint_of(&[&fs_err::read_to_string(&source)?])));
        if tool.exists() {
            return Ok(tool);
        }
        fs_err::create_dir_all(directory)?;
        // Several programs may find it missing at once: each compiles its own, and the last one's stays.
        let own = directory.join(format!("{name}-{}.new", std::process::id()));
        let mut cc = Command::new("cc");
        cc.args(["-static", "-O2", "-w", "-o"]).arg(&own).arg(&source).args(["-lutil", "-lrt"]);
        program::run(cc)?;
        fs_err::rename(&own, &tool)?;
        Ok(tool)
    }
}

#[cfg(test)]
mod tests {
    use super::TAKE;

    #[test]
    fn tests_of_one_program_that_find_it_missing_at_once_all_get_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let tools = std::thread::scope(|scope| {
            let compiling: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| TAKE.compiled_in(directory.path()).map_err(|why| why.to_string())))
                .collect();
            compiling.into_iter().map(|one| one.join().expect("no panic")).collect::<Result<Vec<_>, _>>()
        });
        let tools = tools.expect("each has it");
        assert!(tools[0].exists() && tools.iter().all(|tool| *tool == tools[0]), "{tools:?}");
    }
}
