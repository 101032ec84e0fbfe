//! Multi-head attention of one image on one thread, forward and backward.

use crate::nn::cpu::product::{View, product};
use crate::nn::cpu::rowwise::{softmax, softmax_gradient};
use crate::nn::cpu::simd::Float;

/// The sizes of one image's attention. The first `queries` tokens attend to all `tokens`; the heads
/// share the width `dim`.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
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

    /// Computes the attention weights (queries, tokens) of a head into `p`.
    fn weights<T: Float>(self, qkv: &[T], head: usize, p: &mut [T]) {
        let (m, n, [q, k, _]) = (self.queries, self.tokens, self.qkv(head));
        let dst = View::rows(n).replaced(p);
        product((m, n, self.width()), dst, q.of(qkv), k.t().of(qkv), self.scale());
        softmax(&mut p[..m * n], n);
    }

    /// Computes softmax(q·kᵀ/√width)·v of an image's qkv (tokens, 3·dim) into `out` (queries, dim).
    /// `p` has room for (queries, tokens).
    pub fn forward<T: Float>(self, qkv: &[T], p: &mut [T], out: &mut [T]) {
        for head in 0..self.heads {
            self.weights(qkv, head, p);
            let size = (self.queries, self.width(), self.tokens);
            let (weights, v) = (View::rows(self.tokens).of(p), self.qkv(head)[2].of(qkv));
            product(size, self.out(head).replaced(out), weights, v, 1.0);
        }
    }

    /// Computes the gradient of qkv from that of the output into `dqkv` (tokens, 3·dim). The part
    /// of q for tokens that do not attend stays as it is. The softmax is computed again. `p` and
    /// `dp` have room for (queries, tokens).
    pub fn backward<T: Float>(self, qkv: &[T], grad: &[T], [p, dp]: [&mut [T]; 2], dqkv: &mut [T]) {
        let (m, n, w, plain) = (self.queries, self.tokens, self.width(), View::rows(self.tokens));
        for head in 0..self.heads {
            let ([q, k, v], o) = (self.qkv(head), self.out(head));
            self.weights(qkv, head, p);
            product((n, w, m), v.replaced(dqkv), plain.t().of(p), o.of(grad), 1.0);
            product((m, n, w), plain.replaced(dp), o.of(grad), v.t().of(qkv), 1.0);
            softmax_gradient(&p[..m * n], &mut dp[..m * n], n);
            product((m, w, n), q.replaced(dqkv), plain.of(dp), k.of(qkv), self.scale());
            product((n, w, m), k.replaced(dqkv), plain.t().of(dp), q.of(qkv), self.scale());
        }
    }
}
