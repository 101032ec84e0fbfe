//! Which scenario a command uses, and where its data set is.

use std::path::PathBuf;

use cilbench::Result;
use cilbench::scenario::ClassOrder;
use serde::{Deserialize, Serialize};

/// Where a scenario's data set is, and which split of it is used.
#[derive(Debug, Clone, Default, clap::Args, Serialize, Deserialize)]
pub(crate) struct DataSourceArgs {
    /// The folder that holds the data set
    #[arg(long, value_name = "DIR")]
    pub data_root: Option<PathBuf>,
    /// The data set's split: see `cilbench describe` of the data set [default: the scenario's]
    #[arg(long)]
    #[serde(default)]
    pub split: Option<String>,
}

/// A scenario as the first argument, and where its data is.
#[derive(clap::Args)]
pub(crate) struct DataArgs {
    /// The scenario, or a scenario file
    pub scenario: String,
    #[command(flatten)]
    pub source: DataSourceArgs,
}

/// A scenario as an option, and how much of its data is used.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
pub(crate) struct ScenarioArgs {
    /// The scenario: see `cilbench list scenarios`; or a scenario file of your own, FILE.toml
    #[arg(long, default_value = "split-fashion-mnist-5")]
    pub scenario: String,
    #[command(flatten)]
    #[serde(flatten)]
    pub source: DataSourceArgs,
    /// The class order: natural, seed:<n> for numpy's RandomState(n).permutation, or a file with
    /// one class name per line
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
}

impl ScenarioArgs {
    /// The class order of `--class-order`; none for the scenario's own.
    pub(crate) fn class_order(&self) -> Result<Option<ClassOrder>> {
        self.class_order.as_deref().map(str::parse).transpose()
    }
}
