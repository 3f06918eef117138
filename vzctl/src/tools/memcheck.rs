//! `vzmemcheck`: how much of the node's memory its running containers have and were promised.

use beancounters::overcommit::{COLUMN_NAMES, Columns, Machine, Promised};
use clap::{ArgMatches, Command};
use serde_json::{Map, Value};
use vzrt::Ctid;
use vzrt::cgroup::Host;
use vzrt::state::State;

use super::node::{self, Memory};
use super::{Outcome, Report, Trouble, config_dir, json, json_figure, json_switch, switch};
use crate::config::{Container, Node};
use crate::list::plain;

const MEGABYTE: f64 = 1_048_576.0;

pub(super) fn command() -> Command {
    Command::new("vzmemcheck").about("Show how much of the node's memory containers use and were promised").args([
        switch("verbose", 'v', "Show each container"),
        switch("absolute", 'A', "In megabytes, not in percent"),
        json_switch(),
        config_dir(),
    ])
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    node::require_root()?;
    let node = node::open(matches)?;
    let machine = Memory::read()?.for_shares()?;
    let cgroups = node::cgroups()?;
    let absolute = matches.get_flag("absolute");
    let (mut rows, mut complaints) = (Vec::new(), String::new());
    for state in node::running(&node)? {
        match in_bytes(&node, &cgroups, &machine, &state) {
            Ok(bytes) if absolute => rows.push((state.ctid, bytes.times(1.0 / MEGABYTE))),
            Ok(bytes) => rows.push((state.ctid, bytes.as_shares_of(&machine).times(100.0))),
            // The others are told all the same.
            Err(Trouble(lines)) => complaints.push_str(&format!("CT {}: {}\n", state.ctid, plain(&lines.join(": ")))),
        }
    }
    let report = if matches.get_flag("json") {
        json(&rows.iter().map(|(ctid, row)| object(*ctid, row)).collect::<Vec<_>>())?
    } else {
        Report::of(table(&rows, absolute, matches.get_flag("verbose")))
    };
    Ok(Report { exit: u8::from(!complaints.is_empty()), stderr: complaints, ..report })
}

fn in_bytes(node: &Node, cgroups: &Host, machine: &Machine, state: &State) -> Result<Columns, Trouble> {
    let container = Container::load(node, state.ctid).map_err(|e| Trouble::from_error(&e))?;
    let settings = container.effective(&node.global);
    let promised = Promised::by(&settings.bounds, settings.vm_overcommit, machine);
    let promised = promised.map_err(|e| Trouble::from_error(&e))?;
    Ok(Columns::in_bytes(&node::held(cgroups, state)?, &promised))
}

/// With `-v` each container, and below a line what they are together; else that alone.
fn table(rows: &[(Ctid, Columns)], absolute: bool, verbose: bool) -> String {
    let line = |first: &str, cells: &[String]| {
        let first = if verbose { format!("{first:<10} ") } else { String::new() };
        let cells: Vec<String> = cells.iter().map(|cell| format!("{cell:>7}")).collect();
        format!("{first}{}\n", cells.join(" "))
    };
    let figures = |columns: &Columns| columns.0.map(|f| f.map_or_else(|| "n/a".to_owned(), |f| format!("{f:.2}")));
    // Without containers nothing is held, and that is known.
    let sum = if rows.is_empty() { Columns([Some(0.0); 8]) } else { rows.iter().map(|(_, columns)| *columns).sum() };
    let mut out = format!("Output values in {}\n", if absolute { "Mbytes" } else { "%" });
    out.push_str(&line("CTID", &COLUMN_NAMES.map(|[first, _]| first.to_owned())));
    let titles = line("", &COLUMN_NAMES.map(|[_, second]| second.to_owned()));
    out.push_str(&titles);
    if verbose {
        out.extend(rows.iter().map(|(ctid, columns)| line(&ctid.to_string(), &figures(columns))));
        out.push_str(&format!("{}\n", "-".repeat(titles.len() - 1)));
    }
    out + &line("Summary:", &figures(&sum))
}

fn object(ctid: Ctid, columns: &Columns) -> Value {
    let mut object = Map::from_iter([("ctid".to_owned(), ctid.get().into())]);
    for ([first, second], figure) in COLUMN_NAMES.iter().zip(columns.0) {
        object.insert(format!("{}_{second}", first.to_lowercase()), json_figure(figure));
    }
    object.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<(Ctid, Columns)> {
        let [a, b] = ["101", "2147483644"].map(|id| id.parse().unwrap());
        let known = |f: f64| Some(f);
        vec![
            (a, Columns([0.19, 1.93, 1.23, 0.34, 1.38, 0.42, 1.38, 4.94].map(known))),
            (
                b,
                Columns([
                    known(0.27),
                    known(8.69),
                    known(1.94),
                    known(0.49),
                    known(7.19),
                    None,
                    known(2.05),
                    known(f64::INFINITY),
                ]),
            ),
        ]
    }

    #[test]
    fn with_v_it_is_a_row_for_each_container_and_their_sum() {
        assert_eq!(
            table(&rows(), false, true),
            "Output values in %\n\
             CTID        LowMem  LowMem     RAM MemSwap MemSwap   Alloc   Alloc   Alloc\n\
             \u{20}             util  commit    util    util  commit    util  commit   limit\n\
             101           0.19    1.93    1.23    0.34    1.38    0.42    1.38    4.94\n\
             2147483644    0.27    8.69    1.94    0.49    7.19     n/a    2.05     inf\n\
             --------------------------------------------------------------------------\n\
             Summary:      0.46   10.62    3.17    0.83    8.57    0.42    3.43     inf\n"
        );
    }

    #[test]
    fn without_it_the_sum_alone_has_no_label() {
        assert_eq!(
            table(&rows(), true, false),
            "Output values in Mbytes\n\
             \u{20}LowMem  LowMem     RAM MemSwap MemSwap   Alloc   Alloc   Alloc\n\
             \u{20}  util  commit    util    util  commit    util  commit   limit\n\
             \u{20}  0.46   10.62    3.17    0.83    8.57    0.42    3.43     inf\n"
        );
        assert!(table(&[], false, false).ends_with(" 0.00    0.00    0.00    0.00\n"));
    }

    #[test]
    fn in_json_what_is_unknown_and_what_is_unbounded_differ() {
        let (ctid, columns) = rows().pop().unwrap();
        insta::assert_snapshot!(serde_json::to_string_pretty(&object(ctid, &columns)).unwrap());
    }
}
