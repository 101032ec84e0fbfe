//! The folder for what can be made again: unpacked data sets.

use std::path::PathBuf;

use crate::{Error, Result};

/// `$CILBENCH_CACHE`, else `$XDG_CACHE_HOME/cilbench`, else `~/.cache/cilbench`.
///
/// # Errors
/// If none of them is known.
pub fn folder() -> Result<PathBuf> {
    let of = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    of("CILBENCH_CACHE")
        .or_else(|| of("XDG_CACHE_HOME").map(|p| p.join("cilbench")))
        .or_else(|| of("HOME").map(|p| p.join(".cache/cilbench")))
        .ok_or_else(|| {
            Error::usage("there is no place for a cache: set CILBENCH_CACHE to a folder")
        })
}
