//! Losses of logits (n, classes) by CPU kernels: cross-entropy, entropy, and logits that are scaled
//! to a fixed length. Each is one operation with its own backward pass.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::Result;
use crate::nn;
use crate::nn::cpu::simd::{Float, lane_max, lane_sum, vectorised};
use crate::nn::cpu::storage::{by_type, values};

/// Rows per rayon task.
const ROWS: usize = 64;

/// What is added to the norm of logits before they are divided by it, and what they are divided by
/// then.
pub(crate) const EPS: f64 = 1e-7;
pub(crate) const TEMPERATURE: f64 = 0.1;

vectorised! {
    /// Per row: max + ln Σ exp(z − max) − z_label.
    fn cross_entropy_rows(logits: &'a [T], width: usize, labels: &'a [i64], losses: &'a mut [f64]) {
        for ((row, label), loss) in logits.chunks_exact(width).zip(labels).zip(losses) {
            let max = lane_max(row);
            let sum = lane_sum([row], |[v]| (v - max).exp());
            *loss = (max - row[*label as usize]).wide() + sum.wide().ln();
        }
    }
}

vectorised! {
    /// Per row: scale · (softmax(z) − one-hot(label)).
    fn cross_entropy_gradient(logits: &'a [T], width: usize, labels: &'a [i64], scale: T, out: &'a mut [T]) {
        for ((row, label), out) in logits.chunks_exact(width).zip(labels).zip(out.chunks_exact_mut(width)) {
            let max = lane_max(row);
            for (o, v) in out.iter_mut().zip(row) {
                *o = (*v - max).exp();
            }
            let factor = scale / lane_sum([out], |[e]| e);
            out.iter_mut().for_each(|o| *o = *o * factor);
            out[*label as usize] = out[*label as usize] - scale;
        }
    }
}

vectorised! {
    /// Per row: −Σ p·ln p for p = softmax(z), as ln Σe − Σ e·(z − max) / Σe.
    fn entropy_rows(logits: &'a [T], width: usize, losses: &'a mut [f64]) {
        for (row, loss) in logits.chunks_exact(width).zip(losses) {
            let max = lane_max(row);
            let sum = lane_sum([row], |[v]| (v - max).exp());
            let dot = lane_sum([row], |[v]| (v - max).exp() * (v - max));
            *loss = sum.wide().ln() - dot.wide() / sum.wide();
        }
    }
}

vectorised! {
    /// Per row: −scale · p·(ln p + entropy).
    fn entropy_gradient(logits: &'a [T], width: usize, scale: T, out: &'a mut [T]) {
        for (row, out) in logits.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let max = lane_max(row);
            for (o, v) in out.iter_mut().zip(row) {
                *o = (*v - max).exp();
            }
            let inverse = T::ONE / lane_sum([out], |[e]| e);
            // ln p + entropy = (z − max) − Σ p·(z − max): the logarithm of the sum cancels.
            let mean = lane_sum([out, row], |[e, v]| e * (v - max)) * inverse;
            for (o, v) in out.iter_mut().zip(row) {
                *o = T::ZERO - scale * (*o * inverse) * ((*v - max) - mean);
            }
        }
    }
}

vectorised! {
    /// Per row: z · scale / (‖z‖ + ε).
    fn directions(logits: &'a [T], width: usize, eps: T, scale: T, out: &'a mut [T]) {
        for (row, out) in logits.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let factor = scale / (lane_sum([row], |[v]| v * v).sqrt() + eps);
            for (o, v) in out.iter_mut().zip(row) {
                *o = *v * factor;
            }
        }
    }
}

vectorised! {
    /// grad := scale / (‖z‖ + ε) · (grad − z·(z·grad) / (‖z‖·(‖z‖ + ε))), row by row.
    fn directions_gradient(logits: &'a [T], width: usize, eps: T, scale: T, grad: &'a mut [T]) {
        for (row, grad) in logits.chunks_exact(width).zip(grad.chunks_exact_mut(width)) {
            let norm = lane_sum([row], |[v]| v * v).sqrt();
            // At zero, PyTorch's norm has the subgradient 0.
            let along = lane_sum([row, &*grad], |[v, g]| v * g);
            let along = if norm == T::ZERO { T::ZERO } else { along / (norm * (norm + eps)) };
            let factor = scale / (norm + eps);
            for (g, v) in grad.iter_mut().zip(row) {
                *g = factor * (*g - *v * along);
            }
        }
    }
}

/// A mean over rows.
#[derive(Clone)]
pub(crate) enum RowLoss {
    /// Cross-entropy against these labels.
    CrossEntropy(Arc<[i64]>),
    /// The entropy of the softmax.
    Entropy,
}

struct Backward(RowLoss);

/// (rows, width) of logits of at least one class.
fn rows_of(layout: &Layout) -> candle_core::Result<(usize, usize)> {
    match layout.shape().dims2()? {
        (n, 0) => bail!("logits of {n} rows and no classes"),
        shape => Ok(shape),
    }
}

/// (rows, width) of logits, or an error if the labels do not fit.
fn checked(loss: &RowLoss, layout: &Layout) -> candle_core::Result<(usize, usize)> {
    let (n, width) = rows_of(layout)?;
    if let RowLoss::CrossEntropy(labels) = loss {
        if labels.len() != n {
            bail!("cross-entropy: {} labels for logits of {n} rows", labels.len());
        }
        if let Some(label) = labels.iter().find(|l| !(0..width as i64).contains(l)) {
            bail!("cross-entropy: label {label} for logits of {width} classes");
        }
    }
    Ok((n, width))
}

impl CustomOp1 for RowLoss {
    fn name(&self) -> &'static str {
        "row-loss"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (n, width) = checked(self, lx)?;
        by_type!(self.name(), x, T => {
            let x: &[T] = values(self.name(), x, lx)?;
            let mut losses = vec![0.0; n];
            let chunks = losses.par_chunks_mut(ROWS).zip(x.par_chunks(ROWS * width));
            match self {
                Self::CrossEntropy(labels) => {
                    chunks.zip(labels.par_chunks(ROWS)).for_each(|((out, x), labels)| cross_entropy_rows(x, width, labels, out));
                }
                Self::Entropy => chunks.for_each(|(out, x)| entropy_rows(x, width, out)),
            }
            Ok((T::wrap(vec![T::narrow(losses.iter().sum::<f64>() / n as f64)]), Shape::from(())))
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(Some(x.detach().apply_op2(&grad.detach().contiguous()?, Backward(self.clone()))?))
    }
}

impl CustomOp2 for Backward {
    fn name(&self) -> &'static str {
        "row-loss-backward"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        grad: &CpuStorage,
        lg: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (n, width) = checked(&self.0, lx)?;
        by_type!(self.name(), x, T => {
            let (x, grad): (&[T], &[T]) = (values(self.name(), x, lx)?, values(self.name(), grad, lg)?);
            let scale = T::narrow(grad[0].wide() / n as f64);
            let mut out = vec![T::default(); x.len()];
            let chunks = out.par_chunks_mut(ROWS * width).zip(x.par_chunks(ROWS * width));
            match &self.0 {
                RowLoss::CrossEntropy(labels) => {
                    let chunks = chunks.zip(labels.par_chunks(ROWS));
                    chunks.for_each(|((out, x), labels)| cross_entropy_gradient(x, width, labels, scale, out));
                }
                RowLoss::Entropy => chunks.for_each(|(out, x)| entropy_gradient(x, width, scale, out)),
            }
            Ok((T::wrap(out), lx.shape().clone()))
        })
    }
}

/// z·scale / (‖z‖ + ε), row by row.
#[derive(Clone, Copy)]
struct Directions {
    eps: f64,
    scale: f64,
}

struct DirectionsBackward(Directions);

impl CustomOp1 for Directions {
    fn name(&self) -> &'static str {
        "directions"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (_, width) = rows_of(lx)?;
        by_type!(self.name(), x, T => {
            let x: &[T] = values(self.name(), x, lx)?;
            let (eps, scale) = (T::narrow(self.eps), T::narrow(self.scale));
            let mut out = vec![T::default(); x.len()];
            let chunks = out.par_chunks_mut(ROWS * width).zip(x.par_chunks(ROWS * width));
            chunks.for_each(|(out, x)| directions(x, width, eps, scale, out));
            Ok((T::wrap(out), lx.shape().clone()))
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(Some(x.detach().apply_op2(&grad.detach().contiguous()?, DirectionsBackward(*self))?))
    }
}

impl CustomOp2 for DirectionsBackward {
    fn name(&self) -> &'static str {
        "directions-backward"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        grad: &CpuStorage,
        lg: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (_, width) = rows_of(lx)?;
        by_type!(self.name(), x, T => {
            let (x, grad): (&[T], &[T]) = (values(self.name(), x, lx)?, values(self.name(), grad, lg)?);
            let (eps, scale) = (T::narrow(self.0.eps), T::narrow(self.0.scale));
            let mut out = grad.to_vec();
            let chunks = out.par_chunks_mut(ROWS * width).zip(x.par_chunks(ROWS * width));
            chunks.for_each(|(out, x)| directions_gradient(x, width, eps, scale, out));
            Ok((T::wrap(out), lx.shape().clone()))
        })
    }
}

pub(crate) fn row_loss(logits: &Tensor, loss: RowLoss) -> Result<Tensor> {
    Ok(logits.contiguous()?.apply_op1(loss)?)
}

/// z / (‖z‖ + 1e-7) / 0.1 for each row z of the logits (n, classes).
///
/// # Errors
/// If the tensor operation fails.
pub fn normalised(logits: &Tensor) -> Result<Tensor> {
    if nn::has_cpu_kernel(logits) {
        return Ok(logits
            .contiguous()?
            .apply_op1(Directions { eps: EPS, scale: 1.0 / TEMPERATURE })?);
    }
    // The gradient of the root is infinite at 0. Adding the smallest normal number keeps it finite
    // and changes no other root.
    let norm = ((logits.sqr()?.sum_keepdim(1)? + f64::from(f32::MIN_POSITIVE))?.sqrt()? + EPS)?;
    Ok((logits.broadcast_div(&norm)? / TEMPERATURE)?)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::nn::largest_difference;
    use crate::nn::{as_on_a_device, cross_entropy, mean_entropy};

    #[test]
    fn values_and_gradients_equal_the_composed_ones() {
        for (n, classes) in [(1, 1), (1, 5), (3, 17), (130, 10), (64, 33)] {
            let z =
                Var::from_tensor(&Tensor::randn(0f64, 3.0, (n, classes), &Device::Cpu).expect("z"))
                    .expect("var");
            let g = Tensor::randn(0f64, 1.0, (n, classes), &Device::Cpu).expect("g");
            let labels: Vec<i64> = (0..n).map(|i| (7 * i % classes) as i64).collect();
            let labels = Tensor::new(labels, &Device::Cpu).expect("labels");
            let losses: [&dyn Fn() -> Tensor; 3] = [
                &|| (cross_entropy(&z, &labels).expect("ce") * 1.7).expect("mul"),
                &|| (mean_entropy(&z).expect("entropy") * 0.3).expect("mul"),
                &|| {
                    (normalised(&z).expect("normalised") * &g).expect("mul").sum_all().expect("sum")
                },
            ];
            for (which, loss) in losses.iter().enumerate() {
                let both = |loss: Tensor| {
                    (loss.clone(), loss.backward().expect("bwd").get(&z).expect("dz").clone())
                };
                let (ours, composed) = (both(loss()), as_on_a_device(|| both(loss())));
                assert!(
                    largest_difference(&ours.0, &composed.0) < 1e-11,
                    "value {which} of {n}×{classes}"
                );
                assert!(
                    largest_difference(&ours.1, &composed.1) < 1e-11,
                    "gradient {which} of {n}×{classes}"
                );
            }
        }
    }

    #[test]
    fn a_row_of_zeros_has_a_finite_gradient() {
        let z = Var::zeros((2, 3), candle_core::DType::F32, &Device::Cpu).expect("z");
        let gradient = || {
            let loss = mean_entropy(&normalised(&z).expect("normalised")).expect("entropy");
            loss.backward().expect("bwd").get(&z).expect("dz").to_vec2::<f32>().expect("values")
        };
        for values in [gradient(), as_on_a_device(gradient)] {
            assert!(values.iter().flatten().all(|v| v.is_finite()), "{values:?}");
        }
        assert!(
            mean_entropy(
                &Tensor::zeros((2, 0), candle_core::DType::F32, &Device::Cpu).expect("none")
            )
            .is_err()
        );
    }

    #[test]
    fn threads_change_no_bit() {
        let z = Var::from_tensor(&Tensor::randn(0f32, 3.0, (300, 50), &Device::Cpu).expect("z"))
            .expect("var");
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("pool");
            pool.install(|| {
                let loss = mean_entropy(&normalised(&z).expect("normalised")).expect("entropy");
                let dz = loss
                    .backward()
                    .expect("bwd")
                    .get(&z)
                    .expect("dz")
                    .to_vec2::<f32>()
                    .expect("values");
                (loss.to_scalar::<f32>().expect("loss"), dz)
            })
        };
        assert!(run(1) == run(3));
    }

    #[test]
    fn a_label_that_no_class_has_is_named() {
        let z = Tensor::zeros((2, 3), candle_core::DType::F32, &Device::Cpu).expect("z");
        let labels = Tensor::new(&[0i64, 3], &Device::Cpu).expect("labels");
        let said = cross_entropy(&z, &labels).expect_err("label 3 of 3 classes").to_string();
        assert!(said.contains("label 3") && said.contains("3 classes"), "{said}");
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        let z = Tensor::new(&[[f32::NAN, 0.0]], &Device::Cpu).expect("z");
        assert!(mean_entropy(&z).expect("entropy").to_scalar::<f32>().expect("scalar").is_nan());
        assert!(normalised(&z).expect("z").to_vec2::<f32>().expect("values")[0][0].is_nan());
    }
}
