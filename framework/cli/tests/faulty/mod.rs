//! Plugins in C: the correct one of `plugins/c`, and ones with a fault.

use std::path::{Path, PathBuf};
use std::process::Command;

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faulty")
}

/// Compiles a C file to a library.
pub(crate) fn compile(source: &Path, out: &Path, arguments: &[&str]) {
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/c");
    let mut cc = Command::new("cc");
    cc.args([
        "-std=gnu99",
        "-O2",
        "-Wall",
        "-Werror",
        "-shared",
        "-fPIC",
        "-include",
        "stdio.h",
        "-I",
    ])
    .arg(include);
    let done = cc
        .args(arguments)
        .arg("-o")
        .arg(out)
        .arg(source)
        .output()
        .expect("this test compiles C: install a C compiler, cc");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// The plugin of `plugins/c`.
pub(crate) fn sound(folder: &Path) -> PathBuf {
    let out = folder.join("libnearest_mean_c.so");
    compile(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/c/nearest_mean.c"),
        &out,
        &["-Wextra"],
    );
    out
}

/// The same with a fault, a statement in C.
pub(crate) fn with(folder: &Path, fault: &str) -> PathBuf {
    let name: String =
        fault.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let out = folder.join(format!("lib{name}.so"));
    compile(&tests().join("faulty.c"), &out, &[&format!("-DFAULT={fault}")]);
    out
}
