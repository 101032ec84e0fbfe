//! Shows progress: bars on a terminal, plain lines elsewhere.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Instant;

use cilbench::run::{Event, Progress};
use indicatif::{ProgressBar, ProgressStyle};

/// Shows a run's progress on the standard error stream.
pub(crate) struct Display {
    bar: Option<ProgressBar>,
    terminal: bool,
    began: Instant,
    images: usize,
    tasks: usize,
    epoch: usize,
    /// The sum and the count of each of the epoch's losses so far.
    losses: BTreeMap<String, (f64, usize)>,
    /// Whether the run was resumed within this epoch.
    partly: bool,
}

impl Display {
    pub(crate) fn new() -> Self {
        Self {
            bar: None,
            terminal: std::io::stderr().is_terminal(),
            began: Instant::now(),
            images: 0,
            tasks: 0,
            epoch: 0,
            losses: BTreeMap::new(),
            partly: false,
        }
    }

    /// Prints the means of the epoch's losses over its steps. If a run was resumed within the
    /// epoch, they are over the steps since then.
    fn end_epoch(&mut self) {
        if self.losses.is_empty() {
            return;
        }
        let losses: Vec<String> = self
            .losses
            .iter()
            .map(|(name, (sum, n))| format!("{name} {:.4}", sum / *n as f64))
            .collect();
        let rest = if self.partly { " (steps since the run went on)" } else { "" };
        self.line(&format!("  epoch {}: {}{rest}", self.epoch + 1, losses.join("  ")));
        self.losses.clear();
        self.partly = false;
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }
}

impl Progress for Display {
    fn show(&mut self, event: Event) {
        match event {
            Event::Notice(text) => self.line(text),
            Event::Begin { task, tasks, plan, steps, done } => {
                (self.images, self.tasks, self.epoch, self.began) = (0, tasks, 0, Instant::now());
                self.losses.clear();
                self.partly = plan.epochs > 0 && done % (steps / plan.epochs).max(1) != 0;
                let names: Vec<&str> = task.class_names.iter().map(String::as_str).collect();
                let shown = if names.len() > 6 {
                    format!("{}, … ({} classes)", names[..5].join(", "), names.len())
                } else {
                    names.join(", ")
                };
                let (n, epochs) = (task.index + 1, plan.epochs);
                let shown = task
                    .domain
                    .as_ref()
                    .map_or(shown.clone(), |domain| format!("{domain}: {shown}"));
                self.line(&format!(
                    "task {n}/{tasks}: {shown}; {} images, {epochs} epochs",
                    task.train_images
                ));
                if self.terminal {
                    let bar = ProgressBar::new(steps as u64);
                    let style = ProgressStyle::with_template(
                        "  {bar:30} {pos}/{len} steps, {elapsed} (left {eta})  {msg}",
                    );
                    bar.set_position(done as u64);
                    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                    self.bar = Some(bar);
                }
            }
            Event::Step(step) => {
                self.images += step.images;
                if step.epoch != self.epoch {
                    self.end_epoch();
                    self.epoch = step.epoch;
                }
                for (name, value) in &step.losses.0 {
                    let (sum, n) = self.losses.entry(name.to_string()).or_default();
                    (*sum, *n) = (*sum + *value, *n + 1);
                }
                if let Some(bar) = &self.bar {
                    let losses: Vec<String> =
                        step.losses.0.iter().map(|(n, v)| format!("{n} {v:.4}")).collect();
                    bar.inc(1);
                    bar.set_message(losses.join("  "));
                }
            }
            Event::Finishing => {
                self.end_epoch();
                if let Some(bar) = &self.bar {
                    bar.set_message("finishing the task");
                }
            }
            Event::Scoring => {
                if let Some(bar) = &self.bar {
                    bar.set_message("scoring");
                }
            }
            Event::End { task, record } => {
                if let Some(bar) = self.bar.take() {
                    bar.finish_and_clear();
                }
                let drift = record
                    .relation_drift
                    .map(|d| format!(", relation drift {d:.4}"))
                    .unwrap_or_default();
                let speed = if record.train_seconds > 0.0 {
                    self.images as f64 / record.train_seconds
                } else {
                    0.0
                };
                let (n, tasks, seconds) =
                    (task + 1, self.tasks, self.began.elapsed().as_secs_f64());
                let accuracy = record.scores.accuracy;
                eprintln!(
                    "  after task {n}/{tasks}: accuracy {accuracy:.2} % on all classes seen{drift} ({seconds:.1} s, {speed:.0} images/s)"
                );
            }
        }
    }
}
