//! Which differences of last accuracy are more than chance: pairs of a board's rows, tested on the
//! same test images.

mod answers;
mod bootstrap;
mod holm;
mod mcnemar;

use statrs::distribution::{ContinuousCDF, Normal};

pub use answers::Answers;
pub use bootstrap::{DRAWS, bootstrap};
pub use holm::holm;
pub use mcnemar::mcnemar;

/// The level below which an adjusted p-value is a difference.
pub const ALPHA: f64 = 0.05;

/// A test of two rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Test {
    /// The paired bootstrap over class orders and seeds, then images.
    Bootstrap,
    /// McNemar's exact test, where both rows are one run.
    McNemar,
}

/// Two rows of a board beside each other.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Pair {
    /// The first row, by its place.
    pub a: usize,
    /// The second row, by its place.
    pub b: usize,
    /// Accuracy of the first less that of the second, points.
    pub difference: f64,
    /// The test.
    pub test: Test,
    /// Its two-sided p-value.
    pub p: f64,
    /// The same, adjusted by Holm for all pairs of the board.
    pub adjusted: f64,
}

/// All pairs of a board, and each row's interval.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct Significance {
    /// All pairs of rows that could be tested.
    pub pairs: Vec<Pair>,
    /// Each row's 95 % bootstrap interval of last accuracy, percent; none of a row that could not
    /// be tested.
    pub intervals: Vec<Option<(f64, f64)>>,
}

impl Significance {
    /// Compares rows by their runs' answers. Rows without answers, and rows that are not of the
    /// same images and class orders as the first row that has some, stay out.
    pub fn of(rows: &[Vec<Answers>]) -> Self {
        let first = rows.iter().find(|r| !r.is_empty());
        let fits = |row: &Vec<Answers>| first.is_some_and(|f| comparable(f, row));
        let places: Vec<usize> = (0..rows.len()).filter(|i| fits(&rows[*i])).collect();
        let tested: Vec<&[Answers]> = places.iter().map(|i| rows[*i].as_slice()).collect();
        let draws = bootstrap(&tested, DRAWS);
        let mut intervals = vec![None; rows.len()];
        for (at, place) in places.iter().enumerate() {
            intervals[*place] = interval(draws.iter().map(|d| d[at]).collect());
        }
        let mut pairs = Vec::new();
        for (i, a) in places.iter().enumerate() {
            for (j, b) in places.iter().enumerate().skip(i + 1) {
                let (test, p) = test(&tested, (i, j), &draws);
                let difference = accuracy(tested[i]) - accuracy(tested[j]);
                pairs.push(Pair { a: *a, b: *b, difference, test, p, adjusted: p });
            }
        }
        let adjusted = holm(&pairs.iter().map(|pair| pair.p).collect::<Vec<_>>());
        pairs.iter_mut().zip(adjusted).for_each(|(pair, p)| pair.adjusted = p);
        Self { pairs, intervals }
    }

    /// The pair of two rows, in either order.
    pub fn pair(&self, a: usize, b: usize) -> Option<&Pair> {
        self.pairs.iter().find(|p| (p.a, p.b) == (a, b) || (p.a, p.b) == (b, a))
    }

    /// What a caption says of the tests; none where nothing was tested.
    pub fn caption(&self) -> Option<String> {
        let any = |test| self.pairs.iter().any(|p| p.test == test);
        let test = match (any(Test::Bootstrap), any(Test::McNemar)) {
            (false, false) => return None,
            (true, false) => {
                format!("a paired bootstrap ({DRAWS} draws of class orders and seeds, then images)")
            }
            (false, true) => "McNemar's exact test on one run per method".to_owned(),
            (true, true) => format!(
                "a paired bootstrap ({DRAWS} draws of class orders and seeds, then images), and between \
                 rows of one run by McNemar's exact test"
            ),
        };
        let all = match self.pairs.len() {
            1 => "the one pair".to_owned(),
            n => format!("all {n} pairs, adjusted by Holm"),
        };
        Some(format!(
            "Differences of last accuracy on the same test images were tested by {test}, over {all}, at level {ALPHA}."
        ))
    }
}

/// Whether two rows are of the same images and the same class orders.
fn comparable(a: &[Answers], b: &[Answers]) -> bool {
    let orders = |row: &[Answers]| {
        row.iter().map(|a| a.order.clone()).collect::<std::collections::BTreeSet<_>>()
    };
    let same = |other: &Answers| {
        a.iter().all(|one| (&one.images, one.count) == (&other.images, other.count))
    };
    !b.is_empty() && b.iter().all(same) && orders(a) == orders(b)
}

/// A row's accuracy: mean over class orders of the mean over seeds, percent.
fn accuracy(row: &[Answers]) -> f64 {
    let orders = answers::by_order(row);
    let mean = |seeds: &Vec<&Answers>| {
        seeds.iter().map(|a| a.accuracy()).sum::<f64>() / seeds.len() as f64
    };
    orders.values().map(mean).sum::<f64>() / orders.len().max(1) as f64
}

/// The test of two rows and its p-value.
fn test(rows: &[&[Answers]], (i, j): (usize, usize), draws: &[Vec<f64>]) -> (Test, f64) {
    if let ([a], [b]) = (rows[i], rows[j]) {
        return (Test::McNemar, mcnemar(a.alone(b), b.alone(a)));
    }
    // Shares of draws would end at 1 in 10 000, which is not enough for Holm over hundreds of
    // pairs: the tail is that of a normal distribution with the bootstrap's standard error.
    let differences: Vec<f64> = draws.iter().map(|d| d[i] - d[j]).collect();
    let mean = differences.iter().sum::<f64>() / differences.len().max(1) as f64;
    let error = (differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>()
        / differences.len().max(2) as f64)
        .sqrt();
    let difference = (accuracy(rows[i]) - accuracy(rows[j])).abs();
    let p = match Normal::standard() {
        _ if difference == 0.0 => 1.0,
        normal if error > 0.0 => 2.0 * normal.cdf(-difference / error),
        _ => 0.0,
    };
    (Test::Bootstrap, p)
}

/// The middle 95 % of some values.
fn interval(mut values: Vec<f64>) -> Option<(f64, f64)> {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| {
        values.get(((values.len().checked_sub(1)?) as f64 * share).round() as usize).copied()
    };
    Some((at(0.025)?, at(0.975)?))
}

#[cfg(test)]
mod test;
