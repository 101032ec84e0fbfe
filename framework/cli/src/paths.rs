//! Checks of paths that a user named.

use std::path::Path;

use cilbench::{Error, Result};

/// Refuses a path of the command line that does not exist. `flag` is the option that named it.
pub(crate) fn require_exists(flag: &str, path: &Path) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let from = if path.is_absolute() { "" } else { " from this folder on" };
    Err(Error::usage(format!(
        "{flag} {}: there is no such file or folder{from}; check the path",
        path.display()
    )))
}
