//! Metrics: the accuracy matrix and what derives from it, and those that need logits.
//!
//! R\[t\]\[i\] is the accuracy, in percent, on task i's test images after learning task t.

use serde::{Deserialize, Serialize};

/// What is kept of the prediction for one test image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The sample key.
    pub key: String,
    /// The task the image belongs to.
    pub task: usize,
    /// Its class, as the model numbers it.
    pub label: usize,
    /// The class with the largest logit of all seen so far.
    pub prediction: usize,
    /// The softmax probability of that class.
    pub confidence: f64,
    /// The class with the largest logit among the classes of the image's own task.
    pub task_aware: usize,
    /// The rank of its true class among all classes seen so far, by logit: 1 where the prediction
    /// is right. None in predictions that were written before ranks were kept.
    #[serde(default)]
    pub rank: Option<usize>,
}

/// Reads the predictions off logits (batch, classes). `tasks` holds each task's classes.
pub fn predictions(
    logits: &[Vec<f64>],
    keys: &[&str],
    labels: &[i64],
    task: usize,
    tasks: &[Vec<usize>],
) -> Vec<Prediction> {
    let best = |row: &[f64], classes: &mut dyn Iterator<Item = usize>| {
        classes.reduce(|a, b| if row[b] > row[a] { b } else { a }).unwrap_or_default()
    };
    let one = |((row, key), label): ((&Vec<f64>, &&str), &i64)| {
        let prediction = best(row, &mut (0..row.len()));
        let sum: f64 = row.iter().map(|v| (v - row[prediction]).exp()).sum();
        Prediction {
            key: (*key).to_owned(),
            task,
            label: *label as usize,
            prediction,
            confidence: 1.0 / sum,
            task_aware: best(row, &mut tasks[task].iter().copied().filter(|c| *c < row.len())),
            rank: Some(rank(row, *label as usize)),
        }
    };
    logits.iter().zip(keys).zip(labels).map(one).collect()
}

/// The rank of `label` among a row of logits, from 1. Of equal logits the one of the lower class is
/// first, as it is when the prediction is chosen: rank 1 means that the prediction is right.
fn rank(row: &[f64], label: usize) -> usize {
    let own = row.get(label).copied().unwrap_or(f64::NEG_INFINITY);
    1 + row
        .iter()
        .enumerate()
        .filter(|(class, v)| **v > own || (**v == own && *class < label))
        .count()
}

/// The scores of one evaluation: all test images of the tasks seen so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Accuracy on each task's images, percent: a row of the accuracy matrix.
    pub by_task: Vec<f64>,
    /// Accuracy on all images, percent (weighted by the number of images).
    pub accuracy: f64,
    /// Mean of the tasks' accuracies, percent.
    pub task_mean: f64,
    /// Share of images whose predicted class belongs to the right task, percent.
    pub task_id: f64,
    /// Accuracy when the right task is known, percent.
    pub task_aware: f64,
    /// Expected calibration error over 15 equal bins of confidence, percent.
    pub ece: f64,
    /// Accuracy on each class's images, percent, as the model numbers the classes.
    pub by_class: Vec<f64>,
    /// Share of images whose true class is among the five with the largest logits, percent. None
    /// below six classes, where it says nothing, and of predictions without ranks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top5: Option<f64>,
}

impl Scores {
    /// The scores of an evaluation. `tasks` holds the classes of each task seen so far.
    pub fn of(predictions: &[Prediction], tasks: &[Vec<usize>]) -> Self {
        let share = |part: &mut dyn Iterator<Item = bool>| {
            let (mut hits, mut all) = (0usize, 0usize);
            part.for_each(|hit| {
                hits += usize::from(hit);
                all += 1;
            });
            if all == 0 { 0.0 } else { 100.0 * hits as f64 / all as f64 }
        };
        let hit = |p: &Prediction| p.prediction == p.label;
        let by_task: Vec<f64> = (0..tasks.len())
            .map(|t| share(&mut predictions.iter().filter(|p| p.task == t).map(hit)))
            .collect();
        let classes = tasks.iter().flatten().max().map_or(0, |c| c + 1);
        let bins: f64 = (0..15)
            .map(|bin| {
                let inside = |p: &&Prediction| {
                    ((p.confidence * 15.0).ceil() as usize).clamp(1, 15) == bin + 1
                };
                let n = predictions.iter().filter(inside).count() as f64;
                let confidence: f64 =
                    predictions.iter().filter(inside).map(|p| 100.0 * p.confidence).sum();
                let accuracy = n * share(&mut predictions.iter().filter(inside).map(hit));
                (accuracy - confidence).abs()
            })
            .sum();
        Self {
            task_mean: by_task.iter().sum::<f64>() / by_task.len().max(1) as f64,
            by_task,
            accuracy: share(&mut predictions.iter().map(hit)),
            task_id: share(&mut predictions.iter().map(|p| tasks[p.task].contains(&p.prediction))),
            task_aware: share(&mut predictions.iter().map(|p| p.task_aware == p.label)),
            ece: bins / predictions.len().max(1) as f64,
            by_class: (0..classes)
                .map(|c| share(&mut predictions.iter().filter(|p| p.label == c).map(hit)))
                .collect(),
            top5: (classes > 5 && predictions.iter().all(|p| p.rank.is_some()))
                .then(|| share(&mut predictions.iter().map(|p| p.rank.is_some_and(|r| r <= 5)))),
        }
    }
}

/// What derives from the evaluations after each task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// A_T: accuracy on all classes after the last task, percent.
    pub last: f64,
    /// Mean over tasks of the accuracy on the classes seen so far, percent.
    pub avg: f64,
    /// mean over i < T of (max over t < T of R\[t\]\[i\] − R\[T\]\[i\]); 0 for one task.
    pub forgetting: f64,
    /// mean over i < T of (R\[T\]\[i\] − R\[i\]\[i\]); 0 for one task.
    pub bwt: f64,
}

impl Summary {
    /// Derives the summary from the evaluations after task 0, 1, ….
    pub fn of(scores: &[Scores]) -> Self {
        let Some((last, before)) = scores.split_last() else { return Self::default() };
        let old = before.len();
        let mean = |f: &dyn Fn(usize) -> f64| {
            if old == 0 { 0.0 } else { (0..old).map(f).sum::<f64>() / old as f64 }
        };
        let best = |i: usize| {
            before
                .iter()
                .filter_map(|s| s.by_task.get(i))
                .copied()
                .fold(f64::NEG_INFINITY, f64::max)
        };
        Self {
            last: last.accuracy,
            avg: scores.iter().map(|s| s.accuracy).sum::<f64>() / scores.len() as f64,
            forgetting: mean(&|i| best(i) - last.by_task[i]),
            bwt: mean(&|i| last.by_task[i] - scores[i].by_task[i]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(by_task: &[f64], accuracy: f64) -> Scores {
        let by_task = by_task.to_vec();
        let (by_class, top5) = (vec![], None);
        Scores {
            by_task,
            accuracy,
            task_mean: 0.0,
            task_id: 0.0,
            task_aware: 0.0,
            ece: 0.0,
            by_class,
            top5,
        }
    }

    #[test]
    fn summary_follows_the_definitions() {
        let s = Summary::of(&[
            scores(&[90.0], 90.0),
            scores(&[95.0, 80.0], 87.0),
            scores(&[60.0, 70.0, 50.0], 60.0),
        ]);
        assert_eq!(
            s,
            Summary {
                last: 60.0,
                avg: 79.0,
                forgetting: (35.0 + 10.0) / 2.0,
                bwt: (-30.0 - 10.0) / 2.0
            }
        );
        assert_eq!(Summary::of(&[scores(&[90.0], 90.0)]).forgetting, 0.0);
    }

    #[test]
    fn scores_are_weighted_by_images() {
        let tasks = [vec![0, 1], vec![2]];
        let logits = [vec![3.0, 1.0, 0.0], vec![0.0, 1.0, 5.0], vec![0.0, 0.0, 9.0]];
        let mut all = predictions(&logits[..2], &["a", "b"], &[0, 1], 0, &tasks);
        all.extend(predictions(&logits[2..], &["c"], &[2], 1, &tasks));
        let s = Scores::of(&all, &tasks);
        assert_eq!(s.by_task, [50.0, 100.0]);
        assert!((s.accuracy - 200.0 / 3.0).abs() < 1e-12);
        assert_eq!((s.task_mean, s.task_aware), (75.0, 100.0));
        assert!((s.task_id - 200.0 / 3.0).abs() < 1e-12);
        assert_eq!(s.by_class, [100.0, 0.0, 100.0]);
        assert!((all[0].confidence - 1.0 / (1.0 + (-2f64).exp() + (-3f64).exp())).abs() < 1e-12);
    }
    #[test]
    fn the_true_class_has_a_rank_and_top_five_needs_six_classes() {
        let logits = [vec![6.0, 5.0, 4.0, 3.0, 2.0, 2.0], vec![1.0, 1.0, 0.0, 0.0, 0.0, 0.0]];
        let tasks = [(0..6).collect::<Vec<_>>()];
        let mut all = predictions(&logits, &["a", "b"], &[5, 1], 0, &tasks);
        // Of equal logits the lower class comes first.
        assert_eq!(all.iter().map(|p| p.rank).collect::<Vec<_>>(), [Some(6), Some(2)]);
        assert_eq!(Scores::of(&all, &tasks).top5, Some(50.0));
        all[0].rank = None;
        assert_eq!(Scores::of(&all, &tasks).top5, None, "a record of before ranks");
        let five = [(0..5).collect::<Vec<_>>()];
        let few = predictions(&[vec![0.0; 5]], &["a"], &[4], 0, &five);
        assert_eq!((few[0].rank, Scores::of(&few, &five).top5), (Some(5), None));
    }
}
