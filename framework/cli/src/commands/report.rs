//! `cilbench report`: run folders as one page, and its figures as files.

use std::path::PathBuf;

use cilbench::results::find_runs;
use cilbench::{Error, Result};
use cilbench_report::{figure, output, tensorboard};

use super::Execute;
use crate::args::GlobalArgs;
use crate::paths::require_exists;
use crate::plugins::PluginPolicy;

#[derive(clap::Args)]
pub(crate) struct Report {
    /// Run folders, or folders with runs in them
    #[arg(default_value = "runs", value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The page to write; an earlier report there is overwritten, nothing else
    #[arg(long, default_value = "report.html", value_name = "FILE")]
    out: PathBuf,
    /// Also write every figure as SVG and PNG
    #[arg(long, value_name = "DIR")]
    figures: Option<PathBuf>,
    /// Also write every run's losses and scores as event files that TensorBoard opens
    #[arg(long, value_name = "DIR")]
    tensorboard: Option<PathBuf>,
}

impl Execute for Report {
    fn plugins(&self) -> Result<PluginPolicy> {
        Ok(PluginPolicy::without_folder())
    }

    fn execute(&self, _: &GlobalArgs) -> Result<()> {
        write(self)
    }
}

fn write(args: &Report) -> Result<()> {
    output::check("--out", &args.out)?;
    let (mut found, mut unread) = (Vec::new(), Vec::new());
    for folder in &args.runs {
        require_exists("report", folder)?;
        let (runs, errors) = find_runs(folder)?;
        found.extend(runs);
        unread.extend(errors.iter().map(ToString::to_string));
    }
    // A folder that was named twice, or with one above it, counts once.
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found.dedup_by(|a, b| a.path == b.path);
    if found.is_empty() && unread.is_empty() {
        return Err(Error::usage("there is no run in these folders; make one with `cilbench run`"));
    }
    let report = cilbench_report::report(&found, &unread)?;
    output::write("--out", &args.out, report.html.as_bytes())?;
    println!("written to {}", args.out.display());
    if let Some(folder) = &args.figures {
        figure::write_all("--figures", folder, &report.figures)?;
        println!(
            "{} figures, each as SVG and PNG, written to {}",
            report.figures.len(),
            folder.display()
        );
    }
    if let Some(folder) = &args.tensorboard {
        let files = tensorboard("--tensorboard", folder, &found)?;
        println!("{} event files written below {}", files.len(), folder.display());
    }
    Ok(())
}
