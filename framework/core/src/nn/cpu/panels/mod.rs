//! Products with a frozen matrix on the right, on one thread. The matrix is cut into panels that
//! are as wide as three vector registers and as deep as the first-level cache allows. Each panel is
//! multiplied with all rows of the left matrix while it is in that cache, one tile of the result at
//! a time, and the next panel is prefetched meanwhile. Panels are laid out once ([`Panels`]), or
//! copied when they are needed ([`Right::Rows`]), which costs a tenth of the speed but no memory.
//!
//! An element of the result is a sum over the depth in a fixed order, whatever other rows are
//! computed with it. Its bits depend on the vectors of the processor alone.

mod tile;

use pulp::Simd;

use crate::nn::cpu::aligned::{Aligned, LINE};
use crate::nn::cpu::simd::Float;
use tile::{Ahead, Lanes, ROWS, STRETCH, Tile, VECTORS, copy, most_rows};

/// Bytes of a panel: half of a first-level cache of 48 KiB.
const PANEL_BYTES: usize = 24 * 1024;
/// The sizes of a panel on this processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sizes {
    width: usize,
    depth: usize,
}

impl Sizes {
    const fn of<S: Simd, T>() -> Self {
        // Without vectors, the processor computes one number at a time, whatever its size.
        let lanes = if size_of::<S::f32s>() < size_of::<T>() {
            1
        } else {
            size_of::<S::f32s>() / size_of::<T>()
        };
        let width = VECTORS * lanes;
        Self { width, depth: PANEL_BYTES / size_of::<T>() / width }
    }

    fn here<T: Float>() -> Self {
        struct Here<T>(std::marker::PhantomData<T>);
        impl<T> pulp::WithSimd for Here<T> {
            type Output = Sizes;
            #[inline(always)]
            fn with_simd<S: Simd>(self, _: S) -> Sizes {
                Sizes::of::<S, T>()
            }
        }
        pulp::Arch::new().dispatch(Here(std::marker::PhantomData::<T>))
    }
}

/// A matrix (inputs, outputs) in panels, those of the first rows first.
pub(crate) struct Panels<T> {
    values: Aligned<T>,
    sizes: Sizes,
    inputs: usize,
    outputs: usize,
}

impl<T: Float> Panels<T> {
    /// Lays out the transpose of a matrix (outputs, inputs), the form in which linear layers store
    /// their weights.
    pub fn transposed(weight: &[T], shape: (usize, usize)) -> Self {
        Self::of(weight, shape, Sizes::here::<T>())
    }

    fn of(weight: &[T], (outputs, inputs): (usize, usize), sizes: Sizes) -> Self {
        let padded = outputs.next_multiple_of(sizes.width);
        let mut values = Aligned::new(padded * inputs);
        let mut panels = values.values_mut();
        for first in (0..inputs).step_by(sizes.depth) {
            let depth = sizes.depth.min(inputs - first);
            for column in (0..outputs).step_by(sizes.width) {
                let (panel, rest) = panels.split_at_mut(depth * sizes.width);
                panels = rest;
                for (j, output) in
                    weight.chunks_exact(inputs).skip(column).take(sizes.width).enumerate()
                {
                    for (row, v) in panel.chunks_exact_mut(sizes.width).zip(&output[first..]) {
                        row[j] = *v;
                    }
                }
            }
        }
        Self { values, sizes, inputs, outputs }
    }

    /// The range of the panel at a depth and a column, both counted in panels. It is empty behind
    /// the last panel.
    fn span(&self, (top, column): (usize, usize)) -> std::ops::Range<usize> {
        let Sizes { width, depth } = self.sizes;
        let here = depth.min(self.inputs.saturating_sub(top * depth));
        let start = top * depth * self.outputs.next_multiple_of(width) + column * here * width;
        start..start + here * width
    }

    fn panel(&self, place: (usize, usize)) -> &[T] {
        &self.values.values()[self.span(place)]
    }

    /// Where a panel begins, to fetch it.
    fn place(&self, place: (usize, usize)) -> *const T {
        self.values.values().as_ptr().wrapping_add(self.span(place).start)
    }
}

/// Neighbouring columns of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Columns {
    pub first: usize,
    pub count: usize,
}

/// The matrix on the right of a product.
#[derive(Clone, Copy)]
pub(crate) enum Right<'a, T> {
    /// Some columns of a matrix in panels.
    Panels(&'a Panels<T>, Columns),
    /// A matrix of full rows of this width.
    Rows(&'a [T], usize),
}

/// Rows of a matrix: `rows` of them, one every `width` elements.
#[derive(Clone, Copy)]
pub(crate) struct Left<'a, T> {
    pub rows: usize,
    pub values: &'a [T],
    pub width: usize,
}

/// What a product is added to before it is stored.
#[derive(Clone, Copy)]
pub(crate) enum Base<'a, T> {
    /// Nothing: the old values are overwritten.
    Zero,
    /// The old values of the destination.
    Destination,
    /// One row, for every row of the result.
    Row(&'a [T]),
}

macro_rules! multiplied {
    ($($t:ident),*) => {$(
        impl Multiplied for $t {
            fn multiply(job: Job<Self>) {
                struct Run<'a>(Job<'a, $t>);
                impl pulp::WithSimd for Run<'_> {
                    type Output = ();
                    #[inline(always)]
                    fn with_simd<S: Simd>(self, simd: S) {
                        self.0.run(simd);
                    }
                }
                pulp::Arch::new().dispatch(Run(job));
            }
        }
    )*};
}
multiplied!(f32, f64);

/// A type that products with panels exist for.
pub(crate) trait Multiplied: Float {
    fn multiply(job: Job<Self>);
}

/// A product: out (rows, columns) = base + left (rows, depth) · right (depth, columns).
pub(crate) struct Job<'a, T> {
    pub left: Left<'a, T>,
    pub right: Right<'a, T>,
    pub depth: usize,
    pub out: &'a mut [T],
    /// The distance from one row of the result to the next.
    pub out_width: usize,
    pub base: Base<'a, T>,
    /// Memory for a panel of a matrix that is not laid out in panels.
    pub room: &'a mut Aligned<T>,
}

/// Computes a product.
///
/// # Panics
/// If a matrix reaches out of its slice.
pub(crate) fn multiply<T: Multiplied>(job: Job<T>) {
    if job.has_work() {
        T::multiply(job);
    }
}

impl<T> Job<'_, T> {
    /// Whether there is anything to do. Panics if a matrix reaches out of its slice.
    fn has_work(&self) -> bool {
        let Self { left, right, depth, out, out_width, base, .. } = self;
        let (columns, enough) = match right {
            Right::Panels(panels, Columns { first, count }) => {
                (*count, first + count <= panels.outputs && *depth == panels.inputs)
            }
            Right::Rows(values, width) => (*width, depth * width <= values.len()),
        };
        assert!(enough, "the matrix on the right is too small");
        if left.rows == 0 || columns == 0 || *depth == 0 {
            debug_assert!(
                *depth > 0 || matches!(base, Base::Destination),
                "a sum of nothing would have to fill the destination"
            );
            return false;
        }
        let reach = |width: usize, columns: usize| (left.rows - 1) * width + columns;
        let inside = reach(left.width, *depth) <= left.values.len()
            && reach(*out_width, columns) <= out.len();
        assert!(inside, "a matrix reaches out of its slice");
        assert!(
            !matches!(base, Base::Row(row) if row.len() < columns),
            "what the product is added to is too small"
        );
        true
    }
}

impl<T: Float> Job<'_, T> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S)
    where
        T: Lanes<S>,
    {
        let sizes = const { Sizes::of::<S, T>() };
        if let Right::Panels(panels, _) = self.right {
            assert_eq!(sizes, panels.sizes, "panels of another processor");
        }
        let Columns { first, count: columns } = match self.right {
            Right::Panels(_, columns) => columns,
            Right::Rows(_, width) => Columns { first: 0, count: width },
        };
        if matches!(self.right, Right::Rows(..)) && self.room.len() < sizes.width * sizes.depth {
            *self.room = Aligned::new(sizes.width * sizes.depth);
        }
        let (from, to) = (first / sizes.width, (first + columns).div_ceil(sizes.width));
        let tiles = self.left.rows.div_ceil(most_rows::<S>());
        let mut spare = [T::ZERO; ROWS * VECTORS * LINE / 4];
        for (top, column) in (0..self.depth.div_ceil(sizes.depth))
            .flat_map(|top| (from..to).map(move |column| (top, column)))
        {
            let start = top * sizes.depth;
            let depth = sizes.depth.min(self.depth - start);
            let begin = if top > 0 { Base::Destination } else { self.base };
            // The columns of the panel that are wanted, and where they are in the result.
            let left = (column * sizes.width).max(first);
            let right = ((column + 1) * sizes.width).min(first + columns);
            let (skip, place, width) = (left - column * sizes.width, left - first, right - left);
            let whole = width == sizes.width;
            let after = if column + 1 < to { (top, column + 1) } else { (top + 1, from) };
            let (panel, next, step) = match self.right {
                Right::Panels(panels, _) => {
                    (panels.panel((top, column)), panels.place(after), sizes.width)
                }
                Right::Rows(values, row) => {
                    let room = &mut self.room.values_mut()[..depth * sizes.width];
                    let from = &values[start * row + left..(start + depth - 1) * row + right];
                    if whole {
                        // SAFETY: `depth` rows of a panel's width are inside both.
                        unsafe { copy::<S, T>(from.as_ptr(), row, room.as_mut_ptr(), depth) };
                    } else {
                        for (to, from) in room.chunks_exact_mut(sizes.width).zip(from.chunks(row)) {
                            to[..width].copy_from_slice(&from[..width]);
                        }
                    }
                    (
                        &*room,
                        values
                            .as_ptr()
                            .wrapping_add(after.0 * sizes.depth * row + after.1 * sizes.width),
                        row,
                    )
                }
            };
            let each = (depth * VECTORS).div_ceil(tiles * (depth / STRETCH).max(1));
            let mut ahead = Ahead { row: next, step, vector: 0, each };
            for tile in 0..tiles {
                let (low, high) =
                    (tile * self.left.rows / tiles, (tile + 1) * self.left.rows / tiles);
                let x = &self.left.values[low * self.left.width + start..];
                let out = &mut self.out[low * self.out_width + place..];
                // The old values of the result are read through the pointer that writes it.
                let to = out.as_mut_ptr();
                let (base, base_width) = match begin {
                    Base::Row(row) => (row[place..].as_ptr(), 0),
                    Base::Zero | Base::Destination => (to.cast_const(), self.out_width),
                };
                let tile = Tile {
                    depth,
                    x: x.as_ptr(),
                    x_width: self.left.width,
                    next_x: x.as_ptr().wrapping_add((high - low) * self.left.width),
                    panel: panel.as_ptr(),
                    out: if whole { to } else { spare.as_mut_ptr() },
                    out_width: if whole { self.out_width } else { sizes.width },
                    add: whole && !matches!(begin, Base::Zero),
                    base,
                    base_width,
                };
                // SAFETY: `multiply` has checked that the rows are inside the slices; a tile of
                // part of a panel goes to `spare`, which is as large as any.
                unsafe { tile.rows(simd, high - low, &mut ahead) };
                if !whole {
                    for (r, from) in spare.chunks_exact(sizes.width).take(high - low).enumerate() {
                        for (c, from) in from[skip..skip + width].iter().enumerate() {
                            let to = &mut out[r * self.out_width + c];
                            *to = match begin {
                                Base::Zero => *from,
                                Base::Destination => *to + *from,
                                Base::Row(row) => row[place + c] + *from,
                            };
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod test;
