//! Backbones: images to features. What parameter-efficient methods need of one are capabilities of
//! the trait.

mod adapter;
#[cfg(test)]
mod adapter_test;
mod architectures;
#[cfg(test)]
mod extra_tokens_test;
mod facts;
#[cfg(test)]
mod facts_test;
#[cfg(test)]
mod full_training_test;
#[cfg(test)]
mod fused_test;
mod hub;
mod layers;
mod low_rank;
mod names;
mod position;
mod vit;
mod weights;

use std::path::PathBuf;

use candle_core::{DType, Device, Tensor, Var};
use serde::{Deserialize, Serialize};

pub use adapter::{Adapter, Adapters};
pub use facts::Activation;
pub use hub::resolve;
pub use low_rank::{LowRank, Pair, Projection, Site};
pub use vit::Vit;
pub use weights::WeightsFile;

use crate::registry::{Named, Registry};
use crate::{Error, Result};

/// A model as plain tensors.
#[derive(Debug, Clone, Default)]
pub struct Exported {
    /// Tensors by name.
    pub tensors: Vec<(String, Tensor)>,
    /// The metadata of a weights file.
    pub metadata: Vec<(String, String)>,
}

/// What is known of a backbone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackboneInfo {
    /// The name it was asked for by.
    pub name: String,
    /// SHA-256 of the weights file.
    pub weights_hash: String,
    /// SHA-256 of the network itself: its tensors in f32 by name, heads, ε and activation. It does
    /// not depend on the file's format or on the names in it. Empty where nobody computed it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub weight_id: String,
    /// The width of a token.
    pub dim: usize,
    /// The number of blocks.
    pub blocks: usize,
    /// The number of attention heads.
    pub heads: usize,
    /// The side of a patch, in pixels.
    pub patch: usize,
    /// The side of the images it takes, in pixels.
    pub image_size: usize,
    /// Per-channel mean subtracted from images in \[0, 1\].
    pub mean: [f64; 3],
    /// Per-channel standard deviation divided by.
    pub std: [f64; 3],
    /// Names of the data sets it was pre-trained on, as far as the file says.
    pub pretrained_on: Vec<String>,
    /// The number of frozen parameters.
    pub parameters: usize,
    /// What neither the command nor the file states and was assumed, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assumed: Vec<String>,
    /// What of the file was renamed and what was left out, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Something a method may need of a backbone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Capability {
    /// The normalised CLS token after every block.
    ClsTokens,
    /// Low-rank paths beside named projections, and folding them into the weights.
    LowRank,
    /// The input of every attention layer (after its norm).
    AttentionInputs,
    /// Bottlenecks beside the MLP of every block.
    MlpAdapters,
    /// Tokens beside the CLS token and the patches, and what becomes of them.
    ExtraTokens,
    /// Gradients of all its own weights, and frozen copies of itself.
    FullTraining,
}

/// What is asked of one forward pass.
#[derive(Default)]
pub struct Pass<'a> {
    /// Low-rank paths to apply beside the frozen projections.
    pub low_rank: Option<&'a LowRank>,
    /// Whether to return the normalised CLS token after every block.
    pub cls_tokens: bool,
    /// Whether the backbone's own weights take gradients, once it is unfrozen; without it they cost
    /// no gradient work even then.
    pub train_weights: bool,
    /// Bottlenecks beside the MLPs of blocks.
    pub adapters: Option<&'a Adapters>,
    /// Tokens (batch, extra, dim) put beside the embedded image, without a position of their own:
    /// prompts. They are attended to in all blocks.
    pub extra_tokens: Option<&'a Tensor>,
    /// Gets, for every block, its number and the input of its attention, (batch, tokens, dim).
    #[allow(clippy::type_complexity)]
    pub attention_inputs: Option<&'a mut dyn FnMut(usize, &Tensor) -> Result<()>>,
}

/// The result of a forward pass.
#[derive(Debug, Clone)]
pub struct Features {
    /// The normalised CLS token after the last block, (batch, dim).
    pub cls: Tensor,
    /// The normalised CLS token after every block, (batch, blocks, dim), if asked for.
    pub blocks: Option<Tensor>,
    /// The normalised extra tokens after the last block, (batch, extra, dim), if there were any.
    pub extra: Option<Tensor>,
}

/// A pre-trained network: images in \[0, 1\] to features. Its weights are frozen and cost no
/// gradient work, unless a method unfreezes them.
pub trait Backbone {
    /// What is known of it.
    fn info(&self) -> &BackboneInfo;

    /// Whether it can do this.
    fn supports(&self, capability: Capability) -> bool;

    /// Features of images (batch, 3, size, size) in \[0, 1\]; normalisation is the backbone's own
    /// affair.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a pass that needs a capability it lacks.
    fn forward(&self, images: &Tensor, pass: Pass) -> Result<Features>;

    /// The size (outputs, inputs) of a projection.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it has no such projection.
    fn projection(&self, site: Site) -> Result<(usize, usize)>;

    /// Adds B·A of every pair to its projection's weights, in f32 at least, detached from any
    /// graph.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it has no such projection.
    fn fold(&mut self, pairs: &LowRank) -> Result<()>;

    /// Makes all its weights variables, and gives them by their names in its weights file; they are
    /// the same ones when asked for again. Passes with [`Pass::train_weights`] then have gradients
    /// of them.
    ///
    /// # Errors
    /// [`Error::Unsupported`] without [`Capability::FullTraining`].
    fn unfreeze(&mut self) -> Result<Vec<(String, Var)>> {
        Err(Error::Unsupported(format!(
            "the weights of backbone '{}' cannot be trained",
            self.info().name
        )))
    }

    /// A frozen copy of it as it is now, which no later training changes.
    ///
    /// # Errors
    /// [`Error::Unsupported`] without [`Capability::FullTraining`].
    fn snapshot(&self) -> Result<Box<dyn Backbone>> {
        Err(Error::Unsupported(format!("backbone '{}' cannot be copied", self.info().name)))
    }

    /// Keeps what a backward pass needs for at most `images` images of a batch (all of them without
    /// a number) and computes it again for the others: less memory, more time, the same numbers.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a number where it cannot be kept to.
    fn keep_activations(&mut self, images: Option<usize>) -> Result<()> {
        match images {
            None => Ok(()),
            Some(_) => Err(Error::Unsupported(format!(
                "backbone '{}' cannot bound the activations it keeps",
                self.info().name
            ))),
        }
    }

    /// Its tensors as they are now, under the names of its weights file, and that file's metadata.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it has no such form.
    fn export(&self) -> Result<Exported> {
        Err(Error::Unsupported(format!("backbone '{}' cannot be exported", self.info().name)))
    }

    /// An error unless it supports all of these.
    ///
    /// # Errors
    /// [`Error::Unsupported`] that names what is missing.
    fn require(&self, method: &str, needed: &[Capability]) -> Result<()> {
        match needed.iter().find(|c| !self.supports(**c)) {
            Some(missing) => Err(Error::Unsupported(format!(
                "backbone '{}' has no {missing:?}, which method '{method}' needs",
                self.info().name
            ))),
            None => Ok(()),
        }
    }
}

/// What the user may say about a backbone beyond its name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BackboneOptions {
    /// The weights file, if not one that the backbone brings along.
    pub weights: Option<PathBuf>,
    /// The side of the images, in pixels, if not the pre-trained one.
    pub image_size: Option<usize>,
    /// The number of attention heads, if the file does not say.
    pub heads: Option<usize>,
    /// Overrides the mean that the file states.
    pub mean: Option<[f64; 3]>,
    /// Overrides the standard deviation that the file states.
    pub std: Option<[f64; 3]>,
    /// Below which key of the file the network is, if the file holds several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights_key: Option<String>,
    /// The ε of the norms, if the file does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer_norm_eps: Option<f64>,
    /// The activation of the MLPs, if the file does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
    /// Where on the hub the weights are from: repository and commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// From what a backbone was built, so that a plugin can build its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackboneSource {
    /// The name of its registry entry.
    pub entry: String,
    /// What the entry was given.
    pub options: BackboneOptions,
}

/// The registry entry of a backbone.
pub struct BackboneEntry {
    /// The name on the command line.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Builds it.
    pub build: fn(&BackboneOptions, DType, &Device) -> Result<Box<dyn Backbone>>,
}

inventory::collect!(BackboneEntry);

/// All registered backbones, by name.
pub fn all() -> Vec<&'static BackboneEntry> {
    BACKBONES.all()
}

/// The backbone of this name.
///
/// # Errors
/// [`Error::Usage`] with the nearest known name.
pub fn find(name: &str) -> Result<&'static BackboneEntry> {
    BACKBONES.find(name)
}

static BACKBONES: Registry<BackboneEntry> = Registry::new("backbone");

impl Named for BackboneEntry {
    fn name(&self) -> &str {
        self.name
    }
}
