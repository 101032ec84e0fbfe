//! Multi-head self-attention without weights: softmax(q·kᵀ/√width)·v. The backward pass computes
//! the softmax again, so that the forward pass need not store it.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::composed;
use crate::Result;
use crate::nn;
use crate::nn::cpu::attention::Sizes;
use crate::nn::cpu::simd::Float;
use crate::nn::cpu::storage::{by_type, values};

fn forward<T: Float>(qkv: &[T], s: Sizes) -> Vec<T> {
    let image = s.tokens * s.dim;
    let mut out = vec![T::default(); qkv.len() / 3];
    out.par_chunks_mut(image).zip(qkv.par_chunks(3 * image)).for_each(|(out, qkv)| {
        s.forward(qkv, &mut vec![T::default(); s.tokens * s.tokens], out);
    });
    out
}

fn backward<T: Float>(qkv: &[T], grad: &[T], s: Sizes) -> Vec<T> {
    let image = s.tokens * s.dim;
    let mut out = vec![T::default(); qkv.len()];
    out.par_chunks_mut(3 * image)
        .zip(qkv.par_chunks(3 * image))
        .zip(grad.par_chunks(image))
        .for_each(|((out, qkv), grad)| {
            let mut room = [(); 2].map(|()| vec![T::default(); s.tokens * s.tokens]);
            s.backward(qkv, grad, room.each_mut().map(Vec::as_mut_slice), out);
        });
    out
}

struct Attention {
    heads: usize,
}
struct Backward {
    heads: usize,
}

fn sizes(layout: &Layout, heads: usize) -> candle_core::Result<(usize, Sizes)> {
    let (batch, tokens, width) = layout.shape().dims3()?;
    Ok((batch, Sizes { queries: tokens, tokens, dim: width / 3, heads }))
}

impl CustomOp1 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (batch, s) = sizes(lx, self.heads)?;
        by_type!(self.name(), x, T => Ok((T::wrap(forward::<T>(values(self.name(), x, lx)?, s)), Shape::from((batch, s.tokens, s.dim)))))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(Some(
            x.detach().apply_op2(&grad.detach().contiguous()?, Backward { heads: self.heads })?,
        ))
    }
}

impl CustomOp2 for Backward {
    fn name(&self) -> &'static str {
        "attention-backward"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        grad: &CpuStorage,
        lg: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (_, s) = sizes(lx, self.heads)?;
        by_type!(self.name(), x, T => {
            Ok((T::wrap(backward::<T>(values(self.name(), x, lx)?, values(self.name(), grad, lg)?, s)), lx.shape().clone()))
        })
    }
}

/// Attention of all tokens: from qkv (batch, tokens, 3·dim), stacked in timm's order, to (batch,
/// tokens, dim).
///
/// # Errors
/// If `heads` does not divide dim.
pub fn attention(qkv: &Tensor, heads: usize) -> Result<Tensor> {
    let width = qkv.dim(D::Minus1)?;
    if heads == 0 || !width.is_multiple_of(3 * heads) {
        return Err(crate::Error::Protocol(format!(
            "attention: {heads} heads do not divide a third of {width}"
        )));
    }
    if nn::has_cpu_kernel(qkv) && qkv.elem_count() > 0 {
        return Ok(qkv.contiguous()?.apply_op1(Attention { heads })?);
    }
    Ok(composed::attention(qkv, heads)?)
}

/// Attention of some queries (batch, queries, dim) over all keys and values (batch, tokens, dim).
/// The last block uses it for the CLS token.
///
/// # Errors
/// If `heads` does not divide dim.
pub fn attention_cls(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize) -> Result<Tensor> {
    let (batch, queries, dim) = q.dims3()?;
    let split = |t: &Tensor| -> Result<Tensor> {
        Ok(t.reshape((batch, t.dim(1)?, heads, dim / heads))?.transpose(1, 2)?.contiguous()?)
    };
    let scores = (split(q)?.matmul(&split(k)?.transpose(2, 3)?)? / ((dim / heads) as f64).sqrt())?;
    let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
    let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
    Ok(weights.matmul(&split(v)?)?.transpose(1, 2)?.contiguous()?.reshape((batch, queries, dim))?)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::nn::largest_difference;

    #[test]
    fn equals_the_plain_composition() {
        for (batch, tokens, dim, heads) in [(1, 1, 3, 3), (2, 5, 12, 2), (3, 17, 21, 3)] {
            let draw = |width: usize| {
                Tensor::randn(0f64, 1.0, (batch, tokens, width), &Device::Cpu).expect("randn")
            };
            let (x, g) = (Var::from_tensor(&draw(3 * dim)).expect("var"), draw(dim));
            let part = |i: usize| {
                x.narrow(2, i * dim, dim).expect("part").contiguous().expect("contiguous")
            };
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
            let ours = attention(&x, heads).expect("ours");
            let plain = attention_cls(&part(0), &part(1), &part(2), heads).expect("plain");
            for (a, b) in [(&ours, &plain), (&gradient(&ours), &gradient(&plain))] {
                let worst = largest_difference(a, b);
                assert!(worst < 1e-12, "{worst}");
            }
        }
    }
}
