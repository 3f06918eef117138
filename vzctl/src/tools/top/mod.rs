//! `vztop`: what running containers do, looked at again and again.
//!
//! | module | what it is for |
//! |---|---|
//! | here | the command line, and the rounds |
//! | `sample` | one look at all containers and the host |
//! | `rate` | from two looks to rates |
//! | `column` | what can be shown of a container, and sorting by it |
//! | `render` | text and JSON |
//! | `screen` | the terminal |

mod column;
mod rate;
mod render;
mod sample;
mod screen;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use nix::sys::signal::Signal;

use self::column::{ALL, Column, USUAL, named};
use self::rate::Round;
use self::render::Style;
use self::sample::{Look, Watcher};
use self::screen::{Event, Screen};
use super::{Outcome, Report, Trouble, config_dir, json_switch, node, switch};
use crate::config::{Node, names};
use crate::list::plain;

/// The first page of a terminal does not wait for a whole interval.
const FIRST: Duration = Duration::from_millis(500);

pub(super) fn command() -> Command {
    let value = |id: &'static str, short, metavar: &'static str, help: &'static str| {
        Arg::new(id).short(short).long(id).value_name(metavar).allow_hyphen_values(true).help(help)
    };
    Command::new("vztop").about("Watch what containers do").args([
        value("sort", 's', "[-]COLUMN", "Sort by this column, the largest first; with - the other way round")
            .default_value("cpu"),
        value("output", 'o', "COLUMN[,COLUMN…]", "Show these columns").default_value(USUAL),
        Arg::new("list").short('L').long("list").action(ArgAction::SetTrue).help("Print the names of the columns"),
        switch("batch", 'b', "Print one round below the other, as without a terminal"),
        value("count", 'n', "COUNT", "End after so many rounds").value_parser(value_parser!(u64).range(1..)),
        value("delay", 'd', "SECONDS", "How long a round takes").default_value("2").value_parser(seconds),
        json_switch(),
        config_dir(),
        Arg::new("containers").value_name("CTID").num_args(0..).help("Only these containers, by number or name"),
    ])
}

fn seconds(word: &str) -> Result<Duration, String> {
    let said = word.parse().ok().filter(|s: &f64| (0.1..=86_400.0).contains(s));
    said.map(Duration::from_secs_f64).ok_or_else(|| "a number of seconds from 0.1 to 86400".to_owned())
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    if matches.get_flag("list") {
        return Ok(Report::of(ALL.iter().map(|c| format!("{:<10} {}\n", c.name, c.help)).collect::<String>()));
    }
    let style = style(matches)?;
    node::require_root()?;
    let node = node::open(matches)?;
    let watcher = Watcher::new(&node, chosen(&node, matches)?)?;
    let rounds = Rounds {
        left: matches.get_one::<u64>("count").copied(),
        delay: matches.get_one::<Duration>("delay").copied().unwrap_or(FIRST),
    };
    let json = matches.get_flag("json");
    if json || matches.get_flag("batch") || !screen::is_there() {
        return batch(watcher, rounds, &style, json);
    }
    interactive(watcher, rounds, style)
}

fn style(matches: &ArgMatches) -> Result<Style, Trouble> {
    let word = |id| matches.get_one::<String>(id).map(String::as_str).unwrap_or_default();
    let column = |name: &str| {
        named(name).ok_or_else(|| Trouble::new(format!("There is no column {}: vztop -L lists them.", plain(name))))
    };
    let columns = word("output").split(',').map(column).collect::<Result<Vec<_>, _>>()?;
    let sort = word("sort");
    let (reversed, name) = sort.strip_prefix('-').map_or((false, sort), |name| (true, name));
    Ok(Style { columns, sort: column(name)?, reversed })
}

fn chosen(node: &Node, matches: &ArgMatches) -> Result<BTreeSet<vzrt::Ctid>, Trouble> {
    let words = matches.get_many::<String>("containers").into_iter().flatten();
    words.map(|word| names::resolve(node, word).map_err(|e| Trouble::new(e.to_string()))).collect()
}

/// How many, and how long each is.
struct Rounds {
    left: Option<u64>,
    delay: Duration,
}

impl Rounds {
    /// Counts one; whether it was the last.
    fn was_last(&mut self) -> bool {
        self.left = self.left.map(|left| left.saturating_sub(1));
        self.left == Some(0)
    }
}

fn batch(mut watcher: Watcher<'_>, mut rounds: Rounds, style: &Style, json: bool) -> Outcome {
    let mut before = watcher.look()?;
    loop {
        screen::sleep_until(before.at + rounds.delay);
        let after = watcher.look()?;
        let mut round = Round::between(&before, after.clone());
        style.sort(&mut round);
        let text = if json { render::json(&round) } else { render::text(&round, style) };
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => {}
            // `vztop -b | head` has what it wanted.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(Report::default()),
            Err(e) => return Err(Trouble::new(format!("write(stdout): {e}"))),
        }
        before = after;
        if rounds.was_last() {
            return Ok(Report::default());
        }
    }
}

fn interactive(mut watcher: Watcher<'_>, mut rounds: Rounds, mut style: Style) -> Outcome {
    let colour = std::env::var_os("NO_COLOR").is_none();
    let mut before = watcher.look()?;
    let terminal = |e: io::Error| Trouble::new(format!("the terminal: {e}"));
    let mut screen = Screen::enter().map_err(terminal)?;
    let mut round: Option<Round> = None;
    let mut next = before.at + rounds.delay.min(FIRST);
    loop {
        match screen.wait(next).map_err(terminal)? {
            Event::End(signal) => {
                drop(screen);
                return Err(ended_by(signal));
            }
            Event::Key(b'q') => return Ok(Report::default()),
            Event::Key(b' ') => next = Instant::now(),
            Event::Key(key) => press(&mut style, key),
            Event::Redraw => {}
            Event::TimeOver => {
                let after: Look = watcher.look()?;
                next = after.at + rounds.delay;
                round = Some(Round::between(&before, after.clone()));
                before = after;
                if rounds.was_last() {
                    return Ok(Report::default());
                }
            }
        }
        if let Some(round) = &mut round {
            style.sort(round);
            screen.draw(&page(round, &style, screen.size(), colour)).map_err(terminal)?;
        }
    }
}

/// A signal that ends programs ends this one, once the terminal is given back: whoever waits for it sees by what. What comes after that is for one
/// that was not delivered.
fn ended_by(signal: Signal) -> Trouble {
    let sent = nix::sys::signal::raise(signal);
    Trouble::new(format!("raise({signal}): {}", sent.err().unwrap_or(nix::Error::EINTR)))
}

/// What a key does to the order: a column by its letter, the next one, or the other way round.
fn press(style: &mut Style, key: u8) {
    let by_letter = match key {
        b'c' => "cpu",
        b'e' => "entitled",
        b't' => "throttled",
        b'i' => "io",
        b'm' => "mem",
        b's' => "swap",
        b'n' => "in",
        b'o' => "out",
        b'p' => "tasks",
        b'1' => "ctid",
        b'r' => {
            style.reversed = !style.reversed;
            return;
        }
        b'<' | b'>' => return step(style, key == b'>'),
        _ => return,
    };
    if let Some(column) = named(by_letter) {
        (style.sort, style.reversed) = (column, false);
    }
}

/// To the column beside it of those that are shown.
fn step(style: &mut Style, right: bool) {
    let count = style.columns.len();
    let at = style.columns.iter().position(|column: &&Column| column.name == style.sort.name);
    let next = at.map_or(0, |at| if right { (at + 1) % count } else { (at + count - 1) % count });
    (style.sort, style.reversed) = (style.columns[next], false);
}

/// A page of so many lines and columns. What has no room is said, for a list that ends at the bottom of a page looks whole.
fn page(round: &Round, style: &Style, (rows, width): (usize, usize), colour: bool) -> Vec<String> {
    const HELP: &str = "q quit  r reverse  < > column  c CPU  e entitled  t throttled  i I/O  m memory  s swap  n in  o out  p tasks  1 CTID";
    let cut = |line: String| line.chars().take(width).collect::<String>();
    let paint = |code: &str, line: String| if colour { format!("\x1b[{code}m{line}\x1b[m") } else { line };
    let order = format!("by {}{}; {HELP}", style.sort.name, if style.reversed { ", reversed" } else { "" });
    let mut lines =
        vec![cut(render::summary(round)), cut(order), paint("7", cut(format!("{:<width$}", style.titles())))];
    let room = rows.saturating_sub(lines.len());
    let shown = if round.rows.len() > room { room.saturating_sub(1) } else { room };
    for row in round.rows.iter().take(shown) {
        let line = cut(style.line(row));
        let near_limit = row.now.activity.memory_bytes.zip(row.now.activity.memory_limit_bytes);
        let is_short = near_limit.is_some_and(|(used, limit)| used >= limit / 10 * 9);
        let is_throttled = row.throttled_percent.is_some_and(|percent| percent >= 1.0);
        lines.push(if is_short {
            paint("31", line)
        } else if is_throttled {
            paint("33", line)
        } else {
            line
        });
    }
    if round.rows.len() > shown {
        lines.push(cut(format!("… and {} more", round.rows.len() - shown)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::rate::tests::{look, sample};
    use super::*;

    fn style_of(words: &[&str]) -> Result<Style, Trouble> {
        style(&command().try_get_matches_from([&["vztop"], words].concat()).unwrap())
    }

    fn round(count: u32) -> Round {
        let containers: Vec<_> = (101..101 + count).map(|n| (n, sample(0))).collect();
        let at = Instant::now();
        Round::between(&look(at, &containers), look(at + Duration::from_secs(1), &containers))
    }

    #[test]
    fn columns_are_known_by_name_and_a_dash_turns_the_order() {
        let style = style_of(&["-s", "-mem", "-o", "ctid,mem"]).unwrap();
        assert_eq!((style.sort.name, style.reversed, style.columns.len()), ("mem", true, 2));
        let style = style_of(&[]).unwrap();
        assert_eq!((style.sort.name, style.reversed, style.columns.len()), ("cpu", false, 17));
        for bad in [["-s", "x\u{1b}"], ["-o", "ctid,"], ["-o", ""]] {
            let Trouble(lines) = style_of(&bad).err().unwrap();
            assert!(lines[0].starts_with("There is no column ") && !lines[0].contains('\u{1b}'), "{lines:?}");
        }
    }

    #[test]
    fn times_and_counts_are_bounded() {
        for bad in [["-d", "0"], ["-d", "nan"], ["-d", "-1"], ["-d", "1e9"], ["-n", "0"], ["-n", "x"]] {
            assert!(command().try_get_matches_from(["vztop", bad[0], bad[1]]).is_err(), "{bad:?}");
        }
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
    }

    #[test]
    fn keys_choose_the_column_and_the_way() {
        let mut style = style_of(&["-o", "ctid,cpu,mem"]).unwrap();
        let mut after = |keys: &str| {
            keys.bytes().for_each(|key| press(&mut style, key));
            (style.sort.name, style.reversed)
        };
        assert_eq!(after("m"), ("mem", false));
        assert_eq!(after("r"), ("mem", true));
        assert_eq!(after(">"), ("ctid", false));
        assert_eq!(after("<"), ("mem", false));
        assert_eq!(after("i"), ("io", false), "one that is not shown");
        assert_eq!(after(">"), ("ctid", false));
        assert_eq!(after("x\u{1b}"), ("ctid", false));
    }

    #[test]
    fn a_page_has_no_more_lines_and_columns_than_there_is_room_for() {
        let style = style_of(&[]).unwrap();
        for (rows, width) in [(1, 1), (3, 20), (4, 80), (10, 80), (24, 200)] {
            let lines = page(&round(30), &style, (rows, width), false);
            assert!(lines.len() <= rows.max(4), "{rows}: {lines:?}");
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{width}: {lines:?}");
        }
        let lines = page(&round(30), &style, (10, 80), false);
        assert_eq!(lines[9], "… and 24 more");
        assert!(!page(&round(2), &style, (24, 80), false).iter().any(|line| line.contains('\u{1b}')));
        assert!(page(&round(2), &style, (24, 80), true)[2].starts_with("\u{1b}[7m"));
    }

    #[test]
    fn rounds_end_when_they_were_counted() {
        let mut two = Rounds { left: Some(2), delay: FIRST };
        assert_eq!([two.was_last(), two.was_last()], [false, true]);
        assert!(!Rounds { left: None, delay: FIRST }.was_last());
    }
}
