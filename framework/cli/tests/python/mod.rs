//! The Python package's scripts, as commands. They need Python alone, unless said otherwise.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The folder of the Python package.
pub fn package() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../plugins/python")
}

/// The interpreter, `python3`. A test that needs it fails with one sentence where it is missing.
pub fn interpreter() -> &'static str {
    let version = "import sys; sys.exit(sys.version_info < (3, 9))";
    let outcome = Command::new("python3").args(["-c", version]).stderr(Stdio::null()).status();
    assert!(
        outcome.is_ok_and(|status| status.success()),
        "this test starts methods in Python: install python3, version 3.9 or newer"
    );
    "python3"
}

/// The command that runs a script of the package, as in `tests/idle.py`. It needs `PYTHONPATH`.
pub fn command(script: &str, arguments: &str) -> String {
    format!("{} '{}' {arguments}", interpreter(), package().join(script).display())
}
