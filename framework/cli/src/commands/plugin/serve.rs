//! `cilbench plugin serve`: serves a library in a process of its own.

use std::path::PathBuf;

use cilbench::Result;
use cilbench::plugin::process;

use crate::args::GlobalArgs;
use crate::commands::Execute;
use crate::plugins::PluginPolicy;

#[derive(clap::Args)]
pub(crate) struct Serve {
    /// The library
    file: PathBuf,
}

impl Execute for Serve {
    fn plugins(&self) -> Result<PluginPolicy> {
        Ok(PluginPolicy::without_folder())
    }

    fn execute(&self, _: &GlobalArgs) -> Result<()> {
        process::serve(&self.file)
    }
}
