//! Backbones by their name on the hub: `vit_base_patch16_224.augreg_in21k`, `timm/<name>`, `<owner>/<name>[@revision]`.

use serde::Deserialize;

use super::{BackboneEntry, BackboneOptions, all, find};
use crate::hub::{Hub, Repository};
use crate::{Error, Result};

/// timm's description of a model, as far as it concerns us.
#[derive(Deserialize, Default)]
struct Config {
    #[serde(default)]
    pretrained_cfg: Pretrained,
}

#[derive(Deserialize, Default)]
struct Pretrained {
    mean: Option<[f64; 3]>,
    std: Option<[f64; 3]>,
}

/// The repository that a backbone's name stands for, if it is not one of this build's.
fn repository(name: &str) -> Option<String> {
    if all().iter().any(|e| e.name == name) {
        return None;
    }
    match name.contains('/') {
        true => Some(name.to_owned()),
        false => (name.starts_with("vit_") || name.starts_with("deit")).then(|| format!("timm/{name}")),
    }
}

/// The entry that builds the backbone of this name, and the options with which it does: the weights of a name on the hub are downloaded, or found in
/// the cache, and the normalisation is the one its `config.json` states, unless `options` has another.
///
/// # Errors
/// [`Error::Usage`] for an unknown name, or for weights beside a name that stands for weights; whatever the download fails with.
pub fn resolve(name: &str, options: BackboneOptions, hub: &Hub) -> Result<(&'static BackboneEntry, BackboneOptions)> {
    let Some(id) = repository(name) else {
        let entry = find(name).map_err(|e| match e {
            Error::Usage(text) => {
                Error::usage(format!("{text}; or the name of one of timm's plain ViTs, as in vit_base_patch16_224.augreg_in21k"))
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
    let repo = Repository::model(&id);
    let file = |name: &str| {
        hub.file(&repo, name).map_err(|e| {
            let text = format!("backbone {id}: {e}. With the weights on this machine, use --weights FILE instead of --backbone");
            if matches!(e, Error::Usage(_)) { Error::Usage(text) } else { Error::Protocol(text) }
        })
    };
    let (weights, config) = (file("model.safetensors")?, file("config.json")?);
    let text = std::fs::read_to_string(&config.path).map_err(Error::io(&config.path))?;
    let stated: Config =
        serde_json::from_str(&text).map_err(|e| Error::file(&config.path, format!("not the config.json of a timm model: {e}")))?;
    let id = id.split('@').next().unwrap_or(&id);
    let options = BackboneOptions {
        mean: options.mean.or(stated.pretrained_cfg.mean),
        std: options.std.or(stated.pretrained_cfg.std),
        weights: Some(weights.path),
        source: Some(format!("{id}@{}", weights.commit)),
        ..options
    };
    Ok((find("vit")?, options))
}
