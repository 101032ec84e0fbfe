//! Which test images a run answers rightly, in an order that all runs on the same images share.

use std::collections::BTreeMap;

use crate::metrics::Prediction;
use crate::results::Found;
use crate::{Error, Result};

/// A run's right answers after its last task.
#[derive(Debug, Clone, PartialEq)]
pub struct Answers {
    /// The data id, which tells class orders apart.
    pub order: String,
    /// SHA-256 over the sorted keys of the test images: equal for the same images.
    pub images: String,
    /// The number of images.
    pub count: usize,
    /// One bit for each image, in the order of its key: whether it was classified rightly.
    pub right: Vec<u64>,
}

impl Answers {
    /// The answers in a run folder; none where it does not hold the last task's predictions.
    ///
    /// # Errors
    /// [`Error::File`] if the predictions cannot be read or are not of as many images as the record
    /// says.
    pub fn of(run: &Found) -> Result<Option<Self>> {
        let Some(predictions) = run.last_predictions()? else { return Ok(None) };
        let recorded: usize = run.record.counts.iter().take(run.record.tasks.len()).sum();
        if predictions.len() != recorded {
            let what = format!(
                "the last task's predictions are of {} images, the record is of {recorded}; \
                 restore the folder as it was written",
                predictions.len()
            );
            return Err(Error::file(&run.path, what));
        }
        Ok(Some(Self::new(&run.record.data_id, &predictions)))
    }

    /// The answers of some predictions, all of one evaluation.
    pub fn new(order: &str, predictions: &[Prediction]) -> Self {
        let mut sorted: Vec<&Prediction> = predictions.iter().collect();
        // The same image twice (in two domains, say) stays in the order of its tasks.
        sorted.sort_by(|a, b| (&a.key, a.task).cmp(&(&b.key, b.task)));
        let mut right = vec![0u64; sorted.len().div_ceil(64)];
        for (i, _) in sorted.iter().enumerate().filter(|(_, p)| p.prediction == p.label) {
            right[i / 64] |= 1 << (i % 64);
        }
        let keys: Vec<&str> = sorted.iter().map(|p| p.key.as_str()).collect();
        let images = crate::sha256(keys.join("\n").as_bytes());
        Self { order: order.to_owned(), images, count: sorted.len(), right }
    }

    /// The share of right answers, percent.
    pub fn accuracy(&self) -> f64 {
        let right: u32 = self.right.iter().map(|word| word.count_ones()).sum();
        100.0 * f64::from(right) / self.count.max(1) as f64
    }

    /// The number of images that this run answers rightly and `other` does not.
    pub fn alone(&self, other: &Self) -> u64 {
        self.right.iter().zip(&other.right).map(|(a, b)| u64::from((a & !b).count_ones())).sum()
    }
}

/// Sorts one row's answers by class order.
pub(super) fn by_order(answers: &[Answers]) -> BTreeMap<&str, Vec<&Answers>> {
    let mut orders = BTreeMap::<&str, Vec<&Answers>>::new();
    answers.iter().for_each(|a| orders.entry(a.order.as_str()).or_default().push(a));
    orders
}
