//! Runs as event files for TensorBoard: TFRecords of `Event` messages
//! (`tensorflow/core/util/event.proto`), of which scalars need four fields.

use std::path::{Path, PathBuf};

use cilbench::results::Found;
use cilbench::results::leaderboard::{ALL, Bounds};
use cilbench::{Error, Result};
use crc::{CRC_32_ISCSI, Crc};

use crate::page::{log, slug};

/// The name of an event file; TensorBoard looks for the part `tfevents`.
const NAME: &str = "events.out.tfevents.cilbench";

/// Writes each run's losses and scores into a folder of its own below `folder`: losses by step,
/// scores by task (from 1), and the run's metrics. An earlier file of ours is replaced. Gives the
/// files' paths.
///
/// # Errors
/// [`Error::Usage`] if the folder cannot be used; [`Error::File`] if a log cannot be read.
pub fn tensorboard(option: &str, folder: &Path, found: &[Found]) -> Result<Vec<PathBuf>> {
    if folder.exists() && !folder.is_dir() {
        return Err(Error::usage(format!(
            "{option} {}: this is a file; name a folder",
            folder.display()
        )));
    }
    let mut written = Vec::new();
    for run in found {
        let identity = &run.record.identity;
        let name = slug(&format!(
            "{}-{}-{}-{}-seed-{}",
            identity.scenario.name,
            run.record.data_id,
            identity.method,
            identity.configuration(),
            identity.seed
        ));
        let inside = folder.join(name);
        std::fs::create_dir_all(&inside).map_err(Error::io(&inside))?;
        let file = inside.join(NAME);
        crate::output::replace(&file, &events(run)?)?;
        written.push(file);
    }
    Ok(written)
}

/// The events of a run.
fn events(run: &Found) -> Result<Vec<u8>> {
    let mut file = Vec::new();
    record(&mut file, &version());
    for (step, losses) in log(&run.path)?.iter().enumerate() {
        for (name, value) in losses {
            record(&mut file, &scalar(step, &format!("loss/{name}"), *value));
        }
    }
    for (task, done) in run.record.tasks.iter().enumerate() {
        let scores = &done.scores;
        let mut say = |name: &str, value: f64| record(&mut file, &scalar(task + 1, name, value));
        say("after task/accuracy", scores.accuracy);
        say("after task/accuracy, mean of tasks", scores.task_mean);
        say("after task/task id", scores.task_id);
        say("after task/task-aware", scores.task_aware);
        say("after task/ECE", scores.ece);
        done.relation_drift.into_iter().for_each(|drift| say("after task/relation drift", drift));
        for (i, accuracy) in scores.by_task.iter().enumerate() {
            say(&format!("accuracy of task/{:03}", i + 1), *accuracy);
        }
    }
    let bounds = Bounds::default();
    for (name, value) in ALL.iter().filter_map(|m| Some((m.name, m.of(run, &bounds)?))) {
        record(&mut file, &scalar(run.record.tasks.len(), &format!("run/{name}"), value));
    }
    Ok(file)
}

/// The event that a file begins with: `file_version`, field 3.
fn version() -> Vec<u8> {
    let mut event = Vec::new();
    bytes(&mut event, 3, b"brain.Event:2");
    event
}

/// An event with one scalar: `step`, field 2, and `summary`, field 5, of one `value`, field 1, of a
/// `tag`, field 1, and a `simple_value`, field 2. There is no time: records hold none.
fn scalar(step: usize, tag: &str, value: f64) -> Vec<u8> {
    let mut one = Vec::new();
    bytes(&mut one, 1, tag.as_bytes());
    one.push(2 << 3 | 5);
    one.extend((value as f32).to_le_bytes());
    let mut summary = Vec::new();
    bytes(&mut summary, 1, &one);
    let mut event = vec![2 << 3];
    varint(&mut event, step as u64);
    bytes(&mut event, 5, &summary);
    event
}

/// Adds a field of bytes to a protocol buffer.
fn bytes(message: &mut Vec<u8>, field: u8, value: &[u8]) {
    message.push(field << 3 | 2);
    varint(message, value.len() as u64);
    message.extend(value);
}

/// Adds a number, seven bits to a byte, the lowest first.
fn varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

/// Adds a TFRecord: length, its checksum, data, its checksum.
fn record(file: &mut Vec<u8>, data: &[u8]) {
    let length = (data.len() as u64).to_le_bytes();
    file.extend(length);
    file.extend(checksum(&length).to_le_bytes());
    file.extend(data);
    file.extend(checksum(data).to_le_bytes());
}

/// The masked CRC-32C of TFRecords.
fn checksum(data: &[u8]) -> u32 {
    const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
    CRC.checksum(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Made;

    #[test]
    fn records_are_as_tensorflow_writes_them() {
        // The first record of any event file of TensorFlow 2, but for its wall time.
        let mut file = Vec::new();
        record(&mut file, b"123456789");
        assert_eq!(&file[..8], &[9, 0, 0, 0, 0, 0, 0, 0]);
        // CRC-32C of these digits is 0xe3069283, its check value everywhere.
        let masked = 0xe306_9283u32.rotate_right(15).wrapping_add(0xa282_ead8);
        assert_eq!(&file[21..], &masked.to_le_bytes());
        let mut long = Vec::new();
        varint(&mut long, 300);
        assert_eq!(long, [0xac, 0x02]);
    }

    #[test]
    fn each_run_has_a_file_with_its_losses_and_scores() {
        let folder = tempfile::tempdir().expect("folder");
        let (runs, out) = (folder.path().join("runs"), folder.path().join("events"));
        for seed in [0, 1] {
            Made { seed, ..Made::new("a", 90) }.write(&runs);
        }
        let (found, _) = cilbench::results::find_runs(&runs).expect("find");
        let files = tensorboard("--tensorboard", &out, &found).expect("write");
        let again = tensorboard("--tensorboard", &out, &found).expect("write");
        assert_eq!((files.len(), &files), (2, &again));
        let text = String::from_utf8_lossy(&std::fs::read(&files[0]).expect("read")).into_owned();
        for tag in [
            "brain.Event:2",
            "loss/ce",
            "after task/accuracy",
            "accuracy of task/005",
            "run/forgetting",
        ] {
            assert!(text.contains(tag), "{tag}");
        }
        assert!(tensorboard("--tensorboard", &files[0], &found).is_err());
    }
}
