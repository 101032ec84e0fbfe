//! The leaderboard: derived from run folders, never edited. Rows are ranked only within one data id
//! (or one set of class orders) and one weight hash.

mod metric;
mod row;

use std::collections::BTreeMap;

pub use metric::{ALL, Bounds, Metric};
pub use row::Row;

pub use super::find::{Found, find_runs};
use super::record::{Record, Status};
use super::significance::{ALPHA, Answers, Significance};
use crate::{Error, Result};

/// The metrics in the summary of a record.
pub const METRICS: [&str; 4] = ["last", "avg", "forgetting", "bwt"];

/// The metric of this name in the summary of a record, one of [`METRICS`]; `last` for any
/// other name.
pub fn metric(record: &Record, name: &str) -> f64 {
    match name {
        "avg" => record.summary.avg,
        "forgetting" => record.summary.forgetting,
        "bwt" => record.summary.bwt,
        _ => record.summary.last,
    }
}

/// How boards are made.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether a row gathers all class orders of one scenario.
    pub gather_orders: bool,
    /// Whether differences of last accuracy are tested, which reads the runs' predictions.
    pub test: bool,
}

/// Rows that are ranked among each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Board {
    /// The rows, the best first.
    pub rows: Vec<Row>,
    /// What was tested, if anything was to be.
    pub significance: Option<Significance>,
    /// Why rows were not tested.
    pub untested: Vec<String>,
}

/// The rows of all finished runs, ranked by `by` within each data id and weight hash. A run that
/// was copied counts once.
///
/// # Errors
/// [`Error::Usage`] for an unknown metric.
pub fn rows(found: &[Found], by: &str) -> Result<Vec<Row>> {
    Ok(boards(found, by, &Options::default())?.into_iter().flat_map(|board| board.rows).collect())
}

/// The boards of all finished runs, each ranked by `by`. A run that was copied counts once.
///
/// # Errors
/// [`Error::Usage`] for an unknown metric.
pub fn boards(found: &[Found], by: &str, options: &Options) -> Result<Vec<Board>> {
    let metric = Metric::find(by)?;
    let bounds = Bounds::among(found);
    let groups = group(found, options.gather_orders);
    let mut rows: Vec<Row> = groups
        .iter()
        .filter_map(|(key, runs)| Row::of(runs, metric, key.configuration.clone(), &bounds))
        .collect();
    sort(&mut rows, metric);
    let by_path: BTreeMap<_, _> = found.iter().map(|f| (&f.path, f)).collect();
    let board = |rows: &[Row]| {
        let mut board = Board { rows: rows.to_vec(), significance: None, untested: Vec::new() };
        rank(&mut board.rows, metric);
        if options.test {
            board.compare(&by_path);
        }
        board.mark();
        board
    };
    Ok(rows
        .chunk_by(|a, b| (&a.data_id, &a.weight_hash) == (&b.data_id, &b.weight_hash))
        .map(board)
        .collect())
}

/// What the runs of one row have in common.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    scenario: String,
    data: String,
    weights: String,
    method: String,
    configuration: String,
}

/// The finished runs by row.
fn group(found: &[Found], gather_orders: bool) -> BTreeMap<Key, Vec<&Found>> {
    let mut groups = BTreeMap::<Key, Vec<&Found>>::new();
    for run in found.iter().filter(|f| f.record.status == Status::Finished) {
        let identity = &run.record.identity;
        let plugin = identity.plugin.as_ref().map_or("", |p| &p.sha256);
        let key = Key {
            scenario: identity.scenario.name.clone(),
            data: if gather_orders {
                without_order(&run.record)
            } else {
                run.record.data_id.clone()
            },
            weights: identity.backbone.weights_hash.clone(),
            method: format!("{} {} {plugin}", identity.method, identity.method_version),
            configuration: identity.configuration(),
        };
        let group = groups.entry(key).or_default();
        // The same seed twice is a copy, not a second sample; an altered one never displaces a
        // sound one.
        let same = |g: &&mut &Found| {
            (g.record.identity.seed, &g.record.data_id) == (identity.seed, &run.record.data_id)
        };
        match group.iter_mut().find(same) {
            Some(same) if !same.altered.is_empty() && run.altered.is_empty() => *same = run,
            Some(_) => {}
            None => group.push(run),
        }
    }
    groups
}

/// What is known of a run's data but for the order of its classes.
fn without_order(record: &Record) -> String {
    let scenario = &record.identity.scenario;
    let sizes: Vec<usize> = scenario.tasks.iter().map(Vec::len).collect();
    let total = |f: fn(&(usize, usize)) -> usize| scenario.images.iter().map(f).sum::<usize>();
    let all = (
        &scenario.dataset,
        &scenario.split,
        scenario.kind,
        sizes,
        &scenario.transforms,
        total(|i| i.0),
        total(|i| i.1),
    );
    serde_json::to_string(&all).unwrap_or_default()
}

/// Sorts rows by board and, on each, the best first.
fn sort(rows: &mut [Row], metric: &Metric) {
    // Boards by name; the same data under two names is one board.
    let mut names = BTreeMap::<String, String>::new();
    for row in rows.iter() {
        let name = names.entry(row.data_id.clone()).or_insert_with(|| row.scenario.clone());
        if row.scenario < *name {
            name.clone_from(&row.scenario);
        }
    }
    rows.sort_by(|a, b| {
        let board = |r: &Row| {
            (names.get(&r.data_id), r.data_id.clone(), r.weight_hash.clone(), !r.altered.is_empty())
        };
        // A row without the metric comes last, whichever way is better.
        let order = a.mean.is_nan().cmp(&b.mean.is_nan()).then(if metric.larger {
            b.mean.total_cmp(&a.mean)
        } else {
            a.mean.total_cmp(&b.mean)
        });
        board(a).cmp(&board(b)).then(order)
    });
}

/// Gives the sorted rows of a board their ranks.
fn rank(board: &mut [Row], metric: &Metric) {
    let ranked = |row: &Row| row.altered.is_empty() && row.value(metric).is_some();
    let means: Vec<f64> = board.iter().filter(|row| ranked(row)).map(|row| row.mean).collect();
    board
        .iter_mut()
        .filter(|row| ranked(row))
        .zip(ranks(&means))
        .for_each(|(row, rank)| row.rank = Some(rank));
}

/// The ranks of sorted results: equal ones share a rank, and the next has that of its place.
fn ranks(sorted: &[f64]) -> Vec<usize> {
    sorted.iter().map(|mean| 1 + sorted.iter().take_while(|other| *other != mean).count()).collect()
}

impl Board {
    /// The rows that compete in a metric: neither altered nor a bound.
    pub fn competitors<'a>(
        &'a self,
        metric: &'a Metric,
    ) -> impl Iterator<Item = (usize, f64)> + 'a {
        let sound = |row: &Row| row.altered.is_empty() && !row.bound;
        let value = move |(i, row): (usize, &Row)| Some((i, row.value(metric)?));
        self.rows.iter().enumerate().filter(move |(_, row)| sound(row)).filter_map(value)
    }

    /// The best value of a metric among the competing rows that [`Board::best`] does not give.
    pub fn runner_up(&self, metric: &Metric) -> Option<f64> {
        let marked: Vec<usize> = self.best(metric);
        let rest = self.competitors(metric).filter(|(i, _)| !marked.contains(i)).map(|(_, v)| v);
        rest.reduce(|a, b| if (b > a) == metric.larger { b } else { a })
    }

    /// The places of the rows that are the best in a metric; of last accuracy, with all that were
    /// not told apart from the best.
    pub fn best(&self, metric: &Metric) -> Vec<usize> {
        if metric.name == "last" {
            return (0..self.rows.len()).filter(|i| self.rows[*i].best).collect();
        }
        let better = |a: f64, b: f64| if (b > a) == metric.larger { b } else { a };
        let Some(best) = self.competitors(metric).map(|(_, v)| v).reduce(better) else {
            return Vec::new();
        };
        self.competitors(metric).filter(|(_, v)| *v == best).map(|(i, _)| i).collect()
    }

    /// Tests all pairs of rows.
    fn compare(&mut self, found: &BTreeMap<&std::path::PathBuf, &Found>) {
        let mut all = Vec::new();
        for row in &self.rows {
            match answers(row, found) {
                Ok(answers) => all.push(answers),
                Err(why) => {
                    self.untested.push(format!("{} ({}): {why}", row.method, row.config_hash));
                    all.push(Vec::new());
                }
            }
        }
        self.significance = Some(Significance::of(&all));
    }

    /// Marks the best row by last accuracy and those that were not told apart from it.
    fn mark(&mut self) {
        let last = &ALL[0];
        let Some((best, value)) =
            self.competitors(last).max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))
        else {
            return;
        };
        let competing: Vec<usize> = self.competitors(last).map(|(i, _)| i).collect();
        for (i, row) in self.rows.iter_mut().enumerate() {
            row.p_best = self.significance.as_ref().and_then(|s| Some(s.pair(i, best)?.adjusted));
            row.best = competing.contains(&i)
                && (row.last == value || row.p_best.is_some_and(|p| p >= ALPHA));
        }
    }
}

/// The answers of a row's runs, or why there are none.
fn answers(
    row: &Row,
    found: &BTreeMap<&std::path::PathBuf, &Found>,
) -> Result<Vec<Answers>, String> {
    if !row.altered.is_empty() {
        return Err(format!("it was altered ({})", row.altered));
    }
    let read = |path| {
        let run = found.get(path).ok_or_else(|| "its run folder is gone".to_owned())?;
        match Answers::of(run) {
            Ok(answers) => {
                answers.ok_or_else(|| format!("{} holds no predictions", run.path.display()))
            }
            Err(error) => Err(error.to_string()),
        }
    };
    row.paths.iter().map(read).collect()
}

/// The rows as CSV, with a header line.
///
/// # Errors
/// [`Error::Protocol`] if they cannot be written.
pub fn csv(rows: &[Row]) -> Result<Vec<u8>> {
    let failed =
        |e: &dyn std::fmt::Display| Error::Protocol(format!("the CSV cannot be written: {e}"));
    let mut writer = csv::Writer::from_writer(Vec::new());
    rows.iter().try_for_each(|r| writer.serialize(r)).map_err(|e| failed(&e))?;
    writer.into_inner().map_err(|e| failed(&e))
}

#[cfg(test)]
mod test;
