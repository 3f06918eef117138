//! `vzpkg capture`: an application template from what somebody, or a script, installs into a temporary container.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use templates::difference::{self, CaptureError, Difference, Entry, Saved, noise};
use templates::{Silent, Store, TemplateName};
use vzrt::Interrupt;

use super::exit::PkgExit;
use super::temporary::{Taken, Temporary, failed, system};
use super::{PkgOutcome, appcache};
use crate::config::Node;
use crate::{Exit, Failure};

/// Why an entry is left out that matches `--exclude`.
const EXCLUDED: &str = "excluded";

pub(super) fn definition() -> Command {
    let name = |id: &'static str| Arg::new(id).required(true).value_parser(value_parser!(TemplateName));
    let several =
        |id: &'static str, value: &'static str| Arg::new(id).long(id).value_name(value).action(ArgAction::Append);
    Command::new("capture").about("Make an application template of what is installed into a temporary container").args(
        [
            name("name").value_name("NAME").help("Of the new template"),
            name("from").long("from").value_name("OSTEMPLATE").help("What the temporary container is made of"),
            Arg::new("script")
                .long("script")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Run this by the container's shell; without it, a shell for you"),
            Arg::new("yes")
                .short('y')
                .long("yes")
                .action(ArgAction::SetTrue)
                .help("Take what is suggested, ask nothing"),
            several("exclude", "GLOB").help("Leave these paths out; * within a directory, ** for anything"),
            several("ipadd", "ADDRESS").help("An address for the temporary container"),
            several("nameserver", "ADDRESS").help("Its name server"),
            Arg::new("layer").long("layer").action(ArgAction::SetTrue).help("Make an application layer of it too"),
            Arg::new("json").short('j').long("json").action(ArgAction::SetTrue).help("Print the difference as JSON"),
        ],
    )
}

pub(super) fn run(node: &Node, store: &Store, matches: &ArgMatches) -> PkgOutcome {
    let bad = |what: String| (PkgExit::BadParameter, Failure::new(Exit::System, what));
    let name: &TemplateName = matches.get_one("name").expect("clap requires a name");
    let from: &TemplateName = matches.get_one("from").expect("clap requires --from");
    let asks = !matches.get_flag("yes");
    let terminal = std::io::stdin().is_terminal();
    let script = matches.get_one::<PathBuf>("script");
    if !terminal && (asks || script.is_none()) {
        return Err(bad("There is no terminal to ask on: --script FILE and --yes are needed".into()));
    }
    // Opened before anything is made, and never given to the container by its name.
    let script = script.map(|path| File::open(path).map_err(|e| bad(format!("open({}): {e}", path.display()))));
    let script = script.transpose()?;
    let apps = super::apps_dir(node);
    for file in [format!("{name}.toml"), format!("{name}.tar.zst")] {
        if apps.join(&file).exists() {
            return Err(bad(format!("{} is there already", apps.join(file).display())));
        }
    }
    store.find(from).map_err(|e| (super::exit::of_store(&e), Failure::from_error(Exit::System, &e)))?;
    let interrupt = Interrupt::watch().map_err(|e| failed(&e))?;
    tracing::info!("Creating a temporary container of {from}");
    let temporary = Temporary::create(node, &interrupt, &apps, from.as_str(), &words(matches, "ipadd"))?;
    for server in matches.get_many::<String>("nameserver").into_iter().flatten() {
        temporary.done("set", &["--nameserver", server, "--save"])?;
    }
    temporary.done("start", &["--wait"])?;
    install(&temporary, script)?;
    temporary.done("stop", &[])?;
    tracing::info!("Comparing");
    let mut taken = temporary.take()?;
    exclude(&mut taken.difference, matches);
    let mut groups = groups(&taken.difference.entries);
    if !matches.get_flag("json") {
        print(&table(&taken.difference, &groups))?;
    }
    if asks && !choose(&temporary, &mut groups)? {
        tracing::info!("Nothing was written");
        return Ok(());
    }
    let chosen = chosen(&taken.difference, &groups);
    let saved = write(&temporary, &apps, name, from, &taken, &chosen)?;
    if matches.get_flag("json") {
        print(&json(name, &taken.difference, &groups, &saved))?;
    }
    if matches.get_flag("layer") {
        let layer = appcache::make(store, &temporary, std::slice::from_ref(name), &taken, chosen, None)?;
        tracing::info!("The layer {} ({} KiB) is ready", layer.id, layer.bytes.div_ceil(1024));
    }
    tracing::info!("{} and {} are written", saved.template.display(), saved.archive.display());
    Ok(())
}

fn words(matches: &ArgMatches, id: &str) -> Vec<String> {
    let given = matches.get_many::<String>(id).into_iter().flatten();
    given.flat_map(|value| [format!("--{id}"), value.clone()]).collect()
}

/// The work itself: a script on a descriptor, or somebody at a terminal.
fn install(temporary: &Temporary, script: Option<File>) -> PkgOutcome {
    let Some(script) = script else {
        tracing::info!("Install what the template is to have; `exit` ends it. The container is {}", temporary.ctid());
        let code = temporary.vzctl("enter", &[], Stdio::inherit(), Stdio::inherit())?;
        tracing::debug!("the shell ended with {code}");
        return Ok(());
    };
    tracing::info!("Running the script");
    // What it says is talk: standard output may be for the JSON.
    let output = std::io::stderr().as_fd().try_clone_to_owned().map_err(|e| failed(&e))?;
    match temporary.vzctl("exec2", &["-"], script.into(), output.into())? {
        0 => Ok(()),
        code => Err((PkgExit::CommandFailed, Failure::new(Exit::System, format!("The script ended with {code}")))),
    }
}

fn exclude(difference: &mut Difference, matches: &ArgMatches) {
    let patterns: Vec<&String> = matches.get_many("exclude").into_iter().flatten().collect();
    for entry in &mut difference.entries {
        if patterns.iter().any(|pattern| noise::matches(pattern, &entry.path)) {
            entry.noise = Some(EXCLUDED);
        }
    }
}

/// Entries that are taken or left together.
struct Group<'e> {
    what: String,
    entries: Vec<&'e Entry>,
    taken: bool,
}

/// By the first two directories of their paths; what is noise, by its reason.
fn groups(entries: &[Entry]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group> = Vec::new();
    for entry in entries {
        let what = match entry.noise {
            Some(reason) => reason.to_owned(),
            None => entry.shown().split('/').take(3).collect::<Vec<_>>().join("/"),
        };
        let taken = entry.noise.is_none();
        match groups.iter_mut().find(|group| group.what == what && group.taken == taken) {
            Some(group) => group.entries.push(entry),
            None => groups.push(Group { what, entries: vec![entry], taken }),
        }
    }
    groups.sort_by_key(|group| !group.taken);
    groups
}

fn table(difference: &Difference, groups: &[Group]) -> String {
    let meaning = &difference.meaning;
    let mut text = String::new();
    let mut line = |what: &str, list: Vec<String>| {
        if !list.is_empty() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{what}: {}", list.join(" "));
        }
    };
    let versions =
        |packages: &[difference::Package]| packages.iter().map(|p| format!("{}={}", p.name, p.version)).collect();
    line("packages added", versions(&meaning.packages_added));
    line("packages removed", versions(&meaning.packages_removed));
    line("users", meaning.users.iter().map(|u| format!("{}({})", u.name, u.id)).collect());
    line("groups", meaning.groups.iter().map(|g| format!("{}({})", g.name, g.id)).collect());
    line("members", meaning.members.clone());
    line("services enabled", meaning.services.clone());
    line("configuration", meaning.configuration.clone());
    let _ = writeln!(text, "{:>4}      {:>7} {:>10}  WHERE", "", "ENTRIES", "KIB");
    for (number, group) in groups.iter().enumerate() {
        let kib = group.entries.iter().map(|e| e.bytes).sum::<u64>().div_ceil(1024);
        let mark = if group.taken { "take " } else { "leave" };
        let _ = writeln!(text, "{:>4} {mark} {:>6} {kib:>10}  {}", number + 1, group.entries.len(), group.what);
    }
    text
}

/// Asks which groups to take; `false` if nothing is to be written.
fn choose(temporary: &Temporary, groups: &mut [Group]) -> Result<bool, (PkgExit, Failure)> {
    let input = std::io::stdin();
    loop {
        print("Numbers change take and leave, RETURN writes the template, q gives up: ")?;
        temporary.wait_for(&input)?;
        let mut answer = String::new();
        if input.lock().read_line(&mut answer).map_err(|e| failed(&e))? == 0 || answer.trim() == "q" {
            return Ok(false);
        }
        let numbers: Vec<&str> = answer.split([' ', ',', '\n']).filter(|word| !word.is_empty()).collect();
        if numbers.is_empty() {
            return Ok(true);
        }
        for word in numbers {
            match word.parse::<usize>().ok().and_then(|number| groups.get_mut(number.checked_sub(1)?)) {
                Some(group) => {
                    group.taken = !group.taken;
                    print(&format!("{} {}\n", if group.taken { "take" } else { "leave" }, group.what))?;
                }
                None => print(&format!("there is no {}\n", word.escape_debug()))?,
            }
        }
    }
}

/// As they were found: parents before what is in them.
fn chosen<'d>(difference: &'d Difference, groups: &[Group]) -> Vec<&'d Entry> {
    let taken = groups.iter().filter(|group| group.taken).flat_map(|group| &group.entries);
    let taken: HashSet<*const Entry> = taken.map(|entry| std::ptr::from_ref(*entry)).collect();
    difference.entries.iter().filter(|entry| taken.contains(&std::ptr::from_ref(*entry))).collect()
}

fn write(
    temporary: &Temporary,
    apps: &Path,
    name: &TemplateName,
    from: &TemplateName,
    taken: &Taken,
    chosen: &[&Entry],
) -> Result<Saved, (PkgExit, Failure)> {
    let (work, mut silent) = (temporary.work()?, Silent);
    let mut bar = crate::terminal_progress(name.as_str());
    let progress: &mut dyn templates::Progress = bar.as_mut().map_or(&mut silent, |bar| bar);
    let after = taken.after.as_fd();
    difference::save(
        name,
        apps,
        &work,
        &taken.system,
        from.as_str(),
        &taken.difference,
        chosen.iter().copied(),
        after,
        progress,
    )
    .map_err(|e| {
        let exit = match e {
            CaptureError::Pack(_) => PkgExit::CommandFailed,
            CaptureError::NoSystem | CaptureError::Nothing => PkgExit::BadParameter,
            _ => PkgExit::System,
        };
        (exit, Failure::because(Exit::System, format!("The template {name} was not written"), &e))
    })
}

fn json(name: &TemplateName, difference: &Difference, groups: &[Group], saved: &Saved) -> String {
    let entries: Vec<_> = groups
        .iter()
        .flat_map(|group| group.entries.iter().map(|entry| (group.taken, entry)))
        .map(|(taken, e)| {
            serde_json::json!({
                "path": e.shown(), "change": e.change, "kind": e.kind, "bytes": e.bytes, "noise": e.noise, "taken": taken,
            })
        })
        .collect();
    let whole = serde_json::json!({
        "name": name.as_str(), "template": saved.template, "archive": saved.archive,
        "archive_bytes": saved.archive_bytes, "bytes": saved.written.bytes, "meaning": difference.meaning,
        "entries": entries,
    });
    format!("{whole:#}\n")
}

fn print(text: &str) -> PkgOutcome {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| system("write", Path::new("stdout"), e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use templates::difference::{Change, Kind};

    fn entry(path: &str, noise: Option<&'static str>) -> Entry {
        Entry { path: path.into(), change: Change::Added, kind: Kind::File, bytes: 1500, noise }
    }

    #[test]
    fn entries_are_shown_by_directory_and_noise_by_reason_last() {
        let entries =
            [entry("var/log/x", Some("a log")), entry("etc/a/b/c", None), entry("etc/a/d", None), entry("top", None)];
        let groups = groups(&entries);
        let shown: Vec<_> = groups.iter().map(|g| (g.what.as_str(), g.entries.len(), g.taken)).collect();
        assert_eq!(shown, [("/etc/a", 2, true), ("/top", 1, true), ("a log", 1, false)]);
        let text = table(&Difference::default(), &groups);
        assert!(text.contains("   1 take       2          3  /etc/a\n"), "{text}");
        assert!(text.contains("   3 leave      1          2  a log\n"), "{text}");
    }

    #[test]
    fn an_excluded_path_is_left_out() {
        let matches = definition().get_matches_from(["capture", "x", "--from", "y", "--exclude", "/etc/*.bak"]);
        let mut difference =
            Difference { entries: vec![entry("etc/a.bak", None), entry("etc/a", None)], ..Default::default() };
        exclude(&mut difference, &matches);
        assert_eq!(difference.suggested().map(Entry::shown).collect::<Vec<_>>(), ["/etc/a"]);
    }
}
