//! Finds run folders and reads what they say.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::{Record, RunFolder};
use crate::{Error, Result};

/// A run folder that was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// Where it is.
    pub path: PathBuf,
    /// What it says.
    pub record: Record,
    /// What was changed in it since it was written.
    pub altered: Vec<String>,
}

/// All run folders at or below `path`, in the order of their paths, and what is wrong with those
/// that cannot be read.
///
/// # Errors
/// [`Error::Io`] if `path` itself cannot be listed.
pub fn find_runs(path: &Path) -> Result<(Vec<Found>, Vec<Error>)> {
    std::fs::read_dir(path).map_err(Error::io(path))?;
    let mut folders = Vec::new();
    visit(path, &mut folders);
    // Most of the time goes into the hashes of prediction files, which are independent.
    let read: Vec<Result<Option<Found>>> = folders.par_iter().map(|folder| look(folder)).collect();
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for one in read {
        match one {
            Ok(run) => found.extend(run),
            Err(error) => errors.push(error),
        }
    }
    Ok((found, errors))
}

/// Collects the folders at or below `path` that hold a record. Run folders do not hold others.
fn visit(path: &Path, folders: &mut Vec<PathBuf>) {
    if path.join("run.json").exists() {
        return folders.push(path.to_path_buf());
    }
    let Ok(entries) = std::fs::read_dir(path) else { return };
    // Symbolic links are not followed, so that a loop of them ends nowhere.
    let is_folder = |e: &std::fs::DirEntry| e.file_type().is_ok_and(|t| t.is_dir());
    let mut inner: Vec<PathBuf> = entries.flatten().filter(is_folder).map(|e| e.path()).collect();
    inner.sort();
    inner.iter().for_each(|folder| visit(folder, folders));
}

fn look(folder: &Path) -> Result<Option<Found>> {
    let Some(record) = RunFolder::read(folder)? else { return Ok(None) };
    let altered = RunFolder::alterations(folder, &record);
    Ok(Some(Found { path: folder.to_path_buf(), record, altered }))
}
