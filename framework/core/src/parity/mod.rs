//! Parity of two implementations of one method: identical draws and data, step by step, and the
//! first quantity in which they part.
//!
//! Both are driven through the public traits, as in a run, side by side: a PyTorch process plugin
//! and a method of this program, say. Compared are, by name, the loss terms of every step, the
//! probes, the state where names agree, the exemplars stored, and after each task the logits, the
//! predicted classes and the CLS tokens on the test images. What only one of them has is not
//! compared, and is noted.

mod drive;
mod ledger;
mod recorder;

use crate::Result;
use crate::context::Placement;
use crate::method::{Access, Player};
use crate::scenario::Scenario;

pub use ledger::{Parting, Quantity};

/// One of the two implementations, with nothing learned.
pub struct Side {
    /// What it is called in the report.
    pub name: String,
    /// The method.
    pub player: Box<dyn Player>,
    /// What it may see of past images.
    pub access: Access,
}

/// How they are compared.
#[derive(Debug, Clone)]
pub struct Options {
    /// The seed of data order, augmentation and draws.
    pub seed: u64,
    /// The device and the floating-point type.
    pub placement: Placement,
    /// The largest relative error that passes, ‖a − b‖ / max(‖a‖, ‖b‖).
    pub tolerance: f64,
    /// Stop after so many tasks.
    pub until: Option<usize>,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The worst error of each quantity, in the order in which they were met.
    pub quantities: Vec<Quantity>,
    /// Where they part; none if they agree in everything that was compared.
    pub parting: Option<Parting>,
    /// What could not be compared, because only one of them has it.
    pub notes: Vec<String>,
    /// Accuracy over all classes seen so far after each task, percent, of both.
    pub accuracy: Vec<(f64, f64)>,
    /// Training steps compared.
    pub steps: usize,
}

/// Drives both through `scenario` side by side, until they part or it ends.
///
/// # Errors
/// Whatever one of the two, or the data, fails with. That they part is no error: see
/// [`Report::parting`].
pub fn compare(a: Side, b: Side, scenario: &mut dyn Scenario, options: &Options) -> Result<Report> {
    drive::Pair::new(a, b, options).run(scenario)
}
