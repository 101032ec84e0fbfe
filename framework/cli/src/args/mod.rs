//! The arguments of the command.

mod bench;

use std::path::PathBuf;

pub(crate) use bench::*;
use clap::{Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

/// A benchmark framework for class-incremental learning with pre-trained vision transformers.
#[derive(Parser)]
#[command(name = "cilbench", version, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub command: Command,
    /// Threads to use (all processors by default); results do not depend on it
    #[arg(long, global = true)]
    pub threads: Option<usize>,
    /// Download nothing: use what is here or in the cache (as HF_HUB_OFFLINE=1)
    #[arg(long, global = true)]
    pub offline: bool,
    /// A plugin: a library (.so, .dylib, .dll), or the command that starts a process, "python3 my_method.py"; may be repeated
    #[arg(long, global = true, value_name = "FILE|COMMAND")]
    pub plugin: Vec<String>,
    /// How long a process plugin may take to answer one call
    #[arg(long, global = true, value_name = "SECONDS", help = "How long a process plugin may take to answer one call [default: 600]")]
    pub plugin_timeout: Option<f64>,
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
    /// Check or download a data set
    Data {
        #[command(subcommand)]
        what: DataCommand,
    },
    /// Measure speed on this machine
    Bench {
        #[command(subcommand)]
        what: BenchCommand,
    },
    /// Replay the authors' own trajectories and compare every recorded quantity
    Verify(VerifyArgs),
    /// Drive two implementations of one method side by side, with identical draws and data, and say where they part
    Parity(Box<ParityArgs>),
    /// Rank the finished runs below some folders
    Leaderboard(LeaderboardArgs),
    /// Score a finished run's model again
    Eval(EvalArgs),
    /// Write a finished run's model as one safetensors file with timm's tensor names
    Export(ExportArgs),
    /// Execute a run again, or one of its tasks, and say whether it comes out bit-identical
    Reproduce(ReproduceArgs),
    /// Make, inspect and check plugins: a third party's methods
    Plugin {
        #[command(subcommand)]
        what: PluginCommand,
    },
    /// Check that a method keeps the rules: the conformance suite
    Conformance {
        /// The method
        method: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum PluginCommand {
    /// Write a crate for a method of your own
    New(NewArgs),
    /// The plugins that were opened, with their hashes
    List,
    /// Inspect a plugin and put its methods through the conformance suite, in processes that it may crash
    Check {
        /// The library, or the command in quotes
        #[arg(value_name = "FILE|COMMAND")]
        name: String,
    },
    /// Answer calls for a library, for the process that started this one
    #[command(hide = true)]
    Serve {
        /// The library
        file: PathBuf,
    },
}

#[derive(clap::Args)]
pub(crate) struct NewArgs {
    /// The method's name, as in my-method
    pub name: String,
    /// The folder to make [default: the name]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// A dynamic library for `--plugin`, instead of a program with the method in it
    #[arg(long)]
    pub binary: bool,
    /// Depend on the cilbench in this folder (its repository)
    #[arg(long, value_name = "DIR", conflicts_with = "git")]
    pub path: Option<PathBuf>,
    /// Depend on the cilbench in this git repository
    #[arg(long, value_name = "URL")]
    pub git: Option<String>,
}

#[derive(Subcommand)]
pub(crate) enum DataCommand {
    /// Count a scenario's classes and images, decode every image, and say what is missing or damaged
    Check(CheckArgs),
    /// Download a data set from the Hugging Face hub into its cache, verified
    Fetch {
        /// The data set: see `cilbench list datasets`
        dataset: String,
    },
}

/// A scenario and where its data is.
#[derive(clap::Args)]
pub(crate) struct DataArgs {
    /// The scenario, or a scenario file
    pub scenario: String,
    /// The folder that holds the data set
    #[arg(long, value_name = "DIR")]
    pub data_root: Option<PathBuf>,
    /// The data set's split [default: the scenario's]
    #[arg(long)]
    pub split: Option<String>,
}

#[derive(clap::Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub data: DataArgs,
    /// The class order: natural, seed:<n>, or a file with one class name per line
    #[arg(long)]
    pub class_order: Option<String>,
    /// Only count and list; decode no image
    #[arg(long)]
    pub fast: bool,
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

#[derive(Debug, Clone, Copy, Default, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Precision {
    /// 32-bit floating point
    #[default]
    F32,
    /// 64-bit floating point
    F64,
}

#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
pub(crate) struct RunArgs {
    /// The method: see `cilbench list methods`
    #[arg(long, default_value = "sr2-lora")]
    pub method: String,
    /// The scenario: see `cilbench list scenarios`; or a scenario file of your own, FILE.toml
    #[arg(long, default_value = "split-fashion-mnist-5")]
    pub scenario: String,
    /// The backbone: see `cilbench list backbones`; or a name of timm's, vit_base_patch16_224.augreg_in21k, or a hub repository [default: vit with --weights, else vit-nano]
    #[arg(long)]
    pub backbone: Option<String>,
    /// The backbone's weights: safetensors, a PyTorch checkpoint, or the index of shards of either
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// Which network of a weights file that holds several, by the beginning of its names
    #[arg(long, value_name = "KEY")]
    #[serde(default)]
    pub weights_key: Option<String>,
    /// The folder that holds the data set
    #[arg(long, value_name = "DIR")]
    pub data_root: Option<PathBuf>,
    /// The data set's split: see `cilbench describe` of the data set [default: the scenario's]
    #[arg(long)]
    #[serde(default)]
    pub split: Option<String>,
    /// The class order: natural, seed:<n> for numpy's RandomState(n).permutation, or a file with one class name per line
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
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub epochs: Option<i64>,
    /// Images a step (short for --set batch_size=N)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub batch_size: Option<i64>,
    /// The seed of initial weights, data order, augmentation and draws
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
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
    /// The run folder [default: runs/<scenario>/<method>-<hash of the configuration>/order-<class order>/seed-<seed>]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Several seeds, one run each: 0,1,2
    #[arg(long, value_delimiter = ',', value_name = "N,N,…", conflicts_with = "seed")]
    pub seeds: Vec<u64>,
    /// Several class orders or files of them, one run each: seed:1993,seed:0,mine.txt
    #[arg(long, value_delimiter = ',', value_name = "ORDER,ORDER,…", conflicts_with = "class_order")]
    pub class_orders: Vec<String>,
    #[command(flatten)]
    #[serde(default)]
    pub activations: ActivationArgs,
    /// Minutes between two checkpoints within a task; at the end of a task there is always one
    #[arg(long, default_value_t = 10.0, value_name = "N")]
    pub checkpoint_minutes: f64,
    /// Steps between two checkpoints within a task, besides those by time
    #[arg(long, value_name = "N")]
    pub checkpoint_steps: Option<usize>,
    /// Checkpoints kept
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub keep: usize,
    /// Open binary plugins in a process of their own: one that crashes ends the run with an error, and the run folder resumes
    #[arg(long)]
    #[serde(default)]
    pub isolate: bool,
    /// The plugins that the run needs
    #[arg(skip)]
    #[serde(default)]
    pub plugins: Vec<String>,
    /// How long a plugin in a process may take to answer a call, in seconds
    #[arg(skip)]
    #[serde(default)]
    pub plugin_timeout: Option<f64>,
    /// Score each task with a method rebuilt from its counted state alone; fail if that predicts otherwise
    #[arg(long)]
    pub audit: bool,
    /// Check every input and say what would be done, without a run
    #[arg(long)]
    pub dry_run: bool,
    /// Go on with the run in this folder, as it was started: no option of the run is needed or taken
    #[arg(long, value_name = "DIR", conflicts_with_all = [
        "method", "scenario", "backbone", "weights", "data_root", "split", "class_order", "image_size", "train_per_class", "test_per_class", "epochs",
        "batch_size", "seed", "config", "set", "heads", "mean", "std", "weights_key", "device", "dtype", "out", "seeds", "class_orders", "micro_batch", "checkpoint_blocks",
        "checkpoint_minutes", "checkpoint_steps", "keep", "isolate", "audit", "dry_run",
    ])]
    #[serde(skip)]
    pub resume: Option<PathBuf>,
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

#[derive(clap::Args)]
pub(crate) struct ParityArgs {
    /// One implementation: see `cilbench list methods`
    pub a: String,
    /// The other; a plugin's with --plugin
    pub b: String,
    /// The scenario: see `cilbench list scenarios`; or a scenario file of your own, FILE.toml
    #[arg(long, default_value = "split-fashion-mnist-5")]
    pub scenario: String,
    /// Stop after so many tasks
    #[arg(long, value_name = "N")]
    pub tasks: Option<usize>,
    /// The backbone [default: vit with --weights, else vit-nano]
    #[arg(long)]
    pub backbone: Option<String>,
    /// The backbone's weights
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// The folder that holds the data set
    #[arg(long, value_name = "DIR")]
    pub data_root: Option<PathBuf>,
    /// The side of the images, in pixels [default: the scenario's, else the backbone's]
    #[arg(long, value_name = "PIXELS")]
    pub image_size: Option<usize>,
    /// Only the first K training images of each class
    #[arg(long, value_name = "K")]
    pub train_per_class: Option<usize>,
    /// Only the first K test images of each class
    #[arg(long, value_name = "K")]
    pub test_per_class: Option<usize>,
    /// The class order: natural, seed:<n>, or a file with one class name per line
    #[arg(long)]
    pub class_order: Option<String>,
    /// The seed of data order, augmentation and draws
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// One hyper-parameter of both, key=value; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// One hyper-parameter of the first alone
    #[arg(long, value_name = "KEY=VALUE")]
    pub set_a: Vec<String>,
    /// One hyper-parameter of the second alone
    #[arg(long, value_name = "KEY=VALUE")]
    pub set_b: Vec<String>,
    /// The largest relative error that passes
    #[arg(long, default_value_t = 1e-3, value_name = "ERROR")]
    pub tolerance: f64,
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

#[derive(clap::Args)]
pub(crate) struct LeaderboardArgs {
    /// Folders with runs in them
    #[arg(default_value = "runs", value_name = "DIR")]
    pub folders: Vec<PathBuf>,
    /// Only this scenario
    #[arg(long)]
    pub scenario: Option<String>,
    /// The metric that ranks: last, avg, forgetting or bwt
    #[arg(long, default_value = "last")]
    pub metric: String,
    /// Also write the rows as CSV
    #[arg(long, value_name = "FILE.csv")]
    pub export: Option<PathBuf>,
}

/// Where the inputs of a finished run are, if not where they were.
#[derive(clap::Args)]
pub(crate) struct Moved {
    /// The folder that holds the data set [default: where it was]
    #[arg(long, value_name = "DIR")]
    pub data_root: Option<PathBuf>,
    /// The backbone's weights [default: where they were]
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
}

#[derive(clap::Args)]
pub(crate) struct EvalArgs {
    /// The run folder
    pub run: PathBuf,
    /// Score on another scenario's test images; its classes must come in the same order
    #[arg(long)]
    pub scenario: Option<String>,
    #[command(flatten)]
    pub moved: Moved,
}

#[derive(clap::Args)]
pub(crate) struct ExportArgs {
    /// The run folder
    pub run: PathBuf,
    /// The file to write
    #[arg(long, default_value = "model.safetensors", value_name = "FILE")]
    pub out: PathBuf,
    #[command(flatten)]
    pub moved: Moved,
}

#[derive(clap::Args)]
pub(crate) struct ReproduceArgs {
    /// The run folder
    pub run: PathBuf,
    /// Only this task, from 1, from the checkpoint before it (see --keep of `cilbench run`)
    #[arg(long, value_name = "N")]
    pub task: Option<usize>,
    #[command(flatten)]
    pub moved: Moved,
}
