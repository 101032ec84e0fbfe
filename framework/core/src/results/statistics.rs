//! Mean, standard deviation and 95 % confidence interval over several seeds.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

/// Several runs' values of one metric.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// How many values.
    pub n: usize,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation (n − 1); none for one value.
    pub std: Option<f64>,
    /// Half the width of the mean's 95 % confidence interval by Student's t; none for one value.
    pub ci95: Option<f64>,
}

impl Statistics {
    /// The statistics of some values; none for no values.
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        if n == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        if n == 1 {
            return Some(Self { n, mean, std: None, ci95: None });
        }
        let std = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1) as f64).sqrt();
        let t = StudentsT::new(0.0, 1.0, (n - 1) as f64).map(|t| t.inverse_cdf(0.975)).ok();
        Some(Self { n, mean, std: Some(std), ci95: t.map(|t| t * std / (n as f64).sqrt()) })
    }
}

impl std::fmt::Display for Statistics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.std {
            Some(std) => write!(f, "{:.2} ± {std:.2}", self.mean),
            None => write!(f, "{:.2}", self.mean),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_values() {
        let s = Statistics::of(&[1.0, 2.0, 3.0]).expect("values");
        assert_eq!((s.n, s.mean, s.std), (3, 2.0, Some(1.0)));
        // t(0.975, 2) = 4.302653 (any table).
        assert!((s.ci95.expect("ci") - 4.302_653 / 3f64.sqrt()).abs() < 1e-5);
        assert_eq!(Statistics::of(&[]), None);
        assert_eq!(Statistics::of(&[5.0]).expect("one").ci95, None);
    }
}
