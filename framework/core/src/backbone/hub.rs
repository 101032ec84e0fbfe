//! Backbones by their name on the hub: `vit_base_patch16_224.augreg_in21k`, `timm/<name>`,
//! `<owner>/<name>[@revision]`, with `hf-hub:` before it, or as the address of its page.

use std::path::Path;

use super::facts::{self, Normalisation};
use super::{BackboneEntry, BackboneOptions, all, find};
use crate::hub::{Fetched, Hub, Repository};
use crate::{Error, Result};

/// Weights that a repository may have, the best first.
const WEIGHTS: &[&str] = &[
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
];

/// Prefixes that other programs put before the name of a repository.
const PREFIXES: &[&str] = &["hf-hub:", "hf_hub:", "hf://"];

/// The repository that a backbone's name stands for, with its revision, if it is not one of this
/// build's.
fn repository(name: &str) -> Result<Option<String>> {
    if all().iter().any(|e| e.name == name) {
        return Ok(None);
    }
    let bare = PREFIXES.iter().find_map(|p| name.strip_prefix(p)).unwrap_or(name);
    let (path, is_address) = match bare.split_once("://") {
        Some((_, rest)) => (rest.split_once('/').map_or("", |(_, path)| path), true),
        None => (bare, false),
    };
    let parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    let id = match parts[..] {
        [model] if !is_address && (model.starts_with("vit_") || model.starts_with("deit")) => {
            return Ok(Some(format!("timm/{model}")));
        }
        [_] if bare == name && !is_address => return Ok(None),
        [owner, model] if !owner.is_empty() && !model.is_empty() => format!("{owner}/{model}"),
        [owner, model, "tree" | "blob" | "resolve" | "commit", revision, ..] if is_address => {
            format!("{owner}/{model}@{}", revision.split('?').next().unwrap_or(revision))
        }
        _ if Path::new(name).exists() => {
            return Err(Error::usage(format!(
                "--backbone {name}: this is a path; a backbone from a file is --weights {name}"
            )));
        }
        _ => {
            let forms =
                "OWNER/NAME or OWNER/NAME@REVISION, as in timm/vit_base_patch16_224.augreg_in21k";
            return Err(Error::usage(format!(
                "--backbone {name}: a repository of the hub is {forms}"
            )));
        }
    };
    Ok(Some(id))
}

/// The entry that builds the backbone of this name, and the options with which it does. The weights
/// of a name on the hub are downloaded, or found in the cache; the normalisation is the one that
/// its configuration states, unless `options` has another.
///
/// # Errors
/// [`Error::Usage`] for an unknown name, or for weights beside a name that stands for weights;
/// whatever the download fails with.
pub fn resolve(
    name: &str,
    options: BackboneOptions,
    hub: &Hub,
) -> Result<(&'static BackboneEntry, BackboneOptions)> {
    let Some(id) = repository(name)? else {
        let entry = find(name).map_err(|e| match e {
            Error::Usage(text) => {
                let example = "as in vit_base_patch16_224.augreg_in21k";
                Error::usage(format!("{text}; or the name of one of timm's plain ViTs, {example}"))
            }
            other => other,
        })?;
        return Ok((entry, options));
    };
    if let Some(weights) = &options.weights {
        let weights = weights.display();
        return Err(Error::usage(format!(
            "backbone '{name}' stands for the weights of {id}: leave out --weights {weights}, or use --backbone vit"
        )));
    }
    let (weights, (mean, std)) = download(&Repository::model(&id), hub).map_err(|e| {
        let remedy = "With the weights on this machine, use --weights FILE instead of --backbone";
        let text = format!("backbone {id}: {e}. {remedy}");
        if matches!(e, Error::Usage(_)) { Error::Usage(text) } else { Error::Protocol(text) }
    })?;
    let id = id.split('@').next().unwrap_or(&id);
    let options = BackboneOptions {
        mean: options.mean.or(mean),
        std: options.std.or(std),
        source: Some(format!("{id}@{}", weights.commit)),
        weights: Some(weights.path),
        ..options
    };
    Ok((find("vit")?, options))
}

/// The weights of a repository, with the files that say what the weights do not beside them.
fn download(repo: &Repository, hub: &Hub) -> Result<(Fetched, Normalisation)> {
    let weights = hub.first_file(repo, WEIGHTS)?;
    let weights = weights.ok_or_else(|| hub.lacks(repo, &WEIGHTS.join(" or ")))?;
    let name = weights.path.file_name().unwrap_or_default().to_string_lossy();
    if name.ends_with(".index.json") {
        for shard in super::weights::shards_of(&weights.path)? {
            hub.file(repo, &shard)?;
        }
    }
    let configuration =
        if name.starts_with("open_clip") { "open_clip_config.json" } else { "config.json" };
    let mut stated = normalisation(hub.optional_file(repo, configuration)?)?;
    if stated.0.is_none() {
        let more = normalisation(hub.optional_file(repo, "preprocessor_config.json")?)?;
        stated = (stated.0.or(more.0), stated.1.or(more.1));
    }
    Ok((weights, stated))
}

/// The normalisation that a configuration states.
fn normalisation(file: Option<Fetched>) -> Result<Normalisation> {
    let Some(Fetched { path, .. }) = file else { return Ok((None, None)) };
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    let config = serde_json::from_str(&text)
        .map_err(|e| Error::file(&path, format!("not the configuration of a model: {e}")))?;
    facts::normalisation(&path, &config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_repositories_are_understood_in_every_form() {
        let of = |name: &str| repository(name).expect("understood").unwrap_or_default();
        let plain = "timm/vit_tiny_patch16_224.augreg_in21k";
        for name in [
            "vit_tiny_patch16_224.augreg_in21k",
            plain,
            "hf-hub:timm/vit_tiny_patch16_224.augreg_in21k",
            "hf-hub:vit_tiny_patch16_224.augreg_in21k",
            "https://huggingface.co/timm/vit_tiny_patch16_224.augreg_in21k",
            "https://huggingface.co/timm/vit_tiny_patch16_224.augreg_in21k/",
        ] {
            assert_eq!(of(name), plain, "{name}");
        }
        assert_eq!(of("a/b@v1"), "a/b@v1");
        assert_eq!(of("https://huggingface.co/a/b/tree/v1"), "a/b@v1");
        assert_eq!(of("https://huggingface.co/a/b/blob/v1/model.safetensors"), "a/b@v1");
        assert_eq!(of("resnet50"), "");
    }

    #[test]
    fn what_is_no_repository_is_said_with_the_form_of_one() {
        let message = |name: &str| repository(name).expect_err("refused").to_string();
        assert!(message("a/b/c").contains("OWNER/NAME@REVISION"), "{}", message("a/b/c"));
        assert!(message("https://huggingface.co/").contains("OWNER/NAME"));
        assert!(message("src/backbone/hub.rs").contains("--weights src/backbone/hub.rs"));
    }
}
