//! `vzmemcheck`: how much of the node's memory its running containers have and were promised.

use beancounters::overcommit::{COLUMN_NAMES, Columns, Promised};
use clap::{ArgMatches, Command};
use serde_json::{Map, Value};
use vzrt::Ctid;

use super::node::{self, Memory};
use super::{Outcome, Report, Trouble, config_dir, json, json_figure, json_switch, switch};
use crate::config::Container;

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
    let mut rows = Vec::new();
    for state in node::running(&node)? {
        let container = Container::load(&node, state.ctid).map_err(|e| Trouble::from_error(&e))?;
        let settings = container.effective(&node.global);
        let promised = Promised::by(&settings.bounds, settings.vm_overcommit, &machine)
            .map_err(|e| Trouble::new(format!("CT {}: {e}", state.ctid)))?;
        let bytes = Columns::in_bytes(&node::held(&cgroups, &state)?, &promised);
        let row = if absolute { bytes.times(1.0 / MEGABYTE) } else { bytes.as_shares_of(&machine).times(100.0) };
        rows.push((state.ctid, row));
    }
    if matches.get_flag("json") {
        return json(&rows.iter().map(|(ctid, row)| object(*ctid, row)).collect::<Vec<_>>());
    }
    Ok(Report::of(table(&rows, absolute, matches.get_flag("verbose"))))
}

/// With `-v` each container, and below a line what they are together; else that alone.
fn table(rows: &[(Ctid, Columns)], absolute: bool, verbose: bool) -> String {
    let mut out = format!("Output values in {}\n", if absolute { "Mbytes" } else { "%" });
    let label = |text: &str| if verbose { format!("{text:<10} ") } else { String::new() };
    let mut line = |first: &str, cells: Vec<String>| {
        let cells: Vec<String> = cells.iter().map(|cell| format!("{cell:>7}")).collect();
        out.push_str(&format!("{}{}\n", label(first), cells.join(" ")));
    };
    let figures =
        |columns: &Columns| columns.0.map(|f| f.map_or_else(|| "n/a".to_owned(), |f| format!("{f:.2}"))).to_vec();
    line("CTID", COLUMN_NAMES.iter().map(|[first, _]| (*first).to_owned()).collect());
    line("", COLUMN_NAMES.iter().map(|[_, second]| (*second).to_owned()).collect());
    if verbose {
        rows.iter().for_each(|(ctid, columns)| line(&ctid.to_string(), figures(columns)));
    }
    let sum: Columns = rows.iter().map(|(_, columns)| *columns).sum();
    // Without containers nothing is held, and that is known.
    let sum = if rows.is_empty() { Columns([Some(0.0); 8]) } else { sum };
    if verbose {
        let width = label("").len() + COLUMN_NAMES.len() * 8 - 1;
        out.push_str(&format!("{}\n", "-".repeat(width)));
    }
    let cells: Vec<String> = figures(&sum).iter().map(|cell| format!("{cell:>7}")).collect();
    out.push_str(&format!("{}{}\n", label("Summary:"), cells.join(" ")));
    out
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
