//! The program with runs that are killed, resumed, tampered with, reproduced, exported and ranked.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

fn cilbench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cilbench")).args(args).output().expect("the command starts")
}

const SMALL: [&str; 10] = [
    "run",
    "--train-per-class",
    "6",
    "--test-per-class",
    "5",
    "--epochs",
    "2",
    "--batch-size",
    "4",
    "--out",
];

fn small_run(out: &Path, more: &[&str]) -> Output {
    let mut args = SMALL.to_vec();
    args.push(out.to_str().expect("a path"));
    args.extend(more);
    cilbench(&args)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn record(out: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(out.join("run.json")).expect("run.json")).expect("JSON")
}

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout) + &text(&output.stderr)
}

fn refused(output: &Output, code: i32, expected: &str) {
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert!(message.contains(expected), "'{expected}' is not in: {message}");
    assert!(!message.contains("panicked"), "{message}");
}

fn path(p: &Path) -> &str {
    p.to_str().expect("a path")
}

/// What must not depend on how often a run was killed.
fn results(out: &Path) -> (serde_json::Value, serde_json::Value, String) {
    let run = record(out);
    let log = std::fs::read_to_string(out.join("metrics.jsonl")).expect("metrics");
    (run["accuracy_matrix"].clone(), run["receipts"].clone(), log)
}

/// CILBENCH_TEST_KILLS: how often each method's run is killed (3 by default).
fn kills() -> u64 {
    std::env::var("CILBENCH_TEST_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(3)
}

#[cfg(unix)]
#[test]
fn killed_at_any_moment_a_run_ends_in_the_same_bits() {
    for method in ["sr2-lora", "lora", "lora-ca"] {
        let (whole, killed) =
            (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
        succeeded(&small_run(whole.path(), &["--method", method]));
        let mut seed = 12345u64;
        for _ in 0..kills() {
            let mut args = SMALL.to_vec();
            args.extend([path(killed.path()), "--method", method, "--checkpoint-steps", "2"]);
            let mut child = Command::new(env!("CARGO_BIN_EXE_cilbench"))
                .args(&args)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("the command starts");
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            std::thread::sleep(Duration::from_millis(100 + (seed >> 33) % 600));
            child.kill().expect("kill -9");
            child.wait().expect("wait");
        }
        succeeded(&small_run(killed.path(), &["--method", method]));
        assert_eq!(record(killed.path())["status"], "finished");
        assert_eq!(results(whole.path()), results(killed.path()), "{method}");
    }
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_goes_on_by_its_folder_alone_and_from_an_older_checkpoint_if_the_newest_is_damaged()
 {
    let (whole, cut) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
    succeeded(&small_run(whole.path(), &[]));
    let mut args = SMALL.to_vec();
    args.extend([path(cut.path()), "--checkpoint-steps", "1"]);
    let child = Command::new(env!("CARGO_BIN_EXE_cilbench"))
        .args(&args)
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("starts");
    for _ in 0..600 {
        if std::fs::read_to_string(cut.path().join("metrics.jsonl"))
            .is_ok_and(|m| m.lines().count() > 8)
        {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    let output = child.wait_with_output().expect("wait");
    if output.status.success() {
        return; // It was faster than the signal.
    }
    refused(&output, 130, "nothing is lost");
    let mut checkpoints: Vec<_> = std::fs::read_dir(cut.path().join("checkpoints"))
        .expect("list")
        .flatten()
        .map(|e| e.path())
        .collect();
    checkpoints.sort();
    assert_eq!(checkpoints.len(), 2);
    let newest = std::fs::read(&checkpoints[1]).expect("read");
    std::fs::write(&checkpoints[1], &newest[..newest.len() / 2]).expect("truncate");
    let said = succeeded(&cilbench(&["run", "--resume", path(cut.path())]));
    assert!(said.contains("is damaged") && said.contains("resumed from the checkpoint"), "{said}");
    assert_eq!(results(whole.path()), results(cut.path()));
}

#[test]
fn a_second_process_on_a_folder_is_told_who_holds_it() {
    let folder = tempfile::tempdir().expect("folder");
    let mut args = SMALL.map(|arg| if arg == "2" { "400" } else { arg }).to_vec();
    args.push(path(folder.path()));
    let mut child = Command::new(env!("CARGO_BIN_EXE_cilbench"))
        .args(&args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    for _ in 0..600 {
        if folder.path().join("metrics.jsonl").exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let second = cilbench(&args);
    child.kill().expect("kill");
    child.wait().expect("wait");
    refused(&second, 2, &format!("process {}", child.id()));
}

#[test]
fn a_run_is_reproduced_bit_by_bit_and_a_changed_byte_is_named() {
    let (first, copy) =
        (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
    succeeded(&small_run(first.path(), &["--keep", "10", "--audit"]));
    let status = Command::new("cp")
        .args(["-r", &format!("{}/.", path(first.path())), path(copy.path())])
        .status()
        .expect("cp");
    assert!(status.success());
    assert!(
        succeeded(&cilbench(&["reproduce", path(copy.path())]))
            .contains("bit-identical: all 5 tasks")
    );
    assert!(
        succeeded(&cilbench(&["reproduce", path(copy.path()), "--task", "3"]))
            .contains("bit-identical: task 3")
    );
    assert!(succeeded(&cilbench(&["eval", path(copy.path())])).contains("the same"));
    refused(&cilbench(&["reproduce", path(copy.path()), "--task", "6"]), 2, "tasks 1 to 5");

    let predictions = copy.path().join("predictions/task-2.csv");
    let whole = std::fs::read_to_string(&predictions).expect("read");
    std::fs::write(&predictions, whole.replacen("0.", "1.", 1)).expect("write");
    refused(&cilbench(&["reproduce", path(copy.path())]), 1, "predictions/task-2.csv");
    std::fs::write(&predictions, whole).expect("write");

    let run = copy.path().join("run.json");
    let whole = std::fs::read_to_string(&run).expect("read");
    std::fs::write(&run, whole.replacen("\"forgetting\": ", "\"forgetting\": 1", 1))
        .expect("write");
    refused(&cilbench(&["reproduce", path(copy.path())]), 1, "run.json");
    let board = succeeded(&cilbench(&["leaderboard", path(copy.path())]));
    assert!(board.contains("ALTERED"), "{board}");
    std::fs::write(&run, whole).expect("write");

    let checkpoint = copy.path().join("checkpoints/task-0002-step-00000000.ckpt");
    let mut bytes = std::fs::read(&checkpoint).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&checkpoint, bytes).expect("write");
    refused(
        &cilbench(&["reproduce", path(copy.path()), "--task", "3"]),
        1,
        "task-0002-step-00000000.ckpt",
    );
}

#[test]
fn three_seeds_and_two_methods_make_a_leaderboard() {
    let folder = tempfile::tempdir().expect("folder");
    for method in ["lora", "sr2-lora"] {
        let said = succeeded(&small_run(
            &folder.path().join(method),
            &["--method", method, "--seeds", "0,1,2"],
        ));
        assert!(said.contains("over all runs") && said.contains("95 % interval"), "{said}");
    }
    let csv = folder.path().join("board.csv");
    let said = succeeded(&cilbench(&[
        "leaderboard",
        path(folder.path()),
        "--metric",
        "avg",
        "--export",
        path(&csv),
    ]));
    assert!(said.contains("sr2-lora") && said.contains(" ± "), "{said}");
    let board = std::fs::read_to_string(&csv).expect("csv");
    let rows: Vec<Vec<&str>> = board.lines().map(|l| l.split(',').collect()).collect();
    let column = |name: &str| rows[0].iter().position(|c| *c == name).expect("column");
    assert_eq!(rows.len(), 3, "{board}");
    assert_eq!((rows[1][column("rank")], rows[2][column("rank")]), ("1", "2"));
    let mean: f64 = rows[1][column("mean")].parse().expect("mean");
    let seeds: Vec<f64> = (0..3)
        .map(|s| {
            record(
                &folder
                    .path()
                    .join(rows[1][column("method")])
                    .join(format!("order-natural/seed-{s}")),
            )["avg"]
                .as_f64()
                .expect("avg")
        })
        .collect();
    assert!((mean - seeds.iter().sum::<f64>() / 3.0).abs() < 1e-9);
    assert!(
        rows[1][column("n_seeds")] == "3"
            && mean >= rows[2][column("mean")].parse::<f64>().expect("mean")
    );
    let tex = folder.path().join("board.tex");
    let chosen =
        ["--columns", "method,last,avg-tasks,top-5,p", "--gather-orders", "--export", path(&tex)];
    let said = succeeded(&cilbench(&[&["leaderboard", path(folder.path())], &chosen[..]].concat()));
    assert!(said.contains("paired bootstrap") && said.contains("avg (tasks)"), "{said}");
    assert!(std::fs::read_to_string(&tex).expect("tex").contains("\\toprule"));
    let record = folder.path().join("lora/order-natural/seed-0/run.json");
    let before = std::fs::read(&record).expect("record");
    for (args, expected) in [
        (["--export", path(&record)], "is not an earlier export"),
        (["--export", "board.xlsx"], ".tex"),
        (["--columns", "lst"], "unknown column"),
        (["--columns", "last,last"], "twice"),
    ] {
        refused(
            &cilbench(&[&["leaderboard", path(folder.path())], &args[..]].concat()),
            2,
            expected,
        );
    }
    assert_eq!(std::fs::read(&record).expect("record"), before);
    let page = folder.path().join("report.html");
    let figures = folder.path().join("figures");
    let report = ["report", path(folder.path()), "--out", path(&page), "--figures", path(&figures)];
    succeeded(&cilbench(&report));
    succeeded(&cilbench(&report));
    assert!(std::fs::read_to_string(&page).expect("page").contains("6 finished runs in 1 group,"));
    assert!(std::fs::read_dir(&figures).expect("figures").count() > 10);
    let runs = [0, 1].map(|seed| folder.path().join(format!("lora/order-natural/seed-{seed}")));
    let said = succeeded(&cilbench(&["diff", path(&runs[0]), path(&runs[1])]));
    assert!(said.contains("seed") && said.contains("McNemar's exact test has p"), "{said}");
    refused(&cilbench(&["diff", path(&runs[0]), path(folder.path())]), 2, "no run folder");
    refused(
        &cilbench(&["report", path(folder.path()), "--out", path(&record)]),
        2,
        "is not an earlier export",
    );
    refused(
        &cilbench(&["leaderboard", path(folder.path()), "--metric", "accuracy"]),
        2,
        "unknown metric",
    );
    refused(
        &cilbench(&["leaderboard", path(folder.path()), "--scenario", "cifar100-10"]),
        2,
        "split-fashion-mnist-5",
    );
}

#[test]
fn what_would_be_ignored_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    for (args, expected) in [
        (&["--resume", "runs", "--epochs", "3"][..], "cannot be used with"),
        (&["--resume", "runs", "--dry-run"], "cannot be used with"),
        (&["--seeds", "0,1,0"], "--seeds names 0 twice"),
        (&["--class-orders", "seed:1,seed:1"], "--class-orders names seed:1 twice"),
        (&["--set", "rank=4", "--set", "rank=5"], "--set rank=5: there is another --set for rank"),
        (&["--epochs", "2", "--set", "epochs=3"], "--epochs 2: there is a --set for epochs too"),
        (&["--data-root", path(folder.path())], "leave --data-root out"),
    ] {
        refused(&cilbench(&[&["run"], args].concat()), 2, expected);
    }
}

#[test]
fn a_leaderboard_says_what_sets_rows_apart() {
    let folder = tempfile::tempdir().expect("folder");
    for (name, more) in [
        ("a", &["--method", "er"][..]),
        ("b", &["--method", "er", "--set", "rank=5"]),
        ("c", &["--method", "joint"]),
    ] {
        succeeded(&small_run(&folder.path().join(name), more));
    }
    let csv = folder.path().join("board.csv");
    let said = succeeded(&cilbench(&["leaderboard", path(folder.path()), "--export", path(&csv)]));
    for part in [
        "rank=4",
        "rank=5",
        "keeps ",
        "a bound: sees all images so far",
        " training and ",
        "class order natural",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let board = std::fs::read_to_string(&csv).expect("csv");
    assert!(
        board.contains("\"\"rank\"\":5") && board.contains(path(&folder.path().join("b"))),
        "{board}"
    );
}

#[test]
fn a_finished_model_is_exported_under_timm_names() {
    let folder = tempfile::tempdir().expect("folder");
    succeeded(&small_run(&folder.path().join("run"), &["--method", "lora"]));
    let out = folder.path().join("model.safetensors");
    succeeded(&cilbench(&["export", path(&folder.path().join("run")), "--out", path(&out)]));
    let bytes = std::fs::read(&out).expect("read");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    assert_eq!(tensors.tensor("head.weight").expect("head").shape(), [10, 128]);
    assert_eq!(tensors.tensor("blocks.5.attn.qkv.weight").expect("qkv").shape(), [384, 128]);
    // It is a weights file again.
    let again = small_run(&folder.path().join("again"), &["--weights", path(&out)]);
    succeeded(&again);
}

#[test]
fn a_dry_run_writes_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    let out = folder.path().join("run");
    let said = succeeded(&small_run(&out, &["--dry-run"]));
    for part in
        ["30 steps", "trained parameters", "memory", "disk", "data id", "nothing was written"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!out.exists() && said.contains(&format!("{}: new", out.display())), "{said}");
    // It finds what the run would find.
    let file = tempfile::NamedTempFile::new().expect("file");
    refused(&small_run(file.path(), &["--dry-run"]), 2, "is a file; choose another");
    let other = folder.path().join("other");
    std::fs::create_dir(&other)
        .and_then(|()| std::fs::write(other.join("notes"), "mine"))
        .expect("written");
    refused(&small_run(&other, &["--dry-run"]), 2, "not empty and holds no cilbench run");
    succeeded(&small_run(&out, &[]));
    assert!(succeeded(&small_run(&out, &["--dry-run"])).contains("finished already"));
    refused(
        &small_run(&out, &["--dry-run", "--method", "lora"]),
        2,
        "this folder holds another run",
    );
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    refused(&small_run(Path::new("/proc/cilbench"), &[]), 1, "/proc/cilbench");
    let file = tempfile::NamedTempFile::new().expect("file");
    refused(&small_run(file.path(), &[]), 2, "is a file; choose another folder with --out DIR");
    refused(
        &small_run(&file.path().join("below"), &[]),
        2,
        "is a file; choose another folder with --out DIR",
    );
    refused(
        &cilbench(&["leaderboard", "--export", "/proc"]),
        2,
        "--export /proc: this is a folder",
    );
    refused(&cilbench(&["eval", path(file.path())]), 2, "no run folder");
    refused(&cilbench(&["run", "--weights", "/proc"]), 2, "--weights /proc: this is a folder");
    refused(
        &cilbench(&["leaderboard", "--export", "/nowhere/at/all.csv"]),
        2,
        "there is no folder /nowhere/at to write into",
    );
    refused(&cilbench(&["run", "--method", "of-a-plugin"]), 2, "one of a plugin needs --plugin");
    refused(&cilbench(&["eval", "/nowhere/at/all"]), 2, "no run folder");
    refused(&cilbench(&["run", "--resume", "/nowhere/at/all"]), 2, "no run folder");
    refused(
        &cilbench(&["leaderboard", "/nowhere/at/all"]),
        2,
        "leaderboard /nowhere/at/all: there is no such file or folder",
    );
    refused(&cilbench(&["run", "--keep", "0"]), 2, "--keep 0");
}
