//! `cilbench leaderboard`: ranks the finished runs below some folders.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cilbench::method::{self, Access};
use cilbench::results::leaderboard::{Found, Row, csv, find_runs, rows};
use cilbench::results::{Lock, Status, leaderboard};
use cilbench::{Error, Result};

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
    /// The metric that ranks: last, avg, forgetting or bwt
    #[arg(long, default_value = "last")]
    metric: String,
    /// Also write the rows as CSV
    #[arg(long, value_name = "FILE.csv")]
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
    if !leaderboard::METRICS.contains(&args.metric.as_str()) {
        return Err(Error::unknown("metric", &args.metric, leaderboard::METRICS));
    }
    args.export.as_deref().map_or(Ok(()), require_writable)?;
    let found = collect(args)?;
    let rows = rows(&found, &args.metric)?;
    if rows.is_empty() {
        return Err(Error::usage("there is no finished run in these folders; make one with `cilbench run`"));
    }
    show(&rows);
    if let Some(path) = &args.export {
        std::fs::write(path, csv(&rows)?).map_err(Error::io(path))?;
        println!("written to {}", path.display());
    }
    Ok(())
}

/// Refuses a path at which no file can be written.
fn require_writable(path: &Path) -> Result<()> {
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty() && !p.is_dir()) {
        return Err(Error::usage(format!("--export: there is no folder {} to write into; make it first", folder.display())));
    }
    if path.is_dir() {
        return Err(Error::usage(format!("--export {}: this is a folder; name a file in it", path.display())));
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
        let mut names: Vec<String> = found.iter().map(|f| f.record.identity.scenario.name.clone()).collect();
        names.dedup();
        found.retain(|f| f.record.identity.scenario.name == *scenario);
        if found.is_empty() {
            return Err(Error::unknown("scenario among these runs", scenario, names.iter().map(String::as_str)));
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
        eprintln!("warning: {} was altered since it was written: {}", run.path.display(), run.altered.join(", "));
    }
    Ok(found)
}

/// The hyper-parameters in which a row differs from another row of the same method on its board.
fn distinguishing_settings(row: &Row, board: &[Row]) -> String {
    let parse = |r: &Row| serde_json::from_str::<BTreeMap<String, serde_json::Value>>(&r.hyper_parameters).unwrap_or_default();
    let others: Vec<_> = board.iter().filter(|o| o.method == row.method).map(parse).collect();
    let differs = |(key, value): &(String, serde_json::Value)| others.iter().any(|o| o.get(key) != Some(value));
    parse(row).into_iter().filter(differs).map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}

fn show(rows: &[Row]) {
    for board in rows.chunk_by(|a, b| (&a.data_id, &a.weight_hash) == (&b.data_id, &b.weight_hash)) {
        let first = &board[0];
        println!("\n{} (data id {}), {} (weights {})", first.scenario, first.data_id, first.backbone, &first.weight_hash[..12]);
        let (train, test, side, order) = (first.train_images, first.test_images, first.image_size, &first.class_order);
        println!("{train} training and {test} test images of {side} px, class order {order}");
        let header =
            ["rank", "method", "configuration", "seeds", &first.metric, "± 95 %", "avg", "forgetting", "drift", "carried", "remarks"];
        let mut out = table(&header);
        for r in board {
            let sees_all = method::find(&r.method).is_ok_and(|entry| entry.about.access == Access::All);
            let remarks = [
                if sees_all { "a bound: sees all images so far".to_owned() } else { String::new() },
                if r.stored_images > 0 { format!("keeps {} images", r.stored_images) } else { String::new() },
                distinguishing_settings(r, board),
                if r.altered.is_empty() { String::new() } else { format!("ALTERED: {}", r.altered) },
                if r.audited { "audited".to_owned() } else { String::new() },
                r.plugin.clone(),
                r.warnings.clone(),
            ];
            out.add_row([
                r.rank.map_or("–".to_owned(), |n| n.to_string()),
                r.method.clone(),
                r.config_hash.clone(),
                r.n_seeds.to_string(),
                r.std.map_or(format!("{:.2}", r.mean), |s| format!("{:.2} ± {s:.2}", r.mean)),
                r.ci95.map_or(String::new(), |c| format!("{c:.2}")),
                format!("{:.2}", r.avg),
                format!("{:.2}", r.forgetting),
                r.relation_drift.map_or(String::new(), |d| format!("{d:.3}")),
                format!("{:.2} MB", r.carried_bytes as f64 / 1e6),
                remarks.into_iter().filter(|r| !r.is_empty()).collect::<Vec<_>>().join("; "),
            ]);
        }
        println!("{out}");
    }
}
