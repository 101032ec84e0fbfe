//! A row of the leaderboard: one method in one configuration, over its seeds and class orders.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Serialize;

use super::metric::{ALL, Bounds, Metric, seconds};
use crate::method::{self, Access, Plugin};
use crate::results::{Found, Record, Statistics};

/// A row: one method in one configuration on one data id with one set of weights, over its seeds;
/// where class orders are gathered, over the data ids of several.
///
/// The names and the order of the fields are the columns of the exported CSV; new ones are only
/// ever added at the end. Accuracies are in percent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The scenario's name.
    pub scenario: String,
    /// The data id; those of all class orders, separated by spaces, where they are gathered.
    pub data_id: String,
    /// The backbone's name.
    pub backbone: String,
    /// SHA-256 of the backbone's weights.
    pub weight_hash: String,
    /// The rank by `metric` on its board, from 1; empty for an altered row.
    pub rank: Option<usize>,
    /// The method's name.
    pub method: String,
    /// The version of the method's arithmetic.
    pub method_version: String,
    /// SHA-256 of the plugin it came from; empty for a built-in method.
    pub plugin_hash: String,
    /// The first digits of the SHA-256 of hyper-parameters, dtype, device, options of the backbone
    /// and image size.
    pub config_hash: String,
    /// The run seeds, separated by spaces.
    pub seeds: String,
    /// The number of seeds.
    pub n_seeds: usize,
    /// The name of the metric that ranks.
    pub metric: String,
    /// Its mean over seeds; over class orders of the means over seeds, where there are several.
    pub mean: f64,
    /// Its standard deviation over seeds, or over class orders where there are several; empty for
    /// one value.
    pub std: Option<f64>,
    /// Half the width of its 95 % confidence interval (t); empty for one value.
    pub ci95: Option<f64>,
    /// Mean accuracy on all classes after the last task.
    pub last: f64,
    /// Mean of the average accuracy.
    pub avg: f64,
    /// Mean forgetting; empty for one task.
    pub forgetting: Option<f64>,
    /// Mean backward transfer; empty for one task.
    pub bwt: Option<f64>,
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
    /// The plugin it came from: kind, name, version and the version of the ABI or protocol; empty
    /// for a method of the program.
    pub plugin: String,
    /// The class order; all, separated by spaces, where they are gathered.
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
    /// The run folders, one for each seed and class order, separated by `; `.
    pub folders: String,
    /// Mean of the tasks' accuracies after the last task.
    pub last_tasks: Option<f64>,
    /// Mean over tasks of the mean of the accuracies of the tasks so far.
    pub avg_tasks: Option<f64>,
    /// Mean accuracy on each task right after it was learned.
    pub plasticity: Option<f64>,
    /// Mean lead of a `joint` run of the same data, weights and seed on each task right after it
    /// was learned (Chaudhry et al. 2018); empty without such a run for every seed.
    pub intransigence: Option<f64>,
    /// Share of images whose predicted class is of the right task.
    pub task_id: Option<f64>,
    /// Accuracy when the right task is known.
    pub task_aware: Option<f64>,
    /// Share of images whose true class is among the first five; empty below six classes and for
    /// runs of before ranks were kept.
    pub top_5: Option<f64>,
    /// Expected calibration error over 15 bins.
    pub ece: Option<f64>,
    /// The number of class orders.
    pub n_orders: usize,
    /// The class order with the worst value of `metric`; empty for one class order.
    pub worst_order: String,
    /// That value.
    pub worst: Option<f64>,
    /// Whether the method sees all images so far, so that the row is a bound and no competitor.
    pub bound: bool,
    /// The adjusted p-value of the difference of last accuracy from the best row that is no bound;
    /// empty for that row and where nothing was tested.
    pub p_best: Option<f64>,
    /// Whether last accuracy is the best or was not told apart from the best.
    pub best: bool,
    /// Processors and threads the runs ran on, separated by `; `: costs are compared within one.
    pub machine: String,
    /// Statistics of each metric that all its runs have, by its name.
    #[serde(skip)]
    pub statistics: BTreeMap<&'static str, Statistics>,
    /// The run folders.
    #[serde(skip)]
    pub paths: Vec<PathBuf>,
}

impl Row {
    /// The value of a metric: its mean.
    pub fn value(&self, metric: &Metric) -> Option<f64> {
        self.statistics.get(metric.name).map(|s| s.mean)
    }

    /// The row of some runs, which are those of one method in one configuration.
    pub(super) fn of(
        runs: &[&Found],
        by: &Metric,
        config_hash: String,
        bounds: &Bounds,
    ) -> Option<Self> {
        let first = &runs.first()?.record;
        let identity = &first.identity;
        let statistics: BTreeMap<&'static str, Statistics> =
            ALL.iter().filter_map(|m| Some((m.name, over_runs(runs, m, bounds)?))).collect();
        let mean = |name: &str| statistics.get(name).map(|s| s.mean);
        let ranked = statistics.get(by.name).copied();
        let worst = worst_order(runs, by, bounds);
        let seeds: BTreeSet<u64> = runs.iter().map(|r| r.record.identity.seed).collect();
        let joined = |lists: &mut dyn Iterator<Item = String>| {
            lists.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
        };
        let machine = |r: &Record| {
            let gpu = r.machine.gpu.as_ref().map_or(String::new(), |gpu| format!(", {gpu}"));
            format!("{}, {} threads{gpu}", r.machine.processor, r.machine.threads)
        };
        let data_ids = joined(&mut runs.iter().map(|r| r.record.data_id.clone()));
        Some(Self {
            scenario: identity.scenario.name.clone(),
            data_id: data_ids.join(" "),
            backbone: identity.backbone.name.clone(),
            weight_hash: identity.backbone.weights_hash.clone(),
            rank: None,
            method: identity.method.clone(),
            method_version: identity.method_version.clone(),
            plugin_hash: identity.plugin.as_ref().map_or(String::new(), |p| p.sha256.clone()),
            config_hash,
            n_seeds: seeds.len(),
            seeds: seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(" "),
            metric: by.name.to_owned(),
            mean: ranked.map_or(f64::NAN, |s| s.mean),
            std: ranked.and_then(|s| s.std),
            ci95: ranked.and_then(|s| s.ci95),
            last: mean("last").unwrap_or(f64::NAN),
            avg: mean("avg").unwrap_or(f64::NAN),
            forgetting: mean("forgetting"),
            bwt: mean("bwt"),
            relation_drift: mean("drift"),
            seconds: runs.iter().map(|r| seconds(&r.record)).sum::<f64>() / runs.len() as f64,
            peak_memory: runs.iter().filter_map(|r| r.record.costs.peak_memory).max(),
            trained_bytes: first.costs.trained_parameters
                * if identity.dtype == "f64" { 8 } else { 4 },
            carried_bytes: first.costs.carried_bytes,
            stored_images: first.costs.stored_images,
            audited: runs.iter().all(|r| r.record.audited),
            altered: joined(&mut runs.iter().flat_map(|r| r.altered.clone())).join("; "),
            warnings: joined(&mut runs.iter().flat_map(|r| r.record.warnings.clone())).join("; "),
            plugin: identity.plugin.as_ref().map_or(String::new(), Plugin::short),
            class_order: joined(&mut runs.iter().map(|r| order_of(r))).join(" "),
            image_size: identity.scenario.transforms.image_size,
            train_images: identity.scenario.images.iter().map(|(train, _)| train).sum(),
            test_images: identity.scenario.images.iter().map(|(_, test)| test).sum(),
            dtype: identity.dtype.clone(),
            device: identity.device.clone(),
            hyper_parameters: serde_json::to_string(&identity.config).unwrap_or_default(),
            folders: runs
                .iter()
                .map(|r| r.path.display().to_string())
                .collect::<Vec<_>>()
                .join("; "),
            last_tasks: mean("last-tasks"),
            avg_tasks: mean("avg-tasks"),
            plasticity: mean("plasticity"),
            intransigence: mean("intransigence"),
            task_id: mean("task-id"),
            task_aware: mean("task-aware"),
            top_5: mean("top-5"),
            ece: mean("ece"),
            n_orders: data_ids.len(),
            worst_order: worst.as_ref().map_or(String::new(), |(order, _)| order.clone()),
            worst: worst.map(|(_, value)| value),
            bound: identity.plugin.is_none()
                && method::find(&identity.method)
                    .is_ok_and(|entry| entry.about.access == Access::All),
            p_best: None,
            best: false,
            machine: joined(&mut runs.iter().map(|r| machine(&r.record))).join("; "),
            paths: runs.iter().map(|r| r.path.clone()).collect(),
            statistics,
        })
    }
}

fn order_of(run: &Found) -> String {
    run.record.identity.scenario.class_order.to_string()
}

/// The values of a metric: those of the seeds, or where there are several class orders, each
/// order's mean over its seeds. None where a run does not have it.
fn over_runs(runs: &[&Found], metric: &Metric, bounds: &Bounds) -> Option<Statistics> {
    let mut orders = BTreeMap::<&str, Vec<f64>>::new();
    for run in runs {
        orders.entry(&run.record.data_id).or_default().push(metric.of(run, bounds)?);
    }
    match orders.len() {
        1 => Statistics::of(orders.values().next()?),
        _ => Statistics::of(
            &orders.values().filter_map(|v| Some(Statistics::of(v)?.mean)).collect::<Vec<_>>(),
        ),
    }
}

/// The class order with the worst value of a metric, of several.
fn worst_order(runs: &[&Found], metric: &Metric, bounds: &Bounds) -> Option<(String, f64)> {
    let mut orders = BTreeMap::<String, Vec<f64>>::new();
    for run in runs {
        orders.entry(order_of(run)).or_default().push(metric.of(run, bounds)?);
    }
    let means =
        orders.iter().filter_map(|(order, v)| Some((order.clone(), Statistics::of(v)?.mean)));
    let worse = |a: &f64, b: &f64| if metric.larger { a.total_cmp(b) } else { b.total_cmp(a) };
    means.min_by(|a, b| worse(&a.1, &b.1)).filter(|_| orders.len() > 1)
}
