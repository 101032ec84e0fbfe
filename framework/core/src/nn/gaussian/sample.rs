//! Gaussians of features: each has one Cholesky factor, and sampling is a matrix product.

use candle_core::{DType, Tensor};
use rayon::prelude::*;

use super::Normals;
use super::packed::{Upper, blocks};
use crate::nn;
use crate::nn::cpu::aligned::{Pages, large_pages};
use crate::nn::cpu::cholesky::Cholesky;
use crate::nn::cpu::product::{View, product};
use crate::nn::cpu::simd::Float;
use crate::nn::cpu::storage::with_values;
use crate::{Error, Result};

/// Samples per rayon task.
const ROWS: usize = 160;

/// A Gaussian that can be sampled.
#[derive(Debug, Clone)]
pub struct Gaussian {
    mean: Tensor,
    /// Lᵀ with covariance = L·Lᵀ.
    factor: Upper,
}

impl Gaussian {
    /// Factors the covariance (dim, dim) once, in f64; the factor is kept in the mean's type on its
    /// device.
    ///
    /// # Errors
    /// [`Error::Diverged`] if the covariance is not finite or not positive definite.
    pub fn fit(mean: &Tensor, covariance: &Tensor) -> Result<Self> {
        let factor = Cholesky::new(covariance, 0.0)?
            .ok_or_else(|| Error::Diverged("the covariance is not positive definite".into()))?;
        let factor = factor.upper()?;
        Self::from_factor(mean.clone(), factor.to_dtype(mean.dtype())?.to_device(mean.device())?)
    }

    /// Takes a mean (dim) and an upper triangular Lᵀ (dim, dim), as [`Gaussian::mean`] and
    /// [`Gaussian::factor`] return them.
    ///
    /// # Errors
    /// [`Error::Protocol`] if the shapes do not fit.
    pub fn from_factor(mean: Tensor, factor: Tensor) -> Result<Self> {
        if factor.dims() != [mean.elem_count(), mean.elem_count()] {
            let (mean, factor) = (mean.dims(), factor.dims());
            return Err(Error::Protocol(format!(
                "a Gaussian with a mean of shape {mean:?} and a factor of shape {factor:?}"
            )));
        }
        Ok(Self { mean: mean.contiguous()?, factor: Upper::of(&factor)? })
    }

    /// Takes a mean (dim) and a packed Lᵀ on the host, as [`Gaussian::mean`] and
    /// [`Gaussian::packed_factor`] return them.
    ///
    /// # Errors
    /// [`Error::Protocol`] if the shapes do not fit.
    pub fn from_packed(mean: Tensor, factor: &Tensor) -> Result<Self> {
        let factor = Upper::of_packed(factor, mean.elem_count(), mean.device())?;
        Ok(Self { mean: mean.contiguous()?, factor })
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
    ///
    /// # Errors
    /// If the tensor cannot be made.
    pub fn factor(&self) -> Result<Tensor> {
        self.factor.whole(self.dim())
    }

    /// The packed Lᵀ, 1-d, on the host: blocks of 64 columns follow one another, and each block
    /// holds its rows down to the row of its last column.
    ///
    /// # Errors
    /// If the tensor cannot be made.
    pub fn packed_factor(&self) -> Result<Tensor> {
        self.factor.packed()
    }

    /// mean + z·Lᵀ for standard normals z (n, dim).
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn sample(&self, normals: &Tensor) -> Result<Tensor> {
        let mut features = Features::default();
        features.draw(&[self], |_, _| Normals::of(normals))?;
        features.tensor()
    }
}

/// Features (n, dim) in a buffer that can be filled again and again.
#[derive(Debug, Default)]
pub struct Features(pub(crate) Kept);

/// Values in memory with their width, or a tensor wherever it is.
#[derive(Debug, Default)]
pub(crate) enum Kept {
    #[default]
    Nothing,
    F32(Vec<f32>, usize),
    F64(Vec<f64>, usize),
    Tensor(Tensor),
}

impl Features {
    /// Takes the features of a tensor (n, dim).
    pub fn of(features: Tensor) -> Self {
        Self(Kept::Tensor(features))
    }

    /// Draws the same number of samples of each Gaussian, one Gaussian after the other. `normals`
    /// gives the standard normals (n, dim) of each.
    ///
    /// # Errors
    /// If there is no Gaussian, if the shapes do not fit, or if `normals` fails.
    pub fn draw(
        &mut self,
        gaussians: &[&Gaussian],
        mut normals: impl FnMut(usize, &Gaussian) -> Result<Normals>,
    ) -> Result<()> {
        let kept = std::mem::take(&mut self.0);
        self.0 = match gaussians.first() {
            Some(g) if nn::has_cpu_kernel(&g.mean) && g.mean.dtype() == DType::F32 => {
                let mut values = if let Kept::F32(values, _) = kept { values } else { Vec::new() };
                own_samples(&mut values, gaussians, normals)?;
                Kept::F32(values, g.dim())
            }
            Some(g) if nn::has_cpu_kernel(&g.mean) && g.mean.dtype() == DType::F64 => {
                let mut values = if let Kept::F64(values, _) = kept { values } else { Vec::new() };
                own_samples(&mut values, gaussians, normals)?;
                Kept::F64(values, g.dim())
            }
            _ => {
                let one = |(i, g): (usize, &&Gaussian)| {
                    Ok(normals(i, g)?
                        .tensor(g.mean.dtype(), g.mean.device())?
                        .matmul(&g.factor()?)?
                        .broadcast_add(&g.mean)?)
                };
                Kept::Tensor(Tensor::cat(
                    &gaussians.iter().enumerate().map(one).collect::<Result<Vec<_>>>()?,
                    0,
                )?)
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
            Kept::Nothing => {
                Err(Error::Protocol("features were asked for before any were drawn".into()))
            }
            Kept::F32(values, dim) => Ok(Tensor::from_vec(values, ((), dim), cpu)?),
            Kept::F64(values, dim) => Ok(Tensor::from_vec(values, ((), dim), cpu)?),
            Kept::Tensor(features) => Ok(features),
        }
    }
}

fn own_samples<T: Float>(
    out: &mut Vec<T>,
    gaussians: &[&Gaussian],
    mut normals: impl FnMut(usize, &Gaussian) -> Result<Normals>,
) -> Result<()> {
    let dim = gaussians[0].dim();
    // Samples one Gaussian: each task makes normal numbers for some rows and uses them while they
    // are in the cache.
    let sample = |out: &mut [T], g: &Gaussian, z: &Normals| {
        let factor = g.packed_factor()?;
        out.par_chunks_mut(ROWS * dim).enumerate().try_for_each(|(part, out)| {
            T::with_room(out.len(), |numbers| {
                z.read(part * ROWS * dim, numbers)?;
                with_values(&factor, |factor| {
                    with_values(&g.mean, |mean| sample_into::<T>(out, numbers, factor, mean))
                })?
            })
        })
    };
    let (mut samples, mut later) = (0, Vec::with_capacity(gaussians.len()));
    for (i, g) in gaussians.iter().enumerate() {
        let z = normals(i, g)?;
        let (rows, width) = z.shape();
        if i == 0 {
            samples = rows;
            room_for(out, samples, dim, gaussians.len())?;
        }
        if (width, g.dim(), rows) != (dim, dim, samples) {
            let own = g.dim();
            return Err(Error::Protocol(format!(
                "Gaussian {i} of {own} dimensions got {rows}×{width} normal numbers; all take {samples}×{dim}"
            )));
        }
        // Numbers in memory are used at once, so that they can be freed. The others are made later,
        // all together.
        let given = z.given() && samples * dim > 0;
        if given {
            sample(&mut out[i * samples * dim..][..samples * dim], g, &z)?;
        }
        later.push((!given).then_some((g, z)));
    }
    if samples * dim == 0 {
        return Ok(());
    }
    let all = out.par_chunks_mut(samples * dim).zip(&later);
    all.try_for_each(|(out, what)| what.as_ref().map_or(Ok(()), |(g, z)| sample(out, g, z)))
}

/// Makes `out` as long as all samples.
fn room_for<T: Float>(
    out: &mut Vec<T>,
    samples: usize,
    dim: usize,
    gaussians: usize,
) -> Result<()> {
    let too_many = || {
        Error::Protocol(format!(
            "{samples} samples of {gaussians} Gaussians of {dim} dimensions: more numbers than there is memory"
        ))
    };
    let size =
        samples.checked_mul(dim).and_then(|n| n.checked_mul(gaussians)).ok_or_else(too_many)?;
    if out.capacity() < size {
        *out = Vec::new();
        out.try_reserve_exact(size).map_err(|_| too_many())?;
        // Rows are gathered from anywhere in it, which is faster with large pages.
        large_pages(out.as_ptr(), size * size_of::<T>(), Pages::WhenTouched);
    }
    out.resize(size, T::ZERO);
    Ok(())
}

/// out = mean + z·Lᵀ, with Lᵀ packed.
fn sample_into<T: Float>(out: &mut [T], z: &[T], factor: &[T], mean: &[T]) {
    let dim = mean.len();
    let all = View::rows(dim);
    out.chunks_exact_mut(dim).for_each(|row| row.copy_from_slice(mean));
    for block in blocks(dim) {
        let (shape, place) = (
            (z.len() / dim, block.width(), block.end),
            View::rows(block.width()).after(block.start),
        );
        let dst = all.after(block.first).added_to(out);
        product(shape, dst, all.of(z), place.of(factor), 1.0);
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::nn::largest_difference;

    /// A Gaussian that is fitted to all rows.
    fn fitted(features: &Tensor, ridge: f64) -> Gaussian {
        let rows: Vec<u32> = (0..features.dim(0).expect("rows") as u32).collect();
        Gaussian::of_rows(features, &rows, ridge).expect("fit")
    }

    #[test]
    fn samples_have_the_mean_and_covariance_they_were_fitted_to() {
        let features = Tensor::randn(0f64, 1.0, (1, 3), &Device::Cpu).expect("randn");
        let mix =
            Tensor::new(&[[1.0f64, 0.5, 0.0], [0.0, 2.0, -1.0], [0.3, 0.0, 0.7]], &Device::Cpu)
                .expect("mix");
        let covariance = mix.t().expect("t").matmul(&mix).expect("mm");
        let mean = features.get(0).expect("row");
        let gaussian = Gaussian::fit(&mean, &covariance).expect("fit");
        // Samples of the unit vectors give the rows of Lᵀ: their products must be the covariance.
        let unit = Tensor::eye(3, DType::F64, &Device::Cpu).expect("eye");
        let rows = gaussian.sample(&unit).expect("sample").broadcast_sub(&mean).expect("sub");
        let product = rows.t().expect("t").matmul(&rows).expect("mm");
        let worst = largest_difference(&product, &covariance);
        assert!(worst < 1e-12, "{worst}");
    }

    #[test]
    fn many_dimensions_equal_the_composition_at_any_number_of_threads() {
        for dim in [1, 64, 172] {
            let draw = |shape| Tensor::randn(0f64, 1.0, shape, &Device::Cpu).expect("randn");
            let features = [draw((40, dim)), draw((40, dim))];
            let fit = || features.each_ref().map(|f| fitted(f, 0.01));
            let (own, composed) = (fit(), nn::as_on_a_device(fit));
            let gaussians: Vec<&Gaussian> = own.iter().collect();
            let normals = [draw((ROWS + 5, dim)), draw((ROWS + 5, dim))];
            let draw = || {
                // Filled twice: what lay in the buffer must not count.
                let mut features = Features::default();
                features.draw(&gaussians[..1], |_, _| Normals::of(&normals[1])).expect("first");
                features.draw(&gaussians, |i, _| Normals::of(&normals[i])).expect("samples");
                features.tensor().expect("tensor")
            };
            let sampled = |threads: usize| {
                let pool =
                    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("pool");
                pool.install(draw)
            };
            let plain = nn::as_on_a_device(draw);
            let values =
                |t: &Tensor| t.flatten_all().expect("flat").to_vec1::<f64>().expect("values");
            assert!(values(&sampled(1)) == values(&sampled(3)));
            let pairs = [
                (&sampled(2), &plain),
                (own[0].mean(), composed[0].mean()),
                (&own[1].factor().expect("factor"), &composed[1].factor().expect("factor")),
            ];
            for (a, b) in pairs {
                let worst =
                    values(a).iter().zip(values(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(worst < 1e-10 && a.dims() == b.dims(), "{dim}: {worst}");
            }
        }
    }

    #[test]
    fn normals_of_another_width_are_refused() {
        let gaussian =
            fitted(&Tensor::zeros((1, 2), DType::F32, &Device::Cpu).expect("zeros"), 1.0);
        assert!(
            gaussian
                .sample(&Tensor::zeros((4, 3), DType::F32, &Device::Cpu).expect("normals"))
                .is_err()
        );
        assert!(
            gaussian
                .sample(&Tensor::zeros((4, 2), DType::F64, &Device::Cpu).expect("normals"))
                .is_err()
        );
        assert!(
            Gaussian::from_factor(
                gaussian.mean().clone(),
                Tensor::zeros((3, 3), DType::F32, &Device::Cpu).expect("factor")
            )
            .is_err()
        );
    }

    #[test]
    fn samples_of_numbers_that_are_made_later_are_those_of_drawn_ones() {
        use crate::rng::NormalStream;
        let features = Tensor::randn(0f32, 1.0, (30, 5), &Device::Cpu).expect("randn");
        let gaussian = fitted(&features, 0.1);
        let normals =
            |seed: u8| Normals::of_stream(NormalStream::from_seed([seed; 32]), [2 * ROWS + 3, 5]);
        let values = |given: fn(usize) -> bool| {
            let mut features = Features::default();
            let draw = |i: usize, _: &Gaussian| {
                let made = normals(i as u8);
                if given(i) {
                    Normals::of(&made.tensor(DType::F32, &Device::Cpu)?)
                } else {
                    Ok(made)
                }
            };
            features.draw(&[&gaussian, &gaussian, &gaussian], draw).expect("samples");
            features
                .tensor()
                .expect("tensor")
                .flatten_all()
                .expect("flat")
                .to_vec1::<f32>()
                .expect("values")
        };
        let later = values(|_| false);
        assert!(later == values(|_| true) && later == values(|i| i == 1));
        assert!(
            later[..5] != later[(2 * ROWS + 3) * 5..][..5],
            "each Gaussian has numbers of its own"
        );
    }

    #[test]
    fn more_samples_than_there_is_memory_are_an_error() {
        let gaussian =
            fitted(&Tensor::zeros((1, 2), DType::F32, &Device::Cpu).expect("zeros"), 1.0);
        for rows in [1 << 50, usize::MAX / 2] {
            let stream = crate::rng::NormalStream::from_seed([0; 32]);
            let drawn = Features::default()
                .draw(&[&gaussian], |_, _| Ok(Normals::of_stream(stream.clone(), [rows, 2])));
            assert!(
                drawn
                    .expect_err("a petabyte")
                    .to_string()
                    .contains("more numbers than there is memory")
            );
        }
    }

    #[test]
    fn a_covariance_that_is_none_is_refused() {
        let mean = Tensor::zeros(2, DType::F64, &Device::Cpu).expect("mean");
        let bad = Tensor::new(&[[1.0f64, 2.0], [2.0, 1.0]], &Device::Cpu).expect("bad");
        assert!(Gaussian::fit(&mean, &bad).is_err());
    }
}
