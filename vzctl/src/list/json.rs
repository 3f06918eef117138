//! The list as JSON, laid out as vzctl 4 laid it out, but with every string escaped.

use super::facts::Facts;
use super::field::{Cell, CounterCell, Field};
use super::is_unseen;

pub(super) fn render(fields: &[Field], rows: &[Facts]) -> String {
    if rows.is_empty() {
        return "[]\n".to_owned();
    }
    let row = |row: &Facts| {
        let pairs: Vec<String> =
            fields.iter().map(|f| format!("\n    {}: {}", string(&f.name), value(&f.cell(row)))).collect();
        format!("\n  {{{}\n  }}", pairs.join(","))
    };
    format!("[{}\n]\n", rows.iter().map(row).collect::<Vec<_>>().join(","))
}

fn value(cell: &Cell) -> String {
    let number = |n: &Option<u64>| n.map_or_else(null, |n| n.to_string());
    let array = |words: &mut dyn Iterator<Item = String>| {
        format!("[{}]", words.map(|w| string(&w)).collect::<Vec<_>>().join(", "))
    };
    match cell {
        Cell::Text(text) => text.as_ref().map_or_else(null, |t| string(t)),
        Cell::List(words) => array(&mut words.iter().cloned()),
        Cell::Addresses(addresses) => array(&mut addresses.iter().map(|a| a.ip.to_string())),
        Cell::Number(n) => number(n),
        Cell::Setting(n) => n.unwrap_or(0).to_string(),
        Cell::Factor(factor) => factor.map_or_else(null, |f| f.to_string()),
        Cell::Switch(on) => on.map_or_else(null, |on| on.to_string()),
        Cell::Counter(None) => null(),
        Cell::Counter(Some(c)) => object(&[
            ("held", counted(c, c.held)),
            ("maxheld", counted(c, c.maxheld)),
            ("barrier", c.barrier.to_string()),
            ("limit", c.limit.to_string()),
            ("failcnt", counted(c, c.failcnt)),
        ]),
        Cell::Quota(q) => {
            object(&[("usage", number(&q.usage)), ("softlimit", number(&q.soft)), ("hardlimit", number(&q.hard))])
        }
        Cell::Load(load) => load.map_or_else(null, |[a, b, c]| format!("[{a:.2}, {b:.2}, {c:.2}]")),
        Cell::Uptime(seconds) => format!("{:.3}", seconds.unwrap_or(0.0)),
    }
}

fn counted(counter: &CounterCell, value: Option<u64>) -> String {
    let value = if counter.stopped { Some(0) } else { value };
    value.map_or_else(null, |n| n.to_string())
}

fn null() -> String {
    "null".to_owned()
}

fn object(pairs: &[(&str, String)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("\n      \"{name}\": {value}")).collect();
    format!("{{{}\n    }}", pairs.join(","))
}

/// A JSON string. What would act on a terminal is escaped too, which JSON asks only of some.
fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            // All of these are in the basic plane: one unit of UTF-16.
            c if is_unseen(c) => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
