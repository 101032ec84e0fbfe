//! The leaderboard: derived from run folders, never edited. Rows are ranked only within one data id and one weight hash.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::record::{Record, Status};
use super::{RunFolder, Statistics};
use crate::method::Plugin;
use crate::{Error, Result};

/// A run folder that was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// Where it is.
    pub path: PathBuf,
    /// What it says.
    pub record: Record,
    /// What was changed in it since it was written.
    pub altered: Vec<String>,
}

/// All run folders at or below `path`, in the order of their paths, and what is wrong with those that cannot be read.
///
/// # Errors
/// [`Error::Io`] if `path` itself cannot be listed.
pub fn find_runs(path: &Path) -> Result<(Vec<Found>, Vec<Error>)> {
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    std::fs::read_dir(path).map_err(Error::io(path))?;
    visit(path, &mut found, &mut errors);
    Ok((found, errors))
}

fn visit(path: &Path, found: &mut Vec<Found>, errors: &mut Vec<Error>) {
    match RunFolder::read(path) {
        Ok(Some(record)) => {
            let altered = RunFolder::alterations(path, &record);
            return found.push(Found { path: path.to_path_buf(), record, altered });
        }
        Ok(None) => {}
        Err(error) => return errors.push(error),
    }
    let Ok(entries) = std::fs::read_dir(path) else { return };
    // Symbolic links are not followed, so that a loop of them ends nowhere.
    let mut folders: Vec<PathBuf> = entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect();
    folders.sort();
    folders.iter().for_each(|f| visit(f, found, errors));
}

/// A row: one method in one configuration on one data id with one set of weights, over its seeds.
///
/// The names and the order of the fields are the columns of the exported CSV; new ones are only ever added at the end. Accuracies are in percent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The scenario's name.
    pub scenario: String,
    /// The data id.
    pub data_id: String,
    /// The backbone's name.
    pub backbone: String,
    /// SHA-256 of the backbone's weights.
    pub weight_hash: String,
    /// The rank by `metric` within data id and weight hash, from 1; empty for an altered row.
    pub rank: Option<usize>,
    /// The method's name.
    pub method: String,
    /// The version of the method's arithmetic.
    pub method_version: String,
    /// SHA-256 of the plugin it came from; empty for a built-in method.
    pub plugin_hash: String,
    /// The first digits of the SHA-256 of hyper-parameters, dtype, device, options of the backbone and image size.
    pub config_hash: String,
    /// The run seeds, separated by spaces.
    pub seeds: String,
    /// The number of seeds.
    pub n_seeds: usize,
    /// The metric that ranks: `last`, `avg`, `forgetting` or `bwt`.
    pub metric: String,
    /// Its mean over seeds.
    pub mean: f64,
    /// Its standard deviation; empty for one seed.
    pub std: Option<f64>,
    /// Half the width of its 95 % confidence interval (t); empty for one seed.
    pub ci95: Option<f64>,
    /// Mean accuracy on all classes after the last task.
    pub last: f64,
    /// Mean of the average accuracy.
    pub avg: f64,
    /// Mean forgetting.
    pub forgetting: f64,
    /// Mean backward transfer.
    pub bwt: f64,
    /// Mean relation drift; empty where it was not measured.
    pub relation_drift: Option<f64>,
    /// Mean seconds of training, with what the method does at the ends of tasks.
    pub seconds: f64,
    /// Largest peak memory, in bytes; empty where the system does not say.
    pub peak_memory: Option<u64>,
    /// Bytes of the parameters trained in the last task.
    pub trained_bytes: usize,
    /// Bytes carried from task to task.
    pub carried_bytes: usize,
    /// Images kept in the memory.
    pub stored_images: usize,
    /// Whether every run was audited.
    pub audited: bool,
    /// What was changed by hand since it was written; empty if nothing.
    pub altered: String,
    /// Warnings, such as a backbone that saw the data set.
    pub warnings: String,
    /// The plugin it came from: kind, name, version and the version of the ABI or protocol; empty for a method of the program.
    pub plugin: String,
    /// The class order.
    pub class_order: String,
    /// The side of the images, in pixels.
    pub image_size: usize,
    /// Training images of all tasks.
    pub train_images: usize,
    /// Test images of all tasks.
    pub test_images: usize,
    /// The floating-point type.
    pub dtype: String,
    /// The device.
    pub device: String,
    /// Every hyper-parameter, as a JSON object.
    pub hyper_parameters: String,
    /// The run folders, one for each seed, separated by `; `.
    pub folders: String,
}

/// The metrics a leaderboard can be ranked by.
pub const METRICS: [&str; 4] = ["last", "avg", "forgetting", "bwt"];

/// The metric of this name, one of [`METRICS`]; `last` for any other name.
pub fn metric(record: &Record, name: &str) -> f64 {
    match name {
        "avg" => record.summary.avg,
        "forgetting" => record.summary.forgetting,
        "bwt" => record.summary.bwt,
        _ => record.summary.last,
    }
}

/// The rows of all finished runs, ranked by `by` within each data id and weight hash. A run that was copied counts once.
///
/// # Errors
/// [`Error::Usage`] for an unknown metric.
pub fn rows(found: &[Found], by: &str) -> Result<Vec<Row>> {
    if !METRICS.contains(&by) {
        return Err(Error::unknown("metric", by, METRICS));
    }
    let mut groups: BTreeMap<(String, String, String, String, String), Vec<&Found>> = BTreeMap::new();
    for run in found.iter().filter(|f| f.record.status == Status::Finished) {
        let identity = &run.record.identity;
        let config = identity.configuration();
        let plugin = identity.plugin.as_ref().map_or("", |p| &p.sha256);
        let method = format!("{} {} {plugin}", identity.method, identity.method_version);
        let key = (identity.scenario.name.clone(), run.record.data_id.clone(), identity.backbone.weights_hash.clone(), method, config);
        let group = groups.entry(key).or_default();
        // The same seed twice is a copy, not a second sample; an altered one never displaces a sound one.
        match group.iter_mut().find(|g| g.record.identity.seed == identity.seed) {
            Some(same) if !same.altered.is_empty() && run.altered.is_empty() => *same = run,
            Some(_) => {}
            None => group.push(run),
        }
    }
    let mut rows: Vec<Row> = groups.into_iter().filter_map(|((.., config), runs)| row(&runs, by, config)).collect();
    let lower_is_better = by == "forgetting";
    // Boards by name; the same data under two names is one board.
    let mut names = BTreeMap::<String, String>::new();
    for row in &rows {
        let name = names.entry(row.data_id.clone()).or_insert_with(|| row.scenario.clone());
        if row.scenario < *name {
            name.clone_from(&row.scenario);
        }
    }
    rows.sort_by(|a, b| {
        let order = if lower_is_better { a.mean.total_cmp(&b.mean) } else { b.mean.total_cmp(&a.mean) };
        let board = |r: &Row| (names.get(&r.data_id), r.data_id.clone(), r.weight_hash.clone(), !r.altered.is_empty());
        board(a).cmp(&board(b)).then(order)
    });
    for board in rows.chunk_by_mut(|a, b| (&a.data_id, &a.weight_hash) == (&b.data_id, &b.weight_hash)) {
        let means: Vec<f64> = board.iter().filter(|row| row.altered.is_empty()).map(|row| row.mean).collect();
        board.iter_mut().filter(|row| row.altered.is_empty()).zip(ranks(&means)).for_each(|(row, rank)| row.rank = Some(rank));
    }
    Ok(rows)
}

/// The ranks of sorted results: equal ones share a rank, and the next has that of its place.
fn ranks(sorted: &[f64]) -> Vec<usize> {
    sorted.iter().map(|mean| 1 + sorted.iter().take_while(|other| *other != mean).count()).collect()
}

fn row(runs: &[&Found], by: &str, config_hash: String) -> Option<Row> {
    let first = &runs.first()?.record;
    let mean = |f: &dyn Fn(&Record) -> f64| runs.iter().map(|r| f(&r.record)).sum::<f64>() / runs.len() as f64;
    let values: Vec<f64> = runs.iter().map(|r| metric(&r.record, by)).collect();
    let statistics = Statistics::of(&values)?;
    let drifts: Vec<f64> = runs.iter().filter_map(|r| r.record.relation_drift).collect();
    let mut seeds: Vec<u64> = runs.iter().map(|r| r.record.identity.seed).collect();
    seeds.sort_unstable();
    let joined = |lists: &mut dyn Iterator<Item = &String>| {
        let set: std::collections::BTreeSet<&String> = lists.collect();
        set.into_iter().cloned().collect::<Vec<_>>().join("; ")
    };
    Some(Row {
        scenario: first.identity.scenario.name.clone(),
        data_id: first.data_id.clone(),
        backbone: first.identity.backbone.name.clone(),
        weight_hash: first.identity.backbone.weights_hash.clone(),
        rank: None,
        method: first.identity.method.clone(),
        method_version: first.identity.method_version.clone(),
        plugin_hash: first.identity.plugin.as_ref().map_or(String::new(), |p| p.sha256.clone()),
        config_hash,
        seeds: seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(" "),
        n_seeds: statistics.n,
        metric: by.to_owned(),
        mean: statistics.mean,
        std: statistics.std,
        ci95: statistics.ci95,
        last: mean(&|r| r.summary.last),
        avg: mean(&|r| r.summary.avg),
        forgetting: mean(&|r| r.summary.forgetting),
        bwt: mean(&|r| r.summary.bwt),
        relation_drift: Statistics::of(&drifts).map(|s| s.mean),
        seconds: mean(&|r| r.tasks.iter().map(|t| t.train_seconds + t.task_seconds).sum()),
        peak_memory: runs.iter().filter_map(|r| r.record.costs.peak_memory).max(),
        trained_bytes: first.costs.trained_parameters * if first.identity.dtype == "f64" { 8 } else { 4 },
        carried_bytes: first.costs.carried_bytes,
        stored_images: first.costs.stored_images,
        audited: runs.iter().all(|r| r.record.audited),
        altered: joined(&mut runs.iter().flat_map(|r| &r.altered)),
        warnings: joined(&mut runs.iter().flat_map(|r| &r.record.warnings)),
        plugin: first.identity.plugin.as_ref().map_or(String::new(), Plugin::short),
        class_order: first.identity.scenario.class_order.to_string(),
        image_size: first.identity.scenario.transforms.image_size,
        train_images: first.identity.scenario.images.iter().map(|(train, _)| train).sum(),
        test_images: first.identity.scenario.images.iter().map(|(_, test)| test).sum(),
        dtype: first.identity.dtype.clone(),
        device: first.identity.device.clone(),
        hyper_parameters: serde_json::to_string(&first.identity.config).unwrap_or_default(),
        folders: runs.iter().map(|r| r.path.display().to_string()).collect::<Vec<_>>().join("; "),
    })
}

/// The rows as CSV, with a header line.
///
/// # Errors
/// [`Error::Protocol`] if they cannot be written.
pub fn csv(rows: &[Row]) -> Result<Vec<u8>> {
    let failed = |e: &dyn std::fmt::Display| Error::Protocol(format!("the CSV cannot be written: {e}"));
    let mut writer = csv::Writer::from_writer(Vec::new());
    rows.iter().try_for_each(|r| writer.serialize(r)).map_err(|e| failed(&e))?;
    writer.into_inner().map_err(|e| failed(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_results_share_a_rank() {
        assert_eq!(ranks(&[66.5, 66.5, 63.9, 50.0, 50.0, 2.0]), [1, 1, 3, 4, 4, 6]);
        assert!(ranks(&[]).is_empty());
    }
}
