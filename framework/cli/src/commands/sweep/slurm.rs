//! The cells of a sweep as an array job of SLURM, one element per cell.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cilbench::{Error, Result};
use serde::Deserialize;

use super::Sweep;
use super::cells::{Cells, Standing};
use crate::args::GlobalArgs;

/// `[slurm]` of a plan: what every element of the array asks for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Slurm {
    /// The partition; the cluster's default if there is none.
    partition: Option<String>,
    /// The time limit as SLURM writes it, `1-12:00:00`.
    time: Option<String>,
    /// Memory per element, `16G`.
    memory: Option<String>,
    /// CPUs per element; the cell uses as many threads.
    #[serde(default = "one")]
    cpus: usize,
    /// GPUs per element.
    gpus: Option<usize>,
    /// Elements that run at a time.
    at_a_time: Option<usize>,
    /// Further `#SBATCH` options, `--account=lab`.
    #[serde(default)]
    lines: Vec<String>,
    /// Shell lines before the program starts, `module load …`.
    #[serde(default)]
    before: Vec<String>,
}

fn one() -> usize {
    1
}

impl Default for Slurm {
    fn default() -> Self {
        Self {
            partition: None,
            time: None,
            memory: None,
            cpus: 1,
            gpus: None,
            at_a_time: None,
            lines: Vec::new(),
            before: Vec::new(),
        }
    }
}

/// Seconds before the time limit at which a cell is told to write its checkpoint.
const WARNING: u32 = 120;
/// Seconds that a requeued element waits for the lock of the one before it.
const WAIT: u64 = 120;

/// Writes the job script and submits it.
///
/// # Errors
/// [`Error::Protocol`] with what `sbatch` said, if it refuses or is not there.
pub(crate) fn submit(sweep: &Sweep, cells: &Cells, global: &GlobalArgs) -> Result<()> {
    let mut missing = Vec::new();
    for (i, cell) in cells.all.iter().enumerate() {
        if cell.standing()? != Standing::Finished {
            missing.push(i + 1);
        }
    }
    if missing.is_empty() {
        println!("all {} cells are finished", cells.all.len());
        return Ok(());
    }
    let logs = absolute(&cells.out.join("sweep-logs"))?;
    std::fs::create_dir_all(&logs).map_err(Error::io(&logs))?;
    let asked = cells.slurm.clone().unwrap_or_default();
    let script = script(sweep, &asked, &logs, global)?;
    let file = logs.join("job.sh");
    std::fs::write(&file, &script).map_err(Error::io(&file))?;
    let answer = sbatch(&array(&missing, asked.at_a_time), &script)?;
    println!("{answer}: {} of {} cells, script {}", missing.len(), cells.all.len(), file.display());
    println!(
        "`cilbench sweep {} --list` shows where each stands, `squeue` the queue",
        sweep.plan.display()
    );
    Ok(())
}

/// The elements of an array as SLURM writes them: `1-3,7%2`.
fn array(cells: &[usize], at_a_time: Option<usize>) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &cell in cells {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == cell => *last = cell,
            _ => ranges.push((cell, cell)),
        }
    }
    let range = |(a, b): &(usize, usize)| if a == b { a.to_string() } else { format!("{a}-{b}") };
    let list = ranges.iter().map(range).collect::<Vec<_>>().join(",");
    at_a_time.map_or(list.clone(), |n| format!("{list}%{n}"))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(Error::io(path))
}

/// A word of a shell.
fn quoted(word: &str) -> Result<String> {
    let quoted = shlex::try_quote(word);
    quoted
        .map(|q| q.into_owned())
        .map_err(|_| Error::usage(format!("'{word}' has a zero byte in it")))
}

/// The job script. An element that ends with 75 has written a checkpoint and is queued again.
fn script(sweep: &Sweep, asked: &Slurm, logs: &Path, global: &GlobalArgs) -> Result<String> {
    let mut lines = vec!["#!/bin/bash".to_owned(), "#SBATCH --job-name=cilbench".to_owned()];
    let mut option = |name: &str, value: Option<String>| {
        lines.extend(value.map(|value| format!("#SBATCH --{name}={value}")));
    };
    option("partition", asked.partition.clone());
    option("time", asked.time.clone());
    option("mem", asked.memory.clone());
    option("cpus-per-task", Some(asked.cpus.to_string()));
    option("gpus", asked.gpus.map(|n| n.to_string()));
    option("output", Some(format!("{}/cell-%a.log", logs.display())));
    option("open-mode", Some("append".to_owned()));
    option("signal", Some(format!("B:USR1@{WARNING}")));
    lines.push("#SBATCH --requeue".to_owned());
    lines.extend(asked.lines.iter().map(|line| format!("#SBATCH {line}")));
    lines.extend(asked.before.iter().cloned());
    let program = std::env::current_exe().map_err(Error::io("this program"))?;
    let mut words = vec![quoted(&program.display().to_string())?, "sweep".to_owned()];
    words.push(quoted(&absolute(&sweep.plan)?.display().to_string())?);
    words.push(format!("--cell \"$SLURM_ARRAY_TASK_ID\" --threads {} --wait {WAIT}", asked.cpus));
    for (flag, values) in [("--data-root", &sweep.data_root), ("--weights", &sweep.weights)] {
        for value in values {
            let (name, path) = value.split_once('=').unwrap_or(("", value));
            let place = format!("{name}={}", absolute(Path::new(path))?.display());
            words.push(format!("{flag} {}", quoted(&place)?));
        }
    }
    for plugin in &global.plugin {
        words.push(format!("--plugin {}", quoted(plugin)?));
    }
    if global.offline {
        words.push("--offline".to_owned());
    }
    // The shell gets the signals and hands them on, so that the program writes its checkpoint.
    lines.push(format!("{} &", words.join(" ")));
    lines.push("pid=$!".to_owned());
    lines.push("trap 'kill -USR1 $pid 2>/dev/null' USR1".to_owned());
    lines.push("trap 'kill -TERM $pid 2>/dev/null' TERM".to_owned());
    lines.push("wait $pid; code=$?".to_owned());
    lines.push("while kill -0 $pid 2>/dev/null; do wait $pid; code=$?; done".to_owned());
    lines.push("if [ $code -eq 75 ]; then".to_owned());
    lines.push("  scontrol requeue \"${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}\"".to_owned());
    lines.push("  exit 0".to_owned());
    lines.push("fi".to_owned());
    lines.push("exit $code".to_owned());
    Ok(lines.join("\n") + "\n")
}

/// Submits a script; gives what `sbatch` answered.
fn sbatch(array: &str, script: &str) -> Result<String> {
    let spawned = Command::new("sbatch")
        .args(["--array", array])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.map_err(|e| {
        Error::usage(format!(
            "--launcher slurm: sbatch cannot be started ({e}): is this a machine that submits jobs?"
        ))
    })?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(script.as_bytes()).map_err(Error::io("sbatch"))?;
    }
    let output = child.wait_with_output().map_err(Error::io("sbatch"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(Error::Protocol(format!("sbatch refused the job: {}", text(&output.stderr)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_names_the_cells_that_are_missing() {
        assert_eq!(array(&[1, 2, 3, 7, 9, 10], None), "1-3,7,9-10");
        assert_eq!(array(&[4], Some(2)), "4%2");
    }
}
