//! A run's folder: `run.json`, `metrics.jsonl`, `predictions/task-<t>.csv`, `checkpoints/`. What is
//! whole is renamed into place; nothing half-written is taken for whole.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::lock::Lock;
use super::record::{FORMAT, Identity, Record, Status};
use crate::metrics::Prediction;
use crate::{Error, Result};

/// The folder of one run.
pub struct RunFolder {
    path: PathBuf,
    log: Option<File>,
    _lock: Lock,
}

impl RunFolder {
    /// Opens (and makes, if need be) the folder for a run of this identity. Gives the finished
    /// record if the folder holds that very run.
    ///
    /// # Errors
    /// [`Error::Usage`] if the folder holds a run of another configuration, or is not a run folder
    /// and not empty; [`Error::Io`] if it cannot be written.
    pub fn open(path: &Path, identity: &Identity) -> Result<(Self, Option<Record>)> {
        if let Some(file) = path.ancestors().find(|p| p.is_file()) {
            return Err(Error::usage(format!(
                "{}: {} is a file; choose another folder with --out DIR",
                path.display(),
                file.display()
            )));
        }
        refuse_foreign(path)?;
        std::fs::create_dir_all(path.join("predictions")).map_err(Error::io(path))?;
        let folder = Self { path: path.to_path_buf(), log: None, _lock: Lock::take(path)? };
        let record = Self::record_of(path, identity)?;
        Ok((folder, record.filter(|r| r.status == Status::Finished)))
    }

    /// What [`RunFolder::open`] would find, without making or locking anything: the record,
    /// finished or not, if the folder holds one of this very run.
    ///
    /// # Errors
    /// As [`RunFolder::open`], as far as it shows without writing.
    pub fn look(path: &Path, identity: &Identity) -> Result<Option<Record>> {
        // The folder, or what it would be made in.
        let Some(there) = path.ancestors().find(|p| p.exists() || p.as_os_str().is_empty()) else {
            return Ok(None);
        };
        let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
        let about = std::fs::metadata(there).map_err(Error::io(there))?;
        if !about.is_dir() {
            return Err(Error::usage(format!(
                "{}: {} is a file; choose another folder with --out DIR",
                path.display(),
                there.display()
            )));
        }
        if !may_write(there) {
            return Err(Error::usage(format!(
                "{}: {} cannot be written to; choose another folder with --out DIR",
                path.display(),
                there.display()
            )));
        }
        refuse_foreign(path)?;
        Lock::look(path)?;
        Self::record_of(path, identity)
    }

    /// The record in a folder, which must be of this run.
    fn record_of(path: &Path, identity: &Identity) -> Result<Option<Record>> {
        let record = Self::read(path)?;
        if let Some(record) = record.as_ref().filter(|r| r.identity != *identity) {
            let what = difference(&record.identity, identity);
            return Err(Error::usage(format!(
                "{}: this folder holds another run ({what}); choose another with --out DIR, or remove it",
                path.display()
            )));
        }
        Ok(record)
    }

    /// The record in a folder, if there is one.
    ///
    /// # Errors
    /// [`Error::File`] if `run.json` is damaged or of a newer version.
    pub fn read(path: &Path) -> Result<Option<Record>> {
        let file = path.join("run.json");
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(e)
                if matches!(
                    e.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(e) => return Err(Error::io(&file)(e)),
        };
        let value: serde_json::Value = serde_json::from_str(&text)
            .map_err(|e| Error::file(&file, format!("not a run record: {e}")))?;
        let format = value["format"].as_u64().unwrap_or_default();
        if format > u64::from(FORMAT) {
            return Err(Error::file(
                &file,
                format!(
                    "written by a newer cilbench (format {format}, this one reads up to {FORMAT}); update cilbench"
                ),
            ));
        }
        serde_json::from_value(value)
            .map(Some)
            .map_err(|e| Error::file(&file, format!("not a run record: {e}")))
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where checkpoints lie.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// Begins anew: removes what an unfinished run left.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn clear(&mut self) -> Result<()> {
        for name in ["predictions", "checkpoints"] {
            let folder = self.path.join(name);
            if folder.exists() {
                std::fs::remove_dir_all(&folder).map_err(Error::io(&folder))?;
            }
            std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        }
        self.continue_log(0)
    }

    /// Goes on with `metrics.jsonl` after its first `bytes` bytes; what stands behind them belongs
    /// to steps that are done again.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn continue_log(&mut self, bytes: u64) -> Result<()> {
        let path = self.path.join("metrics.jsonl");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::io(&path))?;
        file.set_len(bytes)
            .and_then(|()| file.seek(SeekFrom::End(0)).map(drop))
            .map_err(Error::io(&path))?;
        self.log = Some(file);
        Ok(())
    }

    /// The length of `metrics.jsonl`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn log_bytes(&mut self) -> Result<u64> {
        let path = self.path.join("metrics.jsonl");
        self.log.as_mut().map_or(Ok(0), |log| log.stream_position().map_err(Error::io(path)))
    }

    /// Writes `run.json`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, record: &mut Record) -> Result<()> {
        record.seal();
        let text = serde_json::to_string_pretty(record)
            .map_err(|e| Error::Protocol(format!("run.json cannot be written: {e}")))?;
        replace(&self.path.join("run.json"), text.as_bytes())
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

    /// Writes the predictions of the evaluation after a task; gives the file's name and SHA-256.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn predictions(&self, task: usize, predictions: &[Prediction]) -> Result<(String, String)> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let name = format!("predictions/task-{task}.csv");
        let failed =
            |e: &dyn std::fmt::Display| Error::Protocol(format!("{name} cannot be written: {e}"));
        predictions.iter().try_for_each(|p| writer.serialize(p)).map_err(|e| failed(&e))?;
        let bytes = writer.into_inner().map_err(|e| failed(&e))?;
        replace(&self.path.join(&name), &bytes)?;
        let hash = crate::sha256(&bytes);
        Ok((name, hash))
    }

    /// What was changed in a run folder since it was written: `run.json` against its seal,
    /// prediction files against their hashes.
    pub fn alterations(path: &Path, record: &Record) -> Vec<String> {
        let mut found = Vec::new();
        if !record.is_sealed() {
            found.push("run.json".to_owned());
        }
        for (name, hash) in &record.files {
            match std::fs::read(path.join(name)) {
                Ok(bytes) if crate::sha256(&bytes) == *hash => {}
                Ok(_) => found.push(name.clone()),
                Err(_) => found.push(format!("{name} (missing)")),
            }
        }
        found
    }
}

/// Whether this process may make something in a folder, as far as the system says without its being
/// tried.
fn may_write(folder: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        let Ok(name) = std::ffi::CString::new(folder.as_os_str().as_bytes()) else { return false };
        // SAFETY: a string that ends with a zero, for the call alone.
        unsafe { libc::access(name.as_ptr(), libc::W_OK | libc::X_OK) == 0 }
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        true
    }
}

/// Refuses a folder that holds something, but no run.
fn refuse_foreign(path: &Path) -> Result<()> {
    if path.is_dir() && !path.join("run.json").exists() {
        let ours = [
            "predictions",
            "lock",
            "checkpoints",
            "run.json.tmp",
            "metrics.jsonl",
            "command.json",
            "command.json.tmp",
        ];
        let other = |e: &std::fs::DirEntry| !ours.iter().any(|name| e.file_name() == *name);
        if std::fs::read_dir(path).map_err(Error::io(path))?.flatten().any(|e| other(&e)) {
            return Err(Error::usage(format!(
                "{}: this folder is not empty and holds no cilbench run; choose another with --out DIR",
                path.display()
            )));
        }
    }
    Ok(())
}

/// Writes a file under a temporary name, syncs it, and renames it into place.
pub(super) fn replace(target: &Path, bytes: &[u8]) -> Result<()> {
    let mut temporary = target.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let written = File::create(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    let done = written.and_then(|()| std::fs::rename(&temporary, target));
    if done.is_err() {
        // A half-written file is of no use, and on a full disk its room is needed.
        let _ = std::fs::remove_file(&temporary);
    }
    done.map_err(Error::io(target))
}

/// The first thing in which two identities differ, for a message: `old` is there, `new` is here.
pub fn difference(old: &Identity, new: &Identity) -> String {
    // The method first: another method's hyper-parameters differ of necessity.
    if old.method != new.method {
        return format!("the method is {} there, {} here", old.method, new.method);
    }
    let json = |i: &Identity| serde_json::to_value(i).expect("plain data can be written as JSON");
    first_difference("", &json(old), &json(new))
        .unwrap_or_else(|| "its identity differs".to_owned())
}

fn first_difference(
    path: &str,
    old: &serde_json::Value,
    new: &serde_json::Value,
) -> Option<String> {
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
