//! `cilbench data`: data sets, checked and downloaded.

mod check;
mod fetch;

use cilbench::Result;
use clap::Subcommand;

use super::Execute;
use crate::args::GlobalArgs;
use crate::plugins::PluginPolicy;

#[derive(Subcommand)]
pub(crate) enum DataCommand {
    /// Count a scenario's classes and images, decode every image, and say what is missing or
    /// damaged
    Check(check::Check),
    /// Download a data set from the Hugging Face hub into its cache, verified
    Fetch(fetch::Fetch),
}

impl Execute for DataCommand {
    fn plugins(&self) -> Result<PluginPolicy> {
        Ok(PluginPolicy::without_folder())
    }

    fn execute(&self, global: &GlobalArgs) -> Result<()> {
        match self {
            Self::Check(check) => check.execute(global),
            Self::Fetch(fetch) => fetch.execute(global),
        }
    }
}
