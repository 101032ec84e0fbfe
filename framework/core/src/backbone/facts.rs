//! What tensors do not say: the number of heads, the norms' ε, the activation, the normalisation of
//! images. Each comes from the first of these that states it: the command, the file's metadata, a
//! `config.json` beside the file, the table of known architectures. What is left is assumed, and
//! every assumption is said.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{BackboneOptions, WeightsFile, architectures};
use crate::{Error, Result};

/// The function between the two layers of an MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// x·Φ(x).
    #[default]
    Gelu,
    /// GELU by its approximation with tanh (SigLIP).
    GeluTanh,
    /// x·σ(1.702·x), in OpenAI's CLIP.
    QuickGelu,
}

impl Activation {
    /// Its name in the configurations of timm, transformers and open_clip.
    fn parse(name: &str) -> Option<Self> {
        match name.to_lowercase().as_str() {
            "gelu" => Some(Self::Gelu),
            "gelu_tanh" | "gelu-tanh" | "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => {
                Some(Self::GeluTanh)
            }
            "quick_gelu" | "quick-gelu" | "quickgelu" => Some(Self::QuickGelu),
            _ => None,
        }
    }
}

impl std::fmt::Display for Activation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu-tanh",
            Self::QuickGelu => "quick-gelu",
        })
    }
}

/// What one source states.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Facts {
    pub heads: Option<usize>,
    pub eps: Option<f64>,
    pub activation: Option<Activation>,
    pub mean: Option<[f64; 3]>,
    pub std: Option<[f64; 3]>,
}

impl Facts {
    /// These, and from the other what these do not state.
    pub fn or(self, other: Self) -> Self {
        Self {
            heads: self.heads.or(other.heads),
            eps: self.eps.or(other.eps),
            activation: self.activation.or(other.activation),
            mean: self.mean.or(other.mean),
            std: self.std.or(other.std),
        }
    }
}

/// A network as far as a configuration can be compared with it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub dim: usize,
    pub depth: usize,
    pub gated: bool,
    pub norm_pre: bool,
}

/// The facts to use, all stated or assumed.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub heads: usize,
    pub eps: f64,
    pub activation: Activation,
    pub mean: [f64; 3],
    pub std: [f64; 3],
    /// What nothing states, one line each.
    pub assumed: Vec<String>,
    /// What was found beside the file.
    pub notes: Vec<String>,
}

/// Gathers the facts about the network of a file.
///
/// # Errors
/// Names who states a number that cannot be.
pub(super) fn gather(file: &WeightsFile, options: &BackboneOptions, sizes: Sizes) -> Result<Known> {
    let command = Facts {
        heads: options.heads,
        eps: options.layer_norm_eps,
        activation: options.activation,
        mean: options.mean,
        std: options.std,
    };
    possible(&command, sizes, &|what| Error::usage(what))?;
    let metadata = metadata(file)?;
    possible(&metadata, sizes, &|what| file.error(what))?;
    let mut stated = command.or(metadata);
    let mut notes = Vec::new();
    let repository = options.source.as_deref().map(architectures::of_repository);
    let mut name = repository.or_else(|| file.metadata("architecture").map(str::to_owned));
    for beside in ["config.json", "open_clip_config.json", "preprocessor_config.json"] {
        let Some((config, architecture)) = beside_file(file.path(), beside, sizes, &mut notes)?
        else {
            continue;
        };
        stated = stated.or(config);
        name = name.or(architecture);
    }
    if let Some(what) = name.as_deref().and_then(architectures::unsupported) {
        return Err(file.error(what));
    }
    let tags = stated.clone().or(architectures::by_name(name.as_deref()));
    let all = tags.or(architectures::by_sizes(sizes));
    let known = assume(all, sizes, notes);
    if known.heads == 0 || !sizes.dim.is_multiple_of(known.heads) {
        return Err(Error::usage(format!(
            "{} attention heads do not divide the backbone's width {}: say how many it has with --heads N",
            known.heads, sizes.dim
        )));
    }
    Ok(known)
}

/// What the file's own metadata states.
fn metadata(file: &WeightsFile) -> Result<Facts> {
    let activation = file.metadata("activation").map(|text| {
        Activation::parse(text)
            .ok_or_else(|| file.error(format!("metadata activation = '{text}': {ACTIVATIONS}")))
    });
    Ok(Facts {
        heads: file.parsed("heads")?,
        eps: file.parsed("layer_norm_eps")?,
        activation: activation.transpose()?,
        mean: file.triple("mean")?,
        std: file.triple("std")?,
    })
}

const ACTIVATIONS: &str = "known are gelu, gelu-tanh and quick-gelu";

/// Refuses numbers that no network can have.
fn possible(facts: &Facts, sizes: Sizes, error: &dyn Fn(String) -> Error) -> Result<()> {
    if let Some(heads) = facts.heads.filter(|h| *h == 0 || !sizes.dim.is_multiple_of(*h)) {
        let what = "say how many it has with --heads N";
        return Err(error(format!(
            "{heads} attention heads do not divide the backbone's width {}: {what}",
            sizes.dim
        )));
    }
    if let Some(eps) = facts.eps.filter(|e| !(*e > 0.0 && *e < 0.1)) {
        return Err(error(format!("the norms' ε must be a small positive number, got {eps}")));
    }
    if let Some(mean) = facts.mean.iter().flatten().find(|m| !(0.0..=1.0).contains(*m)) {
        return Err(error(format!(
            "the mean of images in [0, 1] is in [0, 1], got {mean}: divide by 255 if it counts pixel values"
        )));
    }
    if let Some(bad) = facts.std.iter().flatten().find(|s| !(s.is_finite() && **s > 0.0)) {
        return Err(error(format!(
            "the normalisation's standard deviation must be finite and positive, got {bad}"
        )));
    }
    Ok(())
}

/// Fills in what nothing states.
fn assume(stated: Facts, sizes: Sizes, notes: Vec<String>) -> Known {
    let mut assumed = Vec::new();
    let heads = stated.heads.unwrap_or_else(|| {
        let heads = sizes.dim / 64;
        assumed.push(format!("{heads} attention heads, the width {} / 64 (--heads N)", sizes.dim));
        heads
    });
    let eps = stated.eps.unwrap_or_else(|| {
        let eps = if sizes.norm_pre { 1e-5 } else { 1e-6 };
        assumed.push(format!("ε = {eps:e} in the norms (config.json: layer_norm_eps)"));
        eps
    });
    let activation = stated.activation.unwrap_or_else(|| {
        if !sizes.gated {
            let clip = if sizes.norm_pre { "; OpenAI's CLIP has quick_gelu" } else { "" };
            assumed.push(format!("the activation gelu (config.json: hidden_act{clip})"));
        }
        Activation::Gelu
    });
    let normalisation = match (stated.mean, stated.std) {
        (None, None) => "images in [0, 1], not normalised (--mean, --std)",
        (Some(_), None) => "standard deviation 1 of the images (--std)",
        (None, Some(_)) => "mean 0 of the images (--mean)",
        (Some(_), Some(_)) => "",
    };
    if !normalisation.is_empty() {
        assumed.push(normalisation.to_owned());
    }
    let (mean, std) = (stated.mean.unwrap_or([0.0; 3]), stated.std.unwrap_or([1.0; 3]));
    Known { heads, eps, activation, mean, std, assumed, notes }
}

/// What a configuration beside the file states, and the architecture it names. One of another
/// network is not used, and a note says so.
fn beside_file(
    weights: &Path,
    name: &str,
    sizes: Sizes,
    notes: &mut Vec<String>,
) -> Result<Option<(Facts, Option<String>)>> {
    let Some(folder) = weights.parent().filter(|_| weights.is_file()) else { return Ok(None) };
    let path = folder.join(name);
    if !path.is_file() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    let config: Value = match serde_json::from_str(&text) {
        Ok(config) => config,
        Err(e) => {
            notes.push(format!("{name} beside the file is not used: it cannot be read ({e})"));
            return Ok(None);
        }
    };
    let config = Config { path: &path, whole: &config };
    for (what, have) in [(WIDTHS, sizes.dim), (DEPTHS, sizes.depth)] {
        if let Some(stated) = config.number(what)?.filter(|n| *n != have as f64) {
            let key = what[0].last().unwrap_or(&"");
            notes.push(format!(
                "{name} beside the file is not used: its {key} is {stated}, the weights' is {have}"
            ));
            return Ok(None);
        }
    }
    let facts = config.facts(sizes)?;
    possible(&facts, sizes, &|what| Error::file(&path, what))?;
    Ok(Some((facts, config.text(&[&["architecture"]]).map(|a| config.tagged(&a)))))
}

/// Mean and standard deviation per channel, where they are stated.
pub(super) type Normalisation = (Option<[f64; 3]>, Option<[f64; 3]>);

/// Reads the normalisation that a `config.json` states.
///
/// # Errors
/// Names file and key if a value is of another kind.
pub(super) fn normalisation(path: &Path, config: &Value) -> Result<Normalisation> {
    let config = Config { path, whole: config };
    Ok((config.triple(MEANS)?, config.triple(STDS)?))
}

/// Places of a value, the first that is there counts; the first place's last key names it.
type Places = &'static [&'static [&'static str]];

const WIDTHS: Places = &[
    &["vision_config", "hidden_size"],
    &["model_cfg", "vision_cfg", "width"],
    &["model_args", "embed_dim"],
    &["hidden_size"],
    &["num_features"],
    &["embed_dim"],
];
const DEPTHS: Places = &[
    &["vision_config", "num_hidden_layers"],
    &["model_cfg", "vision_cfg", "layers"],
    &["model_args", "depth"],
    &["num_hidden_layers"],
];
const HEADS: Places = &[
    &["vision_config", "num_attention_heads"],
    &["model_args", "num_heads"],
    &["num_attention_heads"],
    &["num_heads"],
    &["heads"],
];
const EPS: Places = &[
    &["vision_config", "layer_norm_eps"],
    &["model_args", "norm_eps"],
    &["layer_norm_eps"],
    &["norm_eps"],
];
const ACTS: Places = &[
    &["vision_config", "hidden_act"],
    &["model_args", "act_layer"],
    &["hidden_act"],
    &["act_layer"],
];
const MEANS: Places =
    &[&["pretrained_cfg", "mean"], &["preprocess_cfg", "mean"], &["mean"], &["image_mean"]];
const STDS: Places =
    &[&["pretrained_cfg", "std"], &["preprocess_cfg", "std"], &["std"], &["image_std"]];

struct Config<'a> {
    path: &'a Path,
    whole: &'a Value,
}

impl Config<'_> {
    /// The first value that is there and not `null`.
    fn value(&self, places: &[&[&str]]) -> Option<&Value> {
        let at = |keys: &&[&str]| keys.iter().try_fold(self.whole, |v, key| v.get(key));
        places.iter().filter_map(at).find(|v| !v.is_null())
    }

    fn bad(&self, places: Places, value: &Value, expected: &str) -> Error {
        let key = places[0].last().unwrap_or(&"");
        Error::file(self.path, format!("{key} = {value}: expected {expected}"))
    }

    fn number(&self, places: Places) -> Result<Option<f64>> {
        let Some(value) = self.value(places) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| self.bad(places, value, "a number"))
    }

    fn text(&self, places: &[&[&str]]) -> Option<String> {
        self.value(places)?.as_str().map(str::to_owned)
    }

    fn triple(&self, places: Places) -> Result<Option<[f64; 3]>> {
        let Some(value) = self.value(places) else { return Ok(None) };
        let numbers =
            value.as_array().and_then(|a| a.iter().map(Value::as_f64).collect::<Option<Vec<_>>>());
        let triple = numbers.and_then(|n| <[f64; 3]>::try_from(n).ok());
        triple.map(Some).ok_or_else(|| self.bad(places, value, "three numbers"))
    }

    fn facts(&self, sizes: Sizes) -> Result<Facts> {
        let heads = match self.number(HEADS)? {
            Some(n) if n >= 1.0 && n.fract() == 0.0 && n <= 1e6 => Some(n as usize),
            Some(n) => return Err(self.bad(HEADS, &n.into(), "a whole number")),
            // open_clip states the width of a head.
            None => self
                .number(&[&["model_cfg", "vision_cfg", "head_width"]])?
                .map(|w| sizes.dim / (w.max(1.0) as usize)),
        };
        Ok(Facts {
            heads,
            eps: self.number(EPS)?,
            activation: self.activation(sizes)?,
            mean: self.triple(MEANS)?,
            std: self.triple(STDS)?,
        })
    }

    fn activation(&self, sizes: Sizes) -> Result<Option<Activation>> {
        if sizes.gated {
            return Ok(None);
        }
        if let Some(clip) = self.value(&[&["model_cfg"]]) {
            let quick = clip.get("quick_gelu").and_then(Value::as_bool).unwrap_or(false);
            return Ok(Some(if quick { Activation::QuickGelu } else { Activation::Gelu }));
        }
        // A CLIP of transformers that leaves out what is the default.
        let default = self.text(&[&["model_type"]]).is_some_and(|t| t.starts_with("clip"));
        match self.value(ACTS) {
            Some(value) => {
                let known = value.as_str().and_then(Activation::parse);
                known.map(Some).ok_or_else(|| self.bad(ACTS, value, ACTIVATIONS))
            }
            None => Ok(default.then_some(Activation::QuickGelu)),
        }
    }

    /// The architecture with timm's tag: `vit_base_patch16_224.augreg_in21k`.
    fn tagged(&self, architecture: &str) -> String {
        match self.text(&[&["pretrained_cfg", "tag"], &["tag"]]) {
            Some(tag) if !tag.is_empty() => format!("{architecture}.{tag}"),
            _ => architecture.to_owned(),
        }
    }
}
