//! The list as a table: fixed columns, one blank between them, nothing at the end of a line.

use super::facts::Facts;
use super::field::{Cell, Field};
use super::plain;

pub(super) fn render(fields: &[Field], rows: &[Facts], header: bool, trim: bool) -> String {
    let mut out = String::new();
    if header {
        let titles: Vec<String> = fields.iter().map(|f| padded(f.header.clone(), f.width)).collect();
        push_line(&mut out, &titles);
    }
    for row in rows {
        let cells: Vec<String> = fields
            .iter()
            .enumerate()
            .map(|(at, field)| {
                let cut = trim && at + 1 < fields.len();
                padded(text(&field.cell(row), cut, field), field.width)
            })
            .collect();
        push_line(&mut out, &cells);
    }
    out
}

fn push_line(out: &mut String, cells: &[String]) {
    out.push_str(cells.join(" ").trim_end());
    out.push('\n');
}

fn padded(text: String, width: isize) -> String {
    let columns = width.unsigned_abs();
    if width < 0 { format!("{text:<columns$}") } else { format!("{text:>columns$}") }
}

/// A cell as the table shows it. Of a list that has no room the first is shown whole: half an address is a wrong one.
fn text(cell: &Cell, cut: bool, field: &Field) -> String {
    let number = |n: &Option<u64>| n.map(|n| n.to_string());
    let list = |words: Vec<String>| {
        let words = if cut { &words[..words.len().min(1)] } else { &words };
        (!words.is_empty()).then(|| words.join(" "))
    };
    let shown = match cell {
        Cell::Text(text) => text.as_ref().filter(|t| !t.is_empty()).map(|t| match cut && field.is_text() {
            true => t.chars().take(field.width.unsigned_abs()).collect(),
            false => t.clone(),
        }),
        Cell::List(words) => list(words.clone()),
        Cell::Addresses(addresses) => list(addresses.iter().map(|a| a.ip.to_string()).collect()),
        Cell::Number(n) | Cell::Setting(n) => number(n),
        Cell::Factor(factor) => factor.map(|f| f.to_string()),
        Cell::Switch(on) => on.map(|on| if on { "yes" } else { "no" }.to_owned()),
        Cell::Counter(counter) => counter.as_ref().and_then(|c| number(&c.held)),
        Cell::Quota(quota) => number(&quota.usage),
        Cell::Load(load) => load.map(|[a, b, c]| format!("{a:.2}/{b:.2}/{c:.2}")),
        Cell::Uptime(seconds) => seconds.map(uptime),
    };
    shown.map_or_else(|| "-".to_owned(), |shown| plain(&shown))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole seconds of a time since boot")]
fn uptime(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    format!("{days:03}d{hours:02}h:{minutes:02}m:{:02}s", seconds % 60)
}
