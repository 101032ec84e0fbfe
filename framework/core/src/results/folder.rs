//! A run's folder: `run.json`, `metrics.jsonl`, `predictions/task-<t>.csv`. What is whole is renamed into place; nothing half-written is taken for whole.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::record::{FORMAT, Identity, Record, Status};
use crate::metrics::Prediction;
use crate::{Error, Result};

/// The folder of one run.
pub struct RunFolder {
    path: PathBuf,
    log: Option<File>,
}

impl RunFolder {
    /// Opens (and makes, if need be) the folder for a run of this identity. Gives the finished record if the folder holds that very run.
    ///
    /// # Errors
    /// [`Error::Usage`] if the folder holds a run of another configuration, or is not a run folder and not empty; [`Error::Io`] if it cannot be written.
    pub fn open(path: &Path, identity: &Identity) -> Result<(Self, Option<Record>)> {
        std::fs::create_dir_all(path.join("predictions")).map_err(Error::io(path))?;
        let folder = Self { path: path.to_path_buf(), log: None };
        let Some(record) = Self::read(path)? else {
            let others = std::fs::read_dir(path).map_err(Error::io(path))?.flatten().any(|e| e.file_name() != "predictions");
            if others {
                return Err(Error::usage(format!(
                    "{}: this folder is not empty and holds no cilbench run; choose another with --out DIR",
                    path.display()
                )));
            }
            return Ok((folder, None));
        };
        if record.identity != *identity {
            let what = difference(&record.identity, identity);
            return Err(Error::usage(format!(
                "{}: this folder holds another run ({what}); choose another with --out DIR, or remove it",
                path.display()
            )));
        }
        let finished = (record.status == Status::Finished).then_some(record);
        Ok((folder, finished))
    }

    /// The record in a folder, if there is one.
    ///
    /// # Errors
    /// [`Error::File`] if `run.json` is damaged or of a newer version.
    pub fn read(path: &Path) -> Result<Option<Record>> {
        let file = path.join("run.json");
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(&file)(e)),
        };
        let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| Error::file(&file, format!("not a run record: {e}")))?;
        let format = value["format"].as_u64().unwrap_or_default();
        if format > u64::from(FORMAT) {
            return Err(Error::file(
                &file,
                format!("written by a newer cilbench (format {format}, this one reads up to {FORMAT}); update cilbench"),
            ));
        }
        serde_json::from_value(value).map(Some).map_err(|e| Error::file(&file, format!("not a run record: {e}")))
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Begins anew: removes what an unfinished run left.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn clear(&mut self) -> Result<()> {
        let predictions = self.path.join("predictions");
        std::fs::remove_dir_all(&predictions).map_err(Error::io(&predictions))?;
        std::fs::create_dir_all(&predictions).map_err(Error::io(&predictions))?;
        let log = self.path.join("metrics.jsonl");
        self.log = Some(File::create(&log).map_err(Error::io(&log))?);
        Ok(())
    }

    /// Writes `run.json`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, record: &Record) -> Result<()> {
        let text = serde_json::to_string_pretty(record).map_err(|e| Error::Protocol(format!("run.json cannot be written: {e}")))?;
        self.replace("run.json", text.as_bytes())
    }

    /// Adds a line to `metrics.jsonl`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn log(&mut self, line: &serde_json::Value) -> Result<()> {
        if let Some(log) = &mut self.log {
            writeln!(log, "{line}").map_err(Error::io(self.path.join("metrics.jsonl")))?;
        }
        Ok(())
    }

    /// Writes the predictions of the evaluation after a task.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn predictions(&self, task: usize, predictions: &[Prediction]) -> Result<()> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let name = format!("predictions/task-{task}.csv");
        let failed = |e: &dyn std::fmt::Display| Error::Protocol(format!("{name} cannot be written: {e}"));
        predictions.iter().try_for_each(|p| writer.serialize(p)).map_err(|e| failed(&e))?;
        let bytes = writer.into_inner().map_err(|e| failed(&e))?;
        self.replace(&name, &bytes)
    }

    /// Writes a file under a temporary name, syncs it, and renames it into place.
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let (target, temporary) = (self.path.join(name), self.path.join(format!("{name}.tmp")));
        let mut file = File::create(&temporary).map_err(Error::io(&temporary))?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(Error::io(&temporary))?;
        std::fs::rename(&temporary, &target).map_err(Error::io(&target))
    }
}

/// The first thing in which two identities differ, for a message.
fn difference(old: &Identity, new: &Identity) -> String {
    let json = |i: &Identity| serde_json::to_value(i).unwrap_or_default();
    first_difference("", &json(old), &json(new)).unwrap_or_else(|| "its identity differs".to_owned())
}

fn first_difference(path: &str, old: &serde_json::Value, new: &serde_json::Value) -> Option<String> {
    if let (Some(a), Some(b)) = (old.as_object(), new.as_object()) {
        let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        let null = serde_json::Value::Null;
        return keys.into_iter().find_map(|key| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            first_difference(&path, a.get(key).unwrap_or(&null), b.get(key).unwrap_or(&null))
        });
    }
    (old != new).then(|| format!("{path} is {old} there, {new} here"))
}
