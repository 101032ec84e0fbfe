//! The replay of the authors' trajectories, in both precisions, and what it must not let pass.

use std::path::Path;

use candle_core::DType;
use cilbench::context::Placement;
use cilbench::verify::{FixtureEntry, Outcome, replay};
use cilbench_methods as _;

fn fixtures() -> Vec<&'static FixtureEntry> {
    let all: Vec<_> = cilbench::inventory::iter::<FixtureEntry>.into_iter().collect();
    assert_eq!(all.len(), 6, "the built-in fixtures");
    all
}

fn fixture(name: &str) -> &'static FixtureEntry {
    fixtures().into_iter().find(|f| f.file.starts_with(name)).expect(name)
}

fn check(dtype: DType) {
    for fixture in fixtures() {
        let outcome =
            replay(Path::new(fixture.file), fixture.bytes, &Placement::cpu(dtype)).expect("replay");
        assert!(outcome.passed(), "{}: {outcome:#?}", fixture.file);
    }
}

#[test]
fn f32_agrees_with_the_authors() {
    check(DType::F32);
}

#[test]
fn f64_agrees_with_the_authors() {
    check(DType::F64);
}

#[test]
fn the_operations_of_a_gpu_agree_with_the_authors() {
    cilbench::nn::as_on_a_device(|| check(DType::F64));
}

#[test]
fn a_changed_number_does_not_pass() {
    let fixture = fixture("sr2-lora_adam");
    let text = "\"lr\\\": 0.01";
    let at = fixture
        .bytes
        .windows(text.len())
        .position(|w| w == text.as_bytes())
        .expect("the learning rate in the metadata");
    let mut bytes = fixture.bytes.to_vec();
    bytes[at + text.len() - 1] = b'2';
    let outcome =
        replay(Path::new("changed"), &bytes, &Placement::cpu(DType::F32)).expect("replay");
    assert!(matches!(outcome, Outcome::Compared(_)) && !outcome.passed());
}

#[test]
fn a_method_that_is_not_there_is_skipped_and_not_passed() {
    let fixture = fixture("lora-ca");
    let at =
        fixture.bytes.windows(7).position(|w| w == b"lora-ca").expect("the method in the metadata");
    let mut bytes = fixture.bytes.to_vec();
    bytes[at..at + 7].copy_from_slice(b"unheard");
    let outcome =
        replay(Path::new("unheard"), &bytes, &Placement::cpu(DType::F32)).expect("replay");
    assert!(matches!(outcome, Outcome::Skipped(_)) && !outcome.passed());
}

#[test]
fn a_truncated_file_is_an_error() {
    let fixture = fixture("sr2-lora_adam");
    let error = replay(
        Path::new("cut.safetensors"),
        &fixture.bytes[..100_000],
        &Placement::cpu(DType::F32),
    )
    .expect_err("must fail");
    assert!(error.to_string().contains("cut.safetensors"), "{error}");
}
