//! Learning-rate schedules, as functions of the epoch.

use std::f64::consts::PI;

/// Cosine annealing to zero over `period` epochs, PyTorch's `CosineAnnealingLR` in closed form;
/// past the period the rate goes up again.
pub fn cosine(rate: f64, epoch: f64, period: f64) -> f64 {
    rate * (1.0 + (PI * epoch / period).cos()) / 2.0
}

/// The schedule of the SR²-LoRA authors' Adam: rate·cos(99π·max(e−1, 0) / (200(K−1))) in epoch e of
/// K. It lags by one, so the first two epochs run at the full rate.
pub fn authors_cosine(rate: f64, epoch: usize, epochs: usize) -> f64 {
    if epochs <= 1 {
        return rate;
    }
    rate * (99.0 * PI * epoch.saturating_sub(1) as f64 / (200.0 * (epochs - 1) as f64)).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosine_goes_down_and_up_again() {
        let rates: Vec<f64> = (0..=10).map(|e| cosine(1.0, f64::from(e), 5.0)).collect();
        assert_eq!(rates[0], 1.0);
        assert!(rates[5].abs() < 1e-12 && (rates[10] - 1.0).abs() < 1e-12);
        assert!((rates[3] - rates[7]).abs() < 1e-12);
    }

    #[test]
    fn the_authors_schedule_lags_by_one() {
        assert_eq!(
            [authors_cosine(2.0, 0, 6), authors_cosine(2.0, 1, 6), authors_cosine(2.0, 0, 1)],
            [2.0; 3]
        );
        assert!((authors_cosine(2.0, 5, 6) - 2.0 * (99.0 * PI * 4.0 / 1000.0).cos()).abs() < 1e-12);
    }
}
