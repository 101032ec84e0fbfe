//! The numbers that a leaderboard knows: what each is called, whether more is better, and how it
//! is read off a run.

use std::collections::HashMap;

use crate::results::{Found, Record, Status};
use crate::{Error, Result};

/// A number of a run.
pub struct Metric {
    /// Its name, as `--columns` and `--metric` take it.
    pub name: &'static str,
    /// What stands over its column.
    pub heading: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Whether larger values are better.
    pub larger: bool,
    /// Whether it is in percent; else it is a cost or a measurement.
    pub percent: bool,
    /// Digits behind the point in a table.
    pub digits: usize,
    source: Source,
}

/// Where a metric's value is found.
enum Source {
    /// In the record.
    Record(fn(&Record) -> Option<f64>),
    /// In the record and in that of the `joint` run beside it.
    Intransigence,
}

/// Beside each (data id, weight hash, seed): accuracies of a `joint` run on each task right after
/// it.
#[derive(Default)]
pub struct Bounds(HashMap<(String, String, u64), Vec<f64>>);

/// All metrics, in the order in which they are listed.
pub static ALL: [Metric; 18] = [
    percent("last", "last", "accuracy on all images after the last task", true, |r| {
        Some(r.summary.last)
    }),
    percent(
        "last-tasks",
        "last (tasks)",
        "mean of all tasks' accuracies after the last",
        true,
        |r| Some(r.tasks.last()?.scores.task_mean),
    ),
    percent("avg", "avg", "mean over tasks of the accuracy on all images so far", true, |r| {
        Some(r.summary.avg)
    }),
    percent(
        "avg-tasks",
        "avg (tasks)",
        "mean over tasks of the mean of all tasks' accuracies so far",
        true,
        |r| mean(r.tasks.iter().map(|t| t.scores.task_mean)),
    ),
    percent(
        "forgetting",
        "forgetting",
        "mean loss of old tasks since their best accuracy",
        false,
        |r| (r.tasks.len() > 1).then_some(r.summary.forgetting),
    ),
    percent("bwt", "BWT", "mean change of old tasks since they were learned", true, |r| {
        (r.tasks.len() > 1).then_some(r.summary.bwt)
    }),
    percent("plasticity", "plasticity", "mean accuracy on each task right after it", true, |r| {
        mean(learned(r).into_iter())
    }),
    Metric {
        source: Source::Intransigence,
        ..percent(
            "intransigence",
            "intransigence",
            "mean lead of `joint` on each task right after it",
            false,
            |_| None,
        )
    },
    percent("task-id", "task id", "images whose predicted class is of the right task", true, |r| {
        Some(r.tasks.last()?.scores.task_id)
    }),
    percent("task-aware", "task-aware", "accuracy when the right task is known", true, |r| {
        Some(r.tasks.last()?.scores.task_aware)
    }),
    percent("top-5", "top 5", "images whose true class is among the first five", true, |r| {
        r.tasks.last()?.scores.top5
    }),
    percent("ece", "ECE", "expected calibration error over 15 bins", false, |r| {
        Some(r.tasks.last()?.scores.ece)
    }),
    cost("drift", "drift", "mean relation drift", 3, |r| r.relation_drift),
    cost("seconds", "seconds", "seconds of training and of the ends of tasks", 1, |r| {
        Some(seconds(r))
    }),
    cost("memory", "memory (MB)", "largest memory of the process", 0, |r| {
        Some(r.costs.peak_memory? as f64 / 1e6)
    }),
    cost("carried", "carried (MB)", "bytes carried from task to task", 2, |r| {
        Some(r.costs.carried_bytes as f64 / 1e6)
    }),
    cost("trained", "trained", "parameters trained in the last task", 0, |r| {
        Some(r.costs.trained_parameters as f64)
    }),
    cost("images", "images kept", "images kept in the memory", 0, |r| {
        Some(r.costs.stored_images as f64)
    }),
];

const fn percent(
    name: &'static str,
    heading: &'static str,
    about: &'static str,
    larger: bool,
    of: fn(&Record) -> Option<f64>,
) -> Metric {
    Metric { name, heading, about, larger, percent: true, digits: 2, source: Source::Record(of) }
}

const fn cost(
    name: &'static str,
    heading: &'static str,
    about: &'static str,
    digits: usize,
    of: fn(&Record) -> Option<f64>,
) -> Metric {
    Metric {
        name,
        heading,
        about,
        larger: false,
        percent: false,
        digits,
        source: Source::Record(of),
    }
}

impl Metric {
    /// The metric of this name; a hyphen may be written as an underscore.
    ///
    /// # Errors
    /// [`Error::Usage`] that suggests the nearest one.
    pub fn find(name: &str) -> Result<&'static Self> {
        let plain = name.trim().replace('_', "-");
        let found = ALL.iter().find(|m| m.name == plain);
        found.ok_or_else(|| Error::unknown("metric", name, ALL.iter().map(|m| m.name)))
    }

    /// Its value in a run; none where the run does not have it.
    pub fn of(&self, run: &Found, bounds: &Bounds) -> Option<f64> {
        match self.source {
            Source::Record(of) => of(&run.record),
            Source::Intransigence => bounds.intransigence(run),
        }
    }
}

impl Bounds {
    /// The bounds among some runs: those of `joint`, finished and unaltered. Of several beside each
    /// other the one with the best last accuracy counts.
    pub fn among(found: &[Found]) -> Self {
        let mut best = HashMap::<_, &Found>::new();
        let sound = |f: &&Found| f.record.status == Status::Finished && f.altered.is_empty();
        for run in found.iter().filter(sound).filter(|f| f.record.identity.method == "joint") {
            let held = best.entry(key(run)).or_insert(run);
            if run.record.summary.last > held.record.summary.last {
                *held = run;
            }
        }
        Self(best.into_iter().map(|(key, run)| (key, learned(&run.record))).collect())
    }

    fn intransigence(&self, run: &Found) -> Option<f64> {
        let own = learned(&run.record);
        let bound = self.0.get(&key(run)).filter(|bound| bound.len() == own.len())?;
        mean(bound.iter().zip(&own).map(|(bound, own)| bound - own))
    }
}

fn key(run: &Found) -> (String, String, u64) {
    let identity = &run.record.identity;
    (run.record.data_id.clone(), identity.backbone.weights_hash.clone(), identity.seed)
}

/// The accuracy on each task right after it was learned, percent.
fn learned(record: &Record) -> Vec<f64> {
    let own = |(t, row): (usize, &Vec<f64>)| row.get(t).copied();
    record.accuracy_matrix.iter().enumerate().filter_map(own).collect()
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, n) = values.fold((0.0, 0usize), |(sum, n), v| (sum + v, n + 1));
    (n > 0).then(|| sum / n as f64)
}

/// Seconds of training and of what the method does at the ends of tasks.
pub(super) fn seconds(record: &Record) -> f64 {
    record.tasks.iter().map(|t| t.train_seconds + t.task_seconds).sum()
}
