//! A tile of a product: some rows of x times a panel. The sums stay in registers, and the next data
//! are prefetched into the caches.

use pulp::Simd;

use crate::nn::cpu::simd::Float;

/// Vectors side by side in a panel.
pub(super) const VECTORS: usize = 3;
/// The most rows of a tile, the part of the result that is in registers at once.
pub(super) const ROWS: usize = 8;

/// The number of steps along the depth per stretch of a tile.
pub(super) const STRETCH: usize = 8;

/// The operations on vectors that a tile needs.
pub(crate) trait Lanes<S: Simd>: Float {
    type Vector: Copy;
    fn splat(simd: S, value: Self) -> Self::Vector;
    /// a·b + c.
    fn multiply_add(simd: S, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    fn sum(simd: S, a: Self::Vector, b: Self::Vector) -> Self::Vector;
}

macro_rules! lanes {
    ($t:ident, $vector:ident, $splat:ident, $multiply_add:ident, $add:ident) => {
        impl<S: Simd> Lanes<S> for $t {
            type Vector = S::$vector;
            #[inline(always)]
            fn splat(simd: S, value: Self) -> Self::Vector {
                simd.$splat(value)
            }
            #[inline(always)]
            fn multiply_add(
                simd: S,
                a: Self::Vector,
                b: Self::Vector,
                c: Self::Vector,
            ) -> Self::Vector {
                simd.$multiply_add(a, b, c)
            }
            #[inline(always)]
            fn sum(simd: S, a: Self::Vector, b: Self::Vector) -> Self::Vector {
                simd.$add(a, b)
            }
        }
    };
}
lanes!(f32, f32s, splat_f32s, mul_add_e_f32s, add_f32s);
lanes!(f64, f64s, splat_f64s, mul_add_e_f64s, add_f64s);

/// The caches that [`prefetch`] fetches into: the second level, and the first.
const FAR: bool = true;
const NEAR: bool = false;

#[inline(always)]
fn prefetch<const CACHE: bool, T>(at: *const T) {
    // SAFETY: fetching ahead reads nothing as far as the program can tell, at any address.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        if CACHE == FAR {
            _mm_prefetch::<_MM_HINT_T1>(at.cast())
        } else {
            _mm_prefetch::<_MM_HINT_T0>(at.cast())
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// The next panel, which is prefetched into the second-level cache. Each stretch of a tile fetches
/// some vectors of it, so that no later product waits for them.
#[derive(Clone, Copy)]
pub(super) struct Ahead<T> {
    pub row: *const T,
    /// The distance from one row to the next.
    pub step: usize,
    pub vector: usize,
    /// How many vectors are fetched in a stretch.
    pub each: usize,
}

impl<T> Ahead<T> {
    #[inline(always)]
    fn fetch(&mut self, lanes: usize) {
        for _ in 0..self.each {
            prefetch::<FAR, _>(self.row.wrapping_add(self.vector * lanes));
            self.vector += 1;
            if self.vector == VECTORS {
                (self.row, self.vector) = (self.row.wrapping_add(self.step), 0);
            }
        }
    }
}

/// Where a tile's operands are: rows of x, the panel, rows of the result.
#[derive(Clone, Copy)]
pub(super) struct Tile<T> {
    pub depth: usize,
    pub x: *const T,
    pub x_width: usize,
    /// The rows of the tile after this one.
    pub next_x: *const T,
    pub panel: *const T,
    pub out: *mut T,
    pub out_width: usize,
    /// Whether the result is added to rows, and where they are.
    pub add: bool,
    pub base: *const T,
    pub base_width: usize,
}

impl<T: Float> Tile<T> {
    /// # Safety
    /// x has R rows of `depth` elements, the panel `depth` rows of its width, and out and base R
    /// rows of a panel's width.
    #[inline(always)]
    unsafe fn run<S: Simd, const R: usize>(self, simd: S, ahead: &mut Ahead<T>)
    where
        T: Lanes<S>,
    {
        let lanes = size_of::<T::Vector>() / size_of::<T>();
        let zero = T::splat(simd, T::ZERO);
        let mut sums = [[zero; VECTORS]; R];
        let (mut x, mut panel) = (self.x, self.panel);
        // SAFETY: the caller's.
        unsafe {
            let mut step = |sums: &mut [[T::Vector; VECTORS]; R]| {
                let right: [T::Vector; VECTORS] = std::array::from_fn(|v| {
                    panel.add(v * lanes).cast::<T::Vector>().read_unaligned()
                });
                for (row, sums) in sums.iter_mut().enumerate() {
                    let left = T::splat(simd, *x.add(row * self.x_width));
                    for (sum, right) in sums.iter_mut().zip(right) {
                        *sum = T::multiply_add(simd, left, right, *sum);
                    }
                }
                x = x.add(1);
                panel = panel.add(VECTORS * lanes);
            };
            for stretch in 0..self.depth / STRETCH {
                ahead.fetch(lanes);
                // Each stretch also fetches three lines of the result; R stretches fetch them all.
                for v in 0..VECTORS {
                    prefetch::<NEAR, _>(
                        self.out.wrapping_add(stretch % R * self.out_width + v * lanes),
                    );
                }
                for row in 0..R.div_ceil(2) {
                    let row = row + stretch % 2 * R.div_ceil(2);
                    prefetch::<NEAR, _>(
                        self.next_x.wrapping_add(row * self.x_width + stretch * STRETCH),
                    );
                }
                for _ in 0..STRETCH {
                    step(&mut sums);
                }
            }
            for _ in 0..self.depth % STRETCH {
                step(&mut sums);
            }
            for (row, sums) in sums.iter().enumerate() {
                for (v, sum) in sums.iter().enumerate() {
                    let place = row * self.out_width + v * lanes;
                    let value = if self.add {
                        T::sum(
                            simd,
                            self.base
                                .add(row * self.base_width + v * lanes)
                                .cast::<T::Vector>()
                                .read_unaligned(),
                            *sum,
                        )
                    } else {
                        *sum
                    };
                    self.out.add(place).cast::<T::Vector>().write_unaligned(value);
                }
            }
        }
    }

    /// # Safety
    /// As [`Tile::run`] with `rows` rows, of which there are at most [`ROWS`].
    #[inline(always)]
    pub unsafe fn rows<S: Simd>(self, simd: S, rows: usize, ahead: &mut Ahead<T>)
    where
        T: Lanes<S>,
    {
        // SAFETY: the caller's.
        unsafe {
            match rows {
                1 => self.run::<S, 1>(simd, ahead),
                2 => self.run::<S, 2>(simd, ahead),
                3 => self.run::<S, 3>(simd, ahead),
                4 => self.run::<S, 4>(simd, ahead),
                5 => self.run::<S, 5>(simd, ahead),
                6 => self.run::<S, 6>(simd, ahead),
                7 => self.run::<S, 7>(simd, ahead),
                8 => self.run::<S, 8>(simd, ahead),
                _ => unreachable!("a tile of {rows} rows"),
            }
        }
    }
}

/// Copies a panel out of rows of `width`.
///
/// # Safety
/// `from` has `depth` rows of a panel's width, `to` room for them.
#[inline(always)]
pub(super) unsafe fn copy<S: Simd, T: Lanes<S>>(
    mut from: *const T,
    width: usize,
    mut to: *mut T,
    depth: usize,
) {
    let lanes = size_of::<T::Vector>() / size_of::<T>();
    for _ in 0..depth {
        for v in 0..VECTORS {
            // SAFETY: the caller's.
            unsafe {
                to.add(v * lanes)
                    .cast::<T::Vector>()
                    .write_unaligned(from.add(v * lanes).cast::<T::Vector>().read_unaligned())
            };
        }
        (from, to) = (from.wrapping_add(width), to.wrapping_add(VECTORS * lanes));
    }
}

/// The number of rows per tile. With 16 registers instead of 32 it is half as large.
pub(super) const fn most_rows<S: Simd>() -> usize {
    if S::REGISTER_COUNT < 32 { ROWS / 2 } else { ROWS }
}
