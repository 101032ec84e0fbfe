//! What a run prints when it ends.

use std::path::Path;

use cilbench::results::{Record, Statistics, leaderboard};

use crate::output::table;

/// Prints a run's accuracies, its metrics and where it was written.
pub(super) fn summarise(record: &Record, folder: &Path) {
    if record.tasks.len() <= 10 {
        show_accuracies(record);
    }
    let s = &record.summary;
    let mut out = table(&[
        "last",
        "avg",
        "forgetting",
        "bwt",
        "relation drift",
        "images/s",
        "trained",
        "carried",
    ]);
    let drift = record.relation_drift.map_or("–".to_owned(), |d| format!("{d:.4}"));
    let carried = format!("{:.2} MB", record.costs.carried_bytes as f64 / 1e6);
    let [last, avg, forgetting, bwt] =
        [s.last, s.avg, s.forgetting, s.bwt].map(|v| format!("{v:.2}"));
    let speed = format!("{:.0}", record.costs.images_per_second);
    out.add_row([
        last,
        avg,
        forgetting,
        bwt,
        drift,
        speed,
        record.costs.trained_parameters.to_string(),
        carried,
    ]);
    println!("{out}");
    if record.audited {
        println!(
            "audited: after each task the method was rebuilt from its counted state alone, and scored the same"
        );
    }
    record.warnings.iter().for_each(|w| println!("warning: {w}"));
    println!("written to {}", folder.display());
}

/// Prints the matrix of accuracies: rows are tasks learned, columns tasks scored.
fn show_accuracies(record: &Record) {
    let tasks = record.tasks.len();
    let mut header = vec!["after task".to_owned()];
    header.extend((1..=tasks).map(|i| format!("{i}")));
    header.extend(["all".to_owned(), "drift".to_owned()]);
    let mut out = table(&header.iter().map(String::as_str).collect::<Vec<_>>());
    for (t, task) in record.tasks.iter().enumerate() {
        let mut row = vec![format!("{}", t + 1)];
        row.extend(
            (0..tasks)
                .map(|i| task.scores.by_task.get(i).map_or(String::new(), |a| format!("{a:.1}"))),
        );
        row.extend([
            format!("{:.2}", task.scores.accuracy),
            task.relation_drift.map_or(String::new(), |d| format!("{d:.3}")),
        ]);
        out.add_row(row);
    }
    println!("\naccuracy (%) on each task's test images, {}\n{out}\n", record.identity.method);
}

/// Prints the mean and the spread of each metric over several runs.
pub(super) fn summarise_all(records: &[Record]) {
    let mut out = table(&["over all runs", "n", "mean", "std", "95 % interval"]);
    for name in leaderboard::METRICS {
        let values: Vec<f64> = records.iter().map(|r| leaderboard::metric(r, name)).collect();
        if let Some(s) = Statistics::of(&values) {
            let show = |v: Option<f64>| v.map_or("–".to_owned(), |v| format!("{v:.2}"));
            let interval = s
                .ci95
                .map_or("–".to_owned(), |ci| format!("{:.2} … {:.2}", s.mean - ci, s.mean + ci));
            out.add_row([
                name.to_owned(),
                s.n.to_string(),
                show(Some(s.mean)),
                show(s.std),
                interval,
            ]);
        }
    }
    println!("\n{out}");
}

/// Prints what a newcomer may try after the default scenario.
pub(super) fn suggest_next(record: &Record) {
    if record.identity.scenario.name != "split-fashion-mnist-5" {
        return;
    }
    match record.identity.method == "sr2-lora" {
        true => println!(
            "\nTry next:\n  cilbench run --method lora        the same without protection against forgetting"
        ),
        false => println!("\nTry next:\n  cilbench run        SR²-LoRA, to compare with"),
    }
    println!("  cilbench leaderboard        the runs in ./runs, ranked");
    println!(
        "  cilbench run --scenario cifar100-10 --data-root DIR --weights FILE        a real data set and backbone"
    );
}
