//! What a long operation tells its caller while it runs. This crate never prints.

/// The parts of making a template, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Fetching and installing packages, or copying files of the host; no total is known.
    Bootstrap,
    /// Files, services and commands of the recipe.
    Customize,
    /// Writing the archive; counts bytes of the unpacked system.
    Pack,
    /// Unpacking the archive; counts bytes of the archive.
    Unpack,
    /// Waiting until the unpacked tree is on the disk.
    Sync,
}

impl Stage {
    /// For people, in lower case, fit to follow a name: `debian-12-x86_64: unpacking`.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Bootstrap => "installing packages",
            Self::Customize => "fitting it for containers",
            Self::Pack => "packing",
            Self::Unpack => "unpacking",
            Self::Sync => "writing to disk",
        }
    }
}

/// Receives the progress of one operation. Calls come from the calling thread.
pub trait Progress {
    /// A stage begins; `total` is in bytes where it is known.
    fn stage(&mut self, stage: Stage, total: Option<u64>);
    /// `bytes` more are done in the current stage.
    fn advance(&mut self, bytes: u64);
    /// A line of talk of the program doing the work, control characters escaped.
    fn message(&mut self, line: &str);
}

/// For callers who do not look.
#[derive(Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn stage(&mut self, _stage: Stage, _total: Option<u64>) {}
    fn advance(&mut self, _bytes: u64) {}
    fn message(&mut self, _line: &str) {}
}

/// A bar on a terminal, drawn only because the caller made one. It has no thread of its own: a ticking thread would
/// forbid the fork that unpacking needs.
pub struct Bar {
    name: String,
    bar: indicatif::ProgressBar,
}

impl Bar {
    /// A bar on stderr that draws nothing unless stderr is a terminal. `name` comes first on its line.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), bar: indicatif::ProgressBar::new_spinner() }
    }

    fn style(total: Option<u64>) -> indicatif::ProgressStyle {
        let template = match total {
            Some(_) => "{prefix} [{wide_bar}] {bytes}/{total_bytes}",
            None => "{prefix} {spinner} {bytes} {wide_msg}",
        };
        indicatif::ProgressStyle::with_template(template).expect("both templates are constants and parse")
    }
}

impl Progress for Bar {
    fn stage(&mut self, stage: Stage, total: Option<u64>) {
        self.bar.reset();
        self.bar.set_style(Self::style(total));
        self.bar.set_prefix(format!("{}: {}", self.name, stage.describe()));
        match total {
            Some(total) => self.bar.set_length(total),
            None => self.bar.unset_length(),
        }
    }

    fn advance(&mut self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn message(&mut self, line: &str) {
        self.bar.set_message(line.to_owned());
        self.bar.tick();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
