//! One block for one image on one thread: the forward pass, and the backward pass to its input and
//! to the low-rank pairs beside q, k and v.

use super::Shape;
use super::weights::{Block, Matrix, Norm, Reversed};
use super::workspace::Scratch;
use crate::nn::cpu::aligned::Aligned;
use crate::nn::cpu::attention::Sizes;
use crate::nn::cpu::panels::{Base, Columns, Job, Left, Multiplied, Right, multiply};
use crate::nn::cpu::product::{View, product};
use crate::nn::cpu::rowwise::{gelu, gelu_gradient, layer_norm, layer_norm_gradient};

/// A low-rank pair beside part of a block's qkv.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PairPlace {
    /// The first of the dim columns of qkv that it adds to: 0, dim or 2·dim.
    pub column: usize,
    pub rank: usize,
    /// Where the values of A (rank, dim) begin among those of all pairs. B (dim, rank) begins at
    /// the same place of its own list.
    pub offset: usize,
    /// The first of its ranks among the ranks of the block.
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

/// What a block's backward pass needs of its forward pass: x (tokens, dim), low (tokens, ranks),
/// qkv (tokens, 3·dim), mid (queries, dim) and hidden (queries, hidden), one after the other.
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
    /// How many tokens, from the first on, attend and go through the MLP. Only the last block has
    /// fewer than all.
    pub queries: usize,
    pub eps: f64,
}

/// The columns from the first on.
fn whole(count: usize) -> Columns {
    Columns { first: 0, count }
}

/// Some columns of out (rows, outputs) = base + x (rows, inputs)·Wᵀ.
pub(super) fn forward<T: Multiplied>(
    m: &Matrix<T>,
    x: &[T],
    rows: usize,
    columns: Columns,
    out: &mut [T],
    base: Base<T>,
) {
    multiply(Job {
        left: Left { rows, values: x, width: m.inputs },
        right: Right::Panels(&m.forward, columns),
        depth: m.inputs,
        out: &mut out[columns.first..],
        out_width: m.outputs,
        base,
        room: &mut Aligned::default(),
    });
}

/// Some columns of out (rows, outputs) = x (rows, inputs)·Wᵀ + b.
fn linear<T: Multiplied>(m: &Matrix<T>, x: &[T], rows: usize, columns: Columns, out: &mut [T]) {
    forward(m, x, rows, columns, out, Base::Row(&m.bias[columns.first..]));
}

/// out = x + y·Wᵀ + b, row by row.
fn residual<T: Multiplied>(m: &Matrix<T>, x: &[T], y: &[T], rows: usize, out: &mut [T]) {
    let width = m.outputs;
    for (out, x) in out[..rows * width].chunks_exact_mut(width).zip(x.chunks_exact(width)) {
        for ((o, x), b) in out.iter_mut().zip(x).zip(&m.bias) {
            *o = *x + *b;
        }
    }
    forward(m, y, rows, whole(width), out, Base::Destination);
}

/// A gradient g (rows, width), of which some columns are used.
#[derive(Clone, Copy)]
struct Gradient<'a, T> {
    values: &'a [T],
    width: usize,
    columns: Columns,
}

impl<'a, T> Gradient<'a, T> {
    /// All of its columns.
    fn of(values: &'a [T], width: usize) -> Self {
        Self { values, width, columns: whole(width) }
    }
}

/// out (rows, inputs) = base + g (rows, outputs)·W, summed over the columns of g that are used.
fn reverse<T: Multiplied>(
    w: &[T],
    g: Gradient<T>,
    rows: usize,
    (out, inputs): (&mut [T], usize),
    base: Base<T>,
    room: &mut Aligned<T>,
) {
    let Columns { first, count } = g.columns;
    multiply(Job {
        left: Left { rows, values: &g.values[first..], width: g.width },
        right: Right::Rows(&w[first * inputs..], inputs),
        depth: count,
        out,
        out_width: inputs,
        base,
        room,
    });
}

impl<T: Multiplied> BlockPass<'_, T> {
    fn attention(&self) -> Sizes {
        Sizes {
            queries: self.queries,
            tokens: self.shape.tokens,
            dim: self.shape.dim,
            heads: self.shape.heads,
        }
    }

    fn norm(&self, norm: &Norm<T>, x: &[T], rows: usize, out: &mut [T]) {
        let n = rows * self.shape.dim;
        layer_norm(&x[..n], &norm.gamma, &norm.beta, self.eps, &mut out[..n]);
    }

    /// The number of rows of qkv that a pair adds to.
    fn rows(&self, pair: &PairPlace) -> usize {
        if pair.column == 0 { self.queries } else { self.shape.tokens }
    }

    /// Computes `out` (queries, dim) from `kept.x` and fills the rest of `kept`.
    pub fn forward(&self, kept: &mut Activations<T>, out: &mut [T], s: &mut Scratch<T>) {
        let (n, dim, hidden) = (self.shape.tokens, self.shape.dim, self.shape.hidden);
        let (block, q) = (self.block, self.queries);
        self.norm(&block.norm1, kept.x, n, &mut s.normed);
        if q == n {
            linear(&block.qkv, &s.normed, n, whole(3 * dim), kept.qkv);
        } else {
            linear(&block.qkv, &s.normed, q, whole(dim), kept.qkv);
            linear(&block.qkv, &s.normed, n, Columns { first: dim, count: 2 * dim }, kept.qkv);
        }
        if let Some(first) = self.pairs.places.first() {
            let ranks = self.pairs.ranks();
            let low = View::rows(ranks);
            let a = View::rows(dim).after(first.offset).t().of(self.pairs.a);
            let normed = View::rows(dim).of(&s.normed);
            product((n, ranks, dim), low.replaced(kept.low), normed, a, 1.0);
            for pair in self.pairs.places {
                let b = View::rows(pair.rank).after(pair.offset).t().of(self.pairs.b);
                let dst = View::rows(3 * dim).after(pair.column).added_to(kept.qkv);
                let low = low.after(pair.low).of(kept.low);
                product((self.rows(pair), dim, pair.rank), dst, low, b, 1.0);
            }
        }
        self.attention().forward(kept.qkv, &mut s.weights, &mut s.attended);
        residual(&block.proj, kept.x, &s.attended, q, kept.mid);
        self.norm(&block.norm2, kept.mid, q, &mut s.normed);
        linear(&block.fc1, &s.normed, q, whole(hidden), kept.hidden);
        gelu(&kept.hidden[..q * hidden], &mut s.hidden[..q * hidden]);
        residual(&block.fc2, kept.mid, &s.hidden, q, out);
    }

    /// Replaces the gradient of the output, in the first rows of `grad` (tokens, dim), by the
    /// gradient of x, and adds the gradients of the pairs to `da` and `db` (as long as the values
    /// of all pairs).
    pub fn backward(
        &self,
        w: &Reversed<T>,
        kept: &Activations<T>,
        grad: &mut [T],
        (da, db): (&mut [T], &mut [T]),
        wanted: Wanted,
        s: &mut Scratch<T>,
    ) {
        let (n, dim, hidden, q) =
            (self.shape.tokens, self.shape.dim, self.shape.hidden, self.queries);
        let wide = View::rows(dim);
        reverse(
            w.fc2,
            Gradient::of(grad, dim),
            q,
            (&mut s.hidden, hidden),
            Base::Zero,
            &mut s.panel,
        );
        gelu_gradient(&kept.hidden[..q * hidden], &mut s.hidden[..q * hidden]);
        let hidden = Gradient::of(&s.hidden, hidden);
        reverse(w.fc1, hidden, q, (&mut s.normed, dim), Base::Zero, &mut s.panel);
        let rows = q * dim;
        layer_norm_gradient(
            &kept.mid[..rows],
            &self.block.norm2.gamma,
            &s.normed[..rows],
            self.eps,
            &mut grad[..rows],
        );
        reverse(
            w.proj,
            Gradient::of(grad, dim),
            q,
            (&mut s.attended, dim),
            Base::Zero,
            &mut s.panel,
        );
        self.attention().backward(
            kept.qkv,
            &s.attended,
            [&mut s.weights, &mut s.dweights],
            &mut s.dqkv,
        );
        self.pairs_gradient(kept, (da, db), wanted, s);
        if !wanted.x {
            return;
        }
        // dx̂ = dqkv·W + Σ (dqkv·B)·A, over q only where tokens attend.
        let mut part = |rows: usize, columns: Columns, base: Base<T>| {
            let g = Gradient { values: &s.dqkv, width: 3 * dim, columns };
            reverse(w.qkv, g, rows, (&mut s.normed, dim), base, &mut s.panel);
        };
        if q == n {
            part(n, whole(3 * dim), Base::Zero);
        } else {
            part(n, Columns { first: dim, count: 2 * dim }, Base::Zero);
            part(q, whole(dim), Base::Destination);
            grad[rows..n * dim].fill(T::ZERO);
        }
        let low = View::rows(self.pairs.ranks());
        for pair in self.pairs.places {
            let a = wide.after(pair.offset).of(self.pairs.a);
            let low = low.after(pair.low).of(&s.low);
            product((self.rows(pair), dim, pair.rank), wide.added_to(&mut s.normed), low, a, 1.0);
        }
        layer_norm_gradient(kept.x, &self.block.norm1.gamma, &s.normed, self.eps, grad);
    }

    /// Adds dqkvᵀ·low to dB and (dqkv·B)ᵀ·x̂ to dA, and leaves dqkv·B in the scratch.
    fn pairs_gradient(
        &self,
        kept: &Activations<T>,
        (da, db): (&mut [T], &mut [T]),
        wanted: Wanted,
        s: &mut Scratch<T>,
    ) {
        let (n, dim) = (self.shape.tokens, self.shape.dim);
        let low = View::rows(self.pairs.ranks());
        if wanted.a && !self.pairs.places.is_empty() {
            self.norm(&self.block.norm1, kept.x, n, &mut s.normed);
        }
        for pair in self.pairs.places {
            let (rows, grad) = (self.rows(pair), View::rows(3 * dim).after(pair.column));
            let (small, wide) =
                (View::rows(pair.rank).after(pair.offset), View::rows(dim).after(pair.offset));
            if wanted.b {
                let from = low.after(pair.low).of(kept.low);
                product(
                    (dim, pair.rank, rows),
                    small.added_to(db),
                    grad.t().of(&s.dqkv),
                    from,
                    1.0,
                );
            }
            if wanted.a || wanted.x {
                let (dst, b) = (low.after(pair.low).replaced(&mut s.low), small.of(self.pairs.b));
                product((rows, pair.rank, dim), dst, grad.of(&s.dqkv), b, 1.0);
            }
            if wanted.a {
                let through = low.after(pair.low).t().of(&s.low);
                let normed = View::rows(dim).of(&s.normed);
                product((pair.rank, dim, rows), wide.added_to(da), through, normed, 1.0);
            }
        }
    }
}
