//! Blocks of the diagonal in a Cholesky factorisation, and the columns below them: in parts, each by products with the inverse of its square.

use super::BLOCK;
use crate::nn::cpu::product::{Old, View, product};
use crate::nn::cpu::simd::{Float, vectorised};

/// Columns a part.
const PART: usize = 32;

/// A block of the diagonal, factored: U with A = Uᵀ·U.
#[derive(Default)]
pub(super) struct Diagonal {
    width: usize,
    /// U (width, width), with zeros below the diagonal in its square parts on the diagonal. What lies below those means nothing.
    upper: Vec<f64>,
    /// The inverses of those parts, one after the other.
    inverses: Vec<f64>,
}

/// The parts of a block of this width: where each begins, and its width.
fn parts(width: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..width).step_by(PART).map(move |first| (first, PART.min(width - first)))
}

impl Diagonal {
    /// Factors the block of these rows, which begins at column k of n, and puts Uᵀ in its place; false if it is not positive definite.
    pub fn factor(&mut self, rows: &mut [f64], (n, k): (usize, usize), width: usize) -> bool {
        self.width = width;
        self.upper.resize(width * width, 0.0);
        self.inverses.clear();
        self.inverses.resize(width * PART, 0.0);
        let upper = &mut self.upper;
        for (i, row) in rows.chunks_exact(n).enumerate() {
            (0..=i).for_each(|j| upper[j * width + i] = row[k + j]);
        }
        let all = View::rows(width);
        let mut part = [0.0; PART * PART];
        let mut known = [0.0; PART * BLOCK];
        for ((s, w), inverse) in parts(width).zip(self.inverses.chunks_mut(PART * PART)) {
            let (part, inverse, turned) = (&mut part[..w * w], &mut inverse[..w * w], View::rows(w).t());
            part.fill(0.0);
            for i in 0..w {
                part[i * w + i..][..w - i].copy_from_slice(&upper[(s + i) * width + s + i..][..w - i]);
            }
            factor_part(part, inverse, w);
            // The smallest sign that something went wrong: a diagonal that is not above zero.
            if !part.iter().step_by(w + 1).all(|v| *v > 0.0 && v.is_finite()) {
                return false;
            }
            for i in 0..w {
                upper[(s + i) * width + s..][..w].copy_from_slice(&part[i * w..][..w]);
            }
            let (rest, end) = (width - s - w, s + w);
            if rest == 0 {
                break;
            }
            // The part's rows: Uᵀ·X = A, as below the block. Then what they leave of the parts to come.
            let (above, later) = upper.split_at_mut(end * width);
            let (known, place) = (&mut known[..w * rest], all.after(s * width + end));
            for (i, row) in known.chunks_exact_mut(rest).enumerate() {
                row.copy_from_slice(&above[(s + i) * width + end..][..rest]);
            }
            let tall = View::rows(rest);
            product((w, rest, w), (&mut *above, place, Old::Dropped), (inverse, turned), (known, tall), 1.0);
            product((w, rest, w), (&mut *known, tall, Old::Kept), (part, turned), (above, place), -1.0);
            product((w, rest, w), (&mut *above, place, Old::Kept), (inverse, turned), (known, tall), 1.0);
            product((rest, rest, w), (later, all.after(end), Old::Kept), (above, place.t()), (above, place), -1.0);
        }
        for (i, row) in rows.chunks_exact_mut(n).enumerate() {
            (0..=i).for_each(|j| row[k + j] = upper[j * width + i]);
        }
        true
    }

    /// Puts X with X·U = A in place of A, the columns from k on of these rows of n numbers.
    pub fn divide(&self, rows: &mut [f64], (n, k): (usize, usize), room: &mut Vec<f64>) {
        let (count, width) = (rows.len() / n, self.width);
        let (all, own) = (View::rows(n).after(k), View::rows(width));
        room.clear();
        rows.chunks_exact(n).for_each(|row| room.extend_from_slice(&row[k..k + width]));
        for ((s, w), inverse) in parts(width).zip(self.inverses.chunks(PART * PART)) {
            let (shape, here, part) = ((count, w, w), own.after(s), own.after(s * width + s));
            let inverse = (inverse, View::rows(w));
            product((count, w, s), (&mut *room, here, Old::Kept), (rows, all), (&self.upper, here), -1.0);
            product(shape, (&mut *rows, all.after(s), Old::Dropped), (room, here), inverse, 1.0);
            // One refinement, X += (A − X·U)·U⁻¹: as exact as substitution where the part is nearly singular.
            product(shape, (&mut *room, here, Old::Kept), (rows, all.after(s)), (&self.upper, part), -1.0);
            product(shape, (&mut *rows, all.after(s), Old::Kept), (room, here), inverse, 1.0);
        }
    }
}

vectorised! {
    /// For a symmetric A (width, width), of which `upper` holds the upper triangle: puts U with A = Uᵀ·U there, and U⁻¹ into `inverse`, which must be zeros. Without a factor
    /// the diagonal gets a number that is not positive and finite.
    fn factor_part(upper: &'a mut [T], inverse: &'a mut [T], width: usize) {
        for j in 0..width {
            let (above, below) = upper.split_at_mut((j + 1) * width);
            let row = &mut above[j * width + j..];
            // The root of a negative number is NaN, and stays.
            let scale = T::ONE / row[0].sqrt();
            for v in row.iter_mut() {
                *v = *v * scale;
            }
            for (i, other) in below.chunks_exact_mut(width).enumerate() {
                let (factor, i) = (row[i + 1], i + 1);
                for (o, v) in other[j + i..].iter_mut().zip(&row[i..]) {
                    *o = *o - factor * *v;
                }
            }
        }
        for i in (0..width).rev() {
            let (above, below) = inverse.split_at_mut((i + 1) * width);
            let row = &mut above[i * width..];
            row[i] = T::ONE;
            for (k, known) in below.chunks_exact(width).enumerate() {
                let (k, factor) = (i + 1 + k, upper[i * width + i + 1 + k]);
                for (o, v) in row[k..].iter_mut().zip(&known[k..]) {
                    *o = *o - factor * *v;
                }
            }
            let scale = T::ONE / upper[i * width + i];
            for v in row[i..].iter_mut() {
                *v = *v * scale;
            }
        }
    }
}
