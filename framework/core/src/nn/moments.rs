//! Means and covariances of features.

use candle_core::{DType, Device, Tensor};

use super::float::{Float, vectorised};
use super::gaussian::with_values;
use super::product::{Old, View, product};
use crate::{Error, Result};

/// The mean (dim) and the unbiased covariance plus `ridge`·I (dim, dim) of some rows of features (n, dim); of one row the covariance is `ridge`·I. On one
/// thread on the CPU.
///
/// # Errors
/// If there are no rows, or one is out of range.
pub fn mean_and_covariance(features: &Tensor, rows: &[u32], ridge: f64) -> Result<(Tensor, Tensor)> {
    let (n, dim) = features.dims2()?;
    if dim == 0 || rows.is_empty() {
        return Err(Error::Protocol("a mean and a covariance of no features".into()));
    }
    if let Some(row) = rows.iter().find(|row| **row as usize >= n) {
        return Err(Error::Protocol(format!("row {row} of {n} features")));
    }
    let device = features.device();
    if super::own(features) && matches!(features.dtype(), DType::F32 | DType::F64) {
        let features = features.contiguous()?;
        return match features.dtype() {
            DType::F32 => tensors(with_values(&features, |x| moments::<f32>(x, rows, dim, ridge))?),
            _ => tensors(with_values(&features, |x| moments::<f64>(x, rows, dim, ridge))?),
        };
    }
    let rows = features.index_select(&Tensor::new(rows, device)?, 0)?;
    let (n, mean) = (rows.dim(0)?, rows.mean(0)?);
    let ridge = (Tensor::eye(dim, features.dtype(), device)? * ridge)?;
    if n < 2 {
        return Ok((mean, ridge));
    }
    let centred = rows.broadcast_sub(&mean)?.contiguous()?;
    let covariance = (centred.t()?.matmul(&centred)? / (n - 1) as f64)?;
    Ok((mean, (covariance + ridge)?))
}

fn tensors<T: candle_core::WithDType>((mean, covariance): (Vec<T>, Vec<T>)) -> Result<(Tensor, Tensor)> {
    let (dim, device) = (mean.len(), &Device::Cpu);
    Ok((Tensor::from_vec(mean, dim, device)?, Tensor::from_vec(covariance, (dim, dim), device)?))
}

/// The mean and CᵀC / (n − 1) + ridge·I for the centred rows C (n, dim).
fn moments<T: Float>(x: &[T], rows: &[u32], dim: usize, ridge: f64) -> (Vec<T>, Vec<T>) {
    let (mut mean, mut covariance) = (vec![T::ZERO; dim], vec![T::ZERO; dim * dim]);
    let n = rows.len();
    T::with_room(n * dim, |centred| {
        for (to, row) in centred.chunks_exact_mut(dim).zip(rows) {
            to.copy_from_slice(&x[*row as usize * dim..][..dim]);
        }
        centre(centred, &mut mean);
        if n > 1 {
            let (all, scale) = (View::rows(dim), 1.0 / (n - 1) as f64);
            product((dim, dim, n), (&mut covariance, all, Old::Dropped), (centred, all.t()), (centred, all), scale);
        }
    });
    covariance.iter_mut().step_by(dim + 1).for_each(|v| *v += T::narrow(ridge));
    (mean, covariance)
}

vectorised! {
    /// Subtracts the mean of all rows from each, and puts it into `mean`, which must be zeros.
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
    use super::super::as_on_a_device;
    use super::*;

    #[test]
    fn are_those_of_the_named_rows() {
        let rows = [7u32, 0, 3, 4];
        for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-5)] {
            let features = Tensor::randn(3f64, 1.0, (9, 5), &Device::Cpu).expect("randn").to_dtype(dtype).expect("type");
            let named = features.index_select(&Tensor::new(&rows, &Device::Cpu).expect("rows"), 0).expect("select");
            let named = named.to_dtype(DType::F64).expect("type").to_vec2::<f64>().expect("values");
            let mean: Vec<f64> = (0..5).map(|i| named.iter().map(|row| row[i]).sum::<f64>() / 4.0).collect();
            let both = || mean_and_covariance(&features, &rows, 0.1).expect("moments");
            for (found, covariance) in [both(), as_on_a_device(both)] {
                let found = found.to_dtype(DType::F64).expect("type").to_vec1::<f64>().expect("mean");
                let covariance = covariance.to_dtype(DType::F64).expect("type").to_vec2::<f64>().expect("covariance");
                for i in 0..5 {
                    assert!((found[i] - mean[i]).abs() < tolerance);
                    for j in 0..5 {
                        let sum: f64 = named.iter().map(|row| (row[i] - mean[i]) * (row[j] - mean[j])).sum();
                        let expected = sum / 3.0 + if i == j { 0.1 } else { 0.0 };
                        assert!((covariance[i][j] - expected).abs() < tolerance, "{} for {expected}", covariance[i][j]);
                    }
                }
            }
        }
    }

    #[test]
    fn one_row_gives_the_ridge_alone() {
        let features = Tensor::ones((3, 2), DType::F64, &Device::Cpu).expect("ones");
        let (_, covariance) = mean_and_covariance(&features, &[1], 0.01).expect("moments");
        assert_eq!(covariance.to_vec2::<f64>().expect("values"), [[0.01, 0.0], [0.0, 0.01]]);
    }

    #[test]
    fn rows_that_are_not_there_are_refused() {
        let features = Tensor::ones((3, 2), DType::F32, &Device::Cpu).expect("ones");
        let said = |rows: &[u32]| mean_and_covariance(&features, rows, 0.1).expect_err("no such rows").to_string();
        assert!(said(&[0, 3]).contains("row 3 of 3 features") && said(&[]).contains("no features"));
    }
}
