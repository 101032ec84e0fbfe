//! Hyper-parameters on the command line.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A method's hyper-parameters: a file, single settings, and two flags that stand for a setting.
#[derive(Debug, Clone, Default, clap::Args, Serialize, Deserialize)]
pub(crate) struct SettingArgs {
    /// Passes over a task's training images (short for --set epochs=N)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub epochs: Option<i64>,
    /// Images per step (short for --set batch_size=N)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub batch_size: Option<i64>,
    /// Hyper-parameters of the method, as a TOML file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One hyper-parameter, key=value; may be repeated, and wins over --config
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}
