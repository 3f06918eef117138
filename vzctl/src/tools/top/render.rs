//! A round as text: lines for a terminal or a file, or a JSON document.

use serde_json::{Value, json};

use super::column::{Column, scaled};
use super::rate::{Round, Row};

/// What is shown, and how it is put in order.
pub(super) struct Style {
    pub(super) columns: Vec<&'static Column>,
    pub(super) sort: &'static Column,
    pub(super) reversed: bool,
}

impl Style {
    /// Puts the containers in order.
    pub(super) fn sort(&self, round: &mut Round) {
        round.rows.sort_by(|a, b| self.sort.order(self.reversed, a, b));
    }

    /// The titles in their columns, and nothing at the end of the line.
    pub(super) fn titles(&self) -> String {
        let titles: Vec<String> = self.columns.iter().map(|c| c.padded(c.header)).collect();
        titles.join(" ").trim_end().to_owned()
    }

    /// The line of a container.
    pub(super) fn line(&self, row: &Row) -> String {
        let cells: Vec<String> = self.columns.iter().map(|c| c.padded(&c.text(row))).collect();
        cells.join(" ").trim_end().to_owned()
    }
}

/// The line of the host.
#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
pub(super) fn summary(round: &Round) -> String {
    let machine = &round.machine;
    let [one, five, fifteen] = machine.load;
    let part = |used: u64, all: u64| format!("{} of {}", scaled(used as f64), scaled(all as f64));
    format!(
        "host: load {one:.2} {five:.2} {fifteen:.2}, CPU {:.1}% of {}%, memory {}, swap {}; {} running",
        round.cpu_percent,
        machine.cpus * 100,
        part(machine.memory_used_bytes, machine.memory_bytes),
        part(machine.swap_used_bytes, machine.swap_bytes),
        round.rows.len()
    )
}

/// A round for a file: the host, the titles, the containers, and an empty line.
pub(super) fn text(round: &Round, style: &Style) -> String {
    let rows = round.rows.iter().map(|row| style.line(row));
    let lines = [summary(round), style.titles()].into_iter().chain(rows);
    lines.map(|line| line + "\n").collect::<String>() + "\n"
}

/// A round as one line of JSON: rates over the interval, and the counters they are of. What is not counted is `null`.
pub(super) fn json(round: &Round) -> String {
    let machine = &round.machine;
    let [one, five, fifteen] = machine.load.map(|load| figure(f64::from(load)));
    let document = json!({
        "interval_s": (round.interval.as_secs_f64() * 1000.0).round() / 1000.0,
        "host": {
            "load": [one, five, fifteen],
            "cpus": machine.cpus,
            "cpu_percent": figure(round.cpu_percent),
            "cpu_busy_ms": machine.busy.as_millis(),
            "memory_bytes": machine.memory_bytes,
            "memory_used_bytes": machine.memory_used_bytes,
            "swap_bytes": machine.swap_bytes,
            "swap_used_bytes": machine.swap_used_bytes,
        },
        "containers": round.rows.iter().map(container).collect::<Vec<_>>(),
    });
    document.to_string() + "\n"
}

fn container(row: &Row) -> Value {
    let a = &row.now.activity;
    let limit = match (a.memory_bytes, a.memory_limit_bytes) {
        (Some(_), None) => json!("unlimited"),
        (_, limit) => json!(limit),
    };
    let rate = |rate: Option<f64>| rate.map(figure);
    json!({
        "ctid": row.ctid.get(),
        "name": row.now.name,
        "cpu_percent": figure(row.cpu_percent),
        "cpu_usec": a.cpu.as_micros(),
        "entitled_percent": rate(row.entitled_percent),
        "cpuunits": a.cpuunits,
        "cpu_limit_percent": a.cpu_limit_milli.map(|milli| milli / 10),
        "throttled_percent": rate(row.throttled_percent),
        "throttled_usec": a.throttled.map(|t| t.as_micros()),
        "read_bytes_per_s": rate(row.read_bytes_per_s),
        "read_bytes": a.io.map(|io| io.read_bytes),
        "written_bytes_per_s": rate(row.written_bytes_per_s),
        "written_bytes": a.io.map(|io| io.written_bytes),
        "reads_per_s": rate(row.reads_per_s),
        "reads": a.io.map(|io| io.reads),
        "writes_per_s": rate(row.writes_per_s),
        "writes": a.io.map(|io| io.writes),
        "pressure_cpu_percent": a.waiting.cpu_percent,
        "pressure_io_percent": a.waiting.io_percent,
        "pressure_memory_percent": a.waiting.memory_percent,
        "memory_bytes": a.memory_bytes,
        "memory_limit_bytes": limit,
        "swap_used_bytes": a.swap_bytes,
        "network_in_bytes_per_s": rate(row.network_in_bytes_per_s),
        "network_in_bytes": row.now.network.map(|n| n.in_bytes),
        "network_out_bytes_per_s": rate(row.network_out_bytes_per_s),
        "network_out_bytes": row.now.network.map(|n| n.out_bytes),
        "tasks": a.tasks,
    })
}

/// Two decimals are more than any of these has.
fn figure(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::column::named;
    use super::super::rate::tests::{look, sample};
    use super::*;

    fn round() -> Round {
        let at = Instant::now();
        let after = look(at + Duration::from_secs(1), &[(101, sample(500))]);
        Round::between(&look(at, &[(101, sample(0))]), after)
    }

    #[test]
    fn a_round_is_the_host_the_titles_and_a_line_for_each_container() {
        let columns = ["ctid", "cpu", "write", "limit"].map(|name| named(name).unwrap()).to_vec();
        let style = Style { columns, sort: named("cpu").unwrap(), reversed: false };
        assert_eq!(
            text(&round(), &style),
            "host: load 0.50 0.25 0.00, CPU 0.0% of 400%, memory 512M of 1.0G, swap 0 of 0; 1 running\n\
             \x20     CTID   CPU% WRITE/s  LIMIT\n\
             \x20      101   50.0    1.0K    inf\n\n"
        );
    }

    #[test]
    fn json_is_one_line_with_rates_and_counters() {
        let text = json(&round());
        assert_eq!(text.matches('\n').count(), 1);
        let value: Value = serde_json::from_str(&text).unwrap();
        let container = &value["containers"][0];
        assert_eq!(value["interval_s"], 1.0);
        assert_eq!((&container["cpu_percent"], &container["cpu_usec"]), (&json!(50.0), &json!(500_000)));
        assert_eq!((&container["written_bytes_per_s"], &container["written_bytes"]), (&json!(1000.0), &json!(1000)));
        assert_eq!(container["memory_limit_bytes"], "unlimited");
        assert!(container["pressure_io_percent"].is_null() && container["swap_used_bytes"].is_null());
    }
}
