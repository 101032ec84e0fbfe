//! `cilbench completions`: prints the script with which a shell completes commands and options.

use std::ffi::OsStr;
use std::path::Path;

use cilbench::Result;
use clap::CommandFactory;
use clap_complete::Shell;

use super::{Args, Execute};
use crate::args::GlobalArgs;
use crate::plugins::PluginPolicy;

#[derive(clap::Args)]
#[command(after_help = "For bash, in ~/.bashrc:\n  source <(cilbench completions bash)")]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

impl Execute for Completions {
    fn plugins(&self) -> Result<PluginPolicy> {
        Ok(PluginPolicy::without_folder())
    }

    fn execute(&self, _: &GlobalArgs) -> Result<()> {
        // A third party's program with methods of its own has another name.
        let program = std::env::args_os().next();
        let name = program
            .as_deref()
            .map(Path::new)
            .and_then(Path::file_stem)
            .and_then(OsStr::to_str)
            .unwrap_or("cilbench");
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Args::command(), name, &mut script);
        print!("{}", String::from_utf8_lossy(&script));
        Ok(())
    }
}
