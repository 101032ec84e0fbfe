//! The second tier: operations with their own gradient but without a CPU kernel. The value comes
//! from candle's operations without a graph, the gradient from a formula of the same operations.
//! The backward pass needs the input only. Candle's own differentiation would keep every
//! intermediate tensor and compute a gradient for each frozen weight.

use std::sync::Mutex;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Storage, Tensor, bail};

/// Computes the gradient of x from x and the gradient of the value.
type Backward = dyn Fn(&Tensor, &Tensor) -> Result<Tensor> + Send + Sync;

struct Attached {
    name: &'static str,
    /// The value, until the forward pass takes it.
    value: Mutex<Option<Tensor>>,
    backward: Box<Backward>,
}

/// `value` of x, with `backward` as its gradient.
fn attached(
    name: &'static str,
    x: &Tensor,
    value: impl FnOnce(&Tensor) -> Result<Tensor>,
    backward: impl Fn(&Tensor, &Tensor) -> Result<Tensor> + Send + Sync + 'static,
) -> Result<Tensor> {
    let value = value(&x.detach())?.contiguous()?;
    if !x.track_op() {
        return Ok(value);
    }
    x.apply_op1(Attached { name, value: Mutex::new(Some(value)), backward: Box::new(backward) })
}

impl Attached {
    fn take(&self) -> Result<Tensor> {
        match self.value.lock().map(|mut v| v.take()) {
            Ok(Some(value)) => Ok(value),
            _ => bail!("{}: the value was taken already", self.name),
        }
    }
}

impl CustomOp1 for Attached {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let value = self.take()?;
        let (storage, layout) = value.storage_and_layout();
        match &*storage {
            Storage::Cpu(storage) => Ok((storage.try_clone(layout)?, layout.shape().clone())),
            _ => bail!("{}: the value is not where x is", self.name),
        }
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        _: &candle_core::CudaStorage,
        _: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        let value = self.take()?;
        let (storage, layout) = value.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => Ok((storage.try_clone(layout)?, layout.shape().clone())),
            _ => bail!("{}: the value is not where x is", self.name),
        }
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        (self.backward)(&x.detach(), &grad.detach().contiguous()?).map(Some)
    }
}

/// x·Wᵀ + b for a frozen W (outputs, inputs) and b: see [`super::frozen_linear`]. x is (rows,
/// inputs).
pub(crate) fn frozen_linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (weight, bias) = (weight.detach(), bias.map(Tensor::detach));
    let back = weight.clone();
    let value = |x: &Tensor| {
        let y = x.matmul(&weight.t()?)?;
        match &bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    };
    attached("frozen-linear", x, value, move |_, grad| grad.matmul(&back))
}

/// x·Φ(x).
pub(crate) fn gelu_erf(x: &Tensor) -> Result<Tensor> {
    attached("gelu-erf", x, Tensor::gelu_erf, |x, grad| {
        // The constants of candle's own derivative have six digits only.
        let normal = ((x * std::f64::consts::FRAC_1_SQRT_2)?.erf()? * 0.5)?.affine(1.0, 0.5)?;
        let density = (((x.sqr()? * -0.5)?.exp()? * x)?
            * (0.5 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2))?;
        grad * (normal + density)?
    })
}

/// Layer norm over the last dimension with frozen γ and β.
pub(crate) fn frozen_layer_norm(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    eps: f64,
) -> Result<Tensor> {
    let (gamma, beta) = (gamma.detach(), beta.detach());
    let back = gamma.clone();
    let value = |x: &Tensor| standardised(x, eps)?.0.broadcast_mul(&gamma)?.broadcast_add(&beta);
    attached("frozen-layer-norm", x, value, move |x, grad| {
        let (normal, inverse) = standardised(x, eps)?;
        let g = grad.broadcast_mul(&back)?;
        let dot = (&g * &normal)?.mean_keepdim(D::Minus1)?;
        let centred = g.broadcast_sub(&g.mean_keepdim(D::Minus1)?)?;
        (centred - normal.broadcast_mul(&dot)?)?.broadcast_mul(&inverse)
    })
}

/// (x − mean) / σ over the last dimension, and 1/σ.
fn standardised(x: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let inverse = (centred.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?.recip()?;
    Ok((centred.broadcast_mul(&inverse)?, inverse))
}

/// Attention of all tokens from qkv (batch, tokens, 3·dim): see [`super::attention`].
pub(crate) fn attention(qkv: &Tensor, heads: usize) -> Result<Tensor> {
    let value = move |qkv: &Tensor| {
        let [q, k, v] = split(qkv, heads)?;
        joined(&weights(&q, &k)?.matmul(&v)?)
    };
    attached("attention", qkv, value, move |qkv, grad| {
        let [q, k, v] = split(qkv, heads)?;
        let (batch, tokens, width) = qkv.dims3()?;
        let (p, head) = (weights(&q, &k)?, width / 3 / heads);
        let grad = grad.reshape((batch, tokens, heads, head))?.transpose(1, 2)?.contiguous()?;
        let dv = p.transpose(2, 3)?.matmul(&grad)?;
        let dp = grad.matmul(&v.transpose(2, 3)?)?;
        let dot = (&dp * &p)?.sum_keepdim(D::Minus1)?;
        let ds = ((dp.broadcast_sub(&dot)? * p)? / (head as f64).sqrt())?;
        let (dq, dk) = (ds.matmul(&k)?, ds.transpose(2, 3)?.matmul(&q)?);
        Tensor::cat(&[joined(&dq)?, joined(&dk)?, joined(&dv)?], 2)
    })
}

/// q, k and v of (batch, tokens, 3·dim), each (batch, heads, tokens, width).
fn split(qkv: &Tensor, heads: usize) -> Result<[Tensor; 3]> {
    let (batch, tokens, width) = qkv.dims3()?;
    let all = qkv
        .contiguous()?
        .reshape((batch, tokens, 3, heads, width / 3 / heads))?
        .permute((2, 0, 3, 1, 4))?
        .contiguous()?;
    Ok([all.get(0)?, all.get(1)?, all.get(2)?])
}

/// softmax(q·kᵀ/√width).
fn weights(q: &Tensor, k: &Tensor) -> Result<Tensor> {
    let scores = (q.matmul(&k.transpose(2, 3)?)? / (q.dim(3)? as f64).sqrt())?;
    let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
    weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)
}

/// (batch, heads, tokens, width) as (batch, tokens, heads·width).
fn joined(heads: &Tensor) -> Result<Tensor> {
    let (batch, n, tokens, width) = heads.dims4()?;
    heads.transpose(1, 2)?.contiguous()?.reshape((batch, tokens, n * width))
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor, Var};

    use super::*;
    use crate::nn;
    use crate::nn::largest_difference;

    fn draw(shape: &[usize]) -> Tensor {
        Tensor::randn(0f64, 1.0, shape, &Device::Cpu).expect("randn")
    }

    /// Values and gradients of x of both, on some gradient of the output.
    fn same(x: &Tensor, ours: impl Fn(&Tensor) -> Tensor, theirs: impl Fn(&Tensor) -> Tensor) {
        let x = Var::from_tensor(x).expect("var");
        let (a, b) = (ours(&x), theirs(&x));
        let weights = draw(a.dims());
        let gradient = |y: &Tensor| {
            (y * &weights)
                .expect("mul")
                .sum_all()
                .expect("sum")
                .backward()
                .expect("bwd")
                .get(&x)
                .expect("dx")
                .clone()
        };
        for (a, b) in [(&a, &b), (&gradient(&a), &gradient(&b))] {
            let worst = largest_difference(a, b);
            assert!(worst < 1e-10, "{worst}");
        }
        assert!(!ours(&x.as_detached_tensor()).track_op(), "no graph where none is asked for");
    }

    #[test]
    fn without_kernels_of_ours_comes_what_the_cpu_computes() {
        for (batch, tokens, heads, width) in [(1, 1, 1, 3), (2, 5, 3, 4), (3, 17, 2, 7)] {
            let dim = heads * width;
            let x = draw(&[batch, tokens, dim]);
            let (gamma, beta) = (draw(&[dim]), draw(&[dim]));
            same(
                &x,
                |x| frozen_layer_norm(x, &gamma, &beta, 1e-6).expect("ours"),
                |x| nn::frozen_layer_norm(x, &gamma, &beta, 1e-6).expect("the CPU's"),
            );
            same(&x, |x| gelu_erf(x).expect("ours"), |x| nn::gelu_erf(x).expect("the CPU's"));
            same(
                &draw(&[batch, tokens, 3 * dim]),
                |x| attention(x, heads).expect("ours"),
                |x| nn::attention(x, heads).expect("the CPU's"),
            );
            let (w, b) = (draw(&[dim + 1, dim]), draw(&[dim + 1]));
            for bias in [Some(&b), None] {
                same(
                    &draw(&[batch * tokens, dim]),
                    |x| frozen_linear(x, &w, bias).expect("ours"),
                    |x| nn::frozen_linear(x, &w, bias).expect("the CPU's"),
                );
            }
        }
    }
}
