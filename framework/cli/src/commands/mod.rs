//! The subcommands, one file each: its options, and what it does.
//!
//! A new one is a file here with a `clap::Args` struct that implements [`Execute`], and a variant
//! of [`Command`].

mod bench;
mod completions;
mod conformance;
mod data;
mod describe;
mod diff;
mod eval;
mod export;
mod leaderboard;
mod list;
mod man;
mod parity;
mod plugin;
mod report;
mod reproduce;
mod run;
mod sweep;
mod verify;

use cilbench::Result;
use clap::{Parser, Subcommand};

use crate::args::GlobalArgs;
use crate::plugins::PluginPolicy;

/// A benchmark framework for class-incremental learning with pre-trained vision transformers.
#[derive(Parser)]
#[command(name = "cilbench", version, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub global: GlobalArgs,
}

/// What a subcommand does.
pub(crate) trait Execute {
    /// Which plugins are opened before it is executed, and how.
    fn plugins(&self) -> Result<PluginPolicy> {
        Ok(PluginPolicy::default())
    }

    /// Does it.
    fn execute(&self, global: &GlobalArgs) -> Result<()>;
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Train and score a method over a scenario, into a run folder
    Run(Box<run::Run>),
    /// Run the cells of a plan file that are missing, several at a time
    Sweep(sweep::Sweep),
    /// List the methods, scenarios, backbones or data sets
    List(list::List),
    /// Explain a method, a scenario, a data set or a backbone
    Describe(describe::Describe),
    /// Check or download a data set
    #[command(subcommand)]
    Data(data::DataCommand),
    /// Measure speed on this machine
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Replay the authors' own trajectories and compare every recorded quantity
    Verify(verify::Verify),
    /// Drive two implementations of one method side by side, with identical draws and data, and
    /// say where they part
    Parity(Box<parity::Parity>),
    /// Rank the finished runs below some folders
    Leaderboard(leaderboard::Leaderboard),
    /// Show runs side by side on one page, with figures for a paper
    Report(report::Report),
    /// Say what sets two runs apart: settings, data, results and a paired test
    Diff(diff::Diff),
    /// Score a finished run's model again
    Eval(eval::Eval),
    /// Write a finished run's model as one safetensors file with timm's tensor names
    Export(export::Export),
    /// Execute a run again, or one of its tasks, and say whether it comes out bit-identical
    Reproduce(reproduce::Reproduce),
    /// Make, inspect and check plugins: methods of third parties
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
    /// Check that a method keeps the rules: the conformance suite
    Conformance(conformance::Conformance),
    /// Print the completions of a shell
    Completions(completions::Completions),
    /// Print the manual page
    Man(man::Man),
}

impl Command {
    /// The subcommand that was given.
    pub(crate) fn given(&self) -> &dyn Execute {
        match self {
            Self::Run(run) => &**run,
            Self::Sweep(sweep) => sweep,
            Self::List(list) => list,
            Self::Describe(describe) => describe,
            Self::Data(data) => data,
            Self::Bench(bench) => bench,
            Self::Verify(verify) => verify,
            Self::Parity(parity) => &**parity,
            Self::Leaderboard(leaderboard) => leaderboard,
            Self::Report(report) => report,
            Self::Diff(diff) => diff,
            Self::Eval(eval) => eval,
            Self::Export(export) => export,
            Self::Reproduce(reproduce) => reproduce,
            Self::Plugin(plugin) => plugin,
            Self::Conformance(conformance) => conformance,
            Self::Completions(completions) => completions,
            Self::Man(man) => man,
        }
    }
}
