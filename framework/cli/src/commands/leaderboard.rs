//! `cilbench leaderboard`: ranks the finished runs below some folders.

use std::path::PathBuf;

use cilbench::results::leaderboard::{Board, Found, Metric, Options, boards, find_runs};
use cilbench::results::{Lock, Status};
use cilbench::{Error, Result};
use cilbench_report::export;
use cilbench_report::table::{Column, Mark, Table};

use super::Execute;
use crate::args::GlobalArgs;
use crate::output::table;
use crate::paths::require_exists;
use crate::plugins::PluginPolicy;

#[derive(clap::Args)]
pub(crate) struct Leaderboard {
    /// Folders with runs in them
    #[arg(default_value = "runs", value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// Only this scenario
    #[arg(long)]
    scenario: Option<String>,
    /// The metric that ranks, such as last, avg, forgetting or bwt
    #[arg(long, default_value = "last")]
    metric: String,
    /// The columns, by name and in this order: rank, method, last, avg-tasks, top-5, p, …
    #[arg(long, value_name = "NAME,NAME,…", value_delimiter = ',')]
    columns: Vec<String>,
    /// One row for all class orders that a method was run in, ranked among methods of the same ones
    #[arg(long)]
    gather_orders: bool,
    /// Also write the boards to a file: .csv, .md, .tex, .html or .json
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
}

impl Execute for Leaderboard {
    fn plugins(&self) -> Result<PluginPolicy> {
        Ok(PluginPolicy::without_folder())
    }

    fn execute(&self, _: &GlobalArgs) -> Result<()> {
        rank(self)
    }
}

fn rank(args: &Leaderboard) -> Result<()> {
    let metric = Metric::find(&args.metric)?;
    let columns = (!args.columns.is_empty()).then(|| Column::list(&args.columns)).transpose()?;
    args.export.iter().try_for_each(|path| export::check(path))?;
    let found = collect(args)?;
    // Tests read every run's predictions: they are made where they are shown.
    let test = args.export.is_some() || columns.is_some();
    let boards = boards(&found, metric.name, &Options { gather_orders: args.gather_orders, test })?;
    if boards.is_empty() {
        return Err(Error::usage(
            "there is no finished run in these folders; make one with `cilbench run`",
        ));
    }
    let shown = columns.clone().unwrap_or_else(|| usual(metric, args.gather_orders));
    boards.iter().for_each(|board| show(board, &shown));
    if let Some(path) = &args.export {
        export::export(path, &boards, columns.as_deref())?;
        println!("written to {}", path.display());
    }
    Ok(())
}

/// The runs below the folders. Prints which of them are left out or were altered.
fn collect(args: &Leaderboard) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for folder in &args.folders {
        require_exists("leaderboard", folder)?;
        let (runs, errors) = find_runs(folder)?;
        found.extend(runs);
        errors.iter().for_each(|e| eprintln!("warning: left out: {e}"));
    }
    if let Some(scenario) = &args.scenario {
        let mut names: Vec<String> =
            found.iter().map(|f| f.record.identity.scenario.name.clone()).collect();
        names.dedup();
        found.retain(|f| f.record.identity.scenario.name == *scenario);
        if found.is_empty() {
            return Err(Error::unknown(
                "scenario among these runs",
                scenario,
                names.iter().map(String::as_str),
            ));
        }
    }
    for run in found.iter().filter(|f| f.record.status != Status::Finished) {
        let path = run.path.display();
        let what = match Lock::look(&run.path) {
            Ok(()) => format!("not finished ({:?})", run.record.status),
            Err(_) => "being run".to_owned(),
        };
        eprintln!("left out, {what}: {path}");
    }
    for run in found.iter().filter(|f| !f.altered.is_empty()) {
        eprintln!(
            "warning: {} was altered since it was written: {}",
            run.path.display(),
            run.altered.join(", ")
        );
    }
    Ok(found)
}

/// What is shown where no columns are named.
fn usual(metric: &'static Metric, gathered: bool) -> Vec<Column> {
    let orders: &[&str] = if gathered { &["orders", "worst"] } else { &[] };
    let names = [&["rank", "method", "configuration", "seeds"], orders, &[metric.name, "interval"]]
        .concat();
    let more = ["avg", "forgetting", "drift", "carried", "remarks"]
        .into_iter()
        .filter(|m| *m != metric.name);
    names.into_iter().chain(more).filter_map(|name| Column::find(name).ok()).collect()
}

fn show(board: &Board, columns: &[Column]) {
    let shown = Table::of(board, columns);
    println!("\n{}", shown.title);
    let headings: Vec<&str> = columns.iter().map(|c| c.heading()).collect();
    let mut out = table(&headings);
    for row in &shown.rows {
        out.add_row(row.iter().map(|cell| {
            let deviation = cell.deviation.as_ref().map_or(String::new(), |d| format!(" ± {d}"));
            // Signs stand for bold, which a pipe would lose.
            let mark = if cell.mark == Mark::Best { "*" } else { "" };
            format!("{}{mark}{deviation}", cell.text)
        }));
    }
    println!("{out}");
    if shown.rows.iter().flatten().any(|cell| cell.mark == Mark::Best) {
        println!("* the best of its column, or not told apart from the best");
    }
    println!("{}", shown.caption.join(" "));
}
