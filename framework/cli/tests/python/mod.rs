//! The Python package's scripts, as commands.

use std::path::PathBuf;

/// The folder of the Python package.
pub fn package() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../plugins/python")
}

/// The command that runs a script of the package, `examples/nearest_mean.py`; the package is found by `PYTHONPATH`.
pub fn command(script: &str, arguments: &str) -> String {
    format!("python3 '{}' {arguments}", package().join(script).display())
}
