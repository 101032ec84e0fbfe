//! Linear layers, y = x·Wᵀ + b. Frozen layers give a gradient for x only, trained ones for x, W and
//! b.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, D, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::composed;
use crate::Result;
use crate::nn;
use crate::nn::cpu::simd::Float;
use crate::nn::cpu::storage::{by_type, values};

/// The product x·Wᵀ.
struct Product {
    trained: bool,
}

/// (rows, inputs, outputs) of x (rows, inputs) and w (outputs, inputs), and w's layout transposed.
#[allow(clippy::type_complexity)]
fn plan(
    x: &Layout,
    w: &Layout,
) -> candle_core::Result<((usize, usize, usize, usize), Layout, Shape)> {
    let (rows, inputs) = x.shape().dims2()?;
    let (outputs, _) = w.shape().dims2()?;
    Ok(((1, rows, outputs, inputs), w.transpose(0, 1)?, Shape::from((rows, outputs))))
}

impl CustomOp2 for Product {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (bmnk, transposed, shape) = plan(lx, lw)?;
        Ok((x.matmul(w, bmnk, lx, &transposed)?, shape))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &candle_core::CudaStorage,
        lx: &Layout,
        w: &candle_core::CudaStorage,
        lw: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        let (bmnk, transposed, shape) = plan(lx, lw)?;
        Ok((x.matmul(w, bmnk, lx, &transposed)?, shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.detach().contiguous()?;
        let dw = if self.trained { Some(grad.t()?.matmul(&x.detach())?) } else { None };
        let dx = if x.track_op() { Some(grad.matmul(&w.detach())?) } else { None };
        Ok((dx, dw))
    }
}

/// Adds a bias to every row. Its gradient, the sum over rows, is a matrix product.
struct Bias;

impl CustomOp2 for Bias {
    fn name(&self) -> &'static str {
        "bias"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        by_type!(self.name(), x, T => {
            let (x, b): (&[T], &[T]) = (values(self.name(), x, lx)?, values(self.name(), b, lb)?);
            let mut out = x.to_vec();
            out.par_chunks_mut(b.len()).with_min_len(64).for_each(|row| {
                row.iter_mut().zip(b).for_each(|(o, b)| *o = T::narrow(o.wide() + b.wide()));
            });
            Ok((T::wrap(out), lx.shape().clone()))
        })
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.detach().contiguous()?;
        Ok((Some(grad.clone()), Some(column_sums(&grad)?)))
    }
}

/// The sum of all rows of a matrix (rows, columns): (columns).
pub(crate) fn column_sums(rows: &Tensor) -> candle_core::Result<Tensor> {
    Tensor::ones((1, rows.dim(0)?), rows.dtype(), rows.device())?.matmul(rows)?.squeeze(0)
}

/// x (…, inputs) as (rows, inputs), and the shape of an output (…, outputs).
fn flattened(x: &Tensor, weight: &Tensor) -> Result<(Tensor, Vec<usize>)> {
    let (outputs, inputs) = weight.dims2()?;
    let mut shape = x.dims().to_vec();
    let rows = x.elem_count() / x.dim(D::Minus1)?.max(1);
    if let Some(last) = shape.last_mut() {
        *last = outputs;
    }
    Ok((x.contiguous()?.reshape((rows, inputs))?, shape))
}

/// x·Wᵀ + b for x (…, inputs), W (outputs, inputs) and b (outputs): (…, outputs). The backward pass
/// computes the gradients of W and b, and of x unless x is constant.
///
/// # Errors
/// If the shapes do not fit.
pub fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let (flat, shape) = flattened(x, weight)?;
    let y = flat.apply_op2(weight, Product { trained: true })?;
    let y = if nn::has_cpu_kernel(&y) {
        y.apply_op2(&bias.contiguous()?, Bias)?
    } else {
        y.broadcast_add(bias)?
    };
    Ok(y.reshape(shape)?)
}

/// x·Wᵀ + b for x (…, inputs), a frozen W (outputs, inputs) and b (outputs): (…, outputs). The
/// backward pass computes the gradient of x only.
///
/// # Errors
/// If the shapes do not fit.
pub fn frozen_linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (flat, shape) = flattened(x, weight)?;
    if !nn::has_cpu_kernel(x) {
        return Ok(composed::frozen_linear(&flat, weight, bias)?.reshape(shape)?);
    }
    let y = flat.apply_op2(&weight.detach(), Product { trained: false })?.reshape(shape)?;
    Ok(match bias {
        Some(bias) => y.broadcast_add(&bias.detach())?,
        None => y,
    })
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::nn::largest_difference;

    #[test]
    fn equals_the_plain_composition() {
        for (rows, inputs, outputs) in [(1, 1, 1), (5, 7, 3), (12, 16, 8)] {
            let draw = |shape: (usize, usize)| {
                Tensor::randn(0f64, 1.0, shape, &Device::Cpu).expect("randn")
            };
            let x = Var::from_tensor(&draw((rows, inputs))).expect("var");
            let (w, b, g) = (
                draw((outputs, inputs)),
                draw((1, outputs)).squeeze(0).expect("b"),
                draw((rows, outputs)),
            );
            let ours = frozen_linear(&x, &w, Some(&b)).expect("ours");
            let plain = x.matmul(&w.t().expect("t")).expect("mm").broadcast_add(&b).expect("add");
            let gradient = |y: &Tensor| {
                (y * &g)
                    .expect("mul")
                    .sum_all()
                    .expect("sum")
                    .backward()
                    .expect("bwd")
                    .get(&x)
                    .expect("dx")
                    .clone()
            };
            for (a, b) in [(&ours, &plain), (&gradient(&ours), &gradient(&plain))] {
                let worst = largest_difference(a, b);
                assert!(worst < 1e-12, "{worst}");
            }
        }
    }

    #[test]
    fn trained_gradients_equal_the_plain_composition_s() {
        for (rows, inputs, outputs) in [(1, 1, 1), (5, 7, 3), (130, 16, 8)] {
            let draw = |shape: (usize, usize)| {
                Tensor::randn(0f64, 1.0, shape, &Device::Cpu).expect("randn")
            };
            let var = |t: Tensor| Var::from_tensor(&t).expect("var");
            let (x, w, b) = (
                var(draw((rows, inputs))),
                var(draw((2 * outputs, inputs))),
                var(draw((1, outputs)).squeeze(0).expect("b")),
            );
            let g = draw((rows, outputs));
            // The weight is the lower half of a larger one, as k is a part of the last block's qkv.
            let half = w.narrow(0, outputs, outputs).expect("half");
            let ours = linear(&x, &half, &b).expect("ours");
            let plain =
                x.matmul(&half.t().expect("t")).expect("mm").broadcast_add(&b).expect("add");
            let backward = |y: &Tensor| {
                (y * &g).expect("mul").sum_all().expect("sum").backward().expect("bwd")
            };
            let (a, e) = (backward(&ours), backward(&plain));
            for var in [&x, &w, &b] {
                let (a, e) = (a.get(var).expect("ours"), e.get(var).expect("plain"));
                let worst = largest_difference(a, e);
                assert!(worst < 1e-11, "{worst}");
            }
            let worst = largest_difference(&ours, &plain);
            assert!(worst < 1e-12, "{worst}");
        }
    }

    #[test]
    fn frozen_weights_get_no_gradient() {
        let x = Var::zeros((2, 3), candle_core::DType::F32, &Device::Cpu).expect("x");
        let w = Var::ones((4, 3), candle_core::DType::F32, &Device::Cpu).expect("w");
        let grads = frozen_linear(&x, &w, None)
            .expect("y")
            .sum_all()
            .expect("sum")
            .backward()
            .expect("bwd");
        assert!(grads.get(&x).is_some());
        assert!(grads.get(&w).is_none());
    }
}
