//! Layer norm, softmax and GELU with their gradients, row by row on one thread.

use crate::nn::cpu::simd::{Float, lane_max, lane_sum, vectorised};

/// Mean and 1/√(variance + ε) of a row.
#[inline(always)]
fn moments<T: Float>(row: &[T], eps: T) -> (T, T) {
    let n = T::narrow(row.len() as f64);
    let mean = lane_sum([row], |[v]| v) / n;
    let variance = lane_sum([row], |[v]| (v - mean) * (v - mean)) / n;
    (mean, T::ONE / (variance + eps).sqrt())
}

vectorised! {
    /// out = (x − mean) / √(variance + ε) · γ + β for each row of x, as wide as γ.
    fn layer_norm(x: &'a [T], gamma: &'a [T], beta: &'a [T], eps: f64, out: &'a mut [T]) {
        for (row, out) in x.chunks_exact(gamma.len()).zip(out.chunks_exact_mut(gamma.len())) {
            let (mean, inverse) = moments(row, T::narrow(eps));
            for (((o, v), g), b) in out.iter_mut().zip(row).zip(gamma).zip(beta) {
                *o = (*v - mean) * inverse * *g + *b;
            }
        }
    }
}

vectorised! {
    /// dx += (g·γ − mean(g·γ) − x̂·mean(g·γ·x̂)) / σ for each row, g being the gradient of the
    /// norm's output.
    fn layer_norm_gradient(x: &'a [T], gamma: &'a [T], grad: &'a [T], eps: f64, dx: &'a mut [T]) {
        let (dim, n) = (gamma.len(), T::narrow(gamma.len() as f64));
        for ((row, grad), dx) in x.chunks_exact(dim).zip(grad.chunks_exact(dim)).zip(dx.chunks_exact_mut(dim)) {
            let (mean, inverse) = moments(row, T::narrow(eps));
            let sum = lane_sum([grad, gamma], |[g, c]| g * c) / n;
            let dot = lane_sum([grad, gamma, row], |[g, c, v]| g * c * ((v - mean) * inverse)) / n;
            for (((d, v), g), c) in dx.iter_mut().zip(row).zip(grad).zip(gamma) {
                *d += (*g * *c - sum - (*v - mean) * inverse * dot) * inverse;
            }
        }
    }
}

vectorised! {
    /// Softmax of each row of `width` values, in place.
    fn softmax(values: &'a mut [T], width: usize) {
        for row in values.chunks_exact_mut(width) {
            let max = lane_max(row);
            for v in row.iter_mut() {
                *v = (*v - max).exp();
            }
            let inverse = T::ONE / lane_sum([row], |[v]| v);
            for v in row.iter_mut() {
                *v = *v * inverse;
            }
        }
    }
}

vectorised! {
    /// Replaces the gradient g of a softmax's output by that of its input, p·(g − Σ g·p), for each
    /// row of `width` weights p.
    fn softmax_gradient(weights: &'a [T], grad: &'a mut [T], width: usize) {
        for (p, g) in weights.chunks_exact(width).zip(grad.chunks_exact_mut(width)) {
            let dot = lane_sum([g, p], |[g, p]| g * p);
            for (g, p) in g.iter_mut().zip(p) {
                *g = *p * (*g - dot);
            }
        }
    }
}

vectorised! {
    /// out = x·Φ(x).
    fn gelu(x: &'a [T], out: &'a mut [T]) {
        for (o, v) in out.iter_mut().zip(x) {
            *o = *v * v.normal().0;
        }
    }
}

vectorised! {
    /// grad ·= Φ(x) + x·φ(x).
    fn gelu_gradient(x: &'a [T], grad: &'a mut [T]) {
        for (g, v) in grad.iter_mut().zip(x) {
            let (cdf, pdf) = v.normal();
            *g = *g * (cdf + *v * pdf);
        }
    }
}
