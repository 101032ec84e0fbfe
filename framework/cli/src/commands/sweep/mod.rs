//! `cilbench sweep`: the runs of a plan file, those that are missing, several at a time.
//!
//! Every cell is a run of its own in a process of its own: this program again, with `--cell K`. A
//! cell that fails or is killed leaves the others alone. The state of the sweep is nothing but the
//! run folders, so that the same command goes on from wherever it stopped, on any machine that sees
//! them.

mod cells;
mod plan;
mod pool;
mod slurm;

use std::path::PathBuf;

use cilbench::{Error, Result};
use clap::ValueEnum;

use super::Execute;
use crate::args::GlobalArgs;
use crate::output::table;
use crate::plugins::PluginPolicy;
use cells::{Cells, Standing};

/// What starts the cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Launcher {
    /// Processes on this machine
    Local,
    /// An array job of SLURM, one element per cell that is missing
    Slurm,
}

#[derive(clap::Args)]
pub(crate) struct Sweep {
    /// The plan file
    #[arg(value_name = "PLAN.toml")]
    plan: PathBuf,
    /// Cells that run at a time on this machine; threads are shared out
    #[arg(long, default_value_t = 1, value_name = "N")]
    jobs: usize,
    /// List the cells with their folders and where each stands
    #[arg(long, conflicts_with_all = ["cell", "dry_run"])]
    list: bool,
    /// Run this cell alone, in this process; cells are counted from 1 as --list shows them
    #[arg(long, value_name = "K", conflicts_with = "dry_run")]
    cell: Option<usize>,
    /// Check every cell and say which would run, without a run
    #[arg(long)]
    dry_run: bool,
    /// Where a data set is, besides or instead of the plan's [data]
    #[arg(long, value_name = "NAME=DIR")]
    data_root: Vec<String>,
    /// Where weights are, besides or instead of the plan's [weights]
    #[arg(long, value_name = "NAME=FILE")]
    weights: Vec<String>,
    /// What starts the cells
    #[arg(long, value_enum, default_value = "local")]
    launcher: Launcher,
    /// Seconds that a cell waits for the lock of the process before it
    #[arg(long, default_value_t = 0, value_name = "N")]
    wait: u64,
}

impl Execute for Sweep {
    fn plugins(&self) -> Result<PluginPolicy> {
        Ok(PluginPolicy::default())
    }

    fn execute(&self, global: &GlobalArgs) -> Result<()> {
        if self.jobs == 0 {
            return Err(Error::usage("--jobs 0: at least one cell at a time"));
        }
        let cells = Cells::of_plan(&self.plan, &self.data_root, &self.weights)?;
        if let Some(number) = self.cell {
            return cells.run_one(number, self.wait);
        }
        if self.list || self.dry_run {
            return show(&cells, self.dry_run);
        }
        match self.launcher {
            Launcher::Local => pool::run(self, &cells, global),
            Launcher::Slurm => slurm::submit(self, &cells, global),
        }
    }
}

/// The cells as a table, with where each stands.
fn show(cells: &Cells, dry_run: bool) -> Result<()> {
    let mut out =
        table(&["cell", "method", "scenario", "backbone", "seed", "order", "folder", "state"]);
    let mut missing = 0;
    for (i, cell) in cells.all.iter().enumerate() {
        let standing = cell.standing()?;
        missing += usize::from(standing != Standing::Finished);
        out.add_row([
            (i + 1).to_string(),
            cell.args.experiment.method.clone(),
            cell.identity.scenario.name.clone(),
            cell.identity.backbone.name.clone(),
            cell.identity.seed.to_string(),
            cell.identity.scenario.class_order.to_string(),
            cell.folder.display().to_string(),
            standing.to_string(),
        ]);
    }
    println!("{out}");
    let all = cells.all.len();
    match dry_run {
        true => {
            println!("every cell was checked; {missing} of {all} would run; nothing was written")
        }
        false => println!("{} of {all} cells are finished", all - missing),
    }
    Ok(())
}
