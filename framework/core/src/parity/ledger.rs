//! What was compared: the worst error of each quantity, and the first that is too large.

use crate::array::Array;
use crate::{Error, Result};

/// The worst error of one quantity.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantity {
    /// Which: `loss ce`, `probe trained.sigma`, `state trained`, `logits`, ….
    pub name: String,
    /// How often it was compared.
    pub compared: usize,
    /// The worst relative error.
    pub worst: f64,
    /// Where that was.
    pub at: String,
}

/// Where two implementations part.
#[derive(Debug, Clone, PartialEq)]
pub struct Parting {
    /// The quantity.
    pub quantity: String,
    /// When: task, epoch and step, from 1.
    pub place: String,
    /// The relative error; infinite if they cannot be compared at all.
    pub error: f64,
    /// Both values, or how they differ.
    pub what: String,
}

/// Collects comparisons; after the first parting nothing more is of interest.
pub(super) struct Ledger {
    tolerance: f64,
    pub quantities: Vec<Quantity>,
    pub parting: Option<Parting>,
    pub notes: Vec<String>,
}

impl Ledger {
    pub(super) fn new(tolerance: f64) -> Self {
        Self { tolerance, quantities: Vec::new(), parting: None, notes: Vec::new() }
    }

    pub(super) fn tolerance(&self) -> f64 {
        self.tolerance
    }

    /// Notes something once.
    pub(super) fn note(&mut self, text: String) {
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// Compares a quantity at a place; `part` names the tensor, where the quantity has several.
    pub(super) fn numbers(
        &mut self,
        quantity: &str,
        part: &str,
        place: &str,
        a: &[f64],
        b: &[f64],
    ) {
        let error = relative_error(a, b);
        self.record(quantity, part, place, error, || difference(a, b));
    }

    /// As [`Ledger::numbers`], for arrays: their shapes must agree.
    pub(super) fn arrays(
        &mut self,
        quantity: &str,
        part: &str,
        place: &str,
        a: &Array,
        b: &Array,
    ) -> Result<()> {
        if a.shape != b.shape {
            self.record(quantity, part, place, f64::INFINITY, || {
                format!("the shapes are {:?} and {:?}", a.shape, b.shape)
            });
            return Ok(());
        }
        let (a, b) = (a.to_f64()?, b.to_f64()?);
        self.numbers(quantity, part, place, &a, &b);
        Ok(())
    }

    /// Compares what is equal or not.
    pub(super) fn equal<T: PartialEq + std::fmt::Debug>(
        &mut self,
        quantity: &str,
        place: &str,
        a: &T,
        b: &T,
    ) {
        let error = if a == b { 0.0 } else { f64::INFINITY };
        self.record(quantity, "", place, error, || {
            format!("{} and {}", shortened(a), shortened(b))
        });
    }

    /// Enters an error of a quantity; `what` tells how the two differ.
    pub(super) fn record(
        &mut self,
        quantity: &str,
        part: &str,
        place: &str,
        error: f64,
        what: impl FnOnce() -> String,
    ) {
        let named =
            if part.is_empty() { quantity.to_owned() } else { format!("{quantity}: {part}") };
        let at = if part.is_empty() { place.to_owned() } else { format!("{part}, {place}") };
        // Not a number is never within a tolerance, and the worst of all.
        let error = if error.is_nan() { f64::INFINITY } else { error };
        match self.quantities.iter_mut().find(|q| q.name == quantity) {
            Some(q) => {
                q.compared += 1;
                if error > q.worst {
                    (q.worst, q.at) = (error, at);
                }
            }
            None => self.quantities.push(Quantity {
                name: quantity.to_owned(),
                compared: 1,
                worst: error,
                at,
            }),
        }
        if error > self.tolerance && self.parting.is_none() {
            self.parting =
                Some(Parting { quantity: named, place: place.to_owned(), error, what: what() });
        }
    }
}

/// ‖a − b‖ / max(‖a‖, ‖b‖, 1e-6·√n): below a millionth an element, numbers count as zero.
fn relative_error(a: &[f64], b: &[f64]) -> f64 {
    if a.len() != b.len() {
        return f64::INFINITY;
    }
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let scale = norm(&mut a.iter().copied()).max(norm(&mut b.iter().copied()));
    // `max` would pass over a NaN: the difference keeps it.
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b))
        / scale.max(1e-6 * (a.len().max(1) as f64).sqrt())
}

/// The two values, or those of the element that differs most.
fn difference(a: &[f64], b: &[f64]) -> String {
    match (a, b) {
        ([a], [b]) => format!("{a} and {b}"),
        _ if a.len() != b.len() => format!("{} and {} numbers", a.len(), b.len()),
        _ => {
            let gap = |i: &usize| match (a[*i] - b[*i]).abs() {
                gap if gap.is_nan() => f64::INFINITY,
                gap => gap,
            };
            let worst = (0..a.len()).max_by(|i, j| gap(i).total_cmp(&gap(j)));
            worst.map_or("nothing".to_owned(), |i| {
                format!("{} and {} in element {i} of {}", a[i], b[i], a.len())
            })
        }
    }
}

fn shortened<T: std::fmt::Debug>(value: &T) -> String {
    let text = format!("{value:?}");
    if text.chars().count() > 200 {
        text.chars().take(200).chain("…".chars()).collect()
    } else {
        text
    }
}

/// An error that says which of the two failed.
pub(super) fn of_side<T>(name: &str, outcome: Result<T>) -> Result<T> {
    outcome.map_err(|error| match error {
        Error::Usage(text) => Error::Usage(format!("{name}: {text}")),
        Error::Unsupported(text) => Error::Unsupported(format!("{name}: {text}")),
        Error::Protocol(text) => Error::Protocol(format!("{name}: {text}")),
        Error::Diverged(text) => Error::Diverged(format!("{name}: {text}")),
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_beyond_the_tolerance_is_the_parting_and_the_worst_is_kept() {
        let mut ledger = Ledger::new(1e-3);
        ledger.numbers("loss ce", "", "step 1", &[1.0], &[1.0]);
        ledger.numbers("loss ce", "", "step 2", &[1.0], &[1.0005]);
        assert_eq!(ledger.parting, None);
        ledger.numbers("loss ce", "", "step 3", &[1.0], &[1.01]);
        ledger.numbers("loss ce", "", "step 4", &[1.0], &[2.0]);
        let parting = ledger.parting.expect("parted");
        assert_eq!((parting.place.as_str(), parting.what.as_str()), ("step 3", "1 and 1.01"));
        assert_eq!(
            (ledger.quantities[0].compared, ledger.quantities[0].at.as_str()),
            (4, "step 4")
        );
    }

    #[test]
    fn nan_lengths_and_shapes_never_agree_and_nothing_agrees_with_nothing() {
        for (a, b) in [
            (&[f64::NAN][..], &[f64::NAN][..]),
            (&[1.0], &[1.0, 1.0]),
            (&[0.0, f64::INFINITY], &[0.0, 1.0]),
        ] {
            let mut ledger = Ledger::new(1e9);
            ledger.numbers("x", "", "here", a, b);
            assert!(ledger.parting.is_some(), "{a:?} {b:?}");
        }
        let mut ledger = Ledger::new(1e-3);
        ledger.numbers("x", "", "here", &[], &[]);
        ledger.numbers("x", "", "here", &[1e-12], &[-1e-12]);
        assert_eq!(ledger.parting, None);
        let array = |shape: [usize; 2]| Array::from_f32(shape, &[0.0; 6]);
        ledger.arrays("y", "w", "here", &array([2, 3]), &array([3, 2])).expect("numbers");
        assert!(ledger.parting.expect("parted").what.contains("[2, 3] and [3, 2]"));
    }
}
