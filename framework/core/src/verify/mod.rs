//! Parity: replays recorded trajectories of other implementations, above all the authors' own code,
//! through the public traits and compares every recorded quantity.
//!
//! A fixture is a safetensors file with the frozen backbone, the images, the initial weights, the
//! features the classifier alignment drew, and what the authors' code, or an independent
//! implementation, computed from them, in float64. The replay is nothing special: the same drive as
//! a run, with a [`Host`](crate::context::Host) that answers draws with the file's values and keeps
//! the probes.

mod compare;
mod fixture;
mod memory;
mod replay;

pub use compare::Check;
pub use replay::replay;

use crate::Result;

/// A fixture built into the binary, for `cilbench verify`.
pub struct FixtureEntry {
    /// The file's name.
    pub file: &'static str,
    /// Its bytes.
    pub bytes: &'static [u8],
}

inventory::collect!(FixtureEntry);

/// What came of a fixture.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It was replayed, and these quantities were compared.
    Compared(Vec<Check>),
    /// It was not, for this reason; that is not a pass.
    Skipped(String),
}

impl Outcome {
    /// Whether everything was compared and lies within its tolerance.
    pub fn passed(&self) -> bool {
        matches!(self, Self::Compared(checks) if !checks.is_empty() && checks.iter().all(Check::passed))
    }
}

/// The fixtures of a folder, by file name: every `.safetensors` file in it.
///
/// # Errors
/// If the folder cannot be read or holds no such file.
pub fn folder(path: &std::path::Path) -> Result<Vec<std::path::PathBuf>> {
    let entries = std::fs::read_dir(path).map_err(crate::Error::io(path))?;
    let mut files: Vec<_> = entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "safetensors"))
        .collect();
    files.sort();
    if files.is_empty() {
        return Err(crate::Error::usage(format!(
            "{}: there is no .safetensors file in this folder",
            path.display()
        )));
    }
    Ok(files)
}
