//! One block for one image, on one thread: forward, and backward to its input and to the low-rank pairs beside q, k and v.

use super::Shape;
use super::weights::{Block, Matrix, Norm, Reversed};
use super::workspace::Scratch;
use crate::nn::cpu::aligned::Aligned;
use crate::nn::cpu::attention::Sizes;
use crate::nn::cpu::panels::{Left, Multiplied, Right, Start, multiply};
use crate::nn::cpu::product::{Old, View, product};
use crate::nn::cpu::rowwise::{gelu, gelu_gradient, layer_norm, layer_norm_gradient};

/// A low-rank pair beside part of a block's qkv.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PairPlace {
    /// The first of the dim columns of qkv that it adds to: 0, dim or 2·dim.
    pub column: usize,
    pub rank: usize,
    /// Where its A (rank, dim) and its B (dim, rank) begin among all pairs' values; both have as many.
    pub offset: usize,
    /// Where its part begins among the block's ranks.
    pub low: usize,
}

/// The pairs of one block, in the order in which their values lie.
pub(super) struct BlockPairs<'a, T> {
    pub places: &'a [PairPlace],
    /// The values of all pairs of all blocks.
    pub a: &'a [T],
    pub b: &'a [T],
}

impl<T> BlockPairs<'_, T> {
    fn ranks(&self) -> usize {
        self.places.iter().map(|p| p.rank).sum()
    }
}

/// What a block's backward pass needs of its forward pass: x (tokens, dim), low (tokens, ranks), qkv (tokens, 3·dim), mid (queries, dim) and hidden
/// (queries, hidden), one after the other.
pub(super) struct Activations<'a, T> {
    pub x: &'a mut [T],
    low: &'a mut [T],
    qkv: &'a mut [T],
    mid: &'a mut [T],
    hidden: &'a mut [T],
}

impl<'a, T> Activations<'a, T> {
    /// The parts of a buffer of [`Shape::kept_block`] elements.
    pub fn of(buffer: &'a mut [T], s: Shape) -> Self {
        let (x, rest) = buffer.split_at_mut(s.tokens * s.dim);
        let (low, rest) = rest.split_at_mut(s.tokens * s.ranks);
        let (qkv, rest) = rest.split_at_mut(3 * s.tokens * s.dim);
        let (mid, hidden) = rest.split_at_mut(s.tokens * s.dim);
        Self { x, low, qkv, mid, hidden }
    }
}

/// Which gradients a backward pass is to compute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub x: bool,
    pub a: bool,
    pub b: bool,
}

/// A block with all that is fixed during a pass.
pub(super) struct BlockPass<'a, T> {
    pub block: &'a Block<T>,
    pub pairs: BlockPairs<'a, T>,
    pub shape: Shape,
    /// How many tokens (the first ones) attend and go through the MLP: all, but for the last block.
    pub queries: usize,
    pub eps: f64,
}

/// out (rows, outputs) = start + x (rows, inputs)·Wᵀ, for some columns of the output.
pub(super) fn forward<T: Multiplied>(m: &Matrix<T>, x: &[T], rows: usize, columns: (usize, usize), (out, start): (&mut [T], Start<T>)) {
    let left = Left { rows, values: x, width: m.inputs };
    let out = &mut out[columns.0..];
    multiply(left, Right::Panels(&m.forward, columns), m.inputs, (out, m.outputs, start), &mut Aligned::default());
}

/// out (rows, outputs) = x (rows, inputs)·Wᵀ + b, for some columns of the output.
fn linear<T: Multiplied>(m: &Matrix<T>, x: &[T], rows: usize, columns: (usize, usize), out: &mut [T]) {
    forward(m, x, rows, columns, (out, Start::Row(&m.bias[columns.0..])));
}

/// out = x + y·Wᵀ + b, row by row.
fn residual<T: Multiplied>(m: &Matrix<T>, x: &[T], y: &[T], rows: usize, out: &mut [T]) {
    let width = m.outputs;
    for (out, x) in out[..rows * width].chunks_exact_mut(width).zip(x.chunks_exact(width)) {
        for ((o, x), b) in out.iter_mut().zip(x).zip(&m.bias) {
            *o = *x + *b;
        }
    }
    forward(m, y, rows, (0, width), (out, Start::Old));
}

/// out (rows, inputs) = start + g (rows, outputs)·W, over some of the outputs, g being `width` wide.
fn reverse<T: Multiplied>(
    w: &[T],
    (g, width): (&[T], usize),
    rows: usize,
    (first, outputs): (usize, usize),
    (out, inputs, start): (&mut [T], usize, Start<T>),
    room: &mut Aligned<T>,
) {
    let left = Left { rows, values: &g[first..], width };
    multiply(left, Right::Rows(&w[first * inputs..], inputs), outputs, (out, inputs, start), room);
}

impl<T: Multiplied> BlockPass<'_, T> {
    fn attention(&self) -> Sizes {
        Sizes { queries: self.queries, tokens: self.shape.tokens, dim: self.shape.dim, heads: self.shape.heads }
    }

    fn norm(&self, norm: &Norm<T>, x: &[T], rows: usize, out: &mut [T]) {
        let n = rows * self.shape.dim;
        layer_norm(&x[..n], &norm.gamma, &norm.beta, self.eps, &mut out[..n]);
    }

    /// The rows of qkv that a pair has a part in.
    fn rows(&self, pair: &PairPlace) -> usize {
        if pair.column == 0 { self.queries } else { self.shape.tokens }
    }

    /// From `kept.x` to `out` (queries, dim), filling the rest of `kept`.
    pub fn forward(&self, kept: &mut Activations<T>, out: &mut [T], s: &mut Scratch<T>) {
        let (n, dim, hidden) = (self.shape.tokens, self.shape.dim, self.shape.hidden);
        let (block, q) = (self.block, self.queries);
        self.norm(&block.norm1, kept.x, n, &mut s.normed);
        if q == n {
            linear(&block.qkv, &s.normed, n, (0, 3 * dim), kept.qkv);
        } else {
            linear(&block.qkv, &s.normed, q, (0, dim), kept.qkv);
            linear(&block.qkv, &s.normed, n, (dim, 2 * dim), kept.qkv);
        }
        if let Some(first) = self.pairs.places.first() {
            let ranks = self.pairs.ranks();
            let low = View::rows(ranks);
            let a = (self.pairs.a, View::rows(dim).after(first.offset).t());
            product((n, ranks, dim), (kept.low, low, Old::Dropped), (&s.normed, View::rows(dim)), a, 1.0);
            for pair in self.pairs.places {
                let b = (self.pairs.b, View::rows(pair.rank).after(pair.offset).t());
                let dst = (&mut *kept.qkv, View::rows(3 * dim).after(pair.column), Old::Kept);
                product((self.rows(pair), dim, pair.rank), dst, (kept.low, low.after(pair.low)), b, 1.0);
            }
        }
        self.attention().forward(kept.qkv, &mut s.weights, &mut s.attended);
        residual(&block.proj, kept.x, &s.attended, q, kept.mid);
        self.norm(&block.norm2, kept.mid, q, &mut s.normed);
        linear(&block.fc1, &s.normed, q, (0, hidden), kept.hidden);
        gelu(&kept.hidden[..q * hidden], &mut s.hidden[..q * hidden]);
        residual(&block.fc2, kept.mid, &s.hidden, q, out);
    }

    /// From the gradient of the output, in the first rows of `grad` (tokens, dim), to that of x, in its place, and of the pairs, added to `da` and `db`
    /// (as long as the values of all pairs).
    pub fn backward(
        &self,
        w: &Reversed<T>,
        kept: &Activations<T>,
        grad: &mut [T],
        (da, db): (&mut [T], &mut [T]),
        wanted: Wanted,
        s: &mut Scratch<T>,
    ) {
        let (n, dim, hidden, q) = (self.shape.tokens, self.shape.dim, self.shape.hidden, self.queries);
        let wide = View::rows(dim);
        reverse(w.fc2, (grad, dim), q, (0, dim), (&mut s.hidden, hidden, Start::Zero), &mut s.panel);
        gelu_gradient(&kept.hidden[..q * hidden], &mut s.hidden[..q * hidden]);
        reverse(w.fc1, (&s.hidden, hidden), q, (0, hidden), (&mut s.normed, dim, Start::Zero), &mut s.panel);
        let rows = q * dim;
        layer_norm_gradient(&kept.mid[..rows], &self.block.norm2.gamma, &s.normed[..rows], self.eps, &mut grad[..rows]);
        reverse(w.proj, (grad, dim), q, (0, dim), (&mut s.attended, dim, Start::Zero), &mut s.panel);
        self.attention().backward(kept.qkv, &s.attended, [&mut s.weights, &mut s.dweights], &mut s.dqkv);
        self.pairs_gradient(kept, (da, db), wanted, s);
        if !wanted.x {
            return;
        }
        // dx̂ = dqkv·W + Σ (dqkv·B)·A, over q only where tokens attend.
        let mut part = |rows: usize, columns: (usize, usize), start: Start<T>| {
            reverse(w.qkv, (&s.dqkv, 3 * dim), rows, columns, (&mut s.normed, dim, start), &mut s.panel);
        };
        if q == n {
            part(n, (0, 3 * dim), Start::Zero);
        } else {
            part(n, (dim, 2 * dim), Start::Zero);
            part(q, (0, dim), Start::Old);
            grad[rows..n * dim].fill(T::ZERO);
        }
        let low = View::rows(self.pairs.ranks());
        for pair in self.pairs.places {
            let a = (self.pairs.a, wide.after(pair.offset));
            product((self.rows(pair), dim, pair.rank), (&mut s.normed, wide, Old::Kept), (&s.low, low.after(pair.low)), a, 1.0);
        }
        layer_norm_gradient(kept.x, &self.block.norm1.gamma, &s.normed, self.eps, grad);
    }

    /// dB += dqkvᵀ·low, dA += (dqkv·B)ᵀ·x̂; leaves dqkv·B in the scratch.
    fn pairs_gradient(&self, kept: &Activations<T>, (da, db): (&mut [T], &mut [T]), wanted: Wanted, s: &mut Scratch<T>) {
        let (n, dim) = (self.shape.tokens, self.shape.dim);
        let low = View::rows(self.pairs.ranks());
        if wanted.a && !self.pairs.places.is_empty() {
            self.norm(&self.block.norm1, kept.x, n, &mut s.normed);
        }
        for pair in self.pairs.places {
            let (rows, grad) = (self.rows(pair), View::rows(3 * dim).after(pair.column));
            let (small, wide) = (View::rows(pair.rank).after(pair.offset), View::rows(dim).after(pair.offset));
            if wanted.b {
                let from = (&*kept.low, low.after(pair.low));
                product((dim, pair.rank, rows), (&mut *db, small, Old::Kept), (&s.dqkv, grad.t()), from, 1.0);
            }
            if wanted.a || wanted.x {
                let dst = (s.low.as_mut_slice(), low.after(pair.low), Old::Dropped);
                product((rows, pair.rank, dim), dst, (&s.dqkv, grad), (self.pairs.b, small), 1.0);
            }
            if wanted.a {
                let through = (s.low.as_slice(), low.after(pair.low).t());
                product((pair.rank, dim, rows), (&mut *da, wide, Old::Kept), through, (&s.normed, View::rows(dim)), 1.0);
            }
        }
    }
}
