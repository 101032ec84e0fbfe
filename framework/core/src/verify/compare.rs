//! Comparing recorded quantities: relative errors in the Frobenius norm, the worst of each kind,
//! against a tolerance.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Tensor};

use crate::Result;

/// The worst error of one kind of quantity.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// Which kind: `ce_loss`, `trained.lora`, ….
    pub quantity: String,
    /// How many tensors were compared.
    pub tensors: usize,
    /// The worst relative error, ‖ours − theirs‖ / ‖theirs‖.
    pub worst: f64,
    /// In which tensor it was.
    pub at: String,
    /// The largest error that passes.
    pub tolerance: f64,
}

impl Check {
    /// Whether the worst error is within the tolerance; not a number never is.
    pub fn passed(&self) -> bool {
        self.worst <= self.tolerance
    }
}

/// Collects comparisons.
pub(super) struct Comparison {
    checks: BTreeMap<String, Check>,
    compared: BTreeSet<String>,
    dtype: DType,
    adam: bool,
}

impl Comparison {
    pub(super) fn new(dtype: DType, adam: bool) -> Self {
        Self { checks: BTreeMap::new(), compared: BTreeSet::new(), dtype, adam }
    }

    /// Compares `ours` with the file's tensor `name`, of kind `quantity`.
    pub(super) fn add(&mut self, quantity: &str, name: &str, ours: &[f64], theirs: &[f64]) {
        let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
        let error = if ours.len() == theirs.len() {
            let difference = norm(&mut ours.iter().zip(theirs).map(|(a, b)| a - b));
            difference / norm(&mut theirs.iter().copied()).max(1e-12)
        } else {
            f64::INFINITY
        };
        self.compared.insert(name.to_owned());
        let tolerance = self.tolerance(quantity);
        let fresh = Check {
            quantity: quantity.to_owned(),
            tensors: 0,
            worst: 0.0,
            at: name.to_owned(),
            tolerance,
        };
        let check = self.checks.entry(quantity.to_owned()).or_insert(fresh);
        check.tensors += 1;
        // A NaN is the worst of all, and stays so: nothing is greater than it.
        if error.is_nan() || error > check.worst {
            (check.worst, check.at) = (error, name.to_owned());
        }
    }

    /// As [`Comparison::add`], for a tensor.
    pub(super) fn tensor(
        &mut self,
        quantity: &str,
        name: &str,
        ours: &Tensor,
        theirs: &[f64],
    ) -> Result<()> {
        self.add(
            quantity,
            name,
            &ours.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?,
            theirs,
        );
        Ok(())
    }

    /// f32: 1e-3, trained pairs under Adam 1e-2; f64: 1e-5 and 1e-3. Adam's first steps amplify the
    /// rounding of the stored weights.
    fn tolerance(&self, quantity: &str) -> f64 {
        let pairs = self.adam && quantity.ends_with(".lora");
        match (self.dtype, pairs) {
            (DType::F64, false) => 1e-5,
            (DType::F64, true) | (_, false) => 1e-3,
            (_, true) => 1e-2,
        }
    }

    /// Records a recorded quantity that was not compared: a failure.
    pub(super) fn missing(&mut self, name: &str) {
        self.add("not compared", name, &[], &[0.0]);
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.compared.contains(name)
    }

    pub(super) fn finish(self) -> Vec<Check> {
        self.checks.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_error_counts_and_nan_never_passes() {
        let mut c = Comparison::new(DType::F32, false);
        c.add("x", "a", &[1.0, 1.0], &[1.0, 1.0]);
        c.add("x", "b", &[1.0, 1.1], &[1.0, 1.0]);
        c.add("x", "c", &[1.0], &[1.0]);
        c.add("y", "d", &[f64::NAN], &[1.0]);
        c.add("y", "e", &[1.0], &[1.0]);
        c.add("z", "f", &[1.0], &[1.0, 2.0]);
        let checks = c.finish();
        assert!(
            (checks[0].worst - 0.1 / 2f64.sqrt()).abs() < 1e-12
                && checks[0].at == "b"
                && !checks[0].passed()
        );
        assert!(!checks[1].passed() && !checks[2].passed());
    }
}
