//! Recipes: how the cache of a template is made, as data. A recipe file is the administrator's; still nothing in one
//! is given to a shell.

mod written;

use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::Deserialize;

use crate::name::TemplateName;
use crate::oci::Wanted;
use crate::unpack::Limits;

use self::written::Written;

/// How a template is made. The order of the fields is the order of the work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// Of the template; also of the recipe's file.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// Which `dists/` scripts know it.
    pub distribution: String,
    /// Where the first files come from.
    pub bootstrap: Bootstrap,
    /// How much it may hold.
    pub limits: Bounds,
    /// Paths removed, if they are there.
    pub remove: Vec<String>,
    /// Directories made.
    pub directories: Vec<Directory>,
    /// Files written, replacing what is there.
    pub files: Vec<FileContent>,
    /// Symbolic links made, replacing what is there.
    pub links: Vec<Link>,
    /// systemd units.
    pub services: Services,
    /// Programs run inside, last.
    pub commands: Vec<Command>,
}

/// Where the first files of a template come from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "method", rename_all = "lowercase", deny_unknown_fields)]
pub enum Bootstrap {
    /// The host's static busybox; needs no network.
    Busybox {},
    /// Packages of Debian by `mmdebstrap(1)`.
    Mmdebstrap(Mmdebstrap),
    /// An image of the Open Container Initiative, or of Docker.
    Oci(Image),
    /// An archive of a whole system, as OpenVZ and LXC have them.
    Archive(SystemArchive),
    /// A directory with a whole system in it.
    Directory(SystemDirectory),
}

/// An image: the directory of a layout, or an archive of one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Absolute path.
    pub source: PathBuf,
    /// Which image of it, if there are several.
    #[serde(default)]
    pub tag: Option<String>,
    /// `sha256:…` of its manifest or index; another is refused.
    #[serde(default)]
    pub digest: Option<String>,
}

impl Image {
    pub(crate) fn wanted(&self) -> Wanted {
        Wanted { tag: self.tag.clone(), digest: self.digest.clone() }
    }
}

/// A tar archive, compressed or not.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemArchive {
    /// Absolute path.
    pub source: PathBuf,
    /// Of the file, in hexadecimal; another is refused.
    #[serde(default)]
    pub sha256: Option<String>,
    /// The directory in it that is the system's root; without it, `rootfs` if there is such and no `etc`, else all of it.
    #[serde(default)]
    pub root: Option<String>,
}

/// A directory of this host.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemDirectory {
    /// Absolute path.
    pub source: PathBuf,
}

/// Bounds of what is unpacked for a template; the store's own where the recipe says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// Bytes after decompression, of one archive or layer; also of one file with its holes.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// Files, directories and links of one archive or layer.
    #[serde(default)]
    pub entries: Option<u64>,
}

/// What `mmdebstrap(1)` is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mmdebstrap {
    /// Code name of the release.
    pub suite: String,
    /// In Debian's spelling.
    pub arch: String,
    /// `apt` is the smallest that can install more.
    #[serde(default = "apt")]
    pub variant: String,
    /// Archive components.
    #[serde(default = "main_component")]
    pub components: Vec<String>,
    /// Packages beyond the variant's.
    #[serde(default)]
    pub include: Vec<String>,
    /// Packages that dependencies may not pull in.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Of the archive; without it, those of the host's own apt configuration.
    #[serde(default)]
    pub mirror: Option<String>,
    /// Keyring that signs it; goes with `mirror`.
    #[serde(default)]
    pub keyring: Option<PathBuf>,
}

fn apt() -> String {
    String::from("apt")
}

fn main_component() -> Vec<String> {
    vec![String::from("main")]
}

/// A directory, with the ones above it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// In the container.
    pub path: String,
    /// Permission bits, 0755 if absent.
    #[serde(default = "mode_755")]
    pub mode: u32,
}

/// A file of root.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileContent {
    /// In the container.
    pub path: String,
    /// Permission bits, 0644 if absent.
    #[serde(default = "mode_644")]
    pub mode: u32,
    /// Its text.
    pub content: String,
}

/// A symbolic link.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// In the container.
    pub path: String,
    /// What it says.
    pub target: String,
}

fn mode_755() -> u32 {
    0o755
}

fn mode_644() -> u32 {
    0o644
}

/// What becomes of systemd units.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Services {
    /// `systemctl enable`, run inside.
    #[serde(default)]
    pub enable: Vec<String>,
    /// `systemctl disable`, run inside.
    #[serde(default)]
    pub disable: Vec<String>,
    /// Links to `/dev/null` in `/etc/systemd/system`; the unit need not exist.
    #[serde(default)]
    pub mask: Vec<String>,
}

/// A program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The first is looked for in the container's PATH.
    pub argv: Vec<String>,
}

/// Why there is no recipe.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// Neither built in nor in the directory.
    #[error("no recipe for template {name}: not one of {}, and no {}", builtin.join(", "), file.display())]
    NotFound {
        /// The template.
        name: String,
        /// What is built in.
        builtin: Vec<String>,
        /// The file that would be read.
        file: PathBuf,
    },
    /// It cannot be read; the error names the path.
    #[error(transparent)]
    Read(std::io::Error),
    /// It is not a recipe.
    #[error("recipe {origin}")]
    Parse {
        /// File, or name of a built-in one.
        origin: String,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// It is a recipe, of something that cannot be.
    #[error("recipe {origin}: {field} {value:?} {why}")]
    Invalid {
        /// File, or name of a built-in one.
        origin: String,
        /// Which.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

const BUILTIN: [(&str, &str); 5] = [
    ("busybox", include_str!("../recipes/busybox.toml")),
    ("debian-12-x86_64", include_str!("../recipes/debian-12-x86_64.toml")),
    ("debian-12-x86_64-minimal", include_str!("../recipes/debian-12-x86_64-minimal.toml")),
    ("debian-13-x86_64", include_str!("../recipes/debian-13-x86_64.toml")),
    ("debian-13-x86_64-minimal", include_str!("../recipes/debian-13-x86_64-minimal.toml")),
];

impl Recipe {
    /// Names of the built-in recipes.
    pub fn builtin() -> impl Iterator<Item = &'static str> {
        BUILTIN.iter().map(|(name, _)| *name)
    }

    /// The recipe of `name`: `<directory>/<name>.toml`, else the built-in one.
    pub fn load(name: &TemplateName, directory: &Path) -> Result<Self, RecipeError> {
        Self::load_below(name, directory, &mut Vec::new())
    }

    /// The same, for recipes that are like it.
    fn load_below(name: &TemplateName, directory: &Path, above: &mut Vec<String>) -> Result<Self, RecipeError> {
        let file = directory.join(format!("{name}.toml"));
        match fs::read_to_string(&file) {
            Ok(text) => return Self::parse_below(&text, name, &file.display().to_string(), directory, above),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(RecipeError::Read(e)),
        }
        match BUILTIN.iter().find(|(builtin, _)| *builtin == name.as_str()) {
            Some((builtin, text)) => Self::parse_below(text, name, builtin, directory, above),
            None => Err(RecipeError::NotFound {
                name: name.to_string(),
                builtin: Self::builtin().map(String::from).collect(),
                file,
            }),
        }
    }

    /// A recipe of nothing but a source, for `vzpkg create cache NAME --from`.
    ///
    /// # Errors
    /// [`RecipeError::Invalid`], as of a file.
    pub fn of_source(name: &TemplateName, bootstrap: Bootstrap) -> Result<Self, RecipeError> {
        let recipe = Self {
            name: name.to_string(),
            description: String::new(),
            distribution: String::new(),
            bootstrap,
            limits: Bounds::default(),
            remove: Vec::new(),
            directories: Vec::new(),
            files: Vec::new(),
            links: Vec::new(),
            services: Services::default(),
            commands: Vec::new(),
        };
        recipe.checked(name, "--from")
    }

    pub(crate) fn limits(&self, usual: &Limits) -> Limits {
        Limits {
            bytes: self.limits.bytes.unwrap_or(usual.bytes),
            members: self.limits.entries.unwrap_or(usual.members),
            seconds: usual.seconds,
        }
    }

    /// Reads and checks a recipe for `name`; `origin` is for messages, and recipes that it is like are looked for in `directory`.
    pub fn parse(text: &str, name: &TemplateName, origin: &str, directory: &Path) -> Result<Self, RecipeError> {
        Self::parse_below(text, name, origin, directory, &mut Vec::new())
    }

    fn parse_below(
        text: &str,
        name: &TemplateName,
        origin: &str,
        directory: &Path,
        above: &mut Vec<String>,
    ) -> Result<Self, RecipeError> {
        let parsed = toml::from_str::<Written>(text);
        let written = parsed.map_err(|e| RecipeError::Parse { origin: origin.to_owned(), source: Box::new(e) })?;
        let like = match &written.like {
            None => None,
            Some(like) => {
                let wrong =
                    |why| RecipeError::Invalid { origin: origin.to_owned(), field: "like", value: like.clone(), why };
                above.push(name.to_string());
                if above.contains(like) {
                    return Err(wrong("leads back to this recipe"));
                }
                let like: TemplateName = like.parse().map_err(|_| wrong("is not the name of a template"))?;
                Some(Self::load_below(&like, directory, above)?)
            }
        };
        written.over(like, origin)?.checked(name, origin)
    }

    fn checked(self, name: &TemplateName, origin: &str) -> Result<Self, RecipeError> {
        let problem = self.problem(name);
        match problem {
            None => Ok(self),
            Some((field, value, why)) => {
                Err(RecipeError::Invalid { origin: origin.to_owned(), field, value: value.to_owned(), why })
            }
        }
    }

    /// The first field that would become a wrong path or an option of a program.
    fn problem(&self, name: &TemplateName) -> Option<(&'static str, &str, &'static str)> {
        if self.name != name.as_str() {
            return Some(("name", &self.name, "is not the name of the template"));
        }
        let paths = (self.remove.iter())
            .chain(self.directories.iter().map(|d| &d.path))
            .chain(self.files.iter().map(|f| &f.path))
            .chain(self.links.iter().map(|l| &l.path));
        for path in paths {
            if !path.starts_with('/')
                || path.contains('\0')
                || path.split('/').any(|p| p == "..")
                || path.ends_with('/')
            {
                return Some(("path", path, "is not an absolute path without '..'"));
            }
        }
        let services = &self.services;
        for unit in services.enable.iter().chain(&services.disable).chain(&services.mask) {
            if !is_word(unit, b"._@-:\\") {
                return Some(("service", unit, "is not the name of a unit"));
            }
        }
        for mode in self.directories.iter().map(|d| d.mode).chain(self.files.iter().map(|f| f.mode)) {
            if mode > 0o7777 {
                return Some(("mode", &self.name, "has more than permission bits"));
            }
        }
        if let Some(command) =
            self.commands.iter().find(|c| c.argv.first().is_none_or(|a| a.is_empty() || a.starts_with('-')))
        {
            return Some(("argv", command.argv.first().map_or("", String::as_str), "is not a program"));
        }
        match &self.bootstrap {
            Bootstrap::Busybox {} => None,
            Bootstrap::Mmdebstrap(m) => m.problem(),
            Bootstrap::Oci(image) => absolute(&image.source).or_else(|| {
                let digest = image.digest.as_deref()?;
                let digits = digest.strip_prefix("sha256:").unwrap_or_default();
                (!is_sha256(digits)).then_some(("digest", digest, "is not sha256: and 64 hexadecimal digits"))
            }),
            Bootstrap::Archive(archive) => absolute(&archive.source)
                .or_else(|| {
                    let digits = archive.sha256.as_deref()?;
                    (!is_sha256(digits)).then_some(("sha256", digits, "is not 64 hexadecimal digits"))
                })
                .or_else(|| {
                    let root = archive.root.as_deref()?;
                    let leaves = root.split('/').any(|p| p == "..") || root.contains('\0');
                    leaves.then_some(("root", root, "leads out of the archive"))
                }),
            Bootstrap::Directory(directory) => absolute(&directory.source),
        }
    }
}

impl Mmdebstrap {
    fn problem(&self) -> Option<(&'static str, &str, &'static str)> {
        let words = [("suite", &self.suite), ("arch", &self.arch), ("variant", &self.variant)];
        let lists = [("component", &self.components), ("include", &self.include), ("exclude", &self.exclude)];
        let all = words.into_iter().chain(lists.into_iter().flat_map(|(f, list)| list.iter().map(move |v| (f, v))));
        for (field, value) in all {
            // deb-version(7) and deb-control(5) allow no more in names; so no option, no list separator.
            if !is_word(value, b".+-~/:") {
                return Some((field, value, "is not a name"));
            }
        }
        let mirror = self.mirror.as_ref()?;
        let plain = !mirror.contains(|c: char| c.is_whitespace() || c.is_control() || "[]".contains(c));
        let known = ["http://", "https://", "file:/"].iter().any(|scheme| mirror.starts_with(scheme));
        (!plain || !known).then_some(("mirror", mirror, "is not an http, https or file URI"))
    }
}

fn absolute(path: &Path) -> Option<(&'static str, &str, &'static str)> {
    (!path.is_absolute()).then(|| ("source", path.to_str().unwrap_or("(not UTF-8)"), "is not an absolute path"))
}

fn is_sha256(digits: &str) -> bool {
    digits.len() == 64 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_word(text: &str, also: &[u8]) -> bool {
    text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || also.contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(s: &str) -> TemplateName {
        s.parse().unwrap()
    }

    const SMALL: &str = "name='x'\ndescription=''\ndistribution='x'\n[bootstrap]\nmethod='busybox'\n";

    #[test]
    fn built_in_recipes_are_valid() {
        for builtin in Recipe::builtin() {
            let recipe = Recipe::load(&name(builtin), Path::new("/nonexistent")).unwrap();
            assert_eq!(recipe.name, builtin);
        }
    }

    #[test]
    fn a_file_of_the_administrator_comes_before_the_built_in_recipe() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("busybox.toml"), SMALL.replace("'x'", "'busybox'").replace("''", "'mine'")).unwrap();
        assert_eq!(Recipe::load(&name("busybox"), dir.path()).unwrap().description, "mine");
        assert!(matches!(Recipe::load(&name("other"), dir.path()), Err(RecipeError::NotFound { .. })));
    }

    #[test]
    fn unknown_keys_are_errors_on_every_level() {
        for more in [
            "colour='x'",
            "more='x'\n[services]\nmask=[]",
            "[services]\nmusk=[]",
            "[[files]]\npath='/a'\ncontent=''\nowner=1",
        ] {
            let text = format!("{SMALL}{more}");
            assert!(
                matches!(
                    Recipe::parse(&text, &name("x"), "t", Path::new("/nonexistent")),
                    Err(RecipeError::Parse { .. })
                ),
                "{more}"
            );
        }
        let debian = "name='x'\ndescription=''\ndistribution='x'\n[bootstrap]\nmethod='mmdebstrap'\nsuite='a'\narch='b'\nkernel='c'";
        assert!(matches!(
            Recipe::parse(debian, &name("x"), "t", Path::new("/nonexistent")),
            Err(RecipeError::Parse { .. })
        ));
    }

    #[test]
    fn values_that_would_be_options_or_lead_elsewhere_are_refused() {
        let cases = [
            "[[files]]\npath='/../etc/x'\ncontent=''",
            "[[files]]\npath='etc/x'\ncontent=''",
            "[[links]]\npath='/'\ntarget='x'",
            "[services]\nmask=['../x']",
            "[services]\nenable=['--root=/']",
            "[[commands]]\nargv=[]",
            "[[commands]]\nargv=['--help']",
            "[[directories]]\npath='/a'\nmode=0o17777",
        ];
        for more in cases {
            let text = format!("{SMALL}{more}");
            assert!(
                matches!(
                    Recipe::parse(&text, &name("x"), "t", Path::new("/nonexistent")),
                    Err(RecipeError::Invalid { .. })
                ),
                "{more}"
            );
        }
        for more in
            ["suite='-a'\narch='b'", "suite='a'\narch='b'\ninclude=['a,b']", "suite='a'\narch='b'\nmirror='copy:/x'"]
        {
            let text = SMALL.replace("busybox", "mmdebstrap") + more;
            assert!(
                matches!(
                    Recipe::parse(&text, &name("x"), "t", Path::new("/nonexistent")),
                    Err(RecipeError::Invalid { .. })
                ),
                "{more}"
            );
        }
    }

    #[test]
    fn a_recipe_that_is_like_another_says_what_it_has_beyond_it() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(format!("{name}.toml")), text).unwrap();
        write(
            "base",
            &(SMALL.replace("'x'", "'base'") + "[services]\nmask=['a.service']\n[[files]]\npath='/a'\ncontent=''"),
        );
        write("mine", "name='mine'\nlike='base'\ndescription='more'\nremove=['/b']\n[services]\nmask=['c.service']");
        let recipe = Recipe::load(&name("mine"), dir.path()).unwrap();
        assert_eq!((recipe.name.as_str(), recipe.description.as_str()), ("mine", "more"));
        assert_eq!((recipe.bootstrap, recipe.files.len(), recipe.remove.len()), (Bootstrap::Busybox {}, 1, 1));
        assert_eq!(recipe.services.mask, ["a.service", "c.service"]);
        write("base", "name='base'\nlike='mine'");
        let circle = Recipe::load(&name("mine"), dir.path()).unwrap_err().to_string();
        assert!(circle.ends_with("like \"mine\" leads back to this recipe"), "{circle}");
        write("mine", "name='mine'\nlike='none'");
        assert!(matches!(Recipe::load(&name("mine"), dir.path()), Err(RecipeError::NotFound { .. })));
        write("mine", "name='mine'\ndescription=''\ndistribution=''");
        let lacks = Recipe::load(&name("mine"), dir.path()).unwrap_err().to_string();
        assert!(lacks.contains("bootstrap") && lacks.contains("is missing"), "{lacks}");
    }
}
