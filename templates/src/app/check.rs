//! What a template may say: the first thing in it that would become a wrong path, an option of a program, or nothing.

use super::{AppTemplate, Problem, is_word, text};
use crate::name::TemplateName;

const A_PATH: &str = "an absolute path without '..'";
const A_PROGRAM: &str = "a program, then its arguments";
const A_UNIT: &str = "the name of a systemd unit";
const A_LINE: &str = "a line of passwd(5) or group(5), or GROUP:USER";
const A_NAME: &str = "the name of an application template";

/// Seconds in which an application has to become healthy: an hour is a typing error.
const MOST_SECONDS: u64 = 600;

impl AppTemplate {
    pub(super) fn problem(&self, name: &TemplateName) -> Option<Problem> {
        let bad = |field, value: &str, expected| Some(Problem { field, value: value.to_owned(), expected });
        if self.name != name.as_str() {
            return bad("name", &self.name, "the name of the file without .toml");
        }
        if !is_word(&self.version, b".+-~") {
            return bad("version", &self.version, "letters, digits and . + - ~");
        }
        if self.systems.is_empty() {
            return bad("for", "", "at least one [[for]] with a family");
        }
        for system in &self.systems {
            let words = [&system.family].into_iter().chain(&system.releases).chain(&system.packages);
            if let Some(word) = words.into_iter().find(|w| !is_word(w, b".+-:~")) {
                return bad("for", word, "the name of a family, a release or a package");
            }
        }
        for other in self.requires.iter().chain(&self.conflicts) {
            if other.parse::<TemplateName>().is_err() || *other == self.name {
                return bad("requires or conflicts", other, A_NAME);
            }
        }
        let found = self.parameter_problem().or_else(|| self.tree_problem()).or_else(|| self.program_problem());
        found.or_else(|| self.use_problem()).or_else(|| self.captured_problem())
    }

    fn parameter_problem(&self) -> Option<Problem> {
        self.parameters.iter().find_map(|(name, parameter)| {
            if !text::is_name(name) {
                let expected = "a name of a-z, 0-9 and _";
                return Some(Problem { field: "parameters", value: name.clone(), expected });
            }
            let default = parameter.default.as_deref()?;
            let expected = parameter.kind.expected();
            (!parameter.kind.takes(default)).then(|| Problem { field: "default", value: default.to_owned(), expected })
        })
    }

    fn tree_problem(&self) -> Option<Problem> {
        let paths = self.files.iter().map(|f| &f.path).chain(self.links.iter().map(|l| &l.path));
        let paths = paths.chain(self.captured.iter().flat_map(|c| &c.removed));
        for path in paths {
            if !is_path(path) {
                return Some(Problem { field: "path", value: path.clone(), expected: A_PATH });
            }
        }
        let link = self.links.iter().find(|l| l.target.is_empty() || l.target.contains('\0'));
        if let Some(link) = link {
            return Some(Problem { field: "target", value: link.target.clone(), expected: "what a link can say" });
        }
        let file = self.files.iter().find(|f| f.mode > 0o7777)?;
        Some(Problem { field: "mode", value: file.path.clone(), expected: "permission bits" })
    }

    fn program_problem(&self) -> Option<Problem> {
        for unit in self.services.enable.iter().chain(&self.services.disable) {
            if !is_word(unit, b"._@-:\\") {
                return Some(Problem { field: "services", value: unit.clone(), expected: A_UNIT });
            }
        }
        let commands = &self.commands;
        let all = commands.pre_install.iter().chain(&commands.post_install);
        for command in all.chain(&commands.pre_remove).chain(&commands.post_remove) {
            if !is_argv(&command.argv) {
                let value = command.argv.first().cloned().unwrap_or_default();
                return Some(Problem { field: "argv", value, expected: A_PROGRAM });
            }
        }
        let check = self.check.as_ref()?;
        if check.argv.is_empty() == check.port.is_none() {
            return Some(Problem { field: "check", value: String::new(), expected: "either argv or port" });
        }
        if !check.argv.is_empty() && !is_argv(&check.argv) {
            return Some(Problem { field: "check", value: check.argv[0].clone(), expected: A_PROGRAM });
        }
        if check.seconds == 0 || check.seconds > MOST_SECONDS {
            return Some(Problem { field: "seconds", value: check.seconds.to_string(), expected: "1 to 600" });
        }
        let port = check.port.as_deref()?;
        let number = port.parse::<u16>().is_ok_and(|p| p > 0);
        let parameter = text::names(port).next().is_some_and(|n| port == format!("{{{n}}}"));
        (!number && !parameter).then(|| Problem {
            field: "port",
            value: port.to_owned(),
            expected: "a port as text, or the {name} of a parameter",
        })
    }

    /// A `{name}` that is no parameter is a typing error.
    fn use_problem(&self) -> Option<Problem> {
        let commands = &self.commands;
        let argvs = commands.pre_install.iter().chain(&commands.post_install).chain(&commands.pre_remove);
        let texts = self.files.iter().map(|f| &f.content);
        let texts = texts.chain(argvs.chain(&commands.post_remove).flat_map(|c| &c.argv));
        let check = self.check.iter();
        let texts = texts.chain(check.flat_map(|c| c.argv.iter().chain(&c.port).chain([&c.send, &c.expect])));
        let unknown = texts.flat_map(|t| text::names(t)).find(|n| !self.parameters.contains_key(*n))?;
        let expected = "the name of a parameter between braces; other braces are not taken for one";
        Some(Problem { field: "text", value: format!("{{{unknown}}}"), expected })
    }

    fn captured_problem(&self) -> Option<Problem> {
        let captured = self.captured.as_ref()?;
        if captured.files.parse::<TemplateName>().is_err() {
            let expected = "a file beside the template";
            return Some(Problem { field: "files", value: captured.files.clone(), expected });
        }
        let digest = captured.sha256.len() == 64 && captured.sha256.bytes().all(|b| b.is_ascii_hexdigit());
        if !digest {
            let expected = "64 hexadecimal digits";
            return Some(Problem { field: "sha256", value: captured.sha256.clone(), expected });
        }
        let lines = captured.groups.iter().chain(&captured.users).chain(&captured.members);
        let bad = lines.into_iter().find(|l| l.contains(char::is_control) || !l.contains(':'))?;
        Some(Problem { field: "users, groups or members", value: bad.clone(), expected: A_LINE })
    }
}

fn is_path(path: &str) -> bool {
    path.starts_with('/')
        && !path.ends_with('/')
        && !path.contains(char::is_control)
        && path.split('/').all(|p| p != ".." && p != ".")
}

fn is_argv(argv: &[String]) -> bool {
    argv.first().is_some_and(|a| !a.is_empty() && !a.starts_with('-')) && !argv.iter().any(|a| a.contains('\0'))
}
