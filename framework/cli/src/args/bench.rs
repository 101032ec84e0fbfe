//! The arguments of `cilbench bench`.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use super::{DataArgs, Precision};

#[derive(Subcommand)]
pub(crate) enum BenchCommand {
    /// Images a second of reading, decoding and transforming
    Data(BenchDataArgs),
    /// Images a second of a training step and of prediction, and peak memory
    Step(BenchStepArgs),
    /// The speed of each kind of matrix product beside that of a large one, on one thread
    Products(BenchProductsArgs),
    /// Seconds of what is done between tasks: class statistics, classifier alignment, InfLoRA's covariances and bases, scoring
    TaskEnd(BenchTaskEndArgs),
}

#[derive(clap::Args)]
pub(crate) struct BenchDataArgs {
    #[command(flatten)]
    pub data: DataArgs,
    /// The side of the images, in pixels [default: 224]
    #[arg(long, value_name = "PIXELS")]
    pub image_size: Option<usize>,
    /// Images a batch
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub batch_size: usize,
    /// Stop after so many images
    #[arg(long, value_name = "N")]
    pub images: Option<usize>,
    /// The test transform instead of the training one
    #[arg(long)]
    pub test: bool,
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
    pub fn width_and_heads(self) -> (usize, usize) {
        match self {
            Self::Tiny => (192, 3),
            Self::Small => (384, 6),
            Self::Base => (768, 12),
        }
    }
}

/// How much memory a training step may take.
#[derive(Debug, Clone, Default, clap::Args, Serialize, Deserialize)]
pub(crate) struct ActivationArgs {
    /// Keep the activations of at most N images of a batch for the backward pass and compute the others' again: less memory, more time, the same bits
    #[arg(long, value_name = "N", conflicts_with = "checkpoint_blocks")]
    pub micro_batch: Option<usize>,
    /// Keep no activations but the embedded images: all blocks are computed again in the backward pass
    #[arg(long)]
    pub checkpoint_blocks: bool,
}

impl ActivationArgs {
    /// For how many images of a batch activations are kept; without a number for all.
    pub fn kept_images(&self) -> cilbench::Result<Option<usize>> {
        match (self.micro_batch, self.checkpoint_blocks) {
            (Some(0), _) => {
                Err(cilbench::Error::usage("--micro-batch 0: at least 1; to keep no activations at all use --checkpoint-blocks"))
            }
            (_, true) => Ok(Some(0)),
            (images, false) => Ok(images),
        }
    }
}

#[derive(clap::Args)]
pub(crate) struct BenchStepArgs {
    /// The method: see `cilbench list methods`
    #[arg(long, default_value = "sr2-lora")]
    pub method: String,
    /// The network, with random weights
    #[arg(long, default_value = "tiny")]
    pub size: Size,
    /// The network of these weights instead
    #[arg(long, value_name = "FILE", conflicts_with = "size")]
    pub weights: Option<PathBuf>,
    /// The side of the images, in pixels
    #[arg(long, default_value_t = 224, value_name = "PIXELS")]
    pub image_size: usize,
    /// Images a step
    #[arg(long, default_value_t = 32, value_name = "N")]
    pub batch_size: usize,
    /// The task that is timed, from 1; those before it are begun and ended
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub task: usize,
    /// Tasks of 10 classes
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub tasks: usize,
    /// Timed steps
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub steps: usize,
    #[command(flatten)]
    pub activations: ActivationArgs,
    /// One hyper-parameter, key=value; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// cpu, cuda or cuda:<n>
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// The floating-point type of the computation
    #[arg(long, default_value = "f32")]
    pub dtype: Precision,
    /// Also write what was measured as JSON
    #[arg(long, value_name = "FILE.json")]
    pub json: Option<PathBuf>,
}

#[derive(clap::Args)]
pub(crate) struct BenchProductsArgs {
    /// The network whose products they are
    #[arg(long, default_value = "tiny")]
    pub size: Size,
    /// The side of the images, in pixels
    #[arg(long, default_value_t = 224, value_name = "PIXELS")]
    pub image_size: usize,
    /// Classes seen so far
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub classes: usize,
    /// The rank of LoRA
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub rank: usize,
}

#[derive(clap::Args)]
pub(crate) struct BenchTaskEndArgs {
    /// The network, with random weights
    #[arg(long, default_value = "tiny")]
    pub size: Size,
    /// The network of these weights instead
    #[arg(long, value_name = "FILE", conflicts_with = "size")]
    pub weights: Option<PathBuf>,
    /// The side of the images, in pixels
    #[arg(long, default_value_t = 224, value_name = "PIXELS")]
    pub image_size: usize,
    /// Classes seen so far
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub classes: usize,
    /// Training images a class
    #[arg(long, default_value_t = 500, value_name = "N")]
    pub images_per_class: usize,
    /// Images of the passes over the network that are timed
    #[arg(long, default_value_t = 128, value_name = "N")]
    pub images: usize,
    /// The method's batch size: classifier alignment draws 5 times as many features of every class
    #[arg(long, default_value_t = 128, value_name = "N")]
    pub batch_size: usize,
    /// cpu, cuda or cuda:<n>
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// The floating-point type of the computation
    #[arg(long, default_value = "f32")]
    pub dtype: Precision,
    /// Also write what was measured as JSON
    #[arg(long, value_name = "FILE.json")]
    pub json: Option<PathBuf>,
}
