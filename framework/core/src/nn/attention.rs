//! Multi-head self-attention without weights: softmax(q·kᵀ/√width)·v, the softmax recomputed in the backward pass instead of stored.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::float::Float;
use super::product::{Old, View, product};
use super::rows::{by_type, softmax, softmax_gradient, values};
use crate::Result;

/// One image's attention: how many tokens attend (the first ones) to how many, their width, and the heads that share it.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub queries: usize,
    pub tokens: usize,
    pub dim: usize,
    pub heads: usize,
}

impl Sizes {
    fn width(self) -> usize {
        self.dim / self.heads
    }

    fn scale(self) -> f64 {
        1.0 / (self.width() as f64).sqrt()
    }

    /// Where q, k and v of a head lie in an image's qkv (tokens, 3·dim).
    fn qkv(self, head: usize) -> [View; 3] {
        [0, 1, 2].map(|i| View::rows(3 * self.dim).after(i * self.dim + head * self.width()))
    }

    /// Where a head lies in an image's output (queries, dim).
    fn out(self, head: usize) -> View {
        View::rows(self.dim).after(head * self.width())
    }

    /// The attention weights (queries, tokens) of a head, into `p`.
    fn weights<T: Float>(self, qkv: &[T], head: usize, p: &mut [T]) {
        let (m, n, [q, k, _]) = (self.queries, self.tokens, self.qkv(head));
        product((m, n, self.width()), (p, View::rows(n), Old::Dropped), (qkv, q), (qkv, k.t()), self.scale());
        softmax(&mut p[..m * n], n);
    }

    /// softmax(q·kᵀ/√width)·v of an image's qkv (tokens, 3·dim), into `out` (queries, dim). `p` has room for (queries, tokens).
    pub fn forward<T: Float>(self, qkv: &[T], p: &mut [T], out: &mut [T]) {
        for head in 0..self.heads {
            self.weights(qkv, head, p);
            let size = (self.queries, self.width(), self.tokens);
            product(size, (out, self.out(head), Old::Dropped), (p, View::rows(self.tokens)), (qkv, self.qkv(head)[2]), 1.0);
        }
    }

    /// The gradient of qkv from that of the output, into `dqkv` (tokens, 3·dim); the q of tokens that do not attend is left as it is. The softmax is
    /// computed again. `p` and `dp` have room for (queries, tokens).
    pub fn backward<T: Float>(self, qkv: &[T], grad: &[T], [p, dp]: [&mut [T]; 2], dqkv: &mut [T]) {
        let (m, n, w, plain) = (self.queries, self.tokens, self.width(), View::rows(self.tokens));
        for head in 0..self.heads {
            let ([q, k, v], o) = (self.qkv(head), self.out(head));
            self.weights(qkv, head, p);
            product((n, w, m), (dqkv, v, Old::Dropped), (p, plain.t()), (grad, o), 1.0);
            product((m, n, w), (dp, plain, Old::Dropped), (grad, o), (qkv, v.t()), 1.0);
            softmax_gradient(&p[..m * n], &mut dp[..m * n], n);
            product((m, w, n), (dqkv, q, Old::Dropped), (dp, plain), (qkv, k), self.scale());
            product((n, w, m), (dqkv, k, Old::Dropped), (dp, plain.t()), (qkv, q), self.scale());
        }
    }
}

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
    out.par_chunks_mut(3 * image).zip(qkv.par_chunks(3 * image)).zip(grad.par_chunks(image)).for_each(|((out, qkv), grad)| {
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
        Ok(Some(x.detach().apply_op2(&grad.detach().contiguous()?, Backward { heads: self.heads })?))
    }
}

impl CustomOp2 for Backward {
    fn name(&self) -> &'static str {
        "attention-backward"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, grad: &CpuStorage, lg: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (_, s) = sizes(lx, self.heads)?;
        by_type!(self.name(), x, T => {
            Ok((T::wrap(backward::<T>(values(self.name(), x, lx)?, values(self.name(), grad, lg)?, s)), lx.shape().clone()))
        })
    }
}

/// Attention of all tokens: qkv (batch, tokens, 3·dim), the three stacked as timm does → (batch, tokens, dim).
///
/// # Errors
/// If `heads` does not divide dim.
pub fn attention(qkv: &Tensor, heads: usize) -> Result<Tensor> {
    let width = qkv.dim(D::Minus1)?;
    if heads == 0 || !width.is_multiple_of(3 * heads) {
        return Err(crate::Error::Protocol(format!("attention: {heads} heads do not divide a third of {width}")));
    }
    if super::own(qkv) && qkv.elem_count() > 0 {
        return Ok(qkv.contiguous()?.apply_op1(Attention { heads })?);
    }
    Ok(super::attached::attention(qkv, heads)?)
}

/// Attention of some queries (batch, queries, dim) — the CLS token's, in the last block — over all keys and values (batch, tokens, dim).
///
/// # Errors
/// If `heads` does not divide dim.
pub fn attention_cls(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize) -> Result<Tensor> {
    let (batch, queries, dim) = q.dims3()?;
    let split = |t: &Tensor| -> Result<Tensor> { Ok(t.reshape((batch, t.dim(1)?, heads, dim / heads))?.transpose(1, 2)?.contiguous()?) };
    let scores = (split(q)?.matmul(&split(k)?.transpose(2, 3)?)? / ((dim / heads) as f64).sqrt())?;
    let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
    let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
    Ok(weights.matmul(&split(v)?)?.transpose(1, 2)?.contiguous()?.reshape((batch, queries, dim))?)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn equals_the_plain_composition() {
        for (batch, tokens, dim, heads) in [(1, 1, 3, 3), (2, 5, 12, 2), (3, 17, 21, 3)] {
            let draw = |width: usize| Tensor::randn(0f64, 1.0, (batch, tokens, width), &Device::Cpu).expect("randn");
            let (x, g) = (Var::from_tensor(&draw(3 * dim)).expect("var"), draw(dim));
            let part = |i: usize| x.narrow(2, i * dim, dim).expect("part").contiguous().expect("contiguous");
            let gradient =
                |y: &Tensor| (y * &g).expect("mul").sum_all().expect("sum").backward().expect("bwd").get(&x).expect("dx").clone();
            let ours = attention(&x, heads).expect("ours");
            let plain = attention_cls(&part(0), &part(1), &part(2), heads).expect("plain");
            for (a, b) in [(&ours, &plain), (&gradient(&ours), &gradient(&plain))] {
                let worst = (a - b).expect("sub").abs().expect("abs").max_all().expect("max").to_scalar::<f64>().expect("scalar");
                assert!(worst < 1e-12, "{worst}");
            }
        }
    }
}
