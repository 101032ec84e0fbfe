//! `cilbench run --weights` with differently named files of one network, written by
//! `framework/core/tests/backbones/names.py`.

use std::path::Path;
use std::process::{Command, Output};

fn run(file: &Path, out: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cilbench"));
    command.args(["run", "--method", "simplecil", "--heads", "2", "--image-size", "16"]);
    command.args(["--train-per-class", "3", "--test-per-class", "3"]);
    command.arg("--weights").arg(file).arg("--out").arg(out).args(more).output().expect("run")
}

#[test]
fn every_file_of_one_network_gives_one_weight_id_and_one_matrix() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/tests/backbones/names");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("folder")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| !path.to_string_lossy().contains("-of-0000"))
        .collect();
    files.sort();
    assert!(files.len() >= 15, "{}", files.len());
    let place = tempfile::tempdir().expect("folder");
    let mut results = Vec::new();
    for (i, file) in files.iter().enumerate() {
        let out = place.path().join(i.to_string());
        let key: &[&str] =
            if file.ends_with("dino-teacher.pth") { &["--weights-key", "teacher"] } else { &[] };
        let output = run(file, &out, key);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {errors}", file.display());
        assert!(errors.contains("assumed of the backbone: "), "{}: {errors}", file.display());
        let text = std::fs::read_to_string(out.join("run.json")).expect("run.json");
        let record: serde_json::Value = serde_json::from_str(&text).expect("json");
        let backbone = &record["identity"]["backbone"];
        assert!(backbone["assumed"].as_array().is_some_and(|a| !a.is_empty()), "{backbone}");
        results.push((backbone["weight_id"].clone(), record["accuracy_matrix"].clone()));
    }
    assert!(results[0].0.as_str().is_some_and(|id| id.len() == 64));
    assert!(results.iter().all(|r| *r == results[0]), "{results:?}");
}
