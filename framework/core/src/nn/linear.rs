//! The frozen linear layer: y = x·Wᵀ + b, with a gradient for x and none for W and b.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, D, Layout, Shape, Tensor};

use crate::Result;

struct FrozenLinear;

/// (rows, inputs, outputs) of x (rows, inputs) and w (outputs, inputs), and w's layout transposed.
#[allow(clippy::type_complexity)]
fn plan(x: &Layout, w: &Layout) -> candle_core::Result<((usize, usize, usize, usize), Layout, Shape)> {
    let (rows, inputs) = x.shape().dims2()?;
    let (outputs, _) = w.shape().dims2()?;
    Ok(((1, rows, outputs, inputs), w.transpose(0, 1)?, Shape::from((rows, outputs))))
}

impl CustomOp2 for FrozenLinear {
    fn name(&self) -> &'static str {
        "frozen-linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, w: &CpuStorage, lw: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
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

    fn bwd(&self, _: &Tensor, w: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(grad.contiguous()?.matmul(w)?), None))
    }
}

/// x·Wᵀ + b for x (…, inputs), a frozen W (outputs, inputs) and b (outputs): (…, outputs). The backward pass computes the gradient of x only.
///
/// # Errors
/// If the shapes do not fit.
pub fn frozen_linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (outputs, inputs) = weight.dims2()?;
    let mut shape = x.dims().to_vec();
    let rows = x.elem_count() / x.dim(D::Minus1)?.max(1);
    if let Some(last) = shape.last_mut() {
        *last = outputs;
    }
    let flat = x.contiguous()?.reshape((rows, inputs))?;
    let y = flat.apply_op2(&weight.detach(), FrozenLinear)?.reshape(shape)?;
    Ok(match bias {
        Some(bias) => y.broadcast_add(&bias.detach())?,
        None => y,
    })
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn equals_the_plain_composition() {
        for (rows, inputs, outputs) in [(1, 1, 1), (5, 7, 3), (12, 16, 8)] {
            let draw = |shape: (usize, usize)| Tensor::randn(0f64, 1.0, shape, &Device::Cpu).expect("randn");
            let x = Var::from_tensor(&draw((rows, inputs))).expect("var");
            let (w, b, g) = (draw((outputs, inputs)), draw((1, outputs)).squeeze(0).expect("b"), draw((rows, outputs)));
            let ours = frozen_linear(&x, &w, Some(&b)).expect("ours");
            let plain = x.matmul(&w.t().expect("t")).expect("mm").broadcast_add(&b).expect("add");
            let gradient =
                |y: &Tensor| (y * &g).expect("mul").sum_all().expect("sum").backward().expect("bwd").get(&x).expect("dx").clone();
            for (a, b) in [(&ours, &plain), (&gradient(&ours), &gradient(&plain))] {
                let worst = (a - b).expect("sub").abs().expect("abs").max_all().expect("max").to_scalar::<f64>().expect("scalar");
                assert!(worst < 1e-12, "{worst}");
            }
        }
    }

    #[test]
    fn frozen_weights_get_no_gradient() {
        let x = Var::zeros((2, 3), candle_core::DType::F32, &Device::Cpu).expect("x");
        let w = Var::ones((4, 3), candle_core::DType::F32, &Device::Cpu).expect("w");
        let grads = frozen_linear(&x, &w, None).expect("y").sum_all().expect("sum").backward().expect("bwd");
        assert!(grads.get(&x).is_some());
        assert!(grads.get(&w).is_none());
    }
}
