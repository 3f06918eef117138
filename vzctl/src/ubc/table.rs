//! The table that `vzubc` prints.

use std::fmt::Write as _;

use beancounters::amount::UNLIMITED;
use beancounters::parse::Block;
use beancounters::{Counter, Resource, Unit};

use super::saved::Saved;

/// What is shown of the rows, and how.
#[derive(Debug, Default)]
pub(super) struct Style<'a> {
    /// Only rows with failures, or at least so near to their limit.
    pub(super) quiet: Option<Thresholds>,
    /// Rows whose barrier is unlimited too.
    pub(super) verbose: bool,
    /// Rows that [`Style::quiet`] would show are coloured.
    pub(super) colour: bool,
    /// Failures are counted from these on.
    pub(super) failures_since: Option<&'a Saved>,
    /// A column with how much held has changed since these.
    pub(super) held_since: Option<&'a Saved>,
    /// Rows whose maxheld is only the most that anybody has seen: it is marked with `~`.
    pub(super) sampled: &'a [(u32, Resource)],
}

/// Of held and of maxheld to the limit, from which a row is worth attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Thresholds {
    pub(super) held: f64,
    pub(super) maxheld: f64,
}

impl Default for Thresholds {
    /// Those of vzubc.
    fn default() -> Self {
        Self { held: 0.5, maxheld: 0.8 }
    }
}

/// One row as it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) resource: Resource,
    pub(super) counter: Counter,
    /// Failures, of the container's life or since the last look.
    pub(super) failures: u64,
    /// How much held has changed since the last look, and whether that was asked for.
    pub(super) change: Option<i128>,
    /// Whether maxheld is only the most that anybody has seen.
    pub(super) is_sampled: bool,
}

impl Row {
    fn is_worth_attention(&self, thresholds: Thresholds) -> bool {
        self.failures > 0
            || self.change.is_some_and(|change| change != 0)
            || ratio(self.counter.held, self.counter.limit).is_some_and(|r| r >= thresholds.held)
            || ratio(self.counter.maxheld, self.counter.limit).is_some_and(|r| r >= thresholds.maxheld)
    }
}

/// The rows of a container that are to be shown.
pub(super) fn rows(block: &Block, style: &Style<'_>) -> Vec<Row> {
    let all = block.rows.iter().map(|&(resource, counter)| {
        let before = style.failures_since.map_or(0, |saved| saved.failcnt(block.id, resource));
        // A container that was started anew has counted from zero.
        let failures = counter.failcnt.checked_sub(before).unwrap_or(counter.failcnt);
        let change =
            style.held_since.map(|saved| i128::from(counter.held) - i128::from(saved.held(block.id, resource)));
        Row { resource, counter, failures, change, is_sampled: style.sampled.contains(&(block.id, resource)) }
    });
    let is_bounded = |row: &Row| style.verbose || row.counter.barrier < UNLIMITED;
    let is_wanted = |row: &Row| match style.quiet {
        Some(thresholds) => row.is_worth_attention(thresholds),
        None => is_bounded(row) || row.failures > 0,
    };
    all.filter(is_wanted).collect()
}

/// The tables of all containers that have something to show.
pub(super) fn render(blocks: &[Block], style: &Style<'_>) -> String {
    let mut text = String::new();
    for block in blocks {
        let rows = rows(block, style);
        if !rows.is_empty() {
            container(&mut text, block.id, &rows, style);
        }
    }
    text
}

const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const PLAIN: &str = "\x1b[0m";

fn container(text: &mut String, id: u32, rows: &[Row], style: &Style<'_>) {
    let title = format!("CT {id}");
    let sign = if style.failures_since.is_some() { "+" } else { "" };
    let (delta, dashes) = if style.held_since.is_some() { ("   +/-|", "------+") } else { ("", "") };
    let _ = writeln!(text, "{}", "-".repeat(64 + dashes.len()));
    let _ = writeln!(text, "{title:<13}| HELD Bar% Lim%|{delta} MAXH Bar% Lim%| BAR | LIM |{sign:>1}FAIL");
    let _ = writeln!(text, "-------------+---------------+{dashes}---------------+-----+-----+------");
    for row in rows {
        let colour = match row {
            _ if !style.colour => None,
            row if row.failures > 0 => Some(RED),
            row if row.is_worth_attention(style.quiet.unwrap_or_default()) => Some(YELLOW),
            _ => None,
        };
        let line = line(row);
        let _ = match colour {
            Some(colour) => writeln!(text, "{colour}{line}{PLAIN}"),
            None => writeln!(text, "{line}"),
        };
    }
}

fn line(row: &Row) -> String {
    let Row { resource, counter: Counter { held, maxheld, barrier, limit, .. }, failures, change, is_sampled } = *row;
    let size = |count: u64| human(in_bytes(resource, count));
    let delta = change.map_or(String::new(), |change| {
        let sign = if change < 0 { "-" } else { "+" };
        let amount = u64::try_from(change.unsigned_abs()).unwrap_or(u64::MAX);
        if change == 0 { format!("{:>6}|", "- ") } else { format!("{:>6}|", format!("{sign}{}", size(amount))) }
    });
    format!(
        "{:>13}|{:>5} {:>4} {:>4}|{delta}{:>5} {:>4} {:>4}|{:>5}|{:>5}|{:>6}",
        resource.name(),
        size(held),
        percent(held, barrier),
        percent(held, limit),
        if is_sampled && maxheld > 0 { about(in_bytes(resource, maxheld)) } else { size(maxheld) },
        percent(maxheld, barrier),
        percent(maxheld, limit),
        size(barrier),
        size(limit),
        human(failures),
    )
}

/// Pages as bytes; everything else as it is.
fn in_bytes(resource: Resource, count: u64) -> u64 {
    match resource.unit() {
        unit @ Unit::Pages if count < UNLIMITED => count.saturating_mul(unit.bytes().unwrap_or(1)),
        _ => count,
    }
}

/// At most five characters: `512`, `1.25K`, `13.7M`, `1023G`; `- ` for nothing and for no end.
pub(super) fn human(count: u64) -> String {
    rounded(count, 3)
}

/// What is not known exactly, in as many characters: `~1.3K`, `~14M`.
fn about(count: u64) -> String {
    format!("~{}", rounded(count, 2))
}

/// With so many digits, three if there is no point among them.
fn rounded(count: u64, digits: usize) -> String {
    if count == 0 || count >= UNLIMITED {
        return "- ".to_owned();
    }
    if count < 1024 {
        return count.to_string();
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = count as f64;
    let mut suffixes = "KMGTPE".chars();
    let mut suffix = ' ';
    // Not 1024: 1023.9 would be rounded to it.
    let most = if digits < 3 { 999.5 } else { 1023.5 };
    while value >= most {
        value /= 1024.0;
        suffix = suffixes.next().unwrap_or('?');
    }
    let before_the_point = if value < 9.995 { 1 } else { 2 + usize::from(value >= 99.95) };
    let digits = digits.saturating_sub(before_the_point);
    let number = format!("{value:.digits$}");
    let number = if digits > 0 { number.trim_end_matches('0').trim_end_matches('.') } else { &number };
    format!("{number}{suffix}")
}

fn percent(part: u64, whole: u64) -> String {
    ratio(part, whole).map_or("- ".to_owned(), |ratio| format!("{:.0}%", (ratio * 100.0).min(9999.0)))
}

/// `None` where there is nothing to be a part of.
#[expect(clippy::cast_precision_loss, reason = "a ratio")]
fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0 && whole < UNLIMITED).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(rows: &[(Resource, [u64; 5])]) -> Block {
        let row = |&(resource, [held, maxheld, barrier, limit, failcnt]): &(Resource, [u64; 5])| {
            (resource, Counter { held, maxheld, barrier, limit, failcnt })
        };
        Block { id: 101, rows: rows.iter().map(row).collect() }
    }

    fn sample() -> Block {
        block(&[
            (Resource::Kmemsize, [2_631_925, 3_040_870, 14_372_700, 14_790_164, 0]),
            (Resource::Lockedpages, [0, 0, 256, 256, 0]),
            (Resource::Numproc, [16, 240, 240, 240, 3]),
            (Resource::Physpages, [4000, 6000, 0, UNLIMITED, 0]),
            (Resource::Numfile, [100, 200, UNLIMITED, UNLIMITED, 0]),
        ])
    }

    #[test]
    fn the_table_has_sizes_shares_and_failures() {
        let text = render(&[sample()], &Style::default());
        let want = "\
----------------------------------------------------------------
CT 101       | HELD Bar% Lim%| MAXH Bar% Lim%| BAR | LIM | FAIL
-------------+---------------+---------------+-----+-----+------
     kmemsize|2.51M  18%  18%| 2.9M  21%  21%|13.7M|14.1M|    - 
  lockedpages|   -    0%   0%|   -    0%   0%|   1M|   1M|    - 
      numproc|   16   7%   7%|  240 100% 100%|  240|  240|     3
    physpages|15.6M   -    - |23.4M   -    - |   - |   - |    - 
";
        assert_eq!(text, want);
    }

    #[test]
    fn a_maxheld_that_nobody_watched_is_marked() {
        let sampled = [(101, Resource::Kmemsize), (101, Resource::Lockedpages)];
        let text = render(&[sample()], &Style { sampled: &sampled, ..Style::default() });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[3], "     kmemsize|2.51M  18%  18%|~2.9M  21%  21%|13.7M|14.1M|    - ");
        assert_eq!(lines[4], "  lockedpages|   -    0%   0%|   -    0%   0%|   1M|   1M|    - ");
        assert_eq!([1300, 102_348, 1_047_552].map(about), ["~1.3K", "~100K", "~1M"]);
    }

    #[test]
    fn quiet_shows_what_failed_or_is_near_and_verbose_what_has_no_bound() {
        let names = |style: &Style<'_>| rows(&sample(), style).iter().map(|r| r.resource.name()).collect::<Vec<_>>();
        assert_eq!(names(&Style { quiet: Some(Thresholds::default()), ..Style::default() }), ["numproc"]);
        assert_eq!(names(&Style { verbose: true, ..Style::default() }).len(), 5);
        assert!(!names(&Style::default()).contains(&"numfile"));
    }

    #[test]
    fn failures_and_changes_are_since_the_last_look_and_a_restart_begins_anew() {
        let mut saved = Saved::default();
        saved.keep_failures(&[block(&[(Resource::Numproc, [0, 0, 0, 0, 2]), (Resource::Kmemsize, [0, 0, 0, 0, 9])])]);
        saved.keep_held(&[block(&[(Resource::Numproc, [20, 0, 0, 0, 0])])]);
        let style = Style { failures_since: Some(&saved), held_since: Some(&saved), ..Style::default() };
        let rows = rows(&sample(), &style);
        let of = |resource| rows.iter().find(|row| row.resource == resource).map(|row| (row.failures, row.change));
        assert_eq!(of(Resource::Numproc), Some((1, Some(-4))));
        assert_eq!(of(Resource::Kmemsize).map(|(failures, _)| failures), Some(0), "9 before, 0 now: counted anew");
        assert!(render(&[sample()], &style).contains("+FAIL\n"));
        assert!(render(&[sample()], &style).contains("    -4|"));
    }

    #[test]
    fn sizes_take_five_characters() {
        for (count, want) in [
            (0, "- "),
            (UNLIMITED, "- "),
            (1023, "1023"),
            (1024, "1K"),
            (1280, "1.25K"),
            (102_348, "99.9K"),
            (102_400, "100K"),
            (1_047_552, "1023K"),
            (1_048_064, "1M"),
            (UNLIMITED - 1, "8E"),
        ] {
            assert_eq!(human(count), want, "{count}");
            assert!(human(count).len() <= 5);
        }
    }
}
