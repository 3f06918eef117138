//! Man pages and shell completions, made from the definitions of the command lines: `vzctl __man DIR`, `vzctl __completions DIR`.
//!
//! `make install` runs these from a build directory, so they need neither root nor a `vz.conf`.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Command;
use clap_complete::aot::{Generator, Shell};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

/// The section of commands for the administrator.
const SECTION: &str = "8";

/// What this module does for the command line `vzctl WORD DIR`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Man,
    Completions,
}

/// The hidden commands; none for every other command line.
pub(crate) fn asked(args: &[OsString]) -> Option<(Work, PathBuf)> {
    let [_, word, dir] = args else { return None };
    let work = match word.to_str()? {
        "__man" => Work::Man,
        "__completions" => Work::Completions,
        _ => return None,
    };
    Some((work, dir.into()))
}

/// Writes the files; existing ones are replaced.
///
/// # Errors
/// A file or directory can't be written; the error names it.
pub(crate) fn write(work: Work, dir: &Path) -> io::Result<()> {
    fs_err::create_dir_all(dir)?;
    match work {
        Work::Man => programs().into_iter().try_for_each(|(name, _, program)| man(name, program, dir)),
        Work::Completions => programs().into_iter().try_for_each(|(name, _, program)| completions(name, &program, dir)),
    }
}

/// Every name with a command line of its own.
fn programs() -> Vec<(&'static str, Codes, Command)> {
    let mut programs = vec![
        ("vzctl", Codes::Table, vzctl::cli::definition()),
        ("vzlist", Codes::Few, vzctl::list::command()),
        ("vzpkg", Codes::Few, vzctl::pkg::definition()),
        ("vzubc", Codes::Few, vzctl::ubc::command()),
    ];
    programs.extend(vzctl::tools::ALL.iter().map(|tool| (tool.name, Codes::These(tool.codes), (tool.definition)())));
    programs
}

/// What a program's man page says about exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Codes {
    Table,
    Few,
    These(&'static [(&'static str, &'static str)]),
}

/// A page for the program, and one for each of its commands, `vzctl-start(8)`.
fn man(name: &str, program: Command, dir: &Path) -> io::Result<()> {
    let mut program = program.disable_help_subcommand(true);
    program.build();
    let mut pages = vec![program.clone()];
    while let Some(page) = pages.pop() {
        pages.extend(page.get_subcommands().filter(|s| !s.is_hide_set()).cloned());
        // A file name that no container and no user had a say in.
        let title = page.get_display_name().unwrap_or_else(|| page.get_name()).to_owned();
        let mut file = fs_err::File::create(dir.join(format!("{title}.{SECTION}")))?;
        let version = format!("vz {}", env!("CARGO_PKG_VERSION"));
        let whole = title == name;
        Man::new(page).section(SECTION).source(version).manual("vz").render(&mut file)?;
        if whole {
            after(name, &mut file)?;
        }
        file.flush()?;
    }
    Ok(())
}

/// What clap knows nothing of.
fn after(name: &str, out: &mut impl Write) -> io::Result<()> {
    let mut roff = Roff::new();
    let mut list = |title: &str, items: &[(String, String)]| {
        roff.control("SH", [title]);
        for (item, what) in items {
            roff.control("TP", []).text([bold(item.as_str())]).text([roman(what.as_str())]);
        }
    };
    let own =
        |items: &[(&str, &str)]| items.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>();
    match programs().into_iter().find(|(program, ..)| *program == name) {
        Some((_, Codes::Table, _)) => list("EXIT STATUS", &exit_codes()),
        Some((_, Codes::These(codes), _)) => list("EXIT STATUS", &own(codes)),
        _ => list(
            "EXIT STATUS",
            &own(&[("0", "Everything asked for was done."), ("other", "It was not; standard error says why.")]),
        ),
    }
    list(
        "FILES",
        &own(&[
            ("/etc/vz/vz.conf", "What holds for every container of this host."),
            ("/etc/vz/conf/CTID.conf", "One container."),
            ("/etc/vz/conf/ve-NAME.conf-sample", "What new containers begin with."),
            ("/etc/vz/conf/CTID.start, vps.mount, …", "Action scripts."),
            ("/vz/private/CTID, /vz/root/CTID", "A container's files, and where they are mounted."),
        ]),
    );
    list(
        "ENVIRONMENT",
        &own(&[("VZ_CONFDIR", "The configuration directory in place of /etc/vz; --config-dir wins over it.")]),
    );
    let others = programs().into_iter().map(|(n, ..)| n).filter(|n| *n != name).map(|n| format!("{n}({SECTION})"));
    roff.control("SH", ["SEE ALSO"]).text([roman(others.collect::<Vec<_>>().join(", "))]);
    roff.to_writer(out)
}

/// The codes of `vzctl` with their meanings, as the comments of the one list of them say (a test holds this against the type).
fn exit_codes() -> Vec<(String, String)> {
    let mut codes = Vec::new();
    let mut meaning = String::new();
    for line in include_str!("exit.rs").lines().map(str::trim) {
        if let Some(words) = line.strip_prefix("/// ") {
            meaning = format!("{meaning} {words}").trim_start().to_owned();
            continue;
        }
        if let Some((_, number)) = line.trim_end_matches(',').split_once(" = ")
            && number.parse::<u8>().is_ok()
        {
            codes.push((number.to_owned(), meaning.replace('`', "")));
        }
        meaning.clear();
    }
    codes
}

/// Where bash, zsh and fish of Debian look below `/usr/share`.
fn completions(name: &str, program: &Command, share: &Path) -> io::Result<()> {
    let places = [
        (Shell::Bash, "bash-completion/completions", name.to_owned()),
        (Shell::Zsh, "zsh/vendor-completions", format!("_{name}")),
        (Shell::Fish, "fish/vendor_completions.d", format!("{name}.fish")),
    ];
    for (shell, dir, file) in places {
        let dir = share.join(dir);
        fs_err::create_dir_all(&dir)?;
        let mut command = program.clone();
        command.set_bin_name(name);
        command.build();
        let mut text = Vec::new();
        shell.try_generate(&command, &mut text)?;
        fs_err::write(dir.join(file), text)?;
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that fails here has failed")]
mod tests {
    use super::*;

    fn commands_md() -> String {
        fs_err::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/commands.md")).unwrap()
    }

    /// The part of docs/commands.md under a heading.
    fn section<'a>(text: &'a str, heading: &str) -> Option<&'a str> {
        let begin = text.find(&format!("\n## {heading}\n"))? + 1;
        let rest = &text[begin + 3..];
        Some(rest.find("\n## ").map_or(rest, |end| &rest[..end]))
    }

    /// Whether `--option` stands there as a word of its own: `--skip` is not said by `--skip-fsck`.
    fn says(text: &str, option: &str) -> bool {
        let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '-' || c == '_');
        text.match_indices(option).any(|(at, _)| ends(&text[at + option.len()..]))
    }

    fn missing(text: &str, program: &Command, name: &str) -> Vec<String> {
        let mut missing = Vec::new();
        let mut look = |command: &Command, heading: &str, of_all: &str| {
            let Some(part) = section(text, heading) else { return missing.push(format!("## {heading}")) };
            for arg in command.get_arguments().filter(|a| !a.is_hide_set()) {
                let names =
                    arg.get_long().map(|l| format!("--{l}")).or_else(|| arg.get_short().map(|s| format!("-{s}")));
                let Some(option) = names.filter(|o| o != "--help" && o != "--version") else { continue };
                if !says(part, &option) && !says(of_all, &option) {
                    missing.push(format!("{heading}: {option}"));
                }
            }
        };
        let of_all = section(text, name).unwrap_or_default().to_owned();
        look(program, name, "");
        for sub in program.get_subcommands().filter(|s| !s.is_hide_set()) {
            look(sub, &format!("{name} {}", sub.get_name()), &of_all);
        }
        missing
    }

    #[test]
    fn the_reference_of_commands_names_every_command_and_option() {
        let text = commands_md();
        let mut gaps = Vec::new();
        for (name, _, mut program) in programs() {
            program.build();
            gaps.extend(missing(&text, &program, name));
        }
        assert!(gaps.is_empty(), "docs/commands.md does not say:\n{}", gaps.join("\n"));
    }

    #[test]
    fn the_reference_of_commands_names_no_option_that_is_not_there() {
        let text = commands_md();
        let mut known: Vec<String> = ["--help", "--version", "--package"].map(str::to_owned).to_vec();
        let mut pages: Vec<Command> = programs().into_iter().map(|(.., program)| program).collect();
        while let Some(page) = pages.pop() {
            pages.extend(page.get_subcommands().cloned());
            for arg in page.get_arguments() {
                known.extend(arg.get_long_and_visible_aliases().into_iter().flatten().map(|l| format!("--{l}")));
            }
        }
        let words =
            text.split(|c: char| !(c.is_alphanumeric() || c == '-' || c == '_')).filter(|w| w.starts_with("--"));
        let strange: Vec<&str> = words
            .filter(|w| w.len() > 3 && !w[2..].starts_with('-'))
            .filter(|w| !known.iter().any(|k| k == w))
            .collect();
        assert!(strange.is_empty(), "docs/commands.md names options that no command has: {strange:?}");
    }

    #[test]
    fn the_reference_of_commands_has_every_exit_code_with_its_meaning() {
        let text = commands_md();
        let gone: Vec<String> = exit_codes()
            .into_iter()
            .map(|(code, what)| format!("| {code} | {what} |"))
            .filter(|row| !text.contains(row.as_str()))
            .collect();
        assert!(gone.is_empty(), "docs/commands.md lacks these rows:\n{}", gone.join("\n"));
        for (code, exit) in
            [("0", vzctl::Exit::Success), ("8", vzctl::Exit::ExecFailed), ("167", vzctl::Exit::SnapshotList)]
        {
            assert_eq!(code, u8::from(exit).to_string());
            assert!(exit_codes().iter().any(|(c, what)| c == code && !what.is_empty()), "{code}");
        }
        assert!(exit_codes().len() > 80);
    }

    #[test]
    fn every_program_and_every_command_has_a_man_page() {
        let dir = tempfile::tempdir().unwrap();
        write(Work::Man, dir.path()).unwrap();
        let page = |name: &str| fs_err::read_to_string(dir.path().join(name)).unwrap();
        for (name, _, program) in programs() {
            assert!(page(&format!("{name}.8")).contains(".SH \"EXIT STATUS\""), "{name}");
            for sub in program.get_subcommands() {
                assert!(
                    page(&format!("{name}-{}.8", sub.get_name())).contains(".SH NAME"),
                    "{name} {}",
                    sub.get_name()
                );
            }
        }
        assert!(page("vzctl-set.8").contains("physpages"));
        assert!(page("vzctl.8").contains("Another command holds the container"));
    }

    #[test]
    fn three_shells_complete_every_program() {
        let dir = tempfile::tempdir().unwrap();
        write(Work::Completions, dir.path()).unwrap();
        for (name, ..) in programs() {
            for file in [
                format!("bash-completion/completions/{name}"),
                format!("zsh/vendor-completions/_{name}"),
                format!("fish/vendor_completions.d/{name}.fish"),
            ] {
                let text = fs_err::read_to_string(dir.path().join(&file)).unwrap();
                assert!(text.contains(name) && text.contains("help"), "{file}");
            }
        }
    }

    #[test]
    fn only_the_two_words_with_a_directory_are_taken() {
        let asked = |line: &str| asked(&line.split(' ').map(OsString::from).collect::<Vec<_>>()).map(|(work, _)| work);
        assert_eq!(asked("vzctl __man /x"), Some(Work::Man));
        assert_eq!(asked("vzctl __completions /x"), Some(Work::Completions));
        assert_eq!(asked("vzctl __man"), None);
        assert_eq!(asked("vzctl start 101"), None);
    }
}
