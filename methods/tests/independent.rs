//! The replay of an independent implementation's runs (`methods/fixtures/independent`, PyTorch in
//! double precision): every recorded quantity of every method.

use std::path::{Path, PathBuf};

use candle_core::DType;
use cilbench::context::Placement;
use cilbench::verify::{Outcome, folder, replay};
use cilbench_methods as _;

/// One file or more of each method that is proven so.
const METHODS: [&str; 14] = [
    "aper-adapter",
    "der++",
    "er",
    "finetune",
    "icarl",
    "joint",
    "l2p",
    "linear-probe",
    "lwf",
    "pm",
    "ranpac_dual",
    "ranpac_primal",
    "simplecil",
    "slda",
];

fn files() -> Vec<PathBuf> {
    folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/independent"))
        .expect("the folder of fixtures")
}

fn check(dtype: DType) {
    let files = files();
    assert_eq!(
        files.iter().map(|f| f.file_stem().expect("name").to_string_lossy()).collect::<Vec<_>>(),
        METHODS
    );
    for file in files {
        let outcome = replay(&file, &std::fs::read(&file).expect("read"), &Placement::cpu(dtype))
            .expect("replay");
        assert!(outcome.passed(), "{}: {outcome:#?}", file.display());
    }
}

#[test]
fn f64_agrees_with_the_independent_implementation() {
    check(DType::F64);
}

#[test]
fn f32_agrees_with_the_independent_implementation() {
    check(DType::F32);
}

#[test]
fn another_perturbation_does_not_pass() {
    let file = files().into_iter().find(|f| f.ends_with("pm.safetensors")).expect("pm");
    let bytes = std::fs::read(&file).expect("read");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let header = String::from_utf8(bytes[8..8 + length].to_vec()).expect("text");
    assert!(header.contains("\"method\":\"pm\""), "the method in the metadata");
    let header = header.replacen("\"method\":\"pm\"", "\"method\":\"pm perturbation=0.25\"", 1);
    let changed =
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes[8 + length..]]
            .concat();
    let outcome = replay(&file, &changed, &Placement::cpu(DType::F64)).expect("replay");
    assert!(matches!(outcome, Outcome::Compared(_)) && !outcome.passed());
}
