use std::path::Path;

use super::*;
use crate::metrics::{Prediction, Scores};
use crate::results::{Identity, RunFolder, TaskRecord};

/// A run in `folder` whose answer to test image i is right where `right(i)`; 100 images in two
/// tasks, a class each.
fn run(folder: &Path, method: &str, (order, seed): (&str, u64), right: impl Fn(usize) -> bool) {
    let scenario = serde_json::json!({
        "name": "two", "dataset": "made-up", "tasks": [[0], [1]], "class_order": order,
        "transforms": {"image_size": 32, "crop_scale": [0.05, 1.0], "crop_ratio": [0.75, 1.3], "flip": true},
        "images": [[10, 50], [10, 50]], "data_id": format!("id-{order}"),
    });
    let backbone = serde_json::json!({
        "name": "vit-nano", "weights_hash": "0123456789abcdef", "dim": 8, "blocks": 1, "heads": 1, "patch": 8,
        "image_size": 32, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "pretrained_on": [], "parameters": 1,
    });
    let identity: Identity = serde_json::from_value(serde_json::json!({
        "method": method, "method_version": "1", "config": {}, "scenario": scenario, "backbone": backbone,
        "backbone_options": {"weights": null, "image_size": null, "heads": null, "mean": null, "std": null},
        "seed": seed, "dtype": "f32", "device": "cpu",
    }))
    .expect("an identity");
    let folder = folder.join(format!("{method}-{order}-{seed}").replace(':', "-"));
    let (opened, _) = RunFolder::open(&folder, &identity).expect("open");
    let mut record = Record::new(identity, Vec::new());
    let answer = |i: usize| {
        let label = i % 2;
        let prediction = if right(i) { label } else { 1 - label };
        let rank = Some(if right(i) { 1 } else { 2 });
        Prediction {
            key: format!("{i:03}"),
            task: label,
            label,
            prediction,
            confidence: 0.9,
            task_aware: label,
            rank,
        }
    };
    let all: Vec<Prediction> = (0..100).map(answer).collect();
    for task in 0..2 {
        let seen: Vec<Prediction> = all.iter().filter(|p| p.task <= task).cloned().collect();
        let classes: Vec<Vec<usize>> = (0..=task).map(|c| vec![c]).collect();
        let scores = Scores::of(&seen, &classes);
        record.files.extend([opened.predictions(task, &seen).expect("predictions")]);
        record.push(TaskRecord {
            scores,
            relation_drift: None,
            train_seconds: 1.0,
            task_seconds: 0.5,
            test_seconds: 0.0,
            steps: 1,
            state_hash: String::new(),
        });
    }
    record.status = Status::Finished;
    opened.write(&mut record).expect("write");
}

fn tested(folder: &Path, gather_orders: bool) -> Vec<Board> {
    let (found, errors) = find_runs(folder).expect("find");
    assert!(errors.is_empty(), "{errors:?}");
    boards(&found, "last", &Options { gather_orders, test: true }).expect("boards")
}

#[test]
fn equal_results_share_a_rank() {
    assert_eq!(ranks(&[66.5, 66.5, 63.9, 50.0, 50.0, 2.0]), [1, 1, 3, 4, 4, 6]);
    assert!(ranks(&[]).is_empty());
}

#[test]
fn the_best_are_all_that_are_not_told_apart_from_the_best() {
    let folder = tempfile::tempdir().expect("folder");
    run(folder.path(), "a", ("natural", 0), |i| i < 80);
    run(folder.path(), "b", ("natural", 0), |i| (2..80).contains(&i));
    run(folder.path(), "c", ("natural", 0), |i| i < 50);
    run(folder.path(), "d", ("natural", 0), |i| i < 40);
    let boards = tested(folder.path(), false);
    assert_eq!(boards.len(), 1);
    let board = &boards[0];
    assert_eq!(
        board.rows.iter().map(|r| (r.method.as_str(), r.best)).collect::<Vec<_>>(),
        [("a", true), ("b", true), ("c", false), ("d", false)]
    );
    // 2 images against none: 2 · (1/2)² = 1/2, and the largest of six p-values stays as it is.
    assert!(board.rows[1].p_best.is_some_and(|p| (p - 0.5).abs() < 1e-9));
    assert_eq!((board.best(&ALL[0]), board.runner_up(&ALL[0])), (vec![0, 1], Some(50.0)));
    assert!(board.rows[2].p_best.is_some_and(|p| p < 1e-6));
    // A row whose predictions are gone is ranked, but not tested.
    std::fs::remove_file(folder.path().join("b-natural-0/predictions/task-1.csv")).expect("remove");
    let again = &tested(folder.path(), false)[0];
    assert!(again.untested[0].contains("task-1.csv (missing)"), "{:?}", again.untested);
}

#[test]
fn class_orders_are_gathered_and_ranked_among_methods_that_ran_the_same() {
    let folder = tempfile::tempdir().expect("folder");
    for (order, cut) in [("natural", 60), ("seed:1", 80)] {
        for seed in [0, 1] {
            run(folder.path(), "a", (order, seed), |i| i < cut + seed as usize);
            run(folder.path(), "b", (order, seed), |i| i < cut - 30);
        }
    }
    run(folder.path(), "c", ("natural", 0), |i| i < 99);
    assert_eq!(tested(folder.path(), false).len(), 2, "a board for each class order");
    let boards = tested(folder.path(), true);
    assert_eq!(boards.len(), 2, "methods of one class order are not ranked with those of two");
    let board = boards.iter().find(|b| b.rows.len() == 2).expect("the board of both orders");
    let a = &board.rows[0];
    assert_eq!(
        (a.method.as_str(), a.n_orders, a.n_seeds, a.class_order.as_str()),
        ("a", 2, 2, "natural seed:1")
    );
    // The values are the orders' means over seeds: 60.5 and 80.5.
    assert!(
        (a.mean - 70.5).abs() < 1e-9 && (a.std.expect("two orders") - 200f64.sqrt()).abs() < 1e-9
    );
    assert_eq!((a.worst_order.as_str(), a.worst), ("natural", Some(60.5)));
    let significance = board.significance.as_ref().expect("tested");
    assert!(significance.caption().expect("tested").contains("class orders"), "{significance:?}");
}

#[test]
fn intransigence_is_against_joint_of_the_same_seed() {
    let folder = tempfile::tempdir().expect("folder");
    run(folder.path(), "joint", ("natural", 0), |i| i < 90);
    run(folder.path(), "a", ("natural", 0), |i| i < 70);
    run(folder.path(), "b", ("natural", 1), |i| i < 60);
    let board = &tested(folder.path(), false)[0];
    let of =
        |method: &str| board.rows.iter().find(|r| r.method == method).expect("row").intransigence;
    assert_eq!((of("joint"), of("a"), of("b")), (Some(0.0), Some(20.0), None));
}

#[test]
fn metrics_have_names_and_the_nearest_is_suggested() {
    assert_eq!(Metric::find("task_id").expect("known").name, "task-id");
    let error = Metric::find("forgeting").err().expect("unknown").to_string();
    assert!(error.contains("forgetting"), "{error}");
}
