//! The workspace's manifests. Every crate that can have the feature `cuda` passes it on, and none
//! has it by default. Building with it takes a toolkit and a quarter of an hour, so no other test
//! would notice a mistake. A second test checks what `cargo run` means.

use std::collections::BTreeMap;
use std::path::Path;

use toml::{Table, Value};

fn manifest(folder: &Path) -> Table {
    let path = folder.join("Cargo.toml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn names(table: Option<&Value>) -> Vec<String> {
    table.and_then(Value::as_table).into_iter().flat_map(Table::keys).cloned().collect()
}

/// The members of the workspace: name and manifest.
fn members() -> BTreeMap<String, Table> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let workspace = manifest(&root);
    let members = workspace["workspace"]["members"].as_array().expect("a list of members");
    let named = |member: &Value| {
        let manifest = manifest(&root.join(member.as_str().expect("a folder")));
        (manifest["package"]["name"].as_str().expect("a name").to_owned(), manifest)
    };
    members.iter().map(named).collect()
}

#[test]
fn every_crate_on_top_of_candle_or_cilbench_passes_cuda_on() {
    let members = members();
    assert!(members.len() >= 5, "{:?}", members.keys());
    for (name, manifest) in &members {
        let mut wanted: Vec<String> = names(manifest.get("dependencies"));
        wanted.retain(|d| {
            d == "candle-core"
                || d == "candle-nn"
                || members.get(d).is_some_and(|m| names(m.get("features")).contains(&"cuda".into()))
        });
        let features =
            manifest.get("features").and_then(Value::as_table).cloned().unwrap_or_default();
        let list = |feature: &str| -> Vec<String> {
            features
                .get(feature)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(|v| Some(v.as_str()?.to_owned()))
                .collect()
        };
        let mut given = list("cuda");
        let mut expected: Vec<String> = wanted.iter().map(|d| format!("{d}/cuda")).collect();
        given.sort();
        expected.sort();
        assert_eq!(given, expected, "{name}: the feature cuda in its Cargo.toml");
        assert!(list("default").is_empty(), "{name}: a default feature; cuda must be asked for");
    }
}

/// The README's first command is `cargo run --release -- run`. The workspace has plugins' programs
/// too.
#[test]
fn cargo_run_means_cilbench() {
    let runs = |(name, manifest): (String, Table)| {
        manifest["package"].get("default-run").map(|program| (name, program.clone()))
    };
    let found: Vec<_> = members().into_iter().filter_map(runs).collect();
    assert_eq!(found, [("cilbench-cli".to_owned(), Value::from("cilbench"))]);
}
