//! Products with a frozen matrix on the right, on one thread. The matrix is cut into panels, as wide as three vector registers and as deep as fits the
//! first-level cache, and each panel meets all rows of the left matrix while it is there, a tile of the result at a time; what comes next is fetched meanwhile,
//! a few lines at a time. A panel is laid out once and for all ([`Panels`]), or copied when its turn comes ([`Right::Rows`]), which costs a tenth of the
//! speed but no memory.
//!
//! An element of the result is one sum for each depth of panel, in the order of the depth, whatever rows are computed with it: its bits depend on the
//! processor's vectors alone.

use pulp::Simd;

use super::aligned::{Aligned, LINE};
use super::float::Float;

/// Vectors side by side in a panel.
const VECTORS: usize = 3;
/// Bytes of a panel: half of a first-level cache of 48 KiB.
const PANEL_BYTES: usize = 24 * 1024;
/// The most rows of a tile, the part of the result that is in registers at once.
const ROWS: usize = 8;

/// The sizes of a panel on the processor at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sizes {
    width: usize,
    depth: usize,
}

impl Sizes {
    const fn of<S: Simd, T>() -> Self {
        // The least processor computes in single numbers, whatever their size.
        let lanes = if size_of::<S::f32s>() < size_of::<T>() { 1 } else { size_of::<S::f32s>() / size_of::<T>() };
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
pub(super) struct Panels<T> {
    values: Aligned<T>,
    sizes: Sizes,
    inputs: usize,
    outputs: usize,
}

impl<T: Float> Panels<T> {
    /// From the values of the transposed matrix (outputs, inputs), as linear layers have it.
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
                for (j, output) in weight.chunks_exact(inputs).skip(column).take(sizes.width).enumerate() {
                    for (row, v) in panel.chunks_exact_mut(sizes.width).zip(&output[first..]) {
                        row[j] = *v;
                    }
                }
            }
        }
        Self { values, sizes, inputs, outputs }
    }

    /// Where the panel at a depth and a column, both counted in panels, begins and ends; empty behind the last.
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

/// The matrix on the right of a product.
#[derive(Clone, Copy)]
pub(super) enum Right<'a, T> {
    /// Some columns (the first and how many) of a matrix in panels.
    Panels(&'a Panels<T>, (usize, usize)),
    /// A matrix of full rows of this width.
    Rows(&'a [T], usize),
}

/// Rows of a matrix: `rows` of them, one every `width` elements.
#[derive(Clone, Copy)]
pub(super) struct Left<'a, T> {
    pub rows: usize,
    pub values: &'a [T],
    pub width: usize,
}

/// What a product is added to.
#[derive(Clone, Copy)]
pub(super) enum Start<'a, T> {
    /// Nothing: the old values are overwritten.
    Zero,
    /// The destination's old values.
    Old,
    /// One row, for every row of the result.
    Row(&'a [T]),
}

/// The operations on vectors that a tile needs.
pub(super) trait Lanes<S: Simd>: Float {
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
            fn multiply_add(simd: S, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
                simd.$multiply_add(a, b, c)
            }
            #[inline(always)]
            fn sum(simd: S, a: Self::Vector, b: Self::Vector) -> Self::Vector {
                simd.$add(a, b)
            }
        }
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
    };
}
lanes!(f32, f32s, splat_f32s, mul_add_e_f32s, add_f32s);
lanes!(f64, f64s, splat_f64s, mul_add_e_f64s, add_f64s);

/// A type that products with panels exist for.
pub(super) trait Multiplied: Float {
    fn multiply(job: Job<Self>);
}

/// A product with checked sizes.
pub(super) struct Job<'a, T> {
    left: Left<'a, T>,
    right: Right<'a, T>,
    depth: usize,
    out: &'a mut [T],
    out_width: usize,
    start: Start<'a, T>,
    room: &'a mut Aligned<T>,
}

/// out (rows, columns), a row every `out.1` elements, = start + left (rows, depth) · right (depth, columns). `room` is for the panels of a matrix that is not laid
/// out in them.
pub(super) fn multiply<T: Multiplied>(
    left: Left<T>,
    right: Right<T>,
    depth: usize,
    (out, out_width, start): (&mut [T], usize, Start<T>),
    room: &mut Aligned<T>,
) {
    let job = Job { left, right, depth, out, out_width, start, room };
    if job.has_work() {
        T::multiply(job);
    }
}

impl<T> Job<'_, T> {
    /// Whether there is anything to do; panics if a part of it is too small.
    fn has_work(&self) -> bool {
        let Self { left, right, depth, out, out_width, start, .. } = self;
        let (columns, enough) = match right {
            Right::Panels(panels, (first, columns)) => (*columns, first + columns <= panels.outputs && *depth == panels.inputs),
            Right::Rows(values, width) => (*width, depth * width <= values.len()),
        };
        assert!(enough, "the matrix on the right is too small");
        if left.rows == 0 || columns == 0 || *depth == 0 {
            debug_assert!(*depth > 0 || matches!(start, Start::Old), "a sum of nothing would have to fill the destination");
            return false;
        }
        let reach = |width: usize, columns: usize| (left.rows - 1) * width + columns;
        let inside = reach(left.width, *depth) <= left.values.len() && reach(*out_width, columns) <= out.len();
        assert!(inside, "a matrix reaches out of its slice");
        assert!(!matches!(start, Start::Row(row) if row.len() < columns), "what the product is added to is too small");
        true
    }
}

/// The second-level cache, as [`prefetch`] takes it, and the first.
const FAR: bool = true;
const NEAR: bool = false;

#[inline(always)]
fn prefetch<const CACHE: bool, T>(at: *const T) {
    // SAFETY: fetching ahead reads nothing as far as the program can tell, at any address.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        if CACHE == FAR { _mm_prefetch::<_MM_HINT_T1>(at.cast()) } else { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// The rows of the panel that is next, on their way to the second-level cache: some vectors in each stretch of a tile, so that nothing has to wait for them.
#[derive(Clone, Copy)]
struct Ahead<T> {
    row: *const T,
    /// From one row to the next.
    step: usize,
    vector: usize,
    /// How many vectors are fetched in a stretch.
    each: usize,
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
struct Tile<T> {
    depth: usize,
    x: *const T,
    x_width: usize,
    /// The rows of the tile after this one.
    next_x: *const T,
    panel: *const T,
    out: *mut T,
    out_width: usize,
    /// Whether the result is added to rows, and where they are.
    add: bool,
    base: *const T,
    base_width: usize,
}

/// So many steps of the depth are one stretch of a tile.
const STRETCH: usize = 8;

impl<T: Float> Tile<T> {
    /// # Safety
    /// x has R rows of `depth` elements, the panel `depth` rows of its width, and out and base R rows of a panel's width.
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
                let right: [T::Vector; VECTORS] = std::array::from_fn(|v| panel.add(v * lanes).cast::<T::Vector>().read_unaligned());
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
                // Three lines of the result too: all of them in R stretches.
                for v in 0..VECTORS {
                    prefetch::<NEAR, _>(self.out.wrapping_add(stretch % R * self.out_width + v * lanes));
                }
                for row in 0..R.div_ceil(2) {
                    let row = row + stretch % 2 * R.div_ceil(2);
                    prefetch::<NEAR, _>(self.next_x.wrapping_add(row * self.x_width + stretch * STRETCH));
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
                        T::sum(simd, self.base.add(row * self.base_width + v * lanes).cast::<T::Vector>().read_unaligned(), *sum)
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
    unsafe fn rows<S: Simd>(self, simd: S, rows: usize, ahead: &mut Ahead<T>)
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
unsafe fn copy<S: Simd, T: Lanes<S>>(mut from: *const T, width: usize, mut to: *mut T, depth: usize) {
    let lanes = size_of::<T::Vector>() / size_of::<T>();
    for _ in 0..depth {
        for v in 0..VECTORS {
            // SAFETY: the caller's.
            unsafe { to.add(v * lanes).cast::<T::Vector>().write_unaligned(from.add(v * lanes).cast::<T::Vector>().read_unaligned()) };
        }
        (from, to) = (from.wrapping_add(width), to.wrapping_add(VECTORS * lanes));
    }
}

/// How many rows a tile has: half as many where there are 16 registers only.
const fn most_rows<S: Simd>() -> usize {
    if S::REGISTER_COUNT < 32 { ROWS / 2 } else { ROWS }
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
        let (first, columns) = match self.right {
            Right::Panels(_, range) => range,
            Right::Rows(_, width) => (0, width),
        };
        if matches!(self.right, Right::Rows(..)) && self.room.len() < sizes.width * sizes.depth {
            *self.room = Aligned::new(sizes.width * sizes.depth);
        }
        let (from, to) = (first / sizes.width, (first + columns).div_ceil(sizes.width));
        let tiles = self.left.rows.div_ceil(most_rows::<S>());
        let mut spare = [T::ZERO; ROWS * VECTORS * LINE / 4];
        for (top, column) in (0..self.depth.div_ceil(sizes.depth)).flat_map(|top| (from..to).map(move |column| (top, column))) {
            let start = top * sizes.depth;
            let depth = sizes.depth.min(self.depth - start);
            let begin = if top > 0 { Start::Old } else { self.start };
            // The columns of the panel that are wanted, and where they are in the result.
            let left = (column * sizes.width).max(first);
            let right = ((column + 1) * sizes.width).min(first + columns);
            let (skip, place, width) = (left - column * sizes.width, left - first, right - left);
            let whole = width == sizes.width;
            let after = if column + 1 < to { (top, column + 1) } else { (top + 1, from) };
            let (panel, next, step) = match self.right {
                Right::Panels(panels, _) => (panels.panel((top, column)), panels.place(after), sizes.width),
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
                    (&*room, values.as_ptr().wrapping_add(after.0 * sizes.depth * row + after.1 * sizes.width), row)
                }
            };
            let each = (depth * VECTORS).div_ceil(tiles * (depth / STRETCH).max(1));
            let mut ahead = Ahead { row: next, step, vector: 0, each };
            for tile in 0..tiles {
                let (low, high) = (tile * self.left.rows / tiles, (tile + 1) * self.left.rows / tiles);
                let x = &self.left.values[low * self.left.width + start..];
                let out = &mut self.out[low * self.out_width + place..];
                // One pointer to the result, through which its old values are read too.
                let to = out.as_mut_ptr();
                let (base, base_width) = match begin {
                    Start::Row(row) => (row[place..].as_ptr(), 0),
                    Start::Zero | Start::Old => (to.cast_const(), self.out_width),
                };
                let tile = Tile {
                    depth,
                    x: x.as_ptr(),
                    x_width: self.left.width,
                    next_x: x.as_ptr().wrapping_add((high - low) * self.left.width),
                    panel: panel.as_ptr(),
                    out: if whole { to } else { spare.as_mut_ptr() },
                    out_width: if whole { self.out_width } else { sizes.width },
                    add: whole && !matches!(begin, Start::Zero),
                    base,
                    base_width,
                };
                // SAFETY: `multiply` has checked that the rows are inside the slices; a tile of part of a panel goes to `spare`, which is as large as any.
                unsafe { tile.rows(simd, high - low, &mut ahead) };
                if !whole {
                    for (r, from) in spare.chunks_exact(sizes.width).take(high - low).enumerate() {
                        for (c, from) in from[skip..skip + width].iter().enumerate() {
                            let to = &mut out[r * self.out_width + c];
                            *to = match begin {
                                Start::Zero => *from,
                                Start::Old => *to + *from,
                                Start::Row(row) => row[place + c] + *from,
                            };
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::product::{Old, View, product};

    fn numbers<T: Float>(n: usize, seed: usize) -> Vec<T> {
        (0..n).map(|i| T::narrow(((i * 7919 + seed * 104_729) % 2003) as f64 / 1000.0 - 1.0)).collect()
    }

    /// Both ways against the plain product; each row has the same bits whatever rows are beside it. Rows of x are farther apart than they are long, and no number
    /// is between them.
    fn agrees<S: Simd, T: Multiplied + Lanes<S> + std::fmt::Debug>(simd: S, tolerance: f64) {
        let mut room = Aligned::default();
        for (rows, inputs, outputs) in
            [(1, 1, 1), (5, 7, 50), (8, 128, 48), (17, 300, 97), (33, 257, 24), (2, 1100, 5), (25, 96, 192), (3, 2100, 7)]
        {
            let (mut x, weight) = (numbers::<T>(rows * (inputs + 2), 1), numbers::<T>(outputs * inputs, 2));
            x.chunks_exact_mut(inputs + 2).for_each(|row| row[inputs..].fill(T::narrow(f64::NAN)));
            let panels = Panels::of(&weight, (outputs, inputs), Sizes::of::<S, T>());
            let mut across = vec![T::ZERO; outputs * inputs];
            for (o, row) in weight.chunks_exact(inputs).enumerate() {
                row.iter().enumerate().for_each(|(i, v)| across[i * outputs + o] = *v);
            }
            for (first, columns) in [(0, outputs), (outputs / 3, outputs - outputs / 3), (outputs / 2, 1)] {
                let width = columns + 3;
                let (before, bias) = (numbers::<T>(rows * width, 3), numbers::<T>(columns, 5));
                for start in [Start::Zero, Start::Old, Start::Row(&bias)] {
                    let mut expected = before.clone();
                    for row in expected.chunks_exact_mut(width) {
                        match start {
                            Start::Zero => row[..columns].fill(T::ZERO),
                            Start::Old => {}
                            Start::Row(bias) => row[..columns].copy_from_slice(bias),
                        }
                    }
                    let b = (across.as_slice(), View::rows(outputs).after(first));
                    product((rows, columns, inputs), (&mut expected, View::rows(width), Old::Kept), (&x, View::rows(inputs + 2)), b, 1.0);
                    let mut multiplied = |rows: std::ops::Range<usize>, right: Right<T>, out: &mut [T]| {
                        let left = Left { rows: rows.len(), values: &x[rows.start * (inputs + 2)..], width: inputs + 2 };
                        let out = &mut out[rows.start * width..];
                        let job = Job { left, right, depth: inputs, out, out_width: width, start, room: &mut room };
                        assert!(job.has_work());
                        job.run(simd);
                    };
                    let panels = Right::Panels(&panels, (first, columns));
                    let mut found = before.clone();
                    multiplied(0..rows, panels, &mut found);
                    for (f, e) in found.iter().zip(&expected) {
                        let (f, e) = (f.wide(), e.wide());
                        let near = (f - e).abs() < tolerance * (1.0 + inputs as f64);
                        assert!(near, "{rows} {inputs} {outputs} {first} {columns}: {f}, not {e}");
                    }
                    let mut alone = before.clone();
                    (0..rows).for_each(|row| multiplied(row..row + 1, panels, &mut alone));
                    assert_eq!(alone, found, "bits of a row by itself");
                    if first == 0 {
                        let mut rowwise = before.clone();
                        multiplied(0..rows, Right::Rows(&across, outputs), &mut rowwise);
                        assert_eq!(rowwise, found, "bits of a matrix that is not in panels");
                    }
                }
            }
        }
    }

    /// On all kinds of vectors that this processor has: those without too.
    #[test]
    fn agrees_with_the_plain_product() {
        struct Here;
        impl pulp::WithSimd for Here {
            type Output = ();
            fn with_simd<S: Simd>(self, simd: S) {
                agrees::<S, f32>(simd, 1e-6);
                agrees::<S, f64>(simd, 2e-15);
            }
        }
        use pulp::WithSimd;
        pulp::Arch::new().dispatch(Here);
        Here.with_simd(pulp::Scalar::new());
        #[cfg(target_arch = "x86_64")]
        if let Some(v3) = pulp::x86::V3::try_new() {
            Here.with_simd(v3);
        }
    }

    #[test]
    #[should_panic(expected = "reaches out of its slice")]
    fn refuses_rows_that_are_not_there() {
        let panels = Panels::transposed(&[1f32; 6], (2, 3));
        let left = Left { rows: 2, values: &[0.0; 5], width: 3 };
        multiply(left, Right::Panels(&panels, (0, 2)), 3, (&mut [0.0; 4], 2, Start::Zero), &mut Aligned::default());
    }
}
