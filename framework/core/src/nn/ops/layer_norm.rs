//! Layer normalisation. Frozen scale and shift get no gradient; trained ones do.

use candle_core::{CpuStorage, CustomOp3, D, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::composed;
use super::linear::column_sums;
use crate::Result;
use crate::nn;
use crate::nn::cpu::rowwise::{layer_norm as layer_norm_rows, layer_norm_gradient};
use crate::nn::cpu::simd::Float;
use crate::nn::cpu::storage::{by_type, values};

struct LayerNorm {
    eps: f64,
    /// Whether γ and β take a gradient.
    trained: bool,
}

/// Rows per rayon task.
const ROWS: usize = 64;

fn forward<T: Float>(x: &[T], gamma: &[T], beta: &[T], eps: f64) -> Vec<T> {
    let chunk = ROWS * gamma.len();
    let mut out = vec![T::default(); x.len()];
    out.par_chunks_mut(chunk)
        .zip(x.par_chunks(chunk))
        .for_each(|(out, x)| layer_norm_rows(x, gamma, beta, eps, out));
    out
}

fn backward<T: Float>(x: &[T], gamma: &[T], grad: &[T], eps: f64) -> Vec<T> {
    let chunk = ROWS * gamma.len();
    let mut out = vec![T::default(); x.len()];
    out.par_chunks_mut(chunk).zip(x.par_chunks(chunk)).zip(grad.par_chunks(chunk)).for_each(
        |((out, x), grad)| {
            layer_norm_gradient(x, gamma, grad, eps, out);
        },
    );
    out
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        gamma: &CpuStorage,
        lg: &Layout,
        beta: &CpuStorage,
        lb: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        by_type!(self.name(), x, T => {
            let name = self.name();
            let out = forward::<T>(values(name, x, lx)?, values(name, gamma, lg)?, values(name, beta, lb)?, self.eps);
            Ok((T::wrap(out), lx.shape().clone()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        gamma: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let dx = x.detach().apply_op3(
            &gamma.detach(),
            &grad.detach().contiguous()?,
            Backward { eps: self.eps },
        )?;
        if !self.trained {
            return Ok((Some(dx), None, None));
        }
        // dγ = Σ rows g·x̂, dβ = Σ rows g; x̂ is the same operation with γ = 1, β = 0.
        let (one, zero) = (gamma.detach().ones_like()?, gamma.detach().zeros_like()?);
        let normal =
            x.detach().apply_op3(&one, &zero, LayerNorm { eps: self.eps, trained: false })?;
        let dim = gamma.elem_count();
        let rows = |t: Tensor| t.contiguous()?.reshape((t.elem_count() / dim, dim));
        let dgamma = column_sums(&rows((grad.detach() * normal)?)?)?;
        Ok((Some(dx), Some(dgamma), Some(column_sums(&rows(grad.detach())?)?)))
    }
}

/// The gradient of x from (x, γ, gradient).
struct Backward {
    eps: f64,
}

impl CustomOp3 for Backward {
    fn name(&self) -> &'static str {
        "layer-norm-backward"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        gamma: &CpuStorage,
        lg: &Layout,
        grad: &CpuStorage,
        lr: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        by_type!(self.name(), x, T => {
            let name = self.name();
            let out = backward::<T>(values(name, x, lx)?, values(name, gamma, lg)?, values(name, grad, lr)?, self.eps);
            Ok((T::wrap(out), lx.shape().clone()))
        })
    }
}

/// (x − mean) / √(variance + ε) · γ + β over the last dimension of x (…, dim), for frozen γ and β
/// (dim). Only x gets a gradient.
///
/// On the CPU it runs on all threads; elsewhere it is composed of differentiable operations.
///
/// # Errors
/// If the shapes do not fit.
pub fn frozen_layer_norm(x: &Tensor, gamma: &Tensor, beta: &Tensor, eps: f64) -> Result<Tensor> {
    normalise(x, &gamma.detach(), &beta.detach(), eps, false)
}

/// The same as [`frozen_layer_norm`], with gradients for x, γ and β.
///
/// # Errors
/// If the shapes do not fit.
pub fn layer_norm(x: &Tensor, gamma: &Tensor, beta: &Tensor, eps: f64) -> Result<Tensor> {
    normalise(x, gamma, beta, eps, true)
}

fn normalise(x: &Tensor, gamma: &Tensor, beta: &Tensor, eps: f64, trained: bool) -> Result<Tensor> {
    if nn::has_cpu_kernel(x) {
        return Ok(x.contiguous()?.apply_op3(gamma, beta, LayerNorm { eps, trained })?);
    }
    if trained {
        composed(x, gamma, beta, eps)
    } else {
        Ok(composed::frozen_layer_norm(x, gamma, beta, eps)?)
    }
}

fn composed(x: &Tensor, gamma: &Tensor, beta: &Tensor, eps: f64) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    Ok(centred
        .broadcast_div(&(variance + eps)?.sqrt()?)?
        .broadcast_mul(gamma)?
        .broadcast_add(beta)?)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::nn::largest_difference;

    #[test]
    fn equals_the_plain_composition() {
        for (rows, dim) in [(1, 1), (3, 7), (200, 48)] {
            let draw = |shape: (usize, usize)| {
                Tensor::randn(0.5f64, 2.0, shape, &Device::Cpu).expect("randn")
            };
            let x = Var::from_tensor(&draw((rows, dim))).expect("var");
            let row = |t: Tensor| t.squeeze(0).expect("row");
            let var = |t: Tensor| Var::from_tensor(&t).expect("var");
            let (gamma, beta, g) =
                (var(row(draw((1, dim)))), var(row(draw((1, dim)))), draw((rows, dim)));
            let backward = |y: &Tensor| {
                (y * &g).expect("mul").sum_all().expect("sum").backward().expect("bwd")
            };
            let gradient =
                |y: &Tensor, var: &Var| backward(y).get(var).expect("a gradient").clone();
            let frozen = frozen_layer_norm(&x, &gamma, &beta, 1e-6).expect("frozen");
            let ours = layer_norm(&x, &gamma, &beta, 1e-6).expect("ours");
            let plain = composed(&x, &gamma, &beta, 1e-6).expect("plain");
            assert!(backward(&frozen).get(&gamma).is_none(), "frozen weights get no gradient");
            for (a, b) in [
                (&frozen, &plain),
                (&ours, &plain),
                (&gradient(&frozen, &x), &gradient(&plain, &x)),
                (&gradient(&ours, &x), &gradient(&plain, &x)),
                (&gradient(&ours, &gamma), &gradient(&plain, &gamma)),
                (&gradient(&ours, &beta), &gradient(&plain, &beta)),
            ] {
                let worst = largest_difference(a, b);
                assert!(worst < 1e-9, "{rows}×{dim}: {worst}");
            }
        }
    }
}
