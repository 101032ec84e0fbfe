//! Gaussians fitted to features.

use candle_core::{DType, Device, Tensor};

use super::Gaussian;
use super::packed::packed_transpose;
use crate::nn;
use crate::nn::cpu::cholesky::{self, Threads};
use crate::nn::cpu::product::{View, product};
use crate::nn::cpu::simd::{Float, vectorised};
use crate::nn::cpu::storage::with_values;
use crate::{Error, Result};

/// Rows of the covariance per product. What lies right of the last row's diagonal element is not
/// computed.
const STRIP: usize = 128;

impl Gaussian {
    /// Fits some rows of features (n, dim): takes their mean and factors their unbiased covariance
    /// plus `ridge`·I. For one row the covariance is `ridge`·I. The covariance is factored in f64.
    /// With CPU kernels this takes one thread, so that classes can be fitted in parallel.
    ///
    /// # Errors
    /// If there are no rows, or one is out of range; [`Error::Diverged`] if the covariance is not
    /// finite or not positive definite.
    pub fn of_rows(features: &Tensor, rows: &[u32], ridge: f64) -> Result<Self> {
        let (n, dim) = features.dims2()?;
        if dim == 0 || rows.is_empty() {
            return Err(Error::Protocol("a mean and a covariance of no features".into()));
        }
        if let Some(row) = rows.iter().find(|row| **row as usize >= n) {
            return Err(Error::Protocol(format!("row {row} of {n} features")));
        }
        match features.dtype() {
            DType::F32 if nn::has_cpu_kernel(features) => own::<f32>(features, rows, dim, ridge),
            DType::F64 if nn::has_cpu_kernel(features) => own::<f64>(features, rows, dim, ridge),
            _ => composed(features, rows, dim, ridge),
        }
    }
}

fn not_finite(what: &str) -> Error {
    Error::Diverged(format!("the {what} is not finite"))
}

fn composed(features: &Tensor, rows: &[u32], dim: usize, ridge: f64) -> Result<Gaussian> {
    let device = features.device();
    let rows = features.index_select(&Tensor::new(rows, device)?, 0)?;
    let (n, mean) = (rows.dim(0)?, rows.mean(0)?);
    if !mean.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?.is_finite() {
        return Err(not_finite("mean"));
    }
    let ridge = (Tensor::eye(dim, features.dtype(), device)? * ridge)?;
    if n < 2 {
        return Gaussian::fit(&mean, &ridge);
    }
    let centred = rows.broadcast_sub(&mean)?.contiguous()?;
    let covariance = (centred.t()?.matmul(&centred)? / (n - 1) as f64)?;
    Gaussian::fit(&mean, &(covariance + ridge)?)
}

/// Computes the lower triangle of CᵀC / (n − 1) + ridge·I strip by strip, C (n, dim) being the
/// centred rows, and factors it in a buffer of this thread.
fn own<T: Float + candle_core::WithDType>(
    features: &Tensor,
    rows: &[u32],
    dim: usize,
    ridge: f64,
) -> Result<Gaussian> {
    let (n, mut mean) = (rows.len(), vec![T::ZERO; dim]);
    let factor = with_values(&features.contiguous()?, |x: &[T]| {
        T::with_room((n + STRIP) * dim, |room| {
            let (centred, strip) = room.split_at_mut(n * dim);
            for (to, row) in centred.chunks_exact_mut(dim).zip(rows) {
                to.copy_from_slice(&x[*row as usize * dim..][..dim]);
            }
            centre(centred, &mut mean);
            if mean.iter().any(|v| !v.wide().is_finite()) {
                return Err(not_finite("mean"));
            }
            f64::with_room(dim * dim, |lower| {
                for (first, rows) in (0..dim).step_by(STRIP).zip(lower.chunks_mut(STRIP * dim)) {
                    covariance_strip(first, (centred, dim), strip, ridge, rows);
                }
                // By the Cauchy–Schwarz inequality the other elements are no larger.
                if lower.iter().step_by(dim + 1).any(|v| !v.is_finite()) {
                    return Err(not_finite("covariance"));
                }
                match cholesky::factor(lower, dim, Threads::One) {
                    true => Ok(packed_transpose::<T>(lower, dim)),
                    false => Err(Error::Diverged("the covariance is not positive definite".into())),
                }
            })
        })
    })??;
    let device = &Device::Cpu;
    Gaussian::from_packed(
        Tensor::from_vec(mean, dim, device)?,
        &Tensor::from_vec(factor, ((),), device)?,
    )
}

/// Computes some rows of the covariance, from row `first` on, each up to its diagonal.
fn covariance_strip<T: Float>(
    first: usize,
    (centred, dim): (&[T], usize),
    strip: &mut [T],
    ridge: f64,
    lower: &mut [f64],
) {
    let (n, height) = (centred.len() / dim, lower.len() / dim);
    let width = first + height;
    let strip = &mut strip[..height * width];
    if n > 1 {
        let all = View::rows(dim);
        let (turned, all) = (all.t().after(first).of(centred), all.of(centred));
        let out = View::rows(width).replaced(strip);
        product((height, width, n), out, turned, all, 1.0 / (n - 1) as f64);
    } else {
        strip.fill(T::ZERO);
    }
    for (i, (to, row)) in lower.chunks_exact_mut(dim).zip(strip.chunks_exact_mut(width)).enumerate()
    {
        row[first + i] += T::narrow(ridge);
        to.iter_mut().zip(&row[..=first + i]).for_each(|(l, v)| *l = v.wide());
    }
}

vectorised! {
    /// Subtracts the mean of all rows from each row and writes it to `mean`, which must be zeros.
    fn centre(rows: &'a mut [T], mean: &'a mut [T]) {
        let dim = mean.len();
        let share = T::ONE / T::narrow((rows.len() / dim) as f64);
        for row in rows.chunks_exact(dim) {
            for (m, v) in mean.iter_mut().zip(row) {
                *m += *v;
            }
        }
        mean.iter_mut().for_each(|m| *m = *m * share);
        for row in rows.chunks_exact_mut(dim) {
            for (v, m) in row.iter_mut().zip(&*mean) {
                *v = *v - *m;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::as_on_a_device;

    /// The mean and the covariance.
    fn moments(gaussian: &Gaussian) -> (Vec<f64>, Vec<Vec<f64>>) {
        let wide = |t: &Tensor| t.to_dtype(DType::F64).expect("type");
        let factor = wide(&gaussian.factor().expect("factor"));
        let covariance =
            factor.t().expect("t").matmul(&factor).expect("product").to_vec2().expect("values");
        (wide(gaussian.mean()).to_vec1().expect("values"), covariance)
    }

    #[test]
    fn are_those_of_the_named_rows() {
        // Several strips in the second.
        for (n, dim, rows) in
            [(9, 5, vec![7u32, 0, 3, 4]), (80, 2 * STRIP + 44, (0..70).rev().collect())]
        {
            for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-5)] {
                // Old values in the buffers must not change the result.
                f64::with_room(2 * dim * dim, |a| {
                    f64::with_room(2 * dim * dim, |b| [a, b].map(|room| room.fill(f64::NAN)))
                });
                f32::with_room(2 * dim * dim, |room| room.fill(f32::NAN));
                let features = Tensor::randn(3f64, 1.0, (n, dim), &Device::Cpu)
                    .expect("randn")
                    .to_dtype(dtype)
                    .expect("type");
                let named = features
                    .index_select(&Tensor::new(&rows[..], &Device::Cpu).expect("rows"), 0)
                    .expect("select");
                let named =
                    named.to_dtype(DType::F64).expect("type").to_vec2::<f64>().expect("values");
                let count = rows.len() as f64;
                let mean: Vec<f64> =
                    (0..dim).map(|i| named.iter().map(|row| row[i]).sum::<f64>() / count).collect();
                let both = || moments(&Gaussian::of_rows(&features, &rows, 0.1).expect("fit"));
                for (found, covariance) in [both(), as_on_a_device(both)] {
                    for i in 0..dim {
                        assert!((found[i] - mean[i]).abs() < tolerance);
                        for j in 0..dim {
                            let sum: f64 = named
                                .iter()
                                .map(|row| (row[i] - mean[i]) * (row[j] - mean[j]))
                                .sum();
                            let expected = sum / (count - 1.0) + if i == j { 0.1 } else { 0.0 };
                            assert!(
                                (covariance[i][j] - expected).abs() < tolerance,
                                "{} for {expected}",
                                covariance[i][j]
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn one_row_gives_the_ridge_alone() {
        let wide = Tensor::ones((1, STRIP + 3), DType::F32, &Device::Cpu).expect("ones");
        let factor = Gaussian::of_rows(&wide, &[0], 0.25).expect("fit").factor().expect("factor");
        assert_eq!(
            factor.sum_all().expect("sum").to_scalar::<f32>().expect("sum"),
            0.5 * (STRIP + 3) as f32
        );
        let features = Tensor::ones((3, 2), DType::F64, &Device::Cpu).expect("ones");
        for gaussian in [
            Gaussian::of_rows(&features, &[1], 0.25),
            as_on_a_device(|| Gaussian::of_rows(&features, &[1], 0.25)),
        ] {
            assert_eq!(
                moments(&gaussian.expect("fit")),
                (vec![1.0; 2], vec![vec![0.25, 0.0], vec![0.0, 0.25]])
            );
        }
    }

    #[test]
    fn rows_that_are_not_there_and_features_without_a_factor_are_refused() {
        let features = Tensor::ones((3, 2), DType::F32, &Device::Cpu).expect("ones");
        let said = |rows: &[u32]| {
            Gaussian::of_rows(&features, rows, 0.1).expect_err("no such rows").to_string()
        };
        assert!(said(&[0, 3]).contains("row 3 of 3 features") && said(&[]).contains("no features"));
        let flat = |features: &Tensor| {
            let said =
                || Gaussian::of_rows(features, &[0, 1, 2], 0.0).expect_err("no factor").to_string();
            [said(), as_on_a_device(said)]
        };
        assert!(flat(&features).iter().all(|said| said.contains("not positive definite")));
        for bad in [f32::NAN, f32::INFINITY, f32::MAX] {
            let features = Tensor::new(&[[1f32, 2.0], [3.0, bad], [0.0, 4.0]], &Device::Cpu)
                .expect("features");
            let said = flat(&features);
            assert!(said.iter().all(|said| said.contains("not finite")), "{bad}: {said:?}");
        }
    }
}
