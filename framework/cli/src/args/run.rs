//! The options of a run. Its folder keeps them in `command.json`, whose keys are the fields' names.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ActivationArgs, BackboneArgs, DeviceArgs, ScenarioArgs, SettingArgs};

/// One method with its hyper-parameters, on one backbone, over one scenario.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
pub(crate) struct Experiment {
    /// The method: see `cilbench list methods`
    #[arg(long, default_value = "sr2-lora")]
    pub method: String,
    #[command(flatten)]
    #[serde(flatten)]
    pub settings: SettingArgs,
    #[command(flatten)]
    #[serde(flatten)]
    pub plugins: PluginUse,
    #[command(flatten, next_help_heading = "Scenario and data")]
    #[serde(flatten)]
    pub scenario: ScenarioArgs,
    #[command(flatten, next_help_heading = "Backbone")]
    #[serde(flatten)]
    pub backbone: BackboneArgs,
    #[command(flatten, next_help_heading = "Device and memory")]
    #[serde(flatten)]
    pub device: DeviceArgs,
    #[command(flatten, next_help_heading = "Device and memory")]
    #[serde(default)]
    pub activations: ActivationArgs,
}

/// How plugins of the run are opened. The fields without an option are filled from the global
/// options and kept in `command.json`.
#[derive(Debug, Clone, Default, clap::Args, Serialize, Deserialize)]
pub(crate) struct PluginUse {
    /// Open binary plugins in a process of their own: one that crashes ends the run with an error,
    /// and the run folder resumes
    #[arg(long)]
    #[serde(default)]
    pub isolate: bool,
    /// The plugins that the run needs.
    #[arg(skip)]
    #[serde(default)]
    pub plugins: Vec<String>,
    /// How long a process plugin may take to answer a call, in seconds.
    #[arg(skip)]
    #[serde(default)]
    pub plugin_timeout: Option<f64>,
}

/// The seed, or several seeds and class orders with one run for each pair.
#[derive(Debug, Clone, Default, clap::Args, Serialize, Deserialize)]
pub(crate) struct SweepArgs {
    /// The seed of initial weights, data order, augmentation and draws
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub seed: u64,
    /// Several seeds, one run each: 0,1,2
    #[arg(long, value_delimiter = ',', value_name = "N,N,…", conflicts_with = "seed")]
    pub seeds: Vec<u64>,
    /// Several class orders or files of them, one run each: seed:1993,seed:0,mine.txt
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "ORDER,ORDER,…",
        conflicts_with = "class_order"
    )]
    pub class_orders: Vec<String>,
}

/// When checkpoints are written, and how many are kept.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
pub(crate) struct CheckpointArgs {
    /// Minutes between two checkpoints within a task; at the end of a task there is always one
    #[arg(long, default_value_t = 10.0, value_name = "N")]
    pub checkpoint_minutes: f64,
    /// Steps between two checkpoints within a task, besides those by time
    #[arg(long, value_name = "N")]
    pub checkpoint_steps: Option<usize>,
    /// The number of checkpoints that are kept
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub keep: usize,
    /// Stop after this time with a checkpoint and exit code 75, as 45m, 12h or 1-12:00:00
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    #[serde(skip)]
    pub max_time: Option<u64>,
}

/// The options of a run that `command.json` keeps.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub experiment: Experiment,
    #[command(flatten, next_help_heading = "Seeds and class orders")]
    #[serde(flatten)]
    pub sweep: SweepArgs,
    /// The run folder [default: runs/<scenario>/<method>-<hash of the configuration>/order-<class
    /// order>/seed-<seed>]
    #[arg(long, value_name = "DIR", help_heading = "Run folder")]
    pub out: Option<PathBuf>,
    #[command(flatten, next_help_heading = "Run folder")]
    #[serde(flatten)]
    pub checkpoints: CheckpointArgs,
    /// Score each task with a method rebuilt from its counted state alone; fail if that predicts
    /// otherwise
    #[arg(long)]
    pub audit: bool,
    /// Check every input and say what would be done, without a run
    #[arg(long)]
    pub dry_run: bool,
}

fn seconds(text: &str) -> std::result::Result<u64, String> {
    crate::signals::parse_time(text).map(|time| time.as_secs())
}

impl RunArgs {
    /// What `cilbench run` does without an option.
    pub(crate) fn defaults() -> cilbench::Result<Self> {
        let unusable =
            |e: clap::Error| cilbench::Error::Protocol(format!("the options' defaults: {e}"));
        let command = <Self as clap::Args>::augment_args(clap::Command::new("run"));
        let matches = command.try_get_matches_from(["run"]).map_err(unusable)?;
        <Self as clap::FromArgMatches>::from_arg_matches(&matches).map_err(unusable)
    }
}
