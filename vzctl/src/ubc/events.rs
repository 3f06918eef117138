//! Who was refused what: the last refusals of a container, with the command that would have let each pass.

use std::fmt::Write as _;
use std::time::SystemTime;

use beancounters::bpf::Refusal;
use serde::Serialize;

/// A refusal in JSON.
#[derive(Debug, Serialize)]
pub(super) struct Event<'a> {
    /// RFC 3339, in UTC.
    time: String,
    resource: &'static str,
    bound: &'static str,
    value: u64,
    held: u64,
    wanted: u64,
    failcnt: u64,
    pid: u32,
    command: &'a str,
    would_pass: String,
}

impl<'a> Event<'a> {
    pub(super) fn of(ctid: u32, refusal: &'a Refusal) -> Self {
        Self {
            time: time(refusal.at),
            resource: refusal.resource.name(),
            bound: bound(refusal),
            value: refusal.bound,
            held: refusal.held,
            wanted: refusal.wanted,
            failcnt: refusal.failcnt,
            pid: refusal.pid,
            command: &refusal.command,
            would_pass: would_pass(ctid, refusal),
        }
    }
}

fn bound(refusal: &Refusal) -> &'static str {
    if refusal.at_limit { "limit" } else { "barrier" }
}

fn time(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()).unwrap_or_default()
}

/// Half as much again as would have been enough: one more is not what a container needs that has come so far.
fn would_pass(ctid: u32, refusal: &Refusal) -> String {
    let needed = refusal.held.saturating_add(refusal.wanted);
    let more = needed.saturating_add(needed / 2);
    format!("vzctl set {ctid} --{} {more}:{more} --save", refusal.resource.name())
}

/// Lines for a person. What a process calls itself is the container's choice.
pub(super) fn render(ctid: u32, refusals: &[Refusal]) -> String {
    let mut text = String::new();
    for refusal in refusals {
        let Refusal { resource, bound: value, held, wanted, failcnt, pid, command, at, .. } = refusal;
        let (time, bound, command) = (time(*at), bound(refusal), vzrt::log::printable(command));
        let _ = writeln!(
            text,
            "{time} CT {ctid} {resource}: {command} (pid {pid}) asked for {wanted}, held {held}, {bound} {value}, refusal {failcnt}\n    \
             would pass: {}",
            would_pass(ctid, refusal)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use beancounters::Resource;

    use super::*;

    #[test]
    fn a_refusal_tells_who_when_and_what_would_help() {
        let refusal = Refusal {
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(86_400),
            resource: Resource::Numfile,
            at_limit: false,
            bound: 100,
            held: 100,
            wanted: 1,
            failcnt: 7,
            pid: 4711,
            tid: 4712,
            command: "a\x1b[31mb".into(),
        };
        let text = render(101, std::slice::from_ref(&refusal));
        assert_eq!(
            text,
            "1970-01-02T00:00:00Z CT 101 numfile: a\\x1b[31mb (pid 4711) asked for 1, held 100, barrier 100, refusal 7\n    \
             would pass: vzctl set 101 --numfile 151:151 --save\n"
        );
    }
}
