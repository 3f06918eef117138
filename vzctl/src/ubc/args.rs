//! The command line of `vzubc`, with the words of vzctl 4's: `-wd`, `-qh RATIO` are options of their own there.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::table::Thresholds;

/// vzctl 4's spellings with one dash, and ours.
const SHORT: [(&str, &str); 9] = [
    ("-wd", "--watch-differences"),
    ("-wt", "--watch-no-title"),
    ("-wn", "--watch-interval"),
    ("-qh", "--quiet-held"),
    ("-qm", "--quiet-maxheld"),
    ("-rd", "--store"),
    ("-id", "--store"),
    ("-rc", "--clear-failures"),
    ("-ic", "--clear-held"),
];

/// What was asked for.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Args {
    pub(super) config_dir: Option<PathBuf>,
    pub(super) containers: Vec<String>,
    /// `-`: standard input.
    pub(super) file: Option<PathBuf>,
    pub(super) quiet: Option<Thresholds>,
    pub(super) verbose: bool,
    pub(super) json: bool,
    pub(super) enforcement: bool,
    pub(super) events: bool,
    pub(super) follow: bool,
    pub(super) relative: bool,
    pub(super) incremental: bool,
    pub(super) store: Option<PathBuf>,
    pub(super) clear_failures: bool,
    pub(super) clear_held: bool,
}

/// The whole command line.
#[must_use]
pub fn command() -> Command {
    let flag = |id: &'static str, help: &'static str| Arg::new(id).long(id).action(ArgAction::SetTrue).help(help);
    let value =
        |id: &'static str, name: &'static str, help: &'static str| Arg::new(id).long(id).value_name(name).help(help);
    let ratio = |id, help| value(id, "RATIO", help).value_parser(value_parser!(f64));
    let path = |id, name, help| value(id, name, help).value_parser(value_parser!(PathBuf));
    Command::new("vzubc")
        .about("Shows the beancounters of running containers, in bytes where they are of memory, with their share of barrier and limit")
        .version(env!("CARGO_PKG_VERSION"))
        .args([
            Arg::new("container").value_name("CTID").num_args(0..).help("Only these containers"),
            flag("watch", "Run under watch(1)").short('w'),
            flag("watch-differences", "With --watch: highlight what changes (-wd)"),
            flag("watch-no-title", "With --watch: no title (-wt)"),
            value("watch-interval", "SECONDS", "With --watch: how often (-wn)"),
            flag("quiet", "Only what failed or is near to its limit").short('q'),
            ratio("quiet-held", "How near held must be to the limit [default: 0.5] (-qh)"),
            ratio("quiet-maxheld", "How near maxheld must be to the limit [default: 0.8] (-qm)"),
            flag("verbose", "Also what has no barrier").short('v'),
            flag("relative", "Failures since the last time").short('r'),
            flag("incremental", "How much held has changed since the last time").short('i'),
            path("store", "DIR", "Where the last time is remembered (-rd, -id)"),
            flag("clear-failures", "Forget the failures of the last time (-rc)"),
            flag("clear-held", "Forget what was held the last time (-ic)"),
            flag("color", "Colours, which a terminal has without asking").short('c'),
            path("file", "FILE", "Read this table, or standard input (-), not the running containers").short('f'),
            flag("json", "As JSON").short('j'),
            flag("events", "The last refusals: when, who, and what would let them pass"),
            flag("follow", "With --events: go on, and show each refusal as it happens").requires("events"),
            flag("enforcement", "What this host does about each resource: refuse, count, or neither, and by what"),
            path("config-dir", "DIR", "Where vz.conf is [default: /etc/vz, or VZ_CONFDIR]"),
        ])
}

/// vzctl 4's spellings as clap wants them.
pub(super) fn spelled(argv: Vec<OsString>) -> Vec<OsString> {
    let long = |word: OsString| SHORT.iter().find(|(short, _)| word == *short).map_or(word, |(_, long)| (*long).into());
    argv.into_iter().map(long).collect()
}

/// The arguments for watch(1), if it is to run this program: its own, and those that it gives back to us.
pub(super) fn watched(matches: &ArgMatches, argv: &[OsString]) -> Option<Vec<OsString>> {
    let asked = |id| matches.get_flag(id);
    let interval = matches.get_one::<String>("watch-interval");
    if !(asked("watch") || asked("watch-differences") || asked("watch-no-title") || interval.is_some()) {
        return None;
    }
    let mut watch: Vec<OsString> = Vec::new();
    watch.extend(asked("watch-differences").then(|| "--differences".into()));
    watch.extend(asked("watch-no-title").then(|| "--no-title".into()));
    watch.extend(interval.map(|seconds| format!("--interval={seconds}").into()));
    // --exec: no shell looks at what follows.
    watch.extend(["--exec".into(), "--".into()]);
    let mut words = argv.iter();
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("-w" | "--watch" | "--watch-differences" | "--watch-no-title") => {}
            Some("--watch-interval") => drop(words.next()),
            Some(word) if word.starts_with("--watch-interval=") => {}
            _ => watch.push(word.clone()),
        }
    }
    Some(watch)
}

impl Args {
    pub(super) fn of(matches: &ArgMatches) -> Self {
        let path = |id| matches.get_one::<PathBuf>(id).cloned();
        let ratio = |id| matches.get_one::<f64>(id).copied();
        let usual = Thresholds::default();
        let thresholds = Thresholds {
            held: ratio("quiet-held").unwrap_or(usual.held),
            maxheld: ratio("quiet-maxheld").unwrap_or(usual.maxheld),
        };
        Self {
            config_dir: path("config-dir"),
            containers: matches.get_many::<String>("container").into_iter().flatten().cloned().collect(),
            file: path("file"),
            quiet: matches.get_flag("quiet").then_some(thresholds),
            verbose: matches.get_flag("verbose"),
            json: matches.get_flag("json"),
            enforcement: matches.get_flag("enforcement"),
            events: matches.get_flag("events"),
            follow: matches.get_flag("follow"),
            relative: matches.get_flag("relative"),
            incremental: matches.get_flag("incremental"),
            store: path("store"),
            clear_failures: matches.get_flag("clear-failures"),
            clear_held: matches.get_flag("clear-held"),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that fails here has failed")]
mod tests {
    use super::*;

    fn parse(words: &str) -> (ArgMatches, Vec<OsString>) {
        let argv = spelled(words.split(' ').map(OsString::from).collect());
        (command().try_get_matches_from(&argv).unwrap(), argv)
    }

    #[test]
    fn the_words_of_vzctl_4_are_understood() {
        let (matches, _) = parse("vzubc -q -qh 0.7 -qm 1 -r -rd /x -ic 101 web");
        let want = Args {
            containers: vec!["101".into(), "web".into()],
            quiet: Some(Thresholds { held: 0.7, maxheld: 1.0 }),
            relative: true,
            store: Some("/x".into()),
            clear_held: true,
            ..Args::default()
        };
        assert_eq!(Args::of(&matches), want);
    }

    #[test]
    fn watch_is_given_its_own_words_and_the_rest_back() {
        let (matches, argv) = parse("vzubc -w -wd -wn 10 -q 101");
        let watch = watched(&matches, &argv).unwrap();
        assert_eq!(watch.join(" ".as_ref()), "--differences --interval=10 --exec -- vzubc -q 101");
        let (matches, argv) = parse("vzubc 101");
        assert_eq!(watched(&matches, &argv), None);
    }
}
