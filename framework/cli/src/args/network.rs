//! Which network a command uses, and how much memory its training steps may take.

use std::path::PathBuf;

use cilbench::Result;
use cilbench::backbone::BackboneOptions;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A backbone with its weights.
#[derive(Debug, Clone, Default, clap::Args, Serialize, Deserialize)]
pub(crate) struct BackboneArgs {
    /// The backbone: see `cilbench list backbones`; or a name of timm's, as in
    /// vit_base_patch16_224.augreg_in21k; or a hub repository
    /// [default: vit with --weights, else vit-nano]
    #[arg(long)]
    pub backbone: Option<String>,
    /// The backbone's weights: safetensors, a PyTorch checkpoint, or the index of shards of either
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// Which network of a weights file that holds several, by the beginning of its names
    #[arg(long, value_name = "KEY")]
    #[serde(default)]
    pub weights_key: Option<String>,
    /// Attention heads of the backbone, where its file does not say
    #[arg(long, value_name = "N")]
    pub heads: Option<usize>,
    /// Per-channel mean that is subtracted from images in [0, 1], as in 0.5,0.5,0.5
    /// [default: the weights file's, else 0]
    #[arg(long, value_delimiter = ',', value_name = "R,G,B")]
    pub mean: Option<Vec<f64>>,
    /// Per-channel standard deviation that images are divided by [default: the weights file's, else
    /// 1]
    #[arg(long, value_delimiter = ',', value_name = "R,G,B")]
    pub std: Option<Vec<f64>>,
}

impl BackboneArgs {
    /// The backbone's name.
    pub(crate) fn name(&self) -> &str {
        let fallback = if self.weights.is_some() { "vit" } else { "vit-nano" };
        self.backbone.as_deref().unwrap_or(fallback)
    }

    /// What the backbone is built from, at this side of the images in pixels.
    pub(crate) fn options(&self, image_size: Option<usize>) -> Result<BackboneOptions> {
        Ok(BackboneOptions {
            weights: self.weights.clone(),
            image_size,
            heads: self.heads,
            mean: per_channel("--mean", self.mean.as_deref())?,
            std: per_channel("--std", self.std.as_deref())?,
            weights_key: self.weights_key.clone(),
            ..BackboneOptions::default()
        })
    }
}

fn per_channel(flag: &str, values: Option<&[f64]>) -> Result<Option<[f64; 3]>> {
    let Some(values) = values else { return Ok(None) };
    let bad = |_| {
        cilbench::Error::usage(format!(
            "{flag}: expected three numbers, as in 0.5,0.5,0.5, got {}",
            values.len()
        ))
    };
    <[f64; 3]>::try_from(values).map(Some).map_err(bad)
}

/// A ViT of 12 blocks and 16-pixel patches.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Size {
    /// Width 192
    Tiny,
    /// Width 384
    Small,
    /// Width 768
    Base,
}

impl Size {
    /// The width, and the number of heads.
    pub(crate) fn width_and_heads(self) -> (usize, usize) {
        match self {
            Self::Tiny => (192, 3),
            Self::Small => (384, 6),
            Self::Base => (768, 12),
        }
    }
}

/// The network of a measurement: one of a size with random weights, or that of a weights file.
#[derive(clap::Args)]
pub(crate) struct NetworkArgs {
    /// The network, with random weights
    #[arg(long, default_value = "tiny")]
    pub size: Size,
    /// The network of these weights instead
    #[arg(long, value_name = "FILE", conflicts_with = "size")]
    pub weights: Option<PathBuf>,
    /// The side of the images, in pixels
    #[arg(long, default_value_t = 224, value_name = "PIXELS")]
    pub image_size: usize,
}

/// How much memory a training step may take.
#[derive(Debug, Clone, Default, clap::Args, Serialize, Deserialize)]
pub(crate) struct ActivationArgs {
    /// Keep the activations of at most N images of a batch for the backward pass and compute the
    /// others' again: less memory, more time, the same bits
    #[arg(long, value_name = "N", conflicts_with = "checkpoint_blocks")]
    pub micro_batch: Option<usize>,
    /// Keep no activations but the embedded images: all blocks are computed again in the backward
    /// pass
    #[arg(long)]
    pub checkpoint_blocks: bool,
}

impl ActivationArgs {
    /// The number of images of a batch whose activations are kept; none for all images.
    pub(crate) fn kept_images(&self) -> Result<Option<usize>> {
        match (self.micro_batch, self.checkpoint_blocks) {
            (Some(0), _) => Err(cilbench::Error::usage(
                "--micro-batch 0: at least 1; to keep no activations at all use --checkpoint-blocks",
            )),
            (_, true) => Ok(Some(0)),
            (images, false) => Ok(images),
        }
    }
}
