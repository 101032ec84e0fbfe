//! `cilbench plugin`: makes, lists and checks plugins.

mod check;
mod list;
mod new;
mod serve;

use cilbench::Result;
use clap::Subcommand;

use super::Execute;
use crate::args::GlobalArgs;
use crate::plugins::PluginPolicy;

#[derive(Subcommand)]
pub(crate) enum PluginCommand {
    /// Write a crate for a method of your own
    New(new::New),
    /// List the plugins that were opened, with their hashes
    List(list::List),
    /// Inspect a plugin and put its methods through the conformance suite, in processes that it may
    /// crash
    Check(check::Check),
    /// Answer calls for a library, for the process that started this one
    #[command(hide = true)]
    Serve(serve::Serve),
}

impl PluginCommand {
    fn given(&self) -> &dyn Execute {
        match self {
            Self::New(new) => new,
            Self::List(list) => list,
            Self::Check(check) => check,
            Self::Serve(serve) => serve,
        }
    }
}

impl Execute for PluginCommand {
    fn plugins(&self) -> Result<PluginPolicy> {
        self.given().plugins()
    }

    fn execute(&self, global: &GlobalArgs) -> Result<()> {
        self.given().execute(global)
    }
}
