//! Losses. Cross-entropy and entropy have CPU kernels; the others are composed of candle
//! operations.

use candle_core::{D, Tensor};

pub(crate) mod cpu;

use crate::Result;
use crate::nn;
pub use cpu::normalised;
use cpu::{RowLoss, row_loss};

/// log softmax over the last dimension, computed so that it does not overflow.
fn log_softmax(logits: &Tensor) -> Result<Tensor> {
    let shifted = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?.detach())?;
    let normaliser = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    Ok(shifted.broadcast_sub(&normaliser)?)
}

/// The mean cross-entropy of logits (n, classes) against i64 labels (n), a scalar.
///
/// # Errors
/// If a label is out of range.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    if nn::has_cpu_kernel(logits) {
        return row_loss(logits, RowLoss::CrossEntropy(labels.to_vec1::<i64>()?.into()));
    }
    let picked = log_softmax(logits)?.gather(&labels.unsqueeze(1)?.contiguous()?, 1)?;
    Ok(picked.mean_all()?.neg()?)
}

/// The mean over rows of the entropy of softmax(logits), a scalar; the logits are (n, classes).
///
/// # Errors
/// If the tensor operation fails.
pub fn mean_entropy(logits: &Tensor) -> Result<Tensor> {
    if nn::has_cpu_kernel(logits) {
        return row_loss(logits, RowLoss::Entropy);
    }
    let log = log_softmax(logits)?;
    Ok((log.exp()? * &log)?.sum(D::Minus1)?.mean_all()?.neg()?)
}

/// The mean over rows of Σ_c −t·log σ(z) − (1−t)·log(1−σ(z)), a scalar. The logits z and the
/// targets t in \[0, 1\] are (n, classes).
///
/// # Errors
/// If the shapes differ.
pub fn binary_cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    // max(z, 0) − z·t + log(1 + exp(−|z|)) does not overflow.
    let softplus = ((logits.abs()?.neg()?.exp()? + 1.0)?.log()? + logits.relu()?)?;
    Ok((softplus - (logits * targets)?)?.sum(D::Minus1)?.mean_all()?)
}

/// Knowledge distillation at temperature T (Hinton et al. 2015): the mean over rows of −Σ_c
/// softmax(teacher / T)·log softmax(logits / T), a scalar. Both are (n, classes).
///
/// # Errors
/// If the shapes differ.
pub fn distillation(logits: &Tensor, teacher: &Tensor, temperature: f64) -> Result<Tensor> {
    let soft = log_softmax(&(teacher.detach() / temperature)?)?.exp()?;
    Ok((soft * log_softmax(&(logits / temperature)?)?)?.sum(D::Minus1)?.mean_all()?.neg()?)
}

/// The mean squared difference of two tensors of one shape, a scalar.
///
/// # Errors
/// If the shapes differ.
pub fn mse(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok((a - b)?.sqr()?.mean_all()?)
}

/// The mean smooth-L1 difference with β = 1, a scalar: d²/2 where |d| < 1, else |d| − 1/2.
///
/// # Errors
/// If the shapes differ.
pub fn smooth_l1(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let d = (a - b)?.abs()?;
    // With m = min(|d|, 1): m²/2 + (|d| − m). Both pieces and their gradients meet at 1.
    let m = d.minimum(&d.ones_like()?)?;
    Ok(((m.sqr()? * 0.5)? + (d - &m)?)?.mean_all()?)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    fn scalar(t: &Tensor) -> f64 {
        t.to_scalar::<f64>().expect("scalar")
    }

    /// Compares the gradient with central differences.
    fn check_gradient(values: &[f64], shape: (usize, usize), loss: impl Fn(&Tensor) -> Tensor) {
        let at = |v: &[f64]| Tensor::from_slice(v, shape, &Device::Cpu).expect("tensor");
        let x = Var::from_tensor(&at(values)).expect("var");
        let gradient = loss(&x)
            .backward()
            .expect("bwd")
            .get(&x)
            .expect("dx")
            .flatten_all()
            .expect("flat")
            .to_vec1::<f64>()
            .expect("values");
        for i in 0..values.len() {
            let moved = |d: f64| {
                let mut v = values.to_vec();
                v[i] += d;
                scalar(&loss(&at(&v)))
            };
            let numeric = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            assert!((numeric - gradient[i]).abs() < 1e-7, "{i}: {numeric} {}", gradient[i]);
        }
    }

    const VALUES: [f64; 6] = [0.3, -1.2, 2.5, 700.0, 699.0, 698.5];

    #[test]
    fn cross_entropy_is_stable_and_right() {
        let labels = Tensor::new(&[2i64, 0], &Device::Cpu).expect("labels");
        let logits = Tensor::from_slice(&VALUES, (2, 3), &Device::Cpu).expect("logits");
        let by_hand = |row: &[f64], label: usize| {
            (row.iter().map(|v| (v - row[label]).exp()).sum::<f64>()).ln()
        };
        let expected = (by_hand(&VALUES[..3], 2) + by_hand(&VALUES[3..], 0)) / 2.0;
        assert!((scalar(&cross_entropy(&logits, &labels).expect("ce")) - expected).abs() < 1e-12);
        check_gradient(&VALUES, (2, 3), |x| cross_entropy(x, &labels).expect("ce"));
    }

    #[test]
    fn entropy_of_equal_logits_is_the_log_of_their_number() {
        let entropy = mean_entropy(
            &Tensor::zeros((4, 5), candle_core::DType::F64, &Device::Cpu).expect("zeros"),
        )
        .expect("entropy");
        assert!((scalar(&entropy) - 5f64.ln()).abs() < 1e-12);
        check_gradient(&VALUES, (2, 3), |x| mean_entropy(x).expect("entropy"));
    }

    #[test]
    fn binary_cross_entropy_is_stable_and_right() {
        let targets =
            Tensor::new(&[[0.0f64, 1.0, 0.3], [1.0, 0.0, 0.5]], &Device::Cpu).expect("targets");
        let term = |z: f64, t: f64| t * (1.0 + (-z).exp()).ln() + (1.0 - t) * (1.0 + z.exp()).ln();
        let expected = term(0.3, 0.0) + term(-1.2, 1.0) + term(2.5, 0.3);
        let row = |t: &Tensor| t.narrow(0, 0, 1).expect("row");
        let logits = Tensor::from_slice(&VALUES, (2, 3), &Device::Cpu).expect("logits");
        assert!(
            (scalar(&binary_cross_entropy(&row(&logits), &row(&targets)).expect("bce")) - expected)
                .abs()
                < 1e-12
        );
        let whole = scalar(&binary_cross_entropy(&logits, &targets).expect("bce"));
        assert!((whole - (expected + 699.0 + 698.5 * 0.5) / 2.0).abs() < 1e-9, "{whole}");
        check_gradient(&VALUES, (2, 3), |x| binary_cross_entropy(x, &targets).expect("bce"));
    }

    #[test]
    fn distillation_is_least_where_both_agree() {
        let teacher =
            Tensor::new(&[[0.2f64, -1.0, 3.0], [1.0, 1.0, 0.0]], &Device::Cpu).expect("teacher");
        let at = |x: &Tensor| distillation(x, &teacher, 2.0).expect("kd");
        let moved = (&teacher
            + Tensor::new(&[[0.5f64, 0.0, 0.0]], &Device::Cpu)
                .expect("shift")
                .broadcast_as((2, 3))
                .expect("shift"))
        .expect("add");
        let soft = ((&teacher + 5.0).expect("add") / 2.0).expect("div");
        assert!(
            (scalar(&at(&(&teacher + 5.0).expect("add")))
                - scalar(&mean_entropy(&soft).expect("entropy")))
            .abs()
                < 1e-12
        );
        assert!(scalar(&at(&teacher)) < scalar(&at(&moved)));
        check_gradient(&VALUES, (2, 3), at);
    }

    #[test]
    fn smooth_l1_has_both_pieces() {
        let a = Tensor::new(&[[0.5f64, 3.0]], &Device::Cpu).expect("a");
        let zero = a.zeros_like().expect("zero");
        assert!((scalar(&smooth_l1(&a, &zero).expect("loss")) - (0.125 + 2.5) / 2.0).abs() < 1e-12);
        check_gradient(&[0.5, -0.5, 3.0, -3.0], (2, 2), |x| {
            smooth_l1(x, &x.zeros_like().expect("zero")).expect("loss")
        });
    }
}
