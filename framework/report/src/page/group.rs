//! What a report shows of a board: its rows with what their runs hold.

use std::collections::BTreeMap;
use std::path::Path;

use cilbench::results::Found;
use cilbench::results::leaderboard::{Board, Row};

use super::run;
use crate::table::label;

/// A row with its runs.
pub(super) struct Member<'a> {
    /// The row.
    pub row: &'a Row,
    /// Its name on the board.
    pub name: String,
    /// Its runs, by seed.
    pub runs: Vec<&'a Found>,
    /// The counts of predicted classes, (true class, predicted class), over all runs.
    pub confusion: Option<Vec<Vec<u64>>>,
    /// The losses of the first run.
    pub losses: Vec<run::Loss>,
    /// What could not be read.
    pub missing: Vec<String>,
}

/// A board with its members, in the order of its rows.
pub(super) struct Group<'a> {
    /// The board.
    pub board: &'a Board,
    /// What its files are named by.
    pub slug: String,
    /// Its members.
    pub members: Vec<Member<'a>>,
}

impl<'a> Group<'a> {
    /// Reads what a board's runs hold.
    pub fn of(board: &'a Board, found: &'a [Found]) -> Self {
        let by_path: BTreeMap<&Path, &Found> =
            found.iter().map(|f| (f.path.as_path(), f)).collect();
        let members = board.rows.iter().map(|row| member(row, board, &by_path)).collect();
        let first = board.rows.first();
        let slug = first.map_or(String::new(), |r| {
            let part = |text: &str| text.get(..8).unwrap_or(text).to_owned();
            slug(&format!("{}-{}-{}", r.scenario, part(&r.data_id), part(&r.weight_hash)))
        });
        Self { board, slug, members }
    }
}

fn member<'a>(row: &'a Row, board: &'a Board, by_path: &BTreeMap<&Path, &'a Found>) -> Member<'a> {
    let mut runs: Vec<&Found> =
        row.paths.iter().filter_map(|p| by_path.get(p.as_path()).copied()).collect();
    runs.sort_by_key(|r| r.record.identity.seed);
    let mut missing = Vec::new();
    let mut confusion: Option<Vec<Vec<u64>>> = None;
    for run in &runs {
        match run::confusion(run) {
            Ok(Some(counts)) => confusion = Some(run::added(confusion, counts)),
            Ok(None) => missing
                .push(format!("{} holds no predictions of the last task.", run.path.display())),
            Err(error) => missing.push(error.to_string()),
        }
    }
    let losses =
        runs.first().map_or(Ok(Vec::new()), |r| run::losses(&r.path)).unwrap_or_else(|error| {
            missing.push(error.to_string());
            Vec::new()
        });
    Member { row, name: label(row, &board.rows), runs, confusion, losses, missing }
}

impl Member<'_> {
    /// Whether it has a place in figures: an altered row has none.
    pub fn is_sound(&self) -> bool {
        self.row.altered.is_empty()
    }

    /// The mean accuracy matrix over its runs, percent; the cells above the diagonal are none.
    pub fn matrix(&self) -> Vec<Vec<Option<f64>>> {
        let tasks = self.runs.iter().map(|r| r.record.accuracy_matrix.len()).max().unwrap_or(0);
        let cell = |t: usize, i: usize| {
            mean(self.runs.iter().filter_map(|r| r.record.accuracy_matrix.get(t)?.get(i).copied()))
        };
        (0..tasks).map(|t| (0..=t).map(|i| cell(t, i)).collect()).collect()
    }

    /// The mean accuracy of each class after the last task, percent.
    pub fn by_class(&self) -> Vec<f64> {
        let last = |r: &&Found| {
            r.record.tasks.last().map(|t| t.scores.by_class.clone()).unwrap_or_default()
        };
        let all: Vec<Vec<f64>> = self.runs.iter().map(last).collect();
        let classes = all.iter().map(Vec::len).max().unwrap_or(0);
        (0..classes).filter_map(|c| mean(all.iter().filter_map(|a| a.get(c).copied()))).collect()
    }
}

/// The mean of some values.
pub(super) fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, n) = values.fold((0.0, 0usize), |(sum, n), v| (sum + v, n + 1));
    (n > 0).then(|| sum / n as f64)
}

/// A text as a part of a file's name or of an address.
pub(crate) fn slug(text: &str) -> String {
    let plain =
        |c: char| if c.is_ascii_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { '-' };
    let all: String = text.replace('+', "p").chars().map(plain).collect();
    all.split('-').filter(|p| !p.is_empty()).collect::<Vec<_>>().join("-")
}
