//! A small program in a container that takes so many of a resource, and keeps them: `tests/beancounters/take.c`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use crate::compiled::TAKE;
use crate::node::Node;
use crate::skips::skip;

/// Whether the tool can be had; if not, the test that asks is skipped.
pub fn can_take(test: &str) -> bool {
    let tool = TAKE.compiled();
    if let Err(error) = &tool {
        eprintln!("{error}");
        skip(test, "needs a C compiler (cc) and static libraries");
    }
    tool.is_ok()
}

/// Copies the tool into a running container.
///
/// # Panics
/// It is not there, or cannot be copied.
pub fn put_tool(node: &Node, ctid: u32) {
    TAKE.put(node, ctid);
}

/// The tool, holding what it has taken until it is dropped.
#[derive(Debug)]
pub struct Taking {
    child: Child,
    /// How many it got and why no more: `took 40 all`, `took 39 EAGAIN`. Nothing, if it was killed before it could say so.
    pub said: String,
}

impl Taking {
    /// In container 101.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn of(node: &Node, kind: &str, count: u64) -> Self {
        Self::in_container(node, 101, kind, count)
    }

    /// In this one, which has the tool.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn in_container(node: &Node, ctid: u32, kind: &str, count: u64) -> Self {
        let mut command = node.command("vzctl", ["exec2", &ctid.to_string(), &format!("exec /take {kind} {count}")]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("vzctl");
        let mut said = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut said).expect("a line");
        Self { child, said: said.trim_end().to_owned() }
    }

    /// Whether it holds what it has taken: it has not ended.
    ///
    /// # Panics
    /// It cannot be asked.
    pub fn holds(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // Killed by itself, with what it has forked.
        let _ = self.child.wait();
    }
}
