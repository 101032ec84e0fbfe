//! `cilbench sweep`: a plan of small runs on the embedded data.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const PLAN: &str = r#"
out = "results"

[run]
epochs = 1
train_per_class = 6
test_per_class = 3

[grid]
method = ["linear-probe", "simplecil"]
scenario = ["split-fashion-mnist-5"]
seed = [0, 1]
"#;

fn sweep(folder: &Path, plan: &str, more: &[&str]) -> Output {
    std::fs::write(folder.join("plan.toml"), plan).expect("a plan");
    command(folder, more).output().expect("started")
}

fn command(folder: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cilbench"));
    command.current_dir(folder).args(["sweep", "plan.toml"]).args(more);
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The finished runs below a folder.
fn finished(folder: &Path) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            count += finished(&path);
        } else if path.ends_with("run.json") {
            let record = std::fs::read_to_string(&path).expect("a record");
            count += usize::from(record.contains("\"status\": \"finished\""));
        }
    }
    count
}

#[test]
fn a_plan_runs_what_is_missing_and_nothing_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let dry = sweep(folder.path(), PLAN, &["--dry-run"]);
    assert!(dry.status.success() && text(&dry).contains("4 of 4 would run"), "{}", text(&dry));
    assert!(!folder.path().join("results").exists(), "nothing was written");
    let alone = sweep(folder.path(), PLAN, &["--cell", "3"]);
    assert!(alone.status.success(), "{}", text(&alone));
    let first = sweep(folder.path(), PLAN, &["--jobs", "2"]);
    assert!(first.status.success(), "{}", text(&first));
    assert!(
        text(&first).contains("4 cells, 1 finished, 3 to run, 2 at a time"),
        "{}",
        text(&first)
    );
    assert_eq!(finished(&folder.path().join("results")), 4);
    let again = sweep(folder.path(), PLAN, &[]);
    assert!(text(&again).contains("4 finished, 0 to run"), "{}", text(&again));
    let list = sweep(folder.path(), PLAN, &["--list"]);
    assert!(text(&list).contains("4 of 4 cells are finished"), "{}", text(&list));
}

#[test]
fn everything_is_checked_before_anything_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let refused = |plan: &str, more: &[&str], said: &[&str]| {
        let output = sweep(folder.path(), plan, more);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        said.iter()
            .for_each(|part| assert!(text(&output).contains(part), "{part}: {}", text(&output)));
        assert!(!folder.path().join("results").exists(), "nothing was written");
    };
    let unknown = PLAN.replace("\"simplecil\"", "\n  \"simplcil\"");
    refused(
        &unknown,
        &[],
        &["plan.toml, line 11", "unknown method 'simplcil'", "did you mean 'simplecil'"],
    );
    let twice = format!("{PLAN}[[cell]]\nmethod = \"simplecil\"\nseed = 1\n");
    refused(&twice, &[], &["line 10 and line 14 are the same run"]);
    refused(&PLAN.replace("epochs = 1", "epoch = 1"), &[], &["line 5", "did you mean 'epochs'?"]);
    refused(PLAN, &["--cell", "5"], &["the plan has cells 1 to 4"]);
    refused(PLAN, &["--jobs", "0"], &["--jobs 0"]);
    let weights = format!("{PLAN}weights = [\"tiny\"]\n");
    refused(&weights, &[], &["unknown weights 'tiny'"]);
}

#[test]
fn a_failing_cell_leaves_the_others_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let methods = "method = [\"linear-probe\", \"simplecil\"]";
    let plan =
        PLAN.replace(methods, "method = [\"linear-probe\"]\nset.learning_rate = [1e-3, 1e300]");
    let output = sweep(folder.path(), &plan, &["--jobs", "2"]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("2 of 4 cells did not finish") && said.contains("exit code 1"), "{said}");
    assert_eq!(finished(&folder.path().join("results")), 2);
}

#[cfg(unix)]
#[test]
fn a_sweep_that_is_stopped_goes_on_where_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = PLAN.replace("epochs = 1", "epochs = 30").replace("\"simplecil\"", "\"lora\"");
    std::fs::write(folder.path().join("plan.toml"), &plan).expect("a plan");
    let mut child = command(folder.path(), &["--jobs", "2"]).spawn().expect("started");
    let began = Instant::now();
    let logs = folder.path().join("results/sweep-logs");
    while std::fs::read_dir(&logs).map_or(0, Iterator::count) < 2
        && began.elapsed() < Duration::from_secs(60)
    {
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(Duration::from_millis(500));
    let kill =
        Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill");
    assert!(kill.success());
    let status = child.wait().expect("ended");
    assert_eq!(status.code(), Some(75), "the same command goes on later");
    let done = finished(&folder.path().join("results"));
    assert!(done < 4, "it was stopped in between");
    let again = sweep(folder.path(), &plan, &["--jobs", "2"]);
    assert!(again.status.success(), "{}", text(&again));
    assert_eq!(finished(&folder.path().join("results")), 4);
}
