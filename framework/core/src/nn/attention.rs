//! Multi-head self-attention without weights: softmax(q·kᵀ/√width)·v, the softmax recomputed in the backward pass instead of stored.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::rows::{Float, by_type, values};
use crate::Result;

/// The element types with matrix products of the `gemm` crate.
trait Product: Float {
    const ZERO: Self;
    fn exp(self) -> Self;
}
impl Product for f32 {
    const ZERO: Self = 0.0;
    fn exp(self) -> Self {
        f32::exp(self)
    }
}
impl Product for f64 {
    const ZERO: Self = 0.0;
    fn exp(self) -> Self {
        f64::exp(self)
    }
}

/// A matrix inside a slice: where it begins and its strides.
#[derive(Clone, Copy)]
struct View {
    start: usize,
    row: usize,
    column: usize,
}

impl View {
    fn t(self) -> Self {
        Self { start: self.start, row: self.column, column: self.row }
    }

    fn last(self, rows: usize, columns: usize) -> usize {
        self.start + (rows - 1) * self.row + (columns - 1) * self.column
    }
}

/// dst (m, n) = scale · a (m, k) · b (k, n), on one thread.
fn product<T: Product>((m, n, k): (usize, usize, usize), dst: (&mut [T], View), a: (&[T], View), b: (&[T], View), scale: f64) {
    assert!(
        dst.1.last(m, n) < dst.0.len() && a.1.last(m, k) < a.0.len() && b.1.last(k, n) < b.0.len(),
        "a matrix reaches out of its slice"
    );
    // SAFETY: the assertion keeps every element that is read or written within the slices; dst is borrowed mutably, so it overlaps neither a nor b.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.0.as_mut_ptr().add(dst.1.start),
            dst.1.column as isize,
            dst.1.row as isize,
            false,
            a.0.as_ptr().add(a.1.start),
            a.1.column as isize,
            a.1.row as isize,
            b.0.as_ptr().add(b.1.start),
            b.1.column as isize,
            b.1.row as isize,
            T::ZERO,
            T::narrow(scale),
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Sizes of one image's attention.
#[derive(Clone, Copy)]
struct Sizes {
    tokens: usize,
    dim: usize,
    heads: usize,
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
        [0, 1, 2].map(|i| View { start: i * self.dim + head * self.width(), row: 3 * self.dim, column: 1 })
    }

    /// Where a head lies in an image's output (tokens, dim).
    fn out(self, head: usize) -> View {
        View { start: head * self.width(), row: self.dim, column: 1 }
    }

    /// The attention weights (tokens, tokens) of a head, into `p`.
    fn weights<T: Product>(self, qkv: &[T], head: usize, p: &mut [T]) {
        let (n, [q, k, _]) = (self.tokens, self.qkv(head));
        product((n, n, self.width()), (p, square(n)), (qkv, q), (qkv, k.t()), self.scale());
        for row in p.chunks_mut(n) {
            let max = row.iter().fold(f64::NEG_INFINITY, |m, v| m.max(v.wide()));
            let max = T::narrow(max).wide();
            let mut sum = 0.0;
            for v in row.iter_mut() {
                *v = T::narrow(v.wide() - max).exp();
                sum += v.wide();
            }
            let inverse = 1.0 / sum;
            row.iter_mut().for_each(|v| *v = T::narrow(v.wide() * inverse));
        }
    }
}

fn square(n: usize) -> View {
    View { start: 0, row: n, column: 1 }
}

fn forward<T: Product>(qkv: &[T], s: Sizes) -> Vec<T> {
    let (n, image) = (s.tokens, s.tokens * s.dim);
    let mut out = vec![T::default(); qkv.len() / 3];
    out.par_chunks_mut(image).zip(qkv.par_chunks(3 * image)).for_each(|(out, qkv)| {
        let mut p = vec![T::default(); n * n];
        for head in 0..s.heads {
            s.weights(qkv, head, &mut p);
            product((n, s.width(), n), (out, s.out(head)), (&p, square(n)), (qkv, s.qkv(head)[2]), 1.0);
        }
    });
    out
}

fn backward<T: Product>(qkv: &[T], grad: &[T], s: Sizes) -> Vec<T> {
    let (n, w, image) = (s.tokens, s.width(), s.tokens * s.dim);
    let mut out = vec![T::default(); qkv.len()];
    out.par_chunks_mut(3 * image).zip(qkv.par_chunks(3 * image)).zip(grad.par_chunks(image)).for_each(|((out, qkv), grad)| {
        let (mut p, mut dp) = (vec![T::default(); n * n], vec![T::default(); n * n]);
        for head in 0..s.heads {
            let ([q, k, v], o) = (s.qkv(head), s.out(head));
            s.weights(qkv, head, &mut p);
            product((n, w, n), (out, v), (&p, square(n).t()), (grad, o), 1.0);
            product((n, n, w), (&mut dp, square(n)), (grad, o), (qkv, v.t()), 1.0);
            for (dp, p) in dp.chunks_mut(n).zip(p.chunks(n)) {
                let dot: f64 = dp.iter().zip(p).map(|(d, p)| d.wide() * p.wide()).sum();
                dp.iter_mut().zip(p).for_each(|(d, p)| *d = T::narrow(p.wide() * (d.wide() - dot)));
            }
            product((n, w, n), (out, q), (&dp, square(n)), (qkv, k), s.scale());
            product((n, w, n), (out, k), (&dp, square(n).t()), (qkv, q), s.scale());
        }
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
    Ok((batch, Sizes { tokens, dim: width / 3, heads }))
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
    let (batch, tokens, width) = qkv.dims3()?;
    if qkv.device().is_cpu() && batch * tokens > 0 {
        return Ok(qkv.contiguous()?.apply_op1(Attention { heads })?);
    }
    let dim = width / 3;
    let part = |i: usize| -> Result<Tensor> { Ok(qkv.narrow(2, i * dim, dim)?.contiguous()?) };
    attention_cls(&part(0)?, &part(1)?, &part(2)?, heads)
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
