//! Two runs beside each other: settings, data, results and a test of their difference.

use std::collections::BTreeMap;

use cilbench::Result;
use cilbench::results::Found;
use cilbench::results::leaderboard::{ALL, Bounds, Metric};
use cilbench::results::significance::{Answers, mcnemar};
use serde_json::Value;

/// What sets two runs apart.
pub struct Comparison {
    /// Settings that differ: name, value in the first, value in the second.
    pub settings: Vec<[String; 3]>,
    /// Every metric that both have, with its values.
    pub metrics: Vec<(&'static Metric, f64, f64)>,
    /// Accuracies after the last task on the images of each task, percent; of runs of one data id.
    pub tasks: Vec<(f64, f64)>,
    /// The paired test of last accuracies.
    pub test: Paired,
}

/// A paired test of two runs on the same test images.
#[derive(Debug, Clone, PartialEq)]
pub enum Paired {
    /// McNemar's exact test.
    Tested {
        /// Images that only the first run answers rightly.
        only_first: u64,
        /// Images that only the second does.
        only_second: u64,
        /// The two-sided p-value.
        p: f64,
    },
    /// Why there is none.
    Untested(String),
}

/// Compares two runs.
///
/// # Errors
/// If predictions are there and cannot be read.
pub fn compare(a: &Found, b: &Found) -> Result<Comparison> {
    // Bounds come from other runs, of which there are none here.
    let bounds = Bounds::default();
    let metrics =
        ALL.iter().filter_map(|m| Some((m, m.of(a, &bounds)?, m.of(b, &bounds)?))).collect();
    let last = |run: &Found| run.record.accuracy_matrix.last().cloned().unwrap_or_default();
    let same_data = a.record.data_id == b.record.data_id;
    let tasks = if same_data { last(a).into_iter().zip(last(b)).collect() } else { Vec::new() };
    Ok(Comparison { settings: settings(a, b), metrics, tasks, test: paired(a, b)? })
}

fn paired(a: &Found, b: &Found) -> Result<Paired> {
    for run in [a, b] {
        if !run.altered.is_empty() {
            let what = format!("{} was altered ({})", run.path.display(), run.altered.join(", "));
            return Ok(Paired::Untested(what));
        }
    }
    let none =
        |run: &Found| Ok(Paired::Untested(format!("{} holds no predictions", run.path.display())));
    let Some(first) = Answers::of(a)? else { return none(a) };
    let Some(second) = Answers::of(b)? else { return none(b) };
    if first.images != second.images {
        return Ok(Paired::Untested("the runs were scored on different test images".to_owned()));
    }
    let (only_first, only_second) = (first.alone(&second), second.alone(&first));
    Ok(Paired::Tested { only_first, only_second, p: mcnemar(only_first, only_second) })
}

/// Everything of the identity, the program and the machine in which two runs differ.
fn settings(a: &Found, b: &Found) -> Vec<[String; 3]> {
    let (first, second) = (all_settings(a), all_settings(b));
    let names: std::collections::BTreeSet<&String> = first.keys().chain(second.keys()).collect();
    let value = |of: &BTreeMap<String, String>, name: &String| {
        of.get(name).cloned().unwrap_or("–".to_owned())
    };
    let both =
        names.into_iter().map(|name| [name.clone(), value(&first, name), value(&second, name)]);
    both.filter(|[_, a, b]| a != b).collect()
}

fn all_settings(run: &Found) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let record = &run.record;
    flatten("", &serde_json::to_value(&record.identity).unwrap_or_default(), &mut all);
    all.insert("program".to_owned(), format!("{} ({:.12})", record.code_version, record.code_hash));
    flatten("machine", &serde_json::to_value(&record.machine).unwrap_or_default(), &mut all);
    let status = format!("{:?}", record.status).to_lowercase();
    all.insert("status".to_owned(), status);
    all
}

/// The leaves of a JSON value by their paths. A list is one value.
fn flatten(path: &str, value: &Value, all: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(inner) => {
            for (key, value) in inner {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, value, all);
            }
        }
        Value::String(text) => drop(all.insert(path.to_owned(), text.clone())),
        other => drop(all.insert(path.to_owned(), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Made;

    #[test]
    fn two_runs_are_set_apart_by_settings_results_and_a_test() {
        let folder = tempfile::tempdir().expect("folder");
        Made::new("a", 90).write(folder.path());
        Made { seed: 1, ..Made::new("a", 80) }.write(folder.path());
        let (found, _) = cilbench::results::find_runs(folder.path()).expect("find");
        let apart = compare(&found[0], &found[1]).expect("compare");
        assert_eq!(apart.settings, [["seed".to_owned(), "0".to_owned(), "1".to_owned()]]);
        let last = apart.metrics.iter().find(|(m, ..)| m.name == "last").expect("last");
        assert_eq!((last.1, last.2, apart.tasks.len()), (90.0, 80.0, 5));
        // Ten images against none: 2 · 2⁻¹⁰.
        let Paired::Tested { only_first: 10, only_second: 0, p } = apart.test else {
            panic!("{:?}", apart.test)
        };
        assert!((p - 2f64.powi(-9)).abs() < 1e-9, "{p}");
    }

    #[test]
    fn without_predictions_there_is_no_test_and_a_reason() {
        let folder = tempfile::tempdir().expect("folder");
        Made::new("a", 90).write(folder.path());
        let b = Made::new("b", 80).write(folder.path());
        std::fs::remove_file(b.join("predictions/task-4.csv")).expect("remove");
        let (found, _) = cilbench::results::find_runs(folder.path()).expect("find");
        let apart = compare(&found[0], &found[1]).expect("compare");
        assert!(
            matches!(&apart.test, Paired::Untested(why) if why.contains("task-4.csv (missing)")),
            "{:?}",
            apart.test
        );
    }
}
