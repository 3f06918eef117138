//! The command line of `vzlist`.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use vzrt::Ctid;

use super::facts::{Facts, Scope, Wanted};
use super::field::Field;
use super::{Outcome, fnmatch, plain};

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Args {
    /// The columns.
    pub fields: Vec<Field>,
    /// What the rows are sorted by.
    pub sort: Field,
    /// The other way round.
    pub descending: bool,
    /// Whether titles are printed.
    pub header: bool,
    /// Whether values are cut at their width.
    pub trim: bool,
    /// JSON in place of a table.
    pub json: bool,
    /// Print the fields there are.
    pub list_fields: bool,
    /// Containers given by number or name.
    pub containers: Vec<String>,
    /// `--config-dir`.
    pub config_dir: Option<PathBuf>,
    all: bool,
    stopped: bool,
    hostname: Option<String>,
    name: Option<String>,
    description: Option<String>,
}

/// The options, as data for help, manual page and completions.
#[must_use]
pub fn command() -> Command {
    let flag = |id: &'static str, short, help: &'static str| {
        Arg::new(id).short(short).long(id).action(ArgAction::SetTrue).help(help)
    };
    let value = |id: &'static str, short, metavar: &'static str, help: &'static str| {
        Arg::new(id).short(short).long(id).value_name(metavar).allow_hyphen_values(true).help(help)
    };
    Command::new("vzlist")
        .about("List containers")
        .disable_help_flag(true)
        .args_override_self(true)
        .arg(flag("all", 'a', "List all containers, not only running ones"))
        .arg(flag("stopped", 'S', "List containers that don't run"))
        .arg(flag("name", 'n', "Show the name in place of the host name"))
        .arg(flag("no-header", 'H', "Print no titles"))
        .arg(flag("no-trim", 't', "Print long values whole"))
        .arg(flag("json", 'j', "Print JSON; every field, unless -o says which"))
        .arg(flag("list", 'L', "Print the names of the fields"))
        .arg(Arg::new("numbers").short('1').action(ArgAction::SetTrue).help("Print numbers only: -H -o ctid"))
        .arg(value("output", 'o', "FIELD[,FIELD…]", "Show these fields"))
        .arg(value("sort", 's', "[-]FIELD", "Sort by this field; with - the other way round"))
        .arg(value("hostname", 'h', "PATTERN", "Only containers whose host name matches, as fnmatch(3)"))
        .arg(value("name_filter", 'N', "PATTERN", "Only containers whose name matches"))
        .arg(value("description", 'd', "PATTERN", "Only containers whose description matches"))
        .arg(
            Arg::new("config-dir")
                .long("config-dir")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .help("Use this in place of /etc/vz"),
        )
        .arg(Arg::new("help").long("help").action(ArgAction::Help).help("Print this"))
        .arg(
            Arg::new("containers")
                .value_name("CTID")
                .num_args(0..)
                .help("Containers by number or name, whatever they are doing"),
        )
}

impl Args {
    /// Reads the command line, the program's own name not in it.
    ///
    /// # Errors
    /// What to print and the code to end with: for `--help` the text and 0.
    pub(super) fn parse(argv: &[String]) -> Result<Self, Outcome> {
        let program = std::iter::once("vzlist".to_owned());
        match command().try_get_matches_from(program.chain(argv.iter().cloned())) {
            Ok(matches) => Self::from_matches(&matches).map_err(Outcome::failed),
            Err(e) if e.use_stderr() => {
                let lines = e.to_string().trim_end().lines().map(plain).collect();
                Err(Outcome { stderr: lines, exit: 1, ..Outcome::default() })
            }
            Err(help) => Err(Outcome { stdout: help.to_string(), ..Outcome::default() }),
        }
    }

    fn from_matches(matches: &ArgMatches) -> Result<Self, String> {
        let flag = |id| matches.get_flag(id);
        let word = |id| matches.get_one::<String>(id).cloned();
        let numbers = flag("numbers");
        let sort = word("sort").unwrap_or_else(|| "ctid".to_owned());
        let (descending, sort) = sort.strip_prefix('-').map_or((false, sort.as_str()), |field| (true, field));
        let default = if flag("name") { "ctid,numproc,status,ip,name" } else { "ctid,numproc,status,ip,hostname" };
        let fields = match word("output") {
            _ if numbers => fields("ctid")?,
            Some(output) => fields(&output)?,
            None if flag("json") => Field::whole(),
            None => fields(default)?,
        };
        Ok(Self {
            fields,
            sort: Field::find(sort).ok_or_else(|| format!("Invalid sort field name: {}", plain(sort)))?,
            descending,
            header: !flag("no-header") && !numbers,
            trim: !flag("no-trim"),
            json: flag("json"),
            list_fields: flag("list"),
            containers: matches.get_many::<String>("containers").into_iter().flatten().cloned().collect(),
            config_dir: matches.get_one::<PathBuf>("config-dir").cloned(),
            all: flag("all"),
            stopped: flag("stopped"),
            hostname: word("hostname"),
            name: word("name_filter"),
            description: word("description"),
        })
    }

    /// Everything that has to be known to choose, sort and print.
    pub(super) fn wanted(&self) -> Wanted {
        // A table shows of a whole counter what is held, JSON all of it.
        let mut wanted = Wanted::default();
        wanted.bounds = self.json && self.fields.iter().any(Field::is_counter);
        self.fields.iter().chain([&self.sort]).for_each(|field| field.wants(&mut wanted));
        for (pattern, key) in [(&self.hostname, "HOSTNAME"), (&self.name, "NAME"), (&self.description, "DESCRIPTION")] {
            if pattern.is_some() {
                wanted.key(key);
            }
        }
        wanted
    }

    pub(super) fn scope<'a>(&self, ids: &'a [Ctid]) -> Scope<'a> {
        match (self.containers.is_empty(), self.stopped, self.all) {
            (false, _, _) => Scope::These(ids),
            (true, true, _) => Scope::NotRunning,
            (true, false, true) => Scope::All,
            (true, false, false) => Scope::Running,
        }
    }

    pub(super) fn matches(&self, facts: &Facts) -> bool {
        let settings = &facts.settings;
        let state = !self.stopped || facts.status != super::Status::Running;
        state
            && [
                (&self.hostname, &settings.hostname),
                (&self.name, &settings.name),
                (&self.description, &settings.description),
            ]
            .into_iter()
            .all(|(pattern, value)| match (pattern, value) {
                (None, _) => true,
                (Some(pattern), Some(value)) => fnmatch::matches(pattern, value),
                (Some(_), None) => false,
            })
    }
}

fn fields(list: &str) -> Result<Vec<Field>, String> {
    let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
    let fields: Result<Vec<Field>, String> =
        names.map(|name| Field::find(name).ok_or_else(|| format!("Unknown field: {}", plain(name)))).collect();
    fields
        .and_then(|fields| if fields.is_empty() { Err(format!("Unknown field: {}", plain(list))) } else { Ok(fields) })
}
