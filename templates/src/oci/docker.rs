//! What `docker save` and `podman save` (without `--format oci-archive`) write: `manifest.json` names a configuration and files of layers.
//! The digests of layers are those of the configuration, of layers that are not compressed, as this format has them.

use oci_spec::image::ImageConfiguration;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{Image, LayerBlob, Layout, OciError, Wanted, check_count, check_platform, parse, run};
use crate::unpack::member::shown;

/// Docker's own index of manifests.
pub(super) const LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags", default)]
    tags: Option<Vec<String>>,
    #[serde(rename = "Layers")]
    layers: Vec<String>,
}

pub(super) fn read(layout: &Layout, wanted: &Wanted) -> Result<Image, OciError> {
    let entries: Vec<Entry> = parse("manifest.json", &layout.document("manifest.json")?)?;
    let entry = choose(&entries, wanted)?;
    let bytes = layout.document(&entry.config)?;
    let sha256 = format!("{:x}", Sha256::digest(&bytes));
    if let Some(digest) = wanted.digest.as_ref().filter(|d| d.strip_prefix("sha256:") != Some(sha256.as_str())) {
        return Err(OciError::NotThere { wanted: digest.clone(), found: vec![format!("sha256:{sha256}")] });
    }
    let config: ImageConfiguration = parse(&entry.config, &bytes)?;
    check_platform(config.os(), config.architecture())?;
    let diffs = config.rootfs().diff_ids();
    if diffs.len() != entry.layers.len() {
        let reason = format!("it has {} digests for {} layers", diffs.len(), entry.layers.len());
        return Err(OciError::Malformed { file: shown(entry.config.as_bytes()), reason });
    }
    let layer = |(file, diff): (&String, &String)| {
        let digits = diff.strip_prefix("sha256:").filter(|d| d.len() == 64 && d.bytes().all(|b| b.is_ascii_hexdigit()));
        let digits = digits.ok_or_else(|| OciError::Algorithm(shown(diff.as_bytes())))?;
        Ok(LayerBlob { file: file.clone(), sha256: digits.to_ascii_lowercase() })
    };
    let layers = entry.layers.iter().zip(diffs).map(layer).collect::<Result<Vec<_>, OciError>>()?;
    check_count(&layers)?;
    Ok(Image { sha256, layers, run: run(&config)? })
}

fn choose<'a>(entries: &'a [Entry], wanted: &Wanted) -> Result<&'a Entry, OciError> {
    let tags = |e: &Entry| e.tags.clone().unwrap_or_default();
    let all = || entries.iter().flat_map(tags).map(|t| shown(t.as_bytes())).take(20).collect();
    let named = |e: &&Entry| {
        wanted.tag.as_ref().is_none_or(|tag| tags(e).iter().any(|t| t == tag || t.ends_with(&format!(":{tag}"))))
    };
    let mut fitting = entries.iter().filter(named);
    match (fitting.next(), fitting.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(OciError::NotThere { wanted: wanted.tag.clone().unwrap_or_default(), found: all() }),
        (Some(_), Some(_)) => Err(OciError::Several(all())),
    }
}
