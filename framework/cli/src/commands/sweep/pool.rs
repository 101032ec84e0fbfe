//! The cells of a sweep on this machine: a process per cell, so many at a time.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cilbench::{Error, Result};
use indicatif::{ProgressBar, ProgressStyle};

use super::Sweep;
use super::cells::{Cell, Cells, Standing};
use crate::args::GlobalArgs;
use crate::signals;

/// A cell that runs.
struct Running {
    number: usize,
    /// Its place among the cells that run at a time, from 0.
    slot: usize,
    child: Child,
    log: PathBuf,
}

/// How a cell ended.
struct Ended {
    number: usize,
    code: Option<i32>,
    log: PathBuf,
}

/// Runs every cell that is not finished.
///
/// # Errors
/// [`Error::Interrupted`] after Ctrl-C; [`Error::Protocol`] at the end if a cell failed.
pub(crate) fn run(sweep: &Sweep, cells: &Cells, global: &GlobalArgs) -> Result<()> {
    let mut missing = Vec::new();
    for (i, cell) in cells.all.iter().enumerate() {
        if cell.standing()? != Standing::Finished {
            missing.push(i + 1);
        }
    }
    let (all, logs) = (cells.all.len(), cells.out.join("sweep-logs"));
    eprintln!(
        "{all} cells, {} finished, {} to run, {} at a time",
        all - missing.len(),
        missing.len(),
        sweep.jobs
    );
    if missing.is_empty() {
        return Ok(());
    }
    std::fs::create_dir_all(&logs).map_err(Error::io(&logs))?;
    let stop = signals::watch(None)?;
    let threads = (global.threads.unwrap_or_else(rayon::current_num_threads) / sweep.jobs).max(1);
    let devices: Vec<String> = std::env::var("CUDA_VISIBLE_DEVICES")
        .map(|list| list.split(',').map(str::to_owned).collect())
        .unwrap_or_default();
    let start = |number: usize, slot: usize| -> Result<Running> {
        let log = logs.join(format!("cell-{number}.log"));
        let file = File::create(&log).map_err(Error::io(&log))?;
        let errors = file.try_clone().map_err(Error::io(&log))?;
        let mut command = this_program(sweep, number, threads, global)?;
        // The visible GPUs are shared out over the cells that run at a time.
        if !devices.is_empty() && sweep.jobs > 1 {
            command.env("CUDA_VISIBLE_DEVICES", &devices[slot % devices.len()]);
        }
        let child = command.stdin(Stdio::null()).stdout(file).stderr(errors).spawn();
        Ok(Running { number, slot, child: child.map_err(Error::io(&log))?, log })
    };
    let ended = pool(missing, sweep.jobs, stop, start, |running| overview(cells, running))?;
    report(cells, &ended)
}

/// This program again, for one cell.
pub(super) fn this_program(
    sweep: &Sweep,
    number: usize,
    threads: usize,
    global: &GlobalArgs,
) -> Result<Command> {
    let program = std::env::current_exe().map_err(Error::io("this program"))?;
    let mut command = Command::new(program);
    command.arg("sweep").arg(&sweep.plan).args([
        "--cell",
        &number.to_string(),
        "--threads",
        &threads.to_string(),
    ]);
    for (flag, values) in [
        ("--data-root", &sweep.data_root),
        ("--weights", &sweep.weights),
        ("--plugin", &global.plugin),
    ] {
        values.iter().for_each(|value| {
            command.arg(flag).arg(value);
        });
    }
    if global.offline {
        command.arg("--offline");
    }
    command.env(cilbench::results::JOBS, sweep.jobs.to_string());
    Ok(command)
}

/// Starts the cells in order, so many at a time, until all have ended or the sweep is stopped.
fn pool(
    mut waiting: Vec<usize>,
    jobs: usize,
    stop: &AtomicBool,
    start: impl Fn(usize, usize) -> Result<Running>,
    show: impl Fn(&[Running]) -> String,
) -> Result<Vec<Ended>> {
    waiting.reverse();
    let (mut running, mut ended) = (Vec::new(), Vec::new());
    let bar = ProgressBar::new(waiting.len() as u64);
    let style = ProgressStyle::with_template("{pos}/{len} cells, {elapsed} so far, {msg}")
        .map_err(|e| Error::Protocol(format!("the progress bar's template: {e}")))?;
    bar.set_style(style);
    let (began, mut told) = (Instant::now(), false);
    while !(running.is_empty() && (waiting.is_empty() || stop.load(Ordering::Relaxed))) {
        while running.len() < jobs && !stop.load(Ordering::Relaxed) {
            let Some(number) = waiting.pop() else { break };
            let taken = |slot: &usize| running.iter().any(|r: &Running| r.slot == *slot);
            let slot = (0..jobs).find(|slot| !taken(slot)).unwrap_or_default();
            running.push(start(number, slot)?);
        }
        std::thread::sleep(Duration::from_millis(200));
        let mut still = Vec::new();
        for mut cell in running {
            match cell.child.try_wait().map_err(Error::io(&cell.log))? {
                Some(status) => {
                    bar.inc(1);
                    ended.push(Ended { number: cell.number, code: status.code(), log: cell.log });
                }
                None => still.push(cell),
            }
        }
        running = still;
        if stop.load(Ordering::Relaxed) && !told {
            // Ctrl-C reaches the cells by itself; a signal to this process alone does not.
            running.iter().for_each(|cell| terminate(&cell.child));
            told = true;
        }
        let left = time_left(began.elapsed(), ended.len(), waiting.len() + running.len());
        bar.set_message(format!("{left}; {}", show(&running)));
    }
    bar.finish_and_clear();
    if stop.load(Ordering::Relaxed) {
        let left = waiting.len() + ended.iter().filter(|e| e.code != Some(0)).count();
        return Err(Error::Interrupted(format!(
            "with {left} cells left; the same command goes on from here"
        )));
    }
    Ok(ended)
}

/// Asks a process to end; a cell writes its checkpoint first.
#[cfg(unix)]
fn terminate(child: &Child) {
    // SAFETY: the child was not waited for yet, so that its process id is still its own.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) };
}

#[cfg(not(unix))]
fn terminate(_: &Child) {}

/// How long the cells that are left will take if they are like those that ended.
fn time_left(elapsed: Duration, ended: usize, left: usize) -> String {
    if ended == 0 {
        return "time left unknown".to_owned();
    }
    let seconds = elapsed.as_secs_f64() / ended as f64 * left as f64;
    match seconds {
        s if s < 90.0 => format!("about {s:.0} s left"),
        s if s < 5400.0 => format!("about {:.0} min left", s / 60.0),
        s => format!("about {:.1} h left", s / 3600.0),
    }
}

/// The running cells in a line.
fn overview(cells: &Cells, running: &[Running]) -> String {
    let one = |running: &Running| {
        let Cell { args, identity, .. } = &cells.all[running.number - 1];
        let state =
            cells.all[running.number - 1].standing().map(|s| s.to_string()).unwrap_or_default();
        format!(
            "{} on {} seed {} ({state})",
            args.experiment.method, identity.scenario.name, identity.seed
        )
    };
    running.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Says which cells failed, each with the last line of its log.
fn report(cells: &Cells, ended: &[Ended]) -> Result<()> {
    let failed: Vec<&Ended> = ended.iter().filter(|e| e.code != Some(0)).collect();
    for cell in &failed {
        let text = std::fs::read_to_string(&cell.log).unwrap_or_default();
        let last =
            text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
        let how = cell
            .code
            .map_or("was killed".to_owned(), |code| format!("ended with exit code {code}"));
        let folder = cells.all[cell.number - 1].folder.display();
        eprintln!(
            "cell {} {how}: {last}\n  log {}, run folder {folder}",
            cell.number,
            cell.log.display()
        );
    }
    let finished = ended.len() - failed.len();
    if failed.is_empty() {
        eprintln!(
            "{finished} cells finished; `cilbench leaderboard {}` ranks them",
            cells.out.display()
        );
        return Ok(());
    }
    Err(Error::Protocol(format!(
        "{} of {} cells did not finish; the same command tries them again",
        failed.len(),
        ended.len()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_follows_from_the_cells_that_ended() {
        assert_eq!(time_left(Duration::from_secs(60), 0, 4), "time left unknown");
        assert_eq!(time_left(Duration::from_secs(60), 3, 2), "about 40 s left");
        assert_eq!(time_left(Duration::from_secs(600), 1, 5), "about 50 min left");
        assert_eq!(time_left(Duration::from_secs(3600), 1, 2), "about 2.0 h left");
    }
}
