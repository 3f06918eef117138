//! Images of the Open Container Initiative: an image layout as `skopeo`, `umoci`, `buildah` and `podman save` write it, or what `docker save`
//! writes, read as data. Every document has a bound, and every blob the digest that names it; what is in the layers is for
//! [`crate::unpack`] to read.

mod docker;
mod import;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use oci_spec::image::{
    Arch, Descriptor, Digest, DigestAlgorithm, ImageConfiguration, ImageIndex, ImageManifest, MediaType, Os,
};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use import::Pointer;

use crate::unpack::member::shown;

/// Of an index, a manifest, a configuration. What registries take at most (distribution-spec, "Pushing Manifests").
const MAX_DOCUMENT: u64 = 4 << 20;
/// Indexes within indexes.
const MAX_DEPTH: usize = 4;
/// Layers of one image: with those of applications it has to be less than can be mounted over each other.
pub(crate) const MAX_LAYERS: usize = 50;
/// The annotation that holds a tag (image-spec, `annotations.md`).
const TAG: &str = "org.opencontainers.image.ref.name";

/// Which image of a layout.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Its tag, if there are several.
    #[serde(default)]
    pub tag: Option<String>,
    /// `sha256:…` of its manifest or index; another is refused.
    #[serde(default)]
    pub digest: Option<String>,
}

/// Why an image is refused.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// A file of it.
    #[error("read {file} of the image")]
    Read {
        /// Its name in the image.
        file: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Neither kind of image.
    #[error("it has neither oci-layout nor manifest.json: it is no image")]
    NoImage,
    /// A document that is longer than any should be.
    #[error("{file} of the image has {bytes} bytes, more than {MAX_DOCUMENT}")]
    TooLong {
        /// Its name in the image.
        file: String,
        /// How many.
        bytes: u64,
    },
    /// A document that is none.
    #[error("{file} of the image is not what it should be: {reason}")]
    Malformed {
        /// Its name in the image.
        file: String,
        /// In the words of the parser.
        reason: String,
    },
    /// A blob is not what its name says.
    #[error("{file} of the image has the digest sha256:{found}, and should have sha256:{wanted}")]
    Digest {
        /// Its name in the image.
        file: String,
        /// In hexadecimal.
        wanted: String,
        /// In hexadecimal.
        found: String,
    },
    /// A digest that is no SHA-256.
    #[error("the image uses the digest {0:?}; only sha256 is read")]
    Algorithm(String),
    /// No image of this tag or digest.
    #[error("there is no image {wanted} in it; there are: {}", if found.is_empty() { "none".to_owned() } else { found.join(", ") })]
    NotThere {
        /// What was asked for.
        wanted: String,
        /// Tags that there are.
        found: Vec<String>,
    },
    /// No tag was given, and there are several.
    #[error("there are several images in it; name one of: {}", .0.join(", "))]
    Several(Vec<String>),
    /// It is for other machines.
    #[error("the image is for {found}; this machine needs linux/{}", architecture())]
    Architecture {
        /// Of the image.
        found: String,
    },
    /// A layer that is no file system, or an encrypted one.
    #[error("a layer of the image is of the kind {0}, which is not read")]
    LayerKind(String),
    /// More layers than can be mounted.
    #[error("the image has {0} layers; more than {MAX_LAYERS} are not mounted over each other")]
    TooManyLayers(usize),
    /// A signal that there is not.
    #[error("the image is to be stopped by {0:?}, which is no signal")]
    Signal(String),
    /// Neither an init nor a program.
    #[error("the image has no init, and no Entrypoint or Cmd: there is nothing in it to start")]
    NothingToRun,
    /// Nothing at all.
    #[error("the image has no layers")]
    NoLayers,
    /// Indexes within indexes without end.
    #[error("indexes of the image lie in each other deeper than {MAX_DEPTH}")]
    TooDeep,
}

/// One layer, as a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayerBlob {
    /// Below the directory of the image.
    pub(crate) file: String,
    /// SHA-256 of that file, in hexadecimal.
    pub(crate) sha256: String,
}

/// What an image wants to be run (image-spec, `config.md`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// `Entrypoint` and `Cmd`, one after the other.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Absolute; `/` if the image says nothing.
    pub dir: String,
    /// As the image says it: names or numbers, `user:group`.
    pub user: String,
    /// Number and group inside, once they were looked up.
    pub ids: (u32, u32),
    /// The number of the signal that ends it, that of `SIGTERM` if the image says nothing.
    pub stop_signal: i32,
    /// Whether the image has an init of its own: then that is what starts.
    pub has_init: bool,
}

/// An image that was chosen and read, but for its layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// SHA-256 of its manifest, or of its configuration where there is no manifest.
    pub(crate) sha256: String,
    /// The lowest first.
    pub(crate) layers: Vec<LayerBlob>,
    pub(crate) run: Run,
}

/// The directory of an image. What is in it is hostile: no name in it leads out of it.
pub(crate) struct Layout(OwnedFd);

impl Layout {
    /// Names by which an image is known, as the first members of an archive.
    pub(crate) const SIGNS: [&str; 4] = ["oci-layout", "index.json", "manifest.json", "blobs"];

    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(fs_err::File::open(path)?.into_file().into()))
    }

    pub(crate) fn file(&self, name: &str) -> Result<File, OciError> {
        let failed = |source| OciError::Read { file: shown(name.as_bytes()), source };
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let fd = rustix::fs::openat2(&self.0, name, flags, Mode::empty(), inside).map_err(|e| failed(e.into()))?;
        let file = File::from(fd);
        match file.metadata() {
            Ok(m) if m.is_file() => Ok(file),
            Ok(_) => Err(failed(io::Error::other("it is not a file"))),
            Err(e) => Err(failed(e)),
        }
    }

    fn has(&self, name: &str) -> Result<bool, OciError> {
        match self.file(name) {
            Ok(_) => Ok(true),
            Err(OciError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn document(&self, name: &str) -> Result<Vec<u8>, OciError> {
        let file = self.file(name)?;
        let mut bytes = Vec::new();
        let failed = |source| OciError::Read { file: shown(name.as_bytes()), source };
        file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(OciError::TooLong { file: shown(name.as_bytes()), bytes: bytes.len() as u64 });
        }
        Ok(bytes)
    }

    /// The document that a descriptor names, if it is that one.
    fn blob(&self, digest: &Digest) -> Result<Vec<u8>, OciError> {
        let (file, wanted) = (blob_file(digest)?, hexadecimal(digest)?);
        let bytes = self.document(&file)?;
        let found = format!("{:x}", Sha256::digest(&bytes));
        if found != wanted {
            return Err(OciError::Digest { file, wanted, found });
        }
        Ok(bytes)
    }

    /// Whether this is an image at all, of either kind.
    pub(crate) fn is_image(&self) -> Result<bool, OciError> {
        Ok(self.has("oci-layout")? || self.has("manifest.json")?)
    }

    /// Chooses an image and reads what there is to know of it.
    pub(crate) fn read(&self, wanted: &Wanted) -> Result<Image, OciError> {
        if self.has("oci-layout")? {
            self.read_oci(wanted)
        } else if self.has("manifest.json")? {
            docker::read(self, wanted)
        } else {
            Err(OciError::NoImage)
        }
    }

    fn read_oci(&self, wanted: &Wanted) -> Result<Image, OciError> {
        let index: ImageIndex = parse("index.json", &self.document("index.json")?)?;
        let mut chosen = choose(&index, wanted)?;
        for _ in 0..MAX_DEPTH {
            match chosen.media_type() {
                MediaType::ImageIndex => {}
                MediaType::Other(kind) if kind == docker::LIST => {}
                _ => return self.read_manifest(&chosen),
            }
            let inner: ImageIndex = parse(&blob_file(chosen.digest())?, &self.blob(chosen.digest())?)?;
            chosen = choose(&inner, &Wanted::default())?;
        }
        Err(OciError::TooDeep)
    }

    fn read_manifest(&self, descriptor: &Descriptor) -> Result<Image, OciError> {
        let manifest: ImageManifest = parse(&blob_file(descriptor.digest())?, &self.blob(descriptor.digest())?)?;
        let config = manifest.config().digest();
        let config: ImageConfiguration = parse(&blob_file(config)?, &self.blob(config)?)?;
        check_platform(config.os(), config.architecture())?;
        let mut layers = Vec::new();
        for layer in manifest.layers() {
            check_layer_kind(layer.media_type())?;
            layers.push(LayerBlob { file: blob_file(layer.digest())?, sha256: hexadecimal(layer.digest())? });
        }
        check_count(&layers)?;
        Ok(Image { sha256: hexadecimal(descriptor.digest())?, layers, run: run(&config)? })
    }
}

fn parse<T: for<'de> Deserialize<'de>>(file: &str, bytes: &[u8]) -> Result<T, OciError> {
    let malformed = |e: serde_json::Error| OciError::Malformed { file: shown(file.as_bytes()), reason: e.to_string() };
    serde_json::from_slice(bytes).map_err(malformed)
}

fn check_count(layers: &[LayerBlob]) -> Result<(), OciError> {
    match layers.len() {
        0 => Err(OciError::NoLayers),
        1..=MAX_LAYERS => Ok(()),
        many => Err(OciError::TooManyLayers(many)),
    }
}

/// This machine's name in images: Go's (`GOARCH`).
pub(crate) fn architecture() -> Arch {
    match std::env::consts::ARCH {
        "x86_64" => Arch::Amd64,
        "aarch64" => Arch::ARM64,
        other => Arch::Other(other.to_owned()),
    }
}

fn check_platform(os: &Os, arch: &Arch) -> Result<(), OciError> {
    if *os == Os::Linux && *arch == architecture() {
        return Ok(());
    }
    Err(OciError::Architecture { found: shown(format!("{os}/{arch}").as_bytes()) })
}

/// Tar, compressed or not: which compression is told by the bytes.
fn check_layer_kind(kind: &MediaType) -> Result<(), OciError> {
    let name = kind.to_string();
    let is_tar = ["application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."]
        .iter()
        .filter_map(|prefix| name.strip_prefix(prefix))
        .any(|rest| rest.contains("tar") && !rest.contains("encrypted"));
    if is_tar { Ok(()) } else { Err(OciError::LayerKind(shown(name.as_bytes()))) }
}

fn tag_of(descriptor: &Descriptor) -> Option<&str> {
    descriptor.annotations().as_ref()?.get(TAG).map(String::as_str)
}

/// The one descriptor of an index that is wanted and for this machine.
fn choose(index: &ImageIndex, wanted: &Wanted) -> Result<Descriptor, OciError> {
    let named = |d: &&Descriptor| {
        let tag = wanted
            .tag
            .as_ref()
            .is_none_or(|tag| tag_of(d).is_some_and(|t| t == tag || t.ends_with(&format!(":{tag}"))));
        tag && wanted.digest.as_ref().is_none_or(|digest| d.digest().to_string() == *digest)
    };
    let all: Vec<&Descriptor> = index.manifests().iter().filter(named).collect();
    let tags =
        || index.manifests().iter().map(|d| tag_of(d).map_or_else(|| d.digest().to_string(), |t| shown(t.as_bytes())));
    if all.is_empty() {
        let wanted = wanted.tag.clone().or_else(|| wanted.digest.clone()).unwrap_or_else(|| String::from("at all"));
        return Err(OciError::NotThere { wanted, found: tags().take(20).collect() });
    }
    // A descriptor that says nothing is asked by its configuration.
    let fits =
        |d: &&&Descriptor| d.platform().as_ref().is_none_or(|p| check_platform(p.os(), p.architecture()).is_ok());
    let fitting: Vec<&&Descriptor> = all.iter().filter(fits).collect();
    match fitting.as_slice() {
        [one] => Ok((**one).clone()),
        [first, rest @ ..] if rest.iter().all(|d| d.digest() == first.digest()) => Ok((**first).clone()),
        [] => {
            let found =
                all.iter().filter_map(|d| d.platform().as_ref()).map(|p| format!("{}/{}", p.os(), p.architecture()));
            Err(OciError::Architecture { found: shown(found.collect::<Vec<_>>().join(", ").as_bytes()) })
        }
        _ => Err(OciError::Several(tags().take(20).collect())),
    }
}

fn hexadecimal(digest: &Digest) -> Result<String, OciError> {
    let digits = digest.digest();
    let is_sha256 = *digest.algorithm() == DigestAlgorithm::Sha256
        && digits.len() == 64
        && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if is_sha256 { Ok(digits.to_owned()) } else { Err(OciError::Algorithm(shown(digest.to_string().as_bytes()))) }
}

fn blob_file(digest: &Digest) -> Result<String, OciError> {
    Ok(format!("blobs/sha256/{}", hexadecimal(digest)?))
}

/// What the configuration of an image says of running it.
fn run(config: &ImageConfiguration) -> Result<Run, OciError> {
    let mut run = Run { dir: String::from("/"), stop_signal: libc::SIGTERM, ..Run::default() };
    let Some(config) = config.config() else { return Ok(run) };
    let list = |l: &Option<Vec<String>>| l.clone().unwrap_or_default();
    run.args = [list(config.entrypoint()), list(config.cmd())].concat();
    run.env = list(config.env());
    run.user = config.user().clone().unwrap_or_default();
    if let Some(dir) = config.working_dir().as_ref().filter(|d| d.starts_with('/')) {
        run.dir.clone_from(dir);
    }
    if let Some(signal) = config.stop_signal().as_ref().filter(|s| !s.is_empty()) {
        run.stop_signal = signal_number(signal).ok_or_else(|| OciError::Signal(shown(signal.as_bytes())))?;
    }
    Ok(run)
}

/// `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3` (image-spec, `config.md`).
fn signal_number(text: &str) -> Option<i32> {
    let name = text.strip_prefix("SIG").unwrap_or(text);
    let known = || format!("SIG{name}").parse::<nix::sys::signal::Signal>().ok().map(|s| s as i32);
    let real_time = || {
        let offset: i32 = name.strip_prefix("RTMIN+")?.parse().ok()?;
        Some(libc::SIGRTMIN() + offset)
    };
    let number = name.parse().ok().or_else(known).or_else(real_time)?;
    (1..=libc::SIGRTMAX()).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests;
