//! The arguments of the command.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// A benchmark framework for class-incremental learning with pre-trained vision transformers.
#[derive(Parser)]
#[command(name = "cilbench", version, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub command: Command,
    /// Threads to use (all processors by default); results do not depend on it
    #[arg(long, global = true)]
    pub threads: Option<usize>,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Train and score a method over a scenario, into a run folder
    Run(Box<RunArgs>),
    /// List what there is
    List {
        /// What to list
        what: Kind,
    },
    /// Explain a method, a scenario, a data set or a backbone
    Describe {
        /// Its name
        name: String,
    },
    /// Replay the authors' own trajectories and compare every recorded quantity
    Verify(VerifyArgs),
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Kind {
    /// Methods
    Methods,
    /// Scenarios
    Scenarios,
    /// Backbones
    Backbones,
    /// Data sets
    Datasets,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Precision {
    /// 32-bit floating point
    F32,
    /// 64-bit floating point
    F64,
}

#[derive(clap::Args)]
pub(crate) struct RunArgs {
    /// The method: see `cilbench list methods`
    #[arg(long, default_value = "sr2-lora")]
    pub method: String,
    /// The scenario: see `cilbench list scenarios`
    #[arg(long, default_value = "split-fashion-mnist-5")]
    pub scenario: String,
    /// The backbone: see `cilbench list backbones` [default: vit with --weights, else vit-nano]
    #[arg(long)]
    pub backbone: Option<String>,
    /// The backbone's weights: a safetensors file with timm's tensor names
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// The folder that holds the data set
    #[arg(long, value_name = "DIR")]
    pub data_root: Option<PathBuf>,
    /// The class order: natural, or seed:<n> for numpy's RandomState(n).permutation
    #[arg(long)]
    pub class_order: Option<String>,
    /// The side of the images, in pixels [default: the scenario's, else the backbone's]
    #[arg(long, value_name = "PIXELS")]
    pub image_size: Option<usize>,
    /// Only the first K training images of each class, in canonical order
    #[arg(long, value_name = "K")]
    pub train_per_class: Option<usize>,
    /// Only the first K test images of each class, in canonical order
    #[arg(long, value_name = "K")]
    pub test_per_class: Option<usize>,
    /// Passes over a task's training images (short for --set epochs=N)
    #[arg(long, value_name = "N")]
    pub epochs: Option<i64>,
    /// Images a step (short for --set batch_size=N)
    #[arg(long, value_name = "N")]
    pub batch_size: Option<i64>,
    /// The seed of initial weights, data order, augmentation and draws
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Hyper-parameters of the method, as a TOML file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One hyper-parameter, key=value; may be repeated, and wins over --config
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Attention heads of the backbone, where its file does not say
    #[arg(long, value_name = "N")]
    pub heads: Option<usize>,
    /// Per-channel mean subtracted from images in [0, 1], as in 0.5,0.5,0.5 [default: the weights file's, else 0]
    #[arg(long, value_delimiter = ',', value_name = "R,G,B")]
    pub mean: Option<Vec<f64>>,
    /// Per-channel standard deviation divided by [default: the weights file's, else 1]
    #[arg(long, value_delimiter = ',', value_name = "R,G,B")]
    pub std: Option<Vec<f64>>,
    /// cpu, cuda or cuda:<n>
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// The floating-point type of the computation
    #[arg(long, default_value = "f32")]
    pub dtype: Precision,
    /// The run folder [default: runs/<scenario>/<method>-<hash of the configuration>]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

#[derive(clap::Args)]
pub(crate) struct VerifyArgs {
    /// A folder of fixtures [default: those built in]
    #[arg(long, value_name = "DIR")]
    pub fixtures: Option<PathBuf>,
    /// cpu, cuda or cuda:<n>
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// The floating-point type of the computation
    #[arg(long, default_value = "f32")]
    pub dtype: Precision,
}

impl Precision {
    /// candle's name for it, and ours.
    pub(crate) fn dtype(self) -> (cilbench::candle_core::DType, &'static str) {
        match self {
            Self::F32 => (cilbench::candle_core::DType::F32, "f32"),
            Self::F64 => (cilbench::candle_core::DType::F64, "f64"),
        }
    }
}
