//! What a run folder holds besides its record: losses, predictions, the command.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

use cilbench::results::Found;
use cilbench::{Error, Result};
use serde::Deserialize;

/// A loss over the steps of a run.
pub(super) struct Loss {
    /// Its name.
    pub name: String,
    /// Step (of all tasks, from 0) and value: means over equal parts of the run.
    pub points: Vec<(f64, f64)>,
}

/// A line of `metrics.jsonl`.
#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    losses: BTreeMap<String, f64>,
}

/// The points of a curve.
const POINTS: usize = 120;

/// The losses of a run; none where it logged none, as of methods without training.
///
/// # Errors
/// As of [`log`].
pub(super) fn losses(folder: &Path) -> Result<Vec<Loss>> {
    let steps = log(folder)?;
    let names: std::collections::BTreeSet<&String> =
        steps.iter().flat_map(BTreeMap::keys).collect();
    Ok(names.into_iter().map(|name| curve(name, &steps)).collect())
}

/// The losses of each step of a run, by name.
///
/// # Errors
/// [`Error::File`] with the line at fault if the log cannot be read.
pub(crate) fn log(folder: &Path) -> Result<Vec<BTreeMap<String, f64>>> {
    let path = folder.join("metrics.jsonl");
    let file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io(&path)(e)),
    };
    let mut steps = Vec::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(Error::io(&path))?;
        let read = serde_json::from_str::<Line>(&line);
        let line = read.map_err(|e| {
            Error::file(&path, format!("line {} is not a step's losses: {e}", number + 1))
        })?;
        steps.push(line.losses);
    }
    Ok(steps)
}

/// One loss, as means over equal parts of the run.
fn curve(name: &str, steps: &[BTreeMap<String, f64>]) -> Loss {
    let part = steps.len().div_ceil(POINTS).max(1);
    let point = |(i, part_of): (usize, &[BTreeMap<String, f64>])| {
        let middle = (i * part) as f64 + (part_of.len() - 1) as f64 / 2.0;
        Some((middle, super::group::mean(part_of.iter().filter_map(|s| s.get(name).copied()))?))
    };
    Loss {
        name: name.to_owned(),
        points: steps.chunks(part).enumerate().filter_map(point).collect(),
    }
}

/// How often images of each class were predicted as each class, after the last task.
///
/// # Errors
/// As of the predictions; [`Error::File`] for a class that the scenario does not have.
pub(super) fn confusion(run: &Found) -> Result<Option<Vec<Vec<u64>>>> {
    let Some(predictions) = run.last_predictions()? else { return Ok(None) };
    let classes = run.record.identity.scenario.classes();
    let mut counts = vec![vec![0; classes]; classes];
    for p in predictions {
        let cell = counts.get_mut(p.label).and_then(|row| row.get_mut(p.prediction));
        let what =
            || format!("its predictions name a class that its {classes} classes do not hold");
        *cell.ok_or_else(|| Error::file(&run.path, what()))? += 1;
    }
    Ok(Some(counts))
}

/// The sum of two counts of the same classes.
pub(super) fn added(sum: Option<Vec<Vec<u64>>>, more: Vec<Vec<u64>>) -> Vec<Vec<u64>> {
    let Some(mut sum) = sum else { return more };
    for (row, more) in sum.iter_mut().zip(more) {
        row.iter_mut().zip(more).for_each(|(a, b)| *a += b);
    }
    sum
}

/// What does not change numbers, or is said elsewhere.
const UNSAID: [&str; 8] = [
    "out",
    "seed",
    "seeds",
    "class_order",
    "class_orders",
    "checkpoint_minutes",
    "checkpoint_steps",
    "keep",
];

/// The command that makes a run again: as it was given, with its seed and class order.
pub(super) fn command(run: &Found) -> String {
    let identity = &run.record.identity;
    let mut words = vec!["cilbench".to_owned()];
    let given = std::fs::read(run.path.join("command.json")).ok();
    let given: Option<serde_json::Map<String, serde_json::Value>> =
        given.and_then(|g| serde_json::from_slice(&g).ok());
    let mut options = Vec::new();
    match given {
        Some(given) => {
            for (key, value) in &given {
                match key.as_str() {
                    "plugins" => push(&mut words, "plugin", value),
                    "plugin_timeout" => push(&mut words, key, value),
                    key if UNSAID.contains(&key) => {}
                    key => push(&mut options, key, value),
                }
            }
        }
        None => options.extend(of_identity(run)),
    }
    words.push("run".into());
    words.extend(options);
    words.extend(["--class-order".into(), identity.scenario.class_order.to_string()]);
    words.extend(["--seed".into(), identity.seed.to_string()]);
    shlex::try_join(words.iter().map(String::as_str)).unwrap_or_else(|_| words.join(" "))
}

/// The options of a run whose command was not kept.
fn of_identity(run: &Found) -> Vec<String> {
    let identity = &run.record.identity;
    let scenario = &identity.scenario;
    let mut words = Vec::new();
    for (name, value) in [
        ("method", identity.method.clone()),
        ("scenario", scenario.name.clone()),
        ("backbone", identity.backbone.name.clone()),
        ("image-size", scenario.transforms.image_size.to_string()),
        ("dtype", identity.dtype.clone()),
        ("device", identity.device.clone()),
    ] {
        words.extend([format!("--{name}"), value]);
    }
    for (key, value) in &identity.config {
        words.extend(["--set".into(), format!("{key}={value}")]);
    }
    words
}

/// Adds an option as it is given on a command line; nothing of one that was not given.
fn push(words: &mut Vec<String>, key: &str, value: &serde_json::Value) {
    use serde_json::Value::{Array, Bool, Null, Number, Object, String};
    let name = format!("--{}", key.replace('_', "-"));
    match value {
        Null | Bool(false) => {}
        Bool(true) => words.push(name),
        Array(values) if ["mean", "std"].contains(&key) => {
            let joined: Vec<_> = values.iter().map(ToString::to_string).collect();
            words.extend([name, joined.join(",")]);
        }
        Array(values) => values.iter().for_each(|v| push(words, key, v)),
        Object(inner) => inner.iter().for_each(|(key, value)| push(words, key, value)),
        String(text) if key == "dtype" => words.extend([name, text.to_lowercase()]),
        String(text) => words.extend([name, text.clone()]),
        Number(number) => words.extend([name, number.to_string()]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Made;

    #[test]
    fn the_command_is_as_it_was_given_with_its_own_seed() {
        let folder = tempfile::tempdir().expect("folder");
        let path = Made { seed: 3, order: "seed:7", ..Made::new("er", 50) }.write(folder.path());
        let look = || {
            let (found, _) = cilbench::results::find_runs(folder.path()).expect("find");
            command(&found[0])
        };
        let bare = look();
        assert!(
            bare.starts_with("cilbench run --method er --scenario five")
                && bare.contains("--set 'epochs=5'"),
            "{bare}"
        );
        let given = r#"{"method": "er", "set": ["rank=5", "targets=[\"k\"]"], "seeds": [1, 3], "dtype": "F64", "audit": true,
            "plugins": ["my plugin.so"], "activations": {"micro_batch": 8, "checkpoint_blocks": false}, "mean": [0.5, 0.25]}"#;
        std::fs::write(path.join("command.json"), given).expect("write");
        let said = look();
        for part in [
            "cilbench --plugin 'my plugin.so' run ",
            "--set 'rank=5' --set 'targets=[\"k\"]'",
            "--dtype f64",
            "--audit",
            "--micro-batch 8",
            "--mean '0.5,0.25'",
            "--class-order seed:7 --seed 3",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(!said.contains("seeds") && !said.contains("blocks"), "{said}");
    }

    #[test]
    fn long_logs_become_means_of_equal_parts() {
        let folder = tempfile::tempdir().expect("folder");
        let log: String = (0..1000).map(|i| format!("{{\"losses\":{{\"ce\":{}}}}}\n", i)).collect();
        std::fs::write(folder.path().join("metrics.jsonl"), log).expect("write");
        let losses = losses(folder.path()).expect("read");
        assert_eq!((losses.len(), losses[0].name.as_str(), losses[0].points.len()), (1, "ce", 112));
        // Nine steps to a part: 0 to 8 have the mean 4, in the middle at step 4.
        assert_eq!(losses[0].points[0], (4.0, 4.0));
        std::fs::write(folder.path().join("metrics.jsonl"), "{}\nno\n").expect("write");
        let error = super::losses(folder.path()).err().expect("damaged").to_string();
        assert!(error.contains("metrics.jsonl") && error.contains("line 2"), "{error}");
    }
}
