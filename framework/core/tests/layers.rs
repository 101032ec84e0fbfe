//! Who may import whom: the modules of this crate point down, and no module names one above it.

use std::path::{Path, PathBuf};

/// The modules from the ground up. A module may use those before it, and nothing else.
const FLOORS: &[&[&str]] = &[
    &["error", "metrics", "cache", "pickle"],
    &["registry"],
    &["array", "rng", "config", "device"],
    &["state", "data", "nn", "hub"],
    &["scenario", "backbone"],
    &["context"],
    &["method", "optim"],
    &["parts", "plugin", "results"],
    &["run"],
    &["verify", "parity", "conformance"],
];

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|modules| modules.contains(&module))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
        if path.is_dir() {
            sources(&path, found);
        } else if name.ends_with(".rs")
            && !name.ends_with("_test.rs")
            && name != "test.rs"
            && name != "tests.rs"
        {
            found.push(path);
        }
    }
}

/// The modules that a source names as `crate::<module>`, without comments and tests.
fn named(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code = lines.collect::<Vec<_>>().join("\n");
    let ends =
        |rest: &str| rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    code.split("crate::").skip(1).map(|rest| rest[..ends(rest)].to_owned()).collect()
}

#[test]
fn modules_import_only_from_floors_below() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 100, "the sources were found");
    let mut wrong = Vec::new();
    for file in files {
        let inside = file.strip_prefix(&root).expect("below the root");
        let module = inside
            .iter()
            .next()
            .and_then(|n| n.to_str())
            .unwrap_or_default()
            .trim_end_matches(".rs");
        if module == "lib" {
            continue;
        }
        let own = floor(module)
            .unwrap_or_else(|| panic!("module '{module}' stands on no floor: add it to FLOORS"));
        for other in named(&std::fs::read_to_string(&file).expect("a source")) {
            let below = floor(&other).is_none_or(|floor| floor < own);
            if other != module && !below {
                wrong.push(format!(
                    "{} uses crate::{other}, which is not below '{module}'",
                    inside.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_module_names_a_method() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let names = ["inflora", "sr2-lora", "gpm", "icarl", "aper", "ranpac", "l2p", "der++"];
    for file in files {
        let source = std::fs::read_to_string(&file).expect("a source");
        let code = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let name = names.iter().find(|name| line.contains(&format!("\"{name}")));
            assert!(name.is_none(), "{}: core names a method: {line}", file.display());
        }
    }
}
