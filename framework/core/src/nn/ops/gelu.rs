//! The exact GELU: x·Φ(x), with its own backward pass.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::composed;
use crate::Result;
use crate::nn;
use crate::nn::cpu::rowwise::{gelu, gelu_gradient};
use crate::nn::cpu::simd::Float;
use crate::nn::cpu::storage::{by_type, values};

struct Gelu;
struct Backward;

/// Elements per rayon task.
const CHUNK: usize = 4096;

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "gelu-erf"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        by_type!(self.name(), x, T => {
            let x: &[T] = values(self.name(), x, lx)?;
            let mut out = vec![T::default(); x.len()];
            out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(out, x)| gelu(x, out));
            Ok((T::wrap(out), lx.shape().clone()))
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(Some(x.detach().apply_op2(&grad.detach().contiguous()?, Backward)?))
    }
}

impl CustomOp2 for Backward {
    fn name(&self) -> &'static str {
        "gelu-erf-backward"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        grad: &CpuStorage,
        lg: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        by_type!(self.name(), x, T => {
            let (x, grad): (&[T], &[T]) = (values(self.name(), x, lx)?, values(self.name(), grad, lg)?);
            let mut out = grad.to_vec();
            out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(out, x)| gelu_gradient(x, out));
            Ok((T::wrap(out), lx.shape().clone()))
        })
    }
}

/// x·Φ(x) for each element, with the exact normal distribution function Φ (by erf).
///
/// # Errors
/// If the tensor operation fails.
pub fn gelu_erf(x: &Tensor) -> Result<Tensor> {
    if nn::has_cpu_kernel(x) {
        return Ok(x.contiguous()?.apply_op1(Gelu)?);
    }
    Ok(composed::gelu_erf(x)?)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::nn::largest_difference;

    #[test]
    fn values_equal_candle_s_and_gradients_equal_differences() {
        for n in [1, 17, 10_000] {
            let x = Var::from_tensor(&Tensor::randn(0f64, 2.0, n, &Device::Cpu).expect("x"))
                .expect("var");
            let at =
                |d: f64| gelu_erf(&(x.as_tensor().detach() + d).expect("moved")).expect("gelu");
            let numeric = ((at(1e-5) - at(-1e-5)).expect("sub") / 2e-5).expect("div");
            let loss = gelu_erf(&x).expect("gelu").sum_all().expect("sum");
            let exact = loss.backward().expect("bwd").get(&x).expect("dx").clone();
            for (a, b) in [(&at(0.0), &x.gelu_erf().expect("candle's")), (&exact, &numeric)] {
                let worst = largest_difference(a, b);
                assert!(worst < 1e-9, "{worst}");
            }
        }
    }
}
