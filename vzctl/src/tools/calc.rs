//! `vzcalc`: how much of the node one container has, was promised, and may take.

use beancounters::overcommit::{Promised, Share, shares};
use clap::{Arg, ArgMatches, Command};
use serde_json::json;

use super::node::{self, Memory};
use super::{Outcome, Report, Trouble, config_dir, json, json_figure, json_switch, switch};
use crate::config::{Container, names};

const HEADER: &str = "Resource     Current(%)  Promised(%)  Max(%)";

pub(super) fn command() -> Command {
    Command::new("vzcalc").about("Show how much of the node a container uses and was promised").args([
        switch("verbose", 'v', "Show each resource"),
        json_switch(),
        config_dir(),
        Arg::new("ctid").value_name("CTID").required(true).help("A container by number or name"),
    ])
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    node::require_root()?;
    let node = node::open(matches)?;
    let who = matches.get_one::<String>("ctid").map_or("", String::as_str);
    let ctid = names::resolve(&node, who).map_err(|e| Trouble::from_error(&e))?;
    let machine = Memory::read()?.for_shares()?;
    let settings = Container::load(&node, ctid).map_err(|e| Trouble::from_error(&e))?.effective(&node.global);
    let promised = Promised::by(&settings.bounds, settings.vm_overcommit, &machine);
    let promised = promised.map_err(|e| Trouble::from_error(&e))?;
    let held = match node::state(&node, ctid)? {
        Some(state) => Some(node::held(&node::cgroups()?, &state)?),
        None => None,
    };
    let rows = shares(held.as_ref(), &promised, &machine);
    if matches.get_flag("json") {
        return json(&rows.map(|row| {
            let figure = |share: Option<f64>| json_figure(share.map(|share| share * 100.0));
            json!({
                "resource": row.name, "current": figure(row.current), "promised": figure(row.promised), "max": figure(row.max),
            })
        }));
    }
    Ok(Report::of(table(&rows, matches.get_flag("verbose"))))
}

/// The sum-up is the last row; the others come with `-v`.
fn table(rows: &[Share], verbose: bool) -> String {
    let figure = |share: Option<f64>| share.map_or_else(|| "n/a".to_owned(), |share| format!("{:.2}", share * 100.0));
    let line = |row: &Share| {
        let figures = [row.current, row.promised, row.max].map(figure);
        format!("{:<11}{:>10} {:>10} {:>10}\n", row.name, figures[0], figures[1], figures[2])
    };
    let split = rows.len().saturating_sub(1);
    let details: String = rows[..split].iter().map(line).collect();
    let dashes = "-".repeat(HEADER.len());
    let details = if verbose { format!("{details}{dashes}\n") } else { String::new() };
    let sum: String = rows[split..].iter().map(line).collect();
    format!("{HEADER}\n{details}{sum}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> [Share; 3] {
        [
            Share { name: "Low Mem", current: Some(0.0123), promised: Some(0.5), max: Some(1.25) },
            Share { name: "Total RAM", current: Some(0.1), promised: None, max: None },
            Share { name: "Memory", current: None, promised: Some(0.5), max: Some(f64::INFINITY) },
        ]
    }

    #[test]
    fn the_sum_up_is_one_line() {
        assert_eq!(
            table(&rows(), false),
            "Resource     Current(%)  Promised(%)  Max(%)\n\
             Memory            n/a      50.00        inf\n"
        );
    }

    #[test]
    fn with_v_each_resource_stands_above_it() {
        assert_eq!(
            table(&rows(), true),
            "Resource     Current(%)  Promised(%)  Max(%)\n\
             Low Mem          1.23      50.00     125.00\n\
             Total RAM       10.00        n/a        n/a\n\
             --------------------------------------------\n\
             Memory            n/a      50.00        inf\n"
        );
    }
}
