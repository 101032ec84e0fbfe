//! Reads the predictions that a run kept.

use std::path::Path;

use super::{Found, RunFolder};
use crate::metrics::Prediction;
use crate::{Error, Result};

impl RunFolder {
    /// The predictions of the evaluation after task `task` (from 0). None if the folder does not
    /// hold them any more: only the last task's travel with a committed run.
    ///
    /// # Errors
    /// [`Error::File`] with the line at fault if the file is not what it should be.
    pub fn read_predictions(folder: &Path, task: usize) -> Result<Option<Vec<Prediction>>> {
        let path = folder.join(format!("predictions/task-{task}.csv"));
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(&path)(e)),
        };
        let rows = csv::Reader::from_reader(std::io::BufReader::new(file)).into_deserialize();
        let rows: Result<Vec<Prediction>, csv::Error> = rows.collect();
        rows.map(Some).map_err(|e| Error::file(&path, format!("not a file of predictions: {e}")))
    }
}

impl Found {
    /// The predictions after the last finished task, if the folder still holds them.
    ///
    /// # Errors
    /// As [`RunFolder::read_predictions`].
    pub fn last_predictions(&self) -> Result<Option<Vec<Prediction>>> {
        let Some(last) = self.record.tasks.len().checked_sub(1) else { return Ok(None) };
        RunFolder::read_predictions(&self.path, last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_before_ranks_are_read_and_damaged_ones_are_named() {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::create_dir(folder.path().join("predictions")).expect("folder");
        let write = |task: usize, text: &str| {
            std::fs::write(folder.path().join(format!("predictions/task-{task}.csv")), text)
                .expect("write");
        };
        write(0, "key,task,label,prediction,confidence,task_aware\nab,0,1,1,0.5,1\n");
        write(1, "key,task,label,prediction,confidence,task_aware,rank\nab,0,1,0,0.5,1,2\n");
        write(2, "key,task,label,prediction,confidence,task_aware\nab,0,one,1,0.5,1\n");
        let read = |task| RunFolder::read_predictions(folder.path(), task);
        assert_eq!(read(0).expect("read").expect("there")[0].rank, None);
        assert_eq!(read(1).expect("read").expect("there")[0].rank, Some(2));
        assert!(read(3).expect("read").is_none());
        let error = read(2).expect_err("a label that is no number").to_string();
        assert!(error.contains("task-2.csv") && error.contains("line: 2"), "{error}");
    }
}
