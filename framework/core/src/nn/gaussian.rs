//! Gaussians of features: one Cholesky factor each, sampling as a matrix product.

use candle_core::{DType, Storage, Tensor};
use rayon::prelude::*;

use super::Cholesky;
use super::float::Float;
use super::product::{Old, View, product};
use crate::{Error, Result};

/// Samples a task of a thread.
const ROWS: usize = 160;
/// Columns of a factor a product: what lies left of them below the diagonal is zero and left out.
const COLUMNS: usize = 128;

/// The mean (dim) and the unbiased covariance plus `ridge`·I (dim, dim) of features (n, dim); for n = 1 the covariance is `ridge`·I.
///
/// # Errors
/// If there are no features.
pub fn mean_and_covariance(features: &Tensor, ridge: f64) -> Result<(Tensor, Tensor)> {
    let (n, dim) = features.dims2()?;
    if n == 0 {
        return Err(Error::Protocol("a mean and a covariance of no features".into()));
    }
    let mean = features.mean(0)?;
    let device = features.device();
    let centred = features.broadcast_sub(&mean)?.contiguous()?;
    match features.dtype() {
        DType::F32 if super::own(features) => {
            let covariance = with_values(&centred, |c| covariance::<f32>(c, (n, dim), ridge))?;
            return Ok((mean, Tensor::from_vec(covariance, (dim, dim), device)?));
        }
        DType::F64 if super::own(features) => {
            let covariance = with_values(&centred, |c| covariance::<f64>(c, (n, dim), ridge))?;
            return Ok((mean, Tensor::from_vec(covariance, (dim, dim), device)?));
        }
        _ => {}
    }
    let ridge = (Tensor::eye(dim, features.dtype(), device)? * ridge)?;
    if n < 2 {
        return Ok((mean, ridge));
    }
    let covariance = (centred.t()?.matmul(&centred)? / (n - 1) as f64)?;
    Ok((mean, (covariance + ridge)?))
}

/// CᵀC / (n − 1) + ridge·I for centred features C (n, dim), on one thread.
fn covariance<T: Float>(centred: &[T], (n, dim): (usize, usize), ridge: f64) -> Vec<T> {
    let mut out = vec![T::ZERO; dim * dim];
    if n > 1 {
        let rows = View::rows(dim);
        product((dim, dim, n), (&mut out, rows, Old::Dropped), (centred, rows.t()), (centred, rows), 1.0 / (n - 1) as f64);
    }
    out.iter_mut().step_by(dim + 1).for_each(|v| *v += T::narrow(ridge));
    out
}

/// What `f` makes of the values of a contiguous CPU tensor of type `T`.
pub(super) fn with_values<T: Float, R>(tensor: &Tensor, f: impl FnOnce(&[T]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    if let (Storage::Cpu(values), Some((start, end))) = (&*storage, layout.contiguous_offsets())
        && let Some(all) = T::slice(values)
    {
        return Ok(f(&all[start..end]));
    }
    let (dtype, device) = (tensor.dtype(), tensor.device());
    Err(Error::Protocol(format!("tensors are not of one type on one device: one is {dtype:?} on {device:?}")))
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

    /// Of a mean (dim) and Lᵀ (dim, dim), upper triangular, as [`Gaussian::mean`] and [`Gaussian::factor`] give them.
    ///
    /// # Errors
    /// [`Error::Protocol`] if the shapes do not fit.
    pub fn from_factor(mean: Tensor, factor: Tensor) -> Result<Self> {
        if factor.dims() != [mean.elem_count(), mean.elem_count()] {
            let (mean, factor) = (mean.dims(), factor.dims());
            return Err(Error::Protocol(format!("a Gaussian with a mean of shape {mean:?} and a factor of shape {factor:?}")));
        }
        Ok(Self { mean: mean.contiguous()?, factor: factor.contiguous()? })
    }

    /// The number of dimensions.
    pub fn dim(&self) -> usize {
        self.mean.elem_count()
    }

    /// The mean (dim).
    pub fn mean(&self) -> &Tensor {
        &self.mean
    }

    /// Lᵀ (dim, dim), upper triangular: the covariance is L·Lᵀ.
    pub fn factor(&self) -> &Tensor {
        &self.factor
    }

    /// mean + z·Lᵀ for standard normals z (n, dim).
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn sample(&self, normals: &Tensor) -> Result<Tensor> {
        let mut features = Features::default();
        features.draw(&[self], |_, _| Ok(normals.clone()))?;
        features.tensor()
    }
}

/// Features (n, dim) in a buffer that can be filled again and again.
#[derive(Debug, Default)]
pub struct Features(pub(super) Kept);

/// Values in memory with their width, or a tensor wherever it is.
#[derive(Debug, Default)]
pub(super) enum Kept {
    #[default]
    Nothing,
    F32(Vec<f32>, usize),
    F64(Vec<f64>, usize),
    Tensor(Tensor),
}

impl Features {
    /// Those of a tensor (n, dim).
    pub fn of(features: Tensor) -> Self {
        Self(Kept::Tensor(features))
    }

    /// Draws the same number of samples of each Gaussian, one Gaussian after the other. `normals` gives the standard normals (n, dim) of each.
    ///
    /// # Errors
    /// If there is no Gaussian, or the shapes do not fit; whatever `normals` fails with.
    pub fn draw(&mut self, gaussians: &[&Gaussian], mut normals: impl FnMut(usize, &Gaussian) -> Result<Tensor>) -> Result<()> {
        let kept = std::mem::take(&mut self.0);
        self.0 = match gaussians.first() {
            Some(g) if super::own(&g.mean) && g.mean.dtype() == DType::F32 => {
                let mut values = if let Kept::F32(values, _) = kept { values } else { Vec::new() };
                own_samples(&mut values, gaussians, normals)?;
                Kept::F32(values, g.dim())
            }
            Some(g) if super::own(&g.mean) && g.mean.dtype() == DType::F64 => {
                let mut values = if let Kept::F64(values, _) = kept { values } else { Vec::new() };
                own_samples(&mut values, gaussians, normals)?;
                Kept::F64(values, g.dim())
            }
            _ => {
                let one = |(i, g): (usize, &&Gaussian)| Ok(normals(i, g)?.matmul(&g.factor)?.broadcast_add(&g.mean)?);
                Kept::Tensor(Tensor::cat(&gaussians.iter().enumerate().map(one).collect::<Result<Vec<_>>>()?, 0)?)
            }
        };
        Ok(())
    }

    /// As a tensor (n, dim).
    ///
    /// # Errors
    /// If there are none yet.
    pub fn tensor(self) -> Result<Tensor> {
        let cpu = &candle_core::Device::Cpu;
        match self.0 {
            Kept::Nothing => Err(Error::Protocol("features were asked for before any were drawn".into())),
            Kept::F32(values, dim) => Ok(Tensor::from_vec(values, ((), dim), cpu)?),
            Kept::F64(values, dim) => Ok(Tensor::from_vec(values, ((), dim), cpu)?),
            Kept::Tensor(features) => Ok(features),
        }
    }
}

fn own_samples<T: Float>(
    out: &mut Vec<T>,
    gaussians: &[&Gaussian],
    mut normals: impl FnMut(usize, &Gaussian) -> Result<Tensor>,
) -> Result<()> {
    let (mut at, dim) = (0, gaussians[0].dim());
    for (i, g) in gaussians.iter().enumerate() {
        let z = normals(i, g)?.contiguous()?;
        let (rows, width) = z.dims2()?;
        if i == 0 {
            out.resize(rows * dim * gaussians.len(), T::ZERO);
        }
        let size = rows * dim;
        if (width, g.dim()) != (dim, dim) || size * gaussians.len() != out.len() {
            let (own, samples) = (g.dim(), out.len() / (dim * gaussians.len()).max(1));
            return Err(Error::Protocol(format!(
                "Gaussian {i} of {own} dimensions got {rows}×{width} normal numbers; all take {samples}×{dim}"
            )));
        }
        let part = &mut out[at..at + size];
        with_values(&z, |z| with_values(&g.factor, |factor| with_values(&g.mean, |mean| sample_into::<T>(part, z, factor, mean))))???;
        at += size;
    }
    Ok(())
}

/// out = mean + z·Lᵀ, on all threads.
fn sample_into<T: Float>(out: &mut [T], z: &[T], factor: &[T], mean: &[T]) {
    let dim = mean.len();
    let all = View::rows(dim);
    out.par_chunks_mut(ROWS * dim).zip(z.par_chunks(ROWS * dim)).for_each(|(out, z)| {
        out.chunks_exact_mut(dim).for_each(|row| row.copy_from_slice(mean));
        for first in (0..dim).step_by(COLUMNS) {
            let end = dim.min(first + COLUMNS);
            let shape = (z.len() / dim, end - first, end);
            product(shape, (&mut *out, all.after(first), Old::Kept), (z, all), (factor, all.after(first)), 1.0);
        }
    });
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
    fn many_dimensions_equal_the_composition_at_any_number_of_threads() {
        for dim in [1, COLUMNS, 2 * COLUMNS + 44] {
            let draw = |shape| Tensor::randn(0f64, 1.0, shape, &Device::Cpu).expect("randn");
            let features = [draw((40, dim)), draw((40, dim))];
            let fit = |f: &Tensor| {
                let (mean, covariance) = mean_and_covariance(f, 0.01).expect("moments");
                (covariance.clone(), Gaussian::fit(&mean, &covariance).expect("fit"))
            };
            let fitted = features.each_ref().map(fit);
            let composed = super::super::as_on_a_device(|| features.each_ref().map(fit));
            let gaussians: Vec<&Gaussian> = fitted.iter().map(|(_, g)| g).collect();
            let normals = [draw((ROWS + 5, dim)), draw((ROWS + 5, dim))];
            let draw = || {
                // Filled twice: what lay in the buffer must not count.
                let mut features = Features::default();
                features.draw(&gaussians[..1], |_, _| Ok(normals[1].clone())).expect("first");
                features.draw(&gaussians, |i, _| Ok(normals[i].clone())).expect("samples");
                features.tensor().expect("tensor")
            };
            let sampled = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("pool");
                pool.install(draw)
            };
            let plain = super::super::as_on_a_device(draw);
            let values = |t: &Tensor| t.flatten_all().expect("flat").to_vec1::<f64>().expect("values");
            assert!(values(&sampled(1)) == values(&sampled(3)));
            let pairs = [(&sampled(2), &plain), (&fitted[0].0, &composed[0].0), (fitted[1].1.factor(), composed[1].1.factor())];
            for (a, b) in pairs {
                let worst = values(a).iter().zip(values(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(worst < 1e-10 && a.dims() == b.dims(), "{dim}: {worst}");
            }
        }
    }

    #[test]
    fn normals_of_another_width_are_refused() {
        let (mean, covariance) =
            mean_and_covariance(&Tensor::zeros((1, 2), DType::F32, &Device::Cpu).expect("zeros"), 1.0).expect("moments");
        let gaussian = Gaussian::fit(&mean, &covariance).expect("fit");
        assert!(gaussian.sample(&Tensor::zeros((4, 3), DType::F32, &Device::Cpu).expect("normals")).is_err());
        assert!(gaussian.sample(&Tensor::zeros((4, 2), DType::F64, &Device::Cpu).expect("normals")).is_err());
        assert!(Gaussian::from_factor(mean, Tensor::zeros((3, 3), DType::F32, &Device::Cpu).expect("factor")).is_err());
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
