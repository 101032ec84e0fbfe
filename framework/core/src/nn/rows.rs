//! Row by row on the CPU: layer norm, softmax and GELU with their gradients, compiled for the processor's vectors; and the contiguous values
//! behind candle's storages.

use candle_core::{CpuStorage, Layout, Result, bail};

use super::float::{Float, lane_max, lane_sum, vectorised};

/// The contiguous values behind a storage and its layout.
pub(super) fn values<'a, T: Float>(op: &str, storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    let Some(all) = T::slice(storage) else { bail!("{op}: the inputs are not of one floating-point type") };
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&all[start..end]),
        None => bail!("{op}: the input is not contiguous"),
    }
}

/// Runs `$body` with `$t` the storage's floating-point type.
macro_rules! by_type {
    ($op:expr, $storage:expr, $t:ident => $body:expr) => {
        match $storage {
            candle_core::CpuStorage::F32(_) => {
                type $t = f32;
                $body
            }
            candle_core::CpuStorage::F64(_) => {
                type $t = f64;
                $body
            }
            _ => candle_core::bail!("{}: only f32 and f64 are implemented on the CPU", $op),
        }
    };
}
pub(super) use by_type;

/// Mean and 1/√(variance + ε) of a row.
#[inline(always)]
fn moments<T: Float>(row: &[T], eps: T) -> (T, T) {
    let n = T::narrow(row.len() as f64);
    let mean = lane_sum([row], |[v]| v) / n;
    let variance = lane_sum([row], |[v]| (v - mean) * (v - mean)) / n;
    (mean, T::ONE / (variance + eps).sqrt())
}

/// out = (x − mean) / √(variance + ε) · γ + β for each row of x, as wide as γ.
pub(super) fn layer_norm<T: Float>(x: &[T], gamma: &[T], beta: &[T], eps: f64, out: &mut [T]) {
    let eps = T::narrow(eps);
    vectorised(|| {
        for (row, out) in x.chunks_exact(gamma.len()).zip(out.chunks_exact_mut(gamma.len())) {
            let (mean, inverse) = moments(row, eps);
            for (((o, v), g), b) in out.iter_mut().zip(row).zip(gamma).zip(beta) {
                *o = (*v - mean) * inverse * *g + *b;
            }
        }
    });
}

/// dx += (g·γ − mean(g·γ) − x̂·mean(g·γ·x̂)) / σ for each row, g being the gradient of the norm's output.
pub(super) fn layer_norm_gradient<T: Float>(x: &[T], gamma: &[T], grad: &[T], eps: f64, dx: &mut [T]) {
    let (dim, eps) = (gamma.len(), T::narrow(eps));
    let n = T::narrow(dim as f64);
    vectorised(|| {
        for ((row, grad), dx) in x.chunks_exact(dim).zip(grad.chunks_exact(dim)).zip(dx.chunks_exact_mut(dim)) {
            let (mean, inverse) = moments(row, eps);
            let sum = lane_sum([grad, gamma], |[g, c]| g * c) / n;
            let dot = lane_sum([grad, gamma, row], |[g, c, v]| g * c * ((v - mean) * inverse)) / n;
            for (((d, v), g), c) in dx.iter_mut().zip(row).zip(grad).zip(gamma) {
                *d += (*g * *c - sum - (*v - mean) * inverse * dot) * inverse;
            }
        }
    });
}

/// Softmax of each row of `width` values, in place.
pub(super) fn softmax<T: Float>(rows: &mut [T], width: usize) {
    vectorised(|| {
        for row in rows.chunks_exact_mut(width) {
            let max = lane_max(row);
            for v in row.iter_mut() {
                *v = (*v - max).exp();
            }
            let inverse = T::ONE / lane_sum([row], |[v]| v);
            for v in row.iter_mut() {
                *v = *v * inverse;
            }
        }
    });
}

/// The gradient of a softmax's input, in place of that of its output `grad`: p·(g − Σ g·p) for each row of `width` weights p.
pub(super) fn softmax_gradient<T: Float>(weights: &[T], grad: &mut [T], width: usize) {
    vectorised(|| {
        for (p, g) in weights.chunks_exact(width).zip(grad.chunks_exact_mut(width)) {
            let dot = lane_sum([g, p], |[g, p]| g * p);
            for (g, p) in g.iter_mut().zip(p) {
                *g = *p * (*g - dot);
            }
        }
    });
}

/// out = x·Φ(x).
pub(super) fn gelu<T: Float>(x: &[T], out: &mut [T]) {
    vectorised(|| {
        for (o, v) in out.iter_mut().zip(x) {
            *o = *v * v.normal().0;
        }
    });
}

/// grad ·= Φ(x) + x·φ(x).
pub(super) fn gelu_gradient<T: Float>(x: &[T], grad: &mut [T]) {
    vectorised(|| {
        for (g, v) in grad.iter_mut().zip(x) {
            let (cdf, pdf) = v.normal();
            *g = *g * (cdf + *v * pdf);
        }
    });
}
