//! `cilbench man`: prints the manual page, or writes one page per subcommand.

use std::path::PathBuf;

use cilbench::{Error, Result};
use clap::CommandFactory;

use super::{Args, Execute};
use crate::args::GlobalArgs;
use crate::plugins::PluginPolicy;

#[derive(clap::Args)]
pub(crate) struct Man {
    /// Write the page, and one for each subcommand, into this folder instead of printing it
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Execute for Man {
    fn plugins(&self) -> Result<PluginPolicy> {
        Ok(PluginPolicy::without_folder())
    }

    fn execute(&self, _: &GlobalArgs) -> Result<()> {
        match &self.out {
            Some(folder) => {
                std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
                clap_mangen::generate_to(Args::command(), folder).map_err(Error::io(folder))?;
                println!("written to {}; read one with `man {0}/cilbench-run.1`", folder.display());
            }
            None => {
                // As `generate_to` does: without the subcommand help.
                let (mut command, mut page) =
                    (Args::command().disable_help_subcommand(true), Vec::new());
                command.build();
                clap_mangen::Man::new(command)
                    .render(&mut page)
                    .map_err(Error::io("the manual page"))?;
                print!("{}", String::from_utf8_lossy(&page));
            }
        }
        Ok(())
    }
}
