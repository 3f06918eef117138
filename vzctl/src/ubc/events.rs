//! Who was refused what: the last refusals of containers, with the command that would have let each pass.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::time::{Duration, SystemTime};

use beancounters::bpf::{self, Refusal};
use serde::Serialize;
use vzrt::Ctid;
use vzrt::cgroup::Host;

use super::{Trouble, chosen, kernel};
use crate::config::Node;
use crate::failure::chain;

/// How often [`follow`] looks. The programs tell one refusal a second of each resource and remember sixteen: few are missed.
const PERIOD: Duration = Duration::from_millis(250);

/// The refusals that the kernel remembers of the containers that run, of these only if any are named; as text or as JSON.
///
/// # Errors
/// They can't be read.
pub(super) fn remembered(node: &Node, containers: &[String], json: bool) -> Result<String, Trouble> {
    let host = Host::detect(std::path::Path::new("/")).map_err(|e| chain(&e))?;
    let mut all = BTreeMap::new();
    for ctid in chosen(node, containers)? {
        all.insert(ctid.get(), refusals(node, &host, ctid)?);
    }
    if json {
        let shown = |(ctid, refusals): &(_, Vec<Refusal>)| {
            (*ctid, refusals.iter().map(|refusal| serde_json::json!(Event::of(*ctid, refusal))).collect::<Vec<_>>())
        };
        let all: BTreeMap<_, _> = all.into_iter().map(|pair| shown(&pair)).collect();
        return serde_json::to_string_pretty(&all).map(|text| text + "\n").map_err(|e| e.to_string());
    }
    Ok(all.iter().map(|(ctid, refusals)| render(*ctid, refusals)).collect())
}

/// Those that are remembered, and from then on each as it happens: lines for a person, or an object of JSON in each line. Ends when nobody reads
/// any more, and if containers are named, when none of them runs any more.
///
/// # Errors
/// They can't be read, or not be written.
pub(super) fn follow(node: &Node, containers: &[String], json: bool, mut out: impl io::Write) -> Result<(), Trouble> {
    let host = Host::detect(std::path::Path::new("/")).map_err(|e| chain(&e))?;
    let mut told = BTreeMap::new();
    loop {
        let chosen = chosen(node, containers)?;
        for &ctid in &chosen {
            let mut new = refusals(node, &host, ctid)?;
            let last = told.entry(ctid).or_insert(0);
            // One that was started anew counts from one.
            if new.last().is_some_and(|refusal| refusal.number < *last) {
                *last = 0;
            }
            new.retain(|refusal| refusal.number > *last);
            *last = new.last().map_or(*last, |refusal| refusal.number);
            let text = if json { lines(ctid.get(), &new)? } else { render(ctid.get(), &new) };
            match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                written => written.map_err(|e| format!("write(stdout): {e}"))?,
            }
        }
        told.retain(|ctid, _| chosen.contains(ctid));
        if !containers.is_empty() && chosen.is_empty() {
            return Ok(());
        }
        std::thread::sleep(PERIOD);
    }
}

/// What the kernel remembers of one container; nothing of one that it does not count.
fn refusals(node: &Node, host: &Host, ctid: Ctid) -> Result<Vec<Refusal>, Trouble> {
    let cgroup = host.container(&node.global.cgroup, ctid);
    let of = |kernel: bpf::Host| kernel.refusals(bpf::id(cgroup.cgroup2())?);
    let found = kernel(cgroup.cgroup2()).and_then(|kernel| kernel.map(of).transpose());
    match found {
        Ok(refusals) => Ok(refusals.unwrap_or_default()),
        // It has ended meanwhile.
        Err(_) if !cgroup.cgroup2().exists() => Ok(Vec::new()),
        Err(e) => Err(chain(&e)),
    }
}

fn lines(ctid: u32, refusals: &[Refusal]) -> Result<String, Trouble> {
    let line = |refusal| {
        serde_json::to_string(&Line { ctid, event: Event::of(ctid, refusal) })
            .map(|line| line + "\n")
            .map_err(|e| e.to_string())
    };
    refusals.iter().map(line).collect()
}

/// A refusal in a line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    ctid: u32,
    #[serde(flatten)]
    event: Event<'a>,
}

/// A refusal in JSON.
#[derive(Debug, Serialize)]
struct Event<'a> {
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
    fn of(ctid: u32, refusal: &'a Refusal) -> Self {
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
fn render(ctid: u32, refusals: &[Refusal]) -> String {
    let mut text = String::new();
    for refusal in refusals {
        let Refusal { resource, bound: value, held, wanted, failcnt, pid, command, at, .. } = refusal;
        let (time, bound) = (time(*at), bound(refusal));
        let who = match pid {
            0 => "a packet".to_owned(),
            pid => format!("{} (pid {pid})", vzrt::log::printable(command)),
        };
        let _ = writeln!(
            text,
            "{time} CT {ctid} {resource}: {who} asked for {wanted}, held {held}, {bound} {value}, refusal {failcnt}\n    \
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
            number: 1,
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
        let line = lines(101, std::slice::from_ref(&refusal)).expect("JSON");
        assert!(
            line.starts_with(r#"{"ctid":101,"time":"1970-01-02T00:00:00Z","resource":"numfile","bound":"barrier""#)
        );
        assert!(line.ends_with("}\n"), "{line}");
    }
}
