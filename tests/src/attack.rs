//! The attacker's tool that security tests put into containers: one C file, compiled once, static. The reference
//! machine has no compiler; there it is found compiled.

use std::path::PathBuf;
use std::process::Command;

use crate::machine::recipe::fingerprint_of;
use crate::program;

/// The compiled tool, made if this source has not been compiled yet.
///
/// # Errors
/// There is no C compiler, or no static C library (the compiler has said so on stderr).
pub fn tool() -> Result<PathBuf, Box<dyn std::error::Error>> {
    let source = crate::checkout().join("tests/tests/security_support/attack.c");
    let directory = crate::target_dir().join("tools");
    let tool = directory.join(format!("attack-{}", fingerprint_of(&[&fs_err::read_to_string(&source)?])));
    if tool.exists() {
        return Ok(tool);
    }
    fs_err::create_dir_all(&directory)?;
    // Several test programs may find it missing at once: each compiles its own, and the last one's stays.
    let own = directory.join(format!("attack-{}.new", std::process::id()));
    let mut cc = Command::new("cc");
    cc.args(["-static", "-O1", "-w", "-o"]).arg(&own).arg(&source).args(["-lutil", "-lrt"]);
    program::run(cc)?;
    fs_err::rename(&own, &tool)?;
    Ok(tool)
}
