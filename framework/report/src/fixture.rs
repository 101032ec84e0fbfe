//! Made-up runs for tests.

use std::path::{Path, PathBuf};

use cilbench::metrics::{Prediction, Scores};
use cilbench::results::{Identity, Record, RunFolder, Status, TaskRecord};
use serde_json::json;

/// A run of a method on ten classes in five tasks, 20 test images in each.
pub(crate) struct Made<'a> {
    pub method: &'a str,
    pub seed: u64,
    pub order: &'a str,
    /// Test images of 100 that it answers rightly.
    pub right: usize,
    /// How many of the five tasks it finished.
    pub tasks: usize,
}

impl Made<'_> {
    /// A finished run of the natural class order and seed 0.
    pub(crate) fn new(method: &str, right: usize) -> Made<'_> {
        Made { method, seed: 0, order: "natural", right, tasks: 5 }
    }

    fn identity(&self) -> Identity {
        let classes: Vec<Vec<usize>> = (0..5).map(|t| vec![2 * t, 2 * t + 1]).collect();
        let scenario = json!({
            "name": "five", "dataset": "made-up", "tasks": classes, "class_order": self.order,
            "transforms": {"image_size": 32, "crop_scale": [0.05, 1.0], "crop_ratio": [0.75, 1.3], "flip": true},
            "images": vec![[10, 20]; 5], "data_id": format!("id-{}", self.order),
        });
        let backbone = json!({
            "name": "vit-nano", "weights_hash": "0123456789abcdef", "dim": 8, "blocks": 1, "heads": 1, "patch": 8,
            "image_size": 32, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "pretrained_on": [], "parameters": 1,
        });
        serde_json::from_value(json!({
            "method": self.method, "method_version": "1", "config": {"epochs": 5}, "scenario": scenario,
            "backbone": backbone, "seed": self.seed, "dtype": "f32", "device": "cpu",
            "backbone_options": {"weights": null, "image_size": null, "heads": null, "mean": null, "std": null},
        }))
        .expect("an identity")
    }

    fn predictions(&self, task: usize) -> Vec<Prediction> {
        let answer = |i: usize| {
            let label = i % 10;
            // 37 and 100 have no common divisor: exactly so many of 100 images are right.
            let right = (i * 37) % 100 < self.right;
            let prediction = if right { label } else { (label + 1) % (2 * task + 2) };
            let rank = Some(if right { 1 } else { 3 });
            let key = format!("{i:03}");
            Prediction {
                key,
                task: label / 2,
                label,
                prediction,
                confidence: 0.75,
                task_aware: label,
                rank,
            }
        };
        (0..100).map(answer).filter(|p| p.task <= task).collect()
    }

    /// Writes the run into a folder of its own below `folder`.
    pub(crate) fn write(&self, folder: &Path) -> PathBuf {
        let identity = self.identity();
        let path =
            folder.join(format!("{}-{}-{}", self.method, self.order.replace(':', "-"), self.seed));
        let (opened, _) = RunFolder::open(&path, &identity).expect("open");
        let mut record = Record::new(identity, Vec::new());
        for task in 0..self.tasks {
            let predictions = self.predictions(task);
            let classes: Vec<Vec<usize>> = (0..=task).map(|t| vec![2 * t, 2 * t + 1]).collect();
            record.files.extend([opened.predictions(task, &predictions).expect("predictions")]);
            record.push(TaskRecord {
                scores: Scores::of(&predictions, &classes),
                relation_drift: (task > 0).then_some(0.03),
                train_seconds: 1.0 + self.seed as f64,
                task_seconds: 0.5,
                test_seconds: 0.1,
                steps: 2,
                state_hash: String::new(),
            });
        }
        let log: String = (0..2 * self.tasks)
            .map(|i| {
                format!(
                    "{{\"epoch\":0,\"losses\":{{\"ce\":{}}},\"step\":{},\"task\":{}}}\n",
                    1.0 / (i + 1) as f64,
                    i % 2,
                    i / 2
                )
            })
            .collect();
        std::fs::write(path.join("metrics.jsonl"), log).expect("log");
        record.status = if self.tasks == 5 { Status::Finished } else { Status::Interrupted };
        opened.write(&mut record).expect("write");
        path
    }
}
