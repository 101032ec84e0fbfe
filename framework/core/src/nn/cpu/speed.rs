//! The speed of single matrix products, for `cilbench bench products`.

use std::time::Instant;

use crate::nn::cpu::aligned::Aligned;
use crate::nn::cpu::panels::{Base, Columns, Job, Left, Panels, Right, multiply};
use crate::nn::cpu::product::{View, product};

/// The number of timed rounds, of which the fastest counts, and the floating-point operations per
/// round.
const ROUNDS: usize = 10;
const WORK: f64 = 4e8;

/// A product out (m, n) = left (m, k) · right (k, n) in f32.
#[derive(Debug, Clone, Copy)]
pub enum Product {
    /// A product of strided matrices. The strides of an operand are the distances from one row to
    /// the next and from one column to the next.
    Strided {
        /// The strides of the left matrix.
        left: [usize; 2],
        /// The strides of the right matrix.
        right: [usize; 2],
        /// The distance from one row of the result to the next.
        out: usize,
    },
    /// A product with a frozen weight in panels, as in the forward pass of the trunk.
    LaidOut,
    /// A product with a frozen weight that is not in panels, as in the backward pass.
    Frozen,
}

impl Product {
    /// Measures a product of (m, n, k) on this thread, in floating-point operations per second.
    ///
    /// # Panics
    /// If a size is 0.
    pub fn speed(self, (m, n, k): (usize, usize, usize)) -> f64 {
        let reach = |rows: usize, columns: usize, [row, column]: [usize; 2]| {
            (rows - 1) * row + (columns - 1) * column + 1
        };
        let numbers = |count: usize| {
            (0..count).map(|i| (i * 7919 % 2003) as f32 / 1000.0 - 1.0).collect::<Vec<f32>>()
        };
        let (left, right, width) = match self {
            Self::Strided { left, right, out } => (reach(m, k, left), reach(k, n, right), out),
            Self::LaidOut | Self::Frozen => (m * k, k * n, n),
        };
        let (a, b, mut out) = (numbers(left), numbers(right), vec![0f32; reach(m, n, [width, 1])]);
        let panels = matches!(self, Self::LaidOut).then(|| Panels::transposed(&b, (n, k)));
        let mut room = Aligned::default();
        let mut once = || match (self, &panels) {
            (Self::Strided { left, right, out: width }, _) => {
                let view = |[row, column]: [usize; 2]| View { start: 0, row, column };
                let dst = View::rows(width).replaced(&mut out);
                product((m, n, k), dst, view(left).of(&a), view(right).of(&b), 1.0);
            }
            (_, panels) => {
                let columns = Columns { first: 0, count: n };
                let right =
                    panels.as_ref().map_or(Right::Rows(&b, n), |p| Right::Panels(p, columns));
                let (left, base, room) =
                    (Left { rows: m, values: &a, width: k }, Base::Zero, &mut room);
                multiply(Job { left, right, depth: k, out: &mut out, out_width: n, base, room });
            }
        };
        once();
        let work = 2.0 * (m * n * k) as f64;
        let times = (WORK / work).ceil() as usize;
        let mut best = f64::INFINITY;
        for _ in 0..ROUNDS {
            let began = Instant::now();
            (0..times).for_each(|_| once());
            best = best.min(began.elapsed().as_secs_f64());
        }
        std::hint::black_box(&out);
        work * times as f64 / best
    }
}
