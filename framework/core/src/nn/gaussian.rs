//! Gaussians of features: one Cholesky factor each, sampling as a matrix product.

use candle_core::Tensor;

use super::Cholesky;
use crate::{Error, Result};

/// The mean (dim) and the unbiased covariance plus `ridge`·I (dim, dim) of features (n, dim); for n = 1 the covariance is `ridge`·I.
///
/// # Errors
/// If there are no features.
pub fn mean_and_covariance(features: &Tensor, ridge: f64) -> Result<(Tensor, Tensor)> {
    let (n, dim) = features.dims2()?;
    let mean = features.mean(0)?;
    let ridge = (Tensor::eye(dim, features.dtype(), features.device())? * ridge)?;
    if n < 2 {
        return Ok((mean, ridge));
    }
    let centred = features.broadcast_sub(&mean)?;
    let covariance = (centred.t()?.contiguous()?.matmul(&centred)? / (n - 1) as f64)?;
    Ok((mean, (covariance + ridge)?))
}

/// A Gaussian that can be sampled.
#[derive(Debug, Clone)]
pub struct Gaussian {
    mean: Tensor,
    /// Lᵀ, upper triangular, with covariance = L·Lᵀ.
    factor: Tensor,
}

impl Gaussian {
    /// Factors the covariance (dim, dim) once, in f64; the factor is kept in the mean's type on its device.
    ///
    /// # Errors
    /// [`Error::Diverged`] if the covariance is not finite or not positive definite.
    pub fn fit(mean: &Tensor, covariance: &Tensor) -> Result<Self> {
        let factor = Cholesky::new(covariance, 0.0)?;
        let factor = factor.ok_or_else(|| Error::Diverged("the covariance is not positive definite".into()))?.upper()?;
        Ok(Self { mean: mean.clone(), factor: factor.to_dtype(mean.dtype())?.to_device(mean.device())? })
    }

    /// The number of dimensions.
    pub fn dim(&self) -> usize {
        self.mean.elem_count()
    }

    /// mean + z·Lᵀ for standard normals z (n, dim).
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn sample(&self, normals: &Tensor) -> Result<Tensor> {
        Ok(normals.matmul(&self.factor)?.broadcast_add(&self.mean)?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn samples_have_the_mean_and_covariance_they_were_fitted_to() {
        let features = Tensor::randn(0f64, 1.0, (50, 3), &Device::Cpu).expect("randn");
        let mix = Tensor::new(&[[1.0f64, 0.5, 0.0], [0.0, 2.0, -1.0], [0.3, 0.0, 0.7]], &Device::Cpu).expect("mix");
        let (mean, covariance) = mean_and_covariance(&features.matmul(&mix).expect("mm"), 0.01).expect("moments");
        let gaussian = Gaussian::fit(&mean, &covariance).expect("fit");
        // Samples of the unit vectors give the rows of Lᵀ: their products must be the covariance.
        let unit = Tensor::eye(3, DType::F64, &Device::Cpu).expect("eye");
        let rows = gaussian.sample(&unit).expect("sample").broadcast_sub(&mean).expect("sub");
        let product = rows.t().expect("t").matmul(&rows).expect("mm");
        let worst = (product - covariance).expect("sub").abs().expect("abs").max_all().expect("max").to_scalar::<f64>().expect("scalar");
        assert!(worst < 1e-12, "{worst}");
    }

    #[test]
    fn one_image_gives_the_ridge_alone() {
        let (_, covariance) = mean_and_covariance(&Tensor::ones((1, 2), DType::F64, &Device::Cpu).expect("ones"), 0.01).expect("moments");
        assert_eq!(covariance.to_vec2::<f64>().expect("values"), [[0.01, 0.0], [0.0, 0.01]]);
    }

    #[test]
    fn a_covariance_that_is_none_is_refused() {
        let mean = Tensor::zeros(2, DType::F64, &Device::Cpu).expect("mean");
        let bad = Tensor::new(&[[1.0f64, 2.0], [2.0, 1.0]], &Device::Cpu).expect("bad");
        assert!(Gaussian::fit(&mean, &bad).is_err());
    }
}
