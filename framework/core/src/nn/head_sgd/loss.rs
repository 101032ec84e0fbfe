//! The losses of a linear head. One pass over a row of logits computes the value and the gradient.

use crate::nn::cpu::simd::{Float, lane_max, lane_sum, vectorised};
use crate::nn::ops::loss::cpu::{EPS, TEMPERATURE};

/// A loss of logits z (n, classes), a mean over rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerLoss {
    /// Cross-entropy.
    CrossEntropy,
    /// Entropy of softmax(z) + cross-entropy of z / (‖z‖ + 1e-7) / 0.1.
    EntropyNormalised,
}

impl LayerLoss {
    /// Computes the losses of the rows and replaces the logits by `scale` times the gradient of
    /// their sum. Rows are [`padded`]: numbers behind the logits do not count, and become zeros if
    /// everything is finite. `room` holds two rows.
    pub(crate) fn learn<T: Float>(
        self,
        scale: T,
        logits: &mut [T],
        (labels, classes): (&[i64], usize),
        losses: &mut [f64],
        room: &mut [T],
    ) {
        match self {
            Self::CrossEntropy => cross_entropy(logits, labels, classes, scale, losses),
            Self::EntropyNormalised => {
                entropy_normalised(
                    logits,
                    labels,
                    classes,
                    (scale, T::narrow(EPS), T::narrow(1.0 / TEMPERATURE)),
                    losses,
                    room,
                );
            }
        }
    }
}

/// The length to which a row of `width` numbers is padded: whole vector registers. A rest would
/// cost as much time as a full register.
pub(crate) const fn padded(width: usize) -> usize {
    width.next_multiple_of(16)
}

vectorised! {
    /// Per row: max + ln Σ exp(z − max) − z_label, and scale · (softmax(z) − one-hot(label)).
    fn cross_entropy(logits: &'a mut [T], labels: &'a [i64], classes: usize, scale: T, losses: &'a mut [f64]) {
        for ((row, label), loss) in logits.chunks_exact_mut(padded(classes)).zip(labels).zip(losses) {
            let max = lane_max(&row[..classes]);
            let own = row[*label as usize];
            row.iter_mut().for_each(|v| *v = (*v - max).exp());
            row[classes..].fill(T::ZERO);
            let sum = lane_sum([row], |[e]| e);
            *loss = (max - own).wide() + sum.wide().ln();
            let factor = scale / sum;
            row.iter_mut().for_each(|v| *v = *v * factor);
            row[*label as usize] = row[*label as usize] - scale;
        }
    }
}

vectorised! {
    /// Computes `LayerLoss::EntropyNormalised`. `sizes` are the scale, the ε that is added to the
    /// norm, and the length of the normalised logits. With u = z − max, e = exp(u), S = Σe and m =
    /// Σe·u / S, the entropy is ln S − m and its gradient is −e / S·(u − m). With y = z·f, f =
    /// length / (‖z‖ + ε), and g the gradient of the cross-entropy of y, the gradient of z is f·(g
    /// − z·(z·g) / (‖z‖·(‖z‖ + ε))).
    fn entropy_normalised(
        logits: &'a mut [T], labels: &'a [i64], classes: usize, sizes: (T, T, T), losses: &'a mut [f64], room: &'a mut [T]
    ) {
        let (scale, eps, length) = sizes;
        let (room, powers) = room[..2 * padded(classes)].split_at_mut(padded(classes));
        for ((row, label), loss) in logits.chunks_exact_mut(padded(classes)).zip(labels).zip(losses) {
            row[classes..].fill(T::ZERO);
            let label = *label as usize;
            let max = lane_max(&row[..classes]);
            let norm = lane_sum([row], |[z]| z * z).sqrt();
            let f = length / (norm + eps);
            // The largest logit, normalised, is the largest normalised logit, bit for bit.
            let (top, own) = (max * f, row[label] * f);
            for ((g, e), z) in room.iter_mut().zip(powers.iter_mut()).zip(&*row) {
                *g = (*z * f - top).exp();
                *e = (*z - max).exp();
            }
            // Zeros here make everything behind the logits zero.
            room[classes..].fill(T::ZERO);
            powers[classes..].fill(T::ZERO);
            let (sum, directed) = (lane_sum([powers], |[e]| e), lane_sum([room], |[g]| g));
            let inverse = T::ONE / sum;
            let mean = lane_sum([powers, row], |[e, z]| e * (z - max)) * inverse;
            *loss = (top - own).wide() + directed.wide().ln() + sum.wide().ln() - mean.wide();
            let share = scale / directed;
            room.iter_mut().for_each(|g| *g = *g * share);
            room[label] = room[label] - scale;
            // At zero, PyTorch's norm has the subgradient 0.
            let along = lane_sum([row, room], |[z, g]| z * g);
            let along = if norm == T::ZERO { T::ZERO } else { along / (norm * (norm + eps)) };
            let inverse = scale * inverse;
            for ((z, g), e) in row.iter_mut().zip(&*room).zip(&*powers) {
                *z = f * (*g - *z * along) - *e * inverse * ((*z - max) - mean);
            }
        }
    }
}
