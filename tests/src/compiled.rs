//! The tools that tests put into containers: each is one C file, compiled once, static. The reference machine has no compiler; there
//! they are found compiled.

use std::path::PathBuf;
use std::process::Command;

use crate::machine::recipe::fingerprint_of;
use crate::program;

/// A tool: its name and its source, below the checkout.
#[derive(Debug, Clone, Copy)]
pub struct Tool(&'static str, &'static str);

/// What an attacker does.
pub const ATTACK: Tool = Tool("attack", "tests/tests/security_support/attack.c");
/// Takes so many of a resource, and keeps them.
pub const TAKE: Tool = Tool("take", "tests/tests/beancounters/take.c");

/// All of them.
pub const ALL: [Tool; 2] = [ATTACK, TAKE];

impl Tool {
    /// The compiled tool, made if this source has not been compiled yet.
    ///
    /// # Errors
    /// There is no C compiler, or no static C library (the compiler has said so on stderr).
    pub fn compiled(self) -> Result<PathBuf, Box<dyn std::error::Error>> {
        let Self(name, source) = self;
        let source = crate::checkout().join(source);
        let directory = crate::target_dir().join("tools");
        let tool = directory.join(format!("{name}-{}", fingerprint_of(&[&fs_err::read_to_string(&source)?])));
        if tool.exists() {
            return Ok(tool);
        }
        fs_err::create_dir_all(&directory)?;
        // Several test programs may find it missing at once: each compiles its own, and the last one's stays.
        let own = directory.join(format!("{name}-{}.new", std::process::id()));
        let mut cc = Command::new("cc");
        cc.args(["-static", "-O1", "-w", "-o"]).arg(&own).arg(&source).args(["-lutil", "-lrt"]);
        program::run(cc)?;
        fs_err::rename(&own, &tool)?;
        Ok(tool)
    }
}
