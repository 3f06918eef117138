//! The columns of `vztop`: what each shows of a container, and how containers are put in order by it.

use std::cmp::Ordering;

use super::rate::Row;
use crate::list::plain;

/// One of them.
pub(super) struct Column {
    /// As `-o` and `-s` have it.
    pub(super) name: &'static str,
    pub(super) header: &'static str,
    /// In characters; of a text, which is on the left of its column, its most.
    pub(super) width: usize,
    pub(super) help: &'static str,
    cell: fn(&Row) -> Cell<'_>,
}

/// What is in one.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Cell<'a> {
    Number(u32),
    Text(Option<&'a str>),
    Percent(Option<f64>),
    /// Bytes, or bytes in a second.
    Bytes(Option<f64>),
    /// Bytes that nothing may bound: infinite then.
    Bound(Option<f64>),
    Count(Option<f64>),
}

/// All of them, in the order in which they are shown.
pub(super) const ALL: [Column; 19] = [
    column("ctid", "CTID", 10, "Number of the container", |r| Cell::Number(r.ctid.get())),
    column("name", "NAME", 16, "Name", |r| Cell::Text(r.now.name.as_deref())),
    column("cpu", "CPU%", 6, "CPU time used, percent of one CPU", |r| Cell::Percent(Some(r.cpu_percent))),
    column("entitled", "ENT%", 6, "Its part of the host by weight and limit, percent of one CPU", |r| {
        Cell::Percent(r.entitled_percent)
    }),
    column("throttled", "THR%", 6, "CPU time that its limit kept from it", |r| Cell::Percent(r.throttled_percent)),
    column("read", "READ/s", 7, "Bytes read from disks", |r| Cell::Bytes(r.read_bytes_per_s)),
    column("write", "WRITE/s", 7, "Bytes written to disks", |r| Cell::Bytes(r.written_bytes_per_s)),
    column("reads", "RD/s", 6, "Requests to read", |r| Cell::Count(r.reads_per_s)),
    column("writes", "WR/s", 6, "Requests to write", |r| Cell::Count(r.writes_per_s)),
    column("pcpu", "PC%", 5, "Pressure: some task waited for a CPU, percent of ten seconds", |r| {
        Cell::Percent(r.now.activity.waiting.cpu_percent)
    }),
    column("pio", "PI%", 5, "The same for block I/O", |r| Cell::Percent(r.now.activity.waiting.io_percent)),
    column("pmem", "PM%", 5, "The same for memory", |r| Cell::Percent(r.now.activity.waiting.memory_percent)),
    column("mem", "MEM", 6, "Memory used, page cache included", |r| Cell::Bytes(of(r.now.activity.memory_bytes))),
    column("limit", "LIMIT", 6, "Most of it", |r| Cell::Bound(memory_limit(r))),
    column("swap", "SWAP", 6, "What is swapped out", |r| Cell::Bytes(of(r.now.activity.swap_bytes))),
    column("in", "IN/s", 6, "Bytes received on venet0", |r| Cell::Bytes(r.network_in_bytes_per_s)),
    column("out", "OUT/s", 6, "Bytes sent on venet0", |r| Cell::Bytes(r.network_out_bytes_per_s)),
    column("io", "IO/s", 7, "Bytes read and written together", |r| {
        Cell::Bytes(r.read_bytes_per_s.zip(r.written_bytes_per_s).map(|(read, written)| read + written))
    }),
    column("tasks", "TASKS", 6, "Processes and threads", |r| Cell::Count(of(r.now.activity.tasks))),
];

/// What is shown unless `-o` says what.
pub(super) const USUAL: &str =
    "ctid,cpu,entitled,throttled,read,write,reads,writes,pcpu,pio,pmem,mem,limit,swap,in,out,tasks";

const fn column(
    name: &'static str,
    header: &'static str,
    width: usize,
    help: &'static str,
    cell: fn(&Row) -> Cell<'_>,
) -> Column {
    Column { name, header, width, help, cell }
}

/// The one of this name.
pub(super) fn named(name: &str) -> Option<&'static Column> {
    ALL.iter().find(|column| column.name == name)
}

#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
fn of(number: Option<u64>) -> Option<f64> {
    number.map(|n| n as f64)
}

fn memory_limit(row: &Row) -> Option<f64> {
    let activity = &row.now.activity;
    activity.memory_bytes.map(|_| of(activity.memory_limit_bytes).unwrap_or(f64::INFINITY))
}

impl Column {
    /// The container's text in this column, as a terminal may have it: without padding.
    pub(super) fn text(&self, row: &Row) -> String {
        let shown = match (self.cell)(row) {
            Cell::Number(number) => Some(number.to_string()),
            Cell::Text(text) => text.map(|text| plain(text).chars().take(self.width).collect()),
            Cell::Percent(percent) => percent.map(|p| format!("{p:.1}")),
            Cell::Bytes(bytes) | Cell::Bound(bytes) => bytes.map(scaled),
            Cell::Count(count) => count.map(|c| if c < 99_999.5 { format!("{c:.0}") } else { scaled(c) }),
        };
        shown.unwrap_or_else(|| "-".to_owned())
    }

    /// To its width.
    pub(super) fn padded(&self, text: &str) -> String {
        let width = self.width;
        if self.name == "name" { format!("{text:<width$}") } else { format!("{text:>width$}") }
    }

    /// The order by this column: the largest first, names and numbers of containers from their beginning; what is not known last. Of equal ones the
    /// lower number comes first, whichever way.
    pub(super) fn order(&self, reversed: bool, a: &Row, b: &Row) -> Ordering {
        let (one, other) = ((self.cell)(a), (self.cell)(b));
        let turn = |order: Ordering| if reversed { order.reverse() } else { order };
        let by_column = match (one, other) {
            (Cell::Number(one), Cell::Number(other)) => turn(one.cmp(&other)),
            (Cell::Text(one), Cell::Text(other)) => known_first(one, other, |a, b| turn(a.cmp(b))),
            _ => known_first(one.amount(), other.amount(), |a, b| turn(b.total_cmp(a))),
        };
        by_column.then_with(|| a.ctid.cmp(&b.ctid))
    }
}

impl Cell<'_> {
    fn amount(self) -> Option<f64> {
        match self {
            Self::Percent(n) | Self::Bytes(n) | Self::Bound(n) | Self::Count(n) => n,
            Self::Number(_) | Self::Text(_) => None,
        }
    }
}

fn known_first<T>(a: Option<T>, b: Option<T>, compare: impl FnOnce(&T, &T) -> Ordering) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => compare(&a, &b),
        (a, b) => b.is_some().cmp(&a.is_some()),
    }
}

/// Three digits and a letter, by 1024: `0`, `980`, `1.5K`, `12M`.
pub(super) fn scaled(amount: f64) -> String {
    if amount.is_infinite() {
        return "inf".to_owned();
    }
    let mut rest = amount;
    for unit in ["", "K", "M", "G", "T", "P"] {
        // What would be rounded to four digits is the next unit's.
        if rest < 999.5 {
            return if rest < 9.95 && !unit.is_empty() {
                format!("{rest:.1}{unit}")
            } else {
                format!("{rest:.0}{unit}")
            };
        }
        rest /= 1024.0;
    }
    format!("{rest:.0}E")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::rate::Round;
    use super::super::rate::tests::{look, sample};
    use super::*;

    fn rows(containers: &[(u32, u64)]) -> Vec<Row> {
        let at = Instant::now();
        let of = |n: fn(u64) -> u64| containers.iter().map(|(id, a)| (*id, sample(n(*a)))).collect::<Vec<_>>();
        Round::between(&look(at, &of(|_| 0)), look(at + Duration::from_secs(1), &of(|n| n))).rows
    }

    fn order(by: &str, reversed: bool, mut rows: Vec<Row>) -> Vec<u32> {
        let by = named(by).unwrap();
        rows.sort_by(|a, b| by.order(reversed, a, b));
        rows.iter().map(|row| row.ctid.get()).collect()
    }

    #[test]
    fn the_largest_comes_first_and_equal_ones_by_number() {
        let made = || rows(&[(101, 5), (102, 50), (103, 5), (104, 7)]);
        assert_eq!(order("cpu", false, made()), [102, 104, 101, 103]);
        assert_eq!(order("cpu", true, made()), [101, 103, 104, 102]);
        assert_eq!(order("ctid", false, made()), [101, 102, 103, 104]);
        assert_eq!(order("ctid", true, made()), [104, 103, 102, 101]);
    }

    #[test]
    fn what_is_not_known_comes_last_whichever_way() {
        let mut made = rows(&[(101, 5), (102, 50)]);
        made[0].throttled_percent = None;
        made[1].now.name = Some("web".to_owned());
        for reversed in [false, true] {
            assert_eq!(order("throttled", reversed, made.clone()), [102, 101]);
            assert_eq!(order("name", reversed, made.clone()), [102, 101]);
        }
    }

    #[test]
    fn a_name_does_nothing_to_a_terminal_and_no_column_is_overflown() {
        let mut made = rows(&[(u32::from(u16::MAX) * 30_000, u64::from(u32::MAX))]);
        made[0].now.name = Some("\u{1b}[2Jevil\n and much too long for it".to_owned());
        for column in &ALL {
            let text = column.text(&made[0]);
            // Percent are of CPUs: this one would have a thousand of them.
            let fits = text.chars().count() <= column.width || matches!((column.cell)(&made[0]), Cell::Percent(_));
            assert!(fits, "{}: {text}", column.name);
            assert!(!text.contains(char::is_control), "{text:?}");
        }
        assert_eq!(named("name").unwrap().text(&made[0]), "?[2Jevil? and mu");
    }

    #[test]
    fn amounts_have_three_digits() {
        for (amount, text) in [
            (0.0, "0"),
            (999.0, "999"),
            (1000.0, "1.0K"),
            (1536.0, "1.5K"),
            (1_048_575.0, "1.0M"),
            (12.0 * 1024.0 * 1024.0, "12M"),
            (f64::INFINITY, "inf"),
            (1.9e19, "16E"),
        ] {
            assert_eq!(scaled(amount), text, "{amount}");
        }
    }

    #[test]
    fn unlimited_memory_is_inf_and_uncounted_a_dash() {
        let mut made = rows(&[(101, 5)]);
        let limit = named("limit").unwrap();
        assert_eq!(limit.text(&made[0]), "inf");
        made[0].now.activity.memory_limit_bytes = Some(512 << 20);
        assert_eq!(limit.text(&made[0]), "512M");
        made[0].now.activity.memory_bytes = None;
        assert_eq!(limit.text(&made[0]), "-");
        assert_eq!(named("pcpu").unwrap().text(&made[0]), "-");
    }

    #[test]
    fn names_are_each_ones_own_and_the_usual_ones_are_there() {
        for (at, column) in ALL.iter().enumerate() {
            assert_eq!(ALL.iter().position(|other| other.name == column.name), Some(at));
        }
        assert!(USUAL.split(',').all(|name| named(name).is_some()));
    }
}
