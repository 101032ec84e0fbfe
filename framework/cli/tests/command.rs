//! The program: what it prints, what it writes, and its exit codes.

use std::path::Path;
use std::process::{Command, Output};

fn cilbench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cilbench")).args(args).output().expect("the command starts")
}

/// A run small enough for a test: 5 tasks, 6 images a class.
fn small_run(out: &Path, more: &[&str]) -> Output {
    let out = out.to_str().expect("a path");
    let mut args = vec![
        "run",
        "--out",
        out,
        "--train-per-class",
        "6",
        "--test-per-class",
        "5",
        "--epochs",
        "2",
        "--batch-size",
        "4",
    ];
    args.extend(more);
    cilbench(&args)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn record(out: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(out.join("run.json")).expect("run.json")).expect("JSON")
}

/// Fails with this exit code and one message that holds `expected`, without a panic.
fn refused(output: &Output, code: i32, expected: &str) {
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert!(message.contains(expected), "'{expected}' is not in: {message}");
    assert!(!message.contains("panicked"), "{message}");
}

#[test]
fn a_run_writes_its_folder_and_the_same_command_prints_its_result() {
    let folder = tempfile::tempdir().expect("folder");
    // What a run leaves that was killed before it wrote its record.
    std::fs::write(folder.path().join("command.json"), "{\"meth").expect("file");
    let first = small_run(folder.path(), &[]);
    assert!(first.status.success(), "{}", text(&first.stderr));
    let run = record(folder.path());
    assert_eq!(run["status"], "finished");
    assert_eq!(run["accuracy_matrix"].as_array().expect("matrix").len(), 5);
    assert_eq!(run["counts"], serde_json::json!([10, 10, 10, 10, 10]));
    assert!(run["relation_drift"].as_f64().expect("drift") > 0.0);
    for key in [
        "data_id",
        "last",
        "avg",
        "forgetting",
        "bwt",
        "images_per_second",
        "peak_memory",
        "trained_parameters",
        "stored_parameters",
    ] {
        assert!(!run[key].is_null(), "{key}");
    }
    // 12 images a task, 2 epochs of 3 steps, 5 tasks.
    assert_eq!(
        std::fs::read_to_string(folder.path().join("metrics.jsonl"))
            .expect("metrics")
            .lines()
            .count(),
        30
    );
    let predictions =
        std::fs::read_to_string(folder.path().join("predictions/task-4.csv")).expect("predictions");
    assert_eq!(predictions.lines().count(), 51);

    let again = small_run(folder.path(), &[]);
    assert!(again.status.success() && text(&again.stderr).contains("finished already"));
    assert_eq!(record(folder.path()), run, "nothing was written");
    refused(&small_run(folder.path(), &["--seed", "1"]), 2, "seed is 0 there, 1 here");
}

#[test]
fn same_seed_same_bits_at_any_number_of_threads() {
    for (method, setting) in [
        ("sr2-lora", "rank=4"),
        ("lora-ca", "rank=4"),
        ("lora", "rank=4"),
        ("icarl", "trainable=all"),
        ("ranpac", "projection=300"),
    ] {
        let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().expect("folder")).collect();
        let hashes: Vec<String> = folders
            .iter()
            .zip([["1", "0"], ["2", "0"], ["2", "1"]])
            .map(|(folder, [threads, seed])| {
                let output = small_run(
                    folder.path(),
                    &["--method", method, "--set", setting, "--threads", threads, "--seed", seed],
                );
                assert!(output.status.success(), "{}", text(&output.stderr));
                let run = record(folder.path());
                format!("{} {}", run["accuracy_matrix"], run["tasks"][4]["state_hash"])
            })
            .collect();
        assert_eq!(hashes[0], hashes[1], "{method}: threads");
        assert_ne!(hashes[1], hashes[2], "{method}: seed");
    }
}

const METHODS: &[&str] = &[
    "aper-adapter",
    "der++",
    "er",
    "finetune",
    "icarl",
    "inflora",
    "joint",
    "l2p",
    "linear-probe",
    "lora",
    "lora-ca",
    "lwf",
    "pm",
    "ranpac",
    "simplecil",
    "slda",
    "sr2-lora",
];

#[test]
fn every_entry_is_linked_in() {
    for (what, names) in [
        ("methods", METHODS),
        (
            "scenarios",
            &["cifar100-5", "cifar100-10", "cifar100-20", "cifar100-50", "split-fashion-mnist-5"],
        ),
        ("backbones", &["vit", "vit-nano"]),
        ("datasets", &["cifar100", "fashion-mnist-small"]),
    ] {
        let out = text(&cilbench(&["list", what]).stdout);
        assert_eq!(
            out.lines()
                .filter(|l| names.contains(&l.split_whitespace().next().unwrap_or_default()))
                .count(),
            names.len(),
            "{out}"
        );
        for name in names {
            assert!(cilbench(&["describe", name]).status.success(), "{name}");
        }
    }
    let out = text(&cilbench(&["describe", "sr2-lora"]).stdout);
    for part in ["arXiv:2605.07420", "relation_weight", "spectral", "learning_rate", "0.0005"] {
        assert!(out.contains(part), "{part}: {out}");
    }
}

#[test]
fn unknown_names_and_bad_values_are_refused() {
    let folder = tempfile::tempdir().expect("folder");
    for (more, expected) in [
        (&["--method", "sr-lora"][..], "did you mean 'sr2-lora'"),
        (&["--scenario", "cifar100_10"], "did you mean 'cifar100-10'"),
        (&["--backbone", "vit-nan"], "did you mean 'vit-nano'"),
        (&["--set", "rnak=3"], "did you mean 'rank'"),
        (&["--set", "alignment=spectrum"], "alignment"),
        (&["--method", "lora", "--set", "relation_weight=1"], "unknown key 'relation_weight'"),
        (&["--set", "rank"], "expected key=value"),
        (&["--set", "rank=129"], "128"),
        (&["--set", "rank=0"], "rank = 0"),
        (&["--set", "epochs=0"], "epochs = 0"),
        (&["--set", "batch_size=0"], "batch_size = 0"),
        (&["--set", "learning_rate=-1"], "learning_rate"),
        (&["--method", "inflora", "--set", "threshold=1.5"], "threshold = 1.5"),
        (&["--method", "inflora", "--set", "threshold=0"], "threshold = 0"),
        (&["--method", "inflora", "--set", "threshold=nan"], "threshold = NaN"),
        (&["--method", "inflora", "--set", "rank=129"], "128"),
        (&["--method", "pm", "--set", "rank=129"], "128"),
        (&["--method", "joint", "--set", "rank=129"], "128"),
        (
            &["--method", "inflora", "--set", "last_blocks=7"],
            "last_blocks = 7: the backbone has 6 blocks",
        ),
        (&["--method", "inflora", "--set", "targets=['fc1']"], "'fc1'"),
        (&["--method", "slda", "--set", "shrinkage=0"], "shrinkage = 0"),
        (
            &["--method", "lwf", "--set", "distillation_weight=-1"],
            "distillation_weight = -1: must be a finite number of at least 0",
        ),
        (
            &["--method", "lwf", "--set", "temperature=0"],
            "temperature = 0: must be a positive number",
        ),
        (&["--method", "er", "--set", "memory_per_class=0"], "state one of them"),
        (
            &["--method", "er", "--set", "memory_total=100"],
            "memory_total = 100: state one budget and set the other to 0",
        ),
        (&["--method", "er", "--set", "memory_per_class=-1"], "memory_per_class = -1"),
        (
            &["--method", "der++", "--set", "memory_total=9", "--set", "memory_per_class=0"],
            "raise it to 10",
        ),
        (
            &["--method", "er", "--set", "memory_total=9", "--set", "memory_per_class=0"],
            "raise it to 10",
        ),
        (&["--method", "er", "--set", "selection=reservoir"], "memory_total"),
        (&["--method", "er", "--set", "selection=best"], "herding, random, reservoir"),
        (&["--method", "er", "--set", "memory_batch_size=0"], "memory_batch_size = 0"),
        (&["--method", "er", "--set", "trainable=heads"], "lora, head, all"),
        (&["--method", "er", "--set", "rank=129"], "128"),
        (&["--method", "er", "--set", "alpha=1"], "unknown key 'alpha': it belongs to der++"),
        (
            &["--method", "sr2-lora", "--set", "threshold=0.9"],
            "unknown key 'threshold': it belongs to inflora",
        ),
        (&["--method", "simplecil", "--set", "rnk=4"], "(there are: none)"),
        (&["--method", "pm", "--set", "alpha=-1"], "it belongs to der++"),
        (&["--method", "der++", "--set", "alpha=-0.1"], "alpha = -0.1"),
        (&["--method", "der++", "--set", "beta=nan"], "beta = NaN"),
        (
            &[
                "--method",
                "icarl",
                "--set",
                "selection=reservoir",
                "--set",
                "memory_total=50",
                "--set",
                "memory_per_class=0",
            ],
            "icarl classifies",
        ),
        (
            &[
                "--method",
                "icarl",
                "--set",
                "memory_total=5",
                "--set",
                "memory_per_class=0",
                "--dry-run",
            ],
            "raise it to 10",
        ),
        (&["--method", "linear-probe", "--set", "rank=4"], "unknown key 'rank'"),
        (&["--method", "finetune", "--set", "classes=old"], "current, seen"),
        (&["--method", "l2p", "--set", "top_k=11"], "top_k = 11: there are only pool_size = 10"),
        (&["--method", "l2p", "--set", "pull=-1"], "pull = -1"),
        (&["--method", "aper-adapter", "--set", "adapter_width=129"], "adapter_width = 129"),
        (&["--method", "pm", "--set", "perturbation=1.5"], "perturbation = 1.5"),
        (&["--method", "pm", "--set", "fisher_images=0"], "fisher_images = 0"),
        (&["--method", "ranpac", "--set", "projection=0"], "projection = 0"),
        (&["--method", "ranpac", "--set", "ridge=-1"], "ridge = -1"),
        (&["--image-size", "33"], "no multiple of the backbone's patch size, 8: use 32 or 40"),
        (&["--train-per-class", "0"], "--train-per-class 0"),
        (&["--class-order", "random"], "seed:1993"),
        (&["--device", "gpu"], "unknown device"),
        (&["--scenario", "cifar100-10", "--offline"], "--data-root"),
        (&["--scenario", "cifar100-10", "--data-root", "/nowhere/at/all"], "/nowhere/at/all"),
        (&["--heads", "3"], "3 attention heads"),
        (&["--mean", "0.5"], "--mean"),
        (&["--config", "/nowhere/my.toml"], "--config /nowhere/my.toml: there is no such file"),
        (
            &["--weights", "nowhere.safetensors"],
            "--weights nowhere.safetensors: there is no such file or folder from this folder on",
        ),
    ] {
        let mut args = vec!["run", "--out", folder.path().to_str().expect("path")];
        args.extend(more);
        let output = cilbench(&args);
        refused(&output, 2, expected);
    }
    assert!(!folder.path().join("run.json").exists(), "a refused run leaves nothing");
    refused(&cilbench(&["describe", "sr2"]), 2, "did you mean 'sr2-lora'");
    refused(
        &cilbench(&["verify", "--fixtures", folder.path().to_str().expect("path")]),
        2,
        "no .safetensors file",
    );
}

#[cfg(not(feature = "cuda"))]
#[test]
fn cuda_without_the_feature_is_an_error_and_not_a_cpu_run() {
    refused(&cilbench(&["run", "--device", "cuda"]), 2, "built without CUDA");
    refused(&cilbench(&["verify", "--device", "cuda:1"]), 2, "built without CUDA");
}

#[test]
fn damaged_weights_are_named() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("weights.safetensors");
    let weights =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benchmarks/weights/vit_nano.safetensors");
    let whole = std::fs::read(weights).expect("weights");
    let run = |bytes: &[u8], code: i32, expected: &str| {
        std::fs::write(&path, bytes).expect("write");
        let out = folder.path().join("run");
        let args = [
            "run",
            "--weights",
            path.to_str().expect("path"),
            "--out",
            out.to_str().expect("path"),
        ];
        refused(&cilbench(&args), code, expected);
    };
    run(b"PK\x03\x04 a pickled checkpoint", 1, "not a whole zip archive");
    run(&whole[..whole.len() - 1000], 1, "not a whole safetensors file");
    let (_, header) = safetensors::SafeTensors::read_metadata(&whole).expect("header");
    let tensors = safetensors::SafeTensors::deserialize(&whole).expect("tensors");
    let mut kept: Vec<_> =
        tensors.iter().filter(|(name, _)| *name != "blocks.2.attn.proj.bias").collect();
    let extra = tensors.tensor("norm.bias").expect("norm.bias");
    kept.push(("unheard.of", extra));
    let changed = safetensors::serialize(kept, header.metadata().clone()).expect("serialise");
    run(&changed, 1, "missing: blocks.2.attn.proj.bias [128]");
    run(&changed, 1, "unknown: unheard.of [128]");
    let nan = f32::NAN.to_le_bytes().repeat(128);
    let damaged = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![128], &nan)
        .expect("tensor");
    let kept = tensors.iter().map(|(name, tensor)| {
        if name == "norm.bias" { (name, damaged.clone()) } else { (name, tensor) }
    });
    let changed = safetensors::serialize(kept, header.metadata().clone()).expect("serialise");
    run(&changed, 1, "tensor 'norm.bias' has a value that is NaN: the file is damaged");
}

#[test]
fn a_diverging_run_stops_and_says_where() {
    let folder = tempfile::tempdir().expect("folder");
    let output = small_run(folder.path(), &["--set", "learning_rate=1e38"]);
    refused(&output, 1, "in task 1, epoch");
    let run = record(folder.path());
    assert_eq!(run["status"], "failed");
    assert!(run["error"].as_str().expect("error").contains("lower the learning rate"));
}

#[test]
fn a_folder_with_something_else_in_it_is_left_alone() {
    let folder = tempfile::tempdir().expect("folder");
    std::fs::write(folder.path().join("thesis.txt"), "precious").expect("write");
    refused(&small_run(folder.path(), &[]), 2, "holds no cilbench run");
    std::fs::write(folder.path().join("run.json"), "{ half a").expect("write");
    refused(&small_run(folder.path(), &[]), 1, "not a run record");
    std::fs::write(folder.path().join("run.json"), "{\"format\": 99}").expect("write");
    refused(&small_run(folder.path(), &[]), 1, "newer cilbench");
    assert_eq!(
        std::fs::read_to_string(folder.path().join("thesis.txt")).expect("read"),
        "precious"
    );
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_a_consistent_folder_and_the_run_can_begin_again() {
    let folder = tempfile::tempdir().expect("folder");
    let out = folder.path().to_str().expect("path");
    let child = Command::new(env!("CARGO_BIN_EXE_cilbench"))
        .args(["run", "--out", out, "--epochs", "500"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the command starts");
    let log = folder.path().join("metrics.jsonl");
    for _ in 0..600 {
        if std::fs::metadata(&log).is_ok_and(|m| m.len() > 0) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    let output = child.wait_with_output().expect("wait");
    refused(&output, 130, "interrupted in task 1");
    assert_eq!(record(folder.path())["status"], "interrupted");
}

#[test]
fn the_ends_of_tasks_are_timed_part_by_part() {
    let folder = tempfile::tempdir().expect("folder");
    let json = folder.path().join("parts.json");
    let path = json.to_str().expect("a path");
    let mut small = vec![
        "bench",
        "task-end",
        "--image-size",
        "32",
        "--classes",
        "3",
        "--images-per-class",
        "5",
        "--images",
        "2",
    ];
    small.extend(["--batch-size", "1", "--json", path]);
    let out = cilbench(&small);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&json).expect("written")).expect("JSON");
    let parts = record["parts"].as_array().expect("parts");
    for part in
        ["class statistics", "classifier alignment", "input covariances (InfLoRA)", "scoring"]
    {
        let found = parts
            .iter()
            .find(|p| p["what"] == part)
            .unwrap_or_else(|| panic!("{part} is not among {parts:?}"));
        assert!(
            found["seconds"].as_f64() > Some(0.0) && found["product_seconds"].as_f64() > Some(0.0),
            "{found}"
        );
        assert!(text(&out.stdout).contains(part));
    }
    refused(&cilbench(&["bench", "task-end", "--classes", "0"]), 2, "--classes 0");
}

#[test]
fn the_products_of_a_step_are_timed_beside_a_large_one() {
    let products =
        cilbench(&["bench", "products", "--image-size", "32", "--classes", "3", "--rank", "2"]);
    let said = text(&products.stdout);
    assert!(
        products.status.success() && said.contains("5 × 64 × 5") && said.contains("160 × 16 × 192"),
        "{said}"
    );
    refused(&cilbench(&["bench", "products", "--image-size", "15"]), 2, "--image-size 15");
}

#[test]
fn completions_know_the_commands_and_options() {
    for (shell, expected) in [
        ("bash", "complete -F _cilbench"),
        ("zsh", "#compdef cilbench"),
        ("fish", "complete -c cilbench"),
        ("elvish", "edit:completion:arg-completer[cilbench]"),
        ("powershell", "-CommandName 'cilbench'"),
    ] {
        let out = cilbench(&["completions", shell]);
        let script = text(&out.stdout);
        assert!(out.status.success() && out.stderr.is_empty(), "{shell}: {}", text(&out.stderr));
        for part in [expected, "reproduce", "train-per-class", "task-end"] {
            assert!(script.contains(part), "{shell}: {part}");
        }
    }
    refused(&cilbench(&["completions", "csh"]), 2, "possible values: bash");
}

#[test]
fn the_manual_has_a_page_for_every_command() {
    let page = text(&cilbench(&["man"]).stdout);
    for part in [".TH cilbench 1", "cilbench\\-reproduce(1)", "\\-\\-offline"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let folder = tempfile::tempdir().expect("folder");
    let pages = folder.path().join("new/man1");
    let out = cilbench(&["man", "--out", pages.to_str().expect("path")]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let read = |name: &str| {
        std::fs::read_to_string(pages.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    };
    assert_eq!(read("cilbench.1"), page);
    assert!(read("cilbench-run.1").contains("\\-\\-train\\-per\\-class"));
    assert!(read("cilbench-bench-task-end.1").contains("\\-\\-images\\-per\\-class"));
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("write");
    refused(
        &cilbench(&["man", "--out", file.to_str().expect("path")]),
        1,
        file.to_str().expect("path"),
    );
}
