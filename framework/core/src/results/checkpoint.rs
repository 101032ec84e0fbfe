//! Checkpoints: everything a run needs to go on as if it had never stopped. Written whole or not at
//! all, hashed, old ones pruned.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::folder::replace;
use crate::context::MemoryImage;
use crate::state::State;
use crate::{Error, Result};

/// First bytes of a checkpoint file; the digit is the version of the format.
const MAGIC: &[u8] = b"cilbench checkpoint 1\n";
const HASH: usize = 32;

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// SHA-256 of the run's identity.
    pub identity: String,
    /// The number of finished tasks.
    pub finished: usize,
    /// The task in training, if the checkpoint was taken within one.
    pub running: Option<Running>,
    /// What the method carries.
    pub state: State,
    /// The memory of exemplars.
    pub memory: MemoryImage,
    /// The record so far, as JSON.
    pub record: String,
    /// Bytes of `metrics.jsonl` that belong to it.
    pub log_bytes: u64,
    /// Images trained on so far.
    pub images: usize,
    /// Seconds of training so far.
    pub seconds: f64,
}

/// Where a task in training stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Running {
    /// The epoch, from 0.
    pub epoch: usize,
    /// Batches of that epoch that are done.
    pub batches: usize,
    /// Steps of the task that are done.
    pub steps: usize,
    /// How often each name was drawn in this task.
    pub draws: BTreeMap<String, u64>,
    /// The spectra of the model before the task, for relation drift.
    pub spectra: Option<Vec<f64>>,
    /// Hashes of the trained tensors when the task began.
    pub at_start: BTreeMap<String, String>,
    /// SHA-256 of the state before the task.
    pub state_before: String,
    /// Seconds of this task's training so far.
    pub train_seconds: f64,
    /// Seconds of `begin_task`.
    pub task_seconds: f64,
}

impl Checkpoint {
    fn name(&self) -> String {
        let steps = self.running.as_ref().map_or(0, |r| r.steps);
        format!("task-{:04}-step-{steps:08}.ckpt", self.finished)
    }

    /// Writes the checkpoint into `folder`, and removes all but the newest `keep` (at least one).
    ///
    /// # Errors
    /// [`Error::Io`]; the checkpoints before stay as they are.
    pub fn write(&self, folder: &Path, keep: usize) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let body = postcard::to_stdvec(self)
            .map_err(|e| Error::Protocol(format!("the checkpoint cannot be written: {e}")))?;
        let hash = Sha256::digest(&body);
        replace(&folder.join(self.name()), &[MAGIC, hash.as_slice(), &body].concat())?;
        let all = list(folder)?;
        for old in all.iter().rev().skip(keep.max(1)) {
            std::fs::remove_file(old).map_err(Error::io(old))?;
        }
        Ok(())
    }

    /// Reads one checkpoint file.
    ///
    /// # Errors
    /// [`Error::File`] if it is damaged, truncated, or of another version.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let body = bytes.strip_prefix(MAGIC).filter(|b| b.len() > HASH);
        let body = body.ok_or_else(|| {
            Error::file(path, "not a checkpoint of this version of cilbench, or truncated")
        })?;
        let (hash, body) = body.split_at(HASH);
        if Sha256::digest(body).as_slice() != hash {
            return Err(Error::file(path, "the checkpoint is damaged: its hash does not fit"));
        }
        postcard::from_bytes(body)
            .map_err(|e| Error::file(path, format!("the checkpoint cannot be read: {e}")))
    }

    /// The newest checkpoint in `folder` that is whole, with what is wrong with newer ones.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be listed.
    pub fn newest(folder: &Path) -> Result<(Option<Self>, Vec<String>)> {
        let mut damaged = Vec::new();
        for path in list(folder)?.iter().rev() {
            match Self::read(path) {
                Ok(checkpoint) => return Ok((Some(checkpoint), damaged)),
                Err(error) => damaged.push(format!("{error}; the one before is used")),
            }
        }
        Ok((None, damaged))
    }

    /// The whole checkpoint taken when `finished` tasks were done, if it was kept.
    ///
    /// # Errors
    /// [`Error::File`] if it is damaged.
    pub fn after(folder: &Path, finished: usize) -> Result<Option<Self>> {
        let path = folder.join(format!("task-{finished:04}-step-{:08}.ckpt", 0));
        if path.is_file() { Self::read(&path).map(Some) } else { Ok(None) }
    }
}

/// The checkpoint files of a folder, oldest first.
fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io(folder)(e)),
    };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "ckpt"))
        .collect();
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(finished: usize, steps: usize) -> Checkpoint {
        Checkpoint {
            identity: "abc".into(),
            finished,
            running: Some(Running { steps, ..Running::default() }),
            state: State::new(),
            memory: MemoryImage::default(),
            record: "{}".into(),
            log_bytes: 3,
            images: 4,
            seconds: 5.0,
        }
    }

    #[test]
    fn old_ones_are_pruned_and_a_damaged_one_is_passed_over_loudly() {
        let folder = tempfile::tempdir().expect("folder");
        for steps in [1, 20, 300] {
            checkpoint(2, steps).write(folder.path(), 2).expect("write");
        }
        let files = list(folder.path()).expect("list");
        assert_eq!(files.len(), 2);
        let (newest, damaged) = Checkpoint::newest(folder.path()).expect("newest");
        assert_eq!((newest, damaged.len()), (Some(checkpoint(2, 300)), 0));
        let whole = std::fs::read(&files[1]).expect("read");
        for cut in [0, 10, MAGIC.len() + HASH, whole.len() - 1] {
            std::fs::write(&files[1], &whole[..cut]).expect("cut");
            let (newest, damaged) = Checkpoint::newest(folder.path()).expect("newest");
            assert_eq!(newest, Some(checkpoint(2, 20)));
            assert!(damaged[0].contains("step-00000300.ckpt"), "{damaged:?}");
        }
    }
}
