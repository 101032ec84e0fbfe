//! `cilbench diff`: what sets two runs apart.

use std::path::{Path, PathBuf};

use cilbench::results::{Found, RunFolder};
use cilbench::{Error, Result};
use cilbench_report::table::p_value;
use cilbench_report::{Paired, compare};

use super::Execute;
use crate::args::GlobalArgs;
use crate::output::table;
use crate::plugins::PluginPolicy;

#[derive(clap::Args)]
pub(crate) struct Diff {
    /// One run folder
    a: PathBuf,
    /// The other
    b: PathBuf,
}

impl Execute for Diff {
    fn plugins(&self) -> Result<PluginPolicy> {
        Ok(PluginPolicy::without_folder())
    }

    fn execute(&self, _: &GlobalArgs) -> Result<()> {
        show(self)
    }
}

fn show(args: &Diff) -> Result<()> {
    let (a, b) = (read(&args.a)?, read(&args.b)?);
    let apart = compare(&a, &b)?;
    for run in [&a, &b].into_iter().filter(|r| !r.altered.is_empty()) {
        println!(
            "warning: {} was altered since it was written: {}",
            run.path.display(),
            run.altered.join(", ")
        );
    }
    let mut settings = table(&["setting", "first", "second"]);
    for row in &apart.settings {
        settings.add_row(row);
    }
    match apart.settings.len() {
        0 => println!("\nThe two runs have the same settings."),
        _ => println!("\n{settings}"),
    }
    let mut metrics = table(&["metric", "first", "second", "difference"]);
    let difference = |a: f64, b: f64, digits: usize| {
        [format!("{a:.digits$}"), format!("{b:.digits$}"), format!("{:+.digits$}", b - a)]
    };
    for (metric, a, b) in &apart.metrics {
        let [first, second, apart] = difference(*a, *b, metric.digits);
        metrics.add_row([metric.heading.to_owned(), first, second, apart]);
    }
    for (task, (a, b)) in apart.tasks.iter().enumerate() {
        let [first, second, apart] = difference(*a, *b, 2);
        metrics.add_row([format!("last, task {}", task + 1), first, second, apart]);
    }
    println!("\n{metrics}");
    match apart.test {
        Paired::Tested { only_first, only_second, p } => {
            let sign = if p < 0.001 { "" } else { "= " };
            println!(
                "\nOn the same test images {only_first} are right in the first run alone and {only_second} in the second alone: \
                 McNemar's exact test has p {sign}{}.",
                p_value(p)
            );
        }
        Paired::Untested(why) => println!("\nLast accuracies were not tested: {why}."),
    }
    Ok(())
}

fn read(folder: &Path) -> Result<Found> {
    let record = RunFolder::read(folder)?;
    let record = record.ok_or_else(|| {
        Error::usage(format!(
            "{}: this is no run folder; name one with a run.json",
            folder.display()
        ))
    })?;
    let altered = RunFolder::alterations(folder, &record);
    Ok(Found { path: folder.to_path_buf(), record, altered })
}
