//! A finished run, for the commands that use one again.

use std::path::PathBuf;

/// The folder of a finished run, and where its inputs are if they are not where they were.
#[derive(clap::Args)]
pub(crate) struct FinishedArgs {
    /// The run folder
    pub run: PathBuf,
    /// The folder that holds the data set [default: where it was]
    #[arg(long, value_name = "DIR")]
    pub data_root: Option<PathBuf>,
    /// The backbone's weights [default: where they were]
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
}
